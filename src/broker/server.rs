//! Starting, accepting connections, stopping.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, watch};

use super::config::BrokerConfig;
use super::connection::{self, Context, Memory};
use super::crowd::Crowd;
use super::error::BrokerError;
use super::maintenance;
use super::node::{BrokerStats, Node};

/// Longest wait for connections to finish what they are answering when the broker stops.
const DRAIN: Duration = Duration::from_secs(3);

/// A running broker. Dropping it stops it without flushing; [`Broker::shutdown`] is the clean end.
pub struct Broker {
    node: Arc<Node>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    runtime: Option<Runtime>,
}

impl Broker {
    /// Recovers the data folder and listens. When it returns, clients are served.
    ///
    /// # Errors
    /// The folder is in use, damaged or of a later format; the address is taken; the disk fails.
    pub async fn start(config: BrokerConfig) -> Result<Self, BrokerError> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let data = config.data.clone();
        let failed = data.clone();
        std::thread::Builder::new()
            .name("broker-start".into())
            .spawn(move || sender.send(Self::start_blocking(config)).map_err(drop))
            .map_err(BrokerError::io(data))?;
        receiver.await.unwrap_or_else(|_| {
            Err(BrokerError::Io { path: failed, source: std::io::Error::other("the start was cut short") })
        })
    }

    fn start_blocking(config: BrokerConfig) -> Result<Self, BrokerError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("broker")
            .enable_all()
            .build()
            .map_err(BrokerError::io(&config.data))?;
        let listen = config.listen;
        let node = Arc::new(Node::open(config)?);
        let bound = runtime.block_on(async {
            let listener = TcpListener::bind(listen).await?;
            Ok((listener.local_addr()?, listener))
        });
        let (address, listener) = bound.map_err(|source| BrokerError::Listen { address: listen, source })?;
        let (stop, stopped) = watch::channel(false);
        runtime.block_on(async { node.groups.start_timers() });
        runtime.spawn(accept(Arc::clone(&node), listener, stopped.clone()));
        let timeouts = Arc::clone(&node);
        runtime.spawn(async move { timeouts.transactions.run_timeouts().await });
        runtime.spawn(maintenance::run(Arc::clone(&node), stopped));
        tracing::info!(%address, data = %node.disk.root().display(), "broker is ready");
        Ok(Self { node, address, stop, runtime: Some(runtime) })
    }

    /// The address it listens on, with the real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> BrokerStats {
        self.node.stats()
    }

    /// Stops accepting, lets answers go out, flushes everything and gives the folder free.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        let deadline = tokio::time::Instant::now() + DRAIN;
        while self.node.counters.connections.load(Relaxed) > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let runtime = self.runtime.take();
        let node = Arc::clone(&self.node);
        // The folder is free again only when every task that holds the node has gone.
        let end = tokio::task::spawn_blocking(move || {
            if let Some(runtime) = runtime {
                runtime.shutdown_timeout(DRAIN);
            }
            node.flusher.stop();
        });
        let _ = end.await;
        tracing::info!("broker has stopped");
    }

    #[cfg(test)]
    pub(crate) fn group_generation(&self, group: &str) -> Option<i32> {
        self.node.groups.generation(group)
    }

    /// Plays power loss for tests: stops at once and drops every byte that was not forced to the disk.
    ///
    /// # Errors
    /// The disk refuses the truncation.
    pub async fn lose_power(mut self) -> std::io::Result<()> {
        self.node.flusher.abandon();
        self.stop.send_replace(true);
        let runtime = self.runtime.take();
        let node = Arc::clone(&self.node);
        let end = tokio::task::spawn_blocking(move || {
            if let Some(runtime) = runtime {
                runtime.shutdown_timeout(DRAIN);
            }
            node.disk.drop_unsynced()
        });
        end.await.map_err(std::io::Error::other)?
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
            self.node.flusher.abandon();
        }
    }
}

async fn accept(node: Arc<Node>, listener: TcpListener, mut stopped: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(node.config.limits.connections));
    let mut crowd = Crowd::new(node.config.limits.connections);
    let memory = Memory::new(&node.config.limits);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or the peer was gone before it was accepted.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let seat = crowd.admit();
        let free = tokio::select! {
            free = Arc::clone(&slots).acquire_owned() => free,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        let Ok(slot) = free else { return };
        let context = Context::new(Arc::clone(&node), &stream, peer, memory.clone(), seat);
        let stopped = stopped.clone();
        tokio::spawn(async move {
            context.node.counters.connections.fetch_add(1, Relaxed);
            connection::serve(stream, &context, stopped).await;
            context.node.counters.connections.fetch_sub(1, Relaxed);
            drop(slot);
        });
    }
}
