//! Group commit: rounds of fsync that everybody who waits shares.
//!
//! The files of a round are synced side by side by a few threads: a journalling file system then commits them
//! together. Measured on ext4 with a busy machine: four files one after the other 5.6 ms, side by side .45 ms.
//!
//! Invariants:
//! - whatever was marked before a [`Ticket`] was taken is on the disk when the ticket's wait ends with `Ok`;
//! - a round starts as soon as somebody waits and takes along everything that arrived meanwhile; bytes nobody
//!   waits for are synced within [`LAZY`], so that they become visible to consumers;
//! - after one failed fsync nothing is acknowledged any more: what the disk holds is unknown from then on;
//! - with nothing to do the thread sleeps without a timer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::config::Fsync;
use super::lock;

/// Threads that sync beside the flusher's own.
const HELPERS: usize = 5;

/// Bytes that nobody waits for are synced after this time.
const LAZY: Duration = Duration::from_millis(5);

/// Something with bytes to force to the disk.
pub(crate) trait Flush: Send + Sync {
    /// The flag the flusher keeps for this object: set while it is in the next round's list.
    fn marked(&self) -> &AtomicBool;
    /// Forces everything appended before the call to the disk and makes it visible.
    fn flush(&self) -> std::io::Result<()>;
}

/// The disk did not take the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the disk did not take the bytes")]
pub(crate) struct NotDurable;

struct State {
    /// The number of the round that will cover what is marked now.
    round: u64,
    dirty: Vec<Arc<dyn Flush>>,
    waiting: bool,
    stopping: bool,
}

struct Shared {
    mode: Fsync,
    state: Mutex<State>,
    wake: Condvar,
    done: watch::Sender<u64>,
    failed: AtomicBool,
    rounds: AtomicU64,
    crew: Crew,
}

/// The files of the present round, and the threads that take them one by one.
#[derive(Default)]
struct Crew {
    work: Mutex<Work>,
    available: Condvar,
    finished: Condvar,
}

#[derive(Default)]
struct Work {
    queue: Vec<Arc<dyn Flush>>,
    running: usize,
    over: bool,
}

impl Crew {
    /// Syncs everything in `dirty`; `failed` is set when the disk does not take it all.
    fn sync(&self, dirty: Vec<Arc<dyn Flush>>, failed: &AtomicBool) {
        let helpers = dirty.len().saturating_sub(1).min(HELPERS);
        lock(&self.work).queue = dirty;
        for _ in 0..helpers {
            self.available.notify_one();
        }
        while self.take_one(failed) {}
        let mut work = lock(&self.work);
        while work.running > 0 {
            work = self.finished.wait(work).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    fn take_one(&self, failed: &AtomicBool) -> bool {
        let object = {
            let mut work = lock(&self.work);
            let Some(object) = work.queue.pop() else { return false };
            work.running += 1;
            object
        };
        if let Err(error) = object.flush() {
            tracing::error!(%error, "fsync failed: the broker acknowledges nothing any more; help: check the disk, then restart");
            failed.store(true, SeqCst);
        }
        let mut work = lock(&self.work);
        work.running -= 1;
        if work.running == 0 && work.queue.is_empty() {
            self.finished.notify_one();
        }
        true
    }

    /// What a helper does all its life.
    fn help(&self, failed: &AtomicBool) {
        loop {
            {
                let mut work = lock(&self.work);
                while work.queue.is_empty() && !work.over {
                    work = self.available.wait(work).unwrap_or_else(|poisoned| poisoned.into_inner());
                }
                if work.over {
                    return;
                }
            }
            while self.take_one(failed) {}
        }
    }

    fn dismiss(&self) {
        lock(&self.work).over = true;
        self.available.notify_all();
    }
}

/// The thread's handle.
pub(crate) struct Flusher {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A place in the queue for the disk.
#[must_use = "bytes are durable only after the wait"]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

impl Flusher {
    pub(crate) fn start(mode: Fsync) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            mode,
            state: Mutex::new(State { round: 1, dirty: Vec::new(), waiting: false, stopping: false }),
            wake: Condvar::new(),
            done: watch::Sender::new(0),
            failed: AtomicBool::new(false),
            rounds: AtomicU64::new(0),
            crew: Crew::default(),
        });
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("broker-flusher".into()).spawn(move || worker.run())?;
        for _ in 0..HELPERS {
            let helper = Arc::clone(&shared);
            std::thread::Builder::new().name("broker-sync".into()).spawn(move || helper.crew.help(&helper.failed))?;
        }
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Whether bytes become visible only once they are on the disk.
    pub(crate) fn gates_readers(&self) -> bool {
        self.shared.mode == Fsync::Group
    }

    /// Notes that `object` has new bytes. Call it after the bytes are written.
    pub(crate) fn mark(&self, object: &Arc<impl Flush + 'static>) -> Ticket {
        let mut state = lock(&self.shared.state);
        if !object.marked().swap(true, SeqCst) {
            state.dirty.push(Arc::clone(object) as Arc<dyn Flush>);
            if state.dirty.len() == 1 {
                self.shared.wake.notify_one();
            }
        }
        Ticket(state.round)
    }

    /// Waits until everything marked before `ticket` is on the disk; at once when fsync is by interval.
    pub(crate) async fn wait(&self, ticket: Ticket) -> Result<(), NotDurable> {
        if self.shared.failed.load(SeqCst) {
            return Err(NotDurable);
        }
        if !self.gates_readers() {
            return Ok(());
        }
        let mut done = self.shared.done.subscribe();
        if *done.borrow_and_update() < ticket.0 {
            self.shared.request_round();
            done.wait_for(|round| *round >= ticket.0).await.map_err(|_| NotDurable)?;
        }
        if self.shared.failed.load(SeqCst) { Err(NotDurable) } else { Ok(()) }
    }

    /// Whether everything marked before `ticket` is on the disk already.
    pub(crate) fn is_done(&self, ticket: Ticket) -> bool {
        !self.gates_readers() || *self.shared.done.borrow() >= ticket.0
    }

    /// Whether an fsync has failed: nothing may be acknowledged any more.
    pub(crate) fn failed(&self) -> bool {
        self.shared.failed.load(SeqCst)
    }

    /// Rounds made so far.
    pub(crate) fn rounds(&self) -> u64 {
        self.shared.rounds.load(SeqCst)
    }

    /// Makes a last round and ends the thread.
    pub(crate) fn stop(&self) {
        lock(&self.shared.state).stopping = true;
        self.shared.wake.notify_one();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }

    /// Ends the thread without a last round, as a crash would.
    pub(crate) fn abandon(&self) {
        self.shared.failed.store(true, SeqCst);
        lock(&self.shared.state).dirty.clear();
        self.stop();
    }
}

impl Shared {
    fn request_round(&self) {
        let mut state = lock(&self.state);
        if !state.waiting {
            state.waiting = true;
            self.wake.notify_one();
        }
    }

    fn run(&self) {
        while let Some((round, dirty)) = self.next_round() {
            self.crew.sync(dirty, &self.failed);
            self.rounds.fetch_add(1, SeqCst);
            self.done.send_replace(round);
        }
        self.crew.dismiss();
        self.done.send_replace(u64::MAX);
    }

    /// Sleeps until there is a round to make; `None` ends the thread.
    fn next_round(&self) -> Option<(u64, Vec<Arc<dyn Flush>>)> {
        let mut state = lock(&self.state);
        while state.dirty.is_empty() && !state.waiting && !state.stopping {
            state = self.wake.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        let pause = match self.mode {
            Fsync::Group => LAZY,
            Fsync::Interval(interval) => interval,
        };
        let deadline = Instant::now() + pause;
        while !state.waiting && !state.stopping {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.wake.wait_timeout(state, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        if state.stopping && state.dirty.is_empty() {
            return None;
        }
        let round = state.round;
        state.round += 1;
        state.waiting = false;
        let dirty = std::mem::take(&mut state.dirty);
        for object in &dirty {
            object.marked().store(false, SeqCst);
        }
        Some((round, dirty))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Counted {
        marked: AtomicBool,
        written: AtomicUsize,
        synced: AtomicUsize,
        broken: bool,
    }

    impl Flush for Counted {
        fn marked(&self) -> &AtomicBool {
            &self.marked
        }

        fn flush(&self) -> std::io::Result<()> {
            let written = self.written.load(SeqCst);
            std::thread::yield_now();
            if self.broken {
                return Err(std::io::Error::other("no disk"));
            }
            self.synced.fetch_max(written, SeqCst);
            Ok(())
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_ticket_covers_every_write_before_it_whoever_else_writes() {
        let flusher = Arc::new(Flusher::start(Fsync::Group).unwrap());
        let objects: Arc<Vec<Arc<Counted>>> = Arc::new((0..20).map(|_| Arc::default()).collect());
        let tasks = (0..8_usize).map(|task| {
            let (flusher, objects) = (Arc::clone(&flusher), Arc::clone(&objects));
            tokio::spawn(async move {
                for step in 0..200 {
                    let object = &objects[(task * 7 + step * 3) % objects.len()];
                    let written = object.written.fetch_add(1, SeqCst) + 1;
                    flusher.wait(flusher.mark(object)).await.unwrap();
                    assert!(object.synced.load(SeqCst) >= written);
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        flusher.stop();
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_synced_soon_too() {
        let flusher = Flusher::start(Fsync::Group).unwrap();
        let object: Arc<Counted> = Arc::default();
        object.written.store(1, SeqCst);
        let ticket = flusher.mark(&object);
        while !flusher.is_done(ticket) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(object.synced.load(SeqCst), 1);
        flusher.stop();
    }

    #[tokio::test]
    async fn after_a_failed_fsync_nothing_is_acknowledged() {
        let flusher = Flusher::start(Fsync::Group).unwrap();
        let broken = Arc::new(Counted { broken: true, ..Counted::default() });
        assert_eq!(flusher.wait(flusher.mark(&broken)).await, Err(NotDurable));
        let whole: Arc<Counted> = Arc::default();
        assert_eq!(flusher.wait(flusher.mark(&whole)).await, Err(NotDurable));
        flusher.stop();
    }
}
