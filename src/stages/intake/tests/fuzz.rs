//! Expressions of contracts: whatever stands in one, it is refused with a reason or evaluated on rows.

use serde_json::json;

use super::support::{EXAMPLE, apply, bare, chunk, manifests, row, send, with};
use crate::domain::contract::Spec;
use crate::fuzz::{Target, fuzz};
use crate::stages::intake::contract::Compiler;

const RULE: &str = "plan <> 'premium' OR age >= 18";
const WORDS: &[&str] = &[
    "(",
    ")",
    " OR ",
    " AND ",
    " NOT ",
    " IS NULL",
    "CASE WHEN ",
    " THEN ",
    " ELSE ",
    " END",
    "CAST(",
    " AS ",
    "age",
    "balance",
    "plan",
    "event_time",
    " / 0",
    " % 0",
    " BETWEEN ",
    " IN (",
    " LIKE '%",
    "'",
    "\"",
    "INTERVAL '1 day'",
    "date_part('year', ",
    "regexp_like(",
    "repeat(plan, ",
    "now()",
    "random()",
    "make_array(",
    "substr(",
    " || ",
    "9223372036854775807",
    "1e308",
    "-",
    "*",
    "~",
    "::",
    "--",
];

fn spec(expression: &str) -> Result<Spec, String> {
    let quoted = serde_json::to_string(expression).unwrap();
    Spec::parse_yaml(&EXAMPLE.replacen(RULE, &quoted, 1), "f").map_err(|error| error.problem)
}

fn run(bytes: &[u8]) -> String {
    let spec = match spec(&String::from_utf8_lossy(bytes)) {
        Ok(spec) => spec,
        Err(problem) => return problem,
    };
    thread_local!(static COMPILER: Compiler = Compiler::new());
    if let Err(error) = COMPILER.with(|compiler| compiler.compile(spec.clone())) {
        return error.problem;
    }
    let mut task = bare();
    apply(&mut task, &[&spec]);
    let rows = [
        row(1),
        with(row(2), json!({"age": 0, "plan": "premium"})),
        with(row(3), json!({"balance": -0.0, "country": null})),
    ];
    send(&mut task, &[(None, chunk(&rows))]);
    let manifest = &manifests(&task)[0];
    let refused: i64 = manifest.refused.iter().map(|count| count.count).sum();
    assert_eq!(refused + manifest.quality.valid, 3);
    format!("{} evaluated", ["none", "one", "two", "all"][manifest.quality.valid as usize])
}

#[test]
fn expressions() {
    let seeds = [
        RULE,
        "age / 0 > 1",
        "CASE WHEN plan = 'basic' THEN balance > 0 ELSE age BETWEEN 1 AND 99 END",
        "date_part('year', event_time) >= 2000 AND substr(country, 1, 1) <> 'X'",
        "CAST(plan AS BIGINT) IS NULL",
        "plan IN ('basic', 'premium') OR plan LIKE '%x_'",
        "event_time > TIMESTAMP '2020-01-01T00:00:00Z' - INTERVAL '1 day'",
    ];
    let seeds = seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    fuzz(Target { name: "expressions", seeds, words: WORDS, run });
}

#[test]
fn nesting_beyond_the_limits_is_refused_by_name() {
    let nested = |levels: usize| format!("{}age{} > 0", "abs(".repeat(levels), ")".repeat(levels));
    assert!(run(nested(9).as_bytes()).ends_with("evaluated"));
    assert_eq!(run(nested(13).as_bytes()), "is nested deeper than 12 levels");
    let cases = |n: usize| vec!["CASE WHEN age > 1 THEN TRUE ELSE FALSE END"; n].join(" OR ");
    assert!(run(cases(10).as_bytes()).ends_with("evaluated"));
    assert_eq!(run(cases(11).as_bytes()), "has more than 10 CASE");
    let since = |what: &str| format!("event_time > TIMESTAMP '2020-01-01T00:00:00Z' - INTERVAL {what}");
    assert!(run(since("'1 day'").as_bytes()).ends_with("evaluated"));
    assert_eq!(run(since("INTERVAL '1 day'").as_bytes()), "has INTERVAL before something else than a literal");
}

/// As long and as deep as the limit on expressions allows.
#[test]
fn the_longest_expressions_are_refused_or_evaluated() {
    for expression in [
        format!("age{} > 0", " + age".repeat(650)),
        format!("{}age > 0", "NOT ".repeat(1_000)),
        format!("{}age > 0{}", "(".repeat(2_000), ")".repeat(2_000)),
        format!("age > 0{}", " OR age > 0".repeat(360)),
        format!("age > {}1", "- ".repeat(2_000)),
        format!("{}TRUE{}", "CASE WHEN TRUE THEN ".repeat(150), " END".repeat(150)),
        format!("repeat(plan, 1000000000) = 'x' OR {}", RULE),
        format!("{}plan{} = 'x'", "concat(".repeat(300), ", plan)".repeat(300)),
        // The parser tries each level of these in two or three ways, so what the innermost level has wrong is found 3^depth times.
        format!("{}1 2{} = 1", "POSITION(".repeat(40), ")".repeat(40)),
        format!("{}1{}", "abs(CAST(".repeat(24), " AS INT))".repeat(24)),
        format!("{}(", "INTERVAL ".repeat(400)),
        "CASE WHEN age > 1 THEN ".repeat(170),
    ] {
        let outcome = run(expression.as_bytes());
        assert!(!outcome.is_empty());
        println!("{} bytes: {}", expression.len(), outcome.chars().take(100).collect::<String>());
    }
}
