//! Waiting for the receipts of what was sent.
//!
//! A contribution gets exactly one receipt. When its id had one before this sending, the stages say nothing more for
//! the same content (the old receipt stands) and ID_REUSED for other content. To tell the two apart without guessing
//! a time, the wait follows the sent chunks: to their manifests, then until `receipts` has committed past them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use crate::cli::common::Settings;
use crate::cli::exit::{Failure, Outcome};
use crate::cli::reader::{METADATA_TIMEOUT, Polled, Reader, Start, ends};
use crate::domain::reason::Reason;
use crate::domain::records::{ManifestEvent, Receipt, Refused};
use crate::domain::topics;

/// Ends of the topics that answers come on, taken before the first chunk is sent.
#[derive(Debug, Clone)]
pub struct Before {
    receipts: BTreeMap<i32, i64>,
    refused: BTreeMap<i32, i64>,
    manifests: BTreeMap<i32, i64>,
}

impl Before {
    /// Takes the present ends.
    ///
    /// # Errors
    /// No broker, or no topics.
    pub fn take(settings: &Settings) -> Outcome<Self> {
        Ok(Self {
            receipts: ends(settings, topics::RECEIPTS)?,
            refused: ends(settings, topics::REFUSED)?,
            manifests: ends(settings, topics::MANIFESTS)?,
        })
    }
}

/// A contribution whose answer is awaited.
#[derive(Debug, Clone)]
pub struct Awaited {
    /// Its id.
    pub id: String,
    /// Where its last chunk stands: (partition, offset) in `contributions`; none when nothing was sent now.
    pub last_chunk: Option<(i32, i64)>,
    /// The id may have had a receipt before.
    pub known: bool,
}

/// The answer to a contribution.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its one receipt.
    pub receipt: Receipt,
    /// The id was used before with other content: the receipt is the earlier content's.
    pub reused: bool,
}

/// Finds the present receipts of some ids.
///
/// # Errors
/// No broker or an unreadable receipt.
pub fn receipts_of(settings: &Settings, ids: &BTreeSet<String>) -> Outcome<BTreeMap<String, Receipt>> {
    let mut found = BTreeMap::new();
    Reader::scan(settings, topics::RECEIPTS, &Start::Beginning)?.for_each_to_end(|message| {
        if let Some(receipt) = receipt(settings, message, |id| ids.contains(id))? {
            found.insert(receipt.contribution_id.clone(), receipt);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Waits until every contribution has its answer; calls `each` with (index in `awaited`, answer) as they come.
///
/// # Errors
/// A timeout, a signal, or a broker that is gone for good.
pub fn wait(
    settings: &Settings,
    before: &Before,
    awaited: &[Awaited],
    timeout: Option<Duration>,
    stop: &CancellationToken,
    mut each: impl FnMut(usize, Answer) -> Outcome<()>,
) -> Outcome<()> {
    let deadline = timeout.map(|t| Instant::now() + t);
    let mut open: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, contribution) in awaited.iter().enumerate() {
        open.entry(&contribution.id).or_default().push(index);
    }
    let known = awaited.iter().any(|a| a.known);
    let start = if known { Start::Beginning } else { Start::Offsets(before.receipts.clone()) };
    let mut reader = Reader::open(settings, topics::RECEIPTS, &start)?;
    while !open.is_empty() {
        check(deadline, stop, || open.keys().map(ToString::to_string).collect())?;
        let Polled::Record(message) = reader.poll(Duration::from_millis(100))? else { continue };
        let old = before.receipts.get(&message.partition()).is_some_and(|end| message.offset() < *end);
        let Some(receipt) = receipt(settings, &message, |id| open.contains_key(id))? else { continue };
        for index in open.remove(receipt.contribution_id.as_str()).unwrap_or_default() {
            let Some(contribution) = awaited.get(index) else { continue };
            let reused = old && reused(settings, before, contribution, deadline, stop)?;
            each(index, Answer { receipt: receipt.clone(), reused })?;
        }
    }
    Ok(())
}

/// Reads a receipt if it is one of the wanted; the key is looked at first, so others cost no decoding.
fn receipt(settings: &Settings, message: &impl Message, wanted: impl Fn(&str) -> bool) -> Outcome<Option<Receipt>> {
    let key = message.key().and_then(|key| std::str::from_utf8(key).ok());
    match (key, message.payload()) {
        (Some(id), Some(payload)) if wanted(id) => settings.wire.decode(payload).map(Some).map_err(Failure::failed),
        _ => Ok(None),
    }
}

/// Whether the chunk that was sent now was refused because its id belongs to other content.
fn reused(
    settings: &Settings,
    before: &Before,
    contribution: &Awaited,
    deadline: Option<Instant>,
    stop: &CancellationToken,
) -> Outcome<bool> {
    let Some(position) = contribution.last_chunk else { return Ok(false) };
    let (partition, offset) = manifest_of(settings, before, contribution, position, deadline, stop)?;
    judged(settings, partition, offset, deadline, stop)?;
    let mut found = false;
    Reader::scan(settings, topics::REFUSED, &Start::Offsets(before.refused.clone()))?.for_each_to_end(|message| {
        if message.key() == Some(contribution.id.as_bytes())
            && let Some(payload) = message.payload()
        {
            let refused: Refused = settings.wire.decode(payload).map_err(Failure::failed)?;
            found |= refused.refusals.iter().any(|r| r.code == Reason::IdReused.code());
        }
        Ok(())
    })?;
    Ok(found)
}

/// Where the manifest of a chunk stands: (partition, offset).
fn manifest_of(
    settings: &Settings,
    before: &Before,
    contribution: &Awaited,
    position: (i32, i64),
    deadline: Option<Instant>,
    stop: &CancellationToken,
) -> Outcome<(i32, i64)> {
    let mut reader = Reader::open(settings, topics::MANIFESTS, &Start::Offsets(before.manifests.clone()))?;
    loop {
        check(deadline, stop, || vec![contribution.id.clone()])?;
        let Polled::Record(message) = reader.poll(Duration::from_millis(100))? else { continue };
        let Some(payload) = message.payload() else { continue };
        let event: ManifestEvent = settings.wire.decode(payload).map_err(Failure::failed)?;
        if event.manifest.is_some_and(|m| (m.position.partition, m.position.offset) == position) {
            return Ok((message.partition(), message.offset()));
        }
    }
}

/// Waits until the receipts stage has committed past a manifest.
fn judged(
    settings: &Settings,
    partition: i32,
    offset: i64,
    deadline: Option<Instant>,
    stop: &CancellationToken,
) -> Outcome<()> {
    let group = settings.cluster().group("receipts");
    let consumer: BaseConsumer =
        settings.client().set("group.id", group).create().map_err(|e| Failure::Usage(e.to_string()))?;
    let mut list = TopicPartitionList::new();
    list.add_partition(&settings.topic(topics::MANIFESTS), partition);
    loop {
        check(deadline, stop, Vec::new)?;
        let committed =
            consumer.committed_offsets(list.clone(), METADATA_TIMEOUT).map_err(|e| settings.no_broker(e))?;
        if committed.elements().iter().any(|e| matches!(e.offset(), Offset::Offset(next) if next > offset)) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn check(deadline: Option<Instant>, stop: &CancellationToken, waiting: impl Fn() -> Vec<String>) -> Outcome<()> {
    if stop.is_cancelled() {
        return Err(Failure::because(
            "interrupted while waiting for receipts\nhelp: what was sent stays sent; repeat the command to go on waiting",
        ));
    }
    if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
        return Err(Failure::because(format!(
            "no receipt within --timeout for {}\nhelp: `hokusai doctor` tells whether the stages run",
            waiting().join(", ")
        )));
    }
    Ok(())
}
