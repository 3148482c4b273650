//! The rows of a benchmark with both models' scores: checked, quantised, in an order of their own.

use super::exact::MAX_ROWS;
use super::fixed::MICRO;
use thiserror::Error;

/// Most classes of a multiclass model.
pub const MAX_CLASSES: u16 = 1_000;

/// Largest absolute label or score of a regression, in whole units; beyond it squares would not fit the exact sums.
pub const MAX_REAL: i64 = 100_000_000;

/// Largest absolute value of a custom metric, in millionths.
pub const MAX_CUSTOM: u64 = (MAX_REAL * MICRO).unsigned_abs();

/// Largest unit: scores are at most as fine as 10⁻¹².
pub const MAX_UNIT: i64 = 1_000_000_000_000;

/// What a model predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Labels 0 and 1; a score is the probability of 1.
    Binary,
    /// Labels 0 to n − 1; scores are n probabilities per row.
    Multiclass(u16),
    /// Labels and scores are real numbers.
    Regression,
}

/// How labels and scores are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// What the model predicts.
    pub task: Task,
    /// Quanta per 1: a probability of 1 is this integer.
    pub unit: i64,
    /// A binary score from here on predicts 1.
    pub threshold: i64,
}

impl Frame {
    /// Scores in millionths, threshold one half.
    #[must_use]
    pub fn new(task: Task) -> Self {
        Self { task, unit: MICRO, threshold: MICRO / 2 }
    }

    fn width(self) -> usize {
        match self.task {
            Task::Multiclass(classes) => usize::from(classes),
            Task::Binary | Task::Regression => 1,
        }
    }
}

/// Which of the two models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// The comparator.
    Baseline,
    /// The one that wants to replace it.
    Candidate,
}

/// A metric that the benchmark's owner defined, as one value per row and model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomValues {
    /// Its declared name.
    pub name: String,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// The baseline's value of each row, in millionths.
    pub baseline: Vec<i64>,
    /// The candidate's value of each row, in millionths.
    pub candidate: Vec<i64>,
}

/// Why rows were not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RowsError {
    /// No rows.
    #[error("the benchmark has no rows; help: seal one with labelled rows")]
    Empty,
    /// More than [`MAX_ROWS`].
    #[error("the benchmark has {0} rows, more than 2^26; help: seal a sample of it")]
    TooMany(usize),
    /// Columns of different lengths.
    #[error("{column} has {found} values for {expected} rows; help: both models must score every row once")]
    Length {
        /// The column that does not fit.
        column: String,
        /// Its length.
        found: usize,
        /// The length it should have.
        expected: usize,
    },
    /// A label that the task does not know.
    #[error("row {row}: the label {label} is none of this task")]
    Label {
        /// Position of the row, from 0.
        row: usize,
        /// The label, or its quanta.
        label: i64,
    },
    /// A score outside its range, or class probabilities that do not add up to 1.
    #[error("row {row}: the {model:?}'s score is {what}; help: probabilities lie in [0, 1] and add up to 1")]
    Score {
        /// Position of the row, from 0.
        row: usize,
        /// Whose score.
        model: Model,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A custom metric's value beyond [`MAX_REAL`].
    #[error("row {row}: a value of {metric} lies beyond 10^8; help: measure it in a larger unit")]
    Custom {
        /// Position of the row, from 0.
        row: usize,
        /// The metric.
        metric: String,
    },
    /// A frame with an impossible number of classes.
    #[error("a task of {0} classes is not possible; help: 2 to 1000")]
    Classes(u16),
    /// A frame with an impossible unit or threshold.
    #[error("a unit of {unit} with the threshold {threshold} is not possible; help: 1 to 10^12, and 0 to the unit")]
    Unit {
        /// Quanta per 1.
        unit: i64,
        /// The threshold in quanta.
        threshold: i64,
    },
}

/// Labels and both models' scores. Rows stand in an order that their content decides, so nothing that is computed from
/// them can depend on the order in which they came: rows that tie in it are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairedRows {
    frame: Frame,
    labels: Vec<i64>,
    baseline: Vec<i64>,
    candidate: Vec<i64>,
    custom: Vec<CustomValues>,
    strata: Vec<u32>,
}

impl PairedRows {
    /// Takes labels and scores in quanta; class probabilities row by row.
    ///
    /// # Errors
    /// See [`RowsError`]; nothing is clamped or left out.
    pub fn new(frame: Frame, labels: Vec<i64>, baseline: Vec<i64>, candidate: Vec<i64>) -> Result<Self, RowsError> {
        let strata = vec![0; labels.len()];
        Self::with_extras(frame, labels, baseline, candidate, Vec::new(), strata)
    }

    /// As [`PairedRows::new`], with custom metrics and the stratum of each row.
    ///
    /// # Errors
    /// See [`RowsError`].
    pub fn with_extras(
        frame: Frame,
        labels: Vec<i64>,
        baseline: Vec<i64>,
        candidate: Vec<i64>,
        custom: Vec<CustomValues>,
        strata: Vec<u32>,
    ) -> Result<Self, RowsError> {
        let rows = Self { frame, labels, baseline, candidate, custom, strata };
        rows.check()?;
        Ok(rows.sorted())
    }

    fn check(&self) -> Result<(), RowsError> {
        let rows = self.labels.len();
        if rows == 0 {
            return Err(RowsError::Empty);
        }
        if rows > MAX_ROWS {
            return Err(RowsError::TooMany(rows));
        }
        if let Task::Multiclass(classes) = self.frame.task
            && !(2..=MAX_CLASSES).contains(&classes)
        {
            return Err(RowsError::Classes(classes));
        }
        let Frame { unit, threshold, .. } = self.frame;
        if !(1..=MAX_UNIT).contains(&unit) || !(0..=unit).contains(&threshold) {
            return Err(RowsError::Unit { unit, threshold });
        }
        let length = |column: &str, found: usize, expected: usize| {
            if found == expected {
                Ok(())
            } else {
                Err(RowsError::Length { column: column.to_owned(), found, expected })
            }
        };
        length("the baseline", self.baseline.len(), rows * self.frame.width())?;
        length("the candidate", self.candidate.len(), rows * self.frame.width())?;
        length("the strata", self.strata.len(), rows)?;
        for custom in &self.custom {
            length(&custom.name, custom.baseline.len(), rows)?;
            length(&custom.name, custom.candidate.len(), rows)?;
            let beyond = |value: &i64| value.unsigned_abs() > MAX_CUSTOM;
            for column in [&custom.baseline, &custom.candidate] {
                if let Some(row) = column.iter().position(beyond) {
                    return Err(RowsError::Custom { row, metric: custom.name.clone() });
                }
            }
        }
        for (row, label) in self.labels.iter().enumerate() {
            if !self.is_label(*label) {
                return Err(RowsError::Label { row, label: *label });
            }
            self.check_scores(row, Model::Baseline)?;
            self.check_scores(row, Model::Candidate)?;
        }
        Ok(())
    }

    fn is_label(&self, label: i64) -> bool {
        match self.frame.task {
            Task::Binary => label == 0 || label == 1,
            Task::Multiclass(classes) => (0..i64::from(classes)).contains(&label),
            Task::Regression => label.unsigned_abs() <= self.largest(),
        }
    }

    /// Of a regression's labels and scores, in quanta: in finer units than millionths squares would not fit either.
    fn largest(&self) -> u64 {
        MAX_REAL.unsigned_abs() * self.frame.unit.min(MICRO).unsigned_abs()
    }

    fn check_scores(&self, row: usize, model: Model) -> Result<(), RowsError> {
        let wrong = |what| Err(RowsError::Score { row, model, what });
        let scores = self.scores(model, row);
        if self.frame.task == Task::Regression {
            let fits = scores.iter().all(|score| score.unsigned_abs() <= self.largest());
            return if fits { Ok(()) } else { wrong("beyond 10^8, or 10^14 quanta") };
        }
        if scores.iter().any(|score| !(0..=self.frame.unit).contains(score)) {
            return wrong("no probability");
        }
        // Rounding each of n probabilities moves their sum by at most n/2 quanta, and single precision by another. More would be a way to
        // a better log-loss.
        let slack = i128::from(self.frame.width() as u64 / 2 + 1);
        let sum: i128 = scores.iter().map(|s| i128::from(*s)).sum();
        if matches!(self.frame.task, Task::Multiclass(_)) && (sum - i128::from(self.frame.unit)).abs() > slack {
            return wrong("not normalised");
        }
        Ok(())
    }

    fn sorted(self) -> Self {
        let mut order: Vec<usize> = (0..self.labels.len()).collect();
        order.sort_unstable_by(|a, b| self.order(*a, *b));
        self.pick(&order)
    }

    fn order(&self, a: usize, b: usize) -> std::cmp::Ordering {
        let own = self.labels[a]
            .cmp(&self.labels[b])
            .then_with(|| self.scores(Model::Baseline, a).cmp(self.scores(Model::Baseline, b)))
            .then_with(|| self.scores(Model::Candidate, a).cmp(self.scores(Model::Candidate, b)))
            .then_with(|| self.strata[a].cmp(&self.strata[b]));
        self.custom.iter().fold(own, |order, custom| {
            order
                .then_with(|| custom.baseline[a].cmp(&custom.baseline[b]))
                .then_with(|| custom.candidate[a].cmp(&custom.candidate[b]))
        })
    }

    /// The rows at `positions`, in that order.
    fn pick(&self, positions: &[usize]) -> Self {
        let width = self.frame.width();
        let one = |column: &[i64]| positions.iter().map(|p| column[*p]).collect::<Vec<_>>();
        let wide = |column: &[i64]| {
            positions.iter().flat_map(|p| column[p * width..(p + 1) * width].iter().copied()).collect()
        };
        Self {
            frame: self.frame,
            labels: one(&self.labels),
            baseline: wide(&self.baseline),
            candidate: wide(&self.candidate),
            custom: self
                .custom
                .iter()
                .map(|c| CustomValues {
                    name: c.name.clone(),
                    higher_is_better: c.higher_is_better,
                    baseline: one(&c.baseline),
                    candidate: one(&c.candidate),
                })
                .collect(),
            strata: positions.iter().map(|p| self.strata[*p]).collect(),
        }
    }

    /// The rows of one stratum; `None` if there are none.
    #[must_use]
    pub fn stratum(&self, level: u32) -> Option<Self> {
        let positions: Vec<usize> =
            self.strata.iter().enumerate().filter(|(_, own)| **own == level).map(|(position, _)| position).collect();
        (!positions.is_empty()).then(|| self.pick(&positions))
    }

    /// Whether a row is in a stratum from `count` on.
    #[must_use]
    pub fn has_strata_beyond(&self, count: usize) -> bool {
        self.strata.iter().any(|own| *own as usize >= count)
    }

    /// Both models exchanged.
    #[must_use]
    pub fn exchanged(&self) -> Self {
        let mut other = self.clone();
        std::mem::swap(&mut other.baseline, &mut other.candidate);
        for custom in &mut other.custom {
            std::mem::swap(&mut custom.baseline, &mut custom.candidate);
        }
        other.sorted()
    }

    /// How labels and scores are read.
    #[must_use]
    pub fn frame(&self) -> Frame {
        self.frame
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Never: rows are checked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The labels, ascending.
    #[must_use]
    pub fn labels(&self) -> &[i64] {
        &self.labels
    }

    /// All scores of a model: one per row, or n per row of a multiclass task.
    #[must_use]
    pub fn column(&self, model: Model) -> &[i64] {
        match model {
            Model::Baseline => &self.baseline,
            Model::Candidate => &self.candidate,
        }
    }

    /// The scores of one row.
    #[must_use]
    pub fn scores(&self, model: Model, row: usize) -> &[i64] {
        let width = self.frame.width();
        self.column(model).get(row * width..(row + 1) * width).unwrap_or_default()
    }

    /// The declared custom metrics.
    #[must_use]
    pub fn custom(&self) -> &[CustomValues] {
        &self.custom
    }

    /// The stratum of each row.
    #[must_use]
    pub fn strata(&self) -> &[u32] {
        &self.strata
    }

    /// The class that a model predicts for each row: the threshold decides, or the largest probability (the first of equals).
    #[must_use]
    pub fn predicted(&self, model: Model) -> Vec<u16> {
        if self.frame.task == Task::Binary {
            return self.column(model).iter().map(|score| u16::from(*score >= self.frame.threshold)).collect();
        }
        (0..self.len())
            .map(|row| {
                let scores = self.scores(model, row);
                let best = scores
                    .iter()
                    .enumerate()
                    .fold((0, i64::MIN), |best, (class, score)| if *score > best.1 { (class, *score) } else { best });
                best.0 as u16
            })
            .collect()
    }

    /// Rows per class, for a classification.
    #[must_use]
    pub fn class_counts(&self) -> Vec<u64> {
        let classes = match self.frame.task {
            Task::Binary => 2,
            Task::Multiclass(classes) => usize::from(classes),
            Task::Regression => return Vec::new(),
        };
        let mut counts = vec![0; classes];
        for label in &self.labels {
            if let Some(count) = usize::try_from(*label).ok().and_then(|label| counts.get_mut(label)) {
                *count += 1;
            }
        }
        counts
    }
}
