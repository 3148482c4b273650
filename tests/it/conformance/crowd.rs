//! A thousand bad clients keep no ordinary one from being served, and cost a bounded amount of memory.

use crate::support::broker::{Broker, Kind, Own};
use crate::support::client::{Isolation, Producer, read_texts, topic};
use crate::support::raw::bad_words;
use std::io::Write;
use std::net::TcpStream;

const CROWD: usize = 1_000;
const MIB: u64 = 1 << 20;

#[test]
fn an_ordinary_client_is_served_beside_a_thousand_bad_ones() {
    let Some(Own::Embedded { process, data: _data }) = Own::start(Kind::Embedded) else { return };
    let broker = Broker { kind: Kind::Embedded, bootstrap: process.brokers() };
    let topic = topic(&broker, "crowd", 1, &[]);
    let before = process.resident_bytes();
    let (mut crowd, mut expected) = (Vec::new(), Vec::new());
    for n in 0..CROWD {
        let mut stream = TcpStream::connect(&broker.bootstrap).expect("the broker listens");
        // Some are closed before they have said everything.
        let _ = stream.write_all(&bad_words(n));
        crowd.push(stream);
        if n % 100 == 99 {
            // A client of its own each time: it has to connect, too.
            let answers = Producer::new(&broker, &[]).texts(&topic, 0, [format!("beside {n}")]);
            assert!(answers.iter().all(Result::is_ok), "beside {n}: {answers:?}");
            expected.push(format!("beside {n}"));
        }
    }
    assert_eq!(read_texts(&broker, &topic, Isolation::Committed), expected);
    let grown = process.resident_bytes().saturating_sub(before);
    assert!(grown < 256 * MIB, "{} MiB for {CROWD} connections", grown / MIB);
    drop(crowd);
    let log = process.log();
    assert!(log.contains("connection closed"), "what is malformed is told: {log}");
    assert!(!log.contains("panicked"), "{log}");
}
