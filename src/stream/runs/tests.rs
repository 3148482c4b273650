use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::store::{Batch, RunStore};
use super::*;
use crate::stream::stage::{Checkpoint, Place};

const SHAPES: [Shape; 2] = [Shape { name: "wide", key: 24, value: 8 }, Shape { name: "narrow", key: 4, value: 37 }];

type Model = [BTreeMap<Vec<u8>, Vec<u8>>; 2];

fn place(folder: &Path) -> Place {
    let identity = Identity { stage: "toy".to_owned(), topic_id: "a1".to_owned(), partition: 3 };
    Place { folder: folder.to_owned(), identity, memory: 1 << 20, fresh: false }
}

fn at(next_offset: i64) -> Checkpoint {
    Checkpoint { next_offset, progress: Vec::new() }
}

/// A key of which many share their first bytes: 2 heads of 8 bytes, 3 prefixes of 16, 40 tags.
fn wide(seed: u16) -> Vec<u8> {
    let mut key = vec![(seed % 2) as u8; 8];
    key.extend([(seed % 3) as u8; 8]);
    key.extend(u64::from(seed % 40).to_be_bytes());
    key
}

fn flushed(model: &BTreeMap<Vec<u8>, Vec<u8>>, map: usize) -> Batch {
    Batch { map, records: model.iter().flat_map(|(k, v)| [k.clone(), v.clone()].concat()).collect() }
}

fn of(seeds: &[u16], value: u8) -> Model {
    let wide = seeds.iter().map(|s| (wide(*s), vec![value; 8])).collect();
    [wide, seeds.iter().map(|s| (u32::from(*s).to_be_bytes().to_vec(), vec![value; 37])).collect()]
}

fn check(store: &RunStore, model: &Model) {
    for seed in 0..300_u16 {
        let key = wide(seed);
        assert_eq!(store.get::<8>(0, &key).unwrap().map(Vec::from), model[0].get(&key).cloned());
        let number = u32::from(seed).to_be_bytes();
        assert_eq!(store.get::<37>(1, &number).unwrap().map(Vec::from), model[1].get(number.as_slice()).cloned());
        // The newest of each key that begins alike, the key itself before the others of its run.
        let mut seen = BTreeMap::new();
        let visit = &mut |key: &[u8], value: &[u8]| -> Result<bool, DiskError> {
            seen.entry(key.to_vec()).or_insert_with(|| value.to_vec());
            Ok(true)
        };
        store.search(0, &key, 16, visit).unwrap();
        let wanted: BTreeMap<_, _> =
            model[0].iter().filter(|(k, _)| k[..16] == key[..16]).map(|(k, v)| (k.clone(), v.clone())).collect();
        assert_eq!(seen, wanted);
    }
}

/// Copies the files of a folder.
fn copy(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        // A merge may end its file meanwhile, and give it its name.
        if let Err(error) = std::fs::copy(file.path(), to.join(file.file_name())) {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        }
    }
}

/// How a process ends in the middle of a flush.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// It does not.
    Lives,
    /// After everything.
    After,
    /// The runs are there, the manifest is the old one.
    BeforeManifest,
    /// The manifest is there, and so are the runs that it names no more.
    BeforeRemoval,
    /// A run is being written.
    InRun,
}

fn steps() -> impl Strategy<Value = Vec<(Vec<u16>, End)>> {
    let end = prop_oneof![
        6 => Just(End::Lives),
        1 => Just(End::After),
        1 => Just(End::BeforeManifest),
        1 => Just(End::BeforeRemoval),
        1 => Just(End::InRun),
    ];
    prop::collection::vec((prop::collection::vec(0..300_u16, 0..60), end), 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn wherever_a_process_dies_the_folder_holds_the_state_before_or_after_the_flush(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        let mut store = RunStore::open(&place(folder.path()), &SHAPES).unwrap();
        let mut model = Model::default();
        for (number, (seeds, end)) in (1_u8..).zip(steps) {
            let offset = i64::from(number);
            let batch = of(&seeds, number);
            let before = tempfile::tempdir().unwrap();
            copy(folder.path(), before.path());
            let batches = [flushed(&batch[0], 0), flushed(&batch[1], 1)];
            store.flush(&batches, &at(offset), BTreeMap::from([("n".to_owned(), u64::from(number))])).unwrap();
            let committed = end != End::BeforeManifest && end != End::InRun;
            if committed {
                model.iter_mut().zip(batch).for_each(|(model, batch)| model.extend(batch));
            }
            if end != End::Lives {
                store.settle().unwrap();
                drop(store);
                match end {
                    End::BeforeManifest => copy(before.path(), folder.path()),
                    End::BeforeRemoval => {
                        std::fs::remove_file(before.path().join(manifest::NAME)).unwrap();
                        copy(before.path(), folder.path());
                    }
                    End::InRun => {
                        std::fs::write(folder.path().join("wide-99999999.new"), [7; 100]).unwrap();
                        copy(before.path(), folder.path());
                    }
                    End::Lives | End::After => {}
                }
                store = RunStore::open(&place(folder.path()), &SHAPES).unwrap();
                let kept = !model[0].is_empty() || !model[1].is_empty();
                prop_assert_eq!(store.checkpoint().is_some(), kept);
                if kept && committed {
                    prop_assert_eq!((store.checkpoint().unwrap().next_offset, store.number("n")), (offset, u64::from(number)));
                }
            }
            check(&store, &model);
        }
        store.settle().unwrap();
        check(&store, &model);
        prop_assert!(store.runs(0) < 4 * 4);
        let named = manifest::read(folder.path()).unwrap().unwrap().runs.len();
        let there = std::fs::read_dir(folder.path()).unwrap().filter(|f| {
            f.as_ref().unwrap().file_name().to_string_lossy().ends_with(".run")
        });
        prop_assert_eq!(there.count(), named, "nothing is left behind");
    }

    #[test]
    fn a_damaged_or_torn_file_is_never_read_as_state(at_byte in 0..60_000_usize, to: u8, cut: bool, which in 0..3_usize) {
        let folder = tempfile::tempdir().unwrap();
        let seeds: Vec<u16> = (0..300).collect();
        let model = of(&seeds, 1);
        let mut store = RunStore::open(&place(folder.path()), &SHAPES).unwrap();
        store.flush(&[flushed(&model[0], 0), flushed(&model[1], 1)], &at(1), BTreeMap::new()).unwrap();
        drop(store);
        let name = ["wide-00000000.run", "narrow-00000001.run", manifest::NAME][which];
        let path = folder.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let place_of_damage = at_byte % bytes.len();
        let was = bytes[place_of_damage];
        bytes[place_of_damage] = to;
        if cut {
            bytes.truncate(place_of_damage);
        }
        std::fs::write(&path, &bytes).unwrap();
        let store = RunStore::open(&place(folder.path()), &SHAPES).unwrap();
        if store.checkpoint().is_none() {
            return Ok(());
        }
        prop_assert!(!cut);
        // A data block is checked when it is read; all others were checked before.
        for seed in 0..300_u16 {
            match store.get::<8>(0, &wide(seed)) {
                Ok(found) => prop_assert_eq!(found, Some([1; 8])),
                Err(DiskError::Damaged { .. }) => {
                    prop_assert!(was != to);
                    drop(store);
                    let again = RunStore::open(&place(folder.path()), &SHAPES).unwrap();
                    prop_assert!(again.checkpoint().is_none(), "the next start makes the state anew");
                    return Ok(());
                }
                Err(other) => return Err(TestCaseError::fail(other.to_string())),
            }
        }
    }
}

#[test]
fn many_keys_with_one_head_are_found_block_by_block() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = RunStore::open(&place(folder.path()), &SHAPES).unwrap();
    let key = |tag: u64| [[9; 16].as_slice(), tag.to_be_bytes().as_slice()].concat();
    let records = (0..5_000_u64).flat_map(|tag| [key(2 * tag), tag.to_be_bytes().to_vec()].concat()).collect();
    store.flush(&[Batch { map: 0, records }], &at(1), BTreeMap::new()).unwrap();
    for tag in (0..5_000_u64).step_by(7) {
        assert_eq!(store.get(0, &key(2 * tag)).unwrap(), Some(tag.to_be_bytes()));
        assert_eq!(store.get::<8>(0, &key(2 * tag + 1)).unwrap(), None);
    }
    let mut visited = 0;
    store
        .search(0, &key(1), 16, &mut |_, _| {
            visited += 1;
            Ok::<_, DiskError>(visited < 4_000)
        })
        .unwrap();
    assert_eq!(visited, 4_000);
}

#[test]
fn a_folder_is_used_by_one_task_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = RunStore::open(&place(folder.path()), &SHAPES).unwrap();
    let second = RunStore::open(&place(folder.path()), &SHAPES);
    assert!(matches!(second, Err(DiskError::Locked { .. })));
    drop(store);
    RunStore::open(&place(folder.path()), &SHAPES).unwrap();
}

#[test]
fn state_of_another_topic_or_partition_or_one_to_begin_anew_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let model = of(&[1, 2, 3], 1);
    let ours = place(folder.path());
    let others = [
        Place { identity: Identity { topic_id: "b2".to_owned(), ..ours.identity.clone() }, ..ours.clone() },
        Place { identity: Identity { partition: 4, ..ours.identity.clone() }, ..ours.clone() },
        Place { identity: Identity { stage: "other".to_owned(), ..ours.identity.clone() }, ..ours.clone() },
        Place { fresh: true, ..ours.clone() },
    ];
    for other in others {
        let mut store = RunStore::open(&ours, &SHAPES).unwrap();
        store.flush(&[flushed(&model[0], 0)], &at(1), BTreeMap::new()).unwrap();
        assert!(store.checkpoint().is_some());
        drop(store);
        assert_eq!(RunStore::open(&other, &SHAPES).unwrap().checkpoint(), None, "{other:?}");
        assert_eq!(RunStore::open(&ours, &SHAPES).unwrap().checkpoint(), None, "it was swept away");
    }
}

#[test]
fn a_newer_format_is_refused_with_the_way_out_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    drop(RunStore::open(&place(folder.path()), &SHAPES).unwrap());
    let path = folder.path().join(manifest::NAME);
    let line = format!("{{\"format\":{},\"what\":\"we do not know\"}}", FORMAT + 1);
    let text = format!("{line}\n{:08x}\n", crc32c::crc32c(line.as_bytes()));
    std::fs::write(&path, &text).unwrap();
    let refused = RunStore::open(&place(folder.path()), &SHAPES).unwrap_err();
    assert!(matches!(refused, DiskError::Newer { found: 2, known: 1, .. }));
    assert!(refused.to_string().contains("help:"), "{refused}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn only_state_that_no_task_uses_and_that_is_old_is_forgotten() {
    let root = tempfile::tempdir().unwrap();
    let at_partition = |partition: &str| place(&root.path().join("t.stage").join(partition));
    let model = of(&[1, 2, 3], 1);
    let flushed_store = |partition: &str| {
        let mut store = RunStore::open(&at_partition(partition), &SHAPES).unwrap();
        store.flush(&[flushed(&model[0], 0)], &at(1), BTreeMap::new()).unwrap();
        store
    };
    let (_used, idle) = (flushed_store("1"), flushed_store("2"));
    drop(idle);
    let now = std::time::SystemTime::now();
    let (past, future) = (now - std::time::Duration::from_secs(60), now + std::time::Duration::from_secs(60));
    assert_eq!(manifest::forget_idle(root.path(), past).unwrap(), 0, "what is young stays");
    assert!(RunStore::open(&at_partition("2"), &SHAPES).unwrap().checkpoint().is_some());
    assert!(manifest::forget_idle(root.path(), future).unwrap() > 0);
    assert_eq!(RunStore::open(&at_partition("2"), &SHAPES).unwrap().checkpoint(), None);
    let files = std::fs::read_dir(at_partition("1").folder).unwrap().count();
    assert!(files > 2, "what a task uses stays, whatever its age: {files} files");
}
