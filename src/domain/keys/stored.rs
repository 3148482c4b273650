//! The key file, byte for byte.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::{
    Epoch, FORMAT_VERSION, KeyError, KeyRing, MAX_EPOCHS, MAX_PAIRS, MAX_TEXT, MacKey, SealingKey, Secret, is_name,
    token_key,
};

/// Unknown fields are refused: they may change what the keys mean.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    tenant: String,
    tokens: Vec<StoredEpoch>,
    dedup: String,
    tree: String,
    /// From version 2 on.
    #[serde(default)]
    intake: Vec<StoredPair>,
    /// From version 2 on.
    #[serde(default)]
    operator: Vec<StoredPair>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredEpoch {
    id: String,
    secret: String,
    /// From version 2 on: milliseconds UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dual_write_until: Option<i64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredPair {
    id: String,
    public: String,
    private: String,
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.tokens.iter_mut().for_each(|epoch| epoch.secret.zeroize());
        self.intake.iter_mut().chain(&mut self.operator).for_each(|pair| pair.private.zeroize());
        self.dedup.zeroize();
        self.tree.zeroize();
    }
}

/// Only the version, to tell a newer file from a damaged one.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl KeyRing {
    /// Reads the text that [`KeyRing::to_json`] wrote. Key pairs that an older version did not have are made:
    /// [`KeyRing::is_completed`].
    ///
    /// # Errors
    /// [`KeyError`] names the fault; a newer version than [`FORMAT_VERSION`] is refused.
    pub fn from_json(text: &str) -> Result<Self, KeyError> {
        if text.len() > MAX_TEXT {
            return Err(KeyError::Field { field: "tokens", rule: "make the file larger than 256 KiB" });
        }
        let fault = |error: serde_json::Error| KeyError::Malformed { line: error.line(), column: error.column() };
        let Version { version } = serde_json::from_str(text).map_err(fault)?;
        if version > FORMAT_VERSION {
            return Err(KeyError::Newer { found: version });
        }
        if version == 0 {
            return Err(KeyError::Field { field: "version", rule: "starts at 1" });
        }
        Self::assemble(&serde_json::from_str(text).map_err(fault)?)
    }

    /// The keys as JSON text, for a file that only the platform's user may read.
    pub fn to_json(&self) -> Zeroizing<String> {
        let epoch = |epoch: &Epoch| StoredEpoch {
            id: epoch.key.id().to_owned(),
            secret: epoch.secret.hex(),
            dual_write_until: epoch.dual_write_until,
        };
        let stored = Stored {
            version: FORMAT_VERSION,
            tenant: self.tenant.clone(),
            tokens: self.epochs.iter().map(epoch).collect(),
            dedup: self.dedup.hex(),
            tree: self.tree_secret.hex(),
            intake: self.intake.iter().map(StoredPair::of).collect(),
            operator: self.operator.iter().map(StoredPair::of).collect(),
        };
        // Strings and integers cannot fail to serialise.
        Zeroizing::new(serde_json::to_string_pretty(&stored).unwrap_or_default())
    }

    fn assemble(stored: &Stored) -> Result<Self, KeyError> {
        if !is_name(&stored.tenant, 64) {
            return Err(KeyError::Field { field: "tenant", rule: "is not 1 to 64 of a-z, 0-9, `-` and `_`" });
        }
        if stored.tokens.is_empty() || stored.tokens.len() > MAX_EPOCHS {
            return Err(KeyError::Field { field: "tokens", rule: "has no key, or more than 1,000" });
        }
        distinct(stored.tokens.iter().map(|epoch| epoch.id.as_str()))?;
        let epoch = |epoch: &StoredEpoch| {
            let secret = Secret::parse(&epoch.secret, "secret")?;
            let key = token_key(&stored.tenant, epoch.id.clone(), &secret)?;
            Ok(Epoch { key, secret, dual_write_until: epoch.dual_write_until })
        };
        let tree_secret = Secret::parse(&stored.tree, "tree")?;
        let completes = stored.version == 1;
        Ok(Self {
            tenant: stored.tenant.clone(),
            epochs: stored.tokens.iter().map(epoch).collect::<Result<_, KeyError>>()?,
            dedup: Secret::parse(&stored.dedup, "dedup")?,
            tree: MacKey::new(&tree_secret.0, ""),
            tree_secret,
            intake: pairs(&stored.intake, "intake", completes.then_some("i1"))?,
            operator: pairs(&stored.operator, "operator", completes.then_some("o1"))?,
            completed: completes,
        })
    }
}

impl StoredPair {
    fn of(pair: &SealingKey) -> Self {
        let public = pair.public();
        Self { id: public.id().to_owned(), public: public.hex(), private: pair.private_hex().to_string() }
    }
}

/// The key pairs of a kind; `first` is the id of the one that is made when there is none.
fn pairs(stored: &[StoredPair], field: &'static str, first: Option<&str>) -> Result<Vec<SealingKey>, KeyError> {
    distinct(stored.iter().map(|pair| pair.id.as_str()))?;
    match (stored.len(), first) {
        (0, Some(id)) => Ok(vec![SealingKey::generate(id.to_owned())?]),
        (0, None) => Err(KeyError::Field { field, rule: "has no key" }),
        (1..=MAX_PAIRS, _) => {
            stored.iter().map(|pair| SealingKey::parse(&pair.id, &pair.public, &pair.private)).collect()
        }
        _ => Err(KeyError::Field { field, rule: "has more than 200 keys" }),
    }
}

fn distinct<'a>(mut ids: impl Iterator<Item = &'a str>) -> Result<(), KeyError> {
    let mut seen = HashSet::new();
    match ids.all(|id| seen.insert(id)) {
        true => Ok(()),
        false => Err(KeyError::Field { field: "id", rule: "occurs twice" }),
    }
}
