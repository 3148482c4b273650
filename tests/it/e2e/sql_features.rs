//! Features made by SQL and a reference table, from the contract to a stranger's recomputation.

use super::evaluation::{base, contributed, seal, text, train};
use super::recomputation;
use crate::on_every_cluster;
use crate::support::cluster::Cluster;
use crate::support::late::{SECTION, lines, scrambled};
use crate::support::unique;
use serde_json::{Value, json};

on_every_cluster! {
    what_a_table_tells_of_a_row_is_learned_evaluated_served_and_recomputed_alike,
}

const DESTINATIONS: i64 = 40;

fn altitude(destination: i64) -> i64 {
    destination * 37 % DESTINATIONS * 100
}

/// The table of destinations, one of them with another altitude.
fn airports(moved: Option<i64>) -> String {
    let line = |d: i64| format!("D{d:02},{}\n", altitude(d) + i64::from(moved == Some(d)));
    "code,altitude\n".to_owned() + &(0..DESTINATIONS).map(line).collect::<String>()
}

/// Flights that are late where the destination lies high, but for one in ten; one in twenty is a test flight.
fn flights(range: std::ops::Range<i64>, mislabelled: bool) -> Vec<Value> {
    let row = |n: i64| {
        let destination = scrambled(n, 1) % DESTINATIONS;
        let flipped = scrambled(n, 3) % 10 == 0;
        let late = (altitude(destination) >= 2_000) != (flipped != mislabelled);
        json!({"n": n, "dest": format!("D{destination:02}"), "test": n % 20 == 0, "late": i64::from(late)})
    };
    range.map(row).collect()
}

fn spec(model: &str, file: &str, join: &str) -> String {
    format!(
        "apiVersion: hokusai/v1
kind: Model
name: {model}
label: late
learning:
  others: leaveOut
  references:
    - name: airports
      file: {file}
      columns: [{{name: code, logicalType: string}}, {{name: altitude, logicalType: integer}}]
  sql:
    - name: destination
      reads: [dest]
      select: SELECT a.altitude / 1000.0 AS height, ln(1 + a.altitude) AS thin_air FROM rows {join} airports a ON dest = a.code
      columns: [{{name: height, logicalType: number}}, {{name: thin_air, logicalType: number}}]
  steps:
    - {{name: real_flights, reads: [test], select: SELECT * FROM rows WHERE NOT test}}
{SECTION}schema:
  - name: flights
    properties:
      - {{name: n, logicalType: integer, required: true, logicalTypeOptions: {{minimum: 0}}}}
      - {{name: dest, logicalType: string, required: true, logicalTypeOptions: {{pattern: '^D[0-9][0-9]$'}}, pii: {{policy: none, reason: code of an airport}}}}
      - {{name: test, logicalType: boolean, required: true}}
      - {{name: late, logicalType: integer, logicalTypeOptions: {{enum: [0, 1]}}}}
"
    )
}

fn what_a_table_tells_of_a_row_is_learned_evaluated_served_and_recomputed_alike(cluster: &Cluster) {
    let (model, file, base) = (unique("heights"), format!("{}.csv", unique("airports")), base());
    let table = cluster.scratch().join(&file);
    // What is not there, or not a function of the row, is refused before anything is sent.
    let yaml = cluster.scratch().join(format!("{model}.yaml"));
    let refused = |text: &str| {
        std::fs::write(&yaml, text).expect("a file");
        cluster.run(&["model", "apply", &yaml.to_string_lossy()])
    };
    let missing = refused(&spec(&model, &file, "LEFT JOIN"));
    assert!(missing.code == Some(1) && missing.err.contains(&file) && missing.err.contains("help:"), "{missing:?}");
    std::fs::write(&table, airports(None)).expect("a table");
    let random = refused(&spec(&model, &file, "LEFT JOIN").replacen("1 + a", "random() + a", 1));
    assert!(random.code == Some(4) && random.err.contains("`random`"), "{random:?}");

    let contract = cluster.apply(&model, &spec(&model, &file, "LEFT JOIN"));
    let shown = cluster.lines(&["model", "show", &model]).remove(0);
    let reference = &shown["spec"]["learning"]["references"][0];
    assert!(reference["digest"].as_str().is_some_and(|d| d.len() == 64) && reference.get("file").is_none(), "{shown}");

    contributed(cluster, &model, &flights(base..base + 80, true));
    let first = train(cluster, &model, &unique("first"), &[]);
    assert_eq!(text(&first, "/version"), "1.0.0", "{first}");
    seal(cluster, &model, &flights(base + 1_000..base + 1_300, false));
    contributed(cluster, &model, &flights(base + 2_000..base + 2_400, false));
    let run = train(cluster, &model, &unique("better"), &["--benchmark", "holdout"]);
    let told = &run["evaluation"];
    assert_eq!((text(told, "/status"), &run["dataset"]["rows"]), ("accepted", &json!(480)), "{run}");
    let learned = run["metrics"].as_array().and_then(|all| all.iter().find(|metric| metric["name"] == "learned_rows"));
    assert_eq!(learned.map(|own| (&own["value"], &own["rows"])), Some((&json!("456.000000"), &json!(480))), "{run}");

    // A stranger finds every level right, and the artefact alone scores the sealed rows as the evaluation did.
    let disclosed = recomputation::disclosed(cluster, &model, told);
    assert_eq!(disclosed.rows.len(), 300);
    let file_of_rows = cluster.scratch().join(format!("{}.jsonl", unique("rows")));
    std::fs::write(&file_of_rows, lines(&disclosed.rows)).expect("a file");
    let rows = file_of_rows.to_string_lossy();
    let artefact = disclosed.candidate.to_string_lossy().into_owned();
    let offline = cluster.run(&["predict", "--artefact", &artefact, &rows, "--ignore-extra"]);
    let served = cluster.run(&["predict", &format!("{model}@{}", text(&run, "/version")), &rows]);
    assert_eq!((offline.code, &offline.out), (Some(0), &served.out), "{offline:?} {served:?}");
    let quanta = |line: &str| (line.parse::<f64>().expect("a score") * 1e6).round() as i64;
    assert_eq!(offline.out.lines().skip(1).map(quanta).collect::<Vec<_>>(), disclosed.scores);

    // One cell: another table, another contract, another recipe.
    std::fs::write(&table, airports(Some(7))).expect("a table");
    assert_ne!(cluster.apply(&model, &spec(&model, &file, "LEFT JOIN")), contract);
    let other = train(cluster, &model, &unique("other"), &[]);
    assert_eq!(other["dataset"]["digest"], run["dataset"]["digest"], "{other}");
    assert_ne!(other["recipe_digest"], run["recipe_digest"]);
    // A table that lacks a destination loses rows: the run says which.
    std::fs::write(&table, airports(None).replacen("D07,", "X07,", 1)).expect("a table");
    cluster.apply(&model, &spec(&model, &file, "JOIN"));
    let asked = ["train", &model, "--algorithm", "linear", "--request-id", &unique("lost"), "--wait"];
    let lost = cluster.run(&asked);
    assert!(lost.code != Some(0) && format!("{lost:?}").contains("loses a row"), "{lost:?}");
}

#[test]
fn a_table_that_only_a_step_joins_is_at_hand_when_a_stranger_learns_again() {
    crate::support::cluster::with(crate::support::broker::Kind::Embedded, 0, |cluster| {
        let (model, file, base) = (unique("steps"), format!("{}.csv", unique("known")), base());
        std::fs::write(cluster.scratch().join(&file), airports(None)).expect("a table");
        let whole = spec(&model, &file, "LEFT JOIN");
        let (from, to) = (whole.find("  sql:\n").expect("SQL"), whole.find("  steps:\n").expect("steps"));
        let only = "SELECT * FROM rows JOIN airports a ON dest = a.code AND a.altitude <> 300 WHERE NOT test";
        let text_of = [&whole[..from], &whole[to..]].concat();
        let text_of =
            text_of.replace("others: leaveOut", "leaveOut: [n]").replace("reads: [test]", "reads: [test, dest]");
        cluster.apply(&model, &text_of.replace("SELECT * FROM rows WHERE NOT test", only));
        contributed(cluster, &model, &flights(base..base + 80, true));
        assert_eq!(text(&train(cluster, &model, &unique("first"), &[]), "/version"), "1.0.0");
        seal(cluster, &model, &flights(base + 1_000..base + 1_300, false));
        contributed(cluster, &model, &flights(base + 2_000..base + 2_400, false));
        let run = train(cluster, &model, &unique("better"), &["--benchmark", "holdout"]);
        assert_eq!(text(&run, "/evaluation/status"), "accepted", "{run}");
        recomputation::every_level(cluster, &model, &run["evaluation"]);
    });
}
