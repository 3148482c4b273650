//! Searches: trials that workers share, rungs, the winner.

use std::collections::BTreeMap;

use super::*;
use crate::domain::records::{TrainingTrial, TrialResult};
use crate::stages::trials::Trials;

/// One task of training and several of trials; what they tell each other goes through topics.
struct Plant {
    training: Task<Training>,
    trials: Vec<Task<Trials>>,
    /// Records of each task's outputs that were delivered.
    delivered: Vec<usize>,
    offset: i64,
}

fn worker(shelf: &Arc<Shelf>) -> Trials {
    let mut stage = Trials::new(shop(shelf, 1));
    tell(&mut stage, Vec::new());
    stage
}

impl Plant {
    fn new(shelf: &Arc<Shelf>, workers: usize) -> Self {
        let trials = (0..workers).map(|_| Task::new(worker(shelf), 0, &[])).collect();
        let training = Task::new(stage(shelf, 1), 0, &[]);
        Self { training, trials, delivered: vec![0; workers + 1], offset: 100 }
    }

    /// Delivers what was told, the newest result first, and lets every task do what it owes.
    fn turn(&mut self) {
        step(&mut self.training);
        let told: Vec<TrainingTrial> = self.training.values(topics::TRAINING_TRIALS);
        for trial in told.iter().skip(std::mem::replace(&mut self.delivered[0], told.len())) {
            let worker = trial.number as usize % self.trials.len();
            self.offset += 1;
            let told = batch(topics::TRAINING_TRIALS, 0, self.offset, 0, std::slice::from_ref(trial));
            self.trials[worker].commit(&[told]).unwrap();
        }
        for (task, delivered) in self.trials.iter_mut().zip(&mut self.delivered[1..]).rev() {
            step(task);
            let told: Vec<TrainingJob> = task.values(topics::TRAINING_JOBS);
            for job in &told[std::mem::replace(delivered, told.len())..] {
                self.offset += 1;
                let told = batch(topics::TRAINING_JOBS, 0, self.offset, 0, std::slice::from_ref(job));
                self.training.commit(&[told]).unwrap();
            }
        }
    }

    fn work_off(&mut self) -> TrainingRun {
        patiently("the run is over", || {
            self.turn();
            self.training.values::<TrainingRun>(topics::TRAINING_RUNS).last().is_some_and(TrainingRun::is_over)
        });
        last(&self.training)
    }

    /// Every result, by rung and trial.
    fn results(&self) -> BTreeMap<(i32, i32), TrialResult> {
        let jobs = self.trials.iter().flat_map(|task| task.values::<TrainingJob>(topics::TRAINING_JOBS));
        jobs.filter_map(|job| job.trial).map(|result| ((result.rung, result.number), result)).collect()
    }
}

const SEARCH: &str = r#"{"space": {"learning_rate": {"log": [0.02, 0.5]}, "leaves": {"whole": [2, 8]}},
    "trials": 7, "keep_one_in": 3, "iterations": 12}"#;

fn searched(id: &str, search: &str) -> TrainingRequest {
    let params = vec![NamedValue { name: "min_rows".to_owned(), value: "5".to_owned() }];
    TrainingRequest { search: Some(search.to_owned()), params, ..asked(id) }
}

fn filled() -> Arc<Shelf> {
    let shelf = Arc::new(Shelf::default());
    shelf.contribute("a", 0..300, "admitted");
    shelf
}

#[test]
fn a_search_has_the_same_winner_and_bytes_with_one_worker_and_with_three_and_after_all_were_lost() {
    let run = |workers: usize, lose: bool| {
        let shelf = filled();
        let mut plant = Plant::new(&shelf, workers);
        ask(&mut plant.training, 0, searched("r", SEARCH));
        if lose {
            patiently("some trials are in", || {
                plant.turn();
                plant.results().len() > 3
            });
            plant.training.stage = stage(&shelf, 1);
            plant.training.end(End::Elsewhere).unwrap();
            for task in &mut plant.trials {
                // A successor begins before it has read any broadcast.
                task.stage = Trials::new(shop(&shelf, 1));
                task.end(End::Elsewhere).unwrap();
                step(task);
                tell(&mut task.stage, Vec::new());
            }
        }
        let run = plant.work_off();
        assert!(plant.trials.iter().all(|task| task.state.scan_prefix(b"", 1).unwrap().is_empty()));
        (run, plant.results(), plant.training.sent::<RegistryEvent>(topics::REGISTRY_EVENTS).len())
    };
    let (one, results, events) = run(1, false);
    assert_eq!((one.status.as_str(), one.reason.as_str(), events), (TrainingRun::FINISHED, "", 1), "{}", one.detail);
    for (workers, lose) in [(3, false), (2, true)] {
        let (other, others, _) = run(workers, lose);
        assert_eq!((&other, &others), (&one, &results));
    }
    // Who goes on, and who wins, follows from the results alone.
    let ranked = |rung: i32| {
        let of_rung = results.values().filter(|result| result.rung == rung);
        let loss = |result: &TrialResult| result.loss.as_ref().unwrap().parse::<f64>().unwrap();
        let mut ranked: Vec<(f64, i32)> = of_rung.map(|result| (loss(result), result.number)).collect();
        ranked.sort_by(|a, b| a.partial_cmp(b).unwrap());
        ranked.into_iter().map(|(_, number)| number).collect::<Vec<i32>>()
    };
    let mut survivors = ranked(0)[..3].to_vec();
    survivors.sort_unstable();
    let mut second = ranked(1);
    second.sort_unstable();
    assert_eq!((ranked(0).len(), second), (7, survivors));
    assert_eq!(one.trial, ranked(1).first().copied());
    // Seven with four iterations, three with twelve, and the winner once more.
    assert_eq!((one.iteration, one.iterations), (7 * 4 + 3 * 12 + 12, 7 * 4 + 3 * 12 + 12));
    // The winner is what a request for its parameters gives.
    let (plain, _) = trained(&filled(), 1, TrainingRequest { params: one.params.clone(), ..asked("plain") });
    assert_eq!((&plain.artefact, &plain.metrics), (&one.artefact, &one.metrics));
    assert_ne!(plain.recipe_digest, one.recipe_digest, "another was asked for");
    let won = &results[&(1, one.trial.unwrap())];
    assert_eq!((&won.parameters, &won.metrics), (&one.params, &one.metrics));
}

#[test]
fn a_cancelled_search_takes_its_trials_back_and_holds_nobody_up() {
    let shelf = filled();
    let mut plant = Plant::new(&shelf, 1);
    ask(&mut plant.training, 0, searched("r", SEARCH));
    ask(&mut plant.training, 1, asked("plain"));
    let runs = |plant: &Plant| plant.training.values::<TrainingRun>(topics::TRAINING_RUNS);
    patiently("the other run is over beside the search", || {
        step(&mut plant.training);
        runs(&plant).iter().any(|run| run.request_id == "plain" && run.is_over())
    });
    patiently("two trials are in", || {
        plant.turn();
        plant.results().len() >= 2
    });
    cancel(&mut plant.training, 2, "r");
    assert_eq!(last(&plant.training).status, TrainingRun::CANCELLED);
    let known = plant.results().len();
    patiently("no trial is left", || {
        plant.turn();
        plant.trials[0].state.scan_prefix(b"", 1).unwrap().is_empty()
    });
    assert!(plant.results().len() <= known + 1, "but for the one that was ready already");
    assert_eq!(last(&plant.training).status, TrainingRun::CANCELLED);
    assert!(plant.training.state.scan_prefix(b"w", 1).unwrap().is_empty());
}

#[test]
fn a_search_that_cannot_be_done_is_refused_before_its_first_trial() {
    let space = |space: &str| format!(r#"{{"space": {space}, "trials": 5, "iterations": 12}}"#);
    let rate = r#"{"learning_rate": {"log": [0.02, 0.5]}}"#;
    let many = format!(r#"{{"space": {rate}, "trials": 1001, "iterations": 12}}"#);
    let cases = [
        ("no JSON", searched("1", "learning_rate: 3")),
        ("twice", searched("2", r#"{"space": {}, "trials": 1, "trials": 5, "iterations": 12}"#)),
        ("nothing varies", searched("3", &space("{}"))),
        ("unknown", searched("4", &space(r#"{"learning_rat": {"log": [0.02, 0.5]}}"#))),
        ("no range", searched("5", &space(r#"{"learning_rate": {"gauss": [0.02, 0.5]}}"#))),
        ("out of range", searched("6", &space(r#"{"learning_rate": {"uniform": [0.02, 50.0]}}"#))),
        ("the fold varies", searched("7", &space(r#"{"validation": {"uniform": [0.1, 0.5]}}"#))),
        ("iterations vary", searched("8", &space(r#"{"iterations": {"whole": [1, 5]}}"#))),
        ("too many", searched("9", &many)),
        ("iterations twice", TrainingRequest { search: Some(space(rate)), ..asked("10") }),
        ("too long", searched("11", &space(&format!("{rate}{}", " ".repeat(20_000))))),
        (
            "no fold",
            TrainingRequest {
                params: vec![NamedValue { name: "validation".to_owned(), value: "0".to_owned() }],
                ..searched("12", &space(rate))
            },
        ),
    ];
    let mut task = Task::new(stage(&filled(), 1), 0, &[]);
    for (offset, (why, request)) in (0..).zip(cases) {
        ask(&mut task, offset, request);
        let run = last(&task);
        assert_eq!((run.status.as_str(), run.reason.as_str()), (TrainingRun::REFUSED, "BAD_SEARCH"), "{why}");
        assert!(!run.detail.is_empty(), "{why}");
    }
    assert!(task.sent::<TrainingTrial>(topics::TRAINING_TRIALS).is_empty());
}

#[test]
fn a_search_costs_what_all_its_trials_cost_and_more_than_its_budget_is_refused() {
    let cost = 300 * (7 * 4 + 3 * 12 + 12);
    let run = |budget| {
        let mut plant = Plant::new(&filled(), 1);
        ask(&mut plant.training, 0, TrainingRequest { budget: Some(budget), ..searched("r", SEARCH) });
        plant.work_off()
    };
    let dear = run(cost - 1);
    assert_eq!((dear.status.as_str(), dear.reason.as_str()), (TrainingRun::FAILED, "BUDGET_EXCEEDED"));
    assert_eq!(run(cost).status, TrainingRun::FINISHED);
}

#[test]
fn a_search_whose_trials_find_other_rows_fails_by_name_and_its_trials_say_why() {
    let (shelf, other) = (filled(), Arc::new(Shelf::default()));
    other.contribute("a", 0..299, "admitted");
    let mut plant = Plant::new(&shelf, 1);
    plant.trials[0].stage = worker(&other);
    ask(&mut plant.training, 0, searched("r", SEARCH));
    let run = plant.work_off();
    assert_eq!((run.status.as_str(), run.reason.as_str()), (TrainingRun::FAILED, "SEARCH_FAILED"));
    assert!(run.detail.contains("DATASET_CHANGED"), "{}", run.detail);
    let results = plant.results();
    assert!(results.len() == 7 && results.values().all(|r| r.reason == "DATASET_CHANGED" && r.loss.is_none()));
}

#[test]
fn regressions_are_searched_too_and_a_trial_that_kills_its_workers_never_wins() {
    let shelf = filled();
    let mut plant = Plant::new(&shelf, 2);
    let search = r#"{"space": {"l2": {"log": [0.001, 1000.0]}}, "trials": 4, "iterations": 50}"#;
    ask(&mut plant.training, 0, TrainingRequest { algorithm: Some("linear".to_owned()), ..searched("r", search) });
    // The request's own parameters are for trees.
    assert_eq!(last(&plant.training).reason, "BAD_PARAMETER");
    let request = TrainingRequest { params: Vec::new(), algorithm: Some("linear".to_owned()), ..searched("s", search) };
    ask(&mut plant.training, 1, request);
    patiently("the trials are out", || {
        step(&mut plant.training);
        !plant.training.sent::<TrainingTrial>(topics::TRAINING_TRIALS).is_empty()
    });
    // Worker 1, which has trials 1 and 3, dies at each trial that it begins.
    *lock(&shelf.failures) = u32::MAX;
    patiently("its trials are given up", || {
        plant.turn();
        plant.trials[1].stage = worker(&shelf);
        plant.results().keys().filter(|(_, trial)| trial % 2 == 1).count() == 2
    });
    *lock(&shelf.failures) = 0;
    let run = plant.work_off();
    assert_eq!(run.status, TrainingRun::FINISHED, "{} {}", run.reason, run.detail);
    assert!(run.trial == Some(0) || run.trial == Some(2), "{:?}", run.trial);
    assert!(plant.results().values().all(|r| (r.number % 2 == 1) == (r.reason == "GIVEN_UP")));
}
