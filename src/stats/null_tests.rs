//! Null calibration of the decision: candidates that are exactly as good as their baseline, in long sequences of attempts.
//!
//! Each row's two scores are exchanged by a fair seeded coin, so neither model is better, whatever the metric. A sequence of attempts
//! has an acceptance at most as often as the family's α says; tested at α each time, as if every attempt were the only one, most have.

use std::sync::atomic::{AtomicU64, Ordering};

use super::compare::compare;
use super::decision::{Inputs, decide};
use super::distribution::{clopper_pearson_lower, clopper_pearson_upper};
use super::metric::Metric;
use super::random::Seed;
use super::rows::{Frame, PairedRows, Task};

const ALPHA: f64 = 0.05;

/// Scores of a made-up benchmark: labels, and two models that are equally good.
type Scores = (Vec<i64>, Vec<i64>, Vec<i64>);

/// Binary labels, three of ten 1.
pub fn binary(rows: usize, seed: Seed, number: u64) -> Scores {
    let mut stream = seed.stream(number);
    let (mut labels, mut first, mut second) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rows {
        let label = i64::from(stream.below(10) < 3);
        // The sum of four uniform numbers, moved by the label.
        let mut score = || (0..4).map(|_| i64::from(stream.below(200_000))).sum::<i64>() + label * 150_000;
        let own = score();
        // Half of the second model's score is the first one's: correlated, as real candidates are.
        let other = (own + score()) / 2;
        labels.push(label);
        first.push(own.min(1_000_000));
        second.push(other.min(1_000_000));
    }
    (labels, first, second)
}

/// Numbers, and errors of which one in ten is large.
fn numbers(rows: usize, seed: Seed, number: u64) -> Scores {
    let mut stream = seed.stream(number);
    let (mut labels, mut first, mut second) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rows {
        let label = i64::from(stream.below(100_000_000));
        let mut error = || {
            let scale = if stream.below(10) == 0 { 20 } else { 1 };
            scale * ((0..4).map(|_| i64::from(stream.below(1_000_000))).sum::<i64>() - 2_000_000)
        };
        let (own, other) = (error(), error());
        labels.push(label);
        first.push(label + own);
        second.push(label + (own + other) / 2);
    }
    (labels, first, second)
}

/// A task, how its null scores are drawn, and its metrics.
type Null = (Task, fn(usize, Seed, u64) -> Scores, &'static [Metric]);

const TASKS: [Null; 2] = [
    (
        Task::Binary,
        binary,
        &[Metric::Accuracy, Metric::Auroc, Metric::LogLoss, Metric::Brier, Metric::F1, Metric::F1Macro],
    ),
    (Task::Regression, numbers, &[Metric::Mae, Metric::Mse, Metric::Rmse]),
];

/// How much is tried.
#[derive(Clone, Copy)]
struct Campaign {
    sequences: u64,
    attempts: u64,
    rows: usize,
}

/// Per metric, the sequences that had an acceptance: by the decision, and with every attempt tested at α.
type Tally = Vec<(Metric, [u64; 2])>;

impl Campaign {
    /// One sequence of attempts on one made-up benchmark.
    fn sequence(self, (task, scores, metrics): Null, number: u64) -> Tally {
        let (labels, first, second) = scores(self.rows, Seed::derive("null calibration", b"1"), number);
        let mut tally: Tally = metrics.iter().map(|metric| (metric.clone(), [0, 0])).collect();
        for attempt in 1..=self.attempts {
            let mut stream = Seed::derive("null coins", &number.to_le_bytes()).stream(attempt);
            let coins: Vec<bool> = labels.iter().map(|_| stream.bits() & 1 == 1).collect();
            let pick = |coin: bool| {
                let pairs = first.iter().zip(&second).zip(&coins);
                pairs.map(|((a, b), own)| if *own == coin { *a } else { *b }).collect::<Vec<_>>()
            };
            let paired = PairedRows::new(Frame::new(task), labels.clone(), pick(true), pick(false)).unwrap();
            for (metric, any) in &mut tally {
                let primary = compare(&paired, metric);
                let accepted = decide(&Inputs {
                    preregistered: true,
                    attempt: Some(attempt),
                    alpha: Some(ALPHA),
                    retired: false,
                    acceptances: 0,
                    primary: Some(&primary),
                    minimum_effect: Some(0),
                    guardrails: &[],
                    strata: &[],
                });
                any[0] |= u64::from(accepted.accepted());
                any[1] |= u64::from(primary.unwrap().evidence.p_value() < ALPHA);
            }
        }
        tally
    }

    /// All sequences, shared among threads; `progress` hears how many are done. Threads change nothing but the time.
    fn run(self, threads: usize, progress: &(dyn Fn(u64) + Sync)) -> Tally {
        let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
        let jobs = self.sequences * TASKS.len() as u64;
        let work = || {
            let mut own = Vec::new();
            loop {
                let job = next.fetch_add(1, Ordering::Relaxed);
                if job >= jobs {
                    return own;
                }
                own.extend(self.sequence(TASKS[(job / self.sequences) as usize], job % self.sequences));
                progress(done.fetch_add(1, Ordering::Relaxed) + 1);
            }
        };
        let found: Tally = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        let mut tally: Tally =
            TASKS.iter().flat_map(|(.., metrics)| metrics.iter().map(|metric| (metric.clone(), [0, 0]))).collect();
        for (metric, counts) in found {
            let sum = tally.iter_mut().find(|(own, _)| *own == metric).unwrap();
            sum.1 = [sum.1[0] + counts[0], sum.1[1] + counts[1]];
        }
        tally
    }

    /// Clopper and Pearson's bounds say that no more than α of the sequences had an acceptance, and more than half without spending.
    fn check(self, tally: &Tally) {
        println!("sequences of {} attempts on {} rows, of {} each:", self.attempts, self.rows, self.sequences);
        println!("{:10} {:>9} {:>8} {:>17} {:>17}", "metric", "accepted", "share", "95 % interval", "without spending");
        for (metric, [spending, naive]) in tally {
            let share = |count: u64| count as f64 / self.sequences as f64;
            let bound = |of: fn(u64, u64, f64) -> f64, tail| of(*spending, self.sequences, tail);
            let (lower, upper) = (bound(clopper_pearson_lower, 0.025), bound(clopper_pearson_upper, 0.025));
            println!(
                "{:10} {spending:>9} {:>8.4} {:>8.4}–{:<8.4} {:>17.4}",
                metric.name(),
                share(*spending),
                lower,
                upper,
                share(*naive)
            );
            let name = metric.name();
            let surely = bound(clopper_pearson_lower, ALPHA);
            assert!(surely <= ALPHA, "{name}: {spending} of {} null sequences had an acceptance", self.sequences);
            assert!(share(*naive) > 0.5, "{name}: the harness must see what spending prevents: {naive}");
        }
    }
}

#[test]
fn null_candidates_are_accepted_at_most_as_often_as_declared() {
    let campaign = Campaign { sequences: 20, attempts: 30, rows: 500 };
    campaign.check(&campaign.run(1, &|_| {}));
}

#[test]
fn the_number_of_threads_changes_no_count() {
    let campaign = Campaign { sequences: 2, attempts: 10, rows: 200 };
    assert_eq!(campaign.run(1, &|_| {}), campaign.run(3, &|_| {}));
}

/// Seconds that the processors have worked for this process.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // User and system time, in hundredths of a second.
    fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

#[test]
#[ignore = "a campaign of minutes: make calibrate"]
fn four_hundred_null_sequences_of_fifty_attempts_per_metric_stay_within_alpha() {
    let campaign = Campaign { sequences: 400, attempts: 50, rows: 2_000 };
    let (jobs, start) = (campaign.sequences * TASKS.len() as u64, std::time::Instant::now());
    let bar = |done: u64| {
        let full = (done * 40 / jobs) as usize;
        eprint!("\r[{}{}] {done} of {jobs} sequences", "#".repeat(full), ".".repeat(40 - full));
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let tally = campaign.run(threads, &bar);
    eprintln!();
    campaign.check(&tally);
    println!(
        "{:.0} s on {threads} threads, {:.0} s of processor time",
        start.elapsed().as_secs_f64(),
        processor_seconds()
    );
}
