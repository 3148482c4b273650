//! Consumer groups: every partition has one reader, whoever comes and goes, and what was committed is what is fetched.

use crate::on_both_brokers;
use crate::support::broker::Broker;
use crate::support::client::{Producer, admin, admin_options, config, topic, wait};
use crate::support::raw::{Raw, error, text};
use crate::support::{DEADLINE, eventually, unique};
use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest,
    SyncGroupRequest, TopicName,
};
use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

on_both_brokers! {
    an_eager_group_shares_the_partitions_and_hands_them_back,
    a_cooperative_group_moves_only_what_must_move,
    a_static_member_comes_back_without_a_rebalance,
    a_second_bearer_of_a_static_name_fences_the_first,
    a_member_that_falls_silent_loses_its_partitions,
    committed_offsets_come_back_with_their_metadata,
    offsets_of_a_stale_generation_are_refused,
    a_rebalance_is_announced_by_heartbeats,
    a_group_in_use_cannot_be_deleted_and_an_empty_one_can,
    members_without_a_common_protocol_are_refused,
}

/// What the rebalance callbacks said.
#[derive(Debug, Default)]
struct Seen {
    assigned: Mutex<Vec<BTreeSet<i32>>>,
    revoked: Mutex<Vec<BTreeSet<i32>>>,
}

impl ClientContext for Seen {}

impl ConsumerContext for Seen {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let numbers = |list: &TopicPartitionList| {
            list.elements().iter().map(rdkafka::topic_partition_list::TopicPartitionListElem::partition).collect()
        };
        match rebalance {
            Rebalance::Assign(list) => self.assigned.lock().unwrap().push(numbers(list)),
            Rebalance::Revoke(list) => self.revoked.lock().unwrap().push(numbers(list)),
            Rebalance::Error(error) => panic!("{error}"),
        }
    }
}

type Member = BaseConsumer<Seen>;

fn member(broker: &Broker, group: &str, topic: &str, settings: &[(&str, &str)]) -> Member {
    let base = [
        ("group.id", group),
        ("enable.auto.commit", "false"),
        ("auto.offset.reset", "earliest"),
        ("session.timeout.ms", "10000"),
        ("heartbeat.interval.ms", "300"),
    ];
    let mut config = config(broker, &base);
    for (name, value) in settings {
        config.set(*name, *value);
    }
    let consumer: Member = config.create_with_context(Seen::default()).expect("a consumer");
    consumer.subscribe(&[topic]).expect("a subscription");
    consumer
}

fn held(member: &Member) -> BTreeSet<i32> {
    member
        .assignment()
        .unwrap()
        .elements()
        .iter()
        .map(rdkafka::topic_partition_list::TopicPartitionListElem::partition)
        .collect()
}

/// Polls all members until their partitions are as wanted.
fn settle(members: &[&Member], wanted: impl Fn(&[BTreeSet<i32>]) -> bool) -> Vec<BTreeSet<i32>> {
    eventually("a settled group", || {
        for member in members {
            if let Some(Err(error)) = member.poll(Duration::from_millis(20)) {
                assert!(!matches!(error, KafkaError::MessageConsumptionFatal(_)), "{error}");
            }
        }
        let held: Vec<_> = members.iter().map(|m| held(m)).collect();
        if wanted(&held) { Ok(held) } else { Err(format!("{held:?}")) }
    })
}

fn shared_evenly(held: &[BTreeSet<i32>]) -> bool {
    held.iter().all(|h| h.len() == 2) && held.iter().flatten().collect::<BTreeSet<_>>().len() == 4
}

fn an_eager_group_shares_the_partitions_and_hands_them_back(broker: &Broker) {
    let (topic, group) = (topic(broker, "eager", 4, &[]), unique("eager"));
    let range = [("partition.assignment.strategy", "range")];
    let a = member(broker, &group, &topic, &range);
    settle(&[&a], |held| held[0].len() == 4);
    let b = member(broker, &group, &topic, &range);
    settle(&[&a, &b], shared_evenly);
    drop(b);
    settle(&[&a], |held| held[0].len() == 4);
    let revoked = a.client().context().revoked.lock().unwrap().clone();
    assert!(
        revoked.contains(&(0..4).collect()),
        "eager: everything is given back before it is shared again: {revoked:?}"
    );
}

fn a_cooperative_group_moves_only_what_must_move(broker: &Broker) {
    let (topic, group) = (topic(broker, "cooperative", 4, &[]), unique("cooperative"));
    let sticky = [("partition.assignment.strategy", "cooperative-sticky")];
    let a = member(broker, &group, &topic, &sticky);
    settle(&[&a], |held| held[0].len() == 4);
    let b = member(broker, &group, &topic, &sticky);
    let held = settle(&[&a, &b], shared_evenly);
    let revoked: BTreeSet<i32> = a.client().context().revoked.lock().unwrap().iter().flatten().copied().collect();
    assert_eq!(revoked, held[1], "a gave up what b holds now and nothing else");
    drop(b);
    settle(&[&a], |held| held[0].len() == 4);
    let all: BTreeSet<i32> = a.client().context().revoked.lock().unwrap().iter().flatten().copied().collect();
    assert_eq!(all, revoked, "and gave up nothing when b left");
}

fn a_static_member_comes_back_without_a_rebalance(broker: &Broker) {
    let (topic, group) = (topic(broker, "static", 4, &[]), unique("static"));
    let named = |name: &'static str| {
        [("group.instance.id", name), ("session.timeout.ms", "30000"), ("partition.assignment.strategy", "range")]
    };
    let a = member(broker, &group, &topic, &named("a"));
    let b = member(broker, &group, &topic, &named("b"));
    let before = settle(&[&a, &b], shared_evenly);
    let rebalances = a.client().context().assigned.lock().unwrap().len();
    drop(b);
    let b = member(broker, &group, &topic, &named("b"));
    let after = settle(&[&a, &b], shared_evenly);
    assert_eq!(after, before);
    assert_eq!(a.client().context().assigned.lock().unwrap().len(), rebalances, "a was not asked");
}

fn a_second_bearer_of_a_static_name_fences_the_first(broker: &Broker) {
    let (topic, group) = (topic(broker, "static-fenced", 1, &[]), unique("static-fenced"));
    let named = [("group.instance.id", "only-one")];
    let first = member(broker, &group, &topic, &named);
    settle(&[&first], |held| held[0].len() == 1);
    let second = member(broker, &group, &topic, &named);
    settle(&[&second], |held| held[0].len() == 1);
    let fatal = eventually("the first one's end", || {
        first.poll(Duration::from_millis(50));
        first.client().fatal_error().map(|(code, _)| code).ok_or_else(|| "alive".into())
    });
    assert_eq!(fatal, RDKafkaErrorCode::FencedInstanceId);
}

/// A group member by hand.
struct ByHand {
    raw: Raw,
    group: String,
    id: String,
    generation: i32,
}

impl ByHand {
    fn new(broker: &Broker, group: &str) -> Self {
        Self { raw: Raw::connect(broker), group: group.to_owned(), id: String::new(), generation: -1 }
    }

    fn join_request(&self, protocol: &str, session_ms: i32) -> JoinGroupRequest {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text(protocol))
            .with_metadata(Bytes::from_static(&[0, 0, 0, 0, 0, 0]));
        JoinGroupRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_session_timeout_ms(session_ms)
            .with_rebalance_timeout_ms(5_000)
            .with_member_id(text(&self.id))
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol])
    }

    fn ask_to_join(&mut self, protocol: &str, session_ms: i32) -> JoinGroupResponse {
        let request = self.join_request(protocol, session_ms);
        self.raw.settled(5, &request, |r| r.error_code)
    }

    /// Joins; the first request only brings the member id.
    fn join(&mut self, protocol: &str, session_ms: i32) -> (String, Vec<String>) {
        if self.id.is_empty() {
            let first = self.ask_to_join(protocol, session_ms);
            if error(first.error_code) != "MemberIdRequired" {
                return (error(first.error_code), vec![]);
            }
            self.id = first.member_id.to_string();
        }
        let joined = self.ask_to_join(protocol, session_ms);
        self.generation = joined.generation_id;
        (error(joined.error_code), joined.members.iter().map(|m| m.member_id.to_string()).collect())
    }

    fn sync(&mut self, members: &[String]) -> String {
        let assignments = members.iter().map(|m| {
            SyncGroupRequestAssignment::default()
                .with_member_id(text(m))
                .with_assignment(Bytes::from_static(&[0, 0, 0, 0, 0, 0]))
        });
        let request = SyncGroupRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_generation_id(self.generation)
            .with_member_id(text(&self.id))
            .with_assignments(assignments.collect());
        error(self.raw.settled(3, &request, |r| r.error_code).error_code)
    }

    fn heartbeat(&mut self) -> String {
        let request = HeartbeatRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_generation_id(self.generation)
            .with_member_id(text(&self.id));
        error(self.raw.settled(3, &request, |r| r.error_code).error_code)
    }

    fn leave(&mut self) -> String {
        let request = LeaveGroupRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_members(vec![MemberIdentity::default().with_member_id(text(&self.id))]);
        let response = self.raw.settled(3, &request, |r| r.error_code);
        error(response.members.first().map_or(response.error_code, |m| m.error_code))
    }

    fn commit(&mut self, generation: i32, member: &str, topic: &str, offset: i64) -> String {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(0)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(-1);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_generation_id_or_member_epoch(generation)
            .with_member_id(text(member))
            .with_topics(vec![
                OffsetCommitRequestTopic::default().with_name(TopicName(text(topic))).with_partitions(vec![partition]),
            ]);
        error(
            self.raw.settled(7, &request, |r| r.topics[0].partitions[0].error_code).topics[0].partitions[0].error_code,
        )
    }
}

fn a_member_that_falls_silent_loses_its_partitions(broker: &Broker) {
    let (topic, group) = (topic(broker, "silent", 4, &[]), unique("silent"));
    let mut silent = ByHand::new(broker, &group);
    let (code, members) = silent.join("range", 6_000);
    assert_eq!((code.as_str(), members.len()), ("None", 1));
    assert_eq!(silent.sync(&members), "None");
    let start = Instant::now();
    let heir = member(broker, &group, &topic, &[("partition.assignment.strategy", "range")]);
    settle(&[&heir], |held| held[0].len() == 4);
    assert!(start.elapsed() > Duration::from_secs(2), "the silent one had its session or the rebalance's time");
    assert_eq!(silent.heartbeat(), "UnknownMemberId");
}

fn committed_offsets_come_back_with_their_metadata(broker: &Broker) {
    let (topic, group) = (topic(broker, "offsets", 2, &[]), unique("offsets"));
    Producer::new(broker, &[]).texts(&topic, 0, ["a", "b", "c"]);
    let consumer: BaseConsumer =
        config(broker, &[("group.id", &group), ("enable.auto.commit", "false")]).create().unwrap();
    let committed = || {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_range(&topic, 0, 1);
        let found = consumer.committed_offsets(asked, DEADLINE).unwrap();
        found.elements().iter().map(|e| (e.offset(), e.metadata().to_owned())).collect::<Vec<_>>()
    };
    let before = committed();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&topic, 0, Offset::Offset(2)).unwrap();
    offsets.find_partition(&topic, 0).unwrap().set_metadata("two of three");
    consumer.commit(&offsets, CommitMode::Sync).unwrap();
    let none = (Offset::Invalid, String::new());
    assert_eq!(
        (before, committed()),
        (vec![none.clone(), none.clone()], vec![(Offset::Offset(2), "two of three".to_owned()), none])
    );
}

fn offsets_of_a_stale_generation_are_refused(broker: &Broker) {
    let (topic, group) = (topic(broker, "stale", 1, &[]), unique("stale"));
    let mut hand = ByHand::new(broker, &group);
    let (_, members) = hand.join("range", 30_000);
    assert_eq!(hand.sync(&members), "None");
    let (id, generation) = (hand.id.clone(), hand.generation);
    let seen = [
        hand.commit(generation - 1, &id, &topic, 1),
        hand.commit(generation, "somebody else", &topic, 2),
        hand.commit(-1, "", &topic, 3),
        hand.commit(generation, &id, &topic, 4),
    ];
    assert_eq!(seen, ["IllegalGeneration", "UnknownMemberId", "UnknownMemberId", "None"]);
}

fn a_rebalance_is_announced_by_heartbeats(broker: &Broker) {
    let group = unique("announced");
    let mut a = ByHand::new(broker, &group);
    let (_, members) = a.join("range", 30_000);
    assert_eq!(a.sync(&members), "None");
    assert_eq!(a.heartbeat(), "None");
    let generation = a.generation;
    let (b, alone) = std::thread::scope(|scope| {
        let joining = scope.spawn(|| {
            let mut b = ByHand::new(broker, &group);
            let (code, _) = b.join("range", 30_000);
            assert_eq!(code, "None");
            b
        });
        let announced = eventually("the announcement", || match a.heartbeat() {
            code if code == "None" => Err(code),
            code => Ok(code),
        });
        assert_eq!(announced, "RebalanceInProgress");
        let (code, members) = a.join("range", 30_000);
        assert_eq!((code.as_str(), members.len()), ("None", 2), "the old leader leads and sees both");
        let synced = a.sync(&members);
        (joining.join().expect("b joined"), synced)
    });
    let mut b = b;
    assert_eq!((alone.as_str(), b.sync(&[]).as_str()), ("None", "None"));
    assert_eq!((a.generation, b.generation), (generation + 1, generation + 1));
    assert_eq!([b.leave(), b.heartbeat(), a.heartbeat()], ["None", "UnknownMemberId", "RebalanceInProgress"]);
}

fn a_group_in_use_cannot_be_deleted_and_an_empty_one_can(broker: &Broker) {
    let (topic, group) = (topic(broker, "delete-group", 1, &[]), unique("delete-group"));
    let mut hand = ByHand::new(broker, &group);
    let (_, members) = hand.join("range", 30_000);
    hand.sync(&members);
    let (id, generation) = (hand.id.clone(), hand.generation);
    assert_eq!(hand.commit(generation, &id, &topic, 1), "None");
    let delete =
        || wait(admin(broker).delete_groups(&[&group], &admin_options())).unwrap().remove(0).map_err(|(_, code)| code);
    let in_use = delete();
    assert_eq!(hand.leave(), "None");
    let empty = delete();
    let gone = delete();
    assert_eq!(
        (in_use, empty, gone),
        (Err(RDKafkaErrorCode::NonEmptyGroup), Ok(group.clone()), Err(RDKafkaErrorCode::GroupIdNotFound))
    );
    let consumer: BaseConsumer = config(broker, &[("group.id", &group)]).create().unwrap();
    let mut asked = TopicPartitionList::new();
    asked.add_partition(&topic, 0);
    assert_eq!(
        consumer.committed_offsets(asked, DEADLINE).unwrap().elements()[0].offset(),
        Offset::Invalid,
        "its offsets went with it"
    );
}

fn members_without_a_common_protocol_are_refused(broker: &Broker) {
    let group = unique("protocols");
    let mut a = ByHand::new(broker, &group);
    let (_, members) = a.join("range", 30_000);
    a.sync(&members);
    let mut b = ByHand::new(broker, &group);
    assert_eq!(b.join("roundrobin", 30_000).0, "InconsistentGroupProtocol");
}
