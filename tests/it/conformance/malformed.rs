//! Bytes that are no request end their own connection and nothing else.

use super::log::fetch_all;
use crate::on_both_brokers;
use crate::support::broker::Broker;
use crate::support::client::{Isolation, Producer, answers, topic};
use crate::support::raw::Raw;

on_both_brokers! {
    bytes_that_are_no_request_end_only_their_own_connection,
}

fn bytes_that_are_no_request_end_only_their_own_connection(broker: &Broker) {
    let topic = topic(broker, "malformed", 1, &[]);
    Producer::new(broker, &[]).texts(&topic, 0, ["kept"]);
    let mut bystander = Raw::connect(broker);
    let frames: [(&str, Vec<u8>); 6] = [
        ("a huge length", vec![0x7f, 0xff, 0xff, 0xff, 0, 0]),
        ("a negative length", vec![0xff, 0xff, 0xff, 0xff, 0, 0]),
        ("an unknown API", frame(&[0x7f, 0x00, 0, 0, 0, 0, 0, 1, 0xff, 0xff])),
        ("an unknown version", frame(&[0, 1, 0x7f, 0x00, 0, 0, 0, 1, 0xff, 0xff])),
        ("a truncated metadata request", frame(&[0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0, 0x7f])),
        (
            "a produce request that promises a billion topics",
            frame(&[0, 0, 0, 7, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 1, 0, 0, 0, 9, 0x3f, 0xff, 0xff, 0xff]),
        ),
    ];
    for (what, bytes) in frames {
        let mut raw = Raw::connect(broker);
        raw.send_bytes(&bytes).expect("the connection is open");
        assert!(raw.is_closed(), "{what}: the connection is closed");
        answers(&broker.bootstrap).unwrap_or_else(|e| panic!("{what}: the broker lives on: {e}"));
    }
    assert_eq!(fetch_all(&mut bystander, &topic, Isolation::Committed).records, [(0, "kept".to_owned())]);
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(body.len()).expect("small").to_be_bytes().to_vec();
    frame.extend_from_slice(body);
    frame
}
