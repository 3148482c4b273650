//! Avro ⇄ records, file formats → Arrow, canonical bytes.
//!
//! Everything here reads bytes that somebody else wrote: limits are checked before memory is taken, and no error
//! text repeats a value.

pub mod answer;
pub mod aside;
pub mod canonical;
pub mod contribution;
pub mod formats;
mod guard;
pub mod ipc;
mod ipc_check;
pub mod json;
pub mod registry;
pub mod schema;
pub mod sealed;
mod shape;
pub mod split;
pub mod training;
pub mod wire;
