//! Closing a contribution: its receipt, the rows it gives up, and what was refused on the way.

use sha2::{Digest, Sha256};

use super::account::{Desk, Misfit, account_error};
use super::model::{Chunk, Closed, Header, Held, Phase, Verdicts, content, party};
use super::store::{Contents, PAGE};
use crate::attest::receipt::statement;
use crate::attest::row::chunk_leaf;
use crate::attest::statement::leaf_of;
use crate::attest::tree::{CompactRange, Hash, empty_root};
use crate::domain::quality::{QualityInputs, merge_counts, score};
use crate::domain::reason::Reason;
use crate::domain::records::{
    AttestationRequest, ChunkId, Count, Manifest, PiiCount, Position, Quality, Receipt, ReceiptChunk, Refusal, Refused,
    RefusedCount, Release, ReleasedChunk,
};
use crate::domain::topics;
use crate::stream::stage::{Destination, StageError};

/// Why receipts refuses.
pub enum Why {
    /// The chunk does not belong to the contribution whose id it bears.
    Misfit(Misfit),
    /// The contribution as a whole was not admitted.
    NotAdmitted(&'static str),
    /// Too many contributions were open.
    Crowded(i64),
}

/// What the chunks of a contribution add up to.
struct Tally {
    tree: CompactRange,
    list: Sha256,
    bound: Vec<ReceiptChunk>,
    rows: i64,
    verdicts: Verdicts,
    only: Option<Held>,
}

/// Emits the receipt of a contribution, and releases its rows when it is not admitted. Walks over the chunks one by one: memory
/// does not grow with their number.
pub fn close(desk: &mut Desk<'_, '_, '_>, id: &str, header: &Header) -> Result<Closed, StageError> {
    let tally = tally(desk, id, header)?;
    let verdicts = &tally.verdicts;
    let duplicates: i64 = verdicts.duplicates.iter().map(|d| d.count).sum();
    if verdicts.accepted + duplicates != tally.rows {
        return Err(account_error(id, format!("{} rows judged of {}", verdicts.accepted + duplicates, tally.rows)));
    }
    let quality = quality(desk, header, verdicts);
    let (status, why) = status(header, verdicts.accepted, &quality);
    let admitted = why.is_none();
    if let Some(why) = why {
        not_admitted(desk, id, header, verdicts.accepted, why)?;
    }
    let closed = Closed {
        party: party(&header.contributor, &header.model, i64::from(header.chunks)),
        chunks: header.chunks,
        only: tally.only,
    };
    let root = tally.tree.root();
    let mut receipt = receipt(id, header, tally, status, admitted, quality)?;
    let request = attested(&mut receipt, &root, header)?;
    desk.out.send(topics::RECEIPTS, Destination::ByKey, id.as_bytes(), &receipt)?;
    desk.out.send(topics::ATTESTATION_REQUESTS, Destination::ByKey, topics::LOG_KEY, &request)?;
    desk.store.forget_parts(id)?;
    Ok(closed)
}

fn status(header: &Header, accepted: i64, quality: &Quality) -> (&'static str, Option<&'static str>) {
    let zero = quality.gate == "incompatible_schema" || quality.gate == "contamination";
    match header.phase {
        Phase::TimedOut => ("incomplete", Some("contribution_timeout")),
        Phase::Crowded => ("refused", Some("open_contributions")),
        Phase::Open | Phase::Complete if zero => ("refused", Some("quality_gate")),
        Phase::Open | Phase::Complete if accepted == 0 => ("refused", Some("accepted_rows")),
        Phase::Open | Phase::Complete => ("admitted", None),
    }
}

fn tally(desk: &mut Desk<'_, '_, '_>, id: &str, header: &Header) -> Result<Tally, StageError> {
    let mut tally = Tally {
        tree: CompactRange::new(),
        list: Sha256::new(),
        bound: Vec::new(),
        rows: 0,
        verdicts: Verdicts::default(),
        only: None,
    };
    let listed = header.bound as usize <= Receipt::MAX_LISTED_CHUNKS;
    for page in 0..header.chunks.div_ceil(PAGE) {
        let chunks = desk.store.chunks(id, page)?;
        let held = |c: &Chunk| Held { content: content(&c.chunk_digest), screened: c.screened };
        let contents: Contents = chunks.iter().map(|(number, chunk)| (*number, held(chunk))).collect();
        for (number, chunk) in chunks {
            tally.add(id, number, chunk, listed)?;
        }
        if header.chunks == 1 {
            tally.only = contents.first().map(|(_, only)| *only);
        } else if !contents.is_empty() {
            desk.store.put_contents(id, page, &contents)?;
        }
    }
    Ok(tally)
}

impl Tally {
    fn add(&mut self, id: &str, number: u32, chunk: Chunk, listed: bool) -> Result<(), StageError> {
        let rows = chunk.rows();
        let root =
            root_of(&chunk.root, rows).ok_or_else(|| account_error(id, format!("chunk {number} has no root")))?;
        let leaves = u64::try_from(rows).unwrap_or(0);
        self.tree.push(chunk_leaf(number, leaves, &root));
        self.list.update(number.to_be_bytes());
        self.list.update(chunk.chunk_digest.as_bytes());
        self.rows += rows;
        self.verdicts.accepted += chunk.verdicts.accepted;
        self.verdicts.label_conflicts += chunk.verdicts.label_conflicts;
        merge_counts(&mut self.verdicts.duplicates, &chunk.verdicts.duplicates);
        if listed {
            let chunk_digest = chunk.chunk_digest;
            self.bound.push(ReceiptChunk { chunk: i64::from(number), chunk_digest, rows, root: chunk.root });
        }
        Ok(())
    }
}

/// The root of a chunk; one without rows is the empty tree.
fn root_of(hex: &str, rows: i64) -> Option<Hash> {
    if hex.is_empty() && rows == 0 {
        return Some(empty_root());
    }
    data_encoding::HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok()
}

fn quality(desk: &Desk<'_, '_, '_>, header: &Header, verdicts: &Verdicts) -> Quality {
    let exact = verdicts.duplicates.iter().filter(|d| d.name != Reason::LabelConflict.code());
    let reference = desk.references.get(&header.contract_digest);
    let contaminated = header.refused.iter().find(|refused| refused.name == Reason::Contamination.code());
    let mut quality = score(&QualityInputs {
        reference: reference.map(|r| &r.quality),
        received: header.received,
        sums: &header.quality,
        duplicates: exact.map(|d| d.count).sum(),
        label_conflicts: verdicts.label_conflicts,
        contaminated: contaminated.map_or(0, |refused| refused.count),
        #[allow(clippy::cast_precision_loss)] // at most a million
        collision_rate: header.collision_ppm as f64 / 1e6,
        leakage: reference.is_some_and(|r| r.leaks(&header.quality)),
    });
    if reference.is_none() {
        quality.flags.push("no_contract".to_owned());
        quality.flags.sort_unstable();
    }
    quality
}

fn receipt(
    id: &str,
    header: &Header,
    tally: Tally,
    status: &str,
    admitted: bool,
    quality: Quality,
) -> Result<Receipt, StageError> {
    let accepted = if admitted { tally.verdicts.accepted } else { 0 };
    let mut refused = header.refused.clone();
    merge_counts(&mut refused, &tally.verdicts.duplicates);
    if tally.verdicts.accepted > accepted {
        let count = Count { name: Reason::NotAdmitted.code().to_owned(), count: tally.verdicts.accepted };
        merge_counts(&mut refused, &[count]);
    }
    let total = refused.iter().map(|c| c.count).sum::<i64>() + accepted;
    if total != header.received {
        return Err(account_error(id, format!("{} rows received, {total} accepted or refused", header.received)));
    }
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    Ok(Receipt {
        contribution_id: id.to_owned(),
        contributor: header.contributor.clone(),
        model: header.model.clone(),
        contract_digest: header.contract_digest.clone(),
        status: status.to_owned(),
        received: header.received,
        accepted,
        refused: refused.into_iter().map(|c| RefusedCount { reason: c.name, count: c.count }).collect(),
        quality,
        pii: header.pii.iter().map(|c| PiiCount { kind: c.name.clone(), count: c.count }).collect(),
        merkle_root: if tally.rows > 0 { hex(&tally.tree.root()) } else { String::new() },
        merkle_rows: tally.rows,
        chunks: i64::from(header.chunks),
        bound: tally.bound,
        chunks_digest: hex(&tally.list.finalize()),
        last_appended: header.last_appended,
        contributor_verified: !header.signature.is_empty(),
        contributor_signature: Some(header.signature.clone()).filter(|scheme| !scheme.is_empty()),
        leaf: String::new(),
    })
}

/// The statement of a receipt, whose leaf the receipt then names.
fn attested(receipt: &mut Receipt, root: &Hash, header: &Header) -> Result<AttestationRequest, StageError> {
    let statement = statement(receipt, root, &header.pseudonyms);
    let predicate_type = statement.predicate.uri().to_owned();
    let payload = statement.payload().map_err(|e| account_error(&receipt.contribution_id, e.to_string()))?;
    receipt.leaf = data_encoding::HEXLOWER.encode(&leaf_of(&payload));
    Ok(AttestationRequest { predicate_type, statement: payload, acknowledge: None })
}

fn not_admitted(
    desk: &mut Desk<'_, '_, '_>,
    id: &str,
    header: &Header,
    accepted: i64,
    why: &'static str,
) -> Result<(), StageError> {
    if header.phase != Phase::Crowded && accepted == 0 {
        return Ok(());
    }
    let whole = ChunkId {
        contribution_id: id.to_owned(),
        contributor: header.contributor.clone(),
        model: header.model.clone(),
        contract_digest: header.contract_digest.clone(),
        chunk: -1,
        chunk_digest: String::new(),
        passed: String::new(),
    };
    let why = if header.phase == Phase::Crowded { Why::Crowded(desk.config.max_open) } else { Why::NotAdmitted(why) };
    refuse(desk, &whole, None, &why)?;
    release_all(desk, &whole, header.chunks)
}

/// Gives up every chunk of a contribution, page by page, in the shards that hold rows of the page.
fn release_all(desk: &mut Desk<'_, '_, '_>, whole: &ChunkId, chunks: u32) -> Result<(), StageError> {
    for page in 0..chunks.div_ceil(PAGE) {
        let mut shards = std::collections::BTreeSet::new();
        let mut released = Vec::new();
        for (number, chunk) in desk.store.chunks(&whole.contribution_id, page)? {
            if chunk.verdicts.accepted > 0 {
                shards.extend(chunk.shards.iter().map(|s| s.shard));
                let Chunk { chunk_digest, passed, .. } = chunk;
                released.push(ReleasedChunk { chunk: i64::from(number), chunk_digest, passed });
            }
        }
        if !released.is_empty() {
            release(desk, whole, shards, released)?;
        }
    }
    Ok(())
}

/// Gives up the rows of a chunk that no receipt binds.
pub fn release_chunk(desk: &mut Desk<'_, '_, '_>, manifest: &Manifest) -> Result<(), StageError> {
    let ChunkId { chunk, chunk_digest, passed, .. } = manifest.id.clone();
    let chunk = ReleasedChunk { chunk, chunk_digest, passed };
    release(desk, &manifest.id, manifest.shards.iter().map(|s| s.shard), vec![chunk])
}

fn release(
    desk: &mut Desk<'_, '_, '_>,
    owner: &ChunkId,
    shards: impl IntoIterator<Item = i32>,
    chunks: Vec<ReleasedChunk>,
) -> Result<(), StageError> {
    let release = Release {
        contribution_id: owner.contribution_id.clone(),
        contributor: owner.contributor.clone(),
        model: owner.model.clone(),
        contract_digest: owner.contract_digest.clone(),
        chunks,
    };
    let event = crate::domain::records::ScreenedEvent { rows: None, release: Some(release) };
    let partitions = desk.context.partitions_of(topics::SCREENED);
    for shard in shards.into_iter().filter(|shard| (0..partitions).contains(shard)) {
        desk.out.send(topics::SCREENED, Destination::Partition(shard), shard.to_string().as_bytes(), &event)?;
    }
    Ok(())
}

/// Says why a chunk, or a contribution, was refused here.
pub fn refuse(
    desk: &mut Desk<'_, '_, '_>,
    id: &ChunkId,
    position: Option<&Position>,
    why: &Why,
) -> Result<(), StageError> {
    let (reason, rule, expected, shape) = match why {
        Why::Misfit(Misfit::Party) => {
            (Reason::IdReused, "contribution_id", "contributor, model and chunks of the first chunk", "others")
        }
        Why::Misfit(Misfit::Content) => {
            (Reason::IdReused, "contribution_id", "the same chunk under the same number", "another content")
        }
        Why::Misfit(Misfit::Contract) => {
            (Reason::IdReused, "contract_digest", "one contract for all chunks", "another contract")
        }
        Why::Misfit(Misfit::Late) => {
            (Reason::IdReused, "contribution_timeout", "a chunk before its contribution was closed", "a late chunk")
        }
        Why::NotAdmitted(rule) => (Reason::NotAdmitted, *rule, "an admitted contribution", ""),
        Why::Crowded(_) => (Reason::TooLarge, "open_contributions", "", "one contribution more"),
    };
    let expected = match why {
        Why::Crowded(limit) => format!("at most {limit} contributions that wait for chunks"),
        Why::Misfit(_) | Why::NotAdmitted(_) => expected.to_owned(),
    };
    let refusal = Refusal {
        row: -1,
        code: reason.code().to_owned(),
        column: String::new(),
        rule: rule.to_owned(),
        expected,
        shape: shape.to_owned(),
        row_digest: String::new(),
    };
    let record =
        Refused { id: id.clone(), stage: "receipts".to_owned(), position: position.cloned(), refusals: vec![refusal] };
    desk.out.send(topics::REFUSED, Destination::ByKey, id.contribution_id.as_bytes(), &record)
}
