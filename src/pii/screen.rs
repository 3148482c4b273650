//! Screens a column: replaces personal data by tokens, and keeps its normal form for hashing in memory.
//!
//! A token is
//!
//! ```text
//! type ":" key id ":" base32lower(HMAC-SHA-256(K, "hk/pii-token/v1" 00 ‖ type ‖ 00 ‖ normal form))[..26]
//! ```
//!
//! (130 bits, no padding; K is the token key of `domain::keys`, the normal form that of [`super::normal`]). While two token keys
//! write, a cell that is one finding as a whole becomes the token of the present key, a space, and that of the earlier one: keys
//! that rows are joined by can be followed across a rotation. Inside other text the present key's token stands alone.
//! Beside the tokenised column comes the *normalised* one, in which each finding is `type:normal form`: rows are
//! hashed from it, so that a rotation of the token key does not make every old row new again. It holds personal
//! data and must never leave the memory of the process.
//!
//! Invariants: what becomes of a cell, and the type of the column, depend on the cell, the column's name and
//! its rule, never on other cells. A column without findings is returned as it came, without a copy.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use thiserror::Error;

use super::column::ColumnHints;
use super::generalise::{Generalisation, generalise};
use super::kinds::{Kinds, PiiType};
use super::normal::normalise;
use super::scan::{Found, Scanner};
use super::vote::{self, Undeclared};
use crate::domain::keys::{KeyRing, TokenKey};

/// Characters of a token's digest: 130 bits.
const DIGEST_CHARS: usize = 26;

/// What a contract says about the personal data in a column.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Policy {
    /// Replace it by tokens.
    #[default]
    Hash,
    /// Empty the column.
    Drop,
    /// Keep only a coarse part of each cell.
    Generalise(Generalisation),
    /// Keep the column as it is.
    Keep {
        /// Why, as the contract records it.
        reason: String,
    },
}

/// The contract's line about one column.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ColumnRule {
    /// What to do with personal data.
    pub policy: Policy,
    /// The kind that every cell of the column is, if the contract says so.
    pub declared: Option<PiiType>,
}

/// Why a column could not be screened.
#[derive(Debug, Error)]
pub enum ScreenError {
    /// The column's type cannot be read as text.
    #[error(
        "column `{column}` of type {found} cannot be screened: {source}\nhelp: declare it as text, or as free of personal data with a reason"
    )]
    Type {
        /// Name of the column.
        column: String,
        /// Its Arrow type.
        found: DataType,
        /// Arrow's complaint.
        source: ArrowError,
    },
}

/// A screened column.
#[derive(Debug, Clone)]
pub struct ColumnOutcome {
    /// What may be stored and published.
    pub tokenised: ArrayRef,
    /// The same cells with each finding as `type:normal form`: for hashing in memory only.
    pub normalised: ArrayRef,
    /// Findings by kind.
    pub counts: BTreeMap<PiiType, u64>,
    /// Cells that are not null.
    pub cells: u64,
    /// What most cells are, if neither the contract nor the column's name says so.
    pub undeclared: Option<Undeclared>,
}

/// Screens one column of one model, batch after batch.
pub struct ColumnScreener {
    name: String,
    hints: ColumnHints,
    rule: ColumnRule,
    key: TokenKey,
    /// The earlier key, up to when it writes, and whether it does now.
    earlier: Option<(TokenKey, i64)>,
    dual_write: bool,
    scanner: Scanner,
    /// Reused from batch to batch: findings with their row.
    findings: Vec<(usize, Found)>,
}

impl ColumnScreener {
    /// A screener for the column `name` under `rule`, with the ring's current token key.
    pub fn new(ring: &KeyRing, name: &str, rule: ColumnRule) -> Self {
        let hints = ColumnHints::of(name);
        Self {
            name: name.to_owned(),
            hints,
            rule,
            key: ring.token_key().clone(),
            earlier: ring.dual_write().map(|(key, until)| (key.clone(), until)),
            dual_write: false,
            scanner: Scanner::new(),
            findings: Vec::new(),
        }
    }

    /// The type of the tokenised column for cells of type `input`: text wherever tokens may stand.
    pub fn output_type(&self, input: &DataType) -> DataType {
        match &self.rule.policy {
            Policy::Generalise(Generalisation::BirthYear) => DataType::Int32,
            Policy::Generalise(_) => DataType::Utf8,
            Policy::Hash if self.is_screened(input) && !is_text(input) => DataType::Utf8,
            _ => input.clone(),
        }
    }

    /// What is screened from now on was appended then (milliseconds UTC): a recorded time, on which two token keys part.
    pub fn appended(&mut self, time: i64) {
        self.dual_write = self.earlier.as_ref().is_some_and(|(_, until)| time < *until);
    }

    /// Screens one batch of the column.
    ///
    /// # Errors
    /// [`ScreenError::Type`] if the column cannot be read as text.
    pub fn screen(&mut self, array: &ArrayRef) -> Result<ColumnOutcome, ScreenError> {
        let cells = (array.len() - array.logical_null_count()) as u64;
        let unchanged = || ColumnOutcome {
            tokenised: array.clone(),
            normalised: array.clone(),
            counts: BTreeMap::new(),
            cells,
            undeclared: None,
        };
        if matches!(self.rule.policy, Policy::Keep { .. }) {
            return Ok(unchanged());
        }
        if !self.is_screened(array.data_type()) {
            return Ok(ColumnOutcome { undeclared: self.vote_on_numbers(array), ..unchanged() });
        }
        let text = self.as_text(array)?;
        let text = text.as_string::<i32>();
        self.find(text);
        let mut outcome = unchanged();
        for (_, found) in &self.findings {
            *outcome.counts.entry(found.kind).or_default() += 1;
        }
        outcome.undeclared = self.vote(text, cells);
        if !self.findings.is_empty() || !is_text(array.data_type()) {
            outcome.normalised = self.back(array, self.rewrite(text, Self::put_normal))?;
        }
        outcome.tokenised = match &self.rule.policy {
            Policy::Hash if self.findings.is_empty() => outcome.normalised.clone(),
            Policy::Hash => self.back(array, self.rewrite(text, Self::put_token))?,
            Policy::Drop => new_null_array(array.data_type(), array.len()),
            Policy::Generalise(how) => generalise(*how, text),
            Policy::Keep { .. } => array.clone(),
        };
        Ok(outcome)
    }

    /// Whether cells of this type may hold personal data. Numbers and dates are features unless the column's name
    /// or the contract says otherwise.
    fn is_screened(&self, input: &DataType) -> bool {
        const NUMBERS: Kinds = Kinds::of(PiiType::ALL).without(Kinds::of(&[
            PiiType::BirthDate,
            PiiType::Geo,
            PiiType::Secret,
            PiiType::Address,
            PiiType::Ip,
        ]));
        let spoken_for = self.rule.declared.is_some() || self.rule.policy != Policy::Hash;
        let firm = |kinds| self.hints.firm && self.hints.kinds.meets(kinds);
        match input {
            _ if is_text(input) => true,
            DataType::Null => false,
            _ if spoken_for => true,
            _ if input.is_integer() => firm(NUMBERS),
            DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => firm(Kinds::of(&[PiiType::BirthDate])),
            _ => false,
        }
    }

    /// The vote on the present findings; a column that the contract has a line about needs none.
    fn vote(&self, text: &StringArray, cells: u64) -> Option<Undeclared> {
        let open = self.rule == ColumnRule::default() && !self.findings.is_empty();
        open.then(|| vote::vote(&self.hints, &vote::whole_cells(text, &self.findings), cells)).flatten()
    }

    /// Numbers stay numbers, so none is replaced by a token: all the more a column of card numbers must be settled.
    fn vote_on_numbers(&mut self, array: &ArrayRef) -> Option<Undeclared> {
        let numbers = vote::long_numbers(array)?;
        self.find(&numbers);
        self.vote(&numbers, (array.len() - array.null_count()) as u64)
    }

    fn as_text(&self, array: &ArrayRef) -> Result<ArrayRef, ScreenError> {
        cast(array, &DataType::Utf8).map_err(|source| ScreenError::Type {
            column: self.name.clone(),
            found: array.data_type().clone(),
            source,
        })
    }

    /// Text columns keep their layout, whether or not this batch has findings.
    fn back(&self, array: &ArrayRef, text: StringArray) -> Result<ArrayRef, ScreenError> {
        let wanted = if is_text(array.data_type()) { array.data_type() } else { &DataType::Utf8 };
        let text: ArrayRef = Arc::new(text);
        cast(&text, wanted).map_err(|source| ScreenError::Type {
            column: self.name.clone(),
            found: array.data_type().clone(),
            source,
        })
    }

    fn find(&mut self, text: &StringArray) {
        self.findings.clear();
        for row in (0..text.len()).filter(|row| text.is_valid(*row)) {
            let cell = text.value(row);
            match self.rule.declared {
                Some(kind) if !cell.trim().is_empty() => {
                    self.findings.push((row, Found { start: 0, end: cell.len(), kind }))
                }
                Some(_) => {}
                None => self.findings.extend(self.scanner.scan(cell, &self.hints).iter().map(|found| (row, *found))),
            }
        }
    }

    /// The column with every finding replaced by what `put` writes.
    fn rewrite(&self, text: &StringArray, put: fn(&Self, &Found, &str, &mut Scratch)) -> StringArray {
        let mut out = StringBuilder::with_capacity(text.len(), text.value_data().len() + 24 * self.findings.len());
        let mut findings = self.findings.iter().peekable();
        let mut scratch = Scratch::default();
        for row in 0..text.len() {
            if text.is_null(row) {
                out.append_null();
                continue;
            }
            let cell = text.value(row);
            let mut copied = 0;
            scratch.cell.clear();
            while let Some((_, found)) = findings.next_if(|(at, _)| *at == row) {
                scratch.cell.push_str(&cell[copied..found.start]);
                scratch.whole = found.end - found.start == cell.len();
                put(self, found, &cell[found.start..found.end], &mut scratch);
                copied = found.end;
            }
            if copied == 0 {
                out.append_value(cell);
            } else {
                scratch.cell.push_str(&cell[copied..]);
                out.append_value(&scratch.cell);
            }
        }
        out.finish()
    }

    fn put_normal(&self, found: &Found, value: &str, scratch: &mut Scratch) {
        scratch.cell.push_str(found.kind.name());
        scratch.cell.push(':');
        normalise(found.kind, value, &mut scratch.cell);
    }

    fn put_token(&self, found: &Found, value: &str, scratch: &mut Scratch) {
        scratch.normal.clear();
        normalise(found.kind, value, &mut scratch.normal);
        put_token(&self.key, found.kind, &scratch.normal, &mut scratch.cell);
        if let Some((earlier, _)) = self.earlier.as_ref().filter(|_| self.dual_write && scratch.whole) {
            scratch.cell.push(' ');
            put_token(earlier, found.kind, &scratch.normal, &mut scratch.cell);
        }
    }
}

/// Buffers that are reused from cell to cell.
#[derive(Default)]
struct Scratch {
    cell: String,
    normal: String,
    /// The finding is its whole cell.
    whole: bool,
}

/// The token of a value, which is of `kind`.
pub fn token(key: &TokenKey, kind: PiiType, value: &str) -> String {
    let (mut normal, mut out) = (String::new(), String::new());
    normalise(kind, value, &mut normal);
    put_token(key, kind, &normal, &mut out);
    out
}

fn put_token(key: &TokenKey, kind: PiiType, normal: &str, out: &mut String) {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let digest = key.mac().digest(&[kind.name().as_bytes(), &[0], normal.as_bytes()]);
    out.push_str(kind.name());
    out.push(':');
    out.push_str(key.id());
    out.push(':');
    let (mut bits, mut held, mut left) = (0_u32, 0_u32, DIGEST_CHARS);
    for byte in digest {
        bits = bits << 8 | u32::from(byte);
        held += 8;
        while held >= 5 && left > 0 {
            held -= 5;
            left -= 1;
            out.push(char::from(LETTERS[(bits >> held & 31) as usize]));
        }
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Date32Array, DictionaryArray, Int64Array};
    use arrow::datatypes::Int32Type;

    use super::*;

    fn ring() -> KeyRing {
        let hex = |digit: char| digit.to_string().repeat(64);
        KeyRing::from_json(&format!(
            r#"{{"version":1,"tenant":"acme","tokens":[{{"id":"k1","secret":"{}"}}],"dedup":"{}","tree":"{}"}}"#,
            hex('1'),
            hex('2'),
            hex('3')
        ))
        .unwrap()
    }

    fn screen_as(name: &str, rule: ColumnRule, array: impl Array + 'static) -> ColumnOutcome {
        let array: ArrayRef = Arc::new(array);
        let mut screener = ColumnScreener::new(&ring(), name, rule);
        let outcome = screener.screen(&array).unwrap();
        assert_eq!(*outcome.tokenised.data_type(), screener.output_type(array.data_type()));
        outcome
    }

    fn screen(name: &str, array: impl Array + 'static) -> ColumnOutcome {
        screen_as(name, ColumnRule::default(), array)
    }

    fn texts(array: &ArrayRef) -> Vec<Option<String>> {
        let text = cast(array, &DataType::Utf8).unwrap();
        text.as_string::<i32>().iter().map(|cell| cell.map(str::to_owned)).collect()
    }

    #[test]
    fn tokens_are_frozen() {
        // Recomputed with Python's hmac and base64 from the module documentation.
        assert_eq!(
            token(ring().token_key(), PiiType::Email, "Ann@Example.org"),
            "email_address:k1:osirmnjxqfvhmk6gf27jugrole"
        );
        assert_eq!(
            token(ring().token_key(), PiiType::Phone, "(212) 555-0100"),
            "phone_number:k1:yp5s62yhtdtuuwizc7f2ez3qzq"
        );
    }

    #[test]
    fn free_text_keeps_everything_but_the_findings() {
        let outcome =
            screen("note", StringArray::from(vec![Some("mail Ann@Example.org, soon"), None, Some("nothing here")]));
        let token = token(ring().token_key(), PiiType::Email, "ann@example.org");
        assert_eq!(
            texts(&outcome.tokenised),
            [Some(format!("mail {token}, soon")), None, Some("nothing here".to_owned())]
        );
        assert_eq!(texts(&outcome.normalised)[0].as_deref(), Some("mail email_address:ann@example.org, soon"));
        assert_eq!(outcome.counts, BTreeMap::from([(PiiType::Email, 1)]));
        assert_eq!(outcome.cells, 2);
    }

    #[test]
    fn a_clean_column_is_not_copied() {
        let array: ArrayRef = Arc::new(StringArray::from(vec!["a", "Month-to-month", "12.5"]));
        let outcome = ColumnScreener::new(&ring(), "contract", ColumnRule::default()).screen(&array).unwrap();
        assert!(Arc::ptr_eq(&outcome.tokenised, &array) && Arc::ptr_eq(&outcome.normalised, &array));
    }

    #[test]
    fn a_cell_gets_the_same_token_alone_and_among_others_and_in_every_layout() {
        let cells = ["Ann@Example.org", "clean", "call 212-555-0100"];
        let all = texts(&screen("note", StringArray::from(cells.to_vec())).tokenised);
        for (cell, expected) in cells.iter().zip(&all) {
            assert_eq!(texts(&screen("note", StringArray::from(vec![*cell])).tokenised)[0], *expected);
        }
        let dictionary = screen("note", DictionaryArray::<Int32Type>::from_iter(cells));
        assert_eq!(texts(&dictionary.tokenised), all);
        assert!(matches!(dictionary.tokenised.data_type(), DataType::Dictionary(..)));
    }

    #[test]
    fn numbers_become_text_when_the_columns_name_makes_them_personal_even_if_this_batch_is_clean() {
        let outcome = screen("ssn", Int64Array::from(vec![Some(219_099_999), None]));
        assert!(texts(&outcome.tokenised)[0].as_ref().unwrap().starts_with("us_ssn:k1:"));
        assert_eq!(texts(&outcome.normalised)[0].as_deref(), Some("us_ssn:219099999"));
        assert_eq!(*screen("ssn", Int64Array::from(vec![7])).tokenised.data_type(), DataType::Utf8);
        assert_eq!(*screen("amount", Int64Array::from(vec![219_099_999])).tokenised.data_type(), DataType::Int64);
        assert_eq!(*screen("phone_count", Int64Array::from(vec![3])).tokenised.data_type(), DataType::Int64);
        let born = screen("date_of_birth", Date32Array::from(vec![1182]));
        assert_eq!(texts(&born.normalised)[0].as_deref(), Some("date_of_birth:1973-03-28"));
    }

    #[test]
    fn a_declared_column_is_tokenised_whatever_its_cells_look_like() {
        let rule = || ColumnRule { declared: Some(PiiType::Phone), policy: Policy::Hash };
        let outcome =
            screen_as("c7", rule(), StringArray::from(vec!["(212) 555-0100", "+12125550100", "ask Bob", " "]));
        let tokens = texts(&outcome.tokenised);
        assert_eq!(tokens[0], tokens[1]);
        assert!(tokens[2].as_ref().unwrap().starts_with("phone_number:k1:"));
        assert_eq!(tokens[3].as_deref(), Some(" "));
    }

    #[test]
    fn policies_drop_keep_or_coarsen() {
        let rule = |policy| ColumnRule { policy, declared: None };
        let mail = || StringArray::from(vec!["ann@example.org"]);
        assert_eq!(texts(&screen_as("email", rule(Policy::Drop), mail()).tokenised), [None]);
        assert_eq!(
            texts(&screen_as("email", rule(Policy::Keep { reason: "public list".to_owned() }), mail()).tokenised)[0]
                .as_deref(),
            Some("ann@example.org")
        );
        let coarse =
            |how, cells: Vec<&str>| screen_as("c", rule(Policy::Generalise(how)), StringArray::from(cells)).tokenised;
        assert_eq!(texts(&coarse(Generalisation::Zip3, vec!["94103-1234", "9410"])), [Some("941".to_owned()), None]);
        assert_eq!(
            texts(&coarse(Generalisation::Ip24, vec!["203.0.113.9", "2001:db8:1:2::3", "x"])),
            [Some("203.0.113.0/24".to_owned()), Some("2001:db8:1::/48".to_owned()), None]
        );
        assert_eq!(texts(&coarse(Generalisation::BirthYear, vec!["28/03/1973", "?"])), [Some("1973".to_owned()), None]);
    }

    #[test]
    fn tokens_change_with_the_key_but_normal_forms_do_not() {
        let array: ArrayRef = Arc::new(StringArray::from(vec!["ann@example.org"]));
        let mut ring = ring();
        let before = ColumnScreener::new(&ring, "email", ColumnRule::default()).screen(&array).unwrap();
        ring.rotate().unwrap();
        let after = ColumnScreener::new(&ring, "email", ColumnRule::default()).screen(&array).unwrap();
        assert_ne!(texts(&before.tokenised), texts(&after.tokenised));
        assert_eq!(texts(&before.normalised), texts(&after.normalised));
    }

    #[test]
    fn while_two_keys_write_a_whole_cell_bears_both_tokens_and_free_text_the_present_ones() {
        let array: ArrayRef = Arc::new(StringArray::from(vec!["ann@example.org", "write to ann@example.org"]));
        let mut ring = ring();
        let earlier = token(ring.token_key(), PiiType::Email, "ann@example.org");
        ring.rotate().unwrap();
        ring.open_dual_write(1_000);
        let present = token(ring.token_key(), PiiType::Email, "ann@example.org");
        let mut screener = ColumnScreener::new(&ring, "contact", ColumnRule::default());
        screener.appended(999);
        let both = screener.screen(&array).unwrap();
        assert_eq!(texts(&both.tokenised), [Some(format!("{present} {earlier}")), Some(format!("write to {present}"))]);
        screener.appended(1_000);
        let one = screener.screen(&array).unwrap();
        assert_eq!(texts(&one.tokenised), [Some(present.clone()), Some(format!("write to {present}"))]);
        assert_eq!(texts(&both.normalised), texts(&one.normalised));
    }
}
