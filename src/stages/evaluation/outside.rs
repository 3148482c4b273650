//! What scoring needs from outside its log: blobs of the store, and a place for what is withheld.

use std::any::Any;

use bytes::Bytes;

use crate::domain::records::Artefact;
use crate::stages::beside::Trouble;

/// The store, as a scoring thread sees it: every call may wait.
pub trait Outside: Send + Sync {
    /// A blob, as its digest says; `code` names what is missing or damaged.
    ///
    /// # Errors
    /// The store is out of reach, or the blob is not there, larger than `most` or damaged.
    fn blob(&self, artefact: &Artefact, most: u64, code: &'static str) -> Result<Bytes, Trouble>;

    /// Keeps the full record of an evaluation, encrypted; it is durable when this returns. The first one stays.
    ///
    /// # Errors
    /// The store is out of reach.
    fn keep(&self, evaluation_id: &str, sealed: Vec<u8>) -> Result<(), Trouble>;

    /// Called on the scoring thread when it begins; what it gives is dropped when it ends. For whoever wants to see where its time goes.
    fn watch(&self, _evaluation_id: &str) -> Option<Box<dyn Any>> {
        None
    }
}
