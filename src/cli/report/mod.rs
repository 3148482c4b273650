//! `hokusai report`: pages for people who were not there.

mod compliance;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::atomic::Atomic;
use super::common::Settings;
use super::exit::{Failure, Outcome, say};

const EXAMPLES: &str = "\
Examples:
  hokusai report compliance --from 2026-01-01 --to 2026-02-01 -o january.html

A page is one file: it loads nothing and runs nothing, and opens in any browser. The same records give the same bytes.";

/// Arguments of `report`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReportArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// What was found, seen, decided and promoted in a period, with who signed
    Compliance(compliance::ComplianceArgs),
}

/// Runs `report`.
///
/// # Errors
/// No broker, a topic or record that cannot be read, or a file that cannot be written.
pub async fn run(args: ReportArgs, settings: Settings) -> Outcome<()> {
    match args.what {
        What::Compliance(args) => compliance::run(args, settings).await,
    }
}

/// Writes a text to a file, or to standard output.
fn deliver(text: &str, output: Option<&Path>) -> Outcome<()> {
    let Some(path) = output else { return say(text.trim_end()) };
    let fault = |error: std::io::Error| Failure::because(format!("{}: {error}", path.display()));
    let mut file = Atomic::create(path).map_err(fault)?;
    file.write_all(text.as_bytes()).map_err(fault)?;
    file.finish().map_err(fault)
}

/// Where the report goes.
#[derive(Debug, Args)]
struct Output {
    /// Write it to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}
