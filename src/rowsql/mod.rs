//! SQL of a contract: rules, features, training steps and metrics, each a result that follows from one row (and reference tables) alone.
//!
//! DataFusion plans and computes; what it may be asked is on lists of ours, and refused when the contract is applied, not when the first row
//! comes. Logarithms and powers are the pinned library's, so that a result has the same bits on every machine.
//!
//! | file | holds |
//! |---|---|
//! | [`allowed`] | functions, patterns and limits that all of it is held to |
//! | [`pinned`] | functions of the pinned mathematics library under their SQL names |
//! | [`expression`] | one expression, one number per row |
//! | [`measure`] | declared metrics: expressions over a sealed row and a model's score of it |
//! | [`features`] | SELECTs that add columns to rows, steps that filter training rows, reference tables |

use arrow::datatypes::{DataType, TimeUnit};

use crate::domain::contract::LogicalType;

pub(crate) mod allowed;
pub mod expression;
pub mod features;
pub mod measure;
pub(crate) mod pinned;

/// Zone of timestamps.
pub const UTC: &str = "UTC";

/// Arrow type of a logical type.
#[must_use]
pub fn arrow_type(logical: LogicalType) -> DataType {
    match logical {
        LogicalType::String => DataType::Utf8,
        LogicalType::Integer => DataType::Int64,
        LogicalType::Number => DataType::Float64,
        LogicalType::Boolean => DataType::Boolean,
        LogicalType::Date => DataType::Date32,
        LogicalType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
    }
}
