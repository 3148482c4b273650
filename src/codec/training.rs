//! What outsiders send to training, requests and cancellations: Avro in both framings, or one plain JSON object.
//!
//! The JSON form has the fields of [`TrainingRequest`], all but `request_id` and `model` optional; `params`, `tags`, `search` are objects.
//! A cancellation is `{"cancel": RUN_ID}`, in Avro a record with `cancel` and otherwise empty texts. What has no readable id is no
//! request at all; what has one gets an answer, whatever else is wrong with it.

use serde_json::{Map, Value};

use super::json;
use super::wire::{Wire, WireError, is_json_object};
use crate::domain::limits::{MAX_ID, MAX_NESTING};
use crate::domain::records::{NamedValue, Record as _, TrainingRefusal, TrainingRequest};

/// Largest request in bytes.
pub const MAX_BYTES: usize = 64 << 10;
/// Most parameters, and most tags.
const MAX_PAIRS: usize = 64;
/// Longest value of a parameter or tag in bytes.
const MAX_VALUE: usize = 1_024;
/// Reason code of a request whose fields are not what they have to be.
pub const BAD_REQUEST: &str = "BAD_REQUEST";

/// What a record asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// A run.
    Run(Box<TrainingRequest>),
    /// A run, but not in a form that could be one.
    Refused(TrainingRefusal),
    /// The end of the run of this id.
    Cancel(String),
}

const FIELDS: [&str; 13] = [
    "request_id",
    "model",
    "algorithm",
    "params",
    "search",
    "seed",
    "budget",
    "as_of",
    "base_version",
    "benchmark",
    "tags",
    "group",
    "warm_start",
];

/// Decodes a value of `training.requests`.
///
/// # Errors
/// Why it is no request at all, without any value of it.
pub fn decode(wire: &Wire, value: &[u8]) -> Result<Asked, WireError> {
    if value.len() > MAX_BYTES {
        return Err(WireError::TooLarge { size: value.len(), limit: MAX_BYTES });
    }
    let read = if is_json_object(value) { read_json(value)? } else { Ok(wire.decode::<TrainingRequest>(value)?) };
    let request = match read {
        Ok(request) => request,
        Err(refusal) => return Ok(Asked::Refused(refusal)),
    };
    if let Some(run_id) = request.cancel {
        return if is_run_id(&run_id) { Ok(Asked::Cancel(run_id)) } else { Err(wrong("field cancel: no id of a run")) };
    }
    named(Some(&request.request_id)).map_err(|problem| wrong(format!("request_id {problem}")))?;
    Ok(match check(&request) {
        Ok(()) => Asked::Run(Box::new(request)),
        Err(detail) => Asked::Refused(refusal(&request.request_id, &request.model, detail)),
    })
}

/// Whether a text has the form of a run's id: 32 lower-case hex digits.
#[must_use]
pub fn is_run_id(text: &str) -> bool {
    is_hex(text, 32)
}

/// Whether a text is so many lower-case hex digits.
pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn wrong(detail: impl Into<String>) -> WireError {
    WireError::Decode { schema: TrainingRequest::SCHEMA, detail: detail.into() }
}

fn refusal(request_id: &str, model: &str, detail: String) -> TrainingRefusal {
    let model = if named(Some(model)).is_ok() { model } else { "" };
    TrainingRefusal { request_id: request_id.to_owned(), model: model.to_owned(), code: BAD_REQUEST.to_owned(), detail }
}

pub(super) fn named(text: Option<&str>) -> Result<(), String> {
    match text {
        Some(text) if text.is_empty() || text.len() > MAX_ID || text.chars().any(char::is_control) => {
            Err(format!("is empty, longer than {MAX_ID} bytes, or has control characters"))
        }
        _ => Ok(()),
    }
}

fn check(request: &TrainingRequest) -> Result<(), String> {
    let names = [
        ("model", Some(&request.model)),
        ("algorithm", request.algorithm.as_ref()),
        ("as_of", request.as_of.as_ref()),
        ("base_version", request.base_version.as_ref()),
        ("benchmark", request.benchmark.as_ref()),
        ("group", request.group.as_ref()),
    ];
    for (field, text) in names {
        named(text.map(String::as_str)).map_err(|problem| format!("{field} {problem}"))?;
    }
    for (field, number) in [("seed", request.seed), ("budget", request.budget)] {
        if number.is_some_and(|number| number < 0) {
            return Err(format!("{field} is below 0"));
        }
    }
    for (field, pairs) in [("params", &request.params), ("tags", &request.tags)] {
        let fits = |pair: &NamedValue| named(Some(&pair.name)).is_ok() && pair.value.len() <= MAX_VALUE;
        let sorted = pairs.windows(2).all(|pair| pair.first().map(|p| &p.name) < pair.last().map(|p| &p.name));
        if pairs.len() > MAX_PAIRS || !sorted || !pairs.iter().all(fits) {
            return Err(format!(
                "{field} has more than {MAX_PAIRS} entries, a name twice or out of order, or a value beyond {MAX_VALUE} bytes"
            ));
        }
    }
    Ok(())
}

fn read_json(value: &[u8]) -> Result<Result<TrainingRequest, TrainingRefusal>, WireError> {
    let Value::Object(mut fields) = json::parse_strict(value, MAX_NESTING).map_err(wrong)? else {
        return Err(wrong("not a JSON object"));
    };
    if fields.contains_key("cancel") {
        return match fields.remove("cancel") {
            Some(Value::String(run_id)) if fields.is_empty() => {
                Ok(Ok(TrainingRequest { cancel: Some(run_id), ..TrainingRequest::default() }))
            }
            _ => Err(wrong("field cancel: the id of a run, as a text, with no other field beside it")),
        };
    }
    let Some(Value::String(id)) = fields.remove("request_id") else {
        return Err(wrong("field request_id: a text is required"));
    };
    named(Some(&id)).map_err(|problem| wrong(format!("request_id {problem}")))?;
    let model = fields.get("model").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(of_fields(id.clone(), fields).map_err(|detail| refusal(&id, &model, detail)))
}

fn of_fields(request_id: String, mut fields: Map<String, Value>) -> Result<TrainingRequest, String> {
    if let Some(name) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        return Err(json::unknown_field(name, FIELDS.into_iter()));
    }
    let mut text = |name: &str| match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("field {name}: expected a text")),
    };
    let model = text("model")?.ok_or("field model: is required")?;
    let (algorithm, as_of) = (text("algorithm")?, text("as_of")?);
    let (base_version, benchmark, group) = (text("base_version")?, text("benchmark")?, text("group")?);
    let mut number = |name: &str| match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(number) => number.as_i64().map(Some).ok_or(format!("field {name}: expected a whole number below 2^63")),
    };
    let (seed, budget) = (number("seed")?, number("budget")?);
    let search = fields.remove("search").filter(|search| !search.is_null()).map(|search| search.to_string());
    let warm_start = match fields.remove("warm_start") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(warm)) => Some(warm),
        Some(_) => return Err("field warm_start: expected true or false".to_owned()),
    };
    let params = pairs(fields.remove("params"), "params", |value| Some(value.to_string()))?;
    let tags = pairs(fields.remove("tags"), "tags", |value| value.as_str().map(str::to_owned))?;
    Ok(TrainingRequest {
        request_id,
        model,
        algorithm,
        params,
        search,
        seed,
        budget,
        as_of,
        base_version,
        benchmark,
        tags,
        group,
        warm_start,
        cancel: None,
    })
}

/// An object's entries, sorted by name.
pub(super) fn pairs(
    object: Option<Value>,
    name: &str,
    text: impl Fn(&Value) -> Option<String>,
) -> Result<Vec<NamedValue>, String> {
    let object = match object {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(object)) => object,
        Some(_) => return Err(format!("field {name}: expected an object")),
    };
    let pair = |(key, value): (String, Value)| {
        let value = text(&value).ok_or(format!("field {name}: a value is no text"))?;
        Ok(NamedValue { name: key, value })
    };
    let mut pairs = object.into_iter().map(pair).collect::<Result<Vec<_>, String>>()?;
    pairs.sort_unstable();
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Result<TrainingRequest, TrainingRefusal>, WireError> {
        decode(&Wire::default(), text.as_bytes()).map(run)
    }

    fn run(asked: Asked) -> Result<TrainingRequest, TrainingRefusal> {
        match asked {
            Asked::Run(request) => Ok(*request),
            Asked::Refused(refusal) => Err(refusal),
            Asked::Cancel(_) => panic!("a cancellation"),
        }
    }

    #[test]
    fn a_cancellation_is_the_same_in_json_and_avro_and_asks_for_nothing_else() {
        let id = "00112233445566778899aabbccddeeff";
        let of = |value: &[u8]| decode(&Wire::default(), value).ok();
        let wanted = Some(Asked::Cancel(id.to_owned()));
        assert_eq!(of(format!(r#"{{"cancel":"{id}"}}"#).as_bytes()), wanted);
        let record = TrainingRequest { cancel: Some(id.to_owned()), ..TrainingRequest::default() };
        assert_eq!(of(&Wire::default().encode(&record).unwrap()), wanted);
        for other in [
            format!(r#"{{"cancel":"{id}","model":"m"}}"#),
            format!(r#"{{"cancel":"{id}","request_id":"r","model":"m"}}"#),
            r#"{"cancel":"the other one"}"#.to_owned(),
            r#"{"cancel":null}"#.to_owned(),
        ] {
            assert_eq!(of(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_request_is_read_the_same_from_json_and_from_avro_and_nearly_all_of_it_is_optional() {
        let whole = r#"{"request_id":"r","model":"m","algorithm":"linear","params":{"l2":0.5,"iterations":9},"search":{"trials":3},"seed":7,
            "budget":100,"as_of":"d","base_version":"1.0.0","benchmark":"b","tags":{"why":"a test"},"group":"g","warm_start":false}"#;
        let request = read(whole).unwrap().unwrap();
        let pair = |name: &str, value: &str| NamedValue { name: name.into(), value: value.into() };
        assert_eq!(request.params, [pair("iterations", "9"), pair("l2", "0.5")]);
        assert_eq!((request.tags.as_slice(), request.seed), ([pair("why", "a test")].as_slice(), Some(7)));
        let avro = Wire::default().encode(&request).unwrap();
        assert_eq!(run(decode(&Wire::default(), &avro).unwrap()).unwrap(), request);
        let least = read(r#"{"request_id":"r","model":"m"}"#).unwrap().unwrap();
        assert_eq!(least, TrainingRequest { request_id: "r".into(), model: "m".into(), ..TrainingRequest::default() });
    }

    #[test]
    fn what_has_an_id_is_answered_whatever_else_is_wrong_and_no_value_is_repeated() {
        for rest in [
            r#""model":"m","algoritm":"trees""#,
            r#""model":4111"#,
            r#""model":"""#,
            r#""algorithm":"trees""#,
            r#""model":"m","seed":-1"#,
            r#""model":"m","seed":1.5"#,
            r#""model":"m","params":[1]"#,
            r#""model":"m","tags":{"a":4111}"#,
            r#""model":"m","warm_start":"secret""#,
        ] {
            let refusal = read(&format!(r#"{{"request_id":"r",{rest}}}"#)).unwrap().unwrap_err();
            assert_eq!((refusal.request_id.as_str(), refusal.code.as_str()), ("r", BAD_REQUEST), "{rest}");
            assert!(!refusal.detail.contains("4111") && !refusal.detail.contains("secret"), "{}", refusal.detail);
        }
        let many: Map<String, Value> = (0..65).map(|i| (format!("p{i}"), i.into())).collect();
        let many = serde_json::json!({"request_id": "r", "model": "m", "params": many});
        assert!(read(&many.to_string()).unwrap().unwrap_err().detail.contains("params"));
    }

    #[test]
    fn what_has_no_id_is_no_request() {
        for text in
            ["", "x", "{}", r#"{"model":"m"}"#, r#"{"request_id":7,"model":"m"}"#, r#"{"request_id":"","model":"m"}"#]
        {
            read(text).unwrap_err();
        }
        let twice = r#"{"request_id":"a","request_id":"b","model":"m"}"#;
        read(twice).unwrap_err();
        let huge = format!(r#"{{"request_id":"a","model":"{}"}}"#, "m".repeat(MAX_BYTES));
        assert!(matches!(read(&huge), Err(WireError::TooLarge { .. })));
    }
}
