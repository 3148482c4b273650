//! Identifiers made of digits and letters: which kinds a run of characters can be.
//!
//! A [`Candidate`] is a run such as `4111 1111 1111 1111` or `X-1234567-L`: groups of letters and digits
//! joined by single separators. Three questions are asked of it, from strict to lax:
//!
//! - [`Candidate::free`]: which kind is it without any context? Only patterns that nothing else shares.
//! - [`Candidate::strict`]: is it this kind, given that a word announced the kind? Length and check digits.
//! - [`Candidate::lenient`]: given that a column holds nothing else? Length and letters only, for a typing
//!   error does not make a number less personal.

use super::checks::{self as check, number};
use super::kinds::{Kinds, PiiType};

/// Longest identifier, in letters and digits.
const MAX_COMPACT: usize = 40;
/// Most groups in an identifier.
pub(super) const MAX_GROUPS: usize = 10;

/// Kinds that a candidate can be, in the order in which they are tried.
const ORDER: &[PiiType] = &[
    PiiType::Iban,
    PiiType::CnId,
    PiiType::FrNir,
    PiiType::ItFiscalCode,
    PiiType::UsMbi,
    PiiType::FiHetu,
    PiiType::EsNif,
    PiiType::EsNie,
    PiiType::SgNric,
    PiiType::UkNino,
    PiiType::InPan,
    PiiType::UsDea,
    PiiType::Vin,
    PiiType::Imei,
    PiiType::Card,
    PiiType::ZaId,
    PiiType::KrRrn,
    PiiType::SePersonnummer,
    PiiType::InAadhaar,
    PiiType::TrId,
    PiiType::PlPesel,
    PiiType::BrCpf,
    PiiType::DeTaxId,
    PiiType::UkNhs,
    PiiType::AuMedicare,
    PiiType::UsNpi,
    PiiType::UsAba,
    PiiType::NlBsn,
    PiiType::AuTfn,
    PiiType::CaSin,
    PiiType::UsItin,
    PiiType::UsSsn,
    PiiType::Passport,
    PiiType::DriverLicence,
    PiiType::Phone,
    PiiType::BankAccount,
];

/// A run of groups of letters and digits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    /// The letters and digits, in upper case.
    compact: [u8; MAX_COMPACT],
    length: usize,
    digits: usize,
    /// Lengths of the groups.
    groups: [u8; MAX_GROUPS],
    group_count: usize,
    /// Which separators occur.
    space: bool,
    hyphen: bool,
    dot: bool,
    slash: bool,
    paren: bool,
    pub(super) plus: bool,
    lower: bool,
    /// The separator after the first group.
    first_separator: u8,
}

impl Candidate {
    /// Reads a run; `None` if it is longer than any identifier or has other characters.
    pub(super) fn read(run: &[u8]) -> Option<Self> {
        let mut out = Self {
            compact: [0; MAX_COMPACT],
            length: 0,
            digits: 0,
            groups: [0; MAX_GROUPS],
            group_count: 0,
            space: false,
            hyphen: false,
            dot: false,
            slash: false,
            paren: false,
            plus: false,
            lower: false,
            first_separator: 0,
        };
        let mut inside = false;
        for (at, &byte) in run.iter().enumerate() {
            if byte.is_ascii_alphanumeric() {
                if !inside {
                    out.group_count += 1;
                }
                *out.groups.get_mut(out.group_count - 1)? += 1;
                *out.compact.get_mut(out.length)? = byte.to_ascii_uppercase();
                out.length += 1;
                out.digits += usize::from(byte.is_ascii_digit());
                out.lower |= byte.is_ascii_lowercase();
                inside = true;
                continue;
            }
            if out.group_count == 1 && inside {
                out.first_separator = byte;
            }
            inside = false;
            match byte {
                b' ' | 0xc2 | 0xa0 => out.space = true,
                b'-' => out.hyphen = true,
                b'.' => out.dot = true,
                b'/' => out.slash = true,
                b'(' | b')' => out.paren = true,
                b'+' if at == 0 => out.plus = true,
                b'+' => out.hyphen = true,
                _ => return None,
            }
        }
        (out.length > 0).then_some(out)
    }

    /// Letters and digits, in upper case, without separators.
    pub(super) fn compact(&self) -> &[u8] {
        &self.compact[..self.length]
    }

    fn numeric(&self, length: usize) -> bool {
        self.length == length && self.digits == length
    }

    fn grouped(&self, lengths: &[u8]) -> bool {
        &self.groups[..self.group_count] == lengths
    }

    fn bare(&self) -> bool {
        self.group_count == 1
    }

    /// The kind, if a word before it announced some of `announced`.
    pub(super) fn announced(&self, announced: Kinds) -> Option<PiiType> {
        // An `ID card` is no payment card: a date of birth and a check digit in 18 digits are no chance.
        if self.length == 18 && announced.has(PiiType::Card) && self.strict(PiiType::CnId) {
            return Some(PiiType::CnId);
        }
        ORDER.iter().copied().find(|kind| announced.has(*kind) && self.strict(*kind))
    }

    /// The kind in a column that holds `held` and nothing else.
    pub(super) fn held(&self, held: Kinds) -> Option<PiiType> {
        self.announced(held).or_else(|| ORDER.iter().copied().find(|kind| held.has(*kind) && self.lenient(*kind)))
    }

    /// Whether it is an identifier of `kind`, which was announced.
    pub(super) fn strict(&self, kind: PiiType) -> bool {
        let id = self.compact();
        match kind {
            PiiType::Card => check::card(id),
            PiiType::Iban => check::iban(id),
            PiiType::UsSsn => check::ssn(id) && !self.grouped(&[3, 3, 3]),
            PiiType::UsItin => check::itin(id) && !self.grouped(&[3, 3, 3]),
            PiiType::UsNpi => check::npi(id),
            PiiType::UsMbi => check::mbi(id),
            PiiType::UsAba => check::aba(id),
            PiiType::UsDea => check::dea(id),
            PiiType::UkNhs => check::nhs(id),
            PiiType::UkNino => check::nino(id),
            PiiType::EsNif => check::nif(id),
            PiiType::EsNie => check::nie(id),
            PiiType::ItFiscalCode => check::it_fiscal_code(id),
            PiiType::PlPesel => check::pesel(id),
            PiiType::InAadhaar => check::aadhaar(id),
            PiiType::InPan => check::in_pan(id),
            PiiType::AuTfn => check::tfn(id) && !self.grouped(&[3, 2, 4]),
            PiiType::AuMedicare => check::au_medicare(id),
            PiiType::CaSin => check::sin(id) && !self.grouped(&[3, 2, 4]),
            PiiType::DeTaxId => check::de_tax_id(id),
            PiiType::SgNric => check::nric(id),
            PiiType::FiHetu => self.hetu(),
            PiiType::KrRrn => check::rrn(id, false),
            PiiType::SePersonnummer => check::personnummer(id),
            PiiType::ZaId => check::za_id(id),
            PiiType::TrId => check::tr_id(id),
            PiiType::BrCpf => check::cpf(id),
            PiiType::NlBsn => check::bsn(id),
            PiiType::FrNir => check::nir(id),
            PiiType::CnId => check::cn_id(id),
            PiiType::Imei => check::imei(id),
            PiiType::Vin => check::vin_shape(id),
            PiiType::Passport => self.passport(),
            PiiType::DriverLicence => self.driver_licence(),
            PiiType::BankAccount => {
                self.numeric(self.length) && (6..=17).contains(&self.length) && !self.dotted() && !self.slash
            }
            PiiType::Phone => self.phone(),
            _ => false,
        }
    }

    /// Whether it has the length and the letters of `kind`.
    fn lenient(&self, kind: PiiType) -> bool {
        let id = self.compact();
        let one_letter = |first: bool, digits: usize| {
            let (letter, rest) = if first { (id.first(), id.get(1..)) } else { (id.last(), id.get(..id.len() - 1)) };
            letter.is_some_and(u8::is_ascii_uppercase) && rest.is_some_and(|rest| check::is_digits(rest, digits))
        };
        match kind {
            PiiType::Card => self.numeric(self.length) && (13..=19).contains(&self.length),
            PiiType::Iban => {
                self.length >= 15 && id[..2].iter().all(u8::is_ascii_uppercase) && check::is_digits(&id[2..4], 2)
            }
            PiiType::UsSsn | PiiType::UsItin | PiiType::UsAba | PiiType::AuTfn | PiiType::CaSin | PiiType::NlBsn => {
                self.numeric(9)
            }
            PiiType::UkNhs | PiiType::UsNpi => self.numeric(10),
            PiiType::AuMedicare => self.numeric(10) || self.numeric(11),
            PiiType::PlPesel | PiiType::DeTaxId | PiiType::TrId | PiiType::BrCpf => self.numeric(11),
            PiiType::InAadhaar => self.numeric(12),
            PiiType::KrRrn | PiiType::ZaId => self.numeric(13),
            PiiType::FrNir | PiiType::Imei => self.numeric(15) || self.numeric(13) && kind == PiiType::FrNir,
            PiiType::SePersonnummer => self.numeric(10) || self.numeric(12),
            PiiType::CnId => self.numeric(18) || one_letter(false, 17),
            PiiType::EsNif => one_letter(false, 8),
            PiiType::EsNie | PiiType::SgNric => self.length == 9 && self.digits == 7,
            PiiType::UkNino => self.length == 9 && self.digits == 6,
            PiiType::UsDea => self.length == 9 && self.digits >= 7,
            PiiType::FiHetu => self.length == 10 && self.digits >= 9,
            PiiType::ItFiscalCode => self.length == 16 && self.digits < 10,
            PiiType::InPan => self.length == 10 && self.digits == 4,
            PiiType::UsMbi => self.length == 11 && (4..=6).contains(&self.digits),
            PiiType::Phone => self.digits == self.length && (5..=15).contains(&self.length),
            _ => false,
        }
    }

    /// The kind without any context; `named_other` tells that a word or the column announced another number,
    /// in which case a check digit alone is not enough.
    pub(super) fn free(&self, named_other: bool) -> Option<PiiType> {
        if self.digits == self.length { self.free_digits(named_other) } else { self.free_letters(named_other) }
    }

    fn free_digits(&self, named_other: bool) -> Option<PiiType> {
        let hyphens = self.hyphen && !self.space && !self.dot && !self.slash && !self.paren;
        let spaces = self.space && !self.hyphen && !self.dot && !self.slash && !self.paren;
        if self.plus {
            return (self.phone() && self.length >= 8).then_some(PiiType::Phone);
        }
        let is = |kind| self.strict(kind).then_some(kind);
        let found = match self.length {
            9 if hyphens && self.grouped(&[3, 2, 4]) => is(PiiType::UsSsn).or_else(|| is(PiiType::UsItin)),
            10 | 12 if self.group_count == 2 && self.groups[1] == 4 && b"-+".contains(&self.first_separator) => {
                is(PiiType::SePersonnummer).or_else(|| is(PiiType::FiHetu))
            }
            10 | 11 if self.grouped(&[4, 5, 1]) || self.grouped(&[4, 5, 1, 1]) => is(PiiType::AuMedicare),
            10 if self.grouped(&[3, 3, 4])
                && (hyphens || self.paren || self.dotted())
                && check::nanp(self.compact()) =>
            {
                Some(PiiType::Phone)
            }
            11 if self.grouped(&[1, 3, 3, 4]) && self.compact[0] == b'1' && check::nanp(&self.compact()[1..]) => {
                Some(PiiType::Phone)
            }
            11 if self.grouped(&[3, 3, 3, 2]) && self.dot && self.hyphen => is(PiiType::BrCpf),
            11 if spaces && self.grouped(&[2, 3, 3, 3]) => is(PiiType::DeTaxId),
            12 if (spaces || hyphens) && self.grouped(&[4, 4, 4]) => is(PiiType::InAadhaar),
            13 if hyphens && self.grouped(&[6, 7]) && check::rrn(self.compact(), true) => Some(PiiType::KrRrn),
            _ => None,
        };
        if found.is_some() || named_other {
            return found;
        }
        match self.length {
            15 if self.bare() || spaces => is(PiiType::FrNir).or_else(|| is(PiiType::Card)),
            18 if self.bare() => is(PiiType::CnId).or_else(|| is(PiiType::Card)),
            14..=19 if self.bare() || (spaces || hyphens) && self.card_groups() => is(PiiType::Card),
            _ => None,
        }
    }

    fn free_letters(&self, named_other: bool) -> Option<PiiType> {
        if self.strict(PiiType::Iban) {
            return Some(PiiType::Iban);
        }
        if self.strict(PiiType::FrNir) {
            return Some(PiiType::FrNir);
        }
        // Lower case is typical of digests and identifiers of machines.
        if self.lower || self.dot && !self.hyphen || self.slash || self.paren || self.plus {
            return None;
        }
        let strong = [PiiType::ItFiscalCode, PiiType::CnId, PiiType::FiHetu, PiiType::UsMbi];
        let weak = [PiiType::EsNie, PiiType::SgNric, PiiType::UkNino, PiiType::EsNif, PiiType::InPan];
        let compactly =
            self.bare() || self.hyphen && !self.space || self.group_count <= 5 && self.strict(PiiType::UkNino);
        let found = strong.into_iter().find(|kind| compactly && self.strict(*kind));
        if found.is_some() || named_other {
            return found;
        }
        if self.bare() && check::vin(self.compact()) && (3..=14).contains(&self.digits) {
            return Some(PiiType::Vin);
        }
        weak.into_iter().find(|kind| compactly && self.strict(*kind))
    }

    fn card_groups(&self) -> bool {
        self.grouped(&[4, 4, 4, 4])
            || self.grouped(&[4, 6, 5])
            || self.grouped(&[4, 6, 4])
            || self.grouped(&[4, 4, 4, 4, 3])
    }

    fn dotted(&self) -> bool {
        self.dot && !self.space && !self.hyphen
    }

    fn hetu(&self) -> bool {
        let id = self.compact();
        if self.length == 11 {
            return check::hetu(id);
        }
        // With `-` or `+` the century's sign is the separator.
        if self.length != 10 || !self.grouped(&[6, 4]) || !b"-+".contains(&self.first_separator) {
            return false;
        }
        let mut signed = [0; 11];
        signed[..6].copy_from_slice(&id[..6]);
        signed[6] = self.first_separator;
        signed[7..].copy_from_slice(&id[6..]);
        check::hetu(&signed)
    }

    fn passport(&self) -> bool {
        let letters = self.compact().iter().take_while(|byte| byte.is_ascii_uppercase()).count();
        let trailing = self.length > 8 && self.compact()[self.length - 1].is_ascii_uppercase();
        self.bare()
            && letters <= 3
            && letters + self.digits + usize::from(trailing && letters < self.length) == self.length
            && (6..=9).contains(&self.digits)
            || self.bare() && self.length == 9 && (4..=8).contains(&self.digits) && !self.lower
    }

    fn driver_licence(&self) -> bool {
        (5..=18).contains(&self.length) && self.digits >= 4 && !self.dot && !self.slash && !self.paren && !self.plus
    }

    /// A telephone number that was announced, or starts with `+`.
    fn phone(&self) -> bool {
        let enough = if self.plus { 7 } else { 6 };
        self.digits == self.length
            && (enough..=15).contains(&self.length)
            && !self.date()
            && (!self.plus || self.compact[0] != b'0')
    }

    /// Whether the groups read as a date: `2024-01-31`, `31.01.2024`, `20240131`.
    fn date(&self) -> bool {
        let id = self.compact();
        let year = |digits: &[u8]| (1900..2100).contains(&number(digits));
        if self.plus || self.length < 6 {
            return false;
        }
        if self.group_count >= 3 && self.groups[..3] == [4, 2, 2] || self.length == 8 && self.bare() {
            return self.length >= 8 && year(&id[..4]) && check::is_date(2000, number(&id[4..6]), number(&id[6..8]));
        }
        let (day, month) = (usize::from(self.groups[0]), usize::from(self.groups[1]));
        self.group_count >= 3
            && day <= 2
            && month <= 2
            && self.groups[2] == 4
            && year(&id[day + month..day + month + 4])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(text: &str) -> Option<PiiType> {
        Candidate::read(text.as_bytes()).and_then(|candidate| candidate.free(false))
    }

    fn announced(kind: PiiType, text: &str) -> bool {
        Candidate::read(text.as_bytes()).is_some_and(|candidate| candidate.strict(kind))
    }

    #[test]
    fn published_examples_of_every_checked_kind_are_recognised() {
        // Examples from the issuers' own documents and from ISO standards.
        for (kind, example) in [
            (PiiType::Card, "4111 1111 1111 1111"),
            (PiiType::Card, "5555555555554444"),
            (PiiType::Card, "2223003122003222"),
            (PiiType::Card, "378282246310005"),
            (PiiType::Iban, "GB82 WEST 1234 5698 7654 32"),
            (PiiType::UsSsn, "219-09-9999"),
            (PiiType::UsItin, "900-70-0000"),
            (PiiType::UsNpi, "1234567893"),
            (PiiType::UsMbi, "1EG4-TE5-MK73"),
            (PiiType::UsAba, "111000025"),
            (PiiType::UsDea, "AB1234563"),
            (PiiType::UkNhs, "943 476 5919"),
            (PiiType::UkNino, "AB 12 34 56 C"),
            (PiiType::EsNif, "12345678Z"),
            (PiiType::EsNif, "12.345.678-Z"),
            (PiiType::EsNie, "X-1234567-L"),
            (PiiType::ItFiscalCode, "RSSMRA85T10A562S"),
            (PiiType::PlPesel, "44051401359"),
            (PiiType::InPan, "ABCPE1234F"),
            (PiiType::AuTfn, "123 456 782"),
            (PiiType::AuMedicare, "2123 45670 1"),
            (PiiType::CaSin, "130 692 544"),
            (PiiType::DeTaxId, "86 095 742 719"),
            (PiiType::SgNric, "S1234567D"),
            (PiiType::FiHetu, "131052-308T"),
            (PiiType::SePersonnummer, "811228-9874"),
            (PiiType::ZaId, "8001015009087"),
            (PiiType::TrId, "10000000146"),
            (PiiType::BrCpf, "111.444.777-35"),
            (PiiType::NlBsn, "111222333"),
            (PiiType::FrNir, "2 55 08 14 168 025 38"),
            (PiiType::CnId, "11010519491231002X"),
            (PiiType::Imei, "490154203237518"),
            (PiiType::Vin, "1M8GDM9AXKP042788"),
        ] {
            assert!(announced(kind, example), "{kind}: {example}");
            assert!(
                Candidate::read(example.as_bytes()).unwrap().announced(Kinds::of(&[kind])) == Some(kind),
                "{kind}: {example}"
            );
        }
    }

    #[test]
    fn one_wrong_digit_breaks_every_checksum() {
        for (kind, example) in [
            (PiiType::Card, "4111111111111111"),
            (PiiType::UkNhs, "9434765919"),
            (PiiType::PlPesel, "44051401359"),
            (PiiType::DeTaxId, "86095742719"),
            (PiiType::TrId, "10000000146"),
            (PiiType::BrCpf, "11144477735"),
            (PiiType::NlBsn, "111222333"),
            (PiiType::CnId, "110105194912310038"),
            (PiiType::FrNir, "255081416802538"),
            (PiiType::Imei, "490154203237518"),
        ] {
            let mut digits = example.as_bytes().to_vec();
            let last = digits.len() - 1;
            let right = digits[last];
            let others = (b'0'..=b'9').filter(|other| *other != right);
            let wrong = others.filter(|other| {
                digits[last] = *other;
                announced(kind, std::str::from_utf8(&digits).unwrap())
            });
            assert_eq!(wrong.count(), 0, "{kind}");
        }
    }

    #[test]
    fn bare_digits_are_nothing_without_context() {
        for text in [
            "219099999",
            "9434765919",
            "111222333",
            "1234567893",
            "44051401359",
            "1535226145000",
            "20160806203401",
            "2024-01-31",
            "31/01/2024",
            "8001015009087",
        ] {
            assert_eq!(free(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_input_panics(text in "\\PC{0,60}", digits in "[0-9A-Z]{0,40}") {
            for run in [text.as_bytes(), digits.as_bytes()] {
                if let Some(candidate) = Candidate::read(run) {
                    let _ = (candidate.free(false), candidate.held(Kinds::of(PiiType::ALL)));
                }
            }
        }
    }
}
