//! The one place from which published floating-point functions come.
//!
//! The standard library's transcendentals call the platform's mathematics library, whose last bit differs between
//! systems and even between processors of one system (glibc picks variants with fused multiply-add at run time).
//! What is published (models, scores, metrics, statistics) must be the same bytes everywhere, so it goes through
//! the pure-Rust `libm` crate, pinned to an exact version in `Cargo.toml`; `clippy.toml` forbids the standard methods.
//! The four operations and the square root are exactly rounded by IEEE 754 (§5.4.1) and need no wrapper, but `sqrt` is here
//! for completeness.

/// e to the power `x`; less than 1 ulp of error.
#[inline]
#[must_use]
pub fn exp(x: f64) -> f64 {
    libm::exp(x)
}

/// e to the power `x`, minus 1, without cancellation near zero.
#[inline]
#[must_use]
pub fn expm1(x: f64) -> f64 {
    libm::expm1(x)
}

/// Natural logarithm; negative infinity at 0, NaN below.
#[inline]
#[must_use]
pub fn ln(x: f64) -> f64 {
    libm::log(x)
}

/// Natural logarithm of 1 + `x`, without cancellation near zero.
#[inline]
#[must_use]
pub fn ln_1p(x: f64) -> f64 {
    libm::log1p(x)
}

/// Logarithm to the base 2.
#[inline]
#[must_use]
pub fn log2(x: f64) -> f64 {
    libm::log2(x)
}

/// Logarithm to the base 10.
#[inline]
#[must_use]
pub fn log10(x: f64) -> f64 {
    libm::log10(x)
}

/// Square root, exactly rounded.
#[inline]
#[must_use]
pub fn sqrt(x: f64) -> f64 {
    libm::sqrt(x)
}

/// `base` to the power `exponent`.
#[inline]
#[must_use]
pub fn pow(base: f64, exponent: f64) -> f64 {
    libm::pow(base, exponent)
}

/// Error function, 2/√π ∫₀ˣ exp(−t²) dt.
#[inline]
#[must_use]
pub fn erf(x: f64) -> f64 {
    libm::erf(x)
}

/// Complementary error function 1 − erf(x), without cancellation for large `x`.
#[inline]
#[must_use]
pub fn erfc(x: f64) -> f64 {
    libm::erfc(x)
}

/// Natural logarithm of |Γ(x)|.
#[inline]
#[must_use]
pub fn ln_gamma(x: f64) -> f64 {
    libm::lgamma(x)
}

/// Γ(x).
#[inline]
#[must_use]
pub fn gamma(x: f64) -> f64 {
    libm::tgamma(x)
}

/// Sine of `x` radians.
#[inline]
#[must_use]
pub fn sin(x: f64) -> f64 {
    libm::sin(x)
}

/// Cosine of `x` radians.
#[inline]
#[must_use]
pub fn cos(x: f64) -> f64 {
    libm::cos(x)
}

/// Inverse tangent in radians.
#[inline]
#[must_use]
pub fn atan(x: f64) -> f64 {
    libm::atan(x)
}

/// Hyperbolic tangent.
#[inline]
#[must_use]
pub fn tanh(x: f64) -> f64 {
    libm::tanh(x)
}

/// Logistic function 1 / (1 + e⁻ˣ), without overflow at either end.
#[inline]
#[must_use]
pub fn logistic(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + exp(-x))
    } else {
        let e = exp(x);
        e / (1.0 + e)
    }
}

/// ln(1 + eˣ), the softplus, without overflow.
#[inline]
#[must_use]
pub fn softplus(x: f64) -> f64 {
    if x > 0.0 { x + ln_1p(exp(-x)) } else { ln_1p(exp(x)) }
}

/// Numbers per block of [`sum`].
const BLOCK: usize = 128;

/// Sum in a fixed tree: blocks of 128 in order, their sums pairwise. The same bits whatever the thread count, with an
/// error that grows with the logarithm of the length (Higham, "The accuracy of floating point summation", 1993).
#[must_use]
pub fn sum(values: &[f64]) -> f64 {
    if values.len() <= BLOCK {
        return values.iter().fold(0.0, |total, value| total + value);
    }
    let blocks = values.len().div_ceil(BLOCK);
    let (left, right) = values.split_at(blocks.div_ceil(2) * BLOCK);
    sum(left) + sum(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (function, argument, bits): libm 0.2.16 on x86-64. A change of any bit changes published models and statistics.
    #[test]
    fn the_last_bit_of_every_function_is_pinned() {
        let bits: Vec<u64> = [
            exp(0.7),
            expm1(1e-3),
            ln(3.3),
            ln_1p(1e-3),
            log2(3.3),
            log10(3.3),
            sqrt(2.0),
            pow(1.1, 7.3),
            erf(0.4),
            erfc(2.5),
            ln_gamma(4.6),
            gamma(4.6),
            sin(1.2),
            cos(1.2),
            atan(0.9),
            tanh(0.3),
            logistic(-1.7),
            softplus(0.4),
        ]
        .iter()
        .map(|x| x.to_bits())
        .collect();
        assert_eq!(bits, PINNED, "{bits:#x?}");
    }

    const PINNED: [u64; 18] = [
        0x4000_1c2a_6126_8987,
        0x3f50_6466_dfb8_cf3a,
        0x3ff3_1a4e_7240_c777,
        0x3f50_6035_4f8c_3ebf,
        0x3ffb_8f38_88b9_3109,
        0x3fe0_97aa_8bc9_75db,
        0x3ff6_a09e_667f_3bcd,
        0x4000_0abb_db22_bbdf,
        0x3fdb_6ac7_c4b2_0a05,
        0x3f3a_ab85_9b20_ac9e,
        0x4004_c038_2df8_ba2c,
        0x402a_c337_e6d4_29d6,
        0x3fed_d343_a21a_55c4,
        0x3fd7_30de_943b_79d4,
        0x3fe7_7338_a806_03be,
        0x3fd2_a4dd_a7d9_14f9,
        0x3fc3_c584_8ef3_6c9e,
        0x3fed_376b_c339_d2cc,
    ];

    #[test]
    fn functions_agree_with_known_values() {
        for (ours, known) in [
            (exp(1.0), std::f64::consts::E),
            (erf(1.0), 0.842_700_792_949_714_9),
            (erfc(1.0), 0.157_299_207_050_285_13),
            (ln_gamma(10.0), 12.801_827_480_081_469),
            (logistic(0.0), 0.5),
            (softplus(0.0), std::f64::consts::LN_2),
            (pow(2.0, 0.5), std::f64::consts::SQRT_2),
        ] {
            assert!((ours - known).abs() <= 4.0 * f64::EPSILON * known.abs(), "{ours} {known}");
        }
    }

    #[test]
    fn the_ends_of_the_range_neither_overflow_nor_become_nan() {
        assert_eq!((logistic(1e4), logistic(-1e4)), (1.0, 0.0));
        assert_eq!((softplus(1e4), softplus(-1e4)), (1e4, 0.0));
    }

    #[test]
    fn a_sum_of_many_equal_numbers_stays_exact_where_a_running_sum_does_not() {
        let values = vec![0.1; 1_000_000];
        let running = values.iter().fold(0.0, |total, value| total + value);
        assert!((sum(&values) - 100_000.0).abs() < 1e-9);
        assert!((running - 100_000.0f64).abs() > 1e-7);
        assert_eq!(sum(&[]), 0.0);
    }
}
