//! `hokusai attribution`: who is credited with an accepted improvement, by how much, and why nobody is paid if nobody is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use rdkafka::message::Message;
use tokio_util::sync::CancellationToken;

use super::common::Settings;
use super::exit::{Failure, Outcome, say};
use super::progress;
use super::reader::{Polled, Reader, Start};
use crate::domain::records::{Attribution, Player};
use crate::domain::topics;
use crate::ops::signals;

const EXAMPLES: &str = "\
Examples:
  hokusai attribution                                      every attribution
  hokusai attribution 4be1c3e0a7e5f0b2c7d1e2f3a4b5c6d7 --wait
  hokusai attribution --model flight-delay --format json

An evaluation that accepts is attributed by itself. Values are Shapley values of a declared game over small trainings, as integers over
one denominator; they add up to delta_game exactly, and what of delta lies outside the game is nobody's. Shares in basis points follow
only when they may be paid: five seeds, a baseline that is still head, a lower bound above 0, contributors who signed.";

/// Arguments of `attribution`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct AttributionArgs {
    /// Only that of this evaluation
    evaluation: Option<String>,
    /// Only those of this model
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Wait until the evaluation is attributed
    #[arg(long, requires = "evaluation")]
    wait: bool,
    /// Give up waiting after this many seconds
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    timeout: Option<u64>,
}

/// Runs `attribution`.
///
/// # Errors
/// No broker, no topic, a record that cannot be read, an attribution that failed, or patience that ended.
pub async fn run(args: AttributionArgs, settings: Settings) -> Outcome<()> {
    let stop = signals::on_signal();
    tokio::task::spawn_blocking(move || match args.evaluation.as_deref().filter(|_| args.wait) {
        Some(evaluation) => one(evaluation, &args, &settings, &stop),
        None => all(&args, &settings),
    })
    .await
    .map_err(Failure::failed)?
}

fn all(args: &AttributionArgs, settings: &Settings) -> Outcome<()> {
    let mut found: BTreeMap<String, Attribution> = BTreeMap::new();
    Reader::scan(settings, topics::ATTRIBUTIONS, &Start::Beginning)?.for_each_to_end(|message| {
        let Some(payload) = message.payload() else { return Ok(()) };
        let told: Attribution = settings.wire.decode(payload).map_err(Failure::failed)?;
        found.insert(told.evaluation_id.clone(), told);
        Ok(())
    })?;
    let wanted = |told: &&Attribution| {
        args.evaluation.as_ref().is_none_or(|id| *id == told.evaluation_id)
            && args.model.as_ref().is_none_or(|model| *model == told.model)
    };
    let mut shown = found.values().filter(wanted).peekable();
    match (&args.evaluation, shown.peek()) {
        (Some(id), None) => {
            let text = format!(
                "no attribution of evaluation {id}\nhelp: only what an evaluation accepted is attributed; --wait waits for it"
            );
            return Err(Failure::because(text));
        }
        (None, None) if !settings.json() => {
            return say("no attributions yet; an evaluation that accepts is attributed by itself");
        }
        _ => {}
    }
    shown.try_for_each(|told| show(settings, told))
}

fn one(evaluation: &str, args: &AttributionArgs, settings: &Settings, stop: &CancellationToken) -> Outcome<()> {
    let deadline = args.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let spinner = progress::bar(settings, None, "{spinner} small trainings of coalitions, {elapsed}");
    let mut reader = Reader::open(settings, topics::ATTRIBUTIONS, &Start::Beginning)?;
    loop {
        spinner.tick();
        if stop.is_cancelled() {
            return Err(Failure::because("interrupted\nhelp: the stage goes on; ask again with the same id"));
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            let help = "`hokusai doctor` tells whether the stage attribution runs; only what an evaluation accepted is attributed";
            return Err(Failure::because(format!(
                "evaluation {evaluation} is not attributed within --timeout\nhelp: {help}"
            )));
        }
        let Polled::Record(message) = reader.poll(Duration::from_millis(100))? else { continue };
        let (Some(key), Some(payload)) = (message.key(), message.payload()) else { continue };
        if key == evaluation.as_bytes() {
            spinner.finish_and_clear();
            let told: Attribution = settings.wire.decode(payload).map_err(Failure::failed)?;
            show(settings, &told)?;
            return match told.status.as_str() {
                Attribution::FAILED => Err(Failure::because(format!("{}: {}", told.reason, told.detail))),
                _ => Ok(()),
            };
        }
    }
}

fn show(settings: &Settings, told: &Attribution) -> Outcome<()> {
    if settings.json() {
        return say(serde_json::to_value(told).map_err(Failure::failed)?);
    }
    let Attribution { evaluation_id, model, benchmark, status, .. } = told;
    say(format_args!("evaluation {evaluation_id}: {status} ({model} on {benchmark})"))?;
    if told.status == Attribution::FAILED {
        return say(format_args!("  reason    {}: {}", told.reason, told.detail));
    }
    say(format_args!(
        "  game      {}: {} trainings over {} seeds, at most {} rows ({} of them the baseline's), {} benchmark rows",
        told.method, told.trainings, told.seeds, told.rows, told.base_rows, told.benchmark_rows
    ))?;
    say(format_args!(
        "  {:<9} {} (at least {}, in the game {}, nobody's {})",
        told.metric, told.delta, told.lower, told.delta_game, told.remainder
    ))?;
    for player in &told.players {
        let paid = paid(told, player);
        let mark = if player.significant { "" } else { "  not significant" };
        say(format_args!(
            "  {:<24} {:>9} ± {}  {} rows{paid}{mark}",
            name(player),
            player.effect,
            player.standard_error,
            player.rows
        ))?;
    }
    match told.payable {
        true => say("  payable   yes"),
        false => say(format_args!("  payable   no: {}", told.reasons.join(", "))),
    }
}

fn name(player: &Player) -> String {
    match player.members.as_slice() {
        [member] if player.contributors == 1 => member.contributor.clone(),
        _ => format!("{} others", player.contributors),
    }
}

fn paid(told: &Attribution, player: &Player) -> String {
    let of_player = |contributor: &str| player.members.iter().any(|member| member.contributor == contributor);
    let points: i64 =
        told.shares.iter().filter(|share| of_player(&share.contributor)).map(|share| share.basis_points).sum();
    if points == 0 { String::new() } else { format!("  {points} bp") }
}
