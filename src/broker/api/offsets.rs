//! Offsets of logs and of consumer groups.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError as E;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::*;

use super::fetch::check_epoch;
use super::{code, code_of, text, topic_name};
use crate::broker::coordinator::groups::Sender;
use crate::broker::coordinator::offsets::{Committed, Known, Place};
use crate::broker::log::partition::{Isolation, LEADER_EPOCH};
use crate::broker::log::segment::Found;
use crate::broker::node::Node;
use crate::broker::now_ms;

/// Longest metadata of a committed offset, as in Apache Kafka.
const MAX_METADATA: usize = 4_096;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;

/// Offsets by time.
pub(super) fn list_offsets(node: &Node, version: i16, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let isolation = if request.isolation_level == 1 { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let answer = ListOffsetsPartitionResponse::default().with_partition_index(wanted.partition_index);
            match list_one(node, &topic.name, wanted, isolation) {
                Ok(found) => {
                    let answer = answer.with_timestamp(found.timestamp).with_offset(found.offset);
                    if version >= 4 && found.offset >= 0 { answer.with_leader_epoch(LEADER_EPOCH) } else { answer }
                }
                Err(error) => answer.with_error_code(error.code()).with_timestamp(-1).with_offset(-1),
            }
        });
        let partitions = partitions.collect();
        ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions)
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

fn list_one(node: &Node, topic: &str, wanted: &ListOffsetsPartition, isolation: Isolation) -> Result<Found, E> {
    let partition = node.topics.partition(topic, wanted.partition_index).ok_or(E::UnknownTopicOrPartition)?;
    check_epoch(wanted.current_leader_epoch)?;
    let offsets = partition.offsets();
    let plain = |offset| Found { offset, timestamp: -1 };
    let nothing = plain(-1);
    let storage = |error: std::io::Error| {
        tracing::error!(%error, topic, partition = wanted.partition_index, "a log cannot be read");
        E::KafkaStorageError
    };
    match wanted.timestamp {
        LATEST => Ok(plain(offsets.upper(isolation))),
        EARLIEST | EARLIEST_LOCAL => Ok(plain(offsets.log_start)),
        MAX_TIMESTAMP => Ok(partition.find_max_time().map_err(storage)?.unwrap_or(nothing)),
        timestamp if timestamp >= 0 => {
            Ok(partition.find_time(timestamp, isolation).map_err(storage)?.unwrap_or(nothing))
        }
        _ => Err(E::UnsupportedVersion),
    }
}

/// Where a leader epoch ends: the only one ends with the log.
pub(super) fn for_leader_epoch(node: &Node, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let answer = EpochEndOffset::default().with_partition(wanted.partition);
            let Some(partition) = node.topics.partition(&topic.topic, wanted.partition) else {
                return answer.with_error_code(E::UnknownTopicOrPartition.code());
            };
            if let Err(error) = check_epoch(wanted.current_leader_epoch) {
                return answer.with_error_code(error.code());
            }
            match wanted.leader_epoch {
                LEADER_EPOCH => {
                    answer.with_leader_epoch(LEADER_EPOCH).with_end_offset(partition.offsets().high_watermark)
                }
                _ => answer.with_leader_epoch(-1).with_end_offset(-1),
            }
        });
        let partitions = partitions.collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

/// Why one offset is not taken, if it is not.
pub(super) fn check_offset(node: &Node, topic: &str, partition: i32, metadata: Option<&str>) -> Option<E> {
    if metadata.is_some_and(|metadata| metadata.len() > MAX_METADATA) {
        return Some(E::OffsetMetadataTooLarge);
    }
    node.topics.partition(topic, partition).is_none().then_some(E::UnknownTopicOrPartition)
}

/// Commits offsets of a group.
pub(super) async fn commit(node: &Node, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let now = now_ms();
    let mut accepted = Vec::new();
    let mut refused: BTreeMap<Place, E> = BTreeMap::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let place = (topic.name.to_string(), partition.partition_index);
            match check_offset(node, &place.0, place.1, partition.committed_metadata.as_deref()) {
                Some(error) => drop(refused.insert(place, error)),
                None => accepted.push((
                    place,
                    Committed {
                        offset: partition.committed_offset,
                        leader_epoch: partition.committed_leader_epoch,
                        metadata: partition.committed_metadata.as_deref().unwrap_or_default().to_owned(),
                        at: now,
                    },
                )),
            }
        }
    }
    let sender = Sender {
        group: &request.group_id,
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation: request.generation_id_or_member_epoch,
    };
    let result = match accepted.is_empty() {
        true => Ok(()),
        false => node.groups.commit(sender, accepted).await,
    };
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let place = (topic.name.to_string(), partition.partition_index);
            let error = refused.get(&place).copied().or(result.err());
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code(error))
        });
        let partitions = partitions.collect();
        OffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

/// What a partition's offset looks like in every version: offset, epoch, metadata, error.
fn told(known: Known) -> (i64, i32, String, i16) {
    match known {
        Known::Committed(committed) => (committed.offset, committed.leader_epoch, committed.metadata, 0),
        Known::Nothing => (-1, -1, String::new(), 0),
        Known::Unstable => (-1, -1, String::new(), E::UnstableOffsetCommit.code()),
    }
}

fn by_topic(found: Vec<(Place, Known)>) -> BTreeMap<String, Vec<(i32, Known)>> {
    let mut topics: BTreeMap<String, Vec<(i32, Known)>> = BTreeMap::new();
    for ((topic, partition), known) in found {
        topics.entry(topic).or_default().push((partition, known));
    }
    topics
}

fn places<'a>(topics: impl Iterator<Item = (&'a TopicName, &'a Vec<i32>)>) -> Vec<Place> {
    topics.flat_map(|(name, partitions)| partitions.iter().map(|partition| (name.to_string(), *partition))).collect()
}

/// The committed offsets of one group or several.
pub(super) fn fetch(node: &Node, version: i16, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if version >= 8 {
        let groups = request.groups.iter().map(|group| {
            let wanted = group
                .topics
                .as_ref()
                .map(|topics| places(topics.iter().map(|topic| (&topic.name, &topic.partition_indexes))));
            let found = by_topic(node.groups.fetch(&group.group_id, wanted, request.require_stable));
            let topics = found.into_iter().map(|(name, partitions)| {
                let partitions = partitions.into_iter().map(|(index, known)| {
                    let (offset, epoch, metadata, error) = told(known);
                    OffsetFetchResponsePartitions::default()
                        .with_partition_index(index)
                        .with_committed_offset(offset)
                        .with_committed_leader_epoch(epoch)
                        .with_metadata(Some(text(metadata)))
                        .with_error_code(error)
                });
                OffsetFetchResponseTopics::default().with_name(topic_name(name)).with_partitions(partitions.collect())
            });
            OffsetFetchResponseGroup::default().with_group_id(group.group_id.clone()).with_topics(topics.collect())
        });
        return OffsetFetchResponse::default().with_groups(groups.collect());
    }
    let wanted = request
        .topics
        .as_ref()
        .map(|topics| places(topics.iter().map(|topic| (&topic.name, &topic.partition_indexes))));
    let found = by_topic(node.groups.fetch(&request.group_id, wanted, request.require_stable));
    let topics = found.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(index, known)| {
            let (offset, epoch, metadata, error) = told(known);
            let answer = OffsetFetchResponsePartition::default()
                .with_partition_index(index)
                .with_committed_offset(offset)
                .with_metadata(Some(text(metadata)))
                .with_error_code(error);
            if version >= 5 { answer.with_committed_leader_epoch(epoch) } else { answer }
        });
        OffsetFetchResponseTopic::default().with_name(topic_name(name)).with_partitions(partitions.collect())
    });
    OffsetFetchResponse::default().with_topics(topics.collect())
}

/// Deletes committed offsets.
pub(super) async fn delete(node: &Node, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let wanted = request
        .topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|partition| (topic.name.to_string(), partition.partition_index)));
    let result = node.groups.delete_offsets(&request.group_id, wanted.collect()).await;
    let response = OffsetDeleteResponse::default().with_error_code(code_of(&result));
    let Ok(results) = result else { return response };
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let place = (topic.name.to_string(), partition.partition_index);
            OffsetDeleteResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code(results.get(&place).copied().flatten()))
        });
        let partitions = partitions.collect();
        OffsetDeleteResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    response.with_topics(topics.collect())
}
