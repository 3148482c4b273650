//! From values to basis points, or to the reasons why nobody is paid.

use super::game::Shapley;
use super::screening::Player;
use crate::math;
use crate::stats::distribution::student_upper_quantile;

/// All shares together.
pub const BASIS_POINTS: u64 = 10_000;

/// Most payees of one attribution.
pub const MAX_PAYEES: usize = 100;

/// Seeds of training that a payable attribution needs.
pub const SEEDS: u32 = 5;

/// One-sided level at which a value must be above 0 to be paid.
pub const SIGNIFICANCE: f64 = 0.05;

/// Why an attribution is not payable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unpayable {
    /// The recipe differs from the baseline's and no control with the same recipe was trained.
    RecipeControl,
    /// Fewer than [`SEEDS`] seeds.
    Seeds,
    /// The baseline is no longer head.
    StaleBaseline,
    /// The lower confidence bound of the delta is not above 0.
    LowerBound,
    /// No player's value is significantly above 0.
    NobodySignificant,
    /// A standard error is missing, or values and players do not fit.
    Incomplete,
    /// A payee's contributions are not signed.
    Unverified,
}

impl Unpayable {
    /// The code in records and attestations.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::RecipeControl => "RECIPE_CONTROL",
            Self::Seeds => "SEEDS",
            Self::StaleBaseline => "STALE_BASELINE",
            Self::LowerBound => "LOWER_BOUND",
            Self::NobodySignificant => "NOBODY_SIGNIFICANT",
            Self::Incomplete => "INCOMPLETE",
            Self::Unverified => "UNVERIFIED",
        }
    }
}

/// What is known when an attribution is done.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// Whether the comparator has the candidate's recipe.
    pub recipe_controlled: bool,
    /// Seeds that were trained.
    pub seeds: u32,
    /// Whether the baseline is still head.
    pub baseline_is_head: bool,
    /// Lower confidence bound of the delta, seed variance included.
    pub delta_lower_bound: Option<f64>,
    /// The players.
    pub players: &'a [Player],
    /// Their values.
    pub values: &'a Shapley,
    /// Variance of each value: sampling, benchmark and seeds.
    pub variances: &'a [f64],
}

/// A contributor's share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payee {
    /// The contributor.
    pub id: String,
    /// Parts of 10,000, at least 1.
    pub basis_points: u64,
}

/// What every player was found to be worth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Worth {
    /// The value, in the metric's unit.
    pub value: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// Whether it is significantly above 0.
    pub significant: bool,
}

/// Each player's value with its standard error; `None` if lists do not fit or a variance is negative or no number.
///
/// The variance between a handful of `seeds` is itself an estimate, so a value must pass Student's t with one degree of freedom less
/// than seeds: a normal quantile would let a value of 0 pass in 9 % of all cases with five seeds, not in 5 %. Of fewer than two
/// seeds nothing is significant.
#[must_use]
pub fn worth(values: &Shapley, variances: &[f64], seeds: u32) -> Option<Vec<Worth>> {
    let usable = values.denominator > 0 && variances.iter().all(|variance| *variance >= 0.0 && variance.is_finite());
    let quantile = student_upper_quantile(SIGNIFICANCE, f64::from(seeds) - 1.0);
    let of = |(value, variance): (f64, &f64)| {
        let standard_error = math::sqrt(*variance);
        // A standard error of 0 is no evidence: nothing varies, so nothing was measured.
        Worth { value, standard_error, significant: standard_error > 0.0 && value > quantile * standard_error }
    };
    (usable && variances.len() == values.values.len())
        .then(|| values.to_f64().into_iter().zip(variances).map(of).collect())
}

/// The payees with their basis points, which add up to 10,000, or every reason why there are none.
///
/// A player's part is its value over the sum of all significant values; the rest's part is split by accepted rows; rounding is by
/// largest remainder, ties to the smaller id; parts below one basis point and payees past the hundredth fall to the others.
///
/// # Errors
/// All reasons that apply, sorted.
pub fn shares(claim: &Claim<'_>) -> Result<Vec<Payee>, Vec<Unpayable>> {
    let mut reasons = Vec::new();
    let mut unless = |holds: bool, reason| {
        if !holds {
            reasons.push(reason);
        }
    };
    unless(claim.recipe_controlled, Unpayable::RecipeControl);
    unless(claim.seeds >= SEEDS, Unpayable::Seeds);
    unless(claim.baseline_is_head, Unpayable::StaleBaseline);
    unless(claim.delta_lower_bound.is_some_and(|bound| bound > 0.0), Unpayable::LowerBound);
    let worth = worth(claim.values, claim.variances, claim.seeds).filter(|worth| worth.len() == claim.players.len());
    unless(worth.is_some(), Unpayable::Incomplete);
    let weights = worth.map(|worth| weights(claim, &worth)).unwrap_or_default();
    unless(!weights.is_empty(), Unpayable::NobodySignificant);
    if !reasons.is_empty() {
        return Err(reasons);
    }
    Ok(payees(weights))
}

/// Integer weights of the contributors of significant players; a merged player's value is first split by rows.
fn weights(claim: &Claim<'_>, worth: &[Worth]) -> Vec<(String, u128)> {
    let paid = || claim.players.iter().zip(&claim.values.values).zip(worth).filter(|(_, worth)| worth.significant);
    let largest = paid().map(|((_, value), _)| value.unsigned_abs()).max().unwrap_or(0);
    // 64 bits of the largest value are more than 10,000 parts can show, and leave room for counts of rows.
    let shift = (128 - largest.leading_zeros()).saturating_sub(64);
    let mut weights = Vec::new();
    for ((player, value), _) in paid() {
        let value = (value.unsigned_abs() >> shift) << 16;
        let rows: u128 = player.members.iter().map(|(_, rows)| u128::from(*rows)).sum();
        for (id, own) in &player.members {
            let part =
                if player.members.len() == 1 { Some(value) } else { (value * u128::from(*own)).checked_div(rows) };
            weights.extend(part.filter(|part| *part > 0).map(|part| (id.clone(), part)));
        }
    }
    weights
}

fn payees(mut weights: Vec<(String, u128)>) -> Vec<Payee> {
    weights.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    weights.truncate(MAX_PAYEES);
    loop {
        let parts = largest_remainder(&weights.iter().map(|(_, weight)| *weight).collect::<Vec<_>>(), BASIS_POINTS);
        if parts.iter().all(|part| *part > 0) || weights.len() <= 1 {
            let paid = weights.into_iter().zip(parts).map(|((id, _), basis_points)| Payee { id, basis_points });
            let mut paid: Vec<Payee> = paid.collect();
            paid.sort_by(|a, b| a.id.cmp(&b.id));
            return paid;
        }
        // Who would get nothing leaves, and its part falls to the others.
        let mut parts = parts.into_iter();
        weights.retain(|_| parts.next().is_some_and(|part| part > 0));
    }
}

/// `total` in integer parts proportional to `weights`: floors, and what is left goes to the largest remainders, ties to the
/// first (Hamilton's method). All 0 if the weights are.
#[must_use]
pub fn largest_remainder(weights: &[u128], total: u64) -> Vec<u64> {
    let bits = weights.iter().map(|weight| 128 - weight.leading_zeros()).max().unwrap_or(0);
    // Room for the product with the total and for the sum of the weights.
    let shift = bits.saturating_sub(96_u32.saturating_sub(64 - total.leading_zeros()));
    let weights: Vec<u128> = weights.iter().map(|weight| weight >> shift).collect();
    let sum: u128 = weights.iter().sum();
    if sum == 0 {
        return vec![0; weights.len()];
    }
    let scaled = |weight: &u128| weight * u128::from(total);
    let mut parts: Vec<u64> = weights.iter().map(|weight| (scaled(weight) / sum) as u64).collect();
    let left = total - parts.iter().sum::<u64>();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|a, b| (scaled(&weights[*b]) % sum).cmp(&(scaled(&weights[*a]) % sum)).then(a.cmp(b)));
    order.into_iter().take(left as usize).for_each(|at| parts[at] += 1);
    parts
}
