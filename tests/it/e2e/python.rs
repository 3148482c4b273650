//! A Python program with confluent-kafka alone contributes and reads its receipt.

use crate::on_every_cluster;
use crate::support::cluster::Cluster;
use crate::support::flow::{account, reasons, rows, shop};
use crate::support::{cache, root, skip};
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};

on_every_cluster! {
    a_python_script_without_our_code_contributes_and_reads_its_receipt,
}

fn a_python_script_without_our_code_contributes_and_reads_its_receipt(cluster: &Cluster) {
    let python = cache().join("python/bin/python");
    if !python.exists() {
        return skip("a contribution from Python", "no Python environment in the cache (tests/setup.sh makes it)");
    }
    let (model, digest) = shop(cluster);
    let mut child = Command::new(python)
        .arg(root().join("tests/python/submit.py"))
        .args([&cluster.broker.bootstrap, &cluster.prefix, &model])
        .arg(root().join("schemas/receipt.avsc"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let rows = Value::Array(rows(0..12)).to_string();
    child.stdin.take().expect("a pipe").write_all(rows.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let receipt: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(account(&receipt), ("admitted".into(), 12, 12, reasons([])));
    assert_eq!(receipt["contract_digest"], Value::String(digest));
}
