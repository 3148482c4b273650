//! The records of the first half, one struct per Avro schema in `schemas/`.
//!
//! Invariants that every writer keeps:
//! * lists of counts are sorted by their first field and hold no zero;
//! * digests and roots are lower-case hex; keyed digests are HMACs of the tenant's keys, never bare hashes;
//! * no field holds an offset of an internal topic; positions are those of an outsiders' topic;
//! * there are no maps (their encoding order is not fixed in Avro);
//! * times are milliseconds since 1970-01-01 UTC.

use serde::{Deserialize, Serialize};

macro_rules! record {
    ($type:ty, $schema:literal) => {
        impl Record for $type {
            const SCHEMA: &'static str = $schema;
        }
    };
}

mod attestation;
mod attribution;
pub mod benchmark;
mod chunks;
mod evaluation;
mod operations;
mod receipt;
mod registry;
mod training;

pub use attestation::*;
pub use attribution::*;
pub use benchmark::Benchmark;
pub use chunks::*;
pub use evaluation::*;
pub use operations::*;
pub use receipt::*;
pub use registry::*;
pub use training::*;

/// A record that travels on a topic: binds the struct to its schema file.
pub trait Record: Serialize + serde::de::DeserializeOwned {
    /// Name of the schema: `schemas/NAME.avsc`.
    const SCHEMA: &'static str;
}

/// A place in an outsiders' topic: the one kind of position that may enter ids, digests and receipts.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Topic without prefix.
    pub topic: String,
    /// Partition number.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

/// How often something was counted, by name (reason code, PII type, label value).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Count {
    /// What was counted.
    pub name: String,
    /// How often; never zero.
    pub count: i64,
}
