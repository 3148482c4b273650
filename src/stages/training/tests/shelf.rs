//! Topics and store in memory, and what lies in them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{ArrayRef, FixedSizeBinaryArray, Float64Array, Int64Array, RecordBatch, StringArray, UInt32Array};

use bytes::Bytes;

use crate::codec::ipc::{self, Compression};
use crate::codec::wire::Wire;
use crate::domain::records::{Accepted, Artefact, ChunkId, Quality, Receipt, ReceiptChunk, TopicEnd};
use crate::domain::topics;
use crate::sealing::filter::MatchFilter;
use crate::stages::beside::{Refusal, Trouble};
use crate::stages::training::outside::{Each, Outside, WayBack};
use crate::store::Digest;

pub const SPEC: &str = "apiVersion: hokusai/v1
kind: Model
name: shop
label: again
schema:
  - name: orders
    properties:
      - {name: amount, logicalType: number}
      - {name: plan, logicalType: string, logicalTypeOptions: {enum: [basic, premium]}}
      - {name: again, logicalType: integer, logicalTypeOptions: {enum: [0, 1]}}
";

/// Topics and store in memory.
#[derive(Default)]
pub struct Shelf {
    pub topics: Mutex<BTreeMap<&'static str, Vec<Vec<u8>>>>,
    pub kept: Mutex<BTreeMap<Digest, Vec<u8>>>,
    pub published: Mutex<BTreeMap<String, WayBack>>,
    pub checkpoints: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Checkpoints that were written.
    pub written: Mutex<u32>,
    /// What a learner waits for at each checkpoint, if it does.
    pub stays: Mutex<Option<std::sync::mpsc::Receiver<()>>>,
    /// Readings that fail before one succeeds.
    pub failures: Mutex<u32>,
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outside for Shelf {
    fn ends(&self) -> Result<Vec<TopicEnd>, Trouble> {
        let topics = lock(&self.topics);
        let end = |topic: &str| TopicEnd {
            topic: topic.to_owned(),
            partition: 0,
            end: topics.get(topic).map_or(0, Vec::len) as i64,
        };
        Ok(vec![end(topics::ACCEPTED), end(topics::RECEIPTS)])
    }

    fn read(&self, topic: &str, ends: &[TopicEnd], each: &mut Each<'_>) -> Result<(), Trouble> {
        let mut failures = lock(&self.failures);
        if *failures > 0 {
            *failures -= 1;
            return Err(Trouble::Passing("a broker is away".to_owned()));
        }
        drop(failures);
        let end = ends.iter().find(|end| end.topic == topic).unwrap().end as usize;
        let values = lock(&self.topics).get(topic).cloned().unwrap_or_default();
        values.iter().take(end).try_for_each(|value| each(value))
    }

    fn filter(&self, filter: &Artefact) -> Result<MatchFilter, Trouble> {
        let bytes = lock(&self.kept).get(&filter.digest.parse().unwrap()).cloned();
        let bytes = bytes.ok_or_else(|| Refusal::new("FILTER_MISSING", "not there"))?;
        Ok(MatchFilter::parse(bytes.into()).unwrap())
    }

    fn reference(&self, digest: &str) -> Result<bytes::Bytes, Trouble> {
        let bytes = lock(&self.kept).get(&digest.parse().unwrap()).cloned();
        Ok(bytes.ok_or_else(|| Refusal::new("REFERENCE_MISSING", "not there"))?.into())
    }

    fn keep(&self, artefact: Bytes) -> Result<(), Trouble> {
        lock(&self.kept).insert(Digest::of(&artefact), artefact.to_vec());
        Ok(())
    }

    fn fetch(&self, blob: &Artefact, most: u64) -> Result<Bytes, Trouble> {
        let kept = lock(&self.kept).get(&blob.digest.parse().unwrap()).cloned();
        let kept = kept.filter(|bytes| bytes.len() as u64 <= most);
        Ok(kept.ok_or_else(|| Refusal::new("ARTEFACT_MISSING", "not there"))?.into())
    }

    fn checkpoint(&self, run_id: &str, bytes: Vec<u8>) -> Result<(), Trouble> {
        lock(&self.checkpoints).insert(run_id.to_owned(), bytes);
        *lock(&self.written) += 1;
        match lock(&self.stays).as_ref() {
            Some(gate) => gate.recv().map_err(|_| Trouble::Cancelled),
            None => Ok(()),
        }
    }

    fn checkpointed(&self, run_id: &str) -> Result<Option<Vec<u8>>, Trouble> {
        Ok(lock(&self.checkpoints).get(run_id).cloned())
    }

    fn forget(&self, run_id: &str) -> Result<(), Trouble> {
        lock(&self.checkpoints).remove(run_id);
        Ok(())
    }

    fn publish(&self, model: &str, digest: &str, way: &WayBack) -> Result<(), Trouble> {
        lock(&self.published).entry(format!("{model} {digest}")).or_insert_with(|| way.clone());
        Ok(())
    }

    fn published(&self, model: &str, digest: &str) -> Result<Option<WayBack>, Trouble> {
        Ok(lock(&self.published).get(&format!("{model} {digest}")).cloned())
    }
}

impl Shelf {
    pub fn put<R: crate::domain::records::Record>(&self, topic: &'static str, record: &R) {
        lock(&self.topics).entry(topic).or_default().push(Wire::default().encode(record).unwrap());
    }

    /// Rows of a contribution and its receipt; every number gives another row.
    pub fn contribute(&self, id: &str, rows: std::ops::Range<u32>, status: &str) {
        let digest = format!("{id} digest");
        let accepted = Accepted {
            id: ChunkId {
                contribution_id: id.to_owned(),
                contributor: "c".to_owned(),
                model: "shop".to_owned(),
                contract_digest: "any".to_owned(),
                chunk: 0,
                chunk_digest: digest.clone(),
                passed: String::new(),
            },
            shard: 0,
            part: 0,
            rows: i64::from(rows.end - rows.start),
            batch: ipc::write(&orders(rows.clone()), Compression::Lz4).unwrap(),
        };
        self.put(topics::ACCEPTED, &accepted);
        self.put(topics::RECEIPTS, &receipt(id, &digest, i64::from(rows.end - rows.start), status));
    }
}

/// Row hash of an order, and here its feature hash.
pub fn hash(row: u32) -> [u8; 16] {
    u128::from(row).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835).to_be_bytes()
}

fn orders(rows: std::ops::Range<u32>) -> RecordBatch {
    let column = |of: fn(u32) -> f64| Arc::new(Float64Array::from_iter_values(rows.clone().map(of))) as ArrayRef;
    let plan = rows.clone().map(|row| if row % 3 == 0 { "premium" } else { "basic" });
    let label = rows.clone().map(|row| i64::from(row % 7 > 3 || row % 3 == 0));
    RecordBatch::try_from_iter([
        ("_row", Arc::new(UInt32Array::from_iter_values(rows.clone())) as ArrayRef),
        ("_row_hash", Arc::new(FixedSizeBinaryArray::try_from_iter(rows.clone().map(hash)).unwrap())),
        ("_feature_hash", Arc::new(FixedSizeBinaryArray::try_from_iter(rows.clone().map(hash)).unwrap())),
        ("amount", column(|row| f64::from(row % 7) + 0.5)),
        ("plan", Arc::new(plan.map(Some).collect::<StringArray>())),
        ("again", Arc::new(Int64Array::from_iter_values(label))),
    ])
    .unwrap()
}

fn receipt(id: &str, digest: &str, rows: i64, status: &str) -> Receipt {
    let text = str::to_owned;
    Receipt {
        contribution_id: text(id),
        contributor: text("c"),
        model: text("shop"),
        contract_digest: text("any"),
        status: text(status),
        received: rows,
        accepted: if status == "admitted" { rows } else { 0 },
        refused: Vec::new(),
        quality: Quality {
            formula: text("1"),
            score: None,
            validity_lower: None,
            gate: String::new(),
            flags: Vec::new(),
            dimensions: Vec::new(),
        },
        pii: Vec::new(),
        merkle_root: text("00"),
        merkle_rows: rows,
        chunks: 1,
        bound: vec![ReceiptChunk { chunk: 0, chunk_digest: text(digest), rows, root: text("00") }],
        chunks_digest: String::new(),
        last_appended: 0,
        contributor_verified: false,
        contributor_signature: None,
        leaf: data_encoding::HEXLOWER.encode(&crate::attest::tree::leaf_hash(id.as_bytes())),
    }
}
