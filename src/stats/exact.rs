//! Sums that do not depend on the order of their terms: integers of 128 and 256 bits, checked.
//!
//! Rows are quantised to integers before anything is summed, so first and second moments are exact and become a
//! floating-point number once, at the end. Rows may come in any order and be split over any number of threads.

use thiserror::Error;

/// Most rows of a benchmark: 2²⁶. It bounds memory, and with [`MAGNITUDE`] keeps every moment below 2²⁵⁶.
pub const MAX_ROWS: usize = 1 << 26;

/// Largest absolute value of a row: 2¹⁰⁰ (squares of 10¹⁴ millionths are below 2⁹⁴).
pub const MAGNITUDE: u128 = 1 << 100;

/// A value or a number of rows is beyond what the exact sums hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "a per-row value is beyond 2^100 quanta, or there are more than 2^26 rows; help: declare the metric in a larger unit"
)]
pub struct Overflow;

/// An unsigned integer of 256 bits; only what moments need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Wide {
    high: u128,
    low: u128,
}

impl Wide {
    /// The product of two 128-bit integers, exactly.
    #[must_use]
    pub fn product(a: u128, b: u128) -> Self {
        const HALF: u128 = (1 << 64) - 1;
        let (a1, a0) = (a >> 64, a & HALF);
        let (b1, b0) = (b >> 64, b & HALF);
        let (low, middle_a, middle_b, high) = (a0 * b0, a1 * b0, a0 * b1, a1 * b1);
        let carry = (low >> 64) + (middle_a & HALF) + (middle_b & HALF);
        Self { high: high + (middle_a >> 64) + (middle_b >> 64) + (carry >> 64), low: (low & HALF) | (carry << 64) }
    }

    /// The sum, unless it needs more than 256 bits.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        let (low, carry) = self.low.overflowing_add(other.low);
        let high = self.high.checked_add(other.high)?.checked_add(u128::from(carry))?;
        Some(Self { high, low })
    }

    /// The difference, unless it is negative.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        let (low, borrow) = self.low.overflowing_sub(other.low);
        let high = self.high.checked_sub(other.high)?.checked_sub(u128::from(borrow))?;
        Some(Self { high, low })
    }

    /// The product with a 128-bit integer, unless it needs more than 256 bits.
    #[must_use]
    pub fn checked_mul(self, factor: u128) -> Option<Self> {
        let high = Self::product(self.high, factor);
        if high.high != 0 {
            return None;
        }
        Self::product(self.low, factor).checked_add(Self { high: high.low, low: 0 })
    }

    /// The nearest floating-point number, within one unit in the last place.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        const TWO_TO_128: f64 = 340_282_366_920_938_463_463_374_607_431_768_211_456.0;
        self.high as f64 * TWO_TO_128 + self.low as f64
    }
}

/// Count, sum and sum of squares of integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moments {
    count: u64,
    nonzero: u64,
    sum: i128,
    squares: Wide,
}

impl Moments {
    /// The moments of `values`, in any order.
    ///
    /// # Errors
    /// [`Overflow`] past [`MAGNITUDE`] or [`MAX_ROWS`].
    pub fn of(values: impl IntoIterator<Item = i128>) -> Result<Self, Overflow> {
        let mut moments = Self::default();
        for value in values {
            moments.push(value)?;
        }
        Ok(moments)
    }

    fn push(&mut self, value: i128) -> Result<(), Overflow> {
        let size = value.unsigned_abs();
        if size > MAGNITUDE || self.count >= MAX_ROWS as u64 {
            return Err(Overflow);
        }
        self.count += 1;
        self.nonzero += u64::from(value != 0);
        self.sum += value;
        self.squares = self.squares.checked_add(Wide::product(size, size)).ok_or(Overflow)?;
        Ok(())
    }

    /// Number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Number of values that are not 0.
    #[must_use]
    pub fn nonzero(&self) -> u64 {
        self.nonzero
    }

    /// Sum of the values.
    #[must_use]
    pub fn sum(&self) -> i128 {
        self.sum
    }

    /// Mean of the values, in their unit; 0 of none.
    #[must_use]
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }

    /// n Σx² − (Σx)², exactly. Never negative, by Cauchy and Schwarz.
    #[must_use]
    pub fn scatter(&self) -> Wide {
        let size = self.sum.unsigned_abs();
        self.squares
            .checked_mul(u128::from(self.count))
            .and_then(|scaled| scaled.checked_sub(Wide::product(size, size)))
            .unwrap_or_default()
    }

    /// Sample variance (divisor n − 1), in the square of the values' unit; 0 of fewer than two.
    #[must_use]
    pub fn variance(&self) -> f64 {
        if self.count < 2 {
            return 0.0;
        }
        self.scatter().to_f64() / (self.count as f64 * (self.count - 1) as f64)
    }
}

/// Real numbers on one grid: integers and the quantum they are multiples of.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    /// The integers.
    pub values: Vec<i64>,
    /// What 1 stands for: a power of two.
    pub quantum: f64,
}

/// Puts real numbers on a common grid that depends on the largest of them alone, with `bits` (≤ 62) bits for that one:
/// their sums no longer depend on their order. `None` if one of them is not finite.
#[must_use]
pub fn on_grid(values: &[f64], bits: u32) -> Option<Grid> {
    let largest =
        values.iter().fold(0.0_f64, |largest, value| if value.abs() > largest { value.abs() } else { largest });
    if !largest.is_finite() || values.iter().any(|value| value.is_nan()) {
        return None;
    }
    if largest == 0.0 {
        return Some(Grid { values: vec![0; values.len()], quantum: 1.0 });
    }
    let exponent = ((largest.to_bits() >> 52) & 0x7ff) as i32 - 1022;
    let (down, up) = (power_of_two(exponent - bits as i32)?, power_of_two(bits as i32 - exponent)?);
    Some(Grid { values: values.iter().map(|value| (value * up).round_ties_even() as i64).collect(), quantum: down })
}

/// 2 to the power `exponent`, if it is a normal number.
fn power_of_two(exponent: i32) -> Option<f64> {
    (-1022..=1023).contains(&exponent).then(|| f64::from_bits(((exponent + 1023) as u64) << 52))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wide_products_and_differences_carry() {
        let all = u128::MAX;
        assert_eq!(Wide::product(all, all), Wide { high: all - 1, low: 1 });
        let one = Wide { high: 0, low: 1 };
        assert_eq!(Wide { high: 0, low: all }.checked_add(one), Some(Wide { high: 1, low: 0 }));
        assert_eq!(Wide { high: 1, low: 0 }.checked_sub(one), Some(Wide { high: 0, low: all }));
        assert_eq!(Wide::default().checked_sub(one), None);
        assert_eq!(Wide { high: all, low: all }.checked_mul(2), None);
        assert_eq!(Wide { high: 3, low: all }.checked_mul(2), Some(Wide { high: 7, low: all - 1 }));
    }

    #[test]
    fn a_variance_of_huge_nearly_equal_values_keeps_all_digits() {
        let base = 1_i128 << 99;
        let moments = Moments::of([base, base + 1, base + 2]).unwrap();
        assert_eq!(moments.variance(), 1.0);
        assert_eq!(Moments::of([base, base, base]).unwrap().variance(), 0.0);
    }

    #[test]
    fn a_value_beyond_the_limit_is_an_error_and_not_a_wrong_sum() {
        assert_eq!(Moments::of([1_i128 << 101]), Err(Overflow));
        assert_eq!(Moments::of([i128::MIN]), Err(Overflow));
    }

    #[test]
    fn a_grid_follows_the_largest_value_and_refuses_what_is_not_finite() {
        let grid = on_grid(&[0.75, -1.0, 0.0], 4).unwrap();
        assert_eq!(grid.values.iter().map(|v| *v as f64 * grid.quantum).collect::<Vec<_>>(), [0.75, -1.0, 0.0]);
        assert!(on_grid(&[f64::NAN], 40).is_none() && on_grid(&[f64::INFINITY], 40).is_none());
        assert_eq!(on_grid(&[0.0], 40).unwrap().values, [0]);
    }

    proptest! {
        #[test]
        fn moments_agree_with_the_definition_in_any_order(mut values in prop::collection::vec(-1_000_000_i64..1_000_000, 2..60)) {
            let forward = Moments::of(values.iter().map(|v| i128::from(*v))).unwrap();
            values.reverse();
            prop_assert_eq!(forward, Moments::of(values.iter().map(|v| i128::from(*v))).unwrap());
            let mean = values.iter().sum::<i64>() as f64 / values.len() as f64;
            let naive = values.iter().map(|v| (*v as f64 - mean) * (*v as f64 - mean)).sum::<f64>() / (values.len() - 1) as f64;
            prop_assert!((forward.variance() - naive).abs() <= 1e-9 * naive.max(1.0));
        }
    }
}
