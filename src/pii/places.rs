//! Places: postal addresses and coordinates.

use super::column::ColumnHints;
use super::found::Findings;
use super::kinds::PiiType;
use super::scan::{Text, Token};
use super::words::Roles;

/// An angle in degrees at the start of `text`, with minutes and seconds or a fraction, and the letter of its
/// hemisphere: `48°51'24.0"N`, `2.3522° E`. Returns its length in bytes, whether it is a latitude, and its size.
fn angle(text: &str) -> Option<(usize, bool, f64)> {
    let number = |rest: &str| {
        let length = rest.bytes().take(12).position(|byte| !byte.is_ascii_digit() && byte != b'.').unwrap_or(0);
        rest[..length].parse::<f64>().ok().map(|value| (length, value))
    };
    let (mut at, degrees) = number(text)?;
    let sign = |rest: &str, signs: &[&str]| signs.iter().find(|sign| rest.starts_with(**sign)).map(|sign| sign.len());
    let blank = |at: usize| text[at..].len() - text[at..].trim_start_matches(' ').len();
    at += sign(&text[at..], &["°", " °", "º"])?;
    for signs in [&["'", "′", "’"][..], &["\"", "″", "”", "''", "’’"]] {
        let from = at + blank(at);
        if let Some((length, _)) = number(&text[from..]).filter(|(_, value)| *value < 60.0)
            && let Some(mark) = sign(&text[from + length..], signs)
        {
            at = from + length + mark;
        }
    }
    at += blank(at);
    let letter = *text.as_bytes().get(at)?;
    let ends = text.as_bytes().get(at + 1).is_none_or(|next| !next.is_ascii_alphanumeric());
    let (latitude, most) = match letter {
        b'N' | b'S' => (true, 90.0),
        b'E' | b'W' | b'O' => (false, 180.0),
        _ => return None,
    };
    (ends && degrees <= most).then_some((at + 1, latitude, degrees))
}

/// Pairs of angles with their hemispheres.
fn hemispheres(text: &Text<'_>, found: &mut Findings) {
    let mut after = 0;
    for token in text.tokens.iter().filter(|token| token.number() && token.len() <= 3) {
        if token.start < after {
            continue;
        }
        let Some((length, true, _)) = angle(&text.raw[token.start..]) else { continue };
        let second = token.start + length;
        let gap = text.raw[second..].len() - text.raw[second..].trim_start_matches([' ', ',', ';', '/']).len();
        if let Some((length, false, _)) = angle(&text.raw[second + gap..]).filter(|_| gap <= 4) {
            after = second + gap + length;
            found.add(token.start, after, PiiType::Geo);
        }
    }
}

/// Pairs of degrees.
pub(super) fn coordinates(text: &Text<'_>, column: &ColumnHints, found: &mut Findings) {
    if text.raw.contains(['°', 'º']) {
        hemispheres(text, found);
    }
    named_coordinates(text, found);
    for at in 0..text.tokens.len().saturating_sub(3) {
        let pair = &text.tokens[at..at + 4];
        let plain = pair.iter().all(Token::number) && pair[0].len() <= 2 && pair[2].len() <= 3;
        if !plain || text.gap(at) != "." || text.gap(at + 2) != "." {
            continue;
        }
        let between = text.gap(at + 1);
        let comma = matches!(between.trim_end_matches(['-', '+']).trim(), "," | ";");
        let announced = || column.kinds.has(PiiType::Geo) || text.context(at, at + 3).kinds.has(PiiType::Geo);
        let decimals = pair[1].len().min(pair[3].len());
        let in_range = text.raw[pair[0].start..pair[1].end].parse::<f64>().is_ok_and(|value| value <= 90.0)
            && text.raw[pair[2].start..pair[3].end].parse::<f64>().is_ok_and(|value| value <= 180.0);
        if !in_range || between.len() > 4 || !(comma && decimals >= 4 || decimals >= 2 && announced()) {
            continue;
        }
        let signed = matches!(&text.bytes[..pair[0].start], [.., b'-' | b'+']);
        let start = pair[0].start - usize::from(signed);
        if !text.glued_left(start) && !text.glued_right(pair[3].end) {
            found.add(start, pair[3].end, PiiType::Geo);
        }
    }
}

/// `lat=48.8566, lon=2.3522`: each degree with its own word.
fn named_coordinates(text: &Text<'_>, found: &mut Findings) {
    if !text.announces(PiiType::Geo) {
        return;
    }
    let named = |at: usize| text.tokens[at].word.kinds.has(PiiType::Geo);
    let degrees = |at: usize| {
        let pair = text.tokens.get(at..at + 2)?;
        let shape = pair.iter().all(Token::number) && pair[0].len() <= 3 && pair[1].len() >= 3 && text.gap(at) == ".";
        shape.then_some((pair[0].start, pair[1].end))
    };
    for at in 0..text.tokens.len().saturating_sub(5) {
        if named(at)
            && named(at + 3)
            && let (Some((start, _)), Some((_, end))) = (degrees(at + 1), degrees(at + 4))
            && [at, at + 2, at + 3].iter().all(|gap| text.gap(*gap).len() <= 4)
        {
            found.add(start, end, PiiType::Geo);
        }
    }
}

/// Whether the cell of a column of addresses is one: letters, and a number or several words.
pub(super) fn looks_like_address(value: &str) -> bool {
    let letters = value.chars().any(char::is_alphabetic);
    let digit = value.bytes().any(|byte| byte.is_ascii_digit());
    let machine = value.starts_with("0x") || value.contains("://") || !value.contains(' ') && value.len() > 24;
    letters && !machine && (digit && value.contains(' ') || value.split_whitespace().count() >= 2)
}

/// Street addresses: a number, a name and a word for street, in the orders of several languages.
pub(super) fn street_addresses(text: &Text<'_>, found: &mut Findings) {
    let mut at = 0;
    while at < text.tokens.len() {
        let token = &text.tokens[at];
        let announced =
            || text.announces(PiiType::Address) && (token.digit || token.capital) && address_comes(text, at);
        let span = known_street(text, at).or_else(|| if announced() { announced_address(text, at) } else { None });
        if let Some((first, last)) = span {
            if first > 0 && numbered_thing(&text.tokens[first - 1]) {
                at += 1;
                continue;
            }
            let first = unit_before(text, first);
            let last = rest_of_address(text, last);
            found.add(text.tokens[first].start, text.tokens[last].end, PiiType::Address);
            at = last;
        }
        at += 1;
    }
}

/// A street that its own words tell.
fn known_street(text: &Text<'_>, at: usize) -> Option<(usize, usize)> {
    let token = &text.tokens[at];
    if token.capital && text.raw[token.start..].starts_with("C/") {
        street_before_name(text, at)
    } else if token.digit || token.len() < 2 {
        None
    } else if token.word.roles.is(Roles::STREET) && token.capital {
        street_after_name(text, at).or_else(|| street_before_name(text, at))
    } else if token.word.roles.is(Roles::STREET_BEFORE) {
        street_before_name(text, at)
    } else if token.capital {
        compound_street(text, at).or_else(|| box_number(text, at))
    } else {
        None
    }
}

/// `Chapter 11`, `Order 12`: the number is not a house's.
fn numbered_thing(token: &Token) -> bool {
    token.word.roles.is(Roles::VERSION) || token.word.roles.is(Roles::OTHER_ID)
}

/// `5th`: names a street, is no house.
fn ordinal(text: &Text<'_>, token: &Token) -> bool {
    let word = &text.bytes[token.start..token.end];
    token.digit && token.letter && [b"st", b"nd", b"rd", b"th"].iter().any(|ending| word.ends_with(*ending))
}

/// `P.O. Box 12`, `Postfach 12`.
fn box_number(text: &Text<'_>, at: usize) -> Option<(usize, usize)> {
    let token = &text.tokens[at];
    let word = |at: usize| text.tokens.get(at).map_or("", |token| &text.raw[token.start..token.end]);
    let alone = ["postfach", "postbus", "apartado", "casilla"];
    let first = if alone.iter().any(|name| word(at).eq_ignore_ascii_case(name)) {
        at
    } else if word(at).eq_ignore_ascii_case("box") && at > 0 && word(at - 1).eq_ignore_ascii_case("po") {
        at - 1
    } else if word(at).eq_ignore_ascii_case("box") && at > 1 && word(at - 1) == "O" && word(at - 2) == "P" {
        at - 2
    } else {
        return None;
    };
    let number = text.tokens.get(at + 1).is_some_and(|next| next.number() && next.len() <= 6);
    (token.capital && number && text.gap(at) == " ").then_some((first, at + 1))
}

/// What stands after `lives at` or `address:`: a number and a name, or a name and a number.
fn announced_address(text: &Text<'_>, at: usize) -> Option<(usize, usize)> {
    let token = &text.tokens[at];
    let close = |at: usize| matches!(text.gap(at), " " | ", " | "-" | ". " | "'" | "’");
    if house_number(token) && token.len() <= 5 && !ordinal(text, token) {
        let next = text.tokens.get(at + 1)?;
        let named = next.capital && !next.number() && next.len() > 1 && !next.word.roles.is(Roles::MONTH);
        let long = text.tokens.get(at + 2).is_some_and(|next| next.capital || next.number() && next.len() >= 4);
        return (named && long && close(at) && close(at + 1) && text.gap(at) == " ").then_some((at, at + 1));
    }
    if !token.capital || token.word.roles.is(Roles::MONTH) {
        return None;
    }
    let mut last = at;
    while last < at + 4 {
        let next = text.tokens.get(last + 1).filter(|_| close(last) && text.gap(last) != ", ")?;
        if house_number(next) && next.len() <= 4 {
            return Some((at, last + 1));
        }
        if next.word.roles.is(Roles::MONTH) || !next.capital && !next.word.roles.is(Roles::PARTICLE) {
            return None;
        }
        last += 1;
    }
    None
}

/// Whether the words before token `at` say that a postal address comes: `lives at`, `Anschrift lautet`.
fn address_comes(text: &Text<'_>, at: usize) -> bool {
    let mut left = at;
    while left > 0 && at - left < 4 {
        left -= 1;
        let token = &text.tokens[left];
        let gap = text.gap(left);
        if !gap.bytes().all(|byte| matches!(byte, b' ' | b':' | b'=' | b'"')) || token.digit {
            return false;
        }
        if token.word.kinds.has(PiiType::Address) {
            return true;
        }
        if token.len() > 2 && !token.word.roles.is(Roles::COMMON) && !token.word.roles.is(Roles::PARTICLE) {
            return &text.raw[token.start..token.end] == "lautet";
        }
    }
    false
}

fn house_number(token: &Token) -> bool {
    token.digit && token.len() <= 6
}

/// `6359 Stephen Extensions`: back from the word for street over capitalised words to a number.
fn street_after_name(text: &Text<'_>, street: usize) -> Option<(usize, usize)> {
    let mut at = street;
    for step in 0..5 {
        let before = at.checked_sub(1)?;
        let token = &text.tokens[before];
        let gap = text.gap(before);
        if step > 0 && house_number(token) && !ordinal(text, token) && matches!(gap, " " | ", ") {
            return Some((before, street));
        }
        let named = token.capital && !token.number() || ordinal(text, token) || token.word.roles.is(Roles::PARTICLE);
        if !named || !matches!(gap, " " | "-" | "'" | "’" | ". ") {
            return None;
        }
        at = before;
    }
    None
}

/// `47, rue de Pereira` and `Calle Mayor 3`: forward from the word for street.
fn street_before_name(text: &Text<'_>, street: usize) -> Option<(usize, usize)> {
    let (mut last, mut named) = (street, 0);
    while let Some(next) = text.tokens.get(last + 1) {
        let joined = matches!(text.gap(last), " " | "-" | "'" | "’" | ". " | " d'" | "/" | "/ ");
        if !joined
            || !(next.capital || next.word.roles.is(Roles::PARTICLE) || next.len() <= 2 && !next.digit)
            || last - street >= 6
        {
            break;
        }
        named += usize::from(next.capital);
        last += 1;
    }
    if named == 0 {
        return None;
    }
    while last > street && !text.tokens[last].capital {
        last -= 1;
    }
    // `75 bis rue des Tilleuls`.
    let again = street.checked_sub(1).filter(|before| {
        let token = &text.tokens[*before];
        matches!(&text.raw[token.start..token.end], "bis" | "ter" | "quater")
    });
    let before = again
        .unwrap_or(street)
        .checked_sub(1)
        .filter(|before| house_number(&text.tokens[*before]) && matches!(text.gap(*before), " " | ", "));
    // `Via Roma n. 3`, `Rua Augusta, nº 3`: the sign for a number is a token of its own.
    let sign = text.tokens.get(last + 1).is_some_and(|token| {
        matches!(
            &text.raw[token.start..token.end],
            "n" | "N" | "no" | "No" | "nr" | "Nr" | "num" | "núm" | "número" | "numero"
        )
    });
    let after = last + 1 + usize::from(sign);
    let joined = matches!(text.gap(last), " " | ", " | " #" | ", #" | " # ")
        && (!sign || matches!(text.gap(last + 1), " " | ". " | "." | "º " | "° " | ".º "));
    let after = Some(after).filter(|after| joined && text.tokens.get(*after).is_some_and(house_number));
    match (before, after) {
        (Some(first), _) => Some((first, last)),
        (None, Some(end)) => Some((street, end)),
        _ => None,
    }
}

/// `Lorenz-Kambs-Weg 1`, `Hauptstraße 5`, `Keizersgracht 12`.
fn compound_street(text: &Text<'_>, at: usize) -> Option<(usize, usize)> {
    const ENDINGS: [&str; 35] = [
        "straße", "strasse", "str", "weg", "platz", "allee", "gasse", "ufer", "damm", "stieg", "steig", "straat",
        "laan", "plein", "kade", "gracht", "dijk", "singel", "gatan", "vägen", "vej", "gade", "gata", "väg", "torget",
        "gränd", "vei", "veien", "gaten", "stræde", "katu", "chaussee", "brücke", "plaats", "dreef",
    ];
    const PARTS: [&str; 8] = ["straße", "strasse", "str", "weg", "platz", "allee", "gasse", "ring"];
    let token = &text.tokens[at];
    let mut lower = [0_u8; 48];
    let word = text.bytes.get(token.start..token.end).filter(|word| word.len() <= 48)?;
    let lower = &mut lower[..word.len()];
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    let whole = |endings: &[&str]| endings.iter().any(|ending| lower == ending.as_bytes());
    let hyphenated = at > 0 && matches!(text.gap(at - 1), "-" | " ") && text.tokens[at - 1].capital && whole(&PARTS);
    let compound = ENDINGS.iter().any(|ending| {
        let least = ending.len() + if ending.len() > 4 { 1 } else { 2 };
        lower.len() > least && lower.ends_with(ending.as_bytes())
    });
    let next = text.tokens.get(at + 1).filter(|next| house_number(next) && next.len() <= 4)?;
    if !(hyphenated || compound)
        || !matches!(text.gap(at), " " | ". " | ".")
        || !text.bytes[next.start].is_ascii_digit()
    {
        return None;
    }
    let mut first = at;
    while first > 0 && matches!(text.gap(first - 1), "-") && text.tokens[first - 1].letter
        || first == at && hyphenated && first > 0
    {
        first -= 1;
    }
    // `53-71`: a range of numbers.
    let range = text.gap(at + 1) == "-" && text.tokens.get(at + 2).is_some_and(house_number);
    Some((first, at + 1 + usize::from(range)))
}

/// `Unit 97 3 Amy Brow`, `4/126 Thompson Plaza`.
fn unit_before(text: &Text<'_>, first: usize) -> usize {
    let mut at = first;
    while at > 0 && first - at < 2 {
        let before = &text.tokens[at - 1];
        let part = matches!(text.gap(at - 1), " " | "/" | ", ")
            && (house_number(before) || before.word.roles.is(Roles::UNIT) && at < first);
        if !part {
            break;
        }
        at -= 1;
    }
    at
}

/// Goes on over the flat, the town, the state and the postal code.
fn rest_of_address(text: &Text<'_>, last: usize) -> usize {
    let (mut end, mut at, mut comma) = (last, last, false);
    while let Some(next) = text.tokens.get(at + 1) {
        let gap = text.gap(at);
        let unit = next.word.roles.is(Roles::UNIT);
        comma |= gap == ", ";
        let joined = gap == ", "
            || gap == " " && (comma || unit || text.tokens[at].word.roles.is(Roles::UNIT))
            || gap == ". " && text.tokens[at].word.roles.is(Roles::UNIT)
            || gap == "-" && comma;
        let part = unit
            || next.capital
                && !next.word.kinds.meets(super::kinds::Kinds::of(&[
                    PiiType::Phone,
                    PiiType::Email,
                    PiiType::BirthDate,
                    PiiType::UsSsn,
                ]))
            || next.number() && next.len() <= 6;
        if !joined || !part || at - last >= 10 {
            break;
        }
        at += 1;
        end = at;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pii::scan::tests::scan;

    #[test]
    fn streets_are_found_in_several_languages() {
        for (text, address) in [
            ("Ship it to 12 Elm Street, Springfield, IL 62701 please", "12 Elm Street, Springfield, IL 62701"),
            ("wohnt Hauptstraße 5, 10115 Berlin", "Hauptstraße 5, 10115 Berlin"),
            ("livré au 47, rue de la Paix", "47, rue de la Paix"),
            ("vive en Calle Mayor 3", "Calle Mayor 3"),
        ] {
            assert_eq!(scan("note", text), [(PiiType::Address, address.to_owned())], "{text}");
        }
        for text in ["3 million street lights", "place 5 orders", "turn 180 degrees", "Apollo 11 Moon"] {
            assert_eq!(scan("note", text), [], "{text}");
        }
        assert_eq!(scan("wallet_address", "some text here"), []);
    }

    #[test]
    fn an_address_needs_no_word_for_street_where_something_announces_it() {
        for (text, address) in [
            ("She lives at 12 Rosewood, Leeds", "12 Rosewood, Leeds"),
            ("wohnhaft in Unter den Linden 7, 10117 Berlin", "Unter den Linden 7, 10117 Berlin"),
            ("send it to P.O. Box 1180, Dover", "P.O. Box 1180, Dover"),
            ("abita in Via Roma n. 3", "Via Roma n. 3"),
            ("ship to 9 W 42nd Street", "9 W 42nd Street"),
        ] {
            assert_eq!(scan("note", text), [(PiiType::Address, address.to_owned())], "{text}");
        }
        for text in ["Unter den Besten 7", "lives at 5 May 2021", "Postfach leeren", "see Box 12"] {
            assert_eq!(scan("note", text), [], "{text}");
        }
    }

    #[test]
    fn coordinates_come_in_pairs() {
        for text in ["48°51'24.0\"N 2°21'03\"E", "48.8566° N, 2.3522° E"] {
            assert_eq!(scan("note", text), [(PiiType::Geo, text.to_owned())]);
        }
        assert_eq!(scan("note", "lat=48.8566, lon=2.3522"), [(PiiType::Geo, "48.8566, lon=2.3522".to_owned())]);
        assert_eq!(scan("note", "turn 90° N, then 20° S"), []);
        assert_eq!(scan("note", "at 52.51631, -13.37770."), [(PiiType::Geo, "52.51631, -13.37770".to_owned())]);
        assert_eq!(scan("note", "52.51631 and 99.12345, 200.12345"), []);
    }
}
