//! A model of one figure whose label follows it in nine of ten rows: what is learned from mislabelled rows is worse than what is learned from others.

use serde_json::{Value, json};

/// A candidate is better by two hundredths of accuracy, and its log-loss not much worse.
pub const SECTION: &str = "evaluation:
  primary: accuracy
  minimumEffect: 0.02
  guardrails: [{metric: log_loss, margin: 0.2}]
";

/// The specification, with the section `evaluation` or without.
pub fn spec(model: &str, evaluation: &str) -> String {
    format!(
        "apiVersion: hokusai/v1
kind: Model
name: {model}
label: late
learning: {{leaveOut: [n]}}
{evaluation}schema:
  - name: flights
    properties:
      - {{name: n, logicalType: integer, required: true, logicalTypeOptions: {{minimum: 0}}}}
      - {{name: x, logicalType: number, required: true}}
      - {{name: late, logicalType: integer, logicalTypeOptions: {{enum: [0, 1]}}}}
"
    )
}

/// A number below 65,536 that follows from another as if by chance.
pub fn scrambled(n: i64, salt: i64) -> i64 {
    let round = |value: i64| {
        let mixed = value.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64.cast_signed());
        mixed ^ (mixed >> 29)
    };
    round(round(n + salt * 1_000_003)) >> 20 & 0xFFFF
}

/// Rows whose label follows x in nine of ten; those that are mislabelled, the other way round.
pub fn rows(range: std::ops::Range<i64>, mislabelled: bool) -> Vec<Value> {
    let row = |n: i64| {
        let x = scrambled(n, 1) % 1_000;
        let flipped = scrambled(n, 3) % 10 == 0;
        json!({"n": n, "x": x as f64 / 1_000.0 + n as f64 / 1e9, "late": i64::from((x >= 500) != (flipped != mislabelled))})
    };
    range.map(row).collect()
}

/// One JSON object per line.
pub fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}
