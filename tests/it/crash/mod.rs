//! kill -9 of workers and of the embedded broker under load, at seeded moments and at fail points; then a verifier that recomputes everything.
//!
//! Three kinds of runs:
//! * [`same_log`]: a log of contributions is laid down once, with one `contributions` partition. An uninterrupted run over a copy of it gives
//!   the reference; a run over another copy is killed ten times and must give the same receipts, byte for byte.
//! * [`attesting`]: workers that die at every step of a signed tree head, and a broker that comes back without what it acknowledged.
//! * [`live`]: contributions keep coming, several workers share the stages, and one after the other is killed.
//!
//! The verifier ([`verify`]) knows only the rows that were sent and the contract: it shares no code with the stages.

mod attesting;
mod live;
mod load;
mod plant;
mod same_log;
mod verify;
