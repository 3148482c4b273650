//! Samples of an evaluation: each sealed row's label, scores and values of custom metrics, as the statement binds them.

use arrow::array::{ArrayRef, RecordBatch};

use super::columns::Columns;
use super::plan::{Margins, Plan};
use crate::attest::samples::{Sample, SampleSalts, SampleTree, SampledRows};
use crate::attest::tree::Hash;
use crate::domain::contract::Spec;
use crate::domain::keys::MacKey;
use crate::sealing::rows::cell;
use crate::stages::beside::Refusal;
use crate::stats::rows::{CustomValues, Task};

/// Sealed rows with all that their samples are made of.
#[derive(Debug, Clone, Copy)]
pub struct Sampled<'a> {
    label: &'a str,
    plan: &'a Plan,
    rows: &'a [RecordBatch],
    leaves: &'a [Hash],
    columns: &'a Columns,
}

fn unbound(detail: impl std::fmt::Display) -> Refusal {
    Refusal::new("SAMPLES_UNBOUND", format!("labels and scores cannot be bound: {detail}; help: report it"))
}

/// Scores per row.
#[must_use]
pub fn width(columns: &Columns) -> usize {
    match columns.frame.task {
        Task::Multiclass(classes) => usize::from(classes),
        Task::Binary | Task::Regression => 1,
    }
}

impl<'a> Sampled<'a> {
    /// Rows, their leaf hashes and columns, in one order.
    ///
    /// # Errors
    /// A contract without a label.
    pub fn new(
        spec: &'a Spec,
        plan: &'a Plan,
        rows: &'a [RecordBatch],
        leaves: &'a [Hash],
        columns: &'a Columns,
    ) -> Result<Self, Refusal> {
        let label = spec.label.as_deref().ok_or_else(|| unbound("the contract has no label"))?;
        Ok(Self { label, plan, rows, leaves, columns })
    }

    /// Shows every sample, in order.
    ///
    /// # Errors
    /// Columns that do not fit, and what `each` returns.
    pub fn each<E: From<Refusal>>(&self, mut each: impl FnMut(Sample) -> Result<(), E>) -> Result<(), E> {
        let mut leaves = (0_usize..).zip(self.leaves);
        for batch in self.rows {
            let labels = batch.column_by_name(self.label).ok_or_else(|| unbound("rows without the label's column"))?;
            for row in 0..batch.num_rows() {
                let (i, leaf) = leaves.next().ok_or_else(|| unbound("fewer leaves than rows"))?;
                each(self.sample(i, leaf, (labels, row))?)?;
            }
        }
        Ok(())
    }

    fn sample(&self, i: usize, leaf: &Hash, (labels, row): (&ArrayRef, usize)) -> Result<Sample, Refusal> {
        let width = width(self.columns);
        let scores = |all: &[i64]| all.get(i * width..(i + 1) * width).map(<[i64]>::to_vec);
        let stratum = |(of, (_, strata)): (&Vec<u32>, &(String, Margins))| {
            let place = usize::try_from(*of.get(i)?).ok()?;
            strata.get(place).map(|(name, _)| name.clone())
        };
        let strata = self.columns.strata.iter().zip(&self.plan.columns).map(stratum).collect();
        let (Some(base), Some(cand)) = (scores(&self.columns.baseline), scores(&self.columns.candidate)) else {
            return Err(unbound("fewer scores than rows"));
        };
        let metric = |own: &CustomValues| Some([*own.baseline.get(i)?, *own.candidate.get(i)?]);
        let metrics = self.columns.custom.iter().map(metric).collect::<Option<Vec<_>>>();
        let metrics = metrics.ok_or_else(|| unbound("fewer values of a metric than rows"))?;
        let label = cell(labels, row).map_err(unbound)?;
        Ok(Sample { metrics, base, cand, i: i as u64, id: data_encoding::HEXLOWER.encode(leaf), label, strata })
    }
}

/// What binds the samples of an evaluation.
///
/// # Errors
/// See [`Sampled::each`].
pub fn bind(tree_key: &MacKey, evaluation_id: &str, sampled: &Sampled<'_>) -> Result<SampledRows, Refusal> {
    let (salts, mut tree) = (SampleSalts::new(tree_key, evaluation_id), SampleTree::default());
    sampled.each(|sample| tree.append(&salts.salt(sample.i), &sample).map_err(unbound))?;
    Ok(tree.bound())
}
