//! Produce: append now, answer once the disk has it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use kafka_protocol::error::ResponseError as E;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};

use super::{Head, encode, text};
use crate::broker::connection::{Answer, Context, Ended};
use crate::broker::coordinator::transaction::Producer;
use crate::broker::flusher::{NotDurable, Ticket};
use crate::broker::log::batch::{Header, Refusal};
use crate::broker::log::partition::{AppendError, Appended, Partition};
use crate::broker::node::Node;

/// Appends every batch of the request, each by itself.
pub(super) fn produce(context: &Context, head: Head, request: ProduceRequest) -> Result<Answer, Ended> {
    let node = &context.node;
    let (acks, transactional_id) = (request.acks, request.transactional_id.map(|id| id.to_string()));
    let mut last: Option<Ticket> = None;
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            let result = match (-1..=1).contains(&acks) {
                true => append(node, transactional_id.as_deref(), &topic.name, data.index, data.records),
                false => Err(Failure::from(E::InvalidRequiredAcks)),
            };
            if let Ok(appended) = &result {
                last = last.max(Some(appended.ticket));
            }
            partitions.push(partition_answer(data.index, head.version, result));
        }
        topics.push(TopicProduceResponse::default().with_name(topic.name).with_partition_responses(partitions));
    }
    let mut response = ProduceResponse::default().with_responses(topics);
    match (acks, last) {
        // With acks=0 nobody listens; an error can be told only by closing the connection.
        (0, _) => match response
            .responses
            .iter()
            .flat_map(|topic| &topic.partition_responses)
            .find(|partition| partition.error_code != 0)
        {
            Some(failed) => {
                Err(Ended::Protocol(format!("a batch sent with acks=0 was refused with code {}", failed.error_code)))
            }
            None => Ok(Answer::Now(None)),
        },
        (-1, Some(ticket)) => {
            let node = Arc::clone(node);
            Ok(Answer::Later(Box::pin(async move {
                if let Err(NotDurable) = node.flusher.wait(ticket).await {
                    fail_all(&mut response);
                }
                encode(head, &response).inspect_err(|error| tracing::error!(%error, "an answer cannot be encoded")).ok()
            })))
        }
        _ => super::respond(head, &response),
    }
}

fn fail_all(response: &mut ProduceResponse) {
    for partition in response.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses) {
        if partition.error_code == 0 {
            partition.error_code = E::KafkaStorageError.code();
        }
    }
}

/// Why a partition's batch was not appended, as the answer tells it.
struct Failure {
    error: E,
    message: Option<String>,
    records: Vec<i32>,
}

impl From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error, message: None, records: Vec::new() }
    }
}

impl From<AppendError> for Failure {
    fn from(error: AppendError) -> Self {
        let code = match &error {
            AppendError::Refused(Refusal::Corrupt) => E::CorruptMessage,
            AppendError::Refused(Refusal::OldFormat) => E::UnsupportedForMessageFormat,
            AppendError::Refused(Refusal::TooLarge(_)) => E::MessageTooLarge,
            AppendError::Refused(Refusal::Timestamp(_)) => E::InvalidTimestamp,
            AppendError::Refused(Refusal::Codec(_)) => E::CorruptMessage,
            AppendError::Refused(_) => E::InvalidRecord,
            AppendError::Fenced => E::InvalidProducerEpoch,
            AppendError::OutOfOrder => E::OutOfOrderSequenceNumber,
            AppendError::Deleted => E::UnknownTopicOrPartition,
            AppendError::Io(_) => E::KafkaStorageError,
        };
        if code == E::KafkaStorageError {
            tracing::error!(%error, "a batch cannot be written");
        }
        let records = match &error {
            AppendError::Refused(Refusal::MissingKey(records)) => records.clone(),
            _ => Vec::new(),
        };
        Self { error: code, message: Some(error.to_string()), records }
    }
}

fn append(
    node: &Node,
    transactional_id: Option<&str>,
    topic: &str,
    index: i32,
    records: Option<Bytes>,
) -> Result<Appended, Failure> {
    let partition = node.topics.partition(topic, index).ok_or(E::UnknownTopicOrPartition)?;
    let records = records.filter(|records| !records.is_empty()).ok_or(E::InvalidRecord)?;
    if node.flusher.failed() {
        return Err(E::KafkaStorageError.into());
    }
    let header = Header::parse(&records).ok_or(E::CorruptMessage)?;
    let appended = match header.is_transactional() && header.magic == 2 {
        false => partition.append(&records)?,
        true => append_in_transaction(node, transactional_id, &partition, &header, &records)?,
    };
    node.counters.appended_bytes.fetch_add(records.len() as u64, Relaxed);
    node.counters.appended_records.fetch_add(u64::from(header.records.unsigned_abs()), Relaxed);
    Ok(appended)
}

fn append_in_transaction(
    node: &Node,
    transactional_id: Option<&str>,
    partition: &Arc<Partition>,
    header: &Header,
    records: &[u8],
) -> Result<Appended, Failure> {
    let id = transactional_id.ok_or(E::InvalidTxnState)?;
    let producer = Producer { id: header.producer_id, epoch: header.producer_epoch };
    let place = (partition.topic.clone(), partition.index);
    let result = node.transactions.append(id, producer, &place, || {
        let result = partition.append(records);
        let ticket = result.as_ref().ok().map(|appended| appended.ticket);
        (result, ticket)
    })?;
    Ok(result?)
}

fn partition_answer(index: i32, version: i16, result: Result<Appended, Failure>) -> PartitionProduceResponse {
    let answer = PartitionProduceResponse::default().with_index(index);
    match result {
        Ok(appended) => {
            let answer = answer.with_base_offset(appended.base_offset).with_log_append_time_ms(appended.append_time);
            if version >= 5 { answer.with_log_start_offset(appended.log_start) } else { answer }
        }
        Err(failure) => {
            let answer = answer.with_error_code(failure.error.code()).with_base_offset(-1).with_log_append_time_ms(-1);
            if version < 8 {
                return answer;
            }
            let record = |index| BatchIndexAndErrorMessage::default().with_batch_index(index);
            answer
                .with_error_message(failure.message.map(text))
                .with_record_errors(failure.records.into_iter().map(record).collect())
        }
    }
}
