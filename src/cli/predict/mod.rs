//! `hokusai predict`: a model's scores for the rows of a file.
//!
//! The encoding and the scores are the artefact's own code path, the one that evaluation and serving run: the same row gives the same
//! score, to the last bit, wherever and in whatever company it is scored.

mod output;
mod rows;

use std::path::PathBuf;

use clap::Args;

use self::output::Output;
use self::rows::Wanted;
use super::common::{Format, Settings};
use super::exit::{Failure, Outcome};
use super::model::artefact::{Loaded, Which};
use crate::codec::formats::{self, Decoded, Limits};
use crate::codec::split::{Plan, SplitError};
use crate::ml::arrow::frame_of;
use crate::rowsql::features;

const EXAMPLES: &str = "\
Examples:
  hokusai predict flight-delay@production rows.csv > scores.csv
  hokusai predict flight-delay@1.2.0 rows.parquet --format json --out scores.jsonl
  hokusai predict --artefact model.hkml rows.json

Scores come in the order of the rows: of two classes the chance of the second, of more classes one chance each, of a regression the
number. Categories that training has not seen count as `other`; a missing value is an empty field or null. Rows stand as the tables have
them, that is, as intake lets them through. A row that does not fit ends the command with exit code 4: what was printed before stands,
--out leaves no file.";

/// Arguments of `predict`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, allow_missing_positional = true)]
pub struct PredictArgs {
    #[command(flatten)]
    which: Which,
    /// Rows: CSV, JSON, Parquet, Arrow or Avro (by its ending)
    #[arg(value_name = "FILE", required = true)]
    file: PathBuf,
    /// Format of the file, when its ending does not tell
    #[arg(long, value_name = "FORMAT")]
    input_format: Option<String>,
    /// Leave columns alone that the contract (of --artefact: the model) does not know; they are refused otherwise
    #[arg(long)]
    ignore_extra: bool,
    /// Write the scores to a file, which is there when they are complete
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs `predict`.
///
/// # Errors
/// As [`Which::load`]; exit 4 for rows that do not fit the model.
pub async fn run(args: PredictArgs, settings: Settings) -> Outcome<()> {
    let json = match settings.format {
        Format::Json => true,
        Format::Human | Format::Csv => false,
        Format::Table | Format::Arrow => {
            return Err(Failure::Usage("--format: scores are printed as csv (the default) or json".to_owned()));
        }
    };
    let loaded = args.which.load(&settings).await?;
    tokio::task::spawn_blocking(move || score(&args, &loaded, json)).await.map_err(Failure::failed)?
}

fn score(args: &PredictArgs, loaded: &Loaded, json: bool) -> Outcome<()> {
    let shown = args.file.display();
    let wanted = Wanted::of(loaded).map_err(|text| Failure::Refused(format!("{}: {text}", loaded.name)))?;
    let plan = Plan::open(&args.file, args.input_format.as_deref()).map_err(|error| match error {
        SplitError::UnknownFormat => Failure::Usage(format!("{shown}: {error}")),
        SplitError::Malformed { .. } => Failure::Refused(format!("{shown}: {error}")),
        error => Failure::because(format!("{shown}: {error}")),
    })?;
    let format = plan.format().parse().map_err(Failure::failed)?;
    let mut output = Output::open(args.out.as_deref(), &loaded.model.task, json)?;
    let mut rows = 0;
    for document in plan.payloads() {
        let document = document.map_err(|error| Failure::because(format!("{shown}: {error}")))?;
        let decoded = formats::decode(format, &document, wanted.schema(), &Limits::default());
        let decoded = decoded.map_err(|error| Failure::Refused(format!("{shown}: {error}")))?;
        drop(document);
        wanted.check(&decoded, rows, args.ignore_extra).map_err(|text| Failure::Refused(format!("{shown}: {text}")))?;
        output.write(&scores(loaded, &wanted, &decoded, rows)?)?;
        rows += decoded.received as u64;
    }
    output.finish()
}

/// Scores of rows that this many are before.
fn scores(loaded: &Loaded, wanted: &Wanted, decoded: &Decoded, before: u64) -> Outcome<Vec<f64>> {
    let before = usize::try_from(before).unwrap_or(usize::MAX);
    let batch = features::derive(&loaded.model.encoding.derivation, decoded.batch.clone());
    let batch = batch.map_err(|fault| Failure::Refused(format!("{}: {}", loaded.name, fault.after(before))))?;
    let frame = frame_of(std::slice::from_ref(&batch), wanted.columns()).map_err(Failure::failed)?;
    loaded.model.predict(&frame).map_err(Failure::failed)
}
