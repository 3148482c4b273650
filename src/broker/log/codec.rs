//! The four compression codecs of record batches, with a bound on what comes out.

use std::borrow::Cow;
use std::io::{self, Read, Write};

/// How the records of a batch are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// Bytes that cannot be decompressed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    /// More comes out than is allowed.
    #[error("more than {0} bytes after decompression")]
    TooLarge(usize),
    /// Not this codec's format.
    #[error("{0}")]
    Broken(String),
}

impl From<io::Error> for CodecError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<snap::Error> for CodecError {
    fn from(error: snap::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

/// The head that snappy-java and librdkafka put before their blocks: magic, version 1, compatible with 1.
const XERIAL: &[u8; 16] = b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01";
const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\x00";
const XERIAL_BLOCK: usize = 32 << 10;

impl Codec {
    pub(crate) fn from_bits(bits: i16) -> Option<Self> {
        Some(match bits {
            0 => Self::None,
            1 => Self::Gzip,
            2 => Self::Snappy,
            3 => Self::Lz4,
            4 => Self::Zstd,
            _ => return None,
        })
    }

    pub(crate) fn bits(self) -> i16 {
        self as i16
    }

    /// The records behind a batch header, at most `limit` bytes of them.
    pub(crate) fn decompress(self, bytes: &[u8], limit: usize) -> Result<Cow<'_, [u8]>, CodecError> {
        Ok(match self {
            Self::None => Cow::Borrowed(bytes),
            Self::Gzip => Cow::Owned(read_all(flate2::read::MultiGzDecoder::new(bytes), limit)?),
            Self::Snappy => Cow::Owned(unsnap(bytes, limit)?),
            Self::Lz4 => Cow::Owned(read_all(lz4::Decoder::new(bytes)?, limit)?),
            Self::Zstd => Cow::Owned(read_all(zstd::Decoder::with_buffer(bytes)?, limit)?),
        })
    }

    /// Compresses records.
    pub(crate) fn compress(self, bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
        Ok(match self {
            Self::None => bytes.to_vec(),
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(bytes)?;
                encoder.finish()?
            }
            Self::Snappy => snap_xerial(bytes)?,
            Self::Lz4 => {
                let mut encoder =
                    lz4::EncoderBuilder::new().block_mode(lz4::BlockMode::Independent).build(Vec::new())?;
                encoder.write_all(bytes)?;
                let (compressed, result) = encoder.finish();
                result?;
                compressed
            }
            Self::Zstd => zstd::encode_all(bytes, 0)?,
        })
    }
}

fn read_all(reader: impl Read, limit: usize) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::new();
    reader.take(limit as u64 + 1).read_to_end(&mut out)?;
    if out.len() > limit { Err(CodecError::TooLarge(limit)) } else { Ok(out) }
}

fn unsnap(bytes: &[u8], limit: usize) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::new();
    if !bytes.starts_with(XERIAL_MAGIC) {
        unsnap_block(bytes, &mut out, limit)?;
        return Ok(out);
    }
    let mut rest = bytes.get(XERIAL.len()..).ok_or_else(|| CodecError::Broken("snappy header cut short".into()))?;
    while !rest.is_empty() {
        let block = rest
            .split_at_checked(4)
            .and_then(|(length, rest)| {
                let length = u32::from_be_bytes(length.try_into().ok()?);
                rest.split_at_checked(length as usize)
            })
            .ok_or_else(|| CodecError::Broken("snappy block cut short".into()))?;
        unsnap_block(block.0, &mut out, limit)?;
        rest = block.1;
    }
    Ok(out)
}

fn unsnap_block(block: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), CodecError> {
    let start = out.len();
    let length = snap::raw::decompress_len(block)?;
    // Snappy cannot expand more than about 21 times; a larger claim is a lie that would cost memory.
    if length > limit.saturating_sub(start) || length > block.len().saturating_mul(64) {
        return Err(CodecError::TooLarge(limit));
    }
    out.resize(start + length, 0);
    snap::raw::Decoder::new().decompress(block, &mut out[start..])?;
    Ok(())
}

fn snap_xerial(bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
    let mut out = XERIAL.to_vec();
    for block in bytes.chunks(XERIAL_BLOCK) {
        let compressed = snap::raw::Encoder::new().compress_vec(block)?;
        out.extend_from_slice(&(compressed.len() as u32).to_be_bytes());
        out.extend_from_slice(&compressed);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    #[test]
    fn every_codec_gives_back_what_went_in() {
        for codec in ALL {
            for size in [0, 1, 70_000, 1_000_000] {
                let bytes: Vec<u8> = (0..size).map(|at| (at / 7 % 251) as u8).collect();
                let compressed = codec.compress(&bytes).unwrap();
                assert_eq!(&*codec.decompress(&compressed, size.max(1)).unwrap(), &bytes[..], "{codec:?} {size}");
            }
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let zeroes = vec![0; 10_000_000];
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let bomb = codec.compress(&zeroes).unwrap();
            assert_eq!(codec.decompress(&bomb, 1_000_000).unwrap_err(), CodecError::TooLarge(1_000_000), "{codec:?}");
        }
        let lie = [0xff, 0xff, 0xff, 0xff, 0x0f, 0];
        assert!(matches!(Codec::Snappy.decompress(&lie, 1 << 40), Err(CodecError::TooLarge(_))));
    }

    #[test]
    fn noise_is_an_error() {
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            assert!(codec.decompress(&[7; 100], 1_000).is_err(), "{codec:?}");
        }
    }
}
