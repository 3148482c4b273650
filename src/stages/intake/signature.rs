//! Whether a chunk bears a signature of its contributor.

use crate::attest::contributor::{Place, Scheme, SignatureFault, verify as verify_signature};
use crate::domain::records::Contribution;

/// How the contributor has signed the chunk as it was sent; none when it is not signed. `record_key` counts as its id when the value
/// has none.
///
/// # Errors
/// [`SignatureFault`]: a signature that does not hold refuses the chunk, for whoever signs wants it to count.
pub(super) fn verify(c: &Contribution, record_key: Option<&[u8]>) -> Result<Option<Scheme>, SignatureFault> {
    let Some(signature) = &c.signature else { return Ok(None) };
    let key = record_key.unwrap_or_default();
    let id = match &c.contribution_id {
        Some(id) => id,
        None => std::str::from_utf8(key).map_err(|_| SignatureFault::Form)?,
    };
    verify_signature(&Place::of(c, id), &c.payload, signature).map(Some)
}
