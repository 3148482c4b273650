//! The receipts state: typed entries over one key-value store.
//!
//! | key | entry |
//! |---|---|
//! | `h` id | [`Contribution`]: a header while pending, a compact entry once closed |
//! | `c` id, chunk | [`Chunk`]: one per chunk of a pending contribution |
//! | `v` id, chunk, ident | [`Verdicts`] that came before their manifest |
//! | `x` id, chunk, ident | a content that was refused under this number and can no longer be bound |
//! | `d` id, page | contents of the chunks of a closed contribution, by chunk, [`PAGE`] numbers per page |
//! | `t` time, id | a timer: timeout of a pending contribution, expiry of a closed one |
//! | `m` source | [`Heard`]: the latest mark of a source |
//! | `w` | [`Clock`] |
//! | `o` | number of open contributions |
//!
//! An id is written with its length in front of it, so that no id is another one's prefix.

use bytes::Bytes;

use super::codec::{self, Field};
use super::model::{Chunk, Clock, Contribution, Heard, Held, Ident, Verdicts};
use crate::stream::stage::StageError;
use crate::stream::state::KeyValue;

/// Chunk numbers per page: a page is the chunks whose numbers share their first three bytes.
pub const PAGE: u32 = 256;

/// The bound chunks of a closed contribution, by number.
pub type Contents = Vec<(u32, Held)>;

/// A change that was made, unless the disk failed.
pub type Done = Result<(), StageError>;

/// Typed access to the state. Every access may fail with the disk; what is read also when it is damaged.
pub struct Store<'a>(pub &'a mut KeyValue);

fn key(tag: u8, id: &str, rest: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + 4 + id.len() + rest.iter().map(|r| r.len()).sum::<usize>());
    key.push(tag);
    key.extend_from_slice(&u32::try_from(id.len()).unwrap_or(u32::MAX).to_be_bytes());
    key.extend_from_slice(id.as_bytes());
    rest.iter().for_each(|part| key.extend_from_slice(part));
    key
}

fn timer_key(time: i64, id: &str) -> Vec<u8> {
    let mut key = vec![b't'];
    key.extend_from_slice(&u64::try_from(time).unwrap_or(0).to_be_bytes());
    key.extend_from_slice(id.as_bytes());
    key
}

const CLOCK: &[u8] = b"w";
const OPEN: &[u8] = b"o";

impl Store<'_> {
    fn get<T: Field>(&self, what: &str, key: &[u8]) -> Result<Option<T>, StageError> {
        self.0.get(key)?.map(|bytes| codec::decode(what, &bytes)).transpose()
    }

    fn put<T: Field>(&mut self, key: Vec<u8>, entry: &T) -> Done {
        self.0.put(key, codec::encode(entry))
    }

    /// The entry of a contribution.
    ///
    /// # Errors
    /// When it is damaged, as everywhere here.
    pub fn contribution(&self, id: &str) -> Result<Option<Contribution>, StageError> {
        self.get("a contribution", &key(b'h', id, &[]))
    }

    /// Writes the entry of a contribution.
    ///
    /// # Errors
    /// See [`Store::contribution`].
    pub fn put_contribution(&mut self, id: &str, entry: &Contribution) -> Done {
        self.put(key(b'h', id, &[]), entry)
    }

    /// Forgets a contribution and its chunk contents.
    ///
    /// # Errors
    /// See [`Store::contribution`].
    pub fn forget_contribution(&mut self, id: &str) -> Done {
        self.0.delete(key(b'h', id, &[]))?;
        self.forget(&key(b'd', id, &[]))
    }

    /// A bound chunk.
    ///
    /// # Errors
    /// See [`Store::contribution`].
    pub fn chunk(&self, id: &str, chunk: u32) -> Result<Option<Chunk>, StageError> {
        self.get("a chunk", &key(b'c', id, &[&chunk.to_be_bytes()]))
    }

    /// Writes a bound chunk.
    ///
    /// # Errors
    /// See [`Store::contribution`].
    pub fn put_chunk(&mut self, id: &str, chunk: u32, entry: &Chunk) -> Done {
        self.put(key(b'c', id, &[&chunk.to_be_bytes()]), entry)
    }

    /// The bound chunks of a page, by number.
    ///
    /// # Errors
    /// See [`Store::contribution`].
    pub fn chunks(&self, id: &str, page: u32) -> Result<Vec<(u32, Chunk)>, StageError> {
        let first = (page * PAGE).to_be_bytes();
        let prefix = key(b'c', id, &[&first[..3]]);
        let entry = |(key, bytes): (Bytes, Bytes)| {
            let number = key.last_chunk::<4>().map_or(0, |number| u32::from_be_bytes(*number));
            Ok((number, codec::decode("a chunk", &bytes)?))
        };
        self.0.scan_prefix(&prefix, usize::MAX)?.into_iter().map(entry).collect()
    }

    /// Forgets what is only kept of a contribution that waits: chunks, early verdicts, refused contents.
    ///
    /// # Errors
    /// See [`Store::contribution`].
    pub fn forget_parts(&mut self, id: &str) -> Done {
        b"cvx".iter().try_for_each(|tag| self.forget(&key(*tag, id, &[])))
    }

    fn forget(&mut self, prefix: &[u8]) -> Done {
        let entries = self.0.scan_prefix(prefix, usize::MAX)?;
        entries.into_iter().try_for_each(|(key, _)| self.0.delete(key))
    }

    /// A content was refused under this number and its rows released: it cannot be bound any more.
    ///
    /// # Errors
    /// See [`Store::contribution`].
    pub fn bar(&mut self, id: &str, chunk: u32, ident: &Ident) -> Done {
        self.0.put(key(b'x', id, &[&chunk.to_be_bytes(), ident]), vec![codec::VERSION])
    }

    /// See [`Store::bar`].
    ///
    /// # Errors
    /// See [`Store::contribution`].
    pub fn is_barred(&self, id: &str, chunk: u32, ident: &Ident) -> Result<bool, StageError> {
        Ok(self.0.get(&key(b'x', id, &[&chunk.to_be_bytes(), ident]))?.is_some())
    }

    /// Verdicts that came before their manifest.
    ///
    /// # Errors
    /// See [`Store::contribution`].
    pub fn early(&self, id: &str, chunk: u32, ident: &Ident) -> Result<Option<Verdicts>, StageError> {
        self.get("early verdicts", &key(b'v', id, &[&chunk.to_be_bytes(), ident]))
    }

    /// Writes verdicts that came before their manifest.
    ///
    /// # Errors
    /// See [`Store::contribution`].
    pub fn put_early(&mut self, id: &str, chunk: u32, ident: &Ident, entry: &Verdicts) -> Done {
        self.put(key(b'v', id, &[&chunk.to_be_bytes(), ident]), entry)
    }

    /// Forgets every early verdict on a chunk.
    ///
    /// # Errors
    /// See [`Store::contribution`].
    pub fn forget_early(&mut self, id: &str, chunk: u32) -> Done {
        self.forget(&key(b'v', id, &[&chunk.to_be_bytes()]))
    }

    /// Forgets early verdicts on one content of a chunk.
    ///
    /// # Errors
    /// See [`Store::contribution`].
    pub fn forget_early_of(&mut self, id: &str, chunk: u32, ident: &Ident) -> Done {
        self.0.delete(key(b'v', id, &[&chunk.to_be_bytes(), ident]))
    }

    /// Contents of the chunks of a closed contribution on one page.
    ///
    /// # Errors
    /// See [`Store::contribution`].
    pub fn contents(&self, id: &str, page: u32) -> Result<Contents, StageError> {
        let contents = self.get("contents of a closed contribution", &key(b'd', id, &[&page.to_be_bytes()]))?;
        Ok(contents.unwrap_or_default())
    }

    /// Writes a page of chunk contents.
    ///
    /// # Errors
    /// See [`Store::contribution`].
    pub fn put_contents(&mut self, id: &str, page: u32, contents: &Contents) -> Done {
        self.put(key(b'd', id, &[&page.to_be_bytes()]), contents)
    }

    /// Sets a timer.
    ///
    /// # Errors
    /// See [`Store::contribution`].
    pub fn set_timer(&mut self, time: i64, id: &str) -> Done {
        self.0.put(timer_key(time, id), vec![codec::VERSION])
    }

    /// Removes a timer.
    ///
    /// # Errors
    /// See [`Store::contribution`].
    pub fn clear_timer(&mut self, time: i64, id: &str) -> Done {
        self.0.delete(timer_key(time, id))
    }

    /// The earliest timer that is due.
    ///
    /// # Errors
    /// See [`Store::contribution`].
    pub fn due(&self, watermark: i64) -> Result<Option<(i64, String)>, StageError> {
        let first = self.0.scan_prefix(b"t", 1)?;
        let timer = first.first().and_then(|(key, _)| {
            let (time, id) = key.get(1..)?.split_first_chunk::<8>()?;
            let time = i64::try_from(u64::from_be_bytes(*time)).ok()?;
            Some((time, std::str::from_utf8(id).ok()?.to_owned()))
        });
        Ok(timer.filter(|(time, _)| *time <= watermark))
    }

    /// The latest mark of a source.
    ///
    /// # Errors
    /// See [`Store::contribution`].
    pub fn heard(&self, source: i32) -> Result<Option<Heard>, StageError> {
        self.get("a mark", &[b"m", source.to_be_bytes().as_slice()].concat())
    }

    /// Writes the latest mark of a source.
    ///
    /// # Errors
    /// See [`Store::contribution`].
    pub fn put_heard(&mut self, source: i32, entry: &Heard) -> Done {
        self.put([b"m", source.to_be_bytes().as_slice()].concat(), entry)
    }

    /// The clock.
    ///
    /// # Errors
    /// See [`Store::contribution`].
    pub fn clock(&self) -> Result<Clock, StageError> {
        Ok(self.get("the clock", CLOCK)?.unwrap_or_default())
    }

    /// Writes the clock.
    ///
    /// # Errors
    /// See [`Store::contribution`].
    pub fn put_clock(&mut self, clock: &Clock) -> Done {
        self.put(CLOCK.to_vec(), clock)
    }

    /// Contributions whose manifests are not all there.
    ///
    /// # Errors
    /// See [`Store::contribution`].
    pub fn open(&self) -> Result<i64, StageError> {
        Ok(self.get("the number of open contributions", OPEN)?.unwrap_or(0))
    }

    /// Writes the number of open contributions.
    ///
    /// # Errors
    /// See [`Store::contribution`].
    pub fn put_open(&mut self, open: i64) -> Done {
        self.put(OPEN.to_vec(), &open)
    }
}
