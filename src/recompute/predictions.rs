//! Level 2: sealed rows and both artefacts → the scores, labels and strata of level 1.

use arrow::datatypes::SchemaRef;
use serde_json::{Map, Value};

use super::bound::{Bound, of_digest};
use super::figures::Samples;
use super::folder::{BASELINE, BENCHMARK, CANDIDATE, Inputs, RowLine, salt};
use super::{Mismatch, With, artefact, recomputed};
use crate::attest::benchmark::row_leaf;
use crate::attest::evaluation::Outcome as Told;
use crate::sealing::rows::{RowWriter, batch_of};
use crate::stages::evaluation::columns::columns;
use crate::stages::evaluation::samples::width;

const BASELINE_VALUE: &str = "baseline's value of a declared metric";
const CANDIDATE_VALUE: &str = "candidate's value of a declared metric";
/// Rows that are scored at once.
const CHUNK: usize = 65_536;
/// Bytes of lines that are scored at once, about.
const CHUNK_BYTES: usize = 64 << 20;

/// Shows rows and models to be those that are bound, scores the rows again, and says what was done.
///
/// # Errors
/// Rows or models that are not those of the statement (15), scores that are not (16).
pub fn recompute(
    inputs: &Inputs,
    told: &Told,
    bound: &Bound,
    samples: &Samples,
    with: &With<'_>,
) -> Result<String, Mismatch> {
    let baseline = of_digest(inputs, BASELINE, &told.baseline.digest)?;
    let candidate = of_digest(inputs, CANDIDATE, &told.candidate.digest)?;
    let n = samples.leaves.len() as u64;
    // A column that a row leaves out takes its place in memory all the same.
    let width = 16 * inputs.manifest.columns.len();
    let mut scoring = Scoring {
        bound,
        samples,
        schema: inputs.schema(None)?,
        models: (&baseline, &candidate),
        rows: Vec::new(),
        salts: Vec::new(),
        bytes: 0,
        done: 0,
    };
    inputs.lines(BENCHMARK, n, &mut |number, RowLine { row, salt: own }| {
        let long = |cell: &Value| cell.as_str().map_or(16, |text| 32 + text.len());
        scoring.bytes += width + row.iter().map(|(name, cell)| 64 + name.len() + long(cell)).sum::<usize>();
        scoring.salts.push(salt(&own)?);
        scoring.rows.push(row);
        if scoring.rows.len() >= CHUNK || scoring.bytes > CHUNK_BYTES {
            (with.tell)("level 2: scoring", number, n);
            scoring.flush()?;
        }
        Ok(())
    })?;
    scoring.flush()?;
    (with.tell)("level 2: scoring", n, n);
    Ok(format!(
        "both models score the {n} sealed rows as the samples say, label, stratum, every score and declared metric"
    ))
}

struct Scoring<'a> {
    bound: &'a Bound,
    samples: &'a Samples,
    schema: SchemaRef,
    models: (&'a [u8], &'a [u8]),
    rows: Vec<Map<String, Value>>,
    salts: Vec<[u8; 16]>,
    bytes: usize,
    done: usize,
}

impl Scoring<'_> {
    fn flush(&mut self) -> Result<(), Mismatch> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let at = |row: usize| format!("{BENCHMARK}:{}", self.done + row + 1);
        let batch = batch_of(&self.schema, &self.rows).map_err(|e| artefact(format!("{BENCHMARK}: {e}")))?;
        let mut writer = RowWriter::new(batch.schema_ref()).map_err(|e| artefact(format!("{BENCHMARK}: {e}")))?;
        for (row, own) in self.salts.iter().enumerate() {
            let json = writer.write(&batch, row).map_err(|e| artefact(format!("{}: {e}", at(row))))?;
            if self.samples.leaves.get(self.done + row) != Some(&row_leaf(own, json)) {
                return Err(artefact(format!("{}: it is not the sealed row of that place", at(row))));
            }
        }
        let case = &self.bound.case;
        let found = columns(&self.bound.spec, &self.bound.plan, &case.benchmark.strata, &[batch], self.models)
            .map_err(|e| recomputed(format!("{}: {}", e.code, e.detail)))?;
        let (all, width) = (&self.samples.columns, width(&self.samples.columns));
        let rows = self.rows.len();
        let mut compared: Vec<(&str, &[i64], &[i64], usize)> = vec![
            ("label", &found.labels, &all.labels, 1),
            ("baseline's score", &found.baseline, &all.baseline, width),
            ("candidate's score", &found.candidate, &all.candidate, width),
        ];
        for (found, all) in found.custom.iter().zip(&all.custom) {
            compared.push((BASELINE_VALUE, &found.baseline, &all.baseline, 1));
            compared.push((CANDIDATE_VALUE, &found.candidate, &all.candidate, 1));
        }
        compared
            .retain(|(_, found, said, width)| said.get(self.done * width..(self.done + rows) * width) != Some(*found));
        if let Some((what, found, said, width)) = compared.first() {
            let said = said.get(self.done * width..).unwrap_or_default();
            let place = found.iter().zip(said).position(|(found, said)| found != said).unwrap_or(0);
            let of = |all: &[i64]| all.get(place).copied().unwrap_or_default();
            let detail = format!("the {what} is {} quanta, the samples say {}", of(found), of(said));
            return Err(recomputed(format!("{}: {detail}", at(place / width))));
        }
        let strata = found.strata.iter().zip(&all.strata);
        for (found, said) in strata {
            let said = said.get(self.done..self.done + rows).unwrap_or_default();
            if let Some(row) = found.iter().zip(said).position(|(found, said)| found != said) {
                return Err(recomputed(format!("{}: the samples say another stratum", at(row))));
            }
        }
        self.done += rows;
        self.rows.clear();
        self.salts.clear();
        self.bytes = 0;
        Ok(())
    }
}
