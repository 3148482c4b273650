use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::ml::artefact::ArtefactError;
use crate::ml::encoding::TimePart;

/// One model of each kind, with every kind of feature.
fn models() -> Vec<Model> {
    let learned = |(name, classes)| {
        let rows = rows(400, classes);
        let parameters = if name == "trees" { json!({"iterations": 3, "min_rows": 5}) } else { json!({}) };
        let mut model = rows.model(rows.learn(name, parameters));
        let time = crate::ml::encoding::Kind::Time(TimePart::Hour);
        if name == "trees" {
            model.encoding.features.push(crate::ml::encoding::Feature { column: "when".into(), kind: time });
        }
        model
    };
    [("trees", 2), ("trees", 3), ("trees", 0), ("linear", 2), ("linear", 3), ("linear", 0)].map(learned).to_vec()
}

#[test]
fn what_is_written_is_read_back_whole() {
    for model in models() {
        let bytes = model.to_bytes();
        assert_eq!(Model::from_bytes(&bytes), Ok(model));
        let longer: Vec<u8> = bytes.iter().copied().chain([0]).collect();
        assert!(matches!(Model::from_bytes(&longer), Err(ArtefactError::Form { .. })));
        for end in (0..bytes.len()).step_by(7) {
            assert!(Model::from_bytes(&bytes[..end]).is_err(), "cut at {end}");
        }
    }
}

#[test]
fn another_format_and_a_newer_version_are_named() {
    assert_eq!(Model::from_bytes(b"PK\x03\x04 and so on"), Err(ArtefactError::Magic));
    let mut newer = models()[0].to_bytes();
    newer[4] = 3;
    assert_eq!(Model::from_bytes(&newer), Err(ArtefactError::Version(3)));
}

#[test]
fn a_list_that_claims_more_than_the_file_holds_takes_no_memory() {
    let mut bytes = b"HKML\x01\x00\x00".to_vec();
    bytes.extend(u32::MAX.to_le_bytes());
    assert!(matches!(Model::from_bytes(&bytes), Err(ArtefactError::Form { .. })));
}

#[test]
fn a_forest_has_as_many_outputs_as_its_task() {
    for mut model in models().into_iter().take(3) {
        let crate::ml::model::Predictor::Trees(forest) = &mut model.predictor else { unreachable!() };
        forest.trees.clear();
        let right = forest.base.len();
        for outputs in [0, 1, 2, 3, 4] {
            let crate::ml::model::Predictor::Trees(forest) = &mut model.predictor else { unreachable!() };
            forest.base = vec![0.0; outputs];
            assert_eq!(Model::from_bytes(&model.to_bytes()).is_ok(), outputs == right, "{outputs}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_changed_artefact_is_refused_or_is_another_valid_model_with_one_form(
        which in 0usize..6, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        thread_local!(static MODELS: Vec<Vec<u8>> = models().iter().map(Model::to_bytes).collect());
        let mut bytes = MODELS.with(|models| models[which].clone());
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(model) = Model::from_bytes(&bytes) {
            prop_assert_eq!(model.to_bytes(), bytes, "there is one form for one model");
            let frame = Frame::new(vec![
                ("x".into(), Column::Numbers(vec![0.5, f64::NAN, f64::INFINITY])),
                ("z".into(), Column::Numbers(vec![-1.0, 50.0, 1e300])),
                ("category".into(), Column::texts([Some("level 03"), None, Some("never seen")])),
                ("when".into(), Column::Times(vec![Some(0), None, Some(i64::MIN)])),
            ]).unwrap();
            // Names may have changed; whatever can be scored is scored without a panic.
            let _ = model.predict(&frame);
            let _ = model.to_onnx();
        }
    }
}
