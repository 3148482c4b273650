//! What has been found in one cell so far.
//!
//! Detectors ask at every turn whether bytes are taken and whether a mailbox stands beside a place. A bit per byte
//! answers in constant time, so that a long cell full of findings costs no more per byte than a short one.

use super::kinds::PiiType;

/// A piece of personal data in a cell: a range of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// First byte.
    pub start: usize,
    /// Byte after the last.
    pub end: usize,
    /// What it is.
    pub kind: PiiType,
}

/// One bit for each byte of a cell.
#[derive(Default)]
struct Marks(Vec<u64>);

impl Marks {
    fn reset(&mut self, bytes: usize) {
        self.0.clear();
        self.0.resize(bytes / 64 + 1, 0);
    }

    /// The words that hold the bits of a range, each with the mask of those bits.
    fn words(start: usize, end: usize) -> impl Iterator<Item = (usize, u64)> {
        let last = end.saturating_sub(1) / 64;
        (start / 64..=last).filter(move |_| start < end).map(move |word| {
            let from = if word == start / 64 { u64::MAX << (start % 64) } else { u64::MAX };
            let to = if word == last { u64::MAX >> (63 - (end - 1) % 64) } else { u64::MAX };
            (word, from & to)
        })
    }

    fn set(&mut self, start: usize, end: usize) {
        for (word, mask) in Self::words(start, end) {
            if let Some(bits) = self.0.get_mut(word) {
                *bits |= mask;
            }
        }
    }

    fn any(&self, start: usize, end: usize) -> bool {
        Self::words(start, end).any(|(word, mask)| self.0.get(word).is_some_and(|bits| bits & mask != 0))
    }
}

/// Findings without overlap.
#[derive(Default)]
pub(super) struct Findings {
    list: Vec<Found>,
    taken: Marks,
    /// First bytes of mailboxes and telephone numbers.
    contact_starts: Marks,
    /// First bytes of postal addresses.
    address_starts: Marks,
    /// Bytes after the last of mailboxes.
    mail_ends: Marks,
}

impl Findings {
    /// Forgets everything, for a cell of `bytes`.
    pub(super) fn reset(&mut self, bytes: usize) {
        self.list.clear();
        self.taken.reset(bytes);
        self.contact_starts.reset(bytes);
        self.address_starts.reset(bytes);
        self.mail_ends.reset(bytes);
    }

    /// Adds a finding unless an earlier one has taken some of its bytes.
    pub(super) fn add(&mut self, start: usize, end: usize, kind: PiiType) {
        if start >= end || self.is_taken(start, end) {
            return;
        }
        self.taken.set(start, end);
        if matches!(kind, PiiType::Email | PiiType::Phone) {
            self.contact_starts.set(start, start + 1);
        }
        if kind == PiiType::Address {
            self.address_starts.set(start, start + 1);
        }
        if kind == PiiType::Email {
            self.mail_ends.set(end, end + 1);
        }
        self.list.push(Found { start, end, kind });
    }

    /// Whether any of these bytes is part of a finding.
    pub(super) fn is_taken(&self, start: usize, end: usize) -> bool {
        self.taken.any(start, end)
    }

    /// Whether a mailbox or a telephone number starts one to three bytes after `end`: `Ann Lee (ann@…`.
    pub(super) fn contact_after(&self, end: usize) -> bool {
        self.contact_starts.any(end + 1, end + 4)
    }

    /// Whether a postal address starts one to three bytes after `end`: `Ann Lee, 12 Elm Street`.
    pub(super) fn address_after(&self, end: usize) -> bool {
        self.address_starts.any(end + 1, end + 4)
    }

    /// Whether a mailbox ends one to three bytes before `start`.
    pub(super) fn mail_before(&self, start: usize) -> bool {
        self.mail_ends.any(start.saturating_sub(3), start)
    }

    /// The findings in their order in the cell.
    pub(super) fn sorted(&mut self) -> &[Found] {
        self.list.sort_unstable_by_key(|found| found.start);
        &self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_within_and_across_words_are_taken_exactly() {
        for (start, end) in [(0, 1), (5, 64), (63, 65), (64, 128), (10, 200)] {
            let mut findings = Findings::default();
            findings.reset(256);
            findings.add(start, end, PiiType::Email);
            let taken: Vec<usize> = (0..256).filter(|at| findings.is_taken(*at, at + 1)).collect();
            assert_eq!(taken, (start..end).collect::<Vec<_>>());
            assert!(
                findings.mail_before(end + 1)
                    && findings.mail_before(end + 3)
                    && !findings.mail_before(end)
                    && !findings.mail_before(end + 4)
            );
            findings.add(start, end + 1, PiiType::Phone);
            assert_eq!(findings.sorted().len(), 1);
        }
    }

    #[test]
    fn a_name_sees_the_contact_right_after_it() {
        let mut findings = Findings::default();
        findings.reset(100);
        findings.add(70, 80, PiiType::Phone);
        let near: Vec<usize> = (0..100).filter(|end| findings.contact_after(*end)).collect();
        assert_eq!(near, [67, 68, 69]);
    }
}
