//! Micro-batches: what a stage is given.

/// A record of a batch, borrowed from the batch's one buffer.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Offset in the partition.
    pub offset: i64,
    /// Timestamp of the record, milliseconds UTC; append time where the topic is configured so.
    pub timestamp: i64,
    /// Key, if any.
    pub key: Option<&'a [u8]>,
    /// Value; none is a tombstone.
    pub value: Option<&'a [u8]>,
}

#[derive(Debug, Clone)]
struct Span {
    offset: i64,
    timestamp: i64,
    key: Option<(usize, usize)>,
    value: Option<(usize, usize)>,
}

/// A micro-batch: consecutive records of one partition, in offset order, in one buffer.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    topic: String,
    partition: i32,
    buffer: Vec<u8>,
    spans: Vec<Span>,
}

impl Batch {
    /// An empty batch of a partition; `topic` without prefix.
    #[must_use]
    pub fn new(topic: &str, partition: i32) -> Self {
        Self { topic: topic.to_owned(), partition, ..Self::default() }
    }

    /// Appends a record; its bytes are copied.
    pub fn push(&mut self, offset: i64, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
        let mut keep = |bytes: &[u8]| {
            let start = self.buffer.len();
            self.buffer.extend_from_slice(bytes);
            (start, self.buffer.len())
        };
        let key = key.map(&mut keep);
        let value = value.map(&mut keep);
        self.spans.push(Span { offset, timestamp, key, value });
    }

    /// Topic without prefix.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Partition number.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// No record at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Bytes of keys and values together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Offset of the first record.
    #[must_use]
    pub fn first_offset(&self) -> Option<i64> {
        self.spans.first().map(|s| s.offset)
    }

    /// Offset of the last record.
    #[must_use]
    pub fn last_offset(&self) -> Option<i64> {
        self.spans.last().map(|s| s.offset)
    }

    /// The records in offset order.
    pub fn iter(&self) -> impl Iterator<Item = Message<'_>> {
        let slice = |span: Option<(usize, usize)>| span.and_then(|(from, to)| self.buffer.get(from..to));
        self.spans.iter().map(move |s| Message {
            offset: s.offset,
            timestamp: s.timestamp,
            key: slice(s.key),
            value: slice(s.value),
        })
    }

    /// The records `from..to` (indexes) as a batch of their own: for bisecting a batch that cannot commit.
    #[must_use]
    pub fn slice(&self, from: usize, to: usize) -> Self {
        let mut part = Self::new(&self.topic, self.partition);
        for message in self.iter().skip(from).take(to.saturating_sub(from)) {
            part.push(message.offset, message.timestamp, message.key, message.value);
        }
        part
    }
}
