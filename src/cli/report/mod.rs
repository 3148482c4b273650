//! `hokusai report`: pages for people who were not there.

mod compliance;
mod evaluation;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use rdkafka::message::Message;

use super::atomic::write;
use super::common::Settings;
use super::exit::{Failure, Outcome, say};
use super::reader::{Reader, Start};
use crate::domain::records::Record;
use crate::report::compliance::At;

const EXAMPLES: &str = "\
Examples:
  hokusai report 5f0c1d… -o evaluation.html                              what may be told of an evaluation
  hokusai report 5f0c1d… --open --reason 'quarterly review' -o mine.html   for the benchmark's owner: everything, audited
  hokusai report compliance --from 2026-01-01 --to 2026-02-01 -o january.html

A page is one file: it loads nothing and runs nothing, and opens in any browser. The same records give the same bytes.
`hokusai sql 'select evaluation_id, status from evaluations'` lists evaluations.

Of an accepted evaluation the published figures are shown to whoever reads the topics; of any other its number, level, reasons and
Ladder score. With --open, on a machine with the private evaluation key, the sealed rows are scored again: the page then has ROC and
calibration curves, summed up so that no place stands for fewer than 20 rows, and the figures of an attempt that was not accepted. The opening
stands on `audit` before anything is opened.";

/// Arguments of `report`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct ReportArgs {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    evaluation: evaluation::EvaluationArgs,
}

#[derive(Debug, Subcommand)]
enum What {
    /// What was found, seen, decided and promoted in a period, with who signed
    Compliance(compliance::ComplianceArgs),
}

/// Runs `report`.
///
/// # Errors
/// No broker, a topic or record that cannot be read, an evaluation that cannot be opened, or a file that cannot be written.
pub async fn run(args: ReportArgs, settings: Settings) -> Outcome<()> {
    match args.what {
        Some(What::Compliance(args)) => compliance::run(args, settings).await,
        None => evaluation::run(args.evaluation, settings).await,
    }
}

/// Every record of a topic up to its present end, with where and when it came there.
///
/// # Errors
/// No broker, no topic, or a record that cannot be read.
pub(super) fn each<R: Record>(settings: &Settings, topic: &str, mut take: impl FnMut(At, R)) -> Outcome<()> {
    Reader::scan(settings, topic, &Start::Beginning)?.for_each_to_end(|message| {
        let Some(payload) = message.payload() else { return Ok(()) };
        let record = settings.wire.decode(payload).map_err(|error| {
            Failure::because(format!("{topic}: partition {} offset {}: {error}", message.partition(), message.offset()))
        })?;
        let time = message.timestamp().to_millis().unwrap_or(0);
        take(At { time, partition: message.partition(), offset: message.offset() }, record);
        Ok(())
    })
}

/// Writes a text to a file, or to standard output.
fn deliver(text: &str, output: Option<&Path>) -> Outcome<()> {
    let Some(path) = output else { return say(text.trim_end()) };
    write(path, text.as_bytes())
}

/// Where the report goes.
#[derive(Debug, Args)]
struct Output {
    /// Write it to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}
