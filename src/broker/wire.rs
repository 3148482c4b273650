//! The shape of every request this broker understands: checked before anything is decoded.
//!
//! The decoder of `kafka-protocol` reserves room for as many array elements as the sender claims. A claim costs
//! four bytes and could reserve gigabytes, so each body is walked first: every length has to fit into the bytes
//! that follow it, and the elements of all arrays together stay below [`MAX_ELEMENTS`]. The table also is what
//! ApiVersions announces: a version is announced exactly when its shape is known here.

use kafka_protocol::messages::ApiKey;

/// Array elements in one request. The largest legal requests name each partition of the cluster once or twice.
const MAX_ELEMENTS: usize = 200_000;

/// How a field is encoded.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// A string, nullable or not.
    Text,
    /// Bytes or records, nullable or not.
    Blob,
    /// An array of structs, nullable or not.
    Structs(&'static [Field]),
    /// An array of things of so many bytes.
    Numbers(usize),
    /// An array of strings.
    Texts,
    /// A struct that may be missing.
    Maybe(&'static [Field]),
}

/// A field and the versions that carry it.
#[derive(Debug, Clone, Copy)]
struct Field(i16, i16, Kind);

/// One request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub api: ApiKey,
    pub min: i16,
    pub max: i16,
    /// The first version with compact lengths and tagged fields.
    flexible: i16,
    fields: &'static [Field],
}

const ALWAYS: i16 = i16::MAX;

const fn all(kind: Kind) -> Field {
    Field(0, ALWAYS, kind)
}

const fn since(version: i16, kind: Kind) -> Field {
    Field(version, ALWAYS, kind)
}

use Kind::{Blob, Fixed, Maybe, Numbers, Structs, Text, Texts};

const TEXT: Field = all(Text);
const BOOL: Field = all(Fixed(1));
const INT8: Field = all(Fixed(1));
const INT16: Field = all(Fixed(2));
const INT32: Field = all(Fixed(4));
const INT64: Field = all(Fixed(8));

const fn shape(api: ApiKey, min: i16, max: i16, flexible: i16, fields: &'static [Field]) -> Shape {
    Shape { api, min, max, flexible, fields }
}

const TOPIC_PARTITIONS: &[Field] = &[TEXT, all(Numbers(4))];
const COMMITTED: &[Field] = &[TEXT, all(Structs(&[INT32, INT64, since(6, Fixed(4)), TEXT]))];
const TXN_COMMITTED: &[Field] = &[TEXT, all(Structs(&[INT32, INT64, since(2, Fixed(4)), TEXT]))];
const CONFIG: &[Field] = &[TEXT, TEXT];
const FETCHED: &[Field] = &[INT32, since(9, Fixed(4)), INT64, since(12, Fixed(4)), since(5, Fixed(8)), INT32];

/// Every request, by API key.
pub(crate) const SHAPES: &[Shape] = &[
    shape(ApiKey::Produce, 3, 11, 9, &[TEXT, INT16, INT32, all(Structs(&[TEXT, all(Structs(&[INT32, all(Blob)]))]))]),
    shape(
        ApiKey::Fetch,
        4,
        16,
        12,
        &[
            Field(0, 14, Fixed(4)),
            INT32,
            INT32,
            INT32,
            INT8,
            since(7, Fixed(4)),
            since(7, Fixed(4)),
            all(Structs(&[Field(0, 12, Text), since(13, Fixed(16)), all(Structs(FETCHED))])),
            since(7, Structs(&[Field(0, 12, Text), since(13, Fixed(16)), all(Numbers(4))])),
            since(11, Text),
        ],
    ),
    shape(
        ApiKey::ListOffsets,
        1,
        8,
        6,
        &[INT32, since(2, Fixed(1)), all(Structs(&[TEXT, all(Structs(&[INT32, since(4, Fixed(4)), INT64]))]))],
    ),
    shape(
        ApiKey::Metadata,
        0,
        13,
        9,
        &[all(Structs(&[since(10, Fixed(16)), TEXT])), since(4, Fixed(1)), Field(8, 10, Fixed(1)), since(8, Fixed(1))],
    ),
    shape(
        ApiKey::OffsetCommit,
        2,
        9,
        8,
        &[TEXT, INT32, TEXT, since(7, Text), Field(2, 4, Fixed(8)), all(Structs(COMMITTED))],
    ),
    shape(
        ApiKey::OffsetFetch,
        1,
        9,
        6,
        &[
            Field(0, 7, Text),
            Field(0, 7, Structs(TOPIC_PARTITIONS)),
            since(8, Structs(&[TEXT, since(9, Text), since(9, Fixed(4)), all(Structs(TOPIC_PARTITIONS))])),
            since(7, Fixed(1)),
        ],
    ),
    shape(ApiKey::FindCoordinator, 0, 5, 3, &[Field(0, 3, Text), since(1, Fixed(1)), since(4, Texts)]),
    shape(
        ApiKey::JoinGroup,
        0,
        9,
        6,
        &[
            TEXT,
            INT32,
            since(1, Fixed(4)),
            TEXT,
            since(5, Text),
            TEXT,
            all(Structs(&[TEXT, all(Blob)])),
            since(8, Text),
        ],
    ),
    shape(ApiKey::Heartbeat, 0, 4, 4, &[TEXT, INT32, TEXT, since(3, Text)]),
    shape(ApiKey::LeaveGroup, 0, 5, 4, &[TEXT, Field(0, 2, Text), since(3, Structs(&[TEXT, TEXT, since(5, Text)]))]),
    shape(
        ApiKey::SyncGroup,
        0,
        5,
        4,
        &[TEXT, INT32, TEXT, since(3, Text), since(5, Text), since(5, Text), all(Structs(&[TEXT, all(Blob)]))],
    ),
    shape(ApiKey::DescribeGroups, 0, 5, 5, &[all(Texts), since(3, Fixed(1))]),
    shape(ApiKey::ListGroups, 0, 5, 3, &[since(4, Texts), since(5, Texts)]),
    shape(ApiKey::SaslHandshake, 0, 1, ALWAYS, &[TEXT]),
    shape(ApiKey::ApiVersions, 0, 4, 3, &[since(3, Text), since(3, Text)]),
    shape(
        ApiKey::CreateTopics,
        2,
        7,
        5,
        &[
            all(Structs(&[TEXT, INT32, INT16, all(Structs(&[INT32, all(Numbers(4))])), all(Structs(CONFIG))])),
            INT32,
            BOOL,
        ],
    ),
    shape(ApiKey::DeleteTopics, 1, 6, 4, &[since(6, Structs(&[TEXT, all(Fixed(16))])), Field(0, 5, Texts), INT32]),
    shape(ApiKey::DeleteRecords, 0, 2, 2, &[all(Structs(&[TEXT, all(Structs(&[INT32, INT64]))])), INT32]),
    shape(ApiKey::InitProducerId, 0, 4, 2, &[TEXT, INT32, since(3, Fixed(8)), since(3, Fixed(2))]),
    shape(
        ApiKey::OffsetForLeaderEpoch,
        2,
        4,
        4,
        &[since(3, Fixed(4)), all(Structs(&[TEXT, all(Structs(&[INT32, INT32, INT32]))]))],
    ),
    shape(ApiKey::AddPartitionsToTxn, 0, 3, 3, &[TEXT, INT64, INT16, all(Structs(TOPIC_PARTITIONS))]),
    shape(ApiKey::AddOffsetsToTxn, 0, 3, 3, &[TEXT, INT64, INT16, TEXT]),
    shape(ApiKey::EndTxn, 0, 3, 3, &[TEXT, INT64, INT16, BOOL]),
    shape(
        ApiKey::TxnOffsetCommit,
        0,
        3,
        3,
        &[TEXT, TEXT, INT64, INT16, since(3, Fixed(4)), since(3, Text), since(3, Text), all(Structs(TXN_COMMITTED))],
    ),
    shape(
        ApiKey::DescribeConfigs,
        1,
        4,
        4,
        &[all(Structs(&[INT8, TEXT, all(Texts)])), since(1, Fixed(1)), since(3, Fixed(1))],
    ),
    shape(ApiKey::AlterConfigs, 0, 2, 2, &[all(Structs(&[INT8, TEXT, all(Structs(CONFIG))])), BOOL]),
    shape(ApiKey::SaslAuthenticate, 0, 2, 2, &[all(Blob)]),
    shape(
        ApiKey::CreatePartitions,
        0,
        3,
        2,
        &[all(Structs(&[TEXT, INT32, all(Structs(&[all(Numbers(4))]))])), INT32, BOOL],
    ),
    shape(ApiKey::DeleteGroups, 0, 2, 2, &[all(Texts)]),
    shape(
        ApiKey::IncrementalAlterConfigs,
        0,
        1,
        1,
        &[all(Structs(&[INT8, TEXT, all(Structs(&[TEXT, INT8, TEXT]))])), BOOL],
    ),
    shape(ApiKey::OffsetDelete, 0, 0, ALWAYS, &[TEXT, all(Structs(&[TEXT, all(Structs(&[INT32]))]))]),
    shape(ApiKey::DescribeCluster, 0, 2, 0, &[BOOL, since(1, Fixed(1)), since(2, Fixed(1))]),
    shape(ApiKey::DescribeProducers, 0, 0, 0, &[all(Structs(TOPIC_PARTITIONS))]),
    shape(ApiKey::DescribeTransactions, 0, 0, 0, &[all(Texts)]),
    shape(ApiKey::ListTransactions, 0, 1, 0, &[all(Texts), all(Numbers(8)), since(1, Fixed(8))]),
    shape(ApiKey::DescribeTopicPartitions, 0, 0, 0, &[all(Structs(&[TEXT])), INT32, all(Maybe(&[TEXT, INT32]))]),
];

/// The shape of an API, if this broker knows it.
pub(crate) fn find(api_key: i16) -> Option<&'static Shape> {
    SHAPES.iter().find(|shape| shape.api as i16 == api_key)
}

/// A body that is not what its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("a length points behind the end of the request")]
    TooShort,
    #[error("more than {MAX_ELEMENTS} array elements")]
    TooManyElements,
    #[error("a negative length")]
    NegativeLength,
}

impl Shape {
    /// Whether the request's header has tagged fields.
    pub(crate) fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible
    }

    /// Walks the body of a request.
    pub(crate) fn check(&self, version: i16, body: &[u8]) -> Result<(), Malformed> {
        let mut walk = Walk { rest: body, version, flexible: self.is_flexible(version), elements: 0 };
        walk.fields(self.fields)
    }
}

/// Skips the tagged fields at the start of `rest`, as a flexible header ends with them.
pub(crate) fn skip_tags(rest: &[u8]) -> Result<&[u8], Malformed> {
    let mut walk = Walk { rest, version: 0, flexible: true, elements: 0 };
    walk.tags()?;
    Ok(walk.rest)
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    elements: usize,
}

impl Walk<'_> {
    fn skip(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.rest = self.rest.get(bytes..).ok_or(Malformed::TooShort)?;
        Ok(())
    }

    fn varint(&mut self) -> Result<usize, Malformed> {
        let mut value = 0_u64;
        for at in 0..5 {
            let byte = *self.rest.get(at).ok_or(Malformed::TooShort)?;
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.skip(at + 1)?;
                return usize::try_from(value).map_err(|_| Malformed::TooShort);
            }
        }
        Err(Malformed::TooShort)
    }

    /// A length of one of the two encodings; `None` is null.
    fn length(&mut self, classic_width: usize) -> Result<Option<usize>, Malformed> {
        if self.flexible {
            return Ok(self.varint()?.checked_sub(1));
        }
        let bytes = self.rest.get(..classic_width).ok_or(Malformed::TooShort)?;
        let value = bytes.iter().fold(0_i64, |value, byte| value << 8 | i64::from(*byte));
        let signed = value << (64 - 8 * classic_width) >> (64 - 8 * classic_width);
        self.skip(classic_width)?;
        match signed {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| Malformed::NegativeLength),
        }
    }

    fn sized(&mut self, classic_width: usize) -> Result<(), Malformed> {
        let length = self.length(classic_width)?.unwrap_or(0);
        self.skip(length)
    }

    /// The number of elements of an array, which must have at least a byte each.
    fn count(&mut self) -> Result<usize, Malformed> {
        let count = self.length(4)?.unwrap_or(0);
        if count > self.rest.len() {
            return Err(Malformed::TooShort);
        }
        self.elements += count;
        if self.elements > MAX_ELEMENTS { Err(Malformed::TooManyElements) } else { Ok(count) }
    }

    fn tags(&mut self) -> Result<(), Malformed> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let size = self.varint()?;
            self.skip(size)?;
        }
        Ok(())
    }

    fn fields(&mut self, fields: &[Field]) -> Result<(), Malformed> {
        for Field(from, to, kind) in fields {
            if (*from..=*to).contains(&self.version) {
                self.field(*kind)?;
            }
        }
        if self.flexible { self.tags() } else { Ok(()) }
    }

    fn field(&mut self, kind: Kind) -> Result<(), Malformed> {
        match kind {
            Fixed(bytes) => self.skip(bytes),
            Text => self.sized(2),
            Blob => self.sized(4),
            Numbers(bytes) => {
                let count = self.count()?;
                self.skip(count.saturating_mul(bytes))
            }
            Texts => (0..self.count()?).try_for_each(|_| self.sized(2)),
            Structs(fields) => (0..self.count()?).try_for_each(|_| self.fields(fields)),
            Maybe(fields) => {
                let present = self.rest.first() == Some(&1);
                self.skip(1)?;
                if present { self.fields(fields) } else { Ok(()) }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod sample;

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::messages::*;
    use kafka_protocol::protocol::{Encodable, StrBytes};

    #[test]
    fn a_claim_of_two_thousand_million_topics_is_refused_before_decoding() {
        let claim = [0x7f, 0xff, 0xff, 0xff];
        let metadata = find(3).unwrap();
        assert_eq!(metadata.check(1, &claim), Err(Malformed::TooShort));
        assert_eq!(metadata.check(12, &[0xff, 0xff, 0xff, 0xff, 0x0f]), Err(Malformed::TooShort));
        let many = [&[0, 4, 0, 0][..], &vec![0; 300_000]].concat();
        assert_eq!(metadata.check(1, &many), Err(Malformed::TooManyElements));
    }

    #[test]
    fn every_truncation_of_a_request_is_refused() {
        let partition =
            produce_request::PartitionProduceData::default().with_records(Some(Bytes::from_static(b"records")));
        let topic = produce_request::TopicProduceData::default()
            .with_name(TopicName(StrBytes::from_static_str("topic")))
            .with_partition_data(vec![partition]);
        let request = ProduceRequest::default().with_topic_data(vec![topic]);
        let shape = find(0).unwrap();
        for version in shape.min..=shape.max {
            let mut body = BytesMut::new();
            request.encode(&mut body, version).unwrap();
            shape.check(version, &body).unwrap();
            for cut in 0..body.len() {
                assert!(shape.check(version, &body[..cut]).is_err(), "version {version} cut at {cut}");
            }
        }
    }

    /// The default value of every request fits its shape in every version.
    macro_rules! fits {
        ($($request:ident),* $(,)?) => {$({
            let shape = find(ApiKey::$request as i16).unwrap();
            for version in shape.min..=shape.max {
                let mut body = BytesMut::new();
                paste_request!($request)(&mut body, version);
                let mut walk = Walk { rest: &body, version, flexible: shape.is_flexible(version), elements: 0 };
                walk.fields(shape.fields).unwrap();
                assert!(walk.rest.is_empty(), "{} version {version} leaves {} bytes", stringify!($request), walk.rest.len());
            }
        })*};
    }

    macro_rules! paste_request {
        (Produce) => {
            |b: &mut BytesMut, v| ProduceRequest::default().encode(b, v).unwrap()
        };
        (Fetch) => {
            |b: &mut BytesMut, v| FetchRequest::default().encode(b, v).unwrap()
        };
        (ListOffsets) => {
            |b: &mut BytesMut, v| ListOffsetsRequest::default().encode(b, v).unwrap()
        };
        (JoinGroup) => {
            |b: &mut BytesMut, v| JoinGroupRequest::default().encode(b, v).unwrap()
        };
        (SyncGroup) => {
            |b: &mut BytesMut, v| SyncGroupRequest::default().encode(b, v).unwrap()
        };
        (OffsetCommit) => {
            |b: &mut BytesMut, v| OffsetCommitRequest::default().encode(b, v).unwrap()
        };
        (TxnOffsetCommit) => {
            |b: &mut BytesMut, v| TxnOffsetCommitRequest::default().encode(b, v).unwrap()
        };
        (InitProducerId) => {
            |b: &mut BytesMut, v| InitProducerIdRequest::default().encode(b, v).unwrap()
        };
        (DescribeCluster) => {
            |b: &mut BytesMut, v| DescribeClusterRequest::default().encode(b, v).unwrap()
        };
        (DescribeTopicPartitions) => {
            |b: &mut BytesMut, v| DescribeTopicPartitionsRequest::default().encode(b, v).unwrap()
        };
    }

    #[test]
    fn shapes_cover_every_announced_version() {
        fits!(
            Produce,
            Fetch,
            ListOffsets,
            JoinGroup,
            SyncGroup,
            OffsetCommit,
            TxnOffsetCommit,
            InitProducerId,
            DescribeCluster,
            DescribeTopicPartitions,
        );
        for shape in SHAPES {
            let known = shape.api.valid_versions();
            assert!(known.min <= shape.min && shape.max <= known.max, "{:?}", shape.api);
            for version in shape.min..=shape.max {
                assert_eq!(
                    shape.api.request_header_version(version) == 2,
                    shape.is_flexible(version),
                    "{:?} {version}",
                    shape.api
                );
            }
        }
    }
}
