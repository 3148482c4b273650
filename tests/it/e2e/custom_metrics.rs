//! Metrics that a contract declares as SQL, as people meet them: one decides and is credited, one guards, and what is none is refused when
//! the contract is applied.

use super::evaluation::{base, prepared, text, train};
use super::recomputation;
use crate::on_every_cluster;
use crate::support::cluster::Cluster;
use crate::support::late::spec;
use crate::support::unique;
use serde_json::{Value, json};

on_every_cluster! {
    a_metric_declared_as_sql_decides_and_a_stranger_recomputes_it_and_one_that_guards_refuses,
}

const DECIDES: &str = "evaluation:
  primary: cost_of_delay
  minimumEffect: 0.02
  guardrails: [{metric: accuracy, margin: 0.1}]
  metrics:
    - name: cost_of_delay
      direction: lower
      unit: EUR per flight
      value: CASE WHEN late = 1 AND score < 0.3 THEN 5 WHEN late = 0 AND score >= 0.5 THEN 1 + x ELSE 0 END
";
/// What a better model has more of.
const HITS: &str = "CASE WHEN late = 1 AND score >= 0.5 THEN 1 WHEN late = 0 AND score < 0.5 THEN 1 ELSE 0 END";
const GUARDS: &str = "evaluation:
  primary: accuracy
  minimumEffect: 0.02
  guardrails: [{metric: hits, margin: 0.001}]
  metrics: [{name: hits, direction: lower, value: HITS}]
";

fn a_metric_declared_as_sql_decides_and_a_stranger_recomputes_it_and_one_that_guards_refuses(cluster: &Cluster) {
    refused_when_applied(cluster);
    let model = unique("flights");
    cluster.apply(&model, &spec(&model, DECIDES));
    prepared(cluster, &model, base(), &unique("first"));
    let run = train(cluster, &model, &unique("better"), &["--benchmark", "holdout"]);
    let told = &run["evaluation"];
    assert_eq!((text(told, "/status"), text(told, "/metric")), ("accepted", "cost_of_delay"), "{run}");
    let number = |path: &str| text(told, path).parse::<f64>().expect("a decimal");
    // A cost: less is better, in euros and not in shares of 1.
    assert!(number("/candidate_value") < number("/baseline_value") && number("/lower") > 0.0, "{told}");
    assert!((number("/baseline_value") - number("/candidate_value") - number("/delta")).abs() < 1e-9, "{told}");
    recomputation::every_level(cluster, &model, told);
    let table = cluster.sql(&format!("select metric, delta from evaluations where model = '{model}'"));
    assert_eq!((&table[0]["metric"], &table[0]["delta"]), (&json!("cost_of_delay"), &told["delta"]), "{table:?}");
    let board = cluster.lines(&["leaderboard", &format!("{model}/holdout@1")]);
    assert_eq!((board.len(), &board[0]["ladder_score"]), (1, &told["ladder_score"]), "{board:?}");

    // The better model has more hits, which this contract does not allow.
    let model = unique("flights");
    cluster.apply(&model, &spec(&model, &GUARDS.replace("HITS", HITS)));
    prepared(cluster, &model, base(), &unique("first"));
    let run = train(cluster, &model, &unique("better"), &["--benchmark", "holdout"]);
    let told = &run["evaluation"];
    assert_eq!((text(told, "/status"), &told["reasons"]), ("refused", &json!(["GUARDRAIL_INFERIOR"])), "{run}");
    assert_eq!((&told["delta"], &told["candidate_value"]), (&Value::Null, &Value::Null), "{told}");
}

fn refused_when_applied(cluster: &Cluster) {
    let model = unique("flights");
    let path = cluster.scratch().join(format!("{model}.yaml"));
    for (value, named) in [("random() * score", "random"), ("sum(score)", "aggregate"), ("score / salary", "salary")] {
        let text = spec(&model, &GUARDS.replace("HITS", value));
        std::fs::write(&path, text).expect("a specification file");
        let refused = cluster.run(&["model", "apply", &path.to_string_lossy()]);
        assert!(refused.code != Some(0) && refused.err.contains(named), "{value}: {refused:?}");
        assert!(refused.err.contains("evaluation.metrics[0].value") && refused.err.contains("help: "), "{refused:?}");
    }
    let shown = cluster.run(&["model", "show", &model]);
    assert_ne!(shown.code, Some(0), "a contract that was refused is none: {shown:?}");
}
