//! Who is credited with an accepted improvement.

use serde::{Deserialize, Serialize};

use super::Record;

/// The values of a declared game and the shares that follow, on `attributions`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribution {
    /// Evaluation that accepted the candidate.
    pub evaluation_id: String,
    /// Model.
    pub model: String,
    /// Benchmark, `NAME@VERSION`.
    pub benchmark: String,
    /// Primary metric: the game's utility.
    pub metric: String,
    /// SHA-256 of the candidate's artefact, hex.
    pub candidate: String,
    /// SHA-256 of the baseline's artefact, hex.
    pub baseline: String,
    /// SHA-256 of the model that delta is against, hex: the baseline, or the candidate's recipe trained on the baseline's rows.
    pub comparator: String,
    /// `attributed` or `failed`.
    pub status: String,
    /// Why it failed; empty when it did not.
    pub reason: String,
    /// The same in words, with the way out.
    pub detail: String,
    /// SHA-256 of the declared game, hex; empty when it failed.
    pub game: String,
    /// `enumerated` or `permutations`.
    pub method: String,
    /// Seeds under which the game was played.
    pub seeds: i64,
    /// Small trainings, over all seeds.
    pub trainings: i64,
    /// Rows of the game that belong to nobody: they are in the baseline's dataset.
    pub base_rows: i64,
    /// Rows of the game's largest training.
    pub rows: i64,
    /// Benchmark rows that each model was measured on.
    pub benchmark_rows: i64,
    /// What all values are parts of, decimal integer.
    pub denominator: String,
    /// Improvement of the candidate over the comparator on the whole benchmark.
    pub delta: String,
    /// Its lower bound, one-sided at 5 %, with what seeds of training add.
    pub lower: String,
    /// Value of all players together, rounded down.
    pub delta_game: String,
    /// `delta` less `delta_game`: nobody's.
    pub remainder: String,
    /// By the name of the first member, the rest last.
    pub players: Vec<Player>,
    /// Sorted by contributor; empty unless payable.
    pub shares: Vec<Share>,
    /// Whether the shares may be paid.
    pub payable: bool,
    /// Why not, as codes, sorted; empty when payable.
    pub reasons: Vec<String>,
    /// SHA-256 of the signed statement, hex.
    pub statement: String,
}
record!(Attribution, "attribution");

/// A player of the game: one contributor, or the rest of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Player {
    /// How many contributors it is.
    pub contributors: i64,
    /// Its contributors, sorted by name; at most [`Player::MAX_MEMBERS`] of them.
    pub members: Vec<Member>,
    /// Their rows together.
    pub rows: i64,
    /// Shapley value as an integer over the denominator; all add up to the game's value, exactly.
    pub value: String,
    /// The same in the metric's unit, rounded down.
    pub effect: String,
    /// Its standard error, rounded up.
    pub standard_error: String,
    /// What is lost when it leaves, in the metric's unit; of the five with the largest values.
    pub leave_one_out: Option<String>,
    /// Whether the value is above 0 at one-sided 5 %.
    pub significant: bool,
}

impl Player {
    /// Most members that a record lists.
    pub const MAX_MEMBERS: usize = 2_000;
}

/// A contributor of a player.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Contributor.
    pub contributor: String,
    /// Its accepted rows in the candidate's dataset that are not in the baseline's.
    pub rows: i64,
}

/// What one contributor is paid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Contributor.
    pub contributor: String,
    /// Part of the payable delta; all add up to 10,000.
    pub basis_points: i64,
    /// The wallet that signed its contributions; none when another key did.
    pub payout_address: Option<String>,
}

impl Attribution {
    /// The game was played.
    pub const ATTRIBUTED: &'static str = "attributed";
    /// It could not be.
    pub const FAILED: &'static str = "failed";
}
