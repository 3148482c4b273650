//! `hokusai train jobs`, `job` and `answer`: what an external trainer needs, for people and programs that do not speak Kafka.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use rdkafka::message::Message;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::Patience;
use crate::cli::atomic::write;
use crate::cli::common::{Settings, blocking};
use crate::cli::exit::{Failure, Outcome, say};
use crate::cli::producer::produce;
use crate::cli::reader::{Polled, Reader, Start};
use crate::codec::wire::Wire;
use crate::codec::{answer, training};
use crate::domain::records::{Artefact, TrainingRun};
use crate::domain::topics;
use crate::ml::artefact::MAX_BYTES;
use crate::stages::training::job::{Description, MAX_DESCRIPTION};
use crate::store::{Blobs, Digest, StoreError};

/// Arguments of `train jobs`.
#[derive(Debug, Args)]
pub(super) struct JobsArgs {
    /// Go on, and print each run once it waits
    #[arg(long)]
    follow: bool,
    /// Of this model alone
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
}

/// Arguments of `train job`.
#[derive(Debug, Args)]
pub(super) struct JobArgs {
    /// Id of the run
    run_id: String,
    /// Folder to write to: rows.parquet, encoding.json, and last job.json
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

/// Arguments of `train answer`.
#[derive(Debug, Args)]
pub(super) struct AnswerArgs {
    /// Id of the run
    run_id: String,
    /// The trained model: ONNX, or a native artefact, over the job's features
    #[arg(long, value_name = "FILE", required_unless_present = "error", conflicts_with = "error")]
    artefact: Option<PathBuf>,
    /// With ONNX: CSV or Parquet of at least 32 rows of the job's features, and what the model's own runtime makes of them: `prediction`,
    /// or `p_CLASS` for every class
    #[arg(long, value_name = "FILE", requires = "artefact")]
    conformance: Option<PathBuf>,
    /// What the trainer measured itself: it is kept with the answer and published nowhere else
    #[arg(long = "metric", value_name = "NAME=VALUE", value_parser = super::pair, requires = "artefact")]
    metrics: Vec<(String, String)>,
    /// There will be no model: the run fails with this text
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Wait until the run is over, or says why the answer cannot be used
    #[arg(long)]
    wait: bool,
    /// Give up waiting after this many seconds
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    timeout: Option<u64>,
}

fn known(run_id: &str) -> Outcome<()> {
    if training::is_run_id(run_id) {
        return Ok(());
    }
    let help = "32 hex digits, as `hokusai train jobs` prints it";
    Err(Failure::Usage(format!("{run_id:?} is no id of a run\nhelp: {help}")))
}

/// Prints the runs that wait for an external trainer.
pub(super) fn jobs(args: &JobsArgs, settings: &Settings, stop: &CancellationToken) -> Outcome<()> {
    let open = if args.follow { Reader::open } else { Reader::scan };
    let mut reader = open(settings, topics::TRAINING_RUNS, &Start::Beginning)?;
    // Once the present end is reached: runs that were printed and are not over.
    let mut waiting: BTreeMap<String, TrainingRun> = BTreeMap::new();
    let mut told = false;
    loop {
        if reader.at_end() && !told {
            waiting.values().try_for_each(|run| shown(settings, run))?;
            told = true;
        }
        if stop.is_cancelled() || (told && !args.follow) {
            return Ok(());
        }
        let Polled::Record(message) = reader.poll(Duration::from_millis(100))? else { continue };
        let Some(payload) = message.payload() else { continue };
        let run: TrainingRun = settings.wire.decode(payload).map_err(Failure::failed)?;
        if args.model.as_ref().is_some_and(|model| *model != run.model) {
            continue;
        }
        if run.status != TrainingRun::WAITING {
            waiting.remove(&run.run_id);
        } else if waiting.insert(run.run_id.clone(), run.clone()).is_none() && told {
            shown(settings, &run)?;
        }
    }
}

fn shown(settings: &Settings, run: &TrainingRun) -> Outcome<()> {
    let TrainingRun { run_id, request_id, model, dataset, job, reason, detail, .. } = run;
    if settings.json() {
        return say(json!({
            "run_id": run_id, "request_id": request_id, "model": model, "dataset": dataset, "job": job, "reason": reason, "detail": detail,
        }));
    }
    let rows = dataset.as_ref().map_or(0, |dataset| dataset.rows);
    say(format_args!("run {run_id}: model {model}, {rows} rows; `hokusai train job {run_id} -o DIR`"))?;
    if reason.is_empty() { Ok(()) } else { say(format_args!("  {reason}: {detail}")) }
}

/// Writes what a trainer needs into a folder.
pub(super) async fn job(args: JobArgs, settings: Settings) -> Outcome<()> {
    known(&args.run_id)?;
    let run = blocking({
        let (settings, run_id) = (settings.clone(), args.run_id.clone());
        move || newest(&settings, &run_id)
    })
    .await?;
    let Some(job) = &run.job else {
        let help = "help: a run of the algorithm external has one, once it waits";
        return Err(Failure::because(format!("run {} ({}) has no job\n{help}", run.run_id, run.status)));
    };
    let blobs = settings.open_store().await?.blobs();
    let folder = &args.output;
    std::fs::create_dir_all(folder).map_err(|e| at(folder, e))?;
    let text = small(&blobs, job).await?;
    let said: Description = serde_json::from_slice(&text).map_err(|e| Failure::because(format!("the job: {e}")))?;
    let encoding = small(&blobs, &said.encoding).await?;
    let rows = folder.join("rows.parquet");
    let size = u64::try_from(said.rows.file.size).unwrap_or(0);
    blobs.get_to_file(digest(&said.rows.file)?, size, &rows).await.map_err(failed)?;
    write(&folder.join("encoding.json"), &encoding)?;
    write(&folder.join("job.json"), &text)?;
    if settings.json() {
        let mut line: Value = serde_json::from_slice(&text).map_err(Failure::failed)?;
        line["folder"] = json!(folder.display().to_string());
        return say(line);
    }
    let Description { model, task, rows, .. } = &said;
    say(format_args!(
        "{}: {task} of {model}, {} features, {} rows to learn from, {} that judge",
        folder.display(),
        rows.features.len(),
        rows.train,
        rows.validation
    ))
}

fn at(path: &Path, error: std::io::Error) -> Failure {
    Failure::because(format!("{}: {error}", path.display()))
}

fn failed(error: StoreError) -> Failure {
    Failure::because(format!("{error}\nhelp: does --store name the store of the workers?"))
}

fn digest(blob: &Artefact) -> Outcome<Digest> {
    blob.digest.parse().map_err(|e| Failure::because(format!("the job names a blob by no digest: {e}")))
}

async fn small(blobs: &Blobs, blob: &Artefact) -> Outcome<bytes::Bytes> {
    blobs.get(digest(blob)?, MAX_DESCRIPTION as u64).await.map_err(failed)
}

/// A run as it was published last.
fn newest(settings: &Settings, run_id: &str) -> Outcome<TrainingRun> {
    let mut newest = None;
    Reader::scan(settings, topics::TRAINING_RUNS, &Start::Beginning)?.for_each_to_end(|message| {
        if message.key() == Some(run_id.as_bytes()) {
            let read = |payload| settings.wire.decode::<TrainingRun>(payload);
            newest = message.payload().map(read).transpose().map_err(Failure::failed)?;
        }
        Ok(())
    })?;
    newest.ok_or_else(|| {
        Failure::because(format!("there is no run {run_id}\nhelp: `hokusai train jobs` lists those that wait"))
    })
}

/// Puts what a trainer made into the store, and answers.
pub(super) async fn answer(args: AnswerArgs, settings: Settings, stop: CancellationToken) -> Outcome<()> {
    known(&args.run_id)?;
    let mut value = json!({"run_id": args.run_id});
    let mut given = None;
    if let Some(text) = &args.error {
        value["error"] = json!(text);
    }
    if let Some(file) = &args.artefact {
        let blobs = settings.open_store().await?.blobs();
        let artefact = put(&blobs, file).await?;
        given = artefact["digest"].as_str().map(str::to_owned);
        value["artefact"] = artefact;
        if let Some(rows) = &args.conformance {
            value["conformance"] = put(&blobs, rows).await?;
        }
        let number = |(name, text): &(String, String)| {
            let number = text.parse::<serde_json::Number>();
            number
                .map(|number| (name.clone(), Value::from(number)))
                .map_err(|_| Failure::Usage(format!("--metric {name}: no number")))
        };
        value["metrics"] = args.metrics.iter().map(number).collect::<Outcome<Map<_, _>>>()?.into();
    }
    let text = value.to_string();
    // Said here, it costs no round trip; the stage keying says it again to every other client.
    answer::decode(&Wire::default(), text.as_bytes()).map_err(|error| Failure::Usage(error.to_string()))?;
    let before = blocking({
        let settings = settings.clone();
        move || crate::cli::reader::ends(&settings, topics::TRAINING_RUNS)
    })
    .await?;
    produce(&settings, topics::TRAINING_ANSWERS, &args.run_id, text.as_bytes()).await?;
    if args.wait {
        return blocking(move || {
            let deadline = args.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
            let patience = Patience { deadline, stop: &stop };
            taken(&settings, &args.run_id, given.as_deref(), Start::Offsets(before), &patience)
        })
        .await;
    }
    if settings.json() { say(value) } else { say(format_args!("run {} answered", args.run_id)) }
}

async fn put(blobs: &Blobs, file: &Path) -> Outcome<Value> {
    let size = std::fs::metadata(file).map_err(|e| at(file, e))?.len();
    if size == 0 || size > MAX_BYTES as u64 {
        return Err(Failure::Refused(format!("{}: {size} bytes; 1 to {MAX_BYTES} are taken", file.display())));
    }
    let (digest, size) = blobs.put_file(file).await.map_err(failed)?;
    Ok(json!({"digest": digest.to_string(), "size": size}))
}

/// Waits for what comes of an answer.
fn taken(settings: &Settings, run_id: &str, given: Option<&str>, from: Start, patience: &Patience<'_>) -> Outcome<()> {
    let run = newest(settings, run_id)?;
    let mut reader = Reader::open(settings, topics::TRAINING_RUNS, &from)?;
    let mut over = Some(run).filter(TrainingRun::is_over);
    let run = loop {
        if let Some(run) = over.take() {
            break run;
        }
        patience.check(run_id)?;
        let Polled::Record(message) = reader.poll(Duration::from_millis(100))? else { continue };
        let (Some(key), Some(payload)) = (message.key(), message.payload()) else { continue };
        if key != run_id.as_bytes() {
            continue;
        }
        let run: TrainingRun = settings.wire.decode(payload).map_err(Failure::failed)?;
        if run.is_over() {
            break run;
        }
        // Only what cannot be used is told by its digest.
        if !run.reason.is_empty() && given.is_some_and(|digest| run.detail.contains(digest)) {
            return Err(Failure::Refused(format!("{}: {}", run.reason, run.detail)));
        }
    };
    if settings.json() {
        return say(serde_json::to_value(&run).map_err(Failure::failed)?);
    }
    super::show(&run, None)?;
    if run.reason.is_empty() { Ok(()) } else { say(format_args!("  {}: {}", run.reason, run.detail)) }
}
