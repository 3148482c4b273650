//! Canonical bytes and keyed hashes of rows per second, and Merkle leaves.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hokusai::attest::row::{ChunkTree, RowSalts};
use hokusai::codec::canonical::RowEncoder;
use hokusai::domain::keys::KeyRing;

const ROWS: usize = 10_000;

/// Ten columns: four numbers, four categories, one text, one label.
fn batch() -> RecordBatch {
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    for at in 0..2 {
        columns.push((format!("int_{at}"), Arc::new((0..ROWS as i64).map(|row| row * 7 + at).collect::<Int64Array>())));
        columns
            .push((format!("float_{at}"), Arc::new((0..ROWS).map(|row| row as f64 / 3.0).collect::<Float64Array>())));
    }
    for at in 0..4 {
        columns.push((
            format!("category_{at}"),
            Arc::new((0..ROWS).map(|row| Some(["Private", "Month-to-month", "Yes"][row % 3])).collect::<StringArray>()),
        ));
    }
    columns.push((
        "text".to_owned(),
        Arc::new(
            (0..ROWS)
                .map(|row| Some(format!("a free text of some sixty bytes, as support tickets are, {row}")))
                .collect::<StringArray>(),
        ),
    ));
    columns.push(("label".to_owned(), Arc::new((0..ROWS).map(|row| Some(row % 2 == 0)).collect::<BooleanArray>())));
    RecordBatch::try_from_iter(columns).unwrap()
}

fn rows(criterion: &mut Criterion) {
    let batch = batch();
    let ring = KeyRing::generate("bench").unwrap();
    let keys = ring.model("adult");
    let encoder = RowEncoder::new(batch.schema_ref(), &[], Some("label")).unwrap();
    let rows = encoder.encode(&batch).unwrap();
    let mut group = criterion.benchmark_group("rows");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("encode", |bencher| bencher.iter(|| black_box(encoder.encode(&batch).unwrap())));
    group.bench_function("hash_with_and_without_label", |bencher| bencher.iter(|| black_box(rows.hash(keys.rows()))));
    group.bench_function("merkle", |bencher| {
        bencher.iter(|| {
            let mut tree = ChunkTree::new(RowSalts::new(ring.tree_key(), "contribution", 0));
            rows.iter().zip(0..).for_each(|(row, at)| tree.append(at, row));
            black_box(tree.root())
        });
    });
    group.finish();
}

criterion_group!(benches, rows);
criterion_main!(benches);
