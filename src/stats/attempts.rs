//! The attempts of one family, in the order of its log: who is attempt t, who may be scored now, what is spent.
//!
//! ```text
//!   request ──► counted (α_t is spent) ──► parked until its preregistration is under a signed checkpoint
//!                                             │ acknowledged
//!                                             ▼
//!                        scored in the order of attempts ──► accepted | refused | failed        cancelled, at any time before
//! ```
//!
//! Invariants:
//! * an attempt is counted when its request is read, and stays counted however it ends;
//! * nothing is scored before its acknowledgement, nor before every earlier attempt has ended;
//! * the same request, and the same recipe on the same benchmark, is the earlier attempt again and spends nothing;
//! * the state is a function of the events in their order alone.

use super::decision::ACCEPTANCES;
use std::collections::BTreeMap;

/// Most attempts of a family. Level 10,000 of α = 5 % is 3·10⁻¹⁰: whoever is there needs other rows, not another try.
pub const MAX_ATTEMPTS: u64 = 10_000;

/// Most attempts of a family that are neither ended nor scored.
pub const MAX_OPEN: usize = 100;

/// What asks for an evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Id that the asker chose.
    pub request_id: String,
    /// Digest of the recipe or of the imported artefact.
    pub recipe: String,
    /// Name and version of the benchmark.
    pub benchmark: String,
}

/// What happens to a family, in log order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An evaluation is asked for.
    Requested(Request),
    /// The preregistration of an attempt is under a signed checkpoint.
    Acknowledged {
        /// The attempt.
        attempt: u64,
        /// Index of its leaf in the log of attestations.
        leaf_index: u64,
    },
    /// An attempt was scored, or its scoring failed.
    Ended {
        /// The attempt.
        attempt: u64,
        /// How.
        end: End,
    },
    /// Whoever asked takes the request back.
    Cancelled {
        /// The id of the request.
        request_id: String,
    },
    /// A benchmark's version takes no further attempts.
    Retired {
        /// Name and version of the benchmark.
        benchmark: String,
    },
}

/// How an attempt ended. All of them have spent their level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The candidate was accepted.
    Accepted,
    /// It was refused.
    Refused,
    /// It could not be scored.
    Failed,
    /// Its request was taken back.
    Cancelled,
}

/// Where an attempt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Waits for its preregistration.
    Parked,
    /// Acknowledged at this leaf: to be scored when its turn comes.
    Released(u64),
    /// Over.
    Over(End),
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// What was asked for.
    pub request: Request,
    /// Where it stands.
    pub progress: Progress,
}

/// Why a request became no attempt. It spends nothing, because nothing will be scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The benchmark's version is retired.
    Retired,
    /// [`MAX_ATTEMPTS`].
    Exhausted,
    /// [`MAX_OPEN`].
    TooManyOpen,
}

impl Refusal {
    /// The code in records.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Retired => "BENCHMARK_RETIRED",
            Self::Exhausted => "ATTEMPTS_EXHAUSTED",
            Self::TooManyOpen => "TOO_MANY_OPEN_ATTEMPTS",
        }
    }
}

/// What is to be done after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Send the attempt's preregistration to the log of attestations.
    Preregister(u64),
    /// Score this attempt now.
    Score(u64),
    /// The request is this attempt again: answer with its result, or wait for it.
    Repeat(u64),
    /// The request is no attempt.
    Refuse(Refusal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Version {
    acceptances: u64,
    retired: bool,
}

/// The state of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// Attempt t is at position t − 1.
    attempts: Vec<Attempt>,
    by_request: BTreeMap<String, u64>,
    by_recipe: BTreeMap<(String, String), u64>,
    versions: BTreeMap<String, Version>,
    /// The first attempt that has not ended.
    head: u64,
    /// The attempt that is being scored.
    scoring: Option<u64>,
}

impl Default for Family {
    fn default() -> Self {
        Self {
            attempts: Vec::new(),
            by_request: BTreeMap::new(),
            by_recipe: BTreeMap::new(),
            versions: BTreeMap::new(),
            head: 1,
            scoring: None,
        }
    }
}

impl Family {
    /// A family without attempts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Folds one event and says what is to be done, in this order.
    pub fn fold(&mut self, event: Event) -> Vec<Step> {
        let mut steps = match event {
            Event::Requested(request) => vec![self.request(request)],
            Event::Acknowledged { attempt, leaf_index } => {
                if let Some(own) = self.get_mut(attempt)
                    && own.progress == Progress::Parked
                {
                    own.progress = Progress::Released(leaf_index);
                }
                Vec::new()
            }
            // Only what is being scored can end by a score: a stray or repeated result changes nothing.
            Event::Ended { attempt, end } => {
                if self.scoring == Some(attempt) {
                    self.end(attempt, end);
                }
                Vec::new()
            }
            Event::Cancelled { request_id } => {
                // What is being scored is seen to its end: its result may be known already.
                let open = self.by_request.get(&request_id).copied().filter(|attempt| self.scoring != Some(*attempt));
                if let Some(attempt) = open {
                    self.end(attempt, End::Cancelled);
                }
                Vec::new()
            }
            Event::Retired { benchmark } => {
                self.versions.entry(benchmark).or_default().retired = true;
                Vec::new()
            }
        };
        steps.extend(self.next());
        steps
    }

    fn request(&mut self, request: Request) -> Step {
        let recipe = (request.recipe.clone(), request.benchmark.clone());
        if let Some(attempt) = self.by_request.get(&request.request_id).or_else(|| self.by_recipe.get(&recipe)) {
            return Step::Repeat(*attempt);
        }
        if self.is_retired(&request.benchmark) {
            return Step::Refuse(Refusal::Retired);
        }
        let count = self.attempts.len() as u64;
        if count >= MAX_ATTEMPTS {
            return Step::Refuse(Refusal::Exhausted);
        }
        // All before the head have ended.
        let later = self.attempts.iter().skip(self.head.saturating_sub(1) as usize);
        let open = later.filter(|own| !matches!(own.progress, Progress::Over(_))).count();
        if open >= MAX_OPEN {
            return Step::Refuse(Refusal::TooManyOpen);
        }
        let attempt = count + 1;
        self.by_request.insert(request.request_id.clone(), attempt);
        self.by_recipe.insert(recipe, attempt);
        self.attempts.push(Attempt { request, progress: Progress::Parked });
        Step::Preregister(attempt)
    }

    fn end(&mut self, attempt: u64, end: End) {
        let Some(own) = self.get_mut(attempt).filter(|own| !matches!(own.progress, Progress::Over(_))) else { return };
        own.progress = Progress::Over(end);
        let benchmark = own.request.benchmark.clone();
        if end == End::Accepted {
            self.versions.entry(benchmark).or_default().acceptances += 1;
        }
        if self.scoring == Some(attempt) {
            self.scoring = None;
        }
    }

    /// The next attempt to score: the first that has not ended, if it is released and nothing is being scored.
    fn next(&mut self) -> Option<Step> {
        while self.get(self.head).is_some_and(|own| matches!(own.progress, Progress::Over(_))) {
            self.head += 1;
        }
        let released = self.get(self.head).is_some_and(|own| matches!(own.progress, Progress::Released(_)));
        if !released || self.scoring.is_some() {
            return None;
        }
        self.scoring = Some(self.head);
        Some(Step::Score(self.head))
    }

    fn get_mut(&mut self, attempt: u64) -> Option<&mut Attempt> {
        usize::try_from(attempt.checked_sub(1)?).ok().and_then(|at| self.attempts.get_mut(at))
    }

    /// Attempt t, from 1.
    #[must_use]
    pub fn get(&self, attempt: u64) -> Option<&Attempt> {
        usize::try_from(attempt.checked_sub(1)?).ok().and_then(|at| self.attempts.get(at))
    }

    /// Attempts that were counted.
    #[must_use]
    pub fn counted(&self) -> u64 {
        self.attempts.len() as u64
    }

    /// Acceptances of a benchmark's version.
    #[must_use]
    pub fn acceptances(&self, benchmark: &str) -> u64 {
        self.versions.get(benchmark).map_or(0, |version| version.acceptances)
    }

    /// Whether a benchmark's version takes no further attempts: retired by its owner, or after five acceptances.
    #[must_use]
    pub fn is_retired(&self, benchmark: &str) -> bool {
        self.versions.get(benchmark).is_some_and(|version| version.retired || version.acceptances >= ACCEPTANCES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(id: &str, recipe: &str) -> Event {
        Event::Requested(Request { request_id: id.to_owned(), recipe: recipe.to_owned(), benchmark: "b/1".to_owned() })
    }

    fn acknowledged(attempt: u64) -> Event {
        Event::Acknowledged { attempt, leaf_index: 100 + attempt }
    }

    fn ended(attempt: u64, end: End) -> Event {
        Event::Ended { attempt, end }
    }

    #[test]
    fn nothing_is_scored_before_its_preregistration_is_under_a_checkpoint() {
        let mut family = Family::new();
        assert_eq!(family.fold(request("r1", "x")), [Step::Preregister(1)]);
        assert_eq!(family.get(1).map(|own| own.progress), Some(Progress::Parked));
        assert_eq!(family.fold(ended(1, End::Accepted)), []);
        assert_eq!(family.fold(acknowledged(1)), [Step::Score(1)]);
        assert_eq!(family.fold(acknowledged(1)), [], "an acknowledgement that comes twice releases nothing twice");
    }

    #[test]
    fn attempts_are_scored_in_their_order_and_a_cancelled_one_holds_nobody_up() {
        let mut family = Family::new();
        for (id, recipe) in [("r1", "x"), ("r2", "y"), ("r3", "z")] {
            family.fold(request(id, recipe));
        }
        assert_eq!(family.fold(acknowledged(3)), []);
        assert_eq!(family.fold(acknowledged(2)), []);
        assert_eq!(family.fold(Event::Cancelled { request_id: "r1".to_owned() }), [Step::Score(2)]);
        assert_eq!(family.fold(ended(2, End::Failed)), [Step::Score(3)]);
        assert_eq!(family.counted(), 3);
    }

    #[test]
    fn a_request_that_is_being_scored_cannot_be_taken_back() {
        let mut family = Family::new();
        family.fold(request("r1", "x"));
        family.fold(acknowledged(1));
        family.fold(Event::Cancelled { request_id: "r1".to_owned() });
        assert_eq!(family.get(1).map(|own| own.progress), Some(Progress::Released(101)));
        family.fold(ended(1, End::Refused));
        assert_eq!(family.get(1).map(|own| own.progress), Some(Progress::Over(End::Refused)));
    }

    #[test]
    fn the_same_request_or_recipe_is_the_earlier_attempt_and_spends_nothing() {
        let mut family = Family::new();
        family.fold(request("r1", "x"));
        assert_eq!(family.fold(request("r1", "other")), [Step::Repeat(1)]);
        assert_eq!(family.fold(request("r2", "x")), [Step::Repeat(1)]);
        assert_eq!(family.counted(), 1);
        let elsewhere = Request { request_id: "r3".to_owned(), recipe: "x".to_owned(), benchmark: "b/2".to_owned() };
        assert_eq!(family.fold(Event::Requested(elsewhere)), [Step::Preregister(2)], "another version counts here too");
    }

    #[test]
    fn a_version_retires_by_its_owner_or_after_five_acceptances() {
        let mut family = Family::new();
        for attempt in 1..=5 {
            family.fold(request(&format!("r{attempt}"), &format!("x{attempt}")));
            family.fold(acknowledged(attempt));
            family.fold(ended(attempt, End::Accepted));
        }
        assert_eq!(family.fold(request("r6", "x6")), [Step::Refuse(Refusal::Retired)]);
        assert_eq!((family.acceptances("b/1"), family.counted()), (5, 5));
        let mut other = Family::new();
        other.fold(Event::Retired { benchmark: "b/1".to_owned() });
        assert_eq!(other.fold(request("r1", "x")), [Step::Refuse(Refusal::Retired)]);
    }

    #[test]
    fn a_family_has_ten_thousand_attempts_and_no_more() {
        let mut family = Family::default();
        for number in 1..=MAX_ATTEMPTS {
            assert_eq!(family.fold(request(&format!("r{number}"), &format!("x{number}"))), [Step::Preregister(number)]);
            assert_eq!(family.fold(acknowledged(number)), [Step::Score(number)]);
            family.fold(ended(number, End::Refused));
        }
        assert_eq!(family.fold(request("more", "more")), [Step::Refuse(Refusal::Exhausted)]);
        assert_eq!(family.counted(), MAX_ATTEMPTS);
    }

    #[test]
    fn open_attempts_are_bounded() {
        let mut family = Family::new();
        for number in 0..MAX_OPEN {
            family.fold(request(&format!("r{number}"), &format!("x{number}")));
        }
        assert_eq!(family.fold(request("more", "more")), [Step::Refuse(Refusal::TooManyOpen)]);
        family.fold(Event::Cancelled { request_id: "r50".to_owned() });
        assert_eq!(family.fold(request("more", "more")), [Step::Preregister(101)]);
    }

    proptest! {
        /// Whatever comes, in whatever order: scores go up by one attempt at a time, none without its release, none twice.
        #[test]
        fn any_log_scores_each_attempt_at_most_once_and_in_order(
            events in prop::collection::vec((0_u8..5, 1_u64..8), 0..120)
        ) {
            let mut family = Family::new();
            let mut scored = Vec::new();
            for (kind, number) in events {
                let event = match kind {
                    0 => request(&format!("r{number}"), &format!("x{}", number / 2)),
                    1 => acknowledged(number),
                    2 => ended(number, End::Refused),
                    3 => ended(number, End::Accepted),
                    _ => Event::Cancelled { request_id: format!("r{number}") },
                };
                for step in family.fold(event) {
                    if let Step::Score(attempt) = step {
                        prop_assert!(matches!(family.get(attempt).unwrap().progress, Progress::Released(_)));
                        prop_assert!((1..attempt).all(|t| matches!(family.get(t).unwrap().progress, Progress::Over(_))));
                        scored.push(attempt);
                    }
                }
            }
            prop_assert!(scored.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", scored);
        }
    }
}
