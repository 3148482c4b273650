//! Entries of the receipts state as bytes: one version byte (1 and 2 are read as well), then the fields in order; integers as zigzag varints.

use crate::domain::records::{ColumnSums, Count, QualitySums};
use crate::stream::stage::StageError;

/// Format version of every entry.
pub const VERSION: u8 = 3;

/// A value that can stand in an entry.
pub trait Field: Sized {
    /// Appends the value.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads the value.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    fn take(from: &mut Reader<'_>) -> Result<Self, &'static str>;
}

/// Bytes that are being read.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    version: u8,
}

impl<'a> Reader<'a> {
    /// Format version of the entry.
    #[must_use]
    pub fn version(&self) -> u8 {
        self.version
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], &'static str> {
        let (head, rest) = self.bytes.split_at_checked(length).ok_or("cut short")?;
        self.bytes = rest;
        Ok(head)
    }
    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.bytes(1)? else { return Err("cut short") };
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number without end")
    }
    fn length(&mut self) -> Result<usize, &'static str> {
        // Every item takes a byte or more: a stated length beyond what is left is damage, not an allocation.
        let length = usize::try_from(self.varint()?).map_err(|_| "a length too large")?;
        if length > self.bytes.len() { Err("a length too large") } else { Ok(length) }
    }
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

impl Field for i64 {
    fn put(&self, out: &mut Vec<u8>) {
        varint(((self << 1) ^ (self >> 63)) as u64, out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, &'static str> {
        let value = from.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }
}

macro_rules! narrow {
    ($($type:ty),*) => {$(
        impl Field for $type {
            fn put(&self, out: &mut Vec<u8>) {
                i64::from(*self).put(out);
            }
            fn take(from: &mut Reader<'_>) -> Result<Self, &'static str> {
                <$type>::try_from(i64::take(from)?).map_err(|_| "a number out of range")
            }
        }
    )*};
}
narrow!(u32, i32, u8);

impl Field for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, &'static str> {
        match from.bytes(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err("neither true nor false"),
        }
    }
}

impl Field for String {
    fn put(&self, out: &mut Vec<u8>) {
        varint(self.len() as u64, out);
        out.extend_from_slice(self.as_bytes());
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, &'static str> {
        let length = from.length()?;
        std::str::from_utf8(from.bytes(length)?).map(str::to_owned).map_err(|_| "text that is no UTF-8")
    }
}

impl<const N: usize> Field for [u8; N] {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, &'static str> {
        from.bytes(N)?.try_into().map_err(|_| "cut short")
    }
}

impl<T: Field> Field for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        self.iter().for_each(|value| value.put(out));
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, &'static str> {
        bool::take(from)?.then(|| T::take(from)).transpose()
    }
}

impl<A: Field, B: Field> Field for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, &'static str> {
        Ok((A::take(from)?, B::take(from)?))
    }
}

impl<T: Field> Field for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        varint(self.len() as u64, out);
        self.iter().for_each(|item| item.put(out));
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, &'static str> {
        let length = from.length()?;
        (0..length).map(|_| T::take(from)).collect()
    }
}

/// Makes a struct a [`Field`] by listing its fields in the order of the format.
macro_rules! fields {
    ($type:ty { $($field:ident),+ $(,)? }) => {
        impl $crate::stages::receipts::codec::Field for $type {
            fn put(&self, out: &mut Vec<u8>) {
                $($crate::stages::receipts::codec::Field::put(&self.$field, out);)+
            }
            fn take(from: &mut $crate::stages::receipts::codec::Reader<'_>) -> Result<Self, &'static str> {
                Ok(Self { $($field: $crate::stages::receipts::codec::Field::take(from)?,)+ })
            }
        }
    };
}
pub(super) use fields;

fields!(Count { name, count });
fields!(ColumnSums { column, nulls, outliers, bins, least, greatest, fingerprint });
fields!(QualitySums { valid, columns, labels, near_duplicates, incompatible_schema });

/// An entry as bytes.
#[must_use]
pub fn encode<T: Field>(entry: &T) -> Vec<u8> {
    let mut out = vec![VERSION];
    entry.put(&mut out);
    out
}

/// Reads an entry.
///
/// # Errors
/// [`StageError::State`] when it is damaged or of another version.
pub fn decode<T: Field>(what: &str, bytes: &[u8]) -> Result<T, StageError> {
    let damaged = |detail: String| StageError::State { what: what.to_owned(), detail };
    match bytes.split_first() {
        Some((version @ 1..=VERSION, fields)) => {
            let mut reader = Reader { bytes: fields, version: *version };
            let entry = T::take(&mut reader).map_err(|e| damaged(e.to_owned()))?;
            if reader.bytes.is_empty() { Ok(entry) } else { Err(damaged("bytes too many".to_owned())) }
        }
        Some((version, _)) => Err(damaged(format!("format version {version}, this program reads {VERSION}"))),
        None => Err(damaged("empty".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_and_texts_read_back(number: i64, text in ".*", list in prop::collection::vec(any::<i64>(), 0..5)) {
            let count = Count { name: text, count: number };
            prop_assert_eq!(decode::<Count>("x", &encode(&count)).unwrap(), count);
            prop_assert_eq!(decode::<Vec<i64>>("x", &encode(&list)).unwrap(), list);
        }

        #[test]
        fn damaged_bytes_are_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut entry = vec![VERSION];
            entry.extend(bytes);
            let _ = decode::<QualitySums>("x", &entry);
        }
    }
}
