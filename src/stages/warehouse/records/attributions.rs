//! Attributions → columns.

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;

use super::{batch, boolean, list, long, some_text, text};
use crate::domain::records::{Attribution, Player, Share};
use crate::stages::warehouse::tables::{Table, column, list_of, long as whole, plain, text as words, texts};

fn members() -> DataType {
    list_of(vec![plain("contributor", DataType::Utf8), plain("rows", DataType::Int64)])
}

/// The table's columns.
pub(in super::super) fn fields() -> Vec<Field> {
    let player = list_of(vec![
        plain("contributors", DataType::Int64),
        plain("members", members()),
        plain("rows", DataType::Int64),
        plain("value", DataType::Utf8),
        plain("effect", DataType::Utf8),
        plain("standard_error", DataType::Utf8),
        plain("leave_one_out", DataType::Utf8),
        plain("significant", DataType::Boolean),
    ]);
    let share = list_of(vec![
        plain("contributor", DataType::Utf8),
        plain("basis_points", DataType::Int64),
        plain("payout_address", DataType::Utf8),
    ]);
    vec![
        words("evaluation_id", "Evaluation that accepted the candidate"),
        words("model", "Model"),
        words("benchmark", "Benchmark, NAME@VERSION"),
        words("metric", "Primary metric: the game's utility"),
        words("candidate", "SHA-256 of the candidate's artefact, hex"),
        words("baseline", "SHA-256 of the baseline's artefact, hex"),
        words("comparator", "SHA-256 of the model that delta is against, hex; empty when it failed"),
        words("status", "attributed or failed"),
        words("reason", "Why it failed; empty when it did not"),
        words("detail", "The same in words, with the way out"),
        words("game", "SHA-256 of the declared game, hex"),
        words("method", "enumerated or permutations"),
        whole("seeds", "Seeds under which the game was played"),
        whole("trainings", "Small trainings, over all seeds"),
        whole("base_rows", "Rows of the game that are in the baseline's dataset: nobody's"),
        whole("game_rows", "Rows of the game's largest training"),
        whole("benchmark_rows", "Benchmark rows that each model was measured on"),
        words("denominator", "What all values are parts of, decimal integer"),
        words("delta", "Improvement over the comparator on the whole benchmark, decimal string"),
        words("lower", "Its lower bound, one-sided at 5 %, with what seeds of training add"),
        words("delta_game", "Value of all players together, decimal string"),
        words("remainder", "delta less delta_game: nobody's"),
        column(
            "players",
            player,
            "Values with standard errors; the view attribution_shares has one row per contributor",
        ),
        column("shares", share, "Basis points by contributor; empty unless payable"),
        column("payable", DataType::Boolean, "Whether the shares may be paid"),
        column("reasons", texts(), "Why not, as codes; empty when payable"),
        words("statement", "SHA-256 of the signed statement, hex: see attestations"),
    ]
}

pub(in super::super) fn told(all: &[Attribution]) -> Result<RecordBatch, ArrowError> {
    let schema = Table::Attributions.schema();
    let type_of = |name: &str| schema.field_with_name(name).map(|field| field.data_type().clone());
    let of = |field: fn(&Attribution) -> &str| text(all.iter().map(field));
    let number = |field: fn(&Attribution) -> i64| long(all.iter().map(field));
    let reasons = list(
        &type_of("reasons")?,
        all.iter().map(|own| own.reasons.len()),
        vec![text(all.iter().flat_map(|own| &own.reasons).map(String::as_str))],
    )?;
    let shares = || all.iter().flat_map(|own| &own.shares);
    let share = |field: fn(&Share) -> &str| text(shares().map(field));
    let shares = list(
        &type_of("shares")?,
        all.iter().map(|own| own.shares.len()),
        vec![
            share(|own| &own.contributor),
            long(shares().map(|own| own.basis_points)),
            some_text(shares().map(|own| own.payout_address.as_deref())),
        ],
    )?;
    let players: Vec<&Player> = all.iter().flat_map(|own| &own.players).collect();
    let players = list(&type_of("players")?, all.iter().map(|own| own.players.len()), columns_of(&players)?)?;
    batch(
        Table::Attributions,
        vec![
            of(|own| &own.evaluation_id),
            of(|own| &own.model),
            of(|own| &own.benchmark),
            of(|own| &own.metric),
            of(|own| &own.candidate),
            of(|own| &own.baseline),
            of(|own| &own.comparator),
            of(|own| &own.status),
            of(|own| &own.reason),
            of(|own| &own.detail),
            of(|own| &own.game),
            of(|own| &own.method),
            number(|own| own.seeds),
            number(|own| own.trainings),
            number(|own| own.base_rows),
            number(|own| own.rows),
            number(|own| own.benchmark_rows),
            of(|own| &own.denominator),
            of(|own| &own.delta),
            of(|own| &own.lower),
            of(|own| &own.delta_game),
            of(|own| &own.remainder),
            players,
            shares,
            boolean(all.iter().map(|own| own.payable)),
            reasons,
            of(|own| &own.statement),
        ],
    )
}

fn columns_of(players: &[&Player]) -> Result<Vec<arrow::array::ArrayRef>, ArrowError> {
    let member = || players.iter().flat_map(|own| &own.members);
    let members = list(
        &members(),
        players.iter().map(|own| own.members.len()),
        vec![text(member().map(|own| own.contributor.as_str())), long(member().map(|own| own.rows))],
    )?;
    let of = |field: fn(&Player) -> &str| text(players.iter().map(|own| field(own)));
    Ok(vec![
        long(players.iter().map(|own| own.contributors)),
        members,
        long(players.iter().map(|own| own.rows)),
        of(|own| &own.value),
        of(|own| &own.effect),
        of(|own| &own.standard_error),
        some_text(players.iter().map(|own| own.leave_one_out.as_deref())),
        boolean(players.iter().map(|own| own.significant)),
    ])
}
