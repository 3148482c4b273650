//! Rows that several trials learn from are read and encoded once per process: one data set, as long as somebody asks for it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::learn::Prepared;

/// What nobody has used for so long is dropped. No result depends on it.
const KEPT: Duration = Duration::from_secs(60);

/// At most one data set: see the module.
#[derive(Default)]
pub struct Larder(Mutex<Option<Stored>>);

struct Stored {
    key: [u8; 32],
    rows: Arc<Prepared>,
    used: Instant,
}

impl Larder {
    fn stored(&self) -> std::sync::MutexGuard<'_, Option<Stored>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows of this key. Others are dropped: what is read next would lie beside them.
    #[must_use]
    pub fn get(&self, key: &[u8; 32]) -> Option<Arc<Prepared>> {
        let mut stored = self.stored();
        *stored = stored.take().filter(|stored| stored.key == *key);
        stored.as_mut().map(|stored| {
            stored.used = Instant::now();
            Arc::clone(&stored.rows)
        })
    }

    /// Keeps rows.
    pub fn put(&self, key: [u8; 32], rows: Arc<Prepared>) {
        *self.stored() = Some(Stored { key, rows, used: Instant::now() });
    }

    /// Drops what nobody asks for any more.
    pub fn tidy(&self) {
        let mut stored = self.stored();
        if let Some(rows) = stored.as_mut() {
            if Arc::strong_count(&rows.rows) > 1 {
                rows.used = Instant::now();
            } else if rows.used.elapsed() > KEPT {
                *stored = None;
            }
        }
    }
}
