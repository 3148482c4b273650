//! The stage without Kafka: real models, really sealed rows, topics and store in memory.

mod world;

use self::world::*;
use super::*;
use crate::attest::statement::leaf_of;
use crate::stages::testing::End;

const GAME: &str = "{players: 4, trainings: 16, seeds: 5}";
const FIVE: &str = "{players: 5, trainings: 32, seeds: 5}";

/// Two wallets whose labels are good, one whose labels are noise and one whose labels are wrong, after a baseline on little.
fn four(attribution: &str, signed: bool) -> World {
    peopled(World::new(attribution), signed)
}

fn peopled(mut world: World, signed: bool) -> World {
    world.contribute("platform", 40, Labels::Wrong, true);
    world.train("1.0.0", &[]);
    for (name, rows, labels) in [
        (WALLET, 240, Labels::Good),
        ("good", 120, Labels::Good),
        ("noise", 60, Labels::Noise),
        ("wrong", 60, Labels::Wrong),
    ] {
        world.contribute(name, rows, labels, signed);
    }
    world.train("1.1.0", &[]);
    world
}

const WALLET: &str = "0x52908400098527886e0f7030069857d2e4169ee7";

#[test]
fn contributors_are_credited_by_what_their_rows_bring_and_the_values_add_up_as_integers() {
    let world = four(GAME, true);
    let (record, told) = world.attribute(&world.accepted());
    assert_eq!((record.status.as_str(), record.method.as_str()), (Record::ATTRIBUTED, "enumerated"), "{record:?}");
    assert_eq!((record.seeds, record.trainings, record.base_rows, record.rows), (5, 80, 40, 520), "{record:?}");
    let number = |text: &str| text.parse::<f64>().unwrap();
    let names: Vec<&str> = record.players.iter().map(|own| own.members[0].contributor.as_str()).collect();
    assert_eq!(names, [WALLET, "good", "noise", "wrong"]);
    let effects: Vec<f64> = record.players.iter().map(|own| number(&own.effect)).collect();
    assert!(effects[0] > effects[1] && effects[1] > effects[2].abs() && effects[3] < effects[1], "{record:?}");
    let sum: i128 = record.players.iter().map(|own| own.value.parse::<i128>().unwrap()).sum();
    let game = sum as f64 / number(&record.denominator);
    assert!((game - number(&record.delta_game)).abs() < 1e-6, "{record:?}");
    assert!((number(&record.delta) - number(&record.delta_game) - number(&record.remainder)).abs() < 1e-9);
    assert!(number(&record.lower) < number(&record.delta) && number(&record.lower) > 0.0, "{record:?}");
    assert!(record.players.iter().all(|own| own.leave_one_out.is_some() && number(&own.standard_error) > 0.0));
    // Who is paid has a value above 0, and has signed; the wallet is known.
    assert!(record.payable && record.reasons.is_empty(), "{record:?}");
    assert_eq!(record.shares.iter().map(|share| share.basis_points).sum::<i64>(), 10_000);
    let wallet = record.shares.iter().find(|share| share.contributor == WALLET).unwrap();
    assert_eq!(wallet.payout_address.as_deref(), Some(WALLET));
    assert!(record.shares.iter().all(|share| share.contributor != "wrong"), "{record:?}");
    // The statement says the same with pseudonyms, and adds up for a stranger.
    let told = told.unwrap();
    told.adds_up().unwrap();
    assert_eq!((&told.game_digest, told.payable), (&record.game, true));
    assert_eq!(
        told.players.iter().map(|own| &own.value).collect::<Vec<_>>(),
        record.players.iter().map(|own| &own.value).collect::<Vec<_>>()
    );
    let text = serde_json::to_string(&told).unwrap();
    assert!(!text.contains("\"good\"") && !text.contains("\"noise\""), "{text}");
}

#[test]
fn the_same_evaluation_gives_the_same_bytes_whatever_the_threads_the_store_does_or_where_a_worker_died() {
    let world = four("{players: 4, trainings: 16, seeds: 2, rows: 200, benchmarkRows: 100}", true);
    let accepted = world.accepted();
    let leaf = |task: &crate::stages::testing::Task<Attribution>| {
        let requests = task.values::<AttestationRequest>(topics::ATTESTATION_REQUESTS);
        let [request] = requests.as_slice() else { panic!("{}", requests.len()) };
        leaf_of(&request.statement)
    };
    let mut plain = world.task(1);
    feed(&mut plain, 0, &accepted);
    work_off(&mut plain);
    let mut killed = world.task(2);
    *world.shelf.failures.lock().unwrap() = 1;
    feed(&mut killed, 0, &accepted);
    killed.commit(&[]).unwrap();
    killed.stage.work = None;
    killed.end(End::Killed).unwrap();
    work_off(&mut killed);
    assert_eq!(leaf(&plain), leaf(&killed));
    let told = statements(&plain).pop().unwrap();
    assert_eq!((told.game.benchmark_rows, told.game.base_rows), (100, 40), "the base plays whole");
    assert_eq!(told.game.players.iter().map(|seat| seat.rows).collect::<Vec<_>>(), [80, 40, 20, 20]);
    // Told again, it is not attributed again; refused ones never are.
    feed(&mut plain, 1, &accepted);
    let refused = Evaluation { evaluation_id: "e-2".to_owned(), status: Evaluation::REFUSED.to_owned(), ..accepted };
    feed(&mut plain, 2, &refused);
    work_off(&mut plain);
    assert_eq!(plain.values::<Record>(topics::ATTRIBUTIONS).len(), 1);
}

#[test]
fn nobody_is_paid_without_signatures_without_five_seeds_or_over_a_baseline_that_was_replaced() {
    let world = four(GAME, false);
    let (record, _) = world.attribute(&world.accepted());
    assert_eq!((record.payable, record.shares.len(), record.reasons), (false, 0, vec!["UNVERIFIED".to_owned()]));
    let mut world = four("{players: 4, trainings: 16, seeds: 1}", true);
    let accepted = world.accepted();
    world.model.versions.push(crate::domain::records::ModelVersion {
        version: "2.0.0".to_owned(),
        stage: "production".to_owned(),
        ..Default::default()
    });
    let (record, told) = world.attribute(&accepted);
    assert!(!record.payable && record.shares.is_empty());
    assert_eq!(record.reasons, ["NOBODY_SIGNIFICANT", "SEEDS", "STALE_BASELINE"]);
    told.unwrap().adds_up().unwrap();
}

#[test]
fn unsigned_rows_under_a_signers_name_are_another_owner_and_spoil_nothing() {
    let mut world = four(FIVE, true);
    drop(world.model.versions.pop());
    world.contribute(WALLET, 12, Labels::Wrong, false);
    world.train("1.1.0", &[]);
    let (record, told) = world.attribute(&world.accepted());
    let names: Vec<&str> =
        record.players.iter().flat_map(|own| &own.members).map(|own| own.contributor.as_str()).collect();
    assert!(names.contains(&WALLET) && names.contains(&format!("{WALLET} (unsigned)").as_str()), "{names:?}");
    assert!(record.payable, "{record:?}");
    let wallet = record.shares.iter().find(|share| share.contributor == WALLET).unwrap();
    assert_eq!(wallet.payout_address.as_deref(), Some(WALLET));
    told.unwrap().adds_up().unwrap();
}

#[test]
fn with_another_recipe_the_comparator_is_that_recipe_on_the_baselines_rows() {
    let mut world = four(GAME, true);
    let (same, _) = world.attribute(&world.accepted());
    assert_eq!(same.comparator, same.baseline);
    drop(world.model.versions.pop());
    world.train("1.2.0", &[("l2", "3.0")]);
    let (other, told) = world.attribute(&world.accepted());
    assert!(other.comparator != other.baseline && !other.comparator.is_empty(), "{other:?}");
    assert!(told.unwrap().game.parameters.contains("3"), "the candidate's own parameters are played");
}

#[test]
fn more_contributors_than_players_play_as_one_in_the_end() {
    let mut world = World::new("{players: 3, trainings: 10, seeds: 2}");
    world.contribute("platform", 40, Labels::Noise, true);
    world.train("1.0.0", &[]);
    for name in ["e", "d", "c", "b", "a"] {
        world.contribute(name, if name == "c" { 200 } else { 30 }, Labels::Good, true);
    }
    world.train("1.1.0", &[]);
    let (record, told) = world.attribute(&world.accepted());
    let sizes: Vec<i64> = record.players.iter().map(|own| own.contributors).collect();
    assert_eq!((sizes, record.players.len()), (vec![1, 1, 3], 3), "{record:?}");
    assert!(record.players.iter().take(2).any(|own| own.members[0].contributor == "c"), "{record:?}");
    let told = told.unwrap();
    assert_eq!(told.game.players.iter().map(|seat| seat.pseudonym.is_some()).collect::<Vec<_>>(), [true, true, false]);
    told.adds_up().unwrap();
}

#[test]
fn an_attribution_waits_until_its_model_lists_the_candidate() {
    let mut world = four("{players: 4, trainings: 16, seeds: 1}", true);
    let accepted = world.accepted();
    let candidate = world.model.versions.pop().unwrap();
    let mut task = world.task(1);
    feed(&mut task, 0, &accepted);
    work_off(&mut task);
    assert!(task.values::<Record>(topics::ATTRIBUTIONS).is_empty());
    world.model.versions.push(candidate);
    world.tell(&mut task);
    work_off(&mut task);
    assert_eq!(task.values::<Record>(topics::ATTRIBUTIONS).len(), 1);
}

#[test]
fn what_cannot_be_attributed_says_why_and_is_over() {
    let reason = |change: &dyn Fn(&mut World)| {
        let mut world = four("{players: 4, trainings: 16, seeds: 1}", true);
        change(&mut world);
        let (record, told) = world.attribute(&world.accepted());
        assert_eq!((record.status.as_str(), told), (Record::FAILED, None), "{record:?}");
        assert!(!record.detail.is_empty() && record.players.is_empty() && !record.payable);
        record.reason
    };
    assert_eq!(reason(&|world| world.model.versions[0].lineage.dataset = None), "NO_BASE_ROWS");
    assert_eq!(reason(&|world| world.model.versions[1].params.clear()), "NO_RECIPE");
    let outside = |world: &mut World| {
        let mut params = world.model.versions[1].params.iter_mut();
        params.find(|pair| pair.name == "algorithm").unwrap().value = "external".to_owned();
    };
    assert_eq!(reason(&outside), "NO_RECIPE", "nobody here can learn it on other rows");
    let went_on = |world: &mut World| {
        let from = crate::domain::records::NamedValue {
            name: "warm_start".to_owned(),
            value: format!("{:?}", "ab".repeat(32)),
        };
        world.model.versions[1].params.push(from);
    };
    assert_eq!(reason(&went_on), "NO_RECIPE", "other rows would go on from another model");
    assert_eq!(reason(&|world| world.model.benchmarks.clear()), "UNKNOWN_BENCHMARK");
    assert_eq!(reason(&|world| world.shelf.published.lock().unwrap().clear()), "UNKNOWN_DATASET");
    assert_eq!(reason(&|world| world.model.benchmarks[0].sealed_rows.digest = "00".repeat(32)), "BENCHMARK_MISSING");
    assert_eq!(reason(&|world| world.model.benchmarks[0].rows = 7), "BENCHMARK_DAMAGED");
    let other_ends = |world: &mut World| {
        let digest = world.model.versions[1].lineage.dataset.clone().unwrap().digest;
        let mut published = world.shelf.published.lock().unwrap();
        published.get_mut(&format!("m {digest}")).unwrap().ends.iter_mut().for_each(|end| end.end = 3);
    };
    assert_eq!(reason(&other_ends), "DATASET_CHANGED");
    assert_eq!(reason(&|world| world.most_bytes = 500), "TOO_LARGE", "five receipts, and those of the baseline again");
    // The candidate learned from the same rows as the baseline: whatever it gained is nobody's.
    let nobody = |world: &mut World| {
        let candidate = world.model.versions[1].lineage.dataset.clone();
        world.model.versions[0].lineage.dataset = candidate;
    };
    assert_eq!(reason(&nobody), "NO_PLAYERS");
}

#[test]
fn a_declared_metric_that_is_two_for_every_error_credits_each_player_with_twice_what_accuracy_does() {
    let game = "{players: 4, trainings: 16, seeds: 2, rows: 200, benchmarkRows: 100}";
    let cost =
        "primary: own, metrics: [{name: own, direction: lower, value: CASE WHEN predicted = label THEN 0 ELSE 2 END}]";
    let (own, _) = {
        let world = peopled(World::comparing(cost, game), true);
        world.attribute(&world.accepted())
    };
    let (known, _) = {
        let world = four(game, true);
        world.attribute(&world.accepted())
    };
    assert_eq!((own.status.as_str(), own.players.len()), (Record::ATTRIBUTED, known.players.len()), "{own:?}");
    let share =
        |record: &Record, value: &str| value.parse::<f64>().unwrap() / record.denominator.parse::<f64>().unwrap();
    for (own_player, known_player) in own.players.iter().zip(&known.players) {
        let (own, known) = (share(&own, &own_player.value), share(&known, &known_player.value));
        assert!((own - 2.0 * known).abs() < 1e-9, "{own} {known}");
    }
    let delta = |record: &Record| record.delta.parse::<f64>().unwrap();
    assert!((delta(&own) - 2.0 * delta(&known)).abs() < 3e-6 && delta(&own) > 0.0, "{own:?}");
}
