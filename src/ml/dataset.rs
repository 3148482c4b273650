//! A training set: accepted rows in canonical order, and the digest that names it.
//!
//! Rows are sorted by their canonical row hash, so neither arrival, partitions nor batch borders show; the digest is the root of the RFC 6962 tree
//! over the hashes. [`Recipe`] binds it to all else that the model's bytes depend on.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::interleave;
use arrow::datatypes::FieldRef;
use arrow::error::ArrowError;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::attest::jcs::{JcsError, to_canonical};
use crate::attest::tree::{CompactRange, Hash};
use crate::domain::contract::learning::Split;
use crate::ml::derivation::Derivation;
use crate::ml::encoding::Declared;
use crate::ml::search::Search;

/// Column of the canonical row hash in batches of accepted rows.
pub const ROW_HASH: &str = "_row_hash";
/// Version of the learners: a change that alters the bytes of any model raises it.
pub const CODE: &str = "hokusai-ml/1";

/// Why rows are no training set.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// No rows.
    #[error("no accepted rows\nhelp: contribute rows first, or ask for a later `as_of`")]
    Empty,
    /// The batches have no row hashes of 16 bytes.
    #[error("the column {ROW_HASH} of 16-byte hashes is missing, or has gaps")]
    Hashes,
    /// Two rows have one hash, which deduplication rules out.
    #[error("two rows have the hash {0}: the accepted rows were not deduplicated")]
    Twice(String),
    /// Batches of different columns.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

/// Rows to learn from.
#[derive(Debug)]
pub struct Dataset {
    /// Every row once, in the order of the hashes.
    pub rows: RecordBatch,
    /// Root over the hashes.
    pub root: Hash,
    /// First eight bytes of each hash, big-endian: see [`Training::row_keys`](crate::ml::Training).
    pub row_keys: Vec<u64>,
}

impl Dataset {
    /// The rows of these batches, which have the same columns. Column by column: beside the rows and their sorted form one column
    /// lies in memory twice, once its batches share no buffer with others.
    ///
    /// # Errors
    /// No rows, no hashes, a hash twice, batches that differ.
    pub fn assemble(batches: Vec<RecordBatch>) -> Result<Self, DatasetError> {
        let Some(schema) = batches.first().map(RecordBatch::schema) else { return Err(DatasetError::Empty) };
        if batches.iter().any(|batch| batch.schema() != schema) {
            return Err(ArrowError::SchemaError("the batches have different columns".to_owned()).into());
        }
        let order = sorted(&batches)?;
        let mut tree = CompactRange::new();
        for (hash, _) in &order {
            tree.append(&hash.to_be_bytes());
        }
        let row_keys = order.iter().map(|(hash, _)| (hash >> 64) as u64).collect();
        let places: Vec<(usize, usize)> =
            order.into_iter().map(|(_, (batch, row))| (batch as usize, row as usize)).collect();
        let mut sources: Vec<_> = batches.into_iter().map(|batch| batch.into_parts().1.into_iter()).collect();
        let column = |_: &FieldRef| {
            let parts: Vec<ArrayRef> = sources.iter_mut().filter_map(Iterator::next).collect();
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            interleave(&parts, &places)
        };
        let columns = schema.fields().iter().map(column).collect::<Result<_, _>>()?;
        Ok(Self { rows: RecordBatch::try_new(schema, columns)?, root: tree.root(), row_keys })
    }
}

/// A row's hash, and its batch and place there.
type Found = (u128, (u32, u32));

/// Every row in the order of the hashes.
fn sorted(batches: &[RecordBatch]) -> Result<Vec<Found>, DatasetError> {
    let mut order = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
    for (number, batch) in (0..).zip(batches) {
        let hashes = batch.column_by_name(ROW_HASH).and_then(|column| column.as_fixed_size_binary_opt());
        let hashes = hashes.filter(|hashes| hashes.value_length() == 16 && hashes.null_count() == 0);
        let hashes = hashes.ok_or(DatasetError::Hashes)?;
        let hash = |bytes: &[u8]| bytes.iter().fold(0, |hash, &byte| hash << 8 | u128::from(byte));
        order.extend((0..).zip(hashes.iter().flatten()).map(|(row, bytes)| (hash(bytes), (number, row))));
    }
    if order.is_empty() {
        return Err(DatasetError::Empty);
    }
    order.sort_unstable();
    match order.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(DatasetError::Twice(data_encoding::HEXLOWER.encode(&pair[0].0.to_be_bytes()))),
        None => Ok(order),
    }
}

/// Everything that the bytes of a model depend on. No offset, path or time is in it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recipe {
    /// Root of the training set, hex.
    pub dataset: String,
    /// Column of the label.
    pub label: String,
    /// Encoding of the features, in order.
    pub encoding: Vec<Declared>,
    /// What SQL does before, with the digests of its tables; not there where it does nothing.
    #[serde(skip_serializing_if = "Derivation::is_empty")]
    pub derivation: Derivation,
    /// How the validation fold is cut, where not row by row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<Split>,
    /// Learner.
    pub algorithm: String,
    /// Its complete parameters.
    #[serde(serialize_with = "exactly")]
    pub parameters: Value,
    /// Search over parameters, if any.
    #[serde(serialize_with = "exactly")]
    pub search: Option<Search>,
    /// Seed, decimal: JSON numbers hold 53 bits.
    pub seed: String,
    /// Version that the model is compared with, if any.
    pub base_version: Option<String>,
    /// Version of the learners, [`CODE`].
    pub code: &'static str,
    /// SHA-256 of what an external trainer answered, hex; none of own learners.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}

/// Fractions as decimal strings, as in everything that is signed (see [`jcs`](crate::attest::jcs)); 1.0 is 1.
fn exactly<T: Serialize, S: serde::Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serde_json::to_value(value).map(plain).map_err(serde::ser::Error::custom)?.serialize(serializer)
}

fn plain(value: Value) -> Value {
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(whole) if whole.fract() == 0.0 && whole.abs() < 9e15 => Value::from(whole as i64),
            Some(fraction) => Value::String(fraction.to_string()),
            None => Value::String(number.to_string()),
        },
        Value::Array(items) => items.into_iter().map(plain).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, plain(value))).collect(),
        other => other,
    }
}

impl Recipe {
    /// SHA-256 of the recipe's canonical JSON (RFC 8785): the name of its run.
    ///
    /// # Errors
    /// A number that JSON cannot hold.
    pub fn digest(&self) -> Result<Hash, JcsError> {
        Ok(Sha256::digest(to_canonical(self)?).into())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, FixedSizeBinaryArray, Int64Array};
    use proptest::prelude::*;

    use super::*;
    use crate::attest::tree::{leaf_hash, root};

    fn batch(hashes: &[u128]) -> RecordBatch {
        let bytes = hashes.iter().map(|hash| hash.to_be_bytes());
        let column = FixedSizeBinaryArray::try_from_iter(bytes).unwrap();
        let value = Int64Array::from_iter_values(hashes.iter().map(|&hash| (hash >> 70) as i64));
        RecordBatch::try_from_iter([(ROW_HASH, Arc::new(column) as ArrayRef), ("x", Arc::new(value))]).unwrap()
    }

    proptest! {
        #[test]
        fn neither_the_order_of_arrival_nor_batch_borders_show_in_a_training_set(
            hashes in prop::collection::hash_set(any::<u128>(), 1..60), cut in any::<prop::sample::Index>()
        ) {
            let mut hashes: Vec<u128> = hashes.into_iter().collect();
            let whole = Dataset::assemble(vec![batch(&hashes)]).unwrap();
            let cut = cut.index(hashes.len());
            hashes.rotate_left(cut);
            let (left, right) = hashes.split_at(cut);
            let parts: Vec<RecordBatch> =
                [right, left].into_iter().filter(|part| !part.is_empty()).map(batch).collect();
            let parts = Dataset::assemble(parts).unwrap();
            prop_assert_eq!(&whole.rows, &parts.rows);
            prop_assert_eq!((whole.root, &whole.row_keys), (parts.root, &parts.row_keys));
            hashes.sort_unstable();
            let leaves: Vec<Hash> = hashes.iter().map(|hash| leaf_hash(&hash.to_be_bytes())).collect();
            prop_assert_eq!(whole.root, root(&leaves));
            prop_assert!(whole.row_keys.iter().zip(&hashes).all(|(&key, &hash)| key == (hash >> 64) as u64));
        }
    }

    #[test]
    fn rows_without_hashes_and_rows_that_come_twice_are_refused() {
        assert!(matches!(Dataset::assemble(Vec::new()), Err(DatasetError::Empty)));
        assert!(matches!(Dataset::assemble(vec![batch(&[7]).project(&[1]).unwrap()]), Err(DatasetError::Hashes)));
        let narrow = batch(&[8]).project(&[0]).unwrap();
        assert!(matches!(Dataset::assemble(vec![batch(&[7]), narrow]), Err(DatasetError::Arrow(_))));
        assert!(matches!(Dataset::assemble(vec![batch(&[7, 3]), batch(&[7])]), Err(DatasetError::Twice(_))));
    }

    #[test]
    fn the_digest_of_a_recipe_depends_on_its_content_and_not_on_the_order_of_its_parameters() {
        let recipe = |parameters: &str, seed: &str| Recipe {
            dataset: "00".into(),
            label: "late".into(),
            encoding: vec![Declared { column: "x".into(), encode: crate::ml::encoding::Encode::Number }],
            derivation: Derivation::default(),
            validation: None,
            algorithm: "trees".into(),
            parameters: serde_json::from_str(parameters).unwrap(),
            search: None,
            seed: seed.into(),
            base_version: None,
            code: CODE,
            answer: None,
        };
        let digest = |parameters, seed| recipe(parameters, seed).digest().unwrap();
        let one = digest(r#"{"leaves": 31, "lambda": 1.0, "learning_rate": 0.1}"#, "18446744073709551615");
        assert_eq!(one, digest(r#"{"learning_rate": 0.1, "lambda": 1, "leaves": 31}"#, "18446744073709551615"));
        assert_ne!(one, digest(r#"{"learning_rate": 0.1, "lambda": 1, "leaves": 32}"#, "18446744073709551615"));
        assert_ne!(one, digest(r#"{"learning_rate": 0.2, "lambda": 1, "leaves": 31}"#, "18446744073709551615"));
        assert_ne!(one, digest(r#"{"learning_rate": 0.1, "lambda": 1, "leaves": 31}"#, "18446744073709551614"));
    }
}
