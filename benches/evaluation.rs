//! Evaluation of two models on 250,000 sealed rows: every metric of the task, with 2,000 bootstrap replicates and permutations.
//!
//! `cargo bench --bench evaluation`. What a busy machine does not disturb is printed: CPU seconds of this thread, as the kernel counts
//! them (Linux only), for the decision alone and for everything that is reported.
#![allow(missing_docs)]

use hokusai::stats::evaluation::{Plan, Resampling, Standing, evaluate};
use hokusai::stats::metric::Metric;
use hokusai::stats::random::Seed;
use hokusai::stats::rows::{Frame, PairedRows, RowsError, Task};

const ROWS: usize = 250_000;

/// Nanoseconds that this thread has run.
fn cpu() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0)
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = cpu();
    let done = work();
    println!("{what}: {:.2} CPU s", (cpu() - start) as f64 / 1e9);
    done
}

/// Labels, and two correlated models of which the second is a little better.
fn columns() -> (Vec<i64>, Vec<i64>, Vec<i64>) {
    let mut stream = Seed::derive("bench", b"").stream(0);
    let (mut labels, mut first, mut second) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROWS {
        let label = i64::from(stream.below(10) < 2);
        let mut score = |gain: i64| {
            let noise: i64 = (0..3).map(|_| i64::from(stream.below(250_000))).sum();
            (noise + label * gain).clamp(0, 1_000_000)
        };
        let own = score(100_000);
        labels.push(label);
        first.push(own);
        second.push((own + score(110_000)) / 2);
    }
    (labels, first, second)
}

/// Three probabilities of a score: the middle class takes it, the others share the rest.
fn spread(scores: &[i64]) -> Vec<i64> {
    scores.iter().flat_map(|score| [(1_000_000 - score) / 2, *score, (1_000_001 - score) / 2]).collect()
}

fn main() -> Result<(), RowsError> {
    let (labels, first, second) = columns();
    let tasks = [
        (Task::Binary, Metric::Auroc, first.clone(), second.clone()),
        (Task::Multiclass(3), Metric::F1Macro, spread(&first), spread(&second)),
        (Task::Regression, Metric::Rmse, first, second),
    ];
    for (task, primary, baseline, candidate) in tasks {
        let frame = Frame::new(task);
        let rows = timed(&format!("{task:?}: rows checked and sorted"), || {
            PairedRows::new(frame, labels.clone(), baseline, candidate)
        })?;
        let plan = Plan { primary, minimum_effect: Some(0), guardrails: Vec::new(), strata: Vec::new() };
        let standing =
            Standing { preregistered: true, attempt: Some(1), alpha: Some(0.05), retired: false, acceptances: 0 };
        let all = Resampling::new([1; 32]);
        let none = Resampling { replicates: 0, ..all };
        timed(&format!("{task:?}: all metrics and the decision"), || evaluate(&rows, &plan, &standing, &none));
        timed(&format!("{task:?}: the same with 2,000 replicates"), || evaluate(&rows, &plan, &standing, &all));
    }
    Ok(())
}
