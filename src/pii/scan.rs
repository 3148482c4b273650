//! Finds personal data in one cell.
//!
//! One pass over the bytes tells whether a cell can hold anything at all; most cells end there. The others
//! are cut into tokens, each looked up once in the vocabulary, and the detectors run from the most certain
//! pattern to the least; a later one never takes what an earlier one has found. The result depends on the cell
//! and its column's name only, never on other cells.

use super::candidate::{Candidate, MAX_GROUPS};
use super::column::{ColumnHints, PersonColumn};
use super::found::Findings;
pub use super::found::Found;
use super::kinds::{Kinds, PiiType};
pub(super) use super::token::Token;
use super::token::tokenise;
use super::words::Roles;
use super::{birth, net, people, places};

/// Tokens before a number in which its keyword is looked for.
const CONTEXT_TOKENS: usize = 7;
/// Bytes before a number in which its keyword is looked for.
const CONTEXT_BYTES: usize = 64;
/// Longest cell that may be one identifier, address or name as a whole, in bytes.
const MAX_WHOLE: usize = 256;
/// National numbers with a date or two check digits in them, so that `ID number` before them is enough.
const CHECKED_IDS: Kinds =
    Kinds::of(&[PiiType::ZaId, PiiType::TrId, PiiType::CnId, PiiType::FrNir, PiiType::PlPesel, PiiType::BrCpf]);

/// A cell cut into tokens.
pub(super) struct Text<'t> {
    pub(super) raw: &'t str,
    pub(super) bytes: &'t [u8],
    pub(super) tokens: &'t [Token],
    /// Kinds announced by any word: where this is empty nobody needs to look for context.
    announced: Kinds,
    /// Whether any word names another number or a version.
    others: bool,
}

/// What the words before a place say.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Context {
    pub(super) kinds: Kinds,
    pub(super) other_id: bool,
    pub(super) version: bool,
}

impl Text<'_> {
    /// What stands between token `at` and the next.
    pub(super) fn gap(&self, at: usize) -> &str {
        match (self.tokens.get(at), self.tokens.get(at + 1)) {
            (Some(left), Some(right)) => &self.raw[left.end..right.start],
            _ => "",
        }
    }

    /// Whether any word of the cell announces `kind`.
    pub(super) fn announces(&self, kind: PiiType) -> bool {
        self.announced.has(kind)
    }

    /// What the words before token `at` announce (or the word in brackets right after token `last`).
    pub(super) fn context(&self, at: usize, last: usize) -> Context {
        let mut context = Context::default();
        if self.announced.is_empty() && !self.others {
            return context;
        }
        let start = self.tokens[at].start;
        let mut left = at;
        let mut words_since = 0;
        while left > 0 && at - left < CONTEXT_TOKENS {
            if ends_sentence(self.gap(left - 1), &self.tokens[left - 1]) {
                break;
            }
            left -= 1;
            let token = &self.tokens[left];
            let known = !context.kinds.is_empty() || context.other_id || context.version;
            if start - token.end > CONTEXT_BYTES || known && (token.digit || words_since > 2) {
                break;
            }
            words_since += usize::from(known);
            // The nearest word decides; a word for another number farther away changes nothing.
            if !known {
                context.other_id = token.word.roles.is(Roles::OTHER_ID);
                context.version = token.word.roles.is(Roles::VERSION);
            }
            context.kinds = context.kinds.union(token.word.kinds);
            if left > 0 && context.kinds.is_empty() && self.id_number(left) {
                context.kinds = CHECKED_IDS;
            }
        }
        if context.kinds.is_empty() && matches!(self.gap(last), " (" | " [") {
            context.kinds = self.tokens.get(last + 1).map_or(Kinds::NONE, |token| token.word.kinds);
        }
        if context.kinds.is_empty() && self.gap(last) == " " {
            // `503 774 9684 is my mobile`
            let [is, whose] =
                [1, 2].map(|ahead| self.tokens.get(last + ahead).map_or("", |token| &self.raw[token.start..token.end]));
            if is == "is" && matches!(whose, "my" | "the" | "his" | "her" | "our") {
                context.kinds = self.tokens.get(last + 3).map_or(Kinds::NONE, |token| token.word.kinds);
            }
        }
        context
    }

    /// Whether token `at` ends `ID number` or `identity no`.
    fn id_number(&self, at: usize) -> bool {
        let word = |at: usize| &self.raw[self.tokens[at].start..self.tokens[at].end];
        word(at - 1).eq_ignore_ascii_case("id")
            && ["number", "no", "nr", "card"].iter().any(|name| word(at).eq_ignore_ascii_case(name))
    }

    /// Whether what ends at `end` goes on as part of something longer (`1.2.3`, `4111-abc`).
    pub(super) fn glued_right(&self, end: usize) -> bool {
        match self.bytes.get(end..) {
            Some([b'-' | b'.' | b'/' | b':' | b'@' | b'+' | b'=', next, ..]) => next.is_ascii_alphanumeric(),
            Some([b'%', ..]) => true,
            _ => false,
        }
    }

    /// Whether what starts at `start` continues something longer.
    pub(super) fn glued_left(&self, start: usize) -> bool {
        match &self.bytes[..start] {
            [.., before, b'-' | b'.' | b'/' | b'@' | b'+'] => before.is_ascii_alphanumeric(),
            [.., before, b':' | b'='] => before.is_ascii_digit(),
            [.., b'#' | b'$'] | [b'.' | b'@'] => true,
            _ => false,
        }
    }
}

fn ends_sentence(gap: &str, before: &Token) -> bool {
    gap.contains(['!', '?', ';', '\n', '|']) || gap.starts_with(". ") && before.len() > 4
}

/// Looks for personal data, cell by cell. Keeps its buffers, so a clean cell allocates nothing.
#[derive(Default)]
pub struct Scanner {
    tokens: Vec<Token>,
    found: Findings,
}

/// What one pass over the bytes tells.
struct Survey {
    digit: bool,
    at: bool,
    capitals: usize,
}

fn survey(bytes: &[u8]) -> Survey {
    const DIGIT: u8 = 1;
    const AT: u8 = 2;
    let (mut seen, mut capitals) = (0_u8, 0_usize);
    for byte in bytes {
        seen |= (u8::from(byte.is_ascii_digit()) * DIGIT) | (u8::from(*byte == b'@') * AT);
        capitals += usize::from(byte.is_ascii_uppercase() || *byte >= 0xc3);
    }
    Survey { digit: seen & DIGIT != 0, at: seen & AT != 0, capitals }
}

impl Scanner {
    /// A scanner with empty buffers.
    pub fn new() -> Self {
        Self::default()
    }

    /// The personal data in `cell` of a column with these hints, in order and without overlap.
    pub fn scan(&mut self, cell: &str, column: &ColumnHints) -> &[Found] {
        self.found.reset(cell.len());
        let bytes = cell.as_bytes();
        let survey = survey(bytes);
        let named = !column.kinds.is_empty() || column.person != PersonColumn::No;
        if !named && !survey.digit && !survey.at && survey.capitals < 2 {
            return &[];
        }
        if named && let Some(found) = whole_cell(cell, column, &mut self.tokens) {
            self.found.add(found.start, found.end, found.kind);
            return self.found.sorted();
        }
        let (announced, others) = tokenise(cell, &mut self.tokens);
        let text = Text { raw: cell, bytes, tokens: &self.tokens, announced, others };
        let found = &mut self.found;
        if survey.digit {
            net::secrets(&text, found);
        }
        if survey.at {
            net::emails(&text, found);
        }
        if survey.digit {
            net::addresses(&text, column, found);
            identifiers(&text, column, found);
            birth::birth_dates(&text, column, found);
            places::coordinates(&text, column, found);
            places::street_addresses(&text, found);
        }
        if survey.capitals >= 2 && !column.other_id && !column.no_people {
            people::persons(&text, found);
        }
        self.found.sorted()
    }
}

/// The cell as one piece of data of the kind that its column's name announces.
fn whole_cell(cell: &str, column: &ColumnHints, tokens: &mut Vec<Token>) -> Option<Found> {
    let value = cell.trim();
    let start = cell.len() - cell.trim_start().len();
    if value.is_empty() || value.len() > MAX_WHOLE || is_placeholder(value) {
        return None;
    }
    let found = |kind| Some(Found { start, end: start + value.len(), kind });
    let has = |kind| column.kinds.has(kind);
    if let Some(candidate) = Candidate::read(value.as_bytes()) {
        let kind = if column.firm { candidate.held(column.kinds) } else { candidate.announced(column.kinds) };
        if let Some(kind) = kind {
            return found(kind);
        }
    }
    if has(PiiType::Ip) && net::looks_like_ip(value) {
        return found(PiiType::Ip);
    }
    if has(PiiType::BirthDate) && birth::BirthDate::parse(value).is_some() {
        return found(PiiType::BirthDate);
    }
    if has(PiiType::Secret) && column.firm && net::looks_secret(value) {
        return found(PiiType::Secret);
    }
    if has(PiiType::Address) && column.firm && !value.contains('@') && places::looks_like_address(value) {
        return found(PiiType::Address);
    }
    if column.person != PersonColumn::No && !value.contains('@') {
        tokenise(value, tokens);
        if people::looks_like_person(value, tokens, column.person == PersonColumn::Yes) {
            return found(PiiType::Person);
        }
    }
    None
}

/// What people write into a field that they leave empty.
fn is_placeholder(value: &str) -> bool {
    const EMPTY: [&str; 13] =
        ["unknown", "n/a", "na", "none", "null", "nan", "-", "?", "missing", "anonymous", "yes", "no", "other"];
    EMPTY.iter().any(|empty| value.eq_ignore_ascii_case(empty))
}

/// Whether a run of groups may go on over this gap.
fn joins(gap: &str) -> bool {
    matches!(gap, " " | "-" | "." | "/" | "\u{a0}" | ") " | ")-" | " (" | "(" | ")" | "+")
}

/// Numbers and codes of every kind that [`Candidate`] knows.
fn identifiers(text: &Text<'_>, column: &ColumnHints, found: &mut Findings) {
    let tokens = text.tokens;
    let mut at = 0;
    while at < tokens.len() {
        at = identifier(text, column, at, found).unwrap_or(at) + 1;
    }
}

/// The longest identifier that starts at token `at`; returns its last token.
fn identifier(text: &Text<'_>, column: &ColumnHints, at: usize, found: &mut Findings) -> Option<usize> {
    let tokens = text.tokens;
    let short_code = |token: &Token| token.all_capital && token.len() <= 4;
    let first = &tokens[at];
    let opens = first.digit
        || short_code(first) && tokens.get(at + 1).is_some_and(|next| next.digit) && matches!(text.gap(at), " " | "-");
    if !opens || first.len() > 40 {
        return None;
    }
    let (mut last, mut length) = (at, first.len());
    while last + 1 < tokens.len() && last + 1 < at + MAX_GROUPS && joins(text.gap(last)) {
        let next = &tokens[last + 1];
        if !(next.digit || short_code(next) || next.len() == 1) || length + next.len() > 36 {
            break;
        }
        length += next.len();
        last += 1;
    }
    if length < 6 {
        return None;
    }
    let start = match &text.bytes[..first.start] {
        [.., b'+', b'('] => first.start - 2,
        [.., b'+' | b'('] => first.start - 1,
        _ => first.start,
    };
    if text.glued_left(start) {
        return None;
    }
    let context = text.context(at, last);
    let kinds = if context.kinds.is_empty() { column.kinds } else { context.kinds };
    let whole_column = column.other_id && at == 0;
    let named_other = context.other_id && context.kinds.is_empty() || context.version || whole_column;
    for end in (at..=last).rev() {
        let stop = tokens[end].end;
        if text.glued_right(stop) || found.is_taken(start, stop) {
            continue;
        }
        // An opening bracket belongs to the number only if it closes within it.
        let open = text.bytes[start] == b'(' && !text.bytes[start..stop].contains(&b')');
        let start = if open { first.start } else { start };
        let Some(candidate) = Candidate::read(&text.bytes[start..stop]) else { continue };
        if candidate.compact().len() < 6 {
            break;
        }
        let alone = candidate.plus || !continues(text, at, end);
        let free = || if alone { candidate.free(named_other) } else { None };

        let phone = || {
            (alone && found.mail_before(start) && candidate.strict(PiiType::Phone) && candidate.compact().len() >= 9)
                .then_some(PiiType::Phone)
        };
        if let Some(kind) = candidate.announced(kinds).or_else(free).or_else(phone) {
            found.add(start, stop, kind);
            return Some(end);
        }
    }
    None
}

/// Whether groups of three digits or more go on before or after the run: it is then part of a longer number.
fn continues(text: &Text<'_>, first: usize, last: usize) -> bool {
    let group = |at: usize| text.tokens.get(at).is_some_and(|token| token.number() && token.len() >= 3);
    let joined = |at: usize| matches!(text.gap(at), " " | "-");
    first > 0 && group(first - 1) && joined(first - 1) || group(last + 1) && joined(last)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn scan(column: &str, cell: &str) -> Vec<(PiiType, String)> {
        let mut scanner = Scanner::new();
        let found = scanner.scan(cell, &ColumnHints::of(column));
        found.iter().map(|found| (found.kind, cell[found.start..found.end].to_owned())).collect()
    }

    fn one(kind: PiiType, text: &str) -> Vec<(PiiType, String)> {
        vec![(kind, text.to_owned())]
    }

    #[test]
    fn a_keyword_before_a_bare_number_tells_its_kind() {
        assert_eq!(scan("note", "his SSN is 219099999, call later"), one(PiiType::UsSsn, "219099999"));
        assert_eq!(scan("note", "BSN: 111222333"), one(PiiType::NlBsn, "111222333"));
        assert_eq!(scan("note", "111222333 pieces"), vec![]);
        assert_eq!(scan("bsn", "111222333"), one(PiiType::NlBsn, "111222333"));
        assert_eq!(scan("sku", "111222333"), vec![]);
        assert_eq!(scan("note", "ID number 8001015009087"), one(PiiType::ZaId, "8001015009087"));
        assert_eq!(scan("id_card_no", "110101194912310021"), one(PiiType::CnId, "110101194912310021"));
        assert_eq!(scan("note", "the car (1M8GDM9AXKP042788) was towed"), one(PiiType::Vin, "1M8GDM9AXKP042788"));
    }

    #[test]
    fn the_nearest_keyword_decides() {
        let text = "SSN 219-09-9999, card 4111 1111 1111 1111, order 5555555555554444";
        assert_eq!(
            scan("note", text),
            [one(PiiType::UsSsn, "219-09-9999"), one(PiiType::Card, "4111 1111 1111 1111")].concat()
        );
    }

    #[test]
    fn a_reference_that_happens_to_pass_luhn_is_not_a_card() {
        assert_eq!(scan("order_id", "4111111111111111"), vec![]);
        assert_eq!(scan("", "4111111111111111"), one(PiiType::Card, "4111111111111111"));
        assert_eq!(scan("pan", "4111111111111111"), one(PiiType::Card, "4111111111111111"));
    }

    #[test]
    fn versions_dates_times_and_digests_are_nothing() {
        for text in [
            "v10.24.32.29",
            "Chrome/120.0.6099.109",
            "upgraded to version 121.8.18.2",
            "2024-01-31T12:00:00Z",
            "2024-01-31 12:00:00.000000",
            "1535226145000",
            "1436501227000000",
            "a160c882-bd8c-4911-b859-0c3259ef588e",
            "73451fff661655a37eee59c37122750a2ed8d8ae",
            "3.14159265",
            "464941.75",
            "-2.280393189e-01",
            "12:34:56",
        ] {
            assert_eq!(scan("", text), vec![], "{text}");
        }
    }

    #[test]
    fn telephone_numbers_are_found_in_text_but_bare_ids_are_not() {
        assert_eq!(
            scan("note", "reach me at +49 151 23456789 or (212) 555-0123"),
            [one(PiiType::Phone, "+49 151 23456789"), one(PiiType::Phone, "(212) 555-0123")].concat()
        );
        assert_eq!(scan("note", "id 2125550123"), vec![]);
        assert_eq!(scan("phone", "2125550123"), one(PiiType::Phone, "2125550123"));
        assert_eq!(scan("PhoneService", "Yes"), vec![]);
    }

    #[test]
    fn a_cell_is_judged_without_its_neighbours() {
        let cells = ["4111111111111111", "Jane Doe called", "x"];
        let mut scanner = Scanner::new();
        let hints = ColumnHints::of("note");
        let alone: Vec<_> = cells.iter().map(|cell| Scanner::new().scan(cell, &hints).to_vec()).collect();
        let together: Vec<_> = cells.iter().map(|cell| scanner.scan(cell, &hints).to_vec()).collect();
        assert_eq!(alone, together);
    }

    #[test]
    fn a_long_cell_costs_no_more_per_byte_than_a_short_one() {
        // Inputs that would take hours if any detector looked back or ahead without bound.
        let mut scanner = Scanner::new();
        let hints = ColumnHints::of("note");
        for piece in [
            "a.",
            "a@b.co (012 345 6789) ",
            "key:",
            "1 ",
            "1-",
            "::1:",
            "Ann Lee ",
            "A-",
            "é",
            "(",
            "4111 1111 1111 1111 ",
            "born 1/2/1990 ",
        ] {
            let cell = piece.repeat((1 << 20) / piece.len());
            let found = scanner.scan(&cell, &hints);
            assert!(found.windows(2).all(|pair| pair[0].end <= pair[1].start), "{piece}");
        }
    }

    proptest::proptest! {
        #[test]
        fn findings_are_ordered_disjoint_and_on_character_borders(cell in "\\PC{0,80}|([A-Z][a-z]{1,8}|[0-9]{1,9}|[-+. :@/()é]|card|born|rue|0x|ssn){0,16}", column in "[a-z_]{0,12}|ssn|address|name|dob|ip|password") {
            let mut scanner = Scanner::new();
            let found = scanner.scan(&cell, &ColumnHints::of(&column));
            proptest::prop_assert!(found.windows(2).all(|pair| pair[0].end <= pair[1].start));
            for found in found {
                proptest::prop_assert!(cell.get(found.start..found.end).is_some_and(|text| !text.is_empty()));
            }
        }
    }
}
