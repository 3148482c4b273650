//! One tenant's secret keys, and the keyed digests made with them.
//!
//! A contributor must never hold any of these (whoever has one can try every possible value of a token or a
//! row), and losing them is not repairable: tokens, row hashes and salts would all change. Invariants:
//!
//! - Every digest is HMAC-SHA-256 under a key used for one purpose only, with the purpose's tag as its first
//!   input, so a digest of one kind never equals one of another.
//! - Token keys have epochs: each epoch has a secret of its own, so that destroying an epoch shreds its
//!   tokens. The dedup secret and the tree secret never rotate.
//! - A key's HMAC state is computed once; a digest clones it, so no cell pays for a key schedule.
//! - What contributors seal for intake, and what is put aside for the operator, is sealed to a key pair of the ring; earlier
//!   intake keys stay, so that what was sealed to them opens.
//! - `Debug` shows no secret, and the stored secrets are wiped when they are dropped.
//!
//! Derivations (HKDF-SHA-256, RFC 5869; `‖` concatenates, `\0` ends a tag):
//!
//! | key | input secret | info |
//! |---|---|---|
//! | tokens of an epoch | the epoch's | `hk/pii-token/v1\0` ‖ tenant ‖ `\0` ‖ key id |
//! | pseudonyms of an epoch | the epoch's | `hk/contributor/v1\0` ‖ tenant ‖ `\0` ‖ key id |
//! | a model's dedup key | dedup | `hk/dedup/v1\0` ‖ model |
//! | overlap of benchmarks | dedup | `hk/overlap/v1\0` |
//! | tree | tree (used as it is) | |

mod live;
mod mac;
pub mod seal;
mod stored;

use std::fmt;

use hkdf::Hkdf;
use sha2::Sha256;
use thiserror::Error;
use zeroize::Zeroizing;

pub use live::LiveKeys;
pub use mac::{MacKey, MacState, ModelKeys, TokenKey};
pub use seal::{PublicKey, SealingKey};

/// Newest version of the key file that this code reads, and the one that it writes.
pub const FORMAT_VERSION: u32 = 2;
/// Bytes in a secret.
const SECRET_LEN: usize = 32;
/// Most token epochs in one ring.
const MAX_EPOCHS: usize = 1_000;
/// Most key pairs of one kind in one ring.
const MAX_PAIRS: usize = 200;
/// Largest key file that is parsed, in bytes.
pub const MAX_TEXT: usize = 256 * 1024;

/// Why keys could not be made or read. Never holds a secret.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The text is not a key file.
    #[error(
        "the key file is malformed at line {line}, column {column}\nhelp: restore it from your backup; new keys would make every row and token new again"
    )]
    Malformed {
        /// Line of the first fault, from 1.
        line: usize,
        /// Column of the first fault, from 1.
        column: usize,
    },
    /// The file was written by a newer program.
    #[error(
        "the key file has format version {found}, this program reads up to {FORMAT_VERSION}\nhelp: run the newer program, or restore the older file"
    )]
    Newer {
        /// Version found in the file.
        found: u32,
    },
    /// A field breaks its rule.
    #[error("the key file's `{field}` {rule}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// The operating system gave no randomness.
    #[error("the operating system gave no random bytes: {0}")]
    Randomness(String),
    /// The last token key cannot be destroyed: rotate first.
    #[error("token key `{0}` is the current one\nhelp: rotate first, then destroy it")]
    Current(String),
    /// No token key has this id.
    #[error("there is no token key `{0}`")]
    Unknown(String),
}

/// A 32-byte secret, wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
struct Secret(Zeroizing<[u8; SECRET_LEN]>);

impl Secret {
    fn random() -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0; SECRET_LEN]);
        getrandom::fill(bytes.as_mut()).map_err(|error| KeyError::Randomness(error.to_string()))?;
        Ok(Self(bytes))
    }

    fn parse(hex: &str, field: &'static str) -> Result<Self, KeyError> {
        let rule = "is not 64 lower-case hexadecimal digits";
        let mut bytes = Zeroizing::new([0; SECRET_LEN]);
        if hex.len() != 2 * SECRET_LEN {
            return Err(KeyError::Field { field, rule });
        }
        data_encoding::HEXLOWER
            .decode_mut(hex.as_bytes(), bytes.as_mut())
            .map_err(|_| KeyError::Field { field, rule })?;
        Ok(Self(bytes))
    }

    fn hex(&self) -> String {
        data_encoding::HEXLOWER.encode(self.0.as_ref())
    }

    /// HKDF-SHA-256 without salt; 32 bytes are always within its limit, so a failure cannot happen and
    /// would yield the all-zero array only together with the error it reports.
    fn derive(&self, info: &[&[u8]]) -> Zeroizing<[u8; SECRET_LEN]> {
        let mut key = Zeroizing::new([0; SECRET_LEN]);
        let done = Hkdf::<Sha256>::new(None, self.0.as_ref()).expand_multi_info(info, key.as_mut());
        debug_assert!(done.is_ok(), "32 bytes are below HKDF's limit of 8,160");
        key
    }
}

/// All secret keys of one tenant.
pub struct KeyRing {
    tenant: String,
    /// Oldest first; the last is the current one. Never empty.
    epochs: Vec<Epoch>,
    dedup: Secret,
    tree_secret: Secret,
    tree: MacKey,
    /// What contributors seal to, oldest first; the last is published. Never empty.
    intake: Vec<SealingKey>,
    /// What unreadable records are sealed to, oldest first; the last is used. Never empty.
    operator: Vec<SealingKey>,
    /// Some keys are new: the file was written before there were any.
    completed: bool,
}

/// A token key with its secret.
struct Epoch {
    key: TokenKey,
    secret: Secret,
    /// Up to this time (milliseconds UTC, exclusive) tokens of the epoch before are written as well.
    dual_write_until: Option<i64>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<&str> = self.token_keys().map(TokenKey::id).collect();
        formatter
            .debug_struct("KeyRing")
            .field("tenant", &self.tenant)
            .field("token_keys", &ids)
            .field("intake", &self.intake)
            .field("operator", &self.operator)
            .finish_non_exhaustive()
    }
}

impl KeyRing {
    /// New keys from the operating system's randomness: token key `k1`, intake key `i1`, operator's key `o1`.
    ///
    /// # Errors
    /// [`KeyError::Field`] if the tenant's name is not 1 to 64 of `a-z 0-9 - _`; [`KeyError::Randomness`].
    pub fn generate(tenant: &str) -> Result<Self, KeyError> {
        if !is_name(tenant, 64) {
            return Err(KeyError::Field { field: "tenant", rule: "is not 1 to 64 of a-z, 0-9, `-` and `_`" });
        }
        let secret = Secret::random()?;
        let first = Epoch { key: token_key(tenant, "k1".to_owned(), &secret)?, secret, dual_write_until: None };
        let tree_secret = Secret::random()?;
        Ok(Self {
            tenant: tenant.to_owned(),
            epochs: vec![first],
            dedup: Secret::random()?,
            tree: MacKey::new(&tree_secret.0, ""),
            tree_secret,
            intake: vec![SealingKey::generate("i1".to_owned())?],
            operator: vec![SealingKey::generate("o1".to_owned())?],
            completed: false,
        })
    }

    /// Name of the tenant that owns these keys.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// Whether [`KeyRing::from_json`] made keys that the text did not have: the ring must be stored before it is used.
    #[must_use]
    pub fn is_completed(&self) -> bool {
        self.completed
    }

    /// The key that makes new tokens.
    pub fn token_key(&self) -> &TokenKey {
        // Never empty by construction, so the index is always 0 or more.
        &self.epochs[self.epochs.len().saturating_sub(1)].key
    }

    /// Every token key that is not destroyed, oldest first.
    pub fn token_keys(&self) -> impl Iterator<Item = &TokenKey> {
        self.epochs.iter().map(|epoch| &epoch.key)
    }

    /// What stands for a contributor's name outside the platform: `hmac-sha256:KEY:HEX` under the token key in force, and under the
    /// one before for records that were appended while both write. `appended` in milliseconds UTC.
    #[must_use]
    pub fn pseudonyms(&self, contributor: &str, appended: i64) -> Vec<String> {
        let window = self.dual_write().is_some_and(|(_, until)| appended < until);
        let epochs = self.epochs.iter().rev().take(if window { 2 } else { 1 });
        let pseudonym = |epoch: &Epoch| {
            let id = epoch.key.id();
            let info: [&[u8]; 4] = [b"hk/contributor/v1\0", self.tenant.as_bytes(), b"\0", id.as_bytes()];
            let key = MacKey::new(&epoch.secret.derive(&info), "hk-att/v1/contributor");
            format!("hmac-sha256:{id}:{}", data_encoding::HEXLOWER.encode(&key.digest(&[contributor.as_bytes()])))
        };
        epochs.map(pseudonym).collect()
    }

    /// The digests of one model.
    pub fn model(&self, model: &str) -> ModelKeys {
        ModelKeys::new(&self.dedup.derive(&[b"hk/dedup/v1\0", model.as_bytes()]))
    }

    /// Key of the digests of records that nobody could read, and that so belong to no model.
    pub fn dead_letter_key(&self) -> MacKey {
        MacKey::new(&self.dedup.derive(&[b"hk/dead-letter/v1\0"]), "hk/dead-letter/v1")
    }

    /// Key of the digests by which benchmarks of different models are told to share rows: one for the tenant.
    pub fn overlap_key(&self) -> MacKey {
        MacKey::new(&self.dedup.derive(&[b"hk/overlap/v1\0"]), "hk/overlap/v1")
    }

    /// The key of row salts (`attest::row`). It has no tag: each use brings its own.
    pub fn tree_key(&self) -> &MacKey {
        &self.tree
    }

    /// The key that contributors seal to now.
    pub fn intake_key(&self) -> &SealingKey {
        &self.intake[self.intake.len().saturating_sub(1)]
    }

    /// Every intake key, oldest first.
    pub fn intake_keys(&self) -> &[SealingKey] {
        &self.intake
    }

    /// The key that unreadable records are sealed to now.
    pub fn operator_key(&self) -> &SealingKey {
        &self.operator[self.operator.len().saturating_sub(1)]
    }

    /// Every operator's key, oldest first.
    pub fn operator_keys(&self) -> &[SealingKey] {
        &self.operator
    }

    /// The token key of the epoch before, while both write: for records that were appended before the window's end.
    /// Returns the key and the window's end (milliseconds UTC, exclusive).
    pub fn dual_write(&self) -> Option<(&TokenKey, i64)> {
        let [.., before, current] = self.epochs.as_slice() else { return None };
        current.dual_write_until.map(|until| (&before.key, until))
    }

    /// Lets the token key before the current one write as well, for records appended before `until` (milliseconds UTC).
    pub fn open_dual_write(&mut self, until: i64) {
        if let [_, .., current] = self.epochs.as_mut_slice() {
            current.dual_write_until = Some(until);
        }
    }

    /// Adds an intake key, which is published from now on; what was sealed to earlier ones still opens.
    ///
    /// # Errors
    /// [`KeyError::Randomness`]; [`KeyError::Field`] beyond 200 keys.
    pub fn rotate_intake(&mut self) -> Result<&PublicKey, KeyError> {
        add_pair(&mut self.intake, 'i', "intake")?;
        Ok(self.intake_key().public())
    }

    /// Adds an operator's key, which unreadable records are sealed to from now on.
    ///
    /// # Errors
    /// [`KeyError::Randomness`]; [`KeyError::Field`] beyond 200 keys.
    pub fn rotate_operator(&mut self) -> Result<&PublicKey, KeyError> {
        add_pair(&mut self.operator, 'o', "operator")?;
        Ok(self.operator_key().public())
    }

    /// Adds a token key, which becomes the current one; earlier tokens stay valid. Returns its id.
    ///
    /// # Errors
    /// [`KeyError::Randomness`]; [`KeyError::Field`] beyond 1,000 keys.
    pub fn rotate(&mut self) -> Result<&str, KeyError> {
        if self.epochs.len() >= MAX_EPOCHS {
            return Err(KeyError::Field { field: "tokens", rule: "has 1,000 keys already" });
        }
        let id = next_id('k', self.token_keys().map(TokenKey::id));
        let secret = Secret::random()?;
        self.epochs.push(Epoch { key: token_key(&self.tenant, id, &secret)?, secret, dual_write_until: None });
        Ok(self.token_key().id())
    }

    /// Destroys an earlier token key: nobody can match its tokens to values any more.
    ///
    /// # Errors
    /// [`KeyError::Current`] for the current key, [`KeyError::Unknown`] for an id that the ring does not have.
    pub fn destroy(&mut self, id: &str) -> Result<(), KeyError> {
        if self.token_key().id() == id {
            return Err(KeyError::Current(id.to_owned()));
        }
        let at = self.token_keys().position(|key| key.id() == id).ok_or_else(|| KeyError::Unknown(id.to_owned()))?;
        self.epochs.remove(at);
        // The window of the next epoch was one with the key that is gone.
        if let Some(next) = self.epochs.get_mut(at) {
            next.dual_write_until = None;
        }
        Ok(())
    }
}

fn add_pair(pairs: &mut Vec<SealingKey>, letter: char, field: &'static str) -> Result<(), KeyError> {
    if pairs.len() >= MAX_PAIRS {
        return Err(KeyError::Field { field, rule: "has 200 keys already" });
    }
    let id = next_id(letter, pairs.iter().map(|pair| pair.public().id()));
    pairs.push(SealingKey::generate(id)?);
    Ok(())
}

/// One more than the highest number that ids of this letter have.
fn next_id<'a>(letter: char, ids: impl Iterator<Item = &'a str>) -> String {
    let newest = ids.filter_map(|id| id.strip_prefix(letter)?.parse::<u64>().ok()).max();
    format!("{letter}{}", newest.unwrap_or(0).saturating_add(1))
}

fn token_key(tenant: &str, id: String, secret: &Secret) -> Result<TokenKey, KeyError> {
    if !is_name(&id, 16) {
        return Err(KeyError::Field { field: "id", rule: "is not 1 to 16 of a-z, 0-9, `-` and `_`" });
    }
    let key = secret.derive(&[b"hk/pii-token/v1\0", tenant.as_bytes(), b"\0", id.as_bytes()]);
    Ok(TokenKey::new(MacKey::new(&key, "hk/pii-token/v1"), id))
}

fn is_name(name: &str, most: usize) -> bool {
    (1..=most).contains(&name.len()) && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
}

#[cfg(test)]
mod tests;
