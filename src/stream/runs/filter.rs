//! Binary fuse filters (Graf and Lemire, "Binary Fuse Filters: Fast and Smaller Than Xor Filters", 2022) and their bytes.

use xorf::{BinaryFuse16, Filter as _};

/// Stands in front of records and says which heads of keys are certainly not among them: one in 65,536 others passes.
#[derive(Debug)]
pub(super) struct Filter {
    /// None lets everything pass: a filter that could not be built.
    fuse: Option<BinaryFuse16>,
}

impl Filter {
    /// A filter of distinct heads.
    pub fn new(heads: &[u64]) -> Self {
        Self { fuse: BinaryFuse16::try_from(heads).ok() }
    }

    /// False when the head is certainly not there.
    pub fn passes(&self, head: u64) -> bool {
        self.fuse.as_ref().is_none_or(|fuse| fuse.contains(&head))
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> u64 {
        self.fuse.as_ref().map_or(0, |fuse| 2 * fuse.fingerprints.len() as u64)
    }

    /// Appends the filter: number of fingerprints (u32, 0 for none), descriptor, fingerprints; integers big-endian.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Some(fuse) = &self.fuse else { return out.extend_from_slice(&0_u32.to_be_bytes()) };
        let fingerprints = u32::try_from(fuse.fingerprints.len()).unwrap_or(0);
        out.extend_from_slice(&fingerprints.to_be_bytes());
        out.extend_from_slice(&fuse.descriptor.seed.to_be_bytes());
        out.extend_from_slice(&fuse.descriptor.segment_length.to_be_bytes());
        out.extend_from_slice(&fuse.descriptor.segment_count_length.to_be_bytes());
        out.extend(fuse.fingerprints.iter().flat_map(|f| f.to_be_bytes()));
    }

    /// Takes a filter off the front of `bytes`. Every look-up in what this returns stays within the fingerprints.
    pub fn decode(bytes: &mut &[u8]) -> Result<Self, &'static str> {
        let count = u32::from_be_bytes(take(bytes)?) as usize;
        if count == 0 {
            return Ok(Self { fuse: None });
        }
        let seed = u64::from_be_bytes(take(bytes)?);
        let segment_length = u32::from_be_bytes(take(bytes)?);
        let segment_count_length = u32::from_be_bytes(take(bytes)?);
        // Three segments from anywhere in the first `segment_count_length` must lie within the fingerprints.
        let needed = u64::from(segment_count_length) + 2 * u64::from(segment_length);
        let fits = segment_length.is_power_of_two()
            && segment_count_length > 0
            && segment_count_length.is_multiple_of(segment_length)
            && needed == count as u64;
        let length = count.checked_mul(2).filter(|length| fits && *length <= bytes.len()).ok_or("no filter")?;
        let (fingerprints, rest) = bytes.split_at(length);
        *bytes = rest;
        // The crate does not name the descriptor's type: a filter of one key is filled anew.
        let mut fuse = BinaryFuse16::try_from([0].as_slice())?;
        fuse.descriptor.seed = seed;
        fuse.descriptor.segment_length = segment_length;
        fuse.descriptor.segment_length_mask = segment_length - 1;
        fuse.descriptor.segment_count_length = segment_count_length;
        fuse.fingerprints = fingerprints.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
        Ok(Self { fuse: Some(fuse) })
    }
}

/// Takes an array off the front of `bytes`.
pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], &'static str> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or("cut short")?;
    *bytes = rest;
    Ok(*head)
}
