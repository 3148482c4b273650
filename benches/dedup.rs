//! Deduplication of one shard: CPU per row and bytes per key, with committed state of a million keys.
//!
//! `cargo bench --bench dedup`; bytes per key are printed once.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hokusai::stages::dedup::index::RowKey;
use hokusai::stages::dedup::owners::OwnerFacts;
use hokusai::stages::dedup::state::DedupState;
use hokusai::stream::stage::State;

/// SplitMix64: keys as uniform as those of an HMAC.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn key(i: u64) -> RowKey {
    let features = (u128::from(mix(2 * i)) << 64) | u128::from(mix(2 * i + 1));
    RowKey { features, tag: mix(i ^ 0xABCD) }
}

fn facts(i: u64) -> OwnerFacts {
    OwnerFacts { ident: u128::from(mix(i)), batch: u128::from(i), contributor: u128::from(i % 7), chunk: 0 }
}

fn add(state: &mut DedupState, from: u64, rows: u64) {
    let owner = state.intern(&facts(from)).unwrap();
    for i in from..from + rows {
        if state.look_up(key(i)).owner.is_none() {
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

fn rows(c: &mut Criterion) {
    const ROWS: u64 = 10_000;
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
        b.iter(|| (0..ROWS).filter(|i| black_box(state.look_up(key(i * 97))).owner.is_some()).count());
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
