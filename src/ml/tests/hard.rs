//! Columns that teach nothing: a category with a level per row, and one that never changes.

use super::*;

/// A level for every row, a number that never changes, a category of one level, and a number that the label follows.
fn useless(count: usize) -> Rows {
    let names: Vec<String> = (0..count).map(|row| format!("customer {row:07}")).collect();
    let frame = Frame::new(vec![
        ("who".into(), Column::texts(names.iter().map(|name| Some(name.as_str())))),
        ("same".into(), Column::Numbers(vec![7.0; count])),
        ("one".into(), Column::texts((0..count).map(|_| Some("always")))),
        ("x".into(), Column::Numbers((0..count).map(|row| random(row, 0)).collect())),
    ])
    .unwrap();
    let declared =
        [("who", Encode::Category), ("same", Encode::Number), ("one", Encode::Category), ("x", Encode::Number)]
            .map(|(column, encode)| Declared { column: column.into(), encode });
    let encoding = Encoding::compile(&declared, &frame).unwrap();
    let features = encoding.encode(&frame).unwrap();
    let label = |row| f64::from(u8::from((random(row, 0) > 0.5) != (random(row, 1) < 0.1)));
    Rows {
        encoding,
        features,
        frame,
        labels: (0..count).map(label).collect(),
        task: Task::Classes(vec!["no".into(), "yes".into()]),
        keys: (0..count).map(|row| draw(1, Purpose::Trials, 9, row as u64)).collect(),
    }
}

/// Learns what can be learned, in an artefact that does not grow with the levels.
fn learn_useless(count: usize) {
    let rows = useless(count);
    for (name, parameters) in [("trees", json!({"iterations": 10})), ("linear", json!({}))] {
        let model = rows.model(rows.learn(name, parameters));
        let bytes = model.to_bytes();
        assert!(bytes.len() < 64 << 10, "{name}: {} bytes", bytes.len());
        assert_eq!(Model::from_bytes(&bytes).as_ref(), Ok(&model));
        let scores = model.predict(&rows.frame).unwrap();
        let right =
            scores.iter().zip(&rows.labels).filter(|(score, label)| (**score >= 0.5) == (**label == 1.0)).count();
        assert!(right as f64 > 0.88 * count as f64, "{name}: {right} of {count}");
    }
}

#[test]
fn a_level_for_every_row_and_columns_that_never_change_cost_neither_the_artefact_nor_the_answer() {
    learn_useless(20_000);
}

#[test]
#[ignore = "a measurement of time and memory: cargo test --lib a_million_levels -- --ignored --nocapture"]
fn a_million_levels_are_learned_from() {
    let start = std::time::Instant::now();
    learn_useless(1_000_000);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    println!("trees and linear on 1,000,000 levels: {:.1} s, {peak}", start.elapsed().as_secs_f64());
}
