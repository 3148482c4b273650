//! `hokusai attestation inputs`: what a stranger needs to recompute an evaluation, written by the benchmark's owner.

use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use clap::Args;
use indicatif::ProgressBar;
use rdkafka::message::Message;
use serde_json::{Value, json};

use crate::attest::tree::Hash;
use crate::cli::common::{KeyFolder, Settings, blocking};
use crate::cli::exit::{Failure, Outcome, say};
use crate::cli::opening::{Opening, opening};
use crate::cli::progress;
use crate::cli::reader::{Reader, Start};
use crate::domain::records::{NamedValue, TrainingJob, TrainingRun};
use crate::domain::topics;
use crate::ml::dataset::Dataset;
use crate::ml::declare::declaration;
use crate::ml::learner;
use crate::ops::trainer::Trainer;
use crate::recompute;
use crate::recompute::folder::{self, RecipeFile, SearchFile};
use crate::recompute::write::{Disclosed, Learned};
use crate::stages::beside::{Refusal, Trouble};
use crate::stages::training::admission::{EXTERNAL, complete};
use crate::stages::training::outside::Outside as _;
use crate::stages::training::rows::{Limits, Rows, Wanted, read};
use crate::store::Store;

/// Arguments of `attestation inputs`.
#[derive(Debug, Args)]
pub(super) struct InputsArgs {
    /// The evaluation: its id, or a leaf of one of its two statements
    #[arg(value_name = "EVALUATION")]
    which: String,
    /// Folder to write to; it must not hold inputs yet
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// How far others may recompute it: 1 labels and scores, 2 sealed rows and models as well, 3 training rows and recipe as well
    #[arg(long, default_value_t = 1, value_name = "LEVEL", value_parser = clap::value_parser!(u8).range(1..=3))]
    level: u8,
    #[command(flatten)]
    keys: KeyFolder,
}

fn refused(refusal: Refusal) -> Failure {
    Failure::because(format!("{}: {}", refusal.code, refusal.detail))
}

pub(super) async fn run(args: InputsArgs, settings: Settings) -> Outcome<()> {
    let (output, level) = (args.output.clone(), args.level);
    if output.join(folder::MANIFEST).exists() {
        let help = "help: name another folder, or remove it";
        return Err(Failure::Usage(format!("{} holds inputs already\n{help}", output.display())));
    }
    let why = format!("inputs of level {level} are written for others");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let bar = progress::bar(&settings, Some(0), progress::PARTS);
    bar.set_message("opening");
    let opening = opening(&settings, &args.keys.path(&settings), &args.which, &why, threads).await?;
    let store = settings.open_store().await?;
    let id = opening.case.evaluation_id.clone();
    let files = blocking({
        let (settings, bar, output) = (settings.clone(), bar.clone(), output.clone());
        move || write(&settings, store, &opening, level, &output, &bar)
    })
    .await?;
    bar.finish_and_clear();
    let shown = output.display();
    if settings.json() {
        return say(json!({"inputs": shown.to_string(), "evaluation_id": id, "level": level, "files": files}));
    }
    say(format_args!(
        "{shown}: evaluation {id}, level {level}, {files} files; check them with `hokusai verify --inputs`"
    ))?;
    let told = if level == 1 { "the labels and both models' scores" } else { "the sealed rows" };
    say(format_args!("whoever has this folder knows {told}: retire the benchmark before you give it away"))
}

/// Puts together what is disclosed and writes it.
fn write(
    settings: &Settings,
    store: Store,
    opening: &Opening,
    level: u8,
    output: &Path,
    bar: &ProgressBar,
) -> Outcome<usize> {
    let training = match level {
        3 => {
            bar.set_message("reading the training rows");
            Some(training(settings, store, opening)?)
        }
        _ => None,
    };
    let disclosed = Disclosed {
        preregistration: &opening.statements.preregistration.payload,
        kept: opening.statements.outcome.said.withheld.as_ref().map(|_| &opening.kept),
        case: &opening.case,
        acceptances: opening.acceptances,
        blobs: &opening.blobs,
        opened: &opening.opened,
        tree_key: opening.ring.tree_key(),
        training,
    };
    let tell = |name: &str| bar.set_message(format!("writing {name}"));
    recompute::write::write(output, level, &disclosed, &tell)
        .map_err(|e| Failure::because(format!("{}: {e}", output.display())))
}

/// How the candidate's run learned, and its training rows.
fn training(settings: &Settings, store: Store, opening: &Opening) -> Outcome<Learned> {
    let attempt = &opening.case.attempt;
    let dataset = attempt.dataset.as_ref().ok_or_else(|| Failure::because("the candidate's dataset is not known"))?;
    let (run, job) = run_of(settings, &attempt.run_id)?;
    if run.algorithm == EXTERNAL {
        let text =
            "the candidate was learned by an external trainer: nothing here could learn it again\nhelp: --level 2";
        return Err(Failure::Usage(text.to_owned()));
    }
    let (rows, receipts) = training_rows(settings, store, opening, &run, &dataset.digest)?;
    Ok(Learned { recipe: recipe(&run, &job)?, rows, receipts })
}

/// A run as it was published last, and its request.
fn run_of(settings: &Settings, run_id: &str) -> Outcome<(TrainingRun, TrainingJob)> {
    let (mut run, mut job) = (None, None);
    Reader::scan(settings, topics::TRAINING_RUNS, &Start::Beginning)?.for_each_to_end(|message| {
        if let Some(value) = message.payload() {
            let found: TrainingRun = settings.wire.decode(value).map_err(Failure::failed)?;
            run = Some(found).filter(|found| found.run_id == run_id).or(run.take());
        }
        Ok(())
    })?;
    Reader::scan(settings, topics::TRAINING_JOBS, &Start::Beginning)?.for_each_to_end(|message| {
        let Some(value) = message.payload() else { return Ok(()) };
        let Ok(found) = settings.wire.decode::<TrainingJob>(value) else { return Ok(()) };
        if job.is_none() && found.run_id == run_id && found.request.is_some() {
            job = Some(found);
        }
        Ok(())
    })?;
    run.zip(job).ok_or_else(|| Failure::because(format!("no record of run {run_id}, which made the candidate")))
}

fn recipe(run: &TrainingRun, job: &TrainingJob) -> Outcome<RecipeFile> {
    let value = |text: &str| serde_json::from_str::<Value>(text).map_err(Failure::failed);
    let named = |pair: &NamedValue| Ok((pair.name.clone(), value(&pair.value)?));
    let search = match (&run.search, &job.request) {
        (Some(declared), Some(request)) => {
            let learner = learner(&run.algorithm).map_err(Failure::failed)?;
            let (_, fixed) = complete(learner, &request.params).map_err(refused)?;
            let fixed = fixed.as_object().cloned().unwrap_or_default();
            Some(SearchFile { declared: value(declared)?, fixed })
        }
        _ => None,
    };
    Ok(RecipeFile {
        algorithm: run.algorithm.clone(),
        base_version: run.base_version.clone(),
        parameters: run.params.iter().map(named).collect::<Outcome<_>>()?,
        search,
        seed: run.seed,
    })
}

/// The rows below the run's ends, without those that its benchmarks held. Benchmarks may have been sealed or retired since the run was
/// admitted; the dataset's root tells which of them counted.
fn training_rows(
    settings: &Settings,
    store: Store,
    opening: &Opening,
    run: &TrainingRun,
    root: &str,
) -> Outcome<(RecordBatch, Vec<Hash>)> {
    let trainer = Trainer::new(settings.cluster(), store, None);
    let declared = declaration(&opening.opened.spec).map_err(Failure::failed)?;
    let mut known: Vec<_> = opening.model.benchmarks.iter().collect();
    known.sort_by_key(|benchmark| benchmark.revision);
    let in_force: Vec<_> = known.iter().copied().filter(|benchmark| !benchmark.retired).collect();
    let mut sets = vec![in_force];
    sets.extend((0..=known.len()).rev().map(|count| known.iter().copied().take(count).collect()));
    sets.dedup();
    for set in sets.into_iter().take(16) {
        let filter = |benchmark: &&crate::domain::records::Benchmark| trainer.filter(&benchmark.match_filter);
        let sealed = set.iter().map(filter).collect::<Result<Vec<_>, _>>().map_err(troubled)?;
        let wanted =
            Wanted { model: &run.model, declared: &declared, ends: &run.offsets, sealed: &sealed, owner: None };
        let Rows { batches, receipts, .. } =
            read(&trainer, &settings.wire, wanted, Limits::default(), &|| false).map_err(troubled)?;
        let dataset = Dataset::assemble(batches).map_err(Failure::failed)?;
        if data_encoding::HEXLOWER.encode(&dataset.root) == root {
            return Ok((dataset.rows, receipts));
        }
    }
    Err(Failure::because(format!(
        "the rows that run {} learned from cannot be put together again: none has the root {root}\n         help: are the topics {} and {} whole?",
        run.run_id,
        topics::ACCEPTED,
        topics::RECEIPTS
    )))
}

fn troubled(trouble: Trouble) -> Failure {
    match trouble {
        Trouble::Final(refusal) => refused(refusal),
        Trouble::Passing(cause) => Failure::because(cause),
        Trouble::Cancelled => Failure::because("interrupted"),
    }
}
