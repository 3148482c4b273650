//! Contributions keep coming while two workers share the stages and are killed in turn, among other moments inside a revoke.

use super::load::{Random, contributions};
use super::plant::Plant;
use super::verify;
use crate::support::broker::Kind;
use crate::support::client::Producer;
use crate::support::eventually;
use crate::support::flow::shop_spec;
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
/// How the first of two workers ends in each round: killed, or by itself at a fail point while the other joins.
const ENDS: [Option<&str>; 5] = [None, Some("revoke.drain"), None, Some("commit.before:9"), Some("revoke.drain")];

fn workers_killed_under_live_load_lose_nothing(kind: Kind, seed: u64) {
    let Some(mut plant) = Plant::start(kind, None) else { return };
    plant.add_worker(None);
    let spec = plant.folder().join("model.yaml");
    std::fs::write(&spec, shop_spec(MODEL)).expect("a file");
    let applied = crate::support::hokusai::finish(plant.command(&["model", "apply", &spec.to_string_lossy()]));
    assert_eq!(applied.code, Some(0), "{applied:?}");
    let sent = contributions(seed, 200, 120);
    let stop_holding_back = AtomicBool::new(false);
    let (broker, topic) = (plant.broker(), plant.topic("contributions"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let producer = Producer::new(&broker, &[]);
            for (n, contribution) in sent.iter().enumerate() {
                for record in contribution.records(MODEL) {
                    producer.texts(&topic, i32::try_from(n % 2).expect("0 or 1"), [record.to_string()]);
                }
                if !stop_holding_back.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(40));
                }
            }
        });
        let mut random = Random::new(seed);
        for end in ENDS {
            let next = plant.progress() + 20 + i64::try_from(random.below(60)).expect("small");
            eventually("progress under load", || match plant.progress() {
                progress if progress >= next || plant.receipts() == sent.len() => Ok(()),
                progress => Err(format!("{progress} of {next}; log:\n{}", plant.log())),
            });
            strike(&mut plant, end);
        }
        stop_holding_back.store(true, Ordering::Relaxed);
    });
    eventually("all receipts", || match plant.receipts() {
        seen if seen >= sent.len() => Ok(()),
        seen => Err(format!("{seen} of {}; log:\n{}", sent.len(), plant.log())),
    });
    let receipts = verify::one_receipt_each(&plant, &sent);
    verify::adds_up(&receipts, &sent);
    verify::tables(&plant, &receipts);
}

/// Replaces the running worker by another one, the hard way.
fn strike(plant: &mut Plant, end: Option<&str>) {
    match end {
        None => {
            plant.workers[0].kill();
            plant.workers.clear();
            plant.add_worker(None);
        }
        Some(failpoint) => {
            // The one with the fail point joins beside the old one, and ends where it is told to: in a commit, or in the revoke that
            // a third one's joining brings.
            plant.add_worker(Some(failpoint));
            plant.add_worker(None);
            plant.workers[0].kill();
            let mut struck = plant.workers.remove(1);
            struck.wait();
            plant.workers.remove(0);
        }
    }
}
