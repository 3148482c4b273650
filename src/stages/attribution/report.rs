//! From a game to what is told: the record, with contributors' names, and the statement, with pseudonyms.

use super::case::Case;
use super::outcome::Played;
use crate::attest::attribution::{Attribution as Statement, Game, PlayerFacts, Seat, ShareFacts};
use crate::attest::benchmark::{BENCHMARK_TREE, SealedRows};
use crate::attest::evaluation::SealedBenchmark;
use crate::attest::jcs::JcsError;
use crate::domain::records::{Attribution as Record, Member, Player as Listed, Share};
use crate::stages::beside::Refusal;
use crate::stats::attribution::screening::Player;
use crate::stats::fixed::{Ratio, ceil_real, floor_real, micro_string};

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn long(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// In 10⁻⁹, rounded up.
fn e9(value: f64) -> i128 {
    ceil_real(value, 1e9).unwrap_or(i128::MAX)
}

fn nano_string(number: i128) -> String {
    let size = number.unsigned_abs();
    format!("{}{}.{:09}", if number < 0 { "-" } else { "" }, size / 1_000_000_000, size % 1_000_000_000)
}

fn method(played: &Played) -> &'static str {
    if played.enumerated { "enumerated" } else { "permutations" }
}

fn owned(player: &Player) -> u64 {
    player.members.iter().map(|(_, rows)| rows).sum()
}

/// In the metric's unit, rounded down.
fn effect(numerator: i128, denominator: i128) -> String {
    Ratio::new(numerator, denominator).and_then(|ratio| ratio.floor(1_000_000)).map_or_else(String::new, micro_string)
}

fn lower(played: &Played) -> i128 {
    floor_real(played.lower, 1e6).unwrap_or(i128::MIN)
}

fn reasons(played: &Played) -> Vec<String> {
    let codes = played.shares.as_ref().err().into_iter().flatten().map(|reason| reason.code().to_owned());
    let mut codes: Vec<String> = codes.collect();
    codes.sort_unstable();
    codes
}

fn wallet(played: &Played, contributor: &str) -> Option<String> {
    played.owners.iter().find(|owner| owner.name == contributor).and_then(|owner| owner.wallet.clone())
}

/// What stands in every record, however it ended.
#[must_use]
pub fn begun(case: &Case) -> Record {
    let evaluation = &case.evaluation;
    Record {
        evaluation_id: evaluation.evaluation_id.clone(),
        model: evaluation.model.clone(),
        benchmark: evaluation.benchmark.clone(),
        metric: evaluation.metric.clone(),
        candidate: evaluation.candidate.clone(),
        baseline: evaluation.baseline.clone(),
        ..Record::default()
    }
}

/// Of what could not be attributed.
#[must_use]
pub fn failed(record: Record, refusal: &Refusal) -> Record {
    Record {
        status: Record::FAILED.to_owned(),
        reason: refusal.code.to_owned(),
        detail: refusal.detail.clone(),
        ..record
    }
}

/// The record of a game, but for its statement.
#[must_use]
pub fn told(case: &Case, played: &Played, game: String) -> Record {
    let players = played.players.iter().enumerate().map(|(place, player)| listed(played, place, player));
    let shares = played.shares.iter().flatten().map(|payee| Share {
        contributor: payee.id.clone(),
        basis_points: long(payee.basis_points),
        payout_address: wallet(played, &payee.id),
    });
    Record {
        comparator: played.comparator.clone(),
        status: Record::ATTRIBUTED.to_owned(),
        game,
        method: method(played).to_owned(),
        seeds: count(played.seeds.len()),
        trainings: count(played.trainings.saturating_mul(played.seeds.len())),
        base_rows: played.rows.first().copied().map_or(0, count),
        rows: count(played.rows.iter().sum()),
        benchmark_rows: count(played.benchmark_rows),
        denominator: played.values.denominator.to_string(),
        delta: micro_string(played.delta),
        lower: micro_string(lower(played)),
        delta_game: micro_string(played.delta_game),
        remainder: micro_string(played.delta - played.delta_game),
        players: players.collect(),
        shares: shares.collect(),
        payable: played.shares.is_ok(),
        reasons: reasons(played),
        ..begun(case)
    }
}

fn listed(played: &Played, place: usize, player: &Player) -> Listed {
    let value = played.values.values.get(place).copied().unwrap_or(0);
    let worth = played.worth.get(place);
    let members = player.members.iter().take(Listed::MAX_MEMBERS);
    Listed {
        contributors: count(player.members.len()),
        members: members.map(|(name, rows)| Member { contributor: name.clone(), rows: long(*rows) }).collect(),
        rows: long(owned(player)),
        value: value.to_string(),
        effect: effect(value, played.values.denominator),
        standard_error: worth.map_or_else(String::new, |worth| nano_string(e9(worth.standard_error))),
        leave_one_out: played.leaving.get(&place).map(|lost| effect(*lost, played.values.denominator)),
        significant: worth.is_some_and(|worth| worth.significant),
    }
}

/// The statement of a game; `pseudonym` stands for a contributor's name.
///
/// # Errors
/// A text without canonical form.
pub fn statement(case: &Case, played: &Played, pseudonym: &dyn Fn(&str) -> String) -> Result<Statement, JcsError> {
    let alone = |player: &Player| match player.members.as_slice() {
        [(name, _)] => Some(pseudonym(name)),
        _ => None,
    };
    let seats = played.players.iter().zip(played.rows.iter().skip(1)).map(|(player, rows)| Seat {
        contributors: count(player.members.len()),
        owned: long(owned(player)),
        pseudonym: alone(player),
        rows: count(*rows),
    });
    let game = Game {
        algorithm: case.algorithm.clone(),
        base_rows: played.rows.first().copied().map_or(0, count),
        baseline_dataset_root: case.base_dataset.clone(),
        benchmark_rows: count(played.benchmark_rows),
        contract_digest: case.contract_digest.clone(),
        dataset_root: case.dataset.clone(),
        draws: case.evaluation.evaluation_id.clone(),
        method: method(played).to_owned(),
        metric: case.evaluation.metric.clone(),
        parameters: case.parameters.clone(),
        players: seats.collect(),
        recipe_digest: case.evaluation.recipe_digest.clone(),
        seeds: played.seeds.iter().map(i64::to_string).collect(),
        trainings: count(played.trainings),
    };
    let facts = played.values.values.iter().zip(&played.worth).enumerate().map(|(place, (value, worth))| PlayerFacts {
        leave_one_out: played.leaving.get(&place).map(i128::to_string),
        significant: worth.significant,
        standard_error_e9: e9(worth.standard_error).to_string(),
        value: value.to_string(),
    });
    let shares = played.shares.iter().flatten().map(|payee| ShareFacts {
        basis_points: long(payee.basis_points),
        payout_address: wallet(played, &payee.id),
        pseudonym: pseudonym(&payee.id),
    });
    let mut shares: Vec<ShareFacts> = shares.collect();
    shares.sort_by(|a, b| a.pseudonym.cmp(&b.pseudonym));
    let benchmark = &case.benchmark;
    Ok(Statement {
        baseline: case.evaluation.baseline.clone(),
        benchmark: SealedBenchmark {
            contract_digest: benchmark.contract_digest.clone(),
            label_commitment: benchmark.label_commitment.clone(),
            name: benchmark.benchmark.clone(),
            rows: SealedRows {
                leaf_alg: BENCHMARK_TREE.to_owned(),
                n: benchmark.rows,
                root: benchmark.rows_root.clone(),
            },
        },
        candidate: case.candidate.digest.clone(),
        comparator: played.comparator.clone(),
        delta_game_ppm: played.delta_game.to_string(),
        delta_ppm: played.delta.to_string(),
        denominator: played.values.denominator.to_string(),
        evaluation_id: case.evaluation.evaluation_id.clone(),
        evaluation_statement: case.evaluation.statement.clone(),
        game_digest: game.digest()?,
        game,
        lower_ppm: lower(played).to_string(),
        model: case.evaluation.model.clone(),
        payable: played.shares.is_ok(),
        players: facts.collect(),
        reasons: reasons(played),
        remainder_ppm: (played.delta - played.delta_game).to_string(),
        shares,
    })
}
