//! Persons: their names, streets and places.

use super::column::ColumnHints;
use super::found::Findings;
use super::kinds::PiiType;
use super::scan::{Text, Token};
use super::words::Roles;

/// Pairs of decimal degrees.
pub(super) fn coordinates(text: &Text<'_>, column: &ColumnHints, found: &mut Findings) {
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
        let announced = || text.announces(PiiType::Address) && (token.digit || token.capital) && address_comes(text, at);
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
    let before = street
        .checked_sub(1)
        .filter(|before| house_number(&text.tokens[*before]) && matches!(text.gap(*before), " " | ", "));
    // `Via Roma n. 3`, `Rua Augusta, nº 3`: the sign for a number is a token of its own.
    let sign = text.tokens.get(last + 1).is_some_and(|token| {
        matches!(&text.raw[token.start..token.end], "n" | "N" | "no" | "No" | "nr" | "Nr" | "num" | "núm" | "número" | "numero")
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
        "laan", "plein", "kade", "gracht", "dijk", "singel", "gatan", "vägen", "vej", "gade",
        "gata", "väg", "torget", "gränd", "vei", "veien", "gaten", "stræde", "katu", "chaussee", "brücke", "plaats", "dreef",
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
    let compound = ENDINGS.iter().any(|ending| lower.len() > ending.len() + 2 && lower.ends_with(ending.as_bytes()));
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

/// Whether the cell of a column of names is one; `sure` if the column's name leaves no doubt.
pub(super) fn looks_like_person(value: &str, tokens: &[Token], sure: bool) -> bool {
    let letters = value.chars().any(char::is_alphabetic);
    let digit = tokens.iter().any(|token| token.digit);
    let organisation =
        tokens.iter().any(|token| token.word.roles.is(Roles::ORGANISATION) && !token.word.roles.is(Roles::GIVEN_NAME));
    if !letters || digit || tokens.len() > 8 {
        return false;
    }
    if sure {
        return true;
    }
    let part = |token: &Token| token.capital || token.word.roles.is(Roles::PARTICLE);
    let place = |token: &Token| token.word.roles.is(Roles::PLACE) || token.word.roles.is(Roles::STREET);
    let given = tokens.first().is_some_and(|token| token.word.roles.is(Roles::GIVEN_NAME));
    !organisation
        && (given || !tokens.iter().any(place))
        && (2..=6).contains(&tokens.len())
        && tokens.iter().all(part)
        && !value.contains(['&', '/', ':'])
}

/// Names of persons in text: capitalised words with a reason to believe that they are a name.
pub(super) fn persons(text: &Text<'_>, found: &mut Findings) {
    let mut at = 0;
    while at < text.tokens.len() {
        if !name_part(&text.tokens[at]) {
            at += 1;
            continue;
        }
        let mut last = at;
        while let Some(next) = text.tokens.get(last + 1) {
            let initial = text.tokens[last].len() == 1 || text.tokens[last].word.roles.is(Roles::HONORIFIC);
            let joined = matches!(text.gap(last), " " | "-" | "'" | "’") || initial && text.gap(last) == ". ";
            let particle = next.word.roles.is(Roles::PARTICLE) && !next.capital && leads_to_name(text, last + 1);
            if !joined || !(name_part(next) || particle) || last - at >= 6 {
                break;
            }
            last += 1;
        }
        at = name(text, at, last, found) + 1;
    }
}

/// Whether up to three particles from token `at` on end in a part of a name: `van der Velde`.
fn leads_to_name(text: &Text<'_>, at: usize) -> bool {
    let mut rest = text.tokens.get(at..).unwrap_or_default().iter().take(4);
    rest.find(|token| !token.word.roles.is(Roles::PARTICLE) || token.capital).is_some_and(name_part)
}

fn name_part(token: &Token) -> bool {
    token.capital && !token.digit
}

/// Judges the capitalised words from `first` to `last`; returns the last token that it used up.
fn name(text: &Text<'_>, first: usize, last: usize, found: &mut Findings) -> usize {
    let role = |at: usize, role| text.tokens[at].word.roles.is(role);
    let (mut start, mut before, mut honorific) = (first, false, false);
    while start < last
        && !role(start, Roles::GIVEN_NAME)
        && (role(start, Roles::COMMON) || role(start, Roles::BEFORE_NAME) || role(start, Roles::HONORIFIC))
    {
        before |= role(start, Roles::BEFORE_NAME);
        honorific |= role(start, Roles::HONORIFIC);
        start += 1;
    }
    if start == first && first > 0 && text.gap(first - 1).len() <= 2 {
        let prior = first - 1;
        honorific |= role(prior, Roles::HONORIFIC);
        // `Signed by`, `mon collègue`; between the word and the name may stand another: `owner is`, `dossier de`.
        // Where every word has a capital, `Possession by Convicted Felon` names nobody.
        let headline = prior > 0
            && text.raw[text.tokens[prior].start..text.tokens[prior].end].eq_ignore_ascii_case("by")
            && text.tokens[prior - 1].capital
            && !role(prior - 1, Roles::BEFORE_NAME);
        before |= role(prior, Roles::BEFORE_NAME) && !headline
            || (role(prior, Roles::COMMON) || role(prior, Roles::PARTICLE))
                && prior > 0
                && text.gap(prior - 1) == " "
                && role(prior - 1, Roles::BEFORE_NAME);
    }
    // `Kretowicz, Fabian`: family name first.
    let (mut end, mut turned) = (last, false);
    let shouts = |at: usize| text.tokens[at].all_capital && text.tokens[at].len() > 1;
    if last - start < 2
        && text.gap(last) == ", "
        && text.tokens.get(last + 1).is_some_and(|next| name_part(next) && next.word.kinds.is_empty())
        && !role(last + 1, Roles::COMMON)
        && !found.is_taken(text.tokens[last + 1].start, text.tokens[last + 1].end)
        && (shouts(start) || !shouts(last + 1))
    {
        end = last + 1;
        if text.gap(end) == " " && text.tokens.get(end + 1).is_some_and(name_part) {
            end += 1;
        }
        turned = true;
    }
    let stop = text.tokens[end].end;
    let next = text.tokens.get(end + 1);
    let after = next.is_some_and(|next| {
        next.word.roles.is(Roles::AFTER_NAME) && matches!(text.gap(end), " " | ", " | " (" | " – " | " - ")
    }) || found.contact_after(stop)
        || found.mail_before(text.tokens[start].start);
    // `J. Robert Oppenheimer`, `DUPONT Marie`: the given name may stand second.
    let second = start < last
        && role(start + 1, Roles::GIVEN_NAME)
        && (text.tokens[start].len() == 1 || shouts(start) && !shouts(start + 1) && text.tokens[start].len() > 2);
    let given = role(start, Roles::GIVEN_NAME) || second || turned && role(last + 1, Roles::GIVEN_NAME);
    let organisation = (start..=last).any(|at| {
        role(at, Roles::ORGANISATION) && !role(at, Roles::GIVEN_NAME)
            || role(at, Roles::MONTH) && !role(at, Roles::GIVEN_NAME)
    });
    // `Virginia Beach`, `Madison Avenue`: a given name alone is no reason to believe in a person.
    let place = (start..=last).any(|at| role(at, Roles::PLACE) || at > start && role(at, Roles::STREET));
    let given = given && !place;
    let words = (start..=end).filter(|at| name_part(&text.tokens[*at])).count();
    let believed = match words {
        0 => false,
        1 => honorific && !text.tokens[start].all_capital || given && (after || before),
        _ if turned => after || before || honorific || given,
        _ => honorific || before || after || given,
    };
    let shouted = text.tokens[start..=end].iter().all(|token| token.all_capital) && !(given || after || honorific);
    let span = (text.tokens[start].start, stop);
    if believed && !organisation && !shouted && !found.is_taken(span.0, span.1) {
        found.add(span.0, span.1, PiiType::Person);
        return end;
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pii::scan::tests::scan;

    #[test]
    fn names_need_a_reason() {
        for (text, name) in [
            ("Dr. Ada Lovelace wrote to us", "Ada Lovelace"),
            ("Signed by Grothendieck, Alexandre", "Grothendieck, Alexandre"),
            ("Xiomara van der Velde lives in Delft", "Xiomara van der Velde"),
            ("My name is Zebulon Quux.", "Zebulon Quux"),
        ] {
            assert_eq!(scan("note", text), [(PiiType::Person, name.to_owned())], "{text}");
        }
        for text in [
            "Call by name, not by value.",
            "New York is large",
            "Month To Month",
            "The Quick Brown Fox",
            "LightSkyBlue",
        ] {
            assert_eq!(scan("note", text), [], "{text}");
        }
        assert_eq!(scan("product_name", "Stella Artois"), []);
        assert_eq!(scan("customer_name", "de la cruz"), [(PiiType::Person, "de la cruz".to_owned())]);
        assert_eq!(scan("customer_name", "unknown"), []);
    }

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
    fn coordinates_come_in_pairs() {
        assert_eq!(scan("note", "at 52.51631, -13.37770."), [(PiiType::Geo, "52.51631, -13.37770".to_owned())]);
        assert_eq!(scan("note", "52.51631 and 99.12345, 200.12345"), []);
    }
}
