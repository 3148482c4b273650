//! Records on the wire: Avro in single-object encoding, or in Confluent framing when a schema registry is configured.
//!
//! Invariants:
//! * both framings are read whatever is written, and a record of an older published schema resolves to the new one;
//! * schemas are parsed and readers prepared once, never per record;
//! * a record is checked against its schema's structure before anything is allocated for it;
//! * an error text repeats no byte of a record: such texts stand in dead letters and logs;
//! * what a record means never depends on whether the registry answers: then the error says *retry*.

use std::sync::Arc;
use std::time::Duration;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::ResolvedSchema;
use apache_avro::types::Value as Avro;
use url::Url;
use zeroize::Zeroizing;

use super::json;
use super::registry::{RegisteredSchema, SchemaRegistry};
use super::schema::{Fingerprint, Prepared, Schemas, hex};
use crate::domain::records::Record;

const SINGLE_OBJECT: [u8; 2] = [0xC3, 0x01];
const SINGLE_OBJECT_HEADER: usize = 10;
const CONFLUENT: u8 = 0;
const CONFLUENT_HEADER: usize = 5;

/// How records are framed and limited.
#[derive(Clone)]
pub struct WireConfig {
    /// Schema registry (Confluent's REST API). With one, records are written in Confluent framing.
    pub registry_url: Option<Url>,
    /// User for the registry's basic authentication; the URL's own user information counts otherwise.
    pub registry_user: Option<String>,
    /// Password for the registry's basic authentication.
    pub registry_password: Option<Zeroizing<String>>,
    /// A request to the registry may take this long.
    pub registry_timeout: Duration,
    /// A longer value is refused unread.
    pub max_value_bytes: usize,
}

impl Default for WireConfig {
    fn default() -> Self {
        Self {
            registry_url: None,
            registry_user: None,
            registry_password: None,
            registry_timeout: Duration::from_secs(5),
            max_value_bytes: 16 << 20,
        }
    }
}

impl std::fmt::Debug for WireConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WireConfig")
            .field("registry", &self.registry_url.as_ref().map(super::registry::redacted))
            .field("max_value_bytes", &self.max_value_bytes)
            .finish_non_exhaustive()
    }
}

/// Encodes and decodes records of topics. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Wire {
    registry: Option<Arc<SchemaRegistry>>,
    max_value_bytes: usize,
}

impl Default for Wire {
    fn default() -> Self {
        Self { registry: None, max_value_bytes: WireConfig::default().max_value_bytes }
    }
}

/// Why a record could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The record does not fit its schema.
    #[error("a {schema} record does not fit its schema: {detail}")]
    Encode {
        /// Schema name.
        schema: &'static str,
        /// What does not fit; no value.
        detail: String,
    },
    /// The bytes are no record of the schema.
    #[error("not a {schema} record: {detail}")]
    Decode {
        /// Schema that was expected.
        schema: &'static str,
        /// What is wrong; no value.
        detail: String,
    },
    /// The value is longer than the limit.
    #[error("a value of {size} bytes is beyond the limit of {limit} bytes; help: send smaller chunks")]
    TooLarge {
        /// Size of the value.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The value starts like no framing that is known.
    #[error(
        "the value is neither Avro (single-object encoding or Confluent framing) nor a JSON object; \
         help: see schemas/ for the record, or send one JSON object"
    )]
    UnknownFraming,
    /// No schema of this build has the fingerprint.
    #[error(
        "no schema of this version has the fingerprint {fingerprint}; help: the writer is newer than this program, \
         or the record is not of this system"
    )]
    UnknownFingerprint {
        /// Fingerprint, hex as on the wire.
        fingerprint: String,
    },
    /// Confluent framing without a registry to look the schema up.
    #[error(
        "the value is in Confluent framing (schema id {id}), but no schema registry is configured; help: set --schema-registry"
    )]
    NoRegistry {
        /// Schema id.
        id: u32,
    },
    /// The registry does not know the schema.
    #[error("the schema registry at {url} has no Avro schema with id {id}: {detail}")]
    UnknownSchemaId {
        /// Registry, without credentials.
        url: String,
        /// Schema id.
        id: u32,
        /// What it answered.
        detail: String,
    },
    /// The registry did not answer: worth a retry, says nothing about the record.
    #[error(
        "the schema registry at {url} does not answer: {detail}; help: check the address, the credentials and the network"
    )]
    Registry {
        /// Registry, without credentials.
        url: String,
        /// What happened.
        detail: String,
    },
    /// The registry refused a schema of ours.
    #[error(
        "the schema registry at {url} refuses the schema of {subject}: {detail}; help: check the subject's compatibility setting"
    )]
    Refused {
        /// Registry, without credentials.
        url: String,
        /// Subject, `TOPIC-value`.
        subject: String,
        /// What it answered.
        detail: String,
    },
    /// A record was to be written for which no schema was registered at the start.
    #[error(
        "schema {schema} was not registered at the start; help: a defect, the topology does not name a topic with it"
    )]
    NotRegistered {
        /// Schema name.
        schema: &'static str,
    },
    /// An embedded schema is broken: a defect of the build.
    #[error(transparent)]
    Schema(#[from] &'static super::schema::SchemaError),
    /// A record type without an embedded schema: a defect of the build.
    #[error("there is no schema {0}")]
    NoSchema(String),
}

impl WireError {
    /// The same bytes may be readable later: abort and retry instead of putting the record aside.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        matches!(self, Self::Registry { .. })
    }
}

/// A value's framing, its header taken off.
enum Framed<'a> {
    Embedded(&'static Prepared, &'a [u8]),
    Registered(Arc<RegisteredSchema>, &'a [u8]),
}

impl Wire {
    /// A wire format after the configuration. Nothing is asked of the registry yet.
    ///
    /// # Errors
    /// When the registry's URL cannot be used or an embedded schema is broken.
    pub fn new(config: &WireConfig) -> Result<Self, WireError> {
        Schemas::embedded()?;
        let registry = match &config.registry_url {
            None => None,
            Some(url) => Some(Arc::new(SchemaRegistry::new(url, config)?)),
        };
        Ok(Self { registry, max_value_bytes: config.max_value_bytes })
    }

    /// Registers the schemas of topics (`TOPIC` with prefix, schema name) as subjects `TOPIC-value`. Does nothing
    /// without a registry. Blocks on the network: called at the start, not by tasks.
    ///
    /// # Errors
    /// When the registry does not answer or refuses a schema.
    pub fn register<'t>(&self, topics: impl IntoIterator<Item = (&'t str, &'t str)>) -> Result<(), WireError> {
        let Some(registry) = &self.registry else { return Ok(()) };
        for (topic, schema) in topics {
            let prepared =
                Schemas::embedded()?.current(schema).ok_or_else(|| WireError::NoSchema(schema.to_owned()))?;
            registry.register(&format!("{topic}-value"), prepared)?;
        }
        Ok(())
    }

    /// Whether the schema registry answers; none when there is no registry. Blocks on the network.
    #[must_use]
    pub fn registry_answers(&self) -> Option<Result<(), WireError>> {
        self.registry.as_ref().map(|registry| registry.answers())
    }

    /// Encodes a record.
    ///
    /// # Errors
    /// When it does not fit its schema, or its schema is not registered.
    pub fn encode<R: Record>(&self, record: &R) -> Result<Vec<u8>, WireError> {
        let prepared = current::<R>()?;
        let mut bytes = Vec::with_capacity(128);
        match &self.registry {
            None => {
                bytes.extend_from_slice(&SINGLE_OBJECT);
                bytes.extend_from_slice(&prepared.fingerprint);
            }
            Some(registry) => {
                let id = registry.id_of(R::SCHEMA).ok_or(WireError::NotRegistered { schema: R::SCHEMA })?;
                bytes.push(CONFLUENT);
                bytes.extend_from_slice(&id.to_be_bytes());
            }
        }
        // apache-avro's own texts may repeat a value, so they are not passed on.
        prepared.writer.write_ser(&mut bytes, record).map_err(|_| WireError::Encode {
            schema: R::SCHEMA,
            detail: "a field is missing, unknown or of another type than schemas/ says".to_owned(),
        })?;
        Ok(bytes)
    }

    /// Decodes a record of an internal topic: Avro only.
    ///
    /// # Errors
    /// When the bytes are no such record; [`WireError::is_retriable`] when the registry did not answer.
    pub fn decode<R: Record>(&self, value: &[u8]) -> Result<R, WireError> {
        match self.unframe(value)? {
            Framed::Embedded(prepared, datum) => decode_embedded(prepared, datum),
            Framed::Registered(registered, datum) => match registered.embedded {
                Some(prepared) => decode_embedded(prepared, datum),
                None => decode_registered(&registered, datum),
            },
        }
    }

    /// Decodes a record of an outsiders' topic: Avro in both framings, or one plain JSON object (bytes as base64,
    /// optional fields may be missing, unknown fields are refused).
    ///
    /// # Errors
    /// As [`Wire::decode`].
    pub fn decode_outsider<R: Record>(&self, value: &[u8]) -> Result<R, WireError> {
        if !is_json_object(value) {
            return self.decode(value);
        }
        self.check_size(value)?;
        let wrong = |detail: String| WireError::Decode { schema: R::SCHEMA, detail };
        let prepared = current::<R>()?;
        let parsed = json::parse_strict(value, json::MAX_DEPTH).map_err(wrong)?;
        let names = ResolvedSchema::try_from(prepared.schema).map_err(|_| wrong("broken schema".to_owned()))?;
        let avro = json::to_avro(prepared.schema, names.get_names(), parsed).map_err(wrong)?;
        from_avro(&avro)
    }

    /// Any record as JSON for people and tools: the schema is the one its framing names, in its newest version;
    /// bytes as base64. A value that is JSON already stays as it is.
    ///
    /// # Errors
    /// As [`Wire::decode`].
    pub fn to_json(&self, value: &[u8]) -> Result<serde_json::Value, WireError> {
        if is_json_object(value) {
            self.check_size(value)?;
            return json::parse_strict(value, json::MAX_DEPTH)
                .map_err(|detail| WireError::Decode { schema: "JSON", detail });
        }
        let avro = match self.unframe(value)? {
            Framed::Embedded(prepared, datum) => read_embedded(prepared, datum)?,
            Framed::Registered(registered, datum) => match registered.embedded {
                Some(prepared) => read_embedded(prepared, datum)?,
                None => read_registered(&registered, datum, None, "registered")?,
            },
        };
        Ok(json::from_avro(avro))
    }

    pub(super) fn check_size(&self, value: &[u8]) -> Result<(), WireError> {
        if value.len() > self.max_value_bytes {
            return Err(WireError::TooLarge { size: value.len(), limit: self.max_value_bytes });
        }
        Ok(())
    }

    fn unframe<'a>(&self, value: &'a [u8]) -> Result<Framed<'a>, WireError> {
        self.check_size(value)?;
        if value.starts_with(&SINGLE_OBJECT)
            && let Some((header, datum)) = value.split_at_checked(SINGLE_OBJECT_HEADER)
        {
            let mut fingerprint = Fingerprint::default();
            fingerprint.copy_from_slice(&header[SINGLE_OBJECT.len()..]);
            return match Schemas::embedded()?.by_fingerprint(&fingerprint) {
                Some(prepared) => Ok(Framed::Embedded(prepared, datum)),
                None => Err(WireError::UnknownFingerprint { fingerprint: hex(&fingerprint) }),
            };
        }
        if value.first() == Some(&CONFLUENT)
            && let Some((header, datum)) = value.split_at_checked(CONFLUENT_HEADER)
        {
            let id = header.iter().skip(1).fold(0_u32, |id, byte| (id << 8) | u32::from(*byte));
            let registry = self.registry.as_ref().ok_or(WireError::NoRegistry { id })?;
            return Ok(Framed::Registered(registry.by_id(id)?, datum));
        }
        Err(WireError::UnknownFraming)
    }
}

fn current<R: Record>() -> Result<&'static Prepared, WireError> {
    Schemas::embedded()?.current(R::SCHEMA).ok_or_else(|| WireError::NoSchema(R::SCHEMA.to_owned()))
}

/// Whether a value of an outsiders' topic is meant as JSON.
#[must_use]
pub fn is_json_object(value: &[u8]) -> bool {
    value.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
}

fn decode_embedded<R: Record>(prepared: &'static Prepared, datum: &[u8]) -> Result<R, WireError> {
    let wrong = |detail: String| WireError::Decode { schema: R::SCHEMA, detail };
    if prepared.name != R::SCHEMA {
        return Err(wrong(format!("it is a {} record", prepared.name)));
    }
    if prepared.resolving.is_some() {
        return from_avro(&read_embedded(prepared, datum)?);
    }
    prepared.shape.check(datum).map_err(wrong)?;
    prepared.reader.read_deser(&mut &*datum).map_err(|_| wrong("a value is not of its field's type".to_owned()))
}

fn read_embedded(prepared: &'static Prepared, datum: &[u8]) -> Result<Avro, WireError> {
    let wrong = |detail: String| WireError::Decode { schema: prepared.name, detail };
    prepared.shape.check(datum).map_err(wrong)?;
    let reader = prepared.resolving.as_ref().unwrap_or(&prepared.reader);
    reader.read_value(&mut &*datum).map_err(|_| wrong("it does not resolve to the schema of this version".to_owned()))
}

fn decode_registered<R: Record>(registered: &RegisteredSchema, datum: &[u8]) -> Result<R, WireError> {
    let prepared = current::<R>()?;
    registered.readable_as(prepared).map_err(|detail| WireError::Decode {
        schema: R::SCHEMA,
        detail: format!("its schema does not fit: {detail}"),
    })?;
    from_avro(&read_registered(registered, datum, Some(prepared.schema), R::SCHEMA)?)
}

fn read_registered(
    registered: &RegisteredSchema,
    datum: &[u8],
    reader: Option<&Schema>,
    schema: &'static str,
) -> Result<Avro, WireError> {
    let wrong = |detail: String| WireError::Decode { schema, detail };
    registered.shape.check(datum).map_err(wrong)?;
    let built = GenericDatumReader::builder(&registered.schema).maybe_reader_schema(reader).human_readable(false);
    let fails = |_| wrong("it does not resolve to the schema of this version".to_owned());
    built.build().map_err(fails)?.read_value(&mut &*datum).map_err(fails)
}

fn from_avro<R: Record>(value: &Avro) -> Result<R, WireError> {
    apache_avro::from_value(value)
        .map_err(|_| WireError::Decode { schema: R::SCHEMA, detail: "a value is not of its field's type".to_owned() })
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
