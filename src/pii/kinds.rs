//! The kinds of personal data, and sets of them.

use std::fmt;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $code:literal,)*) => {
        /// A kind of personal data (or of a secret that gives access to some).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum PiiType { $($(#[$doc])* $variant,)* }

        impl PiiType {
            /// Every kind, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in tokens, contracts and counts: lower case with underscores.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }
        }
    };
}

kinds! {
    /// Name of a person.
    Person = "person",
    /// E-mail address.
    Email = "email_address",
    /// Telephone number.
    Phone = "phone_number",
    /// Payment card number (ISO/IEC 7812).
    Card = "credit_card",
    /// International bank account number (ISO 13616).
    Iban = "iban_code",
    /// IPv4 or IPv6 address.
    Ip = "ip_address",
    /// MAC address of a device.
    Mac = "mac_address",
    /// Bitcoin or Ethereum address.
    Crypto = "crypto",
    /// Postal address.
    Address = "street_address",
    /// Date of birth.
    BirthDate = "date_of_birth",
    /// Latitude and longitude.
    Geo = "geo_coordinate",
    /// Password, API key, access token or private key.
    Secret = "secret",
    /// Vehicle identification number (ISO 3779).
    Vin = "vin",
    /// Identity of a mobile device.
    Imei = "imei",
    /// United States: social security number.
    UsSsn = "us_ssn",
    /// United States: individual taxpayer identification number.
    UsItin = "us_itin",
    /// United States: national provider identifier.
    UsNpi = "us_npi",
    /// United States: Medicare beneficiary identifier.
    UsMbi = "us_mbi",
    /// United States: bank routing number.
    UsAba = "aba_routing_number",
    /// United States: DEA registration number.
    UsDea = "medical_license",
    /// Bank account number without a country's format.
    BankAccount = "us_bank_number",
    /// Driver's licence number.
    DriverLicence = "us_driver_license",
    /// Passport number.
    Passport = "us_passport",
    /// United Kingdom: NHS number.
    UkNhs = "uk_nhs",
    /// United Kingdom: national insurance number.
    UkNino = "uk_nino",
    /// Spain: NIF of a citizen (DNI).
    EsNif = "es_nif",
    /// Spain: NIE of a foreigner.
    EsNie = "es_nie",
    /// Italy: codice fiscale.
    ItFiscalCode = "it_fiscal_code",
    /// Poland: PESEL.
    PlPesel = "pl_pesel",
    /// India: Aadhaar.
    InAadhaar = "in_aadhaar",
    /// India: permanent account number.
    InPan = "in_pan",
    /// Australia: tax file number.
    AuTfn = "au_tfn",
    /// Australia: Medicare card number.
    AuMedicare = "au_medicare",
    /// Canada: social insurance number.
    CaSin = "ca_sin",
    /// Germany: tax identification number.
    DeTaxId = "de_tax_id",
    /// Singapore: NRIC or FIN.
    SgNric = "sg_nric_fin",
    /// Finland: henkilötunnus.
    FiHetu = "fi_personal_identity_code",
    /// South Korea: resident registration number.
    KrRrn = "kr_rrn",
    /// Sweden: personnummer.
    SePersonnummer = "se_personnummer",
    /// South Africa: identity number.
    ZaId = "za_id_number",
    /// Türkiye: T.C. kimlik numarası.
    TrId = "tr_national_id",
    /// Brazil: CPF.
    BrCpf = "br_cpf",
    /// Netherlands: burgerservicenummer.
    NlBsn = "nl_bsn",
    /// France: numéro de sécurité sociale.
    FrNir = "fr_nir",
    /// China: resident identity number.
    CnId = "cn_resident_id",
}

impl PiiType {
    /// The kind of this name, in either case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for PiiType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A set of kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kinds(u64);

impl Kinds {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// The set of `kinds`.
    pub const fn of(kinds: &[PiiType]) -> Self {
        let (mut set, mut at) = (0, 0);
        while at < kinds.len() {
            set |= 1 << kinds[at] as u8;
            at += 1;
        }
        Self(set)
    }

    /// Whether `kind` is in the set.
    pub const fn has(self, kind: PiiType) -> bool {
        self.0 >> kind as u8 & 1 == 1
    }

    /// Whether the sets share a kind.
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The kinds of both sets.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The kinds of this set that are not in `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Number of kinds in the set.
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The kinds in the set, in the order of declaration.
    pub fn iter(self) -> impl Iterator<Item = PiiType> {
        PiiType::ALL.iter().copied().filter(move |kind| self.has(*kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own_and_a_bit_in_the_set() {
        let names: std::collections::HashSet<_> = PiiType::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), 45);
        assert!(PiiType::ALL.iter().all(|kind| PiiType::from_name(kind.name()) == Some(*kind)));
        assert_eq!(Kinds::of(PiiType::ALL).iter().count(), 45);
    }
}
