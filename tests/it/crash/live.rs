//! Contributions keep coming while two workers share the stages and are killed in turn, among other moments inside a revoke.

use super::load::{Random, contributions};
use super::plant::{Plant, aborted};
use super::verify;
use crate::support::broker::Kind;
use crate::support::client::Producer;
use crate::support::eventually;
use crate::support::flow::shop_spec;
use crate::support::hokusai::Running;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[test]
fn workers_killed_under_live_load_lose_nothing_embedded() {
    workers_killed_under_live_load_lose_nothing(Kind::Embedded, 4_242);
}

#[test]
fn workers_killed_under_live_load_lose_nothing_apache_kafka() {
    workers_killed_under_live_load_lose_nothing(Kind::ApacheKafka, 2_424);
}

const MODEL: &str = "live-shop";
/// How the worker ends in each round: killed, or by itself at a fail point; inside a revoke while another one joins.
const ENDS: [Option<&str>; 5] = [None, Some("revoke.drain"), Some("commit.before:9"), None, Some("revoke.drain")];

fn workers_killed_under_live_load_lose_nothing(kind: Kind, seed: u64) {
    let Some(plant) = Plant::start(kind, None) else { return };
    let mut worker = plant.start_worker(0);
    let spec = plant.folder().join("model.yaml");
    std::fs::write(&spec, shop_spec(MODEL)).expect("a file");
    let applied = crate::support::hokusai::finish(plant.command(&["model", "apply", &spec.to_string_lossy()]));
    assert_eq!(applied.code, Some(0), "{applied:?}");
    let sent = contributions(seed, 200, 120);
    let at_once = AtomicBool::new(false);
    let (broker, topic) = (plant.broker(), plant.topic("contributions"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let producer = Producer::new(&broker, &[]);
            for (n, contribution) in sent.iter().enumerate() {
                for record in contribution.records(MODEL) {
                    producer.texts(&topic, i32::try_from(n % 2).expect("0 or 1"), [record.to_string()]);
                }
                // Slow enough that the load outlasts every kill: a fail point is only reached while there is work.
                if !at_once.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(300));
                }
            }
        });
        let mut random = Random::new(seed);
        for (round, end) in ENDS.into_iter().enumerate() {
            let next = plant.progress() + 20 + i64::try_from(random.below(60)).expect("small");
            eventually("progress under load", || match plant.progress() {
                progress if progress >= next || plant.receipts() == sent.len() => Ok(()),
                progress => Err(format!("{progress} of {next}; log:\n{}", plant.log())),
            });
            worker.kill();
            worker = strike(&plant, round, end);
        }
        at_once.store(true, Ordering::Relaxed);
    });
    eventually("all receipts", || match plant.receipts() {
        seen if seen >= sent.len() => Ok(()),
        seen => Err(format!("{seen} of {}; log:\n{}", sent.len(), plant.log())),
    });
    let receipts = verify::one_receipt_each(&plant, &sent);
    verify::adds_up(&receipts, &sent);
    verify::tables(&plant, &receipts);
}

/// Puts a new worker in the place of the killed one, some of them by way of one that ends itself. Whoever joins comes under a new name:
/// a known static member would be given its old partitions back without a rebalance, and nothing would be revoked.
fn strike(plant: &Plant, round: usize, end: Option<&str>) -> Running {
    match end {
        Some(revoke) if revoke.starts_with("revoke") => {
            // The group may take partitions back before anybody joins: a worker of an earlier round is missed by then.
            let second = match plant.launch_worker(0, Some(revoke)).ready() {
                Ok(mut first) => {
                    let second = plant.launch_worker(1 + round, None);
                    plant.wait_for_failpoint(revoke, || first.ended());
                    second
                }
                Err((status, log)) => {
                    assert!(aborted(status), "{revoke}: {status}: {log}");
                    plant.launch_worker(1 + round, None)
                }
            };
            let first = plant.start_worker(0);
            let mut second = second.ready().unwrap_or_else(|(status, log)| panic!("{status}\n{log}"));
            assert_eq!(second.terminate().code(), Some(0), "{}", second.log());
            first
        }
        Some(failpoint) => {
            let mut doomed = plant.launch_worker(0, Some(failpoint));
            plant.wait_for_failpoint(failpoint, || doomed.ended());
            plant.start_worker(0)
        }
        None => plant.start_worker(0),
    }
}
