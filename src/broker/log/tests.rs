//! Partitions without a network: torn tails, and a model of what readers may see.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;

use super::batch::{HEADER, Header, Records, assemble, marker_commits, write_record};
use super::partition::{Isolation, Partition, Shared};
use super::recover;
use crate::broker::config::Fsync;
use crate::broker::disk::Disk;
use crate::broker::flusher::{Flush, Flusher};
use crate::broker::now_ms;
use crate::broker::topic_config::{Overrides, TopicConfig};

struct Bench {
    folder: tempfile::TempDir,
    shared: Arc<Shared>,
    config: Arc<TopicConfig>,
}

impl Bench {
    fn new(configs: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(Disk::open(folder.path()).unwrap());
        // An interval this long never fires: tests flush by hand.
        let flusher = Arc::new(Flusher::start(Fsync::Interval(std::time::Duration::from_secs(3_600))).unwrap());
        let shared = Arc::new(Shared { disk, flusher, decompressed_batch_bytes: 1 << 20, compaction_keys: 1_000 });
        let overrides: Overrides = configs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Self { folder, shared, config: Arc::new(TopicConfig::parse(&overrides).unwrap()) }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("p")
    }

    fn open(&self) -> Arc<Partition> {
        recover::open("t", 0, self.path(), Arc::clone(&self.shared), Arc::clone(&self.config), 0).unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.shared.flusher.abandon();
    }
}

/// A batch of one record.
fn one(producer: Option<(i64, i32)>, key: &str, value: Option<&str>) -> Vec<u8> {
    let mut payload = Vec::new();
    write_record(&mut payload, 0, 0, Some(key.as_bytes()), value.map(str::as_bytes));
    let now = now_ms();
    let header = Header {
        base_offset: 0,
        size: 0,
        magic: 2,
        crc: 0,
        attributes: if producer.is_some() { 1 << 4 } else { 0 },
        last_offset_delta: 0,
        base_timestamp: now,
        max_timestamp: now,
        producer_id: producer.map_or(-1, |(id, _)| id),
        producer_epoch: producer.map_or(-1, |_| 0),
        base_sequence: producer.map_or(-1, |(_, sequence)| sequence),
        records: 1,
    };
    assemble(&header, 0, &payload)
}

/// What a read_committed consumer makes of everything from `offset` on: offset, key, value.
fn committed(partition: &Partition, offset: i64) -> Vec<(i64, String, Option<String>)> {
    let (mut at, mut seen) = (offset, Vec::new());
    loop {
        let fetched = partition.read(at, Isolation::ReadCommitted, 300, true).unwrap();
        if fetched.records.is_empty() {
            return seen;
        }
        // The client's algorithm: producers enter the set at their first offset and leave it at their marker.
        let mut waiting = fetched.aborted.clone();
        waiting.sort_by_key(|aborted| aborted.first_offset);
        let mut aborting: HashSet<i64> = HashSet::new();
        let mut rest = &fetched.records[..];
        while let Some(header) = Header::parse(rest) {
            let (bytes, after) = rest.split_at(header.size);
            rest = after;
            while waiting.first().is_some_and(|aborted| aborted.first_offset <= header.last_offset()) {
                aborting.insert(waiting.remove(0).producer_id);
            }
            if header.is_control() {
                if marker_commits(bytes) == Some(false) {
                    aborting.remove(&header.producer_id);
                }
            } else if !(header.is_transactional() && aborting.contains(&header.producer_id)) {
                for record in Records::new(&bytes[HEADER..]) {
                    let record = record.unwrap();
                    let offset = header.base_offset + i64::from(record.offset_delta);
                    let key = String::from_utf8_lossy(record.key.unwrap()).into_owned();
                    if offset >= at {
                        seen.push((offset, key, (!record.is_tombstone).then(|| format!("{offset}"))));
                    }
                }
            }
            at = header.next_offset();
        }
    }
}

#[test]
fn a_tail_torn_at_any_byte_of_the_last_batch_is_cut_off_and_appending_goes_on() {
    let bench = Bench::new(&[]);
    let partition = bench.open();
    partition.append(&one(None, "k", Some("first"))).unwrap();
    let log = bench.path().join("00000000000000000000.log");
    let before = std::fs::metadata(&log).unwrap().len();
    partition.append(&one(Some((7, 0)), "k", Some("second"))).unwrap();
    let whole = std::fs::read(&log).unwrap();
    for cut in before..=whole.len() as u64 {
        std::fs::write(&log, &whole[..cut as usize]).unwrap();
        let partition = bench.open();
        let complete = cut == whole.len() as u64;
        assert_eq!(partition.offsets().end, if complete { 2 } else { 1 }, "cut at {cut}");
        assert_eq!(partition.with_producers(|producers| producers.is_open(7)), complete);
        let appended = partition.append(&one(None, "k", Some("again"))).unwrap();
        assert_eq!(appended.base_offset, if complete { 2 } else { 1 });
    }
    for at in before as usize..whole.len() {
        // The base offset and the leader epoch are outside the checksum.
        if at - (before as usize) < 8 || (12..16).contains(&(at - before as usize)) {
            continue;
        }
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        std::fs::write(&log, &flipped).unwrap();
        assert_eq!(bench.open().offsets().end, 1, "flipped at {at}");
    }
}

#[test]
fn damage_in_a_closed_segment_is_refused_with_its_position_and_not_cut_off() {
    let bench = Bench::new(&[("segment.bytes", "200")]);
    let partition = bench.open();
    for _ in 0..10 {
        partition.append(&one(None, "k", Some("value"))).unwrap();
    }
    let log = bench.path().join("00000000000000000000.log");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[70] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    std::fs::remove_file(log.with_extension("index")).unwrap();
    let opened = recover::open("t", 0, bench.path(), Arc::clone(&bench.shared), Arc::clone(&bench.config), 0);
    assert!(matches!(opened.err(), Some(crate::broker::BrokerError::Damaged { at: 0, .. })));
}

/// One step of a history.
#[derive(Debug, Clone)]
enum Step {
    /// Producer, key, tombstone or not; producer 0 writes without transaction.
    Write(u8, u8, bool),
    End(u8, bool),
    Compact,
    Reopen,
    /// Loses the sidecars and snapshots, which are derived.
    Forget,
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..4_u8, 0..4_u8, prop::bool::weighted(0.1)).prop_map(|(producer, key, tombstone)| Step::Write(producer, key, tombstone)),
        4 => (1..4_u8, any::<bool>()).prop_map(|(producer, commit)| Step::End(producer, commit)),
        1 => Just(Step::Compact),
        1 => Just(Step::Reopen),
        1 => Just(Step::Forget),
        1 => Just(Step::Flush),
    ]
}

/// The truth about a history.
#[derive(Default)]
struct Model {
    /// Key, producer and whether it is decided: committed or not.
    records: BTreeMap<i64, (u8, bool, u8, Option<bool>)>,
    sequences: BTreeMap<u8, i32>,
}

impl Model {
    fn first_open(&self) -> i64 {
        let open = self.records.iter().find(|(_, (.., decided))| decided.is_none());
        open.map_or(i64::MAX, |(offset, _)| *offset)
    }

    /// Key to last offset and whether that is a tombstone, of what a committed reader may see from `from` on.
    fn latest(&self, from: i64) -> BTreeMap<String, (i64, bool)> {
        let mut latest = BTreeMap::new();
        for (offset, (key, tombstone, _, decided)) in self.records.range(from..self.first_open().max(from)) {
            if *decided == Some(true) {
                latest.insert(format!("k{key}"), (*offset, *tombstone));
            }
        }
        latest
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_committed_reader_sees_the_last_committed_value_of_every_key_and_nothing_undecided(steps in prop::collection::vec(step(), 1..120)) {
        let configs = [("cleanup.policy", "compact"), ("segment.bytes", "400"), ("min.cleanable.dirty.ratio", "0")];
        let bench = Bench::new(&configs);
        let mut partition = bench.open();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Write(producer, key, tombstone) => {
                    let sequence = model.sequences.entry(producer).or_default();
                    let who = (producer > 0).then_some((i64::from(producer), *sequence));
                    let value = (!tombstone).then_some("v");
                    let appended = partition.append(&one(who, &format!("k{key}"), value)).unwrap();
                    *sequence += 1;
                    let decided = (producer == 0).then_some(true);
                    model.records.insert(appended.base_offset, (key, tombstone, producer, decided));
                }
                Step::End(producer, commit) => {
                    let _ = partition.append_marker(i64::from(producer), 0, commit).unwrap().1;
                    for (.., by, decided) in model.records.values_mut() {
                        if *by == producer && decided.is_none() {
                            *decided = Some(commit);
                        }
                    }
                }
                Step::Compact => drop(partition.compact(now_ms()).unwrap()),
                Step::Reopen => partition = bench.open(),
                Step::Forget => {
                    for entry in std::fs::read_dir(bench.path()).into_iter().flatten() {
                        let path = entry.unwrap().path();
                        if path.extension().is_some_and(|extension| extension == "index" || extension == "producers") {
                            std::fs::remove_file(path).unwrap();
                        }
                    }
                    partition = bench.open();
                }
                Step::Flush => partition.flush().unwrap(),
            }
            for from in [0, partition.offsets().end / 2] {
                let mut seen = BTreeMap::new();
                for (offset, key, value) in committed(&partition, from) {
                    let (_, _, _, decided) = model.records[&offset];
                    prop_assert_eq!(decided, Some(true), "offset {} is not committed", offset);
                    seen.insert(key, (offset, value.is_none()));
                }
                prop_assert_eq!(seen, model.latest(from));
            }
        }
    }
}

#[test]
fn a_tombstone_goes_after_its_time_and_takes_the_key_with_it() {
    let configs = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "100"),
        ("min.cleanable.dirty.ratio", "0"),
        ("delete.retention.ms", "1000"),
    ];
    let bench = Bench::new(&configs);
    let partition = bench.open();
    let append = |key, value| partition.append(&one(None, key, value)).unwrap();
    append("gone", Some("v"));
    append("gone", None);
    append("other", Some("1"));
    append("other", Some("2"));
    let now = now_ms();
    partition.compact(now).unwrap();
    let keys = |partition: &Partition| {
        committed(partition, 0).into_iter().map(|(offset, key, _)| (offset, key)).collect::<Vec<_>>()
    };
    assert_eq!(
        keys(&partition),
        [(1, "gone".into()), (2, "other".into()), (3, "other".into())],
        "a reader still learns of it"
    );
    append("other", Some("3"));
    partition.compact(now + 999).unwrap();
    assert!(keys(&partition).iter().any(|(_, key)| key == "gone"));
    append("other", Some("4"));
    partition.compact(now + 5_000).unwrap();
    assert!(keys(&partition).iter().all(|(_, key)| key != "gone"));
    assert_eq!(bench.open().offsets().end, 6);
}
