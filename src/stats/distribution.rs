//! Tails and quantiles of the normal, Student's t, beta and binomial distributions.
//!
//! Decisions are taken at levels down to 10⁻⁹ and below, so every tail is computed directly and never as 1 − the other
//! tail: the relative error stays below 10⁻¹¹ down to 10⁻³⁰⁰. All functions are pure and use `crate::math` alone.

use crate::math;

const SQRT_2: f64 = std::f64::consts::SQRT_2;
const LN_SQRT_2_PI: f64 = 0.918_938_533_204_672_8;

/// P(Z ≥ `z`) for a standard normal Z.
#[must_use]
pub fn normal_upper(z: f64) -> f64 {
    0.5 * math::erfc(z / SQRT_2)
}

/// P(Z ≤ `z`) for a standard normal Z.
#[must_use]
pub fn normal_lower(z: f64) -> f64 {
    normal_upper(-z)
}

/// The `z` with P(Z ≥ z) = `tail`: infinite at 0 and 1, NaN outside.
///
/// Wichura, "Algorithm AS 241" (1988), PPND16, followed by one Newton step on the logarithm of the tail.
#[must_use]
pub fn normal_upper_quantile(tail: f64) -> f64 {
    if tail.is_nan() || !(0.0..=1.0).contains(&tail) {
        return f64::NAN;
    }
    if tail == 0.0 {
        return f64::INFINITY;
    }
    if tail == 1.0 {
        return f64::NEG_INFINITY;
    }
    if tail > 0.5 {
        // Exact subtraction (Sterbenz) for tails in [0.5, 1].
        return -normal_upper_quantile(1.0 - tail);
    }
    let start = wichura(tail);
    let density = math::exp(-0.5 * start * start - LN_SQRT_2_PI);
    if density == 0.0 {
        return start;
    }
    let upper = normal_upper(start);
    start + math::ln(upper / tail) * upper / density
}

fn wichura(tail: f64) -> f64 {
    let centred = 0.5 - tail;
    if centred <= 0.425 {
        let r = 0.180_625 - centred * centred;
        return centred * polynomial(r, &CENTRE.0) / polynomial(r, &CENTRE.1);
    }
    let r = math::sqrt(-math::ln(tail));
    if r <= 5.0 {
        polynomial(r - 1.6, &MIDDLE.0) / polynomial(r - 1.6, &MIDDLE.1)
    } else {
        polynomial(r - 5.0, &FAR.0) / polynomial(r - 5.0, &FAR.1)
    }
}

/// Horner's rule, the highest power first.
fn polynomial(x: f64, coefficients: &[f64; 8]) -> f64 {
    coefficients.iter().fold(0.0, |value, coefficient| value * x + coefficient)
}

type Rational = ([f64; 8], [f64; 8]);

#[rustfmt::skip]
#[allow(clippy::inconsistent_digit_grouping, clippy::excessive_precision)]
const CENTRE: Rational = (
    [2.509_080_928_730_122_6727e3, 3.343_057_558_358_812_8105e4, 6.726_577_092_700_870_0853e4, 4.592_195_393_154_987_1457e4,
     1.373_169_376_550_946_1125e4, 1.971_590_950_306_551_4427e3, 1.331_416_678_917_843_7745e2, 3.387_132_872_796_366_6080],
    [5.226_495_278_852_854_5610e3, 2.872_908_573_572_194_2674e4, 3.930_789_580_009_271_0610e4, 2.121_379_430_158_659_5867e4,
     5.394_196_021_424_751_1077e3, 6.871_870_074_920_579_0830e2, 4.231_333_070_160_091_1252e1, 1.0],
);
#[rustfmt::skip]
#[allow(clippy::inconsistent_digit_grouping, clippy::excessive_precision)]
const MIDDLE: Rational = (
    [7.745_450_142_783_414_0764e-4, 2.272_384_498_926_918_45833e-2, 2.417_807_251_774_506_1177e-1, 1.270_458_252_452_368_38258,
     3.647_848_324_763_204_60504, 5.769_497_221_460_691_40550, 4.630_337_846_156_545_29590, 1.423_437_110_749_683_57734],
    [1.050_750_071_644_416_84324e-9, 5.475_938_084_995_344_9460e-4, 1.519_866_656_361_645_71966e-2, 1.481_039_764_274_800_74590e-1,
     6.897_673_349_851_000_04550e-1, 1.676_384_830_183_803_84940, 2.053_191_626_637_758_82187, 1.0],
);
#[rustfmt::skip]
#[allow(clippy::inconsistent_digit_grouping, clippy::excessive_precision)]
const FAR: Rational = (
    [2.010_334_399_292_288_13265e-7, 2.711_555_568_743_487_57815e-5, 1.242_660_947_388_078_43860e-3, 2.653_218_952_657_612_30930e-2,
     2.965_605_718_285_048_91230e-1, 1.784_826_539_917_291_33580, 5.463_784_911_164_114_36990, 6.657_904_643_501_103_77720],
    [2.044_263_103_389_939_78564e-15, 1.421_511_758_316_445_88870e-7, 1.846_318_317_510_054_68180e-5, 7.868_691_311_456_132_59100e-4,
     1.487_536_129_085_061_48525e-2, 1.369_298_809_227_358_05310e-1, 5.998_322_065_558_879_37690e-1, 1.0],
);

/// The regularised incomplete beta function and its complement, (I_x(a, b), 1 − I_x(a, b)), for a, b > 0.
///
/// `y` is 1 − `x`, passed so that neither loses digits. Continued fraction with Lentz's method (Numerical Recipes §6.4); the
/// factor before it by Loader's saddle point ("Fast and accurate computation of binomial probabilities", 2000), which keeps
/// full precision where differences of log-gammas lose ten digits. NaN outside the domain.
#[must_use]
pub fn incomplete_beta(a: f64, b: f64, x: f64, y: f64) -> (f64, f64) {
    if !(a > 0.0 && b > 0.0 && x >= 0.0 && y >= 0.0) {
        return (f64::NAN, f64::NAN);
    }
    if x == 0.0 {
        return (0.0, 1.0);
    }
    if y == 0.0 {
        return (1.0, 0.0);
    }
    let front = a * b / (a + b) * binomial_density(a, b, x, y);
    if x < (a + 1.0) / (a + b + 2.0) {
        let lower = front * beta_fraction(a, b, x) / a;
        (lower, 1.0 - lower)
    } else {
        let upper = front * beta_fraction(b, a, y) / b;
        (1.0 - upper, upper)
    }
}

fn beta_fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away_from_zero = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut h = d;
    // It converges in O(√max(a, b)) steps; the limit stands for a and b beyond 10⁹.
    for step in 1..200_000_u32 {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / away_from_zero(1.0 + even * d);
        c = away_from_zero(1.0 + even / c);
        h *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / away_from_zero(1.0 + odd * d);
        c = away_from_zero(1.0 + odd / c);
        h *= d * c;
        if (d * c - 1.0).abs() <= f64::EPSILON {
            break;
        }
    }
    h
}

/// Γ(a+b+1)/(Γ(a+1)Γ(b+1)) xᵃ yᵇ for a, b > 0 and x + y = 1: a binomial probability where a and b are whole.
fn binomial_density(a: f64, b: f64, x: f64, y: f64) -> f64 {
    let n = a + b;
    let exponent = stirling_error(n) - stirling_error(a) - stirling_error(b) - deviance(a, n * x) - deviance(b, n * y);
    math::exp(exponent) * math::sqrt(n / (2.0 * std::f64::consts::PI * a * b))
}

/// ln Γ(n+1) − Stirling's approximation of it.
fn stirling_error(n: f64) -> f64 {
    if n <= 15.0 {
        return math::ln_gamma(n + 1.0) - (n + 0.5) * math::ln(n) + n - LN_SQRT_2_PI;
    }
    let square = n * n;
    (1.0 / 12.0 - (1.0 / 360.0 - (1.0 / 1260.0 - (1.0 / 1680.0 - 1.0 / 1188.0 / square) / square) / square) / square)
        / n
}

/// x ln(x/m) + m − x, without cancellation where x is near m.
fn deviance(x: f64, m: f64) -> f64 {
    if (x - m).abs() >= 0.1 * (x + m) {
        return x * math::ln(x / m) + m - x;
    }
    let v = (x - m) / (x + m);
    let mut sum = (x - m) * v;
    let mut term = 2.0 * x * v;
    for j in 1..1_000_u32 {
        term *= v * v;
        let next = sum + term / f64::from(2 * j + 1);
        if next == sum {
            break;
        }
        sum = next;
    }
    sum
}

/// P(T ≥ `t`) for Student's t with `freedom` degrees of freedom (> 0).
#[must_use]
pub fn student_upper(t: f64, freedom: f64) -> f64 {
    if t.is_infinite() {
        return if t > 0.0 { 0.0 } else { 1.0 };
    }
    let square = t * t;
    let (lower, _) = incomplete_beta(freedom / 2.0, 0.5, freedom / (freedom + square), square / (freedom + square));
    if t >= 0.0 { 0.5 * lower } else { 1.0 - 0.5 * lower }
}

/// The `t` with P(T ≥ t) = `tail` for Student's t with `freedom` degrees of freedom; NaN outside (0, 1).
#[must_use]
pub fn student_upper_quantile(tail: f64, freedom: f64) -> f64 {
    if !(tail > 0.0 && tail < 1.0 && freedom > 0.0) {
        return f64::NAN;
    }
    if tail > 0.5 {
        return -student_upper_quantile(1.0 - tail, freedom);
    }
    let mut high = normal_upper_quantile(tail).max(1.0);
    while student_upper(high, freedom) > tail && high < 1e300 {
        high *= 2.0;
    }
    let log_constant = math::ln_gamma((freedom + 1.0) / 2.0)
        - math::ln_gamma(freedom / 2.0)
        - 0.5 * math::ln(freedom * std::f64::consts::PI);
    root(0.0, high, normal_upper_quantile(tail), |t| {
        let upper = student_upper(t, freedom);
        let density = math::exp(log_constant - (freedom + 1.0) / 2.0 * math::ln_1p(t * t / freedom));
        (math::ln(tail / upper), density / upper)
    })
}

/// P(X ≥ `successes`) for X ~ Binomial(`trials`, `probability`).
#[must_use]
pub fn binomial_upper(successes: u64, trials: u64, probability: f64) -> f64 {
    if successes == 0 {
        return 1.0;
    }
    if successes > trials {
        return 0.0;
    }
    let (upper, _) =
        incomplete_beta(successes as f64, (trials - successes) as f64 + 1.0, probability, 1.0 - probability);
    upper
}

/// P(X = `successes`) for X ~ Binomial(`trials`, `probability`).
#[must_use]
pub fn binomial_probability(successes: u64, trials: u64, probability: f64) -> f64 {
    if successes > trials {
        return 0.0;
    }
    let failures = trials - successes;
    if successes == 0 {
        return math::exp(failures as f64 * math::ln_1p(-probability));
    }
    if failures == 0 {
        return math::pow(probability, successes as f64);
    }
    binomial_density(successes as f64, failures as f64, probability, 1.0 - probability)
}

/// P(F ≥ `f`) for Fisher's F with `first` and `second` degrees of freedom (> 0).
#[must_use]
pub fn f_upper(f: f64, first: f64, second: f64) -> f64 {
    if f <= 0.0 {
        return 1.0;
    }
    let sum = second + first * f;
    incomplete_beta(second / 2.0, first / 2.0, second / sum, first * f / sum).0
}

/// Clopper and Pearson's exact lower bound at confidence 1 − `alpha` (one-sided) of a binomial probability.
#[must_use]
pub fn clopper_pearson_lower(successes: u64, trials: u64, alpha: f64) -> f64 {
    if successes == 0 || trials == 0 {
        return 0.0;
    }
    let a = successes as f64;
    let b = trials.saturating_sub(successes) as f64 + 1.0;
    root(0.0, 1.0, a / (a + b), |x| {
        let (lower, _) = incomplete_beta(a, b, x, 1.0 - x);
        let density = a * b / (a + b) * binomial_density(a, b, x, 1.0 - x) / (x * (1.0 - x));
        (math::ln(lower / alpha), density / lower)
    })
}

/// Clopper and Pearson's exact upper bound at confidence 1 − `alpha` (one-sided) of a binomial probability.
#[must_use]
pub fn clopper_pearson_upper(successes: u64, trials: u64, alpha: f64) -> f64 {
    1.0 - clopper_pearson_lower(trials.saturating_sub(successes), trials, alpha)
}

/// The zero of an increasing function in [`low`, `high`]: Newton's method, bisected whenever a step leaves the bracket.
/// `function` returns value and slope; what is not a number counts as far off.
fn root(mut low: f64, mut high: f64, start: f64, function: impl Fn(f64) -> (f64, f64)) -> f64 {
    let mut x = if start > low && start < high { start } else { low + (high - low) / 2.0 };
    for _ in 0..400 {
        let (value, slope) = function(x);
        if value == 0.0 {
            return x;
        }
        if value < 0.0 {
            low = x;
        } else {
            high = x;
        }
        let newton = x - value / slope;
        let next = if newton > low && newton < high { newton } else { low + (high - low) / 2.0 };
        if (next - x).abs() <= f64::EPSILON * x.abs() || next <= low || next >= high {
            return next;
        }
        x = next;
    }
    x
}

#[cfg(test)]
#[path = "distribution_tests.rs"]
mod tests;
