//! A Python program with confluent-kafka alone contributes and reads its receipt; sealed, with README's own lines.

use crate::on_every_cluster;
use crate::support::cluster::Cluster;
use crate::support::flow::{account, reasons, rows, shop};
use crate::support::{cache, root, skip, unique};
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};

on_every_cluster! {
    a_python_script_without_our_code_contributes_and_reads_its_receipt,
    the_python_of_the_readme_seals_what_intake_opens,
}

fn a_python_script_without_our_code_contributes_and_reads_its_receipt(cluster: &Cluster) {
    let (model, digest) = shop(cluster);
    let Some(receipt) = contributed(cluster, &model, &[]) else { return };
    assert_eq!(account(&receipt), ("admitted".into(), 12, 12, reasons([])));
    assert_eq!(receipt["contract_digest"], Value::String(digest));
}

fn the_python_of_the_readme_seals_what_intake_opens(cluster: &Cluster) {
    let (model, _) = shop(cluster);
    let key = cluster.lines(&["model", "show", &model])[0]["intake_key"].clone();
    let key = [&key["id"], &key["public"]].map(|part| part.as_str().expect("a published key").to_owned());
    let Some(receipt) = contributed(cluster, &model, &key) else { return };
    assert_eq!(account(&receipt), ("admitted".into(), 12, 12, reasons([])));
}

/// The receipt of twelve rows that Python sent; none without Python.
fn contributed(cluster: &Cluster, model: &str, key: &[String]) -> Option<Value> {
    let python = cache().join("python/bin/python");
    if !python.exists() {
        skip("a contribution from Python", "no Python environment in the cache (tests/setup.sh makes it)");
        return None;
    }
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    let shown = readme.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a Python block");
    let modules = cluster.scratch().join(unique("modules"));
    std::fs::create_dir(&modules).expect("a folder");
    std::fs::write(modules.join("seal.py"), shown).expect("a module");
    let mut child = Command::new(python)
        .arg(root().join("tests/python/submit.py"))
        .args([&cluster.broker.bootstrap, &cluster.prefix, model])
        .arg(root().join("schemas/receipt.avsc"))
        .args(key)
        .env("PYTHONPATH", modules)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let rows = Value::Array(rows(0..12)).to_string();
    child.stdin.take().expect("a pipe").write_all(rows.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).expect("JSON"))
}
