//! A cell cut into words and numbers, each looked up once in the vocabulary.

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
        let word = if digit { Word::default() } else { table.look_up(text) };
        announced = announced.union(word.kinds);
        others |= word.roles.is(Roles::OTHER_ID) || word.roles.is(Roles::VERSION);
        tokens.push(Token { start, end: at, word, digit, letter, capital, all_capital: letter && !lower });
    }
    (announced, others)
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
    fn numbers_stand_apart_from_scripts_without_spaces() {
        assert_eq!(cut("电话：13812345678，请联系"), ["电话", "13812345678", "请联系"]);
        assert_eq!(cut("身份证号11010519491231002X。"), ["身份证号", "11010519491231002X"]);
        assert_eq!(cut("Łódź–Kraków 3a"), ["Łódź", "Kraków", "3a"]);
    }
}
