//! The stage without Kafka: real models, really sealed rows, a store in memory.

pub(crate) mod world;

use self::world::*;
use super::*;
use crate::attest::dsse::Envelope;
use crate::attest::statement::Predicate;
use crate::domain::contract::Spec;
use crate::domain::records::{Artefact, ModelContract, RegistryEvent};
use crate::stages::testing::{End, batch};

#[test]
fn a_real_improvement_is_accepted_and_tells_by_how_much_behind_its_preregistration() {
    let world = World::new();
    let mut desk = world.desk();
    let record = desk.evaluate(world.ask("r", &world.good, &world.noise));
    assert_eq!((record.status.as_str(), record.attempt), (Record::ACCEPTED, 1), "{record:?}");
    assert_eq!((record.alpha.as_str(), record.metric.as_str()), ("0.030396355092", "accuracy"));
    let number = |text: &Option<String>| text.as_ref().unwrap().parse::<f64>().unwrap();
    let (base, cand, delta) = (number(&record.baseline_value), number(&record.candidate_value), number(&record.delta));
    assert!((cand - base - delta).abs() < 1e-9 && delta > 0.2 && number(&record.lower) > 0.0, "{record:?}");
    assert!(number(&record.p_value) < 0.03 && record.strata.len() == 4, "{record:?}");
    assert!(record.strata.iter().all(|stratum| stratum.passed && stratum.rows > 200), "{record:?}");
    // The Ladder's first rung is the candidate's value, rounded to the minimum effect.
    let ladder = number(&record.ladder_score);
    assert!((ladder - cand).abs() <= 0.005 && (ladder * 100.0 - (ladder * 100.0).round()).abs() < 1e-9, "{record:?}");

    let statements = desk.statements();
    let [Predicate::Preregistration(laid), Predicate::Evaluation(told)] = statements.as_slice() else { panic!() };
    assert_eq!(
        (laid.test.as_str(), laid.attempt.number, laid.minimum_effect_ppm.as_str()),
        ("mcnemar_exact", 1, "10000")
    );
    assert_eq!((laid.guardrails.len(), laid.strata.len(), &laid.attempt), (1, 4, &told.attempt));
    assert_eq!((&told.pre_registration.value, &told.withheld), (&record.preregistration, &None));
    let hash = statement_hash(&desk.payloads()[0]);
    assert_eq!(told.evidence[0].digest.sha256, data_encoding::HEXLOWER.encode(&hash));
    assert_eq!((told.evaluated_at.as_str(), told.sample_size), ("2023-11-14T22:13:20Z", 600));
    let claim = &told.claims[0];
    assert_eq!(
        (claim.metric.as_str(), claim.threshold.as_str(), claim.passed),
        ("improvement of accuracy", "0.010000", true)
    );
    let full = told.record.as_ref().unwrap();
    let (alone, n) = (full.counts.clone().unwrap(), full.n);
    let from_counts = (alone.candidate_only - alone.baseline_only) as f64 / n as f64;
    assert!((from_counts - delta).abs() < 2e-6 && n == 600, "{alone:?}");
    assert!((alone.candidate_right as f64 / n as f64 - cand).abs() < 2e-6, "{alone:?}");
    let [lower, upper] = alone.newcombe_ppm.map(|ppm| ppm.parse::<f64>().unwrap() / 1e6);
    assert!(0.0 < lower && lower < delta && delta < upper, "{lower} {delta} {upper}");
    let (mid, exact) = (&alone.mid_p_e9, full.metrics.iter().find(|own| own.name == "accuracy").unwrap());
    assert!(mid.parse::<i64>().unwrap() <= 2 * exact.p_e9.as_ref().unwrap().parse::<i64>().unwrap(), "{mid}");
    let bps = (exact.baseline_bps.unwrap(), exact.candidate_bps.unwrap());
    assert_eq!(bps, ((base * 1e4).ceil() as i64, (cand * 1e4).floor() as i64));
    let calibration = full.calibration.as_ref().unwrap();
    assert!(calibration.candidate.expected_ppm.parse::<i64>().unwrap() > 0, "{calibration:?}");

    let events = desk.task.sent::<RegistryEvent>(topics::REGISTRY_EVENTS);
    let [(_, key, event)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((key.as_slice(), event.kind.as_str()), (&b"m"[..], RegistryEvent::RESULT));
    let envelope = Envelope::from_json(event.envelope.as_bytes()).unwrap();
    assert!(envelope.is_signed_by(&SigningKey::from_bytes(&[7; 32]).verifying_key()));
    let Finding::Evaluation(found) = result::read(&envelope).unwrap().found else { panic!() };
    assert_eq!(
        (found.status.as_str(), &found.delta, found.statement),
        ("accepted", &record.delta, Some(record.statement))
    );
}

#[test]
fn a_refused_attempt_tells_nothing_but_its_number_level_reasons_and_the_ladder() {
    let world = World::new();
    let mut desk = world.desk();
    let record = desk.evaluate(world.ask("r", &world.other_noise, &world.good));
    assert_eq!((record.status.as_str(), record.attempt), (Record::REFUSED, 1), "{record:?}");
    assert!(record.reasons.contains(&"NOT_SIGNIFICANT".to_owned()) && record.reasons.is_sorted(), "{record:?}");
    let figures = [&record.baseline_value, &record.candidate_value, &record.delta, &record.lower, &record.p_value];
    assert!(figures.iter().all(|figure| figure.is_none()) && record.strata.is_empty() && record.detail.is_empty());
    let ladder = record.ladder_score.clone().unwrap();
    assert!(ladder.ends_with("0000"), "rounded to the minimum effect of 0.01: {ladder}");
    // The statement binds the full record by a salted digest, and the owner can open what is kept.
    let Some(Predicate::Evaluation(told)) = desk.statements().pop() else { panic!() };
    assert_eq!((told.record, &told.reasons), (None, &record.reasons));
    let id = record.evaluation_id.as_str();
    let kept = kept::open(&world.key, id, &lock(&world.shelf.kept)[id]).unwrap();
    assert_eq!(told.withheld, kept.withheld());
    let exact = kept.record.metrics[0].candidate_ppm.as_str();
    let published: Vec<u8> = desk.task.outputs.iter().flat_map(|out| out.value.clone().unwrap_or_default()).collect();
    assert!(!published.windows(exact.len()).any(|bytes| bytes == exact.as_bytes()), "{exact} stands in a record");
    // A worse candidate later shows the same rung.
    let again = desk.evaluate(world.ask("s", &world.noise, &world.good));
    assert_eq!((again.attempt, again.alpha.as_str()), (2, "0.007599088773"));
    assert_eq!(again.ladder_score, Some(ladder));
}

#[test]
fn the_owner_of_a_benchmark_opens_an_evaluation_and_finds_the_figures_that_were_kept_and_bound() {
    let world = World::new();
    let mut desk = world.desk();
    let request = world.ask("r", &world.other_noise, &world.good);
    let record = desk.evaluate(request.clone());
    let id = record.evaluation_id.as_str();
    let opened = world.opened(&request, &record, ring().tree_key()).unwrap();
    let sealed = lock(&world.shelf.kept)[id].clone();
    let kept = kept::open(&world.key, id, &sealed).unwrap();
    assert_eq!(opened.judged.scored.record, kept.record);
    let columns = &opened.columns;
    assert_eq!((columns.labels.len(), columns.baseline.len(), columns.candidate.len()), (600, 600, 600));
    assert_eq!((columns.strata.len(), opened.rows.iter().map(|rows| rows.num_rows()).sum::<usize>()), (2, 600));
    // Neither another key nor another evaluation's name opens it.
    assert!(kept::open(&SealingKey::new("e2").unwrap(), id, &sealed).is_err());
    assert!(kept::open(&world.key, "another", &sealed).is_err());
    let stranger = crate::domain::keys::MacKey::new(&[1; 32], "");
    assert_eq!(world.opened(&request, &record, &stranger).unwrap_err().code, "BENCHMARK_DAMAGED");
}

#[test]
fn nothing_is_scored_before_the_acknowledgement_of_exactly_its_own_preregistration() {
    let world = World::new();
    let mut desk = world.desk();
    desk.feed(world.ask("r", &world.good, &world.noise));
    assert!(!desk.task.stage.owes(&desk.task.state).unwrap() && desk.records().is_empty(), "parked");
    let right = desk.acknowledgements().remove(0);
    let with = |change: &dyn Fn(&mut EvaluationAcknowledgement)| {
        let mut wrong = right.clone();
        wrong.acknowledgement.iter_mut().for_each(change);
        wrong
    };
    desk.feed(with(&|own| own.leaf = "ab".repeat(32)));
    desk.feed(with(&|own| own.checkpoint = checkpoint(own.index as u64)));
    desk.feed(with(&|own| own.checkpoint = "a tree head".to_owned()));
    desk.feed(with(&|own| own.index = -1));
    desk.feed(EvaluationRequest { evaluation_id: "of nobody".to_owned(), ..right.clone() });
    desk.feed(EvaluationRequest { family: "no family".to_owned(), ..right.clone() });
    desk.feed(EvaluationRequest { family: world.family(0), ..EvaluationRequest::default() });
    let reasons: Vec<&str> = desk.task.dead_letters.iter().map(|letter| letter.reason.as_str()).collect();
    let refused = "ACKNOWLEDGEMENT_REFUSED";
    assert_eq!(reasons, [refused, refused, refused, refused, refused, "REQUEST_MISKEYED", "REQUEST_UNREADABLE"]);
    let outcome = EvaluationOutcome { attempt: 1, status: Record::ACCEPTED.to_owned() };
    let stray = EvaluationRequest { acknowledgement: None, outcome: Some(outcome), ..right.clone() };
    desk.feed(stray);
    assert!(!desk.task.stage.owes(&desk.task.state).unwrap(), "an attempt that is not scored cannot end");
    desk.feed(right.clone());
    desk.work_off();
    assert_eq!(desk.records().len(), 1);
    desk.feed(right);
    desk.work_off();
    assert_eq!((desk.records().len(), desk.task.dead_letters.len()), (1, 7), "an acknowledgement counts once");
}

#[test]
fn the_same_recipe_or_request_again_spends_nothing() {
    let world = World::new();
    let mut desk = world.desk();
    desk.evaluate(world.ask("r", &world.other_noise, &world.noise));
    let mut same = world.ask("r", &world.other_noise, &world.noise);
    same.attempt.iter_mut().for_each(|attempt| attempt.request_id = "another".to_owned());
    desk.feed(same);
    assert_eq!(desk.records().len(), 1, "the first result stands under the same id");
    let mut reused = world.ask("t", &world.good, &world.noise);
    reused.attempt.iter_mut().for_each(|attempt| attempt.request_id = "r".to_owned());
    let told = desk.evaluate(reused);
    assert_eq!((told.attempt, told.reasons.as_slice()), (0, &["REQUEST_REPEATED".to_owned()][..]));
    assert_eq!(desk.evaluate(world.ask("s", &world.good, &world.noise)).attempt, 2);
}

#[test]
fn a_request_that_is_no_attempt_is_refused_by_name_and_spends_nothing() {
    let mut world = World::new();
    world.seal("unfit@1", 5_000..5_600);
    world.model.benchmarks[2].strata.clear();
    world.model.benchmarks[1].retired = true;
    let plain = SPEC.replace("evaluation:", "description: none\nunused:");
    let plain = plain.split("unused:").next().unwrap().to_owned()
        + plain.split_once("schema:").map(|(_, s)| "schema:".to_owned() + s).unwrap().as_str();
    let plain = Spec::parse_yaml(&plain, "f").unwrap();
    let digest = plain.contract_digest().unwrap();
    let spec = plain.canonical_json().unwrap();
    world.model.contracts.push(ModelContract { digest: digest.clone(), revision: 2, spec });
    let mut desk = world.desk();
    let first = world.ask("r", &world.good, &world.noise);
    let with = |family: usize, change: &dyn Fn(&mut EvaluationAttempt)| {
        let mut attempt = first.attempt.clone().unwrap();
        change(&mut attempt);
        asked(world.family(family), attempt)
    };
    let cases = [
        ("UNKNOWN_MODEL", with(0, &|own| own.model = "other".to_owned())),
        ("UNKNOWN_BENCHMARK", with(0, &|own| own.benchmark = "holdout@2".to_owned())),
        ("OTHER_FAMILY", with(1, &|_| ())),
        ("UNKNOWN_CONTRACT", with(0, &|own| own.contract_digest = "ab".repeat(32))),
        ("NO_EVALUATION", with(0, &|own| own.contract_digest = digest.clone())),
        ("BENCHMARK_RETIRED", with(1, &|own| own.benchmark = "other@1".to_owned())),
        ("STRATA_NOT_SEALED", with(2, &|own| own.benchmark = "unfit@1".to_owned())),
    ];
    for (code, request) in cases {
        desk.feed(request);
        let told = desk.records().pop().unwrap();
        assert_eq!((told.reasons.as_slice(), told.attempt), (&[code.to_owned()][..], 0), "{told:?}");
        assert!(told.status == Record::REFUSED && !told.detail.is_empty() && told.ladder_score.is_none());
    }
    assert!(desk.statements().is_empty() && desk.task.sent::<RegistryEvent>(topics::REGISTRY_EVENTS).is_empty());
    assert_eq!(desk.evaluate(first).attempt, 1, "what was refused before did not count");
}

#[test]
fn an_attempt_that_cannot_be_scored_has_failed_by_name_and_has_spent_its_level() {
    let world = World::new();
    let gone = Artefact { digest: "ab".repeat(32), ..Artefact::default() };
    let broken = world.shelf.put(b"no model");
    let mut desk = world.desk();
    let cases = [
        ("CANDIDATE_MISSING", world.ask("1", &gone, &world.noise)),
        ("BASELINE_MISSING", world.ask("2", &world.good, &gone)),
        ("CANDIDATE_UNUSABLE", world.ask("3", &broken, &world.noise)),
        ("BASELINE_UNUSABLE", world.ask("4", &world.good, &broken)),
    ];
    for (number, (code, request)) in (1..).zip(cases) {
        *lock(&world.shelf.failures) = 1;
        let told = desk.evaluate(request);
        assert_eq!(
            (told.status.as_str(), told.reasons.as_slice()),
            (Record::FAILED, &[code.to_owned()][..]),
            "{told:?}"
        );
        assert_eq!((told.attempt, told.ladder_score), (number, None));
    }
    let Some(Predicate::Evaluation(told)) = desk.statements().pop() else { panic!() };
    assert_eq!((told.status.as_str(), told.record, told.withheld), (Record::FAILED, None, None));
    // Rows of another key, or cut short.
    let rows = world.model.benchmarks[0].sealed_rows.digest.clone();
    lock(&world.shelf.blobs).get_mut(&rows).unwrap().truncate(100);
    let told = desk.evaluate(world.ask("5", &world.good, &world.noise));
    assert_eq!((told.reasons.as_slice(), told.attempt), (&["BENCHMARK_DAMAGED".to_owned()][..], 5));
    lock(&world.shelf.blobs).remove(&rows);
    let told = desk.evaluate(world.ask("6", &world.good, &world.noise));
    assert_eq!((told.reasons.as_slice(), told.attempt), (&["BENCHMARK_MISSING".to_owned()][..], 6));
}

#[test]
fn attempts_of_a_family_are_scored_in_their_order_and_other_families_go_on() {
    let world = World::new();
    let mut desk = world.desk();
    let mut elsewhere = world.ask("3", &world.good, &world.noise).attempt.unwrap();
    elsewhere.benchmark = "other@1".to_owned();
    desk.feed(world.ask("1", &world.other_noise, &world.noise));
    desk.feed(world.ask("2", &world.good, &world.noise));
    desk.feed(asked(world.family(1), elsewhere));
    let acknowledgements = desk.acknowledgements();
    desk.feed(acknowledgements[1].clone());
    assert!(!desk.task.stage.owes(&desk.task.state).unwrap(), "the second waits for the first");
    desk.feed(acknowledgements[2].clone());
    desk.work_off();
    assert_eq!(desk.records().iter().map(|told| told.benchmark.as_str()).collect::<Vec<_>>(), ["other@1"]);
    desk.feed(acknowledgements[0].clone());
    desk.work_off();
    let order: Vec<(String, i64)> =
        desk.records().into_iter().skip(1).map(|told| (told.request_id, told.attempt)).collect();
    assert_eq!(order, [("1".to_owned(), 1), ("2".to_owned(), 2)]);
}

#[test]
fn aborts_kills_and_another_machine_change_no_byte() {
    let world = World::new();
    let requests = [world.ask("1", &world.other_noise, &world.noise), world.ask("2", &world.good, &world.noise)];
    let mut whole = world.desk();
    requests.iter().for_each(|request| drop(whole.evaluate(request.clone())));
    let mut torn = world.desk();
    for request in requests {
        let record = batch(topics::EVALUATION_REQUESTS, 0, torn.offset, 0, std::slice::from_ref(&request));
        torn.task.abort(&[record]);
        torn.feed(request);
        torn.task.end(End::Elsewhere).unwrap();
        for acknowledgement in torn.acknowledgements() {
            torn.feed(acknowledgement);
        }
        // Scoring begins, and its worker is gone before the result is committed.
        torn.task.commit(&[]).unwrap();
        torn.task.stage = world.stage();
        torn.task.end(End::Elsewhere).unwrap();
        while !torn.task.stage.owes(&torn.task.state).unwrap() || torn.task.stage.work.is_none() {
            if torn.task.stage.work.is_none() {
                torn.task.commit(&[]).unwrap();
            }
        }
        torn.task.abort(&[]);
        torn.work_off();
    }
    assert_eq!(torn.task.outputs, whole.task.outputs);
    assert_eq!(torn.records().len(), 2);
}

#[test]
fn an_attempt_that_no_worker_brings_to_its_end_is_given_up_and_holds_nobody_up() {
    let world = World::new();
    let mut desk = world.desk();
    *lock(&world.shelf.failures) = u32::MAX;
    desk.feed(world.ask("1", &world.good, &world.noise));
    let acknowledgement = desk.acknowledgements().remove(0);
    desk.feed(acknowledgement);
    while desk.records().is_empty() {
        if desk.task.stage.work.is_some() {
            desk.task.stage = world.stage();
        }
        desk.task.commit(&[]).unwrap();
    }
    assert_eq!(desk.records()[0].reasons, ["GIVEN_UP"]);
    *lock(&world.shelf.failures) = 0;
    assert_eq!(desk.evaluate(world.ask("2", &world.good, &world.noise)).status, Record::ACCEPTED);
}

/// A record that takes an evaluation back.
fn taken_back(request: &EvaluationRequest) -> EvaluationRequest {
    let by = Position { topic: topics::TRAINING_REQUESTS.to_owned(), partition: 0, offset: 9 };
    EvaluationRequest { attempt: None, cancel: Some(by), ..request.clone() }
}

#[test]
fn an_attempt_that_is_taken_back_before_it_is_scored_has_spent_its_level_tells_so_and_holds_nobody_up() {
    let world = World::new();
    let mut desk = world.desk();
    let [first, second, third] = [
        world.ask("1", &world.other_noise, &world.noise),
        world.ask("2", &world.good, &world.noise),
        world.ask("3", &world.noise, &world.good),
    ];
    for request in [&first, &second, &third] {
        desk.feed(request.clone());
    }
    let acknowledgements = desk.acknowledgements();
    desk.feed(acknowledgements[1].clone());
    desk.feed(acknowledgements[2].clone());
    // One that waits for its turn, then one that waits for its acknowledgement.
    desk.feed(taken_back(&third));
    assert!(!desk.task.stage.owes(&desk.task.state).unwrap(), "the second waits for the first");
    desk.feed(taken_back(&first));
    let record = desk.records().pop().unwrap();
    assert_eq!((record.status.as_str(), record.attempt), (Record::CANCELLED, 1), "{record:?}");
    assert_eq!((record.alpha.as_str(), record.request_id.as_str()), ("0.030396355092", "1"));
    assert_eq!((&record.reasons, &record.ladder_score), (&vec!["CANCELLED".to_owned()], &None));
    assert_eq!(record.detail, "as asked for by the record training.requests/0/9");
    let Some(Predicate::Evaluation(told)) = desk.statements().pop() else { panic!() };
    assert_eq!((told.status.as_str(), told.attempt.number), ("cancelled", 1));
    assert_eq!((&told.reasons, &told.pre_registration.value), (&record.reasons, &record.preregistration));
    assert_eq!((told.record, told.withheld), (None, None));
    let (_, _, event) = desk.task.sent::<RegistryEvent>(topics::REGISTRY_EVENTS).pop().unwrap();
    let envelope = Envelope::from_json(event.envelope.as_bytes()).unwrap();
    let Finding::Evaluation(found) = result::read(&envelope).unwrap().found else { panic!() };
    assert_eq!((found.status.as_str(), found.delta), ("cancelled", None));
    assert_eq!(found.statement, Some(record.statement));

    // The same for whoever goes on.
    desk.task.end(End::Elsewhere).unwrap();
    desk.work_off();
    let order = |desk: &Desk| -> Vec<(i64, String)> {
        desk.records().into_iter().map(|told| (told.attempt, told.status)).collect()
    };
    let expected = [(3, Record::CANCELLED), (1, Record::CANCELLED), (2, Record::ACCEPTED)];
    assert_eq!(order(&desk), expected.map(|(number, status)| (number, status.to_owned())));
    // What comes late changes nothing: its acknowledgement, another cancellation, the same request.
    desk.feed(acknowledgements[0].clone());
    desk.feed(taken_back(&first));
    desk.feed(first);
    desk.work_off();
    assert_eq!((desk.records().len(), desk.task.dead_letters.len()), (3, 0));
    assert_eq!(desk.evaluate(world.ask("4", &world.other_noise, &world.noise)).attempt, 4, "they stay counted");
}

#[test]
fn what_is_being_scored_is_seen_to_its_end_and_what_is_over_stays_as_it_is() {
    let world = World::new();
    let mut desk = world.desk();
    let request = world.ask("r", &world.good, &world.noise);
    desk.feed(request.clone());
    let acknowledgement = desk.acknowledgements().remove(0);
    desk.feed(acknowledgement);
    desk.feed(taken_back(&request));
    assert!(desk.records().is_empty());
    while desk.records().is_empty() {
        desk.task.commit(&[]).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    // Its outcome is told, and has not come back yet.
    desk.feed(taken_back(&request));
    desk.work_off();
    desk.feed(taken_back(&request));
    desk.work_off();
    let records = desk.records();
    assert_eq!(records.iter().map(|told| told.status.as_str()).collect::<Vec<_>>(), [Record::ACCEPTED]);
    assert!(desk.task.dead_letters.is_empty(), "{:?}", desk.task.dead_letters);
    assert_eq!(desk.evaluate(world.ask("s", &world.other_noise, &world.noise)).attempt, 2);
}

#[test]
fn a_cancellation_of_what_was_never_counted_is_set_aside() {
    let world = World::new();
    let mut desk = world.desk();
    let request = world.ask("r", &world.good, &world.noise);
    desk.feed(taken_back(&request));
    desk.feed(request.clone());
    desk.feed(EvaluationRequest { family: world.family(1), ..taken_back(&request) });
    desk.feed(EvaluationRequest { cancel: taken_back(&request).cancel, ..request });
    let reasons: Vec<&str> = desk.task.dead_letters.iter().map(|letter| letter.reason.as_str()).collect();
    assert_eq!(reasons, ["CANCELLATION_REFUSED", "CANCELLATION_REFUSED", "REQUEST_UNREADABLE"]);
    let acknowledgement = desk.acknowledgements().remove(0);
    desk.feed(acknowledgement);
    desk.work_off();
    assert_eq!(desk.records()[0].status, Record::ACCEPTED);
}

/// What a wrong answer costs, more in the north, and more the surer it was.
const COST: &str = "CASE WHEN predicted = label THEN 0 WHEN region = 'north' THEN 5 * abs(score - 0.5) ELSE 2 END";

#[test]
fn a_declared_metric_decides_is_preregistered_by_name_and_stands_with_its_figures_in_its_own_unit() {
    let world = World::under(&declaring("own", "[{metric: accuracy, margin: 0.05}]", COST));
    let mut desk = world.desk();
    let record = desk.evaluate(world.ask("r", &world.good, &world.noise));
    assert_eq!((record.status.as_str(), record.metric.as_str()), (Record::ACCEPTED, "own"), "{record:?}");
    let number = |text: &Option<String>| text.as_ref().unwrap().parse::<f64>().unwrap();
    let (base, cand, delta) = (number(&record.baseline_value), number(&record.candidate_value), number(&record.delta));
    // Less of it is better.
    assert!(base > cand && (base - cand - delta).abs() < 1e-9 && number(&record.lower) > 0.0, "{record:?}");
    assert!(record.strata.len() == 4 && record.strata.iter().all(|stratum| stratum.passed), "{record:?}");
    let statements = desk.statements();
    let [Predicate::Preregistration(laid), Predicate::Evaluation(told)] = statements.as_slice() else { panic!() };
    assert_eq!((laid.metric.as_str(), laid.test.as_str(), told.metric.as_str()), ("own", "paired_t", "own"));
    assert_eq!((laid.guardrails[0].name.as_str(), laid.strata[0].margin_ppm.as_str()), ("accuracy", "500000"));
    let full = told.record.as_ref().unwrap();
    let own = full.metrics.iter().find(|metric| metric.name == "own").unwrap();
    assert_eq!(own.delta_ppm.parse::<i128>().ok().map(crate::stats::fixed::micro_string), record.delta);
    assert!(own.interval_ppm.is_some() && own.p_e9.is_some() && own.permutation_p_e9.is_some(), "{own:?}");
    // Another definition is another contract, so another preregistration.
    let other = declaring("own", "[{metric: accuracy, margin: 0.05}]", &COST.replace("ELSE 2", "ELSE 3"));
    assert_ne!(other.contract_digest().unwrap(), laid.contract_digest);
}

#[test]
fn a_declared_guardrail_that_got_worse_refuses_what_is_better_otherwise() {
    // The better model is surer of itself.
    let sure = declaring("accuracy", "[{metric: own, margin: 0.01}]", "abs(score - 0.5)");
    let world = World::under(&sure);
    let mut desk = world.desk();
    let record = desk.evaluate(world.ask("r", &world.good, &world.noise));
    assert_eq!((record.status.as_str(), &record.reasons), (Record::REFUSED, &vec!["GUARDRAIL_INFERIOR".to_owned()]));
    assert!(record.delta.is_none() && record.detail.is_empty(), "{record:?}");
    let id = record.evaluation_id.as_str();
    let kept = kept::open(&world.key, id, &lock(&world.shelf.kept)[id]).unwrap();
    assert_eq!(kept.record.reasons.iter().map(|own| own.subject.as_str()).collect::<Vec<_>>(), ["own"]);
    // What it allows, it allows.
    let world = World::under(&declaring("accuracy", "[{metric: own, margin: 1}]", "abs(score - 0.5)"));
    assert_eq!(world.desk().evaluate(world.ask("r", &world.good, &world.noise)).status, Record::ACCEPTED);
}

#[test]
fn a_declared_metric_without_a_value_on_some_row_accepts_nothing_and_says_which_and_no_more() {
    for (primary, value) in [("own", "score / half"), ("accuracy", "nullif(score, score) + x")] {
        let world = World::under(&declaring(primary, "[{metric: log_loss}]", value));
        let mut desk = world.desk();
        let record = desk.evaluate(world.ask("r", &world.good, &world.noise));
        let said = (record.status.as_str(), record.attempt, record.reasons.as_slice());
        assert_eq!(said, (Record::FAILED, 1, &["METRIC_UNDEFINED".to_owned()][..]), "{record:?}");
        assert!(
            record.detail.contains("the metric own is undefined") && record.detail.contains("help: "),
            "{record:?}"
        );
        let Some(Predicate::Evaluation(told)) = desk.statements().pop() else { panic!() };
        assert_eq!((told.record, told.withheld), (None, None));
    }
}
