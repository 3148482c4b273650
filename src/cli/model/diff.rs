//! What is different between two versions of a model.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{Failure, Outcome, Settings, one, say, version};
use crate::domain::contract::Spec;
use crate::domain::records::{Model, ModelVersion};

/// Prints what is different between two versions.
pub(super) fn show(settings: &Settings, name: &str, a: &str, b: &str) -> Outcome<()> {
    let model = one(settings, name)?;
    let difference = difference(&model, version(&model, a)?, version(&model, b)?)?;
    if settings.json() {
        return say(difference);
    }
    say(format_args!(
        "{name}: {} -> {}",
        difference["a"].as_str().unwrap_or(""),
        difference["b"].as_str().unwrap_or("")
    ))?;
    for part in ["params", "features", "learning", "metrics", "data", "lineage"] {
        let Some(changes) = difference[part].as_object().filter(|changes| !changes.is_empty()) else {
            say(format_args!("{part:<9} the same"))?;
            continue;
        };
        for (at, change) in changes {
            let shown = |side: &str| match &change[side] {
                Value::Null => "-".to_owned(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let by = change["difference"].as_str().map_or(String::new(), |by| format!("  ({by})"));
            say(format_args!("{part:<9} {at}: {} -> {}{by}", shown("a"), shown("b")))?;
        }
    }
    Ok(())
}

type Facts = BTreeMap<String, Value>;

fn changes(a: &Facts, b: &Facts) -> Map<String, Value> {
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let differs = names.into_iter().filter(|name| a.get(*name) != b.get(*name));
    differs.map(|name| (name.clone(), json!({"a": a.get(name), "b": b.get(name)}))).collect()
}

/// Parameters, features, what is learned from them, metrics, data and lineage, each with what differs only.
fn difference(model: &Model, a: &ModelVersion, b: &ModelVersion) -> Outcome<Value> {
    let params = |v: &ModelVersion| -> Facts { v.params.iter().map(|p| (p.name.clone(), json!(p.value))).collect() };
    let metrics = |v: &ModelVersion| -> Facts { v.metrics.iter().map(|m| (m.name.clone(), json!(m.value))).collect() };
    let mut measured = changes(&metrics(a), &metrics(b));
    for change in measured.values_mut() {
        let by = change["a"].as_str().zip(change["b"].as_str()).and_then(|(a, b)| less(b, a));
        if let (Some(by), Some(change)) = (by, change.as_object_mut()) {
            change.insert("difference".to_owned(), Value::String(by));
        }
    }
    Ok(json!({
        "model": model.model, "a": a.version, "b": b.version,
        "params": changes(&params(a), &params(b)),
        "features": changes(&features(model, a)?, &features(model, b)?),
        "learning": changes(&learning(model, a)?, &learning(model, b)?),
        "metrics": measured,
        "data": changes(&data(a), &data(b)),
        "lineage": changes(&lineage(a), &lineage(b)),
    }))
}

/// The contract under which a version was made.
fn contract(model: &Model, of: &ModelVersion) -> Outcome<Option<Spec>> {
    let known = model.contracts.iter().find(|c| c.digest == of.contract_digest);
    known.map(|c| Spec::from_canonical_json(&c.spec)).transpose().map_err(Failure::failed)
}

/// What the contract says of learning: encodings that it declares, columns that it leaves out, reference tables, SQL and steps.
fn learning(model: &Model, of: &ModelVersion) -> Outcome<Facts> {
    let Some(said) = contract(model, of)?.and_then(|spec| spec.learning) else { return Ok(Facts::new()) };
    let mut facts = Facts::new();
    if let Some(task) = &said.task {
        facts.insert("task".to_owned(), json!(task));
    }
    facts.insert("others".to_owned(), json!(said.others));
    facts.extend(said.leave_out.iter().map(|column| (format!("column {column}"), json!("left out"))));
    facts.extend(said.features.iter().map(|own| (format!("encoding of {}", own.column), json!(own))));
    facts.extend(said.references.iter().map(|own| (format!("table {}", own.name), json!(own.digest))));
    facts.extend(said.sql.iter().map(|own| (format!("SQL {}", own.name), json!(own.select))));
    // Steps run one after the other: their order is part of what they say.
    facts.extend(
        said.steps.iter().zip(1..).map(|(own, place)| (format!("step {place}, {}", own.name), json!(own.select))),
    );
    Ok(facts)
}

/// Feature columns, those of SQL too, and label with their types.
fn features(model: &Model, of: &ModelVersion) -> Outcome<Facts> {
    let Some(spec) = contract(model, of)? else { return Ok(Facts::new()) };
    let label = spec.label.as_deref();
    let read = |name: &String| of.features.is_empty() || of.features.contains(name) || Some(name.as_str()) == label;
    let columns = spec.properties().iter().filter(|p| read(&p.name) && !spec.exclude_from_identity.contains(&p.name));
    let described = |name: &str, kind: &str| match Some(name) == label {
        true => json!(format!("{kind} (label)")),
        false => json!(kind),
    };
    let made = spec.sql_columns().filter(|column| read(&column.name));
    let made = made.map(|column| (column.name.clone(), json!(format!("{} by SQL", column.logical_type.name()))));
    Ok(columns.map(|p| (p.name.clone(), described(&p.name, p.logical_type.name()))).chain(made).collect())
}

fn data(of: &ModelVersion) -> Facts {
    let Some(dataset) = &of.lineage.dataset else { return Facts::new() };
    Facts::from([
        ("digest".to_owned(), json!(dataset.digest)),
        ("rows".to_owned(), json!(dataset.rows)),
        ("contributions".to_owned(), json!(dataset.contributions)),
    ])
}

fn lineage(of: &ModelVersion) -> Facts {
    let lineage = &of.lineage;
    Facts::from([
        ("artefact".to_owned(), json!(of.artefact.digest)),
        ("bytes".to_owned(), json!(of.artefact.size)),
        ("contract".to_owned(), json!(of.contract_digest)),
        ("origin".to_owned(), json!(of.origin)),
        ("parent".to_owned(), json!(lineage.parent)),
        ("recipe".to_owned(), json!(lineage.recipe_digest)),
        ("run".to_owned(), json!(lineage.run_id)),
        ("benchmark".to_owned(), json!(lineage.benchmark)),
        ("contributor".to_owned(), json!(lineage.contributor)),
    ])
}

/// a − b of two decimal strings, exactly; none when they have too many digits.
fn less(a: &str, b: &str) -> Option<String> {
    let digits = |text: &str| text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let scale = digits(a).max(digits(b));
    let integer = |text: &str| {
        let mut plain: String = text.chars().filter(|c| *c != '.').collect();
        plain.extend(std::iter::repeat_n('0', scale - digits(text)));
        plain.parse::<i128>().ok()
    };
    let difference = integer(a)?.checked_sub(integer(b)?)?;
    let sign = if difference < 0 { "-" } else { "+" };
    let text = format!("{:0>width$}", difference.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = text.split_at(text.len() - scale);
    Some(if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::records::ModelContract;

    #[test]
    fn decimal_strings_are_subtracted_exactly() {
        for (a, b, difference) in [
            ("0.7911", "0.79", "+0.0011"),
            ("0.3", "0.1", "+0.2"),
            ("-1", "2.50", "-3.50"),
            ("1", "1", "+0"),
            ("0.000001", "0.000002", "-0.000001"),
        ] {
            assert_eq!(less(a, b).as_deref(), Some(difference), "{a} - {b}");
        }
        assert_eq!(less(&"9".repeat(60), "1"), None);
    }

    #[test]
    fn another_select_step_or_encoding_is_told() {
        let of = |learning: &str| {
            let text = include_str!("../../domain/contract/example.yaml");
            let text = text.replacen("label: churned\n", &format!("label: churned\n{learning}"), 1);
            let spec = Spec::parse_yaml(&text, "f").unwrap();
            ModelContract { digest: spec.contract_digest().unwrap(), revision: 1, spec: spec.canonical_json().unwrap() }
        };
        let with = |select: &str| {
            of(&format!(
                "learning:\n  leaveOut: [country]\n  sql:\n    - name: older\n      reads: [age]\n      select: {select}\n      \
                 columns: [{{name: older, logicalType: integer}}]\n"
            ))
        };
        let contracts =
            vec![of(""), with("SELECT age + 1 AS older FROM rows"), with("SELECT age + 2 AS older FROM rows")];
        let version =
            |at: usize| ModelVersion { contract_digest: contracts[at].digest.clone(), ..ModelVersion::default() };
        let model = Model { contracts: contracts.clone(), ..Model::default() };
        let between = |a: usize, b: usize| difference(&model, &version(a), &version(b)).unwrap();
        let (added, changed) = (between(0, 1), between(1, 2));
        assert_eq!(added["features"]["older"], json!({"a": null, "b": "integer by SQL"}));
        assert_eq!(added["learning"]["column country"]["b"], "left out");
        assert_eq!(changed["features"], json!({}));
        assert_eq!(changed["learning"]["SQL older"]["b"], "SELECT age + 2 AS older FROM rows");
        assert_eq!(changed["learning"].as_object().unwrap().len(), 1);
    }
}
