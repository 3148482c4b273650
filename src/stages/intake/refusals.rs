//! What intake says about a chunk: counts, and for every refused row code, column, rule and shape.

use std::collections::BTreeMap;

use super::contract::CompiledContract;
use super::parts::Part;
use crate::attest::contributor::SignatureFault;
use crate::codec::formats::{self, Decoded};
use crate::codec::json;
use crate::codec::sealed::UnsealError;
use crate::domain::contract::{ExtraColumns, Flag, LogicalType};
use crate::domain::reason::Reason;
use crate::domain::records::{ColumnSums, Count, QualitySums, Refusal};
use crate::pii::Undeclared;

/// Most column names that one refused chunk is told about.
const MAX_LISTED: usize = 20;

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

    /// A signature that does not count.
    pub(super) fn signature(fault: SignatureFault) -> Self {
        let (reason, expected) = match fault {
            SignatureFault::Foreign => (
                Reason::SignatureForeign,
                "a contributor named by the key that signs: 0x and 40 hex digits, or ed25519: and 64; or no signature",
            ),
            SignatureFault::Form | SignatureFault::Forged => (
                Reason::SignatureInvalid,
                "the contributor's signature of this contribution, model, contract, format, chunk and payload",
            ),
        };
        Self::new(reason, "signature", expected.to_owned(), fault.to_string())
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
    /// [`crate::domain::records::ScreenedRows::refuse_label_conflicts`].
    pub refuse_label_conflicts: bool,
    /// [`crate::domain::records::Manifest::match_filters`].
    pub match_filters: Vec<String>,
    /// [`crate::domain::records::Manifest::collision_ppm`].
    pub collision_ppm: i64,
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

    /// The rows that nothing was wrong with are refused together; the first of the reasons counts.
    pub(super) fn refuse_rest(&mut self, wholes: Vec<Whole>) {
        let rest = self.received - self.refused.values().sum::<i64>();
        if let Some(first) = wholes.first() {
            *self.refused.entry(first.reason.code().to_owned()).or_default() += rest;
        }
        self.refusals.splice(0..0, wholes.into_iter().map(Whole::refusal));
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

/// Columns of personal data that the contract says nothing about, each with the lines that would settle it.
pub(super) fn undeclared(contract: &CompiledContract, columns: &[(usize, Undeclared)]) -> Vec<Whole> {
    let whole = |(column, found): &(usize, Undeclared)| {
        let (name, kind) = (contract.column_name(*column).to_owned(), found.kind.name());
        let is_text = contract.spec().property(&name).is_some_and(|p| p.logical_type == LogicalType::String);
        // A token is text: a column of numbers cannot hold any.
        let retyped = if is_text { "" } else { "logicalType: string, " };
        let expected = format!(
            "a line of the contract: {retyped}pii: {{policy: hash, type: {kind}}}, or pii: {{policy: none, reason: …}} \
             if it is no personal data"
        );
        let shape = format!("{} of {} cells are {kind}", found.matching, found.cells);
        Whole { column: name, ..Whole::new(Reason::PiiUndeclared, "pii", expected, shape) }
    };
    columns.iter().take(MAX_LISTED).map(whole).collect()
}

/// Columns that the contract does not name or that it misses, extra ones first: the order of the reasons.
pub(super) fn schema_faults(contract: &CompiledContract, decoded: &Decoded) -> Vec<Whole> {
    let spec = contract.spec();
    let mut faults = Vec::new();
    // Without one known column the names may be no names but the cells of a document without a header.
    let named = decoded.missing_columns.len() < spec.properties().len();
    for extra in &decoded.extra_columns {
        let leak = spec.leakage.iter().find(|leak| leak.column == *extra);
        let refused = leak.is_some() && spec.refuse.contains(&Flag::LeakageColumn);
        if !refused && spec.extra_columns == ExtraColumns::Ignore {
            continue;
        }
        let reason = if refused { Reason::LeakageColumn } else { Reason::SchemaExtraColumn };
        let shown = if leak.is_some() || (named && json::is_plain_name(extra)) { extra.clone() } else { String::new() };
        let (rule, expected) = match leak {
            Some(leak) => ("leakage", format!("no such column: {}", leak.reason)),
            None => ("schema", "only columns that the contract names".to_owned()),
        };
        let shape = if shown.is_empty() {
            format!("column named by a {}", formats::text_shape(extra))
        } else {
            "column".to_owned()
        };
        faults.push(Whole { column: shown, ..Whole::new(reason, rule, expected, shape) });
    }
    faults.sort_by_key(|fault| fault.reason);
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

/// Columns that tell the answer and that the contract lets pass: they were dropped, and their names stand in the sums, so that
/// the receipt remarks them.
pub(super) fn leaks(contract: &CompiledContract, decoded: &Decoded) -> QualitySums {
    let leaks = contract.spec().leakage.iter().map(|leak| &leak.column);
    let mut columns: Vec<_> = leaks
        .filter(|leak| decoded.extra_columns.contains(leak))
        .map(|leak| ColumnSums { column: leak.clone(), ..ColumnSums::default() })
        .collect();
    columns.sort_by(|a, b| a.column.cmp(&b.column));
    QualitySums { columns, ..QualitySums::default() }
}
