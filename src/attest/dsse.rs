//! DSSE envelopes: a payload, its type, and Ed25519 signatures over both (the protocol of secure-systems-lab/dsse, v1).
//!
//! What is signed is PAE(type, payload), so that a signature of one kind of payload is none of another kind. Key ids are
//! those of PyPI's securesystemslib, which verifies these envelopes out of the box. Ed25519 is deterministic: the same
//! payload and key give the same envelope.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Largest envelope that is read, in bytes of its JSON text.
pub const MAX_BYTES: usize = 900 * 1024;

/// Signatures that an envelope may bear.
pub const MAX_SIGNATURES: usize = 16;

/// Why an envelope cannot be read. Repeats no byte of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DsseError {
    /// Too large to be read.
    #[error("the envelope has {0} bytes; at most {MAX_BYTES} are read")]
    TooLarge(usize),
    /// Not a JSON object with exactly the fields of an envelope.
    #[error(
        "not a DSSE envelope (line {line}, column {column}); help: it has the fields payload, payloadType and signatures"
    )]
    Json {
        /// Line of the JSON text.
        line: usize,
        /// Column of the JSON text.
        column: usize,
    },
    /// The payload or a signature is not base64.
    #[error("the {0} is not base64")]
    Base64(&'static str),
    /// A signature is not 64 bytes long.
    #[error("a signature has {0} bytes; Ed25519 has 64")]
    SignatureLength(usize),
    /// More signatures than are looked at.
    #[error("{0} signatures; at most {MAX_SIGNATURES} are read")]
    TooManySignatures(usize),
}

/// One signature of an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvelopeSignature {
    /// Id of the key, as the envelope says: a hint, not a proof.
    pub keyid: String,
    /// The signature.
    pub signature: [u8; 64],
}

/// A signed payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Type of the payload: part of what is signed.
    pub payload_type: String,
    /// The payload.
    pub payload: Vec<u8>,
    /// Its signatures.
    pub signatures: Vec<EnvelopeSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<JsonSignature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonSignature {
    #[serde(default)]
    keyid: String,
    sig: String,
}

/// Id of an Ed25519 key: SHA-256 of securesystemslib's canonical JSON of the key, hex.
#[must_use]
pub fn key_id(key: &VerifyingKey) -> String {
    let public = data_encoding::HEXLOWER.encode(key.as_bytes());
    let json = format!(r#"{{"keytype":"ed25519","keyval":{{"public":"{public}"}},"scheme":"ed25519"}}"#);
    data_encoding::HEXLOWER.encode(&Sha256::digest(json.as_bytes()))
}

/// Pre-authentication encoding: what a signature is over.
#[must_use]
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

impl Envelope {
    /// Signs a payload.
    #[must_use]
    pub fn sign(payload_type: &str, payload: Vec<u8>, key: &SigningKey) -> Self {
        let signature = key.sign(&pae(payload_type, &payload)).to_bytes();
        let keyid = key_id(&key.verifying_key());
        Self {
            payload_type: payload_type.to_owned(),
            payload,
            signatures: vec![EnvelopeSignature { keyid, signature }],
        }
    }

    /// Whether the envelope bears a signature of this key. Strict: no malleable signature, no weak key.
    #[must_use]
    pub fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        let message = pae(&self.payload_type, &self.payload);
        self.signatures.iter().any(|s| key.verify_strict(&message, &Signature::from_bytes(&s.signature)).is_ok())
    }

    /// The envelope as canonical JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let text = |value: &str| serde_json::Value::from(value).to_string();
        let signature = |s: &EnvelopeSignature| {
            format!(r#"{{"keyid":{},"sig":"{}"}}"#, text(&s.keyid), STANDARD.encode(s.signature))
        };
        let signatures: Vec<_> = self.signatures.iter().map(signature).collect();
        format!(
            r#"{{"payload":"{}","payloadType":{},"signatures":[{}]}}"#,
            STANDARD.encode(&self.payload),
            text(&self.payload_type),
            signatures.join(",")
        )
    }

    /// Reads an envelope. Nothing is verified yet.
    ///
    /// # Errors
    /// [`DsseError`].
    pub fn from_json(text: &[u8]) -> Result<Self, DsseError> {
        if text.len() > MAX_BYTES {
            return Err(DsseError::TooLarge(text.len()));
        }
        let json: Json =
            serde_json::from_slice(text).map_err(|e| DsseError::Json { line: e.line(), column: e.column() })?;
        if json.signatures.len() > MAX_SIGNATURES {
            return Err(DsseError::TooManySignatures(json.signatures.len()));
        }
        let payload = STANDARD.decode(json.payload).map_err(|_| DsseError::Base64("payload"))?;
        let signatures = json.signatures.into_iter().map(|s| {
            let bytes = STANDARD.decode(s.sig).map_err(|_| DsseError::Base64("signature"))?;
            let signature = bytes.try_into().map_err(|b: Vec<u8>| DsseError::SignatureLength(b.len()))?;
            Ok(EnvelopeSignature { keyid: s.keyid, signature })
        });
        Ok(Self { payload_type: json.payload_type, payload, signatures: signatures.collect::<Result<_, _>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    #[test]
    fn the_encoding_that_is_signed_is_that_of_the_protocol() {
        let cases = include_str!("../../tests/vectors/attestation/dsse_pae.json");
        let cases: serde_json::Value = serde_json::from_str(cases).unwrap();
        for case in cases.as_array().unwrap() {
            let hex = |field: &str| data_encoding::HEXLOWER.decode(case[field].as_str().unwrap().as_bytes()).unwrap();
            assert_eq!(pae(case["type"].as_str().unwrap(), &hex("body_hex")), hex("pae_hex"));
        }
    }

    #[test]
    fn the_key_id_is_that_of_securesystemslib() {
        // The public key of RFC 8032, section 7.1, test 1; the id recomputed with Python's hashlib.
        let public =
            data_encoding::HEXLOWER.decode(b"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let key = VerifyingKey::from_bytes(&public.unwrap().try_into().unwrap()).unwrap();
        assert_eq!(key_id(&key), "74c181c7ad8a0855d4b55e44d2ba87aabdddb196832571f15f92fece332e4916");
    }

    #[test]
    fn an_envelope_is_verified_by_its_own_key_and_by_no_other() {
        let envelope = Envelope::from_json(Envelope::sign("t", b"x".to_vec(), &key(1)).to_json().as_bytes()).unwrap();
        assert!(envelope.is_signed_by(&key(1).verifying_key()));
        assert!(!envelope.is_signed_by(&key(2).verifying_key()));
    }

    #[test]
    fn another_payload_or_payload_type_breaks_the_signature() {
        let envelope = Envelope::sign("t", b"x".to_vec(), &key(1));
        let payload = Envelope { payload: b"y".to_vec(), ..envelope.clone() };
        let kind = Envelope { payload_type: "u".to_owned(), ..envelope };
        assert!(!payload.is_signed_by(&key(1).verifying_key()) && !kind.is_signed_by(&key(1).verifying_key()));
    }

    #[test]
    fn the_same_payload_and_key_give_the_same_bytes() {
        let sign = || Envelope::sign("t", b"x".to_vec(), &key(3)).to_json();
        assert_eq!(sign(), sign());
    }

    #[test]
    fn unknown_and_repeated_fields_are_refused() {
        for text in [
            r#"{"payload":"","payloadType":"t","signatures":[],"more":1}"#,
            r#"{"payload":"","payload":"","payloadType":"t","signatures":[]}"#,
            r#"{"payload":"","signatures":[]}"#,
            "[]",
        ] {
            assert!(matches!(Envelope::from_json(text.as_bytes()), Err(DsseError::Json { .. })), "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_envelope_reads_back_as_it_was_written(payload: Vec<u8>, payload_type in ".*") {
            let envelope = Envelope::sign(&payload_type, payload, &key(1));
            prop_assert_eq!(Envelope::from_json(envelope.to_json().as_bytes()).unwrap(), envelope);
        }

        #[test]
        fn arbitrary_bytes_are_an_error_and_never_a_panic(bytes: Vec<u8>) {
            let _ = Envelope::from_json(&bytes);
        }
    }
}
