//! `hokusai attestation`: what was attested, as bundles that strangers check offline.

mod inputs;
pub(super) mod log;
mod trust;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::atomic;
use super::common::{Settings, blocking};
use super::exit::{Failure, Outcome, say};
use crate::attest::bundle::{Bundle, Consistency};
use crate::attest::checkpoint::{Checkpoint, TlogProof};
use crate::attest::nodes::{MemoryNodes, consistency_proof, inclusion_proof, root};
use crate::attest::note::Note;
use crate::attest::statement::{Predicate, statement_hash};
use log::{Entry, Found, Wanted, find, newest, scan};

const EXAMPLES: &str = "\
Examples:
  hokusai attestation list --contribution c-1
  hokusai attestation export --contribution c-1 -o bundle.json
  hokusai attestation trust -o trust.json                      the development trust root, signed by one key
  hokusai attestation trust -o next.json --after trust.json --revoke KEYID@1200 --publish     a key that got out
  hokusai attestation refresh trust.json                       the newest trust root that its keys have signed
  hokusai verify bundle.json --trust trust.json --inputs receipts/
  hokusai attestation checkpoint > last.ckpt                   the newest signed tree head
  hokusai attestation export LEAF --since last.ckpt -o bundle.json
  hokusai attestation inputs LEAF --level 2 -o inputs          what recomputes an evaluation; its benchmark's owner alone can

A bundle is all that an offline check needs but the trust root, which verifiers must get from somebody they believe.";

/// Arguments of `attestation`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct AttestationArgs {
    #[command(subcommand)]
    action: Action,
}

/// Which entry of the log.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Leaf hash or statement hash, or its first eight digits or more
    #[arg(value_name = "LEAF")]
    leaf: Option<String>,
    /// The receipt of this contribution
    #[arg(long, value_name = "ID")]
    contribution: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the entries of the log
    List {
        /// Only the receipt of this contribution
        #[arg(long, value_name = "ID")]
        contribution: Option<String>,
    },
    /// Print a statement
    Show {
        #[command(flatten)]
        which: Which,
    },
    /// Write an attestation with its proof and tree head
    Export {
        #[command(flatten)]
        which: Which,
        /// Where to write the bundle
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// A tree head that was seen before: the bundle then proves that the log has only grown since
        #[arg(long, value_name = "FILE")]
        since: Option<PathBuf>,
        /// How long to wait for the entry and a tree head over it, in seconds
        #[arg(long, default_value_t = 30, value_name = "SECONDS")]
        timeout: u64,
    },
    /// Write what others need to recompute an evaluation; for the owner of its benchmark, and audited
    ///
    /// What is written discloses sealed labels and scores (level 1), the sealed rows (2) and the training rows (3) to whoever gets it. Files
    /// are bound by the signed statement: `hokusai verify BUNDLE --trust FILE --inputs DIR` recomputes as far as they allow. Of a
    /// refused attempt the full record is disclosed as well. It needs the private evaluation key and the tenant's key ring.
    Inputs(inputs::InputsArgs),
    /// Print the newest signed tree head
    Checkpoint,
    /// Write every entry, one JSON object per line: what `verify --log` takes
    Log {
        /// Where to write it
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Write a trust root for verifiers: the log's keys by ranges of indexes, signed
    Trust(trust::TrustArgs),
    /// Replace a trust root by its newest published successor
    ///
    /// Anybody can write to `attestations.trust`: what counts is that each version is signed by a threshold of the root keys of the one
    /// before. A first trust root must come from somebody you believe.
    Refresh(trust::RefreshArgs),
}

/// Runs `attestation`.
///
/// # Errors
/// No broker, or no such entry.
pub async fn run(args: AttestationArgs, settings: Settings) -> Outcome<()> {
    let action = match args.action {
        Action::Trust(args) => return trust::run(args, settings).await,
        Action::Inputs(args) => return inputs::run(args, settings).await,
        action => action,
    };
    blocking(move || match action {
        Action::List { contribution } => list(&settings, contribution.as_deref()),
        Action::Show { which } => show(&settings, &wanted(which)?),
        Action::Export { which, output, since, timeout } => {
            let patience = Duration::from_secs(timeout);
            export(&settings, &wanted(which)?, &output, since.as_deref(), patience)
        }
        Action::Checkpoint => checkpoint(&settings),
        Action::Log { output } => whole_log(&settings, &output),
        Action::Refresh(args) => trust::refresh(&args, &settings),
        Action::Trust(_) | Action::Inputs(_) => Ok(()),
    })
    .await
}

fn wanted(which: Which) -> Outcome<Wanted> {
    match (which.leaf, which.contribution) {
        (Some(leaf), _) => {
            let leaf = leaf.to_ascii_lowercase();
            if leaf.len() < 8 || !leaf.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(Failure::Usage("LEAF: at least eight hex digits of a leaf or statement hash".to_owned()));
            }
            Ok(Wanted::Hash(leaf))
        }
        (None, id) => Ok(Wanted::Contribution(id.unwrap_or_default())),
    }
}

fn described(entry: &Entry) -> Value {
    json!({
        "index": entry.index, "leaf": entry.hex(), "predicate_type": entry.statement.predicate.uri(),
        "subject": entry.statement.subject.name, "contribution_id": entry.contribution(),
    })
}

fn list(settings: &Settings, contribution: Option<&str>) -> Outcome<()> {
    scan(settings, |entry| {
        if contribution.is_some_and(|id| entry.contribution() != Some(id)) {
            return Ok(());
        }
        if settings.json() {
            return say(described(&entry));
        }
        let what = match &entry.statement.predicate {
            Predicate::Contribution(receipt) => format!("{} {}", receipt.status, entry.statement.subject.name),
            Predicate::Registry(decision) => {
                format!("{} {} to {}", decision.action, entry.statement.subject.name, decision.stage)
            }
            Predicate::Benchmark(decision) => format!("{} {}", decision.action, entry.statement.subject.name),
            Predicate::Preregistration(laid) => {
                format!("preregistered attempt {} of {}", laid.attempt.number, entry.statement.subject.name)
            }
            Predicate::Evaluation(outcome) => format!("{} {}", outcome.status, entry.statement.subject.name),
            Predicate::Attribution(told) => {
                let paid = if told.payable { "payable".to_owned() } else { told.reasons.join(", ") };
                format!("{}: {paid}", entry.statement.subject.name)
            }
            Predicate::KeyEvent(event) => format!("{} {} key {}", event.event, event.role, event.keyid),
        };
        say(format_args!("{:>6}  {}  {what}", entry.index, entry.hex()))
    })
}

fn show(settings: &Settings, wanted: &Wanted) -> Outcome<()> {
    let Found { entry, .. } = find(settings, wanted, Duration::ZERO)?;
    let statement: Value = serde_json::from_slice(&entry.envelope.payload).map_err(Failure::failed)?;
    if settings.json() {
        let mut line = described(&entry);
        line["statement"] = statement;
        return say(line);
    }
    let hash = data_encoding::HEXLOWER.encode(&statement_hash(&entry.envelope.payload));
    say(format_args!("index           {}\nleaf            {}\nstatement hash  {hash}", entry.index, entry.hex()))?;
    say(serde_json::to_string_pretty(&statement).map_err(Failure::failed)?)
}

fn export(
    settings: &Settings,
    wanted: &Wanted,
    output: &Path,
    since: Option<&Path>,
    patience: Duration,
) -> Outcome<()> {
    let since = since.map(read_head).transpose()?;
    let start = Instant::now();
    let (found, checkpoint, note) = loop {
        let found = find(settings, wanted, patience)?;
        // The tree head may be younger than the entries that were read: then they are read once more.
        match newest(settings)? {
            Some((head, note)) if (found.entry.index + 1..=found.leaves.len() as u64).contains(&head.size) => {
                break (found, head, note);
            }
            _ if start.elapsed() >= patience => {
                return Err(Failure::because(
                    "no tree head covers the entry yet\nhelp: does a worker run the stage attesting? `hokusai doctor` tells",
                ));
            }
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let bundle = bundle(found, checkpoint, note, since.as_ref())?;
    atomic::write(output, (bundle.to_json().map_err(Failure::failed)? + "\n").as_bytes())?;
    let (index, size) = (bundle.proof.index, bundle.proof.checkpoint.size);
    if settings.json() {
        let leaf = data_encoding::HEXLOWER.encode(&crate::attest::statement::leaf_of(&bundle.envelope.payload));
        say(json!({"bundle": output.display().to_string(), "index": index, "leaf": leaf, "size": size}))
    } else {
        say(format_args!("{}: leaf {index} of {size}; check it with `hokusai verify`", output.display()))
    }
}

fn bundle(found: Found, checkpoint: Checkpoint, note: Note, since: Option<&Checkpoint>) -> Outcome<Bundle> {
    let (size, index) = (checkpoint.size, found.entry.index);
    let nodes = MemoryNodes::of(found.leaves.into_iter().take(usize::try_from(size).unwrap_or(usize::MAX)));
    if root(&nodes, size).ok() != Some(checkpoint.root) {
        return Err(Failure::because(format!(
            "the entries on the topic do not lead to the root of the tree head of {size} leaves\n\
             help: keep both topics as they are: this is what the log exists to show"
        )));
    }
    let path = inclusion_proof(&nodes, index, size).map_err(Failure::failed)?;
    let consistency = since.map(|old| {
        let path = consistency_proof(&nodes, old.size, size).map_err(Failure::failed)?;
        Ok::<_, Failure>(Consistency { from: old.size, path })
    });
    let proof = TlogProof { index, path, checkpoint, note };
    Ok(Bundle { envelope: found.entry.envelope, proof, consistency: consistency.transpose()? })
}

fn read_head(path: &Path) -> Outcome<Checkpoint> {
    let bytes = std::fs::read(path).map_err(|e| Failure::because(format!("{}: {e}", path.display())))?;
    let read = Checkpoint::parse(&bytes).map_err(|e| Failure::because(format!("{}: {e}", path.display())))?;
    Ok(read.0)
}

fn checkpoint(settings: &Settings) -> Outcome<()> {
    let Some((head, note)) = newest(settings)? else {
        return Err(Failure::because("the log has no tree head yet"));
    };
    if settings.json() {
        let root = data_encoding::HEXLOWER.encode(&head.root);
        return say(json!({"origin": head.origin, "size": head.size, "root": root, "note": note.to_string()}));
    }
    say(note.to_string().trim_end())
}

fn whole_log(settings: &Settings, output: &Path) -> Outcome<()> {
    let wrong = |e: std::io::Error| Failure::because(format!("{}: {e}", output.display()));
    let mut file = std::io::BufWriter::new(std::fs::File::create(output).map_err(wrong)?);
    let mut entries = 0_u64;
    scan(settings, |entry| {
        entries += 1;
        let (index, leaf, envelope) = (entry.index, entry.hex(), entry.envelope.to_json());
        writeln!(file, r#"{{"index":{index},"leaf":"{leaf}","envelope":{envelope}}}"#).map_err(wrong)
    })?;
    file.flush().map_err(wrong)?;
    if settings.json() {
        say(json!({"log": output.display().to_string(), "entries": entries}))
    } else {
        say(format_args!("{}: {entries} entries", output.display()))
    }
}
