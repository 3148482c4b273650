//! Deduplication of one shard: time per row and bytes per key, with committed state of a million keys.
//!
//! `cargo bench --bench dedup`. What a busy machine does not disturb is printed once, first: bytes per key, and CPU time per row
//! (of this thread, as the kernel counts it; Linux only).
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "common/keys.rs"]
mod keys;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeBinaryArray, RecordBatch, StringArray, UInt32Array};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hokusai::codec::ipc::{self, Compression};
use hokusai::codec::wire::Wire;
use hokusai::domain::records::{ChunkId, ScreenedEvent, ScreenedRows};
use hokusai::stages::dedup::Dedup;
use hokusai::stages::dedup::state::DedupState;
use hokusai::stream::stage::{Batch, Context, Outputs, Stage, State};
use keys::{facts, key, mix};

fn add(state: &mut DedupState, from: u64, rows: u64) {
    let owner = state.intern(&facts(from)).unwrap();
    for i in from..from + rows {
        if state.look_up(key(i)).unwrap().owner.is_none() {
            state.accept(key(i), owner, u32::try_from(i - from).unwrap());
        }
    }
}

fn filled(keys: u64) -> DedupState {
    let mut state = DedupState::default();
    for from in (0..keys).step_by(10_000) {
        add(&mut state, from, 10_000);
        state.commit();
    }
    state
}

const ROWS: u64 = 10_000;

/// CPU time of this thread so far, nanoseconds.
fn cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

fn cpu_per_row(what: &str, rows: u64, work: impl FnOnce()) {
    let before = cpu_ns();
    work();
    #[allow(clippy::cast_precision_loss)]
    let micros = (cpu_ns() - before) as f64 / rows as f64 / 1e3;
    println!("{what}: {micros:.3} CPU µs per row");
}

/// A screened part as intake writes it: 10 columns besides the hashes.
fn screened(contribution: u64, rows: u64, first: u64) -> Vec<u8> {
    let hashes = |pick: fn(u64) -> u128| {
        let bytes = (first..first + rows).map(|i| pick(i).to_be_bytes());
        Arc::new(FixedSizeBinaryArray::try_from_iter(bytes).unwrap()) as ArrayRef
    };
    let mut columns: Vec<(String, ArrayRef)> = vec![
        ("_row".to_owned(), Arc::new(UInt32Array::from_iter_values(0..u32::try_from(rows).unwrap()))),
        ("_row_hash".to_owned(), hashes(|i| u128::from(key(i).tag))),
        ("_feature_hash".to_owned(), hashes(|i| key(i).features)),
    ];
    for column in 0..10 {
        let texts =
            StringArray::from_iter_values((first..first + rows).map(|i| format!("{:x}", mix(i + column) >> 20)));
        columns.push((format!("c{column}"), Arc::new(texts)));
    }
    let batch = ipc::write(&RecordBatch::try_from_iter(columns).unwrap(), Compression::Lz4).unwrap();
    let id = ChunkId {
        contribution_id: format!("contribution {contribution}"),
        contributor: "bench".to_owned(),
        model: "m".to_owned(),
        contract_digest: "c".to_owned(),
        chunk: 0,
        chunk_digest: "d".to_owned(),
        passed: "p".to_owned(),
    };
    let rows = ScreenedRows {
        id,
        shard: 0,
        part: 0,
        parts: 1,
        rows: i64::try_from(rows).unwrap(),
        refuse_label_conflicts: false,
        batch,
    };
    Wire::default().encode(&ScreenedEvent { rows: Some(rows), release: None }).unwrap()
}

fn stage(what: &str, state: &mut DedupState, records: &[Vec<u8>], rows: u64) {
    let (wire, partitions) = (Wire::default(), BTreeMap::new());
    let context = Context { partition: 0, broadcast_is_current: true, partitions: &partitions };
    let mut batch = Batch::new("contributions.screened", 0);
    (0..).zip(records).for_each(|(offset, record)| batch.push(offset, 0, None, Some(record)));
    cpu_per_row(what, rows * records.len() as u64, || {
        let mut out = Outputs::new(&wire);
        Dedup::new().process(&context, state, &batch, &mut out).unwrap();
        black_box((out.into_parts(), state.changes()));
        state.commit();
    });
}

fn cpu() {
    let mut state = filled(1_000_000);
    cpu_per_row("state, duplicates", 1_000_000, || {
        black_box((0..1_000_000).filter(|i| state.look_up(key(*i)).unwrap().owner.is_some()).count());
    });
    cpu_per_row("state, new rows logged and committed", 20 * ROWS, || {
        for from in (0..20).map(|i| 50_000_000 + i * ROWS) {
            add(&mut state, from, ROWS);
            black_box(state.changes());
            state.commit();
        }
    });
    let new: Vec<_> = (0..20).map(|i| screened(i, 4_000, 100_000_000 + i * 4_000)).collect();
    stage("stage, parts of 4,000 new rows", &mut state, &new, 4_000);
    // One row of twenty has been there.
    let mixed: Vec<_> = (0..20).map(|i| screened(100 + i, 4_000, 100_080_000 - 200 + i * 3_800)).collect();
    stage("stage, parts of 4,000 rows with 5 % duplicates", &mut state, &mixed, 4_000);
    let single: Vec<_> = (0..4_000).map(|i| screened(10_000 + i, 1, 200_000_000 + i)).collect();
    stage("stage, contributions of one row", &mut state, &single, 1);
}

fn rows(c: &mut Criterion) {
    cpu();
    for keys in [1_000_000, 1_800_000] {
        let size = filled(keys).size();
        #[allow(clippy::cast_precision_loss)]
        let per_key = size.bytes as f64 / size.entries as f64;
        println!("{keys} keys: {per_key:.1} bytes per key");
    }
    let mut state = filled(1_000_000);
    let mut group = c.benchmark_group("dedup");
    group.throughput(Throughput::Elements(ROWS)).sample_size(20);
    group.bench_function("look up duplicates", |b| {
        b.iter(|| (0..ROWS).filter(|i| black_box(state.look_up(key(i * 97)).unwrap()).owner.is_some()).count());
    });
    let mut next = 10_000_000;
    group.bench_function("new rows, logged and aborted", |b| {
        b.iter(|| {
            add(&mut state, next, ROWS);
            next += ROWS;
            black_box(state.changes());
            state.abort();
        });
    });
    group.bench_function("new rows, logged and committed", |b| {
        b.iter(|| {
            add(&mut state, next, ROWS);
            next += ROWS;
            black_box(state.changes());
            state.commit();
        });
    });
    let changelog: Vec<_> = {
        let mut source = DedupState::default();
        let mut log = Vec::new();
        for from in (0..1_000_000).step_by(10_000) {
            add(&mut source, from, ROWS);
            log.extend(source.changes());
            source.commit();
        }
        log
    };
    group.throughput(Throughput::Elements(1_000_000)).sample_size(10);
    group.bench_function("restore a million keys", |b| {
        b.iter_batched(
            DedupState::default,
            |mut state| {
                changelog.iter().for_each(|c| state.restore(&c.key, c.value.as_deref()).unwrap());
                state
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, rows);
criterion_main!(benches);
