use super::*;
use crate::codec::schema::{EMBEDDED, fingerprint};
use crate::domain::records::*;
use apache_avro::schema::{Name, NamespaceRef};
use std::collections::HashMap;
use std::path::PathBuf;

/// A record of a schema with every field set, the same for ever: the content of the golden files.
fn sample(schema: &Schema, full: bool) -> Avro {
    let resolved = ResolvedSchema::try_from(schema).unwrap();
    fill(schema, None, resolved.get_names(), "root", full)
}

fn fill(schema: &Schema, ns: NamespaceRef<'_>, names: &HashMap<Name, &Schema>, name: &str, full: bool) -> Avro {
    let number = i64::try_from(name.len()).unwrap();
    match schema {
        Schema::Null => Avro::Null,
        Schema::Boolean => Avro::Boolean(full),
        Schema::Int => Avro::Int(i32::try_from(number).unwrap()),
        Schema::Long => Avro::Long(if full { number << 40 } else { -number }),
        Schema::Double => Avro::Double(0.25),
        Schema::String => Avro::String(if full { format!("{name} é") } else { String::new() }),
        Schema::Bytes => Avro::Bytes(if full { vec![0, 1, 0xFF] } else { Vec::new() }),
        Schema::Enum(of) => Avro::Enum(0, of.symbols[0].clone()),
        Schema::Array(array) => {
            let item = || fill(&array.items, ns, names, name, full);
            Avro::Array(if full { vec![item(), item()] } else { Vec::new() })
        }
        Schema::Union(union) => {
            let index = union.variants().iter().position(|v| matches!(v, Schema::Null) != full).unwrap();
            let inner = fill(&union.variants()[index], ns, names, name, full);
            Avro::Union(u32::try_from(index).unwrap(), Box::new(inner))
        }
        Schema::Record(record) => {
            let own = record.name.fully_qualified_name(ns);
            let field = |f: &apache_avro::schema::RecordField| {
                (f.name.clone(), fill(&f.schema, own.namespace(), names, &f.name, full))
            };
            Avro::Record(record.fields.iter().map(field).collect())
        }
        Schema::Ref { name: of } => fill(names[&*of.fully_qualified_name(ns)], ns, names, name, full),
        other => panic!("the schemas do not use {other:?}"),
    }
}

fn single_object(prepared: &Prepared, value: &Avro) -> Vec<u8> {
    let mut bytes = [&SINGLE_OBJECT[..], &prepared.fingerprint].concat();
    prepared.writer.write_value_ref(&mut bytes, value).unwrap();
    bytes
}

fn prepared(name: &str) -> &'static Prepared {
    Schemas::embedded().unwrap().current(name).unwrap()
}

fn round_trips<R: Record + PartialEq + std::fmt::Debug>() {
    let wire = Wire::default();
    for full in [true, false] {
        let bytes = single_object(prepared(R::SCHEMA), &sample(prepared(R::SCHEMA).schema, full));
        let record: R = wire.decode(&bytes).unwrap_or_else(|e| panic!("{}: {e}", R::SCHEMA));
        assert_eq!(wire.encode(&record).unwrap(), bytes, "{}", R::SCHEMA);
    }
}

#[test]
fn every_record_survives_the_wire_byte_for_byte() {
    round_trips::<Contribution>();
    round_trips::<ManifestEvent>();
    round_trips::<ScreenedEvent>();
    round_trips::<Verdict>();
    round_trips::<Accepted>();
    round_trips::<Refused>();
    round_trips::<Receipt>();
    round_trips::<Command>();
    round_trips::<RegistryEvent>();
    round_trips::<Model>();
    round_trips::<Audit>();
    round_trips::<DeadLetter>();
    round_trips::<Progress>();
    round_trips::<Alert>();
    round_trips::<Attribution>();
    round_trips::<TrainingRequest>();
    round_trips::<TrainingAnswer>();
    round_trips::<TrainingJob>();
    round_trips::<TrainingRun>();
    round_trips::<TrainingTrial>();
    round_trips::<EvaluationRequest>();
    round_trips::<Evaluation>();
}

#[test]
fn every_record_and_field_of_every_schema_has_a_doc() {
    fn check(json: &serde_json::Value, file: &str) {
        if let Some(items) = json.as_array() {
            items.iter().for_each(|item| check(item, file));
        }
        let Some(object) = json.as_object() else { return };
        let documented = |o: &serde_json::Map<String, serde_json::Value>| {
            o.get("doc").and_then(|d| d.as_str()).is_some_and(|d| d.len() >= 4)
        };
        if object.get("type").is_some_and(|t| t == "record" || t == "enum") {
            assert!(documented(object), "{file}: {} has no doc", object["name"]);
        }
        for field in object.get("fields").and_then(|f| f.as_array()).into_iter().flatten() {
            assert!(documented(field.as_object().unwrap()), "{file}: {} has no doc", field["name"]);
            check(&field["type"], file);
        }
        check(&object["type"], file);
        if let Some(items) = object.get("items") {
            check(items, file);
        }
    }
    for entry in EMBEDDED {
        check(&serde_json::from_str(entry.json).unwrap(), entry.name);
        assert!(!entry.json.contains("\"map\""), "{}: no maps, their order is not fixed", entry.name);
    }
}

#[test]
fn every_schema_file_is_embedded_and_sorted() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schemas");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .filter_map(|e| e.unwrap().file_name().into_string().unwrap().strip_suffix(".avsc").map(str::to_owned))
        .collect();
    files.sort();
    assert_eq!(files, EMBEDDED.iter().map(|e| e.name).collect::<Vec<_>>());
}

/// Published schemas are kept under `schemas/history/NAME/FINGERPRINT.{avsc,bin,json}`. After a wanted change run
/// this test once with `HOKUSAI_BLESS=1`, and name the former version in `schema.rs`.
#[test]
fn every_published_schema_is_kept_and_its_records_stay_readable() {
    let history = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schemas/history");
    for entry in EMBEDDED.iter().filter(|entry| entry.published) {
        let current = prepared(entry.name);
        let folder = history.join(entry.name);
        let file = |ending: &str| folder.join(format!("{}.{ending}", hex(&current.fingerprint)));
        if std::env::var_os("HOKUSAI_BLESS").is_some() && !file("avsc").exists() {
            let bytes = single_object(current, &sample(current.schema, true));
            let json = serde_json::to_string_pretty(&Wire::default().to_json(&bytes).unwrap()).unwrap();
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(file("avsc"), entry.json).unwrap();
            std::fs::write(file("bin"), bytes).unwrap();
            std::fs::write(file("json"), json + "\n").unwrap();
        }
        assert!(
            file("avsc").exists(),
            "schemas/{}.avsc changed without an entry in schemas/history; run this test with HOKUSAI_BLESS=1",
            entry.name
        );
        for kept in std::fs::read_dir(&folder).unwrap() {
            let path = kept.unwrap().path();
            if path.extension().is_some_and(|e| e == "avsc") {
                stays_readable(entry.name, &path);
            }
        }
    }
}

fn stays_readable(name: &str, path: &std::path::Path) {
    let schema = Schema::parse_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let fingerprint = fingerprint(&schema);
    assert_eq!(path.file_stem().unwrap().to_str().unwrap(), hex(&fingerprint), "{}", path.display());
    let known = Schemas::embedded().unwrap().by_fingerprint(&fingerprint);
    assert!(known.is_some_and(|p| p.name == name), "{}: name it in src/codec/schema.rs (reads […])", path.display());
    let bytes = std::fs::read(path.with_extension("bin")).unwrap();
    let now = Wire::default().to_json(&bytes).unwrap();
    let then: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path.with_extension("json")).unwrap()).unwrap();
    contains(&now, &then, &path.display().to_string());
}

/// Every field that a golden record had is still there with its value; new fields may have come.
fn contains(now: &serde_json::Value, then: &serde_json::Value, at: &str) {
    match (now, then) {
        (serde_json::Value::Object(now), serde_json::Value::Object(then)) => {
            then.iter().for_each(|(name, value)| contains(&now[name], value, &format!("{at} {name}")));
        }
        (serde_json::Value::Array(now), serde_json::Value::Array(then)) => {
            assert_eq!(now.len(), then.len(), "{at}");
            now.iter().zip(then).for_each(|(now, then)| contains(now, then, at));
        }
        _ => assert_eq!(now, then, "{at}"),
    }
}

#[test]
fn a_record_of_another_kind_is_refused_by_name() {
    let wire = Wire::default();
    let bytes = single_object(prepared("verdict"), &sample(prepared("verdict").schema, true));
    let error = wire.decode::<Receipt>(&bytes).unwrap_err();
    assert_eq!(error.to_string(), "not a receipt record: it is a verdict record");
}

#[test]
fn truncated_and_padded_records_are_refused_at_every_length() {
    let wire = Wire::default();
    let bytes = single_object(prepared("receipt"), &sample(prepared("receipt").schema, true));
    for length in 0..bytes.len() {
        wire.decode::<Receipt>(&bytes[..length]).unwrap_err();
    }
    wire.decode::<Receipt>(&[&bytes[..], &[0]].concat()).unwrap_err();
}

#[test]
fn flipped_bytes_never_panic() {
    let wire = Wire::default();
    let bytes = single_object(prepared("manifest"), &sample(prepared("manifest").schema, true));
    for at in 0..bytes.len() {
        for flip in [1, 0x40, 0x80, 0xFF] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            let _ = wire.decode::<ManifestEvent>(&damaged);
            let _ = wire.to_json(&damaged);
        }
    }
}

#[test]
fn framings_that_cannot_be_read_say_what_to_do() {
    let wire = Wire::default();
    assert!(matches!(wire.decode::<Command>(b"hello"), Err(WireError::UnknownFraming)));
    assert!(matches!(wire.decode::<Command>(b""), Err(WireError::UnknownFraming)));
    let error = wire.decode::<Command>(&[0, 0, 0, 1, 2, 9]).unwrap_err();
    assert!(error.to_string().contains("schema id 258") && error.to_string().contains("--schema-registry"), "{error}");
    let error = wire.decode::<Command>(&[0xC3, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0]).unwrap_err();
    assert!(error.to_string().contains("0102030405060708"), "{error}");
    let small = Wire::new(&WireConfig { max_value_bytes: 4, ..WireConfig::default() }).unwrap();
    assert!(matches!(small.decode::<Command>(b"12345"), Err(WireError::TooLarge { size: 5, limit: 4 })));
    assert!(matches!(small.decode_outsider::<Command>(b"{    }"), Err(WireError::TooLarge { .. })));
}

#[test]
fn an_outsider_may_send_a_json_object() {
    let wire = Wire::default();
    let command: Command = wire.decode_outsider(br#"{"model":"m","envelope":"{}"}"#).unwrap();
    assert_eq!(command, Command { model: "m".into(), envelope: "{}".into() });
    let error = wire.decode_outsider::<Command>(br#"{"model":"m","envelop":"4111"}"#).unwrap_err().to_string();
    assert!(error.contains("field envelope: is required"), "{error}");
    let error = wire.decode_outsider::<Command>(br#"{"model":"m","envelope":"","x":1}"#).unwrap_err().to_string();
    assert!(error.contains("unknown field \"x\"") && error.contains("model, envelope"), "{error}");
    let error = wire.decode_outsider::<Command>(br#"{"model":4111,"envelope":""}"#).unwrap_err().to_string();
    assert_eq!(error, "not a command record: field model: expected a text, found a number");
    // The same object is refused on an internal topic.
    assert!(matches!(wire.decode::<Command>(br#"{"model":"m","envelope":"{}"}"#), Err(WireError::UnknownFraming)));
}

#[test]
fn json_for_people_shows_bytes_as_base64_and_unions_as_their_content() {
    let wire = Wire::default();
    let sent = Contribution { contributor: "c".into(), payload: vec![1, 2], ..Contribution::default() };
    let json = wire.to_json(&wire.encode(&sent).unwrap()).unwrap();
    assert_eq!(json["payload"], "AQI=");
    assert_eq!(json["contribution_id"], serde_json::Value::Null);
    assert_eq!(wire.to_json(br#" {"b":1,"a":2}"#).unwrap().to_string(), r#"{"b":1,"a":2}"#);
    let back: Contribution = wire.decode_outsider(json.to_string().as_bytes()).unwrap();
    assert_eq!(back, sent);
}
