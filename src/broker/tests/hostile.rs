//! Bytes no client would send: each ends its own connection, and nothing else.

use super::raw::{Raw, topic};
use super::*;
use crate::broker::wire::SHAPES;
use crate::broker::wire::sample::valid;
use crate::fuzz::mutate::Random;
use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::Encodable;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Counts panics of the broker's own threads.
fn watch_for_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name().is_some_and(|name| name.starts_with("broker") && !name.contains("::")) {
                PANICS.fetch_add(1, SeqCst);
            }
            usual(panic);
        }));
    });
}

fn frame(api: i16, version: i16, flexible: bool, body: &[u8]) -> Vec<u8> {
    let mut frame = BytesMut::new();
    frame.put_i16(api);
    frame.put_i16(version);
    frame.put_i32(7);
    frame.put_i16(1);
    frame.put_u8(b'x');
    if flexible {
        frame.put_u8(0);
    }
    frame.put_slice(body);
    frame.to_vec()
}

/// Requests with something in them, as seeds.
fn seeds() -> Vec<(i16, i16, Vec<u8>)> {
    let mut seeds = Vec::new();
    let mut seed = |api: ApiKey, version: i16, encode: &dyn Fn(&mut BytesMut)| {
        let mut body = BytesMut::new();
        encode(&mut body);
        seeds.push((api as i16, version, body.to_vec()));
    };
    let partition =
        produce_request::PartitionProduceData::default().with_records(Some(super::raw::Batch::of(&["a", "b"]).bytes()));
    let data = produce_request::TopicProduceData::default().with_name(topic("t")).with_partition_data(vec![partition]);
    let produce = ProduceRequest::default().with_acks(1).with_topic_data(vec![data]);
    seed(ApiKey::Produce, 9, &|body| produce.encode(body, 9).unwrap());
    seed(ApiKey::Produce, 3, &|body| produce.encode(body, 3).unwrap());
    let wanted = fetch_request::FetchTopic::default()
        .with_topic(topic("t"))
        .with_partitions(vec![fetch_request::FetchPartition::default().with_partition_max_bytes(1_000)]);
    let fetch = FetchRequest::default().with_max_bytes(1_000).with_topics(vec![wanted]);
    seed(ApiKey::Fetch, 12, &|body| fetch.encode(body, 12).unwrap());
    seed(ApiKey::Fetch, 5, &|body| fetch.encode(body, 5).unwrap());
    let made = create_topics_request::CreatableTopic::default()
        .with_name(topic("u"))
        .with_num_partitions(1)
        .with_replication_factor(1);
    let create = CreateTopicsRequest::default().with_topics(vec![made]);
    seed(ApiKey::CreateTopics, 7, &|body| create.encode(body, 7).unwrap());
    let join = JoinGroupRequest::default().with_session_timeout_ms(6_000).with_rebalance_timeout_ms(100);
    seed(ApiKey::JoinGroup, 7, &|body| join.encode(body, 7).unwrap());
    for shape in SHAPES {
        for version in shape.min..=shape.max {
            seeds.push((shape.api as i16, version, vec![0; 64]));
            let sample = |seed| (shape.api as i16, version, valid(shape, version, seed));
            seeds.extend([sample(1), sample(2)]);
        }
    }
    seeds
}

#[test]
fn mutated_requests_end_their_connection_at_most_and_the_broker_serves_on() {
    watch_for_panics();
    let cluster = Cluster::start_with(|config| config.limits.partitions = 50);
    // Requests name the topic `t`, and some of them delete it: that is their right.
    cluster.create_topic("t", 1, &[]);
    cluster.create_topic("kept", 1, &[]);
    let address = cluster.broker().address().to_string();
    let budget = crate::fuzz::Budget::new(3_000);
    let mut random = Random::new(budget.seed());
    let seeds = seeds();
    for round in (0..).take_while(|round| budget.goes_on(*round)) {
        let (api, version, body) = &seeds[round % seeds.len()];
        let shape = crate::broker::wire::find(*api).unwrap();
        let mut body = body.clone();
        let changes = if body.is_empty() { 0 } else { random.below(6) };
        for _ in 0..changes {
            let at = random.below(body.len());
            body[at] = match random.below(4) {
                0 => 0xff,
                1 => 0x7f,
                2 => 0,
                _ => random.next() as u8,
            };
        }
        if random.below(4) == 0 {
            body.truncate(random.below(body.len().max(1)));
        }
        let mut client = Raw::connect(&address);
        client.send_frame(&frame(*api, *version, shape.is_flexible(*version), &body));
        client.hang_up();
    }
    for size in [i32::MIN, -1, 0, 1, 9, i32::MAX] {
        let mut client = Raw::connect(&address);
        let _ = client.send_bytes(&size.to_be_bytes());
        let _ = client.send_bytes(&[0; 16]);
        assert!(client.is_closed(), "a frame of {size} bytes");
    }
    let producer = cluster.producer(&[]);
    send(&producer, "kept", "k", "still here");
    drain(&producer);
    assert_eq!(cluster.values("kept", "read_uncommitted").last().map(String::as_str), Some("still here"));
    assert_eq!(PANICS.load(SeqCst), 0);
}

#[test]
fn a_client_that_stalls_inside_a_request_is_dropped() {
    let cluster = Cluster::start_with(|config| config.limits.stalled_connection = Duration::from_millis(100));
    let mut client = Raw::connect(&cluster.broker().address().to_string());
    client.send_bytes(&[0, 0, 1, 0, 0, 3]).unwrap();
    assert!(client.is_closed());
}

#[test]
fn a_client_that_never_says_anything_is_dropped_long_before_an_idle_one() {
    let cluster = Cluster::start_with(|config| config.limits.stalled_connection = Duration::from_millis(100));
    let address = cluster.broker().address().to_string();
    let mut client = Raw::connect(&address);
    client.call(0, &ApiVersionsRequest::default());
    assert!(Raw::connect(&address).is_closed());
    client.call(0, &ApiVersionsRequest::default());
}

#[test]
fn claims_of_large_requests_do_not_keep_small_ones_waiting() {
    let cluster = Cluster::start_with(|config| {
        (config.limits.request_memory_bytes, config.limits.produce_request_bytes) = (8 << 20, 8 << 20);
    });
    let address = cluster.broker().address().to_string();
    let claim = [&(8_i32 << 20).to_be_bytes()[..], &[0, 3], &[0; 80 << 10]].concat();
    let mut claimants: Vec<_> = (0..8).map(|_| Raw::connect(&address)).collect();
    for claimant in &mut claimants {
        claimant.send_bytes(&claim).unwrap();
    }
    Raw::connect(&address).call(0, &ApiVersionsRequest::default());
}

#[test]
fn beyond_the_limit_who_has_said_nothing_gives_way_to_a_newcomer() {
    let cluster = Cluster::start_with(|config| config.limits.connections = 2);
    let address = cluster.broker().address().to_string();
    let mut first = Raw::connect(&address);
    first.call(0, &ApiVersionsRequest::default());
    let silent: Vec<_> = (0..10).map(|_| Raw::connect(&address)).collect();
    let mut newcomer = Raw::connect(&address);
    newcomer.call(0, &ApiVersionsRequest::default());
    first.call(0, &ApiVersionsRequest::default());
    assert!(cluster.broker().stats().connections <= 2);
    drop(silent);
}

#[test]
fn a_batch_that_decompresses_to_more_than_allowed_is_refused() {
    let cluster = Cluster::start_with(|config| config.limits.decompressed_batch_bytes = 100_000);
    cluster.create_topic("t", 1, &[]);
    let mut client = Raw::connect(&cluster.broker().address().to_string());
    let mut batch = super::raw::Batch::of(&["a"]);
    batch.header.attributes = 4;
    let bomb = crate::broker::log::codec::Codec::Zstd.compress(&vec![0; 50_000_000]).unwrap();
    let bytes = crate::broker::log::batch::assemble(&batch.header, 0, &bomb);
    assert_eq!(client.produce("t", None, bytes.into()), (2, -1));
    assert_eq!(cluster.watermarks("t"), (0, 0));
}
