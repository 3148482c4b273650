//! An encoding as JSON: what a model's features are, in order, for programs that train or serve elsewhere on the same ones.
//!
//! A list with one object per feature: `column`, `kind` (`number`, `category` with its `levels` in order, `time` with its `part`). What
//! follows from these is written for readers and checked when it is read: `name`, and of a category `other`, the code of every level
//! that is not in the list. A missing value is NaN. What SQL adds to rows beforehand is not in it: it belongs to the contract.

use serde::{Deserialize, Serialize};

use crate::ml::MAX_FEATURES;
use crate::ml::artefact::MAX_TEXT;
use crate::ml::derivation::Derivation;
use crate::ml::encoding::{Encoding, Feature, Kind, MAX_LEVELS, TimePart};

/// Longest JSON in bytes.
const MAX_JSON: usize = 64 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    column: String,
    kind: Named,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    levels: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    other: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    part: Option<TimePart>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Named {
    Number,
    Category,
    Time,
}

fn described(feature: &Feature) -> Described {
    let (kind, levels, part) = match &feature.kind {
        Kind::Number => (Named::Number, None, None),
        Kind::Category(levels) => (Named::Category, Some(levels.clone()), None),
        Kind::Time(part) => (Named::Time, None, Some(*part)),
    };
    Described {
        name: Some(feature.name()),
        column: feature.column.clone(),
        kind,
        other: levels.as_ref().map(Vec::len),
        levels,
        part,
        missing: Some("NaN".to_owned()),
    }
}

fn feature(described: Described) -> Result<Feature, String> {
    let Described { name, column, kind, levels, other, part, .. } = described;
    if column.is_empty() || column.len() > MAX_TEXT {
        return Err(format!("a column's name has 1 to {MAX_TEXT} bytes"));
    }
    let kind = match (kind, levels, part) {
        (Named::Number, None, None) => Kind::Number,
        (Named::Time, None, Some(part)) => Kind::Time(part),
        (Named::Category, Some(levels), None) => {
            if levels.len() > MAX_LEVELS || levels.iter().any(|level| level.len() > MAX_TEXT) {
                return Err(format!(
                    "{column}: a category has at most {MAX_LEVELS} levels of at most {MAX_TEXT} bytes"
                ));
            }
            if !levels.is_sorted_by(|a, b| a < b) || other.is_some_and(|other| other != levels.len()) {
                return Err(format!(
                    "{column}: levels stand in the order of their bytes, each once, and `other` is their number"
                ));
            }
            Kind::Category(levels)
        }
        _ => return Err(format!("{column}: a category has `levels`, a time its `part`, a number neither")),
    };
    let feature = Feature { column, kind };
    match name {
        Some(name) if name != feature.name() => Err(format!("{name}: the feature's name is {}", feature.name())),
        _ => Ok(feature),
    }
}

impl Encoding {
    /// The JSON form.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let features: Vec<Described> = self.features.iter().map(described).collect();
        serde_json::to_value(features).unwrap_or_default()
    }

    /// Reads the JSON form.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > MAX_JSON {
            return Err(format!("more than {MAX_JSON} bytes"));
        }
        let described: Vec<Described> = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        Self::checked(described.into_iter().map(feature).collect::<Result<_, _>>()?)
    }

    /// Features that are plain numbers, one per column.
    ///
    /// # Errors
    /// Too many, or one twice.
    pub fn numbers(columns: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let number = |column| Feature { column, kind: Kind::Number };
        Self::checked(columns.into_iter().map(number).collect())
    }

    fn checked(features: Vec<Feature>) -> Result<Self, String> {
        if !(1..=MAX_FEATURES).contains(&features.len()) {
            return Err(format!("an encoding has 1 to {MAX_FEATURES} features, this one {}", features.len()));
        }
        let mut names: Vec<String> = features.iter().map(Feature::name).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("two features are called {}", pair[0])),
            None => Ok(Self { features, derivation: Derivation::default() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_what_contradicts_itself_is_refused() {
        let category = Kind::Category(vec!["a".into(), "b".into()]);
        let kinds = [Kind::Number, category, Kind::Time(TimePart::Hour)];
        let feature = |(i, kind)| Feature { column: format!("c{i}"), kind };
        let encoding = Encoding {
            features: kinds.into_iter().enumerate().map(feature).collect(),
            derivation: Derivation::default(),
        };
        let json = encoding.to_json().to_string();
        assert_eq!(Encoding::from_json(json.as_bytes()), Ok(encoding));
        for wrong in [
            "[]",
            "{}",
            r#"[{"column":"a","kind":"category"}]"#,
            r#"[{"column":"a","kind":"category","levels":["b","a"]}]"#,
            r#"[{"column":"a","kind":"category","levels":["b"],"other":7}]"#,
            r#"[{"column":"a","kind":"number","part":"hour"}]"#,
            r#"[{"column":"a","kind":"number","name":"b"}]"#,
            r#"[{"column":"a","kind":"number"},{"column":"a","kind":"number"}]"#,
        ] {
            assert!(Encoding::from_json(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(Encoding::from_json(br#"[{"column":"a","kind":"number"}]"#).is_ok(), "what follows may be left out");
    }
}
