//! Avro ⇄ records, file formats → Arrow, canonical bytes.

pub mod canonical;
pub mod wire;
