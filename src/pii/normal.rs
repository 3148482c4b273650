//! One spelling for one value: what is hashed into a token.
//!
//! `+1 (212) 555-0100` and `212-555-0100` are one telephone number, `Ann@Example.org ` and `ann@example.org`
//! one mailbox. The rules are part of the token's format: changing one changes the tokens of a kind.

use std::net::IpAddr;

use unicode_normalization::UnicodeNormalization;

use super::birth::BirthDate;
use super::checks;
use super::kinds::PiiType;

/// Appends the normal form of `value`, which is of `kind`, to `out`.
pub fn normalise(kind: PiiType, value: &str, out: &mut String) {
    let value = value.trim();
    match kind {
        PiiType::Email => lower(value, out),
        PiiType::Phone => phone(value, out),
        PiiType::Ip => match value.parse::<IpAddr>() {
            Ok(address) => out.push_str(&address.to_canonical().to_string()),
            Err(_) => lower(value, out),
        },
        PiiType::Mac => compact(value, char::to_ascii_lowercase, out),
        PiiType::Crypto
            if value.starts_with("0x")
                || value.starts_with("0X")
                || value.len() > 3 && value.get(..3).is_some_and(|head| head.eq_ignore_ascii_case("bc1")) =>
        {
            lower(value, out)
        }
        PiiType::Crypto | PiiType::Secret => out.extend(value.nfc()),
        PiiType::Person | PiiType::Address => words(value, out),
        PiiType::BirthDate => match BirthDate::parse(value) {
            Some(date) => out.push_str(&date.normal()),
            None => words(value, out),
        },
        PiiType::Geo => out.extend(value.chars().filter(|character| !character.is_whitespace())),
        PiiType::FiHetu => {
            out.extend(value.chars().filter(|character| !character.is_whitespace()).flat_map(char::to_uppercase))
        }
        _ => {
            let start = out.len();
            compact(value, char::to_ascii_uppercase, out);
            // A value that is no identifier at all (a declared column may hold anything) keeps its text.
            if out.len() == start {
                words(value, out);
            }
        }
    }
}

fn lower(value: &str, out: &mut String) {
    if value.is_ascii() {
        let start = out.len();
        out.push_str(value);
        out[start..].make_ascii_lowercase();
    } else {
        out.extend(value.nfc().flat_map(char::to_lowercase));
    }
}

/// Lower case, single spaces.
fn words(value: &str, out: &mut String) {
    for (at, word) in value.split_whitespace().enumerate() {
        if at > 0 {
            out.push(' ');
        }
        lower(word, out);
    }
}

fn compact(value: &str, case: fn(&char) -> char, out: &mut String) {
    out.extend(value.chars().filter(char::is_ascii_alphanumeric).map(|character| case(&character)));
}

/// Digits with the country code where it is known: `+`, `00`, or a North American number of ten digits.
fn phone(value: &str, out: &mut String) {
    let start = out.len();
    // `+44 (0)20 …`: the trunk zero is not dialled after a country code.
    let value = value.strip_prefix("tel:").unwrap_or(value);
    let (international, rest) = match value.strip_prefix('+') {
        Some(rest) => (true, rest.replacen("(0)", "", 1)),
        None => (false, value.to_owned()),
    };
    out.extend(rest.chars().filter(char::is_ascii_digit));
    let digits = &out.as_bytes()[start..];
    if digits.is_empty() {
        return words(value, out);
    }
    if international {
        return;
    }
    if digits.starts_with(b"00") && digits.len() > 9 {
        out.replace_range(start..start + 2, "");
    } else if checks::nanp(digits) {
        out.insert(start, '1');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(kind: PiiType, value: &str) -> String {
        let mut out = String::new();
        normalise(kind, value, &mut out);
        out
    }

    #[test]
    fn spellings_of_one_value_become_one() {
        for (kind, spellings) in [
            (PiiType::Email, &["Ann@Example.org", " ann@example.ORG "][..]),
            (
                PiiType::Phone,
                &["+1 (212) 555-0100", "212-555-0100", "1 212 555 0100", "001 212 555 0100", "tel:+12125550100"],
            ),
            (PiiType::Phone, &["+44 (0)20 7946 0958", "+442079460958", "00442079460958"]),
            (PiiType::Card, &["4111 1111 1111 1111", "4111-1111-1111-1111", "4111111111111111"]),
            (PiiType::Iban, &["gb82 west 1234 5698 7654 32", "GB82WEST12345698765432"]),
            (PiiType::Mac, &["00:1A:2b:3c:4d:5e", "001a.2b3c.4d5e", "00-1A-2B-3C-4D-5E"]),
            (PiiType::Ip, &["2001:db8::1", "2001:0DB8:0:0:0:0:0:1"]),
            (PiiType::Person, &["Zoe\u{301}  Müller", "ZOÉ MÜLLER"]),
            (
                PiiType::BirthDate,
                &["1973-03-28", "28.03.1973", "28/03/1973", "28 March 1973", "March 28, 1973", "19730328"],
            ),
            (PiiType::EsNif, &["12.345.678-z", "12345678Z"]),
        ] {
            let all: Vec<String> = spellings.iter().map(|spelling| normal(kind, spelling)).collect();
            assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{kind}: {all:?}");
        }
    }

    #[test]
    fn distinct_values_stay_distinct() {
        assert_ne!(normal(PiiType::FiHetu, "131052-308T"), normal(PiiType::FiHetu, "131052A308T"));
        assert_ne!(normal(PiiType::BirthDate, "03/04/1973"), normal(PiiType::BirthDate, "04/03/1973"));
        assert_ne!(normal(PiiType::Secret, "aB"), normal(PiiType::Secret, "Ab"));
        assert_ne!(normal(PiiType::UsSsn, "unbekannt"), normal(PiiType::UsSsn, "?"));
    }
}
