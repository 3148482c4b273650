//! Quality sums of one chunk: integers that add up over chunks in any order (`domain::quality`).
//!
//! A cell's keyed hash (SipHash-2-4 under a key of the model) stands for its value. Whether a column is constant
//! or equals another is read from sums of such hashes, so that no value and no unkeyed digest leaves intake. Cells
//! count as *normalised*, before tokens, so that a rotated key does not change what is equal.

use std::collections::BTreeMap;
use std::hash::Hasher;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Date32Type, Float64Type, Int64Type, TimestampMicrosecondType};
use siphasher::sip::SipHasher24;

use crate::domain::contract::{Policy, Property, Spec};
use crate::domain::records::{ColumnSums, Count, QualitySums};

/// Robust z beyond which a cell is an outlier, and the factor from MAD to σ of a normal distribution.
const OUTLIER_Z: f64 = 6.0;
const MAD_TO_SIGMA: f64 = 1.4826;

/// Key of cell hashes.
#[derive(Clone, Copy)]
pub(super) struct CellKey(u64, u64);

impl CellKey {
    pub(super) fn new(key: [u8; 16]) -> Self {
        let wide = u128::from_be_bytes(key);
        #[allow(clippy::cast_possible_truncation)] // the two halves
        Self((wide >> 64) as u64, wide as u64)
    }

    /// A hasher for values of one kind: equal bytes of different kinds differ.
    pub(super) fn kind(self, kind: u64) -> SipHasher24 {
        SipHasher24::new_with_keys(self.0 ^ kind, self.1)
    }
}

impl std::fmt::Debug for CellKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CellKey(redacted)")
    }
}

/// What is summed, and how: compiled from a contract.
#[derive(Debug)]
pub(super) struct SumPlan {
    /// Sorted by name.
    columns: Vec<ColumnPlan>,
    label: Option<usize>,
}

#[derive(Debug)]
struct ColumnPlan {
    position: usize,
    name: String,
    /// Median and the distance from it beyond which a cell is an outlier.
    outliers: Option<(f64, f64)>,
    edges: Vec<f64>,
}

impl SumPlan {
    pub(super) fn new(spec: &Spec) -> Self {
        let properties = spec.properties();
        let position = |name: &str| properties.iter().position(|p| p.name == name);
        let kept = |(_, p): &(usize, &Property)| p.pii.policy != Policy::Drop;
        let mut columns: Vec<_> = properties.iter().enumerate().filter(kept).map(|(i, p)| column_plan(i, p)).collect();
        columns.sort_by(|a, b| a.name.cmp(&b.name));
        let label = spec
            .label
            .as_deref()
            .and_then(position)
            .filter(|&i| properties[i].logical_type != crate::domain::contract::LogicalType::Number);
        Self { columns, label }
    }

    /// Sums over the rows of `batch`: valid rows, normalised; `hashes` are their row hashes. Near duplicates are
    /// counted elsewhere ([`super::near`]).
    pub(super) fn sum(&self, batch: &RecordBatch, hashes: &[[u8; 16]], key: CellKey) -> QualitySums {
        if batch.num_rows() == 0 {
            return QualitySums::default();
        }
        let rows: Vec<u64> =
            hashes.iter().map(|h| u64::from_be_bytes([h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]]) | 1).collect();
        let columns = self.columns.iter().map(|plan| plan.sum(batch.column(plan.position), &rows, key)).collect();
        QualitySums {
            valid: i64::try_from(batch.num_rows()).unwrap_or(i64::MAX),
            columns,
            labels: self.label.map(|label| labels(batch.column(label))).unwrap_or_default(),
            near_duplicates: 0,
            incompatible_schema: false,
        }
    }
}

fn column_plan(position: usize, property: &Property) -> ColumnPlan {
    let reference = property.reference.clone().unwrap_or_default();
    let outliers = reference.median.zip(reference.mad).map(|(median, mad)| (median, OUTLIER_Z * MAD_TO_SIGMA * mad));
    ColumnPlan { position, name: property.name.clone(), outliers, edges: reference.edges }
}

impl ColumnPlan {
    fn sum(&self, column: &ArrayRef, rows: &[u64], key: CellKey) -> ColumnSums {
        let cells = cell_hashes(column, key);
        let fingerprint =
            cells.iter().zip(rows).fold(0_u64, |sum, (cell, row)| sum.wrapping_add(cell.wrapping_mul(*row)));
        let nulls = column.nulls();
        let (mut least, mut greatest) = (u64::MAX, 0);
        let mut bounds = |cell: u64| (least, greatest) = (least.min(cell), greatest.max(cell));
        match nulls {
            None => cells.iter().copied().for_each(&mut bounds),
            Some(nulls) => nulls.valid_indices().filter_map(|i| cells.get(i)).copied().for_each(&mut bounds),
        }
        let mut sums = ColumnSums {
            column: self.name.clone(),
            nulls: i64::try_from(column.null_count()).unwrap_or(i64::MAX),
            outliers: 0,
            bins: Vec::new(),
            least: String::new(),
            greatest: String::new(),
            fingerprint: format!("{fingerprint:016x}"),
        };
        if column.null_count() < column.len() {
            (sums.least, sums.greatest) = (format!("{least:016x}"), format!("{greatest:016x}"));
        }
        if self.outliers.is_some() || !self.edges.is_empty() {
            self.distribution(column, &mut sums);
        }
        sums
    }

    fn distribution(&self, column: &ArrayRef, sums: &mut ColumnSums) {
        if !self.edges.is_empty() {
            sums.bins = vec![0; self.edges.len() + 1];
        }
        let mut cell = |value: f64| {
            if let Some((median, limit)) = self.outliers {
                sums.outliers += i64::from((value - median).abs() > limit);
            }
            if let Some(bin) = sums.bins.get_mut(self.edges.partition_point(|edge| *edge < value)) {
                *bin += 1;
            }
        };
        match column.data_type() {
            #[allow(clippy::cast_precision_loss)] // bins and outliers of integers beyond 2^53 may be off by one unit
            DataType::Int64 => column.as_primitive::<Int64Type>().iter().flatten().for_each(|v| cell(v as f64)),
            DataType::Float64 => column.as_primitive::<Float64Type>().iter().flatten().for_each(&mut cell),
            _ => {}
        }
    }
}

/// Keyed hash of every cell; the null of a kind has one of its own.
pub(super) fn cell_hashes(column: &ArrayRef, key: CellKey) -> Vec<u64> {
    let null = key.kind(0).hash(&[]);
    let mut hashes = match column.data_type() {
        DataType::Utf8 => {
            let (texts, hasher) = (column.as_string::<i32>(), key.kind(1));
            (0..texts.len()).map(|i| hasher.hash(texts.value(i).as_bytes())).collect()
        }
        DataType::Int64 => words::<Int64Type>(column.as_primitive(), key.kind(2), |v| v.cast_unsigned()),
        // Adding zero turns −0 into 0.
        DataType::Float64 => words::<Float64Type>(column.as_primitive(), key.kind(3), |v| (v + 0.0).to_bits()),
        DataType::Date32 => words::<Date32Type>(column.as_primitive(), key.kind(4), |v| u64::from(v.cast_unsigned())),
        DataType::Timestamp(..) => {
            words::<TimestampMicrosecondType>(column.as_primitive(), key.kind(5), |v| v.cast_unsigned())
        }
        DataType::Boolean => {
            let (no, yes) = (key.kind(6).hash(&[0]), key.kind(6).hash(&[1]));
            column.as_boolean().values().iter().map(|v| if v { yes } else { no }).collect()
        }
        _ => vec![null; column.len()],
    };
    if let Some(nulls) = column.nulls() {
        hashes.iter_mut().zip(nulls.iter()).filter(|(_, valid)| !valid).for_each(|(hash, _)| *hash = null);
    }
    hashes
}

fn words<T: ArrowPrimitiveType>(
    column: &PrimitiveArray<T>,
    hasher: SipHasher24,
    bits: impl Fn(T::Native) -> u64,
) -> Vec<u64> {
    let hash = |value: &T::Native| {
        let mut hasher = hasher;
        hasher.write_u64(bits(*value).to_le());
        hasher.finish()
    };
    column.values().iter().map(hash).collect()
}

/// Rows by class of the label.
fn labels(column: &ArrayRef) -> Vec<Count> {
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    match column.data_type() {
        DataType::Boolean => {
            let values = column.as_boolean();
            counts.insert("true".to_owned(), i64::try_from(values.true_count()).unwrap_or(0));
            counts.insert("false".to_owned(), i64::try_from(values.false_count()).unwrap_or(0));
        }
        DataType::Int64 => {
            let mut classes: BTreeMap<i64, i64> = BTreeMap::new();
            column.as_primitive::<Int64Type>().iter().flatten().for_each(|v| *classes.entry(v).or_default() += 1);
            counts.extend(classes.into_iter().map(|(class, count)| (class.to_string(), count)));
        }
        DataType::Utf8 => {
            let mut classes: BTreeMap<&str, i64> = BTreeMap::new();
            column.as_string::<i32>().iter().flatten().for_each(|v| *classes.entry(v).or_default() += 1);
            counts.extend(classes.into_iter().map(|(class, count)| (class.to_owned(), count)));
        }
        _ => {}
    }
    counts.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| Count { name, count }).collect()
}
