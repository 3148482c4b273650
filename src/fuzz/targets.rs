//! The targets: what is promised of each reader, whatever the bytes are.

use std::path::PathBuf;

use super::Target;
use crate::attest::bundle::Bundle;
use crate::attest::checkpoint::{Checkpoint, TlogProof};
use crate::attest::dsse::Envelope;
use crate::attest::roots::TrustRoot;
use crate::attest::statement::Statement;
use crate::attest::verify::{Against, tests as seeds, verify};
use crate::broker::wire;
use crate::codec::answer;
use crate::codec::contribution;
use crate::codec::formats::{Format, Limits, decode, tests};
use crate::codec::training::{self, Asked};
use crate::codec::wire::Wire;
use crate::domain::contract::Spec;
use crate::domain::limits::{MAX_CHUNKS, MAX_ID};
use crate::domain::records::{Contribution, ManifestEvent, Receipt, ScreenedEvent, Verdict};
use crate::ml::declare::declaration;
use crate::pii::column::ColumnHints;
use crate::pii::normal::normalise;
use crate::pii::scan::Scanner;
use crate::stages::intake::contract::Compiler;
use crate::stages::registry::{command, result};
use crate::stats::declare::declared;
use crate::topology::Topology;

const JSON: &[&str] = &["{", "}", "[", "]", ":", ",", "null", "true", "\"\"", "\\u0000", "\\ud800", "1e400", "-0.0"];
const YAML: &[&str] =
    &[": ", "- ", "\n  ", "&a ", "*a", "!!binary ", "? ", "|\n", "[", "]", "{", "}", "~", "<<: ", "---\n"];

/// Records of every topic in Avro: what can be read can be written, and is then the same record.
pub(super) fn records() -> Target {
    fn again<R: crate::domain::records::Record + PartialEq + std::fmt::Debug>(wire: &Wire, bytes: &[u8]) {
        if let Ok(record) = wire.decode::<R>(bytes) {
            let written = wire.encode(&record).unwrap();
            let back = wire.decode::<R>(&written).unwrap();
            // NaN equals nothing: where one stands in a record, what is printed has to be the same.
            assert!(back == record || format!("{back:?}") == format!("{record:?}"), "{record:?} came back as {back:?}");
        }
    }
    fn run(bytes: &[u8]) -> String {
        let wire = Wire::default();
        again::<Contribution>(&wire, bytes);
        again::<ManifestEvent>(&wire, bytes);
        again::<ScreenedEvent>(&wire, bytes);
        again::<Verdict>(&wire, bytes);
        again::<Receipt>(&wire, bytes);
        wire.to_json(bytes).map_or_else(|error| error.to_string(), |_| "read".to_owned())
    }
    let history = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schemas/history");
    let mut seeds = Vec::new();
    for folder in std::fs::read_dir(history).unwrap() {
        for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let file = file.unwrap().path();
            if file.extension().is_some_and(|e| e == "bin") {
                seeds.push((file.clone(), std::fs::read(file).unwrap()));
            }
        }
    }
    seeds.sort();
    Target { name: "records", seeds: seeds.into_iter().map(|(_, bytes)| bytes).collect(), words: &[], run }
}

/// Contributions as outsiders send them: what is read is within the limits.
pub(super) fn envelopes() -> Target {
    fn run(bytes: &[u8]) -> String {
        if let Ok(Asked::Run(asked)) = training::decode(&Wire::default(), bytes) {
            assert!([&asked.request_id, &asked.model].iter().all(|name| (1..=MAX_ID).contains(&name.len())));
            return format!("asked {}", asked.params.len());
        }
        if let Ok(answer) = answer::decode(&Wire::default(), bytes) {
            assert!(answer.artefact.is_some() != answer.error.is_some() && answer.run_id.len() == 32);
            return format!("answered {}", answer.metrics.len());
        }
        match contribution::decode(&Wire::default(), bytes) {
            Ok(read) => {
                assert!((1..=MAX_CHUNKS).contains(&read.chunks) && (0..read.chunks).contains(&read.chunk));
                assert!([&read.contributor, &read.model].iter().all(|name| (1..=MAX_ID).contains(&name.len())));
                assert!(read.payload.len() <= bytes.len());
                format!("read {}", read.format)
            }
            Err(error) => error.to_string(),
        }
    }
    let seed = Contribution {
        contribution_id: Some("c-1".to_owned()),
        contributor: "UA".to_owned(),
        model: "flight-delay".to_owned(),
        format: "json".to_owned(),
        chunks: 1,
        payload: b"[]".to_vec(),
        ..Contribution::default()
    };
    let asked = br#"{"request_id":"r","model":"m","params":{"l2":0.5},"search":{},"seed":7,"tags":{"a":"b"},"warm_start":false}"#;
    let answered = br#"{"run_id":"00112233445566778899aabbccddeeff","artefact":{"digest":"abababababababababababababababababababababababababababababababab","size":7},"metrics":{"auroc":0.7}}"#;
    let failed = br#"{"run_id":"00112233445566778899aabbccddeeff","error":"no luck"}"#;
    let seeds = vec![Wire::default().encode(&seed).unwrap(), asked.to_vec(), answered.to_vec(), failed.to_vec()];
    Target { name: "envelopes", seeds, words: JSON, run }
}

/// Small limits, so that inputs reach them.
const LIMITS: Limits = Limits { wire_bytes: 1 << 15, decoded_bytes: 1 << 20, rows: 1_000, depth: 16 };

fn document(format: Format, bytes: &[u8]) -> String {
    match decode(format, bytes, &tests::target(), &LIMITS) {
        Ok(decoded) => {
            assert!(decoded.received <= LIMITS.rows);
            assert_eq!(decoded.batch.num_rows() + decoded.rejects.len(), decoded.received);
            assert_eq!(
                (decoded.rows.len(), decoded.rejected.num_rows()),
                (decoded.batch.num_rows(), decoded.rejects.len())
            );
            assert_eq!(decoded.batch.schema(), tests::target());
            assert!(decoded.rows.is_sorted() && decoded.rejects.is_sorted_by_key(|reject| reject.row));
            // Values are limited before they are stored; builders may have reserved twice as much.
            assert!(decoded.batch.get_array_memory_size() <= 4 * LIMITS.decoded_bytes);
            let rejects: Vec<_> =
                decoded.rejects.iter().take(3).map(|r| (r.column.as_str(), r.shape.as_str())).collect();
            format!(
                "{} {rejects:?} {} {}",
                decoded.batch.num_rows() > 0,
                decoded.extra_columns.len(),
                decoded.missing_columns.len()
            )
        }
        Err(error) => error.to_string(),
    }
}

fn format(format: Format, words: &'static [&'static str], run: fn(&[u8]) -> String) -> Target {
    let seeds = tests::documents().into_iter().filter(|(of, _)| *of == format).map(|(_, bytes)| bytes).collect();
    Target { name: format.name(), seeds, words, run }
}

pub(super) fn json() -> Target {
    format(Format::Json, JSON, |bytes| document(Format::Json, bytes))
}

pub(super) fn csv() -> Target {
    format(Format::Csv, &["\"", "\"\"", ",", "\r\n", "\n", "\r", "\u{feff}"], |bytes| document(Format::Csv, bytes))
}

pub(super) fn parquet() -> Target {
    format(Format::Parquet, &["PAR1"], |bytes| document(Format::Parquet, bytes))
}

pub(super) fn arrow() -> Target {
    format(Format::Arrow, &["ARROW1"], |bytes| document(Format::Arrow, bytes))
}

pub(super) fn avro() -> Target {
    format(Format::Avro, &["Obj\u{1}", "avro.codec", "deflate", "\"type\":", "[\"null\","], |bytes| {
        document(Format::Avro, bytes)
    })
}

/// Contracts: one that is accepted has one canonical form, which is read back as the same contract, and compiles or says why not.
pub(super) fn contracts() -> Target {
    fn run(bytes: &[u8]) -> String {
        let Ok(text) = std::str::from_utf8(bytes) else { return "no text".to_owned() };
        let spec = match Spec::parse_yaml(text, "f") {
            Ok(spec) => spec,
            Err(error) => return error.problem,
        };
        let canonical = spec.canonical_json().unwrap();
        let again = Spec::from_canonical_json(&canonical).unwrap();
        assert_eq!(again.contract_digest().unwrap(), spec.contract_digest().unwrap());
        thread_local!(static COMPILER: Compiler = Compiler::new());
        let learned = declaration(&spec).map_or_else(|error| error.problem, |_| "learned".to_owned());
        if let Some(said) = &spec.evaluation {
            declared(said).unwrap();
        }
        let compiled = COMPILER.with(|compiler| compiler.compile(spec));
        format!("{learned} {}", compiled.map_or_else(|error| error.problem, |_| "compiled".to_owned()))
    }
    let seeds = vec![
        include_bytes!("../domain/contract/example.yaml").to_vec(),
        include_bytes!("../../examples/flights/model.yaml").to_vec(),
    ];
    Target { name: "contracts", seeds, words: YAML, run }
}

/// Signed commands: whoever signed them, reading them ends.
pub(super) fn commands() -> Target {
    fn run(bytes: &[u8]) -> String {
        let routed = std::str::from_utf8(bytes).map(|text| command::model_of(text).is_ok());
        match Envelope::from_json(bytes) {
            Ok(envelope) => {
                let found = result::read(&envelope).map_or_else(|e| e.to_string(), |r| r.found.name().to_owned());
                command::read(&envelope).map_or_else(|e| format!("{e}, {found}"), |c| c.action.name().to_owned())
            }
            Err(error) => format!("{routed:?} {error}"),
        }
    }
    let spec = Spec::parse_yaml(include_str!("../domain/contract/example.yaml"), "f").unwrap();
    let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    let signed = command::build_apply(&spec, 0, &key).unwrap();
    let payload = r#"{"command":"tag","command_id":"i","expected_revision":1,"model":"m","tag":"k","value":"v"}"#;
    let tag = Envelope::sign(command::PAYLOAD_TYPE, payload.as_bytes().to_vec(), &key).to_json();
    let found = r#"{"baseline":"b","benchmark":"n","candidate":"c","evaluation_id":"e","metric":"f1","model":"m","result":"evaluation","status":"failed"}"#;
    let found = Envelope::sign(result::PAYLOAD_TYPE, found.as_bytes().to_vec(), &key).to_json();
    let seeds = vec![signed.envelope.into_bytes(), tag.into_bytes(), found.into_bytes()];
    Target { name: "commands", seeds, words: JSON, run }
}

/// What a verifier is handed: bundles, proofs, tree heads, trust roots, statements. What is read is written as it was, and a
/// bundle that is not the seed never verifies.
pub(super) fn attestations() -> Target {
    fn run(bytes: &[u8]) -> String {
        if let Ok(proof) = TlogProof::parse(bytes) {
            assert_eq!(proof.to_string().as_bytes(), bytes);
        }
        if let Ok((head, note)) = Checkpoint::parse(bytes) {
            assert_eq!((Checkpoint::of(&note), note.to_string().as_bytes()), (Ok(head), bytes));
        }
        if let Ok(statement) = Statement::read(bytes) {
            assert_eq!(statement.payload().unwrap(), bytes);
        }
        let root = TrustRoot::open(bytes).map_or_else(|error| error.to_string(), |_| "trusted".to_owned());
        match Bundle::from_json(bytes) {
            Ok(bundle) => {
                assert_eq!(Bundle::from_json(bundle.to_json().unwrap().as_bytes()), Ok(bundle.clone()));
                let (trust, log) = (seeds::trust(), seeds::good());
                let against = Against { trust: &[trust], now: 0, seen: None, log: None, laid: None, artefacts: None };
                let report = verify(bytes, &against);
                let same = bundle.envelope.payload == log.envelope.payload && bundle.proof.index == log.proof.index;
                assert!(report.code() != 0 && (report.code() != 19 || same), "a forged bundle verifies");
                format!("bundle {}", report.code())
            }
            Err(error) => format!("{root} {error}"),
        }
    }
    let bundle = seeds::good();
    let seeds = vec![
        bundle.to_json().unwrap().into_bytes(),
        bundle.proof.to_string().into_bytes(),
        bundle.proof.note.to_string().into_bytes(),
        bundle.envelope.payload,
        seeds::trust(),
    ];
    Target { name: "attestations", seeds, words: JSON, run }
}

pub(super) fn topology() -> Target {
    fn run(bytes: &[u8]) -> String {
        let Ok(text) = std::str::from_utf8(bytes) else { return "no text".to_owned() };
        match Topology::parse("f", text) {
            Ok(topology) => {
                let (json, table) = (topology.to_json(), topology.render_table());
                assert!(json.is_object() && !table.is_empty());
                "read".to_owned()
            }
            Err(error) => error.to_string(),
        }
    }
    Target { name: "topology", seeds: vec![include_bytes!("../../topology/hokusai.yaml").to_vec()], words: YAML, run }
}

/// Cells, each behind its column's name: findings lie within the cell and apart, and every cell without them keeps its bytes.
pub(super) fn cells() -> Target {
    fn run(bytes: &[u8]) -> String {
        let text = String::from_utf8_lossy(bytes);
        let (name, cell) = text.split_once('\n').unwrap_or(("note", &text));
        let mut scanner = Scanner::new();
        let found = scanner.scan(cell, &ColumnHints::of(name));
        assert!(found.is_sorted_by(|a, b| a.end <= b.start));
        for part in found {
            let mut normal = String::new();
            normalise(part.kind, cell.get(part.start..part.end).unwrap(), &mut normal);
        }
        let kinds: Vec<_> = found.iter().take(3).map(|part| part.kind.name()).collect();
        format!("{kinds:?}")
    }
    let labelled = include_str!("../../tests/vectors/pii/labelled.jsonl").lines().filter_map(|line| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        Some(format!("{}\n{}", row["column_name"].as_str()?, row["text"].as_str()?).into_bytes())
    });
    let words = &["@", "é", "\u{300}", "٣", "ﬁ", "+1 ", "born ", "0x", "::", "-----BEGIN ", "\u{200b}", "İ"];
    Target { name: "cells", seeds: labelled.collect(), words, run }
}

/// Bodies of broker requests: api key and version in front. The decoder behind the check never sees a false claim.
pub(super) fn requests() -> Target {
    fn run(bytes: &[u8]) -> String {
        let [a, b, version, body @ ..] = bytes else { return "short".to_owned() };
        let Some(shape) = wire::find(i16::from_be_bytes([*a, *b])) else { return "unknown".to_owned() };
        let version = i16::from(*version);
        if !(shape.min..=shape.max).contains(&version) {
            return format!("{:?}: no such version", shape.api);
        }
        let checked = shape.check(version, body);
        format!("{:?} {checked:?}", shape.api)
    }
    let seeds = wire::SHAPES.iter().flat_map(|shape| {
        (shape.min..=shape.max).map(|version| {
            let mut seed = (shape.api as i16).to_be_bytes().to_vec();
            seed.push(version as u8);
            seed.extend(wire::sample::valid(shape, version, u64::from(version.unsigned_abs()) + 1));
            seed
        })
    });
    Target { name: "requests", seeds: seeds.collect(), words: &[], run }
}

/// Imported ONNX models: what compiles is run, gives as many predictions as there are rows or says why not, and is the same artefact
/// when it is written and read again.
pub(super) fn onnx() -> Target {
    use crate::ml::Task;
    use crate::ml::encoding::{Encoded, Encoding, Features};
    use crate::ml::onnx::import::Imported;
    fn run(bytes: &[u8]) -> String {
        let names = ["a", "b", "c", "d"].map(str::to_owned);
        let encoding = Encoding::numbers(names.clone()).unwrap();
        let column = |i: usize| Encoded { values: vec![i as f32, -0.5, f32::NAN, f32::INFINITY, 1e30], codes: 0 };
        let features = Features { columns: (0..4).map(column).collect(), names: names.to_vec(), rows: 5 };
        let classes = |count: usize| Task::Classes((0..count).map(|class| class.to_string()).collect());
        let mut said = String::new();
        for task in [Task::Number, classes(2), classes(3)] {
            let outcome = match Imported::of(bytes, &encoding, &task) {
                Ok(imported) => match imported.predictions(&features, &task) {
                    Ok(found) => {
                        assert_eq!(found.len(), 5 * task.outputs());
                        "predicted".to_owned()
                    }
                    Err(problem) => problem,
                },
                Err(error) => error.to_string(),
            };
            said += &outcome.chars().take(60).collect::<String>();
        }
        said
    }
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/onnx");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let seeds = files.iter().filter(|file| file.extension().is_some_and(|e| e == "onnx"));
    let words = &[
        "LEAF",
        "BRANCH_EQ",
        "SOFTMAX",
        "Reshape",
        "Concat",
        "Gemm",
        "MatMul",
        "Cast",
        "Slice",
        "Gather",
        "ai.onnx.ml",
    ];
    Target { name: "onnx", seeds: seeds.map(|file| std::fs::read(file).unwrap()).collect(), words, run }
}
