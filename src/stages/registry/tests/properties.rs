//! The fold is a function of the log: whatever is mixed in that does not count, wherever reading begins anew.

use super::lifecycle::{promote, rollback};
use super::versions::{asked, imported, last_model};
use super::*;
use crate::stages::registry::command::{Action, AliasChange, TagChange};
use crate::stages::registry::refold::Refold;
use crate::stages::registry::version::Stage;

/// What may be asked; versions are numbered 1.0.0, 1.1.0, … in the order of their registration.
fn action(kind: u8, number: u64) -> Action {
    let version = format!("1.{}.0", number % 4);
    match kind % 8 {
        0 | 1 => Action::Register(Box::new(imported(number))),
        2 => promote(&version, Stage::Staging),
        3 => promote(&version, Stage::Production),
        4 => rollback(&version),
        5 => Action::Archive(version),
        6 => Action::Alias(AliasChange { alias: format!("a{}", number % 3), version: Some(version) }),
        _ => Action::Tag(TagChange { tag: "k".to_owned(), value: Some(number.to_string()), version: None }),
    }
}

/// A log in which every command was built on the revision that the model had then, so that most of them count.
fn log(wishes: &[(u8, u64)]) -> Vec<RegistryEvent> {
    let mut task = run(&[apply(1, 0)]);
    let mut events = vec![apply(1, 0)];
    for (offset, (kind, number)) in (1..).zip(wishes) {
        let event = asked(action(*kind, *number), last_model(&task).revision);
        task.commit(&[batch(topics::REGISTRY_EVENTS, 0, offset, 0, std::slice::from_ref(&event))]).unwrap();
        events.push(event);
    }
    events
}

fn wishes() -> impl Strategy<Value = Vec<(u8, u64)>> {
    prop::collection::vec((0..8_u8, 0..12_u64), 1..24)
}

fn folded(events: &[RegistryEvent]) -> std::collections::BTreeMap<String, Model> {
    let trust = crate::attest::trust::Trust::development(&key(1).verifying_key());
    let mut fold = Refold::default();
    for (offset, event) in (0..).zip(events) {
        fold.take(&trust, &|_| Ok(()), event, offset).unwrap();
    }
    fold.into_models()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn repeated_stale_and_forged_commands_mixed_in_anywhere_leave_the_same_model(
        wishes in wishes(),
        noise in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..3_u8), 0..24),
    ) {
        let clean = log(&wishes);
        let mut noisy = clean.clone();
        for (of, at, kind) in noise {
            // Only what came before can be repeated: later, it is repeated or stale.
            let of = of.index(clean.len());
            let position = noisy.iter().position(|e| *e == clean[of]).unwrap();
            let mut event = clean[of].clone();
            if kind == 1 {
                let mut envelope = Envelope::from_json(event.envelope.as_bytes()).unwrap();
                envelope.signatures[0].signature[5] ^= 1;
                event.envelope = envelope.to_json();
            } else if kind == 2 {
                event.envelope = asked(action(7, 1), 10_000).envelope;
            }
            let at = if kind == 0 { position + 1 + at.index(noisy.len() - position) } else { at.index(noisy.len() + 1) };
            noisy.insert(at, event);
        }
        prop_assert_eq!(folded(&noisy), folded(&clean));
    }

    #[test]
    fn a_task_that_starts_anew_anywhere_and_the_fold_without_a_task_come_to_the_same_records(
        wishes in wishes(),
        restart in any::<prop::sample::Index>(),
    ) {
        let events = log(&wishes);
        let whole = run(&events);
        let at = restart.index(events.len());
        let mut cut = task();
        cut.commit(&[batch(topics::REGISTRY_EVENTS, 0, 0, 0, &events[..at])]).unwrap();
        cut.restart().unwrap();
        cut.commit(&[batch(topics::REGISTRY_EVENTS, 0, at as i64, 0, &events[at..])]).unwrap();
        prop_assert_eq!(&cut.outputs, &whole.outputs);
        prop_assert_eq!(&folded(&events)["m"], &last_model(&whole));
    }

    #[test]
    fn whatever_is_asked_a_stage_has_one_head_numbers_are_unique_and_production_was_never_archived(wishes in wishes()) {
        let events = log(&wishes);
        let task = run(&events);
        let mut revision = 0;
        for model in task.values::<Model>(topics::MODELS) {
            prop_assert_eq!(model.revision, revision + 1);
            revision = model.revision;
            for stage in ["staging", "production"] {
                prop_assert!(model.versions.iter().filter(|v| v.stage == stage).count() <= 1);
            }
            let mut numbers: Vec<_> = model.versions.iter().map(|v| v.version.clone()).collect();
            numbers.sort();
            numbers.dedup();
            prop_assert_eq!(numbers.len(), model.versions.len());
            for version in &model.versions {
                prop_assert!(version.stages.contains(&version.stage));
            }
            for alias in &model.aliases {
                prop_assert!(model.version(&alias.version).is_some_and(|v| v.stage != "archived"));
            }
        }
    }
}
