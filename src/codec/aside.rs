//! What is put aside with a dead letter: the record as it came, sealed to the operator's key.
//!
//! The sealed text is one byte of flags (1: there is a key, 2: there is a value) ‖ length of the key (u32, big-endian) ‖ key ‖ value,
//! sealed with the `info` `"hokusai/dead-letter/v1" 00 ‖ topic 00 partition 00 offset` (decimal). So it opens for the operator alone
//! and only as the record of that position. Sealing is randomised: of all that stages write, the sealed part of dead letters alone
//! differs when the same records are processed again.

use crate::domain::keys::KeyRing;
use crate::domain::keys::seal::SealError;
use crate::domain::records::{DeadLetter, Position};

/// Sealed bytes that one dead letter carries; a larger record is spread over several.
pub const PART: usize = 800 << 10;

const HAS_KEY: u8 = 1;
const HAS_VALUE: u8 = 2;

/// A record as it came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Original {
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
}

/// Why a record that was put aside cannot be had back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AsideError {
    /// Written before records were kept, or about a record that is kept elsewhere.
    #[error("the dead letter does not hold its record")]
    NotKept,
    /// Some parts of it are gone.
    #[error("{have} of its {parts} parts are left")]
    Incomplete {
        /// Parts that are there.
        have: usize,
        /// Parts that there were.
        parts: usize,
    },
    /// The ring has no such operator's key.
    #[error("it is sealed to the operator's key {0}, which the key ring does not have")]
    UnknownKey(String),
    /// The key does not open it.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Opened, but not of the form that is sealed.
    #[error("it is no record that was put aside")]
    Malformed,
}

fn info(position: &Position) -> Vec<u8> {
    let Position { topic, partition, offset } = position;
    format!("hokusai/dead-letter/v1\0{topic}\0{partition}\0{offset}").into_bytes()
}

/// Completes a dead letter with its sealed record: one letter, or several when the record is large.
#[must_use]
pub fn seal(letter: DeadLetter, ring: &KeyRing, key: Option<&[u8]>, value: Option<&[u8]>) -> Vec<DeadLetter> {
    let to = ring.operator_key().public();
    let mut text = vec![(u8::from(key.is_some()) * HAS_KEY) | (u8::from(value.is_some()) * HAS_VALUE)];
    let key = key.unwrap_or_default();
    text.extend(u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes());
    text.extend(key);
    text.extend(value.unwrap_or_default());
    // A ring's own keys can be sealed to: they were tried when it was read.
    let Ok(sealed) = to.seal(&info(&letter.position), &text) else { return vec![letter] };
    let parts = i32::try_from(sealed.len().div_ceil(PART)).unwrap_or(i32::MAX);
    let part = |(part, bytes): (i32, &[u8])| DeadLetter {
        part,
        parts,
        sealed_to: Some(to.id().to_owned()),
        sealed: Some(bytes.to_vec()),
        ..letter.clone()
    };
    (0..).zip(sealed.chunks(PART)).map(part).collect()
}

/// Opens the record of a position from its dead letters, in whatever order they came; repeated parts do no harm.
///
/// # Errors
/// [`AsideError`].
pub fn open(letters: &[DeadLetter], ring: &KeyRing) -> Result<Original, AsideError> {
    let first = letters.iter().find(|letter| letter.part == 0 && letter.sealed.is_some()).ok_or(AsideError::NotKept)?;
    let id = first.sealed_to.clone().unwrap_or_default();
    let parts = usize::try_from(first.parts).unwrap_or(0);
    let found =
        (0..first.parts).map_while(|n| letters.iter().find(|letter| letter.part == n && letter.sealed.is_some()));
    let found: Vec<&[u8]> = found.filter_map(|letter| letter.sealed.as_deref()).collect();
    if found.len() != parts {
        return Err(AsideError::Incomplete { have: found.len(), parts });
    }
    let key = ring.operator_keys().iter().find(|key| key.public().id() == id).ok_or(AsideError::UnknownKey(id))?;
    let text = key.open(&info(&first.position), &found.concat())?;
    parse(&text).ok_or(AsideError::Malformed)
}

fn parse(text: &[u8]) -> Option<Original> {
    let (flags, rest) = text.split_first()?;
    let (length, rest) = rest.split_at_checked(4)?;
    let length = usize::try_from(u32::from_be_bytes(length.try_into().ok()?)).ok()?;
    let (key, value) = rest.split_at_checked(length)?;
    let given = |flag: u8, bytes: &[u8]| (flags & flag != 0).then(|| bytes.to_vec());
    Some(Original { key: given(HAS_KEY, key), value: given(HAS_VALUE, value) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> DeadLetter {
        let position = Position { topic: "contributions".into(), partition: 1, offset: 7 };
        DeadLetter { stage: "intake".into(), position, reason: "unreadable".into(), ..DeadLetter::default() }
    }

    #[test]
    fn a_record_that_was_put_aside_comes_back_as_it_was() {
        let ring = KeyRing::generate("t").unwrap();
        for (key, value) in [
            (Some(&b"key"[..]), Some(&b"value with secret"[..])),
            (None, Some(&b""[..])),
            (Some(&b""[..]), None),
            (None, None),
        ] {
            let letters = seal(letter(), &ring, key, value);
            assert_eq!((letters.len(), letters[0].parts), (1, 1));
            assert!(!letters[0].sealed.as_deref().unwrap().windows(6).any(|w| w == b"secret"));
            let original = open(&letters, &ring).unwrap();
            assert_eq!((original.key.as_deref(), original.value.as_deref()), (key, value));
        }
    }

    #[test]
    fn a_large_record_is_spread_over_letters_that_each_fit_into_a_message() {
        let ring = KeyRing::generate("t").unwrap();
        let value: Vec<u8> = (0..3 * PART).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let mut letters = seal(letter(), &ring, None, Some(&value));
        assert_eq!(letters.len(), 4);
        letters.reverse();
        letters.push(letters[0].clone());
        assert_eq!(open(&letters, &ring).unwrap().value.as_deref(), Some(value.as_slice()));
        letters.retain(|letter| letter.part != 2);
        assert_eq!(open(&letters, &ring), Err(AsideError::Incomplete { have: 2, parts: 4 }));
    }

    #[test]
    fn it_opens_for_its_own_position_and_with_the_operators_key_alone() {
        let (mut ring, other) = (KeyRing::generate("t").unwrap(), KeyRing::generate("t").unwrap());
        let letters = seal(letter(), &ring, None, Some(b"value"));
        ring.rotate_operator().unwrap();
        assert!(open(&letters, &ring).is_ok(), "an earlier key still opens");
        assert_eq!(open(&letters, &other), Err(AsideError::Seal(SealError::Foreign)));
        let mut moved = letters.clone();
        moved[0].position.offset = 8;
        assert_eq!(open(&moved, &ring), Err(AsideError::Seal(SealError::Foreign)));
        assert_eq!(open(&[letter()], &ring), Err(AsideError::NotKept));
        let unknown = DeadLetter { sealed_to: Some("o9".into()), ..letters[0].clone() };
        assert_eq!(open(&[unknown], &ring), Err(AsideError::UnknownKey("o9".into())));
    }
}
