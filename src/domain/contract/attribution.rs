//! How large the game is that credits contributors with an accepted improvement: the section `attribution`.
//!
//! Everything has a default, so the section may be left out. What it says is part of the game that an attribution declares.

use serde::{Deserialize, Serialize};

use super::grammar::Spec;
use super::rules::{Check, require};

/// Most players.
pub const MAX_PLAYERS: u32 = 16;
/// Most trainings per seed: all coalitions of sixteen players.
const MAX_TRAININGS: u32 = 1 << 16;
/// Most rows that one small training learns from, and most benchmark rows that it is measured on.
const MAX_ROWS: u32 = 1_000_000;
/// Most seeds.
const MAX_SEEDS: u32 = 32;

/// The section `attribution`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AttributionSpec {
    /// Most players: with more contributors the least of them play as one. 16 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub players: Option<u32>,
    /// Small trainings per seed: all coalitions if they fit, else antithetic permutations. 200 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trainings: Option<u32>,
    /// Rows of the largest of these trainings: the baseline's, at most half of them, and contributors' in proportion. 20,000 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u32>,
    /// Benchmark rows that each model is measured on. 20,000 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub benchmark_rows: Option<u32>,
    /// Seeds under which the game is played; fewer than five pay nobody. 5 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeds: Option<u32>,
}

/// The same with every default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GameSize {
    /// Most players.
    pub players: usize,
    /// Small trainings per seed.
    pub trainings: usize,
    /// Rows of the largest training.
    pub rows: usize,
    /// Benchmark rows.
    pub benchmark_rows: usize,
    /// Seeds.
    pub seeds: u32,
}

impl AttributionSpec {
    /// With every default.
    #[must_use]
    pub fn size(self) -> GameSize {
        let whole = |said: Option<u32>, default: u32| usize::try_from(said.unwrap_or(default)).unwrap_or(usize::MAX);
        GameSize {
            players: whole(self.players, MAX_PLAYERS),
            trainings: whole(self.trainings, 200),
            rows: whole(self.rows, 20_000),
            benchmark_rows: whole(self.benchmark_rows, 20_000),
            seeds: self.seeds.unwrap_or(5),
        }
    }
}

impl Spec {
    /// Checks the section `attribution`, if it is there.
    pub(super) fn check_attribution(&self) -> Check {
        let Some(said) = &self.attribution else { return Ok(()) };
        let help = "an accepted improvement is what is attributed: add the section `evaluation`";
        require(self.evaluation.is_some(), "attribution", "stands without `evaluation`", help)?;
        for (name, said, least, most) in [
            ("players", said.players, 1, MAX_PLAYERS),
            ("trainings", said.trainings, 2, MAX_TRAININGS),
            ("rows", said.rows, 100, MAX_ROWS),
            ("benchmarkRows", said.benchmark_rows, 100, MAX_ROWS),
            ("seeds", said.seeds, 1, MAX_SEEDS),
        ] {
            let fits = said.is_none_or(|said| (least..=most).contains(&said));
            require(fits, &format!("attribution.{name}"), "is out of range", &format!("write {least} to {most}"))?;
        }
        let size = said.size();
        // All coalitions, or two antithetic pairs of permutations: less gives no standard error.
        let needed = (4 * size.players.saturating_sub(1) + 2).min(1 << size.players);
        let help = format!("{} players need at least {needed}", size.players);
        require(size.trainings >= needed, "attribution.trainings", "are too few", &help)
    }
}
