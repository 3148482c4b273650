//! A cell cut into words and numbers, each looked up once in the vocabulary.

use unicode_normalization::UnicodeNormalization;

use super::kinds::Kinds;
use super::words::{Roles, Vocabulary, Word};

/// A run of letters, digits and underscores.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) word: Word,
    /// Has a digit, has a letter, starts with a capital letter, has only capital letters and digits.
    pub(super) digit: bool,
    pub(super) letter: bool,
    pub(super) capital: bool,
    pub(super) all_capital: bool,
}

impl Token {
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(super) fn number(&self) -> bool {
        self.digit && !self.letter
    }
}

/// Cuts `cell` into tokens; returns the kinds that its words announce, and whether one names another number.
pub(super) fn tokenise(cell: &str, tokens: &mut Vec<Token>) -> (Kinds, bool) {
    let table = Vocabulary::get();
    let bytes = cell.as_bytes();
    tokens.clear();
    let (mut announced, mut others, mut at) = (Kinds::NONE, false, 0);
    while at < bytes.len() {
        if !in_word(bytes, at) {
            at += 1;
            continue;
        }
        let start = at;
        let (mut digit, mut letter, mut lower) = (false, false, false);
        let ideographs = ideograph(bytes[start]);
        while at < bytes.len() && in_word(bytes, at) {
            let byte = bytes[at];
            // Scripts without spaces: a number stands right beside its keyword.
            if byte < 0x80 && ideographs || ideograph(byte) && !ideographs {
                break;
            }
            digit |= byte.is_ascii_digit();
            letter |= !byte.is_ascii_digit();
            lower |= byte.is_ascii_lowercase() || byte >= 0x80;
            at += 1;
        }
        let text = &cell[start..at];
        let capital = match bytes[start] {
            byte if byte < 0x80 => byte.is_ascii_uppercase(),
            _ => text.chars().next().is_some_and(char::is_uppercase),
        };
        let mut word = if digit { Word::default() } else { table.look_up(text) };
        if capital && !text.is_ascii() && word.kinds.is_empty() && word.roles == Roles::default() {
            word = unaccented(table, text);
        }
        if at - start == 1 && letter && start > 1 && bytes[start - 1] == b'.' {
            let kinds = initials(table, cell, tokens, start, at);
            word.kinds = word.kinds.union(kinds);
        }
        announced = announced.union(word.kinds);
        others |= word.roles.is(Roles::OTHER_ID) || word.roles.is(Roles::VERSION) || text.eq_ignore_ascii_case("id");
        tokens.push(Token { start, end: at, word, digit, letter, capital, all_capital: letter && !lower });
    }
    (announced, others)
}

/// What a word is as a name without its accents: `Édgar` is `Edgar`, but `Ibán` is no bank account.
fn unaccented(table: &Vocabulary, word: &str) -> Word {
    let (mut plain, mut length) = ([0; 32], 0);
    for character in word.nfd().filter(char::is_ascii) {
        let Some(place) = plain.get_mut(length) else { return Word::default() };
        *place = character as u8;
        length += 1;
    }
    let word = std::str::from_utf8(&plain[..length]).map(|plain| table.look_up(plain)).unwrap_or_default();
    if word.roles.is(Roles::GIVEN_NAME) { Word { kinds: Kinds::NONE, ..word } } else { Word::default() }
}

/// What the single letter from `start` to `end` announces with those before it: the `B` of `D.O.B.`.
fn initials(table: &Vocabulary, cell: &str, tokens: &[Token], start: usize, end: usize) -> Kinds {
    let mut first = start;
    for token in tokens.iter().rev().take(4) {
        if token.len() != 1 || &cell[token.end..first] != "." {
            break;
        }
        first = token.start;
    }
    let (mut word, mut length) = ([0; 8], 0);
    for byte in cell[first..end].bytes().filter(u8::is_ascii_alphabetic) {
        if let Some(place) = word.get_mut(length) {
            *place = byte;
            length += 1;
        }
    }
    match std::str::from_utf8(&word[..length]) {
        Ok(word) if length >= 2 => table.look_up(word).kinds,
        _ => Kinds::NONE,
    }
}

/// Whether a character of Chinese, Japanese or Korean starts with this byte of UTF-8 (U+3000..U+DFFF).
fn ideograph(byte: u8) -> bool {
    (0xe3..=0xed).contains(&byte)
}

/// Letters, digits, underscores, and everything beyond ASCII but the no-break space and punctuation.
fn in_word(bytes: &[u8], at: usize) -> bool {
    match bytes[at] {
        byte if byte < 0x80 => byte.is_ascii_alphanumeric() || byte == b'_',
        // U+00A0..U+00BF are spaces and signs; U+2000..U+206F is general punctuation.
        0xc2 => false,
        0xe2 => !matches!(bytes.get(at + 1), Some(0x80 | 0x81)),
        // U+3000..U+303F and the wide forms of ASCII signs: punctuation of Chinese, Japanese and Korean.
        0xe3 => bytes.get(at + 1) != Some(&0x80),
        0xef => !matches!(bytes.get(at + 1..at + 3), Some([0xbc, 0x80..=0x8f | 0x9a..=0xa0] | [0xbd, 0x9b..=0xa5])),
        byte if byte >= 0xc0 => true,
        // A continuation byte belongs to what its character is: a word unless the character was a sign.
        _ => {
            let lead = bytes[..at].iter().rposition(|byte| *byte >= 0xc0);
            lead.is_some_and(|lead| in_word(bytes, lead))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(cell: &str) -> Vec<&str> {
        let mut tokens = Vec::new();
        tokenise(cell, &mut tokens);
        tokens.iter().map(|token| &cell[token.start..token.end]).collect()
    }

    #[test]
    fn initials_and_accents_change_no_word() {
        use crate::pii::scan::tests::scan;
        assert_eq!(scan("note", "D.O.B. 28/03/1973").len(), 1);
        assert_eq!(scan("note", "U.S.A. 28/03/1973"), []);
        assert_eq!(scan("note", "Édgar Quux est absent").len(), 1);
    }

    #[test]
    fn numbers_stand_apart_from_scripts_without_spaces() {
        assert_eq!(cut("电话：13812345678，请联系"), ["电话", "13812345678", "请联系"]);
        assert_eq!(cut("身份证号11010519491231002X。"), ["身份证号", "11010519491231002X"]);
        assert_eq!(cut("Łódź–Kraków 3a"), ["Łódź", "Kraków", "3a"]);
    }
}
