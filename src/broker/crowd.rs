//! Who gives way when there are too many connections.
//!
//! A client says something as soon as it is connected, and goes on doing so. So the one that gives way to a new connection is the oldest
//! of those that have not sent a single request yet, and without any, the one whose last request is longest ago:
//! a client of good faith connects again.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use tokio::sync::Notify;

/// An open connection as the crowd sees it.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    /// When the last whole request was read, in milliseconds; 0 before the first.
    last_request: AtomicI64,
    leave: Notify,
}

impl Seat {
    /// A whole request was read.
    pub(crate) fn requested(&self, now: i64) {
        self.last_request.store(now.max(1), Relaxed);
    }

    /// Waits until the connection has to give way.
    pub(crate) async fn has_to_leave(&self) {
        self.leave.notified().await;
    }
}

/// All open connections, oldest first.
#[derive(Debug)]
pub(crate) struct Crowd {
    most: usize,
    seats: VecDeque<Weak<Seat>>,
}

impl Crowd {
    /// At most so many connections.
    pub(crate) fn new(most: usize) -> Self {
        Self { most: most.max(1), seats: VecDeque::new() }
    }

    /// A seat for a new connection; tells another one to leave when there is no room.
    pub(crate) fn admit(&mut self) -> Arc<Seat> {
        if self.seats.len() >= self.most {
            self.seats.retain(|seat| seat.strong_count() > 0);
        }
        if self.seats.len() >= self.most {
            let last = |seat: &Weak<Seat>| seat.upgrade().map_or(0, |seat| seat.last_request.load(Relaxed));
            // The first of equals is the oldest.
            let longest = self.seats.iter().enumerate().min_by_key(|(_, seat)| last(seat)).map(|(at, _)| at);
            if let Some(seat) = longest.and_then(|at| self.seats.remove(at)).and_then(|seat| seat.upgrade()) {
                seat.leave.notify_one();
            }
        }
        let seat = Arc::new(Seat::default());
        self.seats.push_back(Arc::downgrade(&seat));
        seat
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn leaves(seat: &Seat) -> bool {
        seat.has_to_leave().now_or_never().is_some()
    }

    #[test]
    fn who_has_said_nothing_gives_way_first_and_then_who_has_been_silent_for_longest() {
        let mut crowd = Crowd::new(3);
        let [a, b, c] = [crowd.admit(), crowd.admit(), crowd.admit()];
        a.requested(30);
        b.requested(10);
        let d = crowd.admit();
        assert_eq!([&a, &b, &c, &d].map(|seat| leaves(seat)), [false, false, true, false]);
        d.requested(20);
        let e = crowd.admit();
        assert_eq!([&a, &b, &d, &e].map(|seat| leaves(seat)), [false, true, false, false]);
        drop(a);
        let f = crowd.admit();
        assert_eq!([&d, &e, &f].map(|seat| leaves(seat)), [false; 3], "there is room again");
    }
}
