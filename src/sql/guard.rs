//! Lets queries through and nothing else.
//!
//! Two fences, each enough by itself: the parsed statement must be of a kind that only reads, and the plan must hold no
//! node that defines, changes or configures anything. Files and URLs cannot be named at all: the session has no table
//! function and no catalog that reads them.

use datafusion::execution::context::SQLOptions;
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast;

use super::error::SqlError;

/// Longest query text.
pub const MAX_BYTES: usize = 1 << 20;

/// The one statement of `sql`, if it only reads.
///
/// # Errors
/// [`SqlError::ReadOnly`], [`SqlError::Statements`], or the parser's own complaint.
pub fn read_only(sql: &str) -> Result<Statement, SqlError> {
    if sql.len() > MAX_BYTES {
        return Err(SqlError::Query { message: format!("a query may have {MAX_BYTES} bytes"), help: String::new() });
    }
    let mut statements = DFParser::parse_sql(sql)?;
    let found = statements.len();
    let (Some(statement), None) = (statements.pop_front(), statements.front()) else {
        return Err(SqlError::Statements { found });
    };
    check(&statement)?;
    Ok(statement)
}

/// What a plan may hold: nothing but reading.
#[must_use]
pub fn options() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}

fn check(statement: &Statement) -> Result<(), SqlError> {
    let what = match statement {
        Statement::Explain(explain) => return check(&explain.statement),
        Statement::Statement(statement) => match statement.as_ref() {
            ast::Statement::Query(query) => return check_query(query),
            ast::Statement::ExplainTable { .. }
            | ast::Statement::ShowTables { .. }
            | ast::Statement::ShowColumns { .. }
            | ast::Statement::ShowFunctions { .. } => return Ok(()),
            other => other.to_string(),
        },
        other => other.to_string(),
    };
    Err(SqlError::ReadOnly { what: first_words(&what) })
}

fn check_query(query: &ast::Query) -> Result<(), SqlError> {
    let what = match query.body.as_ref() {
        ast::SetExpr::Insert(_) => "INSERT",
        ast::SetExpr::Update(_) => "UPDATE",
        ast::SetExpr::Delete(_) => "DELETE",
        ast::SetExpr::Merge(_) => "MERGE",
        _ => return Ok(()),
    };
    Err(SqlError::ReadOnly { what: what.to_owned() })
}

fn first_words(text: &str) -> String {
    let words: Vec<&str> =
        text.split_whitespace().take(2).filter(|word| word.chars().all(char::is_alphabetic)).collect();
    if words.is_empty() { "this statement".to_owned() } else { words.join(" ").to_uppercase() }
}
