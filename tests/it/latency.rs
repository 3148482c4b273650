//! A measurement, not a test: from "contribution produced" to "receipt readable" on an idle system. `make latency` runs it.

use crate::support::broker::Kind;
use crate::support::client::{Producer, Send};
use crate::support::cluster::{Cluster, Settings};
use crate::support::flow::{Receipts, contribution, row, shop};
use crate::support::unique;
use std::time::{Duration, Instant};

const WARM_UP: usize = 30;
const MEASURED: usize = 300;

#[test]
#[ignore = "a measurement: make latency"]
fn latency_on_the_embedded_broker() {
    measure(Kind::Embedded);
}

#[test]
#[ignore = "a measurement: make latency"]
fn latency_on_apache_kafka() {
    measure(Kind::ApacheKafka);
}

fn measure(kind: Kind) {
    let Some(cluster) = Cluster::start(kind, &Settings::default()) else { return };
    let (model, _) = shop(&cluster);
    let producer = Producer::new(&cluster.broker, &[("linger.ms", "0")]);
    let mut receipts = Receipts::follow(&cluster);
    let mut times = Vec::new();
    for n in 0..WARM_UP + MEASURED {
        let id = unique("latency");
        let order = i64::try_from(n).expect("small");
        let value = contribution(&id, "alice", &model, &[row(order)]).to_string();
        let start = Instant::now();
        producer
            .send(&cluster.topic("contributions"), &Send { value: Some(value.as_bytes()), ..Send::default() })
            .expect("room");
        while !receipts.seen.contains_key(&id) {
            producer.0.poll(Duration::ZERO);
            receipts.poll(Duration::from_millis(1));
            assert!(start.elapsed() < crate::support::DEADLINE, "no receipt");
        }
        if n >= WARM_UP {
            times.push(start.elapsed());
        }
        // Idle between two: the next one starts from rest, at another phase of every timer.
        std::thread::sleep(Duration::from_millis(20 + (n as u64 * 37) % 60));
    }
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1_000.0;
    println!(
        "\nlatency {kind:?}: p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, max {:.1} ms ({MEASURED} contributions)",
        at(50),
        at(90),
        at(99),
        at(100)
    );
}
