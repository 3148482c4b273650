//! Sealed payloads: what only intake can open, and only as the chunk that it was sealed for.
//!
//! A sealed chunk names an intake key in `sealed`; its payload is what [`PublicKey::seal`] gives (HPKE: 32 bytes of
//! encapsulated key, then the ciphertext) with this `info`:
//!
//! ```text
//! "hokusai/sealed-chunk/v1" 00 ‖ for each field: its length in bytes (u32, big-endian) ‖ the field in UTF-8
//! ```
//!
//! The fields are, in this order: contribution id (the value's `contribution_id`, else the record's key, else empty),
//! contributor, model, contract digest (empty for none), format, chunk and chunks (decimal). So a payload that is copied
//! into another contribution, another chunk's place or under another name does not open. The format is part of the public
//! contract: README has it in Python.

use crate::domain::keys::seal::{OVERHEAD, SealError};
use crate::domain::keys::{KeyRing, PublicKey};
use crate::domain::records::Contribution;

/// Why a sealed payload was not opened. Holds no byte of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    /// Larger than intake opens.
    #[error("larger than {0} bytes")]
    TooLarge(usize),
    /// The ring has no such intake key.
    #[error("sealed to an intake key that this platform does not have")]
    UnknownKey,
    /// The key does not open it.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// HPKE's `info` of a chunk; `record_key` counts when the value has no id.
#[must_use]
pub fn info(chunk: &Contribution, record_key: Option<&[u8]>) -> Vec<u8> {
    let id = chunk.contribution_id.as_deref().map(str::as_bytes).or(record_key).unwrap_or_default();
    let digest = chunk.contract_digest.as_deref().unwrap_or_default();
    let (number, chunks) = (chunk.chunk.to_string(), chunk.chunks.to_string());
    let texts = [&chunk.contributor, &chunk.model, digest, &chunk.format, &number, &chunks];
    let mut info = b"hokusai/sealed-chunk/v1\0".to_vec();
    for field in std::iter::once(id).chain(texts.map(str::as_bytes)) {
        // A name has at most 256 bytes, a record's key fits into a record: neither reaches 4 GiB.
        info.extend(u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
        info.extend(field);
    }
    info
}

/// Seals the payload of a chunk that is otherwise complete and goes under its own id.
///
/// # Errors
/// [`SealError::Key`] for a public key that is none.
pub fn seal(chunk: &mut Contribution, to: &PublicKey) -> Result<(), SealError> {
    chunk.payload = to.seal(&info(chunk, None), &chunk.payload)?;
    chunk.sealed = Some(to.id().to_owned());
    Ok(())
}

/// Opens the payload of a chunk if it is sealed; then the chunk is as if it had been sent plain.
///
/// # Errors
/// [`UnsealError`]; the chunk is left as it was.
pub fn open(
    chunk: &mut Contribution,
    record_key: Option<&[u8]>,
    ring: &KeyRing,
    most: usize,
) -> Result<(), UnsealError> {
    let Some(id) = &chunk.sealed else { return Ok(()) };
    if chunk.payload.len() > most.saturating_add(OVERHEAD) {
        return Err(UnsealError::TooLarge(most));
    }
    let key = ring.intake_keys().iter().find(|key| key.public().id() == id).ok_or(UnsealError::UnknownKey)?;
    chunk.payload = key.open(&info(chunk, record_key), &chunk.payload)?;
    chunk.sealed = None;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk() -> Contribution {
        Contribution {
            contribution_id: Some("c-1".into()),
            contributor: "alice".into(),
            model: "m".into(),
            contract_digest: Some("d".into()),
            format: "csv".into(),
            chunk: 1,
            chunks: 3,
            payload: b"a,b\n1,2\n".to_vec(),
            sealed: None,
            signature: None,
        }
    }

    fn opened(ring: &KeyRing, sealed: &Contribution, key: Option<&[u8]>) -> Result<Contribution, UnsealError> {
        let mut chunk = sealed.clone();
        open(&mut chunk, key, ring, 1 << 20).map(|()| chunk)
    }

    #[test]
    fn an_opened_chunk_is_the_plain_chunk() {
        let ring = KeyRing::generate("t").unwrap();
        let mut sealed = chunk();
        seal(&mut sealed, ring.intake_key().public()).unwrap();
        assert_eq!(sealed.sealed.as_deref(), Some("i1"));
        assert!(!sealed.payload.windows(3).any(|w| w == b"a,b"));
        assert_eq!(opened(&ring, &sealed, Some(b"any key")), Ok(chunk()));
        assert_eq!(opened(&ring, &chunk(), None), Ok(chunk()), "what is plain stays as it is");
    }

    #[test]
    fn a_payload_that_is_moved_to_another_place_does_not_open() {
        let ring = KeyRing::generate("t").unwrap();
        let mut sealed = chunk();
        seal(&mut sealed, ring.intake_key().public()).unwrap();
        let moves: [fn(&mut Contribution); 9] = [
            |c| c.contribution_id = Some("c-2".into()),
            |c| c.contribution_id = None,
            |c| c.contributor = "mallory".into(),
            |c| c.model = "n".into(),
            |c| c.contract_digest = None,
            |c| c.format = "json".into(),
            |c| c.chunk = 2,
            |c| c.chunks = 4,
            // The same text of all fields, cut at other places.
            |c| (c.contributor, c.model) = ("alic".into(), "em".into()),
        ];
        for moved in moves {
            let mut copy = sealed.clone();
            moved(&mut copy);
            assert_eq!(opened(&ring, &copy, None), Err(UnsealError::Seal(SealError::Foreign)), "{copy:?}");
        }
    }

    #[test]
    fn without_an_id_in_the_value_the_records_key_is_what_it_was_sealed_for() {
        let ring = KeyRing::generate("t").unwrap();
        let mut sealed = Contribution { contribution_id: None, ..chunk() };
        sealed.payload = ring.intake_key().public().seal(&info(&sealed, Some(b"c-1")), b"text").unwrap();
        sealed.sealed = Some("i1".into());
        assert!(opened(&ring, &sealed, Some(b"c-1")).is_ok());
        assert!(opened(&ring, &sealed, Some(b"c-2")).is_err() && opened(&ring, &sealed, None).is_err());
    }

    #[test]
    fn another_platforms_keys_and_sizes_beyond_the_limit_are_told_apart() {
        let (ring, other) = (KeyRing::generate("t").unwrap(), KeyRing::generate("t").unwrap());
        let mut sealed = chunk();
        seal(&mut sealed, other.intake_key().public()).unwrap();
        assert_eq!(opened(&ring, &sealed, None), Err(UnsealError::Seal(SealError::Foreign)));
        sealed.sealed = Some("i9".into());
        assert_eq!(opened(&ring, &sealed, None), Err(UnsealError::UnknownKey));
        assert_eq!(open(&mut sealed.clone(), None, &ring, 7), Err(UnsealError::TooLarge(7)));
        sealed.payload.truncate(OVERHEAD - 1);
        sealed.sealed = Some("i1".into());
        assert_eq!(opened(&ring, &sealed, None), Err(UnsealError::Seal(SealError::Short)));
    }

    #[test]
    fn the_info_is_frozen() {
        let hex = data_encoding::HEXLOWER.encode(&info(&chunk(), None));
        assert_eq!(
            hex,
            "686f6b757361692f7365616c65642d6368756e6b2f76310000000003632d3100000005616c696365000000016d000000\
             01640000000363737600000001310000000133"
        );
    }
}
