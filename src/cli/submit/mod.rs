//! `hokusai submit`: files become contributions.
//!
//! Each file is one contribution, cut into chunks that are complete documents of their format. Its id derives from its
//! content, so that sending the same file again changes nothing; an interrupted sending goes on where it stopped.

mod identity;
mod journal;
mod seal;
mod send;
mod sign;
mod wait;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use rdkafka::producer::FutureProducer;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::common::{Settings, blocking};
use super::exit::{Failure, Outcome, say};
use super::progress;
use crate::attest::contributor::{ContributorKey, Place};
use crate::codec::sealed;
use crate::codec::split::Plan;
use crate::domain::keys::PublicKey;
use crate::domain::records::{Contribution, Receipt};
use crate::domain::topics;
use identity::Identity;
use journal::{Journal, JournalFile};
use wait::{Answer, Awaited, Before};

const EXAMPLES: &str = "\
Examples:
  hokusai submit january.parquet february.csv --model flight-delay --contributor UA --wait
  hokusai submit rows.csv --model churn --contributor 0x52908400098527886E0F7030069857D2E4169EE7 --format json
  hokusai submit rows.csv --model churn --sign wallet.key --wait

Each FILE is one contribution: CSV with a header, JSON (an array of objects or one object per line), Parquet, Arrow IPC
or Avro, by its ending or --input-format. Sending the same file again changes nothing; after Ctrl-C the same command
goes on where it stopped. The receipt tells what was accepted, what was refused and why.

Payloads are sealed (HPKE, RFC 9180) to the intake key that is published with the model: brokers and their disks hold
nothing that can be read. --plain is for clusters whose disks and connections are protected otherwise.

Exit codes: 0 done, 1 failed, 2 usage, 3 no broker reached, 4 a contribution was refused as a whole.";

/// How often a refused or incomplete content may be tried anew.
const MAX_TRIES: u32 = 1000;

/// Arguments of `submit`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SubmitArgs {
    /// Files; each is one contribution
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Model that the rows are for
    #[arg(long, value_name = "NAME")]
    model: String,
    /// Who contributes: an opaque name or wallet address [default: the key of --sign]
    #[arg(long, required_unless_present = "sign", default_value = "", hide_default_value = true, value_name = "WHO")]
    contributor: String,
    /// Sign every chunk with this key: an Ed25519 private key (PKCS#8 PEM), or a wallet's as 64 hex digits. The contributor
    /// is the key: receipts then say that it is verified
    #[arg(long, env = "HOKUSAI_CONTRIBUTOR_KEY", value_name = "FILE")]
    sign: Option<PathBuf>,
    /// Id of the contribution (one FILE); by default it derives from the content
    #[arg(long, value_name = "ID")]
    contribution: Option<String>,
    /// Contract that the rows were made for [default: the one in force]
    #[arg(long, value_name = "DIGEST")]
    contract_digest: Option<String>,
    /// Format of the files [default: by their ending]
    #[arg(long, value_name = "FORMAT", value_parser = ["json", "csv", "parquet", "arrow", "avro"])]
    input_format: Option<String>,
    /// Send the payloads as they are, readable for whoever reads the brokers' disks
    #[arg(long)]
    plain: bool,
    /// Wait for the receipts and print them
    #[arg(long)]
    wait: bool,
    /// Give up waiting after this many seconds
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    timeout: Option<u64>,
}

/// Runs `submit`.
///
/// # Errors
/// Unreadable files, no broker, or (exit 4) a contribution that was refused as a whole.
pub async fn run(mut args: SubmitArgs, settings: Settings) -> Outcome<()> {
    if args.contribution.is_some() && args.files.len() != 1 {
        return Err(Failure::Usage("--contribution takes one FILE: each file is a contribution of its own".to_owned()));
    }
    let signer = sign::signer(&mut args)?;
    check_ids(&args)?;
    let stop = crate::ops::signals::on_signal();
    let plans = plan_all(&args)?;
    let producer = send::producer(&settings)?;
    let topic_id = reach(&settings).await?;
    let key = seal::key(&args, &settings).await?;
    let before = blocking({
        let settings = settings.clone();
        move || Before::take(&settings)
    })
    .await?;
    let sends = name_all(&args, &settings, &topic_id, plans).await?;
    let chunks: usize = sends.iter().map(|s| s.plan.chunks()).sum();
    let bar = progress::bar(&settings, Some(chunks as u64), "{bar:40} {pos}/{len} chunks, {elapsed}, {eta} left");
    let mut awaited = Vec::new();
    for send in sends {
        let signer = signer.as_ref();
        let way = Way { producer: &producer, topic_id: &topic_id, key: key.as_ref(), signer, bar: &bar, stop: &stop };
        awaited.push(send_one(&args, &settings, &way, send).await?);
    }
    bar.finish_and_clear();
    if !args.wait {
        return Ok(());
    }
    let timeout = args.timeout.map(Duration::from_secs);
    blocking(move || answers(&args, &settings, &before, &awaited, timeout, &stop)).await
}

/// A file that is about to be sent under an id.
struct Send {
    file: PathBuf,
    plan: Plan,
    id: String,
    journal: Option<Journal>,
    known: bool,
}

fn check_ids(args: &SubmitArgs) -> Outcome<()> {
    let texts = [
        ("--model", Some(&args.model)),
        ("--contributor", Some(&args.contributor)),
        ("--contribution", args.contribution.as_ref()),
    ];
    for (what, text) in texts {
        if text
            .is_some_and(|t| t.is_empty() || t.len() > crate::domain::limits::MAX_ID || t.chars().any(char::is_control))
        {
            return Err(Failure::Usage(format!(
                "{what}: 1 to {} bytes without control characters",
                crate::domain::limits::MAX_ID
            )));
        }
    }
    Ok(())
}

/// Looks at every file before anything is sent.
fn plan_all(args: &SubmitArgs) -> Outcome<Vec<(PathBuf, Plan)>> {
    let plan = |file: &PathBuf| {
        let plan = Plan::open(file, args.input_format.as_deref())
            .map_err(|e| Failure::because(format!("{}: {e}", file.display())))?;
        Ok((file.clone(), plan))
    };
    args.files.iter().map(plan).collect()
}

/// Makes sure that brokers and topic are there; returns the topic's id.
async fn reach(settings: &Settings) -> Outcome<String> {
    let settings = settings.clone();
    blocking(move || {
        let admin = settings.cluster().admin().map_err(|e| settings.unreachable(e))?;
        let described = admin.describe(&[topics::CONTRIBUTIONS]).map_err(|e| settings.unreachable(e))?;
        described.into_iter().find_map(|topic| topic.id).ok_or_else(|| {
            Failure::because(format!(
                "there is no topic {} at {}\nhelp: `hokusai topology apply` makes the topics",
                settings.topic(topics::CONTRIBUTIONS),
                settings.brokers
            ))
        })
    })
    .await
}

/// Gives every file its id: a content whose receipt is `incomplete` or `refused` gets the next try.
async fn name_all(
    args: &SubmitArgs,
    settings: &Settings,
    topic_id: &str,
    plans: Vec<(PathBuf, Plan)>,
) -> Outcome<Vec<Send>> {
    let names = match &args.contribution {
        Some(id) => plans.iter().map(|_| Name { last: Some(id.clone()), next: None }).collect(),
        None => derive(args, settings, &plans)?,
    };
    // One look at the receipts for all files: none of them for a content that was never sent from here.
    let derived = |name: &Name| name.next.as_ref().and(name.last.clone());
    let ids: BTreeSet<String> = names.iter().filter_map(derived).collect();
    let receipts = match ids.is_empty() {
        true => BTreeMap::new(),
        false => {
            let settings = settings.clone();
            blocking(move || wait::receipts_of(&settings, &ids)).await?
        }
    };
    let mut sends = Vec::new();
    for ((file, plan), name) in plans.into_iter().zip(names) {
        let closed_in_vain =
            |id: &String| receipts.get(id).is_some_and(|r| matches!(r.status.as_str(), "incomplete" | "refused"));
        let (id, known) = match (name.last, name.next) {
            (Some(last), Some(next)) if closed_in_vain(&last) => (next, false),
            (Some(last), _) => (last, true),
            (None, next) => (next.unwrap_or_default(), false),
        };
        let journal =
            JournalFile::of(&settings.data, &id).read().filter(|j| j.topic_id == topic_id && j.plan == plan.digest());
        sends.push(Send { file, plan, id, journal, known });
    }
    Ok(sends)
}

/// Ids that a content may go under.
struct Name {
    /// The id that it went under last; none when it was never sent from here.
    last: Option<String>,
    /// The id of the next try; none when the id was named on the command line.
    next: Option<String>,
}

/// The ids of contents. They are secret to this machine, as are the journals: without a journal the content was
/// never sent from here.
fn derive(args: &SubmitArgs, settings: &Settings, plans: &[(PathBuf, Plan)]) -> Outcome<Vec<Name>> {
    let identity = Identity::load(&settings.data)?;
    let name = |(file, _): &(PathBuf, Plan)| {
        let builder = identity
            .start(&args.model, &args.contributor)
            .file(file)
            .map_err(|e| Failure::because(format!("{}: {e}", file.display())))?;
        let sent = |attempt: &u32| JournalFile::of(&settings.data, &builder.id(*attempt)).read().is_some();
        let tries = (0..MAX_TRIES).find(|attempt| !sent(attempt)).unwrap_or(MAX_TRIES);
        Ok(Name { last: tries.checked_sub(1).map(|last| builder.id(last)), next: Some(builder.id(tries)) })
    };
    plans.iter().map(name).collect()
}

/// What every contribution is sent with.
struct Way<'a> {
    producer: &'a FutureProducer,
    topic_id: &'a str,
    /// What payloads are sealed to; none with `--plain`.
    key: Option<&'a PublicKey>,
    /// What chunks are signed with; none without `--sign`.
    signer: Option<&'a ContributorKey>,
    bar: &'a ProgressBar,
    stop: &'a CancellationToken,
}

async fn send_one(args: &SubmitArgs, settings: &Settings, way: &Way<'_>, mut send: Send) -> Outcome<Awaited> {
    let chunks = send.plan.chunks();
    let journal = send.journal.take().unwrap_or_else(|| Journal {
        topic_id: way.topic_id.to_owned(),
        plan: send.plan.digest().to_owned(),
        sent: 0,
    });
    let resumed = journal.sent;
    let mut sender = send::Sender::new(settings, way.producer, JournalFile::of(&settings.data, &send.id), journal);
    let format = send.plan.format().to_owned();
    for (chunk, payload) in (0_i64..).zip(send.plan.payloads()) {
        way.bar.inc(1);
        let payload = payload.map_err(|e| Failure::because(format!("{}: {e}", send.file.display())))?;
        // A whole content that was sent before goes again when its answer is unknown: a replay changes nothing.
        if chunk < resumed {
            continue;
        }
        let mut record = Contribution {
            contribution_id: Some(send.id.clone()),
            contributor: args.contributor.clone(),
            model: args.model.clone(),
            contract_digest: args.contract_digest.clone(),
            format: format.clone(),
            chunk,
            chunks: i64::try_from(chunks).map_err(Failure::failed)?,
            payload,
            sealed: None,
            signature: None,
        };
        if let Some(key) = way.key {
            sealed::seal(&mut record, key).map_err(Failure::failed)?;
        }
        // Last: what is signed is what is sent.
        record.signature = way.signer.map(|signer| signer.sign(&Place::of(&record, &send.id), &record.payload));
        sender.send(&record, way.stop).await?;
    }
    let last_chunk = sender.finish().await?;
    if !args.wait {
        report_sent(args, settings, &send, resumed, way.key)?;
    }
    Ok(Awaited { id: send.id, last_chunk, known: send.known })
}

fn report_sent(
    args: &SubmitArgs,
    settings: &Settings,
    send: &Send,
    resumed: i64,
    key: Option<&PublicKey>,
) -> Outcome<()> {
    if settings.json() {
        say(format_args!(
            "{}",
            json!({
                "contribution_id": send.id, "contributor": args.contributor, "model": args.model,
                "file": send.file.display().to_string(), "format": send.plan.format(),
                "chunks": send.plan.chunks(), "already_sent": resumed, "sealed": key.map(PublicKey::id),
            })
        ))?;
    } else {
        say(format_args!(
            "{}: sent as {} ({} chunks, {}); `hokusai watch receipts` shows its receipt",
            send.file.display(),
            send.id,
            send.plan.chunks(),
            key.map_or_else(|| "not sealed".to_owned(), |key| format!("sealed to {}", key.id()))
        ))?;
    }
    Ok(())
}

fn answers(
    args: &SubmitArgs,
    settings: &Settings,
    before: &Before,
    awaited: &[Awaited],
    timeout: Option<Duration>,
    stop: &CancellationToken,
) -> Outcome<()> {
    let mut refused = Vec::new();
    wait::wait(settings, before, awaited, timeout, stop, |index, answer| {
        let file = args.files.get(index).map(|f| f.display().to_string()).unwrap_or_default();
        if answer.reused || answer.receipt.status != "admitted" {
            refused.push(file.clone());
        }
        show(settings, &file, &answer)
    })?;
    if refused.is_empty() { Ok(()) } else { Err(Failure::Refused(refused.join(", "))) }
}

fn show(settings: &Settings, file: &str, answer: &Answer) -> Outcome<()> {
    let receipt = &answer.receipt;
    if settings.json() {
        let mut line = serde_json::to_value(receipt).map_err(Failure::failed)?;
        if answer.reused {
            line = json!({
                "contribution_id": receipt.contribution_id, "status": "refused", "reason": "ID_REUSED",
                "earlier_receipt": line,
            });
        }
        say(line)?;
        return Ok(());
    }
    if answer.reused {
        say(format_args!(
            "{file}: refused: ID_REUSED: the id {} belongs to other content, whose receipt stands",
            receipt.contribution_id
        ))?;
        return Ok(());
    }
    say(format_args!("{file}: {} ({} of {} rows accepted)", receipt.status, receipt.accepted, receipt.received))?;
    say(describe(receipt).trim_end())?;
    Ok(())
}

/// A receipt for people, indented by two.
fn describe(receipt: &Receipt) -> String {
    use std::fmt::Write;
    let mut text = format!("  id          {}\n", receipt.contribution_id);
    let mut line = |name: &str, value: String| {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "  {name:<11} {value}");
    };
    for refused in &receipt.refused {
        line("refused", format!("{} × {}", refused.count, refused.reason));
    }
    match receipt.quality.score {
        Some(score) => line("quality", format!("{score:.6}")),
        None => line("quality", "not scored".to_owned()),
    }
    for d in &receipt.quality.dimensions {
        let remark = if d.measured { "" } else { " (not measured)" };
        line("", format!("{:<13} {:.6}  weight {:.2}  loss {:.6}{remark}", d.name, d.value, d.weight, d.loss));
    }
    for flag in &receipt.quality.flags {
        line("flag", flag.clone());
    }
    for pii in &receipt.pii {
        line("pii", format!("{} × {}", pii.count, pii.kind));
    }
    if let Some(scheme) = &receipt.contributor_signature {
        line("verified", format!("signed by {} ({scheme})", receipt.contributor));
    }
    if !receipt.merkle_root.is_empty() {
        line("merkle root", receipt.merkle_root.clone());
    }
    let id = &receipt.contribution_id;
    // Ids are free texts: only a plain one may stand in a line that is meant for a shell.
    let plain = id.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if plain && !receipt.refused.is_empty() {
        let query = format!("select * from refusals where contribution_id = '{id}'");
        line("why", format!("hokusai sql --fresh \"{query}\""));
    }
    text
}
