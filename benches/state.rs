//! Deduplication's state far beyond its memory: CPU time per key, resident memory, restore from disk and from the changelog.
//!
//! `cargo bench --bench state -- [MILLIONS OF KEYS, 10] [MIB OF MEMORY, 16]`; Linux only. Each restore runs in a process of its own, so
//! that what it reports as resident is its own. Folder: `$TMPDIR`; it takes about 100 bytes per key while it runs.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "common/keys.rs"]
mod keys;

use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use hokusai::stages::dedup::state::DedupState;
use hokusai::store::StoreOptions;
use hokusai::stream::runs::Identity;
use hokusai::stream::snapshot::{SnapshotSettings, Snapshots, Wanted, fetch};
use hokusai::stream::stage::{Change, Checkpoint, Place, State};
use keys::{facts, key, mix};

/// Keys of one transaction: as many as a chunk or two has.
const BATCH: u64 = 10_000;

fn place(folder: &Path, memory: usize) -> Place {
    let identity = Identity { stage: "dedup".to_owned(), topic_id: "bench".to_owned(), partition: 0 };
    Place { folder: folder.to_owned(), identity, memory, fresh: false }
}

/// A number of this process from /proc, in MiB.
fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// CPU seconds of this thread, and of all threads.
fn cpu() -> (f64, f64) {
    let seconds = |path: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let fields: Vec<i64> =
            text.rsplit_once(')').map_or("", |(_, rest)| rest).split(' ').filter_map(|f| f.parse().ok()).collect();
        // utime and stime, of which the state letter before them is no number; 100 ticks a second.
        fields
            .get(10)
            .zip(fields.get(11))
            .map_or(0.0, |(user, system)| f64::from(i32::try_from(user + system).unwrap_or(i32::MAX)) / 100.0)
    };
    (seconds("/proc/thread-self/stat"), seconds("/proc/self/stat"))
}

fn report(what: &str, keys: u64, begun: (Instant, (f64, f64))) {
    let (thread, all) = cpu();
    let micros = |seconds: f64| seconds * 1e6 / f64::from(u32::try_from(keys).unwrap());
    println!(
        "{what}: {:.1} s, CPU µs per key {:.2} on the task's thread, {:.2} with merges; resident {} MiB, at most {} MiB",
        begun.0.elapsed().as_secs_f64(),
        micros(thread - begun.1.0),
        micros(all - begun.1.1),
        status("VmRSS"),
        status("VmHWM"),
    );
}

fn write_log(log: &mut impl Write, change: &Change) {
    let value = change.value.as_ref().unwrap();
    for part in [&change.key, value] {
        log.write_all(&u32::try_from(part.len()).unwrap().to_be_bytes()).unwrap();
        log.write_all(part).unwrap();
    }
}

fn read_part(log: &mut impl Read) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    log.read_exact(&mut length).ok()?;
    let mut part = vec![0; u32::from_be_bytes(length) as usize];
    log.read_exact(&mut part).unwrap();
    Some(part)
}

fn at(next_offset: i64) -> Checkpoint {
    Checkpoint { next_offset, progress: Vec::new() }
}

fn feed(folder: &Path, keys: u64, memory: usize) {
    let mut state = DedupState::default();
    state.open(&place(&folder.join("state"), memory)).unwrap();
    let mut log = BufWriter::new(std::fs::File::create(folder.join("changelog")).unwrap());
    let begun = (Instant::now(), cpu());
    let (mut offset, mut slowest, mut slow) = (0, 0.0_f64, 0);
    for from in (0..keys).step_by(usize::try_from(BATCH).unwrap()) {
        let transaction = Instant::now();
        let owner = state.intern(&facts(from)).unwrap();
        for i in from..from + BATCH {
            assert!(state.look_up(key(i)).unwrap().owner.is_none());
            state.accept(key(i), owner, u32::try_from(i - from).unwrap());
        }
        for change in state.changes() {
            write_log(&mut log, &change);
            offset += 1;
        }
        state.commit();
        if state.wants_checkpoint() {
            state.checkpoint(&at(offset)).unwrap();
        }
        let took = transaction.elapsed().as_secs_f64();
        slowest = slowest.max(took);
        slow += u32::from(took > 0.1);
    }
    report("new keys: look up, log, commit", keys, begun);
    println!("longest transaction of {BATCH} keys: {slowest:.2} s; {slow} took more than 0.1 s");
    let begun = (Instant::now(), cpu());
    state.runs_mut().unwrap().settle().unwrap();
    report("merges that were left", keys, begun);
    let size = state.size();
    println!(
        "{} entries; state says {} MiB of memory, {} MiB on disk in {} runs",
        size.entries,
        size.bytes >> 20,
        size.disk >> 20,
        state.runs_mut().unwrap().runs(0)
    );
    let asked = keys.min(1_000_000);
    let begun = (Instant::now(), cpu());
    for i in 0..asked {
        let known = state.look_up(key(mix(i) % keys)).unwrap().owner.unwrap();
        assert!(state.relation(known.0, &facts(0)).unwrap().is_some());
    }
    report("duplicates, in random order", asked, begun);
    let begun = (Instant::now(), cpu());
    assert_eq!((0..asked).filter(|i| state.look_up(key(keys + i)).unwrap().owner.is_some()).count(), 0);
    report("new keys, only looked up", asked, begun);
}

fn restore(folder: &Path, name: &str, keys: u64, memory: usize) {
    let begun = (Instant::now(), cpu());
    let mut state = DedupState::default();
    let opened = state.open(&place(&folder.join(name), memory)).unwrap();
    let from = opened.map_or(0, |checkpoint| checkpoint.next_offset);
    let mut log = BufReader::with_capacity(1 << 20, std::fs::File::open(folder.join("changelog")).unwrap());
    let mut offset = 0;
    while let Some(key) = read_part(&mut log) {
        let value = read_part(&mut log).unwrap();
        offset += 1;
        if offset > from {
            state.restore(&key, Some(&value)).unwrap();
            if state.wants_checkpoint() {
                state.checkpoint(&at(offset)).unwrap();
            }
        }
    }
    state.restored().unwrap();
    report(&format!("restored, local state held {from} of {offset} records"), keys, begun);
    assert_eq!(state.size().entries, keys);
}

/// To a store in a folder, and from there into a folder that has nothing.
fn snapshot(folder: &Path, keys: u64, memory: usize) {
    let options = StoreOptions { s3: Vec::new(), check_limit: Duration::from_secs(10) };
    let settings = SnapshotSettings::new(folder.join("store").to_str().unwrap(), options);
    let settings = SnapshotSettings { end_limit: Duration::from_secs(600), ..settings };
    let from = place(&folder.join("state"), memory);
    let mut state = DedupState::default();
    let next_offset = state.open(&from).unwrap().unwrap().next_offset;
    let begun = (Instant::now(), cpu());
    let snapshots = Snapshots::start(settings.clone()).unwrap();
    let form = DedupState::FORM.unwrap();
    assert!(snapshots.offer("", &from.folder, &from.identity, form, |to| state.snapshot(to)));
    println!("links on the task's thread: {:.4} s", begun.0.elapsed().as_secs_f64());
    snapshots.finish();
    report("sent to a folder store", keys, begun);
    let to = place(&folder.join("fetched"), memory);
    let begun = (Instant::now(), cpu());
    let wanted = Wanted { stage: "dedup".to_owned(), place: &to, form, start: 0, end: next_offset };
    assert_eq!(fetch(&settings, &wanted, &|| false), Some(next_offset));
    report("fetched from it, digests checked", keys, begun);
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |at: usize, default: u64| arguments.get(at).map_or(default, |text| text.parse().unwrap());
    let (keys, memory) = (number(0, 10) * 1_000_000, usize::try_from(number(1, 16)).unwrap() << 20);
    if let Some(folder) = arguments.get(2) {
        let folder = Path::new(folder);
        return match arguments.get(3).map(String::as_str) {
            Some("feed") => feed(folder, keys, memory),
            Some("snapshot") => snapshot(folder, keys, memory),
            Some(name) => restore(folder, name, keys, memory),
            None => (),
        };
    }
    let folder = std::env::temp_dir().join(format!("hokusai-bench-state-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    println!("{keys} keys, {} MiB of memory for what is not on disk", memory >> 20);
    for step in ["feed", "state", "anew", "snapshot", "fetched"] {
        println!("-- {step}");
        let (keys, memory) = ((keys / 1_000_000).to_string(), (memory >> 20).to_string());
        let program = std::env::current_exe().unwrap();
        let ended = std::process::Command::new(program).args([&keys, &memory]).arg(&folder).arg(step).status().unwrap();
        assert!(ended.success());
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
