//! A row has one hash, whatever it comes in.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::stage::encoded;
use super::support::{chunk, refusals, row, row_hashes, send, task, with};

fn any_row() -> impl Strategy<Value = Value> {
    let balance = prop_oneof![3 => -1e5..1e5_f64, 1 => Just(-0.0), 1 => Just(7.0)];
    (0_usize..50, "x\\PC{0,12}", balance, 18_i64..120, any::<bool>()).prop_map(|(i, comment, balance, age, null)| {
        let country = if null { Value::Null } else { json!("DE") };
        let mut changed = with(row(i), json!({"comment": comment, "balance": balance, "age": age}));
        changed["country"] = country;
        changed
    })
}

/// The hashes of the rows of chunks, sorted.
fn hashes(chunks: impl IntoIterator<Item = Value>) -> Vec<Vec<u8>> {
    let mut task = task();
    for chunk in chunks {
        send(&mut task, &[(None, chunk)]);
    }
    assert!(refusals(&task).is_empty(), "{:?}", refusals(&task));
    row_hashes(&task)
}

fn payload(format: &str, bytes: &[u8]) -> Value {
    let payload = data_encoding::BASE64.encode(bytes);
    with(chunk(&[]), json!({"rows": null, "format": format, "payload": payload}))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_row_has_one_hash_in_every_format_and_in_chunks_of_every_size(
        rows in prop::collection::vec(any_row(), 1..12),
        size in 1_usize..12,
    ) {
        let expected = hashes([chunk(&rows)]);
        prop_assert_eq!(expected.len(), rows.len());
        prop_assert_eq!(&hashes(rows.chunks(size).map(chunk)), &expected);
        for format in ["csv", "parquet", "arrow", "avro"] {
            prop_assert_eq!(&hashes([payload(format, &encoded(format, &rows))]), &expected, "{}", format);
        }
    }
}

#[test]
fn spellings_of_one_value_are_one_value() {
    let plain = with(row(1), json!({"comment": "tr\u{e8}s bien", "balance": 5, "event_time": "2023-03-02T10:01:00Z"}));
    let respelt = [
        json!({"comment": "tre\u{300}s bien"}),
        json!({"balance": 5.0}),
        json!({"balance": 50e-1}),
        json!({"event_time": "2023-03-02T12:01:00+02:00"}),
        json!({"event_time": "2023-03-02 10:01:00.000"}),
        json!({"email": "user1@EXAMPLE.com"}),
    ];
    let expected = hashes([chunk(std::slice::from_ref(&plain))]);
    for change in respelt {
        assert_eq!(hashes([chunk(&[with(plain.clone(), change.clone())])]), expected, "{change}");
    }
    assert_ne!(hashes([chunk(&[with(plain, json!({"comment": "tres bien"}))])]), expected);
}
