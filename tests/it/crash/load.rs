//! The load: contributions whose every row's fate can be told from the rows themselves.

use crate::support::flow::{contribution, row};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};

/// One contribution as it will be sent: its chunks, each a list of rows.
#[derive(Debug, Clone)]
pub struct Contribution {
    /// Its id.
    pub id: String,
    /// Who sends it.
    pub contributor: String,
    /// Rows by chunk.
    pub chunks: Vec<Vec<Value>>,
}

impl Contribution {
    /// Its records for `contributions`, one per chunk.
    pub fn records(&self, model: &str) -> Vec<Value> {
        let records = self.chunks.iter().enumerate().map(|(k, rows)| {
            let mut record = contribution(&self.id, &self.contributor, model, rows);
            record["chunk"] = json!(k);
            record["chunks"] = json!(self.chunks.len());
            record
        });
        records.collect()
    }
}

/// A small generator whose whole state is its seed.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// Contributions with valid, invalid and repeated rows, of several contributors that overlap.
pub fn contributions(seed: u64, count: usize, rows_each: u64) -> Vec<Contribution> {
    endless(seed, rows_each).take(count).collect()
}

/// The same without an end, for a load that has to outlast what happens meanwhile, however slow the machine is.
pub fn endless(seed: u64, rows_each: u64) -> impl Iterator<Item = Contribution> {
    let mut random = Random::new(seed);
    let mut next = 0_i64;
    (0..).map(move |n: usize| {
        let chunks = 1 + random.below(3);
        let mut rows = |random: &mut Random| {
            let list = (0..rows_each / chunks).map(|_| match random.below(100) {
                0..=4 => {
                    let mut bad = row(next);
                    bad["plan"] = json!("gold");
                    bad
                }
                5..=14 if next > 0 => row(i64::try_from(random.below(next.unsigned_abs())).expect("small")),
                _ => {
                    next += 1;
                    row(next)
                }
            });
            list.collect::<Vec<_>>()
        };
        let chunks = (0..chunks).map(|_| rows(&mut random)).collect();
        Contribution { id: format!("load-{seed}-{n:04}"), contributor: format!("contributor-{}", n % 5), chunks }
    })
}

/// Sets a flag when it goes, also in a panic: scoped threads that wait for the flag then end, and the failure is told instead of a hang.
pub struct SetAtEnd<'a>(pub &'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Whether the shop's contract takes the row.
pub fn is_valid(row: &Value) -> bool {
    ["basic", "premium"].contains(&row["plan"].as_str().unwrap_or_default())
}
