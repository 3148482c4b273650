//! What SQL adds to learning: reference tables, features made of rows and tables, and the steps before learning.
//!
//! ```yaml
//! learning:
//!   references:                       # `model apply` puts the file into the store; the contract holds its digest
//!     - name: airports
//!       file: airports.csv            # CSV, JSON, Parquet, Arrow or Avro
//!       columns: [{name: code, logicalType: string}, {name: altitude, logicalType: integer}]
//!   sql:                              # each SELECT gives every row exactly one row of added columns
//!     - name: destination
//!       reads: [dest]                 # the only columns of `rows` that it sees
//!       select: SELECT a.altitude AS dest_altitude FROM rows LEFT JOIN airports a ON rows.dest = a.code
//!       columns: [{name: dest_altitude, logicalType: integer}]
//!   steps:                            # before learning, on training rows alone: what WHERE lets through is learned from
//!     - name: half_of_the_punctual
//!       reads: [late]
//!       select: SELECT * FROM rows WHERE late = 1 OR _share < 0.5
//! ```
//!
//! Leakage is a matter of what a SELECT is given: columns that it does not name under `reads` are not there, and nothing that is no
//! feature can be named. A step may read the label too: it never runs on a benchmark or when a model serves.
//!
//! What a SELECT may hold beyond that is checked where it is planned (`features`).

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::SpecError;
use super::grammar::{LogicalType, Spec};
use super::learning::{EncodeWord, Learning};
use super::rules::{Check, check_text, require};

/// Name of the table of rows.
pub const ROWS: &str = "rows";
/// Most reference tables.
pub const MAX_REFERENCES: usize = 8;
/// Most SELECTs that add columns, and most steps.
pub const MAX_SELECTS: usize = 16;
/// Longest SELECT in bytes.
pub const MAX_SELECT: usize = 4_096;
/// Most columns of a reference table, and most that one SELECT adds.
pub const MAX_TABLE_COLUMNS: usize = 64;
/// Longest name of a table, a SELECT or one of their columns.
const MAX_NAME: usize = 128;
/// Longest name of a file.
const MAX_FILE: usize = 4_096;

/// A table that SELECTs may join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reference {
    /// Its name in SQL.
    pub name: String,
    /// Its columns.
    pub columns: Vec<TypedColumn>,
    /// File to take it from; never in a contract that is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// SHA-256 of its canonical form, under which the store has it; hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// A column that is no column of the model's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TypedColumn {
    /// Its name.
    pub name: String,
    /// Type of its values.
    pub logical_type: LogicalType,
}

/// A SELECT that adds columns to rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SqlFeature {
    /// What errors call it.
    pub name: String,
    /// Columns of `rows` that it sees.
    pub reads: Vec<String>,
    /// The SELECT.
    pub select: String,
    /// What it adds, in its order.
    pub columns: Vec<TypedColumn>,
}

/// A SELECT that says which training rows are learned from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SqlStep {
    /// What errors call it.
    pub name: String,
    /// Columns of `rows` that it sees; the label may be one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reads: Vec<String>,
    /// The SELECT.
    pub select: String,
}

impl Spec {
    /// Columns that SQL adds, in the order of the document.
    pub fn sql_columns(&self) -> impl Iterator<Item = &TypedColumn> {
        self.learning.iter().flat_map(|said| &said.sql).flat_map(|sql| &sql.columns)
    }

    /// A column that SQL adds.
    #[must_use]
    pub fn sql_column(&self, name: &str) -> Option<&TypedColumn> {
        self.sql_columns().find(|column| column.name == name)
    }

    pub(super) fn check_sql(&self, said: &Learning) -> Check {
        self.check_tables(said)?;
        let help = format!("a model has at most {MAX_SELECTS}");
        require(said.sql.len() <= MAX_SELECTS, "learning.sql", "has too many entries", &help)?;
        require(said.steps.len() <= MAX_SELECTS, "learning.steps", "has too many entries", &help)?;
        let known: HashSet<String> = self.properties().iter().map(|p| p.name.to_lowercase()).collect();
        let leaking: HashSet<String> = self.leakage.iter().map(|leak| leak.column.to_lowercase()).collect();
        let (mut names, mut added) = (HashSet::new(), HashSet::new());
        for (i, sql) in said.sql.iter().enumerate() {
            let path = format!("learning.sql[{i}]");
            check_name(&sql.name, &mut names, &format!("{path}.name"))?;
            check_text(&sql.select, &format!("{path}.select"), MAX_SELECT)?;
            require(!sql.reads.is_empty(), &format!("{path}.reads"), "is empty", "name the columns that it sees")?;
            self.check_reads(said, &sql.reads, false, &path)?;
            check_columns(&sql.columns, &path)?;
            for (j, column) in sql.columns.iter().enumerate() {
                let at = format!("{path}.columns[{j}].name");
                let folded = column.name.to_lowercase();
                let problem = format!("`{}` is a column already", column.name);
                require(
                    !known.contains(&folded) && added.insert(folded.clone()),
                    &at,
                    &problem,
                    "give it another name",
                )?;
                let problem = format!("`{}` is named under `leakage`", column.name);
                require(!leaking.contains(&folded), &at, &problem, "no feature has the name of a leak")?;
            }
        }
        for (i, step) in said.steps.iter().enumerate() {
            let path = format!("learning.steps[{i}]");
            check_name(&step.name, &mut names, &format!("{path}.name"))?;
            check_text(&step.select, &format!("{path}.select"), MAX_SELECT)?;
            self.check_reads(said, &step.reads, true, &path)?;
        }
        Ok(())
    }

    fn check_tables(&self, said: &Learning) -> Check {
        let help = format!("a model has at most {MAX_REFERENCES}");
        require(said.references.len() <= MAX_REFERENCES, "learning.references", "has too many tables", &help)?;
        let mut names = HashSet::from([ROWS.to_owned()]);
        for (i, table) in said.references.iter().enumerate() {
            let path = format!("learning.references[{i}]");
            check_name(&table.name, &mut names, &format!("{path}.name"))?;
            check_columns(&table.columns, &path)?;
            let help =
                "name the `file` that `model apply` takes it from, or the `digest` of a table that the store has";
            require(table.file.is_some() != table.digest.is_some(), &path, "has not one of `file` and `digest`", help)?;
            if let Some(file) = &table.file {
                check_text(file, &format!("{path}.file"), MAX_FILE)?;
            }
            let hex = |digest: &String| {
                digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
            };
            let fits = table.digest.as_ref().is_none_or(hex);
            require(fits, &format!("{path}.digest"), "is no SHA-256", "write 64 hex digits in lower case")?;
        }
        Ok(())
    }

    fn check_reads(&self, said: &Learning, reads: &[String], training: bool, path: &str) -> Check {
        let mut seen = HashSet::new();
        for (i, name) in reads.iter().enumerate() {
            let at = format!("{path}.reads[{i}]");
            require(seen.insert(name), &at, "is named twice", "name each column once")?;
            if training && self.label.as_ref() == Some(name) {
                continue;
            }
            let property = self.feature_column(name, &at)?;
            let left = said.leave_out.contains(name);
            require(!left, &at, &format!("`{name}` is left out"), "remove it from one of the two")?;
            self.check_allowed(property, EncodeWord::Category, &at)?;
        }
        Ok(())
    }

    /// The contract with the digests of its reference tables, in their order, in place of their files.
    #[must_use]
    pub fn with_references(mut self, digests: &[String]) -> Self {
        let tables = self.learning.iter_mut().flat_map(|said| &mut said.references);
        for (table, digest) in tables.zip(digests) {
            (table.file, table.digest) = (None, Some(digest.clone()));
        }
        self
    }

    /// No file of a contract's author means anything to others.
    pub(super) fn check_published(&self) -> Check {
        let tables = self.learning.iter().flat_map(|said| &said.references);
        let unstored = tables.enumerate().find(|(_, table)| table.digest.is_none());
        match unstored {
            None => Ok(()),
            Some((i, table)) => Err(SpecError::at(
                format!("learning.references[{i}].file"),
                format!("the table `{}` is not in the store", table.name),
                "`hokusai model apply` puts it there and names its digest",
            )),
        }
    }
}

fn check_columns(columns: &[TypedColumn], path: &str) -> Check {
    let at = format!("{path}.columns");
    let count = (1..=MAX_TABLE_COLUMNS).contains(&columns.len());
    require(count, &at, "has no or too many entries", &format!("name 1 to {MAX_TABLE_COLUMNS} columns"))?;
    let mut names = HashSet::new();
    for (i, column) in columns.iter().enumerate() {
        let at = format!("{at}[{i}].name");
        check_text(&column.name, &at, MAX_NAME)?;
        let reserved = column.name.starts_with('_');
        require(!reserved, &at, "starts with `_`", "such names are kept for the platform's own columns")?;
        require(names.insert(column.name.to_lowercase()), &at, "occurs twice (case does not count)", "rename one")?;
    }
    Ok(())
}

/// Names stand in SQL without quotes.
fn check_name(name: &str, names: &mut HashSet<String>, path: &str) -> Check {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    let rest = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    let help = "1 to 128 of a-z, 0-9 and `_`, first a letter";
    require(first && rest && name.len() <= MAX_NAME, path, "is no name", help)?;
    require(names.insert(name.to_owned()), path, "is taken", "give it another name (`rows` are the model's rows)")
}
