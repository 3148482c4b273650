//! `hokusai benchmark seal`: check, gather, look back, encrypt, store, sign, wait.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;

use super::{blocking, carry_out, one, pool};
use crate::attest::benchmark::millionths;
use crate::cli::common::Settings;
use crate::cli::exit::{Failure, Outcome, say};
use crate::cli::model::change::Sending;
use crate::cli::progress;
use crate::codec::split::Plan;
use crate::domain::contract::Spec;
use crate::domain::records::{Artefact, Model, Refusal};
use crate::ops::secrets;
use crate::sealing::make::{Gathered, Made};
use crate::sealing::strata::Wanted;
use crate::sealing::{SealingError, filter, vault};
use crate::stages::intake::sealing::{CheckError, RowChecker};
use crate::stages::registry::benchmark::{Seal, is_benchmark_name, next_version};
use crate::stages::registry::command::Action;
use crate::store::Store;

/// Arguments of `benchmark seal`.
#[derive(Debug, Args)]
pub(super) struct SealArgs {
    /// Name of the benchmark: 1 to 64 of a-z, 0-9, '.', '-', '_'
    name: String,
    /// File of the rows: CSV, JSON, Parquet, Arrow or Avro
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Model that it measures
    #[arg(long, value_name = "NAME")]
    model: String,
    /// Columns whose levels become strata, each for itself
    #[arg(long, value_name = "COLUMN,…", value_delimiter = ',', requires = "margin")]
    strata: Vec<String>,
    /// Margin by which no stratum may get worse, in the metric's unit
    #[arg(long, value_name = "DECIMAL", requires = "strata", value_parser = decimal)]
    margin: Option<String>,
    /// Planned standard deviation of a row's paired difference, for the precision of strata
    #[arg(long, value_name = "DECIMAL", default_value = "0.5", value_parser = decimal)]
    deviation: String,
    /// Format of the file [default: by its ending]
    #[arg(long, value_name = "FORMAT", value_parser = ["json", "csv", "parquet", "arrow", "avro"])]
    input_format: Option<String>,
    /// Leave out the rows that are refused, instead of sealing nothing
    #[arg(long)]
    drop_refused: bool,
    #[command(flatten)]
    sending: Sending,
}

fn decimal(text: &str) -> Result<String, String> {
    match millionths(text) {
        Some(number) if number > 0 => Ok(text.to_owned()),
        _ => Err("a decimal number above 0 of at most six places".to_owned()),
    }
}

/// Seals the rows of a file.
pub(super) async fn run(args: SealArgs, settings: &Settings, keys: &Path) -> Outcome<()> {
    if !is_benchmark_name(&args.name) {
        return Err(Failure::Usage("NAME: 1 to 64 of a-z, 0-9, '.', '-', '_'; the version is given to it".to_owned()));
    }
    let tenant = crate::pipeline::tenant(&settings.prefix);
    let ring = Arc::new(secrets::load_key_ring(keys, tenant).map_err(Failure::failed)?);
    let to = secrets::evaluation_public_key(keys, tenant).map_err(Failure::failed)?;
    let model = blocking({
        let (settings, name) = (settings.clone(), args.model.clone());
        move || one(&settings, &name)
    })
    .await?;
    let spec = contract(&model)?;
    let wanted = wanted(&args)?;
    let checker = RowChecker::new(spec, Arc::clone(&ring)).map_err(Failure::failed)?;
    let bar = progress::bar(settings, Some(1), "{bar:40} {pos}/{len} pieces checked, {elapsed}, {eta} left");
    let (args, gathered) = blocking({
        let (settings, bar) = (settings.clone(), bar.clone());
        move || {
            let gathered = gather(&args, &checker, &bar)?;
            tell(&settings, &args, &gathered)?;
            Ok((args, (gathered, checker)))
        }
    })
    .await?;
    let (gathered, checker) = gathered;
    let (refused, received) = (gathered.refused, gathered.received);
    let made = blocking(move || {
        let spec = checker.contract().spec();
        gathered.make(spec, checker.ring().tree_key(), wanted.as_ref()).map_err(refuse)
    })
    .await?;
    let store = settings.open_store().await?;
    let family = made.family(&pool::earlier(settings, &store).await?).map_err(|e| refuse(e.into()))?;
    let (made, found) = blocking({
        let (settings, model) = (settings.clone(), model.model.clone());
        move || {
            let found = pool::found(&settings, &model, &made.filter)?;
            Ok((made, found))
        }
    })
    .await?;
    let context = Context { args: &args, model: &model, store: &store, to: &to, family, found: &found };
    let seal = context.store(&made).await?;
    bar.finish_and_clear();
    let decided = carry_out(settings, keys, &model, Action::Seal(Box::new(seal.clone())), &args.sending).await?;
    let status = if decided.1.is_some() { "sealed" } else { "sent" };
    told(settings, &model, &seal, &made, &decided.0.command_id, status, (received, refused))
}

/// What a seal is put together from besides the rows.
struct Context<'a> {
    args: &'a SealArgs,
    model: &'a Model,
    store: &'a Store,
    to: &'a crate::domain::keys::PublicKey,
    family: crate::attest::tree::Hash,
    found: &'a HashSet<[u8; 16]>,
}

impl Context<'_> {
    /// Puts both blobs into the store, durably, and says what the command says.
    async fn store(&self, made: &Made) -> Outcome<Seal> {
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let benchmark = format!("{}@{}", self.args.name, next_version(self.model, &self.args.name));
        let rows_root = hex(&made.root);
        let seat = vault::Seat {
            model: &self.model.model,
            benchmark: &benchmark,
            contract_digest: &self.model.contract_digest,
            rows_root: &rows_root,
        };
        let blob = vault::seal(&made.rows, seat, self.to).map_err(Failure::failed)?;
        let sealed_rows = self.put(blob, vault::MEDIA_TYPE).await?;
        let match_filter = self.put(made.filter.bytes().clone(), filter::MEDIA_TYPE).await?;
        let strata = !self.args.strata.is_empty();
        Ok(Seal {
            contract_digest: self.model.contract_digest.clone(),
            rows: i64::try_from(made.count()).map_err(Failure::failed)?,
            rows_root,
            family: hex(&self.family),
            label_commitment: hex(&made.label_commitment),
            collision_rate: made.collision_rate(self.found),
            strata: made.strata.strata.clone(),
            merged: made.strata.merged.clone(),
            strata_margin: self.args.margin.clone().filter(|_| strata),
            strata_deviation: strata.then(|| self.args.deviation.clone()),
            match_filter,
            sealed_rows,
            sealed_to: self.to.id().to_owned(),
            benchmark,
        })
    }

    async fn put(&self, bytes: bytes::Bytes, media_type: &str) -> Outcome<Artefact> {
        let size = i64::try_from(bytes.len()).map_err(Failure::failed)?;
        let digest = self.store.blobs().put(bytes).await.map_err(Failure::failed)?;
        Ok(Artefact { digest: digest.to_string(), size, media_type: media_type.to_owned() })
    }
}

/// What the rows themselves are refused for is exit 4.
fn refuse(error: SealingError) -> Failure {
    match error {
        SealingError::Arrow(_) | SealingError::Blob { .. } => Failure::failed(error),
        error => Failure::Refused(error.to_string()),
    }
}

fn contract(model: &Model) -> Outcome<Spec> {
    let newest = model.contracts.iter().find(|contract| contract.digest == model.contract_digest);
    let newest = newest.ok_or_else(|| Failure::because(format!("model {} has no contract in force", model.model)))?;
    Spec::from_canonical_json(&newest.spec).map_err(Failure::failed)
}

fn wanted(args: &SealArgs) -> Outcome<Option<Wanted>> {
    let Some(margin) = args.margin.as_ref().filter(|_| !args.strata.is_empty()) else { return Ok(None) };
    let number = |text: &String| text.parse::<f64>().map_err(Failure::failed);
    let (margin, deviation) = (number(margin)?, number(&args.deviation)?);
    Ok(Some(Wanted { columns: args.strata.clone(), margin, deviation }))
}

/// Checks the file piece by piece.
fn gather(args: &SealArgs, checker: &RowChecker, bar: &ProgressBar) -> Outcome<Gathered> {
    let at = |error: &dyn std::fmt::Display| Failure::because(format!("{}: {error}", args.file.display()));
    let plan = Plan::open(&args.file, args.input_format.as_deref()).map_err(|e| at(&e))?;
    bar.set_length(plan.chunks() as u64);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(Failure::failed)?;
    let now = i64::try_from(now.as_millis()).map_err(Failure::failed)?;
    let mut gathered = Gathered::default();
    for payload in plan.payloads() {
        let payload = payload.map_err(|e| at(&e))?;
        let checked = checker.check(plan.format(), payload, now).map_err(|error| match error {
            CheckError::Refused { .. } => Failure::Refused(format!("{}: {error}", args.file.display())),
            error => at(&error),
        })?;
        gathered.add(checked).map_err(refuse)?;
        bar.inc(1);
    }
    Ok(gathered)
}

/// Tells what was refused; nothing is sealed then, unless that is wanted.
fn tell(settings: &Settings, args: &SealArgs, gathered: &Gathered) -> Outcome<()> {
    if gathered.refused == 0 {
        return Ok(());
    }
    for refusal in &gathered.refusals {
        let Refusal { row, code, column, rule, expected, shape, .. } = refusal;
        if settings.json() {
            say(json!({
                "row": row.saturating_add(1), "code": code, "column": column, "rule": rule, "expected": expected, "shape": shape,
            }))?;
        } else {
            let column = if column.is_empty() { String::new() } else { format!(" {column}") };
            eprintln!("row {}: {code}{column}: expected {expected}, got {shape}", row.saturating_add(1));
        }
    }
    if args.drop_refused {
        return Ok(());
    }
    Err(Failure::Refused(format!(
        "{} of {} rows do not pass the contract of model {}, nothing is sealed\nhelp: mend them, or leave them out with \
         --drop-refused",
        gathered.refused, gathered.received, args.model
    )))
}

fn told(
    settings: &Settings,
    model: &Model,
    seal: &Seal,
    made: &Made,
    command_id: &str,
    status: &str,
    (received, refused): (u64, u64),
) -> Outcome<()> {
    if settings.json() {
        let mut line = serde_json::to_value(seal).map_err(Failure::failed)?;
        line["model"] = json!(model.model);
        line["command_id"] = json!(command_id);
        line["status"] = json!(status);
        line["received"] = json!(received);
        line["refused"] = json!(refused);
        line["merged_unnamed"] = json!(made.strata.unnamed);
        return say(line);
    }
    say(format_args!("benchmark {}/{}: {status}", model.model, seal.benchmark))?;
    let family = if seal.family == seal.rows_root { "its own" } else { seal.family.as_str() };
    say(format_args!("  rows            {} of {received}", seal.rows))?;
    say(format_args!("  rows root       {}", seal.rows_root))?;
    say(format_args!("  labels          {}", seal.label_commitment))?;
    say(format_args!("  family          {family}"))?;
    say(format_args!("  collision rate  {}", seal.collision_rate))?;
    say(format_args!("  encrypted to    {}", seal.sealed_to))?;
    for stratum in &seal.strata {
        say(format_args!("  stratum         {stratum}"))?;
    }
    if made.strata.unnamed + seal.merged.len() > 0 {
        let (named, unnamed) = (seal.merged.join(", "), made.strata.unnamed);
        say(format_args!("  merged          {named} and {unnamed} rare levels"))?;
    }
    Ok(())
}
