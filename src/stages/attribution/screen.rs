//! Who plays alone when there are more contributors than players: KNN-Shapley of their rows on a sample.
//!
//! Features become numbers of one scale: numbers are standardised, a category is the mean label of its rows; missing is the mean.
//! A regression's labels are told apart by quartile.

use arrow::array::RecordBatch;

use super::rows::{Owned, drawn};
use crate::domain::records::Dataset as Named;
use crate::math;
use crate::ml::Task;
use crate::ml::arrow::frame_of;
use crate::ml::declare::Declaration;
use crate::ml::encoding::{Encoded, Features};
use crate::stages::beside::Refusal;
use crate::stages::evaluation::columns::quanta;
use crate::stages::training::learn::encode;
use crate::stats::attribution::screening::{Labelled, NEIGHBOURS, knn_shapley};
use crate::stats::fixed::MICRO;
use crate::stats::random::Seed;

/// Contributed rows that are looked at.
const ROWS: usize = 2_000;
/// Benchmark rows that they are looked at with.
const TESTS: usize = 500;

/// A value by owner, to rank them; nothing is published of it.
///
/// # Errors
/// Rows that cannot be encoded.
pub fn screened(
    owned: &Owned,
    benchmark: RecordBatch,
    declared: &Declaration,
    seed: Seed,
) -> Result<Vec<f64>, Refusal> {
    let contributed: Vec<u32> = (0..).zip(&owned.of).filter(|(_, owner)| **owner > 0).map(|(row, _)| row).collect();
    let count = [contributed.len().min(ROWS)];
    let places = drawn(&[contributed], &count, seed).pop().unwrap_or_default();
    let (rows, keys) = owned.pick(&places)?;
    // Every row is looked at: steps say what is learned from, and would leave values without their rows.
    let every = Declaration { derivation: declared.derivation.served(), ..declared.clone() };
    let train = encode(&every, Named::default(), rows, keys)?;
    let tests = benchmark.slice(0, benchmark.num_rows().min(TESTS));
    let labels = quanta(std::slice::from_ref(&tests), &declared.label, &declared.task)?;
    let unfit = |_| Refusal::new("BENCHMARK_UNFIT", "the sealed rows lack columns of the candidate's contract");
    let frame = frame_of(&[tests], &declared.features).map_err(unfit)?;
    let unencoded = |_| Refusal::new("BENCHMARK_UNFIT", "the sealed rows cannot be encoded");
    let tests = train.encoding().encode(&frame).map_err(unencoded)?;
    let scales: Vec<Scale> = train.features().columns.iter().map(|column| Scale::of(column, train.labels())).collect();
    let width = scales.len();
    let (learned, judged) = classes(&declared.task, train.labels(), labels);
    let (train, tests) = (matrix(train.features(), &scales), matrix(&tests, &scales));
    let values = knn_shapley(
        Labelled { features: &train, labels: &learned },
        Labelled { features: &tests, labels: &judged },
        width,
        NEIGHBOURS,
    );
    let mut by_owner = vec![0.0; owned.owners.len()];
    for (place, value) in places.iter().zip(values.unwrap_or_default()) {
        let owner = owned.of.get(*place as usize).and_then(|owner| (*owner as usize).checked_sub(1));
        if let Some(sum) = owner.and_then(|owner| by_owner.get_mut(owner)) {
            *sum += value;
        }
    }
    Ok(by_owner)
}

/// Labels that can be equal.
fn classes(task: &Task, learned: &[f64], judged: Vec<i64>) -> (Vec<i64>, Vec<i64>) {
    match task {
        Task::Classes(_) => (learned.iter().map(|label| *label as i64).collect(), judged),
        Task::Number => {
            let mut sorted = learned.to_vec();
            sorted.sort_unstable_by(f64::total_cmp);
            let cuts: Vec<f64> = (1..4).filter_map(|part| sorted.get(part * sorted.len() / 4).copied()).collect();
            let quartile = |label: f64| cuts.iter().filter(|cut| label >= **cut).count() as i64;
            let judged = judged.into_iter().map(|label| quartile(label as f64 / MICRO as f64));
            (learned.iter().map(|label| quartile(*label)).collect(), judged.collect())
        }
    }
}

/// How one feature becomes a number around 0.
enum Scale {
    Number { mean: f64, deviation: f64 },
    Category(Vec<f64>),
}

impl Scale {
    fn of(column: &Encoded, labels: &[f64]) -> Self {
        let there: Vec<(f64, f64)> = (column.values.iter().zip(labels))
            .filter(|(value, _)| !value.is_nan())
            .map(|(value, label)| (finite(*value), *label))
            .collect();
        let count = there.len().max(1) as f64;
        if column.codes == 0 {
            let mean = math::sum(&there.iter().map(|(value, _)| *value).collect::<Vec<_>>()) / count;
            let squares: Vec<f64> = there.iter().map(|(value, _)| (value - mean) * (value - mean)).collect();
            let deviation = math::sqrt(math::sum(&squares) / count);
            return Self::Number { mean, deviation: if deviation > 0.0 { deviation } else { 1.0 } };
        }
        let all = math::sum(labels) / labels.len().max(1) as f64;
        let squares: Vec<f64> = labels.iter().map(|label| (label - all) * (label - all)).collect();
        let deviation = math::sqrt(math::sum(&squares) / labels.len().max(1) as f64).max(f64::MIN_POSITIVE);
        let mut sums = vec![(0.0, 0.0); usize::from(column.codes)];
        for (code, label) in there {
            if let Some((sum, count)) = sums.get_mut(code as usize) {
                (*sum, *count) = (*sum + label - all, *count + 1.0);
            }
        }
        Self::Category(
            sums.into_iter().map(|(sum, count)| if count > 0.0 { sum / count / deviation } else { 0.0 }).collect(),
        )
    }

    fn place(&self, value: f32) -> f64 {
        match self {
            _ if value.is_nan() => 0.0,
            Self::Number { mean, deviation } => (finite(value) - mean) / deviation,
            Self::Category(places) => places.get(value as usize).copied().unwrap_or(0.0),
        }
    }
}

/// What is beyond single precision is taken for its end, as linear learners do: nothing comes of infinities, for any row.
fn finite(value: f32) -> f64 {
    f64::from(value.clamp(f32::MIN, f32::MAX))
}

/// Row-major.
fn matrix(features: &Features, scales: &[Scale]) -> Vec<f64> {
    let mut matrix = Vec::with_capacity(features.rows * scales.len());
    for row in 0..features.rows {
        for (column, scale) in features.columns.iter().zip(scales) {
            matrix.push(column.values.get(row).map_or(0.0, |value| scale.place(*value)));
        }
    }
    matrix
}
