//! Sums of chunks, added up: in any order and grouping the result is the same.

use crate::domain::records::{ColumnSums, Count, QualitySums};

/// Adds the sums of another chunk under the same contract. Order and grouping do not matter.
pub fn merge(into: &mut QualitySums, from: &QualitySums) {
    into.valid += from.valid;
    into.near_duplicates += from.near_duplicates;
    into.incompatible_schema |= from.incompatible_schema;
    merge_counts(&mut into.labels, &from.labels);
    for column in &from.columns {
        match into.columns.binary_search_by(|c| c.column.cmp(&column.column)) {
            Ok(i) => {
                if let Some(mine) = into.columns.get_mut(i) {
                    merge_column(mine, column);
                }
            }
            Err(i) => into.columns.insert(i, column.clone()),
        }
    }
}

/// Adds counts by name; the result is sorted by name.
pub fn merge_counts(into: &mut Vec<Count>, from: &[Count]) {
    for count in from {
        match into.binary_search_by(|c| c.name.cmp(&count.name)) {
            Ok(i) => {
                if let Some(mine) = into.get_mut(i) {
                    mine.count += count.count;
                }
            }
            Err(i) => into.insert(i, count.clone()),
        }
    }
}

fn merge_column(into: &mut ColumnSums, from: &ColumnSums) {
    into.nulls += from.nulls;
    into.outliers += from.outliers;
    into.bins.resize(into.bins.len().max(from.bins.len()), 0);
    into.bins.iter_mut().zip(&from.bins).for_each(|(mine, theirs)| *mine += theirs);
    if into.least.is_empty() || (!from.least.is_empty() && from.least < into.least) {
        into.least.clone_from(&from.least);
    }
    if from.greatest > into.greatest {
        into.greatest.clone_from(&from.greatest);
    }
    let number = |hex: &str| u64::from_str_radix(hex, 16).unwrap_or(0);
    into.fingerprint = format!("{:016x}", number(&into.fingerprint).wrapping_add(number(&from.fingerprint)));
}
