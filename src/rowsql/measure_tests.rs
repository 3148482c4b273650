//! Declared metrics against DuckDB and scipy, and everything that is none.

use arrow::array::{Int64Array, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::cast;
use arrow::compute::{concat_batches, take_record_batch};
use serde_json::Value;

use super::*;
use crate::stats::compare::compare;
use crate::stats::evaluation::{Plan, Resampling, Standing, evaluate};
use crate::stats::metric::Metric;
use crate::stats::random::Seed;
use crate::stats::rows::{CustomValues, Frame, PairedRows, Task};

const SPEC: &str = "apiVersion: hokusai/v1
kind: Model
name: m
label: truth
evaluation:
  primary: LOSS
  minimumEffect: 0.01
  metrics:
METRICS
schema:
  - name: rows
    properties:
      - {name: region, logicalType: string, logicalTypeOptions: {maxLength: 10}}
      - {name: seen, logicalType: timestamp}
      - {name: amount, logicalType: number}
      - {name: count, logicalType: integer}
      - {name: email, logicalType: string, pii: {policy: hash, type: email_address}}
      - TRUTH
";
const BOOLEAN: &str = "{name: truth, logicalType: boolean}";
const NUMBER: &str = "{name: truth, logicalType: number}";
const THREE: &str = "{name: truth, logicalType: string, logicalTypeOptions: {enum: [late, early, 'in time']}}";

/// A contract with these metrics: name, direction, SQL.
fn spec(truth: &str, metrics: &[(&str, &str, &str)]) -> Result<Spec, SpecError> {
    let one = |(name, direction, value): &(&str, &str, &str)| {
        format!("    - {{name: {name}, direction: {direction}, value: {}}}\n", Value::from(*value))
    };
    let metrics: String = metrics.iter().map(one).collect();
    let primary = if truth == NUMBER { "mae" } else { "log_loss" };
    let text = SPEC.replace("LOSS", primary).replace("METRICS\n", &metrics).replace("TRUTH", truth);
    Spec::parse_yaml(&text, "model.yaml")
}

fn measures(truth: &str, value: &str) -> Result<Measures, SpecError> {
    Measures::compile(&spec(truth, &[("own", "lower", value)])?).map(|own| own.unwrap())
}

fn floats(value: &Value) -> Vec<Option<f64>> {
    value.as_array().unwrap().iter().map(Value::as_f64).collect()
}

fn quanta(value: &Value) -> Vec<i64> {
    floats(value).into_iter().map(|own| quantise(own.unwrap(), MICRO).unwrap()).collect()
}

fn batch(rows: &Value) -> RecordBatch {
    let texts = |name: &str| rows[name].as_array().unwrap().iter().map(Value::as_str).collect::<StringArray>();
    let truth: ArrayRef = match rows["label"][0] {
        Value::Bool(_) => {
            Arc::new(rows["label"].as_array().unwrap().iter().map(Value::as_bool).collect::<BooleanArray>())
        }
        _ => Arc::new(Float64Array::from(floats(&rows["label"]))),
    };
    let count = rows["count"].as_array().unwrap().iter().map(Value::as_i64).collect::<Int64Array>();
    RecordBatch::try_from_iter_with_nullable([
        ("region", Arc::new(texts("region")) as ArrayRef, true),
        ("seen", cast(&texts("seen"), &arrow_type(LogicalType::Timestamp)).unwrap(), true),
        ("amount", Arc::new(Float64Array::from(floats(&rows["amount"]))), true),
        ("count", Arc::new(count), true),
        ("email", Arc::new(texts("region")), true),
        ("truth", truth, true),
    ])
    .unwrap()
}

/// Labels in quanta, as the stage has them.
fn labels(rows: &Value) -> Vec<i64> {
    match rows["label"][0] {
        Value::Bool(_) => {
            rows["label"].as_array().unwrap().iter().map(|own| i64::from(own.as_bool().unwrap())).collect()
        }
        _ => quanta(&rows["label"]),
    }
}

fn vectors() -> Value {
    let text = include_str!("../../tests/vectors/evaluation/custom_metrics.json");
    serde_json::from_str::<Value>(text).unwrap()["cases"].clone()
}

/// The metrics of a case, planned, with their names, directions and SQL.
fn declared(case: &Value, truth: &str) -> (Measures, Vec<(String, bool)>) {
    let metrics = case["metrics"].as_object().unwrap();
    let text = |own: &'_ Value, field: &str| own[field].as_str().unwrap().to_owned();
    let all: Vec<_> = metrics.iter().map(|(n, own)| (n.clone(), text(own, "direction"), text(own, "value"))).collect();
    let borrowed: Vec<_> = all.iter().map(|(n, d, v)| (n.as_str(), d.as_str(), v.as_str())).collect();
    let planned = Measures::compile(&spec(truth, &borrowed).unwrap()).unwrap().unwrap();
    (planned, all.into_iter().map(|(name, direction, _)| (name, direction == "higher")).collect())
}

#[test]
fn values_are_those_that_duckdb_gives_for_the_same_sql_and_comparisons_those_of_scipy() {
    for (name, truth, task) in [("two", BOOLEAN, Task::Binary), ("number", NUMBER, Task::Regression)] {
        let case = &vectors()[name];
        let (batch, labels) = (batch(&case["rows"]), labels(&case["rows"]));
        let (baseline, candidate) = (quanta(&case["baseline"]), quanta(&case["candidate"]));
        let (measures, names) = declared(case, truth);
        let of = |scores: &[i64]| measures.values(&batch, &labels, scores).unwrap();
        let pairs = of(&baseline).into_iter().zip(of(&candidate));
        let custom: Vec<CustomValues> = names
            .iter()
            .zip(pairs)
            .map(|((name, higher_is_better), (baseline, candidate))| {
                let known = &case["metrics"][name]["values"];
                for (own, known) in [(&baseline, quanta(&known[0])), (&candidate, quanta(&known[1]))] {
                    let most = own.iter().zip(&known).map(|(own, known)| (own - known).abs()).max().unwrap();
                    assert!(own.len() == known.len() && most <= 1, "{name}: {most} quanta apart");
                }
                CustomValues { name: name.clone(), higher_is_better: *higher_is_better, baseline, candidate }
            })
            .collect();
        let strata = vec![0; labels.len()];
        let rows = PairedRows::with_extras(Frame::new(task), labels, baseline, candidate, custom, strata).unwrap();
        let plan = Plan { primary: Metric::Custom(0), minimum_effect: Some(0), guardrails: vec![], strata: vec![] };
        let standing =
            Standing { preregistered: true, attempt: Some(1), alpha: Some(0.05), retired: false, acceptances: 0 };
        let done = evaluate(&rows, &plan, &standing, &Resampling::new([3; 32]));
        for (place, (name, _)) in names.iter().enumerate() {
            let (_, own) = done.metrics.iter().find(|(metric, _)| *metric == Metric::Custom(place)).unwrap();
            let (own, known) = (own.as_ref().unwrap(), &case["metrics"][name]);
            assert_eq!(own.comparison.metric.name_in(&rows), name);
            let evidence = own.comparison.evidence;
            let error = known["standard_error"].as_f64().unwrap();
            for (own, field) in [
                (own.comparison.baseline.to_f64(), "baseline"),
                (own.comparison.candidate.to_f64(), "candidate"),
                (evidence.delta(), "delta"),
                (evidence.standard_error(), "standard_error"),
                (evidence.lower_bound(0.05), "lower_95"),
                (evidence.lower_bound(0.001), "lower_999"),
            ] {
                let known = known[field].as_f64().unwrap();
                assert!((own - known).abs() < 2e-6, "{name} {field}: {own} {known}");
            }
            let p = known["p"].as_f64().unwrap();
            assert!((evidence.p_value() / p - 1.0).abs() < 2e-3, "{name}: {} {p}", evidence.p_value());
            let interval = own.interval.unwrap();
            for (own, known) in [(interval.lower, &known["bca95"][0]), (interval.upper, &known["bca95"][1])] {
                let known = known.as_f64().unwrap();
                assert!((own - known).abs() < 0.25 * error, "{name}: {own} {known}");
            }
        }
    }
}

#[test]
fn neither_the_order_of_rows_nor_the_size_of_batches_changes_a_value() {
    let case = &vectors()["two"];
    let (whole, labels, scores) = (batch(&case["rows"]), labels(&case["rows"]), quanta(&case["candidate"]));
    let (measures, _) = declared(case, BOOLEAN);
    let known = measures.values(&whole, &labels, &scores).unwrap();
    for round in 0..12_u64 {
        let mut stream = Seed::derive("order", &round.to_be_bytes()).stream(0);
        let mut places: Vec<u32> = (0..labels.len() as u32).collect();
        stream.shuffle(&mut places);
        let mixed = take_record_batch(&whole, &UInt32Array::from(places.clone())).unwrap();
        let mut found = vec![Vec::new(); known.len()];
        let mut done = 0;
        while done < places.len() {
            let count = (1 + stream.below(97) as usize).min(places.len() - done);
            let own = &places[done..done + count];
            let picked = |all: &[i64]| own.iter().map(|place| all[*place as usize]).collect::<Vec<_>>();
            let slice = concat_batches(&mixed.schema(), &[mixed.slice(done, count)]).unwrap();
            let values = measures.values(&slice, &picked(&labels), &picked(&scores)).unwrap();
            found.iter_mut().zip(values).for_each(|(all, own)| all.extend(own));
            done += count;
        }
        for (found, known) in found.iter().zip(&known) {
            assert!(found.iter().zip(&places).all(|(own, place)| *own == known[*place as usize]), "round {round}");
        }
    }
}

#[test]
fn what_depends_on_more_than_the_row_or_on_the_machine_is_no_metric_and_the_error_names_it() {
    for (value, problem) in [
        ("now() > seen", "now"),
        ("random() + score", "random"),
        ("uuid() = region AND score > 1", "uuid"),
        ("date_part('hour', current_timestamp) + score", "now"),
        ("sin(score)", "`sin`"),
        ("log(score)", "`log`"),
        ("repeat(region, 1000000) = 'x' AND score > 0", "repeat"),
        ("regexp_like(region, '(a+)+') AND score > 0", "regexp_like"),
        ("score + (SELECT 1)", ""),
        ("CASE WHEN count IN (SELECT 1) THEN score ELSE 0 END", ""),
        ("avg(score)", "aggregate"),
        ("sum(score) / sum(amount)", "aggregate"),
        ("row_number() OVER () + score", ""),
        ("score + $1", "parameter"),
        ("score + @@x", ""),
        ("score; drop table t", ""),
        ("score +", ""),
        ("score > 0.5", "not a number"),
        ("region", ""),
        ("score || region", "||"),
        ("score # 3", ""),
        ("CASE WHEN region LIKE region THEN score ELSE 0 END", "pattern"),
        ("CASE WHEN region ~ 'a' THEN score ELSE 0 END", "operator"),
        ("CASE WHEN truth THEN score END", "without ELSE"),
        ("CAST(score AS INT)", "casts to"),
        ("CAST(score AS DECIMAL(4, 2))", "casts to"),
        ("score * CAST(region AS TEXT)", "casts to"),
        ("round(score, 2)", "2 arguments"),
        ("salary + score", "salary"),
        ("Score", "Score"),
        ("rows.score", ""),
        ("CASE WHEN email = 'x' THEN score ELSE 0 END", "personal data"),
        ("amount", "reads no score"),
        ("1", "reads no score"),
        ("\"score.true\"", "score.true"),
        ("score + 'x'", ""),
    ] {
        let error = measures(BOOLEAN, value).map(|_| value).unwrap_err();
        assert_eq!(error.path, "evaluation.metrics[0].value", "{value}: {error}");
        assert!(error.problem.contains(problem) && !error.help.is_empty(), "{value}: {error}");
    }
    let deep = (0..300).fold("score".to_owned(), |text, _| format!("{text} + score"));
    assert!(measures(BOOLEAN, &deep).unwrap_err().problem.contains("too deep"));
    let nested = format!("{}score{}", "(".repeat(200), ")".repeat(200));
    assert!(measures(BOOLEAN, &nested).unwrap_err().problem.contains("nested deeper"));
    let cases = "CASE WHEN truth THEN score ELSE ".repeat(12) + "0" + &" END".repeat(12);
    assert!(measures(BOOLEAN, &cases).unwrap_err().problem.contains("CASE"));
    let known = spec(BOOLEAN, &[("accuracy", "higher", "score")]).unwrap_err();
    assert!(known.path == "evaluation.metrics[0].name" && known.problem.contains("built-in"), "{known}");
    let twice = spec(BOOLEAN, &[("own", "higher", "score"), ("own", "lower", "score")]).unwrap_err();
    assert_eq!(twice.path, "evaluation.metrics[1].name");
    for name in ["Own", "own cost", "1st", "custom", "own-cost"] {
        assert_eq!(
            spec(BOOLEAN, &[(name, "lower", "score")]).unwrap_err().path,
            "evaluation.metrics[0].name",
            "{name}"
        );
    }
    let ambiguous = BOOLEAN.to_owned() + "\n      - {name: score, logicalType: number}";
    assert!(measures(&ambiguous, "score").unwrap_err().problem.contains("both a column"));
    assert!(measures(&ambiguous, "CASE WHEN predicted THEN 1 ELSE 0 END").is_ok(), "it is not read");
    let long = format!("score{}", " ".repeat(5_000));
    assert_eq!(spec(BOOLEAN, &[("own", "lower", &long)]).unwrap_err().path, "evaluation.metrics[0].value");
}

#[test]
fn a_label_that_is_called_as_a_score_is_does_not_stand_in_its_place() {
    let text = SPEC.replace("LOSS", "mae").replace("label: truth", "label: score");
    let text = text.replace("TRUTH", "{name: score, logicalType: number}");
    let of = |value: &str| {
        let metric = format!("    - {{name: own, direction: lower, value: '{value}'}}\n");
        Measures::compile(&Spec::parse_yaml(&text.replace("METRICS\n", &metric), "model.yaml").unwrap())
    };
    let error = of("abs(label - score)").unwrap_err();
    assert!(error.problem.contains("both a column"), "{error}");
}

/// A row: what it is worth, or why it is worth nothing.
fn row(truth: &str, value: &str, score: i64) -> Result<i64, String> {
    let label: ArrayRef = match truth {
        NUMBER => Arc::new(Float64Array::from(vec![4.5])),
        _ => Arc::new(BooleanArray::from(vec![true])),
    };
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("region", Arc::new(StringArray::from(vec!["secret"])) as ArrayRef, true),
        ("seen", Arc::new(TimestampMicrosecondArray::from(vec![0]).with_timezone("UTC")), true),
        ("amount", Arc::new(Float64Array::from(vec![None::<f64>])), true),
        ("count", Arc::new(Int64Array::from(vec![i64::MAX])), true),
        ("truth", label, true),
    ]);
    let own = measures(truth, value).map_err(|e| e.to_string())?;
    let labels = [if truth == NUMBER { 4_500_000 } else { 1 }];
    own.values(&batch.unwrap(), &labels, &[score]).map(|own| own[0][0]).map_err(|e| e.to_string())
}

#[test]
fn a_value_that_is_none_is_refused_without_repeating_a_cell_and_numbers_neither_wrap_nor_truncate() {
    for (value, problem) in [
        ("score / amount", "NULL"),
        ("nullif(score, score)", "NULL"),
        ("score / (count - count)", "infinite"),
        ("(score - score) / (count - count)", "NaN"),
        ("sqrt(-1 - score)", "NaN"),
        ("power(-1 - score, 0.5)", "NaN"),
        ("ln(score - score)", "infinite"),
        ("power(10, 300) * power(10, 300) + score", "infinite"),
        ("score + 100000001", "beyond"),
        ("score * count", "beyond"),
        ("CAST(region AS DOUBLE) + score", "no result"),
    ] {
        let error = row(BOOLEAN, value, 500_000).unwrap_err();
        assert!(error.contains(problem) && error.contains("the metric own is undefined"), "{value}: {error}");
        assert!(!error.contains("secret") && error.contains("help: "), "{value}: {error}");
    }
    for (value, known) in [
        ("score + 1/2", 1_000_000),
        ("7 / 2 * score", 1_750_000),
        ("-1/4 + score", 250_000),
        ("CASE WHEN count + count > count THEN score ELSE 0 END", 500_000),
        ("CASE WHEN amount > 0 THEN 1 ELSE score END", 500_000),
        ("coalesce(amount, 3) * score", 1_500_000),
        ("character_length(region) / 4 + score", 2_000_000),
        ("date_part('year', seen) / 1000 * score", 985_000),
        ("CASE WHEN seen < TIMESTAMP '2001-01-01T00:00:00Z' AND label AND predicted THEN score ELSE 0 END", 500_000),
        ("CASE WHEN seen >= '1970-01-01T00:00:00Z' AND truth = label THEN score ELSE 0 END", 500_000),
        ("CASE WHEN region IN ('secret', 'x') AND starts_with(region, 'se') THEN score * 0.0000012 ELSE 0 END", 1),
        ("7 % 4 * score", 1_500_000),
    ] {
        assert_eq!(row(BOOLEAN, value, 500_000).as_ref(), Ok(&known), "{value}");
    }
    assert_eq!(row(NUMBER, "abs(label - score) + truth - label", -1_250_000), Ok(5_750_000));
    assert!(measures(NUMBER, "CASE WHEN predicted > 1 THEN score ELSE 0 END").is_err(), "a number is no class");
}

#[test]
fn of_several_classes_each_has_its_score_and_the_first_of_the_largest_is_predicted() {
    let three = |value: &str| measures(THREE, value).map_err(|e| e.to_string());
    let truth = StringArray::from(vec!["late", "early", "in time"]);
    let batch = RecordBatch::try_from_iter_with_nullable([("truth", Arc::new(truth) as ArrayRef, true)]).unwrap();
    // In the order of bytes: early, in time, late.
    let scores = [200_000, 300_000, 500_000, 400_000, 400_000, 200_000, 0, 0, 1_000_000];
    let of = |value: &str| three(value).unwrap().values(&batch, &[2, 0, 1], &scores).unwrap().remove(0);
    assert_eq!(of("\"score.late\""), [500_000, 200_000, 1_000_000]);
    assert_eq!(of("\"score.in time\""), [300_000, 400_000, 0]);
    assert_eq!(
        of("CASE WHEN predicted = label THEN 1 WHEN label = 'in time' THEN -2 ELSE 0 END"),
        [1_000_000, 1_000_000, -2_000_000]
    );
    assert!(three("score").unwrap_err().contains("score.late"), "{}", three("score").unwrap_err());
    assert!(three("\"score.never\"").is_err());
}

#[test]
fn equal_models_are_told_apart_no_more_often_than_the_level_says() {
    let own = measures(BOOLEAN, "CASE WHEN truth THEN 5 * power(1 - score, 2) ELSE score END").unwrap();
    let rows = 150;
    let mut found = 0;
    for round in 0..400_u64 {
        let mut stream = Seed::derive("null", &round.to_be_bytes()).stream(0);
        let mut draw = |most: u32| i64::from(stream.below(most));
        let labels: Vec<i64> = (0..rows).map(|_| draw(2)).collect();
        let scores: [Vec<i64>; 2] = std::array::from_fn(|_| (0..rows).map(|_| draw(1_000_001)).collect());
        let truth: BooleanArray = labels.iter().map(|label| Some(*label == 1)).collect();
        let batch = RecordBatch::try_from_iter([("truth", Arc::new(truth) as ArrayRef)]).unwrap();
        let [baseline, candidate] =
            scores.clone().map(|own_scores| own.values(&batch, &labels, &own_scores).unwrap().remove(0));
        let [first, second] = scores;
        let custom = vec![CustomValues { name: "own".to_owned(), higher_is_better: false, baseline, candidate }];
        let frame = Frame::new(Task::Binary);
        let rows = PairedRows::with_extras(frame, labels, first, second, custom, vec![0; rows]).unwrap();
        found += u32::from(compare(&rows, &Metric::Custom(0)).unwrap().evidence.p_value() < 0.05);
    }
    // Of Binomial(400, 0.05) the upper 0.1 % quantile is 35, the lower one 8.
    assert!((8..=35).contains(&found), "{found} of 400");
}
