//! The Avro schemas of `schemas/`, embedded, parsed once and shared by every [`Wire`](super::wire::Wire).
//!
//! Invariants:
//! * every record of a topic has one file `schemas/NAME.avsc` with a doc on every field;
//! * a schema that was once published is kept under `schemas/history/NAME/`, and the current one reads its records;
//! * records are named on the wire by the CRC-64-AVRO fingerprint of their schema's canonical form, so that a
//!   reader knows the writer's version without asking anybody.

use std::collections::HashMap;
use std::sync::LazyLock;

use apache_avro::Schema;
use apache_avro::rabin::Rabin;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema_compatibility::SchemaCompatibility;
use apache_avro::writer::datum::GenericDatumWriter;

use super::shape::Shape;

/// Fingerprint of a schema: CRC-64-AVRO, little-endian as it stands on the wire.
pub type Fingerprint = [u8; 8];

/// apache-avro allocates at most this much for one string, byte array or collection.
const MAX_ALLOCATION: usize = 128 << 20;

/// A schema as it stands in the source tree.
#[derive(Debug, Clone, Copy)]
pub struct Embedded {
    /// Name: `schemas/NAME.avsc`.
    pub name: &'static str,
    /// The file's text.
    pub json: &'static str,
    /// Earlier published versions, oldest first.
    pub older: &'static [&'static str],
    /// Some stage of this version writes it, so that it is kept readable; the others may still change.
    pub published: bool,
}

macro_rules! embedded {
    (@published) => { true };
    (@published $planned:ident) => { false };
    ($($name:literal $(: $planned:ident)? $(reads [$($fingerprint:literal),+])?,)+) => {
        /// Every schema of this version, sorted by name.
        pub const EMBEDDED: &[Embedded] = &[$(Embedded {
            name: $name,
            json: include_str!(concat!("../../schemas/", $name, ".avsc")),
            older: &[$($(
                include_str!(concat!("../../schemas/history/", $name, "/", $fingerprint, ".avsc")),
            )+)?],
            published: embedded!(@published $($planned)?),
        },)+];
    };
}

embedded! {
    "accepted",
    "alert",
    "attestation",
    "attestation_request",
    "attribution",
    "audit" reads ["aad6e156302dbfa5"],
    "benchmark",
    "command",
    "contribution" reads ["aeb539730f2144ca", "61687508651b8c9b"],
    "dead_letter" reads ["ccbc275a0306c3f8"],
    "evaluation",
    "evaluation_request" reads ["e6e1041d6c7ff7d4"],
    "experiment": planned,
    "experiment_statistics": planned,
    "joining_event": planned,
    "manifest" reads ["d9400d77c74a96dd", "e89b9acafa3f4cd4"],
    "mint_request": planned,
    "model" reads ["b68115c7fbc42a4a", "87920c225cbbb115", "e7de6f4050189d90"],
    "outcome": planned,
    "prediction": planned,
    "prediction_request": planned,
    "progress",
    "receipt" reads ["fa6ba21c4a231cb8", "f04218e88a2441ea"],
    "refused",
    "registry_event" reads ["c6bcb4fc188321b4", "a8d45202c28b976d"],
    "screened" reads ["2da3766394d42222"],
    "training_answer",
    "training_job" reads ["01f8276d55043124", "cb05e5567efbdbb6", "f981fdf75cc6b3b9"],
    "training_request" reads ["bdefd97444f8cdf6"],
    "training_run" reads ["934f91c483f85fbd", "8a7939d74731360d", "d60c1f604924df87"],
    "training_trial",
    "verdict",
}

/// A parsed schema with everything that is prepared once.
pub struct Prepared {
    /// Name: `schemas/NAME.avsc`.
    pub name: &'static str,
    /// The schema's text.
    pub json: &'static str,
    /// The parsed schema.
    pub schema: &'static Schema,
    /// Fingerprint of its canonical form.
    pub fingerprint: Fingerprint,
    /// Structure check that runs before anything is allocated.
    pub(super) shape: Shape,
    pub(super) writer: GenericDatumWriter<'static>,
    pub(super) reader: GenericDatumReader<'static>,
    /// Resolves to the current version; none when this is the current version.
    pub(super) resolving: Option<GenericDatumReader<'static>>,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "schema {} {}", self.name, hex(&self.fingerprint))
    }
}

/// All schemas of this version and the older ones that it reads.
#[derive(Debug)]
pub struct Schemas {
    current: HashMap<&'static str, &'static Prepared>,
    by_fingerprint: HashMap<Fingerprint, &'static Prepared>,
}

impl Schemas {
    /// The embedded schemas.
    ///
    /// # Errors
    /// When an embedded schema is broken: a defect of the build that the tests exclude.
    pub fn embedded() -> Result<&'static Self, &'static SchemaError> {
        static SCHEMAS: LazyLock<Result<Schemas, SchemaError>> = LazyLock::new(|| Schemas::prepare(EMBEDDED));
        SCHEMAS.as_ref()
    }

    /// The current version of a schema.
    #[must_use]
    pub fn current(&self, name: &str) -> Option<&'static Prepared> {
        self.current.get(name).copied()
    }

    /// Any version that this build can read.
    #[must_use]
    pub fn by_fingerprint(&self, fingerprint: &Fingerprint) -> Option<&'static Prepared> {
        self.by_fingerprint.get(fingerprint).copied()
    }

    fn prepare(embedded: &[Embedded]) -> Result<Self, SchemaError> {
        apache_avro::util::max_allocation_bytes(MAX_ALLOCATION);
        let mut all = Self { current: HashMap::new(), by_fingerprint: HashMap::new() };
        for entry in embedded {
            let current = all.add(entry.name, entry.json, None)?;
            all.current.insert(entry.name, current);
            for older in entry.older {
                all.add(entry.name, older, Some(current))?;
            }
        }
        Ok(all)
    }

    fn add(
        &mut self,
        name: &'static str,
        json: &'static str,
        current: Option<&'static Prepared>,
    ) -> Result<&'static Prepared, SchemaError> {
        let broken = |detail: String| SchemaError { name: name.to_owned(), detail };
        // The schemas of the build are few and live as long as the process; leaking them once lets the prepared
        // readers and writers borrow them.
        let schema: &'static Schema = Box::leak(Box::new(Schema::parse_str(json).map_err(|e| broken(e.to_string()))?));
        let avro = |e: apache_avro::Error| broken(e.to_string());
        let resolving = match current {
            None => None,
            Some(current) => {
                SchemaCompatibility::can_read(schema, current.schema).map_err(|e| broken(e.to_string()))?;
                let builder = GenericDatumReader::builder(schema).reader_schema(current.schema);
                Some(builder.human_readable(false).build().map_err(avro)?)
            }
        };
        let prepared: &'static Prepared = Box::leak(Box::new(Prepared {
            name,
            json,
            schema,
            fingerprint: fingerprint(schema),
            shape: Shape::of(schema).map_err(broken)?,
            writer: GenericDatumWriter::builder(schema).human_readable(false).build().map_err(avro)?,
            reader: GenericDatumReader::builder(schema).human_readable(false).build().map_err(avro)?,
            resolving,
        }));
        self.by_fingerprint.insert(prepared.fingerprint, prepared);
        Ok(prepared)
    }
}

/// CRC-64-AVRO of the schema's parsing canonical form, in the byte order of single-object encoding.
#[must_use]
pub fn fingerprint(schema: &Schema) -> Fingerprint {
    let digest = schema.fingerprint::<Rabin>();
    let mut bytes = Fingerprint::default();
    for (to, from) in bytes.iter_mut().zip(&digest.bytes) {
        *to = *from;
    }
    bytes
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// An embedded schema is broken.
#[derive(Debug, Clone, thiserror::Error)]
#[error("schemas/{name}.avsc: {detail}")]
pub struct SchemaError {
    /// Name of the schema.
    pub name: String,
    /// What is wrong with it.
    pub detail: String,
}
