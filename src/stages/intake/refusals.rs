//! What intake says about a chunk: counts, and for every refused row code, column, rule and shape.

use std::collections::BTreeMap;

use super::contract::CompiledContract;
use super::parts::Part;
use super::shape;
use crate::codec::formats::Decoded;
use crate::codec::sealed::UnsealError;
use crate::domain::contract::ExtraColumns;
use crate::domain::reason::Reason;
use crate::domain::records::{Count, QualitySums, Refusal};

/// Most column names that one refused chunk is told about.
const MAX_LISTED: usize = 20;
const MAX_SHOWN_NAME: usize = 64;

/// Why a chunk is refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Whole {
    pub reason: Reason,
    pub column: String,
    pub rule: String,
    pub expected: String,
    pub shape: String,
}

impl Whole {
    pub(super) fn new(reason: Reason, rule: &str, expected: String, shape: impl Into<String>) -> Self {
        Self { reason, column: String::new(), rule: rule.to_owned(), expected, shape: shape.into() }
    }

    /// A sealed payload that could not be opened.
    pub(super) fn sealed(error: &UnsealError) -> Self {
        let (reason, rule, expected) = match error {
            UnsealError::TooLarge(most) => (Reason::TooLarge, "limit", format!("at most {most} bytes")),
            UnsealError::UnknownKey => {
                (Reason::UnsealFailed, "sealed", "the id of the intake key that the model publishes".to_owned())
            }
            UnsealError::Seal(_) => (
                Reason::UnsealFailed,
                "sealed",
                "a payload sealed to that key for this contribution, contributor, model, contract, format and chunk"
                    .to_owned(),
            ),
        };
        Self::new(reason, rule, expected, error.to_string())
    }

    /// No such model, or no such contract of it.
    pub(super) fn unknown(reason: Reason) -> Self {
        let (rule, expected) = match reason {
            Reason::UnknownModel => ("model", "the name of a model that was applied"),
            _ => ("contract_digest", "a digest of one of the model's contracts, or none for the one in force"),
        };
        Self::new(reason, rule, expected.to_owned(), "unknown")
    }

    fn refusal(self) -> Refusal {
        Refusal {
            row: -1,
            code: self.reason.code().to_owned(),
            column: self.column,
            rule: self.rule,
            expected: self.expected,
            shape: self.shape,
            row_digest: String::new(),
        }
    }
}

/// What became of a chunk.
#[derive(Default)]
pub(super) struct Account {
    pub received: i64,
    /// Refused rows by code.
    pub refused: BTreeMap<String, i64>,
    /// In row order.
    pub refusals: Vec<Refusal>,
    /// Parts by shard.
    pub shards: Vec<(u32, Vec<Part>)>,
    pub quality: QualitySums,
    /// Cells by type.
    pub pii: BTreeMap<String, i64>,
    pub chunk_root: String,
    /// [`crate::domain::records::ChunkId::passed`].
    pub passed: String,
}

impl Account {
    /// All `received` rows are refused for one reason.
    pub(super) fn refused(whole: Whole, received: i64) -> Self {
        Self::refused_all(vec![whole], received)
    }

    /// All `received` rows are refused; the first of the reasons counts.
    pub(super) fn refused_all(wholes: Vec<Whole>, received: i64) -> Self {
        let counted = wholes.first().filter(|_| received > 0).map(|whole| (whole.reason.code().to_owned(), received));
        let refusals = wholes.into_iter().map(Whole::refusal).collect();
        Self { received, refused: counted.into_iter().collect(), refusals, ..Self::default() }
    }
}

/// Sorted counts without zeros.
pub(super) fn counts(counts: BTreeMap<String, i64>) -> Vec<Count> {
    counts.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| Count { name, count }).collect()
}

/// Bytes of a refusal in its record.
pub(super) fn size(refusal: &Refusal) -> usize {
    let texts = [&refusal.code, &refusal.column, &refusal.rule, &refusal.expected, &refusal.shape, &refusal.row_digest];
    texts.iter().map(|text| text.len() + 4).sum::<usize>() + 10
}

/// Columns that the contract does not name or that it misses, extra ones first: the order of the reasons.
pub(super) fn schema_faults(contract: &CompiledContract, decoded: &Decoded) -> Vec<Whole> {
    let spec = contract.spec();
    let mut faults = Vec::new();
    // Without one known column the names may be no names but the cells of a document without a header.
    let named = decoded.missing_columns.len() < spec.properties().len();
    for extra in &decoded.extra_columns {
        let leak = spec.leakage.iter().find(|leak| leak.column == *extra);
        if leak.is_none() && spec.extra_columns == ExtraColumns::Ignore {
            continue;
        }
        let shown = if leak.is_some() || (named && is_plain_name(extra)) { extra.clone() } else { String::new() };
        let (rule, expected) = match leak {
            Some(leak) => ("leakage", format!("no such column: {}", leak.reason)),
            None => ("schema", "only columns that the contract names".to_owned()),
        };
        let shape =
            if shown.is_empty() { format!("column named by a {}", shape::text(extra)) } else { "column".to_owned() };
        faults.push(Whole { column: shown, ..Whole::new(Reason::SchemaExtraColumn, rule, expected, shape) });
    }
    let extra = faults.len();
    for missing in &decoded.missing_columns {
        let Some(property) = spec.property(missing) else { continue };
        if property.required || spec.label.as_ref() == Some(missing) {
            let whole = Whole::new(Reason::SchemaMissingColumn, "schema", "this column".to_owned(), "no such column");
            faults.push(Whole { column: missing.clone(), ..whole });
        }
    }
    // Both kinds are worth reading; of many names a few will do.
    let (few_extra, few_missing) = (extra.min(MAX_LISTED), (faults.len() - extra).min(MAX_LISTED));
    faults.drain(extra + few_missing..);
    faults.drain(few_extra..extra);
    faults
}

/// A name that may be repeated: an identifier without a long number.
fn is_plain_name(name: &str) -> bool {
    let mut run = 0;
    let long_number = name.bytes().any(|b| {
        run = if b.is_ascii_digit() { run + 1 } else { 0 };
        run > 4
    });
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first
        && !long_number
        && name.len() <= MAX_SHOWN_NAME
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
