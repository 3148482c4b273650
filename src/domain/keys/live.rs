//! The ring in force, which a rotation exchanges while stages run.

use std::sync::{Arc, PoisonError, RwLock};

use super::KeyRing;

/// A handle on the tenant's ring; clones see the same ring.
#[derive(Debug, Clone)]
pub struct LiveKeys(Arc<RwLock<Arc<KeyRing>>>);

impl LiveKeys {
    /// The ring as it is now. Whoever made something of a ring compares it by pointer to see that it changed.
    #[must_use]
    pub fn ring(&self) -> Arc<KeyRing> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another ring in force.
    pub fn exchange(&self, ring: KeyRing) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
    }
}

impl From<Arc<KeyRing>> for LiveKeys {
    fn from(ring: Arc<KeyRing>) -> Self {
        Self(Arc::new(RwLock::new(ring)))
    }
}

impl From<KeyRing> for LiveKeys {
    fn from(ring: KeyRing) -> Self {
        Arc::new(ring).into()
    }
}
