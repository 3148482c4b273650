//! Intake: from a chunk as an outsider sent it to screened rows, refusals, and one manifest.
//!
//! One record of `contributions` is one chunk. In order: read the record (what cannot be read at all is a dead
//! letter), check its signature if it bears one, open its payload if it is sealed (in memory only: from here on it is the plain chunk), find its id, its model and its contract, decode the payload, check every row, tokenise personal data,
//! hash rows over normalised values, cut the rows by hash shard. Out go the screened rows by shard, refusals that
//! name code, column, rule and *shape*, and one manifest. A chunk that is refused as a whole has a manifest too, so
//! that its contribution gets a receipt.
//!
//! Invariants:
//! * what leaves is a function of the record, its position and append time, the key ring, and the contract whose
//!   digest stands in the manifest; batch borders and time play no part;
//! * `received` = rows in shards + Σ `refused`; a chunk that cannot be parsed counts as one row;
//! * no value of a refused row and no detected personal data leaves, in any record, log line or error;
//! * a row whose features stand in a sealed benchmark is refused, whatever its label: the answer tells that x is sealed, never
//!   what its label is (`contamination`);
//! * an id comes from the value, else from the record's key; without either, a chunk that is alone gets an HMAC of
//!   contributor and content, and every other one an HMAC of its position (such a chunk is refused).

mod checks;
pub mod contamination;
pub mod contract;
mod decode;
mod identity;
mod models;
mod near;
mod parts;
mod protect;
mod refusals;
mod screen;
pub mod sealing;
mod shape;
mod signature;
pub(crate) mod sql;
mod sums;

use std::sync::Arc;

use self::contamination::{Benchmarks, FilterSource};
use self::identity::Identity;
use self::models::{Keys, Models, Ready};
use self::refusals::{Account, Whole};
use crate::attest::contributor::Scheme;
use crate::codec::contribution;
use crate::codec::formats::Decoded;
use crate::codec::sealed;
use crate::codec::wire::Wire;
use crate::domain::keys::LiveKeys;
use crate::domain::records::{
    Benchmark, ChunkId, Contribution, Manifest, ManifestEvent, Mark, Model, Position, Refused, ScreenedEvent,
    ScreenedRows, ShardRows,
};
use crate::domain::topics;
use crate::domain::{limits, quality};
use crate::sealing::filter::MatchFilter;
use crate::stages::limits::split_by_size;
use crate::stream::stage::{Batch, Context, Destination, Message, Outputs, Stage, StageError, Tick};

/// What a chunk may be at most. Checked before memory is taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the payload as it was sent.
    pub payload_bytes: usize,
    /// Bytes of the decoded rows.
    pub decoded_bytes: usize,
    /// Rows.
    pub rows: usize,
    /// Bytes of the texts of one row: its tokens must still fit into one record.
    pub row_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            payload_bytes: limits::MAX_CHUNK_WIRE,
            decoded_bytes: limits::MAX_CHUNK_DECODED,
            rows: limits::MAX_CHUNK_ROWS,
            row_bytes: 96 << 10,
        }
    }
}

/// The stage; see the module.
#[derive(Debug)]
pub struct Intake {
    models: Models,
    benchmarks: Benchmarks,
    limits: Limits,
}

/// A chunk on its way through intake.
struct Chunk<'a> {
    batch: &'a Batch,
    message: &'a Message<'a>,
    identity: Identity,
    contribution: Contribution,
    /// How the contributor has signed it, once that is verified.
    signature: Option<Scheme>,
    pseudonyms: Vec<String>,
}

impl Intake {
    /// The stage with the tenant's keys.
    #[must_use]
    pub fn new(keys: impl Into<LiveKeys>, limits: Limits) -> Self {
        Self { models: Models::new(keys.into()), benchmarks: Benchmarks::default(), limits }
    }

    /// The same, with where the match filters of sealed benchmarks come from.
    #[must_use]
    pub fn with_filters(mut self, source: Box<dyn FilterSource>) -> Self {
        self.benchmarks.read_from(source);
        self
    }

    fn chunk(
        &mut self,
        context: &Context<'_>,
        batch: &Batch,
        message: &Message<'_>,
        out: &mut Outputs<'_>,
    ) -> Result<(), StageError> {
        let Some(value) = message.value else {
            out.dead_letter(batch, message, "empty", "the record has no value".to_owned());
            return Ok(());
        };
        let mut contribution = match contribution::decode(out.wire(), value) {
            Ok(contribution) => contribution,
            Err(error) if error.is_retriable() => return Err(error.into()),
            Err(error) => {
                out.dead_letter(batch, message, "unreadable", error.to_string());
                return Ok(());
            }
        };
        let record_key = message.key.filter(|key| !key.is_empty());
        // A signature is over what was sent: it is looked at before anything is opened.
        let signed = signature::verify(&contribution, record_key);
        let opened = sealed::open(&mut contribution, record_key, self.models.ring(), self.limits.payload_bytes);
        let keys = Keys::new(self.models.ring(), &contribution.model);
        let (identity, fault) = identity::identify(&contribution, batch, message, &keys);
        let fault = fault.or_else(|| signed.as_ref().err().map(|fault| Whole::signature(*fault)));
        let fault = fault.or_else(|| opened.err().map(|error| Whole::sealed(&error)));
        let pseudonyms = self.models.ring().pseudonyms(&contribution.contributor, message.timestamp);
        let chunk = Chunk { batch, message, identity, contribution, signature: signed.ok().flatten(), pseudonyms };
        match self.account(context, &chunk, fault)? {
            (None, account) => chunk.emit(&keys, "", account, out),
            (Some(ready), account) => chunk.emit(&keys, ready.contract.digest(), account, out),
        }
    }

    /// What becomes of a chunk.
    fn account(
        &mut self,
        context: &Context<'_>,
        chunk: &Chunk<'_>,
        fault: Option<Whole>,
    ) -> Result<(Option<Arc<Ready>>, Account), StageError> {
        if let Some(fault) = fault {
            return Ok((None, Account::refused(fault, 1)));
        }
        let contribution = &chunk.contribution;
        let (ready, keys) = match self.models.resolve(&contribution.model, contribution.contract_digest.as_deref()) {
            Ok(found) => found,
            Err(_) if !context.broadcast_is_current => return Err(StageError::NeedsBroadcast),
            Err(reason) => return Ok((None, Account::refused(Whole::unknown(reason), 1))),
        };
        let decoded = match decode::decode(&ready.contract, contribution, &self.limits) {
            Ok(decoded) => decoded,
            Err(whole) => return Ok((Some(ready), Account::refused(whole, 1))),
        };
        // Before any row is looked at, so that what does not depend on rows does not depend on them.
        let compared = self.benchmarks.of(&contribution.model)?;
        let mut account = self.rows(context, chunk, &ready, &keys, &compared.filters, decoded)?;
        (account.match_filters, account.collision_ppm) = (compared.digests, compared.collision_ppm);
        Ok((Some(ready), account))
    }

    fn rows(
        &self,
        context: &Context<'_>,
        chunk: &Chunk<'_>,
        ready: &Ready,
        keys: &Keys,
        sealed: &[Arc<MatchFilter>],
        decoded: Decoded,
    ) -> Result<Account, StageError> {
        let received = count_of(decoded.received);
        let schema_faults = refusals::schema_faults(&ready.contract, &decoded);
        if !schema_faults.is_empty() {
            let mut account = Account::refused_all(schema_faults, received);
            account.quality.incompatible_schema = true;
            return Ok(account);
        }
        let source = screen::Source {
            contribution_id: &chunk.identity.contribution_id,
            chunk: chunk.identity.chunk,
            appended: chunk.message.timestamp,
            shards: u32::try_from(context.partitions_of(topics::SCREENED)).unwrap_or(1).max(1),
            row_bytes: self.limits.row_bytes,
            sealed,
        };
        let leaks = refusals::leaks(&ready.contract, &decoded);
        let mut account = screen::screen(ready, keys, self.models.ring(), &source, decoded)?;
        quality::merge(&mut account.quality, &leaks);
        Ok(account)
    }
}

impl Chunk<'_> {
    /// Sends what became of the chunk: rows, refusals, manifest.
    fn emit(
        &self,
        keys: &Keys,
        contract_digest: &str,
        account: Account,
        out: &mut Outputs<'_>,
    ) -> Result<(), StageError> {
        let id = ChunkId {
            contribution_id: self.identity.contribution_id.clone(),
            contributor: self.contribution.contributor.clone(),
            model: self.contribution.model.clone(),
            contract_digest: contract_digest.to_owned(),
            chunk: self.identity.chunk,
            chunk_digest: data_encoding::HEXLOWER.encode(&keys.model.chunk_digest(&self.contribution.payload)),
            passed: account.passed.clone(),
        };
        let position = Position {
            topic: self.batch.topic().to_owned(),
            partition: self.batch.partition(),
            offset: self.message.offset,
        };
        count(&account, self.message.value.map_or(0, <[u8]>::len));
        let mut shards = Vec::with_capacity(account.shards.len());
        for (shard, parts) in account.shards {
            let shard = i32::try_from(shard).unwrap_or(i32::MAX);
            shards.push(ShardRows { shard, rows: parts.iter().map(|p| count_of(p.rows)).sum() });
            send_rows(&id, shard, parts, account.refuse_label_conflicts, out)?;
        }
        for refusals in split_by_size(account.refusals, refusals::size) {
            let record =
                Refused { id: id.clone(), stage: "intake".to_owned(), position: Some(position.clone()), refusals };
            out.send(topics::REFUSED, Destination::ByKey, id.contribution_id.as_bytes(), &record)?;
        }
        let manifest = Manifest {
            chunks: self.identity.chunks,
            received: account.received,
            refused: refusals::counts(account.refused),
            shards,
            quality: account.quality,
            pii: refusals::counts(account.pii),
            chunk_root: account.chunk_root,
            position,
            appended: self.message.timestamp,
            contributor_pseudonyms: self.pseudonyms.clone(),
            contributor_signature: self.signature.map(|scheme| scheme.name().to_owned()),
            match_filters: account.match_filters,
            collision_ppm: account.collision_ppm,
            id,
        };
        let key = manifest.id.contribution_id.clone();
        out.send(
            topics::MANIFESTS,
            Destination::ByKey,
            key.as_bytes(),
            &ManifestEvent { manifest: Some(manifest), mark: None },
        )
    }
}

fn send_rows(
    id: &ChunkId,
    shard: i32,
    parts: Vec<parts::Part>,
    refuse_label_conflicts: bool,
    out: &mut Outputs<'_>,
) -> Result<(), StageError> {
    let count = i32::try_from(parts.len()).unwrap_or(i32::MAX);
    for (part, content) in (0..).zip(parts) {
        let rows = ScreenedRows {
            id: id.clone(),
            shard,
            part,
            parts: count,
            rows: count_of(content.rows),
            refuse_label_conflicts,
            batch: content.stream,
        };
        let record = ScreenedEvent { rows: Some(rows), release: None };
        out.send(topics::SCREENED, Destination::Partition(shard), shard.to_string().as_bytes(), &record)?;
    }
    Ok(())
}

fn count_of(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// Metrics count attempts: a batch that is processed again after an abort counts again.
fn count(account: &Account, bytes: usize) {
    let number = |n: i64| u64::try_from(n).unwrap_or(0);
    metrics::counter!("hokusai_intake_chunks_total").increment(1);
    metrics::counter!("hokusai_intake_bytes_total").increment(bytes as u64);
    metrics::counter!("hokusai_intake_rows_total").increment(number(account.received));
    for (code, count) in &account.refused {
        metrics::counter!("hokusai_refusals_total", "code" => code.clone()).increment(number(*count));
    }
    for (kind, count) in &account.pii {
        metrics::counter!("hokusai_intake_pii_cells_total", "type" => kind.clone()).increment(number(*count));
    }
}

impl Stage for Intake {
    type State = ();

    const MARKS: bool = true;

    fn name(&self) -> &'static str {
        "intake"
    }

    fn state(&self) -> Self::State {}

    fn broadcast(&mut self, topic: &str, key: &[u8], value: Option<&[u8]>, wire: &Wire) -> Result<(), StageError> {
        if topic == topics::BENCHMARKS {
            let benchmark = value.map(|value| wire.decode::<Benchmark>(value)).transpose()?;
            self.benchmarks.fold(&String::from_utf8_lossy(key), benchmark);
            return Ok(());
        }
        if topic != topics::MODELS {
            return Ok(());
        }
        let model = value.map(|value| wire.decode::<Model>(value)).transpose()?;
        let name = String::from_utf8_lossy(key);
        self.models.fold(&name, model).map_err(|error| StageError::Compute {
            what: format!("the contract of model {name}"),
            detail: error.to_string(),
        })
    }

    fn process(
        &mut self,
        context: &Context<'_>,
        _state: &mut (),
        batch: &Batch,
        out: &mut Outputs<'_>,
    ) -> Result<(), StageError> {
        self.models.follow_keys();
        for message in batch.iter() {
            self.chunk(context, batch, &message, out)?;
        }
        Ok(())
    }

    fn mark(&mut self, context: &Context<'_>, tick: &Tick, out: &mut Outputs<'_>) -> Result<(), StageError> {
        let mark = Mark { source: tick.source, sources: tick.sources, high_time: tick.high_time, at_end: tick.at_end };
        let event = ManifestEvent { manifest: None, mark: Some(mark) };
        for partition in 0..context.partitions_of(topics::MANIFESTS) {
            let key = format!("mark/{}", tick.source);
            out.send(topics::MANIFESTS, Destination::Partition(partition), key.as_bytes(), &event)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
