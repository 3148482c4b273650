//! The predicate of attributions: a declared game, its values, and the shares that follow.
//!
//! Contributors stand as pseudonyms. Values are integers over one denominator and add up to the game's; nothing is rescaled.
//!
//! ```text
//! game = SHA-256("hk-att/v1/game" 00 ‖ JCS(declared game))
//! ```

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::evaluation::SealedBenchmark;
use super::jcs::{self, JcsError};

const GAME: &[u8] = b"hk-att/v1/game\0";

/// Who is credited with an accepted improvement. The subject is the candidate's artefact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Attribution {
    /// SHA-256 of the baseline's artefact, hex.
    pub baseline: String,
    /// The sealed rows.
    pub benchmark: SealedBenchmark,
    /// SHA-256 of the candidate's artefact, hex; the subject's digest.
    pub candidate: String,
    /// SHA-256 of the model that delta is against, hex: the baseline, or the candidate's recipe trained on the baseline's rows.
    pub comparator: String,
    /// Value of all players together, rounded down.
    pub delta_game_ppm: String,
    /// The candidate's improvement over the comparator on the whole benchmark.
    pub delta_ppm: String,
    /// What all values are parts of.
    pub denominator: String,
    /// Evaluation that accepted the candidate.
    pub evaluation_id: String,
    /// SHA-256 of its statement, hex.
    pub evaluation_statement: String,
    /// The game.
    pub game: Game,
    /// Its digest, hex.
    pub game_digest: String,
    /// Lower bound of delta, one-sided at 5 %, with what seeds of training add.
    pub lower_ppm: String,
    /// Model.
    pub model: String,
    /// Whether the shares may be paid.
    pub payable: bool,
    /// In the order of the game.
    pub players: Vec<PlayerFacts>,
    /// Why nobody is paid, as codes, sorted; empty when payable.
    pub reasons: Vec<String>,
    /// Delta less the game's: nobody's.
    pub remainder_ppm: String,
    /// Sorted by pseudonym; empty unless payable.
    pub shares: Vec<ShareFacts>,
}

impl Attribution {
    /// URI of the type.
    pub const TYPE: &'static str = "https://hokus.ai/attestation/attribution/v1";
}

/// A declared game: who has recipe, rows and benchmark plays the same one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Game {
    /// Learner.
    pub algorithm: String,
    /// Rows of the game that belong to nobody.
    pub base_rows: i64,
    /// Root over the rows that the baseline was trained on, hex: players are contributors of rows that are not among them.
    pub baseline_dataset_root: String,
    /// Benchmark rows that each model is measured on.
    pub benchmark_rows: i64,
    /// Contract that says what is learned, by its digest.
    pub contract_digest: String,
    /// Root over the rows that the candidate was trained on, hex.
    pub dataset_root: String,
    /// What rows, benchmark rows and orders are drawn by, together with what is drawn: the evaluation's id.
    pub draws: String,
    /// `enumerated` or `permutations`.
    pub method: String,
    /// Primary metric: the utility.
    pub metric: String,
    /// Complete parameters of every training, as canonical JSON text.
    pub parameters: String,
    /// Who plays, each with its rows in the game.
    pub players: Vec<Seat>,
    /// Digest of the candidate's recipe, hex.
    pub recipe_digest: String,
    /// Seeds, decimal: the first is the candidate's.
    pub seeds: Vec<String>,
    /// Small trainings per seed.
    pub trainings: i64,
}

/// A player and what it brings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Seat {
    /// How many contributors it is.
    pub contributors: i64,
    /// Its accepted rows, all of them.
    pub owned: i64,
    /// Pseudonym of a contributor that plays alone; left out of the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pseudonym: Option<String>,
    /// How many of its rows play.
    pub rows: i64,
}

/// What a player was found to be worth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PlayerFacts {
    /// What is lost when it leaves, over the same denominator; of the five with the largest values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leave_one_out: Option<String>,
    /// Whether the value is above 0 at one-sided 5 %.
    pub significant: bool,
    /// Standard error in 10⁻⁹ of the metric's unit, rounded up.
    pub standard_error_e9: String,
    /// Shapley value over the denominator.
    pub value: String,
}

/// What one contributor is paid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ShareFacts {
    /// Part of the payable delta; all add up to 10,000.
    pub basis_points: i64,
    /// The wallet that signed its contributions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payout_address: Option<String>,
    /// Pseudonym of the contributor.
    pub pseudonym: String,
}

impl Game {
    /// The game's digest, hex.
    ///
    /// # Errors
    /// A text without canonical form; these have one.
    pub fn digest(&self) -> Result<String, JcsError> {
        let mut hasher = Sha256::new();
        hasher.update(GAME);
        hasher.update(jcs::to_canonical(self)?);
        Ok(data_encoding::HEXLOWER.encode(&hasher.finalize()))
    }
}

impl Attribution {
    /// Whether the statement's numbers fit each other: the game has its digest, values add up to the game's delta, shares to
    /// everything or nothing.
    ///
    /// # Errors
    /// What does not fit.
    pub fn adds_up(&self) -> Result<String, String> {
        let number = |text: &str| text.parse::<i128>().map_err(|_| format!("`{text}` is no integer of 128 bits"));
        if self.game.digest().ok().as_deref() != Some(&self.game_digest) {
            return Err("the game has another digest than it says".to_owned());
        }
        if self.players.len() != self.game.players.len() {
            return Err("there are not as many values as players".to_owned());
        }
        let sum = self.players.iter().try_fold(0_i128, |sum, player| {
            sum.checked_add(number(&player.value)?).ok_or_else(|| "the values do not fit 128 bits".to_owned())
        })?;
        let denominator = number(&self.denominator)?;
        let scaled = sum.checked_mul(1_000_000).filter(|_| denominator > 0);
        let game =
            scaled.ok_or("the denominator is not positive, or the values do not fit 128 bits")?.div_euclid(denominator);
        let (delta, said, rest) =
            (number(&self.delta_ppm)?, number(&self.delta_game_ppm)?, number(&self.remainder_ppm)?);
        if game != said || delta.checked_sub(said) != Some(rest) {
            return Err(format!(
                "the values add up to {game} ppm, and it says {said} and a remainder of {rest} of {delta}"
            ));
        }
        let shares: i128 = self.shares.iter().map(|share| i128::from(share.basis_points)).sum();
        let due = if self.payable { 10_000 } else { 0 };
        if shares != due || self.payable != self.reasons.is_empty() {
            return Err(format!("its shares add up to {shares} basis points, not to {due}"));
        }
        Ok(format!("{} values add up to {game} ppm of the metric, shares to {shares} basis points", self.players.len()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An attribution with every field.
    pub fn attribution() -> Attribution {
        let evaluation = super::super::evaluation::tests::preregistration();
        let seat = |n: i64, pseudonym: Option<&str>| Seat {
            contributors: n,
            owned: 100 * n,
            pseudonym: pseudonym.map(str::to_owned),
            rows: 10 * n,
        };
        let facts = |value: &str, leave: Option<&str>| PlayerFacts {
            leave_one_out: leave.map(str::to_owned),
            significant: leave.is_some(),
            standard_error_e9: "1200000".to_owned(),
            value: value.to_owned(),
        };
        let game = Game {
            algorithm: "trees".to_owned(),
            base_rows: 40,
            baseline_dataset_root: "04".repeat(32),
            benchmark_rows: 500,
            contract_digest: "03".repeat(32),
            dataset_root: "05".repeat(32),
            draws: "e".to_owned(),
            method: "enumerated".to_owned(),
            metric: "auroc".to_owned(),
            parameters: "{\"iterations\":50}".to_owned(),
            players: vec![seat(1, Some("hmac-sha256:k1:ab")), seat(3, None)],
            recipe_digest: "07".repeat(32),
            seeds: ["7", "8", "9", "10", "11"].map(str::to_owned).to_vec(),
            trainings: 4,
        };
        Attribution {
            baseline: "02".repeat(32),
            benchmark: evaluation.benchmark,
            candidate: "06".repeat(32),
            comparator: "02".repeat(32),
            delta_game_ppm: "13333".to_owned(),
            delta_ppm: "20000".to_owned(),
            denominator: "300000".to_owned(),
            evaluation_id: "e".to_owned(),
            evaluation_statement: "0c".repeat(32),
            game_digest: game.digest().unwrap(),
            game,
            lower_ppm: "9000".to_owned(),
            model: "m".to_owned(),
            payable: true,
            players: vec![facts("5000", Some("4000")), facts("-1000", None)],
            reasons: vec![],
            remainder_ppm: "6667".to_owned(),
            shares: vec![ShareFacts {
                basis_points: 10_000,
                payout_address: Some("0x52908400098527886e0f7030069857d2e4169ee7".to_owned()),
                pseudonym: "hmac-sha256:k1:ab".to_owned(),
            }],
        }
    }

    #[test]
    fn numbers_that_do_not_fit_each_other_are_told() {
        assert!(attribution().adds_up().is_ok());
        type Change = fn(&mut Attribution);
        let changes: [(&str, Change); 7] = [
            ("another digest", |own| own.game.base_rows += 1),
            ("add up to", |own| own.players[0].value = "5001".to_owned()),
            ("add up to", |own| own.remainder_ppm = "6668".to_owned()),
            ("basis points", |own| own.shares[0].basis_points -= 1),
            ("basis points", |own| own.payable = false),
            ("as many values", |own| drop(own.players.pop())),
            ("not positive", |own| own.denominator = "0".to_owned()),
        ];
        for (says, change) in changes {
            let mut own = attribution();
            change(&mut own);
            let found = own.adds_up().unwrap_err();
            assert!(found.contains(says), "{found}");
        }
    }
}
