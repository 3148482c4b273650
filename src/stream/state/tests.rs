use proptest::prelude::*;

use super::*;

use crate::stream::runs::Identity;

#[derive(Debug, Clone)]
enum Step {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Commit,
    Abort,
    Checkpoint,
    Kill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(255)], 0..4);
    let value = prop::collection::vec(any::<u8>(), 0..4);
    prop::collection::vec(
        prop_oneof![
            12 => (key(), value).prop_map(|(k, v)| Step::Put(k, v)),
            6 => key().prop_map(Step::Delete),
            3 => Just(Step::Commit),
            1 => Just(Step::Abort),
            1 => Just(Step::Checkpoint),
            1 => Just(Step::Kill),
        ],
        0..80,
    )
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn view(state: &KeyValue, prefix: &[u8]) -> Model {
    let mut last: Option<Bytes> = None;
    let entries = state.scan_prefix(prefix, usize::MAX).unwrap();
    entries
        .into_iter()
        .map(|(k, v)| {
            assert!(last.replace(k.clone()).is_none_or(|l| l < k), "scan is ordered");
            (k.to_vec(), v.to_vec())
        })
        .collect()
}

fn place(folder: &std::path::Path) -> Place {
    let identity = Identity { stage: "toy".to_owned(), topic_id: "a1".to_owned(), partition: 0 };
    Place { folder: folder.to_owned(), identity, memory: 1 << 20, fresh: false }
}

/// Opens what the folder has and restores the rest of the log.
fn recovered(folder: &std::path::Path, log: &[Change]) -> KeyValue {
    let mut state = KeyValue::new();
    let opened = state.open(&place(folder)).unwrap();
    let from = usize::try_from(opened.map_or(0, |checkpoint| checkpoint.next_offset)).unwrap();
    log[from..].iter().for_each(|change| state.restore(&change.key, change.value.as_deref()).unwrap());
    state.restored().unwrap();
    state
}

fn at(log: &[Change]) -> Checkpoint {
    Checkpoint { next_offset: log.len() as i64, progress: Vec::new() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn state_behaves_like_a_map_with_transactions_through_kills_and_its_changelog_restores_it(
        steps in steps(),
        on_disk: bool,
        prefix in prop::collection::vec(prop_oneof![Just(0_u8), Just(255)], 0..3),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (mut state, mut committed, mut open) = (KeyValue::new(), Model::new(), Model::new());
        let mut log = Vec::new();
        if on_disk {
            state = recovered(folder.path(), &log);
        }
        for step in steps {
            match step {
                Step::Put(k, v) => { open.insert(k.clone(), v.clone()); state.put(k, v).unwrap(); }
                Step::Delete(k) => { open.remove(&k); state.delete(k).unwrap(); }
                Step::Commit => {
                    log.extend(state.changes());
                    state.commit();
                    committed = open.clone();
                }
                Step::Checkpoint => {
                    state.abort();
                    state.checkpoint(&at(&log)).unwrap();
                    open = committed.clone();
                }
                Step::Abort => { state.abort(); open = committed.clone(); }
                Step::Kill if on_disk => {
                    drop(state);
                    state = recovered(folder.path(), &log);
                    open = committed.clone();
                }
                Step::Kill => {}
            }
            prop_assert_eq!(view(&state, b""), open.clone());
            let wanted: Model = open.iter().filter(|(k, _)| k.starts_with(&prefix)).map(|(k, v)| (k.clone(), v.clone())).collect();
            let first: Model = wanted.iter().take(2).map(|(k, v)| (k.clone(), v.clone())).collect();
            prop_assert_eq!(view(&state, &prefix), wanted);
            let scanned = state.scan_prefix(&prefix, 2).unwrap();
            prop_assert_eq!(scanned.into_iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect::<Model>(), first);
            for (k, v) in &open {
                prop_assert_eq!(state.get(k).unwrap().map(|b| b.to_vec()), Some(v.clone()));
            }
        }
        let elsewhere = tempfile::tempdir().unwrap();
        prop_assert_eq!(view(&recovered(elsewhere.path(), &log), b""), committed.clone());
        state.abort();
        prop_assert_eq!(state.size().entries, committed.len() as u64);
        if !on_disk {
            let bytes: u64 = committed.iter().map(|(k, v)| cost(k, Some(&Bytes::from(v.clone())))).sum();
            prop_assert_eq!(state.size(), StateSize { entries: committed.len() as u64, bytes, disk: 0 });
        }
    }
}

#[test]
fn a_deletion_that_was_compacted_away_while_the_machine_was_off_shows_and_does_not_come_back_to_life() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = Vec::new();
    let mut state = recovered(folder.path(), &log);
    state.put("gone", "1").unwrap();
    state.put("stays", "2").unwrap();
    log.extend(state.changes());
    state.commit();
    state.checkpoint(&at(&log)).unwrap();
    let from = log.len();
    state.delete("gone").unwrap();
    log.extend(state.changes());
    drop(state);
    // The tombstone is compacted away; the sum stays.
    let left = log.split_off(from).into_iter().filter(|change| change.value.is_some());
    let mut stale = KeyValue::new();
    stale.open(&place(folder.path())).unwrap().unwrap();
    left.for_each(|change| stale.restore(&change.key, change.value.as_deref()).unwrap());
    let error = stale.restored().unwrap_err();
    assert!(error.to_string().contains("2 entries were restored, 1 were logged"), "{error}");
}

#[test]
fn memory_is_bounded_by_the_place_and_the_entries_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, mut state) = (0, recovered(folder.path(), &[]));
    for first in (0..40_000_u32).step_by(500) {
        for number in first..first + 500 {
            state.put(number.to_be_bytes().to_vec(), vec![7; 60]).unwrap();
        }
        log += state.changes().len() as i64;
        state.commit();
        if state.wants_checkpoint() {
            state.checkpoint(&Checkpoint { next_offset: log, progress: Vec::new() }).unwrap();
        }
    }
    let size = state.size();
    assert_eq!(size.entries, 40_000);
    assert!(size.bytes < 2 << 20 && size.disk > 40_000 * 64, "{size:?}");
    for number in (0..40_000_u32).step_by(997) {
        assert_eq!(state.get(&number.to_be_bytes()).unwrap().unwrap().len(), 60);
    }
}

#[test]
fn a_damaged_or_foreign_file_is_made_anew_and_a_newer_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(table::FILE);
    let filled = || {
        let mut state = recovered(folder.path(), &[]);
        state.put("key", "value").unwrap();
        let log = state.changes();
        state.commit();
        state.checkpoint(&at(&log)).unwrap();
    };
    let opened = |place: &Place| KeyValue::new().open(place);
    filled();
    assert!(opened(&place(folder.path())).unwrap().is_some());
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(opened(&place(folder.path())).unwrap().is_none());
    filled();
    let mut foreign = place(folder.path());
    foreign.identity.topic_id = "b2".to_owned();
    assert!(opened(&foreign).unwrap().is_none());
    table::tests::write_newer(&path);
    let refused = opened(&place(folder.path())).unwrap_err();
    assert!(refused.to_string().contains("format version 2"), "{refused}");
}

/// `fixtures/entries-1.redb.gz` is a folder's file of the first format, made by running this once with `HOKUSAI_BLESS=1`.
#[test]
fn a_file_of_the_first_format_is_read() {
    use std::io::{Read, Write};
    let fixture = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/stream/state/fixtures/entries-1.redb.gz");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(table::FILE);
    if std::env::var_os("HOKUSAI_BLESS").is_some() && !fixture.exists() {
        let mut state = recovered(folder.path(), &[]);
        (0..100_u8).for_each(|key| state.put(vec![key], vec![key; 3]).unwrap());
        let log = state.changes();
        state.commit();
        state.checkpoint(&at(&log)).unwrap();
        drop(state);
        std::fs::create_dir_all(fixture.parent().unwrap()).unwrap();
        let file = std::fs::File::create(&fixture).unwrap();
        let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::best());
        packed.write_all(&std::fs::read(&path).unwrap()).unwrap();
        packed.finish().unwrap();
    }
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(&fixture).unwrap()).read_to_end(&mut bytes).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let mut state = KeyValue::new();
    assert_eq!(state.open(&place(folder.path())).unwrap().unwrap().next_offset, 101);
    assert_eq!(state.size().entries, 100);
    assert_eq!(state.get(&[7]).unwrap(), Some(Bytes::from(vec![7; 3])));
    assert_eq!(state.scan_prefix(b"", usize::MAX).unwrap().len(), 100);
}
