//! Whom we trust with what: public keys and their roles, and what a promotion has to show, as one file says.
//!
//! The file is JSON: `{"version":2,"serial":3,"keys":[{"name":"ops","public":"<64 hex>","roles":["model.apply"],"from":1}],
//! "policies":[…]}`. A role that this version does not know is an error, never ignored.
//!
//! **The file is a history.** Every change raises `serial`; an entry is in force for serials `from` ≤ s < `until`. A key
//! that is revoked gets an `until` and stays in the file; other roles are a new entry of the same key. An event names the
//! serial under which it was put in order, so what was decided under an earlier file is decided the same again when a log
//! is read from its beginning. A file of version 1 is one of serial 1 without an end.

use std::collections::BTreeMap;

use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};

use super::dsse::{Envelope, key_id};

mod live;
mod policy;

pub use live::LiveTrust;
pub use policy::{EvaluationRule, Policy};

/// Format version of the file.
pub const VERSION: u32 = 2;

/// Largest file that is read, in bytes.
pub const MAX_BYTES: usize = 256 * 1024;

macro_rules! roles {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// What a key may sign.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Role { $($(#[doc = $doc])+ #[serde(rename = $name)] $variant,)+ }

        impl Role {
            /// Every role.
            pub const ALL: &'static [Role] = &[$(Role::$variant,)+];

            /// The role as files and audit records name it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Role::$variant => $name,)+ }
            }
        }
    };
}

roles! {
    /// Declare a model or give it a new contract.
    ModelApply = "model.apply",
    /// Register a version of any origin.
    ModelRegister = "model.register",
    /// Register a version that improves on a parent, under the key's own name as contributor.
    ModelContribute = "model.contribute",
    /// Promote a version, as the policy allows.
    ModelPromote = "model.promote",
    /// Promote a version that the policy does not let through, with a reason.
    ModelOverride = "model.override",
    /// Take a stage back to a version that was in it.
    ModelRollback = "model.rollback",
    /// Retire a version for good.
    ModelArchive = "model.archive",
    /// Move or remove an alias.
    ModelAlias = "model.alias",
    /// Set or remove a tag.
    ModelTag = "model.tag",
    /// Seal a benchmark.
    BenchmarkSeal = "benchmark.seal",
    /// Retire a benchmark.
    BenchmarkRetire = "benchmark.retire",
    /// Say what a training run made: held by the stage `training`.
    RunResult = "run.result",
    /// Say what an evaluation found: held by the stage `evaluation`.
    EvaluationResult = "evaluation.result",
    /// Promote and roll back by the transition that is undone or built upon: held by the stage `experiments`.
    ExperimentDecide = "experiment.decide",
}

/// Why a trust file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// Too large to be read.
    #[error("the trust file has {0} bytes; at most {MAX_BYTES} are read")]
    TooLarge(usize),
    /// Not the JSON of a trust file.
    #[error(
        "the trust file cannot be read: {0}; help: it has the fields version, serial, keys and policies; a key has name, public, roles, from and, once revoked, until"
    )]
    Json(String),
    /// A version that this program does not know.
    #[error("the trust file is of version {0}, this program reads 1 to {VERSION}")]
    Version(u32),
    /// A public key that is none.
    #[error("key {0:?} of the trust file is no Ed25519 public key; help: `public` is 64 hex digits")]
    Key(String),
    /// The same key twice at a time.
    #[error(
        "key {0:?} stands twice in the trust file for one serial; help: end one entry (`until`) where the next begins"
    )]
    Twice(String),
    /// Serials that do not follow on each other.
    #[error("{0:?} of the trust file: serials must hold 1 ≤ from < until, and from ≤ the file's own")]
    Serial(String),
    /// No key of this id is in force.
    #[error("no key {0} is in force in the trust file; help: `hokusai keys trust show` lists the keys")]
    NoSuchKey(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    #[serde(default = "first")]
    serial: i64,
    keys: Vec<FileKey>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    policies: Vec<Policy>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileKey {
    name: String,
    public: String,
    roles: Vec<Role>,
    #[serde(default = "first")]
    from: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<i64>,
}

fn first() -> i64 {
    1
}

/// The serials for which something is in force.
fn in_force(from: i64, until: Option<i64>, serial: i64) -> bool {
    from <= serial && until.is_none_or(|until| serial < until)
}

/// A key that is or was trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKey {
    /// What people call it.
    pub name: String,
    /// The public key.
    pub key: VerifyingKey,
    /// What it may sign, sorted.
    pub roles: Vec<Role>,
    /// First serial at which that holds.
    pub from: i64,
    /// First serial at which it does not hold any more.
    pub until: Option<i64>,
}

impl TrustedKey {
    /// Whether the entry is in force at a serial.
    #[must_use]
    pub fn is_in_force(&self, serial: i64) -> bool {
        in_force(self.from, self.until, serial)
    }

    /// Whether the key may sign that.
    #[must_use]
    pub fn holds(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

/// Whose signature an envelope bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signer<'a> {
    /// A key that is in force, with its id.
    Trusted(&'a str, &'a TrustedKey),
    /// A key that was revoked, or is not in force yet, with its id.
    Revoked(&'a str, &'a TrustedKey),
    /// The envelope names a known key, and the signature is not that key's.
    Forged,
    /// No signature names a known key.
    Unknown,
    /// No signature at all.
    Nobody,
}

/// The trusted keys by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    serial: i64,
    keys: BTreeMap<String, Vec<TrustedKey>>,
    policies: Vec<Policy>,
}

impl Trust {
    /// One key with every role: for development on one machine.
    #[must_use]
    pub fn development(key: &VerifyingKey) -> Self {
        Self::of([("development", key, Role::ALL.to_vec())])
    }

    /// Keys with their roles, at the first serial.
    #[must_use]
    pub fn of<'a>(keys: impl IntoIterator<Item = (&'a str, &'a VerifyingKey, Vec<Role>)>) -> Self {
        let mut trust = Self { serial: 1, ..Self::default() };
        for (name, key, roles) in keys {
            trust.enter(TrustedKey { name: name.to_owned(), key: *key, roles, from: 1, until: None });
        }
        trust
    }

    fn enter(&mut self, mut entry: TrustedKey) {
        entry.roles.sort_unstable();
        entry.roles.dedup();
        self.keys.entry(key_id(&entry.key)).or_default().push(entry);
    }

    /// Serial of the file.
    #[must_use]
    pub fn serial(&self) -> i64 {
        self.serial
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
        if !(1..=VERSION).contains(&file.version) {
            return Err(TrustError::Version(file.version));
        }
        let serials = |name: &str, from: i64, until: Option<i64>| match from {
            from if from < 1 || from > file.serial || until.is_some_and(|until| until <= from) => {
                Err(TrustError::Serial(name.to_owned()))
            }
            _ => Ok(()),
        };
        let mut trust = Self { serial: file.serial, ..Self::default() };
        for FileKey { name, public, roles, from, until } in file.keys {
            let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(public.as_bytes()).ok();
            let key = bytes.and_then(|b| VerifyingKey::from_bytes(b.as_slice().try_into().ok()?).ok());
            let Some(key) = key.filter(|key| !key.is_weak()) else { return Err(TrustError::Key(name)) };
            serials(&name, from, until)?;
            let known = trust.keys.get(&key_id(&key));
            // Entries of a key follow on each other in the file.
            if known.and_then(|entries| entries.last()).is_some_and(|last| last.until.is_none_or(|end| end > from)) {
                return Err(TrustError::Twice(name));
            }
            trust.enter(TrustedKey { name, key, roles, from, until });
        }
        for policy in &file.policies {
            serials(&policy.model, policy.from, policy.until)?;
        }
        trust.policies = file.policies;
        Ok(trust)
    }

    /// The trust file.
    #[must_use]
    pub fn to_json(&self) -> String {
        let key = |k: &TrustedKey| FileKey {
            name: k.name.clone(),
            public: data_encoding::HEXLOWER.encode(k.key.as_bytes()),
            roles: k.roles.clone(),
            from: k.from,
            until: k.until,
        };
        let keys = self.keys.values().flatten().map(key).collect();
        let file = File { version: VERSION, serial: self.serial, keys, policies: self.policies.clone() };
        serde_json::to_string_pretty(&file).unwrap_or_default()
    }

    /// Whose signature an envelope bears at a serial; of several the first that convinces, in the envelope's order.
    #[must_use]
    pub fn signer_at(&self, envelope: &Envelope, serial: i64) -> Signer<'_> {
        let known = |s: &super::dsse::EnvelopeSignature| self.keys.get_key_value(&s.keyid);
        let mut found = if envelope.signatures.is_empty() { Signer::Nobody } else { Signer::Unknown };
        for (id, entries) in envelope.signatures.iter().filter_map(known) {
            let Some(latest) = entries.last() else { continue };
            if !envelope.is_signed_by(&latest.key) {
                if found == Signer::Unknown {
                    found = Signer::Forged;
                }
                continue;
            }
            match entries.iter().find(|entry| entry.is_in_force(serial)) {
                Some(entry) => return Signer::Trusted(id, entry),
                None => found = Signer::Revoked(id, latest),
            }
        }
        found
    }

    /// The trusted key whose signature an envelope bears now, with its id.
    #[must_use]
    pub fn signer(&self, envelope: &Envelope) -> Option<(&str, &TrustedKey)> {
        match self.signer_at(envelope, self.serial) {
            Signer::Trusted(id, key) => Some((id, key)),
            _ => None,
        }
    }

    /// Whether a key with this id is known, whatever it may sign.
    #[must_use]
    pub fn knows(&self, keyid: &str) -> bool {
        self.keys.contains_key(keyid)
    }

    /// The entries of all keys, in the order of their ids.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &TrustedKey)> {
        self.keys.iter().flat_map(|(id, entries)| entries.iter().map(move |entry| (id.as_str(), entry)))
    }

    /// Every policy there is or was, in the order in which they were put in force.
    #[must_use]
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// What a promotion of a model has to show at a serial: the last policy in force that names the model, else the last
    /// for `*`, else the default.
    #[must_use]
    pub fn policy_at(&self, model: &str, serial: i64) -> Policy {
        let of =
            |name: &str| self.policies.iter().rfind(|p| p.model == name && in_force(p.from, p.until, serial)).cloned();
        of(model).or_else(|| of("*")).unwrap_or_default()
    }

    /// Trusts a key with roles from the next serial on; an entry of the key that is in force ends there.
    pub fn grant(&mut self, name: &str, key: &VerifyingKey, roles: &[Role]) {
        self.serial += 1;
        self.end(&key_id(key));
        let (from, roles) = (self.serial, roles.to_vec());
        self.enter(TrustedKey { name: name.to_owned(), key: *key, roles, from, until: None });
    }

    /// Trusts a key with nothing from the next serial on.
    ///
    /// # Errors
    /// [`TrustError::NoSuchKey`].
    pub fn revoke(&mut self, keyid: &str) -> Result<(), TrustError> {
        let entries = self.keys.get(keyid);
        if !entries.is_some_and(|entries| entries.iter().any(|entry| entry.is_in_force(self.serial))) {
            return Err(TrustError::NoSuchKey(keyid.to_owned()));
        }
        self.serial += 1;
        self.end(keyid);
        Ok(())
    }

    /// Puts a policy in force from the next serial on, in place of the one for the same model.
    pub fn set_policy(&mut self, policy: Policy) {
        self.serial += 1;
        for earlier in self.policies.iter_mut().filter(|p| p.model == policy.model && p.until.is_none()) {
            earlier.until = Some(self.serial);
        }
        self.policies.push(Policy { from: self.serial, until: None, ..policy });
    }

    fn end(&mut self, keyid: &str) {
        for entry in self.keys.get_mut(keyid).into_iter().flatten().filter(|entry| entry.until.is_none()) {
            entry.until = Some(self.serial);
        }
    }
}

#[cfg(test)]
mod tests;
