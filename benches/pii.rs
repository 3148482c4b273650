//! Strings per second through the scanner and through whole columns, on the labelled strings.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hokusai::domain::keys::KeyRing;
use hokusai::pii::column::ColumnHints;
use hokusai::pii::scan::Scanner;
use hokusai::pii::{ColumnRule, ColumnScreener};

const LABELLED: &str = include_str!("../tests/vectors/pii/labelled.jsonl");

/// (column, text) of every labelled string that is stored in the clear.
fn labelled() -> Vec<(String, String)> {
    let rows = LABELLED.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let pair =
        |row: serde_json::Value| Some((row["column_name"].as_str()?.to_owned(), row["text"].as_str()?.to_owned()));
    rows.filter_map(pair).collect()
}

fn scan(criterion: &mut Criterion) {
    let strings = labelled();
    let hints: Vec<ColumnHints> = strings.iter().map(|(column, _)| ColumnHints::of(column)).collect();
    let mut group = criterion.benchmark_group("pii");
    group.throughput(Throughput::Elements(strings.len() as u64));
    group.bench_function("scan_labelled", |bencher| {
        let mut scanner = Scanner::new();
        bencher.iter(|| {
            for ((_, text), hints) in strings.iter().zip(&hints) {
                black_box(scanner.scan(text, hints).len());
            }
        });
    });
    group.finish();
}

fn columns(criterion: &mut Criterion) {
    let ring = KeyRing::generate("bench").unwrap();
    let free_text: Vec<String> =
        labelled().into_iter().filter(|(_, text)| text.contains(' ')).map(|(_, text)| text).collect();
    let categories = ["Month-to-month", "Fiber optic", "Self-emp-not-inc", "Electronic check", "Private"];
    let rows = 10_000;
    let column = |cells: &[&str]| -> ArrayRef {
        Arc::new(cells.iter().cycle().take(rows).copied().map(Some).collect::<StringArray>())
    };
    let text: Vec<&str> = free_text.iter().map(String::as_str).collect();
    let columns = [
        ("free_text", "comment", column(&text)),
        ("categories", "contract", column(&categories)),
        ("emails", "email", column(&["ann@example.org", "bob@example.com"])),
    ];
    let mut group = criterion.benchmark_group("pii_column");
    group.throughput(Throughput::Elements(rows as u64));
    for (bench, name, array) in columns {
        let mut screener = ColumnScreener::new(&ring, name, ColumnRule::default());
        group.bench_function(bench, |bencher| bencher.iter(|| black_box(screener.screen(&array).unwrap())));
    }
    group.finish();
}

criterion_group!(benches, scan, columns);
criterion_main!(benches);
