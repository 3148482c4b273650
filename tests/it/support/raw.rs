//! Kafka requests written by hand, for what librdkafka hides: error codes, stale generations, resent sequences, the aborted-transaction index.

use super::broker::Broker;
use super::{DEADLINE, eventually};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};
use std::io::{Read, Write};
use std::net::TcpStream;

/// One connection.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    correlation: i32,
}

/// The name of an error code as Kafka's documentation writes it in camel case, or `None`.
pub fn error(code: i16) -> String {
    ResponseError::try_from_code(code).map_or_else(|| "None".into(), |e| format!("{e:?}"))
}

/// Text for the protocol.
pub fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

impl Raw {
    /// Connects.
    pub fn connect(broker: &Broker) -> Self {
        let stream = TcpStream::connect(&broker.bootstrap).expect("the broker listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        stream.set_nodelay(true).expect("nodelay");
        Self { stream, correlation: 0 }
    }

    /// Sends a request in this version and waits for its response.
    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.correlation += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(text("conformance")));
        let mut body = BytesMut::new();
        header.encode(&mut body, R::header_version(version)).expect("a header");
        request.encode(&mut body, version).expect("a request that this version can carry");
        let mut frame = BytesMut::with_capacity(body.len() + 4);
        frame.put_i32(i32::try_from(body.len()).expect("a small request"));
        frame.put(body);
        self.stream.write_all(&frame).expect("the connection is open");
        let mut response = self.receive();
        let header =
            ResponseHeader::decode(&mut response, R::Response::header_version(version)).expect("a response header");
        assert_eq!(header.correlation_id, self.correlation, "a response to another request");
        let decoded = R::Response::decode(&mut response, version).expect("a response of this version");
        assert!(!response.has_remaining(), "{} bytes behind the response", response.remaining());
        decoded
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Waits for the broker to close the connection: true when it does without an answer.
    pub fn is_closed(&mut self) -> bool {
        let mut one = [0];
        matches!(self.stream.read(&mut one), Ok(0)) || self.stream.peer_addr().is_err()
    }

    fn receive(&mut self) -> Bytes {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).expect("a response");
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut body).expect("a whole response");
        Bytes::from(body)
    }

    /// Repeats a request while the broker says that a coordinator is not there yet or that the last transaction is still ending.
    pub fn settled<R: Request>(
        &mut self,
        version: i16,
        request: &R,
        code: impl Fn(&R::Response) -> i16,
    ) -> R::Response {
        eventually("a coordinator's answer", || {
            let response = self.call(version, request);
            match code(&response) {
                busy @ (14 | 15 | 16 | 51) => Err(error(busy)),
                _ => Ok(response),
            }
        })
    }
}

/// What a batch says of its producer.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    /// Producer id, −1 for none.
    pub id: i64,
    /// Producer epoch.
    pub epoch: i16,
    /// Sequence of the first record.
    pub sequence: i32,
    /// Whether it belongs to a transaction.
    pub transactional: bool,
}

impl Stamp {
    /// No idempotence.
    pub const NONE: Self = Self { id: -1, epoch: -1, sequence: -1, transactional: false };
}

/// A record batch of these values.
pub fn batch(stamp: Stamp, values: &[&str], compression: Compression, timestamp: i64) -> Bytes {
    let records: Vec<Record> = values
        .iter()
        .enumerate()
        .map(|(index, value)| Record {
            transactional: stamp.transactional,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: stamp.id,
            producer_epoch: stamp.epoch,
            timestamp_type: TimestampType::Creation,
            offset: i64::try_from(index).expect("few"),
            sequence: if stamp.sequence < 0 { -1 } else { stamp.sequence + i32::try_from(index).expect("few") },
            timestamp,
            key: None,
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            headers: IndexMap::new(),
        })
        .collect();
    let mut bytes = BytesMut::new();
    RecordBatchEncoder::encode(&mut bytes, &records, &RecordEncodeOptions { version: 2, compression })
        .expect("a batch");
    bytes.freeze()
}

/// What a bad client sends before it falls silent: nothing, half a length, claims with and without a beginning, HTTP.
pub fn bad_words(n: usize) -> Vec<u8> {
    let claim = |api: u8, length: u32, sent: usize| [&length.to_be_bytes()[..], &[0, api], &vec![0; sent]].concat();
    match n % 6 {
        0 => vec![],
        1 => vec![0, 0],
        2 => claim(0, 100 << 20, 60),
        3 => claim(0, 100 << 20, 80 << 10),
        4 => claim(3, 8 << 20, 80 << 10),
        _ => b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n".to_vec(),
    }
}
