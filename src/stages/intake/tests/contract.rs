use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};

use super::super::contract::{CompiledContract, Compiler};
use crate::domain::reason::Reason;
use crate::rowsql::UTC;

use super::support::{EXAMPLE, NOW};

fn compiled(from: &str, to: &str) -> CompiledContract {
    assert!(EXAMPLE.contains(from), "{from}");
    Compiler::new().compile_yaml(&EXAMPLE.replacen(from, to, 1), "model.yaml").unwrap()
}

fn example() -> CompiledContract {
    compiled("", "")
}

/// A batch of rows that all pass.
fn good(rows: usize) -> Vec<ArrayRef> {
    vec![
        Arc::new(StringArray::from_iter_values((0..rows).map(|i| format!("r{i}")))),
        Arc::new(TimestampMicrosecondArray::from_value(NOW * 1000, rows).with_timezone(UTC)),
        Arc::new(Int64Array::from_value(33, rows)),
        Arc::new(Float64Array::from_value(12.5, rows)),
        Arc::new(StringArray::from_iter_values((0..rows).map(|_| "premium"))),
        Arc::new(StringArray::from_iter_values((0..rows).map(|_| "DE"))),
        Arc::new(StringArray::from_iter_values((0..rows).map(|i| format!("a{i}@example.com")))),
        Arc::new(StringArray::from_iter_values((0..rows).map(|_| "fine"))),
        Arc::new(BooleanArray::from(vec![true; rows])),
    ]
}

fn batch(contract: &CompiledContract, columns: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_new(contract.schema().clone(), columns).unwrap()
}

/// Reason, rule and shape of the first failure of each row.
fn failures(contract: &CompiledContract, batch: &RecordBatch) -> Vec<Option<(Reason, String, String)>> {
    let failure = |(row, number): (usize, &u32)| {
        let check = contract.check(*number)?;
        let column = check.column.map(|c| batch.column(c));
        Some((check.reason, check.rule.clone(), check.test.shape(column, row)))
    };
    contract.first_failures(batch, NOW).iter().enumerate().map(failure).collect()
}

fn one(contract: &CompiledContract, column: usize, values: ArrayRef) -> Vec<Option<(Reason, String, String)>> {
    let mut columns = good(values.len());
    columns[column] = values;
    failures(contract, &batch(contract, columns))
}

fn reasons(found: &[Option<(Reason, String, String)>]) -> Vec<Option<Reason>> {
    found.iter().map(|f| f.as_ref().map(|(reason, ..)| *reason)).collect()
}

#[test]
fn good_rows_pass() {
    assert!(failures(&example(), &batch(&example(), good(5))).iter().all(Option::is_none));
}

#[test]
fn each_check_gives_its_code_and_the_shape_of_the_value() {
    let contract = example();
    let ages = one(&contract, 2, Arc::new(Int64Array::from(vec![Some(-5), Some(216), None, Some(120)])));
    assert_eq!(reasons(&ages), [Some(Reason::RangeLow), Some(Reason::RangeHigh), Some(Reason::NullRequired), None]);
    assert_eq!(ages[1].as_ref().unwrap().2, "above max by 1.5× to 2×, integer, 3 digits");
    let balances = one(
        &contract,
        3,
        Arc::new(Float64Array::from(vec![Some(f64::NAN), Some(-1e6), Some(1e6), None, Some(-999_999.9)])),
    );
    assert_eq!(
        reasons(&balances),
        [Some(Reason::TypeMismatch), Some(Reason::RangeLow), Some(Reason::RangeHigh), None, None]
    );
    let plans = one(&contract, 4, Arc::new(StringArray::from(vec![Some("gold??"), None, Some("basic")])));
    assert_eq!(reasons(&plans), [Some(Reason::EnumUnknown), Some(Reason::NullRequired), None]);
    assert_eq!(plans[0].as_ref().unwrap().2, "string, 6 characters: 0 digits, 4 letters, 2 others");
    let countries = one(&contract, 5, Arc::new(StringArray::from(vec![Some("DEU"), Some("de"), None, Some("Ü")])));
    let expected =
        [("length", Reason::Pattern), ("pattern", Reason::Pattern), ("", Reason::Pattern), ("length", Reason::Pattern)];
    for (found, (rule, reason)) in countries.iter().zip(expected) {
        assert_eq!(
            found.as_ref().map(|(r, rule, _)| (rule.as_str(), *r)),
            (!rule.is_empty()).then_some((rule, reason))
        );
    }
    let labels = one(&contract, 8, Arc::new(BooleanArray::from(vec![None, Some(false)])));
    assert_eq!(reasons(&labels), [Some(Reason::LabelMissing), None]);
    let minutes = |m: i64| (NOW + m * 60_000) * 1_000;
    let times =
        TimestampMicrosecondArray::from(vec![Some(minutes(6)), Some(minutes(5)), None, Some(0)]).with_timezone(UTC);
    let times = one(&contract, 1, Arc::new(times));
    assert_eq!(reasons(&times), [Some(Reason::TsFuture), None, Some(Reason::NullRequired), Some(Reason::RangeLow)]);
}

#[test]
fn a_refusal_tells_the_values_that_the_contract_allows() {
    let contract = example();
    let check = contract.checks().iter().find(|check| check.reason == Reason::EnumUnknown).unwrap();
    assert_eq!(check.expected, "one of basic, standard, premium, enterprise");
}

#[test]
fn a_long_text_of_the_contract_is_cut_in_refusals() {
    let contract = compiled("Minors have no premium plan.", &"ü".repeat(5_000));
    assert!(contract.checks().iter().all(|check| check.expected.chars().count() <= 201));
}

#[test]
fn rules_over_several_columns_refuse_false_and_pass_null() {
    let contract = compiled("required: true\n        unit: years", "unit: years");
    let found = one(&contract, 2, Arc::new(Int64Array::from(vec![Some(17), Some(18), None])));
    assert_eq!(reasons(&found), [Some(Reason::CrossField), None, None]);
    assert_eq!(found[0].as_ref().unwrap().1, "premium_needs_an_age");
}

#[test]
fn the_first_failure_in_the_order_of_the_checks_is_the_reason() {
    let contract = example();
    let mut columns = good(3);
    columns[2] = Arc::new(Int64Array::from(vec![500, 500, 17])); // RANGE_HIGH, RANGE_HIGH, CROSS_FIELD
    columns[4] = Arc::new(StringArray::from(vec![None, Some("gold"), Some("premium")])); // NULL_REQUIRED, ENUM_UNKNOWN
    columns[8] = Arc::new(BooleanArray::from(vec![None, None, None])); // LABEL_MISSING
    let found = failures(&contract, &batch(&contract, columns));
    assert_eq!(reasons(&found), [Some(Reason::NullRequired), Some(Reason::RangeHigh), Some(Reason::CrossField)]);
}

#[test]
fn a_rule_that_cannot_be_computed_refuses_only_the_rows_it_fails_on() {
    let contract = compiled("plan <> 'premium' OR age >= 18", "CAST(comment AS BIGINT) > age / (age - 40)");
    let mut columns = good(4);
    columns[2] = Arc::new(Int64Array::from(vec![41, 40, 41, 41]));
    columns[7] = Arc::new(StringArray::from(vec!["100", "100", "x", "3"]));
    let found = failures(&contract, &batch(&contract, columns));
    assert_eq!(reasons(&found), [None, Some(Reason::CrossField), Some(Reason::CrossField), Some(Reason::CrossField)]);
}

#[test]
fn rules_that_depend_on_more_than_the_row_are_refused_with_their_line() {
    let line = EXAMPLE.lines().position(|line| line.contains("expression:")).unwrap() as u64 + 1;
    for (rule, problem) in [
        ("event_time < now()", "now"),
        ("random() < 0.5", "random"),
        ("uuid() <> comment", "uuid"),
        ("current_date() > event_time", "current_date"),
        ("age > (SELECT 1)", ""),
        ("age IN (SELECT 1)", ""),
        ("sum(age) > 1", "aggregate"),
        ("row_number() OVER () > 1", ""),
        ("age > $1", "parameter"),
        ("repeat(plan, 1000000000) = ''", "repeat"),
        ("ln(balance) > 1", "`ln`"),
        ("replace(comment, 'x', comment) = ''", "`replace`"),
        ("replace(comment, 'x', 'long') = ''", "`replace`"),
        ("plan || plan = 'x'", "joins texts"),
        ("comment ~ plan", "pattern"),
        ("comment LIKE plan", "pattern"),
        ("regexp_like(comment, plan)", "pattern"),
        ("salary > 1", "salary"),
        ("age + 1", "not true or false"),
        ("age >", ""),
        ("true; drop table x", ""),
        ("plan > age AND", ""),
        ("Age > 1", "Age"),
    ] {
        let text = EXAMPLE.replacen("plan <> 'premium' OR age >= 18", &format!("\"{rule}\""), 1);
        let error = Compiler::new().compile_yaml(&text, "model.yaml").map(|_| rule).unwrap_err();
        assert_eq!((error.line, error.path.as_str()), (line, "schema[0].quality[0].expression"), "{rule}: {error}");
        assert!(error.problem.contains(problem), "{rule}: {error}");
    }
}

#[test]
fn useful_rules_compile() {
    for rule in [
        "age BETWEEN 0 AND 120",
        "date_part('year', event_time) >= 2000",
        "EXTRACT(HOUR FROM event_time) < 24",
        "replace(comment, '--', '-') <> ''",
        "lower(country) = country OR length(country) = 2",
        "plan IN ('basic', 'premium') OR balance IS NOT NULL",
        "CASE WHEN plan = 'premium' THEN age >= 18 ELSE true END",
        "abs(balance) < 1000000 AND round(balance, 2) = balance",
        "comment LIKE '%a%' OR comment ~ '^f'",
        "coalesce(balance, 0) >= 0 OR churned",
        "event_time > '2000-01-01T00:00:00Z'",
        "date_trunc('day', event_time) <= event_time",
        "\\\"age\\\" > 0",
    ] {
        let text = EXAMPLE.replacen("plan <> 'premium' OR age >= 18", &format!("\"{rule}\""), 1);
        Compiler::new().compile_yaml(&text, "model.yaml").map_err(|e| format!("{rule}: {e}")).unwrap();
    }
}

#[test]
fn an_unknown_type_of_personal_data_is_refused_where_it_stands() {
    let text = EXAMPLE.replacen("type: email_address", "type: shoe_size", 1);
    let error = Compiler::new().compile_yaml(&text, "model.yaml").map(|_| ()).unwrap_err();
    assert_eq!(error.path, "schema[0].properties[6].pii.type");
    assert!(error.line > 0 && error.help.contains("email_address"));
}

#[test]
fn the_contracts_of_the_demo_and_of_the_benchmark_compile() {
    for text in
        [include_str!("../../../../examples/flights/model.yaml"), include_str!("../../../../benches/intake.yaml")]
    {
        Compiler::new().compile_yaml(text, "model.yaml").map_err(|e| e.to_string()).unwrap();
    }
}

#[test]
fn a_deep_rule_is_refused() {
    let rule = vec!["age > 1"; 300].join(" OR ");
    let text = EXAMPLE.replacen("plan <> 'premium' OR age >= 18", &rule, 1);
    let error = Compiler::new().compile_yaml(&text, "model.yaml").map(|_| ()).unwrap_err();
    assert!(error.problem.contains("too deep"), "{error}");
}

#[test]
fn a_pattern_that_grows_too_large_is_refused() {
    let text =
        EXAMPLE.replacen("^[A-Z]{2}$", "(?:\\\\pL{100}){100}", 1).replace("'(?", "\"(?").replace("100}'", "100}\"");
    let error = Compiler::new().compile_yaml(&text, "model.yaml").map(|_| ()).unwrap_err();
    assert!(error.path.ends_with("logicalTypeOptions.pattern"), "{error}");
}

#[test]
fn an_invalid_bound_is_refused_where_it_stands() {
    let text = EXAMPLE.replacen("2000-01-01T00:00:00Z", "yesterday", 1);
    let error = Compiler::new().compile_yaml(&text, "model.yaml").map(|_| ()).unwrap_err();
    assert_eq!(error.path, "schema[0].properties[1].logicalTypeOptions.minimum");
    assert!(error.line > 0);
}

#[test]
fn a_rule_with_coalesce_or_nvl_is_computed_and_refuses_only_what_it_says() {
    for rule in ["coalesce(age, 0) >= 18", "nvl(age, 0) >= 18", "coalesce(age, coalesce(age, 17)) >= 18"] {
        let contract = compiled("plan <> 'premium' OR age >= 18", rule);
        let mut columns = good(3);
        columns[2] = Arc::new(Int64Array::from(vec![17, 18, 40]));
        let found = failures(&contract, &batch(&contract, columns));
        assert_eq!(reasons(&found), [Some(Reason::CrossField), None, None], "{rule}");
    }
}

/// One such number would end every training run of the model.
#[test]
fn a_label_that_no_learner_sums_exactly_is_refused_at_the_door() {
    let text = "apiVersion: hokusai/v1
kind: Model
name: prices
label: price
schema:
  - name: sales
    properties:
      - {name: area, logicalType: number}
      - {name: price, logicalType: number}
";
    let contract = Compiler::new().compile_yaml(text, "model.yaml").unwrap();
    let area: ArrayRef = Arc::new(Float64Array::from(vec![1e300; 4]));
    let prices: ArrayRef = Arc::new(Float64Array::from(vec![1e15, 1.1e15, -1.1e15, -1e15]));
    let found = failures(&contract, &batch(&contract, vec![area, prices]));
    assert_eq!(reasons(&found), [None, Some(Reason::RangeHigh), Some(Reason::RangeLow), None]);
}
