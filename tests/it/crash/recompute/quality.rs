//! The quality score by its table: Q = G · Π max(s_d, 0.01)^w_d, for contracts without leakage and without sealed benchmarks.
// A stranger uses the mathematics of the own platform; six decimals must be the same anyway.
#![allow(clippy::disallowed_methods)]

use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a contract says that its columns are measured against; written down beside the contract, not read out of it.
#[derive(Debug, Clone, Default)]
pub struct Reference {
    /// How many values the label may have.
    pub classes: usize,
    /// Share of the rarest label.
    pub minority: Option<f64>,
    /// Features: every column but the label.
    pub features: Vec<&'static str>,
    /// Allowed null rate by column.
    pub nulls: BTreeMap<&'static str, f64>,
    /// Shares of the reference bins by column.
    pub shares: BTreeMap<&'static str, Vec<f64>>,
    /// Columns with a median and a MAD.
    pub outliers: Vec<&'static str>,
}

/// Sums of all chunks of a contribution.
#[derive(Debug, Default)]
pub struct Sums {
    /// Rows that passed intake.
    pub valid: i64,
    /// Rows by label.
    pub labels: BTreeMap<String, i64>,
    /// A chunk had columns that the contract does not know, or lacked one.
    pub incompatible: bool,
    /// Near duplicates.
    pub near: i64,
    /// By column.
    pub columns: BTreeMap<String, Column>,
}

/// Sums of a column.
#[derive(Debug, Default)]
pub struct Column {
    nulls: i64,
    outliers: i64,
    bins: Vec<i64>,
    least: Option<String>,
    greatest: Option<String>,
    fingerprint: u64,
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("no number: {value}"))
}

impl Sums {
    /// Adds those of a manifest.
    pub fn add(&mut self, sums: &Value) {
        self.valid += number(&sums["valid"]);
        self.near += number(&sums["near_duplicates"]);
        self.incompatible |= sums["incompatible_schema"] == json!(true);
        for label in sums["labels"].as_array().expect("labels") {
            *self.labels.entry(label["name"].as_str().expect("a name").to_owned()).or_default() +=
                number(&label["count"]);
        }
        for from in sums["columns"].as_array().expect("columns") {
            let into = self.columns.entry(from["column"].as_str().expect("a name").to_owned()).or_default();
            into.nulls += number(&from["nulls"]);
            into.outliers += number(&from["outliers"]);
            let bins: Vec<i64> = from["bins"].as_array().expect("bins").iter().map(number).collect();
            into.bins.resize(bins.len().max(into.bins.len()), 0);
            bins.iter().zip(&mut into.bins).for_each(|(from, into)| *into += from);
            let text =
                |name: &str| Some(from[name].as_str().expect("a text").to_owned()).filter(|text| !text.is_empty());
            into.least = [into.least.take(), text("least")].into_iter().flatten().min();
            into.greatest = into.greatest.take().max(text("greatest"));
            let hex = from["fingerprint"].as_str().expect("a text");
            into.fingerprint = into.fingerprint.wrapping_add(u64::from_str_radix(hex, 16).expect("hex"));
        }
    }
}

#[allow(clippy::cast_precision_loss)]
fn share(part: i64, whole: i64) -> f64 {
    if whole > 0 { part as f64 / whole as f64 } else { 0.0 }
}

fn six(x: f64) -> f64 {
    (x * 1e6).round() / 1e6
}

fn one_minus_mean(values: &[f64]) -> Option<f64> {
    #[allow(clippy::cast_precision_loss)]
    (!values.is_empty()).then(|| 1.0 - values.iter().sum::<f64>() / values.len() as f64)
}

/// The quality part of a receipt; `reference` is none when no chunk met a contract.
pub fn score(reference: Option<&Reference>, received: i64, sums: &Sums, duplicates: i64, conflicts: i64) -> Value {
    let none = Reference::default();
    let known = reference.unwrap_or(&none);
    let parts = [
        ("validity", 0.25, Some(share(sums.valid, received))),
        ("label", 0.20, reference.map(|r| label(r, sums, conflicts))),
        ("completeness", 0.15, completeness(known, sums)),
        ("uniqueness", 0.15, Some(1.0 - share(duplicates, sums.valid))),
        ("stability", 0.10, stability(known, sums)),
        ("information", 0.10, information(known, sums)),
        ("outliers", 0.05, outliers(known, sums)),
    ];
    let dimensions = parts.map(|(name, weight, value)| {
        let s = six(value.unwrap_or(1.0).clamp(0.0, 1.0));
        json!({"name": name, "value": s, "weight": weight, "loss": six(-weight * s.max(0.01).ln()) + 0.0, "measured": value.is_some()})
    });
    let loss: f64 = dimensions.iter().map(|d| d["loss"].as_f64().expect("a number")).sum();
    let mut flags = Vec::new();
    flags.extend((sums.valid < 100).then(|| "insufficient".to_owned()));
    flags.extend((conflicts > 0).then(|| format!("label_conflict:{conflicts}")));
    flags.extend((sums.near > 0).then(|| format!("near_dup:{}", sums.near)));
    flags.extend(reference.is_none().then(|| "no_contract".to_owned()));
    flags.sort();
    let score = match sums.incompatible {
        true => Some(0.0),
        false => (sums.valid >= 100).then(|| six((-loss).exp())),
    };
    json!({
        "formula": "hk-quality/1",
        "score": score,
        "validity_lower": (sums.valid < 1_000).then(|| wilson(sums.valid, received)),
        "gate": if sums.incompatible { "incompatible_schema" } else { "" },
        "flags": flags,
        "dimensions": dimensions,
    })
}

fn label(reference: &Reference, sums: &Sums, conflicts: i64) -> f64 {
    let agreement = 1.0 - (5.0 * share(conflicts, sums.valid)).min(1.0);
    let rarest =
        if sums.labels.len() < reference.classes { 0 } else { sums.labels.values().copied().min().unwrap_or(0) };
    match reference.minority {
        Some(minority) if sums.valid > 0 => agreement * (share(rarest, sums.valid) / (0.5 * minority)).min(1.0),
        _ => agreement,
    }
}

fn completeness(reference: &Reference, sums: &Sums) -> Option<f64> {
    let columns = reference.nulls.iter().filter_map(|(name, allowed)| Some((sums.columns.get(*name)?, allowed)));
    let used: Vec<f64> = columns.map(|(c, allowed)| (share(c.nulls, sums.valid) / allowed).min(1.0)).collect();
    one_minus_mean(&used)
}

fn stability(reference: &Reference, sums: &Sums) -> Option<f64> {
    let columns = reference.shares.iter().filter_map(|(name, shares)| Some((sums.columns.get(*name)?, shares)));
    let shifts = columns.filter(|(c, _)| c.bins.iter().sum::<i64>() > 0).map(|(column, shares)| {
        let cells = column.bins.iter().sum();
        let terms = column.bins.iter().zip(shares).map(|(count, expected)| {
            let (actual, expected) = (share(*count, cells).max(1e-4), expected.max(1e-4));
            (actual - expected) * (actual / expected).ln()
        });
        (terms.sum::<f64>() / 0.25).min(1.0)
    });
    one_minus_mean(&shifts.collect::<Vec<_>>())
}

fn information(reference: &Reference, sums: &Sums) -> Option<f64> {
    let mut names = reference.features.clone();
    names.sort_unstable();
    let features: Vec<&Column> = names.iter().filter_map(|name| sums.columns.get(*name)).collect();
    let idle = features.iter().enumerate().filter(|(at, column)| {
        let constant = column.nulls == sums.valid || (column.nulls == 0 && column.least == column.greatest);
        constant || features[..*at].iter().any(|earlier| earlier.fingerprint == column.fingerprint)
    });
    let (idle, all) = (i64::try_from(idle.count()).ok()?, i64::try_from(features.len()).ok()?);
    (all > 0 && sums.valid > 0).then(|| 1.0 - share(idle, all))
}

fn outliers(reference: &Reference, sums: &Sums) -> Option<f64> {
    let columns: Vec<&Column> = reference.outliers.iter().filter_map(|name| sums.columns.get(*name)).collect();
    let cells: i64 = columns.iter().map(|c| sums.valid - c.nulls).sum();
    let beyond: i64 = columns.iter().map(|c| c.outliers).sum();
    (cells > 0).then(|| 1.0 - ((share(beyond, cells) - 0.01).max(0.0) / 0.05).min(1.0))
}

/// Wilson's lower bound at z = 1.96.
#[allow(clippy::cast_precision_loss)]
fn wilson(successes: i64, trials: i64) -> f64 {
    if trials == 0 {
        return 0.0;
    }
    let (n, p, z) = (trials as f64, share(successes, trials), 1.96_f64);
    let spread = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    six(((p + z * z / (2.0 * n) - spread) / (1.0 + z * z / n)).max(0.0))
}
