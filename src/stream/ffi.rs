//! The four librdkafka calls that rdkafka does not wrap. With `ops::memory` the only unsafe code of the package.
//!
//! Invariants:
//! * every pointer that librdkafka hands out is either destroyed here, once, by a guard, or borrowed from a guard
//!   that outlives it;
//! * the client handle outlives every call, because it is borrowed for the whole call;
//! * results wait on a queue of their own, so that no other poller of the client can take them;
//! * nothing that comes back is trusted: null pointers and missing entries are errors.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::bindings as rd;
use rdkafka::client::Client;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;

/// What a broker says of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Full name, with prefix.
    pub name: String,
    /// Topic id as 32 hex digits; `None` when the topic does not exist.
    pub id: Option<String>,
    /// Number of partitions; 0 when the topic does not exist.
    pub partitions: i32,
}

/// Which end of a partition is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// First offset that can still be read.
    Start,
    /// One past the last record, open transactions included.
    HighWatermark,
    /// One past the last record that is decided: where a `read_committed` reader stops.
    LastStable,
    /// First record of at least this timestamp, in milliseconds; −1 when there is none.
    Since(i64),
}

/// Calls its function once, when dropped.
struct Guard<T: Copy>(T, unsafe extern "C" fn(T));

impl<T: Copy> Drop for Guard<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from the matching constructor, was checked for null and is destroyed only here.
        unsafe { (self.1)(self.0) }
    }
}

fn guard<T>(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T), what: &str) -> Result<Guard<*mut T>, KafkaError> {
    if pointer.is_null() { Err(KafkaError::AdminOpCreation(what.to_owned())) } else { Ok(Guard(pointer, destroy)) }
}

/// Sends an admin request and waits for its one event.
fn request<C: ClientContext>(
    client: &Client<C>,
    operation: rd::rd_kafka_admin_op_t,
    timeout: Duration,
    isolation: Option<rd::rd_kafka_IsolationLevel_t>,
    send: impl FnOnce(*mut rd::rd_kafka_t, *const rd::rd_kafka_AdminOptions_t, *mut rd::rd_kafka_queue_t),
) -> Result<Guard<*mut rd::rd_kafka_event_t>, KafkaError> {
    let handle = client.native_ptr();
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `handle` is alive for the whole function; options, queue and event are owned by their guards; the error
    // buffer is as long as it is said to be; an error object is destroyed after its code was read.
    unsafe {
        let queue = guard(rd::rd_kafka_queue_new(handle), rd::rd_kafka_queue_destroy, "queue")?;
        let options =
            guard(rd::rd_kafka_AdminOptions_new(handle, operation), rd::rd_kafka_AdminOptions_destroy, "options")?;
        let mut message: [c_char; 128] = [0; 128];
        let code =
            rd::rd_kafka_AdminOptions_set_request_timeout(options.0, millis, message.as_mut_ptr(), message.len());
        if code != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(KafkaError::AdminOp(code.into()));
        }
        if let Some(level) = isolation {
            let error = rd::rd_kafka_AdminOptions_set_isolation_level(options.0, level);
            if !error.is_null() {
                let code = rd::rd_kafka_error_code(error);
                rd::rd_kafka_error_destroy(error);
                return Err(KafkaError::AdminOp(code.into()));
            }
        }
        send(handle, options.0, queue.0);
        let event = rd::rd_kafka_queue_poll(queue.0, millis.saturating_add(1_000));
        if event.is_null() {
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut));
        }
        let event = Guard(event, rd::rd_kafka_event_destroy);
        let code = rd::rd_kafka_event_error(event.0);
        if code != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(KafkaError::AdminOp(code.into()));
        }
        Ok(event)
    }
}

/// Ids and partition counts of topics, in the order asked for; blocks up to `timeout`.
///
/// # Errors
/// When no broker answers, or a topic may not be described.
pub fn describe_topics<C: ClientContext>(
    client: &Client<C>,
    topics: &[String],
    timeout: Duration,
) -> Result<Vec<Description>, KafkaError> {
    if topics.is_empty() {
        return Ok(Vec::new());
    }
    // librdkafka refuses a name that is given twice.
    let distinct: std::collections::BTreeSet<&str> = topics.iter().map(String::as_str).collect();
    let names = distinct.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>()?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|n| n.as_ptr()).collect();
    // SAFETY: the name pointers live until after the call, which copies them.
    let collection = unsafe { rd::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()) };
    let collection = guard(collection, rd::rd_kafka_TopicCollection_destroy, "topic collection")?;
    let operation = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    let event = request(client, operation, timeout, None, |handle, options, queue| {
        // SAFETY: all four pointers are alive until `request` returns.
        unsafe { rd::rd_kafka_DescribeTopics(handle, collection.0, options, queue) }
    })?;
    let mut found = Vec::with_capacity(topics.len());
    // SAFETY: the event is of the type asked for, else the result is null; array and strings belong to the event,
    // which lives until the end of the function; `count` bounds every access.
    unsafe {
        let result = rd::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::BadMessage));
        }
        let mut count = 0;
        let array = rd::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        for index in 0..count {
            // A topic that the broker's answer leaves out is a hole in librdkafka's list.
            let topic = *array.add(index);
            if topic.is_null() {
                return Err(KafkaError::AdminOp(RDKafkaErrorCode::BadMessage));
            }
            found.push(description(topic)?);
        }
    }
    topics
        .iter()
        .map(|t| found.iter().find(|d| d.name == *t).cloned().ok_or(KafkaError::AdminOp(RDKafkaErrorCode::BadMessage)))
        .collect()
}

/// Reads one description.
///
/// # Safety
/// `topic` must point to a description whose event is alive.
unsafe fn description(topic: *const rd::rd_kafka_TopicDescription_t) -> Result<Description, KafkaError> {
    // SAFETY: as promised by the caller; the id and the name belong to the description.
    unsafe {
        let name = CStr::from_ptr(rd::rd_kafka_TopicDescription_name(topic)).to_string_lossy().into_owned();
        let error = rd::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() {
            match rd::rd_kafka_error_code(error) {
                rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {}
                rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
                | rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC => {
                    return Ok(Description { name, id: None, partitions: 0 });
                }
                code => return Err(KafkaError::AdminOp(code.into())),
            }
        }
        let mut count = 0;
        rd::rd_kafka_TopicDescription_partitions(topic, &raw mut count);
        let uuid = rd::rd_kafka_TopicDescription_topic_id(topic);
        let id = (!uuid.is_null()).then(|| {
            let high = rd::rd_kafka_Uuid_most_significant_bits(uuid);
            let low = rd::rd_kafka_Uuid_least_significant_bits(uuid);
            format!("{high:016x}{low:016x}")
        });
        Ok(Description { name, id, partitions: i32::try_from(count).unwrap_or(i32::MAX) })
    }
}

/// Offsets of one end of each partition, in the order asked for, each with its record's timestamp in milliseconds where a time was
/// asked for, else −1; blocks up to `timeout`.
///
/// # Errors
/// When no broker answers, or a partition does not exist.
pub fn list_offsets<C: ClientContext>(
    client: &Client<C>,
    partitions: &[(String, i32)],
    end: End,
    timeout: Duration,
) -> Result<Vec<(i64, i64)>, KafkaError> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    let spec = match end {
        End::Start => rdkafka::Offset::Beginning,
        End::HighWatermark | End::LastStable => rdkafka::Offset::End,
        End::Since(time) => rdkafka::Offset::Offset(time.max(0)),
    };
    for (topic, partition) in partitions {
        list.add_partition_offset(topic, *partition, spec)?;
    }
    let isolation = match end {
        End::LastStable => rd::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED,
        End::Start | End::HighWatermark | End::Since(_) => {
            rd::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED
        }
    };
    let operation = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS;
    let event = request(client, operation, timeout, Some(isolation), |handle, options, queue| {
        // SAFETY: the list is copied by the call; all pointers are alive until `request` returns.
        unsafe { rd::rd_kafka_ListOffsets(handle, list.ptr(), options, queue) }
    })?;
    let mut found = Vec::with_capacity(partitions.len());
    // SAFETY: as in `describe_topics`: everything read belongs to the event.
    unsafe {
        let result = rd::rd_kafka_event_ListOffsets_result(event.0);
        if result.is_null() {
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::BadMessage));
        }
        let mut count = 0;
        let array = rd::rd_kafka_ListOffsets_result_infos(result, &raw mut count);
        for index in 0..count {
            let info = *array.add(index);
            if info.is_null() {
                return Err(KafkaError::AdminOp(RDKafkaErrorCode::BadMessage));
            }
            let place = &*rd::rd_kafka_ListOffsetsResultInfo_topic_partition(info);
            if place.err != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(KafkaError::AdminOp(place.err.into()));
            }
            let topic = CStr::from_ptr(place.topic).to_string_lossy().into_owned();
            let time = rd::rd_kafka_ListOffsetsResultInfo_timestamp(info);
            found.push((topic, place.partition, (place.offset, time)));
        }
    }
    partitions
        .iter()
        .map(|(t, p)| found.iter().find(|(ft, fp, _)| ft == t && fp == p).map(|(_, _, found)| *found))
        .map(|found| found.ok_or(KafkaError::AdminOp(RDKafkaErrorCode::UnknownPartition)))
        .collect()
}

/// Where a consumer stands in a partition: one past the last record *or transaction marker* that was handed out;
/// `None` before the first. Local: asks no broker.
#[must_use]
pub fn position<C: ClientContext>(client: &Client<C>, topic: &str, partition: i32) -> Option<i64> {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition(topic, partition);
    // SAFETY: client and list are alive during the call, which fills in the list's offsets.
    let code = unsafe { rd::rd_kafka_position(client.native_ptr(), list.ptr()) };
    if code != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return None;
    }
    match list.elements().first().map(rdkafka::topic_partition_list::TopicPartitionListElem::offset) {
        Some(rdkafka::Offset::Offset(offset)) => Some(offset),
        _ => None,
    }
}

/// The high watermark that the last fetch of a partition brought along; `None` before the first. Local.
#[must_use]
pub fn cached_high_watermark<C: ClientContext>(client: &Client<C>, topic: &str, partition: i32) -> Option<i64> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (0_i64, 0_i64);
    // SAFETY: the name and both results are alive during the call.
    let code = unsafe {
        rd::rd_kafka_get_watermark_offsets(
            client.native_ptr(),
            topic.as_ptr(),
            partition,
            ptr::from_mut(&mut low),
            ptr::from_mut(&mut high),
        )
    };
    (code == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
}
