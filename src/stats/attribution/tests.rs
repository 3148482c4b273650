use super::game::*;
use super::screening::*;
use super::shares::*;
use super::uncertainty::*;
use crate::stats::fixed::quantise;
use crate::stats::random::Seed;
use crate::stats::vector_tests::{PICO, cases, floats};
use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeMap;

fn all_close(ours: &[f64], known: &Value, tolerance: f64, what: &str) {
    let known = floats(known);
    assert_eq!(ours.len(), known.len());
    for (ours, known) in ours.iter().zip(&known) {
        assert!((ours - known).abs() <= tolerance, "{what}: {ours:e} {known:e}");
    }
}

fn utilities(values: &[f64]) -> Utilities {
    let integers = values.iter().map(|v| i128::from(quantise(*v, PICO).unwrap()));
    Utilities { denominator: i128::from(PICO), values: (0..).zip(integers).collect() }
}

fn enumerated(players: usize) -> Plan {
    Plan::new(players, 1 << players, Seed::derive("unused", b"")).unwrap()
}

/// Utilities are rounded to 10⁻¹² here, so values agree to some 10⁻¹¹ absolute (the smallest is 10⁻³).
#[test]
fn values_of_groups_agree_with_enumeration_in_python() {
    for case in cases(include_str!("../../../tests/vectors/evaluation/group_attribution.json")) {
        let players = case["n_players"].as_u64().unwrap() as usize;
        let values = floats(&case["utility_by_bitmask"]);
        let utilities = utilities(&values);
        let exact = enumerated(players).shapley(&utilities).unwrap();
        all_close(&exact.to_f64(), &case["shapley"], 1e-11, "shapley");
        let left: Vec<f64> =
            leave_one_out(players, &utilities).unwrap().iter().map(|v| *v as f64 / PICO as f64).collect();
        all_close(&left, &case["leave_one_out"], 1e-11, "leave_one_out");
        let orders: Vec<Vec<usize>> = case["permutations"]
            .as_array()
            .unwrap()
            .iter()
            .map(|order| order.as_array().unwrap().iter().map(|p| p.as_u64().unwrap() as usize).collect())
            .collect();
        let sampled = Plan::of_orders(players, orders).unwrap();
        all_close(&sampled.shapley(&utilities).unwrap().to_f64(), &case["antithetic_shapley"], 1e-11, "antithetic");
        let member = |mask: u64| (0..players).map(|player| mask >> player & 1 == 1).collect::<Vec<_>>();
        let every: Vec<_> = values.iter().enumerate().map(|(mask, v)| (member(mask as u64), *v)).collect();
        let banzhafs =
            |sets: &[(Vec<bool>, f64)]| banzhaf(players, sets).into_iter().map(Option::unwrap).collect::<Vec<_>>();
        all_close(&banzhafs(&every), &case["banzhaf"], 1e-11, "banzhaf");
        let drawn = case["banzhaf_msr_masks"].as_array().unwrap().iter().map(|mask| mask.as_u64().unwrap());
        let drawn: Vec<_> = drawn.map(|mask| (member(mask), values[mask as usize])).collect();
        all_close(&banzhafs(&drawn), &case["banzhaf_msr"], 1e-11, "banzhaf_msr");
        let clipped: Vec<u128> = exact.values.iter().map(|value| (*value).max(0) as u128).collect();
        let parts = largest_remainder(&clipped, BASIS_POINTS);
        assert_eq!(parts.iter().sum::<u64>(), BASIS_POINTS);
        let shares: Vec<f64> = parts.iter().map(|bps| *bps as f64 / 1e4).collect();
        all_close(&shares, &case["reward_share_clipped"], 1e-4, "reward_share_clipped");
    }
}

#[test]
fn knn_values_agree_with_enumeration_and_pydvl() {
    for case in cases(include_str!("../../../tests/vectors/evaluation/knn_shapley.json")) {
        let matrix = |name: &str| case[name].as_array().unwrap().iter().flat_map(floats).collect::<Vec<_>>();
        let labels =
            |name: &str| case[name].as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect::<Vec<_>>();
        let (train, test) = ((matrix("X_train"), labels("y_train")), (matrix("X_test"), labels("y_test")));
        let width = train.0.len() / train.1.len();
        let k = case["K"].as_u64().unwrap() as usize;
        let values = knn_shapley(
            Labelled { features: &train.0, labels: &train.1 },
            Labelled { features: &test.0, labels: &test.1 },
            width,
            k,
        )
        .unwrap();
        all_close(&values, &case["values"], 1e-12, "values");
        if !case["pydvl_values"].is_null() {
            all_close(&values, &case["pydvl_values"], 1e-9, "pydvl_values");
        }
        let mut totals = vec![0.0; case["contributor_totals"].as_array().unwrap().len()];
        for (value, owner) in values.iter().zip(labels("contributor")) {
            totals[owner as usize] += value;
        }
        all_close(&totals, &case["contributor_totals"], 1e-12, "contributor_totals");
    }
}

#[test]
fn the_textbook_glove_game_is_enumerated() {
    // Player 0 has a left glove, 1 and 2 a right one: (2/3, 1/6, 1/6).
    let worth = |coalition: Coalition| i128::from(coalition & 1 == 1 && coalition & 0b110 != 0);
    let utilities = Utilities { denominator: 1, values: (0..8).map(|c| (c, worth(c))).collect() };
    let values = enumerated(3).shapley(&utilities).unwrap();
    assert_eq!((values.values, values.denominator), (vec![4, 1, 1], 6));
}

#[test]
fn a_plan_stays_in_its_budget_and_says_when_that_is_too_small() {
    let seed = Seed::derive("plan", b"");
    for players in 1..=MAX_PLAYERS {
        let plan = Plan::new(players, BUDGET, seed).unwrap();
        assert!(plan.coalitions().len() <= BUDGET, "{players}");
        assert_eq!(matches!(plan.method(), Method::Enumerated), 1 << players <= BUDGET);
        assert_eq!(plan, Plan::new(players, BUDGET, seed).unwrap());
    }
    assert_eq!(Plan::new(16, 61, seed), Err(GameError::Budget { budget: 61, players: 16, needed: 62 }));
    assert!(Plan::new(16, 62, seed).is_ok());
    assert_eq!(Plan::new(0, 10, seed), Err(GameError::Players(0)));
    assert_eq!(Plan::new(17, 10, seed), Err(GameError::Players(17)));
    assert_eq!(Plan::of_orders(2, vec![vec![0, 0]]), Err(GameError::Order));
    assert_eq!(
        enumerated(2).shapley(&Utilities { denominator: 1, values: BTreeMap::new() }),
        Err(GameError::Missing(0))
    );
}

#[test]
fn a_cached_utility_is_found_by_its_members_in_any_order_and_not_in_another_game() {
    let (game, other, a, b) = ([1; 32], [2; 32], [3; 32], [4; 32]);
    assert_eq!(cache_key(&game, &[a, b]), cache_key(&game, &[b, a]));
    assert_ne!(cache_key(&game, &[a, b]), cache_key(&other, &[a, b]));
    assert_ne!(cache_key(&game, &[a]), cache_key(&game, &[a, b]));
}

fn player(members: &[(&str, u64)]) -> Player {
    Player { members: members.iter().map(|(id, rows)| ((*id).to_owned(), *rows)).collect() }
}

fn claim<'a>(players: &'a [Player], values: &'a Shapley, variances: &'a [f64]) -> Claim<'a> {
    Claim {
        recipe_controlled: true,
        seeds: 5,
        baseline_is_head: true,
        delta_lower_bound: Some(0.01),
        players,
        values,
        variances,
    }
}

#[test]
fn only_significant_values_are_paid_and_the_rest_is_split_by_rows() {
    let players = [player(&[("a", 10)]), player(&[("b", 10)]), player(&[("c", 10)]), player(&[("d", 30), ("e", 10)])];
    let values = Shapley { values: vec![600, -200, 10, 300], denominator: 100_000 };
    let paid = shares(&claim(&players, &values, &[1e-8; 4])).unwrap();
    let parts: Vec<_> = paid.iter().map(|payee| (payee.id.as_str(), payee.basis_points)).collect();
    assert_eq!(parts, [("a", 6_667), ("d", 2_500), ("e", 833)]);
}

#[test]
fn every_reason_not_to_pay_is_named() {
    let players = [player(&[("a", 10)])];
    let values = Shapley { values: vec![600], denominator: 100_000 };
    let good = claim(&players, &values, &[1e-8]);
    assert!(shares(&good).is_ok());
    for (changed, reason) in [
        (Claim { recipe_controlled: false, ..good }, Unpayable::RecipeControl),
        (Claim { seeds: 4, ..good }, Unpayable::Seeds),
        // Twice its standard error is above the normal quantile, and below Student's with five seeds.
        (Claim { variances: &[9e-6], ..good }, Unpayable::NobodySignificant),
        (Claim { baseline_is_head: false, ..good }, Unpayable::StaleBaseline),
        (Claim { delta_lower_bound: None, ..good }, Unpayable::LowerBound),
        (Claim { delta_lower_bound: Some(0.0), ..good }, Unpayable::LowerBound),
        (Claim { delta_lower_bound: Some(f64::NAN), ..good }, Unpayable::LowerBound),
        (Claim { variances: &[1e-4], ..good }, Unpayable::NobodySignificant),
        (Claim { variances: &[0.0], ..good }, Unpayable::NobodySignificant),
    ] {
        assert_eq!(shares(&changed), Err(vec![reason]));
    }
    let broken = Claim { variances: &[f64::NAN], ..good };
    assert_eq!(shares(&broken), Err(vec![Unpayable::Incomplete, Unpayable::NobodySignificant]));
}

#[test]
fn a_value_of_nothing_passes_for_significant_in_at_most_one_of_twenty_cases_with_five_seeds() {
    let seed = Seed::derive("five seeds", b"");
    let significant = (0..4_000).filter(|number| {
        let mut stream = seed.stream(*number);
        // Sums of twelve uniform numbers are near enough to normal ones.
        let mut normal = || (0..12).map(|_| f64::from(stream.bits()) / f64::from(u32::MAX)).sum::<f64>() - 6.0;
        let seeded = over_seeds(&[(); 5].map(|()| (normal(), 0.0))).unwrap();
        let values = Shapley { values: vec![(seeded.mean * 1e9) as i128], denominator: 1_000_000_000 };
        worth(&values, &[seeded.variance], 5).unwrap()[0].significant
    });
    // 5 % of 4,000 are 200, give or take 14; by the normal quantile they would be 350.
    let count = significant.count();
    assert!((150..250).contains(&count), "{count}");
}

#[test]
fn of_equal_remainders_the_first_and_of_equally_near_rows_the_first_is_served() {
    assert_eq!(largest_remainder(&[1, 1, 1], 10), [4, 3, 3]);
    assert_eq!(largest_remainder(&[1, 1], 3), [2, 1]);
    // Two rows at the same place, one of them of the test row's label, and one vote.
    let features = [1.0, 1.0];
    let of = |labels| {
        let test = Labelled { features: &[1.0], labels: &[7] };
        knn_shapley(Labelled { features: &features, labels }, test, 1, 1).unwrap()
    };
    let (first, last) = (of(&[7, 0]), of(&[0, 7]));
    assert!((first[0] - 1.0).abs() < 1e-12 && first[1].abs() < 1e-12, "{first:?}");
    assert!((last[0] + 0.5).abs() < 1e-12 && (last[1] - 0.5).abs() < 1e-12, "{last:?}");
}

#[test]
fn more_than_sixteen_contributors_become_fifteen_and_a_rest() {
    let own = |n: u32| Contributor { id: format!("{n:03}"), rows: u64::from(n), value: f64::from(n % 20) };
    let merged = players((0..40).map(own).collect(), MAX_PLAYERS);
    assert_eq!(merged.len(), 16);
    assert_eq!(merged[15].members.len(), 25);
    assert!(merged[..15].iter().all(|player| player.members.len() == 1));
    assert_eq!(players((0..16).map(own).collect(), MAX_PLAYERS).len(), 16);
    let six = players((0..40).map(own).collect(), 6);
    assert_eq!((six.len(), six[5].members.len()), (6, 35));
}

/// The standard error that antithetic pairs give, beside the spread of many plans around the exact values.
#[test]
fn the_sampling_error_is_what_repeated_sampling_shows() {
    let players = 9;
    let worth = |coalition: Coalition| {
        let size = i128::from(coalition.count_ones());
        1_000 * size * size + i128::from(coalition.wrapping_mul(2_654_435_761) >> 20)
    };
    let utilities = Utilities { denominator: 1_000_000, values: (0..1 << players).map(|c| (c, worth(c))).collect() };
    let exact = enumerated(players).shapley(&utilities).unwrap().to_f64();
    let plans: Vec<Plan> = (0..300_u64)
        .map(|number| Plan::new(players, 200, Seed::derive("sampling", &number.to_le_bytes())).unwrap())
        .collect();
    for (at, exact) in exact.iter().enumerate() {
        let gaps = plans.iter().map(|plan| plan.shapley(&utilities).unwrap().to_f64()[at] - exact);
        let seen = gaps.map(|gap| gap * gap).sum::<f64>() / plans.len() as f64;
        let said =
            plans.iter().map(|plan| sampling_variance(plan, &utilities).unwrap()[at]).sum::<f64>() / plans.len() as f64;
        assert!((said / seen - 1.0).abs() < 0.3, "player {at}: {said:e} {seen:e}");
    }
    assert_eq!(sampling_variance(&enumerated(players), &utilities).unwrap(), vec![0.0; players]);
}

#[test]
fn row_values_average_to_the_players_values_and_their_variance_is_the_benchmarks() {
    let (players, rows) = (3, 500_usize);
    let plan = enumerated(players);
    let mut stream = Seed::derive("rows", b"").stream(0);
    // A row is right under a coalition with a chance that grows with its size.
    let mut hit = |coalition: Coalition| i64::from(stream.below(10) < 4 + coalition.count_ones());
    let per_row: Vec<Vec<i64>> = (0..8).map(|coalition| (0..rows).map(|_| hit(coalition)).collect()).collect();
    let sum = |values: &Vec<i64>| i128::from(values.iter().sum::<i64>());
    let utilities = Utilities { denominator: rows as i128, values: (0..).zip(per_row.iter().map(sum)).collect() };
    let values = plan.shapley(&utilities).unwrap().to_f64();
    let mut gathered = RowValues::new(&plan, rows);
    per_row.iter().enumerate().for_each(|(coalition, values)| gathered.add(coalition as Coalition, values));
    let variances = gathered.variances(1).unwrap();
    for player in 0..players {
        let weight = |coalition: usize| plan.weight(player, coalition as Coalition) as f64 / plan.divisor() as f64;
        let own: Vec<f64> = (0..rows).map(|row| (0..8).map(|c| weight(c) * per_row[c][row] as f64).sum()).collect();
        let mean = own.iter().sum::<f64>() / rows as f64;
        let variance = own.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (rows - 1) as f64 / rows as f64;
        assert!((mean - values[player]).abs() < 1e-12);
        assert!((variances[player] / variance - 1.0).abs() < 1e-9);
    }
}

#[test]
fn seeds_add_their_spread_and_do_not_shrink_the_benchmarks() {
    let joined = over_seeds(&[(1.0, 0.04), (2.0, 0.04), (3.0, 0.04)]).unwrap();
    assert!((joined.mean - 2.0).abs() < 1e-15 && (joined.variance - (1.0 / 3.0 + 0.04)).abs() < 1e-15);
    assert_eq!(over_seeds(&[(1.0, 0.04)]), None);
}

proptest! {
    #[test]
    fn values_add_up_to_the_games_delta_as_integers(players in 1_usize..=10, seed: u64, budget in 40_usize..300) {
        let mut stream = Seed::derive("utilities", &seed.to_le_bytes()).stream(0);
        let values = (0..1_u32 << players).map(|c| (c, i128::from(stream.word() >> 20) - (1 << 43))).collect();
        let utilities = Utilities { denominator: 977, values };
        let plan = Plan::new(players, budget, Seed::derive("orders", &seed.to_le_bytes())).unwrap();
        let shapley = plan.shapley(&utilities).unwrap();
        let delta = utilities.values[&((1 << players) - 1)] - utilities.values[&0];
        prop_assert_eq!(shapley.values.iter().sum::<i128>(), delta * plan.divisor());
        prop_assert_eq!(shapley.denominator, 977 * plan.divisor());
    }

    #[test]
    fn equal_players_get_equal_values_and_idle_ones_nothing(seed: u64) {
        let worth = |size: u32| i128::from(size * size) + i128::from(seed % 7);
        // Player 3 changes nothing; the others count alike.
        let utilities =
            Utilities { denominator: 1, values: (0..16_u32).map(|c| (c, worth((c & 7).count_ones()))).collect() };
        let values = enumerated(4).shapley(&utilities).unwrap().values;
        prop_assert!(values[0] == values[1] && values[1] == values[2] && values[3] == 0);
    }

    #[test]
    fn basis_points_add_up_and_are_within_one_of_the_quota(weights in prop::collection::vec(0_u128..1 << 100, 1..120)) {
        let parts = largest_remainder(&weights, BASIS_POINTS);
        let sum: u128 = weights.iter().sum();
        if sum > 0 {
            prop_assert_eq!(parts.iter().sum::<u64>(), BASIS_POINTS);
            for (part, weight) in parts.iter().zip(&weights) {
                prop_assert!((*part as f64 - *weight as f64 / sum as f64 * 1e4).abs() < 1.0 + 1e-6);
            }
        }
    }

    #[test]
    fn payees_are_at_most_a_hundred_and_share_everything(count in 1_usize..400, seed: u64) {
        let mut stream = Seed::derive("payees", &seed.to_le_bytes()).stream(0);
        let members: Vec<(String, u64)> =
            (0..count).map(|n| (format!("{n:04}"), u64::from(stream.below(1_000)) + 1)).collect();
        let players = [Player { members }];
        let values = Shapley { values: vec![i128::from(stream.word())], denominator: 1 << 70 };
        if let Ok(paid) = shares(&claim(&players, &values, &[1e-20])) {
            prop_assert!(paid.len() <= MAX_PAYEES && paid.iter().all(|payee| payee.basis_points > 0));
            prop_assert_eq!(paid.iter().map(|payee| payee.basis_points).sum::<u64>(), BASIS_POINTS);
        }
    }
}
