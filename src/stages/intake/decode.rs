//! From a payload to rows of the contract's schema.

use super::Limits;
use super::contract::CompiledContract;
use super::refusals::Whole;
use crate::codec::canonical::CanonicalError;
use crate::codec::formats::{self, Decoded, Format, FormatError, RowReject};
use crate::domain::keys::ModelKeys;
use crate::domain::limits::MAX_NESTING;
use crate::domain::reason::Reason;
use crate::domain::records::{Contribution, Refusal};

/// The rows of a chunk.
///
/// # Errors
/// Why the chunk is refused as a whole.
pub(super) fn decode(
    contract: &CompiledContract,
    contribution: &Contribution,
    limits: &Limits,
) -> Result<Decoded, Whole> {
    let Ok(format) = contribution.format.parse::<Format>() else {
        let known = Format::ALL.map(Format::name).join(", ");
        return Err(Whole::new(Reason::ParseFormat, "format", format!("one of {known}"), "another format"));
    };
    let limits = formats::Limits {
        wire_bytes: limits.payload_bytes,
        decoded_bytes: limits.decoded_bytes,
        rows: limits.rows,
        depth: MAX_NESTING,
    };
    formats::decode(format, &contribution.payload, contract.schema(), &limits).map_err(whole)
}

fn whole(error: FormatError) -> Whole {
    let reason = error.reason();
    match error {
        FormatError::Parse { format, detail } => {
            Whole::new(reason, "document", format!("one complete {format} document"), detail)
        }
        FormatError::TooLarge { what, limit } => {
            Whole::new(reason, "limit", format!("at most {limit}"), format!("more {what}"))
        }
        FormatError::Target { .. } => {
            Whole::new(reason, "contract", "a type that documents are decoded to".to_owned(), "another type")
        }
    }
}

/// The refusals of rows that are not of the contract's types. Each has a digest over the cells that could be read and those
/// that could not.
pub(super) fn refusals(
    contract: &CompiledContract,
    keys: &ModelKeys,
    decoded: &Decoded,
) -> Result<Vec<Refusal>, CanonicalError> {
    if decoded.rejects.is_empty() {
        return Ok(Vec::new());
    }
    let cells = contract.encoder().encode(&decoded.rejected)?;
    let refused = |(reject, cells): (&RowReject, &[u8])| {
        refusal(reject, &keys.refused_row_digest(&[cells, reject.unfit.bytes()].concat()))
    };
    Ok(decoded.rejects.iter().zip(cells.iter()).map(refused).collect())
}

fn refusal(reject: &RowReject, digest: &[u8]) -> Refusal {
    Refusal {
        row: i64::from(reject.row),
        code: reject.reason.code().to_owned(),
        column: reject.column.clone(),
        rule: "type".to_owned(),
        expected: reject.expected.clone(),
        shape: reject.shape.clone(),
        row_digest: data_encoding::HEXLOWER.encode(digest),
    }
}
