//! Addresses of machines and mailboxes, wallets, and secrets.

use std::net::{Ipv4Addr, Ipv6Addr};

use sha2::{Digest, Sha256};

use super::column::ColumnHints;
use super::found::Findings;
use super::kinds::PiiType;
use super::scan::{Text, Token};

/// Endings of files, which are no top-level domains that people have mail in: `icon@2x.png`.
const FILE_ENDINGS: &[&str] = &[
    "png", "jpg", "jpeg", "gif", "webp", "svg", "css", "js", "ts", "json", "html", "xml", "py", "rs", "go", "java",
    "txt", "md", "yml", "yaml", "lock", "ico", "bmp", "pdf", "zip",
];

/// Prefixes of access tokens that their issuers publish for scanners, and the least length of the whole.
const SECRET_PREFIXES: &[(&str, usize)] = &[
    ("AKIA", 20),
    ("ASIA", 20),
    ("ghp_", 36),
    ("gho_", 36),
    ("ghu_", 36),
    ("ghs_", 36),
    ("ghr_", 36),
    ("github_pat_", 40),
    ("glpat-", 20),
    ("xoxb-", 24),
    ("xoxp-", 24),
    ("xoxa-", 24),
    ("xoxs-", 24),
    ("xoxr-", 24),
    ("xapp-", 24),
    ("sk_live_", 20),
    ("sk_test_", 20),
    ("rk_live_", 20),
    ("rk_test_", 20),
    ("pk_live_", 20),
    ("whsec_", 20),
    ("sk-", 32),
    ("npm_", 36),
    ("pypi-", 40),
    ("AIza", 35),
    ("ya29.", 30),
    ("GOCSPX-", 24),
    ("SG.", 40),
    ("hf_", 30),
    ("dop_v1_", 40),
    ("shpat_", 32),
    ("shpss_", 32),
    ("EAACEdEose0cBA", 30),
    ("eyJ", 40),
    ("AccountKey=", 40),
    ("lin_api_", 30),
    ("dapi", 36),
    ("key-", 36),
    ("vault:", 40),
    ("hvs.", 24),
    ("sq0", 22),
    ("rpa_", 36),
    ("NRAK-", 30),
    ("phc_", 36),
    ("gsk_", 36),
    ("r8_", 36),
    ("dckr_pat_", 30),
    ("PMAK-", 40),
    ("ATATT3", 40),
];

/// Longest secret that is looked for, in bytes.
const MAX_SECRET: usize = 1024;

/// E-mail addresses: around every `@`.
pub(super) fn emails(text: &Text<'_>, found: &mut Findings) {
    let bytes = text.bytes;
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'@') {
        let local = |byte: u8| byte.is_ascii_alphanumeric() || b"._%+'-!#$&*=?^`{|}~".contains(&byte) || byte >= 0x80;
        let domain = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte) || byte >= 0x80;
        let mut start = bytes[..at].iter().rposition(|byte| !local(*byte)).map_or(0, |before| before + 1);
        while start < at && b".'-=?|{&*!#".contains(&bytes[start]) {
            start += 1;
        }
        let end = bytes[at + 1..].iter().position(|byte| !domain(*byte)).map_or(bytes.len(), |stop| at + 1 + stop);
        let host = text.raw[at + 1..end].trim_end_matches(['.', '-']);
        if start < at
            && at - start <= 64
            && text.raw.is_char_boundary(start)
            && bytes[at - 1] != b'.'
            && is_mail_host(host)
        {
            found.add(start, at + 1 + host.len(), PiiType::Email);
        }
    }
}

fn is_mail_host(host: &str) -> bool {
    let Some((rest, last)) = host.rsplit_once('.') else { return false };
    let labels = rest
        .split('.')
        .all(|label| !label.is_empty() && label.len() <= 63 && !label.starts_with('-') && !label.ends_with('-'));
    let top = last.len() >= 2 && last.chars().all(char::is_alphabetic) || last.starts_with("xn--");
    labels && top && host.len() <= 253 && !FILE_ENDINGS.iter().any(|ending| last.eq_ignore_ascii_case(ending))
}

/// IP and MAC addresses and wallets.
pub(super) fn addresses(text: &Text<'_>, column: &ColumnHints, found: &mut Findings) {
    colon_runs(text, found);
    for at in 0..text.tokens.len() {
        let token = &text.tokens[at];
        if token.number() && token.len() <= 3 {
            ipv4(text, column, at, found);
        }
        match token.len() {
            2 => mac(text, column, at, 6, "-", found),
            4 => mac(text, column, at, 3, ".", found),
            _ => {}
        }
        if token.len() >= 26 && token.digit && token.letter {
            wallet(text, token, found);
        }
    }
}

fn ipv4(text: &Text<'_>, column: &ColumnHints, at: usize, found: &mut Findings) {
    let Some([first, .., last]) = text.tokens.get(at..at + 4) else { return };
    if (at..at + 3).any(|gap| text.gap(gap) != ".") {
        return;
    }
    let (start, end) = (first.start, last.end);
    let Ok(address) = text.raw[start..end].parse::<Ipv4Addr>() else { return };
    let after = &text.bytes[end..];
    let goes_on = matches!(after, [b'.' | b'-' | b'_', next, ..] if next.is_ascii_alphanumeric());
    let port_or_net = matches!(after, [b':' | b'/', next, ..] if next.is_ascii_digit());
    let before = &text.bytes[..start];
    let glued = matches!(before, [.., left, b'.' | b'-' | b'_' | b'/'] if left.is_ascii_alphanumeric())
        || matches!(before, [.., b'^' | b'~']);
    let context = text.context(at, at + 3);
    let is_ip = |kinds: super::kinds::Kinds| kinds.has(PiiType::Ip);
    if goes_on || glued || context.version && !is_ip(context.kinds) || column.version {
        return;
    }
    // Versions have small numbers; an address without a word that announces it must have a large one.
    let large = address.octets().iter().any(|octet| *octet >= 100) && address.octets()[0] > 0;
    let sender = || {
        at.checked_sub(1).is_some_and(|before| {
            let word = &text.tokens[before];
            text.gap(before) == " "
                && matches!(&text.raw[word.start..word.end], "from" | "by" | "von" | "de" | "da" | "van")
        })
    };
    if large || port_or_net || is_ip(context.kinds) || is_ip(column.kinds) || sender() {
        found.add(start, end, PiiType::Ip);
    }
}

/// MAC addresses with colons and IPv6 addresses: runs of hexadecimal digits, colons and dots.
fn colon_runs(text: &Text<'_>, found: &mut Findings) {
    let bytes = text.bytes;
    let inside = |byte: u8| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.';
    let mut at = 0;
    while let Some(colon) = bytes[at..].iter().position(|byte| *byte == b':').map(|offset| at + offset) {
        let mut start = bytes[..colon].iter().rposition(|byte| !inside(*byte)).map_or(0, |before| before + 1);
        let end = bytes[colon..].iter().position(|byte| !inside(*byte)).map_or(bytes.len(), |stop| colon + stop);
        at = end.max(colon + 1);
        let touches =
            |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 0x80);
        // `host:fe80::1` and a full stop after the address.
        if bytes[start] == b':' && bytes.get(start + 1) != Some(&b':') {
            start += 1;
        }
        let run = text.raw[start..end].trim_end_matches(['.', ':']);
        let run = if text.raw[start + run.len()..end].starts_with("::") {
            &text.raw[start..start + run.len() + 2]
        } else {
            run
        };
        if touches(start.checked_sub(1).and_then(|before| bytes.get(before))) || touches(bytes.get(end)) {
            continue;
        }
        if let Some(kind) = colon_kind(run) {
            found.add(start, start + run.len(), kind);
        }
    }
}

fn colon_kind(run: &str) -> Option<PiiType> {
    let pairs = run.len() == 17
        && run.split(':').count() == 6
        && run.split(':').all(|pair| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if pairs {
        return is_device(run).then_some(PiiType::Mac);
    }
    let address = run.parse::<Ipv6Addr>().ok()?;
    // `a::b` is also how programs name things; a real address has more to it.
    let digits = run.bytes().filter(u8::is_ascii_hexdigit).count();
    let groups = run.split(':').filter(|group| !group.is_empty()).count();
    let real =
        digits >= 8 && groups >= 3 || groups >= 2 && digits >= 6 && run.bytes().any(|byte| byte.is_ascii_digit());
    (real && !address.is_unspecified() && !address.is_loopback()).then_some(PiiType::Ip)
}

fn mac(text: &Text<'_>, column: &ColumnHints, at: usize, groups: usize, separator: &str, found: &mut Findings) {
    let Some(tokens) = text.tokens.get(at..at + groups) else { return };
    let (start, end) = (tokens[0].start, tokens[groups - 1].end);
    let hex = |token: &Token| {
        token.len() == 12 / groups && text.bytes[token.start..token.end].iter().all(u8::is_ascii_hexdigit)
    };
    let joined = (at..at + groups - 1).all(|gap| text.gap(gap) == separator);
    if !joined || !tokens.iter().all(hex) || text.glued_left(start) || text.glued_right(end) {
        return;
    }
    let run = &text.raw[start..end];
    // Twelve digits with dots are more often a number; with a letter, or a word that says so, they are an address.
    let announced = || column.kinds.has(PiiType::Mac) || text.context(at, at + groups - 1).kinds.has(PiiType::Mac);
    if is_device(run) && (run.bytes().any(|byte| byte.is_ascii_alphabetic()) || announced()) {
        found.add(start, end, PiiType::Mac);
    }
}

/// Whether the cell of a column of addresses is an IP address, or so much of an IPv6 address that it is one
/// cut short.
pub(super) fn looks_like_ip(value: &str) -> bool {
    let hex = |group: &str| (1..=4).contains(&group.len()) && group.bytes().all(|byte| byte.is_ascii_hexdigit());
    value.parse::<std::net::IpAddr>().is_ok()
        || value.split(':').count() >= 4 && value.split(':').all(hex) && value.split(':').any(|group| group.len() > 2)
}

/// Neither all zeros nor broadcast.
fn is_device(run: &str) -> bool {
    let mut digits = run.bytes().filter(u8::is_ascii_hexdigit).map(|byte| byte.to_ascii_lowercase());
    let first = digits.next();
    !(matches!(first, Some(b'0' | b'f')) && digits.all(|digit| Some(digit) == first))
}

fn wallet(text: &Text<'_>, token: &Token, found: &mut Findings) {
    let id = &text.bytes[token.start..token.end];
    let ethereum = id.len() == 42 && id.starts_with(b"0x") && id[2..].iter().all(u8::is_ascii_hexdigit);
    let bitcoin = (26..=35).contains(&id.len()) && matches!(id[0], b'1' | b'3') && base58_check(id);
    let segwit = id.len() >= 42 && id.len() <= 90 && id[..3].eq_ignore_ascii_case(b"bc1") && bech32(id);
    let alone = !text.glued_left(token.start) && !text.glued_right(token.end);
    if alone && (ethereum || bitcoin || segwit) {
        found.add(token.start, token.end, PiiType::Crypto);
    }
}

/// Base58Check: 21 bytes and the first four of their double SHA-256.
fn base58_check(id: &[u8]) -> bool {
    const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    let mut value = [0_u8; 25];
    for byte in id {
        let Some(mut carry) = ALPHABET.iter().position(|letter| letter == byte) else { return false };
        for place in value.iter_mut().rev() {
            carry += usize::from(*place) * 58;
            *place = carry as u8;
            carry >>= 8;
        }
        if carry != 0 {
            return false;
        }
    }
    Sha256::digest(Sha256::digest(&value[..21]))[..4] == value[21..]
}

/// Bech32 and Bech32m (BIP 173, BIP 350) with the prefix `bc`.
fn bech32(id: &[u8]) -> bool {
    const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    let step = |sum: u32, value: u32| {
        let top = sum >> 25;
        let sum = (sum & 0x01ff_ffff) << 5 ^ value;
        (0..5).filter(|bit| top >> bit & 1 == 1).fold(sum, |sum, bit| sum ^ GENERATOR[bit])
    };
    // The prefix expands to the high bits of `b` and `c`, a zero, and their low bits.
    let mut sum = [3, 3, 0, 2, 3].into_iter().fold(1, step);
    for byte in &id[3..] {
        let Some(value) = ALPHABET.iter().position(|letter| *letter == byte.to_ascii_lowercase()) else { return false };
        sum = step(sum, value as u32);
    }
    sum == 1 || sum == 0x2bc8_30a3
}

/// Access tokens by their published prefixes, private keys, and what follows `password:`.
pub(super) fn secrets(text: &Text<'_>, found: &mut Findings) {
    if let Some(start) = text.raw.find("-----BEGIN ").filter(|start| text.raw[*start..].contains("PRIVATE KEY")) {
        found.add(start, text.raw.trim_end().len(), PiiType::Secret);
    }
    if let Some((start, end)) = text.raw.find("://").and_then(|scheme| url_password(text.raw, scheme + 3)) {
        found.add(start, end, PiiType::Secret);
    }
    for (at, token) in text.tokens.iter().enumerate() {
        if token.word.kinds.has(PiiType::Secret)
            || token.word.kinds.is_empty() && text.raw[token.start..token.end].eq_ignore_ascii_case("key")
        {
            announced_secret(text, at, found);
        }
        let candidate = matches!(text.bytes[token.start], b'A' | b'E' | b'G' | b'N' | b'P' | b'S' | b'a'..=b'z');
        if !candidate || token.end + 40 < token.start + 20 {
            continue;
        }
        let run = run_at(text, token.start);
        let known = SECRET_PREFIXES.iter().any(|(prefix, least)| run.len() >= *least && run.starts_with(prefix));
        if known && mixed(run) && !text.glued_left(token.start) {
            found.add(token.start, token.start + run.len(), PiiType::Secret);
        }
    }
}

/// The password in `scheme://user:password@host`, whose authority starts at `start`.
fn url_password(raw: &str, start: usize) -> Option<(usize, usize)> {
    let length = raw[start..].find(['/', '?', '#', ' ', '"', '\'']).unwrap_or(raw.len() - start);
    let authority = &raw[start..start + length];
    let at = authority.rfind('@')?;
    let colon = authority[..at].find(':')?;
    (at > colon + 1).then_some((start + colon + 1, start + at))
}

fn announced_secret(text: &Text<'_>, at: usize, found: &mut Findings) {
    let word = &text.tokens[at];
    // Words that announce a secret may follow one another without end: each looks only so far.
    let rest = prefix(&text.raw[word.end..], MAX_SECRET);
    let trimmed = rest.trim_start_matches([' ', '"', '\'', '`']);
    let (assigned, value) = match trimmed
        .strip_prefix([':', '='])
        .or_else(|| trimmed.strip_prefix("is "))
        .or_else(|| trimmed.strip_prefix("was "))
    {
        Some(value) => (true, value),
        None => (false, trimmed),
    };
    let value = value.trim_start_matches([' ', '"', '\'', '`', '>', '=']);
    let start = word.end + (rest.len() - value.len());
    let value = value
        .split([' ', '"', '\'', '`', ',', ';', '\n'])
        .next()
        .unwrap_or_default()
        .trim_end_matches(['.', ')', '!', '?']);
    if value.len() >= if assigned { 8 } else { 16 } && mixed(value) && looks_secret(value) {
        found.add(start, start + value.len(), PiiType::Secret);
    }
}

/// At most `most` bytes from the start of `text`.
fn prefix(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// The characters of a token as issuers write them, from `start`.
fn run_at<'t>(text: &Text<'t>, start: usize) -> &'t str {
    let inside = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-./+=~:".contains(byte);
    let rest = prefix(&text.raw[start..], MAX_SECRET);
    let length = rest.bytes().position(|byte| !inside(&byte)).unwrap_or(rest.len());
    rest[..length].trim_end_matches(['.', ':', '-', '/'])
}

fn mixed(value: &str) -> bool {
    value.bytes().any(|byte| byte.is_ascii_digit()) && value.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// Whether the value of a column of secrets can be one: long enough, one word.
pub(super) fn looks_secret(value: &str) -> bool {
    value.len() >= 8 && !value.contains(char::is_whitespace) && value.parse::<f64>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pii::scan::tests::scan;

    #[test]
    fn mailboxes_are_found_with_their_exact_borders() {
        for (text, mailbox) in [
            ("write to o'neil+x@sub.example.org.", "o'neil+x@sub.example.org"),
            ("<jürgen@müller.de>", "jürgen@müller.de"),
            ("mailto:a@b.co,c", "a@b.co"),
        ] {
            assert_eq!(scan("", text), [(PiiType::Email, mailbox.to_owned())], "{text}");
        }
        for text in [
            "icon@2x.png",
            "@types/node@16.27.30",
            "left-pad@^28.20.16",
            "a@b",
            "user@localhost",
            "price @ 3.50",
            "@param x",
        ] {
            assert_eq!(scan("", text), [], "{text}");
        }
    }

    #[test]
    fn machine_addresses_are_found_and_versions_are_not() {
        for (text, kind, address) in [
            ("from 203.0.113.9:443", PiiType::Ip, "203.0.113.9"),
            ("peer 2001:db8::8a2e:370:7334 is down.", PiiType::Ip, "2001:db8::8a2e:370:7334"),
            ("00:1A:2b:3c:4d:5e", PiiType::Mac, "00:1A:2b:3c:4d:5e"),
            ("00-1A-2B-3C-4D-5E", PiiType::Mac, "00-1A-2B-3C-4D-5E"),
            ("001a.2b3c.4d5e", PiiType::Mac, "001a.2b3c.4d5e"),
        ] {
            assert_eq!(scan("", text), [(kind, address.to_owned())], "{text}");
        }
        for text in [
            "a::b::c",
            "::before",
            "::",
            "std::vec",
            "00:00:00:00",
            "12:34:56",
            "256.300.1.2",
            "1.3.6.1.4.1.311",
            "chapter 10.2.3.4",
            "ff:ff:ff:ff:ff:ff",
        ] {
            assert_eq!(scan("", text), [], "{text}");
        }
        assert_eq!(scan("version", "203.0.113.9"), []);
    }

    #[test]
    fn wallets_are_found_by_their_checksum() {
        // The genesis block's address, and the examples of BIP 173 and BIP 350.
        for text in [
            "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
            "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
            "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
            "0x5f16ef87308f0856df317da559394118c7d78b4a",
        ] {
            assert_eq!(scan("", text), [(PiiType::Crypto, text.to_owned())], "{text}");
        }
        assert_eq!(scan("", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb"), []);
    }

    #[test]
    fn secrets_are_found_by_prefix_or_by_the_word_before() {
        let made_up = format!("ghp_{}", "a1B2".repeat(9));
        assert_eq!(scan("note", &format!("use {made_up}, please")), [(PiiType::Secret, made_up)]);
        assert_eq!(scan("note", "password: hunter2hunter2"), [(PiiType::Secret, "hunter2hunter2".to_owned())]);
        assert_eq!(scan("note", "the token is missing since 2023"), []);
    }
}
