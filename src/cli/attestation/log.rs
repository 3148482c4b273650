//! Reading the log from its topics.

use std::time::{Duration, Instant};

use rdkafka::message::Message;

use crate::attest::checkpoint::Checkpoint;
use crate::attest::dsse::Envelope;
use crate::attest::note::Note;
use crate::attest::statement::{Predicate, Statement, leaf_of, statement_hash};
use crate::attest::tree::Hash;
use crate::cli::common::Settings;
use crate::cli::exit::{Failure, Outcome};
use crate::cli::reader::{Reader, Start};
use crate::domain::records::Attestation;
use crate::domain::topics;

/// An entry of the log.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Entry {
    pub index: u64,
    pub leaf: Hash,
    pub envelope: Envelope,
    pub statement: Statement,
}

impl Entry {
    /// Leaf hash, hex.
    pub fn hex(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.leaf)
    }

    /// Id of the contribution that it is about.
    pub fn contribution(&self) -> Option<&str> {
        match &self.statement.predicate {
            Predicate::Contribution(receipt) => Some(&receipt.contribution_id),
            _ => None,
        }
    }
}

/// Shows every entry, in order. What the topic says of an entry is compared with the entry itself.
pub(in crate::cli) fn scan(settings: &Settings, mut each: impl FnMut(Entry) -> Outcome<()>) -> Outcome<()> {
    let mut next = 0;
    Reader::scan(settings, topics::ATTESTATIONS, &Start::Beginning)?.for_each_to_end(|message| {
        let Some(value) = message.payload() else { return Ok(()) };
        let wrong = |detail: &dyn std::fmt::Display| {
            Failure::because(format!("{}: offset {}: {detail}", topics::ATTESTATIONS, message.offset()))
        };
        let record: Attestation = settings.wire.decode(value).map_err(|e| wrong(&e))?;
        let envelope = Envelope::from_json(&record.envelope).map_err(|e| wrong(&e))?;
        let leaf = leaf_of(&envelope.payload);
        let statement = Statement::read(&envelope.payload).map_err(|e| wrong(&e))?;
        let entry = Entry { index: next, leaf, envelope, statement };
        if u64::try_from(record.index) != Ok(next) || record.leaf != entry.hex() {
            return Err(wrong(&format!("index {} and leaf {} are not those of the entry", record.index, record.leaf)));
        }
        next += 1;
        each(entry)
    })
}

/// The newest tree head; none before the first.
pub(in crate::cli) fn newest(settings: &Settings) -> Outcome<Option<(Checkpoint, Note)>> {
    let mut newest = None;
    Reader::scan(settings, topics::CHECKPOINTS, &Start::Beginning)?.for_each_to_end(|message| {
        if let Some(value) = message.payload() {
            newest = Some(Checkpoint::parse(value).map_err(Failure::failed)?);
        }
        Ok(())
    })?;
    Ok(newest)
}

/// Which entry is meant.
#[derive(Debug, Clone)]
pub(in crate::cli) enum Wanted {
    /// By its leaf hash or statement hash, or the first digits of either.
    Hash(String),
    /// The receipt of a contribution.
    Contribution(String),
}

impl Wanted {
    fn is(&self, entry: &Entry) -> bool {
        match self {
            Self::Hash(digits) => {
                let hash = data_encoding::HEXLOWER.encode(&statement_hash(&entry.envelope.payload));
                entry.hex().starts_with(digits.as_str()) || hash.starts_with(digits.as_str())
            }
            Self::Contribution(id) => entry.contribution() == Some(id),
        }
    }
}

/// An entry, and the leaves of the log as far as they were read.
pub(in crate::cli) struct Found {
    pub entry: Entry,
    pub leaves: Vec<Hash>,
}

/// Finds an entry; one that was just asked for may take a moment to come.
pub(in crate::cli) fn find(settings: &Settings, wanted: &Wanted, patience: Duration) -> Outcome<Found> {
    let start = Instant::now();
    loop {
        let (mut found, mut leaves, mut matching) = (None, Vec::new(), 0);
        scan(settings, |entry| {
            leaves.push(entry.leaf);
            if wanted.is(&entry) {
                matching += 1;
                found = Some(entry);
            }
            Ok(())
        })?;
        match found {
            Some(entry) if matching == 1 => return Ok(Found { entry, leaves }),
            Some(_) => return Err(Failure::because(format!("{matching} entries begin so\nhelp: give more digits"))),
            None if start.elapsed() >= patience => {
                let what = match wanted {
                    Wanted::Hash(digits) => format!("no leaf or statement hash of the log begins with {digits}"),
                    Wanted::Contribution(id) => format!("the log has no statement about contribution {id}"),
                };
                return Err(Failure::because(format!("{what}\nhelp: `hokusai attestation list` shows all")));
            }
            None => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
