//! What is a remark unless the contract refuses it, and the digests of refused rows.

use serde_json::{Value, json};

use super::support::{EXAMPLE, apply, chunk, manifests, refusals, row, screened, send, task, with};
use crate::domain::contract::Spec;
use crate::stages::intake::Intake;
use crate::stages::testing::Task;

/// A task whose contract has these lines in front of its schema.
fn task_with(lines: &str) -> Task<Intake> {
    let mut task = task();
    let text = EXAMPLE.replacen("schema:\n", &format!("{lines}\nschema:\n"), 1);
    apply(&mut task, &[&Spec::parse_yaml(&text, "model.yaml").unwrap()]);
    task
}

/// Three rows whose quasi-key is the same with `age` rounded, another one, and an exact copy of the first.
fn nearly_the_same() -> Vec<Value> {
    let near = |age: i64, comment: &str| with(row(1), json!({"age": age, "comment": comment}));
    vec![near(40, "a"), near(41, "b"), near(42, "c"), near(60, "d"), near(40, "a")]
}

#[test]
fn near_duplicates_are_a_remark_by_default_and_exact_ones_none() {
    let mut task = task();
    send(&mut task, &[(None, chunk(&nearly_the_same()))]);
    let manifest = &manifests(&task)[0];
    assert_eq!((manifest.quality.valid, manifest.quality.near_duplicates, manifest.refused.len()), (5, 2, 0));
}

#[test]
fn near_duplicates_are_refused_when_the_contract_says_so() {
    let mut task = task_with("refuse: [NEAR_DUP]");
    send(&mut task, &[(None, chunk(&nearly_the_same()))]);
    let manifest = &manifests(&task)[0];
    assert_eq!((manifest.quality.valid, manifest.quality.near_duplicates), (3, 0));
    assert_eq!(manifest.refused.iter().map(|c| (c.name.as_str(), c.count)).collect::<Vec<_>>(), [("NEAR_DUP", 2)]);
    let refusals = refusals(&task);
    let told: Vec<_> =
        refusals.iter().map(|r| (r.row, r.code.as_str(), r.shape.as_str(), r.row_digest.len())).collect();
    assert_eq!(told, [(1, "NEAR_DUP", "nearly row 0", 64), (2, "NEAR_DUP", "nearly row 0", 64)]);
    assert_eq!(screened(&task).iter().map(|s| s.rows).sum::<i64>(), 3);
}

#[test]
fn a_column_that_tells_the_answer_refuses_its_chunk_or_is_dropped_and_remarked() {
    let leaking = [with(row(1), json!({"closed_at": "2024-01-01"}))];
    for (lines, code) in [("", "SCHEMA_EXTRA_COLUMN"), ("refuse: [LEAKAGE_COLUMN]", "LEAKAGE_COLUMN")] {
        for extra in ["", "extraColumns: ignore\n"] {
            if lines.is_empty() && !extra.is_empty() {
                continue;
            }
            let mut task = task_with(&format!("{extra}{lines}"));
            send(&mut task, &[(None, chunk(&leaking))]);
            let refusals = refusals(&task);
            assert_eq!((refusals[0].code.as_str(), refusals[0].column.as_str()), (code, "closed_at"), "{extra}{lines}");
            assert!(screened(&task).is_empty());
        }
    }
    let mut task = task_with("extraColumns: ignore");
    send(&mut task, &[(None, chunk(&leaking))]);
    let manifest = &manifests(&task)[0];
    assert!(refusals(&task).is_empty() && manifest.quality.valid == 1);
    assert!(manifest.quality.columns.iter().any(|c| c.column == "closed_at"), "receipts sees it in the sums");
}

#[test]
fn rows_to_be_deduplicated_say_what_the_contract_wants_of_label_conflicts() {
    for (lines, refuse) in [("", false), ("refuse: [LABEL_CONFLICT]", true)] {
        let mut task = task_with(lines);
        send(&mut task, &[(None, chunk(&[row(1)]))]);
        assert!(screened(&task).iter().all(|s| s.refuse_label_conflicts == refuse), "{lines}");
    }
}

#[test]
fn a_row_that_cannot_be_decoded_has_a_digest_of_its_own_that_tells_it_from_others() {
    let broken = |age: Value, comment: &str| with(row(1), json!({"age": age, "comment": comment}));
    let rows = [
        broken(json!("forty"), "a"),
        broken(json!("fifty"), "a"),
        broken(json!("forty"), "b"),
        broken(json!("forty"), "a"),
        with(broken(json!("forty"), "a"), json!({"balance": "much"})),
        json!("no object"),
        json!(17),
    ];
    let digests = |task: &Task<Intake>| refusals(task).into_iter().map(|r| r.row_digest).collect::<Vec<_>>();
    let mut task = task();
    send(&mut task, &[(None, chunk(&rows))]);
    let found = digests(&task);
    assert!(found.len() == 7 && found.iter().all(|d| d.len() == 64), "{found:?}");
    assert_eq!(found[0], found[3], "the same row has the same digest");
    let distinct: std::collections::BTreeSet<_> = found.iter().collect();
    assert_eq!(distinct.len(), 6, "{found:?}");
    // In a chunk of its own, and in a columnar document, it is the same row.
    let alone = |value: Value| {
        let mut task = super::support::task();
        send(&mut task, &[(None, value)]);
        digests(&task)
    };
    assert_eq!(alone(chunk(&rows[1..2])), [found[1].clone()]);
    let csv = format!(
        "record_id,event_time,age,balance,plan,country,email,comment,churned\nr1,{},forty,{},{},{},{},a,{}\n",
        rows[0]["event_time"].as_str().unwrap(),
        rows[0]["balance"],
        rows[0]["plan"].as_str().unwrap(),
        rows[0]["country"].as_str().unwrap(),
        rows[0]["email"].as_str().unwrap(),
        rows[0]["churned"]
    );
    let payload = data_encoding::BASE64.encode(csv.as_bytes());
    let csv = with(chunk(&[]), json!({"rows": null, "format": "csv", "payload": payload}));
    assert_eq!(alone(csv), [found[0].clone()]);
}
