//! Check digits and date rules of identifiers. Every function takes the identifier without separators, in
//! upper-case ASCII, and is total: a wrong length or a stray letter is simply no match.

/// Value of a digit.
fn digit(byte: u8) -> u32 {
    u32::from(byte.wrapping_sub(b'0'))
}

/// Whether all bytes are digits, and there are `length` of them.
pub fn is_digits(id: &[u8], length: usize) -> bool {
    id.len() == length && id.iter().all(u8::is_ascii_digit)
}

/// The number in a run of at most 9 digits.
pub fn number(digits: &[u8]) -> u32 {
    digits.iter().fold(0, |sum, byte| sum * 10 + digit(*byte))
}

fn weighted(id: &[u8], weights: &[u32]) -> u32 {
    id.iter().zip(weights).map(|(byte, weight)| digit(*byte) * weight).sum()
}

/// Luhn's formula (ISO/IEC 7812-1, annex B).
pub fn luhn(id: &[u8]) -> bool {
    let sum: u32 = id.iter().rev().enumerate().map(|(at, byte)| luhn_term(at, digit(*byte))).sum();
    !id.is_empty() && sum.is_multiple_of(10)
}

fn luhn_term(at: usize, digit: u32) -> u32 {
    let doubled = digit * (1 + at as u32 % 2);
    doubled / 10 + doubled % 10
}

/// Verhoeff's dihedral check digit.
pub fn verhoeff(id: &[u8]) -> bool {
    const TIMES: [[u8; 10]; 10] = [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        [1, 2, 3, 4, 0, 6, 7, 8, 9, 5],
        [2, 3, 4, 0, 1, 7, 8, 9, 5, 6],
        [3, 4, 0, 1, 2, 8, 9, 5, 6, 7],
        [4, 0, 1, 2, 3, 9, 5, 6, 7, 8],
        [5, 9, 8, 7, 6, 0, 4, 3, 2, 1],
        [6, 5, 9, 8, 7, 1, 0, 4, 3, 2],
        [7, 6, 5, 9, 8, 2, 1, 0, 4, 3],
        [8, 7, 6, 5, 9, 3, 2, 1, 0, 4],
        [9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
    ];
    const TURN: [u8; 10] = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4];
    let mut check = 0;
    for (at, byte) in id.iter().rev().enumerate() {
        let turned = (0..at % 8).fold(digit(*byte) as u8, |value, _| TURN[usize::from(value % 10)]);
        check = TIMES[usize::from(check)][usize::from(turned % 10)];
    }
    !id.is_empty() && check == 0
}

/// Whether the day exists.
pub fn is_date(year: u32, month: u32, day: u32) -> bool {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(leap),
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => 0,
    };
    (1..=days).contains(&day)
}

/// `yymmdd` in a century that is not known: 29 February passes.
fn is_short_date(yymmdd: &[u8]) -> bool {
    is_digits(yymmdd, 6) && is_date(2000, number(&yymmdd[2..4]), number(&yymmdd[4..6]))
}

/// Payment card: issuer range, its lengths, Luhn.
pub fn card(id: &[u8]) -> bool {
    if !(13..=19).contains(&id.len()) || !id.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let (two, three, four) = (number(&id[..2]), number(&id[..3]), number(&id[..4]));
    let lengths: &[usize] = match () {
        () if id[0] == b'4' => &[13, 16, 19],
        () if two == 34 || two == 37 => &[15],
        () if (51..=55).contains(&two) || (2221..=2720).contains(&four) => &[16],
        () if two == 36 || two == 38 || two == 39 || (300..=305).contains(&three) => &[14, 16, 19],
        () if two == 65 || four == 6011 || (644..=649).contains(&three) => &[16, 17, 18, 19],
        () if (3528..=3589).contains(&four) => &[16, 17, 18, 19],
        () if two == 62 || two == 81 => &[16, 17, 18, 19],
        () if two == 50 || (56..=58).contains(&two) || matches!(two, 60 | 61 | 63 | 66 | 67 | 69) => {
            // Maestro and national debit schemes: 16 digits and more, for shorter ones are just numbers.
            if matches!(four, 5018 | 5020 | 5038 | 5893 | 6304 | 6759 | 6761..=6763) {
                &[13, 14, 15, 16, 17, 18, 19]
            } else {
                &[]
            }
        }
        () => &[],
    };
    lengths.contains(&id.len()) && luhn(id)
}

/// Length of an IBAN by country (SWIFT registry).
pub fn iban_length(country: &[u8]) -> Option<usize> {
    Some(match country {
        b"NO" => 15,
        b"BE" | b"BI" => 16,
        b"DK" | b"FI" | b"FO" | b"GL" | b"NL" | b"SD" | b"FK" => 18,
        b"MK" | b"SI" => 19,
        b"AT" | b"BA" | b"EE" | b"KZ" | b"LT" | b"LU" | b"XK" | b"MN" => 20,
        b"CH" | b"CR" | b"HR" | b"LI" | b"LV" => 21,
        b"BG" | b"BH" | b"DE" | b"GB" | b"GE" | b"IE" | b"ME" | b"RS" | b"VA" => 22,
        b"AE" | b"GI" | b"IL" | b"IQ" | b"OM" | b"SO" | b"TL" => 23,
        b"AD" | b"CZ" | b"ES" | b"MD" | b"PK" | b"RO" | b"SA" | b"SE" | b"SK" | b"TN" | b"VG" => 24,
        b"PT" | b"ST" | b"LY" => 25,
        b"IS" | b"TR" => 26,
        b"BF" | b"CF" | b"CG" | b"CM" | b"DJ" | b"FR" | b"GA" | b"GQ" | b"GR" | b"IT" | b"KM" | b"MC" | b"MG"
        | b"ML" | b"MR" | b"SM" | b"TD" => 27,
        b"AL" | b"AZ" | b"BY" | b"CI" | b"CY" | b"DO" | b"GT" | b"HN" | b"HU" | b"LB" | b"MA" | b"NE" | b"NI"
        | b"PL" | b"SN" | b"SV" | b"TG" | b"BJ" => 28,
        b"BR" | b"EG" | b"PS" | b"QA" | b"UA" => 29,
        b"JO" | b"KW" | b"MU" | b"YE" => 30,
        b"MT" | b"SC" => 31,
        b"LC" => 32,
        b"RU" => 33,
        _ => return None,
    })
}

/// IBAN: the country's length and ISO 7064 mod 97-10.
pub fn iban(id: &[u8]) -> bool {
    let known = id.len() > 4 && iban_length(&id[..2]) == Some(id.len());
    known && id[2..4].iter().all(u8::is_ascii_digit) && {
        let rest = id[4..].iter().chain(&id[..4]).try_fold(0_u32, |rest, byte| match byte {
            b'0'..=b'9' => Some((rest * 10 + digit(*byte)) % 97),
            b'A'..=b'Z' => Some((rest * 100 + u32::from(byte - b'A') + 10) % 97),
            _ => None,
        });
        rest == Some(1)
    }
}

/// US social security number: areas, groups and serials that are issued.
pub fn ssn(id: &[u8]) -> bool {
    is_digits(id, 9) && {
        let (area, group, serial) = (number(&id[..3]), number(&id[3..5]), number(&id[5..]));
        area != 0 && area != 666 && area < 900 && group != 0 && serial != 0
    }
}

/// US individual taxpayer number: 9xx and the groups in use.
pub fn itin(id: &[u8]) -> bool {
    is_digits(id, 9) && id[0] == b'9' && matches!(number(&id[3..5]), 50..=65 | 70..=88 | 90..=92 | 94..=99)
}

/// US national provider identifier: Luhn with the prefix 80840, whose terms sum to 24.
pub fn npi(id: &[u8]) -> bool {
    let sum: u32 = id.iter().rev().enumerate().map(|(at, byte)| luhn_term(at, digit(*byte))).sum();
    is_digits(id, 10) && matches!(id[0], b'1' | b'2') && (sum + 24).is_multiple_of(10)
}

/// US Medicare beneficiary identifier: the pattern of CMS, which has no check digit.
pub fn mbi(id: &[u8]) -> bool {
    let letter = |byte: u8| byte.is_ascii_uppercase() && !b"SLOIBZ".contains(&byte);
    let digit = |byte: u8| byte.is_ascii_digit();
    id.len() == 11
        && matches!(id[0], b'1'..=b'9')
        && [1, 4, 7, 8].iter().all(|at| letter(id[*at]))
        && [3, 6, 9, 10].iter().all(|at| digit(id[*at]))
        && [2, 5].iter().all(|at| letter(id[*at]) || digit(id[*at]))
}

/// US bank routing number: Federal Reserve ranges and weights 3, 7, 1.
pub fn aba(id: &[u8]) -> bool {
    is_digits(id, 9)
        && matches!(number(&id[..2]), 0..=12 | 21..=32 | 61..=72 | 80)
        && weighted(id, &[3, 7, 1, 3, 7, 1, 3, 7, 1]).is_multiple_of(10)
        && id != b"000000000"
}

/// US DEA registration number.
pub fn dea(id: &[u8]) -> bool {
    id.len() == 9
        && b"ABCDEFGHJKLMPRSTUVWXYZ".contains(&id[0])
        && (id[1].is_ascii_uppercase() || id[1] == b'9')
        && id[2..].iter().all(u8::is_ascii_digit)
        && weighted(&id[2..8], &[1, 2, 1, 2, 1, 2]) % 10 == digit(id[8])
}

/// UK NHS number: mod 11.
pub fn nhs(id: &[u8]) -> bool {
    is_digits(id, 10) && weighted(id, &[10, 9, 8, 7, 6, 5, 4, 3, 2, 1]).is_multiple_of(11) && id != b"0000000000"
}

/// UK national insurance number: prefixes that are allocated, suffix A to D.
pub fn nino(id: &[u8]) -> bool {
    id.len() == 9
        && id[0].is_ascii_uppercase()
        && id[1].is_ascii_uppercase()
        && !b"DFIQUV".contains(&id[0])
        && !b"DFIQUVO".contains(&id[1])
        && !matches!(&id[..2], b"BG" | b"GB" | b"KN" | b"NK" | b"NT" | b"TN" | b"ZZ")
        && id[2..8].iter().all(u8::is_ascii_digit)
        && matches!(id[8], b'A'..=b'D')
}

const NIF_LETTERS: &[u8; 23] = b"TRWAGMYFPDXBNJZSQVHLCKE";

/// Spanish NIF: eight digits and their letter.
pub fn nif(id: &[u8]) -> bool {
    id.len() == 9 && is_digits(&id[..8], 8) && NIF_LETTERS[number(&id[..8]) as usize % 23] == id[8]
}

/// Spanish NIE: X, Y or Z, seven digits and their letter.
pub fn nie(id: &[u8]) -> bool {
    id.len() == 9 && matches!(id[0], b'X'..=b'Z') && is_digits(&id[1..8], 7) && {
        let value = u32::from(id[0] - b'X') * 10_000_000 + number(&id[1..8]);
        NIF_LETTERS[value as usize % 23] == id[8]
    }
}

/// Italian fiscal code: pattern (with the letters that stand for digits in homonyms) and check letter.
pub fn it_fiscal_code(id: &[u8]) -> bool {
    const ODD: [u32; 26] =
        [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23];
    let numeric = |byte: u8| byte.is_ascii_digit() || b"LMNPQRSTUV".contains(&byte);
    if id.len() != 16 || !id.iter().all(u8::is_ascii_alphanumeric) {
        return false;
    }
    let letters = [0, 1, 2, 3, 4, 5, 8, 11, 15].iter().all(|at| id[*at].is_ascii_uppercase());
    let digits = [6, 7, 9, 10, 12, 13, 14].iter().all(|at| numeric(id[*at]));
    let value = |byte: u8| if byte.is_ascii_digit() { digit(byte) } else { u32::from(byte.wrapping_sub(b'A')) };
    letters && digits && b"ABCDEHLMPRST".contains(&id[8]) && {
        let sum: u32 = id[..15]
            .iter()
            .enumerate()
            .map(|(at, byte)| if at % 2 == 0 { ODD[value(*byte) as usize % 26] } else { value(*byte) })
            .sum();
        sum % 26 == u32::from(id[15] - b'A')
    }
}

/// Polish PESEL: date with the century in the month, weights 1, 3, 7, 9.
pub fn pesel(id: &[u8]) -> bool {
    is_digits(id, 11) && {
        let (month, day) = (number(&id[2..4]), number(&id[4..6]));
        is_date(2000, month % 20, day) && weighted(id, &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1]).is_multiple_of(10)
    }
}

/// Indian Aadhaar: first digit 2 to 9, Verhoeff.
pub fn aadhaar(id: &[u8]) -> bool {
    is_digits(id, 12) && id[0] >= b'2' && verhoeff(id)
}

/// Indian PAN: pattern with the holder's status as fourth letter.
pub fn in_pan(id: &[u8]) -> bool {
    id.len() == 10
        && id[..5].iter().all(u8::is_ascii_uppercase)
        && b"ABCEFGHJKLPT".contains(&id[3])
        && id[5..9].iter().all(u8::is_ascii_digit)
        && id[9].is_ascii_uppercase()
}

/// Australian tax file number, nine digits: weights mod 11.
pub fn tfn(id: &[u8]) -> bool {
    is_digits(id, 9) && weighted(id, &[1, 4, 3, 7, 5, 8, 6, 9, 10]).is_multiple_of(11) && id != b"000000000"
}

/// Australian Medicare card, ten digits and perhaps the person's number on it.
pub fn au_medicare(id: &[u8]) -> bool {
    (is_digits(id, 10) || is_digits(id, 11))
        && matches!(id[0], b'2'..=b'6')
        && weighted(&id[..8], &[1, 3, 7, 9, 1, 3, 7, 9]) % 10 == digit(id[8])
}

/// Canadian social insurance number: Luhn; 8 is not issued, 0 only for other uses.
pub fn sin(id: &[u8]) -> bool {
    is_digits(id, 9) && !matches!(id[0], b'0' | b'8') && luhn(id)
}

/// German tax id: exactly one digit occurs two or three times among the first ten; ISO 7064 mod 11, 10.
pub fn de_tax_id(id: &[u8]) -> bool {
    if !is_digits(id, 11) || id[0] == b'0' {
        return false;
    }
    let mut counts = [0_u8; 10];
    id[..10].iter().for_each(|byte| counts[digit(*byte) as usize % 10] += 1);
    let repeated = counts.iter().filter(|count| **count > 1).count();
    repeated == 1 && counts.iter().all(|count| *count <= 3) && {
        let product = id[..10].iter().fold(10, |product, byte| {
            let sum = (digit(*byte) + product) % 10;
            (if sum == 0 { 10 } else { sum }) * 2 % 11
        });
        (11 - product) % 10 == digit(id[10])
    }
}

/// Singapore NRIC and FIN: check letter by series.
pub fn nric(id: &[u8]) -> bool {
    if id.len() != 9 || !is_digits(&id[1..8], 7) {
        return false;
    }
    let sum = weighted(&id[1..8], &[2, 7, 6, 5, 4, 3, 2]);
    let (extra, letters): (u32, &[u8; 11]) = match id[0] {
        b'S' => (0, b"JZIHGFEDCBA"),
        b'T' => (4, b"JZIHGFEDCBA"),
        b'F' => (0, b"XWUTRQPNMLK"),
        b'G' => (4, b"XWUTRQPNMLK"),
        b'M' => (3, b"XWUTRQPNJLK"),
        _ => return false,
    };
    let rest = (sum + extra) as usize % 11;
    id[8] == if id[0] == b'M' { letters[10 - rest] } else { letters[rest] }
}

/// Finnish personal identity code, with its century sign: date, individual number, mod 31.
pub fn hetu(id: &[u8]) -> bool {
    const LETTERS: &[u8; 31] = b"0123456789ABCDEFHJKLMNPRSTUVWXY";
    id.len() == 11
        && is_digits(&id[..6], 6)
        && b"+-ABCDEFYXWVU".contains(&id[6])
        && is_digits(&id[7..10], 3)
        && is_date(2000, number(&id[2..4]), number(&id[..2]))
        && LETTERS[(number(&id[..6]) as usize * 1000 + number(&id[7..10]) as usize) % 31] == id[10]
}

/// South Korean resident registration number: date and sex digit; the check digit of those issued before
/// October 2020 is demanded if `checked`.
pub fn rrn(id: &[u8], checked: bool) -> bool {
    is_digits(id, 13)
        && is_short_date(&id[..6])
        && matches!(id[6], b'1'..=b'8')
        && (!checked || (11 - weighted(&id[..12], &[2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5]) % 11) % 10 == digit(id[12]))
}

/// Swedish personnummer (or samordningsnummer), 10 or 12 digits: date and Luhn over the last ten.
pub fn personnummer(id: &[u8]) -> bool {
    let short = match id.len() {
        10 => id,
        12 if matches!(&id[..2], b"18" | b"19" | b"20") => &id[2..],
        _ => return false,
    };
    is_digits(short, 10) && {
        let (month, day) = (number(&short[2..4]), number(&short[4..6]));
        is_date(2000, month, if day > 60 { day - 60 } else { day }) && luhn(short)
    }
}

/// South African identity number: date, citizenship, Luhn.
pub fn za_id(id: &[u8]) -> bool {
    is_digits(id, 13) && is_short_date(&id[..6]) && matches!(id[10], b'0'..=b'2') && luhn(id)
}

/// Turkish identity number: two check digits.
pub fn tr_id(id: &[u8]) -> bool {
    is_digits(id, 11) && id[0] != b'0' && {
        let odd = weighted(id, &[1, 0, 1, 0, 1, 0, 1, 0, 1]);
        let even = weighted(id, &[0, 1, 0, 1, 0, 1, 0, 1, 0]);
        let tenth = (i64::from(odd) * 7 - i64::from(even)).rem_euclid(10);
        tenth == i64::from(digit(id[9])) && weighted(&id[..10], &[1; 10]) % 10 == digit(id[10])
    }
}

/// Brazilian CPF: two check digits; eleven equal digits are none.
pub fn cpf(id: &[u8]) -> bool {
    let check = |sum: u32| sum * 10 % 11 % 10;
    is_digits(id, 11)
        && id.iter().any(|byte| *byte != id[0])
        && check(weighted(&id[..9], &[10, 9, 8, 7, 6, 5, 4, 3, 2])) == digit(id[9])
        && check(weighted(&id[..10], &[11, 10, 9, 8, 7, 6, 5, 4, 3, 2])) == digit(id[10])
}

/// Dutch BSN, nine digits: the eleven test.
pub fn bsn(id: &[u8]) -> bool {
    is_digits(id, 9) && id != b"000000000" && {
        let sum = i64::from(weighted(&id[..8], &[9, 8, 7, 6, 5, 4, 3, 2])) - i64::from(digit(id[8]));
        sum.rem_euclid(11) == 0
    }
}

/// French NIR with its key, 15 characters (Corsica's departments are 2A and 2B): sex, month, mod 97.
pub fn nir(id: &[u8]) -> bool {
    if id.len() != 15 || !matches!(id[0], b'1'..=b'4' | b'7' | b'8') {
        return false;
    }
    let mut digits = [0; 15];
    digits.copy_from_slice(id);
    let less = match (id[5], id[6]) {
        (b'2', b'A') => 1_000_000,
        (b'2', b'B') => 2_000_000,
        _ => 0,
    };
    if less > 0 {
        digits[6] = b'0';
    }
    digits.iter().all(u8::is_ascii_digit) && matches!(number(&digits[3..5]), 1..=12 | 20..=42 | 50..=99) && {
        let value = digits[..13].iter().fold(0_u64, |sum, byte| sum * 10 + u64::from(digit(*byte)));
        97 - value.saturating_sub(less) % 97 == u64::from(number(&digits[13..]))
    }
}

/// Chinese resident identity number, 18 characters: date and ISO 7064 mod 11-2.
pub fn cn_id(id: &[u8]) -> bool {
    const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    id.len() == 18
        && is_digits(&id[..17], 17)
        && matches!(id[0], b'1'..=b'8')
        && (1850..2100).contains(&number(&id[6..10]))
        && is_date(number(&id[6..10]), number(&id[10..12]), number(&id[12..14]))
        && b"10X98765432"[weighted(&id[..17], &WEIGHTS) as usize % 11] == id[17]
}

/// Shape of a vehicle identification number: 17 characters without I, O, Q, letters and digits both.
pub fn vin_shape(id: &[u8]) -> bool {
    id.len() == 17
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() && !b"IOQ".contains(byte))
        && id.iter().any(u8::is_ascii_digit)
        && id.iter().any(u8::is_ascii_uppercase)
}

/// Vehicle identification number with the check digit of ISO 3779 (North America, China).
pub fn vin(id: &[u8]) -> bool {
    const VALUES: [u32; 26] = [1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 2, 3, 4, 5, 0, 7, 0, 9, 2, 3, 4, 5, 6, 7, 8, 9];
    const WEIGHTS: [u32; 17] = [8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2];
    vin_shape(id) && {
        let value = |byte: u8| if byte.is_ascii_digit() { digit(byte) } else { VALUES[usize::from(byte - b'A') % 26] };
        let sum: u32 = id.iter().zip(WEIGHTS).map(|(byte, weight)| value(*byte) * weight).sum();
        b"0123456789X"[sum as usize % 11] == id[8]
    }
}

/// IMEI: 15 digits, Luhn.
pub fn imei(id: &[u8]) -> bool {
    is_digits(id, 15) && luhn(id) && id.iter().any(|byte| *byte != b'0')
}

/// North American number, ten digits: area code and exchange start with 2 to 9, and are no service codes.
pub fn nanp(id: &[u8]) -> bool {
    is_digits(id, 10) && id[0] >= b'2' && id[3] >= b'2' && &id[1..3] != b"11" && &id[4..6] != b"11"
}
