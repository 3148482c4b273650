//! From a receipt to a stranger's offline check, and contributors who sign.

use crate::on_every_cluster;
use crate::support::client::Producer;
use crate::support::cluster::Cluster;
use crate::support::flow::{account, contribute, contribution, reasons, receipt, row, rows, shop};
use crate::support::hokusai::{Finished, command, finish};
use crate::support::{cache, root, skip, unique};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

on_every_cluster! {
    a_receipt_is_attested_and_checked_offline_and_no_byte_of_it_can_be_changed,
    every_receipt_is_attested_once_and_the_log_is_in_the_tables,
    verifiers_that_are_not_ours_accept_what_is_attested_and_refuse_what_was_changed,
    a_signed_contribution_is_verified_and_forged_replayed_and_foreign_signatures_are_refused,
}

/// What a stranger has been given.
struct Given {
    folder: PathBuf,
}

impl Given {
    fn file(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }

    /// The check as somebody without brokers, keys and data of ours runs it.
    fn verify(&self, bundle: &str, more: &[&str]) -> Finished {
        let (bundle, trust) = (self.file(bundle), self.file("trust.json"));
        let mut command = command(&["verify", &bundle, "--trust", &trust, "--format", "json"]);
        command.args(more).env("HOKUSAI_DATA", self.folder.join("nothing")).env("HOKUSAI_BROKERS", "127.0.0.1:1");
        finish(command)
    }
}

/// Twelve rows, contributed and attested: what the contributor is given.
fn attested(cluster: &Cluster) -> (Given, String, Value) {
    let (model, _) = shop(cluster);
    let id = unique("attested");
    contribute(cluster, &[contribution(&id, "alice", &model, &rows(0..12))]);
    let receipt = receipt(cluster, &id);
    let given = Given { folder: cluster.scratch().join(unique("stranger")) };
    std::fs::create_dir_all(given.folder.join("receipts")).expect("a folder");
    std::fs::write(given.folder.join("receipts/mine.json"), receipt.to_string()).expect("a receipt");
    export(cluster, &id, &given.file("bundle.json"), &[]);
    cluster.lines(&["attestation", "trust", "-o", &given.file("trust.json")]);
    (given, id, receipt)
}

fn export(cluster: &Cluster, id: &str, output: &str, more: &[&str]) {
    let arguments = [&["attestation", "export", "--contribution", id, "-o", output], more].concat();
    cluster.lines(&arguments);
}

fn outcomes(found: &Value) -> Vec<(&str, &str)> {
    let checks = found["checks"].as_array().expect("checks");
    checks.iter().map(|c| (c["check"].as_str().expect("a name"), c["outcome"].as_str().expect("an outcome"))).collect()
}

fn a_receipt_is_attested_and_checked_offline_and_no_byte_of_it_can_be_changed(cluster: &Cluster) {
    let (given, id, _) = attested(cluster);
    let unbound = given.verify("bundle.json", &[]).lines(19);
    assert_eq!(unbound[0]["verdict"], "UNBOUND");
    let inputs = given.file("receipts");
    let ok = given.verify("bundle.json", &["--inputs", &inputs]).lines(0);
    let checked = outcomes(&ok[0]);
    for (check, outcome) in [
        ("statement signature", "passed"),
        ("tree head signature", "passed"),
        ("inclusion", "passed"),
        ("artefacts", "passed"),
        ("Merkle root", "passed"),
        ("witnesses", "not_checked"),
        ("rows", "not_checked"),
    ] {
        assert!(checked.contains(&(check, outcome)), "{check} is {outcome}: {checked:?}");
    }

    let bundle = std::fs::read_to_string(given.file("bundle.json")).expect("a bundle");
    for at in (0..bundle.len() - 1).step_by(97) {
        let mut changed = bundle.clone().into_bytes();
        changed[at] ^= 1;
        std::fs::write(given.file("changed.json"), &changed).expect("a file");
        let found = given.verify("changed.json", &["--inputs", &inputs]);
        // The key id beside a signature is a hint that nothing hangs on.
        let hint = bundle.find("\"keyid\":\"").expect("a key id") + 9;
        let noticed = found.code.is_some_and(|code| (10..=17).contains(&code));
        assert!(noticed || (hint..hint + 64).contains(&at), "byte {at}: {found:?}");
    }

    let mut other: Value =
        serde_json::from_slice(&std::fs::read(given.folder.join("receipts/mine.json")).expect("it")).expect("JSON");
    other["accepted"] = json!(11);
    std::fs::write(given.folder.join("receipts/mine.json"), other.to_string()).expect("a receipt");
    given.verify("bundle.json", &["--inputs", &inputs]).lines(15);

    // Its signer's key got out: from the index on at which that is said to have been, it signs nothing that counts.
    let signed: Value = serde_json::from_str(&bundle).expect("JSON");
    let keyid = signed["envelope"]["signatures"][0]["keyid"].as_str().expect("a key id");
    let (trust, revoked) = (given.file("trust.json"), given.file("revoked.json"));
    let revocation = format!("{keyid}@0");
    let revoke = ["attestation", "trust", "-o", &revoked, "--after", &trust, "--revoke", &revocation, "--publish"];
    let kept = given.file("kept.json");
    std::fs::copy(&trust, &kept).expect("a copy");
    let refresh = || cluster.lines(&["attestation", "refresh", &kept]).remove(0);
    // Anybody writes to the topic; nobody else is followed.
    let original = std::fs::read_to_string(&trust).expect("a trust root");
    let junk = ["", "{}", &original, &original.replacen("eyJ", "eyK", 1)];
    let sent = Producer::new(&cluster.broker, &[]).texts(&cluster.topic("attestations.trust"), 0, junk);
    assert!(sent.iter().all(Result::is_ok), "{sent:?}");
    assert_eq!((&refresh()["version"], std::fs::read_to_string(&kept).expect("it")), (&json!(1), original));
    assert_eq!(cluster.lines(&revoke)[0]["published"], true);
    let found = refresh();
    assert_eq!((&found["was"], &found["version"]), (&json!(1), &json!(2)), "{found}");
    assert_eq!(std::fs::read(&kept).expect("it"), std::fs::read(&revoked).expect("it"));
    let again = cluster.run(&revoke);
    assert!(again.code == Some(1) && again.err.contains("attestation refresh"), "{again:?}");
    given.verify("bundle.json", &["--trust", &kept]).lines(12);

    // The state remembers the tree head; a later bundle has to continue it.
    let state = given.file("last.ckpt");
    given.verify("bundle.json", &["--state", &state]).lines(19);
    let (model, _) = shop(cluster);
    let later = unique("later");
    contribute(cluster, &[contribution(&later, "bob", &model, &rows(0..3))]);
    receipt(cluster, &later);
    export(cluster, &later, &given.file("later.json"), &[]);
    given.verify("later.json", &["--state", &state]).lines(14);
    export(cluster, &later, &given.file("later.json"), &["--since", &state]);
    given.verify("later.json", &["--state", &state]).lines(19);
    let rolled_back = given.verify("bundle.json", &["--state", &state]).lines(14);
    let evidence = rolled_back[0]["evidence"].as_str().expect("a file of evidence");
    let heads: Value = serde_json::from_slice(&std::fs::read(evidence).expect("evidence")).expect("JSON");
    assert_eq!(heads["treeHeads"].as_array().map(Vec::len), Some(2));
    cluster.lines(&["attestation", "log", "-o", &given.file("log.jsonl")]);
    given.verify("bundle.json", &["--state", &state, "--log", &given.file("log.jsonl")]).lines(19);
    assert!(cluster.lines(&["attestation", "list", "--contribution", &id]).len() == 1);
}

fn every_receipt_is_attested_once_and_the_log_is_in_the_tables(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let id = unique("twice");
    // The same chunk twice, and a contribution that is refused: a refusal can be proven as well.
    let good = contribution(&id, "alice", &model, &rows(0..5));
    let bad = unique("refused");
    let mut wrong = row(1);
    wrong["plan"] = json!("gold");
    contribute(cluster, &[good.clone(), good, contribution(&bad, "alice", &model, &[wrong])]);
    for (id, status) in [(&id, "admitted"), (&bad, "refused")] {
        assert_eq!(receipt(cluster, id)["status"], status);
        let folder = cluster.scratch().join(unique("bundle"));
        export(cluster, id, &folder.to_string_lossy(), &[]);
        let shown = cluster.lines(&["attestation", "show", "--contribution", id]);
        let predicate = &shown[0]["statement"]["predicate"];
        assert_eq!((&predicate["status"], &predicate["contributionId"]), (&json!(status), &json!(id)));
        let text = shown[0].to_string();
        assert!(!text.contains("alice"), "a pseudonym stands for the contributor: {text}");
        let rows = cluster.sql(&format!("select leaf, statement from attestations where contribution_id = '{id}'"));
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0]["leaf"], shown[0]["leaf"]);
    }
    let leaves =
        cluster.sql("select count(*) as n, count(distinct leaf) as d, max(\"index\") + 1 as m from attestations");
    assert_eq!(
        (&leaves[0]["n"], &leaves[0]["n"]),
        (&leaves[0]["d"], &leaves[0]["m"]),
        "no leaf twice, no index left out"
    );
}

pub(super) fn python() -> Option<PathBuf> {
    let python = cache().join("python/bin/python");
    let ready = python.exists()
        && Command::new(&python)
            .args(["-c", "import securesystemslib, eth_account"])
            .output()
            .is_ok_and(|o| o.status.success());
    if !ready {
        skip("verifiers that are not ours", "no Python environment with them in the cache (tests/setup.sh makes it)");
    }
    ready.then_some(python)
}

fn verifiers_that_are_not_ours_accept_what_is_attested_and_refuse_what_was_changed(cluster: &Cluster) {
    let Some(python) = python() else { return };
    let (given, id, _) = attested(cluster);
    // A tree head from before, so that the bundle has a proof of consistency.
    given.verify("bundle.json", &["--state", &given.file("last.ckpt")]).lines(19);
    let (model, _) = shop(cluster);
    contribute(cluster, &[contribution(&unique("more"), "bob", &model, &rows(0..3))]);
    export(cluster, &id, &given.file("bundle.json"), &["--since", &given.file("last.ckpt")]);
    cluster.lines(&["attestation", "log", "-o", &given.file("log.jsonl")]);
    let files = ["bundle.json", "trust.json", "log.jsonl"].map(|name| given.file(name));
    let output = Command::new(python).arg(root().join("tests/python/attestation.py")).args(files).output();
    let output = output.expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let checked: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(checked["changed_bytes"].as_i64() > Some(100) && checked["consistency"] == true, "{checked}");
}

fn key_file(folder: &Path, name: &str, text: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    std::fs::write(&path, text).expect("a key file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("permissions");
    path.to_string_lossy().into_owned()
}

fn a_signed_contribution_is_verified_and_forged_replayed_and_foreign_signatures_are_refused(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let folder = cluster.scratch().join(unique("signed"));
    std::fs::create_dir(&folder).expect("a folder");
    // A wallet's key, made here: any 32 bytes below the curve's order are one.
    let secret = format!("{:064x}", u128::from(std::process::id()) << 64 | 0x1234_5678);
    let wallet = key_file(&folder, "wallet.key", &secret);
    let file = folder.join("rows.json");
    std::fs::write(&file, Value::Array(rows(100..108)).to_string()).expect("rows");
    let file = file.to_string_lossy();
    let submit = ["submit", &file, "--model", &model, "--sign", &wallet, "--wait"];
    let receipt_line = cluster.lines(&submit).remove(0);
    assert_eq!(
        (&receipt_line["contributor_verified"], &receipt_line["contributor_signature"]),
        (&json!(true), &json!("eip191"))
    );
    let address = receipt_line["contributor"].as_str().expect("an address").to_owned();
    assert_eq!(address.len(), 42);
    let id = receipt_line["contribution_id"].as_str().expect("an id");
    let bundle = folder.join("bundle.json");
    export(cluster, id, &bundle.to_string_lossy(), &[]);
    let shown = cluster.lines(&["attestation", "show", "--contribution", id]);
    assert_eq!(shown[0]["statement"]["predicate"]["contributor"]["payoutAddress"], json!(address));

    // The chunk as it was sent, and what others make of it.
    let sent = cluster.lines(&["watch", "contributions", "--from-beginning", "--until-end", "--plaintext"]);
    let sent = sent
        .iter()
        .map(|line| &line["value"])
        .find(|value| value["contribution_id"] == *id)
        .expect("the chunk")
        .clone();
    let altered = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut chunk = sent.clone();
        chunk["contribution_id"] = json!(unique(name));
        change(&mut chunk);
        chunk
    };
    let replayed = altered("replayed", &|_| {});
    let foreign = altered("foreign", &|chunk| chunk["contributor"] = json!("mallory"));
    let forged = altered("forged", &|chunk| {
        chunk["contributor"] = json!("0x52908400098527886e0f7030069857d2e4169ee7");
    });
    let claimed = altered("claimed", &|chunk| {
        let rows = Value::Array(rows(300..303));
        let other = contribution("", chunk["contributor"].as_str().expect("an address"), &model, &[]);
        *chunk = json!({"contribution_id": chunk["contribution_id"], "rows": rows, "contributor": other["contributor"], "model": model});
    });
    contribute(cluster, &[replayed.clone(), foreign.clone(), forged.clone(), claimed.clone()]);
    for (chunk, code) in
        [(replayed, "SIGNATURE_INVALID"), (foreign, "SIGNATURE_FOREIGN"), (forged, "SIGNATURE_INVALID")]
    {
        let refused = receipt(cluster, chunk["contribution_id"].as_str().expect("an id"));
        assert_eq!(account(&refused), ("refused".into(), 1, 0, reasons([(code, 1)])));
        assert_eq!(refused["contributor_verified"], false);
    }
    let unsigned = receipt(cluster, claimed["contribution_id"].as_str().expect("an id"));
    assert_eq!((&unsigned["status"], &unsigned["contributor_verified"]), (&json!("admitted"), &json!(false)));
    assert_eq!(unsigned["contributor"], json!(address), "whoever claims a name without a signature is not verified");

    signed_by_python(cluster, &model);
    let other = cluster.run(&["submit", &file, "--model", &model, "--contributor", "UA", "--sign", &wallet]);
    assert_eq!(other.code, Some(2), "{other:?}");
}

/// With the lines that README shows, and a wallet that is not ours.
fn signed_by_python(cluster: &Cluster, model: &str) {
    let Some(python) = python() else { return };
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    let blocks = readme.split("```python\n").skip(1).filter_map(|rest| rest.split("```").next());
    let shown = blocks.into_iter().find(|block| block.contains("def sign(")).expect("a Python block that signs");
    let id = unique("python-signed");
    let program = format!(
        "{shown}
import json, sys
wallet = Account.create()
rows = sys.stdin.read()
value = {{'contribution_id': '{id}', 'contributor': wallet.address, 'model': '{model}', 'format': 'json', 'chunk': 0, 'chunks': 1}}
value = json.dumps(sign(value, rows.encode(), wallet.key))
print(value[:-1] + ', \"rows\": ' + rows + '}}')
"
    );
    let folder = cluster.scratch().join(&id);
    std::fs::create_dir(&folder).expect("a folder");
    let input = folder.join("rows.json");
    std::fs::write(&input, Value::Array(rows(200..204)).to_string()).expect("rows");
    let output = Command::new(python).args(["-c", &program]).stdin(std::fs::File::open(&input).expect("rows")).output();
    let output = output.expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let producer = crate::support::client::Producer::new(&cluster.broker, &[]);
    crate::support::flow::contribute_bytes(cluster, &producer, None, &output.stdout);
    let receipt = receipt(cluster, &id);
    assert_eq!(account(&receipt), ("admitted".into(), 4, 4, reasons([])));
    assert_eq!(receipt["contributor_verified"], true);
}
