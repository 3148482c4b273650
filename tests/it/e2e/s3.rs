//! The shared store on S3: workers on several machines have nothing in common but brokers, keys and a bucket.

use crate::support::broker::Kind;
use crate::support::cluster::{Cluster, Settings};
use crate::support::flow::{Receipts, account, contribute, contribution, rows, shop};
use crate::support::hokusai::{command, finish};
use crate::support::s3::{BUCKET, S3};
use crate::support::unique;

#[test]
fn two_workers_share_tables_on_s3_through_a_kill_embedded() {
    share_tables(Kind::Embedded);
}

#[test]
fn two_workers_share_tables_on_s3_through_a_kill_apache_kafka() {
    share_tables(Kind::ApacheKafka);
}

fn share_tables(kind: Kind) {
    let Some(s3) = S3::start() else { return };
    let mut environment = s3.environment(&format!("s3://{BUCKET}/tenants/acme"));
    environment.extend([("HOKUSAI_SNAPSHOT_AFTER_MIB", "0"), ("RUST_LOG", "info")].map(|(k, v)| (k.into(), v.into())));
    let Some(mut cluster) = Cluster::start(kind, &Settings { environment, more_workers: 1, ..Settings::default() })
    else {
        return;
    };
    let (model, _) = shop(&cluster);
    let mut receipts = Receipts::follow(&cluster);
    let ids: Vec<String> = (0..12).map(|_| unique("on-s3")).collect();
    let mut accepted = 0;
    for (n, id) in (0..).zip(&ids) {
        contribute(&cluster, &[contribution(id, &format!("contributor-{n}"), &model, &rows(n * 40..n * 40 + 50))]);
        if n == 5 {
            // In the middle of its work; what it holds is nobody else's on any disk.
            cluster.kill_another();
        }
        if n == 8 {
            cluster.start_another_anew();
        }
        // One after the other, so that it is known whose rows are the duplicates.
        let (status, received, taken, _) = account(&receipts.of(id));
        assert_eq!((status.as_str(), received, taken), ("admitted", 50, if n == 0 { 50 } else { 40 }), "{id}");
        accepted += taken;
    }
    let log = cluster.log_of_another();
    let fetched = |line: &str| line.contains("state fetched from a snapshot") && line.contains("dedup");
    assert!(log.lines().any(fetched), "on its empty folder it went on from a snapshot: {log}");
    let count = |table: &str| cluster.count(&format!("select count(*) as n from {table}"));
    assert_eq!((count("rows"), count("receipts"), count("contributions")), (accepted, 12, 12));
    assert_eq!(count("refusals"), 12 * 50 - accepted);
    assert_eq!(count("(select distinct \"order\", model from rows)"), accepted, "no row stands there twice");
    assert!(!cluster.data().join("store").exists(), "nothing shared is on this machine's disk");
    let found = cluster.run(&["doctor"]);
    assert!(found.out.contains("honours conditional writes"), "{found:?}");
}

#[test]
fn a_store_that_cannot_be_used_is_named_before_anything_starts() {
    let Some(s3) = S3::start() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let with = |store: &str, without: &str| {
        let mut up = command(&["up", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        up.env("HOKUSAI_DATA", folder.path().join("data"));
        up.envs(s3.environment(store).into_iter().filter(|(name, _)| !name.starts_with(without)));
        finish(up)
    };
    for (store, without, code, why) in [
        ("gs://bucket/x", "-", 2, "gs:// is unknown"),
        ("s3://there-is-no-such-bucket/x", "-", 1, "make the bucket"),
        (&format!("s3://{BUCKET}/x"), "AWS_ALLOW_HTTP", 1, "AWS_ALLOW_HTTP=true"),
    ] {
        let ended = with(store, without);
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(ended.err.contains(why) && ended.err.contains("help:"), "{store}: {ended:?}");
        assert!(!ended.err.contains("not-a-secret"), "{ended:?}");
    }
}
