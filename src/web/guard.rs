//! A listener that a crowd of bad clients cannot occupy.
//!
//! An answer here takes milliseconds, so whoever has been connected the longest is the one that gives way: beyond
//! [`Guard::MOST`] connections the oldest is closed. A connection over which nothing comes for [`Guard::IDLE`] is closed, too.
//! What a connection may send is bounded by the HTTP implementation (a head of some hundred KiB).

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::pace::Pace;

/// A crowd costs one line a second; `more` tells how many connections ended without one.
static CROWDED: Pace = Pace::new(Duration::from_secs(1));
static SILENT: Pace = Pace::new(Duration::from_secs(1));

/// See the module.
pub(super) struct Guard {
    listener: TcpListener,
    /// Connections, oldest first; those that have ended are swept out when there are too many.
    open: VecDeque<(Weak<()>, CancellationToken)>,
}

impl Guard {
    /// Connections at the same time.
    pub(super) const MOST: usize = 256;
    /// Longest silence of a connection.
    pub(super) const IDLE: Duration = Duration::from_secs(75);

    pub(super) fn new(listener: TcpListener) -> Self {
        Self { listener, open: VecDeque::new() }
    }

    fn admit(&mut self, stream: TcpStream) -> Guarded {
        if self.open.len() >= Self::MOST {
            self.open.retain(|(alive, _)| alive.strong_count() > 0);
        }
        if self.open.len() >= Self::MOST
            && let Some((_, oldest)) = self.open.pop_front()
        {
            if let Some(more) = CROWDED.admit() {
                tracing::warn!(connections = Self::MOST, more, "too many HTTP connections: the oldest is closed");
            }
            oldest.cancel();
        }
        let (alive, close) = (Arc::new(()), CancellationToken::new());
        self.open.push_back((Arc::downgrade(&alive), close.clone()));
        let idle = Box::pin(tokio::time::sleep(Self::IDLE));
        Guarded { stream, idle, closed: Box::pin(close.cancelled_owned()), _alive: alive }
    }
}

impl Listener for Guard {
    type Io = Guarded;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Guarded, SocketAddr) {
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        (self.admit(stream), peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when it is told to, or when nothing comes.
pub(super) struct Guarded {
    stream: TcpStream,
    idle: Pin<Box<Sleep>>,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    _alive: Arc<()>,
}

impl Guarded {
    /// Whether the connection has to end; wakes the task when it will.
    fn has_to_end(&mut self, context: &mut Context<'_>) -> bool {
        if self.closed.as_mut().poll(context).is_ready() {
            return true;
        }
        let silent = self.idle.as_mut().poll(context).is_ready();
        if silent && let Some(more) = SILENT.admit() {
            tracing::info!(seconds = Guard::IDLE.as_secs(), more, "a silent HTTP connection is closed");
        }
        silent
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.has_to_end(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        if read.is_ready() {
            self.idle.as_mut().reset(Instant::now() + Guard::IDLE);
        }
        read
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.has_to_end(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream as Client;

    use axum::Router;
    use axum::routing::get;

    use super::*;

    fn served() -> (SocketAddr, tokio::runtime::Runtime) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/health", get(|| async { "well" }));
        runtime.spawn(async move { axum::serve(Guard::new(listener), router).await });
        (address, runtime)
    }

    fn ask(address: SocketAddr) -> String {
        let mut client = Client::connect(address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        client.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn a_thousand_clients_that_never_finish_their_request_do_not_keep_others_waiting() {
        let (address, _runtime) = served();
        let beginnings: [&[u8]; 5] = [
            b"",
            b"G",
            b"GET /health HTTP/1.1\r\nHost: x\r\nX: ",
            b"\x16\x03\x01\x02\x00",
            b"POST / HTTP/1.1\r\nContent-Length: 9999999999\r\n\r\n",
        ];
        let mut crowd = Vec::new();
        for n in 0..1_000 {
            let mut client = Client::connect(address).unwrap();
            // Some are closed while they write: their loss.
            let _ = client.write_all(beginnings[n % beginnings.len()]);
            crowd.push(client);
            if n.is_multiple_of(100) {
                assert!(ask(address).ends_with("well"), "with {n} others");
            }
        }
        assert!(ask(address).ends_with("well"));
        drop(crowd);
        assert!(ask(address).ends_with("well"));
    }

    #[test]
    fn garbage_and_endless_heads_end_their_connection() {
        let (address, _runtime) = served();
        for head in [vec![0; 10_000], [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 4 << 20]].concat()] {
            let mut client = Client::connect(address).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let _ = client.write_all(&head);
            let mut answer = Vec::new();
            // A reset is an end as well.
            let _ = client.read_to_end(&mut answer);
            assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
        }
        assert!(ask(address).ends_with("well"));
    }
}
