//! The fields of a model's specification, one struct per block of the YAML document.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::attribution::AttributionSpec;
use super::evaluation::EvaluationSpec;
use super::learning::Learning;

/// `apiVersion` of this grammar.
pub const API_VERSION: &str = "hokusai/v1";
/// `kind` of this grammar.
pub const KIND: &str = "Model";

/// A model's specification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// [`API_VERSION`].
    pub api_version: String,
    /// [`KIND`].
    pub kind: String,
    /// Name of the model.
    pub name: String,
    /// The author's own version of the document; has no meaning here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What the model is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
    /// Column that is learned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Ids and ingest columns: kept in the row, left out of its hashes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_from_identity: Vec<String>,
    /// What happens to a chunk with a column that the contract does not name.
    #[serde(default, skip_serializing_if = "ExtraColumns::is_refuse")]
    pub extra_columns: ExtraColumns,
    /// Columns that tell the answer; they are no properties. A chunk that brings one is refused, or with `extraColumns: ignore`
    /// remarked: the column is dropped and the quality score capped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leakage: Vec<Leakage>,
    /// How near duplicates within a chunk are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near_duplicates: Option<NearDuplicates>,
    /// What is refused instead of being remarked on a receipt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refuse: Vec<Flag>,
    /// What is learned from, and how it is encoded; derived from the columns without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning: Option<Learning>,
    /// How candidates are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<EvaluationSpec>,
    /// How large the game is that credits contributors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attribution: Option<AttributionSpec>,
    /// Exactly one table.
    pub schema: Vec<Table>,
}

/// A text, or purpose, usage and limitations apart (as in the Open Data Contract Standard).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Description {
    /// One text.
    Text(String),
    /// Three texts.
    Parts(DescriptionParts),
}

/// The parts of a description.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DescriptionParts {
    /// What the data is meant for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// How to use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<String>,
    /// What not to use it for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limitations: Option<String>,
}

/// What happens to a chunk with a column that the contract does not name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ExtraColumns {
    /// The chunk is refused.
    #[default]
    Refuse,
    /// The column is dropped before anything looks at it.
    Ignore,
}

impl ExtraColumns {
    fn is_refuse(&self) -> bool {
        *self == Self::Refuse
    }
}

/// What is a remark on a receipt unless the contract refuses it. Named as the code of the refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Flag {
    /// A row whose features stand earlier with another label.
    LabelConflict,
    /// A row that nearly repeats an earlier row of its chunk.
    NearDup,
    /// A chunk with a column that tells the answer.
    LeakageColumn,
}

/// A column that tells the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leakage {
    /// Name of the column.
    pub column: String,
    /// Why it tells the answer: a contributor reads it.
    pub reason: String,
}

/// What makes two rows of a chunk near duplicates: an equal quasi-key and, where texts are named, similar texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NearDuplicates {
    /// Columns that make the quasi-key; there may be none besides texts.
    #[serde(default)]
    pub columns: Vec<String>,
    /// Numbers are rounded to multiples of this before they are compared.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub round: BTreeMap<String, Scalar>,
    /// Columns of free text that are compared by their words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub text: Vec<String>,
    /// Share of three-word sequences that similar texts have in common at least; 0.8 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub similarity: Option<f64>,
}

/// The table that a chunk holds rows of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Table {
    /// Name of the table.
    pub name: String,
    /// `object`, if it is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logical_type: Option<String>,
    /// What a row is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its columns.
    pub properties: Vec<Property>,
    /// Rules over several columns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quality: Vec<Rule>,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Property {
    /// Name of the column.
    pub name: String,
    /// Type of its values.
    pub logical_type: LogicalType,
    /// What it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// No value is null.
    #[serde(default, skip_serializing_if = "is_false")]
    pub required: bool,
    /// A second row of a chunk with the same value counts as a near duplicate.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unique: bool,
    /// As `unique`, for all such columns together.
    #[serde(default, skip_serializing_if = "is_false")]
    pub primary_key: bool,
    /// Unit of the numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Limits of single values.
    #[serde(default, skip_serializing_if = "TypeOptions::is_default")]
    pub logical_type_options: TypeOptions,
    /// What happens to personal data in the column.
    #[serde(default, skip_serializing_if = "Pii::is_default")]
    pub pii: Pii,
    /// Share of null cells at which completeness is used up; without it the column is not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_null_rate: Option<f64>,
    /// Statistics of a reference sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
}

/// Type of a column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LogicalType {
    /// UTF-8 text.
    String,
    /// 64-bit integer.
    Integer,
    /// 64-bit float, finite.
    Number,
    /// True or false.
    Boolean,
    /// Day.
    Date,
    /// Instant in microseconds, UTC; without a zone it counts as UTC.
    Timestamp,
}

impl LogicalType {
    /// The type as it stands in the document.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Date => "date",
            Self::Timestamp => "timestamp",
        }
    }

    /// Whether values are ordered numbers.
    #[must_use]
    pub fn is_numeric(self) -> bool {
        matches!(self, Self::Integer | Self::Number)
    }
}

/// Limits of single values. Numbers for `integer` and `number`, ISO 8601 text for `date` and `timestamp`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TypeOptions {
    /// Least value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<Scalar>,
    /// Greatest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum: Option<Scalar>,
    /// Every value is above this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclusive_minimum: Option<Scalar>,
    /// Every value is below this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclusive_maximum: Option<Scalar>,
    /// Least number of characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_length: Option<u32>,
    /// Greatest number of characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u32>,
    /// Regular expression that is found in every value; anchor it with `^` and `$`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// The only values.
    #[serde(default, rename = "enum", skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Scalar>,
    /// A timestamp may be later than the record that brings it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_future: bool,
}

impl TypeOptions {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The four bounds with their names, as far as they are set.
    pub fn bounds(&self) -> impl Iterator<Item = (&'static str, &Scalar)> {
        [
            ("minimum", &self.minimum),
            ("exclusiveMinimum", &self.exclusive_minimum),
            ("maximum", &self.maximum),
            ("exclusiveMaximum", &self.exclusive_maximum),
        ]
        .into_iter()
        .filter_map(|(name, bound)| bound.as_ref().map(|b| (name, b)))
    }
}

/// What happens to personal data in a column.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pii {
    /// The policy.
    #[serde(default, skip_serializing_if = "Policy::is_hash")]
    pub policy: Policy,
    /// Every cell is one value of this type, whatever it looks like.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What is left, with policy `generalise`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Generalise>,
    /// Why, with policies `keep` and `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Pii {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Policy for personal data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Policy {
    /// What is found becomes a keyed token.
    #[default]
    Hash,
    /// The column leaves intake empty.
    Drop,
    /// Only a coarse part is left.
    Generalise,
    /// What is found is counted and kept; needs a reason.
    Keep,
    /// The column holds none and is not looked at; needs a reason.
    None,
}

impl Policy {
    fn is_hash(&self) -> bool {
        *self == Self::Hash
    }
}

/// What generalising leaves of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Generalise {
    /// The first three digits of a postal code.
    Zip3,
    /// The year of a date.
    BirthYear,
    /// The first three octets of an IPv4 address, the first 48 bits of an IPv6 address.
    Net24,
}

/// Statistics of a reference sample.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reference {
    /// Median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub median: Option<f64>,
    /// Median absolute deviation, above 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mad: Option<f64>,
    /// Rising edges of the bins; a value equal to an edge falls below it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edges: Vec<f64>,
    /// Share of each bin in the reference, one more than the edges; equal shares without it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<f64>,
    /// Share of the rarest class; for the label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minority: Option<f64>,
}

/// A rule over the columns of one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Name of the rule: a contributor reads it in a refusal.
    pub name: String,
    /// `sql`, if it is said.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// SQL boolean expression; false refuses the row, null passes.
    pub expression: String,
    /// Why the rule holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A single value in the document.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// True or false.
    Boolean(bool),
    /// Integer.
    Integer(i64),
    /// Number with a fraction, or beyond 64 bits.
    Number(f64),
    /// Text.
    Text(String),
}

impl Scalar {
    /// The value as a number.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // integers are limited to 53 bits
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Integer(i) => Some(*i as f64),
            Self::Number(n) => Some(*n),
            Self::Boolean(_) | Self::Text(_) => None,
        }
    }

    /// The value as an integer, also when it is written with a zero fraction.
    #[must_use]
    #[allow(clippy::cast_possible_truncation)] // checked by the bounds
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Integer(i) => Some(*i),
            Self::Number(n) if n.fract() == 0.0 && n.abs() <= MAX_INTEGER as f64 => Some(*n as i64),
            _ => None,
        }
    }
}

/// Greatest integer that JSON carries without loss.
pub const MAX_INTEGER: i64 = (1 << 53) - 1;

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(b) => write!(f, "{b}"),
            Self::Integer(i) => write!(f, "{i}"),
            Self::Number(n) => write!(f, "{n}"),
            Self::Text(t) => f.write_str(t),
        }
    }
}

impl Serialize for Scalar {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Boolean(b) => serializer.serialize_bool(*b),
            Self::Integer(i) => serializer.serialize_i64(*i),
            Self::Number(n) => serializer.serialize_f64(*n),
            Self::Text(t) => serializer.serialize_str(t),
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;
        impl Visitor<'_> for ScalarVisitor {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, a text, true or false")
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar::Boolean(value))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar::Integer(value))
            }
            #[allow(clippy::cast_precision_loss)] // refused by the rules: beyond 53 bits
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Scalar, E> {
                Ok(i64::try_from(value).map_or(Scalar::Number(value as f64), Scalar::Integer))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar::Number(value))
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(value.to_owned()))
            }
        }
        deserializer.deserialize_any(ScalarVisitor)
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_false(value: &bool) -> bool {
    !*value
}
