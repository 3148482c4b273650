//! Sealed chunks are the plain chunks: the same records leave intake, byte for byte.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::{Intake, Limits};
use super::support::{NOW, model, ring, row, spec};
use crate::codec::sealed;
use crate::domain::keys::{KeyRing, LiveKeys};
use crate::domain::records::{Contribution, ManifestEvent, Refused, ScreenedEvent};
use crate::domain::topics;
use crate::stages::testing::Task;
use crate::stream::stage::{Batch, Stage as _};

const PARTITIONS: [(&str, i32); 3] = [(topics::SCREENED, 4), (topics::MANIFESTS, 3), (topics::REFUSED, 2)];

pub(super) fn task(keys: impl Into<LiveKeys>) -> Task<Intake> {
    let mut task = Task::new(Intake::new(keys, Limits::default()), 0, &PARTITIONS);
    let record = task.wire.encode(&model(&[&spec("", "")])).unwrap();
    task.stage.broadcast(topics::MODELS, b"signup-churn", Some(&record), &task.wire).unwrap();
    task
}

pub(super) fn send(task: &mut Task<Intake>, key: Option<&str>, chunk: &Contribution) {
    let mut batch = Batch::new(topics::CONTRIBUTIONS, 0);
    batch.push(100, NOW, key.map(str::as_bytes), Some(&task.wire.encode(chunk).unwrap()));
    task.commit(&[batch]).unwrap();
}

pub(super) fn chunk(format: &str, payload: Vec<u8>) -> Contribution {
    Contribution {
        contribution_id: Some("c-1".into()),
        contributor: "acme".into(),
        model: "signup-churn".into(),
        format: format.into(),
        chunks: 1,
        payload,
        ..Contribution::default()
    }
}

pub(super) fn json_rows() -> Vec<u8> {
    let mut rows: Vec<_> = (0..40).map(row).collect();
    rows[3]["age"] = 777.into();
    Value::from(rows).to_string().into_bytes()
}

fn csv_rows() -> Vec<u8> {
    let names = ["record_id", "event_time", "age", "balance", "plan", "country", "email", "comment", "churned"];
    let mut text = names.join(",") + "\n";
    for row in (0..40).map(row) {
        let cells: Vec<String> = names.iter().map(|n| row[n].to_string()).collect();
        text += &(cells.join(",") + "\n");
    }
    text.into_bytes()
}

fn sealed_to(ring: &KeyRing, key: Option<&str>, chunk: &Contribution) -> Contribution {
    let payload = ring.intake_key().public().seal(&sealed::info(chunk, key.map(str::as_bytes)), &chunk.payload);
    let id = ring.intake_key().public().id().to_owned();
    Contribution { payload: payload.unwrap(), sealed: Some(id), ..chunk.clone() }
}

fn code(task: &Task<Intake>) -> String {
    let refused = task.values::<Refused>(topics::REFUSED);
    refused.first().map(|r| r.refusals[0].code.clone()).unwrap_or_default()
}

#[test]
fn plain_and_sealed_chunks_leave_the_same_records_whatever_their_format_and_id() {
    let ring = ring();
    let anonymous = Contribution { contribution_id: None, ..chunk("json", json_rows()) };
    for (key, plain) in [
        (None, chunk("json", json_rows())),
        (None, chunk("csv", csv_rows())),
        (None, chunk("json", b"[{\"age\": 1".to_vec())),
        (None, chunk("yaml", b"- a".to_vec())),
        (Some("by-key"), anonymous.clone()),
        (Some("another"), chunk("json", json_rows())),
        (None, anonymous),
    ] {
        let (mut open, mut closed, mut again) = (task(ring.clone()), task(ring.clone()), task(ring.clone()));
        send(&mut open, key, &plain);
        send(&mut closed, key, &sealed_to(&ring, key, &plain));
        send(&mut again, key, &sealed_to(&ring, key, &plain));
        assert!(!open.outputs.is_empty() && open.dead_letters.is_empty());
        assert_eq!(open.outputs, closed.outputs, "{}", plain.format);
        assert_eq!(closed.outputs, again.outputs, "another ephemeral key is the same content");
    }
}

#[test]
fn a_sealed_payload_under_another_name_is_refused_by_name_and_nothing_of_it_leaves() {
    let ring = ring();
    let theirs = sealed_to(&ring, None, &chunk("json", json_rows()));
    let unknown = Contribution { sealed: Some("i7".into()), ..theirs.clone() };
    let short = Contribution { payload: vec![0; 40], ..theirs.clone() };
    let stolen = Contribution { contributor: "mallory".into(), ..theirs };
    for refused in [stolen, unknown, short] {
        let mut task = task(ring.clone());
        send(&mut task, None, &refused);
        let manifest = task.values::<ManifestEvent>(topics::MANIFESTS).remove(0).manifest.unwrap();
        assert_eq!((manifest.received, code(&task).as_str()), (1, "UNSEAL_FAILED"));
        assert!(task.values::<ScreenedEvent>(topics::SCREENED).is_empty());
        let refusal = &task.values::<Refused>(topics::REFUSED)[0].refusals[0];
        assert!(refusal.expected.contains("sealed to") || refusal.expected.contains("intake key"), "{refusal:?}");
    }
}

#[test]
fn a_sealed_payload_beyond_the_limit_is_too_large_before_it_is_opened() {
    let ring = ring();
    let mut task =
        Task::new(Intake::new(ring.clone(), Limits { payload_bytes: 100, ..Limits::default() }), 0, &PARTITIONS);
    send(&mut task, None, &sealed_to(&ring, None, &chunk("json", vec![b' '; 101])));
    assert_eq!(code(&task), "TOO_LARGE");
}

#[test]
fn keys_that_are_rotated_while_intake_runs_give_new_tokens_to_the_same_rows_and_open_what_was_sealed_before() {
    let keys = LiveKeys::from(ring());
    let mut task = task(keys.clone());
    let before = keys.ring();
    let sealed = sealed_to(&before, None, &chunk("json", json_rows()));
    send(&mut task, None, &sealed);
    let mut rotated = KeyRing::from_json(&before.to_json()).unwrap();
    rotated.rotate().unwrap();
    rotated.rotate_intake().unwrap();
    keys.exchange(rotated);
    assert_eq!(keys.ring().intake_key().public().id(), "i2");
    send(&mut task, None, &sealed);
    send(&mut task, None, &sealed_to(&keys.ring(), None, &chunk("json", json_rows())));
    let columns: Vec<(Vec<u8>, String)> = task
        .values::<ScreenedEvent>(topics::SCREENED)
        .into_iter()
        .map(|event| batch_of(&event.rows.unwrap().batch))
        .collect();
    let third = columns.len() / 3;
    let by_time: Vec<_> = columns.chunks(third).collect();
    let hashes = |part: &[(Vec<u8>, String)]| part.iter().map(|(hashes, _)| hashes.clone()).collect::<Vec<_>>();
    assert_eq!(hashes(by_time[0]), hashes(by_time[1]), "a row's hash outlives the token key");
    assert_eq!(hashes(by_time[0]), hashes(by_time[2]));
    for (part, id) in by_time.iter().zip([":k1:", ":k2:", ":k2:"]) {
        assert!(part.iter().all(|(_, email)| email.contains(id)), "{part:?}");
    }
    assert_eq!(by_time[1], by_time[2]);
}

/// The row hashes of a screened batch and its first e-mail address.
fn batch_of(stream: &[u8]) -> (Vec<u8>, String) {
    use arrow::array::AsArray;
    let batch = arrow::ipc::reader::StreamReader::try_new(stream, None).unwrap().next().unwrap().unwrap();
    let hashes = batch.column_by_name("_row_hash").unwrap().as_fixed_size_binary().value_data().to_vec();
    let email =
        arrow::compute::cast(batch.column_by_name("email").unwrap(), &arrow::datatypes::DataType::Utf8).unwrap();
    (hashes, email.as_string::<i32>().value(0).to_owned())
}

#[test]
fn the_json_form_seals_its_payload_in_base64() {
    let ring = ring();
    let plain = chunk("csv", csv_rows());
    let closed = sealed_to(&ring, None, &plain);
    let value = json!({
        "contribution_id": "c-1", "contributor": "acme", "model": "signup-churn", "format": "csv",
        "payload": STANDARD.encode(&closed.payload), "sealed": "i1",
    });
    let (mut open, mut json) = (task(ring.clone()), task(ring));
    send(&mut open, None, &plain);
    let mut batch = Batch::new(topics::CONTRIBUTIONS, 0);
    batch.push(100, NOW, None, Some(value.to_string().as_bytes()));
    json.commit(&[batch]).unwrap();
    assert_eq!(open.outputs, json.outputs);
}
