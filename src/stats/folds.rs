//! Two learners compared by five times two-fold cross-validation: for a trainer that has no benchmark. Nothing is accepted by it.

use super::distribution::{f_upper, student_upper};
use crate::math;

/// A statistic with its p-value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FoldTest {
    /// The statistic.
    pub statistic: f64,
    /// Its p-value: two-sided for t; F has one side.
    pub p_value: f64,
}

/// Dietterich's 5×2 t (1998; 5 degrees of freedom) and Alpaydin's 5×2 F (1999; 10 and 5) of the differences by repetition and
/// fold. `None` if the folds do not vary.
#[must_use]
pub fn five_by_two(differences: &[[f64; 2]; 5]) -> Option<(FoldTest, FoldTest)> {
    let variance = |[one, other]: &[f64; 2]| {
        let mean = (one + other) / 2.0;
        (one - mean) * (one - mean) + (other - mean) * (other - mean)
    };
    let variances: f64 = differences.iter().map(variance).sum();
    let squares: f64 = differences.iter().flatten().map(|difference| difference * difference).sum();
    let (t, f) = (differences[0][0] / math::sqrt(variances / 5.0), squares / (2.0 * variances));
    (t.is_finite() && f.is_finite()).then(|| {
        (
            FoldTest { statistic: t, p_value: 2.0 * student_upper(t.abs(), 5.0) },
            FoldTest { statistic: f, p_value: f_upper(f, 10.0, 5.0) },
        )
    })
}
