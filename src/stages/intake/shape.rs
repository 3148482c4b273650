//! The shape of a value: enough to find a mistake, not enough to learn the value.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Date32Type, Float64Type, Int64Type, TimestampMicrosecondType};

use crate::codec::formats::text_shape;

/// Shape of the cell at `row`.
pub(super) fn of(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        return "null".to_owned();
    }
    match column.data_type() {
        DataType::Utf8 => text_shape(column.as_string::<i32>().value(row)),
        DataType::Int64 => format!("integer, {}", digits(column.as_primitive::<Int64Type>().value(row).unsigned_abs())),
        DataType::Float64 => number(column.as_primitive::<Float64Type>().value(row)),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Timestamp(..) => "timestamp".to_owned(),
        other => format!("{other}"),
    }
}

fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        "infinite".to_owned()
    } else {
        let sign = if value < 0.0 { "negative " } else { "" };
        let fraction = if value.fract() == 0.0 { "" } else { " with a fraction" };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates; only its length counts
        let whole = value.abs() as u64;
        format!("{sign}number{fraction}, {} before the point", digits(whole))
    }
}

fn digits(magnitude: u64) -> String {
    match magnitude.checked_ilog10().map_or(1, |log| log + 1) {
        1 => "1 digit".to_owned(),
        n => format!("{n} digits"),
    }
}

/// How far the cell at `row` is beyond a bound of numbers. In steps: an exact ratio would give the value away.
pub(super) fn beyond(column: &ArrayRef, row: usize, bound: f64) -> String {
    #[allow(clippy::cast_precision_loss)] // only the magnitude counts
    let value = match column.data_type() {
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row) as f64,
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row),
        DataType::Date32 => f64::from(column.as_primitive::<Date32Type>().value(row)),
        DataType::Timestamp(..) => column.as_primitive::<TimestampMicrosecondType>().value(row) as f64,
        _ => return of(column, row),
    };
    let side = if value > bound { "above max" } else { "below min" };
    let ratio = value / bound;
    let shape = of(column, row);
    if bound == 0.0 || ratio <= 0.0 {
        return format!("{side}, {shape}");
    }
    let factor = if ratio >= 1.0 { ratio } else { 1.0 / ratio };
    const STEPS: [(f64, &str); 7] = [
        (1.1, "by less than 1.1×"),
        (1.5, "by 1.1× to 1.5×"),
        (2.0, "by 1.5× to 2×"),
        (5.0, "by 2× to 5×"),
        (10.0, "by 5× to 10×"),
        (100.0, "by 10× to 100×"),
        (1000.0, "by 100× to 1000×"),
    ];
    let step = STEPS.iter().find(|(most, _)| factor <= *most).map_or("by more than 1000×", |(_, text)| text);
    format!("{side} {step}, {shape}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shapes_say_kind_and_size() {
        assert_eq!(text_shape("12345678901"), "string, 11 digits");
        assert_eq!(text_shape("Zürich"), "string, 6 letters");
        assert_eq!(text_shape("a-1"), "string, 3 characters: 1 digits, 1 letters, 1 others");
        assert_eq!(text_shape(""), "empty string");
        let ages: ArrayRef = Arc::new(Int64Array::from(vec![Some(216), Some(-3), None]));
        assert_eq!(beyond(&ages, 0, 120.0), "above max by 1.5× to 2×, integer, 3 digits");
        assert_eq!(beyond(&ages, 1, 0.0), "below min, integer, 1 digit");
        assert_eq!(of(&ages, 2), "null");
        let numbers: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, 1e300, -0.5]));
        assert_eq!(of(&numbers, 0), "NaN");
        assert_eq!(of(&numbers, 1), "number, 20 digits before the point");
        assert_eq!(of(&numbers, 2), "negative number with a fraction, 1 digit before the point");
    }

    proptest! {
        #[test]
        fn a_shape_is_the_same_for_very_different_values(a in 1_000_000i64..9_999_999, b in 1_000_000i64..9_999_999) {
            let column: ArrayRef = Arc::new(Int64Array::from(vec![a, b]));
            prop_assert_eq!(beyond(&column, 0, 100.0), beyond(&column, 1, 100.0));
            prop_assert!(!of(&column, 0).contains(&a.to_string()));
        }

        #[test]
        fn a_shape_holds_no_word_of_the_text(word in "[a-z]{4,12}[0-9]{4,12}") {
            prop_assert!(!text_shape(&word).contains(&word));
        }
    }
}
