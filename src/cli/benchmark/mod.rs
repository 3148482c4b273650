//! `hokusai benchmark`: seal rows, look at what is sealed, retire a benchmark.
//!
//! Rows are checked and encrypted here, on the sealer's machine; what leaves it is a signed command that names two blobs of the
//! store. The registry decides, and `benchmarks` is the fold of its decisions.

mod pool;
mod seal;

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::json;

use super::common::{KeyFolder, Settings, blocking};
use super::exit::{Failure, Outcome, say};
use super::model::change::{Sending, carry_out};
use super::model::one;
use super::reader::latest;
use crate::domain::records::Benchmark;
use crate::domain::topics;
use crate::stages::registry::benchmark::Retirement;
use crate::stages::registry::command::Action;

const EXAMPLES: &str = "\
Examples:
  hokusai benchmark seal holdout --model flight-delay test.parquet --strata carrier --margin 0.02
  hokusai benchmark seal holdout --model churn rows.csv --drop-refused
  hokusai benchmark list --format json
  hokusai benchmark show holdout@1
  hokusai benchmark retire holdout@1 --reason 'five acceptances'

Sealing checks every row with the model's contract as intake does; a row that fails is told, and nothing is sealed unless
--drop-refused. The rows leave this machine encrypted to the evaluation key (evaluation-TENANT.pub in the folder of keys), whose
private part (evaluation-TENANT.key) only machines that evaluate and attribute should have. What is published is a root, a
commitment to the labels, sizes and the names of strata. From then on intake refuses rows with the same features.

A BENCHMARK is NAME@VERSION, or MODEL/NAME@VERSION where several models have one of that name. Versions of a name count 1, 2, 3 …

Commands are signed with an Ed25519 key: --key, HOKUSAI_SIGNING_KEY, or the development key in the folder of keys; it needs the
role benchmark.seal or benchmark.retire.";

/// Arguments of `benchmark`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchmarkArgs {
    #[command(flatten)]
    keys: KeyFolder,
    #[command(subcommand)]
    action: BenchmarkAction,
}

#[derive(Debug, Subcommand)]
enum BenchmarkAction {
    /// Seal the rows of a file as the next version of a benchmark
    Seal(Box<seal::SealArgs>),
    /// Retire a benchmark for good: no further attempts are admitted
    Retire {
        /// `NAME@VERSION`
        benchmark: String,
        /// Why
        #[arg(long, value_name = "WHY")]
        reason: Option<String>,
        #[command(flatten)]
        sending: Sending,
    },
    /// List the benchmarks
    List {
        /// Only those of this model
        #[arg(long, value_name = "NAME")]
        model: Option<String>,
    },
    /// Show what is published of a benchmark
    Show {
        /// `NAME@VERSION`
        benchmark: String,
    },
}

/// Runs `benchmark`.
///
/// # Errors
/// Unreadable files, no broker, or (exit 4) rows or a command that were refused.
pub async fn run(args: BenchmarkArgs, settings: Settings) -> Outcome<()> {
    let keys = args.keys.path(&settings);
    match args.action {
        BenchmarkAction::Seal(args) => seal::run(*args, &settings, &keys).await,
        BenchmarkAction::Retire { benchmark, reason, sending } => {
            let (found, model) = blocking({
                let settings = settings.clone();
                move || {
                    let found = named(&settings, &benchmark)?;
                    let model = one(&settings, &found.model)?;
                    Ok((found, model))
                }
            })
            .await?;
            let asked = Retirement { benchmark: found.benchmark.clone(), reason };
            let decided = carry_out(&settings, &keys, &model, Action::Retire(asked), &sending).await?;
            let status = match &decided.1 {
                None => "sent",
                Some(_) if found.retired => "unchanged",
                Some(_) => "retired",
            };
            let id = &decided.0.command_id;
            if settings.json() {
                return say(json!({
                    "benchmark": found.benchmark, "model": found.model, "command_id": id, "status": status,
                }));
            }
            say(format_args!("benchmark {}: {status} (command {id})", found.key()))
        }
        BenchmarkAction::List { model } => blocking(move || list(&settings, model.as_deref())).await,
        BenchmarkAction::Show { benchmark } => blocking(move || show(&settings, &benchmark)).await,
    }
}

/// The benchmarks as their topic has them now, by key.
///
/// # Errors
/// No broker, no topic, or a record that cannot be read.
pub fn benchmarks(settings: &Settings) -> Outcome<BTreeMap<String, Benchmark>> {
    latest(settings, topics::BENCHMARKS)
}

/// The one benchmark of a name: `NAME@VERSION`, or with its model before it.
fn named(settings: &Settings, name: &str) -> Outcome<Benchmark> {
    let mut all = benchmarks(settings)?;
    if let Some(found) = all.remove(name) {
        return Ok(found);
    }
    let keys: Vec<String> = all.keys().cloned().collect();
    let mut found = all.into_values().filter(|benchmark| benchmark.benchmark == name);
    match (found.next(), found.next()) {
        (Some(found), None) => Ok(found),
        (Some(_), Some(_)) => Err(Failure::because(format!(
            "several models have a benchmark {name}\nhelp: name the model too, as in MODEL/{name}"
        ))),
        _ => Err(Failure::because(format!("no benchmark {name}\nhelp: sealed are: {}", keys.join(", ")))),
    }
}

fn list(settings: &Settings, model: Option<&str>) -> Outcome<()> {
    let all = benchmarks(settings)?;
    if all.is_empty() && !settings.json() {
        say("no benchmarks yet; `hokusai benchmark seal` makes one")?;
    }
    for benchmark in all.values().filter(|b| model.is_none_or(|model| b.model == model)) {
        if settings.json() {
            say(serde_json::to_value(benchmark).map_err(Failure::failed)?)?;
            continue;
        }
        say(format_args!(
            "{}: {} rows, root {}, {} strata{}",
            benchmark.key(),
            benchmark.rows,
            benchmark.rows_root,
            benchmark.strata.len(),
            if benchmark.retired { ", retired" } else { "" }
        ))?;
    }
    Ok(())
}

fn show(settings: &Settings, name: &str) -> Outcome<()> {
    let shown = serde_json::to_value(named(settings, name)?).map_err(Failure::failed)?;
    if settings.json() { say(shown) } else { say(serde_json::to_string_pretty(&shown).map_err(Failure::failed)?) }
}
