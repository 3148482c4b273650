//! A bundle: one attestation with all that an offline check needs but the trust root.
//!
//! ```json
//! {"mediaType":"application/vnd.hokusai.bundle.v1+json","envelope":{DSSE},"proof":"c2sp.org/tlog-proof@v1\n…"}
//! ```
//!
//! `proof` is a C2SP tlog-proof, the checkpoint in it. `consistency`, if it is there, proves that the tree head of an earlier
//! size is the beginning of this one: `{"from":SIZE,"path":[base64,…]}`. Leaf data is the envelope's payload, byte for byte.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::checkpoint::{CheckpointError, TlogProof};
use super::dsse::{DsseError, Envelope};
use super::tree::Hash;

/// Media type of bundles.
pub const MEDIA_TYPE: &str = "application/vnd.hokusai.bundle.v1+json";
/// Largest bundle that is read, in bytes.
pub const MAX_BYTES: usize = 2 << 20;
/// Hashes of a consistency proof: as many as a tree of 2^63 leaves may need.
const MAX_PATH: usize = 128;

/// Why a bundle was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Too large.
    #[error("the bundle has {0} bytes; at most {MAX_BYTES} are read")]
    TooLarge(usize),
    /// Not the JSON of a bundle.
    #[error("not a bundle: {0}")]
    Form(String),
    /// Its envelope.
    #[error(transparent)]
    Envelope(#[from] DsseError),
    /// Its proof or checkpoint.
    #[error(transparent)]
    Proof(#[from] CheckpointError),
}

/// That an earlier tree is the beginning of the bundle's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consistency {
    /// Leaves of the earlier tree.
    pub from: u64,
    /// The proof (RFC 9162 §2.1.4).
    pub path: Vec<Hash>,
}

/// One attestation with its proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The signed statement.
    pub envelope: Envelope,
    /// Where it stands in the log, and the tree head that covers it.
    pub proof: TlogProof,
    /// That an earlier tree head is the beginning of that one.
    pub consistency: Option<Consistency>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Json<'a> {
    #[serde(rename = "mediaType")]
    media_type: String,
    #[serde(borrow)]
    envelope: &'a RawValue,
    proof: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    consistency: Option<JsonConsistency>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonConsistency {
    from: u64,
    path: Vec<String>,
}

impl Bundle {
    /// The bundle as JSON, one line.
    ///
    /// # Errors
    /// [`BundleError::Form`]: a defect.
    pub fn to_json(&self) -> Result<String, BundleError> {
        let form = |e: serde_json::Error| BundleError::Form(e.to_string());
        let envelope = RawValue::from_string(self.envelope.to_json()).map_err(form)?;
        let consistency = self
            .consistency
            .as_ref()
            .map(|c| JsonConsistency { from: c.from, path: c.path.iter().map(|hash| STANDARD.encode(hash)).collect() });
        let (media_type, proof) = (MEDIA_TYPE.to_owned(), self.proof.to_string());
        serde_json::to_string(&Json { media_type, envelope: &envelope, proof, consistency }).map_err(form)
    }

    /// Reads a bundle. Nothing is verified yet.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, BundleError> {
        if bytes.len() > MAX_BYTES {
            return Err(BundleError::TooLarge(bytes.len()));
        }
        let place = |e: serde_json::Error| {
            BundleError::Form(format!(
                "line {}, column {}; help: its fields are mediaType, envelope, proof and, if it is there, consistency",
                e.line(),
                e.column()
            ))
        };
        let json: Json<'_> = serde_json::from_slice(bytes).map_err(place)?;
        if json.media_type != MEDIA_TYPE {
            return Err(BundleError::Form(format!("its mediaType is not {MEDIA_TYPE}")));
        }
        let hash = |text: &String| {
            let bytes = STANDARD.decode(text).ok();
            bytes.and_then(|b| b.try_into().ok()).ok_or_else(|| BundleError::Form("a hash that is none".to_owned()))
        };
        let consistency = match json.consistency {
            Some(c) if c.path.len() > MAX_PATH => {
                return Err(BundleError::Form("a consistency proof longer than any".to_owned()));
            }
            Some(c) => Some(Consistency { from: c.from, path: c.path.iter().map(hash).collect::<Result<_, _>>()? }),
            None => None,
        };
        Ok(Self {
            envelope: Envelope::from_json(json.envelope.get().as_bytes())?,
            proof: TlogProof::parse(json.proof.as_bytes())?,
            consistency,
        })
    }
}
