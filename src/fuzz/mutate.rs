//! Mutations of bytes.

/// Xorshift (Marsaglia 2003): the same seed, the same inputs.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `bound`; 0 when that is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.next() % bound as u64) as usize }
    }
}

/// Makes new inputs from old ones.
pub(super) struct Mutator {
    pub(super) random: Random,
    pub(super) words: &'static [&'static str],
    /// Longest input.
    pub(super) most: usize,
}

/// Lengths, counts and ends of ranges where mistakes are.
const EDGES: [u64; 12] =
    [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, i64::MAX as u64, u64::MAX];
const NUMBERS: [&str; 10] = [
    "0",
    "-1",
    "-0",
    "1e999",
    "1e-999",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "0.1",
    "NaN",
];

impl Mutator {
    /// One to four mutations of one of the inputs.
    pub(super) fn mutate(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = inputs[self.random.below(inputs.len())].clone();
        for _ in 0..=self.random.below(4) {
            self.step(&mut bytes, inputs);
        }
        bytes.truncate(self.most);
        bytes
    }

    fn step(&mut self, bytes: &mut Vec<u8>, inputs: &[Vec<u8>]) {
        let at = self.random.below(bytes.len() + 1);
        let length = 1 + self.random.below(16);
        let end = (at + length).min(bytes.len());
        match self.random.below(11) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.random.below(8),
            1 if at < bytes.len() => bytes[at] = self.random.next() as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => drop(bytes.splice(at..at, (0..length).map(|_| b' ').collect::<Vec<_>>())),
            5 => {
                let piece = bytes[at..end].to_vec();
                let times = 1 + self.random.below(64);
                bytes.splice(at..at, piece.repeat(times));
            }
            6 => {
                let edge = EDGES[self.random.below(EDGES.len())];
                let width = [1, 2, 4, 8][self.random.below(4)];
                let little = self.random.below(2) == 0;
                let edge = if little {
                    edge.to_le_bytes()[..width].to_vec()
                } else {
                    edge.to_be_bytes()[8 - width..].to_vec()
                };
                let end = (at + width).min(bytes.len());
                bytes.splice(at..end, edge);
            }
            7 => {
                let other = &inputs[self.random.below(inputs.len())];
                let from = self.random.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            8 if !self.words.is_empty() => {
                let word = self.words[self.random.below(self.words.len())];
                let end = if self.random.below(2) == 0 { at } else { end };
                bytes.splice(at..end, word.bytes());
            }
            9 => {
                // A run of digits becomes another number.
                let first = bytes[at.min(bytes.len())..].iter().position(u8::is_ascii_digit).map(|p| at + p);
                if let Some(first) = first {
                    let digits = bytes[first..].iter().take_while(|b| b.is_ascii_digit()).count();
                    bytes.splice(first..first + digits, NUMBERS[self.random.below(NUMBERS.len())].bytes());
                }
            }
            _ => bytes.insert(at, self.random.next() as u8),
        }
    }
}
