//! Fixed point: scores become integers once, and what is published is rounded against the candidate.

use thiserror::Error;

/// Quanta per unit of a score: scores are multiples of 10⁻⁶.
pub const MICRO: i64 = 1_000_000;

/// Why a number did not become fixed point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FixedError {
    /// NaN or an infinity.
    #[error("the number is not finite; help: a score must be a finite number")]
    NotFinite,
    /// Beyond what an `i64` of quanta holds. It is never clamped.
    #[error("the number needs more than 63 bits in units of 10^-6; help: declare the metric in a larger unit")]
    TooLarge,
    /// Not a decimal number.
    #[error("not a decimal number; help: write it like 0.005")]
    NotDecimal,
}

/// `value` in quanta of 1/`unit`, where `unit` is a power of ten: rounded half to even from its shortest decimal.
///
/// The shortest decimal is what every printout of the number shows, so a stranger with pen and paper gets the same
/// integer; rounding the binary value instead would send 0.0000005 either way.
///
/// # Errors
/// A number that is not finite, or whose integer does not fit.
pub fn quantise(value: f64, unit: i64) -> Result<i64, FixedError> {
    if !value.is_finite() {
        return Err(FixedError::NotFinite);
    }
    parse_decimal(&format!("{value:e}"), unit)
}

/// A decimal number such as `0.005`, `-3` or `1.5e-3` in quanta of 1/`unit`, rounded half to even.
///
/// # Errors
/// Text that is no decimal number, or an integer that does not fit.
pub fn parse_decimal(text: &str, unit: i64) -> Result<i64, FixedError> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| FixedError::NotDecimal)?),
        None => (text, 0),
    };
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = whole.len() + fraction.len();
    if digits == 0 || digits > 40 || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return Err(FixedError::NotDecimal);
    }
    let places = decimal_places(unit);
    // The value is 0.d₁d₂d₃… × 10^point; quanta are the digits before position `point + places`.
    let cut = i64::from(exponent) + whole.len() as i64 + i64::from(places);
    let magnitude = round_digits(whole.bytes().chain(fraction.bytes()).map(|b| b - b'0'), digits, cut)?;
    i64::try_from(if negative { -magnitude } else { magnitude }).map_err(|_| FixedError::TooLarge)
}

fn decimal_places(unit: i64) -> u32 {
    unit.unsigned_abs().checked_ilog10().unwrap_or(0)
}

/// The integer of the first `cut` digits, rounded half to even by the rest; digits that are missing are zeros.
fn round_digits(digits: impl Iterator<Item = u8>, count: usize, cut: i64) -> Result<i128, FixedError> {
    const LIMIT: i128 = 1 << 64;
    let (mut value, mut first_dropped, mut rest) = (0_i128, 0_u8, false);
    for (position, digit) in digits.enumerate() {
        match (position as i64).cmp(&cut) {
            std::cmp::Ordering::Less => {
                value = value * 10 + i128::from(digit);
                if value > LIMIT {
                    return Err(FixedError::TooLarge);
                }
            }
            std::cmp::Ordering::Equal => first_dropped = digit,
            std::cmp::Ordering::Greater => rest |= digit != 0,
        }
    }
    for _ in count as i64..cut {
        if value == 0 {
            break;
        }
        value *= 10;
        if value > LIMIT {
            return Err(FixedError::TooLarge);
        }
    }
    let up = first_dropped > 5 || (first_dropped == 5 && (rest || value % 2 == 1));
    Ok(value + i128::from(up))
}

/// An exact value of a metric: a fraction of integers with a positive denominator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio {
    /// Numerator.
    pub numerator: i128,
    /// Denominator, > 0.
    pub denominator: i128,
}

impl Ratio {
    /// The fraction, or `None` with a denominator that is not positive.
    #[must_use]
    pub fn new(numerator: i128, denominator: i128) -> Option<Self> {
        (denominator > 0).then_some(Self { numerator, denominator })
    }

    /// Nearest floating-point number.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }

    /// The largest integer ≤ value × `scale`; `None` on overflow.
    #[must_use]
    pub fn floor(self, scale: i128) -> Option<i128> {
        let whole = self.numerator.div_euclid(self.denominator).checked_mul(scale)?;
        let part = self.numerator.rem_euclid(self.denominator).checked_mul(scale)?;
        whole.checked_add(part.div_euclid(self.denominator))
    }

    /// The smallest integer ≥ value × `scale`; `None` on overflow.
    #[must_use]
    pub fn ceil(self, scale: i128) -> Option<i128> {
        Ratio { numerator: self.numerator.checked_neg()?, denominator: self.denominator }.floor(scale)?.checked_neg()
    }
}

/// The largest integer ≤ `value` × `scale`, after one part in 10¹² is taken off for the rounding inside `value`.
#[must_use]
pub fn floor_real(value: f64, scale: f64) -> Option<i128> {
    let scaled = value * scale;
    let guarded = (scaled - scaled.abs() * 1e-12).floor();
    (guarded.abs() < 1e30).then_some(guarded as i128)
}

/// The smallest integer ≥ `value` × `scale`, after one part in 10¹² is added for the rounding inside `value`.
#[must_use]
pub fn ceil_real(value: f64, scale: f64) -> Option<i128> {
    floor_real(-value, scale).map(|floor| -floor)
}

/// A p-value as a decimal string with nine places, rounded up, so that what is published is never below what was computed.
///
/// Exact: the binary fraction is scaled in integers. `None` outside [0, 1].
#[must_use]
pub fn p_value_string(p: f64) -> Option<String> {
    if !(0.0..=1.0).contains(&p) {
        return None;
    }
    const BILLION: u128 = 1_000_000_000;
    let bits = p.to_bits();
    let exponent = (bits >> 52) as i32;
    let mantissa = u128::from(bits & ((1 << 52) - 1) | if exponent == 0 { 0 } else { 1 << 52 });
    // p = mantissa / 2^shift
    let shift = 1075 - exponent.max(1);
    let scaled = mantissa * BILLION;
    let billionths = match u32::try_from(shift) {
        Ok(shift) if shift < 127 => (scaled + ((1_u128 << shift) - 1)) >> shift,
        _ => u128::from(scaled > 0),
    };
    Some(format!("{}.{:09}", billionths / BILLION, billionths % BILLION))
}

/// Millionths as a decimal string: `-1500000` is `-1.500000`.
#[must_use]
pub fn micro_string(micro: i128) -> String {
    let size = micro.unsigned_abs();
    let unit = u128::from(MICRO.unsigned_abs());
    format!("{}{}.{:06}", if micro < 0 { "-" } else { "" }, size / unit, size % unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn halves_go_to_the_even_neighbour_by_the_shortest_decimal() {
        for (value, quanta) in [
            (0.000_000_5, 0),
            (0.000_001_5, 2),
            (0.000_002_5, 2),
            (0.000_002_500_000_1, 3),
            (-0.000_003_5, -4),
            (0.1 + 0.2, 300_000),
            (1e-300, 0),
            (123_456_789.123_456_7, 123_456_789_123_457),
            (0.0, 0),
            (-0.0, 0),
        ] {
            assert_eq!(quantise(value, MICRO), Ok(quanta), "{value:e}");
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error_and_never_clamped() {
        assert_eq!(quantise(f64::NAN, MICRO), Err(FixedError::NotFinite));
        assert_eq!(quantise(f64::INFINITY, MICRO), Err(FixedError::NotFinite));
        assert_eq!(quantise(1e13, MICRO), Err(FixedError::TooLarge));
        assert_eq!(quantise(1e300, MICRO), Err(FixedError::TooLarge));
        assert_eq!(quantise(9.0e12, MICRO), Ok(9_000_000_000_000_000_000));
        for text in ["", ".", "1e", "0x1", "1 ", "+1", "٣", "NaN", "1e99999999999"] {
            assert_eq!(parse_decimal(text, MICRO), Err(FixedError::NotDecimal), "{text}");
        }
        assert_eq!(parse_decimal("0e2147483647", MICRO), Ok(0));
        assert_eq!(parse_decimal("1e2147483647", MICRO), Err(FixedError::TooLarge));
        assert_eq!(parse_decimal("1e-2147483648", MICRO), Ok(0));
    }

    #[test]
    fn published_p_values_are_never_below_the_computed_ones() {
        for (p, text) in [
            (0.03125, "0.031250000"),
            (1e-12, "0.000000001"),
            (0.0, "0.000000000"),
            (1.0, "1.000000000"),
            (f64::MIN_POSITIVE / 4.0, "0.000000001"),
            (0.1, "0.100000001"),
            (0.123_456_789_01, "0.123456790"),
        ] {
            assert_eq!(p_value_string(p).as_deref(), Some(text), "{p:e}");
        }
        assert_eq!((p_value_string(-0.1), p_value_string(1.1), p_value_string(f64::NAN)), (None, None, None));
    }

    #[test]
    fn basis_points_round_down_and_up_to_either_side_of_the_fraction() {
        let two_thirds = Ratio::new(2, 3).unwrap();
        assert_eq!((two_thirds.floor(10_000), two_thirds.ceil(10_000)), (Some(6666), Some(6667)));
        let minus = Ratio::new(-2, 3).unwrap();
        assert_eq!((minus.floor(10_000), minus.ceil(10_000)), (Some(-6667), Some(-6666)));
        assert_eq!(Ratio::new(1, 0), None);
        assert_eq!((floor_real(0.5, 10_000.0), ceil_real(0.5, 10_000.0)), (Some(4999), Some(5001)));
        assert_eq!(floor_real(f64::NAN, 1.0), None);
        assert_eq!(micro_string(-1_500_000), "-1.500000");
    }

    proptest! {
        #[test]
        fn an_integer_of_quanta_survives_its_own_printout(quanta in -(1_i64 << 52)..(1_i64 << 52)) {
            let value: f64 = format!("{}e-6", quanta).parse().unwrap();
            prop_assert_eq!(quantise(value, MICRO), Ok(quanta));
            prop_assert_eq!(parse_decimal(&micro_string(i128::from(quanta)), MICRO), Ok(quanta));
        }

        #[test]
        fn quantising_is_within_half_a_quantum_and_never_panics(value in prop::num::f64::ANY) {
            if let Ok(quanta) = quantise(value, MICRO) {
                prop_assert!((quanta as f64 - value * 1e6).abs() <= 0.5 + value.abs() * 1e6 * 1e-15);
            }
        }
    }
}
