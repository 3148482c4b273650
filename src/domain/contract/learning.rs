//! What a model learns from: the section `learning`, and what follows from the columns where it says nothing.
//!
//! Derived, in the order of the columns: integers, numbers and booleans are numbers; a text that the contract describes as a code
//! (`enum`, `pattern` or `maxLength`) is a category; a timestamp is month, weekday, hour and minute, a date month and weekday.
//! No feature is what is left out of a row's identity, tells rows apart (`unique`, `primaryKey`), may hold personal data (a
//! declared type, policies `drop`, `keep` and `generalise`), or is free text: any other text, and what `nearDuplicates.text` names.
//!
//! Missing values need no declaration: trees learn where they go, linear models have a coefficient for them.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::SpecError;
use super::grammar::{LogicalType, Policy, Property, Scalar, Spec};
use super::rules::{Check, fail, require};
use super::sql::{Reference, SqlFeature, SqlStep};

/// Most features after encoding.
pub const MAX_FEATURES: usize = 4_096;
/// Most categories of a column that are told apart; the rarer ones are one.
pub const MAX_CATEGORIES: u16 = 254;
/// Most classes that are learned.
pub const MAX_LEARNED_CLASSES: usize = 256;
/// Longest name of a class in bytes.
const MAX_CLASS: usize = 4_096;

/// The section `learning`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Learning {
    /// What is predicted, where the label leaves a choice: an integer is one of few classes or a quantity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskWord>,
    /// Columns whose encoding is declared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<DeclaredFeature>,
    /// Columns that are no features.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leave_out: Vec<String>,
    /// What becomes of the columns that neither list names.
    #[serde(default, skip_serializing_if = "Others::is_derive")]
    pub others: Others,
    /// Which rows judge while the others teach, where a draw row by row would flatter: rows that belong together, or a future behind a past.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Split>,
    /// Tables that SQL may join.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Reference>,
    /// Columns that are made by SQL, and are features as others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sql: Vec<SqlFeature>,
    /// What is done with training rows before they are learned from, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<SqlStep>,
}

/// What is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TaskWord {
    /// One of the label's values.
    Classification,
    /// A number.
    Regression,
}

/// How the validation fold is cut; how large it is, is a parameter of the learner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Split {
    /// What the column means.
    pub by: SplitWord,
    /// Name of the column; it need not be a feature.
    pub column: String,
}

/// What cuts the validation fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SplitWord {
    /// Rows with one value judge together or teach together; a missing value is a group of its own.
    Group,
    /// The rows with the latest times judge; those without a time teach.
    Newest,
}

/// What becomes of columns that are not named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Others {
    /// Their encoding follows from their type.
    #[default]
    Derive,
    /// They are no features.
    LeaveOut,
}

impl Others {
    fn is_derive(&self) -> bool {
        *self == Self::Derive
    }
}

/// A column with its encoding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeclaredFeature {
    /// Name of the column.
    pub column: String,
    /// How it is encoded.
    pub encode: EncodeWord,
    /// Most categories that are told apart, with `encode: category`; 254 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub categories: Option<u16>,
    /// Parts of the time in UTC, with `encode: time`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
}

/// How a column is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EncodeWord {
    /// The number itself, as a 32-bit float; true is 1.
    Number,
    /// One of the values that the training rows hold, the most frequent ones; all others are one.
    Category,
    /// Parts of a time.
    Time,
}

/// A part of a time in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Part {
    /// 2013.
    Year,
    /// 1 to 12.
    Month,
    /// 1 to 31.
    Day,
    /// Monday is 0.
    Weekday,
    /// 0 to 23.
    Hour,
    /// 0 to 59.
    Minute,
    /// Days since 1970-01-01.
    EpochDay,
}

impl Part {
    /// The part as a feature's name ends.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Year => "year",
            Self::Month => "month",
            Self::Day => "day",
            Self::Weekday => "weekday",
            Self::Hour => "hour",
            Self::Minute => "minute",
            Self::EpochDay => "epoch_day",
        }
    }
}

/// What is learned, with everything derived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Column of the label.
    pub label: String,
    /// What is predicted.
    pub target: Target,
    /// Features, in the order of the columns.
    pub features: Vec<ResolvedFeature>,
    /// How the validation fold is cut; none draws row by row.
    pub validation: Option<Split>,
}

/// What is predicted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One of these, in canonical order: texts by their bytes, integers by size, false before true.
    Classes(Vec<String>),
    /// A number.
    Number,
}

/// A column and its encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedFeature {
    /// Name of the column.
    pub column: String,
    /// How it is encoded.
    pub encode: ResolvedEncode,
}

/// An encoding with everything that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolvedEncode {
    /// The number itself.
    Number,
    /// At most so many categories, and one for all others.
    Category(u16),
    /// These parts.
    Time(Vec<Part>),
}

impl ResolvedEncode {
    fn width(&self) -> usize {
        if let Self::Time(parts) = self { parts.len() } else { 1 }
    }
}

impl Spec {
    /// What is learned under this contract: features in the order of the columns, and the task that the label says.
    ///
    /// # Errors
    /// There is no label, or nothing to learn from; with a section `learning` also what contradicts the columns.
    pub fn learning(&self) -> Result<Resolved, SpecError> {
        let Some(label) = self.label.as_deref().and_then(|label| self.property(label)) else {
            return Err(SpecError::at("label", "is missing", "name the column that is learned"));
        };
        let target = self.target(label)?;
        let none = Learning::default();
        let said = self.learning.as_ref().unwrap_or(&none);
        self.check_sql(said)?;
        self.check_features(said)?;
        said.validation.as_ref().map_or(Ok(()), |split| self.check_split(split))?;
        let mut features: Vec<ResolvedFeature> = self
            .properties()
            .iter()
            .filter(|property| property.name != label.name)
            .filter_map(|property| {
                let encode = self.encoding(said, property)?;
                Some(ResolvedFeature { column: property.name.clone(), encode })
            })
            .collect();
        let added = self.sql_columns().map(|column| {
            let encode = declared(said, &column.name).unwrap_or_else(|| by_type(column.logical_type));
            ResolvedFeature { column: column.name.clone(), encode }
        });
        features.extend(added);
        let path = if self.learning.is_some() { "learning" } else { "schema[0].properties" };
        let help = "declare a column under `learning.features`";
        require(!features.is_empty(), path, "leaves no feature", help)?;
        check_encoded(&features, path)?;
        Ok(Resolved { label: label.name.clone(), target, features, validation: said.validation.clone() })
    }

    fn encoding(&self, said: &Learning, property: &Property) -> Option<ResolvedEncode> {
        if said.leave_out.contains(&property.name) {
            return None;
        }
        declared(said, &property.name)
            .or_else(|| (said.others == Others::Derive).then(|| self.derived(property)).flatten())
    }

    fn derived(&self, property: &Property) -> Option<ResolvedEncode> {
        let (options, pii) = (&property.logical_type_options, &property.pii);
        let personal = pii.kind.is_some() || !matches!(pii.policy, Policy::Hash | Policy::None);
        let outside = self.exclude_from_identity.contains(&property.name) || property.unique || property.primary_key;
        if personal || outside {
            return None;
        }
        if property.logical_type == LogicalType::String {
            let code = !options.values.is_empty() || options.pattern.is_some() || options.max_length.is_some();
            let free = self.near_duplicates.as_ref().is_some_and(|near| near.text.contains(&property.name));
            if !code || free {
                return None;
            }
        }
        Some(by_type(property.logical_type))
    }

    fn target(&self, label: &Property) -> Result<Target, SpecError> {
        let task = self.learning.as_ref().and_then(|said| said.task);
        let kind = label.logical_type;
        let fits = match task {
            None => true,
            Some(TaskWord::Regression) => kind.is_numeric(),
            Some(TaskWord::Classification) => kind != LogicalType::Number,
        };
        let help = "a boolean or a text is one of its classes, a number is a quantity, an integer can be either";
        require(fits, "learning.task", &format!("does not fit a label of type {}", kind.name()), help)?;
        if task == Some(TaskWord::Regression) || kind == LogicalType::Number {
            return Ok(Target::Number);
        }
        let classes = classes(label);
        let path = "label";
        let help = format!(
            "a classifier has 2 to {MAX_LEARNED_CLASSES} classes of at most {MAX_CLASS} bytes; many integers are learned as a \
             quantity with `learning: {{task: regression}}`"
        );
        let more =
            if classes.len() > MAX_LEARNED_CLASSES { "more than 256".to_owned() } else { classes.len().to_string() };
        let count = format!("has {more} classes");
        require((2..=MAX_LEARNED_CLASSES).contains(&classes.len()), path, &count, &help)?;
        require(classes.iter().all(|class| class.len() <= MAX_CLASS), path, "has a class with too long a name", &help)?;
        Ok(Target::Classes(classes))
    }

    fn check_features(&self, said: &Learning) -> Check {
        let mut seen = HashSet::new();
        for (i, declared) in said.features.iter().enumerate() {
            let path = format!("learning.features[{i}]");
            let at = format!("{path}.column");
            require(seen.insert(&declared.column), &at, "is declared twice", "a column has one encoding")?;
            if let Some(added) = self.sql_column(&declared.column) {
                check_encode(declared, added.logical_type, &path)?;
                continue;
            }
            let property = self.feature_column(&declared.column, &at)?;
            self.check_allowed(property, declared.encode, &at)?;
            check_encode(declared, property.logical_type, &path)?;
        }
        for (i, name) in said.leave_out.iter().enumerate() {
            let at = format!("learning.leaveOut[{i}]");
            self.feature_column(name, &at)?;
            require(seen.insert(name), &at, "is named twice", "a column is a feature or left out, and named once")?;
        }
        Ok(())
    }

    /// The column is looked at and enters no artefact, so tokens of personal data may cut, and nothing else of it.
    fn check_split(&self, split: &Split) -> Check {
        let at = "learning.validation.column";
        let property = self.feature_column(&split.column, at)?;
        let readable = !matches!(property.pii.policy, Policy::Drop | Policy::Keep);
        let help = "use policy `hash`: rows of one person have one token";
        require(readable, at, &format!("`{}` is dropped, or kept as it is", property.name), help)?;
        let kind = property.logical_type;
        let fits = split.by == SplitWord::Group || matches!(kind, LogicalType::Date | LogicalType::Timestamp);
        let help = "`by: newest` takes a date or a timestamp, `by: group` any column";
        require(fits, "learning.validation.by", &format!("does not fit a column of type {}", kind.name()), help)
    }

    pub(super) fn feature_column(&self, name: &str, path: &str) -> Result<&Property, SpecError> {
        let label = self.label.as_deref() == Some(name);
        require(!label, path, &format!("`{name}` is the label"), "the label is what is predicted: remove it here")?;
        let none = || {
            let help = "name one of schema[0].properties".to_owned();
            SpecError::at(path, format!("`{name}` is no column"), help)
        };
        self.property(name).ok_or_else(none)
    }

    /// An artefact holds the categories of its columns in clear, so none of them may be personal.
    pub(super) fn check_allowed(&self, property: &Property, encode: EncodeWord, path: &str) -> Check {
        let name = &property.name;
        let excluded = self.exclude_from_identity.contains(name);
        let help = "rows that differ only there count as one: remove it from one of the two";
        require(!excluded, path, &format!("`{name}` is named by excludeFromIdentity"), help)?;
        let pii = &property.pii;
        let coarse = pii.policy == Policy::Generalise;
        let personal = !coarse && (pii.kind.is_some() || matches!(pii.policy, Policy::Drop | Policy::Keep));
        let help = "use policy `generalise`, or `none` with a reason if the column holds none; or remove the feature";
        require(!personal, path, &format!("`{name}` may hold personal data"), help)?;
        let id = (property.unique || property.primary_key) && encode == EncodeWord::Category;
        let help = "nothing is learned from categories that come once: remove it";
        require(!id, path, &format!("`{name}` has another value in every row"), help)
    }
}

/// The encoding that the section says of a column.
fn declared(said: &Learning, column: &str) -> Option<ResolvedEncode> {
    let declared = said.features.iter().find(|declared| declared.column == column)?;
    Some(match declared.encode {
        EncodeWord::Number => ResolvedEncode::Number,
        EncodeWord::Category => ResolvedEncode::Category(declared.categories.unwrap_or(MAX_CATEGORIES)),
        EncodeWord::Time => ResolvedEncode::Time(declared.parts.clone()),
    })
}

/// The encoding that follows from a type.
fn by_type(kind: LogicalType) -> ResolvedEncode {
    match kind {
        LogicalType::Integer | LogicalType::Number | LogicalType::Boolean => ResolvedEncode::Number,
        LogicalType::String => ResolvedEncode::Category(MAX_CATEGORIES),
        LogicalType::Timestamp => ResolvedEncode::Time(vec![Part::Month, Part::Weekday, Part::Hour, Part::Minute]),
        LogicalType::Date => ResolvedEncode::Time(vec![Part::Month, Part::Weekday]),
    }
}

fn check_encode(declared: &DeclaredFeature, kind: LogicalType, path: &str) -> Check {
    let (fits, help) = match declared.encode {
        EncodeWord::Number => {
            (kind.is_numeric() || kind == LogicalType::Boolean, "integers, numbers and booleans are numbers")
        }
        EncodeWord::Category => {
            (matches!(kind, LogicalType::String | LogicalType::Integer), "texts and integers are categories")
        }
        EncodeWord::Time => {
            (matches!(kind, LogicalType::Date | LogicalType::Timestamp), "dates and timestamps have parts")
        }
    };
    require(fits, &format!("{path}.encode"), &format!("does not fit a column of type {}", kind.name()), help)?;
    let at = format!("{path}.categories");
    let fits = declared.categories.is_none_or(|most| (1..=MAX_CATEGORIES).contains(&most));
    require(fits, &at, "is no number of categories", "write 1 to 254: the rarer ones become one")?;
    let alone = declared.categories.is_none() || declared.encode == EncodeWord::Category;
    require(alone, &at, "is set without categories", "it belongs to `encode: category`")?;
    let (at, time) = (format!("{path}.parts"), declared.encode == EncodeWord::Time);
    let help = "year, month, day, weekday, hour, minute or epochDay, with `encode: time` alone";
    require(declared.parts.is_empty() != time, if time { path } else { &at }, "time and its parts go together", help)?;
    let mut seen = HashSet::new();
    for (i, part) in declared.parts.iter().enumerate() {
        let at = format!("{at}[{i}]");
        require(seen.insert(part), &at, "occurs twice", "remove one")?;
        let within = kind == LogicalType::Timestamp || !matches!(part, Part::Hour | Part::Minute);
        require(within, &at, "is no part of a date", "a day has year, month, day, weekday and epochDay")?;
    }
    Ok(())
}

/// Names of features are unique, also where a part of a time makes one, and there are not too many.
fn check_encoded(features: &[ResolvedFeature], path: &str) -> Check {
    let count: usize = features.iter().map(|feature| feature.encode.width()).sum();
    let help = format!("a model has at most {MAX_FEATURES} after encoding: leave columns out");
    require(count <= MAX_FEATURES, path, &format!("makes {count} features"), &help)?;
    let columns: HashSet<&str> = features.iter().map(|feature| feature.column.as_str()).collect();
    for feature in features {
        let ResolvedEncode::Time(parts) = &feature.encode else { continue };
        for part in parts {
            let name = format!("{}.{}", feature.column, part.name());
            if columns.contains(name.as_str()) {
                let problem = format!("makes two features called `{name}`");
                return fail(path, problem, "leave one of the two columns out, or declare other parts");
            }
        }
    }
    Ok(())
}

/// The values of a label in canonical order; more than can be learned where the contract allows so many.
fn classes(label: &Property) -> Vec<String> {
    let options = &label.logical_type_options;
    match label.logical_type {
        LogicalType::Boolean => vec!["false".to_owned(), "true".to_owned()],
        LogicalType::Integer if options.values.is_empty() => {
            let bound = |bound: &Option<Scalar>| bound.as_ref().and_then(Scalar::as_i64);
            let (least, most) = (bound(&options.minimum).unwrap_or(0), bound(&options.maximum).unwrap_or(0));
            (least..=most).take(MAX_LEARNED_CLASSES + 1).map(|class| class.to_string()).collect()
        }
        LogicalType::Integer => {
            let mut values: Vec<i64> = options.values.iter().filter_map(Scalar::as_i64).collect();
            values.sort_unstable();
            values.dedup();
            values.into_iter().map(|class| class.to_string()).collect()
        }
        _ => {
            let mut values: Vec<String> = options.values.iter().map(ToString::to_string).collect();
            values.sort_unstable();
            values
        }
    }
}
