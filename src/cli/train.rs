//! `hokusai train`: asks for a training run, and waits for it; or asks for its end. What external trainers do is in [`external`].

mod external;

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use indicatif::ProgressStyle;
use rdkafka::message::Message;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::common::{Settings, blocking};
use super::exit::{Failure, Outcome, say};
use super::model::models;
use super::producer::produce;
use super::progress;
use super::reader::{Polled, Reader, Start, ends_of_two};
use crate::codec::training::{self, Asked};
use crate::domain::records::{Audit, Evaluation, Model, TrainingRun};
use crate::domain::topics;
use crate::stages::training::admission::run_id;

const EXAMPLES: &str = "\
Examples:
  hokusai train flight-delay --wait
  hokusai train flight-delay --algorithm trees --param iterations=300 --param learning_rate=0.05 --seed 7 --wait
  hokusai train flight-delay --algorithm linear --as-of 5f0c… --format json
  hokusai train flight-delay --search '{\"space\": {\"learning_rate\": {\"log\": [0.01, 0.3]}, \"leaves\": {\"log_whole\": [7, 127]}},
    \"trials\": 27, \"keep_one_in\": 3, \"iterations\": 200}' --wait
  hokusai train cancel 9f86d081884c7d659a2feaa0c55ad015 --wait
  hokusai train flight-delay --benchmark holdout --wait           is it better than the version in production?
  hokusai train flight-delay --algorithm external --param depth=6 --wait
  hokusai train jobs --follow --format json                       runs that wait for an external trainer, a line each
  hokusai train job 9f86d081884c7d659a2feaa0c55ad015 -o job       rows.parquet, encoding.json, job.json
  hokusai train answer 9f86d081884c7d659a2feaa0c55ad015 --artefact model.hkml --metric auroc=0.71 --wait

The run learns from every row that an admitted receipt binds when the request is admitted, or from a dataset that an earlier run
published (--as-of). The same dataset, parameters and seed give the same bytes of model. What comes of it is a version at the stage
dev; `hokusai sql 'select * from runs'` lists runs.

A search tries parameters drawn from its space (uniform, log, whole, log_whole: [low, high]; choice: [...]); trial 0 has those of --param.
With keep_one_in K it halves: of each rung one trial in K goes on, with K times the iterations. Rows cut off by their hashes judge.
The winner is learned as if its parameters had been asked for; `hokusai sql 'select * from trials'` has every trial.

With --benchmark the version is evaluated on sealed rows, beside --base-version (else the version in production, else the newest).
Every evaluation spends an attempt of the benchmark, unless the same recipe was evaluated on it before. What a refused one tells is
its number, its level of significance, reason codes and the Ladder's score; an accepted one also tells by how much. It promotes nothing.

With --algorithm external the encoded rows and a description go into the store, and the run waits until somebody's own program answers
with a model. --param takes any JSON and is handed on; the platform measures the model itself. An answer that cannot be used is told in
the run's record, and the run goes on waiting; the first that can counts.

Exit codes: 0 done (also when the candidate was not accepted: the result says so), 1 failed, 2 usage, 3 no broker reached, 4 the request was refused.";

const CANCELLATION: &str = "\
A run that is not over ends `cancelled`. One that is finished stays finished, and its version stays; the evaluation that it asked for
ends `cancelled` unless it is over or being scored already. It stays counted: its level is spent, and the same recipe on the same
benchmark is that attempt. Attempts of the family behind it go on.";

/// Arguments of `train`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct TrainArgs {
    #[command(subcommand)]
    instead: Option<Instead>,
    /// Name of the model
    #[arg(required = true)]
    model: Option<String>,
    /// Learner: trees, linear, or external: a program of your own [default: trees]
    #[arg(long, value_name = "NAME")]
    algorithm: Option<String>,
    /// A parameter of the learner; VALUE as JSON, or a text
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = pair)]
    params: Vec<(String, String)>,
    /// A search over parameters, as JSON: see below
    #[arg(long, value_name = "JSON", value_parser = object)]
    search: Option<Value>,
    /// Seed of every random choice
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    seed: Option<i64>,
    /// Most rows times iterations, of all trials; more is refused
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    budget: Option<i64>,
    /// Digest of a published dataset to learn from [default: what is accepted now]
    #[arg(long, value_name = "HEX")]
    as_of: Option<String>,
    /// Version, alias or stage to compare with [default: the version in production]
    #[arg(long, value_name = "VERSION")]
    base_version: Option<String>,
    /// Trees go on from those of that version instead of from nothing: the iterations come on top
    #[arg(long)]
    warm_start: bool,
    /// Evaluate the version on a sealed benchmark: NAME@VERSION, or NAME for its newest version in force
    #[arg(long, value_name = "BENCHMARK")]
    benchmark: Option<String>,
    /// A tag of the version that comes of it
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = pair)]
    tags: Vec<(String, String)>,
    /// A name that runs which belong together share
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Id of the request: sent again, it gets the first one's result [default: a random one]
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Wait for the result and print it
    #[arg(long)]
    wait: bool,
    /// Give up waiting after this many seconds
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    timeout: Option<u64>,
}

#[derive(Debug, Subcommand)]
enum Instead {
    /// End a run that is not over, or take back the evaluation that a finished one asked for
    #[command(after_help = CANCELLATION)]
    Cancel(CancelArgs),
    /// List runs that wait for an external trainer
    Jobs(external::JobsArgs),
    /// Write what an external trainer needs into a folder
    Job(external::JobArgs),
    /// Answer a run that waits: with a model, or with why there will be none
    Answer(external::AnswerArgs),
}

/// Arguments of `train cancel`.
#[derive(Debug, Args)]
struct CancelArgs {
    /// Id of the run, as `hokusai train` prints it
    #[arg(required_unless_present = "request_id")]
    run_id: Option<String>,
    /// Id of the request that asked for the run, instead
    #[arg(long, value_name = "ID", conflicts_with = "run_id")]
    request_id: Option<String>,
    /// Wait until the run and its evaluation are over, however they end, and print them; an id that no run has is waited for, too
    #[arg(long)]
    wait: bool,
    /// Give up waiting after this many seconds
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    timeout: Option<u64>,
}

fn object(text: &str) -> Result<Value, String> {
    serde_json::from_str(text)
        .map_err(|e| e.to_string())
        .and_then(|value: Value| if value.is_object() { Ok(value) } else { Err("expected a JSON object".to_owned()) })
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    if name.is_empty() { Err("the name is empty".to_owned()) } else { Ok((name.to_owned(), value.to_owned())) }
}

/// Runs `train`.
///
/// # Errors
/// No broker, or a run that was refused (exit 4) or failed.
pub async fn run(args: TrainArgs, settings: Settings) -> Outcome<()> {
    let stop = crate::ops::signals::on_signal();
    match args.instead {
        None => {}
        Some(Instead::Cancel(args)) => return cancel(args, settings, stop).await,
        Some(Instead::Jobs(args)) => return blocking(move || external::jobs(&args, &settings, &stop)).await,
        Some(Instead::Job(args)) => return external::job(args, settings).await,
        Some(Instead::Answer(args)) => return external::answer(args, settings, stop).await,
    }
    let request_id = match &args.request_id {
        Some(id) => id.clone(),
        None => format!("train-{:016x}", getrandom::u64().map_err(|e| Failure::because(e.to_string()))?),
    };
    let request = request(&args, &request_id)?;
    let before = blocking({
        let (settings, is_known) = (settings.clone(), args.request_id.is_some());
        move || Before::take(&settings, is_known)
    })
    .await?;
    produce(&settings, topics::TRAINING_REQUESTS, &request_id, request.as_bytes()).await?;
    let run_id = run_id(&request_id);
    if !args.wait {
        if settings.json() {
            return say(json!({"run_id": run_id, "request_id": request_id, "model": args.model}));
        }
        return say(format_args!(
            "run {run_id} asked for; `hokusai sql \"select * from runs where run_id = '{run_id}'\"`"
        ));
    }
    blocking(move || wait(args.timeout, &settings, &before, &run_id, &stop)).await
}

/// Asks for the end of a run, or of its evaluation. With `--wait` their end is success, whatever it is: it may have come before.
async fn cancel(args: CancelArgs, settings: Settings, stop: CancellationToken) -> Outcome<()> {
    let run_id = match (args.run_id, args.request_id) {
        (Some(run_id), _) => run_id,
        (None, request_id) => run_id(&request_id.unwrap_or_default()),
    };
    if !training::is_run_id(&run_id) {
        let help = "32 hex digits, as `hokusai train` prints it; or --request-id";
        return Err(Failure::Usage(format!("{run_id:?} is no id of a run\nhelp: {help}")));
    }
    let record = json!({"cancel": run_id}).to_string();
    produce(&settings, topics::TRAINING_REQUESTS, &run_id, record.as_bytes()).await?;
    if !args.wait {
        if settings.json() {
            return say(json!({"run_id": run_id, "cancel": true}));
        }
        return say(format_args!("the end of run {run_id} asked for"));
    }
    blocking(move || {
        let deadline = args.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let patience = Patience { deadline, stop: &stop };
        let run = over(&settings, &Start::Beginning, &run_id, &patience)?;
        let evaluation = evaluation_of(&settings, &run, &patience)?;
        if settings.json() {
            return say(line(&run, evaluation.as_ref())?);
        }
        let version = match &run.artefact {
            Some(artefact) => registered(&settings, &run.model, &artefact.digest)?,
            None => None,
        };
        show(&run, version.as_deref())?;
        evaluation.as_ref().map_or(Ok(()), show_evaluation)
    })
    .await
}

fn request(args: &TrainArgs, request_id: &str) -> Outcome<String> {
    let mut request = json!({"request_id": request_id, "model": args.model});
    let said = [
        ("algorithm", args.algorithm.clone().map(Value::from)),
        ("search", args.search.clone()),
        ("seed", args.seed.map(Value::from)),
        ("budget", args.budget.map(Value::from)),
        ("as_of", args.as_of.clone().map(Value::from)),
        ("base_version", args.base_version.clone().map(Value::from)),
        ("benchmark", args.benchmark.clone().map(Value::from)),
        ("group", args.group.clone().map(Value::from)),
        ("warm_start", args.warm_start.then(|| Value::from(true))),
    ];
    let value = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.as_str()));
    let params: Map<String, Value> = args.params.iter().map(|(name, text)| (name.clone(), value(text))).collect();
    let tags: Map<String, Value> = args.tags.iter().map(|(name, text)| (name.clone(), text.as_str().into())).collect();
    for (name, value) in said {
        if let Some(value) = value {
            request[name] = value;
        }
    }
    request["params"] = params.into();
    request["tags"] = tags.into();
    let text = request.to_string();
    // Said here, it costs no round trip; the stage says it again to every other client.
    match training::decode(&crate::codec::wire::Wire::default(), text.as_bytes()) {
        Ok(Asked::Refused(refusal)) => Err(Failure::Usage(refusal.detail)),
        Ok(_) => Ok(text),
        Err(error) => Err(Failure::Usage(error.to_string())),
    }
}

/// Where answers begin: an id that was used before may be answered already.
struct Before {
    runs: Start,
    audit: Start,
}

impl Before {
    fn take(settings: &Settings, is_known: bool) -> Outcome<Self> {
        let [runs, audit] = ends_of_two(settings, [topics::TRAINING_RUNS, topics::AUDIT])?;
        let from = |now| if is_known { Start::Beginning } else { Start::Offsets(now) };
        Ok(Self { runs: from(runs), audit: from(audit) })
    }
}

/// How long a command goes on waiting.
struct Patience<'a> {
    deadline: Option<Instant>,
    stop: &'a CancellationToken,
}

impl Patience<'_> {
    fn check(&self, run_id: &str) -> Outcome<()> {
        if self.stop.is_cancelled() {
            let text = format!(
                "interrupted\nhelp: the run goes on; `hokusai sql \"select * from runs where run_id = '{run_id}'\"`"
            );
            return Err(Failure::because(text));
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Failure::because(format!(
                "run {run_id} is not over within --timeout\nhelp: it goes on; `hokusai doctor` tells whether the stages keying, training, trials, registry and evaluation run"
            )));
        }
        Ok(())
    }
}

fn wait(
    timeout: Option<u64>,
    settings: &Settings,
    before: &Before,
    run_id: &str,
    stop: &CancellationToken,
) -> Outcome<()> {
    let deadline = timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let patience = Patience { deadline, stop };
    let run = over(settings, &before.runs, run_id, &patience)?;
    let (mut decided, mut version) = (None, None);
    if let Some(artefact) = &run.artefact {
        decided = Some(decision(settings, before, run_id, &patience)?);
        version = registered(settings, &run.model, &artefact.digest)?;
    }
    let evaluation = evaluation_of(settings, &run, &patience)?;
    if settings.json() {
        let mut line = line(&run, evaluation.as_ref())?;
        if let Some(decision) = decided {
            line["version"] = json!(version);
            line["registered"] = json!(decision.allowed);
            line["decision"] = json!(decision.reason);
        }
        say(line)?;
    } else {
        show(&run, version.as_deref())?;
        evaluation.as_ref().map_or(Ok(()), show_evaluation)?;
    }
    if let Some(evaluation) = &evaluation {
        unscored(evaluation)?;
    }
    match run.status.as_str() {
        TrainingRun::REFUSED => Err(Failure::Refused(format!("{}: {}", run.reason, run.detail))),
        TrainingRun::CANCELLED => Err(Failure::because(format!("run {run_id} was cancelled, {}", run.detail))),
        TrainingRun::FAILED => Err(Failure::because(format!("run {run_id} failed: {}: {}", run.reason, run.detail))),
        _ => Ok(()),
    }
}

/// Waits until the run is over.
fn over(settings: &Settings, from: &Start, run_id: &str, patience: &Patience<'_>) -> Outcome<TrainingRun> {
    let bar = progress::bar(settings, Some(0), "{msg} {bar:40} {pos}/{len} iterations, {elapsed}");
    let mut reader = Reader::open(settings, topics::TRAINING_RUNS, from)?;
    loop {
        patience.check(run_id)?;
        let Polled::Record(message) = reader.poll(Duration::from_millis(100))? else { continue };
        let (Some(key), Some(payload)) = (message.key(), message.payload()) else { continue };
        if key != run_id.as_bytes() {
            continue;
        }
        let run: TrainingRun = settings.wire.decode(payload).map_err(Failure::failed)?;
        if run.is_over() {
            bar.finish_and_clear();
            return Ok(run);
        }
        if run.status == TrainingRun::WAITING {
            let id = &run.run_id;
            bar.set_style(ProgressStyle::default_spinner());
            bar.println(match run.reason.as_str() {
                "" => format!("run {id} waits for an external trainer: `hokusai train job {id} -o DIR`, `hokusai train answer {id} …`"),
                reason => format!("run {id} goes on waiting: {reason}: {}", run.detail),
            });
        }
        bar.set_length(u64::try_from(run.iterations).unwrap_or(0));
        bar.set_position(u64::try_from(run.iteration).unwrap_or(0));
        bar.set_message(run.status);
    }
}

/// Waits for the registry's decision on the run's version.
fn decision(settings: &Settings, before: &Before, run_id: &str, patience: &Patience<'_>) -> Outcome<Audit> {
    let id = format!("run/{run_id}");
    let mut reader = Reader::open(settings, topics::AUDIT, &before.audit)?;
    loop {
        patience.check(run_id)?;
        let Polled::Record(message) = reader.poll(Duration::from_millis(100))? else { continue };
        let Some(payload) = message.payload() else { continue };
        let entry: Audit = settings.wire.decode(payload).map_err(Failure::failed)?;
        if entry.command_id.as_deref() == Some(id.as_str()) {
            return Ok(entry);
        }
    }
}

/// A run as one line of JSON, with the evaluation that it asked for.
fn line(run: &TrainingRun, evaluation: Option<&Evaluation>) -> Outcome<Value> {
    let mut line = serde_json::to_value(run).map_err(Failure::failed)?;
    if let Some(evaluation) = evaluation {
        line["evaluation"] = serde_json::to_value(evaluation).map_err(Failure::failed)?;
    }
    Ok(line)
}

/// What may be told of the evaluation that a run asked for, if it asked for one.
fn evaluation_of(settings: &Settings, run: &TrainingRun, patience: &Patience<'_>) -> Outcome<Option<Evaluation>> {
    run.evaluation_id.as_ref().map(|id| evaluation(settings, id, run, patience)).transpose()
}

/// Waits for what may be told of the evaluation that a run asked for. One that was asked for before may be told already; that another
/// request for it was no attempt is no answer to this one.
fn evaluation(settings: &Settings, id: &str, run: &TrainingRun, patience: &Patience<'_>) -> Outcome<Evaluation> {
    let mut reader = Reader::open(settings, topics::EVALUATIONS, &Start::Beginning)?;
    loop {
        patience.check(&run.run_id)?;
        let Polled::Record(message) = reader.poll(Duration::from_millis(100))? else { continue };
        let (Some(key), Some(payload)) = (message.key(), message.payload()) else { continue };
        if key != id.as_bytes() {
            continue;
        }
        let told: Evaluation = settings.wire.decode(payload).map_err(Failure::failed)?;
        if told.attempt > 0 || told.request_id == run.request_id {
            return Ok(told);
        }
    }
}

/// An attempt that could not be scored, or was taken back before it was, is a failure, and a request that was no attempt is refused;
/// that a candidate is not accepted is a result.
fn unscored(evaluation: &Evaluation) -> Outcome<()> {
    let text =
        || format!("evaluation {}: {}: {}", evaluation.evaluation_id, evaluation.reasons.join(", "), evaluation.detail);
    match evaluation.status.as_str() {
        Evaluation::FAILED => Err(Failure::because(text())),
        Evaluation::CANCELLED => {
            let help = "help: the same recipe on the same benchmark is that attempt; another seed or other parameters are another";
            let (id, why) = (&evaluation.evaluation_id, &evaluation.detail);
            Err(Failure::because(format!("evaluation {id} was cancelled, {why}\n{help}")))
        }
        _ if evaluation.attempt == 0 => Err(Failure::Refused(text())),
        _ => Ok(()),
    }
}

fn show_evaluation(evaluation: &Evaluation) -> Outcome<()> {
    say(format_args!(
        "evaluation {}: {} on {}, against version {}",
        evaluation.evaluation_id, evaluation.status, evaluation.benchmark, evaluation.baseline_version
    ))?;
    say(format_args!("  attempt   {} of its family, level {}", evaluation.attempt, evaluation.alpha))?;
    if !evaluation.reasons.is_empty() {
        say(format_args!("  reasons   {}", evaluation.reasons.join(", ")))?;
    }
    if let Some(score) = &evaluation.ladder_score {
        say(format_args!("  ladder    {} {score}", evaluation.metric))?;
    }
    let figures = [
        ("baseline", &evaluation.baseline_value),
        ("candidate", &evaluation.candidate_value),
        ("delta", &evaluation.delta),
        ("at least", &evaluation.lower),
        ("p", &evaluation.p_value),
    ];
    for (name, value) in figures {
        if let Some(value) = value {
            say(format_args!("  {name:<9} {value}"))?;
        }
    }
    for stratum in &evaluation.strata {
        say(format_args!("  stratum   {}: {} on {} rows", stratum.name, stratum.delta, stratum.rows))?;
    }
    Ok(())
}

/// The version whose artefact this is.
fn registered(settings: &Settings, model: &str, digest: &str) -> Outcome<Option<String>> {
    let model = models(settings)?.remove(model);
    let of_artefact = |model: Model| model.versions.into_iter().find(|v| v.artefact.digest == digest);
    Ok(model.and_then(of_artefact).map(|v| v.version))
}

fn show(run: &TrainingRun, version: Option<&str>) -> Outcome<()> {
    say(format_args!("run {}: {}", run.run_id, run.status))?;
    if let Some(dataset) = &run.dataset {
        say(format_args!(
            "  dataset   {} ({} rows, {} contributions)",
            dataset.digest, dataset.rows, dataset.contributions
        ))?;
    }
    if let Some(recipe) = &run.recipe_digest {
        say(format_args!("  recipe    {recipe}"))?;
    }
    if let Some(trial) = run.trial {
        let params: Vec<String> = run.params.iter().map(|pair| format!("{}={}", pair.name, pair.value)).collect();
        say(format_args!("  trial     {trial} won: {}", params.join(" ")))?;
    }
    if let Some(artefact) = &run.artefact {
        say(format_args!("  artefact  {} ({} bytes)", artefact.digest, artefact.size))?;
        say(format_args!("  version   {}", version.unwrap_or("none: the registry denied it")))?;
    }
    for metric in &run.metrics {
        say(format_args!("  {:<9} {} on {} rows of the validation fold", metric.name, metric.value, metric.rows))?;
    }
    Ok(())
}
