//! Records for the tests of the warehouse and of SQL.

use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeBinaryArray, RecordBatch, UInt32Array};
use arrow::ipc::writer::StreamWriter;

use super::decode::{Decoder, Incoming};
use super::tables::Table;
use crate::codec::wire::Wire;
use crate::domain::keys::KeyRing;
use crate::domain::records::{
    Accepted, Artefact, ChunkId, PiiCount, Position, Quality, QualityDimension, Receipt, ReceiptChunk, Record, Refusal,
    Refused, RefusedCount, TrainingRun,
};

pub(crate) fn decoder(table: Table) -> Decoder {
    Decoder::new(table, Wire::default(), KeyRing::generate("test").unwrap().into())
}

/// Decodes records as if they stood at offsets 0, 1, …
pub(crate) fn batches<R: Record>(table: Table, records: &[R]) -> Vec<RecordBatch> {
    let mut decoder = decoder(table);
    for (offset, record) in records.iter().enumerate() {
        let value = Wire::default().encode(record).unwrap();
        let offset = i64::try_from(offset).unwrap();
        decoder.push(&Incoming { partition: 0, offset, timestamp: 1, key: None, value: Some(&value) }).unwrap();
    }
    decoder.take().unwrap()
}

pub(crate) fn chunk_id(contribution: &str, model: &str) -> ChunkId {
    ChunkId {
        contribution_id: contribution.to_owned(),
        contributor: "ua".to_owned(),
        model: model.to_owned(),
        contract_digest: "c0ffee".to_owned(),
        chunk: 0,
        chunk_digest: format!("d-{contribution}"),
        passed: "p".to_owned(),
    }
}

/// Accepted rows with the given contract columns.
pub(crate) fn accepted(contribution: &str, model: &str, columns: Vec<(&str, ArrayRef)>) -> Accepted {
    let rows = columns[0].1.len();
    let hashes: Vec<[u8; 16]> = (0..rows).map(|row| u128::try_from(row).unwrap().to_be_bytes()).collect();
    let hash: ArrayRef = Arc::new(FixedSizeBinaryArray::try_from_iter(hashes.iter()).unwrap());
    let number = UInt32Array::from_iter_values(0..u32::try_from(rows).unwrap());
    let mut all: Vec<(&str, ArrayRef)> =
        vec![("_row", Arc::new(number)), ("_row_hash", Arc::clone(&hash)), ("_feature_hash", hash)];
    all.extend(columns);
    let batch = RecordBatch::try_from_iter(all).unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    let batch = writer.into_inner().unwrap();
    Accepted { id: chunk_id(contribution, model), shard: 0, part: 0, rows: i64::try_from(rows).unwrap(), batch }
}

pub(crate) fn receipt(contribution: &str, status: &str) -> Receipt {
    let dimension =
        |name: &str, value| QualityDimension { name: name.to_owned(), value, weight: 0.25, loss: 0.1, measured: true };
    Receipt {
        contribution_id: contribution.to_owned(),
        contributor: "ua".to_owned(),
        model: "flight-delay".to_owned(),
        contract_digest: "c0ffee".to_owned(),
        status: status.to_owned(),
        received: 5,
        accepted: if status == "admitted" { 3 } else { 0 },
        refused: vec![
            RefusedCount { reason: "DUP_IN_POOL".to_owned(), count: 1 },
            RefusedCount { reason: "RANGE_HIGH".to_owned(), count: 1 },
        ],
        quality: Quality {
            formula: "q1".to_owned(),
            score: Some(0.93),
            validity_lower: None,
            gate: String::new(),
            flags: vec!["near_dup:1".to_owned()],
            dimensions: vec![dimension("validity", 0.8), dimension("label", 1.0)],
        },
        pii: vec![PiiCount { kind: "email".to_owned(), count: 2 }],
        merkle_root: "ab".repeat(32),
        merkle_rows: 3,
        chunks: 1,
        bound: vec![ReceiptChunk {
            chunk: 0,
            chunk_digest: format!("d-{contribution}"),
            rows: 3,
            root: "cd".repeat(32),
        }],
        chunks_digest: "ef".repeat(32),
        last_appended: 1_700_000_000_123,
        contributor_verified: false,
        contributor_signature: None,
        leaf: String::new(),
    }
}

/// A finished run; a real one has a search or a job, not both.
pub(crate) fn run(run_id: &str) -> TrainingRun {
    TrainingRun {
        run_id: run_id.to_owned(),
        request_id: format!("request of {run_id}"),
        model: "flight-delay".to_owned(),
        status: TrainingRun::FINISHED.to_owned(),
        position: Position { topic: "training.requests".to_owned(), partition: 0, offset: 7 },
        algorithm: "trees".to_owned(),
        search: Some(r#"{"trials":3}"#.to_owned()),
        trial: Some(2),
        benchmark: Some("delays@1".to_owned()),
        evaluation_id: Some(format!("evaluation of {run_id}")),
        job: Some(Artefact { digest: "0a".repeat(32), size: 9, media_type: "application/json".to_owned() }),
        requested_at: 1_700_000_000_123,
        ..TrainingRun::default()
    }
}

pub(crate) fn refused(contribution: &str, codes: &[&str]) -> Refused {
    let refusal = |(row, code): (usize, &&str)| Refusal {
        row: i64::try_from(row).unwrap(),
        code: (*code).to_owned(),
        column: "dep_delay".to_owned(),
        rule: "maximum".to_owned(),
        expected: "<= 1440".to_owned(),
        shape: "above max by 1.8x".to_owned(),
        row_digest: "00ff".to_owned(),
    };
    Refused {
        id: chunk_id(contribution, "flight-delay"),
        stage: "intake".to_owned(),
        position: None,
        refusals: codes.iter().enumerate().map(refusal).collect(),
    }
}
