//! Client of a schema registry (Confluent's REST API), for Confluent framing.
//!
//! Schemas are immutable under their id, so each id is asked for once and kept. Requests block and have a timeout;
//! tasks meet one only at the first record of an unknown id. Error texts name the registry without credentials.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use apache_avro::Schema;
use apache_avro::schema_compatibility::SchemaCompatibility;
use base64::Engine as _;
use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::Zeroizing;

use super::schema::{Prepared, Schemas, fingerprint};
use super::shape::Shape;
use super::wire::{WireConfig, WireError};

const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";
/// An answer of the registry is at most this long.
const MAX_ANSWER: u64 = 1 << 20;
/// At most this many schemas are kept; beyond it the registry is asked again.
const MAX_KEPT: usize = 4096;
/// An id that the registry does not know is not asked for again for this long.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);

/// A schema that was found in the registry.
#[derive(Debug)]
pub(super) struct RegisteredSchema {
    pub(super) schema: Schema,
    pub(super) shape: Shape,
    /// The schema of this build with the same fingerprint.
    pub(super) embedded: Option<&'static Prepared>,
    readable: Mutex<HashMap<&'static str, Result<(), String>>>,
}

impl RegisteredSchema {
    fn parse(json: &str) -> Result<Self, String> {
        let schema = Schema::parse_str(json).map_err(|e| e.to_string())?;
        let embedded = Schemas::embedded().ok().and_then(|all| all.by_fingerprint(&fingerprint(&schema)));
        Ok(Self { shape: Shape::of(&schema)?, schema, embedded, readable: Mutex::default() })
    }

    /// Whether records of this schema resolve to ours; the answer is kept.
    pub(super) fn readable_as(&self, reader: &'static Prepared) -> Result<(), String> {
        let check = || SchemaCompatibility::can_read(&self.schema, reader.schema).map(drop).map_err(|e| e.to_string());
        lock(&self.readable).entry(reader.name).or_insert_with(check).clone()
    }
}

/// The registry and what is known of it.
pub struct SchemaRegistry {
    agent: ureq::Agent,
    base: Url,
    shown: String,
    authorization: Option<Zeroizing<String>>,
    by_id: Mutex<HashMap<u32, Arc<RegisteredSchema>>>,
    unknown: Mutex<HashMap<u32, Instant>>,
    own: RwLock<HashMap<&'static str, u32>>,
}

impl std::fmt::Debug for SchemaRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SchemaRegistry({})", self.shown)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewSchema<'a> {
    schema: &'a str,
    schema_type: &'static str,
}

#[derive(Deserialize)]
struct SchemaId {
    id: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredSchema {
    schema: String,
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<serde_json::Value>,
}

struct Answer {
    status: u16,
    body: String,
}

/// A URL without user, password and query.
pub(super) fn redacted(url: &Url) -> String {
    let mut shown = url.clone();
    // Both fail only for URLs that cannot have credentials.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.set_query(None);
    shown.to_string()
}

/// A poisoned lock means that another thread panicked between two map operations; the maps stay usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SchemaRegistry {
    pub(super) fn new(url: &Url, config: &WireConfig) -> Result<Self, WireError> {
        let shown = redacted(url);
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            let detail = "the address is not an http or https URL".to_owned();
            return Err(WireError::Registry { url: shown, detail });
        }
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(config.registry_timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .build()
            .into();
        Ok(Self {
            agent,
            authorization: authorization(url, config),
            base: url.clone(),
            shown,
            by_id: Mutex::default(),
            unknown: Mutex::default(),
            own: RwLock::default(),
        })
    }

    /// Id under which a schema of ours was registered.
    pub(super) fn id_of(&self, schema: &str) -> Option<u32> {
        self.own.read().unwrap_or_else(PoisonError::into_inner).get(schema).copied()
    }

    /// Asks for the list of subjects, to see whether the registry answers and lets us in.
    pub(super) fn answers(&self) -> Result<(), WireError> {
        let answer = self.ask(&["subjects"], None)?;
        if answer.status == 200 {
            return Ok(());
        }
        Err(WireError::Registry { url: self.shown.clone(), detail: message(&answer) })
    }

    /// Registers a schema under a subject; registering the same one again gives the same id.
    pub(super) fn register(&self, subject: &str, prepared: &'static Prepared) -> Result<u32, WireError> {
        let body = serde_json::to_string(&NewSchema { schema: prepared.json, schema_type: "AVRO" })
            .map_err(|e| self.unreachable(&e))?;
        let answer = self.ask(&["subjects", subject, "versions"], Some(&body))?;
        let refused =
            |detail: String| WireError::Refused { url: self.shown.clone(), subject: subject.to_owned(), detail };
        if answer.status != 200 {
            return Err(self.failed(&answer).unwrap_or_else(|| refused(message(&answer))));
        }
        let SchemaId { id } =
            serde_json::from_str(&answer.body).map_err(|_| refused("no id in its answer".to_owned()))?;
        self.own.write().unwrap_or_else(PoisonError::into_inner).insert(prepared.name, id);
        Ok(id)
    }

    /// The schema with an id, asked for once.
    pub(super) fn by_id(&self, id: u32) -> Result<Arc<RegisteredSchema>, WireError> {
        if let Some(known) = lock(&self.by_id).get(&id) {
            return Ok(Arc::clone(known));
        }
        let unknown = |detail: String| WireError::UnknownSchemaId { url: self.shown.clone(), id, detail };
        if lock(&self.unknown).get(&id).is_some_and(|since| since.elapsed() < UNKNOWN_FOR) {
            return Err(unknown("asked a moment ago".to_owned()));
        }
        let answer = self.ask(&["schemas", "ids", &id.to_string()], None)?;
        if answer.status != 200 {
            return Err(self.failed(&answer).unwrap_or_else(|| {
                remember(&mut lock(&self.unknown), id, Instant::now());
                unknown(message(&answer))
            }));
        }
        let stored: StoredSchema =
            serde_json::from_str(&answer.body).map_err(|_| unknown("its answer is not a schema".to_owned()))?;
        if stored.schema_type.is_some_and(|kind| kind != "AVRO") || !stored.references.is_empty() {
            return Err(unknown("only Avro schemas without references are read".to_owned()));
        }
        let parsed = Arc::new(RegisteredSchema::parse(&stored.schema).map_err(unknown)?);
        remember(&mut lock(&self.by_id), id, Arc::clone(&parsed));
        Ok(parsed)
    }

    fn ask(&self, path: &[&str], body: Option<&str>) -> Result<Answer, WireError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let _ = url.set_username("");
        let _ = url.set_password(None);
        let authorization = self.authorization.as_ref().map(|a| a.as_str());
        let response = match body {
            None => {
                let request = self.agent.get(url.as_str()).header("Accept", CONTENT_TYPE);
                match authorization {
                    Some(authorization) => request.header("Authorization", authorization).call(),
                    None => request.call(),
                }
            }
            Some(body) => {
                let request = self.agent.post(url.as_str()).header("Accept", CONTENT_TYPE).content_type(CONTENT_TYPE);
                match authorization {
                    Some(authorization) => request.header("Authorization", authorization).send(body),
                    None => request.send(body),
                }
            }
        };
        let mut response = response.map_err(|e| self.unreachable(&e))?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(MAX_ANSWER).read_to_string();
        Ok(Answer { status, body: body.map_err(|e| self.unreachable(&e))? })
    }

    fn unreachable(&self, error: &dyn std::fmt::Display) -> WireError {
        WireError::Registry { url: self.shown.clone(), detail: error.to_string() }
    }

    /// Answers that say nothing about the schema: overload, credentials, redirects, defects.
    fn failed(&self, answer: &Answer) -> Option<WireError> {
        let about_schema = matches!(answer.status, 404 | 409 | 422);
        (!about_schema).then(|| WireError::Registry { url: self.shown.clone(), detail: message(answer) })
    }
}

fn remember<V>(map: &mut HashMap<u32, V>, id: u32, value: V) {
    if map.len() >= MAX_KEPT {
        map.clear();
    }
    map.insert(id, value);
}

fn message(answer: &Answer) -> String {
    #[derive(Deserialize)]
    struct Message {
        message: String,
    }
    let said = serde_json::from_str::<Message>(&answer.body).map(|m| m.message).unwrap_or_default();
    let said: String = said.chars().filter(|c| !c.is_control()).take(300).collect();
    format!("HTTP {} {said}", answer.status).trim_end().to_owned()
}

fn authorization(url: &Url, config: &WireConfig) -> Option<Zeroizing<String>> {
    let decode = |part: &str| {
        let decoded: Vec<u8> = url::form_urlencoded::parse(format!("v={}", part.replace('+', "%2B")).as_bytes())
            .flat_map(|(_, value)| value.into_owned().into_bytes())
            .collect();
        String::from_utf8(decoded).unwrap_or_default()
    };
    let user = config.registry_user.clone().unwrap_or_else(|| decode(url.username()));
    if user.is_empty() {
        return None;
    }
    let from_url = || Zeroizing::new(url.password().map(decode).unwrap_or_default());
    let password = config.registry_password.clone().unwrap_or_else(from_url);
    let pair = Zeroizing::new(format!("{user}:{}", password.as_str()));
    let encoded = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(pair.as_bytes()));
    Some(Zeroizing::new(format!("Basic {}", encoded.as_str())))
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
