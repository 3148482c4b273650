//! The trust root of a log: whom a verifier believes, from one file that a threshold of offline keys has signed.
//!
//! The file is a DSSE envelope of canonical JSON. It names the log, the attester's and the log's keys, each with the half-open range
//! of log indexes `[fromIndex, toIndex)` that it may sign, and the witnesses. Ranges of indexes and not of time: an index
//! needs no clock, and a revoked key keeps what was logged before. A successor has the version one higher and is signed by a
//! threshold of its predecessor's keys as well as of its own; a skipped or lower version is refused. Successors are published where
//! anybody can write: [`Followed`] takes what follows and leaves all else aside.

use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::dsse::{DsseError, Envelope, key_id};
use super::jcs::{self, JcsError};
use super::note::{Algorithm, NoteKey, is_name};

/// Payload type of trust roots.
pub const PAYLOAD_TYPE: &str = "application/vnd.hokusai.trust-root+json";
const TYPE: &str = "https://hokus.ai/trust-root/v1";
/// Keys of one kind that a trust root may list.
const MAX_KEYS: usize = 1_000;

/// Why a trust root was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// Not an envelope.
    #[error(transparent)]
    Envelope(#[from] DsseError),
    /// Not canonical JSON.
    #[error("the trust root is not canonical: {0}")]
    NotCanonical(#[from] JcsError),
    /// Canonical JSON, but no trust root.
    #[error("no trust root: {0}")]
    Form(String),
    /// Too few of the root keys have signed.
    #[error("{signed} of the {whose} root keys have signed, {threshold} must")]
    Threshold {
        /// Whose keys.
        whose: &'static str,
        /// Keys that have.
        signed: usize,
        /// Keys that must.
        threshold: usize,
    },
    /// Not the next version of the same log.
    #[error(
        "a trust root of version {found} of {origin} cannot follow version {before}; help: give every version in between"
    )]
    Succession {
        /// Version of the successor.
        found: u64,
        /// Log of the successor.
        origin: String,
        /// Version of the predecessor.
        before: u64,
    },
}

/// What a key of the log does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Signs statements.
    Attester,
    /// Signs tree heads.
    Log,
}

/// A key with the indexes that it may sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangedKey {
    /// What it does.
    pub role: Role,
    /// The key.
    pub key: VerifyingKey,
    /// First index.
    pub from: u64,
    /// One past the last index; none while it is in force.
    pub to: Option<u64>,
}

impl RangedKey {
    /// Whether it may sign at an index.
    #[must_use]
    pub fn covers(&self, index: u64) -> bool {
        self.from <= index && self.to.is_none_or(|to| index < to)
    }
}

/// Whom a verifier believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustRoot {
    /// Version, from 1.
    pub version: u64,
    /// Name of the log.
    pub origin: String,
    /// When it is to be replaced, RFC 3339 UTC in seconds.
    pub expires: String,
    /// Keys that sign trust roots.
    pub roots: Vec<VerifyingKey>,
    /// How many of them must.
    pub threshold: usize,
    /// Keys of the log.
    pub keys: Vec<RangedKey>,
    /// Witnesses of tree heads.
    pub witnesses: Vec<NoteKey>,
    /// How many of them must have seen a tree head.
    pub witness_threshold: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    #[serde(rename = "_type")]
    kind: String,
    expires: String,
    keys: Vec<JsonKey>,
    origin: String,
    roots: Vec<String>,
    threshold: usize,
    version: u64,
    #[serde(rename = "witnessThreshold")]
    witness_threshold: usize,
    witnesses: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct JsonKey {
    from_index: u64,
    public: String,
    role: Role,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to_index: Option<u64>,
}

fn hex(key: &VerifyingKey) -> String {
    data_encoding::HEXLOWER.encode(key.as_bytes())
}

fn public(text: &str) -> Result<VerifyingKey, RootError> {
    let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok();
    let key = bytes.and_then(|b| VerifyingKey::from_bytes(b.as_slice().try_into().ok()?).ok());
    key.filter(|key| !key.is_weak())
        .ok_or_else(|| RootError::Form("a key that is not 64 hex digits of an Ed25519 public key".to_owned()))
}

impl TrustRoot {
    /// Signs the trust root with root keys.
    ///
    /// # Errors
    /// When it has no canonical form or breaks a rule of the format.
    pub fn sign(&self, signers: &[SigningKey]) -> Result<Envelope, RootError> {
        self.check()?;
        let key = |k: &RangedKey| JsonKey { from_index: k.from, public: hex(&k.key), role: k.role, to_index: k.to };
        let payload = jcs::to_canonical(&Json {
            kind: TYPE.to_owned(),
            expires: self.expires.clone(),
            keys: self.keys.iter().map(key).collect(),
            origin: self.origin.clone(),
            roots: self.roots.iter().map(hex).collect(),
            threshold: self.threshold,
            version: self.version,
            witness_threshold: self.witness_threshold,
            witnesses: self.witnesses.iter().map(NoteKey::vkey).collect(),
        })?;
        let mut envelope = Envelope { payload_type: PAYLOAD_TYPE.to_owned(), payload, signatures: Vec::new() };
        for signer in signers {
            envelope.signatures.extend(Envelope::sign(PAYLOAD_TYPE, envelope.payload.clone(), signer).signatures);
        }
        Ok(envelope)
    }

    /// Reads a trust root that a threshold of its own root keys has signed.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn open(text: &[u8]) -> Result<Self, RootError> {
        let envelope = Envelope::from_json(text)?;
        let root = Self::read(&envelope)?;
        root.demand(&envelope, "listed")?;
        Ok(root)
    }

    /// Reads the successor of this trust root.
    ///
    /// # Errors
    /// [`RootError`]: also when it does not follow directly, or its predecessor's keys have not signed it.
    pub fn succeed(&self, text: &[u8]) -> Result<Self, RootError> {
        let envelope = Envelope::from_json(text)?;
        let next = Self::read(&envelope)?;
        if next.version != self.version + 1 || next.origin != self.origin {
            return Err(RootError::Succession { found: next.version, origin: next.origin, before: self.version });
        }
        self.demand(&envelope, "earlier")?;
        next.demand(&envelope, "listed")?;
        Ok(next)
    }

    /// A threshold of this root's keys has signed; a key counts once, whatever ids the signatures name.
    fn demand(&self, envelope: &Envelope, whose: &'static str) -> Result<(), RootError> {
        let signed = self.roots.iter().filter(|key| envelope.is_signed_by(key)).count();
        let threshold = self.threshold;
        if signed < threshold { Err(RootError::Threshold { whose, signed, threshold }) } else { Ok(()) }
    }

    fn read(envelope: &Envelope) -> Result<Self, RootError> {
        if envelope.payload_type != PAYLOAD_TYPE {
            return Err(RootError::Form(format!("the payload is of another type than {PAYLOAD_TYPE}")));
        }
        let text = jcs::admit_canonical(&envelope.payload)?;
        let json: Json = serde_json::from_str(text)
            .map_err(|e| RootError::Form(format!("at byte {} a field is missing, unknown or wrong", e.column())))?;
        if json.kind != TYPE || json.keys.len() > MAX_KEYS {
            return Err(RootError::Form(format!("not of type {TYPE}, or more than {MAX_KEYS} keys")));
        }
        let key =
            |k: &JsonKey| Ok(RangedKey { role: k.role, key: public(&k.public)?, from: k.from_index, to: k.to_index });
        let witness = |text: &String| NoteKey::parse(text).map_err(|e| RootError::Form(e.to_string()));
        let root = Self {
            version: json.version,
            origin: json.origin,
            expires: json.expires,
            roots: json.roots.iter().map(|text| public(text)).collect::<Result<_, _>>()?,
            threshold: json.threshold,
            keys: json.keys.iter().map(key).collect::<Result<_, RootError>>()?,
            witnesses: json.witnesses.iter().map(witness).collect::<Result<_, _>>()?,
            witness_threshold: json.witness_threshold,
        };
        root.check()?;
        Ok(root)
    }

    fn check(&self) -> Result<(), RootError> {
        let fault = if !is_name(&self.origin) {
            "the origin is no name of a log"
        } else if self.version == 0 {
            "versions begin with 1"
        } else if self.expires.len() != 20 || expiry(&self.expires).is_none() {
            "`expires` is not like 2030-01-31T00:00:00Z"
        } else if self.roots.len() > MAX_KEYS || self.witnesses.len() > MAX_KEYS {
            "more keys than are read"
        } else if self.threshold == 0 || self.threshold > self.roots.len() || twice(self.roots.iter().map(hex)) {
            "the threshold of root keys is 0 or more than there are, or a key stands twice"
        } else if self.witness_threshold > self.witnesses.len()
            || self.witnesses.iter().any(|w| w.algorithm != Algorithm::Witness)
            || twice(self.witnesses.iter().map(|w| hex(&w.key)))
        {
            "more witnesses are demanded than there are, one is no witness key, or a key stands twice"
        } else if self.keys.iter().any(|k| k.to.is_some_and(|to| to < k.from)) {
            "a key's range ends before it begins"
        } else {
            return Ok(());
        };
        Err(RootError::Form(fault.to_owned()))
    }

    /// Keys of a role, in the order of the file.
    pub fn keys_of(&self, role: Role) -> impl Iterator<Item = &RangedKey> {
        self.keys.iter().filter(move |key| key.role == role)
    }

    /// Whether it has expired at a time (seconds since 1970-01-01 UTC).
    #[must_use]
    pub fn expired(&self, now: i64) -> bool {
        expiry(&self.expires).is_none_or(|end| end <= now)
    }

    /// Ids of the root keys, as in envelopes.
    #[must_use]
    pub fn root_ids(&self) -> Vec<String> {
        self.roots.iter().map(key_id).collect()
    }
}

/// A trust root that is followed to its newest successor.
#[derive(Debug, Clone)]
pub struct Followed {
    root: TrustRoot,
    text: Vec<u8>,
    before: Option<TrustRoot>,
}

/// What came of a text that was published as a trust root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is the successor.
    Followed,
    /// It is another successor of the same predecessor: whoever holds the root keys signed two. The first one stands.
    Forked,
    /// It does not follow: junk, an earlier one, another log's, or too few signatures.
    Aside,
}

impl Followed {
    /// Begins at a trust root that the verifier believes.
    ///
    /// # Errors
    /// [`RootError`]: it is none.
    pub fn from(text: Vec<u8>) -> Result<Self, RootError> {
        Ok(Self { root: TrustRoot::open(&text)?, text, before: None })
    }

    /// Looks at the next text that was published, in their order.
    pub fn take(&mut self, text: &[u8]) -> Taken {
        if let Ok(next) = self.root.succeed(text) {
            self.before = Some(std::mem::replace(&mut self.root, next));
            self.text = text.to_vec();
            return Taken::Followed;
        }
        let other = self.before.as_ref().and_then(|before| before.succeed(text).ok());
        if other.is_some_and(|other| other != self.root) { Taken::Forked } else { Taken::Aside }
    }

    /// The newest trust root, and its bytes.
    #[must_use]
    pub fn newest(&self) -> (&TrustRoot, &[u8]) {
        (&self.root, &self.text)
    }
}

fn expiry(text: &str) -> Option<i64> {
    let time = chrono::DateTime::parse_from_rfc3339(text).ok()?;
    text.ends_with('Z').then_some(time.timestamp())
}

fn twice(keys: impl Iterator<Item = String>) -> bool {
    let mut seen = std::collections::BTreeSet::new();
    !keys.into_iter().all(|key| seen.insert(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn root(version: u64, roots: &[u8], threshold: usize) -> TrustRoot {
        TrustRoot {
            version,
            origin: "hokusai/acme/0011".to_owned(),
            expires: "2030-01-31T00:00:00Z".to_owned(),
            roots: roots.iter().map(|seed| key(*seed).verifying_key()).collect(),
            threshold,
            keys: vec![RangedKey { role: Role::Attester, key: key(9).verifying_key(), from: 0, to: Some(7) }],
            witnesses: Vec::new(),
            witness_threshold: 0,
        }
    }

    fn signed(root: &TrustRoot, by: &[u8]) -> Vec<u8> {
        let keys: Vec<_> = by.iter().map(|seed| key(*seed)).collect();
        root.sign(&keys).unwrap().to_json().into_bytes()
    }

    #[test]
    fn two_of_three_offline_keys_make_a_trust_root_and_one_twice_does_not() {
        let wanted = root(1, &[1, 2, 3], 2);
        assert_eq!(TrustRoot::open(&signed(&wanted, &[3, 1])), Ok(wanted.clone()));
        for by in [&[1][..], &[1, 1], &[1, 8], &[]] {
            assert!(matches!(TrustRoot::open(&signed(&wanted, by)), Err(RootError::Threshold { .. })), "{by:?}");
        }
    }

    #[test]
    fn a_successor_has_the_next_version_and_its_predecessors_signatures() {
        let first = root(1, &[1, 2, 3], 2);
        let second = root(2, &[4, 5], 1);
        assert_eq!(first.succeed(&signed(&second, &[1, 2, 4])), Ok(second.clone()));
        assert!(matches!(first.succeed(&signed(&second, &[1, 4])), Err(RootError::Threshold { whose: "earlier", .. })));
        assert!(matches!(first.succeed(&signed(&second, &[1, 2])), Err(RootError::Threshold { whose: "listed", .. })));
        let skipped = root(3, &[1, 2, 3], 2);
        assert!(matches!(first.succeed(&signed(&skipped, &[1, 2])), Err(RootError::Succession { found: 3, .. })));
        assert!(matches!(first.succeed(&signed(&first, &[1, 2])), Err(RootError::Succession { found: 1, .. })));
        let other = TrustRoot { origin: "another".to_owned(), ..root(2, &[1, 2, 3], 2) };
        assert!(matches!(first.succeed(&signed(&other, &[1, 2])), Err(RootError::Succession { .. })));
    }

    #[test]
    fn a_trust_root_is_followed_through_whatever_else_was_published() {
        let first = signed(&root(1, &[1, 2], 2), &[1, 2]);
        let second = signed(&root(2, &[3], 1), &[1, 2, 3]);
        let other = TrustRoot { expires: "2031-01-31T00:00:00Z".to_owned(), ..root(2, &[3], 1) };
        let third = signed(&root(3, &[3], 1), &[3]);
        let mut followed = Followed::from(first.clone()).unwrap();
        for (text, taken) in [
            (b"junk".to_vec(), Taken::Aside),
            (signed(&root(2, &[8], 1), &[8]), Taken::Aside),
            (third.clone(), Taken::Aside),
            (first.clone(), Taken::Aside),
            (second.clone(), Taken::Followed),
            (second, Taken::Aside),
            (signed(&other, &[1, 2, 3]), Taken::Forked),
            (signed(&other, &[1, 3]), Taken::Aside),
            (third.clone(), Taken::Followed),
            (first, Taken::Aside),
        ] {
            assert_eq!(followed.take(&text), taken, "{}", String::from_utf8_lossy(&text));
        }
        assert_eq!(followed.newest(), (&root(3, &[3], 1), &third[..]));
        assert!(Followed::from(b"{}".to_vec()).is_err());
    }

    #[test]
    fn a_key_signs_its_range_of_indexes_and_nothing_outside() {
        let root = root(1, &[1], 1);
        let key = root.keys_of(Role::Attester).next().unwrap();
        assert!(key.covers(0) && key.covers(6) && !key.covers(7));
        assert_eq!(root.keys_of(Role::Log).count(), 0);
        assert!(!root.expired(1_800_000_000) && root.expired(1_900_000_000));
    }

    #[test]
    fn a_trust_root_that_breaks_a_rule_is_neither_signed_nor_read() {
        let good = root(1, &[1], 1);
        for bad in [
            TrustRoot { threshold: 0, ..good.clone() },
            TrustRoot { threshold: 2, ..good.clone() },
            TrustRoot { version: 0, ..good.clone() },
            TrustRoot { expires: "tomorrow".to_owned(), ..good.clone() },
            TrustRoot { origin: "a b".to_owned(), ..good.clone() },
            TrustRoot { witness_threshold: 1, ..good.clone() },
            root(1, &[1, 1], 1),
        ] {
            assert!(matches!(bad.sign(&[key(1)]), Err(RootError::Form(_))), "{bad:?}");
        }
        let text = |from: &str, to: &str| {
            let payload = String::from_utf8(good.sign(&[]).unwrap().payload).unwrap();
            assert!(payload.contains(from));
            Envelope::sign(PAYLOAD_TYPE, payload.replace(from, to).into_bytes(), &key(1)).to_json().into_bytes()
        };
        assert!(matches!(TrustRoot::open(&text("\"version\":1", "\"version\": 1")), Err(RootError::NotCanonical(_))));
        assert!(matches!(TrustRoot::open(&text("\"threshold\":1", "\"threshold\":0")), Err(RootError::Form(_))));
        assert!(matches!(TrustRoot::open(&text("attester", "anything")), Err(RootError::Form(_))));
        assert!(matches!(TrustRoot::open(&text("\"toIndex\":7", "\"toIndexx\":7")), Err(RootError::Form(_))));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_an_error_and_never_a_panic(bytes: Vec<u8>) {
            prop_assert!(TrustRoot::open(&bytes).is_err());
        }
    }
}
