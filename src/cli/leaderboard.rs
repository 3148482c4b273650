//! `hokusai leaderboard`: how far candidates have come on sealed benchmarks, as the Ladder tells it.

use std::collections::BTreeMap;

use clap::Args;
use rdkafka::message::Message;
use serde_json::json;

use super::common::Settings;
use super::exit::{Failure, Outcome, say};
use super::reader::{Reader, Start};
use crate::domain::records::Evaluation;
use crate::domain::topics;

const EXAMPLES: &str = "\
Examples:
  hokusai leaderboard
  hokusai leaderboard holdout@1
  hokusai leaderboard flight-delay/holdout@1 --format json

A score moves only when an attempt is better than the best one by a whole step (the contract's minimumEffect), and is rounded to it:
an attempt that is not shows the best one's score. So the board cannot be climbed by trying. Other figures of a refused attempt are
nowhere; without a minimum effect there are no scores.";

/// Arguments of `leaderboard`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct LeaderboardArgs {
    /// Only this benchmark: `NAME@VERSION`, or `MODEL/NAME@VERSION`
    benchmark: Option<String>,
}

/// Runs `leaderboard`.
///
/// # Errors
/// No broker, no topic, or a record that cannot be read.
pub async fn run(args: LeaderboardArgs, settings: Settings) -> Outcome<()> {
    tokio::task::spawn_blocking(move || board(&args, &settings)).await.map_err(Failure::failed)?
}

fn board(args: &LeaderboardArgs, settings: &Settings) -> Outcome<()> {
    // By model, benchmark and attempt; the last record of an evaluation stands.
    let mut found: BTreeMap<(String, String, i64), Evaluation> = BTreeMap::new();
    Reader::scan(settings, topics::EVALUATIONS, &Start::Beginning)?.for_each_to_end(|message| {
        let Some(payload) = message.payload() else { return Ok(()) };
        let told: Evaluation = settings.wire.decode(payload).map_err(Failure::failed)?;
        found.insert((told.model.clone(), told.benchmark.clone(), told.attempt), told);
        Ok(())
    })?;
    let wanted = |told: &&Evaluation| {
        let is_named = |name: &String| *name == told.benchmark || *name == format!("{}/{}", told.model, told.benchmark);
        told.ladder_score.is_some() && args.benchmark.as_ref().is_none_or(is_named)
    };
    let mut shown = found.values().filter(wanted).peekable();
    if shown.peek().is_none() && !settings.json() {
        return say("no scores yet; `hokusai train MODEL --benchmark NAME` asks for an evaluation");
    }
    for told in shown {
        let score = told.ladder_score.as_deref().unwrap_or_default();
        if settings.json() {
            say(json!({
                "model": told.model, "benchmark": told.benchmark, "metric": told.metric, "attempt": told.attempt,
                "ladder_score": score, "evaluation_id": told.evaluation_id, "candidate": told.candidate,
            }))?;
        } else {
            let Evaluation { model, benchmark, metric, attempt, evaluation_id, .. } = told;
            say(format_args!("{model}/{benchmark}: attempt {attempt}: {metric} {score} (evaluation {evaluation_id})"))?;
        }
    }
    Ok(())
}
