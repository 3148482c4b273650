//! What can go wrong with the shared store, and the way out of each.

use std::time::Duration;

use super::Digest;

/// Why the shared store cannot be used. No text holds a key.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The location or its settings make no sense.
    #[error(
        "the store {store} cannot be used: {detail}; help: name a folder, file:///FOLDER or s3://BUCKET/PREFIX with --store"
    )]
    Location {
        /// As given.
        store: String,
        /// What is wrong.
        detail: String,
    },
    /// There is no such bucket.
    #[error(
        "the store {store} has no bucket: {detail}; help: make the bucket, or correct --store, AWS_REGION or AWS_ENDPOINT_URL"
    )]
    NoBucket {
        /// The store.
        store: String,
        /// What the server said.
        detail: String,
    },
    /// No keys were given and the platform gave none.
    #[error(
        "the store {store} needs credentials and there are none: {detail}; help: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for temporary keys), or run where the platform gives a role"
    )]
    NoCredentials {
        /// The store.
        store: String,
        /// What was tried.
        detail: String,
    },
    /// The server knows us and says no.
    #[error(
        "the store {store} refuses us: {detail}; help: the key must be of this server and may list, read, write and delete below the store's prefix"
    )]
    Denied {
        /// The store.
        store: String,
        /// What the server said.
        detail: String,
    },
    /// Nobody answers.
    #[error(
        "the store {store} does not answer at {endpoint}: {detail}; help: check AWS_ENDPOINT_URL, AWS_REGION and the network; http:// endpoints need AWS_ALLOW_HTTP=true"
    )]
    Unreachable {
        /// The store.
        store: String,
        /// Where it was asked.
        endpoint: String,
        /// What happened.
        detail: String,
    },
    /// A second writer of a name was told that it was the first.
    #[error(
        "the store {store} does not honour conditional writes (If-None-Match: *): two workers would overwrite each other's commits; help: use a server that does, such as Amazon S3, MinIO, Ceph or R2 in a present version"
    )]
    NotConditional {
        /// The store.
        store: String,
    },
    /// An object could not be read or written.
    #[error("{path} could not be {what}: {source}; help: `hokusai doctor` checks the store")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The object.
        path: String,
        /// What the library said.
        source: Box<object_store::Error>,
    },
    /// A file of this machine could not be read or written.
    #[error("{path}: {source}; help: is there space on the disk, and may hokusai write there?")]
    Local {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// An object is larger than its reader allows.
    #[error(
        "{path} has {size} bytes, at most {limit} are read; help: it is not what it should be, or the limit is too low"
    )]
    TooLarge {
        /// The object.
        path: String,
        /// Its bytes, or those read so far.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// A folder holds more objects than its reader allows.
    #[error(
        "{folder} holds more than {limit} objects; help: something else writes there, give each tenant a store of its own"
    )]
    TooMany {
        /// The folder.
        folder: String,
        /// The limit.
        limit: usize,
    },
    /// A blob that something names is not there.
    #[error("{store}{path} is missing; help: was it deleted, or is this another store than the one it was put into?")]
    Missing {
        /// The store.
        store: String,
        /// Where the blob should be.
        path: String,
    },
    /// The content is not the one that the name promises.
    #[error(
        "{path} is damaged: its content has the SHA-256 {found}; help: restore the object {expected} from a backup, or delete it so that it is made anew"
    )]
    Damaged {
        /// The blob.
        path: String,
        /// Digest by name.
        expected: Digest,
        /// Digest of what was read.
        found: Digest,
    },
}

impl StoreError {
    /// Whether the same call may succeed a little later.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Unreachable { .. })
    }

    pub(super) fn after(limit: Duration) -> String {
        format!("no answer within {} s", limit.as_secs_f32())
    }
}
