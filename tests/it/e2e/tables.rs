//! Tables: what SQL counts is what readers that are not ours count, and what the receipts say.

use crate::on_both_own_clusters;
use crate::support::cluster::Cluster;
use crate::support::flow::{Receipts, account, contribute, contribution, rows, shop};
use crate::support::{cache, root, skip, unique};
use serde_json::Value;
use std::process::Command;

on_both_own_clusters! {
    sql_deltalake_duckdb_and_polars_count_the_same_rows,
}

fn sql_deltalake_duckdb_and_polars_count_the_same_rows(cluster: Cluster) {
    let python = cache().join("python/bin/python");
    if !python.exists() {
        return skip("readers in Python", "no Python environment in the cache (tests/setup.sh makes it)");
    }
    let (model, _) = shop(&cluster);
    let mut receipts = Receipts::follow(&cluster);
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..5 {
        let id = unique("counted");
        let mut values = rows(round * 90..round * 90 + 100);
        values[50]["plan"] = "gold".into();
        contribute(&cluster, &[contribution(&id, &format!("contributor-{round}"), &model, &values)]);
        let (_, _, taken, not) = account(&receipts.of(&id));
        accepted += taken;
        refused += not.values().sum::<i64>();
    }
    let tables = ["rows", "receipts", "refusals", "contributions", "dead_letters", "audit"];
    let sql: Vec<i64> = tables.iter().map(|t| cluster.count(&format!("select count(*) as n from {t}"))).collect();
    assert_eq!((sql[0], sql[1], sql[2], sql[3]), (accepted, 5, refused, 5));
    let output = Command::new(python)
        .arg(root().join("tests/python/read_tables.py"))
        .arg(cluster.tables())
        .output()
        .expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let counts: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let theirs: Vec<i64> =
        tables.iter().map(|t| counts[*t].as_i64().unwrap_or_else(|| panic!("no {t} in {counts}"))).collect();
    assert_eq!(theirs, sql, "{tables:?}");
}
