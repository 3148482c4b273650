//! From a frame to its answer: one file per family of requests.

mod configs;
mod fetch;
mod groups;
mod metadata;
mod offsets;
mod produce;
mod sasl;
mod topics;
mod transactions;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

use super::connection::{Answer, Context, Ended};
use super::wire;

/// What a connection has agreed on so far.
pub(crate) struct Session {
    sasl: sasl::Progress,
    client_id: String,
}

impl Session {
    pub(crate) fn new(context: &Context) -> Self {
        let required = context.node.config.sasl_plain.is_some();
        Self { sasl: if required { sasl::Progress::Required } else { sasl::Progress::Done }, client_id: String::new() }
    }
}

/// The head of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    api_key: i16,
    version: i16,
    correlation: i32,
}

fn read_head(request: &mut Bytes) -> Result<(Head, Option<String>), Ended> {
    let head = Head { api_key: request.get_i16(), version: request.get_i16(), correlation: request.get_i32() };
    let client_id = match usize::try_from(request.get_i16()) {
        Err(_) => None,
        Ok(length) if length <= request.len() => Some(String::from_utf8_lossy(&request.split_to(length)).into_owned()),
        Ok(_) => return Err(wire::Malformed::TooShort.into()),
    };
    Ok((head, client_id))
}

/// Answers one request.
pub(crate) async fn handle(session: &mut Session, context: &Context, mut request: Bytes) -> Result<Answer, Ended> {
    let (head, client_id) = read_head(&mut request)?;
    if let Some(client_id) = client_id
        && session.client_id != client_id
    {
        session.client_id = client_id;
    }
    let shape = wire::find(head.api_key).ok_or_else(|| Ended::Protocol(format!("unknown API key {}", head.api_key)))?;
    if !(shape.min..=shape.max).contains(&head.version) {
        if shape.api == ApiKey::ApiVersions {
            let head = Head { version: 0, ..head };
            let answer = metadata::api_versions(0).with_error_code(ResponseError::UnsupportedVersion.code());
            return respond(head, &answer);
        }
        return Err(Ended::Protocol(format!("version {} of {:?} is not supported", head.version, shape.api)));
    }
    if shape.is_flexible(head.version) {
        let rest = wire::skip_tags(&request)?.len();
        request.advance(request.len() - rest);
    }
    shape.check(head.version, &request)?;
    if !session.sasl.allows(shape.api) {
        return Err(Ended::NotAuthenticated);
    }
    dispatch(session, context, head, shape.api, request).await
}

async fn dispatch(
    session: &mut Session,
    context: &Context,
    head: Head,
    api: ApiKey,
    body: Bytes,
) -> Result<Answer, Ended> {
    let node = &context.node;
    macro_rules! now {
        ($handler:expr) => {
            respond(head, &$handler(decode(body, head)?))
        };
    }
    macro_rules! soon {
        ($handler:expr) => {
            respond(head, &$handler(decode(body, head)?).await)
        };
    }
    match api {
        ApiKey::Produce => produce::produce(context, head, decode(body, head)?),
        ApiKey::Fetch => fetch::fetch(context, head, decode(body, head)?).await,
        ApiKey::ListOffsets => now!(|request| offsets::list_offsets(node, head.version, request)),
        ApiKey::OffsetForLeaderEpoch => now!(|request| offsets::for_leader_epoch(node, request)),
        ApiKey::Metadata => soon!(|request| metadata::metadata(context, head.version, request)),
        ApiKey::ApiVersions => now!(|_: ApiVersionsRequest| metadata::api_versions(head.version)),
        ApiKey::DescribeCluster => now!(|request| metadata::describe_cluster(context, request)),
        ApiKey::DescribeTopicPartitions => now!(|request| metadata::describe_topic_partitions(node, request)),
        ApiKey::FindCoordinator => now!(|request| metadata::find_coordinator(context, head.version, request)),
        ApiKey::CreateTopics => soon!(|request| topics::create(node, head.version, request)),
        ApiKey::DeleteTopics => soon!(|request| topics::delete(node, head.version, request)),
        ApiKey::CreatePartitions => soon!(|request| topics::create_partitions(node, request)),
        ApiKey::DeleteRecords => soon!(|request| topics::delete_records(node, request)),
        ApiKey::DescribeConfigs => now!(|request| configs::describe(node, head.version, request)),
        ApiKey::AlterConfigs => soon!(|request| configs::alter(node, request)),
        ApiKey::IncrementalAlterConfigs => soon!(|request| configs::alter_incrementally(node, request)),
        ApiKey::JoinGroup => soon!(|request| groups::join(context, &session.client_id, head.version, request)),
        ApiKey::SyncGroup => soon!(|request| groups::sync(node, head.version, request)),
        ApiKey::Heartbeat => now!(|request| groups::heartbeat(node, request)),
        ApiKey::LeaveGroup => now!(|request| groups::leave(node, head.version, request)),
        ApiKey::DescribeGroups => now!(|request| groups::describe(node, head.version, request)),
        ApiKey::ListGroups => now!(|request| groups::list(node, head.version, request)),
        ApiKey::DeleteGroups => soon!(|request| groups::delete(node, request)),
        ApiKey::OffsetCommit => soon!(|request| offsets::commit(node, request)),
        ApiKey::OffsetFetch => now!(|request| offsets::fetch(node, head.version, request)),
        ApiKey::OffsetDelete => soon!(|request| offsets::delete(node, request)),
        ApiKey::InitProducerId => soon!(|request| transactions::init(node, head.version, request)),
        ApiKey::AddPartitionsToTxn => now!(|request| transactions::add_partitions(node, head.version, request)),
        ApiKey::AddOffsetsToTxn => now!(|request| transactions::add_offsets(node, head.version, request)),
        ApiKey::TxnOffsetCommit => soon!(|request| transactions::commit_offsets(node, request)),
        ApiKey::EndTxn => soon!(|request| transactions::end(node, head.version, request)),
        ApiKey::ListTransactions => now!(|request| transactions::list(node, request)),
        ApiKey::DescribeTransactions => now!(|request| transactions::describe(node, request)),
        ApiKey::DescribeProducers => now!(|request| transactions::describe_producers(node, request)),
        ApiKey::SaslHandshake => now!(|request| sasl::handshake(&mut session.sasl, request)),
        ApiKey::SaslAuthenticate => now!(|request| sasl::authenticate(&mut session.sasl, context, request)),
        other => Err(Ended::Protocol(format!("{other:?} is not served"))),
    }
}

fn decode<R: Decodable>(mut body: Bytes, head: Head) -> Result<R, Ended> {
    R::decode(&mut body, head.version).map_err(|error| Ended::Protocol(error.to_string()))
}

/// Encodes an answer with its length and header.
fn encode<R: Encodable + HeaderVersion>(head: Head, response: &R) -> Result<BytesMut, Ended> {
    let failed = |error: &dyn std::fmt::Display| {
        Ended::Protocol(format!(
            "the answer to API {} version {} cannot be encoded: {error}",
            head.api_key, head.version
        ))
    };
    let size = response.compute_size(head.version).map_err(|error| failed(&error))?;
    let mut frame = BytesMut::with_capacity(size + 16);
    frame.put_i32(0);
    let header = ResponseHeader::default().with_correlation_id(head.correlation);
    header.encode(&mut frame, R::header_version(head.version)).map_err(|error| failed(&error))?;
    response.encode(&mut frame, head.version).map_err(|error| failed(&error))?;
    let length = i32::try_from(frame.len() - 4).map_err(|error| failed(&error))?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

fn respond<R: Encodable + HeaderVersion>(head: Head, response: &R) -> Result<Answer, Ended> {
    encode(head, response).map(|frame| Answer::Now(Some(frame)))
}

/// The error code of a result: 0 for success.
fn code(error: Option<ResponseError>) -> i16 {
    error.map_or(0, |error| error.code())
}

/// The error code of a result: 0 for success.
fn code_of<T>(result: &Result<T, ResponseError>) -> i16 {
    code(result.as_ref().err().copied())
}

fn text(value: impl Into<String>) -> StrBytes {
    StrBytes::from_string(value.into())
}

fn topic_name(value: impl Into<String>) -> TopicName {
    TopicName(text(value))
}
