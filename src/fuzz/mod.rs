//! Seeded mutational fuzzing of everything that reads an outsider's bytes.
//!
//! A target is a function over bytes that must return, whatever they are, with what an outsider may see: an outcome in a few
//! words. Inputs are mutations of a corpus (`fuzz/corpus/TARGET`, and seeds that the target makes); an input with an outcome
//! that was not seen before joins the corpus of the run, so that the search goes deeper where it finds something new. It
//! needs no compiler support, so it runs with the other tests: a fixed number of inputs there, `HOKUSAI_FUZZ_SECONDS` seconds
//! per target on demand (`make fuzz`).
//!
//! What panics is written to `fuzz/crashes/` before the test fails. Once mended it moves into the corpus.

pub(crate) mod mutate;
mod targets;

use std::collections::HashSet;
use std::fs;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mutate::{Mutator, Random};

/// Inputs per target where no time is given.
const INPUTS: usize = 3_000;
/// Inputs that a run keeps.
const MOST_KEPT: usize = 4_096;
/// Longest input.
const MOST_BYTES: usize = 1 << 16;

/// Something that reads an outsider's bytes.
pub(crate) struct Target {
    /// Name of the folder of its corpus.
    pub(crate) name: &'static str,
    /// Valid inputs, besides those in the corpus.
    pub(crate) seeds: Vec<Vec<u8>>,
    /// Words that mean something to it.
    pub(crate) words: &'static [&'static str],
    /// Reads the bytes; an outcome in a few words. Panics when a promise is broken.
    pub(crate) run: fn(&[u8]) -> String,
}

fn folder(kind: &str, name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind).join(name)
}

/// The files of the target's corpus, by name.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let Ok(files) = fs::read_dir(folder("corpus", name)) else { return Vec::new() };
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Kinds of outcome that a run remembers.
const MOST_CLASSES: usize = 1 << 20;

/// Digits and what is quoted tell positions, sizes and names apart, not outcomes.
fn class(outcome: &str) -> u64 {
    let mut quoted = false;
    let plain = |c: &char| {
        quoted ^= matches!(*c, '`' | '"' | '\'');
        !quoted && !c.is_ascii_digit()
    };
    let text: String = outcome.chars().filter(plain).take(80).collect();
    BuildHasherDefault::<DefaultHasher>::default().hash_one(text)
}

/// How long a search goes on: so many inputs, or the time that `make fuzz` gives it.
pub(crate) struct Budget {
    inputs: usize,
    seconds: Option<u64>,
    start: Instant,
}

impl Budget {
    /// So many inputs where no time is given.
    pub(crate) fn new(inputs: usize) -> Self {
        let seconds = std::env::var("HOKUSAI_FUZZ_SECONDS").ok().map(|text| text.parse().unwrap());
        Self { inputs, seconds, start: Instant::now() }
    }

    /// Whether there is one more, after so many.
    pub(crate) fn goes_on(&self, inputs: usize) -> bool {
        self.seconds.map_or(inputs < self.inputs, |time| self.start.elapsed() < Duration::from_secs(time))
    }

    /// A longer search is another one: its seed is the time that it was given.
    pub(crate) fn seed(&self) -> u64 {
        self.seconds.unwrap_or(0)
    }
}

/// Searches for an input that breaks the target.
pub(crate) fn fuzz(target: Target) {
    let budget = Budget::new(INPUTS);
    let mut kept = corpus(target.name);
    kept.extend(target.seeds);
    assert!(!kept.is_empty(), "{} has no corpus", target.name);
    let mut classes: HashSet<u64> = kept.iter().map(|input| class(&attempt(target.name, target.run, input))).collect();
    let random = Random::new(budget.seed() ^ class(target.name));
    let mut mutator = Mutator { random, words: target.words, most: MOST_BYTES };
    let mut inputs = 0;
    while budget.goes_on(inputs) {
        let input = mutator.mutate(&kept);
        let class = class(&attempt(target.name, target.run, &input));
        if classes.len() < MOST_CLASSES && classes.insert(class) && kept.len() < MOST_KEPT {
            kept.push(input);
        }
        inputs += 1;
    }
    println!("{}: {inputs} inputs, {} kinds of outcome", target.name, classes.len());
}

/// Runs the target; an input that breaks it is kept on the disk.
fn attempt(name: &str, run: fn(&[u8]) -> String, input: &[u8]) -> String {
    catch_unwind(AssertUnwindSafe(|| run(input))).unwrap_or_else(|panic| {
        let file = folder("crashes", &format!("{name}-{:016x}", class(&data_encoding::HEXLOWER.encode(input))));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, input).unwrap();
        eprintln!("{name}: {} bytes in {}", input.len(), file.display());
        std::panic::resume_unwind(panic)
    })
}

macro_rules! targets {
    ($($target:ident),* $(,)?) => {$(
        #[test]
        fn $target() {
            fuzz(targets::$target());
        }
    )*};
}

targets!(
    records,
    envelopes,
    json,
    csv,
    parquet,
    arrow,
    avro,
    contracts,
    commands,
    attestations,
    topology,
    requests,
    cells,
    onnx
);
