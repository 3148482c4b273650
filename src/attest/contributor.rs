//! Signatures of contributors over the chunks that they send.
//!
//! A contributor whose name *is* a key can sign: `0x` and 40 hex digits (an Ethereum address, EIP-191 signatures by secp256k1), or
//! `ed25519:` and 64 hex digits. What is signed is this text of ten lines, joined by `\n`, without one at the end:
//!
//! ```text
//! hokusai contribution v1
//! contribution_id: c-1
//! contributor: 0x52908400098527886e0f7030069857d2e4169ee7
//! model: flight-delay
//! contract_digest:
//! format: csv
//! chunk: 0
//! chunks: 1
//! sealed: i1
//! payload_sha256: 64 hex digits
//! ```
//!
//! A field that is not sent is empty, its line then ends with `: `; the id is the value's, else the record's key. The payload is
//! the bytes that are sent: ciphertext when it is sealed, the text of `rows` as it stands in a JSON record. So nothing can be
//! guessed from a signature beside a sealed payload, and a signature is good for one place only: another contribution, model,
//! chunk or payload is another text. No field can forge a line: control characters are refused in all of them.
//!
//! `signature` is `ed25519:` and base64 of the 64 bytes (RFC 8032), or `eip191:0x` and hex of r ‖ s ‖ v (`personal_sign`; v 27
//! or 28, low s as EIP-2 demands it).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use secp256k1::{Message, PublicKey, SecretKey};
use sha2::{Digest as _, Sha256};
use sha3::Keccak256;

use crate::domain::records::Contribution;

/// What a signature is over, besides the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// Id of the contribution; empty when it is derived.
    pub contribution_id: &'a str,
    /// The contributor's name.
    pub contributor: &'a str,
    /// Model that the rows are for.
    pub model: &'a str,
    /// Contract that the chunk names; empty for none.
    pub contract_digest: &'a str,
    /// Format of the payload.
    pub format: &'a str,
    /// Number of the chunk.
    pub chunk: i64,
    /// How many chunks there are.
    pub chunks: i64,
    /// Intake key that the payload is sealed to; empty for none.
    pub sealed: &'a str,
}

impl<'a> Place<'a> {
    /// The place of a chunk that goes under an id.
    #[must_use]
    pub fn of(chunk: &'a Contribution, contribution_id: &'a str) -> Self {
        Self {
            contribution_id,
            contributor: &chunk.contributor,
            model: &chunk.model,
            contract_digest: chunk.contract_digest.as_deref().unwrap_or_default(),
            format: &chunk.format,
            chunk: chunk.chunk,
            chunks: chunk.chunks,
            sealed: chunk.sealed.as_deref().unwrap_or_default(),
        }
    }
}

/// Why a signature does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFault {
    /// The contributor's name is no key, or one of another kind.
    #[error("the contributor's name is no key that signs in this way")]
    Foreign,
    /// Not the form of a signature.
    #[error("no signature of a form that is known")]
    Form,
    /// It is not a signature of this text by this contributor.
    #[error("a signature of another text or by another key")]
    Forged,
}

/// How a contributor signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Ed25519 over the text.
    Ed25519,
    /// secp256k1 over the text as EIP-191 (version 0x45, `personal_sign`) has it.
    Eip191,
}

impl Scheme {
    /// Its name in signatures, manifests and receipts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::Eip191 => "eip191",
        }
    }
}

/// The text that is signed.
#[must_use]
pub fn message(place: &Place<'_>, payload: &[u8]) -> String {
    let Place { contribution_id, contributor, model, contract_digest, format, chunk, chunks, sealed } = place;
    let digest = HEXLOWER.encode(&Sha256::digest(payload));
    format!(
        "hokusai contribution v1\ncontribution_id: {contribution_id}\ncontributor: {contributor}\nmodel: {model}\n\
         contract_digest: {contract_digest}\nformat: {format}\nchunk: {chunk}\nchunks: {chunks}\nsealed: {sealed}\n\
         payload_sha256: {digest}"
    )
}

/// Checks a signature against the contributor's name.
///
/// # Errors
/// [`SignatureFault`].
pub fn verify(place: &Place<'_>, payload: &[u8], signature: &str) -> Result<Scheme, SignatureFault> {
    let texts =
        [place.contribution_id, place.contributor, place.model, place.contract_digest, place.format, place.sealed];
    if texts.iter().any(|text| text.chars().any(char::is_control)) {
        return Err(SignatureFault::Form);
    }
    let message = message(place, payload);
    if let Some(encoded) = signature.strip_prefix("ed25519:") {
        let key = ed25519_key(place.contributor).ok_or(SignatureFault::Foreign)?;
        let bytes = STANDARD.decode(encoded).ok().and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
        let signature = ed25519_dalek::Signature::from_bytes(&bytes.ok_or(SignatureFault::Form)?);
        key.verify_strict(message.as_bytes(), &signature).map_err(|_| SignatureFault::Forged)?;
        return Ok(Scheme::Ed25519);
    }
    let hex = signature.strip_prefix("eip191:0x").ok_or(SignatureFault::Form)?;
    let address = address_of_name(place.contributor).ok_or(SignatureFault::Foreign)?;
    let bytes = HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok().and_then(|bytes| <[u8; 65]>::try_from(bytes).ok());
    let recovered = recover(&message, &bytes.ok_or(SignatureFault::Form)?)?;
    if recovered == address { Ok(Scheme::Eip191) } else { Err(SignatureFault::Forged) }
}

/// The address whose key made an EIP-191 signature.
fn recover(message: &str, signature: &[u8; 65]) -> Result<[u8; 20], SignatureFault> {
    let ([compact @ .., _], v) = (signature, signature[64]);
    let recovery = match v {
        0 | 27 => RecoveryId::Zero,
        1 | 28 => RecoveryId::One,
        _ => return Err(SignatureFault::Form),
    };
    let signature = RecoverableSignature::from_compact(compact, recovery).map_err(|_| SignatureFault::Form)?;
    // The other s of a signature is a second signature of the same text: only one of the two is taken.
    let (standard, mut low) = (signature.to_standard(), signature.to_standard());
    low.normalize_s();
    if standard != low {
        return Err(SignatureFault::Form);
    }
    let key = secp256k1::Secp256k1::verification_only().recover_ecdsa(eip191(message), &signature);
    key.map(|key| address(&key)).map_err(|_| SignatureFault::Forged)
}

fn eip191(message: &str) -> Message {
    let mut hasher = Keccak256::new();
    hasher.update(format!("\x19Ethereum Signed Message:\n{}", message.len()));
    hasher.update(message);
    Message::from_digest(hasher.finalize().into())
}

fn address(key: &PublicKey) -> [u8; 20] {
    let mut address = [0; 20];
    // An uncompressed key has a byte of form in front.
    let hash = Keccak256::digest(&key.serialize_uncompressed()[1..]);
    address.copy_from_slice(&hash[12..]);
    address
}

/// The address that a contributor's name is; letters count in either case.
#[must_use]
pub fn address_of_name(name: &str) -> Option<[u8; 20]> {
    HEXLOWER_PERMISSIVE.decode(name.strip_prefix("0x")?.as_bytes()).ok()?.try_into().ok()
}

fn ed25519_key(name: &str) -> Option<VerifyingKey> {
    let bytes = HEXLOWER.decode(name.strip_prefix("ed25519:")?.as_bytes()).ok()?;
    VerifyingKey::from_bytes(&bytes.try_into().ok()?).ok().filter(|key| !key.is_weak())
}

/// A contributor's own key.
#[derive(Clone)]
pub enum ContributorKey {
    /// Ed25519.
    Ed25519(SigningKey),
    /// A wallet's.
    Wallet(SecretKey),
}

impl std::fmt::Debug for ContributorKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ContributorKey").field(&self.name()).finish()
    }
}

impl ContributorKey {
    /// A wallet's key from its 64 hex digits, with or without `0x`.
    #[must_use]
    pub fn wallet(hex: &str) -> Option<Self> {
        let hex = hex.trim();
        let bytes = HEXLOWER_PERMISSIVE.decode(hex.strip_prefix("0x").unwrap_or(hex).as_bytes()).ok()?;
        SecretKey::from_byte_array(bytes.try_into().ok()?).ok().map(Self::Wallet)
    }

    /// The contributor's name that this key is.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Ed25519(key) => format!("ed25519:{}", HEXLOWER.encode(key.verifying_key().as_bytes())),
            Self::Wallet(key) => {
                let key = PublicKey::from_secret_key(&secp256k1::Secp256k1::signing_only(), key);
                format!("0x{}", HEXLOWER.encode(&address(&key)))
            }
        }
    }

    /// The signature of a chunk; deterministic (RFC 8032, RFC 6979).
    #[must_use]
    pub fn sign(&self, place: &Place<'_>, payload: &[u8]) -> String {
        let message = message(place, payload);
        match self {
            Self::Ed25519(key) => format!("ed25519:{}", STANDARD.encode(key.sign(message.as_bytes()).to_bytes())),
            Self::Wallet(key) => {
                let context = secp256k1::Secp256k1::signing_only();
                let (recovery, bytes) = context.sign_ecdsa_recoverable(eip191(&message), key).serialize_compact();
                let v = if recovery == RecoveryId::One { "1c" } else { "1b" };
                format!("eip191:0x{}{v}", HEXLOWER.encode(&bytes))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAYLOAD: &[u8] = b"a,b\n1,2\n";
    /// The key of all ones, and the address that eth-account gives for it.
    const WALLET: &str = "0x1111111111111111111111111111111111111111111111111111111111111111";
    const ADDRESS: &str = "0x19e7e376e7c213b7e7e7e46cc70a5dd086daff2a";

    fn place(contributor: &str) -> Place<'_> {
        Place {
            contribution_id: "c-1",
            contributor,
            model: "flight-delay",
            contract_digest: "",
            format: "csv",
            chunk: 0,
            chunks: 1,
            sealed: "",
        }
    }

    fn keys() -> [ContributorKey; 2] {
        [ContributorKey::Ed25519(SigningKey::from_bytes(&[7; 32])), ContributorKey::wallet(WALLET).unwrap()]
    }

    #[test]
    fn a_signature_is_good_for_its_own_chunk_and_for_no_other() {
        for key in keys() {
            let name = key.name();
            let good = place(&name);
            let signature = key.sign(&good, PAYLOAD);
            assert!(verify(&good, PAYLOAD, &signature).is_ok(), "{signature}");
            let others = [
                Place { contribution_id: "c-2", ..good },
                Place { model: "another", ..good },
                Place { contract_digest: "d", ..good },
                Place { format: "json", ..good },
                Place { chunk: 1, chunks: 2, ..good },
                Place { chunks: 2, ..good },
                Place { sealed: "i1", ..good },
            ];
            for other in others {
                assert_eq!(verify(&other, PAYLOAD, &signature), Err(SignatureFault::Forged), "{other:?}");
            }
            assert_eq!(verify(&good, b"a,b\n1,3\n", &signature), Err(SignatureFault::Forged));
        }
    }

    #[test]
    fn a_signature_counts_for_the_contributor_whose_name_is_its_key_alone() {
        let [ed25519, wallet] = keys();
        let signed = |key: &ContributorKey, name: &str| verify(&place(name), PAYLOAD, &key.sign(&place(name), PAYLOAD));
        assert_eq!(signed(&wallet, ADDRESS), Ok(Scheme::Eip191));
        let checksummed = "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A";
        assert_eq!(signed(&wallet, checksummed), Ok(Scheme::Eip191), "letters count in either case");
        assert_eq!(signed(&wallet, "0x52908400098527886e0f7030069857d2e4169ee7"), Err(SignatureFault::Forged));
        assert_eq!(signed(&wallet, "UA"), Err(SignatureFault::Foreign));
        assert_eq!(signed(&wallet, &ed25519.name()), Err(SignatureFault::Foreign));
        assert_eq!(signed(&ed25519, ADDRESS), Err(SignatureFault::Foreign));
        assert_eq!(signed(&ed25519, &format!("ed25519:{}", "00".repeat(32))), Err(SignatureFault::Foreign));
    }

    #[test]
    fn the_second_s_of_a_signature_is_refused() {
        let [_, wallet] = keys();
        let text = wallet.sign(&place(ADDRESS), PAYLOAD);
        let mut bytes = HEXLOWER.decode(text.strip_prefix("eip191:0x").unwrap().as_bytes()).unwrap();
        // s becomes n − s, and the other point is meant.
        let order = HEXLOWER.decode(b"fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").unwrap();
        let mut borrow = 0_i16;
        for at in (0..32).rev() {
            let difference = i16::from(order[at]) - i16::from(bytes[32 + at]) - borrow;
            borrow = i16::from(difference < 0);
            bytes[32 + at] = (difference & 0xff) as u8;
        }
        bytes[64] ^= 0x1b ^ 0x1c;
        let second = format!("eip191:0x{}", HEXLOWER.encode(&bytes));
        assert_eq!(verify(&place(ADDRESS), PAYLOAD, &second), Err(SignatureFault::Form));
    }

    #[test]
    fn a_name_with_a_line_break_cannot_forge_a_line() {
        let [ed25519, _] = keys();
        let name = ed25519.name();
        let forged = Place { model: "m\nformat: csv", ..place(&name) };
        assert_eq!(verify(&forged, PAYLOAD, &ed25519.sign(&forged, PAYLOAD)), Err(SignatureFault::Form));
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        for text in ["", "ed25519:", "ed25519:AAAA", "eip191:", "eip191:0x00", "rsa:AA"] {
            let name = keys()[0].name();
            let at = if text.starts_with("eip") { ADDRESS } else { &name };
            assert_eq!(verify(&place(at), PAYLOAD, text), Err(SignatureFault::Form), "{text}");
        }
        let zeros = format!("eip191:0x{}1b", "00".repeat(64));
        assert!(verify(&place(ADDRESS), PAYLOAD, &zeros).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_signatures_are_an_error_and_never_a_panic(bytes: [u8; 65], text in ".*") {
            let signature = format!("eip191:0x{}", HEXLOWER.encode(&bytes));
            prop_assert!(verify(&place(ADDRESS), PAYLOAD, &signature).is_err());
            prop_assert!(verify(&place(ADDRESS), PAYLOAD, &text).is_err());
        }
    }
}
