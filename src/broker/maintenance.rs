//! Looking for old work every so often: retention, compaction, expiry.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::node::Node;
use super::now_ms;

/// Looks until the broker stops. The work itself runs on a thread that may block.
pub(crate) async fn run(node: Arc<Node>, mut stopped: watch::Receiver<bool>) {
    let interval = node.config.maintenance_interval.max(Duration::from_millis(10));
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
        let (looking, stop) = (Arc::clone(&node), stopped.clone());
        if tokio::task::spawn_blocking(move || look(&looking, &stop)).await.is_err() {
            tracing::error!("a look for old work was cut short");
        }
    }
}

fn look(node: &Node, stopped: &watch::Receiver<bool>) {
    let now = now_ms();
    let limits = &node.config.limits;
    for topic in node.topics.all() {
        for partition in topic.partitions().iter() {
            if *stopped.borrow() || node.flusher.failed() {
                return;
            }
            let (topic, index) = (&topic.name, partition.index);
            if let Err(error) = partition.retain(now) {
                tracing::warn!(%error, topic, partition = index, "retention is put off");
            }
            match partition.compact(now) {
                Ok(None) => {}
                Ok(Some(done)) => {
                    tracing::debug!(topic, partition = index, before = done.before, after = done.after, "compacted")
                }
                Err(error) => tracing::warn!(%error, topic, partition = index, "compaction is put off"),
            }
            partition.expire_producers(now.saturating_sub(limits.producer_expiry.as_millis() as i64));
            partition.park();
        }
    }
    node.groups.expire(now);
    node.transactions.expire(now);
}
