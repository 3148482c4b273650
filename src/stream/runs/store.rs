//! Several maps of one task that are flushed together, under one manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::{Run, RunWriter};
use super::manifest::{Folder, Manifest, RunName};
use super::merge::Merge;
use super::tiers::{BACKLOG, Tier, Tiers};
use super::{At, DiskError, FORMAT, Identity, Shape, Visit};
use crate::stream::stage::{Checkpoint, Place};

/// Records of one map, sorted by key, one behind the other.
#[derive(Debug)]
pub struct Batch {
    /// Which map, by its place among the shapes.
    pub map: usize,
    /// The records; none with a key twice.
    pub records: Vec<u8>,
}

/// The runs of a task: see the module.
#[derive(Debug)]
pub struct RunStore {
    // The merge ends before the folder's lock is given back.
    merge: Option<(usize, Merge)>,
    maps: Vec<Tiers>,
    manifest: Manifest,
    identity: Identity,
    next_file: u64,
    folder: Folder,
}

impl RunStore {
    /// Opens what the folder holds of this identity; it is empty when that is nothing, or not whole.
    ///
    /// # Errors
    /// [`DiskError::Newer`], [`DiskError::Locked`], or that the folder cannot be used.
    pub fn open(place: &Place, shapes: &[Shape]) -> Result<Self, DiskError> {
        let folder = Folder::open(&place.folder)?;
        let identity = place.identity.clone();
        let found = if place.fresh { None } else { folder.manifest(&identity)? };
        let opened = found.map(|manifest| Ok((open_runs(&folder, &manifest, shapes)?, manifest))).transpose();
        let (maps, manifest) = match opened {
            Ok(Some(opened)) => opened,
            Err(error @ DiskError::Newer { .. }) => return Err(error),
            Ok(None) => (empty(shapes), Manifest::new(&identity)),
            Err(error) => {
                tracing::warn!(%error, "local state is not used");
                (empty(shapes), Manifest::new(&identity))
            }
        };
        if manifest.runs.is_empty() {
            folder.write(&manifest)?;
        }
        let keep: BTreeSet<String> = manifest.runs.iter().map(|run| run.file.clone()).collect();
        folder.sweep(&keep)?;
        let number = |file: &String| file.rsplit_once('-')?.1.strip_suffix(".run")?.parse::<u64>().ok();
        let next_file = keep.iter().filter_map(number).max().map_or(0, |last| last + 1);
        Ok(Self { merge: None, maps, manifest, identity, next_file, folder })
    }

    /// As of when the runs are; none when they are empty.
    #[must_use]
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        let Manifest { next_offset, progress, runs, .. } = &self.manifest;
        (!runs.is_empty()).then(|| Checkpoint { next_offset: *next_offset, progress: progress.clone() })
    }

    /// A number of the state as of the checkpoint; 0 when there is none, or none of that name.
    #[must_use]
    pub fn number(&self, name: &str) -> u64 {
        let numbers = self.checkpoint().map(|_| &self.manifest.numbers);
        numbers.and_then(|numbers| numbers.get(name)).copied().unwrap_or(0)
    }

    /// The newest value of a key.
    ///
    /// # Errors
    /// When the disk fails or a block is damaged.
    pub fn get<const V: usize>(&self, map: usize, key: &[u8]) -> Result<Option<[u8; V]>, DiskError> {
        let mut found = None;
        self.search(map, key, usize::MAX, &mut |_, value| {
            found = value.first_chunk::<V>().copied();
            Ok::<_, DiskError>(false)
        })?;
        Ok(found)
    }

    /// Visits records newest run first: in each run that of `key`, then those that begin alike in `prefix` bytes (8 or
    /// more), until `visit` returns false.
    ///
    /// # Errors
    /// When the disk fails or a block is damaged, and those of `visit`.
    pub fn search<E: From<DiskError>>(
        &self,
        map: usize,
        key: &[u8],
        prefix: usize,
        visit: &mut Visit<'_, E>,
    ) -> Result<(), E> {
        self.maps.get(map).map_or(Ok(()), |tiers| tiers.search(key, prefix, visit))
    }

    /// Makes the batches part of the state, which then is as of `at`: all of it, or nothing of it.
    ///
    /// # Errors
    /// When the disk fails; the runs are then as before.
    pub fn flush(
        &mut self,
        batches: &[Batch],
        at: &Checkpoint,
        numbers: BTreeMap<String, u64>,
    ) -> Result<(), DiskError> {
        let mut made = Vec::new();
        for batch in batches.iter().filter(|batch| !batch.records.is_empty()) {
            let Some(shape) = self.maps.get(batch.map).map(|tiers| tiers.shape) else { continue };
            let mut writer = RunWriter::create(&self.new_file(shape), shape)?;
            batch.records.chunks_exact(shape.record()).try_for_each(|record| writer.push(record))?;
            made.push((batch.map, writer.finish(&self.identity, at.next_offset)?));
        }
        crate::failpoint!("state.after_runs");
        for (map, run) in made {
            if let Some(tiers) = self.maps.get_mut(map) {
                tiers.tiers.push(Tier { level: 0, run: Arc::new(run) });
            }
        }
        self.manifest.next_offset = at.next_offset;
        self.manifest.progress.clone_from(&at.progress);
        self.manifest.numbers = numbers;
        self.write_manifest()?;
        crate::failpoint!("state.after_manifest");
        self.tend()
    }

    fn new_file(&mut self, shape: Shape) -> PathBuf {
        let file = format!("{}-{:08}.run", shape.name, self.next_file);
        self.next_file += 1;
        self.folder.path().join(file)
    }

    fn write_manifest(&mut self) -> Result<(), DiskError> {
        let name = |tiers: &Tiers, tier: &Tier| RunName {
            map: tiers.shape.name.to_owned(),
            level: tier.level,
            file: tier.run.path().file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned(),
        };
        self.manifest.format = FORMAT;
        self.manifest.runs =
            self.maps.iter().flat_map(|tiers| tiers.tiers.iter().map(move |tier| name(tiers, tier))).collect();
        self.folder.write(&self.manifest)
    }

    /// Links the files of the state as of [`RunStore::checkpoint`] into an empty folder of the same file system; the manifest
    /// is the last of the names. Runs never change, and the manifest is replaced, not written into.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn link(&self, to: &Path) -> Result<Vec<String>, DiskError> {
        let mut files: Vec<String> = self.manifest.runs.iter().map(|run| run.file.clone()).collect();
        files.push(super::manifest::NAME.to_owned());
        for file in &files {
            let path = self.folder.path().join(file);
            std::fs::hard_link(&path, to.join(file)).at(&path)?;
        }
        Ok(files)
    }

    /// A merge has ended, and [`RunStore::tend`] has something to do.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.merge.as_ref().is_some_and(|(_, merge)| merge.is_over())
    }

    /// Puts a merged run into its place and begins the next merge; waits for a merge only when flushes outrun it.
    ///
    /// # Errors
    /// When the disk fails, here or in the merge.
    pub fn tend(&mut self) -> Result<(), DiskError> {
        loop {
            let behind = self.maps.iter().any(|tiers| tiers.backlog() >= BACKLOG);
            let Some((map, mut merge)) = self.merge.take_if(|(_, merge)| behind || merge.is_over()) else { break };
            if let Some(run) = merge.wait()? {
                self.install(map, &merge, run)?;
            }
            self.begin_merge()?;
        }
        self.begin_merge()
    }

    fn install(&mut self, map: usize, merge: &Merge, run: Run) -> Result<(), DiskError> {
        if let Some(tiers) = self.maps.get_mut(map) {
            tiers.replace(&merge.runs, merge.level, run);
        }
        self.write_manifest()?;
        // The manifest names them no more. Whoever still reads one has it open.
        merge.runs.iter().try_for_each(|run| std::fs::remove_file(run.path()).at(run.path()))
    }

    fn begin_merge(&mut self) -> Result<(), DiskError> {
        if self.merge.is_some() {
            return Ok(());
        }
        let due = self.maps.iter().enumerate().find_map(|(map, tiers)| Some((map, tiers.shape, tiers.due()?)));
        let Some((map, shape, (level, runs))) = due else { return Ok(()) };
        let (to, identity) = (self.new_file(shape), self.identity.clone());
        let level = level.saturating_add(1);
        let merge = Merge::start(runs, level, to, shape, identity, self.manifest.next_offset)?;
        self.merge = Some((map, merge));
        Ok(())
    }

    /// Waits until no merge is due: for tests and measurements.
    ///
    /// # Errors
    /// As [`RunStore::tend`].
    pub fn settle(&mut self) -> Result<(), DiskError> {
        self.tend()?;
        while let Some((map, mut merge)) = self.merge.take() {
            if let Some(run) = merge.wait()? {
                self.install(map, &merge, run)?;
            }
            self.begin_merge()?;
        }
        Ok(())
    }

    /// Records of a map in all its runs; one that was overwritten counts in each run until they merge.
    #[must_use]
    pub fn records(&self, map: usize) -> u64 {
        self.maps.get(map).map_or(0, |tiers| tiers.tiers.iter().map(|tier| tier.run.records()).sum())
    }

    /// Runs of a map.
    #[must_use]
    pub fn runs(&self, map: usize) -> usize {
        self.maps.get(map).map_or(0, |tiers| tiers.tiers.len())
    }

    /// Bytes that filters and fence pointers take in memory.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.all().map(Run::memory).sum()
    }

    /// Bytes on disk.
    #[must_use]
    pub fn disk(&self) -> u64 {
        self.all().map(Run::disk).sum()
    }

    fn all(&self) -> impl Iterator<Item = &Run> {
        self.maps.iter().flat_map(|tiers| tiers.tiers.iter().map(|tier| tier.run.as_ref()))
    }
}

fn empty(shapes: &[Shape]) -> Vec<Tiers> {
    shapes.iter().map(|shape| Tiers::new(*shape)).collect()
}

fn open_runs(folder: &Folder, manifest: &Manifest, shapes: &[Shape]) -> Result<Vec<Tiers>, DiskError> {
    let identity =
        Identity { stage: manifest.stage.clone(), topic_id: manifest.topic_id.clone(), partition: manifest.partition };
    let mut maps = empty(shapes);
    for RunName { map, level, file } in &manifest.runs {
        let path = folder.path().join(file);
        // A name is a name in this folder, whatever the manifest says.
        let plain = std::path::Path::new(file).file_name().is_some_and(|name| name == file.as_str());
        let Some(tiers) = maps.iter_mut().find(|tiers| tiers.shape.name == map).filter(|_| plain) else {
            return Err(DiskError::damaged(&path, "a run of no map"));
        };
        let run = Run::open(&path, tiers.shape, &identity, manifest.next_offset)?;
        tiers.tiers.push(Tier { level: *level, run: Arc::new(run) });
    }
    Ok(maps)
}
