//! What a crash may leave behind: decisions that were not carried out, and records of transactions that nobody knows.

use std::collections::HashMap;
use std::sync::Arc;

use super::record::{Marker, Transaction};
use super::{Handle, Phase, Transactions};
use crate::broker::lock;

impl Transactions {
    /// Writes the markers again that did not reach the disk. One is missing when the transaction it ended is open still; a later
    /// transaction of the same producer cannot stand there, because a log loses its end and nothing before it.
    fn settle_markers(&self, id: &str, transaction: &mut Transaction) {
        for marker in std::mem::take(&mut transaction.markers) {
            let Some(partition) = self.topics.partition(&marker.place.0, marker.place.1) else { continue };
            let since = partition.with_producers(|producers| producers.open_since(marker.producer_id));
            if since.is_none_or(|since| since >= marker.offset) {
                continue;
            }
            tracing::info!(
                transactional_id = id,
                topic = marker.place.0,
                partition = marker.place.1,
                commit = marker.commit,
                "writing a transaction's marker again: the disk had lost it"
            );
            match partition.append_marker(marker.producer_id, marker.epoch, marker.commit) {
                Ok((offset, ticket)) => {
                    transaction.markers.push(Marker { offset, ..marker });
                    transaction.marked = transaction.marked.max(Some(ticket));
                }
                Err(error) => tracing::error!(%error, "a transaction marker cannot be written"),
            }
        }
    }

    /// Makes partitions, groups and records agree after a crash.
    pub(super) fn reconcile(&self) {
        let mut ongoing: HashMap<i64, Handle> = HashMap::new();
        for (id, handle) in self.all() {
            let mut transaction = lock(&handle);
            self.settle_markers(&id, &mut transaction);
            for (group, offsets) in &transaction.offsets {
                self.groups.restore_held(group, transaction.producer_id, offsets);
            }
            if transaction.phase.is_deciding() {
                if let Err(error) = self.carry_out(&id, &mut transaction, true) {
                    tracing::error!(transactional_id = id, ?error, "a decided transaction cannot be carried out");
                }
            } else if transaction.phase == Phase::Ongoing {
                ongoing.insert(transaction.producer_id, Arc::clone(&handle));
            }
        }
        for topic in self.topics.all() {
            for partition in topic.partitions().iter() {
                for (producer_id, epoch) in partition.with_producers(|producers| producers.open()) {
                    let place = (topic.name.clone(), partition.index);
                    match ongoing.get(&producer_id).map(|handle| lock(handle)) {
                        Some(mut transaction) if transaction.epoch == epoch => {
                            transaction.partitions.insert(place);
                        }
                        _ => {
                            tracing::info!(
                                topic = topic.name,
                                partition = partition.index,
                                producer_id,
                                "aborting a transaction nobody knows any more"
                            );
                            if let Err(error) = partition.append_marker(producer_id, epoch, false) {
                                tracing::error!(%error, "an abort marker cannot be written");
                            }
                        }
                    }
                }
            }
        }
    }
}
