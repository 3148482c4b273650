//! `hokusai verify`: the offline check of a bundle. It asks no broker and reads nothing but the files that are named.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::atomic;
use super::common::{Settings, blocking};
use super::exit::{Failure, Outcome, say};
use super::progress;
use crate::attest::benchmark::BenchmarkDecision;
use crate::attest::bundle;
use crate::attest::dsse::{self, Envelope};
use crate::attest::evaluation::{Laid, Sealed};
use crate::attest::note;
use crate::attest::predicate::Contribution;
use crate::attest::receipt;
use crate::attest::statement::{Predicate, Statement, leaf_of};
use crate::attest::tree::Hash;
use crate::attest::verify::{ARTEFACTS, Against, Check, Outcome as Found, Report, verify};
use crate::domain::records::Receipt;
use crate::recompute::{self, Acceptance, With};

const EXAMPLES: &str = "\
Examples:
  hokusai verify bundle.json --trust trust.json --inputs receipts/
  hokusai verify bundle.json --trust trust.json --state last.ckpt --log log.jsonl --format json
  hokusai verify evaluation.json --trust trust.json --inputs inputs/ --log log.jsonl

--trust is the one file that must come from somebody you believe; a second --trust is the successor of the first. --state
remembers the newest tree head: the next check shows that the log was not rolled back. --inputs is a folder with
receipts as JSON (`hokusai submit --wait --format json`, `hokusai watch receipts --format json`); of an evaluation, with what
`hokusai attestation inputs` writes, or with both models alone. With --log an evaluation's preregistration has to stand before it, and
the attempts of its family are counted again.

An evaluation is recomputed as far as its inputs allow. Level 1: labels and both models' scores give every figure and the decision. Level 2:
sealed rows and both models give the scores. Level 3: training rows and recipe give the candidate's bytes by learning it again. Each
file is first shown to be what the statement binds. Interrupting (Ctrl-C) changes nothing.

Exit codes: 0 OK, 10 malformed or not canonical, 11 signature, 12 key not valid at that index, 13 not included in the log, 14 log
inconsistent or rolled back (evidence is written beside --state), 15 an artefact does not match, 16 a recomputation does
not match, 17 policy (trust expired, too few witnesses, an evaluation that was not preregistered or is miscounted), 19 UNBOUND: nothing was given that the statement is about.";

/// Longest line of a log or of a file of receipts, in bytes; a whole file of that size may be one JSON object.
const MAX_LINE: u64 = 4 << 20;

/// Arguments of `verify`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct VerifyArgs {
    /// The bundle, as `attestation export` writes it
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Trust root; repeat it for its successors, oldest first
    #[arg(long, required = true, value_name = "FILE")]
    trust: Vec<PathBuf>,
    /// The newest tree head that you have seen; made when it is not there, moved on when all is well
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Folder of what the statement is about: receipts as JSON, or the inputs of an evaluation
    #[arg(long, value_name = "DIR")]
    inputs: Option<PathBuf>,
    /// The whole log, as `attestation log` writes it
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

/// Runs `verify`.
///
/// # Errors
/// A file that cannot be read (exit 1), or what the check found (10 to 19).
pub async fn run(args: VerifyArgs, settings: Settings) -> Outcome<()> {
    blocking(move || check(&args, &settings)).await
}

fn check(args: &VerifyArgs, settings: &Settings) -> Outcome<()> {
    let bytes = read(&args.bundle, bundle::MAX_BYTES)?;
    let trust = args.trust.iter().map(|file| read(file, dsse::MAX_BYTES)).collect::<Outcome<Vec<_>>>()?;
    let seen = match &args.state {
        Some(file) if file.exists() => Some(read(file, note::MAX_BYTES)?),
        _ => None,
    };
    let log = args.log.as_deref().map(leaves).transpose()?;
    let bar = progress::bar(settings, Some(0), progress::PARTS);
    let artefacts = |statement: &Statement, payload: &[u8]| match &args.inputs {
        Some(folder) => inputs(folder, (statement, payload), log.as_ref(), &bar),
        None => Vec::new(),
    };
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut report = verify(
        &bytes,
        &Against {
            trust: &trust,
            now: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            seen: seen.as_deref(),
            log: log.as_ref().map(|log| log.leaves.as_slice()),
            laid: log.as_ref().map(|log| (log.laid.as_slice(), log.seals.as_slice())),
            artefacts: args.inputs.is_some().then_some(&artefacts),
        },
    );
    report.checks.extend(log.as_ref().map(Log::unanswered));
    bar.finish_and_clear();
    let evidence = remember(args, &report)?;
    tell(args, settings, &report, evidence.as_deref())?;
    match report.code() {
        0 => Ok(()),
        code => Err(Failure::Unverified(code)),
    }
}

/// Moves the state on, or writes down what contradicts it; returns where.
fn remember(args: &VerifyArgs, report: &Report) -> Outcome<Option<PathBuf>> {
    if let Some((before, now)) = &report.evidence {
        let path = args.state.clone().unwrap_or_else(|| args.bundle.clone()).with_extension("evidence.json");
        atomic::write(&path, format!("{}\n", json!({"treeHeads": [before, now]})).as_bytes())?;
        return Ok(Some(path));
    }
    if let (Some(file), Some(note)) = (&args.state, &report.remember) {
        atomic::write(file, note.as_bytes())?;
    }
    Ok(None)
}

fn verdict(code: u8) -> &'static str {
    match code {
        0 => "OK",
        10 => "MALFORMED",
        11 => "SIGNATURE",
        12 => "KEY NOT VALID AT THAT INDEX",
        13 => "NOT INCLUDED",
        14 => "INCONSISTENT",
        15 => "ARTEFACT MISMATCH",
        16 => "RECOMPUTATION MISMATCH",
        17 => "POLICY",
        _ => "UNBOUND",
    }
}

fn tell(args: &VerifyArgs, settings: &Settings, report: &Report, evidence: Option<&Path>) -> Outcome<()> {
    let code = report.code();
    let leaf = report.leaf.map(|leaf| data_encoding::HEXLOWER.encode(&leaf));
    let evidence = evidence.map(|path| path.display().to_string());
    if settings.json() {
        let check = |check: &Check| {
            let (outcome, code) = match check.outcome {
                Found::Passed => ("passed", None),
                Found::Failed(code) => ("failed", Some(code)),
                Found::NotChecked => ("not_checked", None),
            };
            json!({"check": check.name, "outcome": outcome, "code": code, "detail": check.detail})
        };
        return say(json!({
            "bundle": args.bundle.display().to_string(), "code": code, "verdict": verdict(code), "leaf": leaf,
            "checks": report.checks.iter().map(check).collect::<Vec<_>>(), "evidence": evidence,
        }));
    }
    for check in &report.checks {
        let outcome = match check.outcome {
            Found::Passed => "passed".to_owned(),
            Found::Failed(code) => format!("FAILED ({code})"),
            Found::NotChecked => "NOT CHECKED".to_owned(),
        };
        say(format_args!("{outcome:<12} {}: {}", check.name, check.detail))?;
    }
    if let Some(evidence) = evidence {
        say(format_args!("evidence     {evidence}"))?;
    }
    say(format_args!("{}: {} (exit {code})", args.bundle.display(), verdict(code)))
}

fn read(path: &Path, most: usize) -> Outcome<Vec<u8>> {
    let wrong = |e: std::io::Error| Failure::because(format!("{}: {e}", path.display()));
    let mut bytes = Vec::new();
    // One byte more than is admitted, so that a longer file is refused and not cut.
    std::fs::File::open(path).map_err(wrong)?.take(most as u64 + 1).read_to_end(&mut bytes).map_err(wrong)?;
    Ok(bytes)
}

/// The lines of a file, none longer than [`MAX_LINE`].
fn lines(path: &Path) -> std::io::Result<impl Iterator<Item = std::io::Result<String>>> {
    let mut reader = BufReader::new(std::fs::File::open(path)?);
    Ok(std::iter::from_fn(move || {
        let mut line = Vec::new();
        match reader.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(bytes) if bytes as u64 > MAX_LINE => Some(Err(std::io::Error::other("a line of more than 4 MiB"))),
            Ok(_) => Some(String::from_utf8(line).map_err(|_| std::io::Error::other("a line that is not UTF-8"))),
            Err(error) => Some(Err(error)),
        }
    }))
}

/// What a log file says, entry by entry.
#[derive(Debug, Default)]
struct Log {
    /// Each from the payload itself.
    leaves: Vec<Hash>,
    /// The preregistrations among them.
    laid: Vec<Laid>,
    /// The seals among them.
    seals: Vec<Sealed>,
    /// The accepted evaluations among them, by index.
    acceptances: Vec<(usize, Acceptance)>,
    /// Leaf hashes of the receipts among them that admit a contribution, by their first index.
    receipts: HashMap<Hash, usize>,
    /// Leaf hashes of the preregistrations whose outcome is among them, hex.
    answered: HashSet<String>,
}

impl Log {
    /// The acceptances and the admitting receipts that stand before a statement: only these does its tree head vouch for, and only these
    /// could it rest on.
    fn before(&self, payload: &[u8]) -> (Vec<Acceptance>, HashSet<Hash>) {
        let own = leaf_of(payload);
        let index = self.leaves.iter().position(|leaf| *leaf == own).unwrap_or(0);
        let acceptances = self.acceptances.iter().filter(|(at, _)| *at < index).map(|(_, own)| own.clone());
        let receipts = self.receipts.iter().filter(|(_, at)| **at < index).map(|(leaf, _)| *leaf);
        (acceptances.collect(), receipts.collect())
    }

    /// Lists the attempts that were laid down and have no outcome: they count as attempts.
    fn unanswered(&self) -> Check {
        let open: Vec<String> = self.laid.iter().filter(|own| !self.answered.contains(&own.leaf)).map(told).collect();
        let detail = match open.as_slice() {
            [] => format!("none of {}", self.laid.len()),
            open => format!("{} of {}: {}", open.len(), self.laid.len(), open.join(", ")),
        };
        Check { name: "unanswered preregistrations", outcome: Found::Passed, detail }
    }
}

fn told(laid: &Laid) -> String {
    format!("leaf {}, evaluation {}", laid.index, laid.said.evaluation_id)
}

/// Reads a log file.
fn leaves(path: &Path) -> Outcome<Log> {
    #[derive(serde::Deserialize)]
    struct Line<'a> {
        index: u64,
        #[serde(borrow)]
        envelope: &'a serde_json::value::RawValue,
    }
    let Log { mut leaves, mut laid, mut seals, mut acceptances, mut answered, mut receipts } = Log::default();
    for line in lines(path).map_err(|e| Failure::because(format!("{}: {e}", path.display())))? {
        let wrong = |detail: &dyn std::fmt::Display| {
            Failure::because(format!("{}:{}: {detail}", path.display(), leaves.len() + 1))
        };
        let line = line.map_err(|e| wrong(&e))?;
        let entry: Line<'_> = serde_json::from_str(&line).map_err(|_| wrong(&"no line of a log"))?;
        if entry.index != leaves.len() as u64 {
            return Err(wrong(&"not the next index; help: a log file holds every entry from 0 on"));
        }
        let envelope = Envelope::from_json(entry.envelope.get().as_bytes()).map_err(|e| wrong(&e))?;
        let leaf = leaf_of(&envelope.payload);
        match Statement::read(&envelope.payload).map(|statement| statement.predicate) {
            Ok(Predicate::Preregistration(own)) => {
                let (leaf, index) = (data_encoding::HEXLOWER.encode(&leaf), entry.index);
                laid.push(Laid { index, leaf, said: *own });
            }
            Ok(Predicate::Evaluation(own)) => {
                acceptances.extend(Acceptance::of(&own).map(|own| (leaves.len(), own)));
                answered.insert(own.pre_registration.value);
            }
            Ok(Predicate::Contribution(own)) if own.status == Contribution::ADMITTED => {
                receipts.entry(leaf).or_insert(leaves.len());
            }
            Ok(Predicate::Benchmark(own)) => {
                let BenchmarkDecision { benchmark, family, model, seal, .. } = *own;
                let index = entry.index;
                seals.extend(seal.map(|facts| Sealed { index, model, benchmark, family, facts }));
            }
            _ => {}
        }
        leaves.push(leaf);
    }
    Ok(Log { leaves, laid, seals, acceptances, answered, receipts })
}

/// What the files of a folder prove of a statement.
fn inputs(
    folder: &Path,
    (statement, payload): (&Statement, &[u8]),
    log: Option<&Log>,
    bar: &ProgressBar,
) -> Vec<Check> {
    let said = match &statement.predicate {
        Predicate::Contribution(said) => said,
        Predicate::Attribution(_) => return vec![models(folder, statement)],
        Predicate::Evaluation(_) | Predicate::Preregistration(_) => {
            let tell = |what: &str, done: u64, of: u64| {
                bar.set_message(what.to_owned());
                bar.set_length(of);
                bar.set_position(done);
            };
            let before = log.map(|log| log.before(payload));
            let with = With {
                acceptances: before.as_ref().map(|(acceptances, _)| acceptances.as_slice()),
                receipts: before.as_ref().map(|(_, receipts)| receipts),
                threads: std::thread::available_parallelism().map_or(1, usize::from),
                tell: &tell,
            };
            let found = recompute::checks(folder, statement, payload, &with);
            return found.unwrap_or_else(|| vec![models(folder, statement)]);
        }
        Predicate::Registry(_) => return vec![version(folder, statement)],
        Predicate::Benchmark(_) | Predicate::KeyEvent(_) => {
            let detail = "this version recomputes no root of a seal: level 2 of an evaluation on it does";
            return vec![Check { name: ARTEFACTS, outcome: Found::NotChecked, detail: detail.to_owned() }];
        }
    };
    let unreadable = |detail: String| vec![Check { name: ARTEFACTS, outcome: Found::Failed(15), detail }];
    let mut receipts = Vec::new();
    let files = match std::fs::read_dir(folder) {
        Ok(files) => files,
        Err(error) => return unreadable(format!("{}: {error}", folder.display())),
    };
    for file in files.flatten() {
        let path = file.path();
        if !path.extension().is_some_and(|e| e == "json" || e == "jsonl") {
            continue;
        }
        match receipts_in(&path, &said.contribution_id) {
            Ok(found) => receipts.extend(found),
            Err(error) => return unreadable(format!("{}: {error}", path.display())),
        }
    }
    receipt::checks(statement, &receipts)
}

/// Whether a folder holds the candidate that a statement is about, and the baseline beside it.
fn models(folder: &Path, statement: &Statement) -> Check {
    let name = ARTEFACTS;
    let (baseline, candidate) = match &statement.predicate {
        Predicate::Evaluation(said) => (&said.baseline.digest, &said.candidate.digest),
        Predicate::Preregistration(said) => (&said.baseline.digest, &said.candidate.digest),
        Predicate::Attribution(said) => (&said.baseline, &said.candidate),
        _ => return Check { name, outcome: Found::NotChecked, detail: "not about models".to_owned() },
    };
    let found = match digests(folder) {
        Ok(found) => found,
        Err(error) => {
            return Check { name, outcome: Found::Failed(15), detail: format!("{}: {error}", folder.display()) };
        }
    };
    let missing: Vec<&str> = [("candidate", candidate), ("baseline", baseline)]
        .into_iter()
        .filter(|(_, digest)| !found.contains(digest))
        .map(|(who, _)| who)
        .collect();
    if missing.is_empty() {
        let detail = "both models, by their digests; the sealed rows were not looked at".to_owned();
        return Check { name, outcome: Found::Passed, detail };
    }
    let help = "help: `hokusai attestation inputs` writes all inputs, `hokusai model export` artefacts alone";
    let detail = format!("no inputs.json, and no file is the {}; {help}", missing.join(" or the "));
    Check { name, outcome: Found::Failed(15), detail }
}

/// Whether a folder holds the artefact of the version that a decision is about.
fn version(folder: &Path, statement: &Statement) -> Check {
    let subject = &statement.subject;
    let (outcome, detail) = match digests(folder) {
        Err(error) => (Found::Failed(15), format!("{}: {error}", folder.display())),
        Ok(found) if found.iter().any(|digest| subject.digest("sha256") == Some(digest)) => {
            (Found::Passed, format!("the artefact of {}, by its digest", subject.name))
        }
        Ok(_) => {
            let help = "help: `hokusai model export MODEL@VERSION --native FILE` writes it";
            (Found::Failed(15), format!("no file is the artefact of {}; {help}", subject.name))
        }
    };
    Check { name: ARTEFACTS, outcome, detail }
}

/// SHA-256 of every file of a folder that can be a model, hex.
fn digests(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(folder)? {
        let file = file?;
        let most = crate::ml::artefact::MAX_BYTES as u64;
        if file.file_type()?.is_file() && file.metadata()?.len() <= most {
            let digest = recompute::folder::digest(&file.path(), most);
            found.push(digest.map_err(|e| std::io::Error::other(e.detail))?.0);
        }
    }
    Ok(found)
}

/// The receipts of a contribution in a file: as they are, or as `watch` wraps them.
fn receipts_in(path: &Path, id: &str) -> std::io::Result<Vec<Receipt>> {
    let mut found = Vec::new();
    let facts = std::fs::metadata(path)?;
    if !facts.is_file() {
        return Err(std::io::Error::other("not a file"));
    }
    // Other lines of other files, and files that grow while they are read, are none of ours.
    let mut bytes = Vec::new();
    if facts.len() <= MAX_LINE {
        std::fs::File::open(path)?.take(MAX_LINE).read_to_end(&mut bytes)?;
    }
    let whole = serde_json::from_slice::<Value>(&bytes).ok();
    let values: Box<dyn Iterator<Item = std::io::Result<Option<Value>>>> = match whole {
        Some(value) => Box::new(std::iter::once(Ok(Some(value)))),
        None => Box::new(lines(path)?.map(|line| Ok(serde_json::from_str(&line?).ok()))),
    };
    for value in values {
        let Some(mut value) = value? else { continue };
        if value.get("value").is_some_and(Value::is_object) {
            value = value["value"].take();
        }
        if value.get("contribution_id").and_then(Value::as_str) == Some(id)
            && let Ok(receipt) = serde_json::from_value(value)
        {
            found.push(receipt);
        }
    }
    Ok(found)
}
