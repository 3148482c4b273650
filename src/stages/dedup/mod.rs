//! Deduplication: the first contributor of a row, in the log order of its hash shard, owns it. Exact.
//!
//! Invariants:
//! * a shard's verdicts are a function of `contributions.screened`'s records of that partition in offset order;
//! * the same part of the same chunk again is a replay: it gets its old verdict, and nothing is accepted twice;
//! * a released row belongs to nobody until the next contribution of it;
//! * who owns a row that somebody else contributed again is told to nobody.
//!
//! Rows compare by features and label (see [`index`]); the hashes are keyed per model, so that one index serves all
//! models and equal rows of two models are different rows.

mod disk;
#[cfg(test)]
mod format_tests;
pub mod index;
pub mod owners;
pub mod rows;
pub mod run;
pub mod state;
#[cfg(test)]
mod tests;

use arrow::array::RecordBatch;

use index::RowKey;
use owners::{OwnerFacts, PartVerdict, Relation};
use rows::HashedRow;
use state::DedupState;

use crate::domain::reason::Reason;
use crate::domain::records::{
    Accepted, ChunkId, Count, Refusal, Refused, Release, ScreenedEvent, ScreenedRows, Verdict,
};
use crate::domain::topics;
use crate::stages::limits::split_by_size;
use crate::stream::stage::{Batch, Context, Destination, Message, Outputs, Stage, StageError};

/// The stage: see the module.
#[derive(Debug, Default)]
pub struct Dedup {}

impl Dedup {
    /// The stage; it has no settings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Stage for Dedup {
    type State = DedupState;

    fn name(&self) -> &'static str {
        "dedup"
    }

    fn state(&self) -> DedupState {
        DedupState::default()
    }

    fn process(
        &mut self,
        context: &Context<'_>,
        state: &mut DedupState,
        batch: &Batch,
        out: &mut Outputs<'_>,
    ) -> Result<(), StageError> {
        for message in batch.iter() {
            match decode(context, &message, out)? {
                Ok(Work::Rows(part)) => deduplicate(state, *part, out)?,
                Ok(Work::Release(release)) => {
                    let mut idents = release.chunks.iter().map(|chunk| OwnerFacts::released(&release, chunk));
                    idents.try_for_each(|ident| state.release(ident))?;
                }
                Err(detail) => out.dead_letter(batch, &message, "SCREENED_UNREADABLE", detail),
            }
        }
        Ok(())
    }
}

/// A record of `contributions.screened` that was read in full.
enum Work {
    Rows(Box<Part>),
    Release(Release),
}

/// The rows of a chunk that came in one record.
struct Part {
    screened: ScreenedRows,
    batch: RecordBatch,
    hashed: Vec<HashedRow>,
}

/// Reads a record before any state changes; the inner error is a dead letter's detail.
fn decode(context: &Context<'_>, message: &Message<'_>, out: &Outputs<'_>) -> Result<Result<Work, String>, StageError> {
    let Some(value) = message.value else { return Ok(Err("no value".to_owned())) };
    let event = match out.wire().decode::<ScreenedEvent>(value) {
        Ok(event) => event,
        Err(error) if error.is_retriable() => return Err(error.into()),
        Err(error) => return Ok(Err(error.to_string())),
    };
    Ok(match event {
        ScreenedEvent { rows: Some(rows), release: None } if rows.shard != context.partition => {
            Err(format!("rows of shard {} in partition {}", rows.shard, context.partition))
        }
        ScreenedEvent { rows: Some(rows), release: None } => {
            let counts =
                usize::try_from(rows.rows).ok().zip(u32::try_from(rows.part).ok()).zip(u32::try_from(rows.parts).ok());
            match counts {
                Some(((expected, part), parts)) if part < parts => {
                    let read = rows::read(&rows.batch, expected).map_err(|e| e.to_string());
                    read.map(|(batch, hashed)| Work::Rows(Box::new(Part { screened: rows, batch, hashed })))
                }
                _ => Err(format!("{} rows in part {} of {}", rows.rows, rows.part, rows.parts)),
            }
        }
        ScreenedEvent { rows: None, release: Some(release) } => Ok(Work::Release(release)),
        ScreenedEvent { .. } => Err("neither rows nor a release, or both".to_owned()),
    })
}

/// What became of the rows of one part.
struct Outcome {
    verdict: PartVerdict,
    keep: Vec<bool>,
    refusals: Vec<Refusal>,
}

fn deduplicate(state: &mut DedupState, part: Part, out: &mut Outputs<'_>) -> Result<(), StageError> {
    let Part { screened, batch, hashed } = part;
    let facts = OwnerFacts::of(&screened.id);
    let number = u32::try_from(screened.part).unwrap_or_default();
    if let Some(owner) = state.owner(&facts)?
        && let Some(verdict) = state.verdict(owner, number)?
    {
        return send_verdict(&screened, &verdict, out);
    }
    let owner = state.intern(&facts)?;
    let outcome = classify(state, owner, &facts, &hashed, &screened)?;
    state.set_verdict(owner, number, outcome.verdict);
    send_verdict(&screened, &outcome.verdict, out)?;
    send_refusals(&screened.id, outcome.refusals, out)?;
    send_accepted(screened, &batch, &outcome.keep, out)
}

fn classify(
    state: &mut DedupState,
    owner: u32,
    facts: &OwnerFacts,
    hashed: &[HashedRow],
    screened: &ScreenedRows,
) -> Result<Outcome, StageError> {
    let mut outcome = Outcome {
        verdict: PartVerdict { parts: u32::try_from(screened.parts).unwrap_or_default(), ..PartVerdict::default() },
        keep: Vec::with_capacity(hashed.len()),
        refusals: Vec::new(),
    };
    for row in hashed {
        let key = RowKey::new(row.row_hash, row.feature_hash);
        let known = state.look_up(key)?;
        let earlier = match known.owner {
            Some((earlier, at)) => state.relation(earlier, facts)?.map(|relation| (relation, at)),
            None => None,
        };
        let conflict = earlier.is_none() && known.other_label && screened.refuse_label_conflicts;
        outcome.keep.push(earlier.is_none() && !conflict);
        let verdict = &mut outcome.verdict;
        if let Some((relation, at)) = earlier {
            match relation {
                Relation::SameContribution(_) => verdict.in_batch += 1,
                Relation::SameContributor => verdict.in_pool += 1,
                Relation::Other => verdict.other_owner += 1,
            }
            outcome.refusals.push(duplicate(row, relation, at));
        } else if conflict {
            verdict.label_conflicts += 1;
            let (rule, expected) = ("refuse", "one label for the same features");
            outcome.refusals.push(refusal(row, Reason::LabelConflict, rule, expected, "another label".to_owned()));
        } else {
            state.accept(key, owner, row.row);
            verdict.accepted += 1;
            verdict.label_conflicts += u32::from(known.other_label);
        }
    }
    Ok(outcome)
}

fn duplicate(row: &HashedRow, relation: Relation, at: u32) -> Refusal {
    let (reason, shape) = match relation {
        Relation::SameContribution(chunk) => (Reason::DupInBatch, format!("same as row {at} of chunk {chunk}")),
        Relation::SameContributor => (Reason::DupInPool, "same as a row of an earlier contribution".to_owned()),
        Relation::Other => (Reason::DupOtherOwner, String::new()),
    };
    refusal(row, reason, "unique", "a row that is new to the pool", shape)
}

fn refusal(row: &HashedRow, reason: Reason, rule: &str, expected: &str, shape: String) -> Refusal {
    Refusal {
        row: i64::from(row.row),
        code: reason.code().to_owned(),
        column: String::new(),
        rule: rule.to_owned(),
        expected: expected.to_owned(),
        shape,
        row_digest: data_encoding::HEXLOWER.encode(&row.row_hash.to_be_bytes()),
    }
}

fn send_verdict(screened: &ScreenedRows, verdict: &PartVerdict, out: &mut Outputs<'_>) -> Result<(), StageError> {
    let duplicates = [
        (Reason::DupInBatch, verdict.in_batch),
        (Reason::DupInPool, verdict.in_pool),
        (Reason::DupOtherOwner, verdict.other_owner),
        // The same chunk met the same contract whenever it was judged: a replay's verdict is read as the first one was.
        (Reason::LabelConflict, if screened.refuse_label_conflicts { verdict.label_conflicts } else { 0 }),
    ];
    let record = Verdict {
        id: screened.id.clone(),
        shard: screened.shard,
        part: screened.part,
        parts: i32::try_from(verdict.parts).unwrap_or_default(),
        accepted: i64::from(verdict.accepted),
        duplicates: duplicates
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| Count { name: reason.code().to_owned(), count: i64::from(count) })
            .collect(),
        label_conflicts: i64::from(verdict.label_conflicts),
    };
    out.send(topics::VERDICTS, Destination::ByKey, screened.id.contribution_id.as_bytes(), &record)
}

fn send_refusals(id: &ChunkId, refusals: Vec<Refusal>, out: &mut Outputs<'_>) -> Result<(), StageError> {
    for refusals in split_by_size(refusals, refusal_size) {
        let record = Refused { id: id.clone(), stage: "dedup".to_owned(), position: None, refusals };
        out.send(topics::REFUSED, Destination::ByKey, id.contribution_id.as_bytes(), &record)?;
    }
    Ok(())
}

/// An upper bound of a refusal's size on the wire.
fn refusal_size(r: &Refusal) -> usize {
    64 + r.code.len() + r.column.len() + r.rule.len() + r.expected.len() + r.shape.len() + r.row_digest.len()
}

fn send_accepted(
    screened: ScreenedRows,
    batch: &RecordBatch,
    keep: &[bool],
    out: &mut Outputs<'_>,
) -> Result<(), StageError> {
    let accepted = keep.iter().filter(|kept| **kept).count();
    if accepted == 0 {
        return Ok(());
    }
    let failed = |e: &dyn std::fmt::Display| StageError::Compute {
        what: "filtering first-seen rows".to_owned(),
        detail: e.to_string(),
    };
    // Nothing to take out: the bytes are passed on as they came.
    let batch =
        if accepted == keep.len() { screened.batch } else { rows::filter(batch, keep).map_err(|e| failed(&e))? };
    let record = Accepted {
        id: screened.id,
        shard: screened.shard,
        part: screened.part,
        rows: i64::try_from(accepted).unwrap_or(i64::MAX),
        batch,
    };
    let key = screened.shard.to_string();
    out.send(topics::ACCEPTED, Destination::Partition(screened.shard), key.as_bytes(), &record)
}
