//! Idempotent producers: a resent batch is stored once, a gap and an old epoch are refused.

use super::log::{fetch_all, produce};
use crate::on_both_brokers;
use crate::support::broker::Broker;
use crate::support::client::{Isolation, topic};
use crate::support::raw::{Raw, Stamp, batch, error};
use kafka_protocol::messages::{InitProducerIdRequest, ProducerId};
use kafka_protocol::records::Compression;

on_both_brokers! {
    a_resent_batch_is_stored_once_and_answered_with_its_first_offset,
    a_resent_batch_of_long_ago_is_known_as_a_duplicate,
    a_gap_in_the_sequence_is_refused,
    an_older_epoch_is_refused,
    a_new_epoch_starts_its_sequence_at_zero,
    an_unknown_producer_may_begin_anywhere_after_its_state_is_gone,
}

const TIME: i64 = 1_700_000_000_000;

fn new_producer(raw: &mut Raw) -> (i64, i16) {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let response = raw.settled(4, &request, |r| r.error_code);
    assert_eq!(error(response.error_code), "None");
    (response.producer_id.0, response.producer_epoch)
}

fn stamped(id: i64, epoch: i16, sequence: i32) -> Stamp {
    Stamp { id, epoch, sequence, transactional: false }
}

fn send(raw: &mut Raw, topic: &str, stamp: Stamp, values: &[&str]) -> (String, i64) {
    produce(raw, topic, 0, batch(stamp, values, Compression::None, TIME))
}

fn values(raw: &mut Raw, topic: &str) -> Vec<String> {
    fetch_all(raw, topic, Isolation::Uncommitted).records.into_iter().map(|(_, value)| value).collect()
}

fn a_resent_batch_is_stored_once_and_answered_with_its_first_offset(broker: &Broker) {
    let topic = topic(broker, "resent", 1, &[]);
    let mut raw = Raw::connect(broker);
    let (id, epoch) = new_producer(&mut raw);
    let seen = [
        send(&mut raw, &topic, stamped(id, epoch, 0), &["a", "b"]),
        send(&mut raw, &topic, stamped(id, epoch, 2), &["c"]),
        send(&mut raw, &topic, stamped(id, epoch, 0), &["a", "b"]),
        send(&mut raw, &topic, stamped(id, epoch, 2), &["c"]),
        send(&mut raw, &topic, stamped(id, epoch, 3), &["d"]),
    ];
    assert_eq!(seen, [0, 2, 0, 2, 3].map(|offset| ("None".to_owned(), offset)));
    assert_eq!(values(&mut raw, &topic), ["a", "b", "c", "d"]);
}

fn a_resent_batch_of_long_ago_is_known_as_a_duplicate(broker: &Broker) {
    let topic = topic(broker, "long-ago", 1, &[]);
    let mut raw = Raw::connect(broker);
    let (id, epoch) = new_producer(&mut raw);
    for sequence in 0..8 {
        assert_eq!(send(&mut raw, &topic, stamped(id, epoch, sequence), &["x"]), ("None".into(), i64::from(sequence)));
    }
    // The broker remembers five batches: an older one is a gap backwards.
    assert_eq!(send(&mut raw, &topic, stamped(id, epoch, 1), &["x"]).0, "OutOfOrderSequenceNumber");
    assert_eq!(send(&mut raw, &topic, stamped(id, epoch, 5), &["x"]), ("None".into(), 5));
    assert_eq!(values(&mut raw, &topic).len(), 8);
}

fn a_gap_in_the_sequence_is_refused(broker: &Broker) {
    let topic = topic(broker, "gap", 1, &[]);
    let mut raw = Raw::connect(broker);
    let (id, epoch) = new_producer(&mut raw);
    let seen = [
        send(&mut raw, &topic, stamped(id, epoch, 0), &["a"]).0,
        send(&mut raw, &topic, stamped(id, epoch, 2), &["c"]).0,
        send(&mut raw, &topic, stamped(id, epoch, 1), &["b"]).0,
    ];
    assert_eq!(seen, ["None", "OutOfOrderSequenceNumber", "None"]);
    assert_eq!(values(&mut raw, &topic), ["a", "b"]);
}

fn an_older_epoch_is_refused(broker: &Broker) {
    let topic = topic(broker, "old-epoch", 1, &[]);
    let mut raw = Raw::connect(broker);
    let (id, epoch) = new_producer(&mut raw);
    let seen = [
        send(&mut raw, &topic, stamped(id, epoch + 1, 0), &["new"]).0,
        send(&mut raw, &topic, stamped(id, epoch, 0), &["old"]).0,
    ];
    assert_eq!(seen, ["None", "InvalidProducerEpoch"]);
    assert_eq!(values(&mut raw, &topic), ["new"]);
}

fn a_new_epoch_starts_its_sequence_at_zero(broker: &Broker) {
    let topic = topic(broker, "new-epoch", 1, &[]);
    let mut raw = Raw::connect(broker);
    let (id, epoch) = new_producer(&mut raw);
    let seen = [
        send(&mut raw, &topic, stamped(id, epoch, 0), &["a"]).0,
        send(&mut raw, &topic, stamped(id, epoch + 1, 1), &["b"]).0,
        send(&mut raw, &topic, stamped(id, epoch + 1, 0), &["b"]).0,
    ];
    assert_eq!(seen, ["None", "OutOfOrderSequenceNumber", "None"]);
}

fn an_unknown_producer_may_begin_anywhere_after_its_state_is_gone(broker: &Broker) {
    let topic = topic(broker, "unknown-producer", 1, &[]);
    let mut raw = Raw::connect(broker);
    let (id, epoch) = new_producer(&mut raw);
    assert_eq!(send(&mut raw, &topic, stamped(id, epoch, 5), &["a"]), ("None".into(), 0));
}
