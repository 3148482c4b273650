//! The same requests to this broker and to Apache Kafka have the same results.
//!
//! `conformance.txt` was recorded from Apache Kafka 4.1.0. `HOKUSAI_CONFORMANCE_BROKERS=host:port` runs the cases
//! against another broker; with `HOKUSAI_CONFORMANCE_RECORD` set its results are written instead of compared.
//! Names carry a suffix of the run, so a broker can be used again.

use super::Cluster;
use super::raw::{Batch, Raw, text, topic};
use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;

struct Run {
    raw: Raw,
    address: String,
    suffix: String,
    said: Vec<String>,
}

/// Notes a result under a name.
macro_rules! say {
    ($run:expr, $name:expr, $($value:expr),+ $(,)?) => {{
        let values: Vec<String> = vec![$(format!("{:?}", $value)),+];
        $run.said.push(format!("{}: {}", $name, values.join(" ")));
        println!("{}", $run.said[$run.said.len() - 1]);
    }};
}

impl Run {
    fn name(&self, base: &str) -> String {
        format!("{base}-{}", self.suffix)
    }

    fn another(&self) -> Raw {
        Raw::connect(&self.address)
    }

    fn topic(&mut self, base: &str, configs: &[(&str, &str)]) -> String {
        let name = self.name(base);
        let code = self.create(CreatableTopic::default().with_name(topic(&name)).with_num_partitions(2), configs);
        assert_eq!(code, 0, "{name}");
        name
    }

    fn create(&mut self, wanted: CreatableTopic, configs: &[(&str, &str)]) -> i16 {
        let config = |(name, value): &(&str, &str)| {
            CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
        };
        let factor = if wanted.replication_factor == 0 { 1 } else { wanted.replication_factor };
        let wanted = wanted.with_replication_factor(factor).with_configs(configs.iter().map(config).collect());
        let request = CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(10_000);
        let code = self.raw.call(7, &request).topics[0].error_code;
        // A cluster needs a moment until every topic has its leader.
        if code == 0 {
            let name = request.topics[0].name.clone();
            super::until("a leader", || {
                let wanted = metadata_request::MetadataRequestTopic::default().with_name(Some(name.clone()));
                let answer = self.raw.call(9, &MetadataRequest::default().with_topics(Some(vec![wanted])));
                answer.topics[0].error_code == 0
                    && answer.topics[0].partitions.iter().all(|partition| partition.leader_id.0 >= 0)
            });
        }
        code
    }

    fn init(&mut self, id: Option<&str>, timeout: i32, expected: (i64, i16)) -> (i16, i64, i16) {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(id.map(|id| TransactionalId(text(id))))
            .with_transaction_timeout_ms(timeout)
            .with_producer_id(ProducerId(expected.0))
            .with_producer_epoch(expected.1);
        // Apache Kafka answers "concurrent transactions" while it ends a predecessor's; clients ask again.
        loop {
            let answer = self.raw.call(4, &request);
            if answer.error_code != 51 && !(14..=16).contains(&answer.error_code) {
                return (answer.error_code, answer.producer_id.0, answer.producer_epoch);
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn add(&mut self, id: &str, producer: (i64, i16), topics: &[&str]) -> Vec<i16> {
        let topics = topics.iter().map(|name| {
            add_partitions_to_txn_request::AddPartitionsToTxnTopic::default()
                .with_name(topic(name))
                .with_partitions(vec![0])
        });
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(TransactionalId(text(id)))
            .with_v3_and_below_producer_id(ProducerId(producer.0))
            .with_v3_and_below_producer_epoch(producer.1)
            .with_v3_and_below_topics(topics.collect());
        loop {
            let answer = self.raw.call(3, &request);
            let mut results: Vec<_> = answer
                .results_by_topic_v3_and_below
                .iter()
                .map(|topic| (topic.name.to_string(), topic.results_by_partition[0].partition_error_code))
                .collect();
            results.sort();
            let codes: Vec<i16> = results.into_iter().map(|(_, code)| code).collect();
            if !codes.contains(&51) {
                return codes;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn end(&mut self, id: &str, producer: (i64, i16), commit: bool) -> i16 {
        let request = EndTxnRequest::default()
            .with_transactional_id(TransactionalId(text(id)))
            .with_producer_id(ProducerId(producer.0))
            .with_producer_epoch(producer.1)
            .with_committed(commit);
        loop {
            let code = self.raw.call(3, &request).error_code;
            if code != 51 {
                return code;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn add_offsets(&mut self, id: &str, producer: (i64, i16), group: &str) -> i16 {
        let request = AddOffsetsToTxnRequest::default()
            .with_transactional_id(TransactionalId(text(id)))
            .with_producer_id(ProducerId(producer.0))
            .with_producer_epoch(producer.1)
            .with_group_id(GroupId(text(group)));
        loop {
            let code = self.raw.call(3, &request).error_code;
            if code != 51 {
                return code;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn txn_commit(
        &mut self,
        id: &str,
        producer: (i64, i16),
        group: &str,
        member: (&str, i32),
        name: &str,
        offset: i64,
    ) -> i16 {
        let partition =
            txn_offset_commit_request::TxnOffsetCommitRequestPartition::default().with_committed_offset(offset);
        let wanted = txn_offset_commit_request::TxnOffsetCommitRequestTopic::default()
            .with_name(topic(name))
            .with_partitions(vec![partition]);
        let request = TxnOffsetCommitRequest::default()
            .with_transactional_id(TransactionalId(text(id)))
            .with_producer_id(ProducerId(producer.0))
            .with_producer_epoch(producer.1)
            .with_group_id(GroupId(text(group)))
            .with_member_id(text(member.0))
            .with_generation_id(member.1)
            .with_topics(vec![wanted]);
        self.settled(|run| run.raw.call(3, &request).topics[0].partitions[0].error_code)
    }

    /// Apache Kafka loads a coordinator's partition on first use; clients ask again.
    fn settled(&mut self, mut ask: impl FnMut(&mut Self) -> i16) -> i16 {
        loop {
            match ask(self) {
                14..=16 => std::thread::sleep(std::time::Duration::from_millis(20)),
                code => return code,
            }
        }
    }

    fn commit(&mut self, group: &str, member: (&str, i32), name: &str, offset: i64, metadata: &str) -> i16 {
        let partition = offset_commit_request::OffsetCommitRequestPartition::default()
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text(metadata)));
        let wanted = offset_commit_request::OffsetCommitRequestTopic::default()
            .with_name(topic(name))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_member_id(text(member.0))
            .with_generation_id_or_member_epoch(member.1)
            .with_topics(vec![wanted]);
        self.settled(|run| run.raw.call(8, &request).topics[0].partitions[0].error_code)
    }

    fn committed(&mut self, group: &str, name: &str, stable: bool) -> (i16, i64) {
        let wanted = offset_fetch_request::OffsetFetchRequestTopics::default()
            .with_name(topic(name))
            .with_partition_indexes(vec![0]);
        let wanted = offset_fetch_request::OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(text(group)))
            .with_topics(Some(vec![wanted]));
        let request = OffsetFetchRequest::default().with_groups(vec![wanted]).with_require_stable(stable);
        let answer = self.raw.call(8, &request);
        let partition = &answer.groups[0].topics[0].partitions[0];
        (partition.error_code, partition.committed_offset)
    }

    fn list(&mut self, name: &str, timestamp: i64, isolation: i8) -> (i16, i64, i64) {
        let wanted = ListOffsetsPartition::default().with_timestamp(timestamp).with_current_leader_epoch(-1);
        let wanted = ListOffsetsTopic::default().with_name(topic(name)).with_partitions(vec![wanted]);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_isolation_level(isolation)
            .with_topics(vec![wanted]);
        let answer = self.raw.call(7, &request);
        let partition = &answer.topics[0].partitions[0];
        (partition.error_code, partition.offset, partition.timestamp)
    }

    fn offsets(&mut self, name: &str, offset: i64, isolation: i8) -> (i16, i64, i64, i64, usize) {
        let partition = self.raw.fetch(name, offset, isolation, 1_000_000, -1);
        let aborted = partition.aborted_transactions.map_or(0, |aborted| aborted.len());
        (
            partition.error_code,
            partition.high_watermark,
            partition.last_stable_offset,
            partition.log_start_offset,
            aborted,
        )
    }

    fn join_request(&self, group: &str, member: &str, instance: Option<&str>, protocols: &[&str]) -> JoinGroupRequest {
        let protocol = |name: &&str| {
            JoinGroupRequestProtocol::default().with_name(text(name)).with_metadata(Bytes::from_static(b"meta"))
        };
        JoinGroupRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_session_timeout_ms(10_000)
            .with_rebalance_timeout_ms(10_000)
            .with_member_id(text(member))
            .with_group_instance_id(instance.map(text))
            .with_protocol_type(text("consumer"))
            .with_protocols(protocols.iter().map(protocol).collect())
    }

    fn join(&mut self, request: &JoinGroupRequest) -> JoinGroupResponse {
        loop {
            let answer = self.raw.call(6, request);
            if !(14..=16).contains(&answer.error_code) {
                return answer;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn sync(&mut self, group: &str, member: &str, generation: i32, assigned: &[&str]) -> (i16, Bytes) {
        let request = sync_request(group, member, generation, assigned);
        let answer = self.raw.call(4, &request);
        (answer.error_code, answer.assignment)
    }

    fn heartbeat(&mut self, group: &str, member: &str, instance: Option<&str>, generation: i32) -> i16 {
        let request = HeartbeatRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_member_id(text(member))
            .with_group_instance_id(instance.map(text))
            .with_generation_id(generation);
        self.raw.call(4, &request).error_code
    }
}

fn sync_request(group: &str, member: &str, generation: i32, assigned: &[&str]) -> SyncGroupRequest {
    let assignment = |member: &&str| {
        SyncGroupRequestAssignment::default().with_member_id(text(member)).with_assignment(Bytes::from_static(b"share"))
    };
    SyncGroupRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_member_id(text(member))
        .with_generation_id(generation)
        .with_assignments(assigned.iter().map(assignment).collect())
}

fn produce_rules(run: &mut Run) {
    let plain = run.topic("plain", &[("max.message.bytes", "2000")]);
    let compact = run.topic("compact", &[("cleanup.policy", "compact")]);
    let stamped = run.topic("stamped", &[("message.timestamp.type", "LogAppendTime")]);
    let good = Batch::of(&["a", "b"]);
    let nowhere = run.name("nowhere");
    say!(run, "produce good", run.raw.produce(&plain, None, good.bytes()));
    say!(run, "produce again without a producer id", run.raw.produce(&plain, None, good.bytes()));
    say!(run, "produce to an unknown topic", run.raw.produce(&nowhere, None, good.bytes()).0);
    let mut corrupt = good.bytes().to_vec();
    *corrupt.last_mut().unwrap() ^= 1;
    say!(run, "produce corrupt", run.raw.produce(&plain, None, corrupt.into()).0);
    let large = Batch::of(&[LONG; 200]);
    say!(run, "produce too large", run.raw.produce(&plain, None, large.bytes()).0);
    let mut miscounted = good.clone();
    miscounted.header.records = 3;
    say!(run, "produce with a wrong count", run.raw.produce(&plain, None, miscounted.bytes()).0);
    let mut gapped = good.clone();
    gapped.header.last_offset_delta = 5;
    say!(run, "produce with a wrong last offset", run.raw.produce(&plain, None, gapped.bytes()).0);
    let mut control = good.clone();
    control.header.attributes |= 1 << 5;
    say!(run, "produce a control batch", run.raw.produce(&plain, None, control.bytes()).0);
    let keyless = Batch { records: vec![(None, Some("a")), (None, Some("b"))], ..good.clone() };
    say!(run, "produce without key to a compacted topic", run.raw.produce(&compact, None, keyless.bytes()).0);
    say!(run, "produce without key", run.raw.produce(&plain, None, keyless.bytes()));
    let two = [good.bytes(), good.bytes()].concat();
    say!(run, "produce two batches at once", run.raw.produce(&plain, None, two.into()).0);
    let future = good.clone().at(crate::broker::now_ms() + 2 * 3_600_000);
    say!(run, "produce from the future", run.raw.produce(&plain, None, future.bytes()).0);
    say!(run, "produce from the future to a stamped topic", run.raw.produce(&stamped, None, future.bytes()));
    say!(run, "produce from long ago", run.raw.produce(&plain, None, good.clone().at(1_000).bytes()));
    say!(
        run,
        "produce in a transaction without id",
        run.raw.produce(&plain, None, good.clone().by((1, 0), 0).transactional().bytes()).0 != 0
    );
    let list = run.list(&plain, -1, 0);
    say!(run, "end after all this", list);
}

const LONG: &str = "a value of some length";

fn idempotence(run: &mut Run) {
    let name = run.topic("idempotent", &[]);
    let (code, id, epoch) = run.init(None, 10_000, (-1, -1));
    say!(run, "an idempotent producer", code, epoch);
    let batch = |epoch, sequence| Batch::of(&["a", "b"]).by((id, epoch), sequence).bytes();
    for number in 0..6 {
        say!(run, "in sequence", run.raw.produce(&name, None, batch(0, number * 2)));
    }
    say!(run, "the last one again", run.raw.produce(&name, None, batch(0, 10)));
    say!(run, "the fifth last again", run.raw.produce(&name, None, batch(0, 2)));
    say!(run, "the sixth last again", run.raw.produce(&name, None, batch(0, 0)).0);
    say!(run, "a gap", run.raw.produce(&name, None, batch(0, 14)).0);
    say!(run, "a new epoch in the middle", run.raw.produce(&name, None, batch(1, 12)).0);
    say!(run, "a new epoch", run.raw.produce(&name, None, batch(1, 0)));
    say!(run, "the old epoch", run.raw.produce(&name, None, batch(0, 12)).0);
    say!(
        run,
        "a stranger in the middle",
        run.raw.produce(&name, None, Batch::of(&["a"]).by((id + 100_000, 0), 40).bytes()).0
    );
}

fn transactions(run: &mut Run) {
    let (name, other) = (run.topic("tx", &[]), run.topic("tx2", &[]));
    let (id, nowhere) = (run.name("id"), run.name("nowhere"));
    say!(run, "init without timeout", run.init(Some(&id), 0, (-1, -1)).0);
    say!(run, "init with a long timeout", run.init(Some(&id), 900_001, (-1, -1)).0);
    let (code, pid, epoch) = run.init(Some(&id), 60_000, (-1, -1));
    say!(run, "init", code, epoch);
    let me = (pid, epoch);
    say!(run, "end nothing", run.end(&id, me, true));
    say!(run, "add to an unknown id", run.add(&nowhere, me, &[&name]));
    say!(run, "add with a wrong producer id", run.add(&id, (pid + 1, 0), &[&name]));
    say!(run, "add with a wrong epoch", run.add(&id, (pid, 5), &[&name]));
    say!(run, "add an unknown topic beside a known one", run.add(&id, me, &[&nowhere, &name]));
    say!(run, "add", run.add(&id, me, &[&name]));
    say!(run, "add again", run.add(&id, me, &[&name]));
    let batch = |epoch, sequence| Batch::of(&["a", "b"]).by((pid, epoch), sequence).transactional().bytes();
    say!(run, "produce", run.raw.produce(&name, Some(&id), batch(0, 0)));
    say!(run, "produce to a partition that was not added", run.raw.produce(&other, Some(&id), batch(0, 0)).0);
    say!(run, "open: offsets, uncommitted", run.offsets(&name, 0, 0));
    say!(run, "open: offsets, committed", run.offsets(&name, 0, 1));
    say!(run, "open: latest, uncommitted", run.list(&name, -1, 0));
    say!(run, "open: latest, committed", run.list(&name, -1, 1));
    say!(run, "end with a wrong epoch", run.end(&id, (pid, 3), true));
    say!(run, "end with a wrong id", run.end(&id, (pid + 1, 0), true));
    say!(run, "commit", run.end(&id, me, true));
    say!(run, "commit again", run.end(&id, me, true));
    say!(run, "abort after commit", run.end(&id, me, false));
    super::until("the marker", || run.list(&name, -1, 1).1 == 3);
    say!(run, "committed: offsets", run.offsets(&name, 0, 1));
    say!(run, "produce outside a transaction", run.raw.produce(&name, Some(&id), batch(0, 2)).0);
    say!(run, "add for the second", run.add(&id, me, &[&name, &other]));
    say!(run, "produce the second", run.raw.produce(&name, Some(&id), batch(0, 2)));
    say!(run, "abort", run.end(&id, me, false));
    say!(run, "abort again", run.end(&id, me, false));
    say!(run, "commit after abort", run.end(&id, me, true));
    super::until("the marker", || run.list(&name, -1, 1).1 == 6);
    say!(run, "aborted: offsets from the start", run.offsets(&name, 0, 1));
    say!(run, "aborted: offsets inside", run.offsets(&name, 4, 1));
    say!(run, "aborted: offsets at the marker", run.offsets(&name, 5, 1));
    say!(run, "aborted: offsets behind", run.offsets(&name, 6, 1));
    say!(run, "aborted: offsets, uncommitted", run.offsets(&name, 0, 0));
    say!(run, "a marker where nothing was written", run.list(&other, -1, 1));
    let (code, again, epoch) = run.init(Some(&id), 60_000, me);
    say!(run, "init with the present epoch", code, again == pid, epoch);
    say!(run, "init with the epoch before", run.init(Some(&id), 60_000, me).0);
    let (code, _, epoch) = run.init(Some(&id), 60_000, (-1, -1));
    say!(run, "init as a successor", code, epoch);
    say!(run, "init with an old epoch", run.init(Some(&id), 60_000, (pid, 0)).0);
    say!(run, "the fenced one adds", run.add(&id, (pid, 1), &[&name]));
    say!(run, "the fenced one ends", run.end(&id, (pid, 1), true));
    let me = (pid, 2);
    say!(run, "add for the third", run.add(&id, me, &[&name]));
    say!(run, "produce the third", run.raw.produce(&name, Some(&id), batch(2, 0)));
    let (code, _, epoch) = run.init(Some(&id), 60_000, (-1, -1));
    say!(run, "init while it is open", code, epoch);
    super::until("the abort", || run.list(&name, -1, 1).1 == 9);
    say!(run, "the fenced one produces", run.raw.produce(&name, Some(&id), batch(2, 2)).0);
    say!(run, "after fencing: offsets", run.offsets(&name, 0, 1));
}

fn transactional_offsets(run: &mut Run) {
    let name = run.topic("source", &[]);
    let (id, group) = (run.name("offsets-id"), run.name("offsets-group"));
    let (_, pid, epoch) = run.init(Some(&id), 60_000, (-1, -1));
    let me = (pid, epoch);
    say!(run, "commit one first", run.commit(&group, ("", -1), &name, 1, "m"));
    say!(run, "offsets of a group that was not added", run.txn_commit(&id, me, &group, ("", -1), &name, 5));
    say!(run, "add offsets with a wrong epoch", run.add_offsets(&id, (pid, 7), &group));
    say!(run, "add offsets", run.add_offsets(&id, me, &group));
    say!(run, "txn commit", run.txn_commit(&id, me, &group, ("", -1), &name, 5));
    say!(run, "txn commit by an unknown member", run.txn_commit(&id, me, &group, ("who", 1), &name, 6));
    say!(run, "txn commit with a wrong epoch", run.txn_commit(&id, (pid, 9), &group, ("", -1), &name, 6) != 0);
    say!(run, "held: plain fetch", run.committed(&group, &name, false));
    say!(run, "held: stable fetch", run.committed(&group, &name, true));
    say!(run, "abort", run.end(&id, me, false));
    super::until("the abort", || run.committed(&group, &name, true).0 == 0);
    say!(run, "after abort", run.committed(&group, &name, true));
    say!(run, "add offsets again", run.add_offsets(&id, me, &group));
    say!(run, "txn commit again", run.txn_commit(&id, me, &group, ("", -1), &name, 8));
    say!(run, "commit", run.end(&id, me, true));
    super::until("the commit", || run.committed(&group, &name, true).0 == 0);
    say!(run, "after commit", run.committed(&group, &name, true));
}

fn offsets_by_time(run: &mut Run) {
    let name = run.topic("times", &[("retention.ms", "-1")]);
    let base = 1_700_000_000_000;
    say!(run, "empty: earliest", run.list(&name, -2, 0));
    say!(run, "empty: latest", run.list(&name, -1, 0));
    say!(run, "empty: by time", run.list(&name, base, 0));
    say!(run, "empty: largest time", run.list(&name, -3, 0));
    for time in [base + 10, base + 50, base + 30, base + 40] {
        run.raw.produce(&name, None, Batch::of(&["a", "b"]).at(time).bytes());
    }
    for time in [0, base + 10, base + 11, base + 30, base + 50, base + 51] {
        say!(run, format!("by time {}", time - base), run.list(&name, time, 0));
    }
    say!(run, "largest time", run.list(&name, -3, 0));
    say!(run, "an unknown special", run.list(&name, -17, 0).0 != 0);
    let nowhere = run.name("nowhere");
    say!(run, "by time in an unknown topic", run.list(&nowhere, base, 0));
    say!(run, "fetch behind the end", run.offsets(&name, 9, 0).0);
    say!(run, "fetch at the end", run.offsets(&name, 8, 0).0);
    say!(run, "fetch before the start", run.offsets(&name, -5, 0).0);
    say!(run, "fetch with a later leader epoch", run.raw.fetch(&name, 0, 0, 1_000, 5).error_code);
    say!(run, "fetch one byte", run.raw.fetch(&name, 0, 0, 1, -1).records.map(|records| !records.is_empty()));
    say!(run, "fetch an unknown topic", run.raw.fetch(&nowhere, 0, 0, 1_000, -1).error_code);
    let delete = |run: &mut Run, offset| {
        let wanted = delete_records_request::DeleteRecordsPartition::default().with_offset(offset);
        let wanted =
            delete_records_request::DeleteRecordsTopic::default().with_name(topic(&name)).with_partitions(vec![wanted]);
        let request = DeleteRecordsRequest::default().with_topics(vec![wanted]).with_timeout_ms(10_000);
        let answer = run.raw.call(2, &request);
        let partition = &answer.topics[0].partitions[0];
        (partition.error_code, partition.low_watermark)
    };
    say!(run, "delete behind the end", delete(run, 9));
    say!(run, "delete three", delete(run, 3));
    say!(run, "delete less", delete(run, 1));
    say!(run, "after deletion: earliest", run.list(&name, -2, 0));
    say!(run, "after deletion: by time", run.list(&name, 0, 0));
    say!(run, "after deletion: by time in the middle of a batch", run.list(&name, base + 45, 0));
    say!(run, "after deletion: fetch before", run.offsets(&name, 2, 0).0);
    say!(run, "after deletion: offsets", run.offsets(&name, 3, 0));
    say!(run, "delete all", delete(run, -1));
    say!(run, "after deletion of all: earliest", run.list(&name, -2, 0));
}

fn groups(run: &mut Run) {
    let name = run.topic("grouped", &[]);
    let group = run.name("group");
    let mut bad = run.join_request(&group, "", None, &["range"]);
    bad.session_timeout_ms = 1;
    say!(run, "join with a short session", run.join(&bad).error_code);
    say!(
        run,
        "join an unknown group as somebody",
        run.join(&run.join_request(&group, "who", None, &["range"])).error_code
    );
    say!(run, "join without protocols", run.join(&run.join_request(&group, "", None, &[])).error_code);
    let first = run.join(&run.join_request(&group, "", None, &["range", "sticky"]));
    say!(run, "join without id", first.error_code, first.generation_id);
    let a = first.member_id.to_string();
    let joined = run.join(&run.join_request(&group, &a, None, &["range", "sticky"]));
    say!(
        run,
        "join with the id given",
        joined.error_code,
        joined.generation_id,
        joined.leader == joined.member_id,
        joined.members.len()
    );
    say!(run, "protocol chosen", joined.protocol_name);
    say!(run, "heartbeat before the sync", run.heartbeat(&group, &a, None, 1));
    say!(run, "commit before the sync", run.commit(&group, (&a, 1), &name, 1, ""));
    say!(run, "sync with a wrong generation", run.sync(&group, &a, 9, &[&a]).0);
    say!(run, "sync as a stranger", run.sync(&group, "who", 1, &[]).0);
    say!(run, "sync", run.sync(&group, &a, 1, &[&a]));
    say!(run, "sync again", run.sync(&group, &a, 1, &[]));
    say!(run, "heartbeat", run.heartbeat(&group, &a, None, 1));
    say!(run, "heartbeat of a wrong generation", run.heartbeat(&group, &a, None, 2));
    say!(run, "heartbeat of a stranger", run.heartbeat(&group, "who", None, 1));
    say!(run, "commit", run.commit(&group, (&a, 1), &name, 7, ""));
    say!(run, "commit of a wrong generation", run.commit(&group, (&a, 0), &name, 7, ""));
    say!(run, "commit of a stranger", run.commit(&group, ("who", 1), &name, 7, ""));
    say!(run, "commit without being a member", run.commit(&group, ("", -1), &name, 7, ""));
    say!(run, "commit with long metadata", run.commit(&group, (&a, 1), &name, 7, &"m".repeat(5_000)));
    let nowhere = run.name("nowhere");
    say!(run, "commit for an unknown topic", run.commit(&group, (&a, 1), &nowhere, 7, ""));
    say!(run, "committed", run.committed(&group, &name, true));
    say!(run, "committed of an unknown group", run.committed(&nowhere, &name, true));
    say!(run, "join with other protocols", run.join(&run.join_request(&group, "", None, &["other"])).error_code);
    second_member(run, &group, &name, &a);
}

fn second_member(run: &mut Run, group: &str, name: &str, a: &str) {
    let mut other = run.another();
    let announced = other.call(6, &run.join_request(group, "", None, &["sticky"]));
    let b = announced.member_id.to_string();
    other.send(6, &run.join_request(group, &b, None, &["sticky"]));
    super::until("the rebalance", || run.heartbeat(group, a, None, 1) == 27);
    say!(run, "commit during the rebalance", run.commit(group, (a, 1), name, 9, ""));
    say!(run, "sync during the rebalance", run.sync(group, a, 1, &[]).0);
    let leader = run.join(&run.join_request(group, a, None, &["range", "sticky"]));
    let follower = other.receive::<JoinGroupRequest>(6);
    say!(
        run,
        "both join",
        leader.error_code,
        leader.generation_id,
        leader.members.len(),
        follower.error_code,
        follower.members.len()
    );
    say!(run, "the common protocol", follower.protocol_name, *follower.leader == *a);
    other.send(4, &sync_request(group, &b, 2, &[]));
    say!(run, "the leader syncs", run.sync(group, a, 2, &[a, &b]));
    let synced = other.receive::<SyncGroupRequest>(4);
    say!(run, "the follower syncs", synced.error_code, synced.assignment);
    let describe = |run: &mut Run| {
        let answer = run.raw.call(5, &DescribeGroupsRequest::default().with_groups(vec![GroupId(text(group))]));
        let group = &answer.groups[0];
        (
            group.error_code,
            group.group_state.to_string(),
            group.protocol_type.to_string(),
            group.protocol_data.to_string(),
            group.members.len(),
        )
    };
    say!(run, "described", describe(run));
    let delete = |run: &mut Run, id: &str| {
        run.raw.call(2, &DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text(id))])).results[0]
            .error_code
    };
    say!(run, "delete with members", delete(run, group));
    let leave = |run: &mut Run, member: &str| {
        let member = MemberIdentity::default().with_member_id(text(member));
        let answer = run
            .raw
            .call(4, &LeaveGroupRequest::default().with_group_id(GroupId(text(group))).with_members(vec![member]));
        (answer.error_code, answer.members[0].error_code)
    };
    say!(run, "a stranger leaves", leave(run, "who"));
    say!(run, "the follower leaves", leave(run, &b));
    say!(run, "the leader has to rejoin", run.heartbeat(group, a, None, 2));
    say!(run, "the leader leaves", leave(run, a));
    say!(run, "described when empty", describe(run));
    say!(run, "commit into the empty group", run.commit(group, ("", -1), name, 11, ""));
    say!(run, "commit into the empty group as a member", run.commit(group, (a, 2), name, 11, ""));
    say!(run, "delete when empty", delete(run, group));
    say!(run, "delete again", delete(run, group));
    say!(run, "described when gone", describe(run));
    say!(run, "committed when gone", run.committed(group, name, true));
}

fn static_members(run: &mut Run) {
    let group = run.name("static");
    let first = run.join(&run.join_request(&group, "", Some("one"), &["range"]));
    say!(run, "a static member joins", first.error_code, first.generation_id);
    let a = first.member_id.to_string();
    say!(run, "it syncs", run.sync(&group, &a, 1, &[&a]));
    let again = run.join(&run.join_request(&group, "", Some("one"), &["range"]));
    say!(run, "it comes back", again.error_code, again.generation_id, again.member_id != first.member_id);
    let b = again.member_id.to_string();
    say!(run, "its old id", run.heartbeat(&group, &a, Some("one"), 1));
    say!(run, "its old id without instance", run.heartbeat(&group, &a, None, 1));
    say!(run, "its new id", run.heartbeat(&group, &b, Some("one"), 1));
    say!(run, "its assignment is kept", run.sync(&group, &b, 1, &[]));
    say!(run, "the old id joins", run.join(&run.join_request(&group, &a, Some("one"), &["range"])).error_code);
    say!(run, "an unknown instance", run.heartbeat(&group, &b, Some("two"), 1));
    let member = MemberIdentity::default().with_group_instance_id(Some(text("one")));
    let answer =
        run.raw.call(4, &LeaveGroupRequest::default().with_group_id(GroupId(text(&group))).with_members(vec![member]));
    say!(run, "it leaves by instance id", answer.error_code, answer.members[0].error_code);
}

fn topics(run: &mut Run) {
    let name = run.topic("made", &[]);
    let fresh = run.name("fresh");
    let wanted = |name: &str, partitions, factor| {
        CreatableTopic::default().with_name(topic(name)).with_num_partitions(partitions).with_replication_factor(factor)
    };
    say!(run, "create again", run.create(wanted(&name, 1, 1), &[]));
    say!(run, "create without partitions", run.create(wanted(&fresh, 0, 1), &[]));
    say!(run, "create with three replicas", run.create(wanted(&fresh, 1, 3), &[]));
    say!(run, "create with a bad name", run.create(wanted("a/b", 1, 1), &[]));
    say!(run, "create with an empty name", run.create(wanted("", 1, 1), &[]));
    say!(run, "create with an unknown config", run.create(wanted(&fresh, 1, 1), &[("retention.sm", "1")]));
    say!(run, "create with a bad value", run.create(wanted(&fresh, 1, 1), &[("retention.ms", "soon")]));
    say!(run, "create with a value out of range", run.create(wanted(&fresh, 1, 1), &[("segment.ms", "0")]));
    let collision = name.replace('-', ".");
    say!(run, "create one with dots", run.create(wanted(&collision, 1, 1), &[]));
    say!(run, "create one that collides with it", run.create(wanted(&name.replace('-', "_"), 1, 1), &[]));
    let assignment = CreatableReplicaAssignment::default().with_partition_index(0).with_broker_ids(vec![BrokerId(1)]);
    let assigned = wanted(&run.name("assigned"), -1, -1).with_assignments(vec![assignment]);
    say!(run, "create with an assignment", run.create(assigned, &[]));
    let grow = |run: &mut Run, name: &str, count| {
        let wanted = create_partitions_request::CreatePartitionsTopic::default()
            .with_name(topic(name))
            .with_count(count)
            .with_assignments(None);
        let request = CreatePartitionsRequest::default().with_topics(vec![wanted]).with_timeout_ms(10_000);
        run.raw.call(2, &request).results[0].error_code
    };
    say!(run, "grow", grow(run, &name, 4));
    say!(run, "grow to the same", grow(run, &name, 4));
    say!(run, "shrink", grow(run, &name, 1));
    say!(run, "grow an unknown topic", grow(run, &fresh, 4));
    configs(run, &name, &fresh);
    let delete = |run: &mut Run, name: &str| {
        let wanted = delete_topics_request::DeleteTopicState::default().with_name(Some(topic(name)));
        let request = DeleteTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(10_000);
        run.raw.call(6, &request).responses[0].error_code
    };
    say!(run, "delete", delete(run, &name));
    say!(run, "delete an unknown topic", delete(run, &fresh));
}

fn configs(run: &mut Run, name: &str, fresh: &str) {
    let alter = |run: &mut Run, name: &str, config: &str, operation, value: Option<&str>| {
        let config = incremental_alter_configs_request::AlterableConfig::default()
            .with_name(text(config))
            .with_config_operation(operation)
            .with_value(value.map(text));
        let resource = incremental_alter_configs_request::AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text(name))
            .with_configs(vec![config]);
        run.raw.call(1, &IncrementalAlterConfigsRequest::default().with_resources(vec![resource])).responses[0]
            .error_code
    };
    let shown = |run: &mut Run, config: &str| {
        let resource = describe_configs_request::DescribeConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text(name))
            .with_configuration_keys(Some(vec![text(config)]));
        let answer = run.raw.call(4, &DescribeConfigsRequest::default().with_resources(vec![resource]));
        answer.results[0].configs.first().map(|config| (config.value.clone(), config.config_source, config.config_type))
    };
    say!(run, "alter", alter(run, name, "retention.ms", 0, Some("5000")));
    super::until("the change", || {
        shown(run, "retention.ms").is_some_and(|(value, ..)| value.as_deref() == Some("5000"))
    });
    say!(run, "altered", shown(run, "retention.ms"));
    say!(run, "alter with a bad value", alter(run, name, "retention.ms", 0, Some("never")));
    say!(run, "alter an unknown name", alter(run, name, "retention.sm", 0, Some("1")));
    say!(run, "alter without value", alter(run, name, "retention.ms", 0, None));
    say!(run, "append to a list", alter(run, name, "cleanup.policy", 2, Some("compact")));
    super::until("the change", || {
        shown(run, "cleanup.policy").is_some_and(|(value, ..)| value.as_deref() == Some("delete,compact"))
    });
    say!(run, "appended", shown(run, "cleanup.policy"));
    say!(run, "append to a number", alter(run, name, "retention.ms", 2, Some("1")));
    say!(run, "alter an unknown topic", alter(run, fresh, "retention.ms", 0, Some("1")));
    say!(run, "reset", alter(run, name, "retention.ms", 1, None));
    super::until("the change", || {
        shown(run, "retention.ms").is_some_and(|(value, ..)| value.as_deref() == Some("604800000"))
    });
    for known in crate::broker::topic_config::KNOWN {
        let (value, _, kind) = shown(run, known.name).unwrap_or_default();
        if known.name != "cleanup.policy" {
            say!(run, format!("default of {}", known.name), value, kind);
        }
    }
}

type Case = fn(&mut Run);

const RECORDED: &str = include_str!("conformance.txt");

#[test]
fn results_equal_those_recorded_from_apache_kafka() {
    let elsewhere = std::env::var("HOKUSAI_CONFORMANCE_BROKERS").ok();
    let cluster = elsewhere.is_none().then(Cluster::start);
    let address = elsewhere.or_else(|| cluster.as_ref().map(|cluster| cluster.broker().address().to_string())).unwrap();
    let suffix = crate::broker::now_ms().to_string();
    let mut run = Run { raw: Raw::connect(&address), address, suffix, said: Vec::new() };
    let cases: [(&str, Case); 8] = [
        ("produce rules", produce_rules),
        ("idempotence", idempotence),
        ("transactions", transactions),
        ("transactional offsets", transactional_offsets),
        ("offsets by time", offsets_by_time),
        ("groups", groups),
        ("static members", static_members),
        ("topics", topics),
    ];
    for kind in 0..2 {
        // Apache Kafka makes its internal topics when somebody first asks for a coordinator.
        super::until("a coordinator", || {
            let request =
                FindCoordinatorRequest::default().with_key_type(kind).with_coordinator_keys(vec![text("any")]);
            run.raw.call(4, &request).coordinators[0].error_code == 0
        });
    }
    for (name, case) in cases {
        run.said.push(format!("# {name}"));
        case(&mut run);
    }
    let said = run.said.join("\n") + "\n";
    if std::env::var("HOKUSAI_CONFORMANCE_RECORD").is_ok() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/broker/tests/conformance.txt"), said).unwrap();
        return;
    }
    let differences: Vec<String> = RECORDED
        .lines()
        .zip(said.lines())
        .filter(|(recorded, said)| recorded != said)
        .map(|(recorded, said)| format!("recorded {recorded}\n     now {said}"))
        .collect();
    assert!(differences.is_empty() && RECORDED.lines().count() == said.lines().count(), "\n{}", differences.join("\n"));
}
