//! What outsiders send on `training.answers`: Avro in both framings, or one plain JSON object.
//!
//! The JSON form is `{"run_id", "artefact": {"digest"}, "conformance": {"digest"}, "metrics": {NAME: VALUE}}`, of which `run_id` and `artefact`
//! are required, or `{"run_id", "error"}`. Blobs may also have `size` and `media_type`. What is in any other form is no answer at all.

use serde_json::{Map, Value};

use super::json;
use super::training::{is_hex, is_run_id, named, pairs};
use super::wire::{Wire, WireError, is_json_object};
use crate::domain::limits::MAX_NESTING;
use crate::domain::records::{Artefact, NamedValue, Record as _, TrainingAnswer};

/// Largest answer in bytes.
pub const MAX_BYTES: usize = 64 << 10;
/// Most metrics of an answer.
const MAX_METRICS: usize = 64;
/// Longest value of a metric in bytes.
const MAX_VALUE: usize = 64;
/// Longest text of an error in bytes.
pub const MAX_ERROR: usize = 4 << 10;

const FIELDS: [&str; 5] = ["run_id", "artefact", "conformance", "metrics", "error"];
const BLOB: [&str; 3] = ["digest", "size", "media_type"];

/// Decodes a value of `training.answers`.
///
/// # Errors
/// Why it is no answer, without any value of it.
pub fn decode(wire: &Wire, value: &[u8]) -> Result<TrainingAnswer, WireError> {
    if value.len() > MAX_BYTES {
        return Err(WireError::TooLarge { size: value.len(), limit: MAX_BYTES });
    }
    let answer = if is_json_object(value) { read_json(value).map_err(wrong)? } else { wire.decode(value)? };
    check(&answer).map_err(wrong)?;
    Ok(answer)
}

fn wrong(detail: impl Into<String>) -> WireError {
    WireError::Decode { schema: TrainingAnswer::SCHEMA, detail: detail.into() }
}

fn check(answer: &TrainingAnswer) -> Result<(), String> {
    let TrainingAnswer { run_id, artefact, conformance, metrics, error } = answer;
    if !is_run_id(run_id) {
        return Err("field run_id: no id of a run".to_owned());
    }
    let alone = conformance.is_none() && metrics.is_empty();
    match (artefact, error) {
        (Some(_), None) => {}
        (None, Some(text)) if alone && !text.is_empty() && text.len() <= MAX_ERROR => return Ok(()),
        (None, Some(_)) => {
            return Err(format!("field error: a text of at most {MAX_ERROR} bytes, with nothing but run_id beside it"));
        }
        _ => return Err("exactly one of the fields artefact and error is required".to_owned()),
    }
    for (field, blob) in [("artefact", artefact), ("conformance", conformance)] {
        let Some(Artefact { digest, size, media_type }) = blob else { continue };
        if !is_hex(digest, 64) {
            return Err(format!("field {field}: digest: 64 lower-case hex digits are required"));
        }
        if *size < 0 || (!media_type.is_empty() && named(Some(media_type)).is_err()) {
            return Err(format!("field {field}: a size below 0, or no media type"));
        }
    }
    let fits = |pair: &NamedValue| {
        let is_number = serde_json::from_str::<Value>(&pair.value).is_ok_and(|value| value.is_number());
        named(Some(&pair.name)).is_ok() && pair.value.len() <= MAX_VALUE && is_number
    };
    let sorted = metrics.windows(2).all(|pair| pair.first().map(|p| &p.name) < pair.last().map(|p| &p.name));
    if metrics.len() > MAX_METRICS || !sorted || !metrics.iter().all(fits) {
        let detail = "more than 64 entries, a name twice or out of order, or a value that is no number";
        return Err(format!("field metrics: {detail}"));
    }
    Ok(())
}

fn read_json(value: &[u8]) -> Result<TrainingAnswer, String> {
    let Value::Object(mut fields) = json::parse_strict(value, MAX_NESTING)? else {
        return Err("not a JSON object".to_owned());
    };
    known(&fields, &FIELDS)?;
    let run_id = text(&mut fields, "run_id")?.ok_or("field run_id: is required")?;
    let error = text(&mut fields, "error")?;
    let artefact = blob(&mut fields, "artefact")?;
    let conformance = blob(&mut fields, "conformance")?;
    let metrics = pairs(fields.remove("metrics"), "metrics", |value| value.is_number().then(|| value.to_string()))?;
    Ok(TrainingAnswer { run_id, artefact, conformance, metrics, error })
}

fn known(fields: &Map<String, Value>, names: &[&str]) -> Result<(), String> {
    match fields.keys().find(|name| !names.contains(&name.as_str())) {
        Some(name) => Err(json::unknown_field(name, names.iter().copied())),
        None => Ok(()),
    }
}

fn text(fields: &mut Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("field {name}: expected a text")),
    }
}

fn blob(fields: &mut Map<String, Value>, name: &str) -> Result<Option<Artefact>, String> {
    let mut own = match fields.remove(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(own)) => own,
        Some(_) => return Err(format!("field {name}: expected an object")),
    };
    known(&own, &BLOB)?;
    let at = |problem: String| format!("field {name}: {problem}");
    let digest = text(&mut own, "digest").map_err(at)?.ok_or_else(|| at("field digest: is required".to_owned()))?;
    let media_type = text(&mut own, "media_type").map_err(at)?.unwrap_or_default();
    let size = match own.remove("size") {
        None | Some(Value::Null) => 0,
        Some(size) => size.as_i64().ok_or_else(|| at("field size: expected a whole number".to_owned()))?,
    };
    Ok(Some(Artefact { digest, size, media_type }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<TrainingAnswer, WireError> {
        decode(&Wire::default(), text.as_bytes())
    }

    fn digest() -> String {
        "ab".repeat(32)
    }

    const RUN: &str = "00112233445566778899aabbccddeeff";

    #[test]
    fn an_answer_is_the_same_in_json_and_avro_and_only_run_and_digest_are_required() {
        let whole = format!(
            r#"{{"run_id":"{RUN}","artefact":{{"digest":"{0}","size":7,"media_type":"application/onnx"}},"conformance":{{"digest":"{0}"}},"metrics":{{"log_loss":0.4,"auroc":1}}}}"#,
            digest()
        );
        let answer = read(&whole).unwrap();
        let names: Vec<(&str, &str)> = answer.metrics.iter().map(|m| (m.name.as_str(), m.value.as_str())).collect();
        assert_eq!(names, [("auroc", "1"), ("log_loss", "0.4")]);
        let avro = Wire::default().encode(&answer).unwrap();
        assert_eq!(decode(&Wire::default(), &avro).unwrap(), answer);
        let least = read(&format!(r#"{{"run_id":"{RUN}","artefact":{{"digest":"{}"}}}}"#, digest())).unwrap();
        assert_eq!(least.artefact.unwrap(), Artefact { digest: digest(), ..Artefact::default() });
        let failed = read(&format!(r#"{{"run_id":"{RUN}","error":"no luck"}}"#)).unwrap();
        assert_eq!(failed.error.as_deref(), Some("no luck"));
    }

    #[test]
    fn what_is_in_any_other_form_is_no_answer_and_none_of_its_values_is_repeated() {
        let blob = format!(r#""artefact":{{"digest":"{}"}}"#, digest());
        let many: Vec<String> = (0..65).map(|i| format!(r#""m{i}":1"#)).collect();
        for rest in [
            r#""surprise":"secret""#.to_owned(),
            r#""artefact":null"#.to_owned(),
            r#""artefact":{"digest":"secret"}"#.to_owned(),
            r#""artefact":{"digest":"secret","surprise":"secret"}"#.to_owned(),
            r#""artefact":"secret""#.to_owned(),
            format!(r#""artefact":{{"digest":"{}"}}"#, "AB".repeat(32)),
            format!(r#""artefact":{{"digest":"{}","size":-1}}"#, digest()),
            format!(r#""artefact":{{"digest":"{}","size":1.5}}"#, digest()),
            format!(r#""artefact":{{"digest":"{}","media_type":"secret\u0007"}}"#, digest()),
            format!(r#"{blob},"error":"secret""#),
            format!(r#"{blob},"metrics":{{"auroc":"secret"}}"#),
            format!(r#"{blob},"metrics":[1]"#),
            format!(r#"{blob},"metrics":{{{}}}"#, many.join(",")),
            format!(r#"{blob},{blob}"#),
            r#""error":"""#.to_owned(),
            r#""error":"secret","metrics":{"auroc":1}"#.to_owned(),
            format!(r#""error":"{}""#, "secret".repeat(1_000)),
            format!(r#""conformance":{{"digest":"{}"}}"#, digest()),
        ] {
            let error = read(&format!(r#"{{"run_id":"{RUN}",{rest}}}"#)).expect_err(&rest).to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        for text in ["", "x", "{}", "[]", r#"{"run_id":7,"error":"e"}"#, r#"{"run_id":"r","error":"e"}"#] {
            read(text).unwrap_err();
        }
        let unsorted = TrainingAnswer {
            run_id: RUN.to_owned(),
            artefact: Some(Artefact { digest: digest(), ..Artefact::default() }),
            metrics: ["b", "a"].map(|name| NamedValue { name: name.to_owned(), value: "1".to_owned() }).to_vec(),
            ..TrainingAnswer::default()
        };
        decode(&Wire::default(), &Wire::default().encode(&unsorted).unwrap()).unwrap_err();
        assert!(matches!(read(&format!("{{{}", " ".repeat(MAX_BYTES))), Err(WireError::TooLarge { .. })));
    }
}
