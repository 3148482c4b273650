//! What is attested: in-toto statements (v1) of our own predicate types, in one form.
//!
//! A payload is the statement's canonical JSON (RFC 8785) of integers and texts alone. The reader takes exactly the bytes that
//! the writer makes: another spelling of the same statement, an unknown field or predicate type is refused, so that one
//! statement has one hash. Fractions stand as decimal integers in millionths (`…Ppm`).

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::attribution::Attribution;
use super::benchmark::BenchmarkDecision;
use super::decision::RegistryDecision;
use super::evaluation::{Outcome, Preregistration};
use super::jcs::{self, JcsError};
use super::predicate::{Contribution, KeyEvent};
use super::tree::{Hash, leaf_hash};

/// Payload type of the envelopes around statements.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// `_type` of a statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// Largest payload, in bytes: its envelope must fit into one record.
pub const MAX_BYTES: usize = 512 * 1024;
/// Algorithm name of a subject that is a contribution's Merkle root.
pub const ROW_TREE: &str = "hk-row-v1";

/// Why a payload is no statement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Too large.
    #[error("the statement has {0} bytes; at most {MAX_BYTES} are read")]
    TooLarge(usize),
    /// Not canonical JSON.
    #[error("the statement is not canonical: {0}")]
    NotCanonical(String),
    /// Another predicate type than those that this version knows.
    #[error("the statement's predicate is of a type that this version does not know")]
    UnknownPredicate,
    /// Canonical JSON, but not a statement of its type.
    #[error("the statement is malformed: {0}")]
    Form(String),
}

impl From<JcsError> for StatementError {
    fn from(error: JcsError) -> Self {
        Self::NotCanonical(error.to_string())
    }
}

/// What a statement is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Its name.
    pub name: String,
    /// Digests by algorithm: exactly one.
    pub digest: serde_json::Map<String, Value>,
}

impl Subject {
    /// A subject with one digest, in hex.
    #[must_use]
    pub fn new(name: String, algorithm: &str, digest: &[u8]) -> Self {
        let hex = Value::String(data_encoding::HEXLOWER.encode(digest));
        Self { name, digest: serde_json::Map::from_iter([(algorithm.to_owned(), hex)]) }
    }

    /// The digest of an algorithm, in hex.
    #[must_use]
    pub fn digest(&self, algorithm: &str) -> Option<&str> {
        self.digest.get(algorithm)?.as_str()
    }
}

/// What is said, by type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Predicate {
    /// Receipt of a contribution.
    Contribution(Box<Contribution>),
    /// A model's version came into being, or into a stage.
    Registry(Box<RegistryDecision>),
    /// A benchmark was sealed or retired.
    Benchmark(Box<BenchmarkDecision>),
    /// An attempt is laid down before it is scored.
    Preregistration(Box<Preregistration>),
    /// An attempt is over.
    Evaluation(Box<Outcome>),
    /// Who is credited with an accepted improvement.
    Attribution(Box<Attribution>),
    /// A key of the log begins or ends.
    KeyEvent(KeyEvent),
}

impl Predicate {
    /// The type's URI.
    #[must_use]
    pub fn uri(&self) -> &'static str {
        match self {
            Self::Contribution(_) => Contribution::TYPE,
            Self::Registry(_) => RegistryDecision::TYPE,
            Self::Benchmark(_) => BenchmarkDecision::TYPE,
            Self::Preregistration(_) => Preregistration::TYPE,
            Self::Evaluation(_) => Outcome::TYPE,
            Self::Attribution(_) => Attribution::TYPE,
            Self::KeyEvent(_) => KeyEvent::TYPE,
        }
    }
}

/// A statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// What it is about.
    pub subject: Subject,
    /// What it says.
    pub predicate: Predicate,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Json<P> {
    #[serde(rename = "_type")]
    kind: String,
    predicate: P,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    subject: Vec<Subject>,
}

impl Statement {
    /// The payload: canonical JSON.
    ///
    /// # Errors
    /// When a number or text has no canonical form, or the statement is too large.
    pub fn payload(&self) -> Result<Vec<u8>, StatementError> {
        let payload = match &self.predicate {
            Predicate::Contribution(predicate) => self.write(predicate)?,
            Predicate::Registry(predicate) => self.write(predicate)?,
            Predicate::Benchmark(predicate) => self.write(predicate)?,
            Predicate::Preregistration(predicate) => self.write(predicate)?,
            Predicate::Evaluation(predicate) => self.write(predicate)?,
            Predicate::Attribution(predicate) => self.write(predicate)?,
            Predicate::KeyEvent(predicate) => self.write(predicate)?,
        };
        if payload.len() > MAX_BYTES { Err(StatementError::TooLarge(payload.len())) } else { Ok(payload) }
    }

    fn write<P: Serialize>(&self, predicate: &P) -> Result<Vec<u8>, StatementError> {
        Ok(jcs::to_canonical(&Json {
            kind: STATEMENT_TYPE.to_owned(),
            predicate,
            predicate_type: self.predicate.uri().to_owned(),
            subject: vec![self.subject.clone()],
        })?)
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`StatementError`].
    pub fn read(payload: &[u8]) -> Result<Self, StatementError> {
        if payload.len() > MAX_BYTES {
            return Err(StatementError::TooLarge(payload.len()));
        }
        let text = jcs::admit_canonical(payload)?;
        #[derive(Deserialize)]
        struct Probe {
            #[serde(rename = "predicateType")]
            predicate_type: String,
        }
        let probe: Probe = serde_json::from_str(text).map_err(form)?;
        let statement = match probe.predicate_type.as_str() {
            Contribution::TYPE => Self::typed(text, |p| Predicate::Contribution(Box::new(p)))?,
            RegistryDecision::TYPE => Self::typed(text, |p| Predicate::Registry(Box::new(p)))?,
            BenchmarkDecision::TYPE => Self::typed(text, |p| Predicate::Benchmark(Box::new(p)))?,
            Preregistration::TYPE => Self::typed(text, |p| Predicate::Preregistration(Box::new(p)))?,
            Outcome::TYPE => Self::typed(text, |p| Predicate::Evaluation(Box::new(p)))?,
            Attribution::TYPE => Self::typed(text, |p| Predicate::Attribution(Box::new(p)))?,
            KeyEvent::TYPE => Self::typed(text, Predicate::KeyEvent)?,
            _ => return Err(StatementError::UnknownPredicate),
        };
        if let Predicate::Evaluation(told) = &statement.predicate
            && let Err(field) = told.restated()
        {
            return Err(StatementError::Form(format!("`{field}` says something else than the rest of the statement")));
        }
        let about = match &statement.predicate {
            Predicate::Preregistration(said) => Some(&said.candidate.digest),
            Predicate::Evaluation(said) => Some(&said.candidate.digest),
            Predicate::Attribution(said) => Some(&said.candidate),
            _ => None,
        };
        if about.is_some_and(|digest| statement.subject.digest("sha256") != Some(digest)) {
            return Err(StatementError::Form("its subject is another artefact than the candidate".to_owned()));
        }
        // Also what a lenient reader would let pass, such as a null for a field that is left out, has one form only.
        if statement.payload()? != payload {
            return Err(StatementError::NotCanonical("not the form that this statement is written in".to_owned()));
        }
        Ok(statement)
    }

    fn typed<P: DeserializeOwned>(text: &str, wrap: impl FnOnce(P) -> Predicate) -> Result<Self, StatementError> {
        let json: Json<P> = serde_json::from_str(text).map_err(form)?;
        let [subject] = <[Subject; 1]>::try_from(json.subject)
            .map_err(|subjects| StatementError::Form(format!("{} subjects where one is due", subjects.len())))?;
        let digests: Vec<_> = subject.digest.values().filter_map(Value::as_str).collect();
        let hex = |text: &&str| text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if json.kind != STATEMENT_TYPE || subject.digest.len() != 1 || !digests.iter().all(hex) || digests.len() != 1 {
            return Err(StatementError::Form("its subject has one digest of 64 hex digits".to_owned()));
        }
        Ok(Self { subject, predicate: wrap(json.predicate) })
    }
}

fn form(error: serde_json::Error) -> StatementError {
    // The text of the library may repeat a value; where it is wrong is enough.
    StatementError::Form(format!("at byte {} a field is missing, unknown or of another type", error.column()))
}

/// SHA-256 of a payload: the statement's hash, `attestationHash` on chain.
#[must_use]
pub fn statement_hash(payload: &[u8]) -> [u8; 32] {
    Sha256::digest(payload).into()
}

/// Leaf of a payload in the log.
#[must_use]
pub fn leaf_of(payload: &[u8]) -> Hash {
    leaf_hash(payload)
}

#[cfg(test)]
mod tests {
    use super::super::predicate::tests::{contribution, key_event};
    use super::*;

    fn statements() -> [Statement; 5] {
        use super::super::attribution::tests::attribution;
        use super::super::evaluation::tests::{outcome, preregistration};
        let candidate = || Subject::new("m evaluation e".to_owned(), "sha256", &[6; 32]);
        [
            Statement {
                subject: Subject::new("contribution c-1".to_owned(), ROW_TREE, &[7; 32]),
                predicate: Predicate::Contribution(Box::new(contribution())),
            },
            Statement {
                subject: Subject::new("log".to_owned(), "sha256", &[8; 32]),
                predicate: Predicate::KeyEvent(key_event()),
            },
            Statement { subject: candidate(), predicate: Predicate::Preregistration(Box::new(preregistration())) },
            Statement { subject: candidate(), predicate: Predicate::Evaluation(Box::new(outcome())) },
            Statement { subject: candidate(), predicate: Predicate::Attribution(Box::new(attribution())) },
        ]
    }

    #[test]
    fn a_statement_reads_back_and_has_one_hash() {
        for statement in statements() {
            let payload = statement.payload().unwrap();
            assert_eq!(Statement::read(&payload).unwrap(), statement);
            assert_ne!(leaf_of(&payload), statement_hash(&payload), "a leaf is tagged");
        }
    }

    #[test]
    fn the_bytes_of_a_statement_are_frozen() {
        let payloads = statements().map(|s| String::from_utf8(s.payload().unwrap()).unwrap()).join("\n");
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/src/attest/statements.jsonl");
        if std::env::var_os("HOKUSAI_BLESS").is_some() {
            std::fs::write(golden, format!("{payloads}\n")).unwrap();
        }
        assert_eq!(format!("{payloads}\n"), std::fs::read_to_string(golden).unwrap());
    }

    #[test]
    fn another_form_another_type_and_unknown_fields_are_refused() {
        let payload = String::from_utf8(statements()[0].payload().unwrap()).unwrap();
        for bad in [
            payload.replace("{\"_type\"", "{ \"_type\""),
            payload.replace("Statement/v1", "Statement/v2"),
            payload.replace("/contribution/v1", "/contribution/v9"),
            payload.replace("\"model\"", "\"modell\""),
            payload.replace("\"received\":3", "\"received\":3.0"),
            payload.replace("\"received\":3", "\"received\":\"3\""),
            payload.replace("hk-row-v1\":\"07", "hk-row-v1\":\"0G"),
            payload.replace("\"subject\":[", "\"subject\":[{\"digest\":{},\"name\":\"\"},"),
            format!("{payload}\n"),
        ] {
            assert!(Statement::read(bad.as_bytes()).is_err(), "{bad}");
            assert_ne!(bad, payload);
        }
        assert_eq!(
            Statement::read(payload.replace("/contribution/v1", "/minting/v1").as_bytes()),
            Err(StatementError::UnknownPredicate)
        );
    }
}
