//! The rows of a chunk: checked, protected, hashed, cut by shard.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, not};
use arrow::datatypes::DataType;

use super::contract::CompiledContract;
use super::decode;
use super::models::{Keys, Ready};
use super::parts::{by_shard, parts, screened_batch};
use super::protect::Protected;
use super::refusals::{self, Account};
use crate::attest::row::{ChunkTree, RowSalts};
use crate::codec::formats::Decoded;
use crate::domain::contract::Flag;
use crate::domain::keys::KeyRing;
use crate::domain::reason::Reason;
use crate::domain::records::{ChunkId, Refusal};
use crate::sealing::filter::MatchFilter;
use crate::stream::stage::StageError;

/// Where the rows come from and go to.
pub(super) struct Source<'a> {
    pub contribution_id: &'a str,
    pub chunk: i64,
    /// Append time of the record, milliseconds.
    pub appended: i64,
    /// Partitions of `contributions.screened`.
    pub shards: u32,
    pub row_bytes: usize,
    /// Filters of the sealed benchmarks of the model.
    pub sealed: &'a [Arc<MatchFilter>],
}

/// What becomes of decoded rows.
pub(super) fn screen(
    ready: &Ready,
    keys: &Keys,
    ring: &KeyRing,
    source: &Source<'_>,
    decoded: Decoded,
) -> Result<Account, StageError> {
    let contract = &ready.contract;
    let mut account = Account { received: i64::try_from(decoded.received).unwrap_or(i64::MAX), ..Account::default() };
    let failures = first_failures(contract, &decoded.batch, source);
    let refused = failures.iter().filter(|f| **f != Failure::None).count();
    let mut refusals = decode::refusals(contract, &keys.model, &decoded).map_err(compute)?;
    if refused > 0 {
        refusals.extend(refusals_of(contract, keys, &decoded, &failures)?);
        refusals.sort_by_key(|refusal| refusal.row);
    }
    for refusal in &refusals {
        *account.refused.entry(refusal.code.clone()).or_default() += 1;
    }
    account.refusals = refusals;
    account.refuse_label_conflicts = contract.spec().refuse.contains(&Flag::LabelConflict);
    let (batch, rows) =
        if refused == 0 { (decoded.batch, decoded.rows) } else { passed(&decoded, &failures).map_err(compute)? };
    if batch.num_rows() > 0 {
        protect_and_hash(ready, keys, ring, source, &batch, &rows, &mut account)?;
    }
    Ok(account)
}

fn protect_and_hash(
    ready: &Ready,
    keys: &Keys,
    ring: &KeyRing,
    source: &Source<'_>,
    batch: &RecordBatch,
    rows: &[u32],
    account: &mut Account,
) -> Result<(), StageError> {
    let contract = &ready.contract;
    let Protected { canonical, screened, found, undeclared } =
        ready.protection.protect(batch, source.appended).map_err(compute)?;
    if !undeclared.is_empty() {
        account.refuse_rest(refusals::undeclared(contract, &undeclared));
        return Ok(());
    }
    account.pii = found;
    let encoded = contract.encoder().encode(&canonical).map_err(compute)?;
    let hashes = encoded.hash(keys.model.rows());
    if let Some((batch, rows)) = refuse_sealed(ready, keys, source, batch, rows, &hashes.features, account)? {
        // What is left has no sealed row: this goes on once.
        return if rows.is_empty() {
            Ok(())
        } else {
            protect_and_hash(ready, keys, ring, source, &batch, &rows, account)
        };
    }
    let nears = ready.near.find(&canonical, &hashes.rows, keys.cells);
    let near_duplicates = nears.iter().flatten().count();
    if near_duplicates > 0 && contract.spec().refuse.contains(&Flag::NearDup) {
        let (batch, rows) = refuse_near(ready, keys, batch, rows, &nears, account)?;
        // What is left has no near duplicate: every row that one could be near to is an earlier one that stays.
        return protect_and_hash(ready, keys, ring, source, &batch, &rows, account);
    }
    account.quality = ready.sums.sum(&canonical, &hashes.rows, keys.cells);
    account.quality.near_duplicates = i64::try_from(near_duplicates).unwrap_or(i64::MAX);
    account.passed = ChunkId::passed_rows(rows);
    let chunk = u32::try_from(source.chunk).unwrap_or(u32::MAX);
    let mut tree = ChunkTree::new(RowSalts::new(ring.tree_key(), source.contribution_id, chunk));
    // Without personal data the row as screened is the row as hashed.
    let (leaves, screened) = match screened {
        Some(screened) => (contract.encoder().encode(&screened).map_err(compute)?, screened),
        None => (encoded, canonical),
    };
    rows.iter().zip(leaves.iter()).for_each(|(row, bytes)| tree.append(u64::from(*row), bytes));
    account.chunk_root = data_encoding::HEXLOWER.encode(&tree.root());
    let out =
        screened_batch(&ready.screened, rows, &hashes.rows, &hashes.features, screened.columns()).map_err(compute)?;
    let shards: Vec<u32> = hashes.features.iter().map(|hash| shard_of(hash, source.shards)).collect();
    for (shard, batch) in by_shard(&out, &shards, source.shards).map_err(compute)? {
        account.shards.push((shard, parts(&batch).map_err(compute)?));
    }
    Ok(())
}

/// Refuses the rows whose features stand in a sealed benchmark, whatever their label; gives the others with their numbers, or
/// none when there is no such row.
fn refuse_sealed(
    ready: &Ready,
    keys: &Keys,
    source: &Source<'_>,
    batch: &RecordBatch,
    rows: &[u32],
    features: &[[u8; 16]],
    account: &mut Account,
) -> Result<Option<(RecordBatch, Vec<u32>)>, StageError> {
    if source.sealed.is_empty() {
        return Ok(None);
    }
    let is_sealed = |features| source.sealed.iter().any(|filter| filter.contains(features));
    let sealed: Vec<bool> = features.iter().map(is_sealed).collect();
    let left: Vec<u32> = rows.iter().zip(&sealed).filter(|(_, sealed)| !**sealed).map(|(row, _)| *row).collect();
    if left.len() == rows.len() {
        return Ok(None);
    }
    let numbers: Vec<u32> = rows.iter().zip(&sealed).filter(|(_, sealed)| **sealed).map(|(row, _)| *row).collect();
    let sealed = BooleanArray::from(sealed);
    let refused = filter_record_batch(batch, &sealed).map_err(compute)?;
    let canonical = ready.contract.encoder().encode(&refused).map_err(compute)?;
    for (row, bytes) in numbers.iter().zip(canonical.iter()) {
        account.refusals.push(Refusal {
            row: i64::from(*row),
            code: Reason::Contamination.code().to_owned(),
            column: String::new(),
            rule: "benchmark".to_owned(),
            expected: "a row that no sealed benchmark holds".to_owned(),
            shape: "the features of a sealed row".to_owned(),
            row_digest: data_encoding::HEXLOWER.encode(&keys.model.refused_row_digest(bytes)),
        });
    }
    account.refusals.sort_by_key(|refusal| refusal.row);
    let count = i64::try_from(numbers.len()).unwrap_or(i64::MAX);
    *account.refused.entry(Reason::Contamination.code().to_owned()).or_default() += count;
    Ok(Some((filter_record_batch(batch, &not(&sealed).map_err(compute)?).map_err(compute)?, left)))
}

/// Refuses the rows that nearly repeat an earlier one; gives the others with their numbers.
fn refuse_near(
    ready: &Ready,
    keys: &Keys,
    batch: &RecordBatch,
    rows: &[u32],
    nears: &[Option<u32>],
    account: &mut Account,
) -> Result<(RecordBatch, Vec<u32>), StageError> {
    let near = BooleanArray::from_iter(nears.iter().map(|near| Some(near.is_some())));
    let refused = filter_record_batch(batch, &near).map_err(compute)?;
    let canonical = ready.contract.encoder().encode(&refused).map_err(compute)?;
    let pairs = rows.iter().zip(nears).filter_map(|(row, near)| Some((row, (*near)?)));
    for ((row, earlier), bytes) in pairs.zip(canonical.iter()) {
        let earlier = rows.get(earlier as usize).copied().unwrap_or_default();
        account.refusals.push(Refusal {
            row: i64::from(*row),
            code: Reason::NearDup.code().to_owned(),
            column: String::new(),
            rule: "nearDuplicates".to_owned(),
            expected: "a row unlike the earlier rows of its chunk".to_owned(),
            shape: format!("nearly row {earlier}"),
            row_digest: data_encoding::HEXLOWER.encode(&keys.model.refused_row_digest(bytes)),
        });
    }
    account.refusals.sort_by_key(|refusal| refusal.row);
    let count = i64::try_from(refused.num_rows()).unwrap_or(i64::MAX);
    *account.refused.entry(Reason::NearDup.code().to_owned()).or_default() += count;
    let left = rows.iter().zip(nears).filter(|(_, near)| near.is_none()).map(|(row, _)| *row).collect();
    Ok((filter_record_batch(batch, &not(&near).map_err(compute)?).map_err(compute)?, left))
}

/// The shard of a row: the first 8 bytes of the hash of its features, big-endian, modulo the shards.
pub(super) fn shard_of(features: &[u8; 16], shards: u32) -> u32 {
    let [a, b, c, d, e, f, g, h, ..] = *features;
    let prefix = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    u32::try_from(prefix % u64::from(shards.max(1))).unwrap_or(0)
}

fn compute(error: impl std::fmt::Display) -> StageError {
    StageError::Compute { what: "screening a chunk".to_owned(), detail: error.to_string() }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    None,
    TooLarge,
    /// Number of the check.
    Check(u32),
}

pub(super) fn first_failures(contract: &CompiledContract, batch: &RecordBatch, source: &Source<'_>) -> Vec<Failure> {
    let checks = contract.first_failures(batch, source.appended).into_iter();
    let mut failures: Vec<_> =
        checks.map(|number| if number == 0 { Failure::None } else { Failure::Check(number) }).collect();
    // A batch whose texts together are no longer than one row may be has no row that is too long.
    let texts = || batch.columns().iter().filter(|c| c.data_type() == &DataType::Utf8).map(|c| c.as_string::<i32>());
    if texts().map(|t| t.value_data().len()).sum::<usize>() > source.row_bytes {
        let mut bytes = vec![0_usize; batch.num_rows()];
        for text in texts() {
            for (row, ends) in bytes.iter_mut().zip(text.value_offsets().windows(2)) {
                *row += usize::try_from(ends[1] - ends[0]).unwrap_or(0);
            }
        }
        let too_large = failures.iter_mut().zip(bytes).filter(|(_, bytes)| *bytes > source.row_bytes);
        too_large.for_each(|(failure, _)| *failure = Failure::TooLarge);
    }
    failures
}

/// The rows without a failure, with their numbers in the chunk.
pub(super) fn passed(
    decoded: &Decoded,
    failures: &[Failure],
) -> Result<(RecordBatch, Vec<u32>), arrow::error::ArrowError> {
    let keep: Vec<bool> = failures.iter().map(|f| *f == Failure::None).collect();
    let rows = decoded.rows.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(row, _)| *row).collect();
    Ok((filter_record_batch(&decoded.batch, &BooleanArray::from(keep))?, rows))
}

/// Refusals of the rows with a failure; only these rows are looked at one by one.
pub(super) fn refusals_of(
    contract: &CompiledContract,
    keys: &Keys,
    decoded: &Decoded,
    failures: &[Failure],
) -> Result<Vec<Refusal>, StageError> {
    let failed: Vec<usize> = (0..failures.len()).filter(|row| failures[*row] != Failure::None).collect();
    let mask: Vec<bool> = failures.iter().map(|f| *f != Failure::None).collect();
    let batch = filter_record_batch(&decoded.batch, &BooleanArray::from(mask)).map_err(compute)?;
    let canonical = contract.encoder().encode(&batch).map_err(compute)?;
    let refusal = |(row, bytes): (usize, &[u8])| {
        let number = decoded.rows.get(row).copied().unwrap_or(0);
        let (reason, column, rule, expected, shape) = describe(contract, &decoded.batch, row, failures[row]);
        Refusal {
            row: i64::from(number),
            code: reason.code().to_owned(),
            column,
            rule,
            expected,
            shape,
            row_digest: data_encoding::HEXLOWER.encode(&keys.model.refused_row_digest(bytes)),
        }
    };
    Ok(failed.into_iter().zip(canonical.iter()).map(refusal).collect())
}

fn describe(
    contract: &CompiledContract,
    batch: &RecordBatch,
    row: usize,
    failure: Failure,
) -> (Reason, String, String, String, String) {
    match failure {
        Failure::Check(number) => match contract.check(number) {
            Some(check) => {
                let column: Option<&ArrayRef> = check.column.and_then(|c| batch.columns().get(c));
                let name = check.column.map_or("", |c| contract.column_name(c)).to_owned();
                (check.reason, name, check.rule.clone(), check.expected.clone(), check.test.shape(column, row))
            }
            None => (Reason::TypeMismatch, String::new(), String::new(), String::new(), String::new()),
        },
        Failure::TooLarge | Failure::None => (
            Reason::TooLarge,
            String::new(),
            "row".to_owned(),
            "a shorter row".to_owned(),
            "row of long texts".to_owned(),
        ),
    }
}
