//! The request to attest a decision: the one place that makes it.

use super::version::Registrar;
use crate::attest::benchmark::{BENCHMARK_TREE, BenchmarkDecision, SealFacts, SealedRows, millionths};
use crate::attest::decision::{NamedArtefact, RegistryDecision, SignedCommand};
use crate::attest::statement::{Predicate, Statement, Subject};
use crate::domain::records::{AttestationRequest, Benchmark, Model, Transition};

/// The request to attest a transition of a model; none when its version is not there, which the fold excludes.
/// `payload_digest` is SHA-256 of the signed payload, hex; `from_stage` where the version stood before, none when new.
#[must_use]
pub fn request(
    model: &Model,
    transition: &Transition,
    from_stage: Option<&str>,
    payload_digest: &str,
) -> Option<AttestationRequest> {
    let version = model.version(&transition.version)?;
    let replaced = transition.from_version.as_deref().and_then(|v| model.version(v));
    let predicate = RegistryDecision {
        action: transition.action.clone(),
        command: SignedCommand {
            id: transition.command_id.clone(),
            payload_digest: payload_digest.to_owned(),
            signer: transition.signer.clone(),
        },
        from_stage: from_stage.map(str::to_owned),
        model: model.model.clone(),
        replaced: replaced.map(|v| NamedArtefact { digest: v.artefact.digest.clone(), version: v.version.clone() }),
        revision: transition.revision,
        rule: transition.rule.clone(),
        stage: transition.stage.clone(),
        version: version.version.clone(),
    };
    let name = format!("{}@{}", model.model, version.version);
    let digest = data_encoding::HEXLOWER.decode(version.artefact.digest.as_bytes()).ok()?;
    let subject = Subject::new(name, "sha256", &digest);
    let statement = Statement { subject, predicate: Predicate::Registry(Box::new(predicate)) }.payload().ok()?;
    Some(AttestationRequest { predicate_type: RegistryDecision::TYPE.to_owned(), statement, acknowledge: None })
}

/// The request to attest that a benchmark was sealed, or retired, at a revision of its model.
#[must_use]
pub fn benchmark(
    benchmark: &Benchmark,
    revision: i64,
    by: Registrar<'_>,
    payload_digest: &str,
) -> Option<AttestationRequest> {
    let predicate = BenchmarkDecision {
        action: if benchmark.retired { "retire" } else { "seal" }.to_owned(),
        benchmark: benchmark.benchmark.clone(),
        command: SignedCommand {
            id: by.command_id.to_owned(),
            payload_digest: payload_digest.to_owned(),
            signer: by.signer.to_owned(),
        },
        family: benchmark.family.clone(),
        model: benchmark.model.clone(),
        reason: benchmark.retired_reason.clone(),
        revision,
        seal: if benchmark.retired { None } else { Some(facts(benchmark)?) },
    };
    let root = data_encoding::HEXLOWER.decode(benchmark.rows_root.as_bytes()).ok()?;
    let subject = Subject::new(benchmark.key(), BENCHMARK_TREE, &root);
    let statement = Statement { subject, predicate: Predicate::Benchmark(Box::new(predicate)) }.payload().ok()?;
    Some(AttestationRequest { predicate_type: BenchmarkDecision::TYPE.to_owned(), statement, acknowledge: None })
}

fn facts(benchmark: &Benchmark) -> Option<SealFacts> {
    let ppm = |decimal: &String| millionths(decimal).map(|number| number.to_string());
    Some(SealFacts {
        collision_rate_ppm: ppm(&benchmark.collision_rate)?,
        contract_digest: benchmark.contract_digest.clone(),
        label_commitment: benchmark.label_commitment.clone(),
        match_filter: benchmark.match_filter.digest.clone(),
        merged: benchmark.merged.clone(),
        rows: SealedRows { leaf_alg: BENCHMARK_TREE.to_owned(), n: benchmark.rows, root: benchmark.rows_root.clone() },
        sealed_rows: benchmark.sealed_rows.digest.clone(),
        strata: benchmark.strata.clone(),
        strata_deviation_ppm: benchmark.strata_deviation.as_ref().and_then(ppm),
        strata_margin_ppm: benchmark.strata_margin.as_ref().and_then(ppm),
    })
}
