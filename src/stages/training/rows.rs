//! The rows of a dataset: those below its ends whose chunk an admitted receipt below its ends binds.
//!
//! Rows whose features stand in a sealed benchmark are left out: they may have been contributed before it was sealed.
//!
//! Columns come in the form that their encoding wants, whatever contract a row was checked against; a column that a contract did
//! not have is empty there. Every limit is checked before the next record is taken in.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, new_null_array};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::outside::Outside;
use crate::attest::tree::Hash;
use crate::codec::ipc;
use crate::codec::wire::{Wire, WireError};
use crate::domain::contract::learning::{Split, SplitWord};
use crate::domain::records::{Accepted, Receipt, TopicEnd};
use crate::domain::topics;
use crate::ml::Task;
use crate::ml::dataset::ROW_HASH;
use crate::ml::declare::Declaration;
use crate::ml::encoding::Encode;
use crate::rowsql::arrow_type;
use crate::sealing::filter::{MatchFilter, without_sealed};
use crate::stages::beside::{Refusal, Trouble};

/// Most chunks that the receipts of a dataset bind.
const MAX_CHUNKS: usize = 4 << 20;

/// Rows times iterations of a search, unless the settings say otherwise: some ten hours of one core with trees of 31 leaves.
const BUDGET: u64 = 1_000_000_000_000;

/// What a run may take at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows of the dataset.
    pub rows: usize,
    /// Their bytes in memory, as they are read, and those of the receipts that bind them; learning takes a few times that.
    pub bytes: usize,
    /// Rows times iterations of all trials of a search.
    pub budget: u64,
    /// Threads of the learner; no influence on the result.
    pub threads: usize,
    /// A checkpoint is kept so often.
    pub checkpoint_every: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rows: 20_000_000, bytes: 1 << 30, budget: BUDGET, threads: 1, checkpoint_every: Duration::from_secs(30) }
    }
}

/// Rows as they were read, in any order.
#[derive(Debug)]
pub struct Rows {
    /// Row hash, features and label; a batch holds rows of several records.
    pub batches: Vec<RecordBatch>,
    /// Contributions that the rows come from.
    pub contributions: i64,
    /// Leaf hashes of their receipts' statements, sorted; none when one of them was made before receipts named theirs.
    pub receipts: Vec<Hash>,
}

/// What admitted receipts say.
#[derive(Default)]
struct Admitted {
    /// Digest by chunk; none for a receipt that lists no chunks.
    chunks: HashMap<String, Option<HashMap<i64, String>>>,
    /// Leaf of the receipt by contribution, of those with accepted rows.
    leaves: BTreeMap<String, String>,
    rows: i64,
    bound: usize,
    /// What all this takes in memory, about.
    bytes: usize,
}

/// What a map's entry takes beside the bytes of its texts: two texts' headers, a place in the table, the allocator's rounding.
pub const ENTRY: usize = 96;

fn too_large(what: &str, limit: usize) -> Trouble {
    Refusal::new(
        "TOO_LARGE",
        format!("more than {limit} {what}; help: raise the limit in the settings of the stage training"),
    )
    .into()
}

fn unreadable(error: &WireError, topic: &str) -> Trouble {
    match error.is_retriable() {
        true => Trouble::Passing(error.to_string()),
        false => Refusal::new("UNREADABLE", format!("a record of {topic}: {error}")).into(),
    }
}

impl Admitted {
    fn take(&mut self, receipt: Receipt, limit: usize) -> Result<(), Trouble> {
        let listed = usize::try_from(receipt.chunks).unwrap_or(usize::MAX) <= Receipt::MAX_LISTED_CHUNKS;
        let chunks: Option<HashMap<i64, String>> =
            listed.then(|| receipt.bound.into_iter().map(|bound| (bound.chunk, bound.chunk_digest)).collect());
        self.bound += 1 + chunks.as_ref().map_or(0, HashMap::len);
        if self.bound > MAX_CHUNKS {
            return Err(too_large("chunks", MAX_CHUNKS));
        }
        let digests = chunks.iter().flat_map(HashMap::values).map(|digest| ENTRY + digest.len()).sum::<usize>();
        self.bytes += 2 * (ENTRY + receipt.contribution_id.len()) + receipt.leaf.len() + digests;
        if self.bytes > limit {
            return Err(too_large("bytes of receipts", limit));
        }
        self.rows += receipt.accepted;
        if receipt.accepted > 0 {
            self.leaves.insert(receipt.contribution_id.clone(), receipt.leaf);
        }
        self.chunks.insert(receipt.contribution_id, chunks);
        Ok(())
    }

    fn bind(&self, accepted: &Accepted) -> bool {
        match self.chunks.get(&accepted.id.contribution_id) {
            None => false,
            Some(None) => true,
            Some(Some(chunks)) => chunks.get(&accepted.id.chunk) == Some(&accepted.id.chunk_digest),
        }
    }

    /// The sorted leaf hashes; none when a receipt was made before receipts named theirs.
    fn leaves(&self) -> Option<Vec<Hash>> {
        let leaf = |hex: &String| data_encoding::HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok();
        let mut leaves: Vec<Hash> = self.leaves.values().map(leaf).collect::<Option<_>>()?;
        leaves.sort_unstable();
        Some(leaves)
    }
}

/// Column of the number that [`Wanted::owner`] gives to a row's contribution; 32-bit integers.
pub const OWNER: &str = "_owner";

/// Which rows.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// Of this model.
    pub model: &'a str,
    /// With these columns.
    pub declared: &'a Declaration,
    /// Below these ends.
    pub ends: &'a [TopicEnd],
    /// Not in these benchmarks.
    pub sealed: &'a [MatchFilter],
    /// What to write beside the rows of a contribution, in the column [`OWNER`].
    pub owner: Option<&'a dyn Fn(&str) -> i32>,
}

impl std::fmt::Debug for Wanted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wanted").field("model", &self.model).field("ends", &self.ends).finish_non_exhaustive()
    }
}

/// The admitted receipts of a model below these ends.
///
/// # Errors
/// Records that cannot be read, trouble outside, and what `each` returns.
pub fn receipts(
    outside: &dyn Outside,
    wire: &Wire,
    model: &str,
    ends: &[TopicEnd],
    stopped: &dyn Fn() -> bool,
    each: &mut dyn FnMut(Receipt) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    outside.read(topics::RECEIPTS, ends, &mut |value| {
        if stopped() {
            return Err(Trouble::Cancelled);
        }
        let receipt: Receipt = wire.decode(value).map_err(|e| unreadable(&e, topics::RECEIPTS))?;
        if receipt.model == model && receipt.status == "admitted" { each(receipt) } else { Ok(()) }
    })
}

/// Reads the rows of a model.
///
/// # Errors
/// Limits, records that cannot be read, rows that are not all there, trouble outside.
pub fn read(
    outside: &dyn Outside,
    wire: &Wire,
    wanted: Wanted<'_>,
    limits: Limits,
    stopped: &dyn Fn() -> bool,
) -> Result<Rows, Trouble> {
    let Wanted { model, declared, ends, sealed, owner } = wanted;
    let mut admitted = Admitted::default();
    receipts(outside, wire, model, ends, stopped, &mut |receipt| admitted.take(receipt, limits.bytes))?;
    if usize::try_from(admitted.rows).unwrap_or(usize::MAX) > limits.rows {
        return Err(too_large("rows", limits.rows));
    }
    let schema = columns(declared);
    let mut gathered = Gathered::default();
    let (mut found, mut rows, mut bytes) = (0_usize, 0_usize, admitted.bytes);
    outside.read(topics::ACCEPTED, ends, &mut |value| {
        if stopped() {
            return Err(Trouble::Cancelled);
        }
        let accepted: Accepted = wire.decode(value).map_err(|e| unreadable(&e, topics::ACCEPTED))?;
        if accepted.id.model != model || !admitted.bind(&accepted) {
            return Ok(());
        }
        let batch = ipc::read(&accepted.batch, ipc::Limits::default());
        let batch = batch.map_err(|e| Refusal::new("UNREADABLE", format!("rows of an accepted chunk: {e}")))?;
        found += batch.num_rows();
        let batch = conform(&unsealed(batch, sealed)?, &schema)?;
        let batch = match owner {
            Some(owner) => owned(&batch, owner(&accepted.id.contribution_id))?,
            None => batch,
        };
        rows += batch.num_rows();
        // What a batch keeps alive is at least the record's bytes, its columns share them.
        let own = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or(0);
        bytes += batch.columns().iter().map(own).sum::<usize>().max(accepted.batch.len());
        if rows > limits.rows || bytes > limits.bytes {
            return Err(too_large("rows or bytes of rows and receipts", limits.rows.min(limits.bytes)));
        }
        gathered.take(batch)
    })?;
    if i64::try_from(found).ok() != Some(admitted.rows) {
        let detail = format!("the receipts admit {} rows, {found} are on the topic; help: restore it", admitted.rows);
        return Err(Refusal::new("INCOMPLETE_DATASET", detail).into());
    }
    let contributions = i64::try_from(admitted.leaves.len()).unwrap_or(i64::MAX);
    Ok(Rows { batches: gathered.finish()?, contributions, receipts: admitted.leaves().unwrap_or_default() })
}

/// Batches of records, joined: a column of a record keeps the whole record in memory, with the columns that nobody learns from.
#[derive(Default)]
struct Gathered {
    joined: Vec<RecordBatch>,
    recent: Vec<RecordBatch>,
    rows: usize,
}

impl Gathered {
    /// Batches are joined once they have so many rows: a column of numbers is then a block that goes back to the system when it is
    /// dropped (see `ops::memory`).
    const ROWS: usize = 1 << 17;

    fn take(&mut self, batch: RecordBatch) -> Result<(), Trouble> {
        self.rows += batch.num_rows();
        self.recent.push(batch);
        if self.rows >= Self::ROWS { self.join() } else { Ok(()) }
    }

    fn join(&mut self) -> Result<(), Trouble> {
        if let Some(first) = self.recent.first() {
            let joined = concat_batches(first.schema_ref(), &self.recent);
            self.joined.push(joined.map_err(|e| Refusal::new("UNREADABLE", e))?);
            (self.recent, self.rows) = (Vec::new(), 0);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<RecordBatch>, Trouble> {
        self.join()?;
        Ok(self.joined)
    }
}

/// The batch with the number of its owner beside every row.
fn owned(batch: &RecordBatch, owner: i32) -> Result<RecordBatch, Trouble> {
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![owner; batch.num_rows()]));
    let field = Arc::new(Field::new(OWNER, DataType::Int32, false));
    let fields: Vec<_> = batch.schema().fields().iter().cloned().chain([field]).collect();
    let columns = batch.columns().iter().cloned().chain([numbers]).collect();
    let unread = |e| Refusal::new("UNREADABLE", e);
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(unread)?)
}

/// The rows that no benchmark holds.
fn unsealed(batch: RecordBatch, sealed: &[MatchFilter]) -> Result<RecordBatch, Trouble> {
    if sealed.is_empty() {
        return Ok(batch);
    }
    let (rows, _) = without_sealed(&batch, sealed).map_err(|e| Refusal::new("UNREADABLE", e))?;
    Ok(rows)
}

/// Row hash, what SQL reads, features, what cuts the validation fold, and label, each once, in the types that they are read or learned from in.
fn columns(declared: &Declaration) -> SchemaRef {
    let mut fields = vec![Field::new(ROW_HASH, DataType::FixedSizeBinary(16), false)];
    for read in declared.derivation.reads(true).into_iter().filter(|read| read.name != declared.label) {
        fields.push(Field::new(&read.name, arrow_type(read.kind), true));
    }
    for feature in declared.features.iter().filter(|feature| !declared.derivation.adds(&feature.column)) {
        let kind = match &feature.encode {
            Encode::Number => DataType::Float64,
            Encode::Time(_) => DataType::Timestamp(TimeUnit::Microsecond, None),
            _ => DataType::Utf8,
        };
        if !fields.iter().any(|field| field.name() == &feature.column) {
            fields.push(Field::new(&feature.column, kind, true));
        }
    }
    if let Some(Split { by, column }) = &declared.validation
        && !fields.iter().any(|field| field.name() == column)
    {
        let kind = match by {
            SplitWord::Group => DataType::Utf8,
            SplitWord::Newest => DataType::Timestamp(TimeUnit::Microsecond, None),
        };
        fields.push(Field::new(column, kind, true));
    }
    let label = if declared.task == Task::Number { DataType::Float64 } else { DataType::Utf8 };
    fields.push(Field::new(&declared.label, label, true));
    Arc::new(Schema::new(fields))
}

fn conform(batch: &RecordBatch, wanted: &SchemaRef) -> Result<RecordBatch, Trouble> {
    let wrong = |column: &str, error: arrow::error::ArrowError| match error {
        // The text of other Arrow errors may hold a value.
        arrow::error::ArrowError::CastError(_) => Refusal::new(
            "CONTRACT_CHANGED",
            format!("column {column} of earlier rows has a type that cannot be learned from"),
        ),
        _ => Refusal::new("UNREADABLE", format!("column {column} of an accepted chunk")),
    };
    let column = |field: &Arc<Field>| -> Result<ArrayRef, Trouble> {
        match batch.column_by_name(field.name()) {
            Some(found) if found.data_type() == field.data_type() => Ok(Arc::clone(found)),
            Some(found) => Ok(cast(found, field.data_type()).map_err(|e| wrong(field.name(), e))?),
            None => Ok(new_null_array(field.data_type(), batch.num_rows())),
        }
    };
    let columns = wanted.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(Arc::clone(wanted), columns).map_err(|e| wrong(ROW_HASH, e))?)
}
