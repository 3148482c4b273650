//! Avro ⇄ records, file formats → Arrow, canonical bytes.

pub mod wire;
