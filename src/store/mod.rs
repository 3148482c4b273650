//! The shared store: what several machines of a tenant have in common, in a folder or in an S3 bucket.
//!
//! | location | what it is |
//! |---|---|
//! | `/var/hokusai/store`, `store` | a folder of this machine, or one that every machine mounts |
//! | `file:///var/hokusai/store` | the same as a URL |
//! | `s3://BUCKET/PREFIX` | a bucket of any server that speaks S3 with conditional writes (`If-None-Match: *`) |
//!
//! S3 is reached as the usual environment variables say: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, for temporary
//! keys, `AWS_SESSION_TOKEN`; `AWS_REGION`; for other servers than Amazon's `AWS_ENDPOINT_URL`, and `AWS_ALLOW_HTTP=true` when that is
//! not HTTPS. Without keys, what the platform gives to a container, a pod or an instance is used. Profiles in `~/.aws` are not read.
//!
//! Invariants:
//! * what a write has answered for is durable: on a folder, file and folder are synced;
//! * a name never shows a part of its content: folders are written beside and renamed;
//! * [`Blobs`] are named by the SHA-256 of their content, which is checked whenever one is read: whoever names a digest
//!   in a record gets these bytes or an error. A blob is to be put *before* the transaction that names it;
//! * every read has a limit in bytes.
//!
//! Nothing here depends on a stage.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use url::Url;

mod blobs;
mod error;
mod folder;
mod location;
#[cfg(test)]
mod tests;

pub use blobs::{Blobs, Collected, Digest, Stored};
pub use error::StoreError;
use location::Location;

/// How a store is reached.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Settings of S3 by the names of their environment variables.
    pub s3: Vec<(String, String)>,
    /// How long [`Store::check`] waits for an answer.
    pub check_limit: Duration,
}

impl StoreOptions {
    /// As the environment says, with ten seconds for an answer.
    #[must_use]
    pub fn from_environment() -> Self {
        let s3 =
            std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
        Self { s3: s3.filter(|(key, _)| key.starts_with("AWS_")).collect(), check_limit: Duration::from_secs(10) }
    }
}

/// An object of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path below the store's root, parts separated by `/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// When it was written, by the store's clock.
    pub modified: std::time::SystemTime,
}

/// The store of a tenant: cheap to clone. Use it in one tokio runtime only: connections belong to the runtime that made them.
#[derive(Debug, Clone)]
pub struct Store {
    location: Arc<Location>,
    inner: Arc<dyn ObjectStore>,
    options: Arc<StoreOptions>,
}

impl Store {
    /// Opens a store and checks once that it answers.
    ///
    /// # Errors
    /// As [`Store::at`] and [`Store::check`].
    pub async fn open(location: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let store = Self::at(location, options)?;
        store.check().await?;
        Ok(store)
    }

    /// The store at a location, without asking it anything. Nothing is created.
    ///
    /// # Errors
    /// [`StoreError::Location`] for a location or settings that cannot be used.
    pub fn at(location: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let location = Location::parse(location)?;
        let inner = location.connect(&options.s3, None)?;
        Ok(Self { location: Arc::new(location), inner, options: Arc::new(options.clone()) })
    }

    /// Asks the store once for anything, within [`StoreOptions::check_limit`].
    ///
    /// # Errors
    /// [`StoreError::NoBucket`], [`StoreError::NoCredentials`], [`StoreError::Denied`], [`StoreError::Unreachable`], each
    /// with the way out; for a folder [`StoreError::Location`] when something else has its name.
    pub async fn check(&self) -> Result<(), StoreError> {
        if let Some(folder) = self.folder() {
            return match folder.metadata() {
                Ok(found) if !found.is_dir() => Err(self.location.wrong("it is a file, not a folder")),
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(self.location.wrong(&e.to_string())),
                // It is made with the first write.
                _ => Ok(()),
            };
        }
        // Without the retries of ordinary work, so that the cause is told and not the time that passed.
        let once = object_store::RetryConfig { max_retries: 1, ..Default::default() };
        let inner = self.location.connect(&self.options.s3, Some(once))?;
        let prefix = self.location.root().clone();
        let first = async { inner.list(Some(&prefix)).next().await.transpose() };
        match tokio::time::timeout(self.options.check_limit, first).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.location.refused(&self.options.s3, error)),
            Err(_) => Err(self.location.silent(&self.options.s3, self.options.check_limit)),
        }
    }

    /// Checks that this process may write, and that the store keeps a name's second creator out: what commits rely on.
    ///
    /// # Errors
    /// [`StoreError::NotConditional`], [`StoreError::Unreachable`], [`StoreError::Io`].
    pub async fn check_writes(&self) -> Result<(), StoreError> {
        let mut number = [0; 16];
        getrandom::fill(&mut number).map_err(|e| self.failed_on_disk("written", "probe", std::io::Error::other(e)))?;
        let path = format!("probe/{}", data_encoding::HEXLOWER.encode(&number));
        let probe = async {
            let first = self.create(&path, Bytes::from_static(b"first")).await?;
            let second = self.create(&path, Bytes::from_static(b"second")).await?;
            let removed = self.delete(&path).await;
            if first && !second { removed.map(|()| true) } else { Ok(false) }
        };
        match tokio::time::timeout(self.options.check_limit, probe).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(StoreError::NotConditional { store: self.url().to_string() }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(self.location.silent(&self.options.s3, self.options.check_limit)),
        }
    }

    /// The store's root; its path ends with `/`.
    #[must_use]
    pub fn url(&self) -> &Url {
        self.location.url()
    }

    /// The root when the store is a folder.
    #[must_use]
    pub fn folder(&self) -> Option<&FilePath> {
        self.location.folder()
    }

    /// The whole bucket or file system behind the store, and where in it the store's root is: for libraries that write by
    /// themselves. They answer for durability on folders.
    #[must_use]
    pub fn parts(&self) -> (Arc<dyn ObjectStore>, &Path) {
        (Arc::clone(&self.inner), self.location.root())
    }

    /// Content-addressed blobs that any record may name: `blobs/sha256/…`.
    #[must_use]
    pub fn blobs(&self) -> Blobs {
        self.blobs_under("blobs")
    }

    /// Content-addressed blobs of one user's own, below `folder`: who collects them knows every reference to them.
    #[must_use]
    pub fn blobs_under(&self, folder: &str) -> Blobs {
        Blobs::new(self.clone(), folder)
    }

    fn path(&self, path: &str) -> Path {
        path.split('/').filter(|part| !part.is_empty()).fold(self.location.root().clone(), |at, part| at.join(part))
    }

    fn file(&self, path: &str) -> Option<PathBuf> {
        let parts = path.split('/').filter(|part| !matches!(*part, "" | "." | ".."));
        Some(parts.fold(self.folder()?.to_owned(), |at, part| at.join(part)))
    }

    fn failed(&self, what: &'static str, path: &str, source: object_store::Error) -> StoreError {
        StoreError::Io { what, path: format!("{}{path}", self.url()), source: Box::new(source) }
    }

    fn failed_on_disk(&self, what: &'static str, path: &str, source: std::io::Error) -> StoreError {
        self.failed(what, path, object_store::Error::Generic { store: "folder", source: Box::new(source) })
    }

    /// Writes an object of at most some megabytes, durably; replaces what has the name.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.write(path, bytes, PutMode::Overwrite).await.map(|_| ())
    }

    /// Writes an object of at most some megabytes, durably, unless there is one of that name: then false. Of several
    /// writers at once one is told true.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn create(&self, path: &str, bytes: Bytes) -> Result<bool, StoreError> {
        self.write(path, bytes, PutMode::Create).await
    }

    async fn write(&self, path: &str, bytes: Bytes, mode: PutMode) -> Result<bool, StoreError> {
        if let Some(file) = self.file(path) {
            let replace = mode == PutMode::Overwrite;
            let written = tokio::task::spawn_blocking(move || folder::write(&file, replace, &mut bytes.as_ref())).await;
            let written = written.map_err(std::io::Error::other).and_then(|written| written);
            return written.map_err(|e| self.failed_on_disk("written", path, e));
        }
        let options = PutOptions { mode, ..PutOptions::default() };
        match self.inner.put_opts(&self.path(path), bytes.into(), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(self.failed("written", path, error)),
        }
    }

    /// An object of at most `limit` bytes; none when there is none of that name.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::Io`].
    pub async fn get(&self, path: &str, limit: u64) -> Result<Option<Bytes>, StoreError> {
        let found = match self.inner.get(&self.path(path)).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            found => found.map_err(|e| self.failed("read", path, e))?,
        };
        let too_large = |size| StoreError::TooLarge { path: format!("{}{path}", self.url()), size, limit };
        if found.meta.size > limit {
            return Err(too_large(found.meta.size));
        }
        let mut bytes = BytesMut::new();
        let mut parts = found.into_stream();
        while let Some(part) = parts.try_next().await.map_err(|e| self.failed("read", path, e))? {
            bytes.extend_from_slice(&part);
            // A file may grow while it is read.
            if bytes.len() as u64 > limit {
                return Err(too_large(bytes.len() as u64));
            }
        }
        Ok(Some(bytes.freeze()))
    }

    /// What lies below a folder, by path; at most `most` objects.
    ///
    /// # Errors
    /// [`StoreError::TooMany`], [`StoreError::Io`].
    pub async fn list(&self, folder: &str, most: usize) -> Result<Vec<Entry>, StoreError> {
        let root = self.location.root();
        let mut found = Vec::new();
        let prefix = self.path(folder);
        let mut listed = self.inner.list(Some(&prefix));
        while let Some(object) = listed.try_next().await.map_err(|e| self.failed("listed", folder, e))? {
            if found.len() >= most {
                return Err(StoreError::TooMany { folder: format!("{}{folder}", self.url()), limit: most });
            }
            let Some(below) = object.location.prefix_match(root) else { continue };
            let path = below.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
            found.push(Entry { path, size: object.size, modified: object.last_modified.into() });
        }
        found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// Removes an object; that there is none is no error.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn delete(&self, path: &str) -> Result<(), StoreError> {
        match self.inner.delete(&self.path(path)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("removed", path, error)),
        }
    }
}
