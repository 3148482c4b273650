//! Valid bodies of every request in every version, made from the shapes.

use super::{Field, Kind, Shape};

/// A body that fits the shape, with few elements; `seed` decides what stands in it.
pub(crate) fn valid(shape: &Shape, version: i16, seed: u64) -> Vec<u8> {
    let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut sample = Sample { out: Vec::new(), version, flexible: shape.is_flexible(version), random: seed };
    sample.fields(shape.fields);
    sample.out
}

struct Sample {
    out: Vec<u8>,
    version: i16,
    flexible: bool,
    random: u64,
}

impl Sample {
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    /// A length below 127 in one of the two encodings.
    fn length(&mut self, classic_width: usize, length: u8) {
        if self.flexible {
            self.out.push(length + 1);
        } else {
            self.out.extend(std::iter::repeat_n(0, classic_width - 1));
            self.out.push(length);
        }
    }

    fn fields(&mut self, fields: &[Field]) {
        for Field(from, to, kind) in fields {
            if (*from..=*to).contains(&self.version) {
                self.field(*kind);
            }
        }
        if self.flexible {
            self.out.push(0);
        }
    }

    fn fixed(&mut self, bytes: usize) {
        let value = [0, 0, 0, 1, 1, 7, 1_000, -1_i64][self.below(8) as usize];
        self.out.extend_from_slice(&value.to_be_bytes()[8_usize.saturating_sub(bytes)..]);
        self.out.extend(std::iter::repeat_n(0, bytes.saturating_sub(8)));
    }

    fn text(&mut self) {
        let text = ["t", "g", "", "consumer", "roundrobin"][self.below(5) as usize];
        self.length(2, text.len() as u8);
        self.out.extend_from_slice(text.as_bytes());
    }

    fn field(&mut self, kind: Kind) {
        let count = self.below(3) as u8;
        match kind {
            Kind::Fixed(bytes) => self.fixed(bytes),
            Kind::Text => self.text(),
            Kind::Blob => {
                self.length(4, 8 * count);
                self.out.extend(std::iter::repeat_n(count, usize::from(8 * count)));
            }
            Kind::Numbers(bytes) => {
                self.length(4, count);
                (0..count).for_each(|_| self.fixed(bytes));
            }
            Kind::Texts => {
                self.length(4, count);
                (0..count).for_each(|_| self.text());
            }
            Kind::Structs(fields) => {
                self.length(4, count);
                (0..count).for_each(|_| self.fields(fields));
            }
            Kind::Maybe(fields) => {
                self.out.push(u8::from(count > 0));
                if count > 0 {
                    self.fields(fields);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::SHAPES;
    use super::*;

    #[test]
    fn every_sample_fits_its_shape_and_no_truncation_of_it_does() {
        for shape in SHAPES {
            for version in shape.min..=shape.max {
                for seed in 0..20 {
                    let body = valid(shape, version, seed);
                    assert_eq!(shape.check(version, &body), Ok(()), "{:?} {version} {body:?}", shape.api);
                    for cut in 0..body.len() {
                        let cut = shape.check(version, &body[..cut]);
                        assert!(cut.is_err(), "{:?} {version}", shape.api);
                    }
                }
            }
        }
    }
}
