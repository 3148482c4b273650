//! Idempotent and transactional producers.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError as E;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use kafka_protocol::messages::list_transactions_response as listed;
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

use super::offsets::check_offset;
use super::{code, code_of, text, topic_name};
use crate::broker::coordinator::groups::Sender;
use crate::broker::coordinator::offsets::{Committed, Place};
use crate::broker::coordinator::transaction::{Phase, Producer, Transaction};
use crate::broker::node::Node;
use crate::broker::now_ms;

/// The code a fenced producer gets: the newer one where the version knows it.
fn fenced(version: i16, since: i16) -> E {
    if version >= since { E::ProducerFenced } else { E::InvalidProducerEpoch }
}

/// A producer id and epoch.
pub(super) async fn init(node: &Node, version: i16, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let given = Producer { id: request.producer_id.0, epoch: request.producer_epoch };
    let expected = (version >= 3 && given.id >= 0 && given.epoch >= 0).then_some(given);
    let result = match &request.transactional_id {
        None => node.transactions.init_idempotent().await,
        Some(id) => {
            node.transactions.init(id, i64::from(request.transaction_timeout_ms), expected, fenced(version, 4)).await
        }
    };
    match result {
        Ok(producer) => InitProducerIdResponse::default()
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch),
        Err(error) => InitProducerIdResponse::default()
            .with_error_code(error.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1),
    }
}

/// Adds partitions to a transaction: all or none.
pub(super) fn add_partitions(
    node: &Node,
    version: i16,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let topics = &request.v3_and_below_topics;
    let places: Vec<Place> = topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|partition| (topic.name.to_string(), *partition)))
        .collect();
    let is_known = |place: &Place| node.topics.partition(&place.0, place.1).is_some();
    let result = match places.iter().all(is_known) {
        true => {
            let producer =
                Producer { id: request.v3_and_below_producer_id.0, epoch: request.v3_and_below_producer_epoch };
            Some(node.transactions.add_partitions(
                &request.v3_and_below_transactional_id,
                producer,
                places,
                fenced(version, 2),
            ))
        }
        false => None,
    };
    let error_of = |topic: &TopicName, partition: i32| match &result {
        Some(result) => code_of(result),
        None if node.topics.partition(topic, partition).is_none() => E::UnknownTopicOrPartition.code(),
        None => E::OperationNotAttempted.code(),
    };
    let results = topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(*partition)
                .with_partition_error_code(error_of(&topic.name, *partition))
        });
        AddPartitionsToTxnTopicResult::default()
            .with_name(topic.name.clone())
            .with_results_by_partition(partitions.collect())
    });
    AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results.collect())
}

/// Adds a group's offsets to a transaction.
pub(super) fn add_offsets(node: &Node, version: i16, request: AddOffsetsToTxnRequest) -> AddOffsetsToTxnResponse {
    let producer = Producer { id: request.producer_id.0, epoch: request.producer_epoch };
    let result =
        node.transactions.add_group(&request.transactional_id, producer, &request.group_id, fenced(version, 2));
    AddOffsetsToTxnResponse::default().with_error_code(code_of(&result))
}

/// Commits offsets within a transaction.
pub(super) async fn commit_offsets(node: &Node, request: TxnOffsetCommitRequest) -> TxnOffsetCommitResponse {
    let now = now_ms();
    let mut refused: BTreeMap<Place, E> = BTreeMap::new();
    let mut offsets = Vec::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let place = (topic.name.to_string(), partition.partition_index);
            match check_offset(node, &place.0, place.1, partition.committed_metadata.as_deref()) {
                Some(error) => drop(refused.insert(place, error)),
                None => offsets.push((
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
    let producer = Producer { id: request.producer_id.0, epoch: request.producer_epoch };
    let sender = Sender {
        group: &request.group_id,
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        generation: request.generation_id,
    };
    let result = match offsets.is_empty() {
        true => Ok(()),
        false => node.transactions.commit_offsets(&request.transactional_id, producer, sender, offsets).await,
    };
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let place = (topic.name.to_string(), partition.partition_index);
            let error = refused.get(&place).copied().or(result.err());
            TxnOffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code(error))
        });
        let partitions = partitions.collect();
        TxnOffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    TxnOffsetCommitResponse::default().with_topics(topics.collect())
}

/// Commits or aborts.
pub(super) async fn end(node: &Node, version: i16, request: EndTxnRequest) -> EndTxnResponse {
    let producer = Producer { id: request.producer_id.0, epoch: request.producer_epoch };
    let result =
        node.transactions.end(&request.transactional_id, producer, request.committed, fenced(version, 2)).await;
    EndTxnResponse::default().with_error_code(code_of(&result))
}

/// Transactional ids, filtered.
pub(super) fn list(node: &Node, request: ListTransactionsRequest) -> ListTransactionsResponse {
    const STATES: [Phase; 6] = [
        Phase::Empty,
        Phase::Ongoing,
        Phase::PrepareCommit,
        Phase::PrepareAbort,
        Phase::CompleteCommit,
        Phase::CompleteAbort,
    ];
    let now = now_ms();
    let wanted = |transaction: &Transaction| {
        let state = request.state_filters.is_empty()
            || request.state_filters.iter().any(|state| **state == *transaction.phase.name());
        let id = request.producer_id_filters.is_empty()
            || request.producer_id_filters.contains(&ProducerId(transaction.producer_id));
        let old = request.duration_filter < 0 || now - transaction.started_at > request.duration_filter;
        state && id && old
    };
    let unknown: Vec<StrBytes> = request
        .state_filters
        .iter()
        .filter(|state| !STATES.iter().any(|known| *known.name() == ***state))
        .cloned()
        .collect();
    let states =
        node.transactions.list().into_iter().filter(|(_, transaction)| wanted(transaction)).map(|(id, transaction)| {
            listed::TransactionState::default()
                .with_transactional_id(TransactionalId(text(id)))
                .with_producer_id(ProducerId(transaction.producer_id))
                .with_transaction_state(text(transaction.phase.name()))
        });
    ListTransactionsResponse::default().with_unknown_state_filters(unknown).with_transaction_states(states.collect())
}

/// Transactions in detail.
pub(super) fn describe(node: &Node, request: DescribeTransactionsRequest) -> DescribeTransactionsResponse {
    let states = request.transactional_ids.into_iter().map(|id| {
        let answer = TransactionState::default().with_transactional_id(id.clone());
        let Some(transaction) = node.transactions.describe(&id) else {
            return answer.with_error_code(E::TransactionalIdNotFound.code());
        };
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in &transaction.partitions {
            topics.entry(topic).or_default().push(*partition);
        }
        let topics = topics
            .into_iter()
            .map(|(topic, partitions)| TopicData::default().with_topic(topic_name(topic)).with_partitions(partitions));
        answer
            .with_transaction_state(text(transaction.phase.name()))
            .with_transaction_timeout_ms(i32::try_from(transaction.timeout_ms).unwrap_or(i32::MAX))
            .with_transaction_start_time_ms(transaction.started_at)
            .with_producer_id(ProducerId(transaction.producer_id))
            .with_producer_epoch(transaction.epoch)
            .with_topics(topics.collect())
    });
    DescribeTransactionsResponse::default().with_transaction_states(states.collect())
}

/// The producers that partitions remember.
pub(super) fn describe_producers(node: &Node, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(|index| {
            let answer = PartitionResponse::default().with_partition_index(*index);
            let Some(partition) = node.topics.partition(&topic.name, *index) else {
                return answer.with_error_code(E::UnknownTopicOrPartition.code());
            };
            let producers = partition.with_producers(|producers| {
                let tell = |(id, producer): (i64, &crate::broker::log::producers::Producer)| {
                    ProducerState::default()
                        .with_producer_id(ProducerId(id))
                        .with_producer_epoch(i32::from(producer.epoch))
                        .with_last_sequence(producer.last_sequence())
                        .with_last_timestamp(producer.last_seen)
                        .with_coordinator_epoch(producer.coordinator_epoch)
                        .with_current_txn_start_offset(producer.open_since.unwrap_or(-1))
                };
                producers.all().into_iter().map(tell).collect()
            });
            answer.with_active_producers(producers)
        });
        let partitions = partitions.collect();
        TopicResponse::default().with_name(topic.name).with_partitions(partitions)
    });
    DescribeProducersResponse::default().with_topics(topics.collect())
}
