//! Near duplicates within one chunk: rows that repeat an earlier row in a declared key, or nearly in their texts.
//!
//! Texts are compared as sets of three-word sequences. Candidates come from MinHash with banding (Broder 1997; Leskovec,
//! Rajaraman, Ullman: Mining of Massive Datasets, ch. 3): 8 bands of 4 minima, so that texts of 80 % in common meet with
//! probability 0.98. Whether a candidate is near is then read from bottom-k sketches of the two sets, which is exact up to
//! 128 sequences.
//!
//! An exact duplicate is none of these: deduplication finds it in whatever chunk it stands. Values are those before tokens,
//! their hashes are keyed per model, and nothing of either leaves.

use std::collections::{HashMap, HashSet};
use std::hash::Hasher;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use siphasher::sip::SipHasher24;

use super::sums::{CellKey, cell_hashes};
use crate::domain::contract::{Property, Scalar, Spec};

const BANDS: usize = 8;
const BAND_ROWS: usize = 4;
/// Smallest hashes that are kept of a set.
const SKETCH: usize = 128;
/// Words of a sequence.
const WORDS: usize = 3;
const SIMILARITY: f64 = 0.8;

/// What makes rows near duplicates, compiled from a contract.
#[derive(Debug)]
pub(super) struct NearPlan {
    /// Keys that no two rows share.
    keys: Vec<NearKey>,
    texts: Option<NearTexts>,
}

/// Columns that make a near duplicate when they are equal, with the steps that numbers are rounded to.
#[derive(Debug)]
struct NearKey {
    columns: Vec<(usize, Option<f64>)>,
    /// A key with a null equals no other.
    nulls_differ: bool,
}

/// Texts that make a near duplicate when they are similar and the quasi-key is equal.
#[derive(Debug)]
struct NearTexts {
    key: NearKey,
    columns: Vec<usize>,
    similarity: f64,
}

/// For every row, the first row of the chunk that it nearly repeats.
pub(super) type Nears = Vec<Option<u32>>;

impl NearPlan {
    pub(super) fn new(spec: &Spec) -> Self {
        let properties = spec.properties();
        let position = |name: &String| properties.iter().position(|p| p.name == *name);
        let key = |wanted: &dyn Fn(&Property) -> bool| -> Vec<_> {
            properties.iter().enumerate().filter(|(_, p)| wanted(p)).map(|(i, _)| (i, None)).collect()
        };
        let (mut keys, mut texts) = (Vec::new(), None);
        if let Some(declared) = &spec.near_duplicates {
            let step = |name: &String| declared.round.get(name).and_then(Scalar::as_f64);
            let columns = declared.columns.iter().filter_map(|name| Some((position(name)?, step(name)))).collect();
            let key = NearKey { columns, nulls_differ: false };
            if declared.text.is_empty() {
                keys.push(key);
            } else {
                let columns = declared.text.iter().filter_map(position).collect();
                texts = Some(NearTexts { key, columns, similarity: declared.similarity.unwrap_or(SIMILARITY) });
            }
        }
        keys.extend(key(&|p| p.unique).into_iter().map(|column| NearKey { columns: vec![column], nulls_differ: true }));
        let primary = key(&|p| p.primary_key);
        if !primary.is_empty() {
            keys.push(NearKey { columns: primary, nulls_differ: true });
        }
        Self { keys, texts }
    }

    /// The near duplicates among `batch`: valid rows, normalised; `hashes` are their row hashes. What nearly repeats a row is
    /// compared with no later one, so that without these rows nothing is near.
    pub(super) fn find(&self, batch: &RecordBatch, hashes: &[[u8; 16]], key: CellKey) -> Nears {
        let mut nears = vec![None; batch.num_rows()];
        if self.keys.is_empty() && self.texts.is_none() {
            return nears;
        }
        let mut keys: Vec<_> = self.keys.iter().map(|near| Keys::new(near, batch, key)).collect();
        let mut texts = self.texts.as_ref().map(|near| Texts::new(near, batch, key));
        let mut exact = HashSet::with_capacity(hashes.len());
        for ((row, near), hash) in nears.iter_mut().enumerate().zip(hashes) {
            if !exact.insert(*hash) {
                continue;
            }
            let sketched = texts.as_ref().map(|texts| texts.sketch(row));
            *near =
                keys.iter().find_map(|keys| keys.earlier(row)).or_else(|| texts.as_ref()?.earlier(sketched.as_ref()?));
            if near.is_none() {
                keys.iter_mut().for_each(|keys| keys.remember(row));
                if let (Some(texts), Some(sketched)) = (&mut texts, sketched) {
                    texts.remember(row, sketched);
                }
            }
        }
        nears
    }
}

fn number(row: usize) -> u32 {
    u32::try_from(row).unwrap_or(u32::MAX)
}

/// The rows so far by one key.
struct Keys {
    /// By row; none for a row that equals no other.
    hashes: Vec<Option<u64>>,
    first: HashMap<u64, u32>,
}

impl NearKey {
    fn hashes(&self, batch: &RecordBatch, key: CellKey) -> Vec<u64> {
        let mut mixed = vec![0_u64; batch.num_rows()];
        for (column, step) in &self.columns {
            let Some(cells) = batch.columns().get(*column) else { continue };
            let cells = step.map_or_else(|| cells.clone(), |step| rounded(cells, step));
            for (mixed, cell) in mixed.iter_mut().zip(cell_hashes(&cells, key)) {
                *mixed = (mixed.rotate_left(29) ^ cell).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            }
        }
        mixed
    }
}

impl Keys {
    fn new(near: &NearKey, batch: &RecordBatch, key: CellKey) -> Self {
        let columns: Vec<_> = near.columns.iter().filter_map(|(column, _)| batch.columns().get(*column)).collect();
        let differs = |row| near.nulls_differ && columns.iter().any(|column| column.is_null(row));
        let hashes = near.hashes(batch, key).into_iter().enumerate();
        let hashes: Vec<_> = hashes.map(|(row, hash)| (!differs(row)).then_some(hash)).collect();
        Self { first: HashMap::with_capacity(hashes.len()), hashes }
    }

    fn hash(&self, row: usize) -> Option<u64> {
        self.hashes.get(row).copied().flatten()
    }

    fn earlier(&self, row: usize) -> Option<u32> {
        self.first.get(&self.hash(row)?).copied()
    }

    fn remember(&mut self, row: usize) {
        if let Some(hash) = self.hash(row) {
            self.first.insert(hash, number(row));
        }
    }
}

/// The rows so far by their texts.
struct Texts<'a> {
    columns: Vec<&'a StringArray>,
    quasi: Vec<u64>,
    hasher: SipHasher24,
    similarity: f64,
    /// By the hash of a band, the first row that had it.
    bands: HashMap<u64, u32>,
    sketches: HashMap<u32, Vec<u64>>,
}

/// What is compared of one row.
struct Sketched {
    bands: [u64; BANDS],
    sketch: Vec<u64>,
}

impl<'a> Texts<'a> {
    fn new(near: &NearTexts, batch: &'a RecordBatch, key: CellKey) -> Self {
        let columns = near.columns.iter().filter_map(|c| batch.columns().get(*c)?.as_string_opt::<i32>());
        Self {
            columns: columns.collect(),
            quasi: near.key.hashes(batch, key),
            hasher: key.kind(7),
            similarity: near.similarity,
            bands: HashMap::new(),
            sketches: HashMap::new(),
        }
    }

    fn sketch(&self, row: usize) -> Sketched {
        let sequences = sequences(&self.columns, row, self.hasher);
        let quasi = self.quasi.get(row).copied().unwrap_or_default().rotate_left(17);
        Sketched { bands: bands(&sequences).map(|band| mix(band ^ quasi)), sketch: sketch(&sequences) }
    }

    fn earlier(&self, row: &Sketched) -> Option<u32> {
        let met = row.bands.iter().filter_map(|band| self.bands.get(band));
        let near = |earlier: &&u32| {
            self.sketches.get(*earlier).is_some_and(|other| similarity(other, &row.sketch) >= self.similarity)
        };
        met.filter(near).min().copied()
    }

    fn remember(&mut self, row: usize, sketched: Sketched) {
        for band in sketched.bands {
            self.bands.entry(band).or_insert(number(row));
        }
        self.sketches.insert(number(row), sketched.sketch);
    }
}

/// Keyed hashes of the three-word sequences of a row's texts; of fewer words, of all of them together.
fn sequences(texts: &[&StringArray], row: usize, hasher: SipHasher24) -> Vec<u64> {
    let mut all = Vec::new();
    for (column, text) in (0_u64..).zip(texts) {
        if text.is_null(row) {
            continue;
        }
        let text = text.value(row).split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        let words: Vec<u64> = text.map(|word| hasher.hash(word.to_lowercase().as_bytes())).collect();
        let sequence = |words: &[u64]| {
            let mut hasher = hasher;
            hasher.write_u64(column);
            words.iter().for_each(|word| hasher.write_u64(word.to_le()));
            hasher.finish()
        };
        match words.len() {
            0 => {}
            1..WORDS => all.push(sequence(&words)),
            _ => all.extend(words.windows(WORDS).map(sequence)),
        }
    }
    all
}

/// The smallest of a set's hashes, rising.
fn sketch(sequences: &[u64]) -> Vec<u64> {
    let mut sketch = sequences.to_vec();
    sketch.sort_unstable();
    sketch.dedup();
    sketch.truncate(SKETCH);
    sketch.shrink_to_fit();
    sketch
}

/// One hash per band over the minima of its permutations.
fn bands(sequences: &[u64]) -> [u64; BANDS] {
    std::array::from_fn(|band| {
        let minimum = |row: usize| {
            let permutation = mix((band * BAND_ROWS + row) as u64 + 1);
            sequences.iter().map(|hash| mix(hash ^ permutation)).min().unwrap_or(u64::MAX)
        };
        (0..BAND_ROWS).fold(mix(band as u64), |mixed, row| mix(mixed ^ minimum(row)))
    })
}

/// The finaliser of SplitMix64: a permutation of 64-bit words.
fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Share that two sets have in common of their union (Jaccard), from their sketches: of the smallest hashes of the union, how
/// many stand in both. Two empty sets are equal.
fn similarity(a: &[u64], b: &[u64]) -> f64 {
    let (mut i, mut j, mut both, mut union) = (0, 0, 0_u32, 0_u32);
    while union < SKETCH as u32 {
        match (a.get(i), b.get(j)) {
            (None, None) => break,
            (Some(x), Some(y)) if x == y => (i, j, both) = (i + 1, j + 1, both + 1),
            (Some(x), Some(y)) if x > y => j += 1,
            (Some(_), _) => i += 1,
            (None, Some(_)) => j += 1,
        }
        union += 1;
    }
    if union == 0 { 1.0 } else { f64::from(both) / f64::from(union) }
}

#[allow(clippy::cast_precision_loss)] // near duplicates are a remark, not an identity
fn rounded(column: &ArrayRef, step: f64) -> ArrayRef {
    let round = |value: f64| (value / step).round();
    let rounded: Float64Array = match column.data_type() {
        DataType::Int64 => column.as_primitive::<Int64Type>().unary(|v| round(v as f64)),
        DataType::Float64 => column.as_primitive::<Float64Type>().unary(round),
        _ => return column.clone(),
    };
    std::sync::Arc::new(rounded)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use arrow::datatypes::{Field, Schema};
    use proptest::prelude::*;

    use super::*;

    fn plan(text: bool) -> NearPlan {
        let key = NearKey { columns: vec![(0, Some(10.0))], nulls_differ: false };
        if !text {
            return NearPlan { keys: vec![key], texts: None };
        }
        NearPlan { keys: vec![], texts: Some(NearTexts { key, columns: vec![1], similarity: SIMILARITY }) }
    }

    fn batch(rows: &[(i64, &str)]) -> RecordBatch {
        let schema =
            Schema::new(vec![Field::new("n", DataType::Int64, true), Field::new("text", DataType::Utf8, true)]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1))),
        ];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    /// Every row is another row.
    fn found(text: bool, rows: &[(i64, &str)]) -> Nears {
        let hashes: Vec<[u8; 16]> = (0..rows.len() as u128).map(u128::to_be_bytes).collect();
        plan(text).find(&batch(rows), &hashes, CellKey::new([7; 16]))
    }

    const LONG: &str =
        "the order arrived late and support was slow to answer but the refund came quickly and the box was fine";

    #[test]
    fn rows_are_near_when_their_rounded_numbers_are_equal() {
        assert_eq!(found(false, &[(40, "a"), (41, "b"), (46, "c"), (52, "d")]), [None, Some(0), None, Some(2)]);
    }

    #[test]
    fn an_exact_duplicate_is_left_to_deduplication() {
        let rows = batch(&[(1, "a"), (1, "a"), (2, "a")]);
        let hashes = [[1; 16], [1; 16], [2; 16]];
        assert_eq!(plan(false).find(&rows, &hashes, CellKey::new([7; 16])), [None, None, Some(0)]);
    }

    #[test]
    fn texts_are_near_when_most_of_their_sequences_are_the_same_and_the_quasi_key_is() {
        let edited = LONG.replace("fine", "OK");
        let respelt = LONG.to_uppercase().replace(' ', ",  ");
        let other = "battery drains fast but the screen is bright and the speaker is loud enough for a small kitchen";
        let rows = [(1, LONG), (1, edited.as_str()), (1, respelt.as_str()), (1, other), (100, LONG)];
        assert_eq!(found(true, &rows), [None, Some(0), Some(0), None, None]);
    }

    #[test]
    fn short_and_empty_texts_are_near_only_when_they_are_the_same_words() {
        let rows = [(1, "late"), (1, "Late!"), (1, "very late"), (1, ""), (1, "…")];
        assert_eq!(found(true, &rows), [None, Some(0), None, None, Some(3)]);
    }

    #[test]
    fn without_a_declaration_nothing_is_near() {
        let nothing = NearPlan { keys: vec![], texts: None };
        assert_eq!(
            nothing.find(&batch(&[(1, "a"), (1, "b")]), &[[1; 16], [2; 16]], CellKey::new([7; 16])),
            [None, None]
        );
    }

    proptest! {
        #[test]
        fn a_sketch_estimates_what_two_sets_have_in_common(common in 0_u64..300, own in 0_u64..300) {
            let set = |from: u64| (0..common).chain(from..from + own).map(|i| mix(i + 1)).collect::<Vec<_>>();
            let exact = if common + own == 0 { 1.0 } else { common as f64 / (common + 2 * own) as f64 };
            let estimate = similarity(&sketch(&set(1_000)), &sketch(&set(5_000)));
            let tolerance = if common + 2 * own <= SKETCH as u64 { 1e-9 } else { 0.2 };
            prop_assert!((estimate - exact).abs() <= tolerance, "{} for {}", estimate, exact);
        }

        #[test]
        fn a_row_is_near_an_earlier_row_only(texts in prop::collection::vec("[ab]{1}( [ab]){0,4}", 0..30)) {
            let rows: Vec<_> = texts.iter().map(|t| (1, t.as_str())).collect();
            for (row, near) in (0_u32..).zip(found(true, &rows)) {
                prop_assert!(near.is_none_or(|earlier| earlier < row));
            }
        }
    }
}
