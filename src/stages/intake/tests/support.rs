//! The example's contract, a fixed key ring, rows for them, and a task that takes chunks of such rows.

use std::sync::Arc;

use arrow::ipc::reader::StreamReader;
use serde_json::{Value, json};

use super::super::{Intake, Limits};
use crate::domain::contract::Spec;
use crate::domain::keys::KeyRing;
use crate::domain::records::{
    Manifest, ManifestEvent, Model, ModelContract, Refusal, Refused, ScreenedEvent, ScreenedRows,
};
use crate::domain::topics;
use crate::stages::testing::Task;
use crate::stream::stage::{Batch, Stage};

pub(super) const EXAMPLE: &str = include_str!("../../../domain/contract/example.yaml");
/// Append time of the tests' records.
pub(super) const NOW: i64 = 1_700_000_000_000;

pub(super) fn ring() -> Arc<KeyRing> {
    ring_with("1")
}

/// Keys of which only the token key depends on `digit`.
pub(super) fn ring_with(digit: &str) -> Arc<KeyRing> {
    let hex = |digit: &str| digit.repeat(64);
    let text = format!(
        r#"{{"version":1,"tenant":"acme","tokens":[{{"id":"k1","secret":"{}"}}],"dedup":"{}","tree":"{}"}}"#,
        hex(digit),
        hex("3"),
        hex("4")
    );
    Arc::new(KeyRing::from_json(&text).unwrap())
}

pub(super) fn spec(from: &str, to: &str) -> Spec {
    assert!(EXAMPLE.contains(from), "{from}");
    Spec::parse_yaml(&EXAMPLE.replacen(from, to, 1), "model.yaml").unwrap()
}

/// The registry's record of a model with these contracts, the last one in force.
pub(super) fn model(specs: &[&Spec]) -> Model {
    let contract = |(revision, spec): (i64, &&Spec)| ModelContract {
        digest: spec.contract_digest().unwrap(),
        revision,
        spec: spec.canonical_json().unwrap(),
    };
    let contracts: Vec<_> = (1..).zip(specs).map(contract).collect();
    Model {
        model: specs[0].name.clone(),
        revision: contracts.len() as i64,
        contract_digest: contracts.last().unwrap().digest.clone(),
        contracts,
        ..Model::default()
    }
}

/// A row of the example as a JSON object; every tenth comment holds an e-mail address.
pub(super) fn row(i: usize) -> serde_json::Value {
    let comment = if i.is_multiple_of(10) {
        format!("please write to anna.novak{i}@example.org today")
    } else {
        format!("all good, thanks {i}")
    };
    let (plan, country) = (["basic", "standard", "premium", "enterprise"][i % 4], ["DE", "FR", "PL"][i % 3]);
    serde_json::json!({
        "record_id": format!("r{i}"),
        "event_time": format!("2023-03-{:02}T10:{:02}:00", 1 + i % 28, i % 60),
        "age": 18 + (i * 7) % 70,
        "balance": 1500.5 + ((i * 37) % 900) as f64,
        "plan": plan,
        "country": country,
        "email": format!("user{i}@example.com"),
        "comment": comment,
        "churned": i.is_multiple_of(4),
    })
}

const PARTITIONS: [(&str, i32); 3] = [(topics::SCREENED, 4), (topics::MANIFESTS, 3), (topics::REFUSED, 2)];

/// A task without a model.
pub(super) fn bare() -> Task<Intake> {
    Task::new(Intake::new(ring(), Limits::default()), 0, &PARTITIONS)
}

pub(super) fn task() -> Task<Intake> {
    let mut task = bare();
    let old = spec("maximum: 120", "maximum: 200");
    apply(&mut task, &[&old, &spec("", "")]);
    task
}

pub(super) fn apply(task: &mut Task<Intake>, specs: &[&Spec]) {
    let record = task.wire.encode(&model(specs)).unwrap();
    task.stage.broadcast(topics::MODELS, b"signup-churn", Some(&record), &task.wire).unwrap();
}

pub(super) fn send(task: &mut Task<Intake>, records: &[(Option<&str>, Value)]) {
    let mut batch = Batch::new(topics::CONTRIBUTIONS, 0);
    for (offset, (key, value)) in (100..).zip(records) {
        batch.push(offset, NOW, key.map(str::as_bytes), Some(value.to_string().as_bytes()));
    }
    task.commit(&[batch]).unwrap();
}

pub(super) fn chunk(rows: &[Value]) -> Value {
    json!({"contribution_id": "c-1", "contributor": "acme", "model": "signup-churn", "format": "json", "rows": rows})
}

pub(super) fn with(mut value: Value, fields: Value) -> Value {
    for (name, field) in fields.as_object().unwrap() {
        match field {
            Value::Null => value.as_object_mut().unwrap().remove(name),
            field => value.as_object_mut().unwrap().insert(name.clone(), field.clone()),
        };
    }
    value
}

pub(super) fn manifests(task: &Task<Intake>) -> Vec<Manifest> {
    task.values::<ManifestEvent>(topics::MANIFESTS).into_iter().map(|event| event.manifest.unwrap()).collect()
}

pub(super) fn refusals(task: &Task<Intake>) -> Vec<Refusal> {
    task.values::<Refused>(topics::REFUSED).into_iter().flat_map(|refused| refused.refusals).collect()
}

pub(super) fn screened(task: &Task<Intake>) -> Vec<ScreenedRows> {
    task.values::<ScreenedEvent>(topics::SCREENED).into_iter().map(|event| event.rows.unwrap()).collect()
}

pub(super) fn row_hashes(task: &Task<Intake>) -> Vec<Vec<u8>> {
    let mut hashes = Vec::new();
    for rows in screened(task) {
        for batch in StreamReader::try_new(rows.batch.as_slice(), None).unwrap() {
            let batch = batch.unwrap();
            let column = arrow::array::AsArray::as_fixed_size_binary(batch.column(1)).clone();
            hashes.extend((0..batch.num_rows()).map(|i| column.value(i).to_vec()));
        }
    }
    hashes.sort();
    hashes
}
