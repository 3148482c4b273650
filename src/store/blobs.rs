//! Content-addressed blobs: `FOLDER/sha256/ab/abcdef…`, named by the SHA-256 of what they hold.
//!
//! A blob is written once and never changed, so any number of machines may put the same one. Whoever stops naming a blob
//! leaves it to [`Blobs::collect`], which spares the young: one that is put now and named in a moment.

use std::io::{Read, Write};
use std::path::Path as FilePath;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStoreExt, WriteMultipart};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt;

use super::{Store, StoreError, folder};

/// Bytes of a part of a large upload or download; of an upload at most [`PARTS_AT_ONCE`] are in memory, of a download two more.
const PART: usize = 8 << 20;
const PARTS_AT_ONCE: usize = 2;
/// A blob that is put again after this long is written again, so that a collection takes it for young.
const REFRESH: Duration = Duration::from_secs(3600);

/// SHA-256 of a blob's content; written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Of bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sha256:{self}")
    }
}

impl FromStr for Digest {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or("expected 64 lower-case hexadecimal digits")
    }
}

/// A blob that is in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// When it was written last, by the store's clock.
    pub modified: SystemTime,
}

/// What [`Blobs::collect`] has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs that stay.
    pub kept: u64,
    /// Blobs that were removed.
    pub removed: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Blobs below one folder of a store.
#[derive(Debug, Clone)]
pub struct Blobs {
    store: Store,
    folder: String,
}

impl Blobs {
    pub(super) fn new(store: Store, folder: &str) -> Self {
        Self { store, folder: format!("{folder}/sha256") }
    }

    /// Where a blob lies below the store's root.
    #[must_use]
    pub fn path(&self, digest: Digest) -> String {
        let name = digest.to_string();
        format!("{}/{}/{name}", self.folder, name.get(..2).unwrap_or_default())
    }

    fn url(&self, digest: Digest) -> String {
        format!("{}{}", self.store.url(), self.path(digest))
    }

    /// Puts a blob of at most some megabytes; it is durable when this returns. One that is there already costs a question.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn put(&self, bytes: Bytes) -> Result<Digest, StoreError> {
        let digest = Digest::of(&bytes);
        let size = bytes.len() as u64;
        if !self.is_fresh(digest, size).await? {
            let path = self.path(digest);
            if !self.store.create(&path, bytes.clone()).await? {
                // It is old, or not whole.
                self.store.put(&path, bytes).await?;
            }
        }
        Ok(digest)
    }

    /// Puts a file of any size that does not change meanwhile; it is durable when this returns. Memory is bounded.
    ///
    /// # Errors
    /// [`StoreError::Local`], [`StoreError::Io`].
    pub async fn put_file(&self, file: &FilePath) -> Result<(Digest, u64), StoreError> {
        let local = |source| StoreError::Local { path: file.to_owned(), source };
        let (digest, size) = digest_of(file).await.map_err(local)?;
        if self.is_fresh(digest, size).await? {
            return Ok((digest, size));
        }
        let path = self.path(digest);
        if let Some(to) = self.store.file(&path) {
            let from = file.to_owned();
            let copied = tokio::task::spawn_blocking(move || {
                let mut content = std::fs::File::open(from)?;
                folder::write(&to, true, &mut content)
            });
            let copied = copied.await.map_err(std::io::Error::other).and_then(|copied| copied);
            copied.map_err(|e| self.store.failed_on_disk("written", &path, e))?;
        } else if size <= PART as u64 {
            self.store.put(&path, tokio::fs::read(file).await.map_err(local)?.into()).await?;
        } else {
            self.upload(file, &path).await?;
        }
        Ok((digest, size))
    }

    /// In parts. Nothing is seen of it before the last one is there.
    async fn upload(&self, file: &FilePath, path: &str) -> Result<(), StoreError> {
        let local = |source| StoreError::Local { path: file.to_owned(), source };
        let failed = |e| self.store.failed("written", path, e);
        let begun = self.store.inner.put_multipart(&self.store.path(path)).await.map_err(failed)?;
        let mut upload = WriteMultipart::new_with_chunk_size(begun, PART);
        let mut reader = tokio::fs::File::open(file).await.map_err(local)?;
        let mut part = vec![0; 1 << 20];
        loop {
            let read = match reader.read(&mut part).await {
                Ok(read) => read,
                Err(error) => {
                    upload.abort().await.map_err(failed)?;
                    return Err(local(error));
                }
            };
            let Some(bytes) = part.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
            upload.write(bytes);
            if let Err(error) = upload.wait_for_capacity(PARTS_AT_ONCE - 1).await {
                let _ = upload.abort().await;
                return Err(failed(error));
            }
        }
        upload.finish().await.map(|_| ()).map_err(failed)
    }

    async fn is_fresh(&self, digest: Digest, size: u64) -> Result<bool, StoreError> {
        let is_young = |modified: SystemTime| modified.elapsed().unwrap_or_default() < REFRESH;
        Ok(self.stored(digest).await?.is_some_and(|found| found.size == size && is_young(found.modified)))
    }

    /// What the store says of a blob, without reading it; none when it is not there.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn stored(&self, digest: Digest) -> Result<Option<Stored>, StoreError> {
        let path = self.path(digest);
        match self.store.inner.head(&self.store.path(&path)).await {
            Ok(found) => Ok(Some(Stored { digest, size: found.size, modified: found.last_modified.into() })),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.store.failed("looked up", &path, error)),
        }
    }

    /// The content of a blob of at most `limit` bytes, checked.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::TooLarge`], [`StoreError::Damaged`], [`StoreError::Io`].
    pub async fn get(&self, digest: Digest, limit: u64) -> Result<Bytes, StoreError> {
        let bytes = self.store.get(&self.path(digest), limit).await?.ok_or_else(|| self.missing(digest))?;
        self.check(digest, Digest::of(&bytes))?;
        Ok(bytes)
    }

    /// Writes a blob of at most `limit` bytes into a new file, checked and synced; returns its bytes. After an error there is
    /// no file.
    ///
    /// # Errors
    /// As [`Blobs::get`], and [`StoreError::Local`].
    pub async fn get_to_file(&self, digest: Digest, limit: u64, file: &FilePath) -> Result<u64, StoreError> {
        let written = self.download(digest, limit, file).await;
        if written.is_err() {
            let _ = tokio::fs::remove_file(file).await;
        }
        written
    }

    async fn download(&self, digest: Digest, limit: u64, file: &FilePath) -> Result<u64, StoreError> {
        let path = self.path(digest);
        let local = |source| StoreError::Local { path: file.to_owned(), source };
        let size = self.stored(digest).await?.ok_or_else(|| self.missing(digest))?.size;
        if size > limit {
            return Err(StoreError::TooLarge { path: self.url(digest), size, limit });
        }
        let (inner, from) = (&self.store.inner, self.store.path(&path));
        let ranges = (0..size).step_by(PART).map(|start| start..size.min(start + PART as u64));
        let mut parts = stream::iter(ranges).map(|range| inner.get_range(&from, range)).buffered(PARTS_AT_ONCE);
        let mut taken =
            Taken { hash: Sha256::new(), to: tokio::fs::File::create(file).await.map_err(local)?.into_std().await };
        let mut next = parts.try_next().await;
        while let Some(part) = next.map_err(|e| self.store.failed("read", &path, e))? {
            let (took, following) = tokio::join!(taken.take(part), parts.try_next());
            (taken, next) = (took.map_err(local)?, following);
        }
        self.check(digest, Digest(taken.hash.finalize().into()))?;
        let synced = tokio::task::spawn_blocking(move || taken.to.sync_all()).await;
        synced.map_err(std::io::Error::other).and_then(|synced| synced).map_err(local)?;
        Ok(size)
    }

    fn missing(&self, digest: Digest) -> StoreError {
        StoreError::Missing { store: self.store.url().to_string(), path: self.path(digest) }
    }

    fn check(&self, expected: Digest, found: Digest) -> Result<(), StoreError> {
        if expected == found { Ok(()) } else { Err(StoreError::Damaged { path: self.url(expected), expected, found }) }
    }

    /// Every blob, at most `most`, by digest.
    ///
    /// # Errors
    /// [`StoreError::TooMany`], [`StoreError::Io`].
    pub async fn list(&self, most: usize) -> Result<Vec<Stored>, StoreError> {
        let entries = self.store.list(&self.folder, most).await?;
        let stored = entries.into_iter().filter_map(|entry| {
            let digest = entry.path.rsplit('/').next()?.parse().ok()?;
            Some(Stored { digest, size: entry.size, modified: entry.modified })
        });
        Ok(stored.collect())
    }

    /// Removes a blob; that there is none is no error.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn delete(&self, digest: Digest) -> Result<(), StoreError> {
        self.store.delete(&self.path(digest)).await
    }

    /// Removes blobs that `keep` does not name and that are older than `grace`, which is to be longer than it takes to name a
    /// blob that was put, and than an hour; at most `most` blobs are looked at.
    ///
    /// # Errors
    /// As [`Blobs::list`] and [`Blobs::delete`].
    pub async fn collect(
        &self,
        keep: impl Fn(Digest) -> bool,
        grace: Duration,
        most: usize,
    ) -> Result<Collected, StoreError> {
        let mut done = Collected::default();
        let before = SystemTime::now().checked_sub(grace).unwrap_or(SystemTime::UNIX_EPOCH);
        for blob in self.list(most).await? {
            if keep(blob.digest) || blob.modified >= before {
                done.kept += 1;
                continue;
            }
            self.delete(blob.digest).await?;
            done.removed += 1;
            done.bytes += blob.size;
        }
        if let Some(folder) = self.store.file(&self.folder) {
            let swept = tokio::task::spawn_blocking(move || folder::sweep(&folder, before)).await;
            let swept = swept.map_err(std::io::Error::other).and_then(|swept| swept);
            swept.map_err(|e| self.store.failed_on_disk("swept", &self.folder, e))?;
        }
        Ok(done)
    }
}

/// What of a download is there: hashed and written.
struct Taken {
    hash: Sha256,
    to: std::fs::File,
}

impl Taken {
    /// Hashes and writes the next part, off the thread that waits for the store.
    async fn take(mut self, part: Bytes) -> std::io::Result<Self> {
        let took = tokio::task::spawn_blocking(move || {
            self.hash.update(&part);
            self.to.write_all(&part)?;
            Ok(self)
        });
        took.await.map_err(std::io::Error::other)?
    }
}

async fn digest_of(file: &FilePath) -> std::io::Result<(Digest, u64)> {
    let file = file.to_owned();
    let hashed = tokio::task::spawn_blocking(move || {
        let mut file = std::fs::File::open(file)?;
        let (mut hash, mut size, mut part) = (Sha256::new(), 0, vec![0; 1 << 18]);
        loop {
            let read = file.read(&mut part)?;
            if read == 0 {
                return Ok((Digest(hash.finalize().into()), size));
            }
            hash.update(part.get(..read).unwrap_or_default());
            size += read as u64;
        }
    });
    hashed.await.map_err(std::io::Error::other)?
}
