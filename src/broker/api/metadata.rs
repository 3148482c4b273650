//! What the cluster is: versions, topics, nodes, coordinators.

use kafka_protocol::error::ResponseError as E;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

use super::{code, text, topic_name};
use crate::broker::connection::Context;
use crate::broker::log::partition::LEADER_EPOCH;
use crate::broker::node::{NODE_ID, Node};
use crate::broker::topic_config::Overrides;
use crate::broker::topics::{Topic, TopicError, TopicId};
use crate::broker::wire::SHAPES;

const BROKER: BrokerId = BrokerId(NODE_ID);

/// Every request this broker answers, with its versions.
pub(super) fn api_versions(version: i16) -> ApiVersionsResponse {
    let announced = |shape: &crate::broker::wire::Shape| {
        // librdkafka takes compression codecs for unsupported unless Produce starts at 0, as Apache Kafka 4 announces
        // it too; versions below 3 are refused when used.
        let min = if shape.api == ApiKey::Produce { 0 } else { shape.min };
        ApiVersion::default().with_api_key(shape.api as i16).with_min_version(min).with_max_version(shape.max)
    };
    let response = ApiVersionsResponse::default().with_api_keys(SHAPES.iter().map(announced).collect());
    if version >= 3 { response.with_finalized_features_epoch(0) } else { response }
}

/// Topics and where they live.
pub(super) async fn metadata(context: &Context, version: i16, request: MetadataRequest) -> MetadataResponse {
    let (host, port) = context.node.advertised(context.local);
    let node = MetadataResponseBroker::default().with_node_id(BROKER).with_host(text(host)).with_port(port);
    let everything = match &request.topics {
        None => true,
        Some(topics) => version == 0 && topics.is_empty(),
    };
    let topics = if everything {
        context.node.topics.all().iter().map(|topic| describe(topic)).collect()
    } else {
        let mut found = Vec::new();
        for wanted in request.topics.unwrap_or_default() {
            found.push(one_topic(&context.node, &wanted, request.allow_auto_topic_creation || version < 4).await);
        }
        found
    };
    MetadataResponse::default()
        .with_brokers(vec![node])
        .with_cluster_id(Some(text(context.node.cluster_id.as_str())))
        .with_controller_id(BROKER)
        .with_topics(topics)
}

async fn one_topic(node: &Node, wanted: &MetadataRequestTopic, may_create: bool) -> MetadataResponseTopic {
    let missing = MetadataResponseTopic::default().with_name(wanted.name.clone()).with_topic_id(wanted.topic_id);
    if let Some(id) = TopicId::from_wire(wanted.topic_id) {
        return match node.topics.by_id(id) {
            Some(topic) => describe(&topic),
            None => missing.with_error_code(E::UnknownTopicId.code()),
        };
    }
    let Some(name) = wanted.name.as_ref() else { return missing.with_error_code(E::InvalidTopicException.code()) };
    if let Some(topic) = node.topics.get(name) {
        return describe(&topic);
    }
    if !(may_create && node.config.auto_create_topics) {
        return missing.with_error_code(E::UnknownTopicOrPartition.code());
    }
    match node.topics.create(name, node.config.default_partitions, Overrides::new(), false) {
        Ok((topic, ticket)) => {
            if let Some(ticket) = ticket {
                let _ = node.flusher.wait(ticket).await;
            }
            describe(&topic)
        }
        Err(TopicError::Exists(_)) => missing.with_error_code(E::LeaderNotAvailable.code()),
        Err(_) => missing.with_error_code(E::InvalidTopicException.code()),
    }
}

fn describe(topic: &Topic) -> MetadataResponseTopic {
    let partition = |index: usize| {
        MetadataResponsePartition::default()
            .with_partition_index(index as i32)
            .with_leader_id(BROKER)
            .with_leader_epoch(LEADER_EPOCH)
            .with_replica_nodes(vec![BROKER])
            .with_isr_nodes(vec![BROKER])
    };
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(topic.name.as_str())))
        .with_topic_id(topic.id.wire())
        .with_partitions((0..topic.partitions().len()).map(partition).collect())
}

/// The cluster without topics.
pub(super) fn describe_cluster(context: &Context, request: DescribeClusterRequest) -> DescribeClusterResponse {
    // Type 2 asks for controllers, which listen elsewhere in Apache Kafka and do not exist here.
    if request.endpoint_type == 2 {
        return DescribeClusterResponse::default()
            .with_error_code(E::MismatchedEndpointType.code())
            .with_error_message(Some(StrBytes::from_static_str("this is a broker's endpoint")));
    }
    let (host, port) = context.node.advertised(context.local);
    DescribeClusterResponse::default()
        .with_endpoint_type(1)
        .with_cluster_id(text(context.node.cluster_id.as_str()))
        .with_controller_id(BROKER)
        .with_brokers(vec![
            DescribeClusterBroker::default().with_broker_id(BROKER).with_host(text(host)).with_port(port),
        ])
}

/// Topics page by page.
pub(super) fn describe_topic_partitions(
    node: &Node,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let mut names: Vec<String> = match request.topics.is_empty() {
        true => node.topics.all().iter().map(|topic| topic.name.clone()).collect(),
        false => request.topics.iter().map(|topic| topic.name.to_string()).collect(),
    };
    names.sort_unstable();
    names.dedup();
    let (from_topic, mut from_partition) = request
        .cursor
        .as_ref()
        .map_or((String::new(), 0), |cursor| (cursor.topic_name.to_string(), cursor.partition_index.max(0)));
    let mut room = usize::try_from(request.response_partition_limit.clamp(1, 2_000)).unwrap_or(1);
    let (mut topics, mut next) = (Vec::new(), None);
    for name in names.into_iter().filter(|name| *name >= from_topic) {
        let first = if name == from_topic { std::mem::take(&mut from_partition) } else { 0 };
        if room == 0 {
            next = Some(Cursor::default().with_topic_name(topic_name(name)).with_partition_index(first));
            break;
        }
        let answer = DescribeTopicPartitionsResponseTopic::default().with_name(Some(topic_name(name.as_str())));
        let Some(topic) = node.topics.get(&name) else {
            topics.push(answer.with_error_code(E::UnknownTopicOrPartition.code()));
            continue;
        };
        let count = topic.partitions().len();
        let shown: Vec<_> = (first as usize..count).take(room).map(partition_answer).collect();
        let end = first as usize + shown.len();
        room -= shown.len();
        topics.push(answer.with_topic_id(topic.id.wire()).with_partitions(shown));
        if end < count {
            next = Some(Cursor::default().with_topic_name(topic_name(name)).with_partition_index(end as i32));
            break;
        }
    }
    DescribeTopicPartitionsResponse::default().with_topics(topics).with_next_cursor(next)
}

fn partition_answer(index: usize) -> DescribeTopicPartitionsResponsePartition {
    DescribeTopicPartitionsResponsePartition::default()
        .with_partition_index(index as i32)
        .with_leader_id(BROKER)
        .with_leader_epoch(LEADER_EPOCH)
        .with_replica_nodes(vec![BROKER])
        .with_isr_nodes(vec![BROKER])
        .with_eligible_leader_replicas(Some(Vec::new()))
        .with_last_known_elr(Some(Vec::new()))
}

/// Who coordinates a group or a transactional id: always this node.
pub(super) fn find_coordinator(
    context: &Context,
    version: i16,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let (host, port) = context.node.advertised(context.local);
    let error = (!(0..=1).contains(&request.key_type)).then_some(E::InvalidRequest);
    if version < 4 {
        let response = FindCoordinatorResponse::default().with_error_code(code(error));
        return response.with_node_id(BROKER).with_host(text(host)).with_port(port);
    }
    let coordinator = |key: &StrBytes| {
        Coordinator::default()
            .with_key(key.clone())
            .with_node_id(BROKER)
            .with_host(text(host.as_str()))
            .with_port(port)
            .with_error_code(code(error))
    };
    FindCoordinatorResponse::default().with_coordinators(request.coordinator_keys.iter().map(coordinator).collect())
}
