//! Whatever is wrong with what training, trials, evaluation and the registry are sent: a refusal, a failure or a dead letter with its reason,
//! and a good request behind all of it is done.

use super::training::text;
use crate::support::broker::Kind;
use crate::support::client::{Producer, Send};
use crate::support::cluster::{Cluster, with};
use crate::support::flow::{account, contribute, contribution, reasons, receipt};
use crate::support::late::{SECTION, lines, rows, spec};
use crate::support::{eventually, unique};
use ed25519_dalek::SigningKey;
use hokusai::codec::wire::Wire;
use hokusai::domain::records::{
    EvaluationAcknowledgement, EvaluationOutcome, EvaluationRequest, Position, TrainingJob, TrainingRequest,
};
use hokusai::stages::registry::result::{self, EvaluationResult, Found, StageResult};
use serde_json::{Value, json};

mod embedded {
    #[test]
    fn whatever_is_wrong_is_told_by_name_and_a_good_request_behind_it_is_done() {
        super::with(super::Kind::Embedded, 0, super::whatever_is_wrong_is_told_by_name);
    }
}

mod apache_kafka_two_workers {
    #[test]
    fn whatever_is_wrong_is_told_by_name_and_a_good_request_behind_it_is_done() {
        super::with(super::Kind::ApacheKafka, 1, super::whatever_is_wrong_is_told_by_name);
    }
}

/// What has to become of a record.
#[derive(Clone, Copy)]
enum Fate {
    /// A run with this status and reason.
    Run(&'static str, &'static str),
    /// A dead letter with this reason.
    Letter(&'static str),
}
use Fate::{Letter, Run};

struct Case {
    what: &'static str,
    topic: &'static str,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    /// Of a request that has one.
    id: String,
    fate: Fate,
}

/// The records of a run of the test.
#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    /// A request to train, with these fields beside its id.
    fn request(&mut self, what: &'static str, model: &str, fate: Fate, fields: Value) {
        let id = format!("{} {what}", unique("request"));
        let mut value = json!({"request_id": id, "model": model, "algorithm": "linear"});
        value.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        let value = Some(value.to_string().into_bytes());
        self.0.push(Case { what, topic: "training.requests", key: Some(b"a forged key".to_vec()), value, id, fate });
    }

    /// Bytes that end as a dead letter.
    fn letter(&mut self, what: &'static str, topic: &'static str, reason: &'static str, value: &[u8]) {
        let value = Some(value.to_vec());
        self.0.push(Case { what, topic, key: Some(b"key".to_vec()), value, id: String::new(), fate: Letter(reason) });
    }
}

fn contributed(cluster: &Cluster, model: &str, rows: &[Value]) {
    let id = unique("rows");
    contribute(cluster, &[contribution(&id, "alice", model, rows)]);
    assert_eq!(receipt(cluster, &id)["accepted"], rows.len());
}

/// A model with a section `evaluation` and these rows.
fn model(cluster: &Cluster, rows: &[Value]) -> String {
    let model = unique("flights");
    cluster.apply(&model, &spec(&model, SECTION));
    if !rows.is_empty() {
        contributed(cluster, &model, rows);
    }
    model
}

fn with_each(mut rows: Vec<Value>, column: &str, value: &Value) -> Vec<Value> {
    rows.iter_mut().for_each(|row| row[column] = value.clone());
    rows
}

fn requests(cluster: &Cluster, good: &str, cases: &mut Cases) {
    let empty = model(cluster, &[]);
    let one_class = model(cluster, &with_each(rows(0..60, false), "late", &json!(1)));
    let constant = model(cluster, &with_each(rows(0..60, false), "x", &json!(0.25)));
    let many: serde_json::Map<String, Value> = (0..65).map(|i| (format!("p{i}"), json!(1))).collect();
    let unknown = "ab".repeat(32);
    cases.request("an unknown model", "nobody-knows-it", Run("refused", "UNKNOWN_MODEL"), json!({}));
    cases.request("a name of no model", "a\nb", Run("refused", "BAD_REQUEST"), json!({}));
    cases.request("no rows", &empty, Run("failed", "EMPTY_DATASET"), json!({}));
    cases.request("one class", &one_class, Run("failed", "ONE_CLASS"), json!({}));
    cases.request("constant features", &constant, Run("failed", "CONSTANT_FEATURES"), json!({}));
    cases.request("an unknown benchmark", good, Run("refused", "UNKNOWN_BENCHMARK"), json!({"benchmark": "nowhere@1"}));
    cases.request("no version", good, Run("refused", "UNKNOWN_VERSION"), json!({"base_version": "9.9.9"}));
    cases.request("an unknown dataset", good, Run("failed", "UNKNOWN_DATASET"), json!({"as_of": unknown}));
    cases.request("no dataset", good, Run("refused", "UNKNOWN_DATASET"), json!({"as_of": "../../etc/passwd"}));
    cases.request(
        "a warm start",
        good,
        Run("refused", "WARM_START_UNUSABLE"),
        json!({"warm_start": true, "algorithm": "linear"}),
    );
    cases.request("a number as text", good, Run("refused", "BAD_REQUEST"), json!({"seed": "1"}));
    cases.request("a fraction", good, Run("refused", "BAD_REQUEST"), json!({"seed": 1.5}));
    cases.request("a number beyond 64 bits", good, Run("refused", "BAD_REQUEST"), json!({"seed": u64::MAX}));
    cases.request("a list", good, Run("refused", "BAD_REQUEST"), json!({"params": [1]}));
    cases.request("too many parameters", good, Run("refused", "BAD_REQUEST"), json!({"params": many}));
    cases.request("an unknown field", good, Run("refused", "BAD_REQUEST"), json!({"benchmarks": "holdout"}));
    cases.request(
        "a search of a million",
        good,
        Run("refused", "BAD_SEARCH"),
        json!({"search": {"trials": 1_000_000}}),
    );
    cases.request(
        "iterations without end",
        good,
        Run("refused", "BAD_PARAMETER"),
        json!({
            "algorithm": "trees", "params": {"iterations": i64::MAX}
        }),
    );
    cases.request(
        "no budget",
        good,
        Run("failed", "BUDGET_EXCEEDED"),
        json!({
            "algorithm": "trees", "params": {"iterations": 50}, "budget": 1
        }),
    );
}

fn letters(good: &str, cases: &mut Cases) {
    let wire = Wire::default();
    let requests = "training.requests";
    cases.letter("nothing", requests, "REQUEST_UNREADABLE", b"");
    cases.letter("no record", requests, "REQUEST_UNREADABLE", b"GGUF is no request, and neither is this");
    let huge = format!(r#"{{"request_id":"huge","model":"{}"}}"#, "x".repeat(70_001));
    cases.letter("beyond the limit", requests, "TOO_LARGE", huge.as_bytes());
    let twice = format!(r#"{{"request_id":"twice","model":"{good}","model":"another of the same"}}"#);
    cases.letter("a field twice", requests, "REQUEST_UNREADABLE", twice.as_bytes());
    let deep = format!(r#"{{"request_id":"d","search":{}{}}}"#, "[".repeat(9_000), "]".repeat(9_000));
    cases.letter("nesting", requests, "REQUEST_UNREADABLE", deep.as_bytes());
    let long = format!(r#"{{"request_id":"{}","model":"{good}"}}"#, "i".repeat(1_203));
    cases.letter("an id without end", requests, "REQUEST_UNREADABLE", long.as_bytes());
    let both = format!(r#"{{"cancel":"{}","model":"and something else beside it"}}"#, "0".repeat(32));
    cases.letter("a cancellation of more", requests, "REQUEST_UNREADABLE", both.as_bytes());
    cases.letter("a cancellation of nothing", requests, "REQUEST_UNREADABLE", br#"{"cancel":"../run-of-somebody"}"#);
    let request =
        TrainingRequest { request_id: "cut".to_owned(), model: good.to_owned(), ..TrainingRequest::default() };
    let avro = wire.encode(&request).expect("Avro");
    cases.letter("cut Avro", requests, "REQUEST_UNREADABLE", &avro[..avro.len() - 3]);
    let job = wire.encode(&TrainingJob { run_id: "r".repeat(45), ..TrainingJob::default() }).expect("Avro");
    cases.letter("another record", requests, "REQUEST_UNREADABLE", &job);

    // What stages tell each other: others may write there on a cluster without access control.
    cases.letter("a forged job", "training.jobs", "JOB_UNREADABLE", b"a job that nobody has given");
    cases.letter("a forged trial", "training.trials", "TRIAL_UNREADABLE", &[&job[..], b"and more"].concat());
    cases.letter("a forged attempt", "evaluation.requests", "REQUEST_UNREADABLE", b"an attempt of nothing at all, sir");
    let family = "cd".repeat(32);
    let forged = |more: EvaluationRequest, id: &str| {
        let request = EvaluationRequest { family: family.clone(), evaluation_id: id.to_owned(), ..more };
        wire.encode(&request).expect("Avro")
    };
    let acknowledgement = EvaluationAcknowledgement {
        leaf: "ef".repeat(32),
        index: 7,
        checkpoint: "hokusai\n8\nnot a tree head at all\n".to_owned(),
    };
    let acknowledged =
        EvaluationRequest { acknowledgement: Some(acknowledgement.clone()), ..EvaluationRequest::default() };
    let outcome = EvaluationOutcome { attempt: 1, status: "accepted".to_owned() };
    let both = EvaluationRequest { outcome: Some(outcome), ..acknowledged.clone() };
    for (what, reason, value, keyed) in [
        ("under another key", "REQUEST_MISKEYED", forged(acknowledged.clone(), "no evaluation of this one"), false),
        ("of no attempt", "ACKNOWLEDGEMENT_REFUSED", forged(acknowledged, "no evaluation"), true),
        ("two things at once", "REQUEST_UNREADABLE", forged(both, "nor of that one either"), true),
    ] {
        cases.letter(what, "evaluation.requests", reason, &value);
        if keyed {
            cases.0.last_mut().expect("a case").key = Some(family.clone().into_bytes());
        }
    }
    cases.letter("a forged event", "registry.events", "EVENT_UNREADABLE", b"accepted; promote it to production");
}

fn whatever_is_wrong_is_told_by_name(cluster: &Cluster) {
    // Labels and texts that are none never get as far as a dataset.
    let good = model(cluster, &rows(0..80, true));
    let id = unique("nan");
    let csv = "n,x,late\n900001,0.5,NaN\n900002,0.5,\n900003,NaN,1\n900004,0.5,2\n900005,0.5,1\n";
    contribute(
        cluster,
        &[json!({
            "contribution_id": id, "contributor": "mallory", "model": good, "format": "csv",
            "payload": data_encoding::BASE64.encode(csv.as_bytes()),
        })],
    );
    let (_, _, accepted, refused) = account(&receipt(cluster, &id));
    assert_eq!(accepted, 1);
    assert_eq!(refused, reasons([("TYPE_MISMATCH", 2), ("LABEL_MISSING", 1), ("ENUM_UNKNOWN", 1)]));

    let mut cases = Cases::default();
    requests(cluster, &good, &mut cases);
    letters(&good, &mut cases);
    let producer = Producer::new(&cluster.broker, &[]);
    let sent = cases.0.into_iter().map(|case| {
        let send = Send { key: case.key.as_deref(), value: case.value.as_deref(), ..Send::default() };
        producer.send(&cluster.topic(case.topic), &send).expect("the queue has room");
        let (partition, offset) = producer.settle().remove(0).expect("it is on the topic");
        (json!({"topic": case.topic, "partition": partition, "offset": offset}), case)
    });
    told(cluster, &sent.collect::<Vec<_>>());
    forged_result(cluster, &good);
    hostile_artefact(cluster, &good);
}

fn told(cluster: &Cluster, cases: &[(Value, Case)]) {
    eventually("every record's fate", || {
        let (runs, letters) = (cluster.watch("training.runs"), cluster.watch("dead-letters"));
        for (position, case) in cases {
            match case.fate {
                Run(status, reason) => {
                    let of_it = |run: &&Value| run["request_id"] == case.id.as_str();
                    let run = runs.iter().map(|line| &line["value"]).rfind(of_it).cloned().unwrap_or_default();
                    let is_over =
                        run["status"] == "refused" || run["status"] == "failed" || run["status"] == "finished";
                    if !is_over {
                        return Err(format!("{}: {run}", case.what));
                    }
                    assert_eq!(
                        (text(&run, "/status"), text(&run, "/reason")),
                        (status, reason),
                        "{}: {run}",
                        case.what
                    );
                    assert!(!text(&run, "/detail").is_empty(), "{}: {run}", case.what);
                }
                Letter(reason) => {
                    let of_it = |line: &&Value| line["value"]["position"] == *position;
                    let Some(letter) = letters.iter().find(of_it) else { return Err(case.what.to_owned()) };
                    assert_eq!(text(letter, "/value/reason"), reason, "{}: {letter}", case.what);
                }
            }
        }
        Ok(())
    });
}

/// A result under a stranger's key, straight into the registry's log: audited, and nothing changes.
fn forged_result(cluster: &Cluster, model: &str) {
    let before = cluster.lines(&["model", "show", model]).remove(0);
    let found = EvaluationResult {
        evaluation_id: "forged".to_owned(),
        candidate: "ab".repeat(32),
        baseline: "cd".repeat(32),
        benchmark: "holdout@1".to_owned(),
        status: "accepted".to_owned(),
        reasons: Vec::new(),
        metric: "accuracy".to_owned(),
        delta: Some("0.300000".to_owned()),
        lower: Some("0.200000".to_owned()),
        statement: None,
    };
    let forged = StageResult { model: model.to_owned(), found: Found::Evaluation(Box::new(found)) };
    let position = Position { topic: "training.requests".to_owned(), partition: 0, offset: 0 };
    let event = result::event(&forged, position, 1, &SigningKey::from_bytes(&[7; 32])).expect("an event");
    let value = Wire::default().encode(&event).expect("Avro");
    let producer = Producer::new(&cluster.broker, &[]);
    let send = Send { key: Some(model.as_bytes()), value: Some(&value), ..Send::default() };
    producer.send(&cluster.topic("registry.events"), &send).expect("the queue has room");
    assert!(producer.settle().iter().all(Result::is_ok));
    eventually("the denial", || {
        let audited = cluster.watch("audit");
        let resource = format!("model/{model}");
        let denied = |line: &Value| line["value"]["resource"] == resource.as_str() && line["value"]["allowed"] == false;
        if audited.iter().any(denied) { Ok(()) } else { Err(format!("{} audited", audited.len())) }
    });
    let after = cluster.lines(&["model", "show", model]).remove(0);
    assert_eq!((&after["versions"], &after["contracts"]), (&before["versions"], &before["contracts"]));
}

/// A good request behind all this is done; one that is to be compared with an artefact that is none has failed, by name.
fn hostile_artefact(cluster: &Cluster, model: &str) {
    let run = cluster.lines(&["train", model, "--algorithm", "linear", "--wait"]).remove(0);
    assert_eq!((text(&run, "/status"), &run["dataset"]["rows"]), ("finished", &json!(81)), "{run}");
    let sealed = cluster.scratch().join(format!("{}.jsonl", unique("sealed")));
    let first = 1_000_000 + 1_000 * i64::from(cluster.prefix.is_empty());
    std::fs::write(&sealed, lines(&rows(first..first + 120, false))).expect("a file");
    cluster.lines(&["benchmark", "seal", "holdout", "--model", model, &sealed.to_string_lossy()]);
    // A protobuf whose first field claims two gigabytes: as ONNX it is refused, as bytes of another form nothing here unfolds it.
    let bomb = [&[0x3A, 0xFF, 0xFF, 0xFF, 0xFF, 0x07][..], &[0x0A; 4_096], model.as_bytes()].concat();
    let path = cluster.scratch().join(format!("{}.onnx", unique("bomb")));
    std::fs::write(&path, &bomb).expect("a file");
    let refused = cluster.run(&["model", "register", model, "--artefact", &path.to_string_lossy()]);
    assert!(refused.code == Some(4) && refused.err.contains("--conformance"), "{refused:?}");
    let path = cluster.scratch().join(format!("{}.bin", unique("bomb")));
    std::fs::write(&path, bomb).expect("a file");
    let told = cluster.lines(&["model", "register", model, "--artefact", &path.to_string_lossy()]).remove(0);
    let imported = text(&told, "/version").to_owned();
    let arguments = ["train", model, "--algorithm", "linear", "--benchmark", "holdout", "--base-version", &imported];
    let run = cluster.run(&[&arguments[..], &["--param", "l2=2", "--wait"]].concat());
    assert!(run.code == Some(1) && run.err.contains("BASELINE_UNUSABLE") && run.err.contains("help:"), "{run:?}");
    let evaluated = cluster.watch("evaluations");
    let told = &evaluated.iter().find(|line| line["value"]["model"] == model).expect("an evaluation")["value"];
    assert_eq!((text(told, "/status"), &told["reasons"]), ("failed", &json!(["BASELINE_UNUSABLE"])), "{told}");
    assert_eq!((&told["attempt"], &told["delta"]), (&json!(1), &Value::Null), "{told}");
}
