//! A counter-based generator: the numbers of replicate r do not depend on who computes it, or when.
//!
//! Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011). Key and stream stand in the counter, so
//! any thread can start any stream at once. It is for resampling; nothing secret comes from it.

use sha2::{Digest, Sha256};

/// A stream of random numbers: a pure function of key and stream number.
#[derive(Debug, Clone)]
pub struct Stream {
    key: [u32; 2],
    counter: [u32; 4],
    block: [u32; 4],
    used: usize,
}

/// A seed: what a resampling declares, so that others can repeat it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed([u32; 2]);

impl Seed {
    /// The seed of `purpose` under the declared bytes: SHA-256("hk-stats/v1" ‖ 0 ‖ purpose ‖ 0 ‖ bytes), first eight bytes.
    #[must_use]
    pub fn derive(purpose: &str, bytes: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"hk-stats/v1\0");
        hash.update(purpose.as_bytes());
        hash.update([0]);
        hash.update(bytes);
        let digest = hash.finalize();
        let word = |at: usize| digest.iter().skip(at).take(4).fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        Self([word(0), word(4)])
    }

    /// The stream with this number.
    #[must_use]
    pub fn stream(self, number: u64) -> Stream {
        Stream { key: self.0, counter: [0, 0, number as u32, (number >> 32) as u32], block: [0; 4], used: 4 }
    }
}

impl Stream {
    /// Thirty-two random bits.
    #[inline]
    pub fn bits(&mut self) -> u32 {
        if self.used == 4 {
            self.block = philox(self.counter, self.key);
            let position = (u64::from(self.counter[1]) << 32 | u64::from(self.counter[0])).wrapping_add(1);
            self.counter[0] = position as u32;
            self.counter[1] = (position >> 32) as u32;
            self.used = 0;
        }
        let word = self.block[self.used & 3];
        self.used += 1;
        word
    }

    /// Sixty-four random bits.
    #[inline]
    pub fn word(&mut self) -> u64 {
        u64::from(self.bits()) << 32 | u64::from(self.bits())
    }

    /// A number below `limit` (> 0), each equally likely (Lemire, "Fast random integer generation in an interval", 2019).
    #[inline]
    pub fn below(&mut self, limit: u32) -> u32 {
        let mut product = u64::from(self.bits()) * u64::from(limit);
        if (product as u32) < limit {
            let reject = limit.wrapping_neg() % limit.max(1);
            while (product as u32) < reject {
                product = u64::from(self.bits()) * u64::from(limit);
            }
        }
        (product >> 32) as u32
    }

    /// Puts `items` into random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(u32::try_from(last + 1).unwrap_or(u32::MAX)) as usize;
            items.swap(last, other);
        }
    }
}

#[inline]
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let first = 0xD251_1F53_u64 * u64::from(counter[0]);
        let second = 0xCD9E_8D57_u64 * u64::from(counter[2]);
        counter = [
            (second >> 32) as u32 ^ counter[1] ^ key[0],
            second as u32,
            (first >> 32) as u32 ^ counter[3] ^ key[1],
            first as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `kat_vectors` of the authors' Random123 library.
    #[test]
    fn the_generator_gives_its_authors_known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn streams_of_one_seed_differ_and_repeat() {
        let seed = Seed::derive("test", b"1");
        let take = |number| (0..9).map(|_| 0).scan(seed.stream(number), |s, _: u32| Some(s.bits())).collect::<Vec<_>>();
        assert_eq!(take(7), take(7));
        assert_ne!(take(7), take(8));
        assert_ne!(Seed::derive("a", b"b"), Seed::derive("ab", b""));
    }

    #[test]
    fn every_number_below_the_limit_is_equally_likely() {
        let mut stream = Seed::derive("test", b"2").stream(0);
        let mut counts = [0_u32; 6];
        for _ in 0..60_000 {
            counts[stream.below(6) as usize] += 1;
        }
        let chi_square: f64 =
            counts.iter().map(|c| (f64::from(*c) - 10_000.0) * (f64::from(*c) - 10_000.0) / 10_000.0).sum();
        assert!(chi_square < 25.0, "{counts:?}");
        assert_eq!(stream.below(1), 0);
    }
}
