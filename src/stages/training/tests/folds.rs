//! Validation folds that a contract declares.

use ::arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};

use super::*;
use crate::ml::declare::declaration;
use crate::stages::training::learn::encode;

fn under(validation: &str) -> TrainingRun {
    let shelf = Arc::new(Shelf::default());
    shelf.contribute("a", 0..700, "admitted");
    let mut task = Task::new(stage(&shelf, 1), 0, &[]);
    let spec = SPEC.replacen("schema:\n", &format!("{validation}schema:\n"), 1);
    tell_under(&spec, &mut task.stage, Vec::new(), Vec::new());
    let mut request = asked("r");
    request.params.push(NamedValue { name: "validation".to_owned(), value: "0.5".to_owned() });
    ask(&mut task, 0, request);
    work_off(&mut task);
    last(&task)
}

#[test]
fn rows_of_a_declared_group_judge_together_and_the_recipe_says_so() {
    let (plain, grouped) = (under(""), under("learning:\n  validation: {by: group, column: amount}\n"));
    let judged = |run: &TrainingRun| {
        assert_eq!(run.status, TrainingRun::FINISHED, "{}", run.detail);
        run.metrics[0].rows
    };
    // Each of the seven amounts has a hundred rows.
    assert!(judged(&plain) % 100 != 0, "{}", judged(&plain));
    assert!(judged(&grouped) % 100 == 0 && (100..700).contains(&judged(&grouped)), "{}", judged(&grouped));
    let named = |run: &TrainingRun| run.dataset.as_ref().map(|dataset| dataset.digest.clone());
    assert_eq!(named(&plain), named(&grouped));
    assert_ne!(plain.recipe_digest, grouped.recipe_digest);
    assert_ne!(plain.artefact, grouped.artefact);
}

const VISITS: &str = "apiVersion: hokusai/v1
kind: Model
name: visits
label: again
learning:
  leaveOut: [patient, at]
  validation: VALIDATION
schema:
  - name: visits
    properties:
      - {name: amount, logicalType: number}
      - {name: patient, logicalType: string, pii: {type: customer_id, policy: hash}}
      - {name: at, logicalType: timestamp}
      - {name: again, logicalType: integer, logicalTypeOptions: {enum: [0, 1]}}
";

/// Which of ten visits judge. Nobody knows the patient of the last two, and the time of the last.
fn judges(validation: &str, share: f64) -> Vec<u32> {
    let spec = Spec::parse_yaml(&VISITS.replacen("VALIDATION", validation, 1), "visits").unwrap();
    let declared = declaration(&spec).unwrap();
    let (names, numbers) = (["a", "b", "a", "b", "c", "c", "a", "b"], 0_i64..10);
    let patients: StringArray = names.into_iter().map(Some).chain([None, None]).collect();
    let times: TimestampMicrosecondArray = (0..9_i64).map(|row| Some(row * 7 % 9)).chain([None]).collect();
    let rows = RecordBatch::try_from_iter([
        ("amount", Arc::new(numbers.clone().map(|row| Some(row as f64)).collect::<Float64Array>()) as ArrayRef),
        ("patient", Arc::new(patients)),
        ("at", Arc::new(times)),
        ("again", Arc::new(numbers.map(|row| Some(row % 2)).collect::<Int64Array>())),
    ]);
    let keys = (0..10).collect();
    let prepared = encode(&declared, crate::domain::records::Dataset::default(), rows.unwrap(), keys).unwrap();
    let (learn, judge) = prepared.folds(&declared.task, 3, share).unwrap();
    assert_eq!(learn.len() + judge.len(), 10);
    judge
}

#[test]
fn a_column_that_is_no_feature_cuts_by_its_values_and_rows_without_one_are_groups_of_their_own_or_teach() {
    // Times are 0, 7, 5, 3, 1, 8, 6, 4, 2 and none.
    assert_eq!(judges("{by: newest, column: at}", 0.34), [1, 5, 6]);
    assert_eq!(judges("{by: newest, column: at}", 0.12), [5]);
    let judge = judges("{by: group, column: patient}", 0.5);
    for together in [&[0, 2, 6][..], &[1, 3, 7], &[4, 5]] {
        let count = together.iter().filter(|row| judge.contains(row)).count();
        assert!(count == 0 || count == together.len(), "{together:?} in {judge:?}");
    }
}
