//! Known values: mpmath 1.3 with 40 digits (tails, normal quantiles, fair binomials as exact fractions), scipy 1.17 for the rest.

#![allow(clippy::excessive_precision, clippy::unreadable_literal)]

use super::*;
use proptest::prelude::*;

fn close(ours: f64, known: f64, relative: f64) {
    assert!(
        (ours - known).abs() <= relative * known.abs(),
        "{ours:e} {known:e}: {:e}",
        (ours - known).abs() / known.abs()
    );
}

#[test]
fn normal_tails_hold_twelve_digits_down_to_the_end_of_the_range() {
    for (z, tail) in [
        (-3.0, 0.99865010196836990547),
        (0.1, 0.46017216272297101633),
        (1.0, 0.15865525393145705141),
        (2.5, 0.006209665325776135167),
        (4.0, 0.000031671241833119921254),
        (6.0, 9.865876450376981407e-10),
        (7.1, 6.2378444633315911405e-13),
        (8.5, 9.4795348222033183542e-18),
        (12.0, 1.7764821120776789977e-33),
        (30.0, 4.9067139271481870595e-198),
    ] {
        close(normal_upper(z), tail, 2e-13);
        close(normal_lower(-z), tail, 2e-13);
    }
}

#[test]
fn normal_quantiles_invert_the_tail_down_to_1e_300() {
    for (tail, z) in [
        (0.3, 0.52440051270804081597),
        (0.05, 1.644853626951472688),
        (0.025, 1.9599639845400542118),
        (1e-3, 3.0902323061678135354),
        (1e-5, 4.2648907939228246102),
        (1.2e-5, 4.2240037996720234948),
        (1e-9, 5.9978070150076868614),
        (1e-12, 7.0344838253011319326),
        (1e-20, 9.2623400897984075796),
        (1e-100, 21.273453560965324294),
        (1e-300, 37.047096299361199237),
        (0.9, -1.2815515655446005935),
    ] {
        close(normal_upper_quantile(tail), z, 1e-15);
    }
    assert!(normal_upper_quantile(0.5).abs() < 1e-16);
    assert_eq!(normal_upper_quantile(0.0), f64::INFINITY);
    assert!(normal_upper_quantile(-0.1).is_nan() && normal_upper_quantile(f64::NAN).is_nan());
}

#[test]
fn student_tails_hold_eleven_digits_from_half_a_degree_of_freedom_to_a_million() {
    for (t, freedom, tail) in [
        (0.3, 4.0, 0.38956071413872985861),
        (2.0, 4.0, 0.058058261758407797249),
        (10.0, 4.0, 0.00028100181135799557786),
        (1.5, 49.0, 0.070015309315817741857),
        (7.0, 49.0, 3.3168652201097576013e-9),
        (12.0, 49.0, 1.6904052473986992109e-16),
        (0.7, 1000.0, 0.24204505699630118357),
        (6.5, 1000.0, 6.3271412660035813787e-11),
        (7.0, 249999.0, 1.2830132908587996505e-12),
        (1.7, 249999.0, 0.044566084707486208608),
        (0.01, 249999.0, 0.49601064767500461999),
        (8.0, 1000000.0, 6.2275317166012598048e-16),
        (3.0, 0.5, 0.1836540779929717241),
    ] {
        close(student_upper(t, freedom), tail, 1e-11);
    }
    assert_eq!(student_upper(f64::INFINITY, 3.0), 0.0);
    assert_eq!(student_upper(0.0, 3.0), 0.5);
}

#[test]
fn student_quantiles_agree_with_scipy() {
    for (tail, freedom, t) in [
        (0.05, 4.0, 2.131846786326651),
        (1e-5, 4.0, 23.332182700829275),
        (1e-9, 49.0, 7.336612578449184),
        (1.2e-5, 249999.0, 4.224083390872678),
        (1e-12, 1000.0, 7.124228925314409),
        (0.3, 2.0, 0.6172133998483678),
        (0.025, 1000000.0, 1.9599663568141072),
        (0.9, 7.0, -1.4149239276505086),
    ] {
        close(student_upper_quantile(tail, freedom), t, 1e-11);
    }
    assert!(student_upper_quantile(0.0, 3.0).is_nan());
}

#[test]
fn fair_binomial_tails_equal_the_exact_fractions() {
    for (successes, trials, tail) in [
        (1, 1, 0.5),
        (12, 15, 0.017578125),
        (6, 65, 0.99999999999975652196),
        (70, 110, 0.0027237147557222411514),
        (400, 600, 1.1962888493854324669e-16),
        (700, 1000, 8.8328390039750685702e-38),
        (5200, 10000, 0.000032967577993362210294),
        (5400, 10000, 6.5212260637001018455e-16),
        (25500, 50000, 3.9513142716966029029e-6),
        (126500, 250000, 9.9838266659804990416e-10),
        (128500, 250000, 7.9139986445611240688e-45),
    ] {
        close(binomial_upper(successes, trials, 0.5), tail, 2e-13);
    }
    assert_eq!(binomial_upper(0, 9, 0.5), 1.0);
    assert_eq!(binomial_upper(10, 9, 0.5), 0.0);
    close(binomial_probability(3, 5, 0.5), 10.0 / 32.0, 1e-14);
    close(binomial_probability(0, 5, 0.1), 0.59049, 1e-14);
    close(binomial_probability(5, 5, 0.1), 1e-5, 1e-14);
    assert_eq!(binomial_probability(6, 5, 0.5), 0.0);
    assert_eq!((f_upper(0.0, 10.0, 5.0), f_upper(-1.0, 10.0, 5.0)), (1.0, 1.0));
}

#[test]
fn clopper_pearson_bounds_agree_with_scipy() {
    for (successes, trials, alpha, bound) in [
        (1, 1, 0.05, 0.05),
        (12, 15, 0.05, 0.560215564018444),
        (70, 110, 0.001, 0.48513680273771553),
        (700, 1000, 1e-09, 0.60847567598677),
        (128500, 250000, 1.2e-05, 0.5097750467272426),
        (20, 400, 0.05, 0.03337901341767718),
        (600, 610, 1e-12, 0.9171724779515638),
    ] {
        close(clopper_pearson_lower(successes, trials, alpha), bound, 1e-10);
    }
    assert_eq!(clopper_pearson_lower(0, 10, 0.05), 0.0);
    assert_eq!(clopper_pearson_upper(10, 10, 0.05), 1.0);
    close(clopper_pearson_upper(0, 400, 0.05), 0.007461, 1e-3);
}

proptest! {
    #[test]
    fn a_quantile_of_a_tail_is_where_it_came_from(exponent in 0.31_f64..14.0, freedom in 1.0_f64..1e6) {
        let tail = math::pow(10.0, -exponent);
        let t = student_upper_quantile(tail, freedom);
        prop_assert!((student_upper(t, freedom) / tail - 1.0).abs() < 1e-9);
        let z = normal_upper_quantile(tail);
        prop_assert!((normal_upper(z) / tail - 1.0).abs() < 1e-12);
    }

    #[test]
    fn an_exact_bound_and_its_tail_always_agree(trials in 1_u64..5_000, share in 0.001_f64..1.0, exponent in 1.0_f64..12.0) {
        let successes = ((trials as f64 * share) as u64).max(1);
        let alpha = math::pow(10.0, -exponent);
        let bound = clopper_pearson_lower(successes, trials, alpha);
        prop_assert!((binomial_upper(successes, trials, bound) / alpha - 1.0).abs() < 1e-8);
    }

    #[test]
    fn the_two_tails_of_the_beta_distribution_add_up_to_one(a in 0.1_f64..1e5, b in 0.1_f64..1e5, x in 0.0_f64..=1.0) {
        let (lower, upper) = incomplete_beta(a, b, x, 1.0 - x);
        prop_assert!((lower + upper - 1.0).abs() < 1e-12 && (0.0..=1.0).contains(&lower));
    }
}
