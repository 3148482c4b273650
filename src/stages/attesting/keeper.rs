//! What the log rests on besides its topics: keys, and the tree heads that were signed.

use ed25519_dalek::SigningKey;

use crate::attest::dsse::key_id;
use crate::stream::stage::StageError;

/// The log's secret keys as a machine has them.
#[derive(Clone)]
pub struct LogKeys {
    /// Signs statements from now on.
    pub attester: SigningKey,
    /// Signs tree heads from now on.
    pub log: SigningKey,
    /// What signed before: a key is replaced only by somebody who has it.
    pub earlier: Vec<SigningKey>,
}

impl LogKeys {
    /// The key with an id, whether it is in force or not.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Option<&SigningKey> {
        let mut all = [&self.attester, &self.log].into_iter().chain(&self.earlier);
        all.find(|key| key_id(&key.verifying_key()) == id)
    }
}

impl std::fmt::Debug for LogKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let id = |key: &SigningKey| key_id(&key.verifying_key());
        f.debug_struct("LogKeys").field("attester", &id(&self.attester)).field("log", &id(&self.log)).finish()
    }
}

/// Why the keeper did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeeperError {
    /// The same again may work.
    #[error("{0}")]
    Unavailable(String),
    /// Going on would contradict what was signed, or there are no keys to go on with.
    #[error("{what}; help: {help}")]
    Refused {
        /// What was found.
        what: String,
        /// The way out.
        help: String,
    },
}

impl From<KeeperError> for StageError {
    fn from(error: KeeperError) -> Self {
        match error {
            KeeperError::Unavailable(cause) => Self::Outside(cause),
            KeeperError::Refused { what, help } => Self::Halt { what, help },
        }
    }
}

/// Keeps keys and tree heads outside the log.
pub trait Keeper: Send {
    /// The keys as they are now: a rotation shows here.
    ///
    /// # Errors
    /// [`KeeperError`].
    fn keys(&self) -> Result<LogKeys, KeeperError>;

    /// The newest tree heads that were kept, as signed notes: one beside the keys, one in the store.
    ///
    /// # Errors
    /// [`KeeperError`].
    fn newest(&self) -> Result<Vec<String>, KeeperError>;

    /// Keeps a signed tree head of `size` leaves, durably in both places, before it is published. The same once more is the same;
    /// another one of the same size is refused. Tree heads of fewer than `superseded` leaves may be forgotten.
    ///
    /// # Errors
    /// [`KeeperError`].
    fn keep(&self, size: u64, superseded: u64, note: &str) -> Result<(), KeeperError>;

    /// Writes down what contradicts a tree head that was signed; returns where.
    ///
    /// # Errors
    /// [`KeeperError`].
    fn evidence(&self, text: &str) -> Result<String, KeeperError>;
}
