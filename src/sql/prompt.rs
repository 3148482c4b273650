//! The prompt: lines until `;`, history, completion of names.

use std::path::PathBuf;

use arrow::datatypes::DataType;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Context, Editor, Helper};

use super::error::quoted;
use super::session::Relation;

/// What the prompt understands.
pub const HELP: &str = "\
  select …;      a query; it may take several lines and ends with ;
  \\d             tables and views
  \\d NAME        columns of one
  \\h             this text
  \\q or Ctrl-D   leave
  Ctrl-C         cancel the line or the query
  Tab            complete a name, arrow keys walk through history
Views: admitted_rows (rows that count), receipt_refused, receipt_quality, receipt_pii, receipt_chunks.
Names are lower case unless quoted: \"DepDelay\". Parts of nested columns: quality['score'], unnest(refused).";

/// Words that are completed besides names.
const WORDS: [&str; 22] = [
    "select",
    "from",
    "where",
    "group by",
    "order by",
    "having",
    "limit",
    "count(*)",
    "sum(",
    "avg(",
    "min(",
    "max(",
    "distinct",
    "join",
    "left join",
    "using",
    "with",
    "explain",
    "describe",
    "show tables",
    "unnest(",
    "desc",
];

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A query, without its `;`.
    Query(String),
    /// `\d`.
    List,
    /// `\d NAME`.
    Describe(String),
    /// `\h`.
    Help,
    /// `\q`.
    Quit,
    /// An empty line.
    Nothing,
    /// A command that does not exist.
    Unknown(String),
}

impl Input {
    /// Reads what was typed.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        let bare = text.trim_end_matches(';').trim_end();
        match bare.to_lowercase().as_str() {
            "" => return Self::Nothing,
            "help" => return Self::Help,
            "quit" | "exit" => return Self::Quit,
            _ => {}
        }
        let Some(command) = bare.strip_prefix('\\') else { return Self::Query(bare.to_owned()) };
        let (command, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        match (command, rest.trim()) {
            ("d" | "dt" | "d+", "") => Self::List,
            ("d" | "dt" | "d+", name) => Self::Describe(name.to_owned()),
            ("h" | "?" | "help", _) => Self::Help,
            ("q" | "quit", _) => Self::Quit,
            (other, _) => Self::Unknown(format!("\\{other}")),
        }
    }

    /// What was typed is an input as it stands; otherwise another line follows.
    #[must_use]
    pub fn is_complete(text: &str) -> bool {
        !matches!(Self::parse(text), Self::Query(_)) || text.trim_end().ends_with(';')
    }
}

/// A line editor that knows the names of tables and columns.
pub struct Prompt {
    editor: Editor<Names, FileHistory>,
    history: PathBuf,
}

impl Prompt {
    /// Opens the prompt; the history is kept in a file that may not exist yet.
    ///
    /// # Errors
    /// When there is no terminal to talk to.
    pub fn open(relations: &[Relation], history: PathBuf) -> Result<Self, ReadlineError> {
        let config = Config::builder()
            .history_ignore_space(true)
            .max_history_size(1_000)?
            .completion_type(CompletionType::List)
            .build();
        let mut editor = Editor::with_config(config)?;
        editor.set_helper(Some(Names::of(relations)));
        // No history yet is no error.
        let _ = editor.load_history(&history);
        Ok(Self { editor, history })
    }

    /// Reads one input.
    ///
    /// # Errors
    /// Interrupted (Ctrl-C), end (Ctrl-D), or the terminal's own.
    pub fn read(&mut self) -> Result<Input, ReadlineError> {
        let text = self.editor.readline("hokusai> ")?;
        if !text.trim().is_empty() {
            self.editor.add_history_entry(text.trim())?;
            if let Err(error) = self.editor.save_history(&self.history) {
                tracing::debug!(%error, "the history was not kept");
            }
        }
        Ok(Input::parse(&text))
    }
}

/// Completes names, and asks for more lines until a query ends.
struct Names {
    names: Vec<String>,
}

impl Names {
    fn of(relations: &[Relation]) -> Self {
        let mut names: Vec<String> = WORDS.iter().map(|word| (*word).to_owned()).collect();
        for relation in relations {
            names.push(relation.name.clone());
            names.extend(relation.schema.fields().iter().map(|field| quoted(field.name())));
        }
        names.sort();
        names.dedup();
        Self { names }
    }
}

impl Helper for Names {}
impl Highlighter for Names {}
impl Hinter for Names {
    type Hint = String;
}

impl Completer for Names {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let before = line.get(..at).unwrap_or(line);
        let start = before
            .rfind(|c: char| !(c.is_alphanumeric() || c == '_' || c == '"'))
            .map_or(0, |i| i + before.get(i..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8));
        let word = before.get(start..).unwrap_or_default().to_lowercase();
        let fits = |name: &&String| !word.is_empty() && name.to_lowercase().starts_with(&word);
        Ok((start, self.names.iter().filter(fits).cloned().collect()))
    }
}

impl Validator for Names {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let complete = Input::is_complete(context.input());
        Ok(if complete { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

/// The text of `\d`.
#[must_use]
pub fn listing(relations: &[Relation], name: Option<&str>) -> String {
    let pad = |names: &mut dyn Iterator<Item = usize>| names.max().unwrap_or(0);
    let Some(name) = name else {
        let width = pad(&mut relations.iter().map(|relation| relation.name.len()));
        return relations.iter().map(|r| format!("  {:<width$}  {}\n", r.name, r.comment)).collect();
    };
    let Some(relation) = relations.iter().find(|relation| relation.name.eq_ignore_ascii_case(name)) else {
        return format!("no table {name}; \\d lists them\n");
    };
    let columns: Vec<(String, String, &str)> = relation
        .schema
        .fields()
        .iter()
        .map(|field| {
            let comment = field.metadata().get(crate::stages::warehouse::tables::COMMENT);
            (quoted(field.name()), kind(field.data_type()), comment.map_or("", String::as_str))
        })
        .collect();
    let names = pad(&mut columns.iter().map(|(name, ..)| name.chars().count()));
    let types = pad(&mut columns.iter().map(|(_, kind, _)| kind.chars().count())).min(24);
    let lines = columns.iter().map(|(name, kind, comment)| {
        format!("  {name:<names$}  {kind:<types$}  {comment}").trim_end().to_owned() + "\n"
    });
    format!("{}: {}\n{}", relation.name, relation.comment, lines.collect::<String>())
}

/// A type as people say it.
fn kind(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 => "text".to_owned(),
        DataType::Int32 => "integer".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Timestamp(..) => "timestamp".to_owned(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})"),
        DataType::List(element) => format!("{}[]", kind(element.data_type())),
        DataType::Struct(fields) => {
            let parts: Vec<String> = fields.iter().map(|f| format!("{} {}", f.name(), kind(f.data_type()))).collect();
            format!("{{{}}}", parts.join(", "))
        }
        other => other.to_string().to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_goes_on_over_lines_until_its_semicolon_and_commands_need_none() {
        assert!(!Input::is_complete("select 1"));
        assert!(!Input::is_complete("select ';'\n from x"));
        assert!(Input::is_complete("select 1\n;  "));
        for command in ["\\d", "\\d rows", "", "help", "\\q", "\\nonsense"] {
            assert!(Input::is_complete(command), "{command}");
        }
        assert_eq!(Input::parse("select 1 ; "), Input::Query("select 1".to_owned()));
        assert_eq!(Input::parse("\\d rows;"), Input::Describe("rows".to_owned()));
        assert_eq!(Input::parse("EXIT;"), Input::Quit);
        assert_eq!(Input::parse("\\x"), Input::Unknown("\\x".to_owned()));
    }
}
