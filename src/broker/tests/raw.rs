//! A client that sends exactly what it is told, for requests no library would send.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

use crate::broker::log::batch::{Header, assemble, write_record};

pub(super) struct Raw {
    stream: TcpStream,
}

pub(super) fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

pub(super) fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.into())
}

impl Raw {
    pub(super) fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self { stream }
    }

    pub(super) fn send<R: Request>(&mut self, version: i16, request: &R) {
        let mut body = BytesMut::new();
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(7)
            .with_client_id(Some(text("raw")));
        header.encode(&mut body, R::header_version(version)).unwrap();
        request.encode(&mut body, version).unwrap();
        self.send_frame(&body);
    }

    pub(super) fn send_frame(&mut self, body: &[u8]) {
        self.stream.write_all(&(body.len() as i32).to_be_bytes()).unwrap();
        self.stream.write_all(body).unwrap();
    }

    pub(super) fn send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Says that nothing more will come, and waits until the peer is done.
    pub(super) fn hang_up(mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
        let _ = self.stream.read_to_end(&mut Vec::new());
    }

    /// Whether the peer has closed the connection.
    pub(super) fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 1]), Ok(0) | Err(_))
    }

    pub(super) fn receive<R: Request>(&mut self, version: i16) -> R::Response {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).unwrap();
        let mut body = vec![0; i32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut body).unwrap();
        let mut body = Bytes::from(body);
        let header = ResponseHeader::decode(&mut body, R::Response::header_version(version)).unwrap();
        assert_eq!(header.correlation_id, 7);
        let response = R::Response::decode(&mut body, version).unwrap();
        assert!(body.is_empty(), "{} bytes are left over", body.len());
        response
    }

    pub(super) fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.send(version, request);
        self.receive::<R>(version)
    }

    /// Produces bytes; returns error code and base offset.
    pub(super) fn produce(&mut self, name: &str, transactional_id: Option<&str>, records: Bytes) -> (i16, i64) {
        let data = PartitionProduceData::default().with_index(0).with_records(Some(records));
        let data = TopicProduceData::default().with_name(topic(name)).with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(10_000)
            .with_transactional_id(transactional_id.map(|id| TransactionalId(text(id))))
            .with_topic_data(vec![data]);
        loop {
            let response = self.call(9, &request);
            let partition = &response.responses[0].partition_responses[0];
            // Apache Kafka asks to come again while it verifies a transaction; clients do.
            if partition.error_code != 19 {
                return (partition.error_code, partition.base_offset);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Fetches partition 0 once.
    pub(super) fn fetch(
        &mut self,
        name: &str,
        offset: i64,
        isolation: i8,
        max_bytes: i32,
        epoch: i32,
    ) -> PartitionData {
        let partition = FetchPartition::default()
            .with_partition(0)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(max_bytes)
            .with_current_leader_epoch(epoch);
        let wanted = FetchTopic::default().with_topic(topic(name)).with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_max_wait_ms(0)
            .with_min_bytes(1)
            .with_max_bytes(max_bytes)
            .with_isolation_level(isolation)
            .with_session_epoch(-1)
            .with_topics(vec![wanted]);
        self.call(11, &request).responses.remove(0).partitions.remove(0)
    }
}

/// A batch to be produced; the fields are public so that tests can lie.
#[derive(Clone)]
pub(super) struct Batch {
    pub header: Header,
    pub records: Vec<(Option<&'static str>, Option<&'static str>)>,
}

impl Batch {
    /// One record per value, without producer.
    pub(super) fn of(values: &[&'static str]) -> Self {
        let now = crate::broker::now_ms();
        let header = Header {
            base_offset: 0,
            size: 0,
            magic: 2,
            crc: 0,
            attributes: 0,
            last_offset_delta: values.len() as i32 - 1,
            base_timestamp: now,
            max_timestamp: now,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            records: values.len() as i32,
        };
        Self { header, records: values.iter().map(|value| (Some("k"), Some(*value))).collect() }
    }

    pub(super) fn by(mut self, producer: (i64, i16), sequence: i32) -> Self {
        (self.header.producer_id, self.header.producer_epoch) = producer;
        self.header.base_sequence = sequence;
        self
    }

    pub(super) fn transactional(mut self) -> Self {
        self.header.attributes |= 1 << 4;
        self
    }

    pub(super) fn at(mut self, timestamp: i64) -> Self {
        self.header.base_timestamp = timestamp;
        self.header.max_timestamp = timestamp;
        self
    }

    pub(super) fn payload(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        for (delta, (key, value)) in self.records.iter().enumerate() {
            write_record(&mut payload, 0, delta as i32, key.map(str::as_bytes), value.map(str::as_bytes));
        }
        payload
    }

    pub(super) fn bytes(&self) -> Bytes {
        assemble(&self.header, -1, &self.payload()).into()
    }
}
