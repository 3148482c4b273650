//! What a column's name says about its cells.

use super::kinds::{Kinds, PiiType};
use super::words::{Roles, Vocabulary, Word};

/// How far a column's name speaks for names of persons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PersonColumn {
    /// Not at all, or for other names.
    #[default]
    No,
    /// It may hold names of persons: the cell must look like one.
    Perhaps,
    /// It holds names of persons, or parts of them.
    Yes,
}

/// Everything that a column's name says; made once per column.
#[derive(Debug, Clone, Copy, Default)]
pub struct ColumnHints {
    /// Kinds that the name announces, as a keyword before each cell.
    pub kinds: Kinds,
    /// The name identifies its cells so clearly that an identifier with a wrong check digit is one, too.
    pub firm: bool,
    /// The name is that of another number: an order, a reference, an id.
    pub other_id: bool,
    /// The name is that of a version.
    pub version: bool,
    /// Names of persons.
    pub person: PersonColumn,
    /// The name says that capitalised words in it are no persons: a product, a company, a town.
    pub no_people: bool,
}

/// Kinds that a column's name never announces by itself: too many columns share their words.
const TEXT_ONLY: Kinds = Kinds::of(&[PiiType::Address]);
/// Words that in a column's name say more often something else.
const NOT_IN_COLUMNS: &[&str] = &[
    "cell",
    "call",
    "called",
    "calling",
    "reach",
    "ring",
    "dial",
    "tax",
    "from",
    "by",
    "source",
    "origin",
    "node",
    "charge",
    "charged",
    "request",
    "requests",
    "session",
    "api",
    "provider",
    "credit",
    "debit",
    "discover",
    "long",
    "driver",
    "drivers",
    "bank",
    "network",
    "token",
    "position",
    "location",
    "insurance",
    "resident",
    "vehicle",
    "permanent",
    "network",
    "traffic",
    "server",
    "beneficiary",
];

impl ColumnHints {
    /// Reads a name: words are split at what is no letter or digit, and where lower case turns to upper.
    pub fn of(name: &str) -> Self {
        let words = split(name).into_iter().flat_map(part).collect::<Vec<_>>();
        let is = |wanted: &[&str]| words.iter().any(|word| wanted.contains(&word.as_str()));
        let table = Vocabulary::get();
        let looked_up: Vec<_> = words.iter().map(|word| (word.as_str(), table.look_up(word))).collect();
        let role = |role| looked_up.iter().any(|(_, word)| word.roles.is(role));
        // `socialSecurityNumber`, `social_security_number` and `socialsecuritynumber` are one name.
        let joined = table.look_up(&words.concat()).kinds;
        let free_text = role(Roles::FREE_TEXT);
        let single = looked_up.iter().filter(|(word, _)| !NOT_IN_COLUMNS.contains(word));
        let mut kinds = single.fold(joined, |kinds, (_, word)| kinds.union(word.kinds)).without(TEXT_ONLY);
        let measure = role(Roles::MEASURE) && !is(&["code"]) || is(&["zip", "postal", "area"]);
        if is(&["resident", "identity", "citizen"]) && is(&["id", "number", "no", "card"]) {
            kinds = kinds.union(table.look_up("resident").kinds);
        }
        if is(&["tax"]) && is(&["id", "number", "no", "file", "identification", "identifier"]) {
            kinds = kinds.union(table.look_up("tax").kinds);
        }
        if is(&["insurance"]) && is(&["national", "social"])
            || is(&["bank"]) && is(&["account", "acct", "no", "number"])
        {
            kinds = kinds.union(words.iter().fold(Kinds::NONE, |kinds, word| kinds.union(table.look_up(word).kinds)));
        }
        if is(&["driver", "drivers", "driving"]) && !is(&["license", "licence", "lic"])
            || is(&["license", "licence", "lic"]) && !is(&["driver", "drivers", "driving", "number", "no"])
        {
            kinds = kinds.without(Kinds::of(&[PiiType::DriverLicence]));
        }
        if is(&["account", "acct"]) && !is(&["bank", "number", "no", "nr"]) {
            kinds = kinds.without(Kinds::of(&[PiiType::BankAccount]));
        }
        if is(&["token", "key"]) && is(&["api", "access", "auth", "secret", "private", "bearer", "refresh", "session"])
            || words == ["token"]
        {
            kinds = kinds.union(Kinds::of(&[PiiType::Secret]));
        }
        if is(&["location", "position"]) && is(&["home", "gps", "geo", "last", "user"]) {
            kinds = kinds.union(Kinds::of(&[PiiType::Geo]));
        }
        if is(&["card"]) && !is(&["number", "no", "num", "credit", "debit", "pan", "payment"]) && words.len() > 1 {
            kinds = kinds.without(Kinds::of(&[PiiType::Card]));
        }
        let postal = is(&[
            "street",
            "address",
            "addr",
            "strasse",
            "straße",
            "anschrift",
            "adresse",
            "direccion",
            "dirección",
            "indirizzo",
            "endereco",
            "endereço",
            "adres",
            "streetaddress",
            "addressline",
        ]);
        // `addr_state`, `addressCity`: a part of an address that many share.
        let part_of = looked_up.last().is_some_and(|(_, word)| word.roles.is(Roles::THING));
        if postal && !role(Roles::NOT_POSTAL) && !measure && !part_of {
            kinds = kinds.union(Kinds::of(&[PiiType::Address])).without(Kinds::of(&[PiiType::Ip]));
        }
        if is(&["id", "identity", "identification"])
            && is(&["card", "document", "number", "no"])
            && !is(&["order", "tax"])
        {
            kinds = kinds.without(Kinds::of(&[PiiType::Card]));
            if is(&["card"]) {
                kinds = kinds.union(table.look_up("identity").kinds);
            }
        }
        if is(&["hw", "hardware", "ethernet", "wifi", "wlan", "physical", "bluetooth"]) && is(&["address", "addr"]) {
            kinds = Kinds::of(&[PiiType::Mac]);
        }
        let identifier = !measure && !kinds.is_empty() && !free_text;
        Self {
            kinds,
            firm: identifier,
            other_id: kinds.is_empty()
                && !free_text
                && (role(Roles::OTHER_ID) || words.last().is_some_and(|word| word == "id")),
            version: role(Roles::VERSION) && !kinds.meets(Kinds::of(&[PiiType::Ip])),
            no_people: !free_text && (role(Roles::ORGANISATION) || role(Roles::THING) || measure),
            person: if measure || free_text { PersonColumn::No } else { person_column(&looked_up) },
        }
    }
}

/// `phoneno`, `customername`, `orderid`: two words that were written as one, or the word as it is.
fn part(word: String) -> Vec<String> {
    const SECOND: [&str; 15] = [
        "name", "number", "no", "nr", "num", "nummer", "id", "address", "addr", "date", "code", "phone", "email",
        "key", "ip",
    ];
    const FIRST: [&str; 6] = ["home", "work", "office", "business", "day", "evening"];
    const TELLING: [Roles; 3] = [Roles::HOLDER, Roles::OTHER_ID, Roles::THING];
    let table = Vocabulary::get();
    let known = |word: &str| {
        let Word { kinds, roles } = table.look_up(word);
        !kinds.is_empty() || FIRST.contains(&word) || TELLING.iter().any(|role| roles.is(*role))
    };
    let whole = table.look_up(&word);
    if word.len() > 32 || !whole.kinds.is_empty() || whole.roles != Roles::default() {
        return vec![word];
    }
    let halves = SECOND.iter().find_map(|second| {
        let first = word.strip_suffix(second)?;
        // A login is no name.
        (first.len() >= 3 && known(first) && !(first == "user" && *second == "name")).then_some((first, *second))
    });
    match halves {
        Some((first, second)) => vec![first.to_owned(), second.to_owned()],
        None => vec![word],
    }
}

fn person_column(words: &[(&str, Word)]) -> PersonColumn {
    let any = |role| words.iter().any(|(_, word)| word.roles.is(role));
    if any(Roles::NAME_COLUMN) {
        return PersonColumn::Yes;
    }
    if any(Roles::NAME) {
        let mut others = words.iter().filter(|(_, word)| !word.roles.is(Roles::NAME)).peekable();
        if others.peek().is_none() {
            return PersonColumn::Perhaps;
        }
        let of_person = others.all(|(_, word)| word.roles.is(Roles::HOLDER));
        return if of_person { PersonColumn::Yes } else { PersonColumn::No };
    }
    // `patient`, `account_holder`, `attending_physician`: whoever it is, the last word says that it is a person.
    let holders = words.iter().all(|(_, word)| word.roles.is(Roles::HOLDER));
    let role = words.last().is_some_and(|(word, last)| *word == "person" || last.roles.is(Roles::BEFORE_NAME));
    let alone = words.len() == 1;
    // A driver is also software.
    let software = alone && any(Roles::VERSION);
    // `policy_holder`: whatever it is that they hold.
    let holds = words.last().is_some_and(|(word, _)| matches!(*word, "holder" | "owner" | "person" | "contact"));
    if holders && (alone || role) && !software || holds { PersonColumn::Perhaps } else { PersonColumn::No }
}

/// The words of a column's name, in lower case.
fn split(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut lower_before = false;
    for character in name.chars().take(256) {
        if !character.is_alphanumeric() {
            lower_before = false;
            words.push(String::new());
            continue;
        }
        if character.is_uppercase() && lower_before {
            words.push(String::new());
        }
        lower_before = character.is_lowercase() || character.is_numeric();
        if let Some(word) = words.last_mut() {
            word.extend(character.to_lowercase());
        }
    }
    for word in &mut words {
        // `addr1`, `phone2`; but `ipv4` and `sha1` are words.
        let letters = word.trim_end_matches(|character: char| character.is_ascii_digit()).len();
        if letters > 2 && word != "ipv4" && word != "ipv6" && word != "sha1" && word != "md5" {
            word.truncate(letters);
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_speak_in_every_spelling() {
        for name in ["ssn", "SSN", "social_security_number", "socialSecurityNumber", "customer.ssn"] {
            assert!(ColumnHints::of(name).kinds.has(PiiType::UsSsn), "{name}");
        }
        assert!(ColumnHints::of("clientIp").kinds.has(PiiType::Ip));
        assert!(ColumnHints::of("bank_account_number").kinds.has(PiiType::BankAccount));
        assert!(ColumnHints::of("home_address").kinds.has(PiiType::Address));
        assert_eq!(ColumnHints::of("CustomerName").person, PersonColumn::Yes);
        assert_eq!(ColumnHints::of("name").person, PersonColumn::Perhaps);
        for name in ["customername", "kundenname", "nombre_completo", "nom_client", "contactName"] {
            assert_eq!(ColumnHints::of(name).person, PersonColumn::Yes, "{name}");
        }
        for name in ["phoneno", "mobilenumber", "home_phone", "homephone"] {
            assert!(ColumnHints::of(name).kinds.has(PiiType::Phone), "{name}");
        }
        assert!(ColumnHints::of("orderid").other_id && ColumnHints::of("policy_no").other_id);
    }

    #[test]
    fn whatever_a_column_of_sentences_is_about_people_may_be_in_it() {
        for name in ["case_notes", "product_review", "support_message", "order_comment"] {
            let hints = ColumnHints::of(name);
            assert!(!hints.other_id && !hints.no_people && !hints.firm, "{name}: {hints:?}");
        }
        for name in ["vendor", "projectName", "ciudad", "marke"] {
            assert!(ColumnHints::of(name).no_people, "{name}");
        }
    }

    #[test]
    fn look_alikes_say_nothing() {
        for name in [
            "description",
            "zip_code",
            "wallet_address",
            "addr_state",
            "product_name",
            "file_name",
            "age",
            "education",
            "hours_per_week",
        ] {
            let hints = ColumnHints::of(name);
            assert!(!hints.kinds.has(PiiType::Address) && hints.person == PersonColumn::No, "{name}: {hints:?}");
        }
        for name in ["PhoneService", "phone_count", "n_calls"] {
            assert!(!ColumnHints::of(name).firm, "{name}");
        }
        assert!(ColumnHints::of("order_id").other_id && !ColumnHints::of("customer_phone").other_id);
        assert!(ColumnHints::of("app_version").version);
    }
}
