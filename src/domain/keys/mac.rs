//! Keyed digests: HMAC-SHA-256 with its state computed once.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::SECRET_LEN;

/// An HMAC-SHA-256 key with its state already computed and its domain tag already absorbed.
#[derive(Clone)]
pub struct MacKey(Hmac<Sha256>);

impl MacKey {
    /// A key whose digests all start with `tag ‖ 0`. Without a tag (`""`) nothing is absorbed.
    pub fn new(key: &[u8; SECRET_LEN], tag: &str) -> Self {
        let mut state = Hmac::<Sha256>::new(&hmac_block(key));
        if !tag.is_empty() {
            state.update(tag.as_bytes());
            state.update(&[0]);
        }
        Self(state)
    }

    /// The digest of the concatenation of `parts`; framing them unambiguously is the caller's part.
    pub fn digest(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut state = self.0.clone();
        for part in parts {
            state.update(part);
        }
        state.finalize().into_bytes().into()
    }

    /// The first 128 bits of [`MacKey::digest`].
    pub fn digest128(&self, parts: &[&[u8]]) -> [u8; 16] {
        first16(&self.digest(parts))
    }

    /// A running state, for input that comes in pieces.
    pub fn start(&self) -> MacState {
        MacState(self.0.clone())
    }

    /// This key with `prefix` absorbed as well.
    pub fn absorbed(&self, parts: &[&[u8]]) -> Self {
        let mut state = self.0.clone();
        parts.iter().for_each(|part| state.update(part));
        Self(state)
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MacKey(redacted)")
    }
}

/// A digest in the making.
#[derive(Clone)]
pub struct MacState(Hmac<Sha256>);

impl MacState {
    /// Appends input.
    #[inline]
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The first 128 bits of the digest.
    #[inline]
    pub fn finish128(self) -> [u8; 16] {
        first16(&self.0.finalize().into_bytes().into())
    }
}

/// RFC 2104 pads a short key with zeros: a full block makes the constructor infallible and the same.
fn hmac_block(key: &[u8; SECRET_LEN]) -> hmac::digest::Key<Hmac<Sha256>> {
    let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
    block[..SECRET_LEN].copy_from_slice(key);
    block
}

fn first16(digest: &[u8; 32]) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&digest[..16]);
    out
}

/// The key that makes tokens in one epoch.
#[derive(Debug, Clone)]
pub struct TokenKey {
    id: String,
    mac: MacKey,
}

impl TokenKey {
    pub(super) fn new(mac: MacKey, id: String) -> Self {
        Self { id, mac }
    }

    /// The id that stands in every token, for example `k1`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The keyed digest, with `hk/pii-token/v1` and a zero byte as its first input.
    pub fn mac(&self) -> &MacKey {
        &self.mac
    }
}

/// The keyed digests of one model. None of them ever rotates.
#[derive(Debug, Clone)]
pub struct ModelKeys {
    rows: MacKey,
    chunks: MacKey,
    refusals: MacKey,
    ids: MacKey,
}

impl ModelKeys {
    pub(super) fn new(key: &[u8; SECRET_LEN]) -> Self {
        let tagged = |tag| MacKey::new(key, tag);
        Self {
            rows: tagged("hk/row/v1"),
            chunks: tagged("hk/chunk/v1"),
            refusals: tagged("hk/refused-row/v1"),
            ids: tagged("hk/contribution-id/v1"),
        }
    }

    /// For canonical rows, with and without the label (`codec::canonical`).
    pub fn rows(&self) -> &MacKey {
        &self.rows
    }

    /// For the raw bytes of a chunk: an unkeyed digest of a one-row chunk would be a dictionary oracle.
    pub fn chunk_digest(&self, raw: &[u8]) -> [u8; 32] {
        self.chunks.digest(&[raw])
    }

    /// For the raw bytes of a refused row.
    pub fn refused_row_digest(&self, raw: &[u8]) -> [u8; 32] {
        self.refusals.digest(&[raw])
    }

    /// The id of a one-chunk contribution that came without one: 52 characters of lower-case base32.
    pub fn contribution_id(&self, contributor: &str, content: &[u8]) -> String {
        let length = (contributor.len() as u64).to_be_bytes();
        let digest = self.ids.digest(&[&length, contributor.as_bytes(), content]);
        let mut id = data_encoding::BASE32_NOPAD.encode(&digest);
        id.make_ascii_lowercase();
        id
    }
}
