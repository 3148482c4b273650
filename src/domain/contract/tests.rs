use proptest::prelude::*;

use super::*;

pub(crate) const EXAMPLE: &str = include_str!("example.yaml");

fn error(from: &str, to: &str) -> SpecError {
    assert!(EXAMPLE.contains(from), "{from}");
    Spec::parse_yaml(&EXAMPLE.replacen(from, to, 1), "model.yaml").unwrap_err()
}

#[test]
fn the_example_of_the_documentation_is_valid() {
    let text: String = include_str!("mod.rs")
        .lines()
        .skip_while(|line| *line != "//! ```yaml")
        .skip(1)
        .take_while(|line| *line != "//! ```")
        .map(|line| line.strip_prefix("//! ").unwrap_or("").to_owned() + "\n")
        .collect();
    Spec::parse_yaml(&text, "mod.rs").unwrap();
}

#[test]
fn canonical_json_reads_back_as_the_same_contract() {
    let spec = Spec::parse_yaml(EXAMPLE, "model.yaml").unwrap();
    let json = spec.canonical_json().unwrap();
    let again = Spec::from_canonical_json(&json).unwrap();
    assert_eq!(again.canonical_json().unwrap(), json);
    assert_eq!(again.contract_digest().unwrap(), spec.contract_digest().unwrap());
}

#[test]
fn the_digest_of_a_contract_is_frozen() {
    let digest = Spec::parse_yaml(EXAMPLE, "model.yaml").unwrap().contract_digest().unwrap();
    assert_eq!(digest, "3db7bb4c8820e3b644a9b21f765000fcebf48947c8c36e06e8b95768f7aa2a81");
}

#[test]
fn comments_order_and_written_defaults_do_not_change_the_digest() {
    let digest = |text: &str| Spec::parse_yaml(text, "model.yaml").unwrap().contract_digest().unwrap();
    let other = EXAMPLE
        .replacen(
            "kind: Model\nname: signup-churn\n",
            "name: signup-churn # a comment\nkind: Model\nextraColumns: refuse\n",
            1,
        )
        .replacen("maximum: 120", "maximum: 120.0", 1)
        .replacen("logicalType: boolean", "required: false\n        logicalType: boolean", 1);
    assert_ne!(other, EXAMPLE);
    assert_eq!(digest(&other), digest(EXAMPLE));
}

#[test]
fn an_error_names_file_line_path_and_the_way_out() {
    let error = error("mad: 12", "mad: 0");
    let line = EXAMPLE.lines().position(|line| line.contains("mad: 12")).unwrap() + 1;
    assert_eq!((error.file.as_str(), error.line), ("model.yaml", line as u64));
    assert!(error.path.ends_with(".reference.mad"), "{error}");
    assert!(error.to_string().starts_with(&format!("model.yaml:{line}:")), "{error}");
    assert!(error.to_string().contains("help: "), "{error}");
}

#[test]
fn an_unknown_field_is_refused_with_its_line() {
    let error = error("label: churned", "labels: churned");
    let line = EXAMPLE.lines().position(|line| line.starts_with("label:")).unwrap() + 1;
    assert_eq!(error.line, line as u64, "{error}");
    assert!(error.problem.contains("labels"), "{error}");
}

#[test]
fn contradictions_are_refused_where_they_stand() {
    for (from, to, path) in [
        ("label: churned", "label: nothing", "label"),
        ("apiVersion: hokusai/v1", "apiVersion: hokusai/v2", "apiVersion"),
        ("name: signup-churn", "name: Signup Churn", "name"),
        ("minimum: 0", "minimum: zero", "schema[0].properties[2].logicalTypeOptions.minimum"),
        ("enum: [basic,", "enum: [1,", "schema[0].properties[4].logicalTypeOptions.enum[0]"),
        ("enum: [basic,", "enum: [premium,", "schema[0].properties[4].logicalTypeOptions.enum[2]"),
        ("name: balance", "name: AGE", "schema[0].properties[3].name"),
        ("name: balance", "name: _row", "schema[0].properties[3].name"),
        ("excludeFromIdentity: [record_id]", "excludeFromIdentity: [id]", "excludeFromIdentity[0]"),
        ("excludeFromIdentity: [record_id]", "excludeFromIdentity: [churned]", "excludeFromIdentity"),
        ("reason: a running number", "type: email_address", "schema[0].properties[0].pii"),
        ("edges: [", "edges: [99999, ", "schema[0].properties[2].reference.edges"),
        ("round: {age: 5}", "round: {plan: 5}", "nearDuplicates.round.plan"),
        ("column: closed_at", "column: age", "leakage[0]"),
        ("round: {age: 5}", "text: [age]", "nearDuplicates.text[0]"),
        ("round: {age: 5}", "text: [plan]", "nearDuplicates.text[0]"),
        ("round: {age: 5}", "similarity: 0.5", "nearDuplicates.similarity"),
        ("round: {age: 5}", "text: [comment]\n  similarity: 1.5", "nearDuplicates.similarity"),
        ("label: churned", "label: churned\nrefuse: [NEAR_DUP, NEAR_DUP]", "refuse[1]"),
        (
            "leakage:\n  - column: closed_at\n    reason: only those who left have it",
            "refuse: [LEAKAGE_COLUMN]",
            "refuse[0]",
        ),
        ("minority: 0.27", "minority: 0.9", "schema[0].properties[8].reference.minority"),
    ] {
        let error = error(from, to);
        assert_eq!(error.path, path, "{error}");
        assert!(error.line > 1 || path == "apiVersion", "{error}");
    }
}

#[test]
fn yes_and_no_are_texts() {
    let spec = Spec::parse_yaml(&EXAMPLE.replacen("enum: [basic,", "enum: [no, NO2, yes, basic,", 1), "f").unwrap();
    let values = &spec.property("plan").unwrap().logical_type_options.values;
    assert_eq!(values[0], Scalar::Text("no".to_owned()));
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(cut in 0usize..3000, junk in "\\PC{0,40}") {
        let mut at = cut.min(EXAMPLE.len());
        while !EXAMPLE.is_char_boundary(at) { at -= 1; }
        let text = format!("{}{junk}{}", &EXAMPLE[..at], &EXAMPLE[at..]);
        if let Ok(spec) = Spec::parse_yaml(&text, "f") {
            Spec::from_canonical_json(&spec.canonical_json().unwrap()).unwrap();
        }
    }
}

const LEARNING: &str = "label: churned\nlearning:\n  features:\n    - {column: plan, encode: category, categories: 9}\n    - {column: \
                        event_time, encode: time, parts: [month, hour]}\n  leaveOut: [country]\n";

#[test]
fn what_is_learned_from_enters_the_digest_and_reads_back() {
    let spec = Spec::parse_yaml(&EXAMPLE.replacen("label: churned\n", LEARNING, 1), "model.yaml").unwrap();
    let json = spec.canonical_json().unwrap();
    assert!(json.contains(r#""learning":{"features":[{"categories":9,"column":"plan","encode":"category"}"#), "{json}");
    let again = Spec::from_canonical_json(&json).unwrap();
    assert_eq!((&again.learning, again.learning().unwrap()), (&spec.learning, spec.learning().unwrap()));
    let plain = Spec::parse_yaml(EXAMPLE, "model.yaml").unwrap();
    assert_ne!(spec.contract_digest().unwrap(), plain.contract_digest().unwrap());
    assert_eq!(again.contract_digest().unwrap(), spec.contract_digest().unwrap());
}

#[test]
fn a_feature_that_contradicts_the_columns_is_refused_where_it_stands() {
    let text = EXAMPLE.replacen("label: churned\n", LEARNING, 1);
    for (from, to, path) in [
        ("{column: plan,", "{column: plans,", "learning.features[0].column"),
        ("{column: plan,", "{column: churned,", "learning.features[0].column"),
        ("{column: plan,", "{column: email,", "learning.features[0].column"),
        ("{column: plan,", "{column: record_id,", "learning.features[0].column"),
        ("{column: plan,", "{column: event_time,", "learning.features[0].encode"),
        ("encode: category", "encode: number", "learning.features[0].encode"),
        ("categories: 9", "categories: 0", "learning.features[0].categories"),
        ("categories: 9", "categories: 255", "learning.features[0].categories"),
        ("categories: 9", "parts: [day]", "learning.features[0].parts"),
        ("parts: [month, hour]", "categories: 3", "learning.features[1].categories"),
        (", parts: [month, hour]", "", "learning.features[1]"),
        ("[month, hour]", "[month, month]", "learning.features[1].parts[1]"),
        ("event_time, encode: time, parts: [month, hour]", "plan, encode: category", "learning.features[1].column"),
        ("leaveOut: [country]", "leaveOut: [plan]", "learning.leaveOut[0]"),
        ("leaveOut: [country]", "leaveOut: [nothing]", "learning.leaveOut[0]"),
        ("leaveOut: [country]", "task: regression", "learning.task"),
        ("leaveOut: [country]", "validation: {by: group, column: nothing}", "learning.validation.column"),
        ("leaveOut: [country]", "validation: {by: group, column: churned}", "learning.validation.column"),
        ("leaveOut: [country]", "validation: {by: newest, column: age}", "learning.validation.by"),
    ] {
        assert!(text.contains(from), "{from}");
        let error = Spec::parse_yaml(&text.replacen(from, to, 1), "model.yaml").unwrap_err();
        assert_eq!(error.path, path, "{error}");
        assert!(error.line > 7 && error.to_string().contains("help: "), "{error}");
    }
    let nothing = "label: churned\nlearning: {others: leaveOut}\n";
    let error = Spec::parse_yaml(&EXAMPLE.replacen("label: churned\n", nothing, 1), "model.yaml").unwrap_err();
    assert_eq!((error.path.as_str(), error.line), ("learning", 9), "{error}");
}

#[test]
fn an_evaluation_without_a_margin_that_it_needs_is_refused_where_it_is_missing() {
    let section = "label: churned\nevaluation:\n  primary: auroc\n  minimumEffect: 0.002\n  margins: {auroc: 0.01, log_loss: 0.02}\n  \
                   guardrails:\n    - metric: log_loss\n    - {metric: brier, margin: 0.005}\n  strata:\n    - column: plan\n";
    let text = EXAMPLE.replacen("label: churned\n", section, 1);
    let plain = Spec::parse_yaml(EXAMPLE, "f").unwrap().contract_digest().unwrap();
    assert_ne!(Spec::parse_yaml(&text, "f").unwrap().contract_digest().unwrap(), plain);
    for (from, to, path) in [
        ("{auroc: 0.01, log_loss: 0.02}", "{auroc: 0.01}", "evaluation.guardrails[0]"),
        ("{auroc: 0.01, log_loss: 0.02}", "{log_loss: 0.02}", "evaluation.strata[0]"),
        ("log_loss: 0.02}", "log_loss: 0}", "evaluation.margins.log_loss"),
        ("log_loss: 0.02}", "mae: 0.02}", "evaluation.margins.mae"),
        ("margin: 0.005", "margin: 1.5", "evaluation.guardrails[1].margin"),
        ("margin: 0.005", "margin: 0.0000001", "evaluation.guardrails[1].margin"),
        ("margin: 0.005", "margin: .nan", "evaluation.guardrails[1].margin"),
        ("metric: brier", "metric: auroc", "evaluation.guardrails[1]"),
        ("metric: brier", "metric: log_loss", "evaluation.guardrails[1]"),
        ("primary: auroc", "primary: rmse", "evaluation.primary"),
        ("minimumEffect: 0.002", "minimumEffect: -1", "evaluation.minimumEffect"),
        ("column: plan\n", "column: nothing\n", "evaluation.strata[0].column"),
        ("column: plan\n", "column: churned\n", "evaluation.strata[0].column"),
        ("column: plan\n", "column: balance\n", "evaluation.strata[0].column"),
        ("column: plan\n", "column: email\n", "evaluation.strata[0].column"),
        ("label: churned\n", "", "label"),
    ] {
        assert!(text.contains(from), "{from}");
        let text = text.replacen(from, to, 1).replacen("reference: {minority: 0.27}", "description: left", 1);
        let error = Spec::parse_yaml(&text, "model.yaml").unwrap_err();
        assert_eq!(error.path, path, "{error}");
        assert!(error.to_string().contains("help: "), "{error}");
    }
    let unknown = Spec::parse_yaml(&text.replacen("primary: auroc", "primary: auc", 1), "model.yaml").unwrap_err();
    assert!(unknown.line > 7 && unknown.help.contains("auroc"), "{unknown}");
}

const SQL: &str = "label: churned
learning:
  leaveOut: [balance]
  features: [{column: spend_band, encode: category, categories: 4}]
  references:
    - {name: plans, file: plans.csv, columns: [{name: code, logicalType: string}, {name: price, logicalType: number}]}
  sql:
    - name: price
      reads: [plan, age]
      select: SELECT p.price AS plan_price, age / 10 AS spend_band FROM rows LEFT JOIN plans p ON rows.plan = p.code
      columns: [{name: plan_price, logicalType: number}, {name: spend_band, logicalType: integer}]
  steps:
    - {name: adults, reads: [age, churned], select: SELECT * FROM rows WHERE age >= 18 OR churned}
";

fn with_sql(change: (&str, &str)) -> Result<Spec, SpecError> {
    assert!(SQL.contains(change.0), "{}", change.0);
    let section = SQL.replacen(change.0, change.1, 1);
    Spec::parse_yaml(&include_str!("example.yaml").replacen("label: churned\n", &section, 1), "f")
}

#[test]
fn sql_adds_features_after_those_of_the_columns_and_its_tables_are_published_by_digest_alone() {
    let spec = with_sql(("", "")).unwrap();
    let features = spec.learning().unwrap().features;
    let names: Vec<&str> = features.iter().map(|feature| feature.column.as_str()).collect();
    assert_eq!(names, ["event_time", "age", "plan", "country", "plan_price", "spend_band"]);
    assert_eq!(features[5].encode, learning::ResolvedEncode::Category(4));
    let unstored = spec.canonical_json().unwrap_err();
    assert!(unstored.path == "learning.references[0].file" && unstored.help.contains("model apply"), "{unstored}");
    let published = spec.with_references(&["ab".repeat(32)]);
    let text = published.canonical_json().unwrap();
    assert!(text.contains(&"ab".repeat(32)) && !text.contains("plans.csv"), "{text}");
    assert_eq!(Spec::from_canonical_json(&text).unwrap().canonical_json().unwrap(), text);
    let with_file = text.replacen("\"digest\":", "\"file\":", 1);
    assert!(Spec::from_canonical_json(&with_file).unwrap_err().problem.contains("not in the store"));
}

#[test]
fn what_would_leak_or_has_no_name_of_its_own_is_refused_where_it_stands() {
    let cases = [
        (("reads: [plan, age]", "reads: [plan, churned]"), "learning.sql[0].reads[1]", "is the label"),
        (("reads: [plan, age]", "reads: [plan, balance]"), "learning.sql[0].reads[1]", "left out"),
        (("reads: [plan, age]", "reads: [plan, email]"), "learning.sql[0].reads[1]", "personal data"),
        (("reads: [plan, age]", "reads: [plan, nothing]"), "learning.sql[0].reads[1]", "is no column"),
        (("reads: [plan, age]", "reads: [plan, plan]"), "learning.sql[0].reads[1]", "named twice"),
        (("reads: [plan, age]", "reads: []"), "learning.sql[0].reads", "is empty"),
        (("reads: [age, churned]", "reads: [age, email]"), "learning.steps[0].reads[1]", "personal data"),
        (("name: plan_price,", "name: Age,"), "learning.sql[0].columns[0].name", "is a column already"),
        (("name: plan_price,", "name: _share,"), "learning.sql[0].columns[0].name", "starts with `_`"),
        (("name: adults", "name: price"), "learning.steps[0].name", "is taken"),
        (("name: plans", "name: rows"), "learning.references[0].name", "is taken"),
        (("name: plans", "name: Plans-1"), "learning.references[0].name", "is no name"),
        (("file: plans.csv, ", ""), "learning.references[0]", "has not one of"),
        (("file: plans.csv", "digest: abc"), "learning.references[0].digest", "is no SHA-256"),
        (
            ("categories: 4}", "categories: 4}, {column: plan_price, encode: category}"),
            "learning.features[1].encode",
            "does not fit",
        ),
    ];
    for (change, path, problem) in cases {
        let error = with_sql(change).unwrap_err();
        assert!(error.path == path && error.problem.contains(problem) && error.line > 0, "{change:?}: {error}");
    }
}
