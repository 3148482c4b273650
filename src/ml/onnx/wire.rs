//! Protocol Buffers as an outsider writes them: fields of one message, one after the other, without recursion and without copies.

use super::OnnxError;

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 5.
    Fixed32([u8; 4]),
    /// Wire type 1.
    Fixed64([u8; 8]),
    /// Wire type 2: bytes, a text, a message or packed numbers.
    Bytes(&'a [u8]),
}

/// The fields of a message in the order of its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

fn damaged(problem: &str) -> OnnxError {
    OnnxError::Form(problem.to_owned())
}

impl<'a> Fields<'a> {
    /// The fields of these bytes.
    #[must_use]
    pub fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn varint(&mut self) -> Result<u64, OnnxError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or_else(|| damaged("a number is cut short"))?;
            self.rest = rest;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(damaged("a number has more than 64 bits"))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], OnnxError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| damaged("a number is cut short"))?;
        self.rest = rest;
        Ok(*taken)
    }

    /// The next field; none at the end.
    ///
    /// # Errors
    /// Bytes that are no field.
    pub fn field(&mut self) -> Result<Option<(u64, Value<'a>)>, OnnxError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(self.array()?),
            2 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                let taken = self.rest.get(..length).ok_or_else(|| damaged("a field is longer than the file"))?;
                self.rest = self.rest.get(length..).unwrap_or_default();
                Value::Bytes(taken)
            }
            5 => Value::Fixed32(self.array()?),
            _ => return Err(damaged("a field has an unknown wire type")),
        };
        Ok(Some((key >> 3, value)))
    }
}

impl<'a> Value<'a> {
    /// A message, bytes or packed numbers.
    ///
    /// # Errors
    /// A field of another wire type.
    pub fn bytes(self) -> Result<&'a [u8], OnnxError> {
        if let Self::Bytes(bytes) = self {
            Ok(bytes)
        } else {
            Err(damaged("a field has another wire type than ONNX's"))
        }
    }

    /// A text.
    ///
    /// # Errors
    /// A field of another wire type, or no UTF-8.
    pub fn text(self) -> Result<&'a str, OnnxError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| damaged("a text is not UTF-8"))
    }

    /// A whole number.
    ///
    /// # Errors
    /// A field of another wire type.
    pub fn int(self) -> Result<i64, OnnxError> {
        if let Self::Varint(value) = self {
            Ok(value as i64)
        } else {
            Err(damaged("a field has another wire type than ONNX's"))
        }
    }

    /// One or many whole numbers, packed or not.
    ///
    /// # Errors
    /// A field of another wire type.
    pub fn ints(self, into: &mut Vec<i64>) -> Result<(), OnnxError> {
        let Self::Bytes(packed) = self else {
            into.push(self.int()?);
            return Ok(());
        };
        let mut numbers = Fields::of(packed);
        while !numbers.rest.is_empty() {
            into.push(numbers.varint()? as i64);
        }
        Ok(())
    }

    /// One or many single floats, packed or not.
    ///
    /// # Errors
    /// A field of another wire type.
    pub fn floats(self, into: &mut Vec<f32>) -> Result<(), OnnxError> {
        match self {
            Self::Fixed32(bytes) => into.push(f32::from_le_bytes(bytes)),
            _ => {
                let (numbers, rest) = self.bytes()?.as_chunks::<4>();
                if !rest.is_empty() {
                    return Err(damaged("floats are cut short"));
                }
                into.extend(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)));
            }
        }
        Ok(())
    }

    /// One or many double floats, packed or not.
    ///
    /// # Errors
    /// A field of another wire type.
    pub fn doubles(self, into: &mut Vec<f64>) -> Result<(), OnnxError> {
        match self {
            Self::Fixed64(bytes) => into.push(f64::from_le_bytes(bytes)),
            _ => {
                let (numbers, rest) = self.bytes()?.as_chunks::<8>();
                if !rest.is_empty() {
                    return Err(damaged("doubles are cut short"));
                }
                into.extend(numbers.iter().map(|bytes| f64::from_le_bytes(*bytes)));
            }
        }
        Ok(())
    }
}
