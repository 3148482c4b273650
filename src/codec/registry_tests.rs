use super::*;
use crate::codec::wire::Wire;
use crate::domain::records::{Command, Progress};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;

/// A schema registry of a few lines: subjects, ids, nothing else. Records what it was asked.
struct FakeRegistry {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

fn registry(answer: impl Fn(&str, &str, &str) -> (u16, String) + Send + 'static) -> FakeRegistry {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://user:s%2Becret@{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut first, mut length, mut authorized) = (String::new(), 0, false);
            reader.read_line(&mut first).unwrap();
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap() == 0 || line.trim().is_empty() {
                    break;
                }
                let line = line.trim().to_ascii_lowercase();
                if let Some(n) = line.strip_prefix("content-length:") {
                    length = n.trim().parse().unwrap();
                }
                // user:s+ecret
                authorized |= line == "authorization: basic dxnlcjpzk2vjcmv0";
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let mut parts = first.split(' ');
            let (method, path) = (parts.next().unwrap().to_owned(), parts.next().unwrap_or_default().to_owned());
            log.lock().unwrap().push(format!("{method} {path}"));
            let (status, text) = match authorized {
                true => answer(&method, &path, std::str::from_utf8(&body).unwrap()),
                false => (401, r#"{"message":"who are you"}"#.to_owned()),
            };
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len());
            stream.write_all((head + &text).as_bytes()).unwrap();
        }
    });
    FakeRegistry { url, asked }
}

fn wire(url: &str) -> Wire {
    let config = WireConfig { registry_url: Some(url.parse().unwrap()), ..WireConfig::default() };
    Wire::new(&config).unwrap()
}

fn schema_answer(json: &str) -> (u16, String) {
    (200, serde_json::json!({ "schema": json, "schemaType": "AVRO" }).to_string())
}

#[test]
fn with_a_registry_records_travel_in_confluent_framing_and_each_id_is_asked_for_once() {
    let stored = Schemas::embedded().unwrap().current("command").unwrap().json;
    let registry = registry(move |method, path, _| match (method, path) {
        ("POST", "/subjects/t.model.commands-value/versions") => (200, r#"{"id":258}"#.to_owned()),
        ("GET", "/schemas/ids/258") => schema_answer(stored),
        _ => (404, r#"{"error_code":40403,"message":"Schema not found"}"#.to_owned()),
    });
    let wire = wire(&registry.url);
    wire.register([("t.model.commands", "command")]).unwrap();
    let command = Command { model: "m".into(), envelope: "{}".into() };
    let bytes = wire.encode(&command).unwrap();
    assert_eq!(bytes[..5], [0, 0, 0, 1, 2]);
    for _ in 0..3 {
        assert_eq!(wire.decode::<Command>(&bytes).unwrap(), command);
    }
    // Single-object encoding is read all the same.
    assert_eq!(wire.decode::<Command>(&Wire::default().encode(&command).unwrap()).unwrap(), command);
    let asked = registry.asked.lock().unwrap().clone();
    assert_eq!(asked, ["POST /subjects/t.model.commands-value/versions", "GET /schemas/ids/258"]);
    let error = wire.encode(&Progress {
        stage: String::new(),
        topic: String::new(),
        topic_id: String::new(),
        partition: 0,
        next_offset: 0,
    });
    assert!(matches!(error, Err(WireError::NotRegistered { schema: "progress" })));
}

#[test]
fn a_producer_with_a_schema_of_its_own_is_read_when_its_fields_fit() {
    let registry = registry(|_, path, _| match path {
        "/schemas/ids/1" => schema_answer(
            r#"{"type":"record","name":"Command","namespace":"their.own","fields":[
            {"name":"extra","type":"long"},{"name":"envelope","type":"string"},{"name":"model","type":"string"}]}"#,
        ),
        "/schemas/ids/2" => {
            schema_answer(r#"{"type":"record","name":"Command","fields":[{"name":"model","type":"string"}]}"#)
        }
        _ => (404, r#"{"message":"Schema not found"}"#.to_owned()),
    });
    let wire = wire(&registry.url);
    let theirs = [&[0, 0, 0, 0, 1, 14][..], &[4, b'{', b'}', 2, b'm']].concat();
    assert_eq!(wire.decode::<Command>(&theirs).unwrap(), Command { model: "m".into(), envelope: "{}".into() });
    let error = wire.decode::<Command>(&[0, 0, 0, 0, 2, 2, b'm']).unwrap_err();
    assert!(error.to_string().contains("its schema does not fit") && !error.is_retriable(), "{error}");
    for _ in 0..2 {
        let error = wire.decode::<Command>(&[0, 0, 0, 0, 3, 2, b'm']).unwrap_err();
        assert!(matches!(error, WireError::UnknownSchemaId { id: 3, .. }) && !error.is_retriable(), "{error}");
    }
    assert_eq!(registry.asked.lock().unwrap().len(), 3, "an unknown id is not asked for again at once");
}

#[test]
fn a_registry_that_fails_is_a_reason_to_retry_and_shows_no_password() {
    let registry = registry(|_, _, _| (503, r#"{"message":"not the leader"}"#.to_owned()));
    let error = wire(&registry.url).decode::<Command>(&[0, 0, 0, 0, 2, 2]).unwrap_err();
    assert!(error.is_retriable() && error.to_string().contains("not the leader"), "{error}");
    assert!(!error.to_string().contains("ecret") && !format!("{error:?}").contains("ecret"), "{error:?}");

    let wrong = registry.url.replace("user", "nobody");
    let error = wire(&wrong).register([("t", "command")]).unwrap_err();
    assert!(error.to_string().contains("HTTP 401 who are you"), "{error}");

    // A port that was free a moment ago: nobody listens there.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = wire(&format!("http://user:secret@{free}")).decode::<Command>(&[0, 0, 0, 0, 2, 2]).unwrap_err();
    assert!(error.is_retriable() && !error.to_string().contains("secret"), "{error}");
}

#[test]
fn a_registry_that_refuses_a_schema_names_the_subject() {
    let registry = registry(|_, _, _| (409, r#"{"message":"incompatible"}"#.to_owned()));
    let error = wire(&registry.url).register([("models", "model")]).unwrap_err();
    assert!(error.to_string().contains("models-value") && error.to_string().contains("incompatible"), "{error}");
    assert!(!error.is_retriable());
}
