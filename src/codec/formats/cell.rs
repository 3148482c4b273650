//! Single values: texts → typed values, and the shape of a value that does not fit.

use std::borrow::Cow;

use ::arrow::datatypes::DataType;

/// Whole numbers up to this one are exact in a float.
const EXACT: f64 = 9_007_199_254_740_992.0;
const MICROS_PER_DAY: i64 = 86_400_000_000;

/// A value as JSON has it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float(f64),
    Text(&'a str),
    Array,
    Object,
}

impl Cell<'_> {
    /// The value as a text that tells it from others of its column; of what is nested, only that it is.
    pub(super) fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Null => "null".into(),
            Self::Bool(value) => value.to_string().into(),
            Self::Int(value) => value.to_string().into(),
            Self::UInt(value) => value.to_string().into(),
            Self::Float(value) => value.to_string().into(),
            Self::Text(text) => (*text).into(),
            Self::Array => "[]".into(),
            Self::Object => "{}".into(),
        }
    }

    pub(super) fn shape(self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(_) => "boolean".to_owned(),
            Self::Int(value) => integer_shape(value.unsigned_abs()),
            Self::UInt(value) => integer_shape(value),
            Self::Float(value) => float_shape(value).to_owned(),
            Self::Text(text) => text_shape(text),
            Self::Array => "array".to_owned(),
            Self::Object => "object".to_owned(),
        }
    }
}

/// What a column of a target type expects.
pub(super) fn expected(target: &DataType) -> &'static str {
    match target {
        DataType::Boolean => "boolean",
        DataType::Int64 => "integer of 64 bits",
        DataType::Float64 => "finite number",
        DataType::Utf8 => "string",
        DataType::Date32 => "date as YYYY-MM-DD",
        DataType::Timestamp(..) => "timestamp in ISO 8601",
        _ => "a contract's type",
    }
}

pub(super) fn integer_shape(magnitude: u64) -> String {
    match magnitude.checked_ilog10().map_or(1, |log| log + 1) {
        1 => "integer, 1 digit".to_owned(),
        digits => format!("integer, {digits} digits"),
    }
}

pub(super) fn float_shape(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value.is_infinite() {
        "infinite"
    } else if value.fract() == 0.0 {
        "number without a fraction"
    } else {
        "number with a fraction"
    }
}

/// Shape of a text: how many characters, of which kinds.
#[must_use]
pub fn text_shape(text: &str) -> String {
    let (mut digits, mut letters, mut others) = (0_usize, 0_usize, 0_usize);
    for c in text.chars() {
        match c {
            '0'..='9' => digits += 1,
            c if c.is_alphabetic() => letters += 1,
            _ => others += 1,
        }
    }
    match (digits, letters, others) {
        (0, 0, 0) => "empty string".to_owned(),
        (n, 0, 0) => format!("string, {n} digits"),
        (0, n, 0) => format!("string, {n} letters"),
        _ => format!(
            "string, {} characters: {digits} digits, {letters} letters, {others} others",
            digits + letters + others
        ),
    }
}

/// A whole number as integer, when it is exact.
pub(super) fn whole(value: f64) -> Option<i64> {
    #[allow(clippy::cast_possible_truncation)] // within ±2^53 and without a fraction
    (value.fract() == 0.0 && value.abs() <= EXACT).then_some(value as i64)
}

pub(super) fn integer(text: &str) -> Option<i64> {
    let text = text.trim_ascii();
    text.parse().ok().or_else(|| float(text).and_then(whole))
}

pub(super) fn float(text: &str) -> Option<f64> {
    text.trim_ascii().parse().ok().filter(|value: &f64| value.is_finite())
}

pub(super) fn boolean(text: &str) -> Option<bool> {
    let text = text.trim_ascii();
    match text {
        "1" => Some(true),
        "0" => Some(false),
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// Days since 1970-01-01 of `YYYY-MM-DD`, or of a timestamp at midnight UTC.
pub(super) fn date(text: &str) -> Option<i32> {
    let text = text.trim_ascii();
    if text.len() == 10 {
        return i32::try_from(day(text.as_bytes())?).ok();
    }
    midnight(timestamp(text)?)
}

/// The day that begins at an instant, when one does.
pub(super) fn midnight(micros: i64) -> Option<i32> {
    (micros.rem_euclid(MICROS_PER_DAY) == 0).then(|| i32::try_from(micros.div_euclid(MICROS_PER_DAY)).ok()).flatten()
}

/// Microseconds since 1970-01-01 UTC of an ISO 8601 date or date-time; without a zone it counts as UTC. Digits behind
/// the microsecond are cut off.
pub(super) fn timestamp(text: &str) -> Option<i64> {
    let bytes = text.trim_ascii().as_bytes();
    let (date, rest) = bytes.split_at_checked(10)?;
    let days = day(date)?;
    let Some((separator, rest)) = rest.split_first() else {
        return days.checked_mul(MICROS_PER_DAY);
    };
    if !matches!(separator, b'T' | b't' | b' ') {
        return None;
    }
    let (hours, rest) = (number(rest.get(..2)?)?, rest.get(2..)?);
    let rest = rest.strip_prefix(b":")?;
    let (minutes, rest) = (number(rest.get(..2)?)?, rest.get(2..)?);
    let (seconds, rest) = match rest.strip_prefix(b":") {
        Some(rest) => (number(rest.get(..2)?)?, rest.get(2..)?),
        None => (0, rest),
    };
    let (micros, rest) = match rest.strip_prefix(b".").or_else(|| rest.strip_prefix(b",")) {
        Some(rest) => fraction(rest)?,
        None => (0, rest),
    };
    if hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    let seconds = hours * 3600 + minutes * 60 + seconds - zone(rest)? * 60;
    Some(days * MICROS_PER_DAY + seconds * 1_000_000 + micros)
}

/// Offset of a time zone in minutes.
fn zone(bytes: &[u8]) -> Option<i64> {
    let (sign, rest) = match bytes {
        [] | b"Z" | b"z" => return Some(0),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = match rest {
        [_, _] => (number(rest)?, 0),
        [hours @ .., b':', a, b] => (number(hours)?, number(&[*a, *b])?),
        [a, b, c, d] => (number(&[*a, *b])?, number(&[*c, *d])?),
        _ => return None,
    };
    (hours <= 18 && minutes <= 59).then_some(sign * (hours * 60 + minutes))
}

/// Two digits.
fn number(bytes: &[u8]) -> Option<i64> {
    match bytes {
        [a @ b'0'..=b'9', b @ b'0'..=b'9'] => Some(i64::from(a - b'0') * 10 + i64::from(b - b'0')),
        _ => None,
    }
}

/// One to nine digits of a second, as microseconds.
fn fraction(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    if !(1..=9).contains(&digits) {
        return None;
    }
    let digit = |i: usize| if i < digits { i64::from(bytes[i] - b'0') } else { 0 };
    Some(((0..6).fold(0, |micros, i| micros * 10 + digit(i)), &bytes[digits..]))
}

/// Days since 1970-01-01 of `YYYY-MM-DD` (Hinnant, days_from_civil).
fn day(bytes: &[u8]) -> Option<i64> {
    let [a, b, c, d, b'-', m1, m2, b'-', d1, d2] = bytes else { return None };
    let year = number(&[*a, *b])? * 100 + number(&[*c, *d])?;
    let (month, day) = (number(&[*m1, *m2])?, number(&[*d1, *d2])?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if !(1..=length).contains(&day) || year == 0 {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn instants_are_utc_with_and_without_a_zone() {
        for (text, micros) in [
            ("1970-01-01", 0),
            ("1970-01-01T00:00", 0),
            ("1970-01-02 00:00:00", MICROS_PER_DAY),
            ("1970-01-01T01:00:00+01:00", 0),
            ("1970-01-01T00:00:00.000001Z", 1),
            ("1970-01-01T00:00:00.1234569", 123_456),
            ("1969-12-31T23:59:59.5-00:00", -500_000),
            ("1970-01-01T05:30:00+0530", 0),
            ("1970-01-01T05:00:00+05", 0),
            ("2024-02-29T12:00:00Z", 1_709_208_000_000_000),
            ("0001-01-01", -62_135_596_800_000_000),
            ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
        ] {
            assert_eq!(timestamp(text), Some(micros), "{text}");
        }
        for text in [
            "",
            "1970",
            "1970-13-01",
            "1970-02-29",
            "1970-01-01T24:00",
            "1970-01-01T00:60",
            "1970-01-01T00:00:60",
            "1970-01-01X00:00",
            "1970-01-01T00:00:00.",
            "1970-01-01T00:00:00+1",
            "1970-01-01T00:00Zjunk",
            "1900-02-29",
            "0000-01-01",
            "1970-01-01T0:00",
            "１970-01-01",
            "1970-01-01T00:00:00+25:00",
        ] {
            assert_eq!(timestamp(text), None, "{text}");
        }
    }

    #[test]
    fn a_date_is_a_day_and_nothing_finer() {
        assert_eq!(date(" 1970-01-11 "), Some(10));
        assert_eq!(date("1970-01-11T00:00:00Z"), Some(10));
        assert_eq!(date("1970-01-11T00:00:01Z"), None);
        assert_eq!(date("11.01.1970"), None);
    }

    #[test]
    fn whole_numbers_may_be_written_as_floats_but_never_lose_a_digit() {
        assert_eq!(integer(" 42 "), Some(42));
        assert_eq!(integer("42.0"), Some(42));
        assert_eq!(integer("42.5"), None);
        assert_eq!(integer("9223372036854775807"), Some(i64::MAX));
        assert_eq!(integer("9223372036854775808"), None);
        assert_eq!(integer("-0.0"), Some(0));
        for text in ["", "x", "nan", "inf", "1e999", "0x10", "1_000"] {
            assert_eq!(integer(text), None, "{text}");
            assert_eq!(float(text), None, "{text}");
        }
        assert_eq!(boolean("TRUE"), Some(true));
        assert_eq!(boolean("yes"), None);
    }

    proptest! {
        #[test]
        fn every_day_survives_its_own_text(days in -700_000_i64..2_900_000) {
            let date = chrono::DateTime::from_timestamp(days * 86_400, 0).unwrap();
            prop_assert_eq!(day(date.format("%Y-%m-%d").to_string().as_bytes()), Some(days));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}") {
            let _ = (timestamp(&text), date(&text), integer(&text), float(&text), boolean(&text), text_shape(&text));
        }
    }
}
