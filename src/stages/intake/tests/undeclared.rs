//! Columns of personal data that nobody declared: the chunk is refused, and the refusal says what would settle it.

use serde_json::{Value, json};

use super::support::{EXAMPLE, chunk, manifests, refusals, row, screened, send, spec, task, with};
use crate::domain::contract::Spec;

/// Rows whose `comment` is what `cell` makes of their number.
fn rows(count: usize, cell: impl Fn(usize) -> Value) -> Vec<Value> {
    (0..count).map(|i| with(row(i), json!({"comment": cell(i)}))).collect()
}

fn address(i: usize) -> Value {
    json!(format!("someone{i}@example.org"))
}

#[test]
fn a_column_of_addresses_refuses_its_chunk_with_the_lines_that_settle_it() {
    let mut task = task();
    let mut all = rows(40, address);
    all[3] = with(all[3].clone(), json!({"age": 777}));
    send(
        &mut task,
        &[(None, chunk(&all)), (None, with(chunk(&rows(30, |_| json!("fine"))), json!({"contribution_id": "c-2"})))],
    );
    let (manifests, refusals) = (manifests(&task), refusals(&task));
    let refused: Vec<_> = manifests[0].refused.iter().map(|c| (c.name.as_str(), c.count)).collect();
    assert_eq!(refused, [("PII_UNDECLARED", 39), ("RANGE_HIGH", 1)], "what failed before keeps its reason");
    assert_eq!((manifests[0].received, manifests[0].shards.len(), manifests[0].quality.valid), (40, 0, 0));
    assert_eq!((refusals[0].row, refusals[0].column.as_str(), refusals[0].rule.as_str()), (-1, "comment", "pii"));
    assert_eq!(refusals[0].shape, "39 of 39 cells are email_address");
    assert!(refusals[0].expected.contains("pii: {policy: hash, type: email_address}"), "{}", refusals[0].expected);
    assert!(refusals[0].expected.contains("policy: none"), "{}", refusals[0].expected);
    assert!(!task.outputs.iter().any(|o| String::from_utf8_lossy(o.value.as_ref().unwrap()).contains("someone7")));
    assert_eq!((manifests[1].refused.len(), manifests[1].quality.valid), (0, 30), "its neighbour goes on");
}

#[test]
fn the_lines_that_the_refusal_tells_do_settle_it() {
    let line = |pii: &str| {
        let text = EXAMPLE.replace(
            "- name: comment\n        logicalType: string\n",
            &format!("- name: comment\n        logicalType: string\n        pii: {pii}\n"),
        );
        assert!(text.contains(pii));
        Spec::parse_yaml(&text, "model.yaml").unwrap()
    };
    for pii in [
        "{policy: hash, type: email_address}",
        "{policy: none, reason: made-up addresses of a test}",
        "{policy: keep, reason: addresses that everybody knows}",
        "{policy: drop}",
    ] {
        let mut task = task();
        super::support::apply(&mut task, &[&line(pii)]);
        send(&mut task, &[(None, chunk(&rows(40, address)))]);
        assert_eq!((refusals(&task).len(), manifests(&task)[0].quality.valid), (0, 40), "{pii}");
    }
}

#[test]
fn numbers_are_refused_when_they_are_cards_because_no_token_can_stand_for_them() {
    let mut task = task();
    super::support::apply(&mut task, &[&spec("exclusiveMaximum: 1.0e+6", "exclusiveMaximum: 9.0e+15")]);
    let all: Vec<_> = (0..40).map(|i| with(row(i), json!({"balance": 4_111_111_111_111_111_i64}))).collect();
    send(&mut task, &[(None, chunk(&all))]);
    let refusals = refusals(&task);
    assert_eq!(
        (refusals.len(), refusals[0].code.as_str(), refusals[0].column.as_str()),
        (1, "PII_UNDECLARED", "balance")
    );
    assert!(
        refusals[0].expected.contains("logicalType: string, pii: {policy: hash, type: credit_card"),
        "{}",
        refusals[0].expected
    );
    assert!(screened(&task).is_empty());
}

#[test]
fn free_text_with_an_address_in_every_cell_goes_on_with_tokens() {
    let mut task = task();
    send(&mut task, &[(None, chunk(&rows(40, |i| json!(format!("please write to someone{i}@example.org")))))]);
    assert!(refusals(&task).is_empty(), "{:?}", refusals(&task));
    assert_eq!(manifests(&task)[0].pii.iter().map(|c| c.count).sum::<i64>(), 80);
}
