//! The offline check of a bundle, as one pure function: what was checked, with what outcome, and what was not.
//!
//! Codes of failures are those of `hokusai verify`:
//!
//! | code | meaning |
//! |---|---|
//! | 10 | malformed or not canonical |
//! | 11 | a signature |
//! | 12 | a key that may not sign at that index |
//! | 13 | not included in the log |
//! | 14 | inconsistent with an earlier tree head, or rolled back |
//! | 15 | an artefact does not match |
//! | 16 | a recomputation does not match |
//! | 17 | policy: expired trust, too few witnesses, an evaluation without its preregistration before it or miscounted |
//! | 19 | unbound: nothing was given that the statement is about |
//!
//! The first failure in that order of checks gives the code; without a failure and without an artefact it is 19, never 0.

use super::bundle::Bundle;
use super::checkpoint::Checkpoint;
use super::evaluation::{Laid, Sealed};
use super::nodes::{self, MemoryNodes};
use super::note::{Algorithm, Note, NoteKey};
use super::predicate::KeyEvent;
use super::roots::{Role, RootError, TrustRoot};
use super::statement::{PAYLOAD_TYPE, Predicate, Statement, leaf_of};
use super::tree::{Hash, verify_consistency};

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It does not; the exit code.
    Failed(u8),
    /// It was not made.
    NotChecked,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// With what outcome.
    pub outcome: Outcome,
    /// What was found, or what is missing.
    pub detail: String,
}

/// What an artefact says of a statement and its signed bytes: added by whoever can read it.
pub type Artefacts<'a> = dyn Fn(&Statement, &[u8]) -> Vec<Check> + 'a;

/// What a bundle is checked against.
pub struct Against<'a> {
    /// Trust roots, the oldest first, each the successor of the one before.
    pub trust: &'a [Vec<u8>],
    /// Now, in seconds since 1970-01-01 UTC: only for the expiry of the trust root.
    pub now: i64,
    /// The tree head that the verifier saw last.
    pub seen: Option<&'a [u8]>,
    /// Every leaf of the log, from the first on.
    pub log: Option<&'a [Hash]>,
    /// Every preregistration and every seal of the same log, from the first on.
    pub laid: Option<(&'a [Laid], &'a [Sealed])>,
    /// Looks at artefacts; none when none were given.
    pub artefacts: Option<&'a Artefacts<'a>>,
}

/// The result.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Every check, in order.
    pub checks: Vec<Check>,
    /// The statement, when it could be read.
    pub statement: Option<Statement>,
    /// Its leaf.
    pub leaf: Option<Hash>,
    /// Two signed tree heads that contradict each other: portable evidence.
    pub evidence: Option<(String, String)>,
    /// The tree head to remember: the bundle's, when it verified and is the newest that was seen.
    pub remember: Option<String>,
}

impl Report {
    /// The exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        let failed = self.checks.iter().find_map(|check| match check.outcome {
            Outcome::Failed(code) => Some(code),
            Outcome::Passed | Outcome::NotChecked => None,
        });
        let bound = self.checks.iter().any(|c| c.name == ARTEFACTS && c.outcome == Outcome::Passed);
        failed.unwrap_or(if bound { 0 } else { 19 })
    }

    fn add(&mut self, name: &'static str, outcome: Outcome, detail: impl Into<String>) {
        self.checks.push(Check { name, outcome, detail: detail.into() });
    }

    fn passed(&mut self, name: &'static str, detail: impl Into<String>) {
        self.add(name, Outcome::Passed, detail);
    }

    fn failed(&mut self, name: &'static str, code: u8, detail: impl Into<String>) {
        self.add(name, Outcome::Failed(code), detail);
    }

    fn left_out(&mut self, name: &'static str, detail: impl Into<String>) {
        self.add(name, Outcome::NotChecked, detail);
    }
}

/// Name of the check that binds the statement to what it is about.
pub const ARTEFACTS: &str = "artefacts";
/// Names of the three levels at which an evaluation is recomputed.
pub const LEVELS: [&str; 3] = ["level 1, figures", "level 2, predictions", "level 3, retraining"];
const NAMES: [&str; 10] = [
    "trust root",
    "bundle",
    "statement",
    "statement signature",
    "tree head signature",
    "inclusion",
    "witnesses",
    "earlier tree head",
    "whole log",
    ARTEFACTS,
];

/// Checks a bundle.
#[must_use]
pub fn verify(bundle: &[u8], against: &Against<'_>) -> Report {
    let mut report = Report::default();
    if let Some((root, bundle, statement)) = readable(bundle, against, &mut report) {
        let leaf = leaf_of(&bundle.envelope.payload);
        report.leaf = Some(leaf);
        signature(&root, &bundle, &mut report);
        let head = tree_head(&root, &bundle.proof.checkpoint, &bundle.proof.note, &mut report);
        match bundle.proof.verify(&leaf) {
            Ok(()) => {
                report.passed("inclusion", format!("leaf {} of {}", bundle.proof.index, bundle.proof.checkpoint.size))
            }
            Err(error) => report.failed("inclusion", 13, error.to_string()),
        }
        witnesses(&root, &bundle.proof.note, &mut report);
        if head {
            earlier(&root, &bundle, against, &mut report);
        }
        whole_log(&bundle, &leaf, against, &mut report);
        preregistration(&bundle, &statement, against, &mut report);
        artefacts(&root, (&statement, &bundle.envelope.payload), against, &mut report);
        shares(&statement, &mut report);
        if matches!(statement.predicate, Predicate::Evaluation(_)) {
            let done: Vec<&'static str> = report.checks.iter().map(|check| check.name).collect();
            for name in LEVELS.into_iter().filter(|name| !done.contains(name)) {
                report.left_out(name, "no --inputs with inputs.json: `hokusai attestation inputs` writes them");
            }
        }
        report.statement = Some(statement);
    }
    for name in NAMES {
        if !report.checks.iter().any(|check| check.name == name) {
            report.left_out(name, "an earlier check failed");
        }
    }
    if !matches!(report.code(), 0 | 19) {
        report.remember = None;
    }
    report
}

/// Reads trust root, bundle and statement; without any of them nothing else can be checked.
fn readable(bytes: &[u8], against: &Against<'_>, report: &mut Report) -> Option<(TrustRoot, Bundle, Statement)> {
    let root = match trust(against.trust) {
        Ok(root) => root,
        Err(error) => {
            let code = if matches!(error, RootError::Threshold { .. }) { 11 } else { 10 };
            report.failed("trust root", code, error.to_string());
            return None;
        }
    };
    let told = format!("version {} of {}, expires {}", root.version, root.origin, root.expires);
    if root.expired(against.now) {
        report.failed("trust root", 17, format!("{told}: it has expired; help: get its successor"));
    } else {
        report.passed("trust root", told);
    }
    let bundle = match Bundle::from_json(bytes) {
        Ok(bundle) => bundle,
        Err(error) => {
            report.failed("bundle", 10, error.to_string());
            return None;
        }
    };
    report.passed("bundle", format!("{} bytes", bytes.len()));
    if bundle.envelope.payload_type != PAYLOAD_TYPE {
        report.failed("statement", 10, format!("the payload is of another type than {PAYLOAD_TYPE}"));
        return None;
    }
    match Statement::read(&bundle.envelope.payload) {
        Ok(statement) => {
            report.passed("statement", format!("canonical, {}", statement.predicate.uri()));
            Some((root, bundle, statement))
        }
        Err(error) => {
            report.failed("statement", 10, error.to_string());
            None
        }
    }
}

fn trust(chain: &[Vec<u8>]) -> Result<TrustRoot, RootError> {
    let mut roots = chain.iter();
    let first = roots.next().ok_or_else(|| RootError::Form("none was given".to_owned()))?;
    roots.try_fold(TrustRoot::open(first)?, |root, next| root.succeed(next))
}

fn signature(root: &TrustRoot, bundle: &Bundle, report: &mut Report) {
    const NAME: &str = "statement signature";
    let signers: Vec<_> = root.keys_of(Role::Attester).filter(|k| bundle.envelope.is_signed_by(&k.key)).collect();
    let Some(signer) = signers.first() else {
        report.failed(NAME, 11, "no attester of the trust root has signed these bytes");
        return;
    };
    let id = super::dsse::key_id(&signer.key);
    if signers.iter().any(|key| key.covers(bundle.proof.index)) {
        report.passed(NAME, format!("Ed25519, attester {id}, valid at index {}", bundle.proof.index));
    } else {
        report.failed(NAME, 12, format!("attester {id} may not sign at index {}", bundle.proof.index));
    }
}

/// A tree head of the log, signed by a key that may sign it.
fn tree_head(root: &TrustRoot, head: &Checkpoint, note: &Note, report: &mut Report) -> bool {
    const NAME: &str = "tree head signature";
    match signed_head(root, head, note) {
        Ok(()) => {
            report.passed(NAME, format!("{} leaves of {}", head.size, head.origin));
            true
        }
        Err((code, detail)) => {
            report.failed(NAME, code, detail);
            false
        }
    }
}

fn signed_head(root: &TrustRoot, head: &Checkpoint, note: &Note) -> Result<(), (u8, String)> {
    if head.origin != root.origin {
        return Err((11, format!("a tree head of {}, the trust root is of {}", head.origin, root.origin)));
    }
    let mut failure = (11, "no key of the trust root has signed it".to_owned());
    for key in root.keys_of(Role::Log) {
        let named = NoteKey { name: head.origin.clone(), algorithm: Algorithm::Log, key: key.key };
        if note.verify(&named).is_ok() {
            // The last leaf is the index at which the key signs.
            if head.size.checked_sub(1).is_some_and(|last| key.covers(last)) {
                return Ok(());
            }
            failure = (12, format!("the log's key may not sign a tree head of {} leaves", head.size));
        }
    }
    Err(failure)
}

fn witnesses(root: &TrustRoot, note: &Note, report: &mut Report) {
    const NAME: &str = "witnesses";
    let times: Vec<u64> = root.witnesses.iter().filter_map(|key| note.verify(key).ok()).collect();
    if root.witness_threshold == 0 {
        report.left_out(NAME, "the trust root demands none: nobody else is known to have seen this tree head");
    } else if times.len() < root.witness_threshold {
        let wanted = root.witness_threshold;
        report.failed(NAME, 17, format!("{} of {wanted} witnesses have signed the tree head", times.len()));
    } else {
        let oldest = times.iter().min().copied().unwrap_or_default();
        report.passed(NAME, format!("{} have signed, the first at {oldest} s", times.len()));
    }
}

/// The tree head that was seen last is the beginning of the bundle's, or the other way round.
fn earlier(root: &TrustRoot, bundle: &Bundle, against: &Against<'_>, report: &mut Report) {
    const NAME: &str = "earlier tree head";
    let (new, note) = (&bundle.proof.checkpoint, &bundle.proof.note);
    let Some(bytes) = against.seen else {
        report.left_out(NAME, "none was seen before (--state): whether the log was rolled back since is not known");
        report.remember = Some(note.to_string());
        return;
    };
    let (old, seen) = match Checkpoint::parse(bytes) {
        Ok(read) => read,
        Err(error) => return report.failed(NAME, 10, format!("the --state: {error}")),
    };
    if let Err((code, detail)) = signed_head(root, &old, &seen) {
        return report.failed(NAME, code, format!("the --state: {detail}"));
    }
    let contradiction = |report: &mut Report, detail: String| {
        report.failed(NAME, 14, detail);
        report.evidence = Some((seen.to_string(), note.to_string()));
    };
    let from_log = against.log.map(|leaves| MemoryNodes::of(leaves.iter().copied()));
    let shown = bundle.consistency.as_ref().filter(|c| c.from == old.size);
    if old.size == new.size {
        if old.root != new.root {
            return contradiction(report, format!("two tree heads of {} leaves with different roots", old.size));
        }
    } else if let Some(log) = from_log.filter(|log| log.size() >= old.size.max(new.size)) {
        let roots = (nodes::root(&log, old.size), nodes::root(&log, new.size));
        if roots != (Ok(old.root), Ok(new.root)) {
            return contradiction(report, "the log that was given does not lead to both tree heads".to_owned());
        }
    } else if old.size > new.size {
        return contradiction(
            report,
            format!("rolled back: {} leaves were seen before, now {}; help: give the whole --log", old.size, new.size),
        );
    } else if let Some(proof) = shown {
        if let Err(error) = verify_consistency(old.size, &old.root, new.size, &new.root, &proof.path) {
            return contradiction(report, format!("{} leaves do not begin {}: {error}", old.size, new.size));
        }
    } else {
        let help = "help: export the bundle with --since the file of --state, or give the whole --log";
        return report.failed(NAME, 14, format!("nothing proves that {} leaves begin {}; {help}", old.size, new.size));
    }
    report.passed(NAME, format!("{} leaves seen before, {} now, one log", old.size, new.size));
    if new.size >= old.size {
        report.remember = Some(note.to_string());
    }
}

fn whole_log(bundle: &Bundle, leaf: &Hash, against: &Against<'_>, report: &mut Report) {
    const NAME: &str = "whole log";
    let Some(leaves) = against.log else {
        return report.left_out(NAME, "no --log: other entries were not looked at");
    };
    let head = &bundle.proof.checkpoint;
    let log = MemoryNodes::of(leaves.iter().copied());
    if log.size() < head.size {
        let detail =
            format!("the log that was given has {} leaves, the tree head {}: ahead of data", log.size(), head.size);
        return report.failed(NAME, 14, detail);
    }
    let index = usize::try_from(bundle.proof.index).unwrap_or(usize::MAX);
    if nodes::root(&log, head.size) != Ok(head.root) {
        report.failed(NAME, 14, "its root is not the tree head's");
    } else if leaves.get(index) != Some(leaf) || leaves.iter().filter(|other| *other == leaf).count() != 1 {
        report.failed(NAME, 13, "the statement does not stand exactly once, at its index");
    } else {
        report.passed(NAME, format!("{} leaves, recomputed", head.size));
    }
}

/// Of an evaluation alone: that it was laid down before, and how many attempts there were.
fn preregistration(bundle: &Bundle, statement: &Statement, against: &Against<'_>, report: &mut Report) {
    const NAME: &str = "preregistration";
    let Predicate::Evaluation(outcome) = &statement.predicate else { return };
    match outcome.earns_its_status() {
        Ok(found) => report.passed("threshold", found),
        Err(problem) => report.failed("threshold", 17, problem),
    }
    match against.laid.map(|(laid, seals)| outcome.follows(bundle.proof.index, laid, seals)) {
        None => {
            let unknown = "neither its place before the outcome, nor the seal, nor the number of attempts";
            report.left_out(NAME, format!("no --log: {unknown} is known"))
        }
        Some(Ok(found)) => report.passed(NAME, found),
        Some(Err(problem)) => report.failed(NAME, 17, problem),
    }
}

/// Of an attribution alone: that its numbers fit each other.
fn shares(statement: &Statement, report: &mut Report) {
    let Predicate::Attribution(told) = &statement.predicate else { return };
    match told.adds_up() {
        Ok(found) => report.passed("values and shares", found),
        Err(problem) => report.failed("values and shares", 16, problem),
    }
    report.left_out("recomputation", "this version does not play the game of an attribution again");
}

fn artefacts(root: &TrustRoot, (statement, payload): (&Statement, &[u8]), against: &Against<'_>, report: &mut Report) {
    if let Predicate::KeyEvent(event) = &statement.predicate {
        // The key itself stands in the trust root.
        return key_event(root, event, report);
    }
    // What nobody vouches for is not worth hours of learning.
    let failed = |check: &Check| matches!(check.outcome, Outcome::Failed(10..=14));
    if report.checks.iter().any(failed) {
        return report.left_out(ARTEFACTS, "an earlier check failed");
    }
    match against.artefacts {
        Some(look) => report.checks.extend(look(statement, payload)),
        None => report.left_out(ARTEFACTS, "no --inputs: UNBOUND, only signatures and log were checked"),
    }
}

fn key_event(root: &TrustRoot, event: &KeyEvent, report: &mut Report) {
    let role = if event.role == "log" { Role::Log } else { Role::Attester };
    let listed = root.keys_of(role).any(|key| {
        data_encoding::HEXLOWER.encode(key.key.as_bytes()) == event.public
            && super::dsse::key_id(&key.key) == event.keyid
            && i64::try_from(key.from).is_ok_and(|from| from == event.from_index)
    });
    if listed {
        report.passed(ARTEFACTS, "the key and its first index stand in the trust root");
    } else {
        report.failed(ARTEFACTS, 15, "the trust root does not list the key from that index on");
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
pub(crate) mod tests;
