//! Shapley values in integers: exact over all coalitions, or sampled with antithetic permutations.

use crate::stats::random::Seed;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// Most players of a game; more contributors are merged first.
pub const MAX_PLAYERS: usize = 16;

/// Small trainings that an attribution may take by default.
pub const BUDGET: usize = 200;

/// Largest absolute utility, in quanta: with 16! it stays far inside 128 bits.
pub const MAX_UTILITY: i128 = 1 << 60;

/// A set of players: bit i is player i.
pub type Coalition = u32;

/// Why a game cannot be played.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GameError {
    /// No player, or more than [`MAX_PLAYERS`].
    #[error("{0} players; help: 1 to 16, merge the smallest contributors into one")]
    Players(usize),
    /// Fewer than two pairs of permutations fit the budget: there would be no standard error.
    #[error("a budget of {budget} trainings is too small for {players} players; help: at least {needed}")]
    Budget {
        /// Trainings allowed.
        budget: usize,
        /// Players.
        players: usize,
        /// Trainings that would do.
        needed: usize,
    },
    /// A coalition that was asked for has no utility.
    #[error("coalition {0:#b} has no utility; help: train all coalitions of the plan")]
    Missing(Coalition),
    /// A utility beyond [`MAX_UTILITY`], or a denominator that is not positive.
    #[error(
        "a utility of coalition {0:#b} is out of range; help: utilities are integers below 2^60 over one denominator"
    )]
    Range(Coalition),
    /// An order that does not hold each player once.
    #[error("a permutation does not hold each player once")]
    Order,
}

/// Utilities of coalitions as integers over one denominator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Utilities {
    /// What the integers are parts of (for an AUROC 2PN, for an accuracy the rows).
    pub denominator: i128,
    /// Numerators.
    pub values: BTreeMap<Coalition, i128>,
}

impl Utilities {
    fn of(&self, coalition: Coalition) -> Result<i128, GameError> {
        let value = *self.values.get(&coalition).ok_or(GameError::Missing(coalition))?;
        let fits = value.unsigned_abs() <= MAX_UTILITY.unsigned_abs() && self.denominator > 0;
        if fits { Ok(value) } else { Err(GameError::Range(coalition)) }
    }
}

/// How the values are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// Every coalition once.
    Enumerated,
    /// Orders of the players, each also backwards: (Mitchell et al. 2022, §3) the pair's errors cancel in part.
    Permutations(Vec<Vec<usize>>),
}

/// A plan: which coalitions to train, and how their utilities make values. Values are *linear* in the utilities: player i
/// gets Σ over coalitions S of weight(i, S) v(S), over [`Plan::divisor`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    players: usize,
    method: Method,
    /// Of sampled plans: weights of the coalitions that occur.
    sampled: BTreeMap<Coalition, Vec<i128>>,
}

/// Values of all players.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shapley {
    /// Numerators, by player.
    pub values: Vec<i128>,
    /// Their denominator: the utilities' times the plan's divisor.
    pub denominator: i128,
}

impl Shapley {
    /// The values as floating-point numbers.
    #[must_use]
    pub fn to_f64(&self) -> Vec<f64> {
        self.values.iter().map(|value| *value as f64 / self.denominator as f64).collect()
    }
}

impl Plan {
    /// A plan for `players` within `budget` trainings: enumerated if all 2ⁿ coalitions fit, else as many antithetic pairs as fit
    /// whatever is drawn. (Stopping when the coalitions seen so far are enough would prefer orders that repeat coalitions.)
    ///
    /// # Errors
    /// No player, too many, or a budget below two pairs.
    pub fn new(players: usize, budget: usize, seed: Seed) -> Result<Self, GameError> {
        if !(1..=MAX_PLAYERS).contains(&players) {
            return Err(GameError::Players(players));
        }
        if (1_usize << players) <= budget {
            return Ok(Self { players, method: Method::Enumerated, sampled: BTreeMap::new() });
        }
        let per_pair = 2 * (players - 1);
        let pairs = budget.saturating_sub(2) / per_pair.max(1);
        if pairs < 2 {
            let needed = (2 * per_pair + 2).min(1 << players);
            return Err(GameError::Budget { budget, players, needed });
        }
        let orders = (0..pairs as u64).map(|pair| {
            let mut order: Vec<usize> = (0..players).collect();
            seed.stream(pair).shuffle(&mut order);
            order
        });
        Self::of_orders(players, orders.collect())
    }

    /// A plan of given orders; each is also walked backwards.
    ///
    /// # Errors
    /// An order that does not hold each player once; no order.
    pub fn of_orders(players: usize, orders: Vec<Vec<usize>>) -> Result<Self, GameError> {
        if !(1..=MAX_PLAYERS).contains(&players) {
            return Err(GameError::Players(players));
        }
        let whole = |order: &Vec<usize>| {
            order.len() == players
                && order.iter().collect::<BTreeSet<_>>().len() == players
                && order.iter().all(|p| *p < players)
        };
        if orders.is_empty() || !orders.iter().all(whole) {
            return Err(GameError::Order);
        }
        let mut sampled: BTreeMap<Coalition, Vec<i128>> = BTreeMap::new();
        for order in &orders {
            for (player, without) in steps(order).chain(steps_back(order)) {
                sampled.entry(without).or_insert_with(|| vec![0; players])[player] -= 1;
                sampled.entry(without | 1 << player).or_insert_with(|| vec![0; players])[player] += 1;
            }
        }
        Ok(Self { players, method: Method::Permutations(orders), sampled })
    }

    /// Players of the game.
    #[must_use]
    pub fn players(&self) -> usize {
        self.players
    }

    /// How values are found.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The coalitions whose utilities are needed, ascending; nobody (0) and all are among them.
    #[must_use]
    pub fn coalitions(&self) -> Vec<Coalition> {
        match self.method {
            Method::Enumerated => (0..1 << self.players).collect(),
            Method::Permutations(_) => self.sampled.keys().copied().collect(),
        }
    }

    /// What the weights are parts of: n! or the number of orders walked.
    #[must_use]
    pub fn divisor(&self) -> i128 {
        match &self.method {
            Method::Enumerated => factorial(self.players),
            Method::Permutations(orders) => 2 * orders.len() as i128,
        }
    }

    /// The weight of a coalition's utility in a player's value.
    #[must_use]
    pub fn weight(&self, player: usize, coalition: Coalition) -> i128 {
        match self.method {
            Method::Permutations(_) => {
                self.sampled.get(&coalition).and_then(|own| own.get(player)).copied().unwrap_or(0)
            }
            Method::Enumerated => {
                // Shapley 1953: |S|! (n − |S| − 1)! of the n! orders have exactly S before the player.
                let size = coalition.count_ones() as usize;
                if coalition >> player & 1 == 1 {
                    factorial(size - 1) * factorial(self.players - size)
                } else {
                    -factorial(size) * factorial(self.players - size - 1)
                }
            }
        }
    }

    /// The players' Shapley values. Their sum is v(all) − v(nobody), exactly.
    ///
    /// # Errors
    /// A utility that is missing or out of range.
    pub fn shapley(&self, utilities: &Utilities) -> Result<Shapley, GameError> {
        let mut values = vec![0_i128; self.players];
        for coalition in self.coalitions() {
            let utility = utilities.of(coalition)?;
            for (player, value) in values.iter_mut().enumerate() {
                *value += self.weight(player, coalition) * utility;
            }
        }
        let denominator = utilities.denominator.checked_mul(self.divisor()).ok_or(GameError::Range(0))?;
        Ok(Shapley { values, denominator })
    }

    /// Of a sampled plan: each pair's sum of a player's two marginal utilities, in quanta; by player.
    ///
    /// # Errors
    /// A utility that is missing or out of range.
    pub(super) fn pairs(&self, utilities: &Utilities) -> Result<Option<Vec<Vec<i128>>>, GameError> {
        let Method::Permutations(orders) = &self.method else { return Ok(None) };
        let mut pairs = vec![Vec::with_capacity(orders.len()); self.players];
        for order in orders {
            let mut sums = vec![0; self.players];
            for (player, without) in steps(order).chain(steps_back(order)) {
                sums[player] += utilities.of(without | 1 << player)? - utilities.of(without)?;
            }
            pairs.iter_mut().zip(sums).for_each(|(own, sum)| own.push(sum));
        }
        Ok(Some(pairs))
    }
}

/// Each player of an order with the coalition before it.
fn steps(order: &[usize]) -> impl Iterator<Item = (usize, Coalition)> {
    order.iter().scan(0, |before, player| {
        let without = *before;
        *before |= 1 << player;
        Some((*player, without))
    })
}

fn steps_back(order: &[usize]) -> impl Iterator<Item = (usize, Coalition)> {
    order.iter().rev().scan(0, |before, player| {
        let without = *before;
        *before |= 1 << player;
        Some((*player, without))
    })
}

fn factorial(n: usize) -> i128 {
    (1..=n as i128).product()
}

/// What each player alone takes away when it leaves: v(all) − v(all but it), in quanta.
///
/// # Errors
/// A utility that is missing or out of range, or a wrong number of players.
pub fn leave_one_out(players: usize, utilities: &Utilities) -> Result<Vec<i128>, GameError> {
    if !(1..=MAX_PLAYERS).contains(&players) {
        return Err(GameError::Players(players));
    }
    let all: Coalition = (1 << players) - 1;
    let full = utilities.of(all)?;
    (0..players).map(|player| Ok(full - utilities.of(all & !(1 << player))?)).collect()
}

/// Key of a coalition's cached utility: the digest of the game and its members, whatever their order and positions.
#[must_use]
pub fn cache_key(game: &[u8; 32], members: &[[u8; 32]]) -> [u8; 32] {
    let sorted: BTreeSet<&[u8; 32]> = members.iter().collect();
    let mut hash = Sha256::new();
    hash.update(b"hk-attribution/v1\0");
    hash.update(game);
    for member in sorted {
        hash.update(member);
    }
    hash.finalize().into()
}
