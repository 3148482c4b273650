//! SQL before learning and scoring: columns that are added to rows, and steps that say which training rows are learned from.
//!
//! One engine for all who need it: training, the sealed rows of an evaluation, attribution, `predict`, and whoever recomputes. What it may
//! be asked is in [`guard`]: a row's result follows from the row and the reference tables alone, so rows go through in pieces of bounded
//! size, and neither pieces nor threads show in a single bit.
//!
//! ```text
//! batch ──► piece of rows + `_row` ──► SELECT, `_row` beside it ──► back in the order of `_row`, each once ──► batch with the columns
//! ```
//!
//! | file | holds |
//! |---|---|
//! | [`guard`] | which SELECTs may run |
//! | [`session`] | planning and running them, piece by piece |
//! | [`table`] | reference tables and their canonical form |

mod guard;
mod session;
pub mod table;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::{Field as ArrowField, Schema};

use self::guard::For;
use self::session::Session;
use crate::ml::derivation::{Derivation, Select};
use crate::rowsql::arrow_type;

/// The hidden number of a row in its piece.
const ROW: &str = "_row";
/// What a step may read besides columns: a number from 0 up to 1 that belongs to the row, the same in every run.
pub const SHARE: &str = "_share";

/// Why SQL gives no columns. Its text repeats no value of a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{select} {problem}{}; help: {help}", row.map(|row| format!(" (row {})", row.saturating_add(1))).unwrap_or_default())]
pub struct Fault {
    /// Which SELECT or table.
    pub select: String,
    /// What is wrong.
    pub problem: String,
    /// The way out.
    pub help: String,
    /// Place of a row at which it is so, from 0; none when it is not about one row.
    pub row: Option<usize>,
}

impl Fault {
    /// The fault of rows whose places may not be told, such as sealed ones.
    #[must_use]
    pub fn without_place(self) -> Self {
        Self { row: None, ..self }
    }

    /// The fault of a piece, as that of the whole in which this many rows are before it.
    #[must_use]
    pub fn after(self, rows: usize) -> Self {
        Self { row: self.row.map(|row| row.saturating_add(rows)), ..self }
    }
}

fn fault(select: &Select, problem: impl Into<String>, help: impl Into<String>) -> Fault {
    Fault { select: format!("the SQL `{}`", select.name), problem: problem.into(), help: help.into(), row: None }
}

/// A fault of the row at this place.
fn fault_at(row: usize, select: &Select, problem: impl Into<String>, help: impl Into<String>) -> Fault {
    Fault { row: Some(row), ..fault(select, problem, help) }
}

/// Whether all of it may run and gives the declared columns; needs no row and no reference table's content.
///
/// # Errors
/// The position among SELECTs and then steps of the first that may not, and why.
pub fn check(derivation: &Derivation) -> Result<(), (usize, Fault)> {
    checked(derivation, false)
}

/// As [`check`], with the reference tables at hand: whether their rows may be joined too.
///
/// # Errors
/// As [`check`].
pub fn check_filled(derivation: &Derivation) -> Result<(), (usize, Fault)> {
    checked(derivation, true)
}

fn checked(derivation: &Derivation, filled: bool) -> Result<(), (usize, Fault)> {
    if derivation.is_empty() {
        return Ok(());
    }
    let all = selects(derivation);
    apart(async {
        let session = Session::new(derivation, filled).map_err(|e| (0, e))?;
        for (place, (select, purpose)) in all.iter().enumerate() {
            session.admit(select, *purpose).await.map_err(|e| (place, e))?;
        }
        Ok(())
    })
}

fn selects(derivation: &Derivation) -> Vec<(&Select, For)> {
    let selects = derivation.selects.iter().map(|select| (select, For::Feature));
    selects.chain(derivation.steps.iter().map(|select| (select, For::Step))).collect()
}

/// The batch with the columns that SQL adds. Takes it, so that whoever goes on column by column holds the only one.
///
/// # Errors
/// A column that it reads is missing, a row is lost or comes twice, SQL that may not run, or that fails.
pub fn derive(derivation: &Derivation, batch: RecordBatch) -> Result<RecordBatch, Fault> {
    if derivation.selects.is_empty() {
        return Ok(batch);
    }
    apart(async {
        let session = Session::new(derivation, true)?;
        let mut fields: Vec<Arc<ArrowField>> = batch.schema_ref().fields().iter().cloned().collect();
        let mut columns = batch.columns().to_vec();
        for select in &derivation.selects {
            let added = session.added(select, &batch).await?;
            for (field, column) in select.columns.iter().zip(added) {
                // A column of that name in the rows is not the one that is declared.
                if let Some(place) = fields.iter().position(|known| *known.name() == field.name) {
                    fields.remove(place);
                    columns.remove(place);
                }
                fields.push(Arc::new(ArrowField::new(&field.name, arrow_type(field.kind), true)));
                columns.push(column);
            }
        }
        let unfit = |_| Fault {
            select: "the SQL".to_owned(),
            problem: "gives columns of another length".to_owned(),
            help: "this is a defect".to_owned(),
            row: None,
        };
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(unfit)
    })
}

/// Which training rows a step lets through; `keys` are theirs, in their order.
///
/// # Errors
/// As [`derive`]; a row may be lost here, but not come twice.
pub fn kept(derivation: &Derivation, step: &Select, batch: &RecordBatch, keys: &[u64]) -> Result<BooleanArray, Fault> {
    apart(async { Session::new(derivation, true)?.kept(step, batch, keys).await })
}

/// Runs on a thread of its own: the caller may be in a runtime, or in none.
fn apart<T: Send, E: Send + Unavailable>(work: impl Future<Output = Result<T, E>> + Send) -> Result<T, E> {
    std::thread::scope(|scope| {
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.map_err(|_| E::unavailable())?.block_on(work)
        };
        let thread = std::thread::Builder::new().name("hokusai-sql".to_owned()).spawn_scoped(scope, run);
        match thread.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(done)) => done,
            _ => Err(E::unavailable()),
        }
    })
}

/// An error that says that the engine did not come to an end.
trait Unavailable {
    fn unavailable() -> Self;
}

impl Unavailable for Fault {
    fn unavailable() -> Self {
        Self {
            select: "SQL".to_owned(),
            problem: "could not be run: the system gives no thread, or the engine ended".to_owned(),
            help: "see the log".to_owned(),
            row: None,
        }
    }
}

impl Unavailable for (usize, Fault) {
    fn unavailable() -> Self {
        (0, Fault::unavailable())
    }
}
