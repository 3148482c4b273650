//! kill -9 of workers and of the embedded broker under load, at seeded moments and at fail points; then a verifier that recomputes everything.
//!
//! Three kinds of runs:
//! * [`same_log`]: a log of contributions is laid down once, with one `contributions` partition. An uninterrupted run over a copy of it gives
//!   the reference; a run over another copy is killed ten times and must give the same receipts, byte for byte.
//! * [`attesting`]: workers that die at every step of a signed tree head, and a broker that comes back without what it acknowledged.
//! * [`improvement`]: a search for a better model and its evaluation, killed at every step between request and attestation.
//! * [`live`]: contributions keep coming, several workers share the stages, and one after the other is killed.
//!
//! * [`outside`]: a stranger takes in what the stages tell each other and recomputes every verdict and receipt from it.
//! * [`contract`]: the contract changes while contributions flow and workers are killed.
//! * [`power`]: the embedded broker loses every byte that it had not forced to the disk.
//!
//! The verifiers share no code with the stages: [`verify`] knows only the rows that were sent and the contract, [`recompute`] only the
//! committed records and the design's text.

mod attesting;
mod contract;
mod improvement;
mod live;
mod load;
mod outside;
mod plant;
mod power;
mod recompute;
mod same_log;
mod verify;
