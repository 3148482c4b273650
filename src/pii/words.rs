//! The vocabulary: what a word near a number, or in a column's name, says about it.
//!
//! One table serves both: `SSN` before a number and a column `ssn` say the same. Words are matched whole and
//! in lower case; a word may speak for several kinds, and the check digits then decide.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::OnceLock;

use super::kinds::{Kinds, PiiType as P};

/// Longest word that is looked up, in bytes of its lower-case form.
const MAX_WORD: usize = 32;

/// Roles that a word plays besides naming kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Roles(u32);

impl Roles {
    /// Names something else that has numbers: an order, a part, a ticket.
    pub const OTHER_ID: Self = Self(1);
    /// Announces a version, a chapter or a revision.
    pub const VERSION: Self = Self(1 << 1);
    /// Mr, Frau, Dr.
    pub const HONORIFIC: Self = Self(1 << 2);
    /// A person's name follows.
    pub const BEFORE_NAME: Self = Self(1 << 3);
    /// Stands after a person's name.
    pub const AFTER_NAME: Self = Self(1 << 4);
    /// A given name.
    pub const GIVEN_NAME: Self = Self(1 << 5);
    /// Street, Avenue, Plaza: after a street's name.
    pub const STREET: Self = Self(1 << 6);
    /// Rue, Calle, Via: before a street's name.
    pub const STREET_BEFORE: Self = Self(1 << 7);
    /// van, de, bin: within a name.
    pub const PARTICLE: Self = Self(1 << 8);
    /// Starts a sentence but no name.
    pub const COMMON: Self = Self(1 << 9);
    /// Inc, GmbH, University: the name is not a person's.
    pub const ORGANISATION: Self = Self(1 << 10);
    /// In a column's name: the column counts or classifies, it does not identify.
    pub const MEASURE: Self = Self(1 << 11);
    /// Apt, Suite, Unit.
    pub const UNIT: Self = Self(1 << 12);
    /// A month; its number is in the topmost bits.
    pub const MONTH: Self = Self(1 << 13);
    /// In a column's name, with `name`: the name is a person's.
    pub const HOLDER: Self = Self(1 << 14);
    /// In a column's name: it holds names of persons by itself.
    pub const NAME_COLUMN: Self = Self(1 << 15);
    /// In a column's name beside `address`: not a postal one.
    pub const NOT_POSTAL: Self = Self(1 << 16);

    /// Part of the name of a place.
    pub const PLACE: Self = Self(1 << 17);
    /// In a column's name: people write sentences into it, whatever else its name says.
    pub const FREE_TEXT: Self = Self(1 << 18);
    /// In a column's name: what it names with capitals are things, places or organisations.
    pub const THING: Self = Self(1 << 19);
    /// `name` in a column's name, in several languages.
    pub const NAME: Self = Self(1 << 20);

    /// Whether all of `roles` are played.
    pub const fn is(self, roles: Self) -> bool {
        self.0 & roles.0 == roles.0
    }

    /// Both roles.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Number of the month, from 1, of a word that is one.
    pub const fn month(self) -> u32 {
        self.0 >> 28
    }
}

/// What the vocabulary says about one word.
#[derive(Debug, Clone, Copy, Default)]
pub struct Word {
    /// Kinds that the word announces.
    pub kinds: Kinds,
    /// Other roles.
    pub roles: Roles,
}

#[derive(Default)]
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// The table of all words.
pub struct Vocabulary(HashMap<&'static [u8], Word, BuildHasherDefault<Fnv>>);

impl Vocabulary {
    /// The vocabulary, built once.
    pub fn get() -> &'static Self {
        static TABLE: OnceLock<Vocabulary> = OnceLock::new();
        TABLE.get_or_init(Self::build)
    }

    /// What is known about `word`, in any case.
    pub fn look_up(&self, word: &str) -> Word {
        let mut buffer = [0; MAX_WORD];
        let Some(lower) = lower(word, &mut buffer) else { return Word::default() };
        self.0.get(lower).copied().unwrap_or_default()
    }

    fn build() -> Self {
        let mut table = HashMap::<&'static [u8], Word, BuildHasherDefault<Fnv>>::default();
        for (kinds, words) in KEYWORDS {
            for word in words.split_ascii_whitespace() {
                let entry = table.entry(word.as_bytes()).or_default();
                entry.kinds = entry.kinds.union(Kinds::of(kinds));
            }
        }
        for (roles, words) in ROLES {
            for word in words.split_ascii_whitespace() {
                let entry = table.entry(word.as_bytes()).or_default();
                entry.roles = entry.roles.and(*roles);
            }
        }
        for name in GIVEN_NAMES.split_ascii_whitespace() {
            let entry = table.entry(name.as_bytes()).or_default();
            entry.roles = entry.roles.and(Roles::GIVEN_NAME);
        }
        for (number, words) in (1..).zip(MONTHS) {
            for word in words.split_ascii_whitespace() {
                let entry = table.entry(word.as_bytes()).or_default();
                entry.roles = entry.roles.and(Roles::MONTH).and(Roles(number << 28));
            }
        }
        Self(table)
    }
}

fn lower<'b>(word: &str, buffer: &'b mut [u8; MAX_WORD]) -> Option<&'b [u8]> {
    if word.is_ascii() {
        let lower = buffer.get_mut(..word.len())?;
        lower.copy_from_slice(word.as_bytes());
        lower.make_ascii_lowercase();
        return Some(lower);
    }
    let mut length = 0;
    for character in word.chars().flat_map(char::to_lowercase) {
        let mut utf8 = [0; 4];
        let bytes = character.encode_utf8(&mut utf8).as_bytes();
        buffer.get_mut(length..length + bytes.len())?.copy_from_slice(bytes);
        length += bytes.len();
    }
    buffer.get(..length)
}

/// Words that announce kinds.
const KEYWORDS: &[(&[P], &str)] = &[
    (&[P::Email], "email emails mail e-mail courriel correo emailaddress"),
    (
        &[P::Phone],
        "phone phones tel telephone mobile cell cellphone call called calls calling fax whatsapp sms ring reach dial telefon handy \
         móvil movil mobil mobilnummer gsm natel tlf fone tél telefonnr kontaktnummer llame llamar llámame llama rufen anrufen anruf appelez appeler \
         chiamare chiamami bellen bel ligar ligue 电话 手机 手机号 电话号码 電話 電話番号 携帯 전화 휴대폰 teléfono telefono téléphone portable celular telefone cellulare telefoon mobiel puhelin telefonnummer mob ph \
         hotline landline contact callback msisdn phonenumber phoneno mobilenumber handynummer rufnummer numer telefonu",
    ),
    (
        &[P::Card],
        "card cards visa mastercard amex cc ccn credit debit kreditkarte carte tarjeta cartão cartao carta karte pan maestro discover charge charged cardnumber creditcard ccnumber",
    ),
    (&[P::Iban], "iban account konto"),
    (
        &[P::Ip],
        "ip ips ipv4 ipv6 ipaddr ipaddress host hosts addr address server client request requests login connect connected connection ping gateway dns proxy firewall remote peer network blocked visitor source origin session node traffic",
    ),
    (&[P::Mac], "mac bssid macaddress"),
    (&[P::UsSsn], "ssn ss social ssns socialsecurity"),
    (&[P::UsItin], "itin tin taxpayer itins tax"),
    (&[P::UsNpi], "npi provider prescriber"),
    (&[P::UsMbi], "mbi medicare beneficiary"),
    (&[P::AuMedicare], "medicare"),
    (&[P::UsAba], "aba routing rtn transit"),
    (&[P::UsDea], "dea prescriber"),
    (&[P::BankAccount], "account acct bank konto kontonummer cuenta compte conto rekening bankaccount accountnumber"),
    (
        &[P::DriverLicence],
        "licence license lic licences licenses dl dln driver drivers driving driverslicense driverlicense führerschein führerscheinnummer permis licencia",
    ),
    (
        &[P::Passport],
        "passport passports passportnumber reisepass reisepassnummer passeport pasaporte passaporto paspoort passnummer passaporte 护照 护照号 旅券",
    ),
    (&[P::UkNhs], "nhs nhsnumber"),
    (&[P::UkNino], "nino insurance ni nationalinsurance"),
    (&[P::EsNif], "nif dni"),
    (&[P::EsNie], "nie extranjero"),
    (&[P::ItFiscalCode], "codice fiscale cf codicefiscale"),
    (&[P::PlPesel], "pesel"),
    (&[P::InAadhaar], "aadhaar aadhar adhaar uidai aadhaarnumber"),
    (&[P::InPan], "pan permanent pannumber"),
    (&[P::AuTfn], "tfn tax"),
    (&[P::CaSin], "sin nas insurance assurance"),
    (
        &[P::DeTaxId],
        "steuer steueridentifikationsnummer steuernummer steuerid idnr identifikationsnummer steueridentnummer tin tax",
    ),
    (&[P::SgNric], "nric fin uin singapore"),
    (&[P::FiHetu], "hetu henkilötunnus henkilotunnus personbeteckning henkilötunnukseni"),
    (&[P::KrRrn], "rrn jumin 주민등록번호 주민번호 resident korean"),
    (&[P::SePersonnummer], "personnummer personnr pers pnr samordningsnummer swedish"),
    (&[P::ZaId], "african rsa said za sa southafrican"),
    (&[P::TrId], "tckn tc kimlik tcno kimliknumarası turkish türk"),
    (&[P::BrCpf], "cpf cadastro contribuinte"),
    (&[P::NlBsn], "bsn burgerservicenummer sofinummer sofi"),
    (&[P::FrNir], "nir sécu secu sécurité securite sociale insee"),
    (&[P::CnId], "resident 身份证 身份证号 身份证号码 居民身份证 公民身份号码 shenfenzheng sfz chinese"),
    (
        &[P::PlPesel, P::TrId, P::ZaId, P::CnId, P::InAadhaar, P::FrNir, P::KrRrn],
        "identity identification citizen citizenship",
    ),
    (&[P::Imei], "imei imei1 imei2 handset"),
    (&[P::Vin], "vin chassis vehicle fahrgestellnummer fin"),
    (&[P::Crypto], "btc eth bitcoin ethereum wallet crypto"),
    (
        &[P::BirthDate],
        "born birth dob birthday birthdate bday dateofbirth geboren geb geburtsdatum geburtstag naissance né née nacimiento nacido \
         nacida nato nata nascita nascimento nascido nascida urodzony urodzona geboortedatum född födelsedatum födelsedag syntynyt syntymäaika doğum fødselsdato fødselsdag urodzenia nasc nac bdate birthdt \
         生年月日 出生日期 生日 출생 생년월일",
    ),
    (
        &[P::Geo],
        "lat latitude lon lng long longitude latlon latlng latlong gps coordinate coordinates coords coord located location position geo geolocation geopoint",
    ),
    (
        &[P::Secret],
        "password passwd pwd passphrase passcode secret token apikey api bearer credential credentials passwort kennwort contraseña senha accesskey secretkey authtoken privatekey",
    ),
    (
        &[P::Address],
        "street streetaddress strasse straße addr address anschrift adresse dirección direccion indirizzo endereço endereco adres domicile residence \
         residing resides reside wohnhaft wohnt wohnort domicilio domicilié domiciliado domiciliada morada woonachtig woont habite lives lived moved adress 地址 住所 주소",
    ),
];

/// Words with other roles.
const ROLES: &[(Roles, &str)] = &[
    (
        Roles::OTHER_ID,
        "order orders policy claim voucher coupon receipt reservation permit consignment waybill vorgang pratica ref refs reference references invoice tracking track ticket tickets lot part parts sku isbn ean upc gtin batch po serial \
         model item items product catalog catalogue transaction txn shipment parcel package booking case article asin rma quote job checksum hash \
         commit sequence seq epoch timestamp event trace span uuid guid digest etag sha md5 barcode session build record row index po# \
         bestellung bestellnummer auftrag rechnung commande facture pedido factura ordine fattura zamówienie doc document",
    ),
    (
        Roles::FREE_TEXT,
        "notes comment comments remark remarks description desc text body message messages msg feedback review reviews transcript details summary \
         narrative memo free complaint explanation answer bemerkung bemerkungen kommentar notiz notizen beschreibung nachricht commentaire \
         commentaires remarque remarques observación observacion observaciones comentario comentarios descripción descripcion mensaje nota notas \
         osservazioni descrizione messaggio opmerking opmerkingen beschrijving bericht observações observacoes descrição descricao mensagem",
    ),
    (
        Roles::THING,
        "movie film song album book game track project plugin package component function variable field table column file folder dataset feature app application playlist channel program programme campaign make manufacturer airline airport school hotel club league location city town state region \
         province job title occupation profession team colour color workclass contract industry sector breed species brand vendor supplier \
         employer organisation organization merchant publisher carrier retailer shop store restaurant product item model dish food \
         recipe cuisine sport drug medication medicine disease diagnosis material genre country municipality county district origin \
         destination station capital port department division category language religion ethnicity nationality race degree course major \
         headline class role position segment theme vehicle wine plant animal variety flavour flavor firm firma business \
         stadt ort land marke hersteller lieferant arbeitgeber abteilung beruf produkt titel ville pays marque fournisseur employeur produit \
         métier poste ciudad país pais marca proveedor empresa producto título titulo puesto profesión città citta paese fornitore azienda \
         prodotto titolo professione plaats merk leverancier werkgever bedrijf beroep cidade fornecedor produto cargo profissão",
    ),
    (
        Roles::NAME,
        "name names nm nombre nombres nom noms nome nomes naam namen navn namn imiona nimi isim 氏名 姓名 名前",
    ),
    (
        Roles::VERSION,
        "version v ver versions release released releases firmware chapter section build update updated upgraded upgrade upgrading downgrade downgraded downgrading updating updates installed install sdk kernel patch oid revision \
         rev figure clause paragraph software library chrome firefox safari openssl mozilla edge windows android ios linux nginx apache python java node \
         postgres plugin module dependency driver bios agent app",
    ),
    (
        Roles::HONORIFIC,
        "mr mrs ms miss dr prof professor sir madam herr frau mme mlle monsieur madame sr sra señor señora sig signora signor dhr mevr mevrouw meneer pan pani dott dottor dottore dottoressa dra doctora ing rev lady lord mx miss mademoiselle \
         senhor senhora don doña dona shri smt fru",
    ),
    (
        Roles::BEFORE_NAME,
        "signed spoke speak talked met assigned addressed accepted approved reviewed prepared referred handed treated hired introduced \
         escalated contact named dear attn regards sincerely belongs patient customer client tenant employee applicant passenger guest subscriber holder \
         cardholder beneficiary recipient sender name sincerely cheers greetings colleague caller manager owner buyer author agent nurse doctor \
         user member resident student teacher driver mit freundlichen grüßen \
         technician accountant consultant dentist pharmacist neighbour neighbor brother sister mother father wife husband daughter uncle aunt cousin assistant clerk courier plumber electrician mechanic physician surgeon therapist attorney lawyer witness claimant plaintiff defendant landlord lessee borrower policyholder candidate instructor \
         supervisor representative coordinator interviewed invoiced notify inform behalf hello hi hey attending counsel cc \
         sachbearbeiter sachbearbeiterin techniker berater beraterin anwalt nachbar nachbarin bruder schwester mutter vater tochter kunde kundin kunden patientin ansprechpartner ansprechpartnerin mitarbeiter mitarbeiterin mieter mieterin vermieter inhaber inhaberin arzt \
         ärztin lehrer lehrerin kollege kollegin absender empfänger liebe lieber geehrte geehrter gruß grüße unterschrieben \
         hermano hermana esposo esposa hijo hija vecino vecina amigo abogado frère soeur mari fille voisin avocat fratello sorella marito moglie figlio figlia avvocato broer zus buurman irmão irmã marido filho filha paciente cliente clienta empleado empleada titular médico médica firmado firmada estimado estimada querida querido atentamente hola \
         patiente cliente employé employée titulaire collègue médecin locataire signé signée cher chère cordialement bonjour \
         paziente dipendente intestatario intestataria medico collega inquilino firmato caro cara gentile saluti ciao \
         klant patiënt medewerker huurder arts ondertekend beste geachte groeten funcionário funcionária colega assinado prezado prezada olá \
         heiße heisse appelle llamo llama chiamo chiama heet nome nombre naam kund patienten hälsningar klient pacjent pracownik",
    ),
    (
        Roles::AFTER_NAME,
        "called lives lived wrote asked said emailed phoned born signed resides requested complained ordered wants wanted reported confirmed replied \
         paid works lives residing moved cancelled canceled returned bought visited signs needs told mentioned contacted whose aged wohnt habite vive \
         submitted filed received sent speaking here joined left booked resigned retired married divorced died spoke thinks complains apologised apologized \
         attended arrived requests asks writes visits owes agreed declined accepted applied woont werkt schreef belde lebt arbeitet schrieb kaufte \
         bestellte unterschrieb zahlte reside trabaja llamó escribió firmó pidió compró appelle travaille écrit abita lavora scrive mora trabalha ligou escreveu né née",
    ),
    (
        Roles::PARTICLE,
        "van von der den de da di del della dello dei degli delle la le les lo los las du des do dos das bin ibn el al ter ten te zu zur zum vom af av y e ben op aux",
    ),
    (
        Roles::COMMON,
        "the this that these those please my our your his her their its we you they he she it i a an and or but if when while for from to in on at of \
         with as is are was were be been hello hi thanks thank yes no not all any some what where who why how can could will would should may might \
         must do does did has have had new old first last next after before since until call email phone contact ship send signed card order dear \
         regards today tomorrow yesterday monday tuesday wednesday thursday friday saturday sunday customer patient client account number via per \
         note re subject fwd sincerely best kind let see ask tell there here transfer payment invoice request user name reply mail \
         mein meine meinen meiner dein deine sein seine ihre der die das ein eine und oder ist sind war nicht bitte wir sie ich ihr unser unsere mit für am im le les une un et est sont nous vous mon ma mes \
         notre votre pour avec el los las una uno y es son fue con para por mi su nuestro il lo gli una è sono con per mio mia suo het een en zijn is niet \
         wij u mijn uw met voor o os as um uma é são com para meu minha sr",
    ),
    (
        Roles::ORGANISATION,
        "inc ltd llc gmbh ag corp corporation co company group plc sa srl spa bv nv oy ab as kg ohg sarl university college institute bank hotel \
         airlines airport hospital school church museum foundation association council ministry department committee partners holdings \
         airways air intl international airport regional municipal memorial metropolitan jet aviation express cargo railway \
         stadium theatre theater cafe records studio studios pictures entertainment media news times press journal tribune gazette herald magazine lines technologies systems solutions services industries service team \
         department dept support office agency authority commission federation police embassy clinic pharmacy laboratory laboratories insurance limited \
         incorporated associates consulting logistics motors foods software networks energy ventures trust fund gesellschaft verein stiftung versicherung \
         sparkasse société banque compagnie sociedad banco ayuntamiento ministerio società banca gemeente stichting vereniging sociedade international store shop market restaurant",
    ),
    (
        Roles::MEASURE,
        "count counts num n total avg mean sum is has type kind service services plan charges charge status flag rate ratio len length \
         brand category country code area minutes calls duration usage score valid verified lines support method provider carrier model os \
         language price cost amount size weight min max pct percent median std var age days months years present domain",
    ),
    (
        Roles::PLACE,
        "new north south east west northern southern eastern western city county state river lake beach island islands valley mount mountain bay fort port saint \
         san santa los las el united kingdom states republic texas california florida carolina dakota virginia georgia washington oregon nevada arizona ohio \
         michigan illinois alabama alaska arkansas colorado connecticut delaware hawaii idaho indiana iowa kansas kentucky louisiana maine maryland \
         massachusetts minnesota mississippi missouri montana nebraska hampshire jersey mexico york oklahoma pennsylvania rhode tennessee utah vermont \
         wisconsin wyoming england scotland wales ireland france germany italy spain india china japan brazil canada australia peru chile argentina \
         poland turkey egypt africa asia europe america panthers tigers bulls rangers",
    ),
    (Roles::UNIT, "apt apartment suite unit flat floor room ste"),
    (
        Roles::STREET,
        "street st avenue ave road rd lane ln drive dr court ct boulevard blvd place pl square sq terrace ter way parkway pkwy highway hwy circle cir \
         trail trl alley crescent cres close grove row walk mews gardens hill heights plaza ridge point view loop path pike pass run bend crossing \
         bridge cove creek crest divide estate estates extension extensions fall falls field fields flat flats ford forest forge fork forks fort \
         freeway garden gateway glen glens green greens haven harbor harbour hollow inlet island islands isle junction key keys knoll knolls lake lakes \
         landing light lights loaf lock locks lodge mall manor manors meadow meadows mill mills mission motorway mount mountain mountains neck orchard oval \
         overpass park parks passage pine pines plain plains points port ports prairie radial ramp ranch rapid rapids rest river roads route rue shoal \
         shoals shore shores skyway spring springs spur squares station stravenue stream streets summit throughway trace track trafficway tunnel turnpike \
         underpass union unions valley valleys via viaduct views village villages ville vista walks wall ways well wells branch brook brooks burg burgs \
         bypass camp canyon cape causeway center centers centre circles cliff cliffs club common commons corner corners course courts coves curve dale dam \
         dell drives brow esplanade parade promenade circuit wharf quay rise nook chase copse dene vale concourse arcade strand quadrant laneway nagar marg colony chowk vihar layout \
         thoroughfare groves closes lanes terraces crescents avenues paths rows trails drives places highways courtyard mount gully expressway land rotary block subway basin beltway boardwalk broadway",
    ),
    (
        Roles::STREET_BEFORE,
        "rue avenue boulevard chemin place impasse allée allee quai route cours calle avenida paseo plaza camino carrera glorieta rambla ronda urbanización via \
         viale zza piazza corso vicolo strada contrada largo borgo rua travessa alameda praça rodovia ulica ul aleja al plac os osiedle ulice stretto \
         sentier passage avda av bulevar callejón calzada carretera prolongación travesía jirón piazzale piazzetta lungomare salita traversa faubourg \
         estrada praceta beco ladeira c/ pasaje vereda canale rotonda incrocio",
    ),
    (
        Roles::HOLDER,
        "cust emp mgr completo completa complet complète vollständiger kunde kundin kunden klant cliente clienta client paciente patienten ansprechpartner mitarbeiter \
         empleado empleada employé dipendente titular titulaire inhaber intestatario fahrer medewerker funcionario funcionário arzt médico medico médecin \
         attending candidate player actor director driver rider traveler traveller visitor witness victim defendant plaintiff landlord lessee donor \
         requester requestor reporter assignee signer signatory lawyer attorney instructor supervisor parent child guardian policyholder borrower \
         primary secondary preferred full first last middle given family customer client patient contact employee person holder cardholder owner author student member passenger \
         guest beneficiary recipient sender buyer applicant insured subscriber billing shipping emergency doctor physician spouse mother father maiden \
         birth real legal account resident tenant user participant respondent manager agent attendee reviewer nurse complete second surname caller payee payer",
    ),
    (
        Roles::NAME_COLUMN,
        "surname lastname firstname fullname forename middlename givenname familyname vorname nachname familienname apellido apellidos prenom prénom \
         cognome nazwisko imie imię achternaam voornaam kundenname kundennamen patientenname mitarbeitername klantnaam kontaktperson familiename sobrenome maidenname patronymic förnamn efternamn etunimi sukunimi cardholder payee",
    ),
    (
        Roles::NOT_POSTAL,
        "ip ipv4 ipv6 mac email mail wallet web url http memory host remote client server contract eth btc bitcoin crypto bus register device id type count line2valid wallets from to network src dst bssid",
    ),
    (
        Roles::GIVEN_NAME,
        "aaron abigail adam adrian agnieszka ahmed aisha alan albert alejandra alejandro alessandra alessandro alessia alex alexander alexandra alexandre \
         alexis alfredo ali alice alicia alina alison allison amanda amber amelia amit amy ana andrea andreas andres andré andrea andrew andrzej angela angelica anil \
         anita ann anna anne annette annie anthony antje antoine anton antonio anja arjun armin arthur ashley astrid audrey august aurélie austin ava barbara bartosz \
         beatrice beatriz ben benjamin bernard bernd bernhard beth betty beverly birgit bjorn bobby bonnie brad bradley brandon brenda brent brett brian brigitte \
         bruce bruno bryan caleb camila camille carl carla carlos carmen carol carolina caroline carolyn casey catherine cathy cecilia celine cesar chad charles charlie \
         charlotte chelsea cheryl chiara chris christian christiane christina christine christoph christophe christopher cindy claire clara claude claudia clément \
         colin connor corey courtney craig cristina crystal curtis cynthia daisy dale dan dana daniel daniela danielle danny darren dave david dawn dean debbie deborah \
         debra deepak denise dennis derek diana diane diego dieter dimitri dirk dmitry dominic dominik dominique don donald donna doris dorothy douglas dustin dylan \
         eduardo edward edwin eileen elaine eleanor elena elias elisabeth elizabeth ella ellen emil emilia emily emma emmanuel enrique eric erica erik erika erin \
         ernest esther ethan eugene eva evan evelyn fabian fatima felipe felix fernanda fernando filip florian frances francesca francesco francis francisco franck \
         françois frank franz fred frederic frédéric friedrich gabriel gabriela gabriele gail gary gavin george georg gerald gerard gerhard gertrud gina giorgia giovanna \
         giovanni giulia giuseppe glenn gloria gonzalo grace graham greg gregory grzegorz guido guillaume gustavo hanna hannah hans harald harold harry hatice hassan \
         heather hector heidi heike heinrich heinz helen helena helga henri henrik henry herbert hermann holger holly horst howard hugo hunter ian ibrahim ignacio ingrid irena irene \
         iris isaac isabel isabella isabelle ivan jack jackie jackson jacob jacqueline jacques jade jaime jake jakob jakub james jamie jan jana jane janet janice \
         jared jasmine jason javier jay jean jeff jeffery jeffrey jenna jennifer jenny jens jeremy jerome jerry jesse jessica jesus jill jim jimmy joachim joan joanna \
         joanne joao joe joel johan johann johanna johannes john johnny jon jonas jonathan jordan jorge jose josef joseph josé joshua joyce juan juana judith judy julia \
         julian juliana julie julien jürgen justin jutta kai karen karin karl karsten katarzyna kate katherine kathleen kathryn kathy katie katja katrin kayla keith \
         kelly kelsey ken kenneth kerstin kevin kim kimberly klaus kristen kristin kristina krystyna krzysztof kumar kurt kyle lars larry laura lauren laurence laurent \
         lawrence léa lea lee leo leon leonard leonardo leslie lewis liam linda lindsay lindsey lisa logan lori louis louise luc luca lucas lucia lucie lucy luigi luis luisa \
         lukas łukasz lydia lynn maciej madison maggie małgorzata manfred manon manuel manuela marc marcel marcela marcia marcin marco marcos marek margaret maria mariana \
         marianne marie marilyn mario marion marisa mark markus marta martha martin martina martine mary mateo mateusz mathieu matteo matthew matthias matthieu \
         maurice max maxime megan mehmet melanie melissa meredith mia michael michaela michał michel michele micheal michelle miguel mike mikhail miriam misty mohamed mohammad mohammed \
         molly monica monika monique morgan muhammad mustafa nadia nadine nancy natalia natalie natasha nathalie nathan neha neil nelson nicholas nick nicola \
         nicolas nicole nikhil nikolai nina noah noel nora norbert norma norman olga oliver olivia olivier omar oscar oskar otto pablo paige pamela paola paolo pascal \
         patricia patrick patrizia paul paula pauline pawel paweł pedro peggy penny pete peter petra philip philipp philippe phillip phyllis pierre piotr \
         priya rachel rafael rahul rainer raj rajesh ralf ralph ramon randall randy raphaël raquel raul ray raymond rebecca regina reinhard renate renee renzo ricardo \
         richard rick rita robert roberta roberto robin rodney rodrigo roger roland rolf roman ron ronald rosa rosemary ross roy ruben rudolf russell ruth ryan \
         sabine sabrina sally salvatore sam samantha samir samuel sandra sandy sanjay santiago sara sarah scott sean sebastian sébastien sergei sergio seth shane shannon \
         sharon shaun shawn sheila shelby sheri sherry shirley silke silvia simon simona simone sofia sofie solange sonia sonja sophia sophie spencer stacey stacy \
         stanislaw stefan stefania stefanie stefano stephan stephanie stéphane stéphanie stephen steve steven stuart sue sunil sunita susan susana susanne suzanne sven svetlana sylvia \
         sylvie tamara tammy tanya tara tatiana taylor teresa terrence terri terry thelma theodore theresa thierry thomas thorsten tiffany tim timo timothy tina todd tom tomas \
         tomasz toni tony tonya torsten tracey traci tracy travis trevor tristan troy tyler ulrich ulrike ursula urte uta ute uwe valentina valerie valérie vanessa vera \
         veronica veronika véronique vicki victor victoria vijay viktor vincent vincenzo virginia vivian vladimir walter wanda warren wayne wendy werner wesley whitney wilhelm \
         william willie wojciech wolfgang xavier aarav abdul abdullah adele aditya adrienne agata aileen ajay akash akira alberto aleksandra aleksander aleš alma alvaro amir amira anand anders anika anja anke \
         annika antonina anya ariana arnaud arne arturo arvid asha aurora axel ayşe aziz bashir beata benoit bettina björn bogdan bożena cecile chandra chen claudio cornelia dagmar damian \
         danuta davide deepa dennis devi dorota edith edoardo elif elisa eliza elke elsa emilio emre enzo erich erwin esra esteban eszter fatma federica federico felicia ferdinand \
         fiona florence francine fredrik fritz gabriella gilbert giorgio gisela giuliano gregor gunnar günter günther gustav halina hamza harriet hassan helmut hendrik hiroshi \
         hubert huda ibrahim ilse imran inga ines inés ingeborg iván ivana jacek jadwiga jan jerzy jiri joana joaquin joakim jochen jolanta josefina josephine jörg jörn \
         josé juergen jürgen kamil kamila karim karolina katharina kenji khalid kirsten kjell klara kofi konrad kornelia laila lakshmi lara layla leila leonie lena lieselotte lina \
         linus liza lorenzo ludwig ludmila luisa magda magdalena malik manish marek margarete margit maribel marius marlene marta maryam mateusz mathilde matilda mats maureen mei meera mercedes \
         mette mieczysław milan milena mina mirosław mohan morten murat nabil nadja nikolaus nils nisha noor oksana olaf olena olivia otto pankaj pavel per petr petra pilar pooja prakash \
         pradeep radosław rafał ralf ramesh rani rashid ravi remy rohan roman rosalind rosario rudi ryszard sabina sachin sakura salma sanjana satoshi selma serge shreya sigrid \
         silvio slawomir sofía søren stanisław steffen stig sunita suresh svenja swati sylwia szymon tadeusz takashi tariq tatjana teodor thea tomoko torben urszula usha vaclav valentin \
         vasily viktoria viola vivek waldemar walid wanda wiebke wiesław wilma xin yan yara yasir yusuf yuri zainab zbigniew zdeněk zeynep zoltan zuzana yann yasmin yolanda yuki yusuf yves yvonne zachary zoe zoé zofia",
    ),
];

/// Given names that are common in the United States, or in two countries of Europe, Latin America and South Asia or
/// more, and are no common word, colour, country or town; beside those in [`ROLES`].
const GIVEN_NAMES: &str = include_str!("given_names.txt");

/// Names of months, by month.
const MONTHS: [&str; 12] = [
    "january jan januar janvier enero gennaio janeiro januari",
    "february feb februar février febrero febbraio fevereiro februari",
    "march mar märz mars marzo março maart",
    "april apr avril abril aprile",
    "may mai mayo maggio maio mei",
    "june jun juni juin junio giugno junho",
    "july jul juli juillet julio luglio julho",
    "august aug août agosto augustus",
    "september sep sept septembre septiembre settembre setembro",
    "october oct okt oktober octobre octubre ottobre outubro",
    "november nov novembre noviembre novembro",
    "december dec dez dezember décembre diciembre dicembre dezembro",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_in_any_case_and_unknown_ones_say_nothing() {
        let table = Vocabulary::get();
        assert!(table.look_up("SSN").kinds.has(P::UsSsn));
        assert!(table.look_up("SÉCURITÉ").kinds.has(P::FrNir));
        assert_eq!(table.look_up("December").roles.month(), 12);
        assert!(table.look_up("xyzzy").kinds.is_empty());
        assert!(table.look_up(&"a".repeat(1000)).kinds.is_empty());
    }
}
