//! Playing one game on a thread of its own, so that the task goes on polling. What it found stays here until the task has committed it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::case::Case;
use super::outcome::Played;
use super::play::play;
use crate::codec::wire::Wire;
use crate::domain::keys::{LiveKeys, SealingKey};
use crate::stages::beside::{Beside, Refusal};
use crate::stages::evaluation::outside::Outside as Blobs;
use crate::stages::training::outside::Outside as Trainer;
use crate::stages::training::rows::Limits;

/// What every attribution of a process shares.
#[derive(Clone)]
pub struct Desk {
    /// The topics' rows.
    pub trainer: Arc<dyn Trainer>,
    /// The store's blobs.
    pub blobs: Arc<dyn Blobs>,
    /// Opens sealed rows.
    pub key: Arc<SealingKey>,
    /// The tenant's keys: salts of sealed rows, pseudonyms.
    pub keys: LiveKeys,
    /// Decodes records.
    pub wire: Wire,
    /// Limits of reading and learning.
    pub limits: Limits,
    /// One game of the process is played at a time.
    pub bench: Arc<Mutex<()>>,
}

/// What came of a game.
pub type Found = Result<Box<Played>, Refusal>;

/// A game under way.
pub struct Work {
    /// Key of its entry in the state.
    pub key: Vec<u8>,
    beside: Beside<Found>,
    cancelled: Arc<AtomicBool>,
}

impl Drop for Work {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

impl Work {
    /// Begins a game.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn begin(desk: &Desk, key: Vec<u8>, case: Case) -> std::io::Result<Self> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let (desk, stop) = (desk.clone(), Arc::clone(&cancelled));
        let beside = Beside::begin("hokusai-credit", move || {
            let _alone = desk.bench.lock().unwrap_or_else(PoisonError::into_inner);
            match play(&desk, &case, &|| stop.load(Ordering::Relaxed)) {
                Ok(played) => Some(Ok(Box::new(played))),
                Err(refusal) => refusal.map(Err),
            }
        })?;
        Ok(Self { key, beside, cancelled })
    }

    /// What it found, once it has.
    #[must_use]
    pub fn found(&self) -> Option<Found> {
        let died = "the thread that played ended without a result; the log says why";
        self.beside.found(|| Err(Refusal::new("GAME_DIED", died)))
    }
}
