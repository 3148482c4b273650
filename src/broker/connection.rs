//! One connection: frames in, answers out, in order.
//!
//! Invariants:
//! - the length of a frame is checked before a byte of it is stored, and its buffer grows with the bytes that
//!   really arrive;
//! - a claim costs nobody else anything: memory for a large request is reserved when its first 64 KiB have come, and
//!   given back when the rest does not follow at a decent rate; small requests never wait for it;
//! - answers leave in the order of the requests. A Produce that waits for the disk does not keep the next
//!   requests from being read, up to a bound; everything else is answered before the next request is read;
//! - whatever is malformed ends this connection with one log line and touches nothing else;
//! - a peer that stalls within a request, sends none after it connected, or does not take its answers is dropped;
//! - with too many connections one of those that say nothing gives way to a new one (`crowd`);
//! - bad connections cost one log line a second.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;

use super::api;
use super::config::Limits;
use super::crowd::Seat;
use super::node::Node;
use super::now_ms;
use super::wire::Malformed;
use crate::pace::Pace;

/// Memory for requests is counted in units of so many bytes.
const MEMORY_UNIT: usize = 1 << 10;
const FIRST_READ: usize = 64 << 10;
/// Requests up to here take from memory of their own: whoever claims large requests, small ones are served on.
const SMALL_REQUEST: usize = FIRST_READ;
/// Bytes per second that a peer inside a large request must send, besides [`Limits::stalled_connection`] for the whole of it.
const SLOWEST_REQUEST: usize = 1 << 20;
/// Api key, version, correlation id and the length of the client id.
const MIN_REQUEST: usize = 10;
const PRODUCE: i16 = 0;
/// `more` tells how many connections were closed without a line of their own.
static CLOSED: Pace = Pace::new(Duration::from_secs(1));

/// What a request's handler may know of the connection.
pub(crate) struct Context {
    pub node: Arc<Node>,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    memory: Memory,
    seat: Arc<Seat>,
}

/// Memory that all connections share, in units of [`MEMORY_UNIT`].
#[derive(Clone)]
pub(crate) struct Memory {
    small_requests: Arc<Semaphore>,
    large_requests: Arc<Semaphore>,
    records: Arc<Semaphore>,
}

impl Memory {
    pub(crate) fn new(limits: &Limits) -> Self {
        let units = |bytes: usize, largest: usize| bytes.max(largest).div_ceil(MEMORY_UNIT);
        let large = units(limits.request_memory_bytes, limits.produce_request_bytes.max(limits.request_bytes));
        let small = units(limits.connections.saturating_mul(SMALL_REQUEST), SMALL_REQUEST);
        let records = units(limits.fetch_memory_bytes, limits.fetch_bytes);
        let [small_requests, large_requests, records] = [small, large, records].map(|n| Arc::new(Semaphore::new(n)));
        Self { small_requests, large_requests, records }
    }
}

impl Context {
    pub(crate) fn new(node: Arc<Node>, stream: &TcpStream, peer: SocketAddr, memory: Memory, seat: Arc<Seat>) -> Self {
        let local = stream.local_addr().unwrap_or(node.config.listen);
        Self { node, local, peer, memory, seat }
    }

    /// Waits until so many bytes of records may be read into memory.
    pub(crate) async fn reserve_records(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Ended> {
        reserve(&self.memory.records, bytes).await
    }
}

/// An answer, or the promise of one. `None` is no answer at all, as `acks=0` wants it.
pub(crate) enum Answer {
    Now(Option<BytesMut>),
    Later(Pin<Box<dyn Future<Output = Option<BytesMut>> + Send>>),
    /// Records, with the memory that was reserved for them.
    Records(BytesMut, OwnedSemaphorePermit),
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("the peer has closed the connection")]
    Closed,
    #[error("idle for too long")]
    Idle,
    #[error("the peer stalled")]
    Stalled,
    #[error("a request of {0} bytes is larger than allowed")]
    TooLarge(i64),
    #[error("malformed request: {0}")]
    Malformed(#[from] Malformed),
    #[error("malformed request: {0}")]
    Protocol(String),
    #[error("not authenticated")]
    NotAuthenticated,
    #[error("too many connections, and this one says nothing")]
    GivesWay,
    #[error("the broker stops")]
    Stopping,
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl Ended {
    fn is_ordinary(&self) -> bool {
        matches!(self, Self::Closed | Self::Idle | Self::Stopping | Self::Io(_))
    }
}

/// Serves a connection until it ends.
pub(crate) async fn serve(stream: TcpStream, context: &Context, mut stopped: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    let (sender, receiver) = mpsc::channel(context.node.config.limits.in_flight_per_connection);
    let writing = tokio::spawn(write_answers(writer, receiver, Arc::clone(&context.node)));
    let ended = tokio::select! {
        ended = read_requests(reader, context, sender) => ended,
        () = context.seat.has_to_leave() => Ended::GivesWay,
        _ = stopped.wait_for(|stop| *stop) => Ended::Stopping,
    };
    if ended.is_ordinary() {
        tracing::debug!(peer = %context.peer, reason = %ended, "connection ended");
    } else {
        context.node.counters.refused.fetch_add(1, Relaxed);
        if let Some(more) = CLOSED.admit() {
            tracing::warn!(peer = %context.peer, reason = %ended, more, "connection closed");
        }
    }
    if matches!(ended, Ended::GivesWay) {
        // Its place is wanted now, whether it takes its answers or not.
        writing.abort();
    }
    let _ = writing.await;
}

type Queued = (Answer, OwnedSemaphorePermit);

async fn read_requests(mut reader: OwnedReadHalf, context: &Context, answers: mpsc::Sender<Queued>) -> Ended {
    let mut session = api::Session::new(context);
    let mut buffer = BytesMut::new();
    let mut greeted = false;
    loop {
        let (request, permit) = match read_frame(&mut reader, &mut buffer, context, greeted).await {
            Ok(frame) => frame,
            Err(ended) => return ended,
        };
        context.seat.requested(now_ms());
        let answer = match api::handle(&mut session, context, request).await {
            Ok(answer) => answer,
            Err(ended) => return ended,
        };
        if answers.send((answer, permit)).await.is_err() {
            return Ended::Closed;
        }
        greeted = true;
    }
}

/// Reads one frame without its length. A peer that has not `greeted` with a request yet is no client that may idle.
async fn read_frame(
    reader: &mut OwnedReadHalf,
    buffer: &mut BytesMut,
    context: &Context,
    greeted: bool,
) -> Result<(Bytes, OwnedSemaphorePermit), Ended> {
    let limits = &context.node.config.limits;
    let (patience, impatience) = match greeted && buffer.is_empty() {
        true => (limits.idle_connection, Ended::Idle),
        false => (limits.stalled_connection, Ended::Stalled),
    };
    fill(reader, buffer, 4, patience, impatience).await?;
    fill(reader, buffer, 6, limits.stalled_connection, Ended::Stalled).await?;
    let size = i32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
    let api_key = i16::from_be_bytes([buffer[4], buffer[5]]);
    let allowed = if api_key == PRODUCE { limits.produce_request_bytes } else { limits.request_bytes };
    let length = match usize::try_from(size) {
        Ok(length) if (MIN_REQUEST..=allowed).contains(&length) => length,
        _ => return Err(Ended::TooLarge(i64::from(size))),
    };
    buffer.advance(4);
    let stalled = limits.stalled_connection;
    within(stalled, fill(reader, buffer, length.min(SMALL_REQUEST), stalled, Ended::Stalled)).await?;
    if length <= SMALL_REQUEST {
        let permit = reserve(&context.memory.small_requests, length).await?;
        return Ok((buffer.split_to(length).freeze(), permit));
    }
    let permit = reserve(&context.memory.large_requests, length).await?;
    let whole = stalled + Duration::from_secs((length / SLOWEST_REQUEST) as u64);
    within(whole, fill(reader, buffer, length, stalled, Ended::Stalled)).await?;
    Ok((buffer.split_to(length).freeze(), permit))
}

/// However steadily the peer drips: the whole of it has to come in time.
async fn within(time: Duration, filled: impl Future<Output = Result<(), Ended>>) -> Result<(), Ended> {
    timeout(time, filled).await.unwrap_or(Err(Ended::Stalled))
}

async fn reserve(memory: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, Ended> {
    let units = u32::try_from(bytes.div_ceil(MEMORY_UNIT)).unwrap_or(u32::MAX);
    Arc::clone(memory).acquire_many_owned(units).await.map_err(|_| Ended::Stopping)
}

/// Reads until `buffer` holds `needed` bytes. The peer has to make progress within `patience`.
async fn fill(
    reader: &mut OwnedReadHalf,
    buffer: &mut BytesMut,
    needed: usize,
    patience: Duration,
    impatience: Ended,
) -> Result<(), Ended> {
    while buffer.len() < needed {
        // Doubling what has arrived keeps a false claim from reserving memory.
        let missing = needed - buffer.len();
        buffer.reserve(missing.min(buffer.len().max(FIRST_READ)).max(4 << 10));
        match timeout(patience, reader.read_buf(buffer)).await {
            Err(_) => return Err(impatience),
            Ok(Ok(0)) => return Err(Ended::Closed),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn write_answers(mut writer: OwnedWriteHalf, mut answers: mpsc::Receiver<Queued>, node: Arc<Node>) {
    let patience = node.config.limits.stalled_connection;
    while let Some((answer, permit)) = answers.recv().await {
        let (bytes, _reserved) = match answer {
            Answer::Now(bytes) => (bytes, None),
            Answer::Later(bytes) => (bytes.await, None),
            Answer::Records(bytes, reserved) => (Some(bytes), Some(reserved)),
        };
        drop(permit);
        node.counters.requests.fetch_add(1, Relaxed);
        let Some(bytes) = bytes else { continue };
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match timeout(patience, writer.write(rest)).await {
                Ok(Ok(written)) if written > 0 => rest = &rest[written..],
                _ => return,
            }
        }
    }
}
