//! Transactions: what commits appears at once, what aborts never does, and nobody writes under a name that somebody else took over.

use super::log::{fetch_all, list_offsets, produce_as};
use crate::on_both_brokers;
use crate::support::broker::Broker;
use crate::support::client::{self, Isolation, Producer, read, read_texts, topic, watermarks};
use crate::support::raw::{Raw, Stamp, batch, error, text};
use crate::support::{DEADLINE, eventually, unique};
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, FindCoordinatorRequest, GroupId,
    InitProducerIdRequest, JoinGroupRequest, OffsetFetchRequest, ProducerId, SyncGroupRequest, TopicName,
    TransactionalId, TxnOffsetCommitRequest,
};
use kafka_protocol::records::Compression;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::Producer as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

on_both_brokers! {
    committed_records_appear_together_and_only_after_the_commit,
    aborted_records_stay_hidden_from_committed_readers,
    a_transaction_spans_partitions_and_topics,
    an_open_transaction_holds_back_the_last_stable_offset_and_what_comes_behind_it,
    interleaved_transactions_settle_each_for_itself,
    consumed_offsets_commit_with_the_outputs_and_abort_with_them,
    a_successor_fences_its_predecessor_and_ends_its_transaction,
    a_forgotten_transaction_is_aborted_by_the_broker,
    a_transaction_ends_only_once,
    partitions_join_all_or_none,
    records_outside_the_transaction_are_refused,
    a_stale_generation_cannot_commit_offsets,
    stable_offsets_wait_for_the_transaction,
    an_epoch_is_bumped_at_each_init,
    a_transaction_timeout_above_the_brokers_limit_is_refused,
}

const TIME: i64 = 1_700_000_000_000;

fn committed_records_appear_together_and_only_after_the_commit(broker: &Broker) {
    let topic = topic(broker, "commit", 1, &[]);
    let producer = Producer::transactional(broker, &unique("tx"));
    producer.begin();
    producer.texts(&topic, 0, ["a", "b"]);
    let before = (read_texts(broker, &topic, Isolation::Committed), read_texts(broker, &topic, Isolation::Uncommitted));
    producer.commit().unwrap();
    let after = eventually("the commit's marker", || match read_texts(broker, &topic, Isolation::Committed) {
        texts if texts.is_empty() => Err("nothing yet".into()),
        texts => Ok(texts),
    });
    let ab = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!((before, after), ((vec![], ab.clone()), ab));
    assert_eq!(watermarks(broker, &topic, 0), (0, 3), "the marker takes an offset");
    producer.begin();
    producer.texts(&topic, 0, ["c"]);
    producer.commit().unwrap();
    let offsets: Vec<i64> = read(broker, &topic, Isolation::Uncommitted).iter().map(|r| r.offset).collect();
    assert_eq!(offsets, [0, 1, 3]);
}

fn aborted_records_stay_hidden_from_committed_readers(broker: &Broker) {
    let topic = topic(broker, "abort", 1, &[]);
    let plain = Producer::new(broker, &[]);
    let producer = Producer::transactional(broker, &unique("tx"));
    plain.texts(&topic, 0, ["before"]);
    for (texts, commit) in [(["a1", "a2"], false), (["c1", "c2"], true), (["a3", "a4"], false)] {
        producer.begin();
        producer.texts(&topic, 0, texts);
        plain.texts(&topic, 0, ["between"]);
        if commit { producer.commit().unwrap() } else { producer.abort().unwrap() }
    }
    plain.texts(&topic, 0, ["after"]);
    let settled = eventually("all markers", || {
        let fetched = fetch_all(&mut Raw::connect(broker), &topic, Isolation::Committed);
        if fetched.last_stable == fetched.high_watermark { Ok(fetched) } else { Err(format!("{fetched:?}")) }
    });
    assert_eq!(
        read_texts(broker, &topic, Isolation::Committed),
        ["before", "between", "c1", "c2", "between", "between", "after"]
    );
    let everything = ["before", "a1", "a2", "between", "c1", "c2", "between", "a3", "a4", "between", "after"];
    assert_eq!(read_texts(broker, &topic, Isolation::Uncommitted), everything);
    let marks: Vec<&str> =
        settled.records.iter().map(|(_, v)| v.as_str()).filter(|v| ["commit", "abort"].contains(v)).collect();
    assert_eq!(marks, ["abort", "commit", "abort"]);
    assert_eq!(settled.aborted, [1, 9], "the index that readers skip by");
    assert_eq!(fetch_all(&mut Raw::connect(broker), &topic, Isolation::Uncommitted).aborted, [0_i64; 0]);
}

fn a_transaction_spans_partitions_and_topics(broker: &Broker) {
    let (one, two) = (topic(broker, "span-a", 2, &[]), topic(broker, "span-b", 1, &[]));
    let producer = Producer::transactional(broker, &unique("tx"));
    for commit in [false, true] {
        producer.begin();
        producer.texts(&one, 0, [format!("one/0 {commit}")]);
        producer.texts(&one, 1, [format!("one/1 {commit}")]);
        producer.texts(&two, 0, [format!("two/0 {commit}")]);
        if commit { producer.commit().unwrap() } else { producer.abort().unwrap() }
    }
    let seen = eventually("three committed records", || {
        let all: Vec<String> = [&one, &two].iter().flat_map(|t| read_texts(broker, t, Isolation::Committed)).collect();
        if all.len() == 3 { Ok(all) } else { Err(format!("{all:?}")) }
    });
    assert_eq!(seen, ["one/0 true", "one/1 true", "two/0 true"]);
}

fn an_open_transaction_holds_back_the_last_stable_offset_and_what_comes_behind_it(broker: &Broker) {
    let topic = topic(broker, "lso", 1, &[]);
    let plain = Producer::new(broker, &[]);
    let producer = Producer::transactional(broker, &unique("tx"));
    plain.texts(&topic, 0, ["0", "1"]);
    producer.begin();
    producer.texts(&topic, 0, ["2"]);
    plain.texts(&topic, 0, ["3", "4"]);
    let mut raw = Raw::connect(broker);
    let committed = fetch_all(&mut raw, &topic, Isolation::Committed);
    let seen: Vec<_> = committed.records.iter().map(|(_, v)| v.as_str()).collect();
    assert_eq!((committed.last_stable, committed.high_watermark, seen), (2, 5, vec!["0", "1"]));
    assert_eq!(list_offsets(&mut raw, &topic, -1, Isolation::Committed).1, 2, "the end for a committed reader");
    assert_eq!(list_offsets(&mut raw, &topic, -1, Isolation::Uncommitted).1, 5);
    assert_eq!(fetch_all(&mut raw, &topic, Isolation::Uncommitted).records.len(), 5);
    producer.commit().unwrap();
    eventually("the last stable offset's move", || {
        let fetched = fetch_all(&mut Raw::connect(broker), &topic, Isolation::Committed);
        if fetched.last_stable == 6 { Ok(()) } else { Err(format!("{fetched:?}")) }
    });
    assert_eq!(read_texts(broker, &topic, Isolation::Committed), ["0", "1", "2", "3", "4"]);
}

fn interleaved_transactions_settle_each_for_itself(broker: &Broker) {
    let topic = topic(broker, "interleaved", 1, &[]);
    let (a, b) = (Producer::transactional(broker, &unique("tx-a")), Producer::transactional(broker, &unique("tx-b")));
    a.begin();
    b.begin();
    a.texts(&topic, 0, ["a0"]);
    b.texts(&topic, 0, ["b0"]);
    a.texts(&topic, 0, ["a1"]);
    b.commit().unwrap();
    let held = eventually("b's marker", || {
        let fetched = fetch_all(&mut Raw::connect(broker), &topic, Isolation::Committed);
        if fetched.high_watermark == 4 { Ok(fetched) } else { Err(format!("{fetched:?}")) }
    });
    assert_eq!((held.last_stable, held.records.len()), (0, 0), "a is open in front of b");
    a.abort().unwrap();
    let seen = eventually("a's marker", || match read_texts(broker, &topic, Isolation::Committed) {
        texts if texts.is_empty() => Err("nothing yet".into()),
        texts => Ok(texts),
    });
    assert_eq!(seen, ["b0"]);
}

fn offsets_of(broker: &Broker, group: &str, topic: &str) -> Offset {
    let consumer: BaseConsumer = client::config(broker, &[("group.id", group)]).create().unwrap();
    let mut asked = TopicPartitionList::new();
    asked.add_partition(topic, 0);
    consumer.committed_offsets(asked, DEADLINE).unwrap().elements()[0].offset()
}

fn consumed_offsets_commit_with_the_outputs_and_abort_with_them(broker: &Broker) {
    let (input, output) = (topic(broker, "eos-in", 1, &[]), topic(broker, "eos-out", 1, &[]));
    Producer::new(broker, &[]).texts(&input, 0, ["1", "2", "3"]);
    let group = unique("eos");
    let consumer: BaseConsumer = client::config(
        broker,
        &[
            ("group.id", &group),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "earliest"),
            ("isolation.level", "read_committed"),
        ],
    )
    .create()
    .unwrap();
    consumer.subscribe(&[&input]).unwrap();
    let mut read = 0;
    eventually("three records", || {
        read += usize::from(matches!(consumer.poll(std::time::Duration::from_millis(100)), Some(Ok(_))));
        if read == 3 { Ok(()) } else { Err(format!("{read}")) }
    });
    let producer = Producer::transactional(broker, &unique("tx"));
    let step = |offset: i64, text: &str| {
        producer.begin();
        producer.texts(&output, 0, [text]);
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(&input, 0, Offset::Offset(offset)).unwrap();
        producer.0.send_offsets_to_transaction(&offsets, &consumer.group_metadata().unwrap(), DEADLINE).unwrap();
    };
    let mut seen = vec![offsets_of(broker, &group, &input)];
    step(2, "committed");
    producer.commit().unwrap();
    seen.push(offsets_of(broker, &group, &input));
    step(3, "aborted");
    producer.abort().unwrap();
    seen.push(offsets_of(broker, &group, &input));
    assert_eq!(seen, [Offset::Invalid, Offset::Offset(2), Offset::Offset(2)]);
    assert_eq!(read_texts(broker, &output, Isolation::Committed), ["committed"]);
}

fn a_successor_fences_its_predecessor_and_ends_its_transaction(broker: &Broker) {
    let topic = topic(broker, "fenced", 1, &[]);
    let id = unique("tx");
    let first = Producer::transactional(broker, &id);
    first.begin();
    first.texts(&topic, 0, ["lost"]);
    let second = Producer::transactional(broker, &id);
    assert_eq!(
        fetch_all(&mut Raw::connect(broker), &topic, Isolation::Committed).last_stable,
        2,
        "ended before init_transactions answered"
    );
    second.begin();
    second.texts(&topic, 0, ["kept"]);
    second.commit().unwrap();
    let error = first.commit().expect_err("fenced");
    let code = error.rdkafka_error_code().unwrap();
    assert!(
        matches!(
            code,
            RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch
        ),
        "{code:?}"
    );
    let fatal = first.0.client().fatal_error().map(|(code, _)| code);
    assert!(fatal.is_some(), "the predecessor cannot go on");
    let seen = eventually("the successor's record", || match read_texts(broker, &topic, Isolation::Committed) {
        texts if texts.is_empty() => Err("nothing yet".into()),
        texts => Ok(texts),
    });
    assert_eq!(seen, ["kept"]);
}

/// A transactional producer by hand.
struct ByHand<'a> {
    raw: Raw,
    broker: &'a Broker,
    id: String,
    producer: (i64, i16),
    sequence: i32,
}

impl<'a> ByHand<'a> {
    fn init(broker: &'a Broker, id: &str, timeout_ms: i32) -> Self {
        let mut hand = Self { raw: Raw::connect(broker), broker, id: id.to_owned(), producer: (-1, -1), sequence: 0 };
        let (code, producer) = hand.try_init(timeout_ms);
        assert_eq!(code, "None");
        hand.producer = producer;
        hand
    }

    fn try_init(&mut self, timeout_ms: i32) -> (String, (i64, i16)) {
        // On a new cluster the first to look for a coordinator makes the topic that the coordinator lives on.
        let coordinator = FindCoordinatorRequest::default().with_key(text(&self.id)).with_key_type(1);
        self.raw.settled(3, &coordinator, |r| r.error_code);
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(self.transactional_id()))
            .with_transaction_timeout_ms(timeout_ms)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let response = self.raw.settled(4, &request, |r| r.error_code);
        (error(response.error_code), (response.producer_id.0, response.producer_epoch))
    }

    fn transactional_id(&self) -> TransactionalId {
        text(&self.id).into()
    }

    fn add(&mut self, topics: &[(&str, Vec<i32>)]) -> Vec<String> {
        let topics = topics.iter().map(|(name, partitions)| {
            AddPartitionsToTxnTopic::default().with_name(TopicName(text(name))).with_partitions(partitions.clone())
        });
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(self.transactional_id())
            .with_v3_and_below_producer_id(ProducerId(self.producer.0))
            .with_v3_and_below_producer_epoch(self.producer.1)
            .with_v3_and_below_topics(topics.collect());
        let response = self
            .raw
            .settled(3, &request, |r| r.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code);
        let results = response.results_by_topic_v3_and_below.iter().flat_map(|t| &t.results_by_partition);
        results.map(|p| error(p.partition_error_code)).collect()
    }

    fn produce(&mut self, topic: &str, value: &str) -> String {
        let stamp = Stamp { id: self.producer.0, epoch: self.producer.1, sequence: self.sequence, transactional: true };
        let id = self.id.clone();
        let (code, _) = produce_as(&mut self.raw, Some(&id), topic, 0, batch(stamp, &[value], Compression::None, TIME));
        if code == "None" {
            self.sequence += 1;
        }
        code
    }

    fn end(&mut self, commit: bool) -> String {
        let request = EndTxnRequest::default()
            .with_transactional_id(self.transactional_id())
            .with_producer_id(ProducerId(self.producer.0))
            .with_producer_epoch(self.producer.1)
            .with_committed(commit);
        error(self.raw.settled(3, &request, |r| r.error_code).error_code)
    }

    fn add_offsets(&mut self, group: &str) -> String {
        let request = AddOffsetsToTxnRequest::default()
            .with_transactional_id(self.transactional_id())
            .with_producer_id(ProducerId(self.producer.0))
            .with_producer_epoch(self.producer.1)
            .with_group_id(GroupId(text(group)));
        error(self.raw.settled(3, &request, |r| r.error_code).error_code)
    }

    fn commit_offset(&mut self, group: &str, member: (&str, i32), topic: &str, offset: i64) -> String {
        let partition = TxnOffsetCommitRequestPartition::default()
            .with_partition_index(0)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(-1);
        let request = TxnOffsetCommitRequest::default()
            .with_transactional_id(self.transactional_id())
            .with_group_id(GroupId(text(group)))
            .with_producer_id(ProducerId(self.producer.0))
            .with_producer_epoch(self.producer.1)
            .with_generation_id(member.1)
            .with_member_id(text(member.0))
            .with_topics(vec![
                TxnOffsetCommitRequestTopic::default()
                    .with_name(TopicName(text(topic)))
                    .with_partitions(vec![partition]),
            ]);
        error(
            self.raw.settled(3, &request, |r| r.topics[0].partitions[0].error_code).topics[0].partitions[0].error_code,
        )
    }

    fn fetch_offset(&mut self, group: &str, topic: &str, stable: bool) -> (String, i64) {
        fetch_offset(&mut Raw::connect(self.broker), group, topic, stable)
    }
}

fn fetch_offset(raw: &mut Raw, group: &str, topic: &str, stable: bool) -> (String, i64) {
    let asked = OffsetFetchRequestTopic::default().with_name(TopicName(text(topic))).with_partition_indexes(vec![0]);
    let request = OffsetFetchRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_topics(Some(vec![asked]))
        .with_require_stable(stable);
    let response = raw.settled(7, &request, |r| r.error_code);
    let partition = &response.topics[0].partitions[0];
    (error(partition.error_code), partition.committed_offset)
}

/// Joins a group as its only member: member id and generation.
fn join(raw: &mut Raw, group: &str) -> (String, i32) {
    let request = |member: &str| {
        JoinGroupRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_session_timeout_ms(30_000)
            .with_rebalance_timeout_ms(30_000)
            .with_member_id(text(member))
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![
                JoinGroupRequestProtocol::default()
                    .with_name(text("range"))
                    .with_metadata(bytes::Bytes::from_static(&[0, 0, 0, 0, 0, 0])),
            ])
    };
    let first = raw.settled(5, &request(""), |r| r.error_code);
    assert_eq!(error(first.error_code), "MemberIdRequired");
    let member = first.member_id.to_string();
    let joined = raw.settled(5, &request(&member), |r| r.error_code);
    assert_eq!((error(joined.error_code).as_str(), joined.leader.as_str()), ("None", member.as_str()));
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(text(&member))
        .with_assignment(bytes::Bytes::from_static(&[0, 0, 0, 0, 0, 0]));
    let sync = SyncGroupRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id(joined.generation_id)
        .with_member_id(text(&member))
        .with_assignments(vec![assignment]);
    assert_eq!(error(raw.settled(3, &sync, |r| r.error_code).error_code), "None");
    (member, joined.generation_id)
}

fn a_forgotten_transaction_is_aborted_by_the_broker(broker: &Broker) {
    let topic = topic(broker, "forgotten", 1, &[]);
    let mut hand = ByHand::init(broker, &unique("tx"), 1_000);
    assert_eq!(hand.add(&[(&topic, vec![0])]), ["None"]);
    assert_eq!(hand.produce(&topic, "forgotten"), "None");
    Producer::new(broker, &[]).texts(&topic, 0, ["behind"]);
    assert_eq!(read_texts(broker, &topic, Isolation::Committed), [""; 0]);
    let seen = eventually("the abort", || match read_texts(broker, &topic, Isolation::Committed) {
        texts if texts.is_empty() => Err("held back".into()),
        texts => Ok(texts),
    });
    assert_eq!(seen, ["behind"]);
    let late = hand.end(true);
    assert!(["InvalidProducerEpoch", "ProducerFenced"].contains(&late.as_str()), "its owner was fenced: {late}");
}

fn a_transaction_ends_only_once(broker: &Broker) {
    let topic = topic(broker, "once", 1, &[]);
    let mut hand = ByHand::init(broker, &unique("tx"), 60_000);
    let empty = hand.end(true);
    hand.add(&[(&topic, vec![0])]);
    hand.produce(&topic, "x");
    let seen = [empty, hand.end(true), hand.end(true), hand.end(false)];
    // A repeated EndTxn of the same kind is a retry whose answer got lost; the other kind is an error.
    assert_eq!(seen, ["InvalidTxnState", "None", "None", "InvalidTxnState"]);
    eventually("the marker", || match watermarks(broker, &topic, 0) {
        (0, 1) => Err("not there yet".into()),
        other => {
            assert_eq!(other, (0, 2), "one marker");
            Ok(())
        }
    });
}

fn partitions_join_all_or_none(broker: &Broker) {
    let topic = topic(broker, "all-or-none", 1, &[]);
    let mut hand = ByHand::init(broker, &unique("tx"), 60_000);
    let nowhere = unique("nowhere");
    let mut results = hand.add(&[(&topic, vec![0]), (&nowhere, vec![0])]);
    results.sort();
    assert_eq!(results, ["OperationNotAttempted", "UnknownTopicOrPartition"]);
    assert_eq!(hand.end(true), "InvalidTxnState", "no transaction began");
    hand.producer.1 += 7;
    assert_eq!(hand.add(&[(&topic, vec![0])]), ["ProducerFenced"], "an epoch that was never given");
}

fn records_outside_the_transaction_are_refused(broker: &Broker) {
    let topic = topic(broker, "outside", 1, &[]);
    let mut hand = ByHand::init(broker, &unique("tx"), 60_000);
    assert_eq!(hand.produce(&topic, "not added"), "InvalidTxnState");
    assert_eq!(watermarks(broker, &topic, 0), (0, 0));
}

fn a_stale_generation_cannot_commit_offsets(broker: &Broker) {
    let topic = topic(broker, "generation", 1, &[]);
    let group = unique("generation");
    let mut member_connection = Raw::connect(broker);
    let (member, generation) = join(&mut member_connection, &group);
    let mut hand = ByHand::init(broker, &unique("tx"), 60_000);
    assert_eq!(hand.add_offsets(&group), "None");
    let seen = [
        hand.commit_offset(&group, (&member, generation - 1), &topic, 1),
        hand.commit_offset(&group, (&member, generation + 1), &topic, 2),
        hand.commit_offset(&group, ("somebody else", generation), &topic, 3),
        hand.commit_offset(&group, (&member, generation), &topic, 4),
        hand.end(true),
    ];
    assert_eq!(seen, ["IllegalGeneration", "IllegalGeneration", "UnknownMemberId", "None", "None"]);
    let offset = eventually("the committed offset", || match hand.fetch_offset(&group, &topic, true) {
        (code, offset) if code == "None" && offset >= 0 => Ok(offset),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(offset, 4);
}

fn stable_offsets_wait_for_the_transaction(broker: &Broker) {
    let topic = topic(broker, "stable", 1, &[]);
    let group = unique("stable");
    let mut hand = ByHand::init(broker, &unique("tx"), 60_000);
    let mut seen = Vec::new();
    for (offset, commit) in [(5, true), (9, false)] {
        assert_eq!(hand.add_offsets(&group), "None");
        assert_eq!(hand.commit_offset(&group, ("", -1), &topic, offset), "None");
        seen.push(hand.fetch_offset(&group, &topic, true));
        seen.push(hand.fetch_offset(&group, &topic, false));
        assert_eq!(hand.end(commit), "None");
        seen.push(eventually("a stable offset", || match hand.fetch_offset(&group, &topic, true) {
            (code, _) if code == "UnstableOffsetCommit" => Err(code),
            other => Ok(other),
        }));
    }
    let (unstable, none) = ("UnstableOffsetCommit".to_owned(), "None".to_owned());
    let expected =
        [(unstable.clone(), -1), (none.clone(), -1), (none.clone(), 5), (unstable, -1), (none.clone(), 5), (none, 5)];
    assert_eq!(seen, expected);
}

fn an_epoch_is_bumped_at_each_init(broker: &Broker) {
    let id = unique("tx");
    let first = ByHand::init(broker, &id, 60_000);
    let mut second = ByHand::init(broker, &id, 60_000);
    let third = second.try_init(60_000).1;
    assert_eq!(second.producer.0, first.producer.0, "the same producer id");
    assert_eq!((second.producer.1, third.1), (first.producer.1 + 1, first.producer.1 + 2));
}

fn a_transaction_timeout_above_the_brokers_limit_is_refused(broker: &Broker) {
    let mut hand = ByHand { raw: Raw::connect(broker), broker, id: unique("tx"), producer: (-1, -1), sequence: 0 };
    let seen = [hand.try_init(900_001).0, hand.try_init(0).0, hand.try_init(900_000).0];
    assert_eq!(seen, ["InvalidTransactionTimeout", "InvalidTransactionTimeout", "None"]);
}
