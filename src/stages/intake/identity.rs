//! Which contribution a chunk belongs to. How many chunks there may be is checked when the record is read.

use super::models::Keys;
use super::refusals::Whole;
use crate::domain::limits::MAX_ID;
use crate::domain::reason::Reason;
use crate::domain::records::Contribution;
use crate::stream::stage::{Batch, Message};

/// A chunk's place in its contribution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub contribution_id: String,
    pub chunk: i64,
    pub chunks: i64,
}

/// The chunk's place, and why it is refused at once.
pub(super) fn identify(
    c: &Contribution,
    batch: &Batch,
    message: &Message<'_>,
    keys: &Keys,
) -> (Identity, Option<Whole>) {
    let key = message.key.filter(|key| !key.is_empty());
    let named = |id: &str| Identity { contribution_id: id.to_owned(), chunk: c.chunk, chunks: c.chunks };
    // A chunk that belongs to no contribution is a contribution of its own, closed at once.
    let alone = |id: String| Identity { contribution_id: id, chunk: 0, chunks: 1 };
    match (&c.contribution_id, key) {
        (Some(id), Some(key)) if key != id.as_bytes() => {
            let whole = Whole::new(
                Reason::KeyMismatch,
                "key",
                "no key, or the contribution_id of the value".to_owned(),
                "another key",
            );
            (named(id), Some(whole))
        }
        (Some(id), _) => (named(id), None),
        (None, Some(key)) => match std::str::from_utf8(key).ok().filter(|key| is_id(key)) {
            Some(id) => (named(id), None),
            None => {
                let whole = Whole::new(
                    Reason::IdMissing,
                    "key",
                    format!("an id of at most {MAX_ID} bytes of text"),
                    "no id, and a key that is none",
                );
                (alone(by_position(batch, message, keys)), Some(whole))
            }
        },
        (None, None) if c.chunks == 1 => (alone(keys.model.contribution_id(&c.contributor, &c.payload)), None),
        (None, None) => {
            let whole = Whole::new(
                Reason::IdMissing,
                "contribution_id",
                "an id: the contribution has several chunks".to_owned(),
                "no id and no key",
            );
            (alone(by_position(batch, message, keys)), Some(whole))
        }
    }
}

fn is_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_ID && !text.chars().any(char::is_control)
}

/// An id that nobody can claim in advance: an HMAC of the position.
fn by_position(batch: &Batch, message: &Message<'_>, keys: &Keys) -> String {
    let position = format!("position\0{}\0{}\0{}", batch.topic(), batch.partition(), message.offset);
    keys.model.contribution_id("", position.as_bytes())
}
