use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use proptest::prelude::*;

use super::*;
use crate::codec::formats::Format;
use crate::domain::contract::LogicalType;
use crate::ml::Task;
use crate::ml::artefact;
use crate::ml::derivation::{Field, Table};
use crate::ml::encoding::{Encoding, Feature, Kind};
use crate::ml::model::{Forest, Model, Predictor};

fn fields(columns: &[(&str, LogicalType)]) -> Vec<Field> {
    columns.iter().map(|(name, kind)| Field { name: (*name).to_owned(), kind: *kind }).collect()
}

const AIRPORTS: &str = "code,altitude,lat\nABQ,5355,35.04\nACK,48,41.25\nALB,285,42.75\nABQ,5355,35.04\n";

fn airports(csv: &str) -> Table {
    let columns =
        fields(&[("code", LogicalType::String), ("altitude", LogicalType::Integer), ("lat", LogicalType::Number)]);
    let bytes = table::canonical("airports", &columns, Format::Csv, csv.as_bytes()).unwrap();
    let digest = data_encoding::HEXLOWER.encode(&artefact::digest(&bytes));
    Table { name: "airports".to_owned(), columns, digest, bytes: bytes.into() }
}

fn reads() -> Vec<Field> {
    fields(&[("dest", LogicalType::String), ("distance", LogicalType::Integer), ("temp", LogicalType::Number)])
}

fn adding(text: &str, columns: &[(&str, LogicalType)]) -> Derivation {
    let select = Select { name: "added".to_owned(), reads: reads(), text: text.to_owned(), columns: fields(columns) };
    Derivation { tables: vec![airports(AIRPORTS)], selects: vec![select], steps: Vec::new() }
}

fn step(text: &str) -> Derivation {
    let step = Select { name: "kept".to_owned(), reads: reads(), text: text.to_owned(), columns: Vec::new() };
    Derivation { tables: vec![airports(AIRPORTS)], selects: Vec::new(), steps: vec![step] }
}

fn rows(range: std::ops::Range<i64>) -> RecordBatch {
    let code = |n: i64| ["ABQ", "ACK", "ALB", "XXX"][n as usize % 4];
    RecordBatch::try_from_iter_with_nullable([
        ("dest", Arc::new(StringArray::from_iter_values(range.clone().map(code))) as ArrayRef, true),
        ("distance", Arc::new(Int64Array::from_iter_values(range.clone().map(|n| 100 + n * 7))), true),
        ("temp", Arc::new(Float64Array::from_iter(range.map(|n| (n % 5 > 0).then_some(n as f64 * 0.37)))), true),
    ])
    .unwrap()
}

/// Looks airports up, whose table has one twice, and uses the pinned functions.
const GOOD: &str = "SELECT a.altitude AS altitude, ln(rows.distance) + a.lat * coalesce(temp, 1) AS mix, \
    CASE WHEN a.code IS NULL THEN 'unknown' ELSE upper(a.code) END AS known FROM rows \
    LEFT JOIN (SELECT code, max(altitude) AS altitude, min(lat) AS lat FROM airports GROUP BY code) a ON rows.dest = a.code";
const GOOD_COLUMNS: [(&str, LogicalType); 3] =
    [("altitude", LogicalType::Integer), ("mix", LogicalType::Number), ("known", LogicalType::String)];

#[test]
fn every_row_gets_its_own_values_in_its_own_place_and_those_the_table_does_not_know_keep_theirs() {
    let derivation = adding(GOOD, &GOOD_COLUMNS);
    check(&derivation).unwrap();
    let made = derive(&derivation, rows(0..9)).unwrap();
    assert_eq!(made.num_columns(), 6);
    let altitude = made.column_by_name("altitude").unwrap().as_primitive::<Int64Type>().clone();
    assert_eq!(altitude.iter().take(5).collect::<Vec<_>>(), [Some(5355), Some(48), Some(285), None, Some(5355)]);
    let known = made.column_by_name("known").unwrap().as_string::<i32>().clone();
    assert_eq!(known.iter().flatten().skip(2).take(2).collect::<Vec<_>>(), ["ALB", "unknown"]);
    let mix = made.column_by_name("mix").unwrap().as_primitive::<arrow::datatypes::Float64Type>().clone();
    assert_eq!(mix.value(1).to_bits(), (crate::math::ln(107.0) + 41.25 * 0.37).to_bits(), "the pinned logarithm");
    assert_eq!(derive(&derivation, rows(0..0)).unwrap().num_columns(), 6, "no rows are rows, too");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn the_bits_do_not_depend_on_the_company_that_rows_come_in(cuts in prop::collection::btree_set(1..200_i64, 0..4)) {
        let derivation = adding(GOOD, &GOOD_COLUMNS);
        let whole = derive(&derivation, rows(0..200)).unwrap();
        let borders: Vec<i64> = [0].into_iter().chain(cuts).chain([200]).collect();
        let parts: Vec<RecordBatch> =
            borders.windows(2).map(|pair| derive(&derivation, rows(pair[0]..pair[1])).unwrap()).collect();
        prop_assert_eq!(&whole, &concat_batches(&whole.schema(), &parts).unwrap());
    }
}

#[test]
fn rows_that_are_lost_or_come_twice_are_named_with_the_way_out() {
    let fault = |text: &str| derive(&adding(text, &[("altitude", LogicalType::Integer)]), rows(0..80)).unwrap_err();
    let lost = fault(
        "SELECT a.altitude FROM rows JOIN (SELECT code, max(altitude) AS altitude FROM airports GROUP BY code) a ON rows.dest = a.code",
    );
    assert_eq!((lost.problem.as_str(), lost.row), ("loses a row", Some(3)));
    assert!(
        lost.to_string().starts_with("the SQL `added` loses a row (row 4); help: ") && lost.help.contains("LEFT JOIN")
    );
    let twice = fault("SELECT altitude FROM rows LEFT JOIN airports ON dest = code");
    assert_eq!((twice.problem.as_str(), twice.row), ("gives a row more than once", Some(0)));
    let late = adding(
        "SELECT CAST(nullif(temp, temp) AS BIGINT) / (distance - 590) AS altitude FROM rows",
        &[("altitude", LogicalType::Integer)],
    );
    assert!(derive(&late, rows(0..10)).is_ok(), "nothing is divided where there is no value");
    let zero = fault("SELECT 1 / (distance - 590) AS altitude FROM rows");
    assert_eq!(zero.problem, "divides by zero");
    let secret = fault("SELECT CAST(dest AS BIGINT) AS altitude FROM rows");
    assert!(!secret.to_string().contains("ABQ"), "sealed values stay where they are: {secret}");
}

#[test]
fn what_is_not_a_function_of_the_row_and_the_tables_on_every_machine_is_refused_by_name() {
    let joined = format!("SELECT length({}) AS f FROM rows", ["dest"; 18].join(" || "));
    let once = ["dest"; 10].join(" || ");
    let apart = format!("SELECT length({once}) + length({once}) AS f FROM rows");
    // Without a limit the parser takes three times as long for each level: for ever.
    let nested = format!("SELECT {} AS f FROM rows", "POSITION(".repeat(40));
    let cases = [
        ("SELECT CAST(now() AS BIGINT) AS f FROM rows", "`now`"),
        ("SELECT CAST(random() * 10 AS BIGINT) AS f FROM rows", "`random`"),
        ("SELECT length(uuid()) AS f FROM rows", "`uuid`"),
        ("SELECT CAST(current_date() AS BIGINT) AS f FROM rows", "`current_date`"),
        ("SELECT CAST(sin(temp) AS BIGINT) AS f FROM rows", "`sin`"),
        ("SELECT ascii(repeat(dest, 1000)) AS f FROM rows", "`repeat`"),
        ("SELECT count(*) AS f FROM rows", "GROUP BY or an aggregate"),
        ("SELECT max(distance) AS f FROM rows GROUP BY dest", "GROUP BY or an aggregate"),
        ("SELECT row_number() OVER () AS f FROM rows", "a window function"),
        ("SELECT distance AS f FROM rows WHERE distance > 0", "WHERE"),
        ("SELECT distance AS f FROM rows LIMIT 5", "LIMIT"),
        ("SELECT distance AS f FROM rows ORDER BY distance", "ORDER BY"),
        ("SELECT DISTINCT distance AS f FROM rows", "DISTINCT"),
        ("SELECT distance AS f FROM rows UNION ALL SELECT 1", "a union"),
        ("SELECT a.distance AS f FROM rows LEFT JOIN rows a ON rows.dest = a.dest", "joins `rows` to itself"),
        ("SELECT (SELECT max(altitude) FROM airports) AS f FROM rows", "a subquery"),
        ("SELECT distance AS f FROM (SELECT * FROM rows) r", "a SELECT in parentheses"),
        ("SELECT altitude AS f FROM airports", "another table"),
        ("SELECT altitude AS f FROM airports LEFT JOIN rows ON dest = code", "joins `rows`"),
        ("SELECT altitude AS f FROM rows CROSS JOIN airports", "join without an equality"),
        ("SELECT altitude AS f FROM rows LEFT JOIN airports ON distance > altitude", "join without an equality"),
        ("SELECT distance AS f FROM rows RIGHT JOIN airports ON dest = code", "Right join"),
        (
            "SELECT s AS f FROM rows LEFT JOIN (SELECT code, CAST(sum(lat) AS BIGINT) AS s FROM airports GROUP BY code) a ON dest = code",
            "sums fractions",
        ),
        (
            "SELECT s AS f FROM rows LEFT JOIN (SELECT code, CAST(avg(altitude) AS BIGINT) AS s FROM airports GROUP BY code) a ON dest = code",
            "`avg`",
        ),
        (
            "SELECT s AS f FROM rows LEFT JOIN (SELECT code, first_value(altitude) AS s FROM airports GROUP BY code) a ON dest = code",
            "`first_value`",
        ),
        ("SELECT altitude AS f FROM rows LEFT JOIN (SELECT * FROM airports LIMIT 1) a ON dest = code", "LIMIT"),
        ("SELECT value AS f FROM rows LEFT JOIN generate_series(1, 9) g ON distance = value", "reads `"),
        ("SELECT _row AS f FROM rows", "`_row`"),
        ("SELECT distance AS f FROM rows WHERE _row = 1", "WHERE"),
        ("SELECT CASE WHEN dest ~ dest THEN 1 ELSE 0 END AS f FROM rows", "a pattern"),
        ("SELECT late AS f FROM rows", "cannot be planned"),
        ("SELECT distance AS f FROM other", "cannot be planned"),
        ("SELECT distance AS f FROM '/etc/passwd'", "cannot be planned"),
        ("COPY rows TO 'x.csv'", "is no plain SELECT"),
        ("DROP TABLE rows", "is no plain SELECT"),
        ("SELECT distance AS f FROM rows; SELECT 1", "cannot be planned"),
        ("SELECT length(replace(dest, 'A', dest)) AS f FROM rows", "`replace`"),
        ("SELECT length(replace(dest, '', 'A')) AS f FROM rows", "`replace`"),
        ("SELECT length(replace(dest, 'A', 'BC')) AS f FROM rows", "`replace`"),
        (joined.as_str(), "more than 16 texts"),
        (apart.as_str(), "more than 16 texts"),
        (nested.as_str(), "nested deeper"),
        ("EXPLAIN SELECT distance AS f FROM rows", "is no plain SELECT"),
        ("SELECT distance AS g FROM rows", "gives the columns g, and f are declared"),
        ("SELECT dest AS f FROM rows", "gives f as Utf8, not as integer"),
    ];
    let mut others = Vec::new();
    for (text, problem) in cases {
        match check(&adding(text, &[("f", LogicalType::Integer)])) {
            Err((0, fault)) if fault.problem.contains(problem) && !fault.help.is_empty() => {}
            other => others.push((text, other)),
        }
    }
    assert!(others.is_empty(), "{others:#?}");
    let (_, fault) = check(&step("SELECT * FROM rows WHERE random() < 0.5")).unwrap_err();
    assert!(fault.problem.contains("`random`"), "{fault}");
    let (_, fault) = check(&step("SELECT * FROM rows WHERE _row < 5")).unwrap_err();
    assert!(fault.problem.contains("`_row`"), "{fault}");
    let deep = format!("SELECT {}distance{} AS f FROM rows", "abs(".repeat(100), ")".repeat(100));
    assert!(check(&adding(&deep, &[("f", LogicalType::Integer)])).is_err());
}

/// The rows that the one step lets through, and their keys.
fn filtered(of: &Derivation, rows: RecordBatch, keys: Vec<u64>) -> Result<(RecordBatch, Vec<u64>), Fault> {
    let mask = kept(of, &of.steps[0], &rows, &keys)?;
    let keys = keys.into_iter().zip(mask.values()).filter_map(|(key, kept)| kept.then_some(key)).collect();
    Ok((arrow::compute::filter_record_batch(&rows, &mask).unwrap(), keys))
}

#[test]
fn a_step_keeps_rows_with_their_keys_in_their_order_and_a_share_of_them_is_the_same_in_any_company() {
    let keys: Vec<u64> = (0..300_u64).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
    let half = step(
        "SELECT * FROM rows LEFT JOIN (SELECT code, count(*) AS n FROM airports GROUP BY code) a ON dest = a.code \
                     WHERE a.n = 2 OR _share < 0.5",
    );
    check(&half).unwrap();
    let (kept, own) = filtered(&half, rows(0..300), keys.clone()).unwrap();
    assert_eq!(kept.schema(), rows(0..1).schema(), "what is joined stays out");
    assert!(kept.num_rows() == own.len() && (150..230).contains(&own.len()), "{}", own.len());
    let places: Vec<usize> = own.iter().map(|key| keys.iter().position(|known| known == key).unwrap()).collect();
    assert!(places.is_sorted() && (0..300).step_by(4).all(|place| places.contains(&place)));
    let (_, second) = filtered(&half, rows(100..300), keys[100..].to_vec()).unwrap();
    assert_eq!(second, own.into_iter().skip(places.partition_point(|place| *place < 100)).collect::<Vec<_>>());
    let twice = step("SELECT * FROM rows JOIN airports ON dest = code");
    assert!(filtered(&twice, rows(0..9), keys[..9].to_vec()).unwrap_err().problem.contains("more than once"));
}

#[test]
fn the_digest_of_a_table_names_its_cells_and_neither_their_order_nor_the_files_format() {
    let own = airports(AIRPORTS);
    let turned = "lat,code,altitude\n35.04,ABQ,5355\n42.75,ALB,285\n35.04,ABQ,5355\n41.25,ACK,48\n";
    assert_eq!(airports(turned).digest, own.digest);
    let json = r#"[{"code":"ABQ","altitude":5355,"lat":35.04},{"code":"ACK","altitude":48,"lat":41.25},{"code":"ALB","altitude":285,"lat":42.75},{"code":"ABQ","altitude":5355,"lat":35.04}]"#;
    let bytes = table::canonical("airports", &own.columns, Format::Json, json.as_bytes()).unwrap();
    assert_eq!(*bytes, *own.bytes);
    assert_ne!(airports(&AIRPORTS.replace("285", "286")).digest, own.digest);
    let bad = |csv: &str| table::canonical("airports", &own.columns, Format::Csv, csv.as_bytes()).unwrap_err().problem;
    assert_eq!(bad("code,lat\nABQ,1\n"), "has no column altitude");
    assert!(bad("code,altitude,lat\nABQ,high,1\n").starts_with("row 1: column altitude: expected "));
    assert!(bad("code,altitude,lat\nABQ,1,inf\n").starts_with("row 1: column lat: expected finite number"));
    let many: String = (0..=table::MAX_ROWS).map(|n| format!("A{n},1,1\n")).collect();
    assert!(bad(&format!("code,altitude,lat\n{many}")).contains("more than 100000 rows"));
}

#[test]
fn a_table_whose_bytes_are_not_there_or_not_its_own_is_never_taken_for_an_empty_one() {
    let derivation = adding(GOOD, &GOOD_COLUMNS);
    for bytes in [Vec::new(), derivation.tables[0].bytes[1..].to_vec()] {
        let mut other = derivation.clone();
        other.tables[0].bytes = bytes.into();
        assert!(derive(&other, rows(0..5)).unwrap_err().problem.contains("other bytes than its digest"));
    }
    // A hand that mends the digest still has to keep the form.
    let mut turned = derivation.clone();
    let mut lines: Vec<&[u8]> = derivation.tables[0].bytes.split_inclusive(|byte| *byte == b'\n').collect();
    lines.reverse();
    let bytes = lines.concat();
    turned.tables[0].digest = data_encoding::HEXLOWER.encode(&artefact::digest(&bytes));
    turned.tables[0].bytes = bytes.into();
    assert_eq!(derive(&turned, rows(0..5)).unwrap_err().problem, "is not in canonical form");
}

#[test]
fn an_artefact_holds_the_sql_with_its_tables_and_one_without_has_the_bytes_that_it_always_had() {
    let features = vec![Feature { column: "altitude".into(), kind: Kind::Number }];
    let forest = Forest { base: vec![0.5], trees: Vec::new() };
    let model = |derivation: Derivation| Model {
        task: Task::Number,
        encoding: Encoding { features: features.clone(), derivation },
        predictor: Predictor::Trees(forest.clone()),
    };
    let with = model(adding(GOOD, &GOOD_COLUMNS).served());
    let bytes = with.to_bytes();
    assert_eq!(Model::from_bytes(&bytes).unwrap(), with);
    let plain = model(Derivation::default()).to_bytes();
    assert_eq!((plain[4..6].to_vec(), bytes[4..6].to_vec()), (vec![1, 0], vec![2, 0]));
    for cut in (0..bytes.len()).step_by(3) {
        assert!(Model::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    let mut marked = plain;
    marked[4] = 2;
    assert!(Model::from_bytes(&marked).is_err(), "version 2 has SQL");
}

#[test]
fn a_row_that_may_meet_too_many_rows_of_tables_is_refused_before_it_meets_one() {
    let mut csv = "code,altitude,lat\n".to_owned();
    (0..40).for_each(|n| csv += &format!("ABQ,{n},1\n"));
    (0..2_000).for_each(|n| csv += &format!(",{n},1\n"));
    let over = |text: &str| Derivation { tables: vec![airports(&csv)], ..adding(text, &[("f", LogicalType::Integer)]) };
    let twice = "SELECT b.altitude AS f FROM rows LEFT JOIN airports a ON rows.dest = a.code
                 LEFT JOIN airports b ON a.code = b.code AND b.altitude < a.altitude - 100000";
    let (place, fault) = check_filled(&over(twice)).unwrap_err();
    assert!(place == 0 && fault.problem.contains("meet 1600 rows"), "{fault}");
    assert_eq!(derive(&over(twice), rows(0..1)).unwrap_err(), fault);
    // Rows of a table without a key meet nobody, and what is grouped has a key once.
    let once = "SELECT b.f FROM rows LEFT JOIN airports a ON rows.dest = a.code AND a.altitude = 7
                LEFT JOIN (SELECT code, max(altitude) AS f FROM airports GROUP BY code) b ON a.code = b.code";
    check_filled(&over(once)).unwrap();
    derive(&over(once), rows(0..9)).unwrap();
    check(&over(twice)).unwrap();
}

#[test]
fn the_row_at_which_sql_fails_is_told_and_may_be_left_out() {
    let rows = rows(0..300);
    let at = 137;
    let distances = (0..300).map(|place| if place == at { 0 } else { 7 });
    let place = rows.schema().index_of("distance").unwrap();
    let mut columns = rows.columns().to_vec();
    columns[place] = Arc::new(Int64Array::from_iter_values(distances));
    let rows = RecordBatch::try_new(rows.schema(), columns).unwrap();
    let own = adding("SELECT 1000 / distance AS f FROM rows", &[("f", LogicalType::Integer)]);
    let fault = derive(&own, rows).unwrap_err();
    assert_eq!(fault.row, Some(at), "{fault}");
    assert!(fault.to_string().contains("(row 138)") && !fault.without_place().to_string().contains("138"));
}

#[test]
fn types_are_those_that_every_result_of_a_case_fits_into() {
    let fraction = "SELECT CASE WHEN distance > 500 THEN 1 ELSE 0.5 END AS f FROM rows";
    let (_, fault) = check(&adding(fraction, &[("f", LogicalType::Integer)])).unwrap_err();
    assert!(fault.problem.contains("not as integer"), "{fault}");
    check(&adding(fraction, &[("f", LogicalType::Number)])).unwrap();
    let sum = "SELECT s AS f FROM rows LEFT JOIN (SELECT code, sum(CASE WHEN altitude > 9 THEN 0 ELSE lat END) AS s
               FROM airports GROUP BY code) a ON dest = code";
    let (_, fault) = check(&adding(sum, &[("f", LogicalType::Number)])).unwrap_err();
    assert!(fault.problem.contains("sums fractions"), "{fault}");
}

#[test]
fn nested_coalesce_is_counted_as_it_is_written_out() {
    // 40 terms, twice as many for each of six levels.
    let many = (0..6).fold(["distance"; 40].join(" + "), |inner, _| format!("coalesce({inner}, 1)"));
    let (_, fault) =
        check(&adding(&format!("SELECT {many} AS f FROM rows"), &[("f", LogicalType::Integer)])).unwrap_err();
    assert!(fault.problem.contains("written as CASE"), "{fault}");
    let one = "SELECT coalesce(distance / nullif(distance, 3), 0) AS f FROM rows";
    check(&adding(one, &[("f", LogicalType::Integer)])).unwrap();
}
