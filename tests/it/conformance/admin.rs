//! Topics and their settings: created, described, altered, grown, deleted; every refusal by its name.

use crate::on_both_brokers;
use crate::support::broker::Broker;
use crate::support::client::{
    Isolation, Producer, admin, admin_options, create_topic, partitions, read_texts, topic, wait,
};
use crate::support::raw::{Raw, error, text};
use crate::support::{eventually, unique};
use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::incremental_alter_configs_request as incremental;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    AlterConfigsRequest, BrokerId, CreateTopicsRequest, FindCoordinatorRequest, IncrementalAlterConfigsRequest,
    MetadataRequest, TopicName,
};
use rdkafka::admin::{ConfigEntry, NewPartitions, ResourceSpecifier};
use rdkafka::error::RDKafkaErrorCode;

on_both_brokers! {
    a_topic_is_created_once,
    bad_topics_are_refused_by_name,
    a_topic_grows_and_never_shrinks,
    settings_are_described_as_given_and_altered,
    a_deleted_topic_is_gone_and_a_new_one_has_another_id,
    one_node_is_leader_controller_and_coordinator,
}

fn a_topic_is_created_once(broker: &Broker) {
    let name = unique("once");
    let seen = [create_topic(broker, &name, 2, &[]), create_topic(broker, &name, 2, &[])];
    assert_eq!(seen, [Ok(()), Err(RDKafkaErrorCode::TopicAlreadyExists)]);
    assert_eq!(partitions(broker, &name), 2);
}

fn create(raw: &mut Raw, name: &str, partitions: i32, replication: i16, validate_only: bool) -> String {
    let topic = CreatableTopic::default()
        .with_name(TopicName(text(name)))
        .with_num_partitions(partitions)
        .with_replication_factor(replication);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(30_000)
        .with_validate_only(validate_only);
    error(raw.call(5, &request).topics[0].error_code)
}

fn bad_topics_are_refused_by_name(broker: &Broker) {
    let mut raw = Raw::connect(broker);
    let only_checked = unique("checked");
    let seen = [
        create(&mut raw, "no spaces", 1, 1, false),
        create(&mut raw, "..", 1, 1, false),
        create(&mut raw, &"x".repeat(250), 1, 1, false),
        create(&mut raw, &unique("zero"), 0, 1, false),
        create(&mut raw, &unique("replicas"), 1, 3, false),
        create(&mut raw, &only_checked, 1, 1, true),
        create(&mut raw, &only_checked, 1, 1, false),
    ];
    let expected = [
        "InvalidTopicException",
        "InvalidTopicException",
        "InvalidTopicException",
        "InvalidPartitions",
        "InvalidReplicationFactor",
        "None",
        "None",
    ];
    assert_eq!(seen, expected);
    let seen = [
        create_topic(broker, &unique("setting"), 1, &[("retention.ms", "soon")]),
        create_topic(broker, &unique("setting"), 1, &[("no.such.setting", "1")]),
        create_topic(broker, &unique("setting"), 1, &[("cleanup.policy", "shred")]),
    ];
    assert_eq!(seen, [Err(RDKafkaErrorCode::InvalidConfig); 3]);
}

fn a_topic_grows_and_never_shrinks(broker: &Broker) {
    let topic = topic(broker, "grows", 1, &[]);
    let grow = |count| {
        let result = wait(admin(broker).create_partitions(&[NewPartitions::new(&topic, count)], &admin_options()))
            .unwrap()
            .remove(0);
        result.map(|_| ()).map_err(|(_, code)| code)
    };
    assert_eq!(
        [grow(3), grow(3), grow(2)],
        [Ok(()), Err(RDKafkaErrorCode::InvalidPartitions), Err(RDKafkaErrorCode::InvalidPartitions)]
    );
    eventually("three partitions", || match partitions(broker, &topic) {
        3 => Ok(()),
        other => Err(other.to_string()),
    });
    let producer = Producer::new(broker, &[]);
    for partition in 0..3 {
        assert_eq!(producer.texts(&topic, partition, ["x"]), [Ok((partition, 0))]);
    }
    let nowhere = unique("nowhere");
    let missing =
        wait(admin(broker).create_partitions(&[NewPartitions::new(&nowhere, 3)], &admin_options())).unwrap().remove(0);
    assert_eq!(missing.map_err(|(_, code)| code), Err(RDKafkaErrorCode::UnknownTopicOrPartition));
}

fn described(broker: &Broker, topic: &str, names: &[&str]) -> Vec<(String, Option<String>, bool)> {
    let mut results =
        wait(admin(broker).describe_configs(&[ResourceSpecifier::Topic(topic)], &admin_options())).unwrap();
    let entries: Vec<ConfigEntry> = results.remove(0).unwrap().entries;
    let find = |name: &&str| {
        entries.iter().find(|e| e.name == **name).map(|e| (e.name.clone(), e.value.clone(), e.is_default))
    };
    names.iter().filter_map(find).collect()
}

/// `AlterConfigs`: the topic has these settings and no others.
fn alter(broker: &Broker, topic: &str, name: &str, value: &str) -> String {
    let setting = AlterableConfig::default().with_name(text(name)).with_value(Some(text(value)));
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(topic))
        .with_configs(vec![setting]);
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    error(Raw::connect(broker).call(1, &request).responses[0].error_code)
}

/// `IncrementalAlterConfigs`: one setting beside the others.
fn set(broker: &Broker, topic: &str, name: &str, value: &str) -> String {
    let setting = incremental::AlterableConfig::default()
        .with_name(text(name))
        .with_value(Some(text(value)))
        .with_config_operation(0);
    let resource = incremental::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(topic))
        .with_configs(vec![setting]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    error(Raw::connect(broker).call(1, &request).responses[0].error_code)
}

fn settings_are_described_as_given_and_altered(broker: &Broker) {
    let topic = topic(
        broker,
        "settings",
        1,
        &[
            ("retention.ms", "86400000"),
            ("cleanup.policy", "compact,delete"),
            ("message.timestamp.type", "LogAppendTime"),
        ],
    );
    let entry = |name: &str, value: &str, default| (name.to_owned(), Some(value.to_owned()), default);
    assert_eq!(
        described(broker, &topic, &["retention.ms", "cleanup.policy", "message.timestamp.type", "segment.bytes"]),
        [
            entry("retention.ms", "86400000", false),
            entry("cleanup.policy", "compact,delete", false),
            entry("message.timestamp.type", "LogAppendTime", false),
            entry("segment.bytes", "1073741824", true),
        ]
    );
    assert_eq!(alter(broker, &topic, "retention.ms", "later"), "InvalidConfig");
    assert_eq!(alter(broker, &unique("nowhere"), "retention.ms", "1"), "UnknownTopicOrPartition");
    assert_eq!(set(broker, &topic, "segment.ms", "60000"), "None");
    assert_eq!(set(broker, &topic, "segment.ms", "often"), "InvalidConfig");
    eventually("a setting beside the others", || {
        let seen = described(broker, &topic, &["segment.ms", "retention.ms"]);
        let wanted = [entry("segment.ms", "60000", false), entry("retention.ms", "86400000", false)];
        if seen == wanted { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    assert_eq!(alter(broker, &topic, "retention.ms", "3600000"), "None");
    // AlterConfigs replaces all settings of the topic: what it does not name falls back.
    eventually("the new settings", || {
        let seen = described(broker, &topic, &["retention.ms", "cleanup.policy"]);
        let wanted = [entry("retention.ms", "3600000", false), entry("cleanup.policy", "delete", true)];
        if seen == wanted { Ok(()) } else { Err(format!("{seen:?}")) }
    });
}

fn topic_id(broker: &Broker, name: &str) -> (String, String) {
    let asked = MetadataRequestTopic::default().with_name(Some(TopicName(text(name))));
    let request = MetadataRequest::default().with_topics(Some(vec![asked])).with_allow_auto_topic_creation(true);
    let response = Raw::connect(broker).call(12, &request);
    (error(response.topics[0].error_code), response.topics[0].topic_id.to_string())
}

fn a_deleted_topic_is_gone_and_a_new_one_has_another_id(broker: &Broker) {
    let name = topic(broker, "recreated", 1, &[]);
    Producer::new(broker, &[]).texts(&name, 0, ["old"]);
    let (code, first) = topic_id(broker, &name);
    assert_eq!(code, "None");
    assert_eq!(topic_id(broker, &name).1, first, "an id does not change");
    let delete = || {
        wait(admin(broker).delete_topics(&[&name], &admin_options()))
            .unwrap()
            .remove(0)
            .map(|_| ())
            .map_err(|(_, code)| code)
    };
    assert_eq!([delete(), delete()], [Ok(()), Err(RDKafkaErrorCode::UnknownTopicOrPartition)]);
    assert_eq!(topic_id(broker, &name).0, "UnknownTopicOrPartition");
    create_topic(broker, &name, 1, &[]).unwrap();
    let (code, second) = topic_id(broker, &name);
    assert_eq!(code, "None");
    assert_ne!(second, first);
    assert_eq!(read_texts(broker, &name, Isolation::Uncommitted), [""; 0], "nothing of the old one");
    assert_eq!(Producer::new(broker, &[]).texts(&name, 0, ["new"]), [Ok((0, 0))]);
}

fn one_node_is_leader_controller_and_coordinator(broker: &Broker) {
    let mut raw = Raw::connect(broker);
    let response = raw.call(12, &MetadataRequest::default().with_topics(Some(vec![])));
    assert_eq!(response.brokers.len(), 1);
    let node = response.brokers[0].clone();
    assert_eq!(response.controller_id, node.node_id);
    assert_eq!(format!("{}:{}", node.host.as_str(), node.port), broker.bootstrap);
    for kind in [0, 1] {
        let request = FindCoordinatorRequest::default().with_key(text("anybody")).with_key_type(kind);
        let found = raw.settled(3, &request, |r| r.error_code);
        assert_eq!(
            (error(found.error_code).as_str(), found.node_id, found.port),
            ("None", BrokerId(node.node_id.0), node.port)
        );
    }
}
