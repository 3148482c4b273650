//! Reason codes of refusals: the vocabulary a contributor reads in a receipt.

use std::fmt;
use std::str::FromStr;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $code:literal,)+) => {
        /// Why a row or a whole chunk was refused. The order is the order of the checks: the first failure is the reason.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[doc = $doc])+ $variant,)+ }

        impl Reason {
            /// Every reason, in the order of the checks.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)+];

            /// The code as it stands in records, receipts and metrics.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self { $(Reason::$variant => $code,)+ }
            }
        }

        impl FromStr for Reason {
            type Err = UnknownReason;
            fn from_str(code: &str) -> Result<Self, Self::Err> {
                match code { $($code => Ok(Reason::$variant),)+ _ => Err(UnknownReason) }
            }
        }
    };
}

/// A text that is no reason code of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a reason code of this version; help: `hokusai --version` of the writer may be newer")]
pub struct UnknownReason;

reasons! {
    /// The chunk, or the row, is beyond a limit.
    TooLarge = "TOO_LARGE",
    /// The record's key and its `contribution_id` differ.
    KeyMismatch = "KEY_MISMATCH",
    /// Several chunks, but no contribution id.
    IdMissing = "ID_MISSING",
    /// The contributor's name is no key that could have made the signature.
    SignatureForeign = "SIGNATURE_FOREIGN",
    /// The signature is none of this very chunk: forged, of other bytes, or taken from another place.
    SignatureInvalid = "SIGNATURE_INVALID",
    /// No such model.
    UnknownModel = "UNKNOWN_MODEL",
    /// The chunk names a contract digest that the model never had.
    UnknownContract = "UNKNOWN_CONTRACT",
    /// A sealed payload that the intake key does not open.
    UnsealFailed = "UNSEAL_FAILED",
    /// The payload is no document of a known format, or the format's name is unknown.
    ParseFormat = "PARSE_FORMAT",
    /// The payload is no valid JSON array of objects.
    ParseJson = "PARSE_JSON",
    /// The payload is no valid CSV document.
    ParseCsv = "PARSE_CSV",
    /// The payload is no valid Parquet file.
    ParseParquet = "PARSE_PARQUET",
    /// The payload is no valid Arrow IPC stream or file.
    ParseArrow = "PARSE_ARROW",
    /// The payload is no valid Avro object container file.
    ParseAvro = "PARSE_AVRO",
    /// A column that tells the answer, which the contract refuses.
    LeakageColumn = "LEAKAGE_COLUMN",
    /// A column that the contract does not name.
    SchemaExtraColumn = "SCHEMA_EXTRA_COLUMN",
    /// A column that the contract requires is not there.
    SchemaMissingColumn = "SCHEMA_MISSING_COLUMN",
    /// A value is not of its column's type.
    TypeMismatch = "TYPE_MISMATCH",
    /// A required value is null.
    NullRequired = "NULL_REQUIRED",
    /// A value below the column's minimum.
    RangeLow = "RANGE_LOW",
    /// A value above the column's maximum.
    RangeHigh = "RANGE_HIGH",
    /// A value that is not in the column's enumeration.
    EnumUnknown = "ENUM_UNKNOWN",
    /// A value that does not match the column's pattern.
    Pattern = "PATTERN",
    /// A rule over several columns does not hold.
    CrossField = "CROSS_FIELD",
    /// The label is null.
    LabelMissing = "LABEL_MISSING",
    /// A timestamp later than the record's append time and five minutes.
    TsFuture = "TS_FUTURE",
    /// The row stands in the benchmark.
    Contamination = "CONTAMINATION",
    /// Looks like personal data that the contract does not declare.
    PiiUndeclared = "PII_UNDECLARED",
    /// The row nearly repeats an earlier one of its chunk, which the contract refuses.
    NearDup = "NEAR_DUP",
    /// The same row stands earlier in the same contribution.
    DupInBatch = "DUP_IN_BATCH",
    /// The contributor's own row, from an earlier contribution.
    DupInPool = "DUP_IN_POOL",
    /// Another contributor was first.
    DupOtherOwner = "DUP_OTHER_OWNER",
    /// The row's features stand earlier with another label, which the contract refuses.
    LabelConflict = "LABEL_CONFLICT",
    /// The contribution id was used before with other content.
    IdReused = "ID_REUSED",
    /// The row passed, but its contribution was not admitted.
    NotAdmitted = "NOT_ADMITTED",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back_as_the_reason_it_was_written_for() {
        for reason in Reason::ALL {
            assert_eq!(reason.code().parse(), Ok(*reason));
        }
        assert_eq!("NO_SUCH_CODE".parse::<Reason>(), Err(UnknownReason));
    }
}
