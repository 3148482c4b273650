//! What can go wrong with a query, told so that the next try succeeds.

use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;

use crate::stages::warehouse::error::WarehouseError;

/// Why a query gave no result.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// Nothing but queries is allowed.
    #[error("{what} is not allowed: SQL here only reads; help: use SELECT, EXPLAIN, DESCRIBE or SHOW")]
    ReadOnly {
        /// The kind of statement.
        what: String,
    },
    /// The text holds no statement, or several.
    #[error("expected one statement, found {found}; help: end a statement with ; and give one at a time")]
    Statements {
        /// How many there are.
        found: usize,
    },
    /// The query is not right.
    #[error("{message}{help}")]
    Query {
        /// What is wrong.
        message: String,
        /// `; help: …`, or empty.
        help: String,
    },
    /// The query took longer than queries may.
    #[error(
        "the query was ended after {hours} hours: files that it reads may be deleted soon; help: read a part of the table at a time"
    )]
    TooLong {
        /// The limit.
        hours: u64,
    },
    /// The tables could not be opened.
    #[error(transparent)]
    Tables(#[from] WarehouseError),
    /// The result could not be written.
    #[error("the result could not be written: {0}")]
    Output(#[from] std::io::Error),
}

impl SqlError {
    /// The reader of the output went away (`hokusai sql … | head`): no failure.
    #[must_use]
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

impl From<DataFusionError> for SqlError {
    fn from(error: DataFusionError) -> Self {
        let help = help(&error).map_or_else(String::new, |help| format!("; help: {help}"));
        Self::Query { message: first_line(&error), help }
    }
}

impl From<arrow::error::ArrowError> for SqlError {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::from(DataFusionError::from(error))
    }
}

fn first_line(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, .. } => format!("no column {}", field.flat_name()),
            other => other.to_string(),
        },
        DataFusionError::Plan(text) => missing_table(text).map_or_else(|| text.clone(), |t| format!("no table {t}")),
        DataFusionError::SQL(error, _) => match error.as_ref() {
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => format!("this is not SQL: {text}"),
            ParserError::RecursionLimitExceeded => "the query is nested too deeply".to_owned(),
        },
        other => other.strip_backtrace().lines().next().unwrap_or_default().to_owned(),
    }
}

fn missing_table(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("table '")?;
    let (name, rest) = rest.split_once('\'')?;
    rest.trim_start().starts_with("not found").then(|| name.rsplit('.').next().unwrap_or(name))
}

fn help(error: &DataFusionError) -> Option<String> {
    match error.find_root() {
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => Some(nearest(field, valid_fields)),
            _ => None,
        },
        DataFusionError::Plan(text) => {
            missing_table(text).map(|_| "\\d in the prompt, or SHOW TABLES, lists them".to_owned())
        }
        DataFusionError::ResourcesExhausted(_) => Some("ask for less, or allow more with --memory".to_owned()),
        other if other.to_string().contains("used disk space during the spilling") => {
            Some("ask for less, or allow more with --memory and --spill".to_owned())
        }
        _ => None,
    }
}

fn nearest(wanted: &Column, valid: &[Column]) -> String {
    let wanted = wanted.name.to_lowercase();
    let mut names: Vec<(usize, &str)> =
        valid.iter().map(|column| (distance(&wanted, &column.name.to_lowercase()), column.name.as_str())).collect();
    names.sort_by_key(|(distance, _)| *distance);
    names.dedup();
    let close = names.iter().take_while(|(distance, _)| *distance <= 1 + wanted.chars().count() / 3).count();
    let shown = |count: usize| names.iter().take(count).map(|(_, name)| quoted(name)).collect::<Vec<_>>().join(", ");
    match (names.len(), close) {
        (0, _) => "there is no column here".to_owned(),
        (_, 0) => format!("the columns are {}{}", shown(12), if names.len() > 12 { ", …" } else { "" }),
        (_, close) => format!("did you mean {}?", shown(close.min(3))),
    }
}

/// A name as it must stand in SQL: unquoted names are read in lower case.
pub(super) fn quoted(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_the_fewest_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn a_name_that_needs_quotes_is_shown_with_them() {
        assert_eq!(quoted("dep_delay"), "dep_delay");
        assert_eq!(quoted("DepDelay"), "\"DepDelay\"");
    }
}
