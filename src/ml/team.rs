//! Threads that work on one thing in step: a meeting point that all of them pass together.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Looks at the round before a thread goes to sleep: some hundred microseconds, what it takes to wake a virtual machine's idle core. With
/// a sixteenth of them two threads need a third longer (1.65 against 1.23 s on a year of flights) and a tenth more CPU; two such trainings
/// at once on two cores take the same time with either.
const LOOKS: u32 = 4000;

/// Where the threads of a team wait for each other. What each wrote before it came, all can read after.
pub struct Meeting {
    threads: usize,
    arrived: AtomicUsize,
    round: AtomicUsize,
    broken: AtomicBool,
    door: Mutex<()>,
    bell: Condvar,
}

/// One thread's seat. If the thread panics, nobody waits for it any more.
pub struct Seat<'a>(&'a Meeting);

impl Meeting {
    /// For this many threads.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        let (arrived, round) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { threads, arrived, round, broken: AtomicBool::new(false), door: Mutex::new(()), bell: Condvar::new() }
    }

    /// A seat for the thread that calls this: it must hold it as long as others may wait for it.
    #[must_use]
    pub fn seat(&self) -> Seat<'_> {
        Seat(self)
    }

    fn ring(&self, change: impl FnOnce()) {
        // Under the lock, so that nobody falls asleep between its last look and the bell.
        let door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        change();
        drop(door);
        self.bell.notify_all();
    }

    fn over(&self, round: usize) -> bool {
        self.round.load(Ordering::Acquire) != round || self.broken.load(Ordering::Acquire)
    }
}

impl Seat<'_> {
    /// Waits until all threads of the team wait; `None` if one of them panicked, and the work is to be left.
    #[must_use]
    pub fn wait(&self) -> Option<()> {
        let meeting = self.0;
        if meeting.threads > 1 {
            let round = meeting.round.load(Ordering::Acquire);
            if meeting.arrived.fetch_add(1, Ordering::AcqRel) + 1 == meeting.threads {
                meeting.arrived.store(0, Ordering::Release);
                meeting.ring(|| meeting.round.store(round.wrapping_add(1), Ordering::Release));
            } else if !(0..LOOKS).any(|_| {
                spin_loop();
                meeting.over(round)
            }) {
                let mut door = meeting.door.lock().unwrap_or_else(PoisonError::into_inner);
                while !meeting.over(round) {
                    door = meeting.bell.wait(door).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
        (!meeting.broken.load(Ordering::Acquire)).then_some(())
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.ring(|| self.0.broken.store(true, Ordering::Release));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_see_what_each_wrote_before_the_meeting() {
        let (meeting, slots) = (Meeting::new(3), [0; 3].map(AtomicUsize::new));
        std::thread::scope(|scope| {
            for me in 0..3 {
                let (meeting, slots) = (&meeting, &slots);
                scope.spawn(move || {
                    let seat = meeting.seat();
                    for round in 1..500 {
                        slots[me].store(round, Ordering::Relaxed);
                        seat.wait().unwrap();
                        assert!(slots.iter().all(|slot| slot.load(Ordering::Relaxed) == round));
                        seat.wait().unwrap();
                    }
                });
            }
        });
    }

    #[test]
    fn a_thread_that_panics_keeps_nobody_waiting() {
        let meeting = Meeting::new(2);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let _seat = meeting.seat();
                panic!("a defect");
            });
            assert_eq!(meeting.seat().wait(), None);
            assert!(other.join().is_err());
        });
    }
}
