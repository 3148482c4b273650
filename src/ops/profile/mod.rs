//! Flame graphs of trainings and evaluations (`--profile DIR`): where their threads spend the processor's time.
//!
//! ```text
//! begin, on the work's thread: it takes a name of its own, which the threads that it starts inherit
//!       ──► a sampler beside it: 99 times a second, each thread of that name that runs is asked for its stack (`stack`)
//! end   ──► the sampler names the frames and writes DIR/training-RUN.svg or DIR/evaluation-ID.svg
//! ```
//!
//! Only threads of that name are ever interrupted: brokers' clients, tasks and HTTP are not. Without `--profile` nothing of this is there, no
//! thread and no signal handler. A thread that waits is not seen: the picture is of time on the processor, not of time that passed.

mod stack;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::report::flame;

/// Between two samples; no whole fraction of a second, so that nothing periodic falls into step with it.
const EVERY: Duration = Duration::from_micros(10_101);

/// Threads are looked for so often.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Most different stacks that are kept; later ones are counted together.
const MAX_STACKS: usize = 50_000;

/// Writes flame graphs into a folder.
#[derive(Debug, Clone)]
pub struct Profiler {
    dir: Arc<Path>,
}

/// A piece of work that is being profiled; its end is when this is dropped.
#[derive(Debug)]
pub struct Profiling {
    is_over: Arc<AtomicBool>,
    /// The name that the thread had before.
    name: String,
}

impl Profiler {
    /// Profiles from now on; the folder is made when it is not there.
    ///
    /// # Errors
    /// The folder cannot be made, or this system's threads cannot be sampled.
    pub fn new(dir: PathBuf) -> io::Result<Self> {
        stack::install()?;
        fs::create_dir_all(&dir)?;
        Ok(Self { dir: dir.into() })
    }

    /// Begins with the calling thread and those that it starts. What it says ends in the log: no work fails for its profile.
    #[must_use]
    pub fn begin(&self, kind: &'static str, id: &str) -> Option<Profiling> {
        match self.started(kind, id) {
            Ok(profiling) => Some(profiling),
            Err(error) => {
                tracing::warn!(%error, kind, id, "this work is not profiled");
                None
            }
        }
    }

    fn started(&self, kind: &'static str, id: &str) -> io::Result<Profiling> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let old = fs::read_to_string(OWN_NAME)?.trim_end().to_owned();
        // At most fifteen bytes; several works go on at a time, and few.
        let own = format!("hk-profile-{:03}", NEXT.fetch_add(1, Ordering::Relaxed) % 1_000);
        fs::write(OWN_NAME, &own)?;
        let profiling = Profiling { is_over: Arc::default(), name: old };
        let is_over = Arc::clone(&profiling.is_over);
        let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        let file = self.dir.join(format!("{kind}-{}.svg", id.chars().map(safe).take(128).collect::<String>()));
        let title = format!("{kind} {id}");
        std::thread::Builder::new().name("hk-sampler".to_owned()).spawn(move || {
            let (stacks, missed) = sample(&own, &is_over);
            match write(&file, &title, &stacks, missed) {
                Ok(()) => tracing::info!(file = %file.display(), "a flame graph was written"),
                Err(error) => tracing::warn!(%error, file = %file.display(), "no flame graph was written"),
            }
        })?;
        Ok(profiling)
    }
}

impl Drop for Profiling {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        // The work is over either way.
        let _ = fs::write(OWN_NAME, &self.name);
    }
}

/// The calling thread's name, as the system has it.
const OWN_NAME: &str = "/proc/thread-self/comm";

/// Stacks as addresses, innermost first, and how often each was seen.
type Stacks = BTreeMap<Vec<usize>, u64>;

/// Samples the threads of a name until it is over: what was seen, and samples beyond [`MAX_STACKS`].
fn sample(name: &str, is_over: &AtomicBool) -> (Stacks, u64) {
    let (mut stacks, mut missed) = (Stacks::new(), 0);
    let (mut threads, mut looked) = (Vec::new(), None::<Instant>);
    while !is_over.load(Ordering::Acquire) {
        if looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            threads = threads_of(name);
            looked = Some(Instant::now());
        }
        for thread in threads.iter().filter(|thread| is_running(**thread)) {
            let Some(stack) = stack::of(*thread) else { continue };
            if stacks.len() >= MAX_STACKS && !stacks.contains_key(&stack) {
                missed += 1;
            } else {
                *stacks.entry(stack).or_default() += 1;
            }
        }
        std::thread::sleep(EVERY);
    }
    (stacks, missed)
}

/// The threads of this process that have a name.
fn threads_of(name: &str) -> Vec<i32> {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    let has_name =
        |task: &fs::DirEntry| fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name);
    tasks.flatten().filter(has_name).filter_map(|task| task.file_name().to_str()?.parse().ok()).collect()
}

/// Whether a thread has, or waits for, a processor.
fn is_running(thread: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
    // The state follows the name, which stands in parentheses and may hold any.
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('R'))
}

/// Names frames and writes the picture, whole or not at all.
fn write(file: &Path, title: &str, stacks: &Stacks, missed: u64) -> io::Result<()> {
    // Symbols are read by one at a time: they take memory.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut names = BTreeMap::new();
    let mut folded: BTreeMap<Vec<String>, u64> = BTreeMap::new();
    for (stack, seen) in stacks {
        let mut frames = Vec::new();
        for address in stack.iter().rev() {
            let own = names.entry(*address).or_insert_with(|| stack::names(*address));
            frames.extend(own.iter().cloned());
        }
        *folded.entry(flame::without_beginning(frames)).or_default() += seen;
    }
    stack::forget_symbols();
    if missed > 0 {
        folded.insert(vec!["more stacks than are kept".to_owned()], missed);
    }
    let beside = file.with_extension("svg.new");
    fs::write(&beside, flame::graph(title, &folded))?;
    fs::rename(beside, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn a_busy_loop_of_the_test(until: &AtomicBool) -> u64 {
        let mut sum = 0_u64;
        while !until.load(Ordering::Relaxed) {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        sum
    }

    #[test]
    fn a_work_and_the_threads_that_it_starts_are_seen_and_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let profiler = Profiler::new(folder.path().join("new")).unwrap();
        let file = folder.path().join("new/training-run_1.svg");
        let over = Arc::new(AtomicBool::new(false));
        let bystander = std::thread::spawn({
            let over = Arc::clone(&over);
            #[inline(never)]
            fn a_bystander(over: &AtomicBool) -> u64 {
                a_busy_loop_of_the_test(over)
            }
            move || a_bystander(&over)
        });
        let work = std::thread::Builder::new().name("hokusai-train".to_owned()).spawn({
            let over = Arc::clone(&over);
            move || {
                let profiling = profiler.begin("training", "run/1");
                std::thread::scope(|scope| {
                    scope.spawn(|| a_busy_loop_of_the_test(&over));
                });
                drop(profiling);
                fs::read_to_string(OWN_NAME).unwrap()
            }
        });
        // Long enough for some dozens of samples, however busy the machine is: until the sampler has written what it saw.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(700) {
            std::thread::yield_now();
        }
        over.store(true, Ordering::Relaxed);
        assert_eq!(work.unwrap().join().unwrap().trim(), "hokusai-train", "it has its name back");
        bystander.join().unwrap();
        while !file.exists() {
            assert!(begun.elapsed() < Duration::from_secs(120), "no flame graph");
            std::thread::yield_now();
        }
        let graph = fs::read_to_string(&file).unwrap();
        assert!(graph.contains("a_busy_loop_of_the_test") && graph.contains("training run/1"), "{graph}");
        assert!(!graph.contains("a_bystander"), "{graph}");
    }
}
