//! Signed notes (C2SP `signed-note`): a text with signature lines, each of a named Ed25519 key.
//!
//! ```text
//! text, one line or more
//!
//! — key name base64(u32be(key id) ‖ signature)
//! ```
//!
//! Key id = first four bytes of SHA-256(name ‖ 0x0A ‖ algorithm ‖ public key). Algorithm 0x01 signs the text; 0x04 is a
//! witness's cosignature (C2SP `tlog-cosignature`), which signs `cosignature/v1\ntime SECONDS\n` ‖ text and carries the seconds
//! (u64be) before its signature. A verifier ignores lines of keys that it does not know, and refuses a bad signature of one that
//! it knows.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

/// Largest note that is read, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;
/// Signature lines that a note may bear.
pub const MAX_SIGNATURES: usize = 32;
/// Longest name of a key, in bytes.
pub const MAX_NAME: usize = 256;

/// What a signature line begins with.
const DASH: &str = "\u{2014} ";

/// Why a note was refused. Repeats no byte of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Too large to be read.
    #[error("the note has {0} bytes; at most {MAX_BYTES} are read")]
    TooLarge(usize),
    /// Not the form of a signed note.
    #[error("not a signed note: {0}")]
    Form(&'static str),
    /// No line of a key that is trusted with it.
    #[error("no signature of the key {0}")]
    Unsigned(String),
    /// A line of a known key that does not verify.
    #[error("the signature of the key {0} does not verify")]
    Forged(String),
}

/// What a key of a note signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// The text: a log.
    Log,
    /// The text and the time: a witness.
    Witness,
}

impl Algorithm {
    fn byte(self) -> u8 {
        match self {
            Self::Log => 1,
            Self::Witness => 4,
        }
    }
}

/// A named public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteKey {
    /// Its name.
    pub name: String,
    /// What it signs.
    pub algorithm: Algorithm,
    /// The key.
    pub key: VerifyingKey,
}

/// A name that may stand in a note: no space, no plus, no control character.
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+')
}

impl NoteKey {
    /// The key's id.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        let mut hasher = Sha256::new();
        hasher.update(self.name.as_bytes());
        hasher.update([b'\n', self.algorithm.byte()]);
        hasher.update(self.key.as_bytes());
        let hash: [u8; 32] = hasher.finalize().into();
        hash.first_chunk().copied().unwrap_or_default()
    }

    /// The key as one text, which other verifiers of signed notes take: `name+id+base64(algorithm ‖ key)`.
    #[must_use]
    pub fn vkey(&self) -> String {
        let key = [&[self.algorithm.byte()], &self.key.as_bytes()[..]].concat();
        format!("{}+{}+{}", self.name, data_encoding::HEXLOWER.encode(&self.id()), STANDARD.encode(key))
    }

    /// Reads [`NoteKey::vkey`].
    ///
    /// # Errors
    /// [`NoteError::Form`].
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let wrong = NoteError::Form("a key is NAME+ID+BASE64");
        let (name, rest) = text.split_once('+').filter(|(name, _)| is_name(name)).ok_or(wrong.clone())?;
        let (id, key) = rest.split_once('+').ok_or(wrong.clone())?;
        let bytes = STANDARD.decode(key).map_err(|_| wrong.clone())?;
        let (algorithm, key) = match bytes.split_first() {
            Some((1, key)) => (Algorithm::Log, key),
            Some((4, key)) => (Algorithm::Witness, key),
            _ => return Err(NoteError::Form("a key of an algorithm that is not known")),
        };
        let key = <[u8; 32]>::try_from(key).ok().and_then(|key| VerifyingKey::from_bytes(&key).ok());
        let key = key.filter(|key| !key.is_weak()).ok_or(NoteError::Form("no Ed25519 public key"))?;
        let key = Self { name: name.to_owned(), algorithm, key };
        if data_encoding::HEXLOWER.encode(&key.id()) == id { Ok(key) } else { Err(NoteError::Form("another key's id")) }
    }
}

/// A signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    name: String,
    id: [u8; 4],
    signature: Vec<u8>,
}

/// A note whose signatures are not verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    lines: Vec<Line>,
}

impl Note {
    /// Signs a text, which ends with a newline, as a log.
    ///
    /// # Errors
    /// [`NoteError::Form`] for a text or a name that cannot stand in a note.
    pub fn sign(text: &str, name: &str, key: &SigningKey) -> Result<Self, NoteError> {
        check_text(text)?;
        if !is_name(name) {
            return Err(NoteError::Form("the key's name has a space, a plus or a control character"));
        }
        let id = NoteKey { name: name.to_owned(), algorithm: Algorithm::Log, key: key.verifying_key() }.id();
        let signature = key.sign(text.as_bytes()).to_bytes().to_vec();
        Ok(Self { text: text.to_owned(), lines: vec![Line { name: name.to_owned(), id, signature }] })
    }

    /// Adds a witness's cosignature as of a time (seconds since 1970-01-01 UTC).
    pub fn cosign(&mut self, name: &str, key: &SigningKey, seconds: u64) {
        let id = NoteKey { name: name.to_owned(), algorithm: Algorithm::Witness, key: key.verifying_key() }.id();
        let signature = key.sign(cosigned(&self.text, seconds).as_bytes()).to_bytes();
        let signature = [&seconds.to_be_bytes()[..], &signature].concat();
        self.lines.push(Line { name: name.to_owned(), id, signature });
    }

    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Reads a note. Nothing is verified yet.
    ///
    /// # Errors
    /// [`NoteError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > MAX_BYTES {
            return Err(NoteError::TooLarge(bytes.len()));
        }
        let note = std::str::from_utf8(bytes).map_err(|_| NoteError::Form("not UTF-8"))?;
        let at = note.rfind("\n\n").ok_or(NoteError::Form("no empty line before the signatures"))?;
        let (text, signatures) = (&note[..=at], &note[at + 2..]);
        check_text(text)?;
        let signatures = signatures.strip_suffix('\n').ok_or(NoteError::Form("the last line does not end"))?;
        let lines = signatures.split('\n').take(MAX_SIGNATURES + 1).map(line).collect::<Result<Vec<_>, _>>()?;
        if lines.len() > MAX_SIGNATURES {
            return Err(NoteError::Form("too many signatures"));
        }
        Ok(Self { text: text.to_owned(), lines })
    }

    /// Checks the signature of a key; for a witness returns its time, for a log 0.
    ///
    /// # Errors
    /// [`NoteError::Unsigned`] without a line of the key, [`NoteError::Forged`] when one does not verify.
    pub fn verify(&self, key: &NoteKey) -> Result<u64, NoteError> {
        let id = key.id();
        let of_key = |line: &&Line| line.name == key.name && line.id == id;
        let mut time = None;
        for line in self.lines.iter().filter(of_key) {
            time = Some(self.verify_line(line, key).ok_or_else(|| NoteError::Forged(key.name.clone()))?);
        }
        time.ok_or_else(|| NoteError::Unsigned(key.name.clone()))
    }

    fn verify_line(&self, line: &Line, key: &NoteKey) -> Option<u64> {
        let (time, signature) = match key.algorithm {
            Algorithm::Log => (0, &line.signature[..]),
            Algorithm::Witness => {
                let (time, signature) = line.signature.split_first_chunk::<8>()?;
                (u64::from_be_bytes(*time), signature)
            }
        };
        let message = match key.algorithm {
            Algorithm::Log => self.text.clone(),
            Algorithm::Witness => cosigned(&self.text, time),
        };
        let signature = Signature::from_bytes(signature.try_into().ok()?);
        key.key.verify_strict(message.as_bytes(), &signature).ok().map(|()| time)
    }
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.text)?;
        for line in &self.lines {
            let signature = [&line.id[..], &line.signature].concat();
            writeln!(f, "{DASH}{} {}", line.name, STANDARD.encode(signature))?;
        }
        Ok(())
    }
}

fn cosigned(text: &str, seconds: u64) -> String {
    format!("cosignature/v1\ntime {seconds}\n{text}")
}

fn check_text(text: &str) -> Result<(), NoteError> {
    if !text.ends_with('\n') || text.len() < 2 {
        return Err(NoteError::Form("the text does not end with a newline"));
    }
    if text.chars().any(|c| c.is_control() && c != '\n') {
        return Err(NoteError::Form("a control character in the text"));
    }
    Ok(())
}

fn line(text: &str) -> Result<Line, NoteError> {
    let wrong = NoteError::Form("a signature line is \u{2014} NAME BASE64");
    let (name, encoded) = text.strip_prefix(DASH).and_then(|rest| rest.split_once(' ')).ok_or(wrong.clone())?;
    let bytes = STANDARD.decode(encoded).map_err(|_| wrong.clone())?;
    let (id, signature) = bytes.split_first_chunk::<4>().ok_or(wrong.clone())?;
    if !is_name(name) || signature.is_empty() {
        return Err(wrong);
    }
    Ok(Line { name: name.to_owned(), id: *id, signature: signature.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn public(name: &str, algorithm: Algorithm, seed: u8) -> NoteKey {
        NoteKey { name: name.to_owned(), algorithm, key: key(seed).verifying_key() }
    }

    #[test]
    fn notes_and_cosignatures_of_another_implementation_verify() {
        let cases = include_str!("../../tests/vectors/attestation/tlog_proof.json");
        let cases: serde_json::Value = serde_json::from_str(cases).unwrap();
        for case in cases.as_array().unwrap() {
            let text = case["checkpoint"].as_str().unwrap();
            let note = Note::parse(text.as_bytes()).unwrap();
            assert_eq!(note.to_string(), text);
            let log = NoteKey::parse(case["log_vkey"].as_str().unwrap()).unwrap();
            let witness = NoteKey::parse(case["witness_vkey"].as_str().unwrap()).unwrap();
            assert_eq!(log.vkey(), case["log_vkey"]);
            assert_eq!(note.verify(&log), Ok(0));
            assert!(note.verify(&witness).unwrap() > 1_700_000_000);
            let stranger = NoteKey { key: key(1).verifying_key(), ..log };
            assert!(matches!(note.verify(&stranger), Err(NoteError::Unsigned(_))));
        }
    }

    #[test]
    fn a_changed_text_or_time_breaks_its_signature() {
        let mut note = Note::sign("a\nb\n", "log", &key(1)).unwrap();
        note.cosign("witness", &key(2), 7);
        let (log, witness) = (public("log", Algorithm::Log, 1), public("witness", Algorithm::Witness, 2));
        assert_eq!((note.verify(&log), note.verify(&witness)), (Ok(0), Ok(7)));
        let other = Note { text: "a\nc\n".to_owned(), ..note.clone() };
        assert!(matches!(other.verify(&log), Err(NoteError::Forged(_))));
        note.lines[1].signature[7] ^= 1;
        assert!(matches!(note.verify(&witness), Err(NoteError::Forged(_))));
    }

    #[test]
    fn a_log_key_is_no_witness_key() {
        let note = Note::sign("a\n", "log", &key(1)).unwrap();
        assert!(matches!(note.verify(&public("log", Algorithm::Witness, 1)), Err(NoteError::Unsigned(_))));
    }

    #[test]
    fn what_is_no_note_is_refused() {
        let good = Note::sign("a\n", "log", &key(1)).unwrap().to_string();
        for bad in [
            "",
            "a\n",
            "a\n\n",
            &good[..good.len() - 1],
            &good.replace('\u{2014}', "-"),
            &good.replace("log ", "l+g "),
            &good.replace('a', "\u{1}"),
            &format!("{good}\n"),
            &format!("{good}{}", good.lines().last().unwrap().repeat(2)),
        ] {
            assert!(Note::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        let lines = format!("{good}{}", format!("{}\n", good.lines().last().unwrap()).repeat(MAX_SIGNATURES));
        assert_eq!(Note::parse(lines.as_bytes()), Err(NoteError::Form("too many signatures")));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_an_error_and_never_a_panic(bytes: Vec<u8>, text in ".*") {
            let _ = (Note::parse(&bytes), Note::parse(text.as_bytes()), NoteKey::parse(&text));
        }
    }
}
