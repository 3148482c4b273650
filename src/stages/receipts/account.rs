//! The rules: what a manifest, a verdict and a time mark do to a contribution.
//!
//! Which content a contribution has, and whether it is complete, timed out or crowded out, is decided by
//! `contributions.manifests` alone, in offset order. Verdicts fill in numbers, in whatever order they come; the
//! receipt is written when every bound chunk has them. So the two topics may interleave in any way.

use super::close::{self, Why};
use super::model::{Chunk, Clock, Closed, Contribution, Header, Heard, Phase, Unusable, content, party, screened};
use super::store::{PAGE, Store};
use super::{ReceiptsConfig, References};
use crate::domain::quality::{merge, merge_counts};
use crate::domain::records::{Manifest, Mark, Verdict};
use crate::stream::stage::{Context, Outputs, StageError};

/// Chunks that a contribution may have.
pub const MAX_CHUNKS: i64 = 1 << 20;

/// Bytes that a contribution id may have.
const MAX_ID_BYTES: usize = 1_024;

/// Everything the rules work on.
pub struct Desk<'a, 'b, 'w> {
    /// Settings.
    pub config: &'a ReceiptsConfig,
    /// References of the contracts.
    pub references: &'a References,
    /// The state.
    pub store: Store<'a>,
    /// Partition counts.
    pub context: &'a Context<'b>,
    /// What the batch gives.
    pub out: &'a mut Outputs<'w>,
}

/// Why a chunk is not part of the contribution whose id it bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit {
    /// Another sender, model or number of chunks.
    Party,
    /// Another content under the same number.
    Content,
    /// Another contract.
    Contract,
    /// The contribution was closed without it.
    Late,
}

impl Desk<'_, '_, '_> {
    /// A chunk's manifest.
    pub fn manifest(&mut self, manifest: &Manifest) -> Result<(), StageError> {
        let (chunk, chunks) = (narrow(manifest.id.chunk), narrow(manifest.chunks));
        let id = &manifest.id.contribution_id;
        match self.store.contribution(id)? {
            Some(Contribution::Closed(closed)) => self.after_closing(&closed, manifest, chunk),
            Some(Contribution::Pending(header)) => self.while_pending(*header, manifest, chunk),
            None => {
                let mut header = Header::new(manifest, chunks);
                let open = self.store.open()?;
                if chunks > 1 && open >= self.config.max_open {
                    header.phase = Phase::Crowded;
                } else if chunks > 1 {
                    self.store.put_open(open + 1)?;
                    header.timer = manifest.appended.saturating_add(self.config.contribution_timeout_ms).max(1);
                    self.store.set_timer(header.timer, id)?;
                }
                self.bind(header, manifest, chunk)
            }
        }
    }

    fn while_pending(&mut self, header: Header, manifest: &Manifest, chunk: u32) -> Result<(), StageError> {
        let id = &manifest.id.contribution_id;
        let bound = self.store.chunk(id, chunk)?;
        let misfit = match &bound {
            _ if !header.is_of(manifest) => Some(Misfit::Party),
            Some(bound) if bound.chunk_digest != manifest.id.chunk_digest => Some(Misfit::Content),
            Some(_) => None,
            None if header.phase != Phase::Open => Some(Misfit::Late),
            None if self.store.is_barred(id, chunk, &screened(&manifest.id))? => Some(Misfit::Content),
            None if !agrees(&header.contract_digest, &manifest.id.contract_digest) => Some(Misfit::Contract),
            None => return self.bind(header, manifest, chunk),
        };
        let known = bound.as_ref().is_some_and(|b| b.screened == screened(&manifest.id));
        if misfit == Some(Misfit::Party) && bound.is_none() && header.phase == Phase::Open {
            // Its rows are released now. The same bytes under the right number of chunks are the same rows to dedup.
            self.store.bar(id, chunk, &screened(&manifest.id))?;
        }
        match misfit {
            Some(misfit) => self.reused(misfit, manifest, chunk, known),
            None => self.replayed(manifest, chunk, known),
        }
    }

    fn after_closing(&mut self, closed: &Closed, manifest: &Manifest, chunk: u32) -> Result<(), StageError> {
        let id = &manifest.id;
        let held = match closed.only {
            Some(only) => (chunk == 0).then_some(only),
            None => {
                let page = self.store.contents(&id.contribution_id, chunk / PAGE)?;
                page.into_iter().find(|(number, _)| *number == chunk).map(|(_, held)| held)
            }
        };
        let misfit = if closed.party != party(&id.contributor, &id.model, manifest.chunks) {
            Some(Misfit::Party)
        } else {
            match held {
                None => Some(Misfit::Late),
                Some(held) => (held.content != content(&id.chunk_digest)).then_some(Misfit::Content),
            }
        };
        let known = held.is_some_and(|held| held.screened == screened(id));
        match misfit {
            Some(misfit) => self.reused(misfit, manifest, chunk, known),
            None => self.replayed(manifest, chunk, known),
        }
    }

    /// Makes a chunk part of its contribution.
    fn bind(&mut self, mut header: Header, manifest: &Manifest, chunk: u32) -> Result<(), StageError> {
        let id = &manifest.id.contribution_id;
        let early = self.store.early(id, chunk, &screened(&manifest.id))?.unwrap_or_default();
        self.store.forget_early(id, chunk)?;
        let entry = Chunk::new(manifest, early);
        header.bound += 1;
        header.done += u32::from(covered(id, &entry)?);
        self.store.put_chunk(id, chunk, &entry)?;
        header.last_appended = header.last_appended.max(manifest.appended);
        header.received += manifest.received;
        if header.signature != manifest.contributor_signature.as_deref().unwrap_or_default() {
            header.signature.clear();
        }
        merge_counts(&mut header.refused, &manifest.refused);
        merge_counts(&mut header.pii, &manifest.pii);
        merge(&mut header.quality, &manifest.quality);
        header.collision_ppm = header.collision_ppm.max(manifest.collision_ppm);
        if header.contract_digest.is_empty() {
            header.contract_digest.clone_from(&manifest.id.contract_digest);
        }
        if header.phase == Phase::Open && header.bound == header.chunks {
            self.seal(id, &mut header, Phase::Complete)?;
        }
        self.settle(id, header)
    }

    /// No further chunk belongs to the contribution.
    fn seal(&mut self, id: &str, header: &mut Header, phase: Phase) -> Result<(), StageError> {
        header.phase = phase;
        if header.timer != 0 {
            self.store.clear_timer(header.timer, id)?;
            header.timer = 0;
            let open = self.store.open()?;
            self.store.put_open(open - 1)?;
        }
        Ok(())
    }

    /// Writes the header back, or closes the contribution when nothing is missing.
    fn settle(&mut self, id: &str, header: Header) -> Result<(), StageError> {
        if header.phase == Phase::Open || header.done < header.bound {
            self.store.put_contribution(id, &Contribution::Pending(Box::new(header)))?;
            return Ok(());
        }
        let closed = close::close(self, id, &header)?;
        let expiry = header.last_appended.saturating_add(self.config.closed_retention_ms).max(1);
        self.store.set_timer(expiry, id)?;
        self.store.put_contribution(id, &Contribution::Closed(closed))?;
        Ok(())
    }

    /// Dedup's verdict on a part of a chunk.
    pub fn verdict(&mut self, verdict: &Verdict) -> Result<(), StageError> {
        let id = &verdict.id.contribution_id;
        let (chunk, ident) = (narrow(verdict.id.chunk), screened(&verdict.id));
        let pending = match self.store.contribution(id)? {
            Some(Contribution::Closed(_)) => return Ok(()),
            Some(Contribution::Pending(header)) => Some(*header),
            None => None,
        };
        let open = pending.as_ref().is_none_or(|header| header.phase == Phase::Open);
        match (pending, self.store.chunk(id, chunk)?) {
            (Some(mut header), Some(mut entry)) if entry.screened == ident => {
                let was_covered = covered(id, &entry)?;
                if !was_covered && entry.verdicts.add(verdict) {
                    header.done += u32::from(covered(id, &entry)?);
                    self.store.put_chunk(id, chunk, &entry)?;
                    return self.settle(id, header);
                }
                Ok(())
            }
            // The chunk has another content: whatever came under this one is a reused id.
            (_, Some(_)) => Ok(()),
            (_, None) if open => {
                let mut early = self.store.early(id, chunk, &ident)?.unwrap_or_default();
                if early.add(verdict) {
                    self.store.put_early(id, chunk, &ident, &early)?;
                }
                Ok(())
            }
            (_, None) => Ok(()),
        }
    }

    /// A replay changes nothing. Screened under another contract it may have brought rows of its own into dedup: nobody owns them.
    fn replayed(&mut self, manifest: &Manifest, chunk: u32, known: bool) -> Result<(), StageError> {
        self.store.forget_early_of(&manifest.id.contribution_id, chunk, &screened(&manifest.id))?;
        if known { Ok(()) } else { close::release_chunk(self, manifest) }
    }

    fn reused(&mut self, misfit: Misfit, manifest: &Manifest, chunk: u32, known: bool) -> Result<(), StageError> {
        if !known {
            self.store.forget_early_of(&manifest.id.contribution_id, chunk, &screened(&manifest.id))?;
            close::release_chunk(self, manifest)?;
        }
        close::refuse(self, &manifest.id, Some(&manifest.position), &Why::Misfit(misfit))
    }

    /// A time mark, with its own append time.
    pub fn mark(&mut self, mark: &Mark, appended: i64) -> Result<(), StageError> {
        let heard = Heard {
            time: if mark.at_end { mark.high_time.max(appended) } else { mark.high_time },
            at_end: mark.at_end,
        };
        if self.store.heard(mark.source)?.as_ref() != Some(&heard) {
            self.store.put_heard(mark.source, &heard)?;
        }
        let before = self.store.clock()?;
        let mut clock = Clock { sources: before.sources.max(mark.sources), ..before };
        if let Some(watermark) = self.watermark(clock.sources, appended)? {
            clock.watermark = clock.watermark.max(watermark);
        }
        if clock != before {
            self.store.put_clock(&clock)?;
        }
        self.expire(clock.watermark)
    }

    /// Up to when everything is there: the least of the sources' times; the mark's own append time when all are at
    /// their end; nothing while a source was not heard from.
    fn watermark(&self, sources: i32, appended: i64) -> Result<Option<i64>, StageError> {
        let (mut least, mut all_at_end) = (i64::MAX, true);
        for source in 0..sources {
            let Some(heard) = self.store.heard(source)? else { return Ok(None) };
            least = least.min(heard.time);
            all_at_end &= heard.at_end;
        }
        Ok((sources > 0).then(|| if all_at_end { least.max(appended) } else { least }))
    }

    /// Runs every timer that is due, in order of time and id.
    fn expire(&mut self, watermark: i64) -> Result<(), StageError> {
        while let Some((time, id)) = self.store.due(watermark)? {
            self.store.clear_timer(time, &id)?;
            match self.store.contribution(&id)? {
                Some(Contribution::Pending(mut header)) => {
                    let deadline = header.last_appended.saturating_add(self.config.contribution_timeout_ms).max(1);
                    if deadline > watermark {
                        // Chunks came since the timer was set: it is moved only now, not with every chunk.
                        header.timer = deadline;
                        self.store.set_timer(deadline, &id)?;
                        self.store.put_contribution(&id, &Contribution::Pending(header))?;
                    } else {
                        self.seal(&id, &mut header, Phase::TimedOut)?;
                        self.settle(&id, *header)?;
                    }
                }
                Some(Contribution::Closed(_)) => self.store.forget_contribution(&id)?,
                None => {}
            }
        }
        Ok(())
    }
}

/// The same contract, or one of the two chunks met none.
fn agrees(one: &str, other: &str) -> bool {
    one.is_empty() || other.is_empty() || one == other
}

fn covered(id: &str, chunk: &Chunk) -> Result<bool, StageError> {
    chunk.verdicts.cover(&chunk.shards).map_err(|detail| account_error(id, detail))
}

/// The numbers of a contribution do not add up: a defect, never a wrong receipt.
pub fn account_error(id: &str, detail: String) -> StageError {
    StageError::Compute { what: format!("the account of contribution {id:?}"), detail }
}

fn narrow(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Checks the numbers of a manifest against each other, before it changes anything.
///
/// # Errors
/// What contradicts.
pub fn check_manifest(manifest: &Manifest) -> Result<(), Unusable> {
    let inconsistent = |detail: String| {
        let contribution = manifest.id.contribution_id.chars().take(80).collect();
        Err(Unusable::Inconsistent { contribution, detail })
    };
    if manifest.id.contribution_id.len() > MAX_ID_BYTES {
        return inconsistent(format!("an id of {} bytes", manifest.id.contribution_id.len()));
    }
    if !(1..=MAX_CHUNKS).contains(&manifest.chunks) || !(0..manifest.chunks).contains(&manifest.id.chunk) {
        return inconsistent(format!("chunk {} of {}", manifest.id.chunk, manifest.chunks));
    }
    let counts = manifest.refused.iter().map(|c| c.count).chain(manifest.shards.iter().map(|s| s.rows));
    let sum = counts.clone().try_fold(0_i64, i64::checked_add);
    if counts.into_iter().any(|count| count < 0) || sum != Some(manifest.received) {
        return inconsistent(format!("{} rows received, {sum:?} refused or sent on", manifest.received));
    }
    Ok(())
}

/// Checks the numbers of a verdict.
///
/// # Errors
/// What contradicts.
pub fn check_verdict(verdict: &Verdict) -> Result<(), Unusable> {
    let counts = verdict.duplicates.iter().map(|c| c.count).chain([verdict.accepted]);
    let id = &verdict.id;
    if id.contribution_id.len() > MAX_ID_BYTES
        || !(0..MAX_CHUNKS).contains(&id.chunk)
        || !(0..verdict.parts).contains(&verdict.part)
        || counts.into_iter().any(|count| count < 0)
    {
        let contribution = id.contribution_id.chars().take(80).collect();
        let detail = format!("part {} of {} of chunk {}", verdict.part, verdict.parts, id.chunk);
        return Err(Unusable::Inconsistent { contribution, detail });
    }
    Ok(())
}
