//! Level 1: labels and both models' scores → every figure, the decision and its reasons.

use serde_json::{Map, Value};

use super::bound::Bound;
use super::folder::{Inputs, SAMPLES, SampleLine, salt};
use super::{Mismatch, With, artefact, recomputed};
use crate::attest::benchmark::LabelCommitment;
use crate::attest::evaluation::Outcome as Told;
use crate::attest::figures::FullRecord;
use crate::attest::samples::{Sample, SampleTree};
use crate::attest::tree::{CompactRange, Hash};
use crate::domain::records::Evaluation;
use crate::ml::declare::{Declaration, declaration};
use crate::ml::{MAX_SCORES, Task};
use crate::sealing::rows::batch_of;
use crate::stages::evaluation::columns::{Columns, frame, quanta};
use crate::stages::evaluation::plan::{Plan, seed};
use crate::stages::evaluation::samples::width;
use crate::stages::evaluation::score::{Attempt, judge};
use crate::stats::declare::Named;

/// Rows that are put together before their labels are read.
const CHUNK: usize = 16_384;

/// The samples, shown to be those of the statement.
#[derive(Debug)]
pub struct Samples {
    /// Labels, scores and strata.
    pub columns: Columns,
    /// Leaf hashes of the sealed rows.
    pub leaves: Vec<Hash>,
    /// What is learned.
    pub declared: Declaration,
}

/// Shows the samples to be those that are bound, recomputes every figure from them, and says what was done.
///
/// # Errors
/// Samples that are not those of the statement (15), figures that are not (16).
pub fn recompute(inputs: &Inputs, told: &Told, bound: &Bound, with: &With<'_>) -> Result<(Samples, String), Mismatch> {
    let samples = read(inputs, told, bound, with)?;
    let n = samples.leaves.len() as u64;
    (with.tell)("level 1: figures", n, n);
    let (acceptances, how) = match with.acceptances {
        Some(all) => (all.iter().filter(|one| one.is_before(told)).count() as u64, "recounted from the log"),
        None => (inputs.manifest.acceptances, "as the inputs say: NOT CHECKED without --log"),
    };
    let attempt = Attempt { number: bound.case.number, acceptances, seed: seed(&bound.case) };
    let judged = judge(&bound.plan, &samples.columns, attempt, with.threads)
        .map_err(|e| recomputed(format!("{}: {}", e.code, e.detail)))?;
    let found = FullRecord { samples: bound.record.samples.clone(), ..judged.scored.record };
    if let Some(difference) = difference(&found, &bound.record) {
        return Err(recomputed(difference));
    }
    let status = if judged.scored.accepted { Evaluation::ACCEPTED } else { Evaluation::REFUSED };
    if status != told.status || judged.scored.reasons != told.reasons {
        let reasons = judged.scored.reasons.join(", ");
        return Err(recomputed(format!("the decision: {status} ({reasons}); the statement says {}", told.status)));
    }
    let (metrics, strata) = (found.metrics.len(), found.strata.len());
    let detail = format!(
        "labels and scores of {n} rows give every figure: counts, {metrics} metrics with intervals and p, {strata} strata, \
         {status} and its reasons; {acceptances} acceptances before it, {how}"
    );
    Ok((samples, detail))
}

/// What of the samples is still being put together.
struct Reading<'a> {
    plan: &'a Plan,
    task: &'a Task,
    width: usize,
    columns: Columns,
    labels: Vec<Map<String, Value>>,
    rows: CompactRange,
    tree: SampleTree,
    commitment: LabelCommitment,
    leaves: Vec<Hash>,
}

fn read(inputs: &Inputs, told: &Told, bound: &Bound, with: &With<'_>) -> Result<Samples, Mismatch> {
    let declared = declaration(&bound.spec).map_err(artefact)?;
    let n = u64::try_from(told.benchmark.rows.n).map_err(|_| artefact("the statement binds no rows"))?;
    let schema = inputs.schema(Some(&declared.label))?;
    let task = &declared.task;
    let count = usize::try_from(n).unwrap_or(usize::MAX);
    if count.saturating_mul(task.outputs() + bound.plan.declared.custom.len()) > MAX_SCORES {
        return Err(artefact(format!("{n} rows: more than {MAX_SCORES} scores are not recomputed")));
    }
    let columns = Columns {
        frame: frame(task),
        labels: Vec::new(),
        baseline: Vec::new(),
        candidate: Vec::new(),
        strata: vec![Vec::new(); bound.plan.columns.len()],
        custom: bound.plan.declared.custom.iter().map(Named::without_values).collect(),
    };
    let mut reading = Reading {
        plan: &bound.plan,
        task,
        width: width(&columns),
        columns,
        labels: Vec::new(),
        rows: CompactRange::new(),
        tree: SampleTree::default(),
        commitment: LabelCommitment::new(&salt(&inputs.manifest.label_salt)?, n),
        leaves: Vec::new(),
    };
    inputs.lines(SAMPLES, n, &mut |number, line: SampleLine| {
        reading.take(number, line, &declared.label)?;
        if reading.labels.len() == CHUNK {
            (with.tell)("level 1: labels and scores", number, n);
            reading.flush(&schema, &declared.label)?;
        }
        Ok(())
    })?;
    reading.flush(&schema, &declared.label)?;
    reading.bound(told, bound)?;
    let (columns, leaves) = (reading.columns, reading.leaves);
    Ok(Samples { columns, leaves, declared })
}

impl Reading<'_> {
    fn take(&mut self, number: u64, line: SampleLine, label: &str) -> Result<(), Mismatch> {
        let wrong = |what: &str| artefact(format!("{SAMPLES}:{}: {what}", number + 1));
        let SampleLine { salt: own, sample } = line;
        self.tree.append(&salt(&own)?, &sample).map_err(|e| wrong(&e.to_string()))?;
        let Sample { base, cand, i, id, label: cell, metrics, strata } = sample;
        if i != number || [&base, &cand].iter().any(|scores| scores.len() != self.width) {
            return Err(wrong("another row than its place says, or another number of scores"));
        }
        if metrics.len() != self.columns.custom.len() {
            return Err(wrong("another number of values than the contract declares metrics"));
        }
        for (own, [base, cand]) in self.columns.custom.iter_mut().zip(metrics) {
            own.baseline.push(base);
            own.candidate.push(cand);
        }
        self.columns.baseline.extend(base);
        self.columns.candidate.extend(cand);
        if strata.len() != self.plan.columns.len() {
            return Err(wrong("another number of strata than the contract has columns of them"));
        }
        for ((of, (_, own)), name) in self.columns.strata.iter_mut().zip(&self.plan.columns).zip(strata) {
            let place = match name {
                None => own.len(),
                Some(name) => {
                    own.iter().position(|(known, _)| *known == name).ok_or_else(|| wrong("no such stratum"))?
                }
            };
            of.push(u32::try_from(place).unwrap_or(u32::MAX));
        }
        let canonical = serde_json_canonicalizer::to_vec(&cell).map_err(|_| wrong("its label is no cell"))?;
        self.commitment.append(&canonical);
        let leaf: Hash = salt(&id).map_err(|_| wrong("its id is no leaf hash"))?;
        self.rows.push(leaf);
        self.leaves.push(leaf);
        self.labels.push(Map::from_iter([(label.to_owned(), cell)]));
        Ok(())
    }

    fn flush(&mut self, schema: &arrow::datatypes::SchemaRef, label: &str) -> Result<(), Mismatch> {
        if self.labels.is_empty() {
            return Ok(());
        }
        let batch = batch_of(schema, &self.labels).map_err(|e| artefact(format!("{SAMPLES}: {e}")))?;
        self.labels.clear();
        let labels = quanta(&[batch], label, self.task).map_err(|e| artefact(format!("{SAMPLES}: {}", e.detail)))?;
        self.columns.labels.extend(labels);
        Ok(())
    }

    /// The samples are those of the record, their rows those of the benchmark, their labels those of the commitment.
    fn bound(&self, told: &Told, bound: &Bound) -> Result<(), Mismatch> {
        let hex = |hash: &Hash| data_encoding::HEXLOWER.encode(hash);
        if Some(self.tree.bound()) != bound.record.samples {
            return Err(artefact(format!("{SAMPLES}: their root is not the record's")));
        }
        if hex(&self.rows.root()) != told.benchmark.rows.root {
            return Err(artefact(format!("{SAMPLES}: their rows are not those of the benchmark's root")));
        }
        if hex(&self.commitment.clone().finish()) != told.benchmark.label_commitment {
            return Err(artefact(format!("{SAMPLES}: the labels are not those that the seal commits to")));
        }
        Ok(())
    }
}

/// The first figure in which two records differ.
fn difference(found: &FullRecord, said: &FullRecord) -> Option<String> {
    let (Ok(found), Ok(said)) = (serde_json::to_value(found), serde_json::to_value(said)) else {
        return Some("the record has no canonical form".to_owned());
    };
    let (path, found, said) = differing(String::new(), &found, &said)?;
    Some(format!("{path}: recomputed {found}, the statement says {said}"))
}

fn differing(path: String, found: &Value, said: &Value) -> Option<(String, String, String)> {
    let children = |one: &Value| -> Option<Vec<(String, Value)>> {
        match one {
            Value::Object(fields) => Some(fields.clone().into_iter().collect()),
            Value::Array(items) => Some((0..).zip(items.clone()).map(|(i, v): (u32, _)| (i.to_string(), v)).collect()),
            _ => None,
        }
    };
    if found == said {
        return None;
    }
    if let (Some(ours), Some(theirs)) = (children(found), children(said))
        && found.is_object() == said.is_object()
    {
        let names = ours.iter().chain(&theirs).map(|(name, _)| name);
        for name in names {
            let of = |all: &[(String, Value)]| all.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
            let (own, other) = (of(&ours).unwrap_or(Value::Null), of(&theirs).unwrap_or(Value::Null));
            if own != other {
                return differing(format!("{path}/{name}"), &own, &other);
            }
        }
    }
    Some((path, found.to_string(), said.to_string()))
}
