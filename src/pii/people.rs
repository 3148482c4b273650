//! Persons: their names.

use super::found::Findings;
use super::kinds::{Kinds, PiiType};
use super::scan::{Text, Token};
use super::words::Roles;

/// Kinds that only persons have.
const OF_PERSONS: Kinds = Kinds::of(&[
    PiiType::BirthDate,
    PiiType::Phone,
    PiiType::Passport,
    PiiType::UsSsn,
    PiiType::UkNino,
    PiiType::UkNhs,
    PiiType::EsNif,
    PiiType::EsNie,
    PiiType::ItFiscalCode,
    PiiType::PlPesel,
    PiiType::InAadhaar,
    PiiType::CaSin,
    PiiType::DeTaxId,
    PiiType::BrCpf,
    PiiType::NlBsn,
    PiiType::FrNir,
    PiiType::TrId,
    PiiType::SePersonnummer,
    PiiType::FiHetu,
]);

/// Whether the cell of a column of names is one; `sure` if the column's name leaves no doubt.
pub(super) fn looks_like_person(value: &str, tokens: &[Token], sure: bool) -> bool {
    let letters = value.chars().any(char::is_alphabetic);
    let digit = tokens.iter().any(|token| token.digit);
    let thing = |roles: Roles| roles.is(Roles::ORGANISATION) || roles.is(Roles::VERSION);
    let organisation = tokens.iter().any(|token| thing(token.word.roles) && !token.word.roles.is(Roles::GIVEN_NAME));
    if !letters || digit || tokens.len() > 8 {
        return false;
    }
    if sure {
        return true;
    }
    // Names in Chinese, Japanese and Korean have no capitals, and two to six characters.
    if value.chars().all(|character| ('\u{3040}'..='\u{d7ff}').contains(&character) || character == ' ') {
        return (2..=6).contains(&value.chars().count());
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

/// Whether a word right after token `end` announces an identifier of a person, and one follows: `Ann Lee, SSN 219-09-9999`.
fn identified_after(text: &Text<'_>, end: usize, found: &Findings) -> bool {
    (1..=2).any(|ahead| {
        let near = (end..end + ahead).all(|gap| matches!(text.gap(gap), " " | ", " | " (" | ": "));
        text.tokens
            .get(end + ahead)
            .is_some_and(|token| near && token.word.kinds.meets(OF_PERSONS) && found.is_taken(token.end, token.end + 8))
    })
}

/// Whether a word right before token `start` says that somebody did what stands before it: `checked by`, `rédigé par`.
fn agent(text: &Text<'_>, start: usize) -> bool {
    let Some(prior) = start.checked_sub(1).filter(|prior| text.gap(*prior).len() <= 2) else { return false };
    let word = &text.raw[text.tokens[prior].start..text.tokens[prior].end];
    // Where every word has a capital, `Possession by Convicted Felon` names nobody.
    let headline =
        prior > 0 && text.tokens[prior - 1].capital && !text.tokens[prior - 1].word.roles.is(Roles::BEFORE_NAME);
    matches!(word, "by" | "By" | "BY" | "par" | "por") && !headline
}

/// Whether somebody introduces himself right before token `start`: `this is`, `ich bin`, `je suis`.
fn introduced(text: &Text<'_>, start: usize) -> bool {
    let word = |back: usize| {
        let token = start.checked_sub(back).map(|at| &text.tokens[at]);
        token.map_or("", |token| &text.raw[token.start..token.end])
    };
    let is = |back: usize, wanted: &[&str]| wanted.iter().any(|wanted| word(back).eq_ignore_ascii_case(wanted));
    is(1, &["is", "am"]) && is(2, &["this", "here", "i"])
        || is(1, &["bin", "suis", "ben"]) && is(2, &["ich", "je", "ik", "hier"])
        || is(1, &["soy", "sono", "sou"])
}

/// How a run of capitalised words opens.
struct Opening {
    /// First word of the name itself.
    start: usize,
    /// A word before it says that a name follows.
    before: bool,
    /// `Dr.`, `Frau`.
    honorific: bool,
}

/// Skips what is no name from `first` on, and looks at the words before it.
fn opening(text: &Text<'_>, first: usize, last: usize) -> Opening {
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
    let follows = |gap: &str| gap.len() <= 2 || gap.len() <= 5 && gap.bytes().all(|byte| b"\": ='".contains(&byte));
    if start == first && first > 0 && follows(text.gap(first - 1)) {
        let prior = first - 1;
        honorific |= role(prior, Roles::HONORIFIC);
        // `Signed by`, `mon collègue`; between the word and the name may stand another: `owner is`, `dossier de`.
        before |= role(prior, Roles::BEFORE_NAME)
            || (role(prior, Roles::COMMON) || role(prior, Roles::PARTICLE))
                && prior > 0
                && text.gap(prior - 1) == " "
                && role(prior - 1, Roles::BEFORE_NAME);
    }
    Opening { start, before, honorific }
}

fn shouts(token: &Token) -> bool {
    token.all_capital && token.len() > 1
}

/// `Kretowicz, Fabian`, family name first: the last word of the given names after the comma that follows `last`.
fn turned_end(text: &Text<'_>, start: usize, last: usize, found: &Findings) -> Option<usize> {
    let in_order = start < last && text.tokens[start].word.roles.is(Roles::GIVEN_NAME);
    let next = text.tokens.get(last + 1).filter(|_| last - start < 2 && !in_order && text.gap(last) == ", ")?;
    let a_name = name_part(next) && next.word.kinds.is_empty() && !next.word.roles.is(Roles::COMMON);
    if !a_name || found.is_taken(next.start, next.end) || shouts(next) && !shouts(&text.tokens[start]) {
        return None;
    }
    let second = text.gap(last + 1) == " " && text.tokens.get(last + 2).is_some_and(name_part);
    Some(last + 1 + usize::from(second))
}

/// Judges the capitalised words from `first` to `last`; returns the last token that it used up.
fn name(text: &Text<'_>, first: usize, last: usize, found: &mut Findings) -> usize {
    let role = |at: usize, role| text.tokens[at].word.roles.is(role);
    let Opening { start, mut before, honorific } = opening(text, first, last);
    let turned = turned_end(text, start, last, found);
    let end = turned.unwrap_or(last);
    let turned = turned.is_some();
    let stop = text.tokens[end].end;
    let next = text.tokens.get(end + 1);
    // `Virginia Beach`, `Madison Avenue`: a given name alone is no reason to believe in a person.
    let place = (start..=last).any(|at| role(at, Roles::PLACE) || at > start && role(at, Roles::STREET));
    let verb = next.is_some_and(|next| {
        next.word.roles.is(Roles::AFTER_NAME) && matches!(text.gap(end), " " | ", " | " (" | " – " | " - ")
    });
    before |= !place && start == first && agent(text, start);
    before |= text.gap(end).starts_with(',') && introduced(text, start);
    let after =
        found.contact_after(stop) || found.mail_before(text.tokens[start].start) || identified_after(text, end, found);
    // `J. Robert Oppenheimer`, `DUPONT Marie`: the given name may stand second.
    let second = start < last
        && role(start + 1, Roles::GIVEN_NAME)
        && (text.tokens[start].len() == 1
            || shouts(&text.tokens[start]) && !shouts(&text.tokens[start + 1]) && text.tokens[start].len() > 2);
    let given = role(start, Roles::GIVEN_NAME) || second || turned && role(last + 1, Roles::GIVEN_NAME);
    // `Derek May` is a person, `Anna May 5` a date.
    let dated = !(honorific || given) || text.tokens.get(last + 1).is_some_and(Token::number);
    let calendar = (start..=last).filter(|at| role(*at, Roles::MONTH)).count() > 1;
    let organisation = calendar
        || (start..=last).any(|at| {
            !role(at, Roles::GIVEN_NAME) && (role(at, Roles::ORGANISATION) || dated && role(at, Roles::MONTH))
        });
    // `Ann Lee, 12 Elm Street`, but `Home address, 12 Elm Street`.
    let label = (start..=end).any(|at| !text.tokens[at].word.kinds.is_empty() && !role(at, Roles::GIVEN_NAME));
    // `The Wall Street Journal reported`: places and papers speak, too.
    let after = after || verb && (given || !place);
    let after = after || text.gap(end) == ", " && found.address_after(stop) && (given || !place && !label);
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
        for (text, name) in [
            ("Meine Kundin Adaeze Okonkwo rief an", "Adaeze Okonkwo"),
            ("Hi, this is Zebulon Quux, please call back", "Zebulon Quux"),
            ("rédigé par Zebulon Quux", "Zebulon Quux"),
            ("Zebulon Quux, 12 Rosewood Lane", "Zebulon Quux"),
        ] {
            assert!(scan("note", text).contains(&(PiiType::Person, name.to_owned())), "{text}");
        }
        for text in [
            "Possession by Convicted Felon",
            "sun rises by Lake Tahoe",
            "Jan Feb Mar Apr",
            "The Wall Street Journal reported",
        ] {
            assert_eq!(scan("note", text), [], "{text}");
        }
        assert_eq!(scan("姓名", "王小明"), [(PiiType::Person, "王小明".to_owned())]);
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
}
