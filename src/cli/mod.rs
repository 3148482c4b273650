//! The command line: one file per subcommand, no logic of the stages.
//!
//! What was typed is an [`Arguments`]; what a command runs with is a [`common::Settings`]. Exit codes are a
//! promise to scripts: see [`exit::Failure`].

pub mod atomic;
pub mod attestation;
pub mod attribution;
pub mod audit;
pub mod benchmark;
pub mod broker;
pub mod common;
pub mod compare;
pub mod contributor;
pub mod dead_letters;
pub mod doctor;
pub mod exit;
pub mod keys;
pub mod leaderboard;
pub mod model;
pub mod opening;
pub mod predict;
pub mod producer;
mod progress;
pub mod reader;
pub mod report;
pub mod sql;
pub mod submit;
pub mod topology;
pub mod train;
pub mod trust;
pub mod up;
pub mod verify;
pub mod watch;
pub mod worker;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use common::CommonArgs;
use exit::Outcome;

const EXAMPLES: &str = "\
Examples:
  hokusai up --data ./hokusai-data                        broker, stages, tables and HTTP on this machine
  hokusai model apply examples/flights/model.yaml         declare a model and its contract
  hokusai model promote flight-delay 1.2.0 --stage production
  hokusai submit rows.parquet --model flight-delay --contributor UA --wait
  hokusai train flight-delay --wait
  hokusai watch receipts --from-beginning --until-end     what came out, decoded
  hokusai sql 'select status, count(*) from receipts group by status'
  hokusai doctor                                          what is wrong, and what to do about it

Exit codes: 0 done, 1 failed, 2 usage, 3 no broker reached, 4 the input was refused as a whole; `verify` has its own.
Secrets come from files or the environment, never from arguments.";

/// Turns contributed data into proven machine-learning improvements.
#[derive(Debug, Parser)]
#[command(name = "hokusai", version, about, after_help = EXAMPLES, propagate_version = true)]
struct Arguments {
    #[command(flatten)]
    common: CommonArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything on this machine: the embedded broker, all stages, tables, HTTP
    Up(up::UpArgs),
    /// Run stages against a Kafka cluster
    Worker(worker::WorkerArgs),
    /// Run the embedded broker alone
    Broker(broker::BrokerArgs),
    /// Contribute files: each file is one contribution
    Submit(submit::SubmitArgs),
    /// Train a model on the accepted rows: what comes of it is a version
    Train(train::TrainArgs),
    /// Declare models, register and promote versions, look at them
    Model(model::ModelArgs),
    /// Score the rows of a file with a registered model, or with an artefact's file
    Predict(predict::PredictArgs),
    /// Seal rows as a benchmark, list and show benchmarks, retire one
    Benchmark(benchmark::BenchmarkArgs),
    /// Show the Ladder scores of the candidates on sealed benchmarks
    Leaderboard(leaderboard::LeaderboardArgs),
    /// Who is credited with accepted improvements: values, errors, shares
    Attribution(attribution::AttributionArgs),
    /// Compare two models' scores on labelled rows, as an evaluation does; it decides nothing
    Compare(compare::CompareArgs),
    /// Show what is known of a contributor: receipts, what was attested of them, the part in each improvement
    Contributor(contributor::ContributorArgs),
    /// Write a page for people who were not there: an evaluation, a period's compliance
    Report(report::ReportArgs),
    /// Find, show and export what was attested; tree heads, the log, trust roots
    Attestation(attestation::AttestationArgs),
    /// Check an exported attestation offline, with nothing but its trust root
    Verify(verify::VerifyArgs),
    /// Make, show, rotate and destroy the tenant's keys; say who may sign what
    Keys(keys::KeysArgs),
    /// List what could not be read, and send it again
    DeadLetters(dead_letters::DeadLettersArgs),
    /// Print a topic's records, decoded
    Watch(watch::WatchArgs),
    /// Query the tables with SQL
    Sql(sql::SqlArgs),
    /// Show or apply the topology of topics and stages
    Topology(topology::TopologyArgs),
    /// Check broker, topics, sizes, schemas, disk and clock, and say what to do
    Doctor(doctor::DoctorArgs),
}

/// Parses the process's arguments, runs the command and maps its end to an exit code.
#[must_use]
pub fn main() -> ExitCode {
    crate::ops::memory::bound_heaps();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { exit::USAGE } else { exit::DONE };
            // A closed pipe is no reason to fail.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match run(arguments) {
        Ok(()) => ExitCode::from(exit::DONE),
        Err(failure) => {
            failure.report();
            ExitCode::from(failure.code())
        }
    }
}

fn run(arguments: Arguments) -> Outcome<()> {
    crate::ops::logs::init(arguments.common.verbose, arguments.common.log_format);
    let settings = arguments.common.settings()?;
    let threads = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("hokusai")
        .enable_all()
        .build()
        .map_err(exit::Failure::failed)?;
    let outcome = threads.block_on(async move {
        match arguments.command {
            Command::Up(args) => up::run(args, settings).await,
            Command::Worker(args) => worker::run(args, settings).await,
            Command::Broker(args) => broker::run(args, settings).await,
            Command::Submit(args) => submit::run(args, settings).await,
            Command::Train(args) => train::run(args, settings).await,
            Command::Model(args) => model::run(args, settings).await,
            Command::Predict(args) => predict::run(args, settings).await,
            Command::Benchmark(args) => benchmark::run(args, settings).await,
            Command::Leaderboard(args) => leaderboard::run(args, settings).await,
            Command::Attribution(args) => attribution::run(args, settings).await,
            Command::Compare(args) => compare::run(args, settings).await,
            Command::Contributor(args) => contributor::run(args, settings).await,
            Command::Report(args) => report::run(args, settings).await,
            Command::Attestation(args) => attestation::run(args, settings).await,
            Command::Verify(args) => verify::run(args, settings).await,
            Command::Keys(args) => keys::run(args, settings).await,
            Command::DeadLetters(args) => dead_letters::run(args, settings).await,
            Command::Watch(args) => watch::run(args, settings).await,
            Command::Sql(args) => sql::run(args, settings).await,
            Command::Topology(args) => topology::run(args, settings).await,
            Command::Doctor(args) => doctor::run(args, settings).await,
        }
    });
    // Blocking calls into librdkafka must not hold the process once a command has ended.
    threads.shutdown_timeout(std::time::Duration::from_secs(2));
    outcome
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn no_two_arguments_of_a_command_get_in_each_others_way() {
        super::Arguments::command().debug_assert();
    }
}
