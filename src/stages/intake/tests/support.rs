//! The example's contract, a fixed key ring, and rows for them.

use std::sync::Arc;

use crate::domain::contract::Spec;
use crate::domain::keys::KeyRing;
use crate::domain::records::{Model, ModelContract};

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
        commands: Vec::new(),
        intake_key: None,
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
