use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use super::manifest::{Manifest, Name};
use super::{SnapshotError, SnapshotSettings, Snapshots, Wanted, fetch};
use crate::stages::dedup::state::DedupState;
use crate::store::StoreOptions;
use crate::stream::runs::Identity;
use crate::stream::stage::{Checkpoint, Place, State};
use crate::stream::state::KeyValue;

struct Machines {
    folder: tempfile::TempDir,
    settings: SnapshotSettings,
}

fn identity() -> Identity {
    Identity { stage: "sums".to_owned(), topic_id: "0123abcd".to_owned(), partition: 3 }
}

impl Machines {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = StoreOptions { s3: Vec::new(), check_limit: Duration::from_secs(1) };
        let store = folder.path().join("store").to_str().unwrap().to_owned();
        let settings = SnapshotSettings { grace: Duration::ZERO, ..SnapshotSettings::new(&store, options) };
        Self { settings: SnapshotSettings { end_limit: Duration::from_secs(60), ..settings }, folder }
    }

    fn place(&self, machine: &str) -> Place {
        Place { folder: self.folder.path().join(machine), identity: identity(), memory: 1 << 20, fresh: false }
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store/snapshots/t.sums/3")
    }

    /// Snapshots of these states, one after the other, each sent before the next is taken.
    fn sender(&self) -> Snapshots {
        Snapshots::start(self.settings.clone()).unwrap()
    }

    fn send<S: State>(&self, sender: &Snapshots, machine: &str, state: &S) {
        let place = self.place(machine);
        let take = |to: &Path| state.snapshot(to);
        assert!(sender.offer("t.", &place.folder, &place.identity, S::FORM.unwrap(), take));
        while sender.is_busy(&place.folder) {
            std::thread::yield_now();
        }
    }

    fn fetch_as(&self, place: &Place, form: (&'static str, u16), end: i64) -> Option<i64> {
        let wanted = Wanted { stage: "t.sums".to_owned(), place, form, start: 0, end };
        fetch(&self.settings, &wanted, &|| false)
    }

    fn fetch<S: State>(&self, machine: &str) -> Option<i64> {
        self.fetch_as(&self.place(machine), S::FORM.unwrap(), 1_000)
    }

    /// Files of the task's snapshots in the store whose path contains a text.
    fn files(&self, part: &str) -> Vec<PathBuf> {
        let (mut found, mut folders) = (Vec::new(), vec![self.store()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.to_str().unwrap().contains(part) {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }
}

fn at(next_offset: i64) -> Checkpoint {
    Checkpoint { next_offset, progress: Vec::new() }
}

/// Commits entries `from..to` and writes them to disk.
fn write(state: &mut KeyValue, entries: std::ops::Range<u32>, offset: i64) {
    for i in entries {
        state.put(i.to_be_bytes().to_vec(), Bytes::from(vec![7; 40])).unwrap();
    }
    state.changes();
    state.commit();
    state.checkpoint(&at(offset)).unwrap();
}

fn opened(machines: &Machines, machine: &str) -> KeyValue {
    let mut state = KeyValue::new();
    state.open(&machines.place(machine)).unwrap();
    state
}

/// The first 32 bytes of a row, and a run of it on disk.
fn accept(state: &mut DedupState, rows: std::ops::Range<u64>, offset: i64) {
    let ident = u128::from(rows.start) + 1;
    let facts = crate::stages::dedup::owners::OwnerFacts { ident, batch: ident, contributor: 1, chunk: 0 };
    let owner = state.intern(&facts).unwrap();
    for i in rows {
        let key = crate::stages::dedup::index::RowKey { features: (u128::from(i) << 64) | 5, tag: i };
        state.accept(key, owner, 1);
    }
    state.changes();
    state.commit();
    state.checkpoint(&at(offset)).unwrap();
}

#[test]
fn another_machine_goes_on_from_the_newest_snapshot() {
    let machines = Machines::new();
    let (sender, mut state) = (machines.sender(), opened(&machines, "one"));
    write(&mut state, 0..1_000, 10);
    machines.send(&sender, "one", &state);
    write(&mut state, 1_000..30_000, 20);
    machines.send(&sender, "one", &state);
    // What came after the snapshot is not in it.
    write(&mut state, 30_000..30_001, 30);
    assert_eq!(machines.fetch::<KeyValue>("two"), Some(20));
    let mut restored = KeyValue::new();
    let checkpoint = restored.open(&machines.place("two")).unwrap().unwrap();
    assert_eq!(checkpoint.next_offset, 20);
    assert_eq!(restored.size().entries, 30_000);
    assert_eq!(restored.scan_prefix(b"", usize::MAX).unwrap().len(), 30_000);
}

#[test]
fn runs_that_the_store_has_are_not_sent_again() {
    let machines = Machines::new();
    let (sender, mut state) = (machines.sender(), DedupState::default());
    state.open(&machines.place("one")).unwrap();
    accept(&mut state, 0..5_000, 10);
    machines.send(&sender, "one", &state);
    let first = machines.files("sha256");
    let largest = first.iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    // Were it sent again, it would be another file.
    let file = |path: &Path| std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap());
    let before = file(largest);
    accept(&mut state, 5_000..6_000, 20);
    machines.send(&sender, "one", &state);
    assert_eq!(file(largest), before, "the run of the first snapshot was not sent again");
    assert!(machines.files("sha256").len() > first.len(), "the new one was");
    assert_eq!(machines.fetch::<DedupState>("two"), Some(20));
    let mut restored = DedupState::default();
    assert_eq!(restored.open(&machines.place("two")).unwrap(), Some(at(20)));
    assert_eq!(restored.size().entries, 6_000);
}

#[test]
fn a_snapshot_that_does_not_match_in_full_is_refused_and_an_older_one_taken() {
    let machines = Machines::new();
    let (sender, mut state) = (machines.sender(), opened(&machines, "one"));
    for (offset, to) in [(10, 100), (20, 200)] {
        write(&mut state, 0..to, offset);
        machines.send(&sender, "one", &state);
    }
    let newest = machines.files("020-v1.json").remove(0);
    let whole = std::fs::read(&newest).unwrap();
    let manifest = String::from_utf8(whole.clone()).unwrap();
    let digest = manifest.split("\"digest\":\"").nth(1).unwrap()[..64].to_owned();
    let blob = machines.files(&digest).remove(0);
    let content = std::fs::read(&blob).unwrap();
    let refused = |what: &str| {
        let machine = format!("refused-{what}");
        assert_eq!(machines.fetch::<KeyValue>(&machine), Some(10), "{what}");
        let left = std::fs::read_dir(machines.place(&machine).folder).unwrap();
        let left: Vec<_> = left.map(|file| file.unwrap().file_name()).filter(|name| name != "LOCK").collect();
        assert_eq!(left, ["entries.redb"], "{what}: nothing of the refused one is left");
    };
    std::fs::write(&newest, &whole[..whole.len() / 2]).unwrap();
    refused("truncated-manifest");
    std::fs::write(&newest, manifest.replacen("\"partition\":3", "\"partition\":4", 1)).unwrap();
    refused("changed-manifest");
    std::fs::rename(&newest, newest.with_file_name("00000000000000000020-v2.json")).unwrap();
    refused("newer-format");
    std::fs::remove_file(newest.with_file_name("00000000000000000020-v2.json")).unwrap();
    std::fs::write(&newest, &whole).unwrap();
    std::fs::write(&blob, &content[..content.len() - 1]).unwrap();
    refused("truncated-file");
    let mut damaged = content.clone();
    damaged[content.len() / 2] ^= 1;
    std::fs::write(&blob, damaged).unwrap();
    refused("damaged-file");
    std::fs::remove_file(&blob).unwrap();
    refused("missing-file");
    std::fs::write(&blob, content).unwrap();
    assert_eq!(machines.fetch::<KeyValue>("two"), Some(20), "and whole again it is taken");
}

#[test]
fn a_snapshot_of_another_state_is_refused() {
    let machines = Machines::new();
    let (sender, mut state) = (machines.sender(), opened(&machines, "one"));
    write(&mut state, 0..100, 10);
    machines.send(&sender, "one", &state);
    let place = machines.place("two");
    assert_eq!(machines.fetch_as(&place, ("runs", 1), 1_000), None, "other files");
    assert_eq!(machines.fetch_as(&place, ("entries", 0), 1_000), None, "files of a newer version");
    assert_eq!(machines.fetch_as(&place, ("entries", 1), 9), None, "beyond the changelog's end");
    let mut anew = place.clone();
    anew.identity.topic_id = "another".to_owned();
    assert_eq!(machines.fetch_as(&anew, ("entries", 1), 1_000), None, "of a topic that was made anew");
    assert_eq!(machines.fetch_as(&place, ("entries", 1), 10), Some(10));
}

#[test]
fn manifests_that_lead_out_of_the_folder_are_refused() {
    let path = "snapshots/t.sums/3/0123abcd/00000000000000000010-v1.json".to_owned();
    let name = Name::parse("snapshots/t.sums/3", &path).unwrap();
    for file in ["../x", "a/b", "", ".", "LOCK", "a b", "\u{fc}"] {
        let text = format!(
            r#"{{"format":1,"stage":"sums","topic_id":"0123abcd","partition":3,"next_offset":10,"form":"runs","form_version":1,"files":[{{"name":"{file}","size":1,"digest":"{}"}}]}}"#,
            "0".repeat(64)
        );
        let bytes = format!("{text}\n{}\n", crate::store::Digest::of(text.as_bytes()));
        let refused = Manifest::decode(bytes.as_bytes(), &name);
        assert!(matches!(refused, Err(SnapshotError::Damaged(_))), "{file:?}: {refused:?}");
    }
}

#[test]
fn old_snapshots_go_and_what_the_newest_name_stays() {
    let machines = Machines::new();
    let (sender, mut state) = (machines.sender(), opened(&machines, "one"));
    for round in 1..=4 {
        write(&mut state, 0..u32::try_from(round * 100).unwrap(), round * 10);
        machines.send(&sender, "one", &state);
    }
    assert_eq!(machines.files(".json").len(), 2);
    assert_eq!(machines.files("sha256").len(), 2);
    // One that this version cannot read may name anything.
    let newer = machines.files("040-v1.json").remove(0).with_file_name("00000000000000000050-v2.json");
    std::fs::write(&newer, "who knows").unwrap();
    write(&mut state, 0..500, 60);
    machines.send(&sender, "one", &state);
    assert_eq!(machines.files("sha256").len(), 3, "no blob goes while a manifest cannot be read");
}
