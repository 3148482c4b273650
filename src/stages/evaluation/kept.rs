//! The full record of an evaluation as it is kept for the benchmark's owner: encrypted to the evaluation key, in the store.
//!
//! ```text
//! {"evaluationId":…,"record":{…},"salt":"…"}   canonical JSON, sealed with the info "hokusai/evaluation-record/v1" 00 ‖ evaluation id
//! ```

use serde::{Deserialize, Serialize};

use crate::attest::evaluation::withheld;
use crate::attest::figures::FullRecord;
use crate::domain::keys::{PublicKey, SealingKey};
use crate::stages::beside::Refusal;

/// Largest record that is read, encrypted.
pub const MAX_BYTES: u64 = 16 << 20;

/// A full record with the salt that its statement binds it by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Kept {
    /// The evaluation.
    pub evaluation_id: String,
    /// Every figure.
    pub record: FullRecord,
    /// 16 bytes, hex.
    pub salt: String,
}

impl Kept {
    /// What the statement of a refused attempt says of this record; none when the salt is no salt.
    #[must_use]
    pub fn withheld(&self) -> Option<String> {
        let salt: [u8; 16] = data_encoding::HEXLOWER.decode(self.salt.as_bytes()).ok()?.try_into().ok()?;
        Some(withheld(&salt, &self.record.to_canonical().ok()?))
    }
}

/// What binds a kept record to its evaluation.
#[must_use]
pub fn record_info(id: &str) -> Vec<u8> {
    [b"hokusai/evaluation-record/v1\0", id.as_bytes()].concat()
}

/// Encrypts the full record of an evaluation.
///
/// # Errors
/// A key that cannot be sealed to.
pub fn seal(to: &PublicKey, id: &str, salt: &[u8; 16], record: &FullRecord) -> Result<Vec<u8>, Refusal> {
    let unkept = |detail: String| Refusal::new("RECORD_UNKEPT", detail);
    let salt = data_encoding::HEXLOWER.encode(salt);
    let whole = Kept { evaluation_id: id.to_owned(), record: record.clone(), salt };
    let bytes = serde_json_canonicalizer::to_vec(&whole).map_err(|e| unkept(e.to_string()))?;
    to.seal(&record_info(id), &bytes).map_err(|e| unkept(e.to_string()))
}

/// Opens what is kept of an evaluation.
///
/// # Errors
/// Another key, another evaluation's record, or damage.
pub fn open(key: &SealingKey, id: &str, sealed: &[u8]) -> Result<Kept, Refusal> {
    let damaged = |detail: String| {
        let help = "help: restore it from a backup of the store; the key is evaluation-TENANT.key";
        Refusal::new("RECORD_DAMAGED", format!("the record that is kept of the evaluation: {detail}; {help}"))
    };
    let bytes = key.open(&record_info(id), sealed).map_err(|e| damaged(e.to_string()))?;
    let kept: Kept = serde_json::from_slice(&bytes).map_err(|_| damaged("it is of another form".to_owned()))?;
    if kept.evaluation_id != id {
        return Err(damaged("it is of another evaluation".to_owned()));
    }
    Ok(kept)
}
