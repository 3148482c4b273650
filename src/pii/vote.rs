//! The vote over a column: personal data that neither the contract nor the column's name announces.
//!
//! A cell is replaced by what stands in *it*. In a column of card numbers that is called `ref` this leaves every
//! number that a detector does not take for one, so such a column must be settled by the contract before any of it
//! leaves. The vote never changes what becomes of a cell: it refuses.
//!
//! Only cells that *are* a value count: free text around a finding keeps its meaning without it, whatever the share of
//! such cells.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type};

use super::column::{ColumnHints, PersonColumn};
use super::kinds::PiiType;
use super::scan::Found;

/// With fewer cells there is no vote.
const MIN_CELLS: u64 = 20;
/// Numbers below have fewer digits than any identifier.
const LONG_NUMBER: u64 = 10_000_000;

/// What most cells of a column are, though nobody says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undeclared {
    /// What they are.
    pub kind: PiiType,
    /// Cells that are a value of the kind.
    pub matching: u64,
    /// Cells that are not null.
    pub cells: u64,
}

/// Whether a column must be settled by the contract: most of its cells are one kind, and more than chance explains (a
/// check digit alone passes one number in ten).
///
/// The bound is the binomial tail by its normal approximation with continuity correction at five standard deviations, for
/// at least 20 cells.
pub(super) fn vote(hints: &ColumnHints, whole: &BTreeMap<PiiType, u64>, cells: u64) -> Option<Undeclared> {
    let (kind, matching) = whole.iter().max_by_key(|(_, count)| **count)?;
    let by_name = hints.kinds.has(*kind) || hints.person != PersonColumn::No && *kind == PiiType::Person;
    let (n, p) = (cells as f64, chance(*kind));
    let bound = n * p + 5.0 * (n * p * (1.0 - p)).sqrt() + 0.5;
    let settled = by_name || cells < MIN_CELLS || *matching as f64 <= bound || matching.saturating_mul(2) <= cells;
    (!settled).then_some(Undeclared { kind: *kind, matching: *matching, cells })
}

/// Cells, by kind, that hold one finding and nothing else but punctuation.
pub(super) fn whole_cells(text: &StringArray, findings: &[(usize, Found)]) -> BTreeMap<PiiType, u64> {
    let mut whole = BTreeMap::new();
    let rest = |part: Option<&str>| part.is_some_and(|part| !part.chars().any(char::is_alphanumeric));
    for (row, found) in findings {
        let cell = text.value(*row);
        if rest(cell.get(..found.start)) && rest(cell.get(found.end..)) {
            *whole.entry(found.kind).or_default() += 1;
        }
    }
    whole
}

/// The whole numbers of a column as text, if most of its cells are as long as an identifier. A column of other numbers
/// costs one comparison a cell.
pub(super) fn long_numbers(column: &ArrayRef) -> Option<StringArray> {
    let most = |long: usize| long.saturating_mul(2) > column.len() - column.null_count();
    match column.data_type() {
        DataType::Int64 => {
            let numbers = column.as_primitive::<Int64Type>();
            let long = numbers.iter().flatten().filter(|n| n.unsigned_abs() >= LONG_NUMBER).count();
            most(long).then(|| numbers.iter().map(|n| n.map(|n| n.to_string())).collect())
        }
        DataType::Float64 => {
            // Above 2^53 neighbours are not told apart.
            let is_long = |n: &f64| n.fract() == 0.0 && *n >= LONG_NUMBER as f64 && *n <= (1_u64 << 53) as f64;
            let numbers = column.as_primitive::<Float64Type>();
            let long = numbers.iter().flatten().filter(is_long).count();
            most(long).then(|| numbers.iter().map(|n| n.filter(is_long).map(|n| format!("{n:.0}"))).collect())
        }
        _ => None,
    }
}

/// How often a random number of the right length passes as `kind`.
fn chance(kind: PiiType) -> f64 {
    match kind {
        PiiType::Card | PiiType::Imei | PiiType::CaSin | PiiType::UsNpi | PiiType::InAadhaar => 0.10,
        PiiType::UkNhs | PiiType::NlBsn | PiiType::AuTfn | PiiType::DeTaxId => 0.09,
        _ => 0.01,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, RecordBatchReader};
    use arrow::compute::{cast, concat_batches};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use serde_json::Value;

    use super::*;
    use crate::domain::keys::KeyRing;
    use crate::pii::screen::{ColumnRule, ColumnScreener, Policy};

    fn ring() -> KeyRing {
        let hex = |digit: char| digit.to_string().repeat(64);
        let (token, dedup, tree) = (hex('1'), hex('2'), hex('3'));
        let secrets = format!(r#""tokens":[{{"id":"k1","secret":"{token}"}}],"dedup":"{dedup}","tree":"{tree}""#);
        KeyRing::from_json(&format!(r#"{{"version":1,"tenant":"acme",{secrets}}}"#)).unwrap()
    }

    fn vote_as(name: &str, rule: ColumnRule, column: impl Array + 'static) -> Option<Undeclared> {
        ColumnScreener::new(&ring(), name, rule).screen(&(Arc::new(column) as ArrayRef)).unwrap().undeclared
    }

    fn kind_of(name: &str, column: impl Array + 'static) -> Option<PiiType> {
        vote_as(name, ColumnRule::default(), column).map(|found| found.kind)
    }

    /// The same cell many times.
    fn many(cell: &str) -> StringArray {
        StringArray::from(vec![cell; 100])
    }

    #[test]
    fn a_column_full_of_undeclared_cards_must_be_settled_but_order_numbers_pass() {
        let found = vote_as("c", ColumnRule::default(), many("4111111111111111"));
        assert_eq!(found, Some(Undeclared { kind: PiiType::Card, matching: 100, cells: 100 }));
        let mut cells = vec!["4111111111111112"; 90];
        cells.extend(["4111111111111111"; 10]);
        assert_eq!(kind_of("c", StringArray::from(cells)), None);
    }

    #[test]
    fn the_columns_name_or_any_line_of_the_contract_settles_it() {
        assert_eq!(kind_of("card_number", many("4111111111111111")), None);
        let line = |policy, declared| ColumnRule { policy, declared };
        for rule in [
            line(Policy::Hash, Some(PiiType::Card)),
            line(Policy::Drop, None),
            line(Policy::Keep { reason: "test cards".to_owned() }, None),
        ] {
            assert_eq!(vote_as("c", rule.clone(), many("4111111111111111")), None, "{rule:?}");
        }
    }

    #[test]
    fn free_text_keeps_its_right_to_hold_an_address_in_every_cell() {
        assert_eq!(kind_of("c", many("write to ann@example.org soon")), None);
        assert_eq!(kind_of("c", many(" <ann@example.org>, ")), Some(PiiType::Email));
    }

    #[test]
    fn few_cells_or_a_minority_have_no_vote() {
        assert_eq!(kind_of("c", StringArray::from(vec!["ann@example.org"; 19])), None);
        let half: Vec<_> = (0..40).map(|i| if i % 2 == 0 { "ann@example.org" } else { "none" }).collect();
        assert_eq!(kind_of("c", StringArray::from(half)), None);
    }

    #[test]
    fn numbers_are_no_cover_for_cards_but_times_and_counters_are_numbers() {
        let ints = |f: &dyn Fn(i64) -> i64| Int64Array::from_iter_values((0..200).map(f));
        assert_eq!(kind_of("c", Int64Array::from(vec![4_111_111_111_111_111; 50])), Some(PiiType::Card));
        assert_eq!(kind_of("c", Float64Array::from(vec![4_111_111_111_111_111.0; 50])), Some(PiiType::Card));
        for column in [
            ints(&|i| 1_700_000_000_000 + i * 61_357),
            ints(&|i| 1_700_000_000 + i * 977),
            ints(&|i| 1_700_000_000_000_000 + i * 61_357_111),
            ints(&|i| 4_111_111_111_110_000 + i),
            ints(&|i| 100_000_000 + i),
            ints(&|i| -i),
        ] {
            assert_eq!(kind_of("c", column), None);
        }
    }

    #[test]
    fn no_column_of_a_year_of_real_flights_is_taken_for_personal_data() {
        let file = File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/flights/flights.parquet")).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().with_batch_size(65_536).build().unwrap();
        let schema = reader.schema();
        let batches = reader.map(Result::unwrap).collect::<Vec<_>>();
        let all = concat_batches(&schema, &batches).unwrap();
        for (field, column) in schema.fields().iter().zip(all.columns()) {
            let wanted = match field.data_type() {
                other if other.is_integer() => DataType::Int64,
                other if other.is_floating() => DataType::Float64,
                _ => DataType::Utf8,
            };
            let Ok(column) = cast(column, &wanted) else { continue };
            for size in [20, 1_000, 65_536] {
                let mut screener = ColumnScreener::new(&ring(), field.name(), ColumnRule::default());
                for start in (0..column.len()).step_by(size).take(200) {
                    let part = column.slice(start, size.min(column.len() - start));
                    assert_eq!(screener.screen(&part).unwrap().undeclared, None, "{} from {start}", field.name());
                }
            }
        }
    }

    /// The labelled strings, by column: cells that hold nothing, under the names that they were labelled with.
    #[test]
    fn at_most_one_clean_column_in_fifty_must_be_settled_for_nothing() {
        let mut columns = BTreeMap::<String, Vec<String>>::new();
        for line in include_str!("../../tests/vectors/pii/labelled.jsonl").lines() {
            let row: Value = serde_json::from_str(line).unwrap();
            if let (Some(text), true) = (row["text"].as_str(), row["types"].as_array().unwrap().is_empty()) {
                columns.entry(row["column_name"].as_str().unwrap().to_owned()).or_default().push(text.to_owned());
            }
        }
        columns.retain(|_, cells| cells.len() >= 4);
        let flagged: Vec<_> = columns
            .iter()
            .filter_map(|(name, cells)| {
                let column: StringArray = cells.iter().cycle().take(cells.len().max(100)).map(Some).collect();
                kind_of(name, column).map(|kind| (name, kind))
            })
            .collect();
        println!("{} clean columns, flagged: {flagged:?}", columns.len());
        assert!(columns.len() >= 20, "{}", columns.len());
        assert!(flagged.len() * 50 <= columns.len(), "{flagged:?} of {}", columns.len());
    }
}
