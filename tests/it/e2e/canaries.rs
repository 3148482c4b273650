//! Two hundred canaries over all formats and both routes, with broken documents and unreadable records among them, through a kill -9:
//! none is found behind intake, and after a short plaintext grace none in front of it either.

use super::formats::document;
use crate::support::broker::Kind;
use crate::support::client::{Isolation, Producer, config, partitions, read};
use crate::support::cluster::{Cluster, Settings};
use crate::support::flow::{Receipts, contribute_bytes, decode, row, schema, shop};
use crate::support::{DEADLINE, eventually, root};
use arrow::ipc::reader::StreamReader;
use base64::Engine as _;
use hokusai::codec::sealed;
use hokusai::domain::keys::PublicKey;
use hokusai::domain::records::Contribution;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const FORMATS: [&str; 5] = ["json", "csv", "parquet", "arrow", "avro"];
/// Rows of each format and route: 5 × 2 × 20 canaries in rows.
const ROWS: i64 = 20;

mod embedded_own {
    #[test]
    fn no_canary_outlives_intake_or_the_plaintext_grace() {
        super::run(super::Kind::Embedded);
    }
}

mod apache_kafka_own {
    #[test]
    fn no_canary_outlives_intake_or_the_plaintext_grace() {
        super::run(super::Kind::ApacheKafka);
    }
}

/// A unique value of personal data.
fn canary(number: i64) -> String {
    let check = |digits: &str| {
        let sum: u32 = digits
            .bytes()
            .rev()
            .enumerate()
            .map(|(at, digit)| {
                let value = u32::from(digit - b'0') * if at % 2 == 0 { 2 } else { 1 };
                value / 10 + value % 10
            })
            .sum();
        (10 - sum % 10) % 10
    };
    match number % 4 {
        0 => format!("canary{number:04}.zaphod@secret-{number:04}.example"),
        1 => format!("+1 212-73{}-{:04}", number % 10, 1_000 + number),
        2 => {
            let digits = format!("40{:013}", 7_919 * number + 31);
            format!("{digits}{}", check(&digits))
        }
        _ => {
            let account = format!("{:018}", 370_400_440_000_000_000 + number);
            let rest = format!("{account}131400")
                .bytes()
                .fold(0_u64, |rest, digit| (rest * 10 + u64::from(digit - b'0')) % 97);
            format!("DE{:02}{account}", 98 - rest)
        }
    }
}

/// Rows with a canary each: in the declared e-mail column, or in free text.
fn rows_of(batch: i64) -> Vec<Value> {
    let one = |at: i64| {
        let number = batch * ROWS + at;
        let (mut value, canary) = (row(number), canary(number));
        let column = if number % 8 == 0 { "email" } else { "note" };
        value[column] = if column == "email" { canary.into() } else { format!("reach me: {canary} thanks").into() };
        value
    };
    let mut rows: Vec<Value> = (0..ROWS).map(one).collect();
    // Refused, with its canary where the contract wants one of two words.
    rows[3]["plan"] = canary(batch * ROWS + 3).into();
    rows
}

/// The topology with a plaintext grace of seconds.
fn short_grace() -> String {
    let text = std::fs::read_to_string(root().join("topology/hokusai.yaml")).expect("the topology");
    let short = text.replace("plaintext_grace: 1h", "plaintext_grace: 2s").replace("segment: 15m", "segment: 1s");
    assert!(short.contains("plaintext_grace: 2s") && short.contains("segment: 1s"));
    short
}

/// What is contributed: ids, then values for the topic.
fn contributions(model: &str, key: &PublicKey) -> (Vec<String>, Vec<Vec<u8>>) {
    let (mut ids, mut values) = (Vec::new(), Vec::new());
    for (batch, (format, is_sealed)) in (0..).zip(FORMATS.iter().flat_map(|f| [(f, true), (f, false)])) {
        let id = format!("canaries-{batch}");
        let mut payload = document(format, &rows_of(batch));
        values.push(value(&id, model, format, payload.clone(), is_sealed.then_some(key)));
        ids.push(id);
        // The same document, broken: it is refused as a whole.
        if *format == "csv" {
            payload = [format!("{},x\n", canary(batch * ROWS)).as_bytes(), &payload].concat();
        } else {
            payload.truncate(payload.len() / 2);
        }
        let id = format!("cut-{batch}");
        values.push(value(&id, model, format, payload, is_sealed.then_some(key)));
        ids.push(id);
    }
    for number in 0..8 {
        // Unreadable as a whole, or almost a contribution.
        values.push(format!("\u{1}{}", canary(number)).into_bytes());
        values.push(
            json!({"contributor": canary(number), "model": 7, "rows": [canary(number)]}).to_string().into_bytes(),
        );
    }
    (ids, values)
}

fn value(id: &str, model: &str, format: &str, payload: Vec<u8>, key: Option<&PublicKey>) -> Vec<u8> {
    let mut chunk = Contribution {
        contribution_id: Some(id.into()),
        contributor: "alice".into(),
        model: model.into(),
        format: format.into(),
        chunks: 1,
        payload,
        ..Contribution::default()
    };
    if let Some(key) = key {
        sealed::seal(&mut chunk, key).expect("sealed");
    }
    json!({
        "contribution_id": id, "contributor": "alice", "model": model, "format": format, "chunk": 0, "chunks": 1,
        "payload": base64::engine::general_purpose::STANDARD.encode(&chunk.payload), "sealed": chunk.sealed,
    })
    .to_string()
    .into_bytes()
}

fn run(kind: Kind) {
    let settings = Settings { topology: Some(short_grace()), ..Settings::default() };
    let Some(mut cluster) = Cluster::start(kind, &settings) else { return };
    let (model, _) = shop(&cluster);
    let key = cluster.lines(&["model", "show", &model])[0]["intake_key"].clone();
    let key = [&key["id"], &key["public"]].map(|part| part.as_str().expect("a published key").to_owned());
    let key = PublicKey::parse(&key[0], &key[1]).expect("a key");
    let (ids, values) = contributions(&model, &key);
    let readable = values.iter().filter(|value| found(value).is_err()).count();
    assert!(readable >= 16 + 2, "the unreadable records and the plain documents of text can be told: {readable}");
    let producer = Producer::new(&cluster.broker, &[]);
    for value in &values {
        contribute_bytes(&cluster, &producer, None, value);
    }
    // In the middle of it.
    cluster.process.kill();
    cluster.start_again();
    let mut receipts = Receipts::follow(&cluster);
    for id in &ids {
        let receipt = receipts.of(id);
        let admitted = id.starts_with("canaries");
        assert_eq!(receipt["status"], if admitted { "admitted" } else { "refused" }, "{receipt}");
        assert_eq!(receipt["accepted"], if admitted { ROWS - 1 } else { 0 }, "{receipt}");
    }
    let letters = eventually("the dead letters", || {
        let letters = cluster.lines(&["dead-letters", "list"]);
        if letters.len() == 16 { Ok(letters) } else { Err(format!("{}", letters.len())) }
    });
    assert!(letters.iter().all(|letter| letter["sealed_to"] == "o1"), "{letters:?}");
    // The tables are read first: what waits for the warehouse is not purged.
    behind_intake(&cluster);
    purged(&cluster);
    cluster.process.terminate();
    hidden("the log", cluster.process.log().as_bytes());
    scan(&cluster.data());
}

/// Topics, tables and metrics.
fn behind_intake(cluster: &Cluster) {
    for table in ["contributions", "rows", "refusals", "receipts", "dead_letters", "audit"] {
        let rows = cluster.sql(&format!("select * from {table}"));
        assert!(!rows.is_empty(), "{table}");
        hidden(table, serde_json::to_string(&rows).expect("JSON").as_bytes());
    }
    let (status, metrics) = cluster.process.get("/metrics");
    assert_eq!(status, 200);
    hidden("the metrics", metrics.as_bytes());
    let client: BaseConsumer = config(&cluster.broker, &[]).create().expect("a client");
    let metadata = client.fetch_metadata(None, DEADLINE).expect("metadata");
    for topic in metadata.topics().iter().map(|t| t.name()) {
        if topic.starts_with("__") || !topic.starts_with(&cluster.prefix) || topic == cluster.topic("contributions") {
            continue;
        }
        let short = topic.strip_prefix(&cluster.prefix).unwrap_or(topic);
        for record in read(&cluster.broker, topic, Isolation::Uncommitted) {
            let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
            hidden(topic, &key);
            hidden(topic, &value);
            match short {
                "contributions.accepted" => hidden(topic, rows_in(&decode(&schema("accepted"), &value)).as_bytes()),
                "contributions.screened" => {
                    hidden(topic, rows_in(&decode(&schema("screened"), &value)["rows"]).as_bytes());
                }
                _ => {}
            }
        }
    }
}

/// The rows of a record, uncompressed, as JSON.
pub(super) fn rows_in(record: &Value) -> String {
    let Ok(stream) = serde_json::from_value::<Vec<u8>>(record["batch"].clone()) else { return String::new() };
    let mut text = Vec::new();
    for batch in StreamReader::try_new(stream.as_slice(), None).expect("a stream") {
        let batch = batch.expect("a batch");
        let shown: Vec<usize> =
            (0..batch.num_columns()).filter(|at| !batch.schema().field(*at).name().starts_with('_')).collect();
        let batch = batch.project(&shown).expect("columns");
        arrow::json::LineDelimitedWriter::new(&mut text).write(&batch).expect("JSON");
    }
    String::from_utf8(text).expect("text")
}

/// Nothing is left on `contributions`, nor in the files of the embedded broker.
fn purged(cluster: &Cluster) {
    let topic = cluster.topic("contributions");
    eventually("the purge", || {
        let left = read(&cluster.broker, &topic, Isolation::Uncommitted).len();
        if left == 0 { Ok(()) } else { Err(format!("{left} records")) }
    });
    assert!(partitions(&cluster.broker, &topic) > 0);
    if cluster.broker.kind == Kind::Embedded {
        eventually("files without plaintext", || {
            files(&cluster.data().join("broker"))
                .iter()
                .try_for_each(|path| found(&std::fs::read(path).unwrap_or_default()))
        });
    }
}

pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn scan(folder: &Path) {
    for path in files(folder) {
        hidden(&path.to_string_lossy(), &std::fs::read(&path).unwrap_or_default());
    }
}

fn hidden(place: &str, bytes: &[u8]) {
    found(bytes).unwrap_or_else(|canary| panic!("{canary} stands in {place}"));
}

/// The first canary in some bytes, in the forms that it may have been brought into: as it is, its digits alone, in base64.
fn found(bytes: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    for number in 0..i64::try_from(FORMATS.len()).unwrap_or(0) * 2 * ROWS {
        let canary = canary(number).to_ascii_lowercase();
        let digits: String = canary.chars().filter(char::is_ascii_digit).collect();
        let bare = if number % 4 == 0 { canary.clone() } else { digits };
        let forms = [canary.clone(), bare].into_iter().chain((0..3).map(|shift| in_base64(number, shift)));
        if forms.into_iter().any(|form| text.contains(&form)) {
            return Err(canary);
        }
    }
    Ok(())
}

/// A part of a canary as it stands in base64 when it begins `shift` bytes behind a group of three.
fn in_base64(number: i64, shift: usize) -> String {
    let text = [&vec![0; shift], canary(number).as_bytes()].concat();
    let encoded = base64::engine::general_purpose::STANDARD.encode(text).to_ascii_lowercase();
    let whole = [0, 2, 3][shift];
    // What tells canaries apart stands at their end: all that is not shared with the next byte.
    encoded.trim_end_matches('=')[whole..].chars().rev().skip(2).collect::<String>().chars().rev().collect()
}
