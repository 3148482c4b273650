//! What coordinates clients: consumer groups with their offsets, transactions, producer ids.

pub(crate) mod group;
pub(crate) mod groups;
pub(crate) mod offsets;
pub(crate) mod producer_id;
pub(crate) mod transaction;
