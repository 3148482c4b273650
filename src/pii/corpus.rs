//! Precision and recall on the labelled strings in `tests/vectors/pii`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::column::ColumnHints;
use super::scan::Scanner;

/// The strings on which the rules were written.
const LABELLED: &str = include_str!("../../tests/vectors/pii/labelled.jsonl");
/// Strings with other sentences, column names and separators.
const UNSEEN: &str = include_str!("../../tests/vectors/pii/unseen.jsonl");

#[derive(Default)]
struct Score {
    right: usize,
    wrong: usize,
    missed: usize,
}

impl Score {
    fn f1(&self) -> f64 {
        2.0 * self.right as f64 / (2 * self.right + self.wrong + self.missed) as f64
    }

    /// Precision and recall.
    fn shares(&self) -> (f64, f64) {
        let of = |others: usize| self.right as f64 / (self.right + others) as f64;
        (of(self.wrong), of(self.missed))
    }
}

fn text(row: &Value) -> String {
    match row["text"].as_str() {
        Some(text) => text.to_owned(),
        None => String::from_utf8(data_encoding::BASE64.decode(row["text_b64"].as_str().unwrap().as_bytes()).unwrap())
            .unwrap(),
    }
}

/// F1 over all kinds, and the share of clean strings in which something is found.
fn measure(corpus: &str) -> (f64, f64) {
    let mut scanner = Scanner::new();
    let mut scores = BTreeMap::<String, Score>::new();
    let (mut clean, mut flagged) = (0_u32, 0_u32);
    for line in corpus.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let (cell, column) = (text(&row), row["column_name"].as_str().unwrap());
        let expected: BTreeSet<String> =
            row["types"].as_array().unwrap().iter().map(|kind| kind.as_str().unwrap().to_lowercase()).collect();
        let found: BTreeSet<String> =
            scanner.scan(&cell, &ColumnHints::of(column)).iter().map(|found| found.kind.name().to_owned()).collect();
        clean += u32::from(expected.is_empty());
        flagged += u32::from(expected.is_empty() && !found.is_empty());
        for kind in &expected | &found {
            let score = scores.entry(kind.clone()).or_default();
            match (expected.contains(&kind), found.contains(&kind)) {
                (true, true) => score.right += 1,
                (true, false) => score.missed += 1,
                _ => score.wrong += 1,
            }
        }
        if std::env::var_os("PII_SHOW").is_some() && expected != found {
            println!("{column:24} {cell:?} expected {expected:?} found {found:?}");
        }
    }
    let mut all = Score::default();
    for (kind, score) in &scores {
        println!("{kind:28} F1 {:.3}  right {} wrong {} missed {}", score.f1(), score.right, score.wrong, score.missed);
        all.right += score.right;
        all.wrong += score.wrong;
        all.missed += score.missed;
    }
    let (precision, recall) = all.shares();
    println!(
        "all precision {precision:.4} recall {recall:.4} F1 {:.4}; clean strings flagged {flagged} of {clean}",
        all.f1()
    );
    (all.f1(), f64::from(flagged) / f64::from(clean))
}

#[test]
fn detection_stays_as_good_as_it_was_on_labelled_strings() {
    let (f1, flagged) = measure(LABELLED);
    assert!(f1 >= 0.99 && flagged <= 0.01, "F1 {f1}, {flagged} of the clean strings flagged");
}

#[test]
fn detection_holds_for_sentences_and_column_names_that_the_rules_were_not_written_on() {
    let (f1, flagged) = measure(UNSEEN);
    assert!(f1 >= 0.97 && flagged <= 0.02, "F1 {f1}, {flagged} of the clean strings flagged");
}
