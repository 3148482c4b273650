//! Where the columns of a batch go in a table whose columns grow: pure.
//!
//! Contracts of different models name columns as they like, and one table holds them all. The rules:
//! * a contract's column keeps its name when that name is free, or taken by a contract's column of the same name and
//!   type;
//! * otherwise (another type, a column of ours, a name that differs in case only) it gets a column of its own,
//!   `name__type`, and `name__type__2` and so on while even that is taken;
//! * characters that Parquet readers forbid in names (`,;{}()=`, white space, control characters) become `_`.
//!
//! The name that the contract gave stands in the column's metadata (`hokusai.column`), so the same contract column
//! finds the same table column for good, whoever writes and in whatever order. Nothing here can fail: a contract
//! must never stop the warehouse.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

use super::tables::{COMMENT, CONTRACT_COLUMN};

/// Where the columns of a batch go.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// The table's schema with the columns that the batch brings.
    pub schema: Schema,
    /// For each column of the batch its index in `schema`.
    pub targets: Vec<usize>,
    /// `schema` has more columns than the table.
    pub grown: bool,
}

/// Places the columns of a batch (types as [`delta_type`] gives them). A field with the metadata
/// [`CONTRACT_COLUMN`] is a contract's; any other is ours and meant by name.
#[must_use]
pub fn place(table: &Schema, batch: &Schema) -> Placement {
    let mut fields: Vec<Arc<Field>> = table.fields().iter().cloned().collect();
    let mut names: HashMap<String, usize> =
        fields.iter().enumerate().map(|(i, field)| (field.name().to_lowercase(), i)).collect();
    let known = fields.len();
    let targets = batch
        .fields()
        .iter()
        .map(|field| {
            let contract = field.metadata().get(CONTRACT_COLUMN);
            let found = fields.iter().position(|have| {
                have.data_type().equals_datatype(field.data_type())
                    && match contract {
                        Some(_) => have.metadata().get(CONTRACT_COLUMN) == contract,
                        None => have.name() == field.name() && !have.metadata().contains_key(CONTRACT_COLUMN),
                    }
            });
            found.unwrap_or_else(|| {
                let name = free_name(&names, field);
                names.insert(name.to_lowercase(), fields.len());
                fields.push(Arc::new(field.as_ref().clone().with_name(name).with_nullable(true)));
                fields.len() - 1
            })
        })
        .collect();
    let grown = fields.len() > known;
    Placement { schema: Schema::new(fields), targets, grown }
}

fn free_name(taken: &HashMap<String, usize>, field: &Field) -> String {
    let plain = legal_name(field.name());
    if !taken.contains_key(&plain.to_lowercase()) {
        return plain;
    }
    let typed = format!("{plain}__{}", type_name(field.data_type()));
    let mut name = typed.clone();
    let mut number = 1;
    while taken.contains_key(&name.to_lowercase()) {
        number += 1;
        name = format!("{typed}__{number}");
    }
    name
}

fn legal_name(name: &str) -> String {
    let forbidden = |c: char| ",;{}()=".contains(c) || c.is_whitespace() || c.is_control();
    let legal: String = name.chars().map(|c| if forbidden(c) { '_' } else { c }).collect();
    if legal.is_empty() { "_".to_owned() } else { legal }
}

/// A field of a contract's column as the table takes it.
#[must_use]
pub fn contract_field(field: &Field) -> Field {
    let comment = format!("Column {} of a contract", field.name());
    let metadata = HashMap::from([(CONTRACT_COLUMN.to_owned(), field.name().clone()), (COMMENT.to_owned(), comment)]);
    Field::new(field.name(), delta_type(field.data_type()), true).with_metadata(metadata)
}

/// The type in which a scalar of the given Arrow type is kept: the nearest one that Delta has and that loses nothing;
/// text where there is none. Instants are microseconds UTC, as in the canonical row.
#[must_use]
pub fn delta_type(arrow: &DataType) -> DataType {
    match arrow {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Utf8
        | DataType::Binary
        | DataType::Date32 => arrow.clone(),
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 => DataType::Float32,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Date64 => DataType::Date32,
        DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s)
            if *s >= 0 && *s as u8 <= *p =>
        {
            DataType::Decimal128(*p, *s)
        }
        DataType::Dictionary(_, values) => delta_type(values),
        _ => DataType::Utf8,
    }
}

/// The type's name in Delta, for column names.
fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int8 => "byte".to_owned(),
        DataType::Int16 => "short".to_owned(),
        DataType::Int32 => "integer".to_owned(),
        DataType::Int64 => "long".to_owned(),
        DataType::Float32 => "float".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Binary => "binary".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Timestamp(..) => "timestamp".to_owned(),
        DataType::Decimal128(p, s) => format!("decimal_{p}_{s}"),
        DataType::List(_) => "array".to_owned(),
        DataType::Struct(_) => "struct".to_owned(),
        _ => "string".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tables::Table;
    use super::*;

    fn contract(name: &str, data_type: DataType) -> Schema {
        Schema::new(vec![contract_field(&Field::new(name, data_type, true))])
    }

    fn placed(table: &Schema, batch: &Schema) -> (Schema, String) {
        let placement = place(table, batch);
        let name = placement.schema.field(placement.targets[0]).name().clone();
        (placement.schema, name)
    }

    #[test]
    fn a_type_conflict_between_models_gets_a_column_of_its_own() {
        let (table, first) = placed(&Table::Rows.schema(), &contract("delay", DataType::Int64));
        let (table, second) = placed(&table, &contract("delay", DataType::Utf8));
        assert_eq!((first.as_str(), second.as_str()), ("delay", "delay__string"));
        let again = place(&table, &contract("delay", DataType::Utf8));
        assert!(!again.grown);
        assert_eq!(again.schema.field(again.targets[0]).name(), "delay__string");
    }

    #[test]
    fn a_contract_column_never_lands_in_a_column_of_ours() {
        let (_, name) = placed(&Table::Rows.schema(), &contract("row", DataType::Int64));
        assert_eq!(name, "row__long");
        let (_, name) = placed(&Table::Rows.schema(), &contract("Model", DataType::Utf8));
        assert_eq!(name, "Model__string");
    }

    #[test]
    fn names_that_differ_in_case_only_get_columns_of_their_own() {
        let (table, _) = placed(&Table::Rows.schema(), &contract("dest", DataType::Utf8));
        let (table, name) = placed(&table, &contract("DEST", DataType::Utf8));
        assert_eq!(name, "DEST__string");
        let (_, name) = placed(&table, &contract("Dest", DataType::Utf8));
        assert_eq!(name, "Dest__string__2");
    }

    #[test]
    fn characters_that_parquet_readers_forbid_are_replaced_and_the_name_is_kept_beside() {
        let (table, name) = placed(&Table::Rows.schema(), &contract("fee (EUR)", DataType::Float64));
        assert_eq!(name, "fee__EUR_");
        let (_, name) = placed(&table, &contract("fee_(EUR)", DataType::Float64));
        assert_eq!(name, "fee__EUR___double");
    }

    proptest! {
        #[test]
        fn whatever_contracts_bring_every_column_finds_one_place_and_finds_it_again(
            columns in proptest::collection::vec(("[aA ,(_]{0,3}|row|MODEL", 0..4usize), 1..40)
        ) {
            let types = [DataType::Int64, DataType::Utf8, DataType::Float64, DataType::Decimal128(10, 2)];
            let mut table = Table::Rows.schema().as_ref().clone();
            let mut places = HashMap::new();
            for (name, kind) in &columns {
                let placement = place(&table, &contract(name, types[*kind].clone()));
                let target = placement.targets[0];
                prop_assert_eq!(*places.entry((name.clone(), *kind)).or_insert(target), target);
                prop_assert!(placement.schema.field(target).data_type() == &types[*kind]);
                table = placement.schema;
            }
            let distinct: std::collections::HashSet<_> = places.values().collect();
            prop_assert_eq!(distinct.len(), places.len());
            let lower: std::collections::HashSet<_> = table.fields().iter().map(|f| f.name().to_lowercase()).collect();
            prop_assert_eq!(lower.len(), table.fields().len());
        }
    }
}
