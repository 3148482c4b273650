//! The record of a sealed benchmark: everything about it but its rows.

use serde::{Deserialize, Serialize};

use super::{Artefact, Record};

/// A sealed benchmark, on `benchmarks`. No row, label or cell stands in it but the names of strata.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Benchmark {
    /// Name and version, `NAME@VERSION`.
    pub benchmark: String,
    /// Model that it measures.
    pub model: String,
    /// Contract that its rows were checked against.
    pub contract_digest: String,
    /// Sealed rows.
    pub rows: i64,
    /// RFC 6962 root over the salted rows, hex (`attest::benchmark`).
    pub rows_root: String,
    /// Attempts family: rows root of the first benchmark in a chain of overlaps.
    pub family: String,
    /// Commitment to the labels, hex.
    pub label_commitment: String,
    /// Natural rate of rows that are in the pool too, decimal string.
    pub collision_rate: String,
    /// Strata, `COLUMN=LEVEL`, frozen at sealing.
    pub strata: Vec<String>,
    /// Levels that are too small for a stratum of their own and count as `COLUMN=other`; the rarest are not named.
    pub merged: Vec<String>,
    /// Margin that strata were frozen for, decimal string; none without strata.
    #[serde(default)]
    pub strata_margin: Option<String>,
    /// Planned standard deviation of a row's paired difference, decimal string; none without strata.
    #[serde(default)]
    pub strata_deviation: Option<String>,
    /// Keyed hashes of its feature rows, for the contamination check (`sealing::filter`).
    pub match_filter: Artefact,
    /// The rows, encrypted to the evaluation key (`sealing::vault`).
    pub sealed_rows: Artefact,
    /// Id of the evaluation key.
    pub sealed_to: String,
    /// Revision of the model that brought it.
    pub revision: i64,
    /// Id of the key that signed the seal.
    pub signer: String,
    /// Command that sealed it.
    pub command_id: String,
    /// No further attempts are admitted.
    pub retired: bool,
    /// Why it was retired.
    #[serde(default)]
    pub retired_reason: Option<String>,
}
record!(Benchmark, "benchmark");

impl Benchmark {
    /// Key on `benchmarks`, `MODEL/NAME@VERSION`: names are a model's own.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.model, self.benchmark)
    }

    /// Name and number of the version.
    #[must_use]
    pub fn parts(&self) -> (&str, u32) {
        parts(&self.benchmark).unwrap_or((&self.benchmark, 0))
    }
}

/// Name and number of a `NAME@VERSION`; none when it is not that.
#[must_use]
pub fn parts(id: &str) -> Option<(&str, u32)> {
    let (name, version) = id.rsplit_once('@')?;
    let canonical = version.bytes().all(|b| b.is_ascii_digit()) && !version.starts_with('0');
    let version = version.parse().ok().filter(|_| canonical)?;
    Some((name, version))
}
