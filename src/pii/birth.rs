//! Dates of birth.

use super::checks::{is_date, number};
use super::column::ColumnHints;
use super::found::Findings;
use super::kinds::PiiType;
use super::scan::Text;
use super::words::{Roles, Vocabulary};

/// A calendar date, as far as its writing tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BirthDate {
    year: u32,
    month: u32,
    day: u32,
    /// `03/04/1973`: nobody knows which is the month.
    ambiguous: bool,
}

impl BirthDate {
    /// Reads a date that may be a birth date, perhaps with a time of day after it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = [""; 3];
        let mut count = 0;
        let end = text
            .find(['T'])
            .filter(|at| text[..*at].len() >= 8 && text.as_bytes()[at - 1].is_ascii_digit())
            .unwrap_or(text.len());
        let pieces =
            text[..end].split(|character: char| !character.is_alphanumeric()).filter(|piece| !piece.is_empty());
        for piece in pieces.filter(|piece| !matches!(*piece, "of" | "de" | "the" | "del")) {
            match parts.get_mut(count) {
                Some(part) => *part = piece,
                // Only a time of day may follow.
                None if count < 7 && piece.bytes().all(|byte| byte.is_ascii_digit()) => {}
                None => return None,
            }
            count += 1;
        }
        let dotted = text.contains('.');
        match count {
            1 if parts[0].len() == 8 => {
                let digits = digits(parts[0])?;
                Self::new(digits / 10_000, digits / 100 % 100, digits % 100)
            }
            3.. => Self::of_parts(parts, dotted),
            _ => None,
        }
    }

    fn of_parts(parts: [&str; 3], dotted: bool) -> Option<Self> {
        let month = |part: &str| {
            Some(Vocabulary::get().look_up(part).roles).filter(|roles| roles.is(Roles::MONTH)).map(Roles::month)
        };
        let ordinal = |part: &str| digits(part.trim_end_matches(|character: char| character.is_ascii_alphabetic()));
        if let Some(name) = month(parts[1]) {
            return Self::new(digits(parts[2]).filter(|_| parts[2].len() == 4)?, name, ordinal(parts[0])?);
        }
        if let Some(name) = month(parts[0]) {
            return Self::new(digits(parts[2]).filter(|_| parts[2].len() == 4)?, name, ordinal(parts[1])?);
        }
        let [first, second, third] = [digits(parts[0])?, digits(parts[1])?, digits(parts[2])?];
        if parts[0].len() == 4 {
            return Self::new(first, second, third);
        }
        if !matches!(parts[2].len(), 2 | 4) || parts[0].len() > 2 || parts[1].len() > 2 {
            return None;
        }
        let ambiguous = !dotted && first <= 12 && second <= 12 && first != second;
        if dotted || second <= 12 {
            return Self::new(third, second, first).map(|date| Self { ambiguous, ..date });
        }
        Self::new(third, first, second)
    }

    fn new(year: u32, month: u32, day: u32) -> Option<Self> {
        let living = (1880..2100).contains(&year) || year < 100;
        (living && is_date(if year < 100 { 2000 } else { year }, month, day)).then_some(Self {
            year,
            month,
            day,
            ambiguous: false,
        })
    }

    /// ISO 8601, or `a/b/year` in the order of writing where day and month cannot be told apart.
    pub(super) fn normal(&self) -> String {
        let Self { year, month, day, .. } = self;
        if self.ambiguous { format!("{day:02}/{month:02}/{year:02}") } else { format!("{year:02}-{month:02}-{day:02}") }
    }

    /// The year, if it was written with four digits.
    pub(super) fn year(&self) -> Option<u32> {
        Some(self.year).filter(|year| *year >= 100)
    }
}

fn digits(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.len() <= 8 && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| number(text.as_bytes()))
}

/// Dates after a word such as `born`, or in a column of birth dates.
pub(super) fn birth_dates(text: &Text<'_>, column: &ColumnHints, found: &mut Findings) {
    for (at, token) in text.tokens.iter().enumerate() {
        if !token.number() && !token.word.roles.is(Roles::MONTH) {
            continue;
        }
        let announced = column.kinds.has(PiiType::BirthDate) || text.context(at, at + 2).kinds.has(PiiType::BirthDate);
        if !announced || text.glued_left(token.start) {
            continue;
        }
        for end in [at + 3, at + 2, at] {
            let Some(stop) = text.tokens.get(end).map(|last| last.end) else { continue };
            let close = (at..end).all(|gap| text.gap(gap).len() <= 2);
            if close && !text.glued_right(stop) && BirthDate::parse(&text.raw[token.start..stop]).is_some() {
                found.add(token.start, stop, PiiType::BirthDate);
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pii::scan::tests::scan;

    #[test]
    fn only_dates_of_birth_are_personal() {
        assert_eq!(scan("note", "born on 28/03/1973 in Ulm"), [(PiiType::BirthDate, "28/03/1973".to_owned())]);
        assert_eq!(scan("note", "born March 28, 1973"), [(PiiType::BirthDate, "March 28, 1973".to_owned())]);
        assert_eq!(scan("dob", "1973-03-28"), [(PiiType::BirthDate, "1973-03-28".to_owned())]);
        assert_eq!(scan("note", "shipped on 28/03/1973"), []);
        assert_eq!(scan("order_date", "1973-03-28"), []);
        assert!(BirthDate::parse("31.02.1973").is_none());
    }
}
