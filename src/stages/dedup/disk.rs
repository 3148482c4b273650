//! What a shard keeps on disk: four maps of sorted runs.
//!
//! | map | key | value |
//! |---|---|---|
//! | `rows` | features (16), label tag (8) | owner's number, row |
//! | `idents` | exact chunk (16) | its number as an owner |
//! | `owners` | number | contribution, contributor, chunk, whether its rows were released |
//! | `verdicts` | owner's number, part | the part's verdict |
//!
//! Integers are big-endian. A record that is written again stands in a newer run and hides the older one.

use super::index::{Entry, RowIndex, RowKey};
use super::owners::{Owner, Owners, PartVerdict};
use crate::stream::runs::store::{Batch, RunStore};
use crate::stream::runs::{DiskError, Shape};

const ROWS: usize = 0;
const IDENTS: usize = 1;
const OWNERS: usize = 2;
const VERDICTS: usize = 3;

/// The maps, in the order of their numbers here.
pub const SHAPES: [Shape; 4] = [
    Shape { name: "rows", key: 24, value: 8 },
    Shape { name: "idents", key: 16, value: 4 },
    Shape { name: "owners", key: 4, value: Owner::BYTES },
    Shape { name: "verdicts", key: 8, value: PartVerdict::BYTES },
];

/// Bytes of a key that all labels of a row's features share.
const FEATURES: usize = 16;

fn pair(one: u32, other: u32) -> [u8; 8] {
    ((u64::from(one) << 32) | u64::from(other)).to_be_bytes()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk::<4>).map_or(0, |word| u32::from_be_bytes(*word))
}

/// [`RowIndex::search`] in the runs, newest first.
pub fn search<E: From<DiskError>>(
    store: &RunStore,
    key: RowKey,
    visit: &mut dyn FnMut(Entry) -> Result<bool, E>,
) -> Result<(), E> {
    store.search(ROWS, &key.bytes(), FEATURES, &mut |found, value| {
        let tag = found.last_chunk::<8>().map_or(0, |tag| u64::from_be_bytes(*tag));
        visit(Entry { tag, owner: word(value, 0), row: word(value, 4) })
    })
}

/// The number of an exact chunk.
pub fn number(store: &RunStore, ident: u128) -> Result<Option<u32>, DiskError> {
    Ok(store.get::<4>(IDENTS, &ident.to_be_bytes())?.map(u32::from_be_bytes))
}

/// The owner of a number.
pub fn owner(store: &RunStore, number: u32) -> Result<Option<Owner>, DiskError> {
    Ok(store.get(OWNERS, &number.to_be_bytes())?.map(|bytes| Owner::decode(&bytes)))
}

/// The verdict on a part.
pub fn verdict(store: &RunStore, owner: u32, part: u32) -> Result<Option<PartVerdict>, DiskError> {
    let found = store.get::<{ PartVerdict::BYTES }>(VERDICTS, &pair(owner, part))?;
    Ok(found.map(|bytes| PartVerdict::of_words(std::array::from_fn(|i| word(&bytes, 4 * i)))))
}

/// Rows on disk; one that passed to another owner counts in each run until they merge.
pub fn rows(store: &RunStore) -> u64 {
    store.records(ROWS)
}

/// What is in memory, as the runs will hold it.
pub fn batches(rows: &RowIndex, owners: &Owners) -> Vec<Batch> {
    let row = |(key, entry): (RowKey, Entry)| {
        let mut record = [0; 32];
        let fields = key.bytes().into_iter().chain(pair(entry.owner, entry.row));
        fields.zip(&mut record).for_each(|(from, to)| *to = from);
        record
    };
    let mut sorted: Vec<[u8; 32]> = rows.iter().map(row).collect();
    sorted.sort_unstable();
    let rows = Batch { map: ROWS, records: sorted.into_flattened() };
    let mut idents: Vec<(u128, u32)> = owners.numbers.iter().map(|(ident, number)| (*ident, *number)).collect();
    idents.sort_unstable();
    let ident = |(ident, number): (u128, u32)| ident.to_be_bytes().into_iter().chain(number.to_be_bytes());
    let idents = Batch { map: IDENTS, records: idents.into_iter().flat_map(ident).collect() };
    let owner = |(number, owner): (&u32, &Owner)| number.to_be_bytes().into_iter().chain(owner.encode());
    let table = Batch { map: OWNERS, records: owners.table.iter().flat_map(owner).collect() };
    let verdict = |((owner, part), verdict): (&(u32, u32), &PartVerdict)| {
        pair(*owner, *part).into_iter().chain(verdict.words().into_iter().flat_map(u32::to_be_bytes))
    };
    let verdicts = Batch { map: VERDICTS, records: owners.verdicts.iter().flat_map(verdict).collect() };
    vec![rows, idents, table, verdicts]
}
