//! Blobs of the store by their digest, for threads that may wait: what is out of reach passes, what is gone or damaged does not.

use bytes::Bytes;
use tokio::runtime::Runtime;

use crate::store::{Digest, Store};

/// Why there is no blob.
#[derive(Debug)]
pub enum BlobError {
    /// The store is out of reach: the same again may work.
    Passing(String),
    /// It is not there, larger than `most`, damaged, or its name is no digest.
    Missing(String),
}

/// Reads a blob of at most `most` bytes, whose name is the hex form of its SHA-256.
///
/// # Errors
/// [`BlobError`].
pub fn fetch(store: &Store, runtime: &Runtime, digest: &str, most: u64) -> Result<Bytes, BlobError> {
    let digest: Digest = digest.parse().map_err(|why: &str| BlobError::Missing(why.to_owned()))?;
    runtime.block_on(store.blobs().get(digest, most)).map_err(|error| match error.is_retriable() {
        true => BlobError::Passing(error.to_string()),
        false => BlobError::Missing(error.to_string()),
    })
}
