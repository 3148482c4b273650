//! A chunk of a contribution as an outsider sends it: Avro in both framings, or one plain JSON object.
//!
//! The JSON form is `{"contribution_id", "contributor", "model", "contract_digest", "format", "chunk", "chunks"}` with
//! `"rows": [{…}]` for the format `json`, or `"payload"` in base64 for every format, with `"sealed"` when it is sealed
//! ([`super::sealed`]) and `"signature"` when it is signed ([`crate::attest::contributor`]). Rows keep the bytes they came in: they are parsed once, against the contract, behind their own limits.

use std::borrow::Cow;

use base64::Engine as _;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::json;
use super::wire::{Wire, WireError, is_json_object};
use crate::domain::limits::{MAX_CHUNKS, MAX_ID, MAX_NESTING};
use crate::domain::records::{Contribution, Record as _};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain<'a> {
    contribution_id: Option<String>,
    contributor: String,
    model: String,
    contract_digest: Option<String>,
    format: Option<String>,
    #[serde(default)]
    chunk: i64,
    #[serde(default = "one")]
    chunks: i64,
    #[serde(borrow)]
    rows: Option<&'a RawValue>,
    #[serde(borrow)]
    payload: Option<Cow<'a, str>>,
    sealed: Option<String>,
    signature: Option<String>,
}

fn one() -> i64 {
    1
}

/// Decodes a value of `contributions`.
///
/// # Errors
/// What is wrong with it, without any value of it.
pub fn decode(wire: &Wire, value: &[u8]) -> Result<Contribution, WireError> {
    let contribution = if is_json_object(value) { decode_json(wire, value)? } else { wire.decode(value)? };
    check(&contribution)?;
    Ok(contribution)
}

fn wrong(detail: impl Into<String>) -> WireError {
    WireError::Decode { schema: Contribution::SCHEMA, detail: detail.into() }
}

fn decode_json(wire: &Wire, value: &[u8]) -> Result<Contribution, WireError> {
    wire.check_size(value)?;
    // One level for the object around the rows.
    json::check_depth(value, MAX_NESTING + 1).map_err(wrong)?;
    let plain: Plain<'_> = serde_json::from_slice(value).map_err(|e| wrong(describe(&e)))?;
    let (format, payload) = match (plain.rows, plain.payload) {
        (Some(_), Some(_)) => return Err(wrong("it has both rows and payload; help: rows are for the format json")),
        (None, None) => return Err(wrong("it has neither rows nor payload")),
        (Some(_), None) if plain.sealed.is_some() => {
            return Err(wrong("it is sealed and has rows; help: what is sealed stands in payload"));
        }
        (Some(rows), None) => {
            if plain.format.as_deref().is_some_and(|format| format != "json") {
                return Err(wrong("rows are for the format json; help: send other formats as payload in base64"));
            }
            ("json".to_owned(), rows.get().as_bytes().to_vec())
        }
        (None, Some(payload)) => {
            let Some(format) = plain.format else { return Err(wrong("a payload needs its format")) };
            let decoded = base64::engine::general_purpose::STANDARD.decode(payload.as_bytes());
            (format, decoded.map_err(|_| wrong("payload is not valid base64 (RFC 4648, padded)"))?)
        }
    };
    Ok(Contribution {
        contribution_id: plain.contribution_id,
        contributor: plain.contributor,
        model: plain.model,
        contract_digest: plain.contract_digest,
        format,
        chunk: plain.chunk,
        chunks: plain.chunks,
        payload,
        sealed: plain.sealed,
        signature: plain.signature,
    })
}

fn check(contribution: &Contribution) -> Result<(), WireError> {
    let named = [
        ("contribution_id", contribution.contribution_id.as_deref()),
        ("contributor", Some(contribution.contributor.as_str())),
        ("model", Some(contribution.model.as_str())),
        ("contract_digest", contribution.contract_digest.as_deref()),
        ("format", Some(contribution.format.as_str())),
        ("sealed", contribution.sealed.as_deref()),
        ("signature", contribution.signature.as_deref()),
    ];
    for (field, value) in named {
        let Some(value) = value else { continue };
        if value.is_empty() {
            return Err(wrong(format!("{field} is empty; help: leave it out or give it")));
        }
        if value.len() > MAX_ID || value.chars().any(char::is_control) {
            return Err(wrong(format!("{field} is longer than {MAX_ID} bytes or has control characters")));
        }
    }
    if !(1..=MAX_CHUNKS).contains(&contribution.chunks) {
        return Err(wrong(format!("chunks is not within 1 to {MAX_CHUNKS}")));
    }
    if !(0..contribution.chunks).contains(&contribution.chunk) {
        return Err(wrong("chunk is not within 0 to chunks − 1"));
    }
    Ok(())
}

/// serde's texts repeat values except where they are about a field's name. The name of an unknown field comes from outside.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let named = text.strip_prefix("unknown field `").and_then(|rest| rest.rsplit_once("`, expected "));
    match named {
        Some((name, _)) if json::is_plain_name(name) => text,
        Some((_, expected)) => format!("unknown field {}, expected {expected}", json::UNREPEATED),
        None if text.starts_with("missing field") || text.starts_with("duplicate field") => text,
        None => json::describe(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &str) -> Result<Contribution, String> {
        decode(&Wire::default(), text.as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn rows_keep_their_bytes_and_chunk_numbers_have_defaults() {
        let c = decoded(r#" {"contributor":"c","model":"m","rows":[{"a": 1.50,"b":"ü"} ]}"#).unwrap();
        assert_eq!(c.payload, r#"[{"a": 1.50,"b":"ü"} ]"#.as_bytes());
        assert_eq!((c.format.as_str(), c.chunk, c.chunks, c.contribution_id), ("json", 0, 1, None));
    }

    #[test]
    fn a_payload_in_base64_is_decoded_and_needs_its_format() {
        let c =
            decoded(r#"{"contributor":"c","model":"m","format":"csv","payload":"YQox","chunk":1,"chunks":2}"#).unwrap();
        assert_eq!((c.payload.as_slice(), c.chunk, c.chunks), (&b"a\n1"[..], 1, 2));
        assert!(
            decoded(r#"{"contributor":"c","model":"m","payload":"YQox"}"#).unwrap_err().contains("needs its format")
        );
        assert!(
            decoded(r#"{"contributor":"c","model":"m","format":"csv","payload":"Y!"}"#).unwrap_err().contains("base64")
        );
    }

    #[test]
    fn a_sealed_payload_names_its_key_and_rows_are_never_sealed() {
        let c = decoded(r#"{"contributor":"c","model":"m","format":"csv","payload":"YQox","sealed":"i1"}"#).unwrap();
        assert_eq!(c.sealed.as_deref(), Some("i1"));
        let error = decoded(r#"{"contributor":"c","model":"m","rows":[],"sealed":"i1"}"#).unwrap_err();
        assert!(error.contains("sealed and has rows"), "{error}");
    }

    #[test]
    fn a_misspelt_field_is_named() {
        let error = decoded(r#"{"contributor":"c","modle":"m","rows":[]}"#).unwrap_err();
        assert!(error.contains("unknown field `modle`") && error.contains("contract_digest"), "{error}");
        assert!(decoded(r#"{"contributor":"c","rows":[]}"#).unwrap_err().contains("missing field `model`"));
        assert!(decoded(r#"{"contributor":"c","model":"m","model":"m","rows":[]}"#).unwrap_err().contains("duplicate"));
    }

    #[test]
    fn an_error_repeats_no_value() {
        for text in [
            r#"{"contributor":"secret-4111","model":17,"rows":[]}"#,
            r#"{"contributor":"c","model":"m","chunk":"secret-4111","rows":[]}"#,
            r#"{"contributor":"c","model":"m","chunk":"secret-4111"#,
            r#"{"contributor":"c","model":"m","chunk":7,"rows":["secret-4111"]}"#,
            r#"{"contributor":"c","secret-4111@example.org":1}"#,
            r#"{"contributor":"c","`, expected secret-4111`, expected 4111":1}"#,
        ] {
            assert!(!decoded(text).unwrap_err().contains("4111"), "{text}");
        }
    }

    #[test]
    fn chunk_numbers_and_names_are_bounded() {
        for fields in
            [r#""chunk":1"#, r#""chunk":-1"#, r#""chunks":0"#, r#""chunks":9999999"#, r#""contribution_id":"""#]
        {
            decoded(&format!(r#"{{"contributor":"c","model":"m","rows":[],{fields}}}"#)).unwrap_err();
        }
        decoded(&format!(r#"{{"contributor":"{}","model":"m","rows":[]}}"#, "x".repeat(257))).unwrap_err();
    }

    #[test]
    fn deep_nesting_is_refused_before_it_is_parsed() {
        let nested =
            |n: usize| format!(r#"{{"contributor":"c","model":"m","rows":{}{}}}"#, "[".repeat(n), "]".repeat(n));
        assert!(decoded(&nested(32)).is_ok());
        assert!(decoded(&nested(33)).unwrap_err().contains("nested deeper"));
    }

    #[test]
    fn the_same_chunk_in_avro_and_in_json_is_the_same_chunk() {
        let json = decoded(r#"{"contribution_id":"i","contributor":"c","model":"m","rows":[{"a":1}]}"#).unwrap();
        let avro = Wire::default().encode(&json).unwrap();
        assert_eq!(decode(&Wire::default(), &avro).unwrap(), json);
    }
}
