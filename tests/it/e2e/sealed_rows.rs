//! A sealed benchmark while candidates are trained, searched, evaluated and attested on it, and while it is attacked: of its rows nothing
//! stands in any topic, table, log, report or file; whoever sends them with either label learns nothing from any answer.

use super::canaries::{files, rows_in};
use super::recomputation::disclosed;
use super::training::text;
use crate::support::broker::Kind;
use crate::support::client::{Isolation, config, read};
use crate::support::cluster::{Cluster, Settings};
use crate::support::flow::{contribute, contribution, decode, receipt, schema};
use crate::support::hokusai::Finished;
use crate::support::late::{lines, rows};
use crate::support::{DEADLINE, unique};
use rdkafka::consumer::{BaseConsumer, Consumer};
use regex::bytes::Regex;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::sync::LazyLock;

const SEALED: std::ops::Range<i64> = 1_000..1_300;
/// What every sealed row says in its own words, and rows that are contributed in theirs.
const CANARY: &str = "sealedcanary";
const KNOWN: &str = "contributedcanary";

fn spec(model: &str) -> String {
    format!(
        "apiVersion: hokusai/v1
kind: Model
name: {model}
label: late
learning: {{leaveOut: [n]}}
evaluation:
  primary: accuracy
  minimumEffect: 0.02
  strata: [{{column: side, margin: 0.2}}]
schema:
  - name: flights
    properties:
      - {{name: n, logicalType: integer, required: true}}
      - {{name: x, logicalType: number, required: true}}
      - {{name: side, logicalType: string, logicalTypeOptions: {{enum: [left, right]}}}}
      - {{name: note, logicalType: string}}
      - {{name: late, logicalType: integer, logicalTypeOptions: {{enum: [0, 1]}}}}
"
    )
}

/// Rows of their own words.
fn worded(range: std::ops::Range<i64>, mislabelled: bool, word: &str) -> Vec<Value> {
    let mut all = rows(range, mislabelled);
    for row in &mut all {
        let n = row["n"].as_i64().expect("a number");
        row["note"] = format!("{word} number {n}").into();
        row["side"] = if n % 2 == 0 { "left".into() } else { "right".into() };
    }
    all
}

/// A cluster whose every answer is kept.
struct Heard {
    cluster: Cluster,
    said: RefCell<Vec<String>>,
}

impl Heard {
    fn run(&self, arguments: &[&str]) -> Finished {
        let found = self.cluster.run(arguments);
        self.said.borrow_mut().extend([found.out.clone(), found.err.clone()]);
        found
    }

    fn lines(&self, arguments: &[&str]) -> Vec<Value> {
        self.run(&[arguments, &["--format", "json"]].concat()).lines(0)
    }

    fn contribute(&self, model: &str, contributor: &str, rows: &[Value]) -> Value {
        let id = unique("rows");
        contribute(&self.cluster, &[contribution(&id, contributor, model, rows)]);
        receipt(&self.cluster, &id)
    }

    fn train(&self, model: &str, more: &[&str]) -> Value {
        self.lines(&[&["train", model, "--algorithm", "linear", "--wait"], more].concat()).remove(0)
    }

    fn sql(&self, query: &str) -> Vec<Value> {
        self.lines(&["sql", query, "--fresh", "--fresh-timeout", &DEADLINE.as_secs().to_string()])
    }
}

/// A word or a figure of a sealed row, as text or as eight bytes.
static OF_A_SEALED_ROW: LazyLock<Regex> = LazyLock::new(|| {
    // Every thirtieth figure: a place that holds rows holds more than one of them. Not the first: it has six decimals, which a
    // duration may have too.
    let all = rows(SEALED, false);
    let figures = all.iter().skip(1).step_by(30).filter_map(|row| row["x"].as_f64());
    let figures = figures.flat_map(|x| {
        let bytes: String = x.to_le_bytes().iter().map(|byte| format!("\\x{byte:02x}")).collect();
        [regex::escape(&x.to_string()), bytes]
    });
    let parts: Vec<String> = std::iter::once(CANARY.to_owned()).chain(figures).collect();
    Regex::new(&format!("(?-u){}", parts.join("|"))).expect("a pattern")
});

fn hidden(place: &str, bytes: &[u8]) {
    if let Some(found) = OF_A_SEALED_ROW.find(bytes) {
        panic!("{} of a sealed row stands in {place}", found.as_bytes().escape_ascii());
    }
}

/// The bytes of every topic, with the rows of its batches written out.
fn topics(cluster: &Cluster) -> Vec<(String, Vec<u8>)> {
    let client: BaseConsumer = config(&cluster.broker, &[]).create().expect("a client");
    let metadata = client.fetch_metadata(None, DEADLINE).expect("metadata");
    let mut found = Vec::new();
    for topic in metadata.topics().iter().map(|t| t.name()).filter(|t| t.starts_with(&cluster.prefix)) {
        let mut bytes = Vec::new();
        for record in read(&cluster.broker, topic, Isolation::Uncommitted) {
            let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
            match topic.strip_prefix(&cluster.prefix).unwrap_or(topic) {
                "contributions.accepted" => bytes.extend(rows_in(&decode(&schema("accepted"), &value)).into_bytes()),
                "contributions.screened" => {
                    bytes.extend(rows_in(&decode(&schema("screened"), &value)["rows"]).into_bytes());
                }
                _ => {}
            }
            bytes.extend(key);
            bytes.push(b'\n');
            bytes.extend(value);
        }
        found.push((topic.to_owned(), bytes));
    }
    found
}

/// Topics, tables, files, metrics, logs, and whatever was said.
fn nowhere(heard: &Heard) {
    let cluster = &heard.cluster;
    let topics = topics(cluster);
    let names: Vec<&str> = topics.iter().map(|(name, _)| name.as_str()).collect();
    for name in ["training.runs", "training.trials", "evaluation.requests", "evaluations", "attestations", "models"] {
        assert!(topics.iter().any(|(own, bytes)| own.ends_with(name) && !bytes.is_empty()), "{name}: {names:?}");
    }
    let known = |name: &str| {
        let of = topics.iter().find(|(own, _)| own.ends_with(name));
        of.is_some_and(|(_, bytes)| String::from_utf8_lossy(bytes).contains(KNOWN))
    };
    assert!(known("contributions.accepted"), "what is looked for is seen where it stands");
    assert!(OF_A_SEALED_ROW.is_match(lines(&worded(SEALED, false, "")).as_bytes()));
    topics.iter().for_each(|(name, bytes)| hidden(name, bytes));

    let tables = heard.sql("select table_name from information_schema.tables where table_schema = 'public'");
    assert!(tables.len() > 15, "{tables:?}");
    for table in &tables {
        heard.sql(&format!("select * from {}", text(table, "/table_name")));
    }
    for arguments in [
        &["attestation", "list"][..],
        &["benchmark", "list"],
        &["leaderboard"],
        &["dead-letters", "list"],
        &["model", "list"],
        &["doctor"],
    ] {
        heard.run(&[arguments, &["--format", "json"]].concat());
    }
    let said = heard.said.borrow();
    assert!(said.iter().any(|text| text.contains(KNOWN)), "the tables tell what was contributed");
    said.iter().for_each(|text| hidden("what a command printed", text.as_bytes()));
    let (status, metrics) = cluster.process.get("/metrics");
    assert_eq!(status, 200);
    hidden("the metrics", metrics.as_bytes());
    hidden("the log", cluster.process.log().as_bytes());
    for path in files(&cluster.data()) {
        hidden(&path.to_string_lossy(), &std::fs::read(&path).unwrap_or_default());
    }
}

/// What an answer to a contribution says, but for what names it.
fn answer(receipt: &Value) -> Value {
    let quality = &receipt["quality"];
    json!([
        receipt["status"],
        receipt["accepted"],
        receipt["refused"],
        receipt["pii"],
        quality["gate"],
        quality["dimensions"],
        quality["score"],
    ])
}

#[test]
fn nothing_of_sealed_rows_stands_anywhere_and_both_labels_of_them_get_one_answer() {
    let settings =
        Settings { environment: vec![("RUST_LOG".into(), "info,hokusai=debug".into())], ..Settings::default() };
    let cluster = Cluster::start(Kind::Embedded, &settings).expect("the embedded broker");
    let heard = Heard { cluster, said: RefCell::default() };
    let model = unique("flights");
    heard.cluster.apply(&model, &spec(&model));
    heard.contribute(&model, "alice", &worded(0..80, true, KNOWN));
    let first = heard.train(&model, &[]);
    let sealed = heard.cluster.scratch().join("sealed.jsonl");
    std::fs::write(&sealed, lines(&worded(SEALED, false, CANARY))).expect("a file");
    heard.lines(&[
        "benchmark",
        "seal",
        "holdout",
        "--model",
        &model,
        "--strata",
        "side",
        "--margin",
        "0.2",
        &sealed.to_string_lossy(),
    ]);
    heard.contribute(&model, "alice", &worded(2_000..2_400, false, KNOWN));
    let search = json!({"space": {"l2": {"log": [0.01, 1.0]}}, "trials": 3, "iterations": 100}).to_string();
    let better = heard.train(&model, &["--search", &search, "--benchmark", "holdout"]);
    assert_eq!(text(&better, "/evaluation/status"), "accepted", "{better}");
    let worse = ["--as-of", text(&first, "/dataset/digest"), "--benchmark", "holdout", "--base-version", "1.1.0"];
    let refused = heard.train(&model, &worse);
    assert_eq!(text(&refused, "/evaluation/status"), "refused", "{refused}");
    nowhere(&heard);

    // The two-label attack: the sealed rows, by somebody who knows all of them but their labels; few, many, through a topic and by hand.
    let boards = |heard: &Heard| {
        let board = heard.lines(&["leaderboard", &format!("{model}/holdout@1")]);
        let told = heard.sql("select * from evaluations order by evaluation_id");
        (board, told, heard.lines(&["benchmark", "show", &format!("{model}/holdout@1")]))
    };
    let before = boards(&heard);
    for count in [1, 300] {
        let with = |label: i64| -> Vec<Value> {
            let mut all = worded(SEALED.start..SEALED.start + count, false, CANARY);
            all.iter_mut().for_each(|row| row["late"] = label.into());
            all
        };
        let answers = [0, 1].map(|label| answer(&heard.contribute(&model, "mallory", &with(label))));
        assert_eq!(answers[0], answers[1], "{count} rows");
        assert_eq!(answers[0][1], 0, "{answers:?}");
        let by_hand = [0, 1].map(|label| {
            let path = heard.cluster.scratch().join(format!("attack-{label}.jsonl"));
            std::fs::write(&path, lines(&with(label))).expect("a file");
            let name = format!("mallory-{label}-{count}");
            let path = path.to_string_lossy();
            let found =
                heard.run(&["submit", &path, "--model", &model, "--contributor", &name, "--wait", "--format", "json"]);
            let told: Value = serde_json::from_str(found.out.lines().last().unwrap_or("null")).unwrap_or_default();
            (found.code, answer(&told))
        });
        assert_eq!(by_hand[0], by_hand[1], "{count} rows");
    }
    // Nothing of it is learned from, no attempt is spent on it, and nothing that is told has moved.
    let again = heard.train(&model, &["--search", &search, "--benchmark", "holdout", "--base-version", "1.0.0"]);
    assert_eq!((&again["dataset"]["digest"], &again["artefact"]), (&better["dataset"]["digest"], &better["artefact"]));
    assert_eq!(again["evaluation"], better["evaluation"]);
    assert_eq!(boards(&heard), before);

    // Only its owner discloses them; whoever is given them plays the search again.
    disclosed(&heard.cluster, &model, &better["evaluation"]);
}
