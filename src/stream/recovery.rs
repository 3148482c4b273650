//! What a task begins with: the state that this machine keeps, brought up to date from the changelog, and its progress.
//!
//! | local state | the changelog | state is made from |
//! |---|---|---|
//! | none, damaged, of another topic or partition | any | the newest [snapshot](super::snapshot) that fits and the changelog from there on, or else the whole changelog |
//! | as of an offset | holds that offset, and the rest follows on it | local state and the changelog from there on |
//! | as of an offset | does not hold it, or the rest does not follow | the whole changelog; what is local is thrown away |
//! | of a newer format version | any | the task stops: somebody has to decide |
//!
//! While the changelog is read, the state goes to disk as it does later: a restore takes no more memory than work does,
//! and one that is interrupted goes on where it was.

use std::collections::BTreeMap;

use super::client::End;
use super::control::{Ended, InputFacts};
use super::health::TaskId;
use super::progress::{ChangelogKey, Stop, shared_progress_key};
use super::restore::{RestoreError, read_to_end};
use super::runs::{DiskError, Identity};
use super::runtime::{ProgressIn, Shared, StagePlan};
use super::snapshot::{self, Wanted};
use super::stage::{Checkpoint, Place, Stage, StageError, State};
use crate::domain::records::Progress;
use crate::domain::topics;

/// Progress by topic and partition.
pub(super) type ProgressByInput = BTreeMap<(String, i32), Progress>;

/// What a task begins with.
pub(super) struct Recovered<S> {
    pub state: S,
    pub progress: ProgressByInput,
    /// End of the changelog: the state is as of there.
    pub log_end: i64,
    /// Bytes of the changelog that were read.
    pub read: u64,
    /// Where the state is on this machine.
    pub place: Option<Place>,
}

/// Reads state and progress: from disk and the changelog, or for a stateless stage from `hokusai.progress`.
pub(super) fn recover<S: Stage>(
    shared: &Shared,
    plan: &StagePlan,
    id: &TaskId,
    inputs: &[InputFacts],
    stage: &S,
    urgent: &dyn Fn() -> bool,
) -> Result<Recovered<S::State>, Ended> {
    match &plan.progress {
        ProgressIn::Changelog(topic) => {
            let mut place = place(shared, plan, id, topic)?;
            match replay(shared, plan, id, topic, stage, place.as_ref(), urgent) {
                Err(Unusable { local: true, cause }) => {
                    tracing::warn!(task = %id, %cause, "local state does not fit the changelog and is made anew");
                    place.iter_mut().for_each(|place| place.fresh = true);
                    replay(shared, plan, id, topic, stage, place.as_ref(), urgent).map_err(|again| ended(*again.cause))
                }
                outcome => outcome.map_err(|unusable| ended(*unusable.cause)),
            }
        }
        ProgressIn::Shared => {
            let progress = shared_progress(shared, plan, inputs, urgent).map_err(ended)?;
            Ok(Recovered { state: stage.state(), progress, log_end: 0, read: 0, place: None })
        }
    }
}

/// Where this task's state is on this machine, if it may be anywhere.
fn place(shared: &Shared, plan: &StagePlan, id: &TaskId, changelog: &str) -> Result<Option<Place>, Ended> {
    let Some(root) = &shared.settings.state_folder else { return Ok(None) };
    let described = shared.admin.describe(&[changelog]).map_err(|e| Ended::Failed(e.to_string()))?;
    let Some(topic_id) = described.into_iter().next().and_then(|topic| topic.id) else { return Ok(None) };
    let folder = root.join(format!("{}{}", shared.cluster.prefix, plan.name)).join(id.partition.to_string());
    let identity = Identity { stage: plan.name.to_owned(), topic_id, partition: id.partition };
    Ok(Some(Place { folder, identity, memory: shared.settings.state_memory, fresh: false }))
}

/// Why a state could not be made; `local` when it may work without what this machine keeps.
struct Unusable {
    local: bool,
    cause: Box<RestoreError>,
}

fn replay<S: Stage>(
    shared: &Shared,
    plan: &StagePlan,
    id: &TaskId,
    topic: &str,
    stage: &S,
    place: Option<&Place>,
    urgent: &dyn Fn() -> bool,
) -> Result<Recovered<S::State>, Unusable> {
    let place_of = |source| RestoreError::State { topic: topic.to_owned(), partition: id.partition, offset: 0, source };
    let opened = open(shared, plan, topic, stage, place, urgent);
    let (mut state, opened) =
        opened.map_err(|(local, source)| Unusable { local, cause: Box::new(place_of(source)) })?;
    let local = opened.is_some();
    let Checkpoint { next_offset, progress } = opened.unwrap_or_default();
    let mut found: ProgressByInput = progress.into_iter().map(|p| ((p.topic.clone(), p.partition), p)).collect();
    let (from, mut bytes) = (local.then_some(next_offset), 0);
    let read = read_to_end(&shared.admin, topic, id.partition, from, urgent, |offset, key, value| {
        bytes += (key.len() + value.map_or(0, <[u8]>::len)) as u64;
        match ChangelogKey::parse(key) {
            ChangelogKey::State(key) => state.restore(key, value)?,
            ChangelogKey::Progress => keep(shared, plan, &mut found, value)?,
            ChangelogKey::Unknown => {}
        }
        if state.wants_checkpoint() {
            state.checkpoint(&Checkpoint { next_offset: offset + 1, progress: found.values().cloned().collect() })?;
        }
        Ok(())
    });
    let whole = read.and_then(|end| state.restored().map(|()| end).map_err(place_of));
    match whole {
        Ok(log_end) => {
            tracing::debug!(task = %id, from = next_offset, log_end, "state restored");
            Ok(Recovered { state, progress: found, log_end, read: bytes, place: place.cloned() })
        }
        Err(cause) => {
            let unfit = match &cause {
                RestoreError::Outside { .. } => true,
                RestoreError::State { source, .. } => !matches!(source, StageError::Disk(_)),
                _ => false,
            };
            Err(Unusable { local: local && unfit, cause: Box::new(cause) })
        }
    }
}

/// A state and as of when it is: what this machine keeps, or else the newest snapshot that can be used. With an error comes whether
/// it may work without what is here.
fn open<S: Stage>(
    shared: &Shared,
    plan: &StagePlan,
    topic: &str,
    stage: &S,
    place: Option<&Place>,
    urgent: &dyn Fn() -> bool,
) -> Result<(S::State, Option<Checkpoint>), (bool, StageError)> {
    let mut state = stage.state();
    let Some(place) = place else { return Ok((state, None)) };
    let opened = state.open(place).map_err(|e| (false, e))?;
    if opened.is_some() || place.fresh {
        return Ok((state, opened));
    }
    // It lets go of the folder.
    drop(state);
    let fetched = fetch::<S>(shared, plan, topic, place, urgent);
    state = stage.state();
    let opened = state.open(place).map_err(|e| (fetched.is_some(), e))?;
    let as_of = opened.as_ref().map(|checkpoint| checkpoint.next_offset);
    if fetched.is_some() && fetched != as_of {
        let detail = format!("it is said to be as of {fetched:?} and is as of {as_of:?}");
        return Err((true, StageError::State { what: "a snapshot".to_owned(), detail }));
    }
    Ok((state, opened))
}

/// Brings a snapshot into the task's folder if there is one and the changelog is worth it.
fn fetch<S: Stage>(
    shared: &Shared,
    plan: &StagePlan,
    topic: &str,
    place: &Place,
    urgent: &dyn Fn() -> bool,
) -> Option<i64> {
    let (snapshots, form) = (shared.snapshots.as_ref()?, S::State::FORM?);
    let at = [(topic.to_owned(), place.identity.partition)];
    let ends = |end| shared.admin.offsets(&at, end).ok()?.first().copied();
    let (start, end) = (ends(End::Start)?, ends(End::HighWatermark)?);
    let stage = format!("{}{}", shared.cluster.prefix, plan.name);
    (end > 0).then(|| snapshot::fetch(&snapshots.settings, &Wanted { stage, place, form, start, end }, urgent))?
}

fn keep(
    shared: &Shared,
    plan: &StagePlan,
    found: &mut ProgressByInput,
    value: Option<&[u8]>,
) -> Result<(), StageError> {
    if let Some(value) = value {
        let progress: Progress = shared.wire.decode(value)?;
        if progress.stage == plan.name {
            found.insert((progress.topic.clone(), progress.partition), progress);
        }
    }
    Ok(())
}

fn shared_progress(
    shared: &Shared,
    plan: &StagePlan,
    inputs: &[InputFacts],
    urgent: &dyn Fn() -> bool,
) -> Result<ProgressByInput, RestoreError> {
    let mut found = ProgressByInput::new();
    let wanted: Vec<Vec<u8>> = inputs.iter().map(|i| shared_progress_key(plan.name, &i.topic, i.partition)).collect();
    let mut places: Vec<i32> = wanted.iter().map(|key| shared.progress_partition(key)).collect();
    places.sort_unstable();
    places.dedup();
    for place in places {
        read_to_end(&shared.admin, topics::PROGRESS, place, None, urgent, |_, key, value| {
            if wanted.iter().any(|w| w == key) { keep(shared, plan, &mut found, value) } else { Ok(()) }
        })?;
    }
    Ok(found)
}

/// What a failed restore means for the task.
fn ended(error: RestoreError) -> Ended {
    let stop = |help: &str| Ended::Stopped(Stop::Misconfigured { what: error.to_string(), help: help.to_owned() });
    match &error {
        RestoreError::Interrupted => Ended::Asked,
        RestoreError::State { source: StageError::Disk(DiskError::Newer { .. }), .. } => {
            stop("the state was written by a newer version: run that version, or delete the folder that is named")
        }
        RestoreError::State { source: StageError::Disk(_), .. } => Ended::Failed(error.to_string()),
        RestoreError::State { .. } => {
            stop("the state was written by another version: run that version, or reset the stage")
        }
        _ => Ended::Failed(error.to_string()),
    }
}
