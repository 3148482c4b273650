//! What was written in a published format is still read, and the present format does not drift: `fixtures/format-1` is a
//! task's folder and `fixtures/changelog-1` its changelog. A new format gets a folder of its own, made by running this once
//! with `HOKUSAI_BLESS=1`; the old ones stay.

use std::path::{Path, PathBuf};

use super::index::RowKey;
use super::owners::{OwnerFacts, PartVerdict, Relation};
use super::state::{DedupState, Known};
use crate::stream::runs::Identity;
use crate::stream::runs::manifest::NAME;
use crate::stream::stage::{Change, Checkpoint, Place, State};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/stages/dedup/fixtures").join(name)
}

fn place(folder: &Path) -> Place {
    let identity = Identity { stage: "dedup".to_owned(), topic_id: "00ff".to_owned(), partition: 1 };
    Place { folder: folder.to_owned(), identity, memory: 1 << 20, fresh: false }
}

fn key(i: u32) -> RowKey {
    RowKey { features: u128::from(i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835), tag: u64::from(i) }
}

fn facts(i: u32) -> OwnerFacts {
    OwnerFacts { ident: u128::from(i) << 100, batch: u128::from(i), contributor: u128::from(i % 2), chunk: i }
}

/// Three chunks of 200 rows each, the second released; a checkpoint after the first and after the last. Gives the changelog.
fn write(folder: &Path) -> Vec<Change> {
    let mut state = DedupState::default();
    assert_eq!(state.open(&place(folder)).unwrap(), None);
    let mut changelog = Vec::new();
    for chunk in 0..3 {
        let owner = state.intern(&facts(chunk)).unwrap();
        (0..200).for_each(|row| state.accept(key(200 * chunk + row), owner, row));
        state.set_verdict(owner, 0, PartVerdict { parts: 1, accepted: 200, ..PartVerdict::default() });
        if chunk == 2 {
            state.release(facts(1).ident).unwrap();
        }
        changelog.extend(state.changes());
        state.commit();
        if chunk != 1 {
            state.checkpoint(&Checkpoint { next_offset: changelog.len() as i64, progress: Vec::new() }).unwrap();
        }
    }
    changelog
}

/// Everything that is known of what [`write`] wrote.
fn check(state: &mut DedupState) {
    for i in 0..600 {
        let owner = (i / 200 != 1).then_some((i / 200, i % 200));
        assert_eq!(state.look_up(key(i)).unwrap(), Known { owner, other_label: false });
    }
    assert_eq!(state.look_up(RowKey { tag: 9_999, ..key(5) }).unwrap(), Known { owner: None, other_label: true });
    assert_eq!(state.look_up(RowKey { tag: 9_999, ..key(205) }).unwrap(), Known { owner: None, other_label: false });
    assert_eq!(state.relation(2, &facts(0)).unwrap(), Some(Relation::SameContributor));
    assert_eq!(state.owner(&facts(2)).unwrap(), Some(2));
    assert_eq!(state.verdict(2, 0).unwrap().unwrap().accepted, 200);
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap());
    let mut files: Vec<_> = files
        .map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap()))
        .filter(|(name, _)| name != "LOCK")
        .collect();
    files.sort_unstable();
    files
}

fn log_bytes(changelog: &[Change]) -> Vec<u8> {
    let parts = changelog.iter().flat_map(|change| [&change.key, change.value.as_ref().unwrap()]);
    parts.flat_map(|part| [(part.len() as u32).to_be_bytes().to_vec(), part.to_vec()].concat()).collect()
}

#[test]
fn a_folder_and_a_changelog_of_the_first_format_are_read_and_still_written_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let changelog = log_bytes(&write(folder.path()));
    if std::env::var_os("HOKUSAI_BLESS").is_some() && !fixture("format-1").exists() {
        std::fs::create_dir_all(fixture("format-1")).unwrap();
        files(folder.path())
            .iter()
            .for_each(|(name, bytes)| std::fs::write(fixture("format-1").join(name), bytes).unwrap());
        std::fs::write(fixture("changelog-1"), &changelog).unwrap();
    }
    let kept = files(&fixture("format-1"));
    assert!(kept.iter().any(|(name, _)| name == NAME));

    let copy = tempfile::tempdir().unwrap();
    kept.iter().for_each(|(name, bytes)| std::fs::write(copy.path().join(name), bytes).unwrap());
    let mut state = DedupState::default();
    assert_eq!(state.open(&place(copy.path())).unwrap().unwrap().next_offset, 3);
    check(&mut state);

    let log = std::fs::read(fixture("changelog-1")).unwrap();
    let (mut state, mut rest) = (DedupState::default(), log.as_slice());
    let mut part = || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (part, after) = after.split_at(u32::from_be_bytes(*length) as usize);
        rest = after;
        Some(part)
    };
    while let Some(key) = part() {
        state.restore(key, part()).unwrap();
    }
    check(&mut state);

    assert!(files(folder.path()) == kept, "the folder's format changed: raise its version");
    assert!(changelog == log, "the changelog's format changed: raise its version");
}
