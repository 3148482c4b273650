//! The declared encoding, compiled once into the artefact: raw columns → `f32` features. Serving runs the same code.
//!
//! * number: cast to `f32` once (both zeros are +0); missing is NaN.
//! * category: the code of its level, levels in the order of their UTF-8 bytes. Levels past the limit (the rarest), texts longer than
//!   an artefact may hold and levels never seen share one further code, "other"; missing is NaN.
//! * time: one number per declared part, in UTC; missing is NaN.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::ml::artefact::MAX_TEXT;
use crate::ml::derivation::Derivation;
use crate::ml::frame::{Column, Frame};

/// Most levels of a category; the code after the last is "other".
pub const MAX_LEVELS: usize = 254;

/// How a raw column becomes features.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Encode {
    /// One number.
    Number,
    /// One code of at most [`MAX_LEVELS`] levels.
    Category,
    /// One code of at most so many levels.
    Categories(u16),
    /// One number per part.
    Time(Vec<TimePart>),
}

/// A part of a point in time (UTC).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum TimePart {
    /// Year, 2013.
    Year = 0,
    /// Month, 1 to 12.
    Month = 1,
    /// Day of the month, 1 to 31.
    Day = 2,
    /// Day of the week, Monday is 0.
    Weekday = 3,
    /// Hour, 0 to 23.
    Hour = 4,
    /// Minute, 0 to 59.
    Minute = 5,
    /// Days since 1970-01-01.
    EpochDay = 6,
}

impl TimePart {
    /// All, by their number in the artefact.
    pub const ALL: [Self; 7] =
        [Self::Year, Self::Month, Self::Day, Self::Weekday, Self::Hour, Self::Minute, Self::EpochDay];

    pub(crate) fn name(self) -> &'static str {
        ["year", "month", "day", "weekday", "hour", "minute", "epoch_day"][self as usize]
    }

    /// The part of `micros` since 1970.
    #[must_use]
    pub fn of(self, micros: i64) -> i64 {
        let days = micros.div_euclid(86_400_000_000);
        let minutes = micros.rem_euclid(86_400_000_000) / 60_000_000;
        let (year, month, day) = civil(days);
        match self {
            Self::Year => year,
            Self::Month => month,
            Self::Day => day,
            Self::Weekday => (days + 3).rem_euclid(7),
            Self::Hour => minutes / 60,
            Self::Minute => minutes % 60,
            Self::EpochDay => days,
        }
    }
}

/// Year, month, day of the proleptic Gregorian calendar (Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

/// A declared feature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// The raw column.
    pub column: String,
    /// How it is encoded.
    pub encode: Encode,
}

/// How one feature is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The number itself.
    Number,
    /// Position among these levels; their count for any other.
    Category(Vec<String>),
    /// A part of a time.
    Time(TimePart),
}

/// One feature of the compiled encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// The raw column.
    pub column: String,
    /// How its value is made.
    pub kind: Kind,
}

impl Feature {
    /// The feature's name: the column's, with the part of a time.
    #[must_use]
    pub fn name(&self) -> String {
        match self.kind {
            Kind::Time(part) => format!("{}.{}", self.column, part.name()),
            _ => self.column.clone(),
        }
    }
}

/// The compiled encoding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    /// Features in declared order.
    pub features: Vec<Feature>,
    /// What SQL adds to rows before; nothing in most models.
    pub derivation: Derivation,
}

/// One encoded column.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// One value per row; NaN is missing.
    pub values: Vec<f32>,
    /// Number of codes of a category, "other" included; 0 for a number.
    pub codes: u16,
}

/// Encoded rows, by column.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Features {
    /// Columns of one length.
    pub columns: Vec<Encoded>,
    /// Their names.
    pub names: Vec<String>,
    /// Rows.
    pub rows: usize,
}

/// Why a frame cannot be encoded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EncodingError {
    /// A declared column is not there.
    #[error("there is no column {column}\nhelp: the model needs it; rows without a value leave it empty")]
    Missing {
        /// Its name.
        column: String,
    },
    /// A column of another kind than declared.
    #[error("column {column} holds {found}, but {wanted} are declared")]
    Kind {
        /// Its name.
        column: String,
        /// What it holds.
        found: &'static str,
        /// What was declared.
        wanted: &'static str,
    },
    /// A model gives what is no prediction.
    #[error("the model gives no prediction: {problem}")]
    Unusable {
        /// For which row, and what it gives instead.
        problem: String,
    },
    /// Two features with one name: a column declared twice, or a part of a time.
    #[error("two features are called {name}\nhelp: declare each column, and each part of a time, once")]
    Twice {
        /// Their name.
        name: String,
    },
}

impl Encoding {
    /// Compiles the declaration: the levels of categories are those of these rows.
    ///
    /// # Errors
    /// A column is missing, of another kind, or declared twice.
    pub fn compile(declared: &[Declared], frame: &Frame) -> Result<Self, EncodingError> {
        let mut features = Vec::new();
        for Declared { column, encode } in declared {
            let kinds = match encode {
                Encode::Number => vec![Kind::Number],
                Encode::Category => vec![Kind::Category(levels(column, raw(frame, column)?, MAX_LEVELS)?)],
                Encode::Categories(most) => {
                    vec![Kind::Category(levels(column, raw(frame, column)?, usize::from(*most).min(MAX_LEVELS))?)]
                }
                Encode::Time(parts) => parts.iter().copied().map(Kind::Time).collect(),
            };
            features.extend(kinds.into_iter().map(|kind| Feature { column: column.clone(), kind }));
        }
        let encoding = Self { features, derivation: Derivation::default() };
        encoding.distinct().map(|()| encoding)
    }

    /// Whether every feature has a name of its own.
    ///
    /// # Errors
    /// Two have not.
    pub fn distinct(&self) -> Result<(), EncodingError> {
        let mut names: Vec<String> = self.features.iter().map(Feature::name).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(EncodingError::Twice { name: pair[0].clone() }),
            None => Ok(()),
        }
    }

    /// The columns that are encoded, each once, with the kind of its encoding; the name of one that is read in two ways otherwise.
    ///
    /// # Errors
    /// The name of that column.
    pub fn columns(&self) -> Result<Vec<Declared>, &str> {
        let mut all = Vec::<Declared>::new();
        for Feature { column, kind } in &self.features {
            let encode = match kind {
                Kind::Number => Encode::Number,
                Kind::Category(_) => Encode::Category,
                Kind::Time(_) => Encode::Time(Vec::new()),
            };
            match all.iter().find(|known| known.column == *column) {
                Some(known) if known.encode != encode => return Err(column),
                Some(_) => {}
                None => all.push(Declared { column: column.clone(), encode }),
            }
        }
        Ok(all)
    }

    /// Encodes the rows of `frame`.
    ///
    /// # Errors
    /// A column is missing or of another kind.
    pub fn encode(&self, frame: &Frame) -> Result<Features, EncodingError> {
        let columns = self.features.iter().map(|feature| feature.encode(frame)).collect::<Result<_, _>>()?;
        let names = self.features.iter().map(Feature::name).collect();
        Ok(Features { columns, names, rows: frame.rows() })
    }
}

impl Feature {
    fn encode(&self, frame: &Frame) -> Result<Encoded, EncodingError> {
        let found = raw(frame, &self.column)?;
        let wrong = |wanted| Err(EncodingError::Kind { column: self.column.clone(), found: kind_of(found), wanted });
        match (&self.kind, found) {
            (Kind::Number, Column::Numbers(numbers)) => {
                // Adding zero makes −0 into +0 and leaves all else alone.
                Ok(Encoded { values: numbers.iter().map(|&number| number as f32 + 0.0).collect(), codes: 0 })
            }
            (Kind::Category(levels), Column::Texts { codes, values }) => {
                let place = |text: &String| levels.binary_search(text).unwrap_or(levels.len()) as f32;
                let places: Vec<f32> = values.iter().map(place).collect();
                let values = codes.iter().map(|&code| places.get(code as usize).copied().unwrap_or(f32::NAN));
                Ok(Encoded { values: values.collect(), codes: levels.len() as u16 + 1 })
            }
            (Kind::Time(part), Column::Times(times)) => {
                let values = times.iter().map(|time| time.map_or(f32::NAN, |micros| part.of(micros) as f32));
                Ok(Encoded { values: values.collect(), codes: 0 })
            }
            (Kind::Number, _) => wrong("numbers"),
            (Kind::Category(_), _) => wrong("texts"),
            (Kind::Time(_), _) => wrong("times"),
        }
    }
}

fn raw<'a>(frame: &'a Frame, column: &str) -> Result<&'a Column, EncodingError> {
    frame.column(column).ok_or_else(|| EncodingError::Missing { column: column.to_owned() })
}

fn kind_of(column: &Column) -> &'static str {
    match column {
        Column::Numbers(_) => "numbers",
        Column::Texts { .. } => "texts",
        Column::Times(_) => "times",
    }
}

/// The levels of a column, at most `most` of at most [`MAX_TEXT`] bytes: the most frequent, ties by their bytes; sorted by their bytes.
fn levels(column: &str, raw: &Column, most: usize) -> Result<Vec<String>, EncodingError> {
    let Column::Texts { codes, values } = raw else {
        return Err(EncodingError::Kind { column: column.to_owned(), found: kind_of(raw), wanted: "texts" });
    };
    let mut rows = vec![0usize; values.len()];
    for &code in codes {
        if let Some(count) = rows.get_mut(code as usize) {
            *count += 1;
        }
    }
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for (value, rows) in values.iter().zip(rows) {
        if rows > 0 && value.len() <= MAX_TEXT {
            *counts.entry(value).or_default() += rows;
        }
    }
    let mut ranked: Vec<(&str, usize)> = counts.into_iter().collect();
    ranked.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let mut levels: Vec<String> = ranked.into_iter().take(most).map(|(level, _)| level.to_owned()).collect();
    levels.sort_unstable();
    Ok(levels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(column: &str, encode: Encode) -> Declared {
        Declared { column: column.into(), encode }
    }

    #[test]
    fn levels_are_in_the_order_of_their_bytes_whatever_the_order_of_the_rows() {
        let forward = Column::texts([Some("b"), Some("a"), None, Some("é")]);
        let backward = Column::texts([Some("é"), None, Some("a"), Some("b")]);
        let compile = |column| {
            let frame = Frame::new(vec![("x".into(), column)]).unwrap();
            Encoding::compile(&[declared("x", Encode::Category)], &frame).unwrap()
        };
        assert_eq!(compile(forward.clone()), compile(backward));
        let levels = ["a", "b", "é"].map(str::to_owned).to_vec();
        assert_eq!(compile(forward).features[0].kind, Kind::Category(levels));
    }

    #[test]
    fn an_unseen_level_is_other_and_a_missing_one_is_nan() {
        let train = Frame::new(vec![("x".into(), Column::texts([Some("b"), Some("a")]))]).unwrap();
        let encoding = Encoding::compile(&[declared("x", Encode::Category)], &train).unwrap();
        let serve = Frame::new(vec![("x".into(), Column::texts([Some("zz"), None, Some("b")]))]).unwrap();
        let column = &encoding.encode(&serve).unwrap().columns[0];
        assert_eq!((column.values[0], column.values[2], column.codes), (2.0, 1.0, 3));
        assert!(column.values[1].is_nan());
    }

    #[test]
    fn past_the_limit_the_rarest_levels_become_other() {
        let names: Vec<String> = (0..300).map(|i| format!("level {i:03}")).collect();
        let rows = names.iter().chain(&names[100..]).map(|name| Some(name.as_str()));
        let frame = Frame::new(vec![("x".into(), Column::texts(rows))]).unwrap();
        let encoding = Encoding::compile(&[declared("x", Encode::Category)], &frame).unwrap();
        let Kind::Category(levels) = &encoding.features[0].kind else { panic!() };
        assert_eq!((levels.len(), levels[0].as_str(), levels[54].as_str()), (254, "level 000", "level 100"));
    }

    #[test]
    fn a_declared_limit_keeps_the_most_frequent_levels() {
        let long = "x".repeat(MAX_TEXT + 1);
        let rows = ["b", "a", "c", "c", &long, &long, &long].map(Some);
        let frame = Frame::new(vec![("x".into(), Column::texts(rows))]).unwrap();
        let encoding = Encoding::compile(&[declared("x", Encode::Categories(2))], &frame).unwrap();
        assert_eq!(encoding.features[0].kind, Kind::Category(vec!["a".into(), "c".into()]));
        assert_eq!(encoding.encode(&frame).unwrap().columns[0].values, [2.0, 0.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
    }

    #[test]
    fn a_text_too_long_for_an_artefact_becomes_other() {
        let long = "x".repeat(MAX_TEXT + 1);
        let frame = Frame::new(vec![("x".into(), Column::texts([Some(&long[1..]), Some(&long), Some("a")]))]).unwrap();
        let encoding = Encoding::compile(&[declared("x", Encode::Categories(8))], &frame).unwrap();
        assert_eq!(encoding.encode(&frame).unwrap().columns[0].values, [1.0, 2.0, 0.0]);
        let predictor = crate::ml::model::Predictor::Trees(crate::ml::model::Forest { base: vec![0.0], trees: vec![] });
        let model = crate::ml::model::Model { task: crate::ml::Task::Number, encoding, predictor };
        assert_eq!(crate::ml::model::Model::from_bytes(&model.to_bytes()), Ok(model), "what is written can be read");
    }

    #[test]
    fn a_feature_that_is_declared_twice_is_named() {
        let numbers = || Column::Numbers(vec![1.0]);
        let times = Column::Times(vec![Some(0)]);
        let frame =
            Frame::new(vec![("x".into(), numbers()), ("t".into(), times), ("t.hour".into(), numbers())]).unwrap();
        let hours = |count| declared("t", Encode::Time(vec![TimePart::Hour; count]));
        for (all, twice) in [
            (vec![declared("x", Encode::Number), declared("x", Encode::Number)], "x"),
            (vec![hours(2)], "t.hour"),
            (vec![hours(1), declared("t.hour", Encode::Number)], "t.hour"),
        ] {
            assert_eq!(Encoding::compile(&all, &frame), Err(EncodingError::Twice { name: twice.into() }));
        }
    }

    #[test]
    fn parts_of_a_time_are_those_of_the_calendar_before_and_after_1970() {
        // 2013-01-01T05:17:00Z, a Tuesday; 1969-12-31T23:59:00Z, a Wednesday; 2000-02-29T00:00:00Z, a Tuesday
        for (micros, parts) in [
            (1_357_017_420_000_000, [2013, 1, 1, 1, 5, 17, 15_706]),
            (-60_000_000, [1969, 12, 31, 2, 23, 59, -1]),
            (951_782_400_000_000, [2000, 2, 29, 1, 0, 0, 11_016]),
        ] {
            assert_eq!(TimePart::ALL.map(|part| part.of(micros)), parts);
        }
    }

    #[test]
    fn both_zeros_are_one_feature_value() {
        let frame = Frame::new(vec![("x".into(), Column::Numbers(vec![-0.0, 0.0]))]).unwrap();
        let encoding = Encoding::compile(&[declared("x", Encode::Number)], &frame).unwrap();
        let values = &encoding.encode(&frame).unwrap().columns[0].values;
        assert_eq!(values[0].to_bits(), values[1].to_bits());
    }

    #[test]
    fn a_column_that_is_missing_or_of_another_kind_is_named() {
        let frame = Frame::new(vec![("x".into(), Column::Numbers(vec![1.0]))]).unwrap();
        let error = Encoding::compile(&[declared("x", Encode::Category)], &frame).unwrap_err();
        assert!(matches!(error, EncodingError::Kind { ref column, .. } if column == "x"));
        let features = vec![Feature { column: "y".into(), kind: Kind::Number }];
        let encoding = Encoding { features, ..Encoding::default() };
        assert_eq!(encoding.encode(&frame), Err(EncodingError::Missing { column: "y".into() }));
    }
}
