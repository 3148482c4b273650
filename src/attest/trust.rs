//! Whom we trust with what: public keys and their roles, as one file says.
//!
//! The file is JSON: `{"version":1,"keys":[{"name":"ops","public":"<64 hex>","roles":["model.apply"]}]}`. Its digest tells
//! two states of trust apart. A role that this version does not know is an error, never ignored.

use std::collections::BTreeMap;

use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};

use super::dsse::{Envelope, key_id};

/// Format version of the file.
pub const VERSION: u32 = 1;

/// Largest file that is read, in bytes.
pub const MAX_BYTES: usize = 256 * 1024;

/// What a key may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Declare a model or give it a new contract.
    #[serde(rename = "model.apply")]
    ModelApply,
}

impl Role {
    /// The role as files and audit records name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ModelApply => "model.apply",
        }
    }
}

/// Why a trust file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// Too large to be read.
    #[error("the trust file has {0} bytes; at most {MAX_BYTES} are read")]
    TooLarge(usize),
    /// Not the JSON of a trust file.
    #[error(
        "the trust file cannot be read: {0}; help: it has the fields version and keys; a key has name, public and roles"
    )]
    Json(String),
    /// A version that this program does not know.
    #[error("the trust file is of version {0}, this program reads {VERSION}")]
    Version(u32),
    /// A public key that is none.
    #[error("key {0:?} of the trust file is no Ed25519 public key; help: `public` is 64 hex digits")]
    Key(String),
    /// The same key twice.
    #[error("key {0:?} stands twice in the trust file; help: give one entry all its roles")]
    Twice(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    keys: Vec<FileKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileKey {
    name: String,
    public: String,
    roles: Vec<Role>,
}

/// A key that is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKey {
    /// What people call it.
    pub name: String,
    /// The public key.
    pub key: VerifyingKey,
    /// What it may sign, sorted.
    pub roles: Vec<Role>,
}

/// The trusted keys by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    keys: BTreeMap<String, TrustedKey>,
}

impl Trust {
    /// One key with every role: for development on one machine.
    #[must_use]
    pub fn development(key: &VerifyingKey) -> Self {
        let trusted = TrustedKey { name: "development".to_owned(), key: *key, roles: vec![Role::ModelApply] };
        Self { keys: BTreeMap::from([(key_id(key), trusted)]) }
    }

    /// Reads a trust file.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn from_json(text: &str) -> Result<Self, TrustError> {
        if text.len() > MAX_BYTES {
            return Err(TrustError::TooLarge(text.len()));
        }
        let file: File = serde_json::from_str(text).map_err(|e| TrustError::Json(e.to_string()))?;
        if file.version != VERSION {
            return Err(TrustError::Version(file.version));
        }
        let mut keys = BTreeMap::new();
        for FileKey { name, public, mut roles } in file.keys {
            let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(public.as_bytes()).ok();
            let key = bytes.and_then(|b| VerifyingKey::from_bytes(b.as_slice().try_into().ok()?).ok());
            let Some(key) = key.filter(|key| !key.is_weak()) else { return Err(TrustError::Key(name)) };
            roles.sort_unstable();
            roles.dedup();
            let trusted = TrustedKey { name: name.clone(), key, roles };
            if keys.insert(key_id(&key), trusted).is_some() {
                return Err(TrustError::Twice(name));
            }
        }
        Ok(Self { keys })
    }

    /// The trust file.
    #[must_use]
    pub fn to_json(&self) -> String {
        let key = |k: &TrustedKey| FileKey {
            name: k.name.clone(),
            public: data_encoding::HEXLOWER.encode(k.key.as_bytes()),
            roles: k.roles.clone(),
        };
        let file = File { version: VERSION, keys: self.keys.values().map(key).collect() };
        serde_json::to_string_pretty(&file).unwrap_or_default()
    }

    /// The trusted key whose signature an envelope bears, with its id; of several the first in the envelope's order.
    #[must_use]
    pub fn signer(&self, envelope: &Envelope) -> Option<(&str, &TrustedKey)> {
        let known = |s: &super::dsse::EnvelopeSignature| self.keys.get_key_value(&s.keyid);
        let mut keys = envelope.signatures.iter().filter_map(known);
        keys.find(|(_, trusted)| envelope.is_signed_by(&trusted.key)).map(|(id, trusted)| (id.as_str(), trusted))
    }

    /// Whether a key with this id is known, whatever it may sign.
    #[must_use]
    pub fn knows(&self, keyid: &str) -> bool {
        self.keys.contains_key(keyid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    #[test]
    fn a_trust_file_reads_back_and_names_the_signer_of_an_envelope() {
        let trust = Trust::development(&key(1).verifying_key());
        assert_eq!(Trust::from_json(&trust.to_json()).unwrap(), trust);
        let signed = |seed| Envelope::sign("t", b"x".to_vec(), &key(seed));
        assert_eq!(trust.signer(&signed(1)).map(|(_, k)| k.name.as_str()), Some("development"));
        assert_eq!(trust.signer(&signed(2)), None);
    }

    #[test]
    fn a_known_key_id_over_a_strangers_signature_convinces_nobody() {
        let trust = Trust::development(&key(1).verifying_key());
        let mut forged = Envelope::sign("t", b"x".to_vec(), &key(2));
        forged.signatures[0].keyid = key_id(&key(1).verifying_key());
        assert_eq!(trust.signer(&forged), None);
    }

    #[test]
    fn unknown_roles_fields_and_versions_and_weak_keys_are_refused() {
        let with = |key: &str, roles: &str, version: u32| {
            Trust::from_json(&format!(
                r#"{{"version":{version},"keys":[{{"name":"n","public":"{key}","roles":{roles}}}]}}"#
            ))
        };
        let good = data_encoding::HEXLOWER.encode(key(1).verifying_key().as_bytes());
        assert!(with(&good, "[]", 1).is_ok());
        assert!(matches!(with(&good, r#"["rule.all"]"#, 1), Err(TrustError::Json(_))));
        assert!(matches!(with(&good, "[]", 2), Err(TrustError::Version(2))));
        assert!(matches!(with(&"0".repeat(64), "[]", 1), Err(TrustError::Key(_))));
        assert!(matches!(with("zz", "[]", 1), Err(TrustError::Key(_))));
    }
}
