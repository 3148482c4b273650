//! Which keys and which topology a command takes: the folder and the file that are given, and no others.

use crate::support::broker::Kind;
use crate::support::cluster::{Cluster, with};
use crate::support::flow::shop_spec;
use crate::support::hokusai::{Finished, Running, finish, wait_until_ready};
use crate::support::{root, unique};
use serde_json::Value;
use std::path::{Path, PathBuf};

#[test]
fn doctor_looks_at_the_keys_folder_that_is_given() {
    with(Kind::Embedded, 0, |cluster| {
        let folder = empty(cluster);
        let ring =
            std::fs::read_dir(cluster.data().join("keys")).expect("keys").flatten().map(|entry| entry.file_name());
        let ring = ring.into_iter().find(|name| name.to_string_lossy().contains("tenant-")).expect("a key ring");
        std::fs::write(folder.join(&ring), "no key ring").expect("a file");
        let keys = |arguments: &[&str]| {
            let out = cluster.run(&[&["doctor", "--format", "json"], arguments].concat()).out;
            let lines = out.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
            lines.into_iter().find(|line| line["check"] == "keys").expect("a line on keys")
        };
        assert_eq!(keys(&[])["status"], "ok");
        let damaged = keys(&["--keys", &folder.to_string_lossy()]);
        assert_eq!(damaged["status"], "wrong", "{damaged}");
        assert!(damaged["detail"].as_str().is_some_and(|d| d.contains(&*folder.to_string_lossy())), "{damaged}");
    });
}

fn empty(cluster: &Cluster) -> PathBuf {
    let folder = cluster.scratch().join(unique("folder"));
    std::fs::create_dir(&folder).expect("a folder");
    folder
}

fn apply(cluster: &Cluster, keys: &Path, data: &Path) -> Finished {
    let model = unique("shop");
    let spec = data.join(format!("{model}.yaml"));
    std::fs::write(&spec, shop_spec(&model)).expect("a specification");
    let mut command = cluster.command(&["model", "apply", &spec.to_string_lossy()]);
    command.env("HOKUSAI_DATA", data).env("HOKUSAI_KEYS", keys);
    finish(command)
}

#[test]
fn a_model_is_signed_with_the_development_key_of_the_keys_folder_that_is_given() {
    with(Kind::Embedded, 0, |cluster| {
        let (data, strange) = (empty(cluster), empty(cluster).join("keys"));
        let applied = apply(cluster, &cluster.data().join("keys"), &data);
        assert_eq!(applied.code, Some(0), "{applied:?}");
        assert!(!data.join("keys").exists(), "no other key is made");
        // A folder with keys of its own: nobody trusts them.
        let denied = apply(cluster, &strange, &data);
        assert_eq!(denied.code, Some(4), "{denied:?}");
        assert!(strange.join("operator.pem").exists() && !data.join("keys").exists());
    });
}

#[test]
fn the_other_stages_run_without_intake_and_a_topology_without_it_is_refused_at_its_line() {
    with(Kind::Embedded, 0, |cluster| {
        let (folder, prefix) = (empty(cluster), format!("{}.", unique("without")));
        let command = |arguments: &[&str]| {
            let mut command = cluster.command(arguments);
            command.env("HOKUSAI_PREFIX", &prefix).env("HOKUSAI_DATA", &folder);
            command
        };
        let made = finish(command(&["topology", "apply"]));
        assert_eq!(made.code, Some(0), "{made:?}");
        let stages = "keying,registry,dedup,receipts,warehouse";
        let worker = ["worker", "--stages", stages, "--http", "127.0.0.1:0", "--format", "json"];
        let mut worker = Running::start(command(&worker), &folder.join("worker.log"));
        wait_until_ready(&worker.http());
        let spec = folder.join("shop.yaml");
        std::fs::write(&spec, shop_spec("shop")).expect("a specification");
        let applied = finish(command(&["model", "apply", &spec.to_string_lossy()]));
        assert_eq!(applied.code, Some(0), "{applied:?}");
        let doctor = finish(command(&["doctor"]));
        assert_eq!(doctor.code, Some(0), "{doctor:?}");
        assert_eq!(worker.terminate().code(), Some(0));

        let text = std::fs::read_to_string(root().join("topology/hokusai.yaml")).expect("the topology");
        let start = text.find("  - name: intake\n").expect("intake");
        let end = text.find("  - name: dedup\n").expect("dedup");
        let file = folder.join("topology.yaml");
        std::fs::write(&file, [&text[..start], &text[end..]].concat()).expect("a topology");
        let mut refused = command(&["topology", "apply"]);
        let refused = finish({
            refused.env("HOKUSAI_TOPOLOGY", &file);
            refused
        });
        assert_eq!(refused.code, Some(2), "{refused:?}");
        let named =
            refused.err.contains("topology.yaml:") && refused.err.contains("no stage writes contributions.manifests");
        assert!(named, "{}", refused.err);
    });
}
