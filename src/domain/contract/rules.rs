//! What makes a specification valid beyond its grammar: limits, references between fields, sane numbers.

use std::collections::HashSet;

use unicode_normalization::UnicodeNormalization;

use super::SpecError;
use super::grammar::*;

/// Most columns of a model.
pub const MAX_COLUMNS: usize = 1_000;
const MAX_NAME: usize = 128;
const MAX_REASON: usize = 1_000;
const MAX_PATTERN: usize = 1_000;
const MAX_ENUM: usize = 10_000;
const MAX_ENUM_BYTES: usize = 64 * 1024;
const MAX_EDGES: usize = 99;
const MAX_RULES: usize = 256;
const MAX_EXPRESSION: usize = 4_096;
/// Most classes of a label.
const MAX_CLASSES: i64 = 1_000;

pub(super) type Check = Result<(), SpecError>;

pub(super) fn fail(path: impl Into<String>, problem: impl Into<String>, help: impl Into<String>) -> Check {
    Err(SpecError::at(path, problem, help))
}

pub(super) fn require(holds: bool, path: &str, problem: &str, help: &str) -> Check {
    if holds { Ok(()) } else { fail(path, problem, help) }
}

/// Whether a text is a model's name: it stands in topics, file names and metric labels.
#[must_use]
pub fn is_model_name(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rest = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    first && name.len() <= MAX_NAME && name.bytes().all(rest)
}

impl Spec {
    /// Checks everything that does not need the columns' Arrow types.
    pub(super) fn check(&self) -> Check {
        require(
            self.api_version == API_VERSION,
            "apiVersion",
            "is not known",
            &format!("write `apiVersion: {API_VERSION}`"),
        )?;
        require(self.kind == KIND, "kind", "is not known", &format!("write `kind: {KIND}`"))?;
        let help = "1 to 128 of a-z, 0-9, `.`, `_` and `-`, first a letter or digit";
        require(is_model_name(&self.name), "name", "is no name of a model", help)?;
        require(self.schema.len() == 1, "schema", "does not hold exactly one table", "a model has one table of rows")?;
        let properties = self.properties();
        require(!properties.is_empty(), "schema[0].properties", "is empty", "declare at least one column")?;
        let help = format!("a model has at most {MAX_COLUMNS} columns");
        require(properties.len() <= MAX_COLUMNS, "schema[0].properties", "has too many columns", &help)?;
        check_names(properties)?;
        self.check_label()?;
        for (i, property) in properties.iter().enumerate() {
            check_property(property, &format!("schema[0].properties[{i}]"), self.label.as_deref())?;
        }
        self.check_references()?;
        self.check_rules()?;
        // Without the section a contract may be there for its rows alone.
        if self.learning.is_some() {
            self.learning()?;
        }
        self.check_evaluation()?;
        self.check_attribution()
    }

    fn check_label(&self) -> Check {
        let Some(label) = &self.label else { return Ok(()) };
        let Some((i, property)) = self.properties().iter().enumerate().find(|(_, p)| p.name == *label) else {
            return fail("label", format!("`{label}` is no column"), "name one of schema[0].properties");
        };
        let path = format!("schema[0].properties[{i}]");
        let options = &property.logical_type_options;
        let bounds =
            options.minimum.as_ref().and_then(Scalar::as_i64).zip(options.maximum.as_ref().and_then(Scalar::as_i64));
        let finite = match property.logical_type {
            LogicalType::Boolean | LogicalType::Number => true,
            LogicalType::String => !options.values.is_empty(),
            LogicalType::Integer => {
                !options.values.is_empty() || bounds.is_some_and(|(a, b)| b.saturating_sub(a) < MAX_CLASSES)
            }
            LogicalType::Date | LogicalType::Timestamp => false,
        };
        let help = "a label is boolean, number, or has an `enum` (integers also `minimum` and `maximum`, at most 1,000 classes apart)";
        require(finite, &path, "has no bounded set of classes", help)?;
        let classes = i64::try_from(options.values.len()).unwrap_or(i64::MAX);
        require(classes <= MAX_CLASSES, &format!("{path}.logicalTypeOptions.enum"), "has too many classes", help)?;
        let plain = matches!(property.pii.policy, Policy::None) || property.pii == Pii::default();
        require(
            plain,
            &format!("{path}.pii"),
            "is set on the label",
            "a label holds no personal data; use policy `none` with a reason",
        )?;
        require(
            !property.required,
            &format!("{path}.required"),
            "is set on the label",
            "leave it out: a null label is LABEL_MISSING",
        )?;
        let excluded = self.exclude_from_identity.contains(label);
        require(!excluded, "excludeFromIdentity", "holds the label", "the label is part of a row's identity")
    }

    fn check_references(&self) -> Check {
        let known = |name: &String| self.property(name).is_some();
        for (i, name) in self.exclude_from_identity.iter().enumerate() {
            let path = format!("excludeFromIdentity[{i}]");
            require(known(name), &path, &format!("`{name}` is no column"), "name one of schema[0].properties")?;
        }
        let features = self.properties().iter().filter(|p| !self.exclude_from_identity.contains(&p.name));
        let features = features.filter(|p| Some(&p.name) != self.label.as_ref()).count();
        require(
            features > 0,
            "schema[0].properties",
            "has no feature column",
            "declare one besides the label and excludeFromIdentity",
        )?;
        for (i, leak) in self.leakage.iter().enumerate() {
            let path = format!("leakage[{i}]");
            require(
                !known(&leak.column),
                &path,
                &format!("`{}` is declared as a column", leak.column),
                "remove it from schema[0].properties",
            )?;
            check_text(&leak.column, &format!("{path}.column"), MAX_NAME)?;
            check_text(&leak.reason, &format!("{path}.reason"), MAX_REASON)?;
        }
        self.check_refuse()?;
        let Some(near) = &self.near_duplicates else { return Ok(()) };
        let help = "name the columns of the quasi-key, or free text under `text`";
        require(!near.columns.is_empty() || !near.text.is_empty(), "nearDuplicates.columns", "is empty", help)?;
        for (i, name) in near.columns.iter().enumerate() {
            let path = format!("nearDuplicates.columns[{i}]");
            require(known(name), &path, &format!("`{name}` is no column"), "name one of schema[0].properties")?;
        }
        for (name, step) in &near.round {
            let path = format!("nearDuplicates.round.{name}");
            let numeric =
                self.property(name).is_some_and(|p| p.logical_type.is_numeric()) && near.columns.contains(name);
            require(
                numeric,
                &path,
                "is no numeric column of the quasi-key",
                "name an integer or number column of nearDuplicates.columns",
            )?;
            let positive = step.as_f64().is_some_and(|s| s.is_finite() && s > 0.0);
            require(positive, &path, "is no step", "write a number above 0")?;
        }
        for (i, name) in near.text.iter().enumerate() {
            let path = format!("nearDuplicates.text[{i}]");
            let text = self.property(name).is_some_and(|p| p.logical_type == LogicalType::String);
            require(
                text,
                &path,
                &format!("`{name}` is no column of text"),
                "name a column with `logicalType: string`",
            )?;
            let twice = near.columns.contains(name) || near.text.iter().take(i).any(|earlier| earlier == name);
            require(!twice, &path, "is named twice", "a column is part of the quasi-key or free text")?;
        }
        let share = near.similarity.is_none_or(|s| s > 0.0 && s <= 1.0 && !near.text.is_empty());
        let help = "write a number above 0 and at most 1, beside `text`";
        require(share, "nearDuplicates.similarity", "is no share of similar texts", help)
    }

    /// Only what can happen under the contract is worth refusing: a line without an effect is a mistake.
    fn check_refuse(&self) -> Check {
        let mut seen = HashSet::new();
        for (i, flag) in self.refuse.iter().enumerate() {
            let path = format!("refuse[{i}]");
            require(seen.insert(flag), &path, "occurs twice", "remove one")?;
            let keyed = |p: &Property| p.unique || p.primary_key;
            let (possible, help) = match flag {
                Flag::LabelConflict => (self.label.is_some(), "declare a `label`"),
                Flag::NearDup => (
                    self.near_duplicates.is_some() || self.properties().iter().any(keyed),
                    "declare `nearDuplicates`, or a column as `unique` or `primaryKey`",
                ),
                Flag::LeakageColumn => (!self.leakage.is_empty(), "name the columns under `leakage`"),
            };
            require(possible, &path, "can never happen under this contract", help)?;
        }
        Ok(())
    }

    fn check_rules(&self) -> Check {
        let rules = self.rules();
        require(rules.len() <= MAX_RULES, "schema[0].quality", "has too many rules", "a model has at most 256 rules")?;
        let mut names = HashSet::new();
        for (i, rule) in rules.iter().enumerate() {
            let path = format!("schema[0].quality[{i}]");
            check_text(&rule.name, &format!("{path}.name"), MAX_NAME)?;
            require(names.insert(&rule.name), &format!("{path}.name"), "occurs twice", "give each rule its own name")?;
            let kind = rule.kind.as_deref().unwrap_or("sql");
            require(kind == "sql", &format!("{path}.type"), "is not `sql`", "rules are SQL boolean expressions")?;
            check_text(&rule.expression, &format!("{path}.expression"), MAX_EXPRESSION)?;
        }
        Ok(())
    }
}

pub(super) fn check_text(text: &str, path: &str, most: usize) -> Check {
    let clean = !text.trim().is_empty() && text.len() <= most && !text.chars().any(|c| c.is_control() && c != '\n');
    require(clean, path, "is empty, too long or has control characters", &format!("write 1 to {most} bytes"))
}

/// Column names are compared in Unicode's NFC form, and (for tables that other engines read) without case.
fn check_names(properties: &[Property]) -> Check {
    let mut seen = HashSet::new();
    for (i, property) in properties.iter().enumerate() {
        let path = format!("schema[0].properties[{i}].name");
        check_text(&property.name, &path, MAX_NAME)?;
        let reserved = property.name.starts_with('_');
        require(!reserved, &path, "starts with `_`", "such names are kept for the platform's own columns")?;
        let folded: String = property.name.nfc().flat_map(char::to_lowercase).collect();
        require(seen.insert(folded), &path, "occurs twice (case does not count)", "rename one of the columns")?;
    }
    Ok(())
}

fn check_property(property: &Property, path: &str, label: Option<&str>) -> Check {
    check_options(property, &format!("{path}.logicalTypeOptions"))?;
    check_pii(property, &format!("{path}.pii"))?;
    if let Some(rate) = property.allowed_null_rate {
        let path = format!("{path}.allowedNullRate");
        require((0.0..=1.0).contains(&rate), &path, "is no share", "write a number from 0 to 1")?;
        require(!property.required || rate == 0.0, &path, "contradicts `required`", "leave one of the two out")?;
    }
    match &property.reference {
        Some(reference) => {
            check_reference(property, reference, &format!("{path}.reference"), label == Some(property.name.as_str()))
        }
        None => Ok(()),
    }
}

fn check_options(property: &Property, path: &str) -> Check {
    let options = &property.logical_type_options;
    let (kind, name) = (property.logical_type, property.logical_type.name());
    for (bound, value) in options.bounds() {
        let at = format!("{path}.{bound}");
        let (fits, help) = match kind {
            LogicalType::Integer => (value.as_i64().is_some_and(is_exact), "an integer within ±(2^53−1)"),
            LogicalType::Number => (
                value.as_f64().is_some_and(f64::is_finite) && exact(value),
                "a finite number; integers within ±(2^53−1)",
            ),
            LogicalType::Date => (matches!(value, Scalar::Text(_)), "quote an ISO 8601 day, like '2024-12-31'"),
            LogicalType::Timestamp => {
                (matches!(value, Scalar::Text(_)), "quote an ISO 8601 instant, like '2024-12-31T23:00:00Z'")
            }
            LogicalType::String | LogicalType::Boolean => (false, "only numbers, dates and timestamps have bounds"),
        };
        require(fits, &at, &format!("does not fit a column of type {name}"), help)?;
    }
    let text_only = options.min_length.is_some() || options.max_length.is_some() || options.pattern.is_some();
    let help = "only columns of type string have minLength, maxLength and pattern";
    require(
        kind == LogicalType::String || !text_only,
        path,
        &format!("has limits of text on a column of type {name}"),
        help,
    )?;
    if let (Some(least), Some(most)) = (options.min_length, options.max_length) {
        require(least <= most, &format!("{path}.minLength"), "is above maxLength", "swap them")?;
    }
    if let Some(pattern) = &options.pattern {
        check_text(pattern, &format!("{path}.pattern"), MAX_PATTERN)?;
    }
    let future = !options.allow_future || kind == LogicalType::Timestamp;
    require(future, &format!("{path}.allowFuture"), "is set on another type than timestamp", "remove it")?;
    check_enum(property, &format!("{path}.enum"))
}

fn exact(value: &Scalar) -> bool {
    !matches!(value, Scalar::Integer(i) if !is_exact(*i))
}

/// Whether a double holds the integer. No `abs`: the least integer has none.
fn is_exact(integer: i64) -> bool {
    (-MAX_INTEGER..=MAX_INTEGER).contains(&integer)
}

fn check_enum(property: &Property, path: &str) -> Check {
    let values = &property.logical_type_options.values;
    require(values.len() <= MAX_ENUM, path, "has too many values", "an enumeration has at most 10,000 values")?;
    let mut bytes = 0;
    let mut seen = HashSet::new();
    for (i, value) in values.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let (fits, help) = match property.logical_type {
            LogicalType::String => (matches!(value, Scalar::Text(_)), "quote the value: it is read as another type"),
            LogicalType::Integer => (value.as_i64().is_some_and(is_exact), "write an integer within ±(2^53−1)"),
            _ => (false, "only columns of type string and integer have an enumeration"),
        };
        require(fits, &path, &format!("does not fit a column of type {}", property.logical_type.name()), help)?;
        let text = value.to_string();
        bytes += text.len();
        require(seen.insert(text), &path, "occurs twice", "remove one")?;
    }
    require(bytes <= MAX_ENUM_BYTES, path, "is too long", "an enumeration has at most 64 KiB of text")
}

fn check_pii(property: &Property, path: &str) -> Check {
    let pii = &property.pii;
    let text = property.logical_type == LogicalType::String;
    let declared = pii.kind.is_some();
    let help = "write why, as in `reason: airline code`";
    if matches!(pii.policy, Policy::Keep | Policy::None) {
        require(pii.reason.is_some(), path, "keeps values without a reason", help)?;
    }
    if let Some(reason) = &pii.reason {
        check_text(reason, &format!("{path}.reason"), MAX_REASON)?;
    }
    let help = "declare the column as `logicalType: string`: a token is text";
    require(text || !declared || pii.policy != Policy::Hash, path, "hashes a column that is no text", help)?;
    require(
        !declared || pii.policy != Policy::None,
        path,
        "declares a type and policy `none`",
        "leave one of the two out",
    )?;
    let generalise = pii.policy == Policy::Generalise;
    let help = "write `to: zip3`, `birthYear` or `net24`";
    require(generalise == pii.to.is_some(), path, "`to` and policy `generalise` go together", help)?;
    require(
        text || !generalise,
        path,
        "generalises a column that is no text",
        "declare the column as `logicalType: string`",
    )
}

fn check_reference(property: &Property, reference: &Reference, path: &str, label: bool) -> Check {
    let numeric = property.logical_type.is_numeric();
    let statistics = reference.median.is_some()
        || reference.mad.is_some()
        || !reference.edges.is_empty()
        || !reference.shares.is_empty();
    require(numeric || !statistics, path, "has statistics of numbers", "only integer and number columns have them")?;
    require(
        reference.median.is_some() == reference.mad.is_some(),
        path,
        "`median` and `mad` go together",
        "give both or none",
    )?;
    let finite = reference.median.is_none_or(f64::is_finite);
    require(finite, &format!("{path}.median"), "is not finite", "write a finite number")?;
    let positive = reference.mad.is_none_or(|mad| mad.is_finite() && mad > 0.0);
    require(
        positive,
        &format!("{path}.mad"),
        "is not above 0",
        "leave median and mad out: outliers cannot be measured without spread",
    )?;
    let edges = &reference.edges;
    let rising = edges.iter().all(|e| e.is_finite()) && edges.windows(2).all(|pair| pair[0] < pair[1]);
    require(
        rising && edges.len() <= MAX_EDGES,
        &format!("{path}.edges"),
        "do not rise, or are too many",
        "at most 99 finite, rising numbers",
    )?;
    let shares = &reference.shares;
    let sum: f64 = shares.iter().sum();
    let sane = shares.iter().all(|s| (0.0..=1.0).contains(s)) && (shares.is_empty() || (sum - 1.0).abs() < 1e-3);
    let count = shares.is_empty() || (shares.len() == edges.len() + 1 && !edges.is_empty());
    require(
        sane && count,
        &format!("{path}.shares"),
        "do not fit",
        "one more than edges, from 0 to 1, adding up to 1",
    )?;
    match reference.minority {
        Some(minority) => {
            let path = format!("{path}.minority");
            require(label, &path, "is set on a column that is not the label", "move it to the label")?;
            require(
                minority > 0.0 && minority <= 0.5,
                &path,
                "is no share of a rarest class",
                "write a number above 0, at most 0.5",
            )
        }
        None => Ok(()),
    }
}
