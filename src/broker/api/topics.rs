//! Creating, growing and deleting topics, and deleting their records.

use std::collections::{BTreeSet, HashMap};

use kafka_protocol::error::ResponseError as E;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::*;

use super::{code_of, text, topic_name};
use crate::broker::flusher::Ticket;
use crate::broker::node::Node;
use crate::broker::topic_config::{ConfigError, KNOWN, Overrides};
use crate::broker::topics::{Topic, TopicError, TopicId};

/// The protocol's code for a refusal.
pub(super) fn topic_error(error: &TopicError) -> E {
    match error {
        TopicError::Exists(_) => E::TopicAlreadyExists,
        TopicError::Unknown => E::UnknownTopicOrPartition,
        TopicError::InvalidName(_) => E::InvalidTopicException,
        TopicError::InvalidPartitions(_) => E::InvalidPartitions,
        TopicError::Config(_) => E::InvalidConfig,
        TopicError::TooMany(_) => E::PolicyViolation,
        TopicError::Storage(_) => E::KafkaStorageError,
    }
}

async fn durable(node: &Node, ticket: Option<Ticket>) -> Result<(), TopicError> {
    match ticket {
        Some(ticket) => node.flusher.wait(ticket).await.map_err(|error| TopicError::Storage(error.to_string())),
        None => Ok(()),
    }
}

/// Creates topics.
pub(super) async fn create(node: &Node, version: i16, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for topic in &request.topics {
        *seen.entry(topic.name.to_string()).or_default() += 1;
    }
    let (mut results, mut last) = (Vec::new(), None);
    for topic in &request.topics {
        let name = topic.name.to_string();
        let answer = CreatableTopicResult::default().with_name(topic_name(name.as_str()));
        if seen.get(&name).is_some_and(|count| *count > 1) {
            let message = text("Duplicate topic name.");
            results.push(answer.with_error_code(E::InvalidRequest.code()).with_error_message(Some(message)));
            continue;
        }
        results.push(match create_one(node, topic, request.validate_only) {
            Ok((created, ticket)) => {
                last = last.max(ticket);
                created_answer(answer, &created, version)
            }
            Err((error, message)) => answer.with_error_code(error.code()).with_error_message(Some(text(message))),
        });
    }
    if durable(node, last).await.is_err() {
        for result in &mut results {
            result.error_code = E::KafkaStorageError.code();
        }
    }
    CreateTopicsResponse::default().with_topics(results)
}

type Refused = (E, String);

fn create_one(
    node: &Node,
    topic: &CreatableTopic,
    validate_only: bool,
) -> Result<(std::sync::Arc<Topic>, Option<Ticket>), Refused> {
    let partitions = match (topic.assignments.is_empty(), topic.num_partitions) {
        (true, -1) => node.config.default_partitions,
        (true, count) => count,
        (false, _) => assigned_partitions(topic)?,
    };
    if topic.assignments.is_empty() && topic.replication_factor != -1 && topic.replication_factor != 1 {
        let message = match topic.replication_factor {
            factor if factor > 1 => format!(
                "Unable to replicate the partition {factor} time(s): The target replication factor of {factor} cannot be reached because only 1 broker(s) are registered."
            ),
            _ => "Replication factor must be larger than 0, or -1 to use the default value.".into(),
        };
        return Err((E::InvalidReplicationFactor, message));
    }
    let mut overrides = Overrides::new();
    for config in &topic.configs {
        let name = config.name.to_string();
        let value = config.value.as_ref().ok_or_else(|| {
            let error = ConfigError::Null(name.clone());
            (E::InvalidConfig, error.to_string())
        })?;
        overrides.insert(name, value.to_string());
    }
    node.topics
        .create(&topic.name, partitions, overrides, validate_only)
        .map_err(|error| (topic_error(&error), error.to_string()))
}

/// The number of partitions of a manual assignment, which can only name this node.
fn assigned_partitions(topic: &CreatableTopic) -> Result<i32, Refused> {
    let refused = |message: &str| Err((E::InvalidReplicaAssignment, message.to_owned()));
    if topic.num_partitions != -1 || topic.replication_factor != -1 {
        let message =
            "A manual partition assignment was specified, but numPartitions or replicationFactor was not set to -1.";
        return Err((E::InvalidRequest, message.into()));
    }
    let indexes: BTreeSet<i32> = topic.assignments.iter().map(|assignment| assignment.partition_index).collect();
    let count = topic.assignments.len() as i32;
    if indexes.len() != topic.assignments.len() || indexes.first() != Some(&0) || indexes.last() != Some(&(count - 1)) {
        return refused("partitions should be a consecutive 0-based integer sequence");
    }
    let node = [BrokerId(crate::broker::node::NODE_ID)];
    match topic.assignments.iter().all(|assignment| assignment.broker_ids == node) {
        true => Ok(count),
        false => refused("every partition has this node as its only replica"),
    }
}

fn created_answer(answer: CreatableTopicResult, topic: &Topic, version: i16) -> CreatableTopicResult {
    let answer = if version >= 7 { answer.with_topic_id(topic.id.wire()) } else { answer };
    if version < 5 {
        return answer;
    }
    let overrides = topic.overrides();
    let config = |known: &crate::broker::topic_config::Known| {
        let own = overrides.get(known.name);
        CreatableTopicConfigs::default()
            .with_name(text(known.name))
            .with_value(Some(text(own.map_or(known.default, String::as_str))))
            .with_config_source(if own.is_some() {
                super::configs::TOPIC_SOURCE
            } else {
                super::configs::DEFAULT_SOURCE
            })
    };
    answer
        .with_num_partitions(topic.partitions().len() as i32)
        .with_replication_factor(1)
        .with_configs(Some(KNOWN.iter().map(config).collect()))
}

/// Deletes topics by name or id, and what groups have committed for them.
pub(super) async fn delete(node: &Node, version: i16, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let wanted: Vec<DeleteTopicState> = match version >= 6 {
        true => request.topics,
        false => {
            request.topic_names.into_iter().map(|name| DeleteTopicState::default().with_name(Some(name))).collect()
        }
    };
    let mut responses = Vec::new();
    for state in wanted {
        let by_id = TopicId::from_wire(state.topic_id);
        let found = match (by_id, &state.name) {
            (Some(id), None) => node.topics.by_id(id),
            (None, Some(name)) => node.topics.get(name),
            _ => None,
        };
        let unknown = if by_id.is_some() { E::UnknownTopicId } else { E::UnknownTopicOrPartition };
        let result = match &found {
            Some(topic) => delete_one(node, topic).await,
            None => Err(unknown),
        };
        let name = found.as_ref().map(|topic| topic_name(topic.name.as_str())).or(state.name);
        let answer = DeletableTopicResult::default().with_name(name).with_error_code(code_of(&result));
        responses.push(if version >= 6 {
            answer.with_topic_id(found.map_or(state.topic_id, |topic| topic.id.wire()))
        } else {
            answer
        });
    }
    DeleteTopicsResponse::default().with_responses(responses)
}

async fn delete_one(node: &Node, topic: &Topic) -> Result<(), E> {
    let ticket = node.topics.delete(topic).map_err(|error| topic_error(&error))?;
    durable(node, Some(ticket)).await.map_err(|error| topic_error(&error))?;
    node.groups.forget_topic(&topic.name);
    if let Err(error) = node.topics.remove_folder(topic.id) {
        tracing::warn!(%error, topic = topic.name, "the folder of a deleted topic stays until the next start");
    }
    Ok(())
}

/// Adds partitions to topics.
pub(super) async fn create_partitions(node: &Node, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let (mut results, mut last) = (Vec::new(), None);
    for topic in request.topics {
        let answer = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
        results.push(match node.topics.grow(&topic.name, topic.count, request.validate_only) {
            Ok(ticket) => {
                last = last.max(ticket);
                answer
            }
            Err(error) => {
                answer.with_error_code(topic_error(&error).code()).with_error_message(Some(text(error.to_string())))
            }
        });
    }
    if durable(node, last).await.is_err() {
        for result in &mut results {
            result.error_code = E::KafkaStorageError.code();
        }
    }
    CreatePartitionsResponse::default().with_results(results)
}

/// Moves the start of logs forward.
pub(super) async fn delete_records(node: &Node, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let (mut topics, mut last) = (Vec::new(), None);
    for wanted in request.topics {
        let topic = node.topics.get(&wanted.name);
        let mut partitions = Vec::new();
        for partition in &wanted.partitions {
            let result = delete_up_to(node, topic.as_deref(), partition.partition_index, partition.offset);
            let answer = DeleteRecordsPartitionResult::default().with_partition_index(partition.partition_index);
            partitions.push(match result {
                Ok((low, ticket)) => {
                    last = last.max(Some(ticket));
                    answer.with_low_watermark(low)
                }
                Err(error) => answer.with_low_watermark(-1).with_error_code(error.code()),
            });
        }
        topics.push(DeleteRecordsTopicResult::default().with_name(wanted.name).with_partitions(partitions));
    }
    if durable(node, last).await.is_ok() {
        for topic in &topics {
            for partition in topic.partitions.iter().filter(|partition| partition.error_code == 0) {
                if let Some(partition) = node.topics.partition(&topic.name, partition.partition_index)
                    && let Err(error) = partition.remove_below_start()
                {
                    tracing::warn!(%error, topic = %topic.name.as_str(), "deleted segments stay until the next look");
                }
            }
        }
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

fn delete_up_to(node: &Node, topic: Option<&Topic>, index: i32, offset: i64) -> Result<(i64, Ticket), E> {
    let topic = topic.ok_or(E::UnknownTopicOrPartition)?;
    let partition = topic.partition(index).ok_or(E::UnknownTopicOrPartition)?;
    let config = partition.config();
    if config.compact && !config.delete {
        return Err(E::PolicyViolation);
    }
    let low = partition.delete_records(offset).map_err(|_| E::OffsetOutOfRange)?;
    let ticket = node.topics.note_log_start(topic, index, low).map_err(|_| E::KafkaStorageError)?;
    Ok((low, ticket))
}
