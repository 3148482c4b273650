//! Rows that are already decoded: independence of chunks, of keys, and what may leave.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::concat_batches;
use arrow::datatypes::UInt32Type;
use arrow::ipc::reader::StreamReader;

use super::super::Limits;
use super::super::contract::Compiler;
use super::super::models::{Keys, Ready};
use super::super::refusals::Account;
use super::super::screen::{Source, screen};
use super::support::{EXAMPLE, NOW, ring, ring_with};
use crate::codec::formats::Decoded;
use crate::domain::keys::KeyRing;
use crate::domain::quality;
use crate::domain::records::QualitySums;
use crate::rowsql::UTC;
use crate::stages::limits::OUTPUT_BYTES;

fn ready(ring: &KeyRing) -> Ready {
    Ready::new(Compiler::new().compile_yaml(EXAMPLE, "model.yaml").unwrap(), ring).unwrap()
}

fn rows(range: std::ops::Range<usize>, ready: &Ready) -> RecordBatch {
    let texts =
        |f: &dyn Fn(usize) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(range.clone().map(f))) };
    let columns: Vec<ArrayRef> = vec![
        texts(&|i| format!("r{i}")),
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(range.clone().map(|i| (NOW - i as i64) * 1000))
                .with_timezone(UTC),
        ),
        Arc::new(Int64Array::from_iter_values(
            range.clone().map(|i| if i % 50 == 49 { 500 } else { 18 + (i as i64 * 7) % 70 }),
        )),
        Arc::new(Float64Array::from_iter(
            range.clone().map(|i| (i % 9 != 0).then_some(1500.25 + (i * 37 % 900) as f64)),
        )),
        texts(&|i| ["basic", "standard", "premium", "enterprise"][i % 4].to_owned()),
        texts(&|i| ["DE", "FR", "PL"][i % 3].to_owned()),
        texts(&|i| format!("User{i}@Example.com")),
        texts(&|i| {
            if i % 10 == 0 { format!("write to anna.novak{i}@example.org today") } else { format!("all good {i}") }
        }),
        Arc::new(BooleanArray::from_iter(range.clone().map(|i| Some(i % 4 == 0)))),
    ];
    RecordBatch::try_new(ready.contract.schema().clone(), columns).unwrap()
}

fn decoded(batch: RecordBatch) -> Decoded {
    let received = batch.num_rows();
    Decoded {
        rejected: batch.slice(0, 0),
        batch,
        rows: (0..received as u32).collect(),
        received,
        rejects: vec![],
        extra_columns: vec![],
        missing_columns: vec![],
    }
}

fn screened(ring: &KeyRing, ready: &Ready, batch: RecordBatch, shards: u32) -> Account {
    let source = Source {
        contribution_id: "c-1",
        chunk: 0,
        appended: NOW,
        shards,
        row_bytes: Limits::default().row_bytes,
        sealed: &[],
    };
    screen(ready, &Keys::new(ring, "signup-churn"), ring, &source, decoded(batch)).unwrap()
}

fn batches(account: &Account) -> Vec<RecordBatch> {
    let parts = account.shards.iter().flat_map(|(_, parts)| parts);
    parts.flat_map(|part| StreamReader::try_new(part.stream.as_slice(), None).unwrap().map(Result::unwrap)).collect()
}

/// (row hash, feature hash) of every row that left, sorted.
fn hashes(accounts: &[Account]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    for batch in accounts.iter().flat_map(batches) {
        let column = |name| batch.column_by_name(name).unwrap().as_fixed_size_binary().clone();
        let (rows, features) = (column("_row_hash"), column("_feature_hash"));
        all.extend((0..batch.num_rows()).map(|i| (rows.value(i).to_vec(), features.value(i).to_vec())));
    }
    all.sort();
    all
}

fn sums(accounts: &[Account]) -> QualitySums {
    accounts.iter().fold(QualitySums::default(), |mut all, account| {
        quality::merge(&mut all, &account.quality);
        all
    })
}

#[test]
fn one_chunk_or_many_give_the_same_hashes_counts_and_sums() {
    let (ring, n) = (ring(), 600);
    let ready = ready(&ring);
    let whole = [screened(&ring, &ready, rows(0..n, &ready), 4)];
    for size in [1, 7, 100, 599] {
        let parts: Vec<_> =
            (0..n).step_by(size).map(|i| screened(&ring, &ready, rows(i..(i + size).min(n), &ready), 4)).collect();
        assert_eq!(hashes(&parts), hashes(&whole));
        let strip = |mut sums: QualitySums| {
            sums.near_duplicates = 0; // counted within a chunk by design
            sums
        };
        assert_eq!(strip(sums(&parts)), strip(sums(&whole)), "chunks of {size}");
        let total = |f: &dyn Fn(&Account) -> i64| (parts.iter().map(f).sum::<i64>(), f(&whole[0]));
        for (parts, whole) in
            [total(&|a| a.received), total(&|a| a.refused.values().sum()), total(&|a| a.pii.values().sum())]
        {
            assert_eq!(parts, whole);
        }
    }
}

#[test]
fn every_row_is_received_and_either_refused_or_in_one_shard() {
    let ring = ring();
    let ready = ready(&ring);
    let account = screened(&ring, &ready, rows(0..600, &ready), 4);
    assert_eq!(account.refused.iter().map(|(code, n)| (code.as_str(), *n)).collect::<Vec<_>>(), [("RANGE_HIGH", 12)]);
    assert_eq!(account.refusals.len(), 12);
    let mut seen: Vec<u32> = account.refusals.iter().map(|r| u32::try_from(r.row).unwrap()).collect();
    for batch in batches(&account) {
        seen.extend(batch.column(0).as_primitive::<UInt32Type>().values());
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..600).collect::<Vec<_>>());
    assert_eq!(account.shards.iter().map(|(shard, _)| *shard).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[test]
fn personal_data_leaves_as_tokens_only_and_hashes_outlive_the_token_key() {
    let (old, new) = (ring(), ring_with("2"));
    let (ready_old, ready_new) = (ready(&old), ready(&new));
    let account = screened(&old, &ready_old, rows(0..100, &ready_old), 1);
    let rotated = screened(&new, &ready_new, rows(0..100, &ready_new), 1);
    assert_eq!(hashes(std::slice::from_ref(&account)), hashes(std::slice::from_ref(&rotated)));
    assert_eq!(account.quality, rotated.quality);
    assert_ne!(account.chunk_root, rotated.chunk_root);
    let all = concat_batches(batches(&account)[0].schema_ref(), &batches(&account)).unwrap();
    let text = |name: &str| all.column_by_name(name).unwrap().as_string::<i32>().clone();
    for i in 0..all.num_rows() {
        assert!(text("email").value(i).starts_with("email_address:k1:"), "{}", text("email").value(i));
        assert!(!text("comment").value(i).contains('@'));
    }
    assert_eq!(account.pii.get("email_address"), Some(&(98 + 10)));
    for part in account.shards.iter().flat_map(|(_, parts)| parts) {
        let bytes = String::from_utf8_lossy(&part.stream).to_lowercase();
        assert!(!bytes.contains("@example") && !bytes.contains("novak"));
    }
}

#[test]
fn spelling_of_personal_data_and_excluded_ids_do_not_make_a_new_row() {
    let ring = ring();
    let ready = ready(&ring);
    let batch = rows(0..20, &ready);
    let mut columns = batch.columns().to_vec();
    columns[0] = Arc::new(StringArray::from_iter_values((0..20).map(|i| format!("other{i}"))));
    columns[6] = Arc::new(StringArray::from_iter_values((0..20).map(|i| format!(" user{i}@EXAMPLE.COM"))));
    let other = RecordBatch::try_new(batch.schema(), columns).unwrap();
    let hashes_of = |batch| hashes(&[screened(&ring, &ready, batch, 2)]);
    assert_eq!(hashes_of(batch), hashes_of(other));
}

#[test]
fn rows_that_differ_in_the_label_alone_meet_in_one_shard() {
    let ring = ring();
    let ready = ready(&ring);
    let batch = rows(0..100, &ready);
    let mut columns = batch.columns().to_vec();
    columns[8] = Arc::new(BooleanArray::from(vec![true; 100]));
    let relabelled = RecordBatch::try_new(batch.schema(), columns).unwrap();
    let shards = |batch| -> Vec<Vec<u32>> {
        let account = screened(&ring, &ready, batch, 8);
        account
            .shards
            .iter()
            .flat_map(|(_, parts)| parts)
            .map(|part| {
                let batch = StreamReader::try_new(part.stream.as_slice(), None).unwrap().next().unwrap().unwrap();
                batch.column(0).as_primitive::<UInt32Type>().values().to_vec()
            })
            .collect()
    };
    assert_eq!(shards(batch), shards(relabelled));
}

#[test]
fn parts_keep_the_limit_and_hold_every_row_once() {
    let ring = ring();
    let ready = ready(&ring);
    let batch = rows(0..3_000, &ready);
    let mut columns = batch.columns().to_vec();
    columns[7] = Arc::new(StringArray::from_iter_values((0..3_000).map(|i| "lorem ipsum ".repeat(1 + i % 200))));
    let long = RecordBatch::try_new(batch.schema(), columns).unwrap();
    let account = screened(&ring, &ready, long, 2);
    let mut count = 0;
    for (_, parts) in &account.shards {
        assert!(parts.len() > 1);
        for part in parts {
            assert!(part.stream.len() <= OUTPUT_BYTES && part.rows > 0);
            count += part.rows;
        }
    }
    assert_eq!(count, 3_000 - 60);
}

#[test]
fn a_row_that_is_too_long_is_refused_and_its_neighbours_are_not() {
    let ring = ring();
    let ready = ready(&ring);
    let batch = rows(0..3, &ready);
    let mut columns = batch.columns().to_vec();
    columns[7] = Arc::new(StringArray::from(vec!["a".to_owned(), "x@y.zz ".repeat(20_000), "b".to_owned()]));
    let long = RecordBatch::try_new(batch.schema(), columns).unwrap();
    let account = screened(&ring, &ready, long, 1);
    assert_eq!(account.refusals.iter().map(|r| (r.row, r.code.as_str())).collect::<Vec<_>>(), [(1, "TOO_LARGE")]);
}

#[test]
fn a_row_of_the_shortest_personal_data_still_fits_into_one_record() {
    let ring = ring();
    let ready = ready(&ring);
    let batch = rows(0..1, &ready);
    let mut columns = batch.columns().to_vec();
    columns[7] = Arc::new(StringArray::from(vec!["a@b.co ".repeat(Limits::default().row_bytes / 7 - 10)]));
    let account = screened(&ring, &ready, RecordBatch::try_new(batch.schema(), columns).unwrap(), 1);
    assert!(account.pii["email_address"] > 10_000);
    let parts = &account.shards[0].1;
    assert!(parts.len() == 1 && parts[0].stream.len() < OUTPUT_BYTES, "{}", parts[0].stream.len());
}

#[test]
fn near_duplicates_are_counted_by_the_rounded_key() {
    let ring = ring();
    let ready = ready(&ring);
    let batch = rows(0..3, &ready);
    let mut columns = batch.columns().to_vec();
    columns[2] = Arc::new(Int64Array::from(vec![40, 41, 44])); // rounded to 40, 40, 45
    columns[4] = Arc::new(StringArray::from(vec!["basic"; 3]));
    columns[5] = Arc::new(StringArray::from(vec!["DE"; 3]));
    let account = screened(&ring, &ready, RecordBatch::try_new(batch.schema(), columns).unwrap(), 1);
    assert_eq!(account.quality.near_duplicates, 1);
}

#[test]
fn constant_and_equal_columns_show_in_the_sums() {
    let ring = ring();
    let ready = ready(&ring);
    let batch = rows(0..40, &ready);
    let mut columns = batch.columns().to_vec();
    columns[5] = columns[7].clone();
    columns[4] = Arc::new(StringArray::from(vec!["basic"; 40]));
    columns[7] = columns[5].clone();
    let mut ready = ready;
    let text = EXAMPLE.replacen(
        "logicalTypeOptions: {minLength: 2, maxLength: 2, pattern: '^[A-Z]{2}$'}",
        "description: free",
        1,
    );
    ready.contract = Compiler::new().compile_yaml(&text, "m").unwrap();
    let account = screened(&ring, &ready, RecordBatch::try_new(batch.schema(), columns).unwrap(), 1);
    let column = |name: &str| account.quality.columns.iter().find(|c| c.column == name).unwrap();
    assert_eq!(column("comment").fingerprint, column("country").fingerprint);
    assert_ne!(column("comment").fingerprint, column("email").fingerprint);
    assert!(column("plan").least == column("plan").greatest && column("age").least != column("age").greatest);
    assert_eq!(column("age").bins.iter().sum::<i64>(), 40);
    assert_eq!(column("balance").nulls, 5);
}
