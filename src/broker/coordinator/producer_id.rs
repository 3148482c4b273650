//! Producer ids: given once, never again, not even after power loss.

use std::sync::{Arc, Mutex};

use crate::broker::error::BrokerError;
use crate::broker::flusher::{Flusher, NotDurable};
use crate::broker::lock;
use crate::broker::meta::{Key, Meta, put};

/// Ids reserved by one durable write.
const BLOCK: i64 = 1_000;

/// Hands out producer ids.
pub(crate) struct ProducerIds {
    meta: Arc<Meta>,
    flusher: Arc<Flusher>,
    /// The next id, and the end of the reserved block.
    next: Mutex<(i64, i64)>,
    reserving: tokio::sync::Mutex<()>,
}

impl ProducerIds {
    pub(crate) fn open(meta: &Arc<Meta>, flusher: &Arc<Flusher>) -> Result<Self, BrokerError> {
        let reserved = meta.read(|key| matches!(key, Key::NextProducerId).then_some(()))?;
        let next = reserved.first().map_or(1, |((), next)| *next);
        Ok(Self {
            meta: Arc::clone(meta),
            flusher: Arc::clone(flusher),
            next: Mutex::new((next, next)),
            reserving: tokio::sync::Mutex::new(()),
        })
    }

    /// A fresh id.
    pub(crate) async fn next(&self) -> Result<i64, NotDurable> {
        loop {
            if let Some(id) = self.take() {
                return Ok(id);
            }
            let _reserving = self.reserving.lock().await;
            let (next, end) = *lock(&self.next);
            if next < end {
                continue;
            }
            self.meta.write(vec![put(Key::NextProducerId, &(end + BLOCK))]).map_err(|_| NotDurable)?;
            self.flusher.wait(self.flusher.mark(&self.meta)).await?;
            lock(&self.next).1 = end + BLOCK;
        }
    }

    fn take(&self) -> Option<i64> {
        let mut next = lock(&self.next);
        let id = next.0;
        (id < next.1).then(|| {
            next.0 += 1;
            id
        })
    }
}
