//! Null candidates through topics: what permuted labels teach is accepted on no attempt, and a real improvement behind all of them is.
//!
//! The label of the sealed rows follows x alone. Null rows have one x, other figures drawn by chance, and labels drawn by a coin: whatever
//! is learned from them is as good as chance on the benchmark, and so is the baseline, which was learned from such rows too.

use crate::support::broker::Kind;
use crate::support::cluster::{Cluster, Settings, with};
use crate::support::flow::{contribute, contribution, receipt};
use crate::support::late::{lines, scrambled};
use crate::support::unique;
use serde_json::{Value, json};

/// Null rows that each candidate knows more than the one before.
const MORE: i64 = 24;

fn spec(model: &str) -> String {
    format!(
        "apiVersion: hokusai/v1
kind: Model
name: {model}
label: late
learning: {{leaveOut: [n]}}
evaluation: {{primary: auroc, minimumEffect: 0}}
schema:
  - name: flights
    properties:
      - {{name: n, logicalType: integer, required: true}}
      - {{name: x, logicalType: number, required: true}}
      - {{name: y, logicalType: number, required: true}}
      - {{name: z, logicalType: number, required: true}}
      - {{name: late, logicalType: integer, logicalTypeOptions: {{enum: [0, 1]}}}}
"
    )
}

/// A number from 0 to 1 that follows from another as if by chance.
fn share(n: i64, salt: i64) -> f64 {
    scrambled(n, salt) as f64 / 65_536.0
}

/// Rows whose label follows x in nine of ten.
fn real(range: std::ops::Range<i64>) -> Vec<Value> {
    let row = |n: i64| {
        let late = (share(n, 1) >= 0.5) != (share(n, 5) < 0.1);
        json!({"n": n, "x": share(n, 1), "y": share(n, 2), "z": share(n, 3), "late": i64::from(late)})
    };
    range.map(row).collect()
}

/// Rows that teach nothing.
fn null(range: std::ops::Range<i64>) -> Vec<Value> {
    let row = |n: i64| {
        let late = i64::from(share(n, 4) < 0.5);
        json!({"n": n, "x": 0.5, "y": share(n, 2), "z": share(n, 3), "late": late})
    };
    range.map(row).collect()
}

fn contributed(cluster: &Cluster, model: &str, rows: &[Value]) {
    let id = unique("rows");
    contribute(cluster, &[contribution(&id, "alice", model, rows)]);
    assert_eq!(receipt(cluster, &id)["accepted"], rows.len());
}

fn train(cluster: &Cluster, model: &str, more: &[&str]) -> Value {
    // On every row: which rows a validation fold takes follows from the tenant's keys, which differ from run to run, and by design a null
    // candidate in so many is accepted. As it is, every run plays the same attempts.
    let arguments = ["train", model, "--algorithm", "linear", "--param", "validation=0", "--wait"];
    cluster.lines(&[&arguments, more].concat()).remove(0)
}

/// So many null candidates, then a real improvement.
fn campaign(cluster: &Cluster, candidates: i64, progress: impl Fn(i64)) {
    let model = unique("calibrated");
    cluster.apply(&model, &spec(&model));
    contributed(cluster, &model, &null(0..100));
    assert_eq!(train(cluster, &model, &[])["version"], "1.0.0");
    let sealed = cluster.scratch().join(format!("{model}.jsonl"));
    std::fs::write(&sealed, lines(&real(1_000_000..1_000_600))).expect("a file");
    cluster.lines(&["benchmark", "seal", "holdout", "--model", &model, &sealed.to_string_lossy()]);
    let evaluated = ["--benchmark", "holdout", "--base-version", "1.0.0"];
    for attempt in 1..=candidates {
        let first = 100 + (attempt - 1) * MORE;
        contributed(cluster, &model, &null(first..first + MORE));
        let told = train(cluster, &model, &evaluated)["evaluation"].clone();
        assert_eq!((&told["attempt"], &told["status"]), (&json!(attempt), &json!("refused")), "{told}");
        assert!(told["reasons"].as_array().is_some_and(|r| r.contains(&json!("NOT_SIGNIFICANT"))), "{told}");
        progress(attempt);
    }
    contributed(cluster, &model, &real(2_000_000..2_001_200));
    let told = train(cluster, &model, &evaluated)["evaluation"].clone();
    assert_eq!((&told["attempt"], &told["status"]), (&json!(candidates + 1), &json!("accepted")), "{told}");
    println!(
        "attempt {}: accepted, delta {}, p {} at {}",
        told["attempt"], told["delta"], told["p_value"], told["alpha"]
    );
}

#[test]
fn null_candidates_are_refused_and_the_real_improvement_behind_them_is_accepted() {
    with(Kind::Embedded, 0, |cluster| campaign(cluster, 4, |_| {}));
}

#[test]
#[ignore = "a campaign of minutes: make calibrate"]
fn fifty_null_candidates_are_refused_and_the_real_improvement_that_is_attempt_51_is_accepted() {
    let cluster = Cluster::start(Kind::Embedded, &Settings::default()).expect("the embedded broker");
    let start = std::time::Instant::now();
    campaign(&cluster, 50, |done| {
        let (done, left) = (done as usize, 50 - done as usize);
        eprint!("\r[{}{}] {done} of 50 null candidates refused", "#".repeat(done), ".".repeat(left));
    });
    let used = cluster.process.processor_seconds();
    println!("{:.0} s, of which the one process worked {used:.0} s of processor time", start.elapsed().as_secs_f64());
}
