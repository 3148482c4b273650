//! The trust in force, which an exchange of its file replaces while stages run.

use std::sync::{Arc, PoisonError, RwLock};

use super::Trust;

/// A handle on the trust in force; clones see the same.
#[derive(Debug, Clone, Default)]
pub struct LiveTrust(Arc<RwLock<Arc<Trust>>>);

impl LiveTrust {
    /// The trust as it is now.
    #[must_use]
    pub fn now(&self) -> Arc<Trust> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another trust in force.
    pub fn exchange(&self, trust: Trust) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(trust);
    }
}

impl From<Trust> for LiveTrust {
    fn from(trust: Trust) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(trust))))
    }
}
