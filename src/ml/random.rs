//! Random numbers as a function of what they are for: a counter-based generator has no state, so a draw is the same
//! whatever was drawn before it, on any thread and after any resume.

/// What a draw is for. Each purpose has a stream of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Whether a row is in a tree's sample.
    Rows = 1,
    /// Which features a tree may split on.
    Columns = 2,
    /// Rounding of gradients.
    Rounding = 3,
    /// Hyperparameters of a trial.
    Trials = 4,
    /// Whether a row is in the validation fold.
    Validation = 5,
}

/// Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
#[must_use]
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let (mut c, mut k) = (counter, key);
    for _ in 0..10 {
        let low = u64::from(c[0]) * 0xD251_1F53;
        let high = u64::from(c[2]) * 0xCD9E_8D57;
        c = [(high >> 32) as u32 ^ c[1] ^ k[0], high as u32, (low >> 32) as u32 ^ c[3] ^ k[1], low as u32];
        k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
    }
    c
}

/// Four independent draws of 32 bits: `seed` is the key; purpose, `step` (tree, trial) and `index` (row, feature) are the counter.
#[must_use]
pub fn draws(seed: u64, purpose: Purpose, step: u32, index: u64) -> [u32; 4] {
    let counter = [index as u32, (index >> 32) as u32, step, purpose as u32];
    philox(counter, [seed as u32, (seed >> 32) as u32])
}

/// One draw of 64 bits.
#[must_use]
pub fn draw(seed: u64, purpose: Purpose, step: u32, index: u64) -> u64 {
    let [a, b, ..] = draws(seed, purpose, step, index);
    u64::from(a) | u64::from(b) << 32
}

/// One draw, uniform on [0, 1) with 53 bits.
#[must_use]
pub fn uniform(seed: u64, purpose: Purpose, step: u32, index: u64) -> f64 {
    (draw(seed, purpose, step, index) >> 11) as f64 / (1u64 << 53) as f64
}

/// The part of all draws of 64 bits that lies below `share`.
#[must_use]
pub fn share(share: f64) -> u64 {
    (share * 18_446_744_073_709_551_616.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_gives_the_known_answers_of_its_authors() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = u32::MAX;
        assert_eq!(philox([ones; 4], [ones; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        assert_eq!(philox(pi, [0xa409_3822, 0x299f_31d0]), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn draws_of_different_purposes_steps_and_rows_differ() {
        let first = draw(7, Purpose::Rows, 0, 0);
        for other in [
            draw(8, Purpose::Rows, 0, 0),
            draw(7, Purpose::Columns, 0, 0),
            draw(7, Purpose::Rows, 1, 0),
            draw(7, Purpose::Rows, 0, 1),
        ] {
            assert_ne!(first, other);
        }
    }
}
