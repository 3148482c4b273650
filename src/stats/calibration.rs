//! Calibration of predicted probabilities: do rows with score 0.7 have label 1 seven times in ten?

use super::rows::{Model, PairedRows, Task};
use crate::math;

/// Rows whose scores fall into one bin of equal width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bin {
    /// Rows in the bin.
    pub rows: u64,
    /// Those with label 1.
    pub positives: u64,
    /// Sum of their scores, in quanta.
    pub score_sum: i128,
}

/// A reliability table and its summary.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// Bin k holds the scores in [k/n, (k+1)/n); a score of 1 is in the last.
    pub bins: Vec<Bin>,
    /// Expected calibration error: the mean over rows of |share of label 1 − mean score| of their bin (Naeini et al. 2015).
    pub expected_error: f64,
    /// The largest of these distances.
    pub largest_error: f64,
}

/// The reliability of a binary model's scores in `bins` bins (1 to 1000); `None` for other tasks.
#[must_use]
pub fn calibration(rows: &PairedRows, model: Model, bins: u32) -> Option<Calibration> {
    if rows.frame().task != Task::Binary || !(1..=1_000).contains(&bins) {
        return None;
    }
    let unit = i128::from(rows.frame().unit);
    let mut table = vec![Bin::default(); bins as usize];
    for (label, score) in rows.labels().iter().zip(rows.column(model)) {
        let place = (i128::from(*score) * i128::from(bins) / unit).clamp(0, i128::from(bins) - 1) as usize;
        let bin = &mut table[place];
        bin.rows += 1;
        bin.positives += u64::from(*label == 1);
        bin.score_sum += i128::from(*score);
    }
    // rows × distance is |positives × unit − score sum|: an integer.
    let gap = |bin: &Bin| (i128::from(bin.positives) * unit - bin.score_sum).unsigned_abs() as f64 / unit as f64;
    let filled = || table.iter().filter(|bin| bin.rows > 0);
    let gaps: Vec<f64> = filled().map(gap).collect();
    let largest_error = filled().map(|bin| gap(bin) / bin.rows as f64).fold(0.0, f64::max);
    let expected_error = math::sum(&gaps) / rows.len() as f64;
    Some(Calibration { bins: table, expected_error, largest_error })
}
