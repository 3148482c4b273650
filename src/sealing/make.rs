//! From checked rows to a seal.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};

use super::filter::{MatchFilter, digest};
use super::rows::{RowWriter, cell_json};
use super::strata::{Strata, Wanted, strata};
use super::vault::FRAME_ROWS;
use super::{MAX_BYTES, SealingError};
use crate::attest::benchmark::{BenchmarkTree, label_commitment};
use crate::attest::tree::Hash;
use crate::domain::contract::{LogicalType, Spec};
use crate::domain::keys::MacKey;
use crate::domain::reason::Reason;
use crate::domain::records::Refusal;
use crate::stages::intake::sealing::CheckedRows;
use crate::stages::registry::benchmark::MAX_ROWS;
use crate::stats::compare::SMALLEST_CELL;
use crate::stats::family::{Sealed, SeveralFamilies, family_of};

/// An integer label of more values, which the contract does not enumerate, is a quantity.
const MAX_CLASSES: usize = 20;

/// Gathers rows, document by document.
#[derive(Debug, Default)]
pub struct Gathered {
    batches: Vec<RecordBatch>,
    row_hashes: Vec<[u8; 16]>,
    features: Vec<[u8; 16]>,
    overlaps: Vec<[u8; 16]>,
    seen: HashSet<[u8; 16]>,
    bytes: usize,
    /// Rows in all documents so far.
    pub received: u64,
    /// What was wrong, with row numbers over all documents; the first of them only.
    pub refusals: Vec<Refusal>,
    /// How many rows were refused.
    pub refused: u64,
}

/// Refusals that are kept to be told.
const MAX_TOLD: usize = 20;

impl Gathered {
    /// Adds the rows of the next document; a row that stands earlier is refused as intake and deduplication would.
    ///
    /// # Errors
    /// [`SealingError::TooLarge`].
    pub fn add(&mut self, checked: CheckedRows) -> Result<(), SealingError> {
        let offset = i64::try_from(self.received).unwrap_or(i64::MAX);
        self.received += checked.received as u64;
        if self.received > MAX_ROWS.unsigned_abs() {
            return Err(SealingError::TooLarge { what: "too many rows".to_owned(), most: format!("{MAX_ROWS} rows") });
        }
        self.bytes = self.bytes.saturating_add(checked.rows.get_array_memory_size());
        if self.bytes > MAX_BYTES {
            let (what, most) = ("the rows are too large".to_owned(), format!("{MAX_BYTES} bytes, decoded"));
            return Err(SealingError::TooLarge { what, most });
        }
        let mut refusals = checked.refusals;
        let mut keep = Vec::with_capacity(checked.numbers.len());
        for (row, hash) in (0_u64..).zip(&checked.row_hashes) {
            if self.seen.insert(*hash) {
                keep.push(row);
                continue;
            }
            let number = checked.numbers.get(usize::try_from(row).unwrap_or(usize::MAX)).copied().unwrap_or_default();
            refusals.push(duplicate(number));
        }
        refusals.sort_by_key(|refusal| refusal.row);
        self.refused += refusals.len() as u64;
        let room = MAX_TOLD.saturating_sub(self.refusals.len());
        let told = refusals.into_iter().take(room);
        self.refusals.extend(told.map(|refusal| Refusal { row: refusal.row.saturating_add(offset), ..refusal }));
        let of = |hashes: &[[u8; 16]]| -> Vec<[u8; 16]> {
            keep.iter().filter_map(|row| hashes.get(usize::try_from(*row).ok()?).copied()).collect()
        };
        self.row_hashes.extend(of(&checked.row_hashes));
        self.features.extend(of(&checked.features));
        self.overlaps.extend(of(&checked.overlaps));
        self.batches.push(take_record_batch(&checked.rows, &UInt64Array::from(keep))?);
        Ok(())
    }

    /// Rows that can be sealed.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.row_hashes.len()
    }

    /// Makes the seal of the rows.
    ///
    /// # Errors
    /// [`SealingError`]: no rows, no label, too few of a class, or strata that cannot be frozen.
    pub fn make(self, spec: &Spec, tree_key: &MacKey, wanted: Option<&Wanted>) -> Result<Made, SealingError> {
        let label = spec.label.as_deref().ok_or(SealingError::NoLabel)?;
        let Some(first) = self.batches.first() else { return Err(SealingError::Empty) };
        if self.row_hashes.is_empty() {
            return Err(SealingError::Empty);
        }
        let all = concat_batches(&first.schema(), &self.batches)?;
        drop(self.batches);
        let mut order: Vec<u64> = (0..self.row_hashes.len() as u64).collect();
        order.sort_unstable_by_key(|row| self.row_hashes.get(usize::try_from(*row).unwrap_or(usize::MAX)));
        let rows = order
            .chunks(FRAME_ROWS)
            .map(|frame| take_record_batch(&all, &UInt64Array::from(frame.to_vec())))
            .collect::<Result<Vec<_>, _>>()?;
        drop(all);
        let mut tree = BenchmarkTree::new(tree_key);
        let mut labels = Vec::with_capacity(order.len());
        for batch in &rows {
            let column = batch.column_by_name(label).ok_or(SealingError::NoLabel)?;
            let mut writer = RowWriter::new(batch.schema_ref())?;
            for row in 0..batch.num_rows() {
                let _ = tree.append(writer.write(batch, row)?);
                labels.push(cell_json(column, row)?);
            }
        }
        let classes = classes(spec, label, &labels)?;
        let strata = wanted.map(|wanted| strata(&rows, spec, &classes, wanted)).transpose()?.unwrap_or_default();
        let root = tree.root();
        Ok(Made {
            label_commitment: label_commitment(tree_key, &root, labels.iter().map(Vec::as_slice)),
            filter: MatchFilter::new(&self.features, &self.overlaps),
            features: self.features,
            overlaps: self.overlaps.iter().map(digest).collect(),
            root,
            rows,
            strata,
        })
    }
}

/// What a seal is made of.
#[derive(Debug)]
pub struct Made {
    /// Root over the rows.
    pub root: Hash,
    /// Commitment to the labels.
    pub label_commitment: Hash,
    /// The rows in their order.
    pub rows: Vec<RecordBatch>,
    /// Hash of the features of each row under the model's key, in the order of the file.
    pub features: Vec<[u8; 16]>,
    /// Digests of the rows for overlaps.
    pub overlaps: BTreeSet<crate::stats::family::Digest>,
    /// The match filter.
    pub filter: MatchFilter,
    /// Frozen strata.
    pub strata: Strata,
}

impl Made {
    /// Number of rows.
    #[must_use]
    pub fn count(&self) -> usize {
        self.features.len()
    }

    /// The attempts family, given every earlier benchmark of the tenant: its family and its filter.
    ///
    /// # Errors
    /// [`SeveralFamilies`].
    pub fn family(&self, earlier: &[(Hash, MatchFilter)]) -> Result<Hash, SeveralFamilies> {
        let known: Vec<(Hash, BTreeSet<_>)> = earlier.iter().map(|(family, f)| (*family, f.overlaps())).collect();
        let sealed = known.iter().map(|(family, rows)| Sealed { family: *family, rows });
        family_of(self.root, &self.overlaps, sealed)
    }

    /// The natural collision rate, rounded up to six places: the share of the rows whose features are among those found in the
    /// pool.
    #[must_use]
    pub fn collision_rate(&self, found: &HashSet<[u8; 16]>) -> String {
        let collisions = self.features.iter().filter(|features| found.contains(*features)).count() as u128;
        let rows = (self.count() as u128).max(1);
        let ppm = (collisions * 1_000_000).div_ceil(rows);
        format!("{}.{:06}", ppm / 1_000_000, ppm % 1_000_000)
    }
}

fn duplicate(row: u32) -> Refusal {
    Refusal {
        row: i64::from(row),
        code: Reason::DupInBatch.code().to_owned(),
        column: String::new(),
        rule: "duplicate".to_owned(),
        expected: "a row that does not stand earlier".to_owned(),
        shape: "the same row".to_owned(),
        row_digest: String::new(),
    }
}

/// Each row's class, in the order of the classes' names; empty where the label is no class.
fn classes(spec: &Spec, label: &str, labels: &[Vec<u8>]) -> Result<Vec<u32>, SealingError> {
    let small = |why: String| Err(SealingError::TooSmall(why));
    if (labels.len() as u64) < SMALLEST_CELL {
        return small(format!("{} rows", labels.len()));
    }
    let property = spec.property(label);
    let kind = property.map(|property| property.logical_type);
    let enumerated = property.is_some_and(|property| !property.logical_type_options.values.is_empty());
    if !matches!(kind, Some(LogicalType::String | LogicalType::Integer | LogicalType::Boolean)) {
        return Ok(Vec::new());
    }
    let mut counts: BTreeMap<&[u8], u64> = BTreeMap::new();
    labels.iter().for_each(|label| *counts.entry(label).or_insert(0) += 1);
    if kind == Some(LogicalType::Integer) && !enumerated && counts.len() > MAX_CLASSES {
        return Ok(Vec::new());
    }
    if counts.len() < 2 {
        return small("all rows have one label".to_owned());
    }
    match counts.values().min() {
        Some(least) if *least < SMALLEST_CELL => return small(format!("the rarest class has {least} rows")),
        _ => {}
    }
    let numbers: BTreeMap<&[u8], u32> = counts.into_keys().zip(0..).collect();
    Ok(labels.iter().filter_map(|label| numbers.get(label.as_slice()).copied()).collect())
}
