//! Strict JSON and its one serialisation (RFC 8785, JCS) for everything that is signed.
//!
//! JSON libraries round large integers and drop repeated keys without a word, so two parties could sign the
//! same bytes and read different things. Therefore the raw bytes are judged before anything parses them:
//!
//! - UTF-8 without a byte order mark, one value, nothing after it; at most [`MAX_BYTES`] and [`MAX_DEPTH`] levels;
//! - no key twice in an object (compared after unescaping), no lone surrogate, no unescaped control character;
//! - numbers are integers within ±(2^53 − 1), without fraction, exponent or leading zero, and not −0: fractions and larger
//!   numbers are decimal strings.

use std::collections::HashSet;

use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

/// Largest document that is admitted, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// Deepest nesting of arrays and objects that is admitted.
pub const MAX_DEPTH: usize = 32;
/// Largest magnitude of an integer: 2^53 − 1.
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// Why a document was refused. Positions are bytes from the start.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum JcsError {
    /// Longer than [`MAX_BYTES`].
    #[error("the document has {0} bytes, at most {MAX_BYTES} are admitted")]
    TooLarge(usize),
    /// Not UTF-8.
    #[error("the document is not UTF-8 at byte {0}")]
    NotUtf8(usize),
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("the document is nested deeper than {MAX_DEPTH} levels at byte {0}")]
    TooDeep(usize),
    /// Not JSON.
    #[error("the document is not JSON at byte {at}: {what}")]
    Syntax {
        /// Position of the fault.
        at: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// A key occurs twice in one object.
    #[error("a key is repeated in one object at byte {0}")]
    DuplicateKey(usize),
    /// A number that is no integer within ±(2^53 − 1).
    #[error(
        "the number at byte {0} is not an integer within ±(2^53 - 1)\nhelp: write fractions and larger numbers as decimal strings"
    )]
    Number(usize),
    /// Valid, but written in another way than JCS demands.
    #[error("the document is not in canonical form (RFC 8785)")]
    NotCanonical,
    /// A value of the program cannot be written as JSON.
    #[error("a value cannot be written as JSON: {0}")]
    Unwritable(String),
}

/// Checks that raw bytes are a document that everybody reads alike.
///
/// # Errors
/// [`JcsError`] names the rule and the position.
pub fn admit(raw: &[u8]) -> Result<&str, JcsError> {
    if raw.len() > MAX_BYTES {
        return Err(JcsError::TooLarge(raw.len()));
    }
    let text = std::str::from_utf8(raw).map_err(|error| JcsError::NotUtf8(error.valid_up_to()))?;
    let mut reader = Reader { raw, at: 0 };
    reader.value(0)?;
    reader.blank();
    if reader.at < raw.len() {
        return Err(reader.syntax("something follows the document"));
    }
    Ok(text)
}

/// The canonical form of an admitted document.
///
/// # Errors
/// [`JcsError`] if the document is not admitted.
pub fn canonicalise(raw: &[u8]) -> Result<Vec<u8>, JcsError> {
    let text = admit(raw)?;
    let value: Value = serde_json::from_str(text).map_err(|error| JcsError::Unwritable(error.to_string()))?;
    serialise(&value)
}

/// The canonical form of a value of the program, which must keep to the same rules.
///
/// # Errors
/// [`JcsError`] if the value holds a fraction or a number beyond ±(2^53 − 1).
pub fn to_canonical<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, JcsError> {
    // Plain JSON first: it keeps every digit, so that the admission sees what the canonicaliser would round.
    let plain = serde_json::to_vec(value).map_err(|error| JcsError::Unwritable(error.to_string()))?;
    canonicalise(&plain)
}

/// Admits a document that is already in canonical form, byte for byte: what a verifier demands.
///
/// # Errors
/// [`JcsError::NotCanonical`], or why it was not admitted.
pub fn admit_canonical(raw: &[u8]) -> Result<&str, JcsError> {
    let text = admit(raw)?;
    if canonicalise(raw)? == raw { Ok(text) } else { Err(JcsError::NotCanonical) }
}

fn serialise(value: &Value) -> Result<Vec<u8>, JcsError> {
    serde_json_canonicalizer::to_vec(value).map_err(|error| JcsError::Unwritable(error.to_string()))
}

struct Reader<'r> {
    raw: &'r [u8],
    at: usize,
}

impl Reader<'_> {
    fn syntax(&self, what: &'static str) -> JcsError {
        JcsError::Syntax { at: self.at, what }
    }

    fn peek(&self) -> Option<u8> {
        self.raw.get(self.at).copied()
    }

    fn blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let taken = self.peek() == Some(byte);
        self.at += usize::from(taken);
        taken
    }

    fn value(&mut self, depth: usize) -> Result<(), JcsError> {
        self.blank();
        match self.peek() {
            Some(b'{' | b'[') if depth == MAX_DEPTH => Err(JcsError::TooDeep(self.at)),
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1),
            Some(b'"') => self.string().map(drop),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            _ => Err(self.syntax("a value was expected")),
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), JcsError> {
        if !self.raw[self.at..].starts_with(word) {
            return Err(self.syntax("a value was expected"));
        }
        self.at += word.len();
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), JcsError> {
        self.at += 1;
        self.blank();
        if self.take(b']') {
            return Ok(());
        }
        loop {
            self.value(depth)?;
            self.blank();
            if self.take(b']') {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(self.syntax("`,` or `]` was expected"));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), JcsError> {
        self.at += 1;
        self.blank();
        let mut keys = HashSet::new();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.blank();
            let start = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.syntax("a key was expected"));
            }
            if !keys.insert(self.string()?) {
                return Err(JcsError::DuplicateKey(start));
            }
            self.blank();
            if !self.take(b':') {
                return Err(self.syntax("`:` was expected"));
            }
            self.value(depth)?;
            self.blank();
            if self.take(b'}') {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(self.syntax("`,` or `}` was expected"));
            }
        }
    }

    /// A string, unescaped.
    fn string(&mut self) -> Result<Vec<u8>, JcsError> {
        self.at += 1;
        let mut out = Vec::new();
        loop {
            let byte = self.peek().ok_or_else(|| self.syntax("a string does not end"))?;
            match byte {
                b'"' => {
                    self.at += 1;
                    return Ok(out);
                }
                b'\\' => self.escape(&mut out)?,
                0..=0x1f => return Err(self.syntax("a control character must be escaped")),
                _ => {
                    out.push(byte);
                    self.at += 1;
                }
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), JcsError> {
        let short = match self.raw.get(self.at + 1) {
            Some(b'u') => {
                let character = self.unicode()?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            Some(byte @ (b'"' | b'\\' | b'/')) => *byte,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            _ => return Err(self.syntax("an unknown escape")),
        };
        out.push(short);
        self.at += 2;
        Ok(())
    }

    /// `\uXXXX`, or two of them for a character beyond the basic plane.
    fn unicode(&mut self) -> Result<char, JcsError> {
        let first = self.unit()?;
        let unpaired = JcsError::Syntax { at: self.at, what: "a surrogate stands alone" };
        if !(0xd800..0xe000).contains(&first) {
            return char::from_u32(first).ok_or(unpaired);
        }
        if first >= 0xdc00 || !self.raw[self.at..].starts_with(b"\\u") {
            return Err(unpaired);
        }
        let second = self.unit()?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err(unpaired);
        }
        char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)).ok_or(unpaired)
    }

    fn unit(&mut self) -> Result<u32, JcsError> {
        let digits = self.raw.get(self.at + 2..self.at + 6).ok_or_else(|| self.syntax("an escape is cut short"))?;
        let mut unit = 0;
        for digit in digits {
            let value = char::from(*digit)
                .to_digit(16)
                .ok_or_else(|| self.syntax("an escape needs four hexadecimal digits"))?;
            unit = unit * 16 + value;
        }
        self.at += 6;
        Ok(unit)
    }

    fn number(&mut self) -> Result<(), JcsError> {
        let start = self.at;
        let negative = self.take(b'-');
        let first = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        let digits = &self.raw[first..self.at];
        if digits.is_empty() || digits.len() > 1 && digits[0] == b'0' {
            return Err(JcsError::Syntax { at: start, what: "a number is malformed" });
        }
        let value =
            digits.iter().try_fold(0_u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
        let integer = value.is_some_and(|value| value <= MAX_INTEGER && !(negative && value == 0));
        if !integer || matches!(self.peek(), Some(b'.' | b'e' | b'E')) {
            return Err(JcsError::Number(start));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn official_files_come_out_byte_for_byte() {
        macro_rules! file {
            ($name:literal) => {
                (
                    include_bytes!(concat!("../../tests/vectors/attestation/jcs/", $name, ".in.json")).as_slice(),
                    include_bytes!(concat!("../../tests/vectors/attestation/jcs/", $name, ".out.json")).as_slice(),
                )
            };
        }
        for (input, output) in [file!("arrays"), file!("french"), file!("structures")] {
            // The files may hold fractions, which the admission refuses: this tests the serialisation.
            let value: Value = serde_json::from_slice(input).unwrap();
            assert_eq!(serialise(&value).unwrap(), output.trim_ascii_end());
        }
    }

    #[test]
    fn numbers_are_written_as_ecmascript_writes_them() {
        let cases: Value =
            serde_json::from_str(include_str!("../../tests/vectors/attestation/jcs_numbers.json")).unwrap();
        for case in cases.as_array().unwrap() {
            let bits = u64::from_str_radix(case["ieee"].as_str().unwrap(), 16).unwrap();
            let Some(number) = serde_json::Number::from_f64(f64::from_bits(bits)) else { continue };
            assert_eq!(
                String::from_utf8(serialise(&Value::Number(number)).unwrap()).unwrap(),
                case["expected"].as_str().unwrap()
            );
        }
    }

    #[test]
    fn what_libraries_would_round_or_drop_is_refused() {
        let cases: Value =
            serde_json::from_str(include_str!("../../tests/vectors/attestation/jcs_must_reject.json")).unwrap();
        let listed = cases["raw"].as_array().unwrap().iter().map(|raw| raw.as_str().unwrap().as_bytes().to_vec());
        let ours = [
            "1.0",
            "-0",
            "01",
            "1e2",
            "-9007199254740992",
            "{\"a\":1,\"\\u0061\":1}",
            "[1,]",
            "{\"a\":1,}",
            "nul",
            "\"\u{1}\"",
            "\"\\udc00\\ud800\"",
            "1 2",
            "",
            "\u{feff}1",
            "\"\\x41\"",
            "[",
            "\"",
        ];
        for raw in listed.chain(ours.map(|raw| raw.as_bytes().to_vec())).chain([vec![b'"', 0xff, b'"']]) {
            assert!(admit(&raw).is_err(), "{:?}", String::from_utf8_lossy(&raw));
        }
    }

    #[test]
    fn size_and_depth_are_limited() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(admit(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(matches!(admit(nested(MAX_DEPTH + 1).as_bytes()), Err(JcsError::TooDeep(_))));
        assert!(matches!(admit(&vec![b' '; MAX_BYTES + 1]), Err(JcsError::TooLarge(_))));
    }

    #[test]
    fn a_verifier_accepts_the_canonical_form_only() {
        assert!(admit_canonical(br#"{"a":9007199254740991,"b":"\n"}"#).is_ok());
        for other in [r#"{"b":1,"a":1}"#, r#"{ "a":1}"#, r#"{"a":"\u0061"}"#] {
            assert_eq!(admit_canonical(other.as_bytes()), Err(JcsError::NotCanonical));
        }
        assert!(matches!(to_canonical(&0.5), Err(JcsError::Number(_))));
        assert!(matches!(to_canonical(&u64::MAX), Err(JcsError::Number(_))));
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-9_007_199_254_740_991_i64..=9_007_199_254_740_991).prop_map(Value::from),
            any::<String>().prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::hash_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect()))
            ]
        })
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_a_fixed_point_and_keeps_the_value(value in json()) {
            let bytes = to_canonical(&value).unwrap();
            prop_assert!(admit_canonical(&bytes).is_ok());
            prop_assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), value);
        }

        #[test]
        fn no_input_panics_and_what_is_admitted_parses(raw in "\\PC{0,40}|[\\[\\]{}\",:0-9a-f\\\\u. -]{0,40}") {
            if admit(raw.as_bytes()).is_ok() {
                prop_assert!(serde_json::from_str::<Value>(&raw).is_ok());
            }
        }
    }
}
