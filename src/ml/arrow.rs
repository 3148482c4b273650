//! The edge to Arrow: record batches → [`Frame`].

use std::collections::HashMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};

use crate::ml::Task;
use crate::ml::encoding::{Declared, Encode, TimePart};
use crate::ml::frame::{Column, Frame};

/// Why a batch is no frame.
#[derive(Debug, thiserror::Error)]
pub enum ColumnError {
    /// Arrow could not cast the column's values.
    #[error("column {column}: {source}")]
    Cast {
        /// Its name.
        column: String,
        /// What Arrow says.
        source: arrow::error::ArrowError,
    },
    /// A type that cannot be a feature.
    #[error(
        "column {column} is of type {found}, which is neither number, text, boolean nor time\nhelp: leave it out, or cast it"
    )]
    Kind {
        /// Its name.
        column: String,
        /// Its type.
        found: DataType,
    },
    /// A name twice, or batches that differ.
    #[error("column {column} comes twice or is not in every batch")]
    Shape {
        /// Its name.
        column: String,
    },
}

/// What a column becomes.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Numbers,
    Texts,
    Times,
}

fn kind(name: &str, kind: &DataType) -> Result<Kind, ColumnError> {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Ok(Kind::Texts),
        DataType::Dictionary(_, values) if **values == DataType::Utf8 => Ok(Kind::Texts),
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => Ok(Kind::Times),
        DataType::Boolean => Ok(Kind::Numbers),
        kind if kind.is_numeric() => Ok(Kind::Numbers),
        found => Err(ColumnError::Kind { column: name.to_owned(), found: found.clone() }),
    }
}

/// The encoding of a column that declares none: numbers and booleans as they are, texts as categories, times by month, weekday, hour
/// and minute.
///
/// # Errors
/// A type that cannot be a feature.
pub fn declared_by(name: &str, data_type: &DataType) -> Result<Declared, ColumnError> {
    let encode = match kind(name, data_type)? {
        Kind::Numbers => Encode::Number,
        Kind::Texts => Encode::Category,
        Kind::Times => Encode::Time(vec![TimePart::Month, TimePart::Weekday, TimePart::Hour, TimePart::Minute]),
    };
    Ok(Declared { column: name.to_owned(), encode })
}

/// These columns of the batches, one after the other. Columns that a batch does not have are left out, so that encoding names them.
///
/// # Errors
/// A type that cannot be a feature, or batches that differ.
pub fn frame(batches: &[RecordBatch], columns: &[&str]) -> Result<Frame, ColumnError> {
    gather(batches, columns.iter().map(|&name| (name, None)))
}

/// The declared columns of the batches as their encoding wants them, whatever type each batch has: an integer can be a category, and
/// a number that is text (as where personal data was found) counts if it reads as one and is missing otherwise. A column of several
/// features stands once.
///
/// # Errors
/// A type that cannot be a feature, or batches that differ.
pub fn frame_of(batches: &[RecordBatch], declared: &[Declared]) -> Result<Frame, ColumnError> {
    let wanted = |encode: &Encode| match encode {
        Encode::Number => Kind::Numbers,
        Encode::Category | Encode::Categories(_) => Kind::Texts,
        Encode::Time(_) => Kind::Times,
    };
    gather(batches, declared.iter().map(|declared| (declared.column.as_str(), Some(wanted(&declared.encode)))))
}

fn gather<'a>(
    batches: &[RecordBatch],
    columns: impl Iterator<Item = (&'a str, Option<Kind>)>,
) -> Result<Frame, ColumnError> {
    let mut made = Vec::new();
    for (name, wanted) in columns {
        let parts: Vec<_> = batches.iter().filter_map(|batch| batch.column_by_name(name)).collect();
        let Some(first) = parts.first() else { continue };
        let own = kind(name, first.data_type())?;
        for part in &parts {
            kind(name, part.data_type())?;
        }
        made.push((name.to_owned(), column(name, wanted.unwrap_or(own), &parts)?));
    }
    Frame::new(made).map_err(|column| ColumnError::Shape { column })
}

fn column(name: &str, kind: Kind, parts: &[&arrow::array::ArrayRef]) -> Result<Column, ColumnError> {
    let to = |part: &dyn Array, wanted: &DataType| {
        cast(part, wanted).map_err(|source| ColumnError::Cast { column: name.to_owned(), source })
    };
    match kind {
        Kind::Numbers => {
            let mut numbers = Vec::new();
            for part in parts {
                let part = to(part, &DataType::Float64)?;
                numbers.extend(part.as_primitive::<Float64Type>().iter().map(|value| value.unwrap_or(f64::NAN)));
            }
            Ok(Column::Numbers(numbers))
        }
        Kind::Times => {
            let mut times = Vec::new();
            for part in parts {
                let part = to(part, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
                times.extend(part.as_primitive::<TimestampMicrosecondType>().iter());
            }
            Ok(Column::Times(times))
        }
        Kind::Texts => {
            let (mut codes, mut values, mut known) = (Vec::new(), Vec::new(), HashMap::new());
            for part in parts {
                let part = to(part, &DataType::Utf8)?;
                for text in part.as_string::<i32>() {
                    codes.push(text.map_or(u32::MAX, |text| code(text, &mut values, &mut known)));
                }
            }
            Ok(Column::Texts { codes, values })
        }
    }
}

fn code(text: &str, values: &mut Vec<String>, known: &mut HashMap<String, u32>) -> u32 {
    if let Some(&code) = known.get(text) {
        return code;
    }
    let code = values.len() as u32;
    values.push(text.to_owned());
    known.insert(text.to_owned(), code);
    code
}

/// The labels of a classifier: the distinct values as texts in canonical order (numbers by size), and each row's class; `None` where the label is missing.
///
/// # Errors
/// A type that cannot be a label.
pub fn classes(batches: &[RecordBatch], label: &str) -> Result<(Vec<String>, Vec<Option<u32>>), ColumnError> {
    let fail = |source| ColumnError::Cast { column: label.to_owned(), source };
    let (mut codes, mut values, mut known) = (Vec::new(), Vec::new(), HashMap::new());
    let mut whole = true;
    for batch in batches {
        let Some(part) = batch.column_by_name(label) else {
            return Err(ColumnError::Shape { column: label.to_owned() });
        };
        whole &= part.data_type().is_integer();
        let texts = cast(part, &DataType::Utf8).map_err(fail)?;
        codes.extend(texts.as_string::<i32>().iter().map(|text| Some(code(text?, &mut values, &mut known))));
    }
    let mut order: Vec<(String, u32)> = values.into_iter().zip(0..).collect();
    order.sort_unstable();
    if whole {
        order.sort_by_key(|(name, _)| name.parse::<i128>().unwrap_or(i128::MAX));
    }
    let mut places = vec![0; order.len()];
    for (place, (_, code)) in (0..).zip(&order) {
        places[*code as usize] = place;
    }
    let classes = codes.into_iter().map(|code: Option<u32>| places.get(code? as usize).copied()).collect();
    Ok((order.into_iter().map(|(name, _)| name).collect(), classes))
}

/// The label of each row as the task has it: its class's position, or the number; `None` where it is missing or no class of the task.
///
/// # Errors
/// A type that cannot be a label.
pub fn labels(batches: &[RecordBatch], label: &str, task: &Task) -> Result<Vec<Option<f64>>, ColumnError> {
    let Task::Classes(wanted) = task else { return numbers(batches, label) };
    let (names, rows) = classes(batches, label)?;
    let place: HashMap<&str, f64> = wanted.iter().map(String::as_str).zip((0..).map(f64::from)).collect();
    let places: Vec<Option<f64>> = names.iter().map(|name| place.get(name.as_str()).copied()).collect();
    Ok(rows.into_iter().map(|row| places.get(row? as usize).copied().flatten()).collect())
}

/// The labels of a regression; `None` where the label is missing.
///
/// # Errors
/// A label that is no number.
pub fn numbers(batches: &[RecordBatch], label: &str) -> Result<Vec<Option<f64>>, ColumnError> {
    let mut numbers = Vec::new();
    for batch in batches {
        let Some(part) = batch.column_by_name(label) else {
            return Err(ColumnError::Shape { column: label.to_owned() });
        };
        let fail = |source| ColumnError::Cast { column: label.to_owned(), source };
        let part = match part.data_type() {
            DataType::Int64 => part.as_primitive::<Int64Type>().unary::<_, Float64Type>(|value| value as f64),
            _ => cast(part, &DataType::Float64).map_err(fail)?.as_primitive::<Float64Type>().clone(),
        };
        numbers.extend(part.iter());
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Int32Array, StringArray, TimestampMillisecondArray};

    use super::*;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
            .unwrap()
    }

    #[test]
    fn every_kind_of_column_keeps_its_values_and_its_gaps() {
        let one = batch(vec![
            ("n", Arc::new(Int32Array::from(vec![Some(7), None]))),
            ("b", Arc::new(BooleanArray::from(vec![Some(true), Some(false)]))),
            ("t", Arc::new(StringArray::from(vec![Some("x"), None]))),
            ("when", Arc::new(TimestampMillisecondArray::from(vec![Some(5), None]))),
        ]);
        let frame = frame(&[one.clone(), one], &["n", "b", "t", "when", "nowhere"]).unwrap();
        let Some(Column::Numbers(n)) = frame.column("n") else { panic!() };
        assert!(n[0] == 7.0 && n[1].is_nan() && n.len() == 4);
        assert_eq!(frame.column("b"), Some(&Column::Numbers(vec![1.0, 0.0, 1.0, 0.0])));
        let codes = vec![0, u32::MAX, 0, u32::MAX];
        assert_eq!(frame.column("t"), Some(&Column::Texts { codes, values: vec!["x".into()] }));
        assert_eq!(frame.column("when"), Some(&Column::Times(vec![Some(5000), None, Some(5000), None])));
        assert_eq!(frame.column("nowhere"), None);
    }

    #[test]
    fn a_declared_column_has_the_form_that_its_encoding_wants_whatever_type_a_batch_has() {
        let whole = batch(vec![
            ("code", Arc::new(Int32Array::from(vec![Some(7), None]))),
            ("n", Arc::new(Int32Array::from(vec![1, 2]))),
        ]);
        let text = |cells: [&str; 2]| Arc::new(StringArray::from(cells.to_vec()));
        let token = batch(vec![("code", text(["7", "8"])), ("n", text(["3", "pii:token"]))]);
        let declared = [("code", Encode::Category), ("n", Encode::Number)]
            .map(|(column, encode)| Declared { column: column.into(), encode });
        let frame = frame_of(&[whole, token], &declared).unwrap();
        let codes = vec![0, u32::MAX, 0, 1];
        assert_eq!(frame.column("code"), Some(&Column::Texts { codes, values: vec!["7".into(), "8".into()] }));
        let Some(Column::Numbers(n)) = frame.column("n") else { panic!() };
        assert!(n[..3] == [1.0, 2.0, 3.0] && n[3].is_nan());
    }

    #[test]
    fn a_label_has_the_place_that_the_task_gives_its_class_also_when_rows_lack_some() {
        let task = Task::Classes(["-1", "9", "10"].map(str::to_owned).to_vec());
        let rows = batch(vec![("y", Arc::new(Int32Array::from(vec![Some(10), None, Some(9), Some(3)])))]);
        assert_eq!(labels(std::slice::from_ref(&rows), "y", &task).unwrap(), [Some(2.0), None, Some(1.0), None]);
        assert_eq!(labels(&[rows], "y", &Task::Number).unwrap(), [Some(10.0), None, Some(9.0), Some(3.0)]);
    }

    #[test]
    fn classes_are_in_canonical_order_whole_numbers_by_size() {
        let label = |column: ArrayRef| classes(&[batch(vec![("y", column)])], "y").unwrap();
        let numbers = label(Arc::new(Int32Array::from(vec![Some(10), Some(9), None, Some(-1)])));
        assert_eq!(numbers.0, ["-1", "9", "10"]);
        assert_eq!(numbers.1, [Some(2), Some(1), None, Some(0)]);
        assert_eq!(label(Arc::new(BooleanArray::from(vec![true, false]))).0, ["false", "true"]);
    }
}
