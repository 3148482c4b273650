//! What a partition does at start: find its segments, cut a torn tail off the last one, remember its producers.
//!
//! A closed segment was on the disk as a whole before the next one began, so damage inside one is not a torn
//! write: the start is refused, with the position, instead of losing what follows.
//!
//! Closed segments are taken from their sidecars and producers from the snapshot written when the last segment
//! began. If any of these is missing the whole log is read again, which gives the same result.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::batch::{Header, crc_matches, marker_commits};
use super::partition::{Partition, Shared, State};
use super::producers::Producers;
use super::segment::{BatchReader, Segment, Summary, log_path, read_checked};
use crate::broker::error::BrokerError;
use crate::broker::topic_config::TopicConfig;

/// Opens a partition; a folder that does not exist is an empty log.
pub(crate) fn open(
    topic: &str,
    index: i32,
    folder: PathBuf,
    shared: Arc<Shared>,
    config: Arc<TopicConfig>,
    log_start: i64,
) -> Result<Arc<Partition>, BrokerError> {
    let found = Found::in_folder(&shared, &folder)?;
    let mut recovery = Recovery {
        folder: &folder,
        segments: BTreeMap::new(),
        producers: found.producers,
        replay_from: found.replay_from,
    };
    let last = found.logs.last().copied();
    for base in found.logs {
        recovery.open_segment(&shared, base, Some(base) == last)?;
    }
    let next_offset =
        recovery.segments.values().next_back().map_or(0, |segment| segment.summary.next_offset).max(log_start);
    let first = recovery.segments.keys().next().copied().unwrap_or(next_offset);
    let mut state = State {
        segments: recovery.segments,
        log_start: log_start.max(first),
        next_offset,
        high_watermark: next_offset,
        producers: recovery.producers,
        compacted_to: read_checked(&folder.join("compacted")).unwrap_or(0),
        waiters: Vec::new(),
        deleted: false,
    };
    // Power loss can take back records that were deleted before they were on the disk; offsets still go on.
    if state.segments.values().next_back().is_some_and(|active| active.summary.next_offset < next_offset) {
        let skipped = Segment::create(&shared.disk, &folder, next_offset).map_err(BrokerError::io(&folder))?;
        state.segments.insert(next_offset, skipped);
    }
    Ok(Arc::new(Partition::with_state(topic.to_owned(), index, folder, shared, config, state)))
}

/// The files of a partition.
struct Found {
    logs: Vec<i64>,
    producers: Producers,
    /// The active segment's base when `producers` and all sidecars can be used, else 0.
    replay_from: i64,
}

impl Found {
    fn in_folder(shared: &Shared, folder: &Path) -> Result<Self, BrokerError> {
        let (mut logs, mut snapshots) = (Vec::new(), Vec::new());
        if folder.exists() {
            for entry in fs::read_dir(folder).map_err(BrokerError::io(folder))? {
                let path = entry.map_err(BrokerError::io(folder))?.path();
                let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<i64>().ok());
                match (path.extension().and_then(|extension| extension.to_str()), number) {
                    (Some("log"), Some(base)) => logs.push(base),
                    (Some("producers"), Some(offset)) => snapshots.push((offset, path)),
                    (Some("cleaned"), _) => shared.disk.remove(&path).map_err(BrokerError::io(&path))?,
                    _ => {}
                }
            }
        }
        logs.sort_unstable();
        let active = logs.last().copied().unwrap_or(0);
        let mut found = Self { logs, producers: Producers::default(), replay_from: 0 };
        for (offset, path) in snapshots {
            match read_checked::<Producers>(&path) {
                Some(producers) if offset == active => {
                    found.producers = producers.restored();
                    found.replay_from = offset;
                }
                _ => drop(fs::remove_file(&path)),
            }
        }
        let complete =
            found.logs.iter().filter(|base| **base != active).all(|base| sidecar_of(folder, *base).is_some());
        if !complete {
            found.producers = Producers::default();
            found.replay_from = 0;
        }
        Ok(found)
    }
}

fn sidecar_of(folder: &Path, base: i64) -> Option<Summary> {
    let path = log_path(folder, base);
    Segment::read_sidecar(&path, fs::metadata(&path).ok()?.len())
}

struct Recovery<'a> {
    folder: &'a Path,
    segments: BTreeMap<i64, Segment>,
    producers: Producers,
    replay_from: i64,
}

impl Recovery<'_> {
    fn open_segment(&mut self, shared: &Arc<Shared>, base: i64, is_last: bool) -> Result<(), BrokerError> {
        let path = log_path(self.folder, base);
        // A compaction that was cut short leaves a merged segment beside those it replaces.
        if self.segments.values().next_back().is_some_and(|before| before.summary.next_offset > base) {
            shared.disk.remove(&path).map_err(BrokerError::io(&path))?;
            let _ = fs::remove_file(path.with_extension("index"));
            return Ok(());
        }
        let file = shared.disk.open_existing(&path).map_err(BrokerError::io(&path))?;
        let length = file.len();
        let mut segment = Segment::over(base, file);
        let sidecar = if is_last || self.replay_from == 0 { None } else { Segment::read_sidecar(&path, length) };
        match sidecar {
            Some(summary) => segment.summary = summary,
            _ => self.scan(&mut segment, length, is_last)?,
        }
        match is_last {
            true => segment.file.secure().map_err(BrokerError::io(&path))?,
            false => segment.file.park(),
        }
        self.segments.insert(base, segment);
        Ok(())
    }

    fn scan(&mut self, segment: &mut Segment, length: u64, is_last: bool) -> Result<(), BrokerError> {
        let path = segment.file.path().to_owned();
        let file = segment.file.file().map_err(BrokerError::io(&path))?;
        let mut reader = BatchReader::new(file, 0, length);
        let written_at = modified_ms(&path);
        let mut good = 0;
        while let Some((header, bytes)) = reader.next_batch().map_err(BrokerError::io(&path))? {
            if !crc_matches(bytes, &header)
                || header.base_offset < segment.summary.next_offset
                || header.last_offset_delta < 0
            {
                break;
            }
            self.replay(segment, &header, bytes, written_at);
            good = reader.position();
        }
        if good == length {
            return Ok(());
        }
        if !is_last {
            let rule = "a closed segment consists of whole batches".into();
            return Err(BrokerError::Damaged { path, at: good, rule });
        }
        tracing::warn!(path = %path.display(), at = good, dropped = length - good, "cut a torn tail off a partition");
        segment.file.truncate(good).map_err(BrokerError::io(path))
    }

    fn replay(&mut self, segment: &mut Segment, header: &Header, bytes: &[u8], written_at: i64) {
        segment.summary.observe(header, written_at);
        if header.producer_id < 0 {
            return;
        }
        if !header.is_control() {
            self.producers.appended(header, written_at);
        } else if let Some(commit) = marker_commits(bytes)
            && let Some(aborted) = self.producers.ended(header, commit, written_at)
        {
            segment.summary.aborted.push(aborted);
        }
    }
}

fn modified_ms(path: &Path) -> i64 {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let since = modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
