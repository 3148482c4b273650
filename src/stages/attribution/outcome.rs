//! From utilities to what is published: values with their errors, the bound of the improvement, shares or why there are none.

use std::collections::BTreeMap;

use super::play::{Game, Score, refuse, refused};
use super::rows::Owner;
use crate::math;
use crate::stages::beside::Refusal;
use crate::stats::attribution::game::{Coalition, Shapley, Utilities};
use crate::stats::attribution::screening::Player;
use crate::stats::attribution::shares::{Claim, Payee, Unpayable, Worth, shares, worth};
use crate::stats::attribution::uncertainty::over_seeds;
use crate::stats::compare::Comparison;
use crate::stats::distribution::{normal_upper_quantile, student_upper_quantile};
use crate::stats::metric::publish;

/// One-sided level of the bound that is paid.
const LEVEL: f64 = 0.05;

/// A game that was played.
#[derive(Debug, Clone, PartialEq)]
pub struct Played {
    /// Who played.
    pub players: Vec<Player>,
    /// Rows of the game: of nobody first, then by player.
    pub rows: Vec<usize>,
    /// Benchmark rows that models were measured on.
    pub benchmark_rows: usize,
    /// Whether every coalition was trained.
    pub enumerated: bool,
    /// Seeds of training.
    pub seeds: Vec<i64>,
    /// Small trainings per seed.
    pub trainings: usize,
    /// The players' values, over all seeds.
    pub values: Shapley,
    /// Value of all players together, in millionths, rounded down.
    pub delta_game: i128,
    /// What each player was found to be worth.
    pub worth: Vec<Worth>,
    /// By player: what is lost when it leaves, over the values' denominator.
    pub leaving: BTreeMap<usize, i128>,
    /// The model that delta is against, by its digest in hex.
    pub comparator: String,
    /// The candidate's improvement over it, in millionths, rounded against the candidate.
    pub delta: i128,
    /// Its lower bound, with what seeds add.
    pub lower: f64,
    /// Shares, or why there are none.
    pub shares: Result<Vec<Payee>, Vec<Unpayable>>,
    /// Contributors of the rows, by name.
    pub owners: Vec<Owner>,
}

/// What a game comes to.
///
/// # Errors
/// A figure that is no number.
pub(super) fn conclude(
    game: &Game<'_>,
    players: Vec<Player>,
    score: Score,
    comparator: String,
    comparison: &Comparison,
) -> Result<Played, Option<Refusal>> {
    let Score { rounds, total, values, leaving } = score;
    let unusable = |e: &dyn std::fmt::Display| refused("SCORES_UNUSABLE")(e);
    let each: Vec<Vec<f64>> = rounds
        .iter()
        .map(|round| game.plan.shapley(&round.utilities).map(|own| own.to_f64()))
        .collect::<Result<_, _>>()
        .map_err(|e| unusable(&e))?;
    let of_player = |player: usize| {
        let pairs: Vec<(f64, f64)> = (each.iter().zip(&rounds))
            .filter_map(|(own, round)| Some((*own.get(player)?, *round.within.get(player)?)))
            .collect();
        over_seeds(&pairs).map_or_else(|| pairs.first().map_or(f64::NAN, |(_, own)| *own), |own| own.variance)
    };
    let variances: Vec<f64> = (0..players.len()).map(of_player).collect();
    let seeds = u32::try_from(rounds.len()).unwrap_or(u32::MAX);
    let all: Coalition = (1 << players.len()) - 1;
    let whole = |own: &Utilities| Some(own.values.get(&all)? - own.values.get(&0)?);
    let deltas: Vec<f64> =
        rounds.iter().filter_map(|r| Some(whole(&r.utilities)? as f64 / r.utilities.denominator as f64)).collect();
    let lower = lower_bound(comparison, &deltas);
    let published = publish(&comparison.metric, comparison.higher_is_better, comparison.baseline, comparison.candidate);
    let (Some(published), Some(gained)) = (published, whole(&total)) else {
        return refuse("SCORES_UNUSABLE", "the improvement is no number");
    };
    let Some(worth) = worth(&values, &variances, seeds) else {
        return refuse("SCORES_UNUSABLE", "the standard error of a value is no number");
    };
    let claim = Claim {
        recipe_controlled: true,
        seeds,
        baseline_is_head: game.table.case.baseline_is_head,
        delta_lower_bound: Some(lower),
        players: &players,
        values: &values,
        variances: &variances,
    };
    let shares = shares(&claim).and_then(|paid| verified(paid, &game.owned.owners));
    Ok(Played {
        rows: game.counts.clone(),
        benchmark_rows: game.board.labels.len(),
        enumerated: game.plan.coalitions().len() == 1 << players.len(),
        seeds: game.seeds.clone(),
        trainings: game.plan.coalitions().len(),
        delta_game: (gained * 1_000_000).div_euclid(total.denominator),
        players,
        values,
        worth,
        leaving,
        comparator,
        delta: published.delta_micro,
        lower,
        shares,
        owners: game.owned.owners.clone(),
    })
}

/// The improvement's lower bound at one-sided 5 %. Candidate and comparator are one draw of their seeds each, so the variance of
/// the game's delta between seeds is added. Fewer rows vary more, so the game's size errs on the safe side.
fn lower_bound(comparison: &Comparison, deltas: &[f64]) -> f64 {
    let (delta, error) = (comparison.evidence.delta(), comparison.evidence.standard_error());
    let count = deltas.len() as f64;
    if deltas.len() < 2 {
        return delta - normal_upper_quantile(LEVEL) * error;
    }
    let mean = math::sum(deltas) / count;
    let squares: Vec<f64> = deltas.iter().map(|own| (own - mean) * (own - mean)).collect();
    let between = math::sum(&squares) / (count - 1.0);
    delta - student_upper_quantile(LEVEL, count - 1.0) * math::sqrt(error * error + between)
}

/// What pays requires that whoever is paid has signed.
fn verified(paid: Vec<Payee>, owners: &[Owner]) -> Result<Vec<Payee>, Vec<Unpayable>> {
    let signed = |payee: &Payee| owners.iter().any(|owner| owner.name == payee.id && owner.verified);
    if paid.iter().all(signed) { Ok(paid) } else { Err(vec![Unpayable::Unverified]) }
}
