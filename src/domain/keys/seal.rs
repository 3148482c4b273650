//! Sealing to a public key: HPKE (RFC 9180), base mode, single shot.
//!
//! The suite is DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305 (ids 0x0020, 0x0001, 0x0003). What a sealed text
//! belongs to goes into HPKE's `info`, as RFC 9180 §8.1 asks of single-shot use: opened under another `info`, it does not
//! open. Each sealing takes a fresh ephemeral key, so the same text sealed twice gives different bytes.

use std::fmt;

use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_CHACHA20_POLY1305 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey};
use zeroize::Zeroizing;

use super::{KeyError, is_name};

/// Bytes of an X25519 key, public or private, and of the encapsulated key before the ciphertext.
pub const KEY_LEN: usize = 32;

/// Bytes that a sealed text has more than the text: the encapsulated key and the authentication tag.
pub const OVERHEAD: usize = KEY_LEN + 16;

/// Why a text could not be sealed or opened. Holds no byte of either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The public key is no X25519 key that can be sealed to.
    #[error("the public key is no X25519 key that can be sealed to")]
    Key,
    /// Shorter than what an empty text is sealed to.
    #[error("it is shorter than {OVERHEAD} bytes: no sealed text")]
    Short,
    /// Sealed to another key, for another purpose, or damaged: HPKE does not tell them apart.
    #[error("it was sealed to another key or for something else, or it is damaged")]
    Foreign,
}

/// A public key that can be sealed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    id: String,
    bytes: [u8; KEY_LEN],
}

impl PublicKey {
    /// A key as it is published: its id and 64 lower-case hexadecimal digits; none if they are not that.
    #[must_use]
    pub fn parse(id: &str, hex: &str) -> Option<Self> {
        let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).ok()?;
        Some(Self { id: is_name(id, 16).then(|| id.to_owned())?, bytes: bytes.try_into().ok()? })
    }

    /// Name of the key in its ring, for example `i1`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.bytes)
    }

    /// Seals a text: the encapsulated key (32 bytes), then the ciphertext with its tag (16 bytes more than the text).
    ///
    /// # Errors
    /// [`SealError::Key`] for bytes that are no point to agree with.
    pub fn seal(&self, info: &[u8], text: &[u8]) -> Result<Vec<u8>, SealError> {
        let key = HpkePublicKey(self.bytes.to_vec());
        let (EncapsulatedSecret(mut sealed), ciphertext) =
            SUITE.seal(info, &[], text, &key).map_err(|_| SealError::Key)?;
        sealed.extend(ciphertext);
        Ok(sealed)
    }
}

/// A key pair: what was sealed to its public part it opens.
pub struct SealingKey {
    public: PublicKey,
    private: HpkePrivateKey,
}

impl SealingKey {
    pub(super) fn generate(id: String) -> Result<Self, KeyError> {
        let (public, private) = SUITE.generate_key_pair().map_err(|error| KeyError::Randomness(error.to_string()))?;
        Self::assemble(id, public.0, private)
    }

    /// A new pair outside any ring, such as the one that sealed benchmarks are encrypted to.
    ///
    /// # Errors
    /// [`KeyError::Randomness`]; [`KeyError::Field`] for an id that is not 1 to 16 of `a-z 0-9 - _`.
    pub fn new(id: &str) -> Result<Self, KeyError> {
        Self::generate(id.to_owned())
    }

    /// The pair as one line, `ID PUBLIC PRIVATE` in hex, for a file that only its holder may read.
    #[must_use]
    pub fn to_line(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{} {} {}", self.public.id, self.public.hex(), self.private_hex().as_str()))
    }

    /// Reads what [`SealingKey::to_line`] wrote.
    ///
    /// # Errors
    /// [`KeyError::Field`].
    pub fn from_line(line: &str) -> Result<Self, KeyError> {
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some(id), Some(public), Some(private), None) => Self::parse(id, public, private),
            _ => Err(KeyError::Field { field: "pair", rule: "is not ID PUBLIC PRIVATE" }),
        }
    }

    /// Reads a stored pair.
    pub(super) fn parse(id: &str, public: &str, private: &str) -> Result<Self, KeyError> {
        let decode = |hex: &str, field| {
            let rule = "is not 64 lower-case hexadecimal digits";
            let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).ok().filter(|bytes| bytes.len() == KEY_LEN);
            bytes.ok_or(KeyError::Field { field, rule })
        };
        Self::assemble(id.to_owned(), decode(public, "public")?, HpkePrivateKey::from(decode(private, "private")?))
    }

    /// A pair that was checked: what is sealed to the one part opens with the other.
    fn assemble(id: String, public: Vec<u8>, private: HpkePrivateKey) -> Result<Self, KeyError> {
        let fault = |field, rule| KeyError::Field { field, rule };
        if !is_name(&id, 16) {
            return Err(fault("id", "is not 1 to 16 of a-z, 0-9, `-` and `_`"));
        }
        let bytes = public.try_into().map_err(|_| fault("public", "is not 32 bytes"))?;
        let pair = Self { public: PublicKey { id, bytes }, private };
        let probe = pair.public.seal(b"pair", b"");
        match probe.and_then(|sealed| pair.open(b"pair", &sealed)) {
            Ok(_) => Ok(pair),
            Err(_) => Err(fault("public", "is not the public part of its private key")),
        }
    }

    /// The part that may be published.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The private part as it is stored.
    pub(super) fn private_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(data_encoding::HEXLOWER.encode(self.private.secret_bytes()))
    }

    /// Opens what [`PublicKey::seal`] sealed to this key with the same `info`.
    ///
    /// # Errors
    /// [`SealError::Short`] or [`SealError::Foreign`].
    pub fn open(&self, info: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        if sealed.len() < OVERHEAD {
            return Err(SealError::Short);
        }
        let (encapsulated, ciphertext) = sealed.split_at_checked(KEY_LEN).ok_or(SealError::Short)?;
        let encapsulated = EncapsulatedSecret(encapsulated.to_vec());
        SUITE.open(&encapsulated, info, &[], ciphertext, &self.private).map_err(|_| SealError::Foreign)
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SealingKey({})", self.public.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_text_opens_with_its_key_and_for_its_purpose_alone() {
        let (key, other) = (SealingKey::generate("i1".into()).unwrap(), SealingKey::generate("i2".into()).unwrap());
        let sealed = key.public().seal(b"for a", b"text").unwrap();
        assert_eq!(sealed.len(), 4 + OVERHEAD);
        assert_eq!(key.open(b"for a", &sealed).unwrap(), b"text");
        assert_eq!(key.open(b"for b", &sealed), Err(SealError::Foreign));
        assert_eq!(other.open(b"for a", &sealed), Err(SealError::Foreign));
        assert_ne!(key.public().seal(b"for a", b"text").unwrap(), sealed, "the ephemeral key is fresh");
    }

    #[test]
    fn a_changed_or_cut_text_does_not_open() {
        let key = SealingKey::generate("i1".into()).unwrap();
        let sealed = key.public().seal(b"", b"text").unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            key.open(b"", &changed).unwrap_err();
            key.open(b"", &sealed[..at]).unwrap_err();
        }
        key.open(b"", &[0; OVERHEAD]).unwrap_err();
    }

    #[test]
    fn the_suite_is_the_one_of_the_rfc() {
        // RFC 9180, appendix A.2.1 (base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305), but with its
        // first encryption's associated data, which single-shot sealing does not use; hence the trait and not `open`.
        let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
        let enc = hex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a");
        let private = hex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb");
        let ciphertext =
            hex("1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28");
        let info = hex("4f6465206f6e2061204772656369616e2055726e");
        let opened =
            SUITE.open(&EncapsulatedSecret(enc), &info, b"Count-0", &ciphertext, &HpkePrivateKey::from(private));
        assert_eq!(opened.unwrap(), b"Beauty is truth, truth beauty");
    }

    #[test]
    fn a_pair_whose_parts_do_not_belong_together_is_refused() {
        let (a, b) = (SealingKey::generate("i1".into()).unwrap(), SealingKey::generate("i1".into()).unwrap());
        let error = SealingKey::parse("i1", &a.public().hex(), &b.private_hex()).unwrap_err();
        assert!(error.to_string().contains("not the public part"), "{error}");
        SealingKey::parse("i1", &a.public().hex(), &a.private_hex()).unwrap();
    }

    #[test]
    fn a_published_key_that_is_none_is_refused() {
        let hex = SealingKey::generate("i1".into()).unwrap().public().hex();
        assert_eq!(PublicKey::parse("i1", &hex).unwrap().hex(), hex);
        assert!(PublicKey::parse("", &hex).is_none() && PublicKey::parse("i1", &hex[2..]).is_none());
        let zero = PublicKey::parse("i1", &"0".repeat(64)).unwrap();
        assert_eq!(zero.seal(b"", b"text"), Err(SealError::Key), "a point of low order agrees with everybody");
    }
}
