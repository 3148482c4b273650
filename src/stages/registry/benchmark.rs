//! Sealed benchmarks of a model: how one is entered, and how it is retired.
//!
//! The registry never sees a row. It checks form, names and order: versions of a name count 1, 2, 3 …; the same rows stay
//! in their attempts family. Whether a family is right across models only the holder of the rows can tell (`sealing`); who
//! may say so is a role of its own.

use serde::{Deserialize, Serialize};

use super::command::MAX_REASON;
use super::fold::{Denial, deny};
use super::lifecycle::Changed;
use super::version::{Registrar, is_name, is_sha256};
use crate::attest::benchmark::millionths;
use crate::domain::records::{Artefact, Benchmark, Model, ModelVersion, benchmark::parts};
use crate::stats::decision::ACCEPTANCES;

/// Benchmarks of a model, retired ones too.
pub const MAX_BENCHMARKS: usize = 128;
/// Names of strata and merged levels that a benchmark lists.
pub const MAX_STRATA: usize = 512;
/// Bytes of these names together.
pub const MAX_STRATA_BYTES: usize = 16 * 1024;
/// Rows of a benchmark.
pub const MAX_ROWS: i64 = 1_000_000;
/// Longest name of a benchmark, without its version.
pub const MAX_NAME: usize = 64;

/// What a seal says of its benchmark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// Name and version, `NAME@VERSION`; the version is the next one of the name.
    pub benchmark: String,
    /// Contract that its rows were checked against.
    pub contract_digest: String,
    /// Sealed rows.
    pub rows: i64,
    /// RFC 6962 root over the salted rows, hex.
    pub rows_root: String,
    /// Attempts family.
    pub family: String,
    /// Commitment to the labels, hex.
    pub label_commitment: String,
    /// Natural rate of rows that are in the pool too, decimal string.
    pub collision_rate: String,
    /// Strata, sorted.
    #[serde(default)]
    pub strata: Vec<String>,
    /// Levels merged into `other`, sorted.
    #[serde(default)]
    pub merged: Vec<String>,
    /// Margin of the strata.
    #[serde(default)]
    pub strata_margin: Option<String>,
    /// Planned standard deviation of a paired difference.
    #[serde(default)]
    pub strata_deviation: Option<String>,
    /// Keyed hashes of its feature rows.
    pub match_filter: Artefact,
    /// The rows, encrypted.
    pub sealed_rows: Artefact,
    /// Id of the evaluation key.
    pub sealed_to: String,
}

/// What a retirement asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retirement {
    /// `NAME@VERSION`.
    pub benchmark: String,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Whether a text can name a benchmark: 1 to 64 of `a-z 0-9 . - _`.
#[must_use]
pub fn is_benchmark_name(name: &str) -> bool {
    let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(plain)
}

/// The next version of a name.
#[must_use]
pub fn next_version(model: &Model, name: &str) -> u32 {
    let of_name = model.benchmarks.iter().map(Benchmark::parts).filter(|(known, _)| *known == name);
    of_name.map(|(_, version)| version).max().unwrap_or(0).saturating_add(1)
}

/// Enters a sealed benchmark.
pub(super) fn seal(model: &mut Model, seal: Seal, by: Registrar<'_>) -> Changed {
    well_formed(&seal)?;
    let Some((name, version)) = parts(&seal.benchmark).filter(|(name, _)| is_benchmark_name(name)) else {
        return deny("MALFORMED", "a benchmark is NAME@VERSION; a name has 1 to 64 of a-z, 0-9, '.', '-', '_'");
    };
    let next = next_version(model, name);
    if version != next {
        return deny("WRONG_VERSION", format!("the next version of {name} is {name}@{next}"));
    }
    if !model.contracts.iter().any(|contract| contract.digest == seal.contract_digest) {
        return deny("UNKNOWN_CONTRACT", "the model has no contract of that digest; help: seal the rows anew");
    }
    for same in model.benchmarks.iter().filter(|known| known.rows_root == seal.rows_root) {
        if !same.retired {
            return deny("DUPLICATE_BENCHMARK", format!("these rows are sealed as {} already", same.benchmark));
        }
        if same.family != seal.family {
            return deny("OTHER_FAMILY", format!("these rows are of the attempts family of {}", same.benchmark));
        }
    }
    if model.benchmarks.len() >= MAX_BENCHMARKS {
        return deny("MODEL_FULL", format!("a model keeps at most {MAX_BENCHMARKS} benchmarks"));
    }
    model.revision += 1;
    let told = format!("benchmark {} sealed, {} rows", seal.benchmark, seal.rows);
    model.benchmarks.push(record(model, seal, by));
    Ok(Some(told))
}

fn record(model: &Model, seal: Seal, by: Registrar<'_>) -> Benchmark {
    Benchmark {
        benchmark: seal.benchmark,
        model: model.model.clone(),
        contract_digest: seal.contract_digest,
        rows: seal.rows,
        rows_root: seal.rows_root,
        family: seal.family,
        label_commitment: seal.label_commitment,
        collision_rate: seal.collision_rate,
        strata: seal.strata,
        merged: seal.merged,
        strata_margin: seal.strata_margin,
        strata_deviation: seal.strata_deviation,
        match_filter: seal.match_filter,
        sealed_rows: seal.sealed_rows,
        sealed_to: seal.sealed_to,
        revision: model.revision,
        signer: by.signer.to_owned(),
        command_id: by.command_id.to_owned(),
        retired: false,
        retired_reason: None,
    }
}

/// Retires a benchmark for good.
pub(super) fn retire(model: &mut Model, asked: Retirement) -> Changed {
    if asked.reason.as_ref().is_some_and(|why| why.trim().is_empty() || why.len() > MAX_REASON) {
        return deny("MALFORMED", format!("a reason has 1 to {MAX_REASON} bytes"));
    }
    let Some(found) = model.benchmarks.iter_mut().find(|known| known.benchmark == asked.benchmark) else {
        return deny("UNKNOWN_BENCHMARK", "the model has no such benchmark; help: `hokusai benchmark list` names them");
    };
    if found.retired {
        return Ok(None);
    }
    (found.retired, found.retired_reason) = (true, asked.reason);
    model.revision += 1;
    Ok(Some(format!("benchmark {} retired", asked.benchmark)))
}

/// Retires a benchmark on which as many versions were accepted as it is good for.
pub(super) fn spent(model: &mut Model, benchmark: &str) -> Option<String> {
    let of = |version: &ModelVersion| {
        version.evaluations.iter().filter(|e| e.benchmark == benchmark && e.status == "accepted").count()
    };
    let accepted: usize = model.versions.iter().map(of).sum();
    let found = model.benchmarks.iter_mut().find(|known| known.benchmark == benchmark && !known.retired)?;
    if (accepted as u64) < ACCEPTANCES {
        return None;
    }
    (found.retired, found.retired_reason) = (true, Some(format!("{ACCEPTANCES} acceptances")));
    Some(format!("benchmark {benchmark} retired after {ACCEPTANCES} acceptances"))
}

/// The benchmark that an event entered or changed; one event changes one at most.
pub(super) fn changed<'m>(before: Option<&Model>, after: &'m Model) -> Option<&'m Benchmark> {
    let before = before.map_or(&[][..], |model| &model.benchmarks);
    after.benchmarks.iter().enumerate().find(|(at, now)| before.get(*at) != Some(now)).map(|(_, now)| now)
}

fn well_formed(seal: &Seal) -> Result<(), Denial> {
    let digests = [
        &seal.contract_digest,
        &seal.rows_root,
        &seal.family,
        &seal.label_commitment,
        &seal.match_filter.digest,
        &seal.sealed_rows.digest,
    ];
    if !digests.into_iter().all(|digest| is_sha256(digest)) {
        return deny("MALFORMED", "digests, roots and commitments are 64 lower-case hex digits");
    }
    let blobs = [&seal.match_filter, &seal.sealed_rows];
    if !blobs.into_iter().all(|blob| blob.size > 0 && is_name(&blob.media_type)) || !is_name(&seal.sealed_to) {
        return deny(
            "MALFORMED",
            "a seal names two blobs with their sizes, and the key that its rows are encrypted to",
        );
    }
    if !(1..=MAX_ROWS).contains(&seal.rows) {
        return deny("MALFORMED", format!("a benchmark has 1 to {MAX_ROWS} rows"));
    }
    if millionths(&seal.collision_rate).is_none_or(|rate| rate > 1_000_000) {
        return deny("MALFORMED", "a collision rate is a decimal of at most six places between 0 and 1");
    }
    strata(seal)
}

fn strata(seal: &Seal) -> Result<(), Denial> {
    let names = || seal.strata.iter().chain(&seal.merged);
    let sorted = |list: &[String]| list.windows(2).all(|pair| pair.first() < pair.last());
    if names().count() > MAX_STRATA
        || names().map(String::len).sum::<usize>() > MAX_STRATA_BYTES
        || !names().all(|name| is_name(name) && name.contains('='))
        || !sorted(&seal.strata)
        || !sorted(&seal.merged)
    {
        return deny(
            "MALFORMED",
            format!("strata are COLUMN=LEVEL, sorted, once each, {MAX_STRATA} and {MAX_STRATA_BYTES} bytes at most"),
        );
    }
    let numbers = [&seal.strata_margin, &seal.strata_deviation];
    let positive = |number: &String| millionths(number).is_some_and(|number| number > 0);
    let declared = numbers.into_iter().all(|number| number.as_ref().is_some_and(positive));
    let none = numbers.into_iter().all(Option::is_none) && seal.merged.is_empty();
    if if seal.strata.is_empty() { none } else { declared } {
        return Ok(());
    }
    deny("MALFORMED", "strata stand with the margin and the deviation that they were frozen for, above 0")
}
