//! One evaluation for a reader: what was asked, at which level, what came of it and why.
//!
//! What stands in it is what its record and its two statements tell. Drawings that need the scores of rows, and the figures of an
//! attempt that was not accepted, come in only by [`EvaluationReport::opened`], from the benchmark's owner.

use serde::Serialize;

use super::aggregate::{self, Bin, Roc};
use crate::attest::evaluation::{Outcome, Preregistration};
use crate::attest::figures::FullRecord;
use crate::domain::records::{Attribution, Evaluation};
use crate::stages::evaluation::columns::Columns;
use crate::stats::rows::Task;

/// A statement in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Logged<T> {
    /// Index.
    pub index: u64,
    /// Leaf hash, hex.
    pub leaf: String,
    /// What it says.
    pub said: T,
}

/// Drawings that rest on the scores of rows, summed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drawn {
    /// `binary`, `multiclass` or `regression`.
    pub task: &'static str,
    /// Rows.
    pub rows: u64,
    /// Baseline's and candidate's curves; of two classes with enough rows each.
    pub roc: Option<[Roc; 2]>,
    /// Baseline's and candidate's reliability: probability of the class 1, confidence in the class that was chosen, or the number.
    pub reliability: [Vec<Bin>; 2],
}

/// The report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EvaluationReport {
    /// When the outcome was recorded.
    pub time: String,
    /// What may be told.
    pub told: Evaluation,
    /// What was laid down before; none for a request that was no attempt.
    pub preregistration: Option<Logged<Preregistration>>,
    /// What was signed of the outcome; none for a request that was no attempt.
    pub outcome: Option<Logged<Outcome>>,
    /// Who is credited with the improvement; none before that is known.
    pub attribution: Option<Attribution>,
    /// Whether the benchmark's owner opened it: then figures stand here that are published nowhere.
    pub is_opened: bool,
    /// Every figure; none of an attempt that was not accepted, unless it was opened.
    pub figures: Option<FullRecord>,
    /// Drawings; none unless it was opened.
    pub drawn: Option<Drawn>,
}

impl EvaluationReport {
    /// What anybody may read.
    #[must_use]
    pub fn published(
        time: String,
        told: Evaluation,
        statements: Option<(Logged<Preregistration>, Logged<Outcome>)>,
    ) -> Self {
        let (preregistration, outcome) = statements.unzip();
        let figures = outcome.as_ref().and_then(|outcome| outcome.said.record.clone());
        Self { time, told, preregistration, outcome, attribution: None, is_opened: false, figures, drawn: None }
    }

    /// Adds what the benchmark's owner alone may read.
    #[must_use]
    pub fn opened(mut self, figures: FullRecord, columns: &Columns) -> Self {
        self.is_opened = true;
        self.figures = Some(figures);
        self.drawn = Some(Drawn::of(columns));
        self
    }

    /// One page: it loads and runs nothing.
    #[must_use]
    pub fn html(&self) -> String {
        super::evaluation_page::page(self)
    }
}

impl Drawn {
    fn of(columns: &Columns) -> Self {
        let Columns { frame, labels, baseline, candidate, .. } = columns;
        let both = [baseline, candidate];
        let (task, roc, pairs): (_, _, [Vec<(i64, i64)>; 2]) = match frame.task {
            Task::Binary => {
                let roc = aggregate::roc(labels, baseline).zip(aggregate::roc(labels, candidate));
                let pairs =
                    both.map(|own| own.iter().copied().zip(labels.iter().map(|label| label * 1_000_000)).collect());
                ("binary", roc.map(|(baseline, candidate)| [baseline, candidate]), pairs)
            }
            Task::Multiclass(classes) => {
                ("multiclass", None, both.map(|own| confidences(labels, own, usize::from(classes).max(1))))
            }
            Task::Regression => {
                ("regression", None, both.map(|own| own.iter().copied().zip(labels.iter().copied()).collect()))
            }
        };
        let reliability = pairs.map(aggregate::reliability);
        Self { task, rows: labels.len() as u64, roc, reliability }
    }
}

/// For each row the score of the class that was chosen (the first of equals), and whether it was right.
fn confidences(labels: &[i64], scores: &[i64], classes: usize) -> Vec<(i64, i64)> {
    let rows = labels.iter().zip(scores.chunks_exact(classes));
    rows.map(|(label, own)| {
        let (class, score) = (0..).zip(own).fold(
            (0, i64::MIN),
            |best, (class, score)| {
                if *score > best.1 { (class, *score) } else { best }
            },
        );
        (score, if class == *label { 1_000_000 } else { 0 })
    })
    .collect()
}

#[cfg(test)]
#[path = "evaluation_tests.rs"]
mod tests;
