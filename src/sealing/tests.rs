//! A seal is a function of its rows; what leaves tells no row and no label; only the evaluation key opens it.

use std::collections::HashSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::filter::{MatchFilter, without_sealed};
use super::make::{Gathered, Made};
use super::strata::Wanted;
use super::vault::{self, Seat};
use super::*;
use crate::domain::contract::Spec;
use crate::domain::keys::{KeyRing, SealingKey};
use crate::domain::records::{Artefact, Benchmark};
use crate::stages::intake::sealing::{CheckError, RowChecker};

const NOW: i64 = 1_700_000_000_000;

fn spec(label: &str) -> Spec {
    let yaml = format!(
        "apiVersion: hokusai/v1\nkind: Model\nname: m\n{label}schema:\n  - name: rows\n    properties:\n      - {{name: n, logicalType: integer, required: true, logicalTypeOptions: {{minimum: 0}}}}\n      - {{name: x, logicalType: number}}\n      - {{name: region, logicalType: string}}\n      - {{name: email, logicalType: string, pii: {{policy: hash, type: email_address}}}}\n      - {{name: late, logicalType: integer, logicalTypeOptions: {{enum: [0, 1]}}}}\n"
    );
    Spec::parse_yaml(&yaml, "test.yaml").unwrap()
}

fn ring() -> Arc<KeyRing> {
    let text = format!(
        r#"{{"version":1,"tenant":"t","tokens":[{{"id":"k1","secret":"{}"}}],"dedup":"{}","tree":"{}"}}"#,
        "1".repeat(64),
        "2".repeat(64),
        "3".repeat(64)
    );
    Arc::new(KeyRing::from_json(&text).unwrap())
}

fn row(n: i64, late: i64) -> String {
    let region = ["north", "south", "rare"][if n % 97 == 5 { 2 } else { (n % 2) as usize }];
    format!(r#"{{"n":{n},"x":{n}.25,"region":"{region}","email":"canary{n}@example.com","late":{late}}}"#)
}

fn rows(range: std::ops::Range<i64>) -> Vec<String> {
    range.map(|n| row(n, n % 2)).collect()
}

fn gather(pieces: &[&[String]]) -> Gathered {
    let checker = RowChecker::new(spec("label: late\n"), ring()).unwrap();
    let mut gathered = Gathered::default();
    for piece in pieces {
        gathered.add(checker.check("json", piece.join("\n").into_bytes(), NOW).unwrap()).unwrap();
    }
    gathered
}

fn made(pieces: &[&[String]]) -> Made {
    gather(pieces).make(&spec("label: late\n"), ring().tree_key(), None).unwrap()
}

fn record(made: &Made) -> Benchmark {
    let blob = Artefact { digest: "0".repeat(64), size: 1, media_type: "x".to_owned() };
    Benchmark {
        benchmark: "holdout@1".to_owned(),
        model: "m".to_owned(),
        contract_digest: "c".repeat(64),
        rows: made.count() as i64,
        rows_root: data_encoding::HEXLOWER.encode(&made.root),
        family: "f".repeat(64),
        label_commitment: "l".repeat(64),
        collision_rate: "0.000000".to_owned(),
        strata: Vec::new(),
        merged: Vec::new(),
        strata_margin: None,
        strata_deviation: None,
        match_filter: blob.clone(),
        sealed_rows: blob,
        sealed_to: "e1".to_owned(),
        revision: 2,
        signer: "s".to_owned(),
        command_id: "id".to_owned(),
        retired: false,
        retired_reason: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn neither_the_order_of_the_file_nor_its_pieces_show_in_a_seal(seed in any::<u64>(), cut in 1..119_usize) {
        let mut shuffled = rows(0..120);
        for at in (1..shuffled.len()).rev() {
            shuffled.swap(at, (seed.wrapping_mul(at as u64 | 1) % (at as u64 + 1)) as usize);
        }
        let (one, two) = (made(&[&rows(0..120)]), made(&[&shuffled[..cut], &shuffled[cut..]]));
        prop_assert_eq!((one.root, one.label_commitment, &one.rows), (two.root, two.label_commitment, &two.rows));
        prop_assert_eq!(one.filter, two.filter);
    }

    #[test]
    fn damaged_filters_and_vaults_are_refused_and_never_a_panic(at in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>()) {
        let made = made(&[&rows(0..120)]);
        let bytes = made.filter.bytes();
        prop_assert_eq!(MatchFilter::parse(bytes.clone()).unwrap(), made.filter.clone());
        prop_assert!(MatchFilter::parse(bytes.slice(..cut.index(bytes.len()))).is_err());
        let key = SealingKey::new("e1").unwrap();
        let record = record(&made);
        let mut blob = vault::seal(&made.rows, Seat::of(&record), key.public()).unwrap().to_vec();
        prop_assert_eq!(&vault::open(&blob, &record, &key, ring().tree_key()).unwrap(), &made.rows);
        prop_assert!(vault::open(&blob[..cut.index(blob.len())], &record, &key, ring().tree_key()).is_err());
        let at = at.index(blob.len());
        blob[at] ^= 1;
        prop_assert!(vault::open(&blob, &record, &key, ring().tree_key()).is_err());
    }
}

#[test]
fn every_format_gives_the_same_seal() {
    let csv = |n: i64| {
        let region = ["north", "south", "rare"][if n % 97 == 5 { 2 } else { (n % 2) as usize }];
        format!("{},{region},{n},canary{n}@example.com,{n}.25", n % 2)
    };
    let csv: Vec<String> = std::iter::once("late,region,n,email,x".to_owned()).chain((0..120).map(csv)).collect();
    let checker = RowChecker::new(spec("label: late\n"), ring()).unwrap();
    let mut gathered = Gathered::default();
    gathered.add(checker.check("csv", csv.join("\n").into_bytes(), NOW).unwrap()).unwrap();
    let csv = gathered.make(&spec("label: late\n"), ring().tree_key(), None).unwrap();
    assert_eq!(csv.root, made(&[&rows(0..120)]).root);
}

#[test]
fn only_the_evaluation_key_opens_the_rows_and_only_as_the_benchmark_they_were_sealed_as() {
    let made = made(&[&rows(0..120)]);
    let (key, other) = (SealingKey::new("e1").unwrap(), SealingKey::new("e1").unwrap());
    let record = record(&made);
    let blob = vault::seal(&made.rows, Seat::of(&record), key.public()).unwrap();
    let open = |record: &Benchmark, key: &SealingKey| vault::open(&blob, record, key, ring().tree_key());
    assert_eq!(open(&record, &key).unwrap(), made.rows);
    assert!(open(&record, &other).is_err());
    for moved in [
        Benchmark { benchmark: "holdout@2".to_owned(), ..record.clone() },
        Benchmark { model: "n".to_owned(), ..record.clone() },
        Benchmark { rows_root: "0".repeat(64), ..record.clone() },
        Benchmark { contract_digest: "d".repeat(64), ..record.clone() },
        Benchmark { rows: 119, ..record.clone() },
    ] {
        assert!(open(&moved, &key).is_err());
    }
    let text = String::from_utf8_lossy(&blob).into_owned() + &String::from_utf8_lossy(made.filter.bytes());
    assert!(!text.contains("canary") && !text.contains("region") && !text.contains("late"));
}

#[test]
fn what_is_sealed_holds_tokens_in_place_of_personal_data() {
    let made = made(&[&rows(0..120)]);
    let shown = format!("{:?}", made.rows);
    assert!(shown.contains("email_address:k1:") && !shown.contains("canary"));
}

#[test]
fn the_filter_knows_the_features_whatever_the_label_and_tells_no_label() {
    let made = made(&[&rows(0..120)]);
    let checker = RowChecker::new(spec("label: late\n"), ring()).unwrap();
    let check = |n, late| checker.check("json", row(n, late).into_bytes(), NOW).unwrap();
    for n in 0..120 {
        let (zero, one) = (check(n, 0), check(n, 1));
        assert_eq!(zero.features, one.features);
        assert_ne!(zero.row_hashes, one.row_hashes);
        assert!(made.filter.contains(&zero.features[0]));
    }
    assert!(!made.filter.contains(&check(120, 0).features[0]));
    // The same features under flipped labels make the same filter, byte for byte.
    let flipped: Vec<String> = (0..120).map(|n| row(n, 1 - n % 2)).collect();
    let other = self::made(&[&flipped]);
    assert_eq!(other.filter, made.filter);
    assert_ne!((other.root, other.label_commitment), (made.root, made.label_commitment));
}

#[test]
fn rows_that_are_refused_are_told_with_their_number_in_the_file_and_their_reason() {
    let first = [row(0, 0), row(1, 1), row(5, 1).replace("\"n\":5,", "\"n\":-5,")];
    let second = [row(1, 1), r#"{"n":"seven","late":1}"#.to_owned(), r#"{"n":9}"#.to_owned()];
    let gathered = gather(&[&first, &second]);
    let told: Vec<(i64, &str)> = gathered.refusals.iter().map(|r| (r.row, r.code.as_str())).collect();
    assert_eq!(told, [(2, "RANGE_LOW"), (3, "DUP_IN_BATCH"), (4, "TYPE_MISMATCH"), (5, "LABEL_MISSING")]);
    assert_eq!((gathered.received, gathered.refused, gathered.rows()), (6, 4, 2));
    assert!(!format!("{:?}", gathered.refusals).contains("seven"));
}

#[test]
fn rows_without_a_label_of_one_class_or_too_few_are_not_sealed() {
    let make = |rows: &[String]| gather(&[rows]).make(&spec("label: late\n"), ring().tree_key(), None);
    assert!(matches!(make(&rows(0..49)), Err(SealingError::TooSmall(_))));
    let one_class: Vec<String> = (0..120).map(|n| row(n, 1)).collect();
    assert!(matches!(make(&one_class), Err(SealingError::TooSmall(_))));
    let skewed: Vec<String> = (0..120).map(|n| row(n, i64::from(n < 49))).collect();
    assert!(matches!(make(&skewed), Err(SealingError::TooSmall(_))));
    make(&(0..120).map(|n| row(n, i64::from(n < 50))).collect::<Vec<_>>()).unwrap();
    let unlabelled = gather(&[&rows(0..120)]).make(&spec(""), ring().tree_key(), None);
    assert!(matches!(unlabelled, Err(SealingError::NoLabel)));
    assert!(matches!(
        Gathered::default().make(&spec("label: late\n"), ring().tree_key(), None),
        Err(SealingError::Empty)
    ));
}

#[test]
fn a_document_that_is_refused_as_a_whole_says_why() {
    let checker = RowChecker::new(spec("label: late\n"), ring()).unwrap();
    let refused = |payload: &str| match checker.check("json", payload.as_bytes().to_vec(), NOW) {
        Err(CheckError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused("{"), "PARSE_JSON");
    assert_eq!(refused(r#"{"n":1,"late":1,"more":1}"#), "SCHEMA_EXTRA_COLUMN");
    assert_eq!(refused(r#"{"n":1}"#), "SCHEMA_MISSING_COLUMN");
}

#[test]
fn strata_are_frozen_small_levels_merged_and_the_rarest_not_named() {
    let wanted = |columns: &[&str], margin| Wanted {
        columns: columns.iter().map(|c| (*c).to_owned()).collect(),
        margin,
        deviation: 0.5,
    };
    let make = |wanted: &Wanted| gather(&[&rows(0..400)]).make(&spec("label: late\n"), ring().tree_key(), Some(wanted));
    // `north` has the even rows and so one class alone: it counts for nothing where classes matter.
    let strata = make(&wanted(&["region"], 0.2)).unwrap().strata;
    assert_eq!(strata.strata, ["region=other"]);
    assert_eq!(
        (strata.merged.clone(), strata.unnamed),
        (vec!["region=north".to_owned(), "region=south".to_owned()], 1)
    );
    for (column, margin, why) in [
        ("late", 0.2, "label"),
        ("x", 0.2, "no levels"),
        ("nothing", 0.2, "no such column"),
        ("n", 0.2, "more than 256"),
        ("region", 0.000_001, "too few for the margin"),
    ] {
        let error = make(&wanted(&[column], margin)).unwrap_err().to_string();
        assert!(error.contains(why), "{column}: {error}");
    }
}

#[test]
fn a_seal_of_known_rows_joins_their_family_and_a_bridge_is_refused() {
    let (first, second) = (made(&[&rows(0..200)]), made(&[&rows(200..400)]));
    assert_eq!(first.family(&[]).unwrap(), first.root);
    let known = |made: &Made| (made.root, MatchFilter::parse(made.filter.bytes().clone()).unwrap());
    assert_eq!(second.family(&[known(&first)]).unwrap(), second.root);
    let bridge = made(&[&rows(100..300)]);
    assert_eq!(bridge.family(&[known(&first)]).unwrap(), first.root);
    assert!(bridge.family(&[known(&first), known(&second)]).is_err());
    // Other labels do not make other rows: the attempts on them would start over.
    let flipped: Vec<String> = (0..200).map(|n| row(n, 1 - n % 2)).collect();
    assert_eq!(made(&[&flipped]).family(&[known(&first)]).unwrap(), first.root);
}

#[test]
fn the_collision_rate_counts_rows_and_rounds_up() {
    let made = made(&[&rows(0..120)]);
    assert_eq!(made.collision_rate(&HashSet::new()), "0.000000");
    assert_eq!(made.collision_rate(&made.features[..1].iter().copied().collect()), "0.008334");
    assert_eq!(made.collision_rate(&made.features.iter().copied().collect()), "1.000000");
}

#[test]
fn rows_of_the_pool_that_are_sealed_are_left_out_of_a_data_set() {
    use arrow::array::{ArrayRef, FixedSizeBinaryArray, Int64Array, RecordBatch};
    let made = made(&[&rows(0..120)]);
    let hashes = [made.features[0], [0xAB; 16], made.features[7]];
    let column: ArrayRef = Arc::new(FixedSizeBinaryArray::try_from_iter(hashes.iter()).unwrap());
    let number: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let batch = RecordBatch::try_from_iter([("_feature_hash", column), ("n", number)]).unwrap();
    let (left, out) = without_sealed(&batch, [&made.filter]).unwrap();
    assert_eq!((left, out), (batch.slice(1, 1), 2));
    assert_eq!(without_sealed(&batch, []).unwrap(), (batch.clone(), 0));
    assert!(without_sealed(&batch.project(&[1]).unwrap(), [&made.filter]).is_err());
}
