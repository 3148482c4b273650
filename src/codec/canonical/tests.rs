use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::Int32Type;
use proptest::prelude::*;

use super::*;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

fn encode(batch: &RecordBatch, label: Option<&str>) -> CanonicalRows {
    RowEncoder::new(batch.schema_ref(), &[], label).unwrap().encode(batch).unwrap()
}

/// Canonical bytes of one-row batches with the single column `x`.
fn cell(array: impl Array + 'static) -> Vec<u8> {
    encode(&batch(vec![("x", Arc::new(array))]), None).iter().next().unwrap().to_vec()
}

fn key() -> MacKey {
    MacKey::new(&[9; 32], "hk/row/v1")
}

#[test]
fn the_encoding_and_its_hashes_are_frozen() {
    let batch = batch(vec![
        ("label", Arc::new(BooleanArray::from(vec![true]))),
        ("Zeit", Arc::new(TimestampMillisecondArray::from(vec![-1]))),
        ("a", Arc::new(Int16Array::from(vec![-5]))),
        ("é", Arc::new(StringArray::from(vec!["cafe\u{301}"]))),
        ("b", Arc::new(Float32Array::from(vec![1.5]))),
        ("c", Arc::new(Int8Array::from(vec![None]))),
        ("d", Arc::new(Date32Array::from(vec![19000]))),
        ("e", Arc::new(UInt64Array::from(vec![u64::MAX]))),
        ("f", Arc::new(BinaryArray::from(vec![&b"\x00\xff"[..]]))),
        ("g", Arc::new(Decimal128Array::from(vec![1500]).with_precision_and_scale(9, 2).unwrap())),
        ("id", Arc::new(Int64Array::from(vec![77]))),
    ]);
    let encoder = RowEncoder::new(batch.schema_ref(), &["id"], Some("label")).unwrap();
    let rows = encoder.encode(&batch).unwrap();
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    // Recomputed in Python from the module documentation.
    assert_eq!(
        hex(rows.iter().next().unwrap()),
        "014fff6d0e8dcbc7448044704d45c1aa7508fffffffffffffffffffffffffffffc1802fffffffffffffffb043ff800000000000000070000000000004a3803ffffffffffffffff060000000200ff0a0000000000000000000000000000000f000500000005636166c3a901000000056c6162656c0101"
    );
    let hashes = rows.hash(&key());
    assert_eq!(hex(&hashes.rows[0]), "8407eae858ab4a40b545296317f4118f");
    assert_eq!(hex(&hashes.features[0]), "f4c0ad1a8f4c4a367c03b942b6f03131");
}

#[test]
fn an_integer_is_the_same_in_every_width() {
    let expected = cell(Int64Array::from(vec![5]));
    for bytes in [
        cell(Int8Array::from(vec![5])),
        cell(UInt8Array::from(vec![5])),
        cell(Int32Array::from(vec![5])),
        cell(UInt64Array::from(vec![5])),
    ] {
        assert_eq!(bytes, expected);
    }
    assert_ne!(cell(UInt64Array::from(vec![u64::MAX])), cell(Int64Array::from(vec![-1])));
}

#[test]
fn text_is_the_same_in_every_layout() {
    let expected = cell(StringArray::from(vec!["x y"]));
    assert_eq!(cell(LargeStringArray::from(vec!["x y"])), expected);
    assert_eq!(cell(StringViewArray::from(vec!["x y"])), expected);
    assert_eq!(cell(DictionaryArray::<Int32Type>::from_iter(["x y"])), expected);
    assert_eq!(
        cell(LargeBinaryArray::from(vec![&b"ab"[..]])),
        cell(FixedSizeBinaryArray::try_from_iter([b"ab"].into_iter()).unwrap())
    );
}

#[test]
fn a_moment_is_the_same_in_every_unit_and_zone() {
    let expected = cell(TimestampMicrosecondArray::from(vec![1_700_000_000_000_000]));
    assert_eq!(cell(TimestampSecondArray::from(vec![1_700_000_000]).with_timezone("+02:00")), expected);
    assert_eq!(cell(TimestampMillisecondArray::from(vec![1_700_000_000_000])), expected);
    assert_eq!(cell(TimestampNanosecondArray::from(vec![1_700_000_000_000_000_999])), expected);
    assert_eq!(cell(TimestampNanosecondArray::from(vec![-1])), cell(TimestampMicrosecondArray::from(vec![-1])));
    assert_ne!(cell(TimestampSecondArray::from(vec![i64::MAX])), cell(TimestampSecondArray::from(vec![i64::MAX - 1])));
    assert_eq!(cell(Date64Array::from(vec![-1])), cell(Date32Array::from(vec![-1])));
    assert_eq!(cell(Time32SecondArray::from(vec![7])), cell(Time64NanosecondArray::from(vec![7_000_000_000])));
}

#[test]
fn zero_is_unsigned_and_there_is_one_nan() {
    assert_eq!(cell(Float64Array::from(vec![-0.0])), cell(Float64Array::from(vec![0.0])));
    let nan = |bits| cell(Float64Array::from(vec![f64::from_bits(bits)]));
    assert_eq!(nan(0x7ff0_0000_0000_0001), nan(0xffff_ffff_ffff_ffff));
    assert_eq!(cell(Float32Array::from(vec![f32::NAN])), nan(0x7ff8_0000_0000_0000));
}

#[test]
fn values_of_distinct_types_differ_even_when_they_look_alike() {
    let cells = [
        cell(Int64Array::from(vec![1])),
        cell(Float64Array::from(vec![1.0])),
        cell(BooleanArray::from(vec![true])),
        cell(StringArray::from(vec!["1"])),
        cell(BinaryArray::from(vec![&b"1"[..]])),
        cell(Date32Array::from(vec![1])),
        cell(TimestampMicrosecondArray::from(vec![1])),
        cell(Time64NanosecondArray::from(vec![1])),
        cell(Decimal128Array::from(vec![1])),
        cell(StringArray::from(vec![""])),
        cell(NullArray::new(1)),
    ];
    assert_eq!(cells.iter().collect::<std::collections::HashSet<_>>().len(), cells.len());
    assert_eq!(cell(NullArray::new(1)), cell(StringArray::from(vec![None::<&str>])));
}

#[test]
fn the_label_takes_part_in_the_row_but_not_in_the_features() {
    let rows = |label| {
        encode(
            &batch(vec![("x", Arc::new(Int64Array::from(vec![1]))), ("y", Arc::new(Int64Array::from(vec![label])))]),
            Some("y"),
        )
        .hash(&key())
    };
    assert_eq!(rows(0).features, rows(1).features);
    assert_ne!(rows(0).rows, rows(1).rows);
    let unlabelled = encode(&batch(vec![("x", Arc::new(Int64Array::from(vec![1])))]), None).hash(&key());
    assert_eq!(unlabelled.rows, unlabelled.features);
    assert_eq!(unlabelled.features, rows(0).features);
}

#[test]
fn schemas_without_canonical_form_are_refused() {
    let twice = Schema::new(vec![
        arrow::datatypes::Field::new("é", DataType::Int8, true),
        arrow::datatypes::Field::new("e\u{301}", DataType::Int8, true),
    ]);
    assert!(matches!(RowEncoder::new(&twice, &[], None), Err(CanonicalError::Duplicate(_))));
    assert!(matches!(RowEncoder::new(&Schema::empty(), &[], Some("y")), Err(CanonicalError::NoLabel(_))));
    let nested = Schema::new(vec![arrow::datatypes::Field::new_list(
        "x",
        arrow::datatypes::Field::new("i", DataType::Int8, true),
        true,
    )]);
    assert!(matches!(RowEncoder::new(&nested, &[], None), Err(CanonicalError::Type { .. })));
    let encoder = RowEncoder::new(batch(vec![("x", Arc::new(NullArray::new(1)))]).schema_ref(), &[], None).unwrap();
    assert!(matches!(
        encoder.encode(&batch(vec![("y", Arc::new(NullArray::new(1)))])),
        Err(CanonicalError::Columns { .. })
    ));
}

type Row = (Option<i64>, Option<String>, Option<f64>, Option<bool>);

fn table(rows: &[Row]) -> Vec<(&'static str, ArrayRef)> {
    vec![
        ("i", Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>())),
        ("s", Arc::new(rows.iter().map(|row| row.1.as_deref()).collect::<StringArray>())),
        ("f", Arc::new(rows.iter().map(|row| row.2).collect::<Float64Array>())),
        ("b", Arc::new(rows.iter().map(|row| row.3).collect::<BooleanArray>())),
    ]
}

fn row() -> impl Strategy<Value = Row> {
    let text = proptest::option::of(proptest::string::string_regex("[a-c\u{e9}e\u{301}\u{0}\u{5}]{0,4}").unwrap());
    let float = prop_oneof![Just(0.0), Just(-0.0), Just(f64::NAN), -2.0..2.0];
    (proptest::option::of(-2_i64..3), text, proptest::option::of(float), any::<Option<bool>>())
}

proptest! {
    #[test]
    fn neither_column_order_nor_batch_borders_change_a_row(rows in proptest::collection::vec(row(), 1..20), cut in 0_usize..20, turn in 0_usize..4) {
        let whole = batch(table(&rows));
        let mut turned = table(&rows);
        turned.rotate_left(turn);
        let expected = encode(&whole, Some("b"));
        prop_assert_eq!(&encode(&batch(turned), Some("b")), &expected);
        let cut = cut % rows.len();
        let encoder = RowEncoder::new(whole.schema_ref(), &[], Some("b")).unwrap();
        let parts = [whole.slice(0, cut), whole.slice(cut, rows.len() - cut)].map(|part| encoder.encode(&part).unwrap());
        prop_assert_eq!(parts.iter().flat_map(CanonicalRows::iter).collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
        let hashes = parts.map(|part| part.hash(&key()));
        prop_assert_eq!(hashes.map(|part| part.rows).concat(), expected.hash(&key()).rows);
    }

    #[test]
    fn bytes_are_equal_exactly_when_the_values_are(left in row(), right in row()) {
        let same_float = |a: Option<f64>, b: Option<f64>| a == b || matches!((a, b), (Some(a), Some(b)) if a.is_nan() && b.is_nan());
        let text = |text: &Option<String>| text.as_ref().map(|text| text.nfc().collect::<String>());
        let same = left.0 == right.0 && text(&left.1) == text(&right.1) && same_float(left.2, right.2) && left.3 == right.3;
        let bytes = |row: &Row| encode(&batch(table(std::slice::from_ref(row))), None).iter().next().unwrap().to_vec();
        prop_assert_eq!(bytes(&left) == bytes(&right), same);
    }

    #[test]
    fn text_cannot_imitate_another_split_into_columns(a in "[\u{0}-\u{6}ab]{0,6}", b in "[\u{0}-\u{6}ab]{0,6}", c in "[\u{0}-\u{6}ab]{0,6}", d in "[\u{0}-\u{6}ab]{0,6}") {
        let bytes = |x: &str, y: &str| encode(&batch(vec![("x", Arc::new(StringArray::from(vec![x]))), ("y", Arc::new(StringArray::from(vec![y])))]), None).iter().next().unwrap().to_vec();
        prop_assert_eq!(bytes(&a, &b) == bytes(&c, &d), (&a, &b) == (&c, &d));
    }
}
