//! Near duplicates and label conflicts are remarks on a receipt, unless the contract refuses them.

use crate::on_every_cluster;
use crate::support::cluster::Cluster;
use crate::support::flow::{Receipts, account, contribute, contribution, reasons, row, rows, shop_spec};
use crate::support::unique;
use serde_json::{Value, json};

on_every_cluster! {
    what_is_a_remark_by_default_is_refused_when_the_contract_says_so,
    a_column_that_nobody_declared_refuses_its_chunk_and_the_refusal_tells_the_way_out,
}

fn changed(order: i64, name: &str, value: Value) -> Value {
    let mut changed = row(order);
    changed[name] = value;
    changed
}

fn flags(receipt: &Value) -> Vec<&str> {
    let flags = receipt["quality"]["flags"].as_array().expect("flags");
    flags.iter().map(|f| f.as_str().expect("text")).filter(|f| *f != "insufficient").collect()
}

fn what_is_a_remark_by_default_is_refused_when_the_contract_says_so(cluster: &Cluster) {
    let mut receipts = Receipts::follow(cluster);
    for refuse in [false, true] {
        let model = unique("flags");
        let lines = if refuse { "refuse: [NEAR_DUP, LABEL_CONFLICT]\n" } else { "" };
        let lines = format!("label: again\nnearDuplicates: {{columns: [order, plan]}}\n{lines}");
        cluster.apply(&model, &shop_spec(&model).replace("label: again\n", &lines));
        let (near, conflict) = (unique("near"), unique("conflict"));
        let nearly = changed(1, "note", json!("order 1 went another way"));
        contribute(cluster, &[contribution(&near, "alice", &model, &[row(1), nearly, row(2)])]);
        let receipt = receipts.of(&near);
        contribute(cluster, &[contribution(&conflict, "bob", &model, &[changed(2, "again", json!(1)), row(3)])]);
        let other = receipts.of(&conflict);
        if refuse {
            assert_eq!(account(&receipt), ("admitted".into(), 3, 2, reasons([("NEAR_DUP", 1)])));
            assert_eq!(account(&other), ("admitted".into(), 2, 1, reasons([("LABEL_CONFLICT", 1)])));
            assert_eq!((flags(&receipt), flags(&other)), (vec![], vec!["label_conflict:1"]));
        } else {
            assert_eq!(account(&receipt), ("admitted".into(), 3, 3, reasons([])));
            assert_eq!(account(&other), ("admitted".into(), 2, 2, reasons([])));
            assert_eq!((flags(&receipt), flags(&other)), (vec!["near_dup:1"], vec!["label_conflict:1"]));
        }
    }
}

fn a_column_that_nobody_declared_refuses_its_chunk_and_the_refusal_tells_the_way_out(cluster: &Cluster) {
    let model = unique("undeclared");
    let spec = shop_spec(&model);
    cluster.apply(&model, &spec);
    let mut all = rows(0..40);
    for (n, value) in all.iter_mut().enumerate() {
        value["note"] = json!(format!("undeclared{n}@example.org"));
    }
    let mut receipts = Receipts::follow(cluster);
    let id = unique("undeclared");
    contribute(cluster, &[contribution(&id, "alice", &model, &all)]);
    assert_eq!(account(&receipts.of(&id)), ("refused".into(), 40, 0, reasons([("PII_UNDECLARED", 40)])));
    let told =
        cluster.sql(&format!("select * from refusals where contribution_id = '{id}' and code = 'PII_UNDECLARED'"));
    let line = "{policy: hash, type: email_address}";
    assert!(told.len() == 1 && told[0].to_string().contains(line), "{told:?}");
    assert!(!told[0].to_string().contains("undeclared7@"), "{told:?}");
    // The line that it tells settles it.
    let settled = spec.replace(
        "name: note\n        logicalType: string\n",
        &format!("name: note\n        logicalType: string\n        pii: {line}\n"),
    );
    assert!(settled.contains(line) && settled != spec);
    cluster.apply(&model, &settled);
    let again = unique("settled");
    contribute(cluster, &[contribution(&again, "alice", &model, &all)]);
    assert_eq!(account(&receipts.of(&again)), ("admitted".into(), 40, 40, reasons([])));
}
