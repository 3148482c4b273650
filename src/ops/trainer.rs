//! What training runs reach for: the brokers' topics, read again from their start, and the store.
//!
//! Called from a run's own thread, which may wait; so the requests to the store bring along what runs them.

use std::any::Any;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Builder;

use crate::domain::records::{Artefact, TopicEnd};
use crate::domain::topics;
use crate::ml::derivation::MAX_TABLE;
use crate::ops::blobs::{self, BlobError};
use crate::ops::filters;
use crate::ops::profile::Profiler;
use crate::sealing::filter::MatchFilter;
use crate::stages::beside::{Refusal, Trouble};
use crate::stages::training::outside::{Each, Outside, WayBack};
use crate::store::{Digest, Store, StoreError};
use crate::stream::client::{Cluster, FetchBounds, Logged};

/// Brokers that say nothing for so long are asked anew.
const SILENCE: Duration = Duration::from_secs(30);
/// How long the brokers may take to say who leads a topic.
const METADATA_TIMEOUT: Duration = Duration::from_secs(10);
/// One wait for records.
const POLL: Duration = Duration::from_millis(100);
/// Largest description of a dataset in bytes.
const MAX_DATASET: u64 = 1 << 20;
/// Largest checkpoint in bytes.
const MAX_CHECKPOINT: u64 = 128 << 20;

/// Brokers and store of an installation.
#[derive(Debug, Clone)]
pub struct Trainer {
    cluster: Cluster,
    store: Store,
    profiler: Option<Profiler>,
}

/// A published dataset.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dataset {
    model: String,
    digest: String,
    ends: Vec<TopicEnd>,
    #[serde(default)]
    sealed: Vec<Artefact>,
}

impl Trainer {
    /// The trainer of an installation; what it learns is profiled by a profiler. Nothing is asked yet.
    #[must_use]
    pub fn new(cluster: Cluster, store: Store, profiler: Option<Profiler>) -> Self {
        Self { cluster, store, profiler }
    }

    fn consumer(&self, topic: &str, ends: &BTreeMap<i32, i64>) -> Result<BaseConsumer<Logged>, Trouble> {
        let consumer: BaseConsumer<Logged> =
            self.cluster.reader(&FetchBounds::to_end()).create_with_context(Logged).map_err(passing)?;
        // Without a connection librdkafka looks for the partitions' starts in vain, and again only after half a second.
        consumer.fetch_metadata(Some(topic), METADATA_TIMEOUT).map_err(passing)?;
        let mut list = TopicPartitionList::new();
        for partition in ends.keys() {
            list.add_partition_offset(topic, *partition, Offset::Beginning).map_err(passing)?;
        }
        consumer.assign(&list).map_err(passing)?;
        Ok(consumer)
    }
}

fn passing(error: impl std::fmt::Display) -> Trouble {
    Trouble::Passing(error.to_string())
}

/// Runs a request to the store.
fn ask<T>(answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, Trouble> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(passing)?;
    runtime.block_on(answer).map_err(passing)
}

/// A model's name may hold anything: its digest names the folder.
fn path(model: &str, digest: &str) -> String {
    let model: [u8; 32] = Sha256::digest(model.as_bytes()).into();
    format!("datasets/{}/{digest}.json", data_encoding::HEXLOWER.encode(&model))
}

fn checkpoint_path(run_id: &str) -> String {
    format!("checkpoints/{run_id}")
}

impl Outside for Trainer {
    fn ends(&self) -> Result<Vec<TopicEnd>, Trouble> {
        let admin = self.cluster.admin().map_err(passing)?;
        // Receipts first: then the rows of each of them lie below the ends that are taken next.
        let receipts = admin.end_offsets(&[topics::RECEIPTS]).map_err(passing)?;
        let accepted = admin.end_offsets(&[topics::ACCEPTED]).map_err(passing)?;
        let all = receipts.into_iter().chain(accepted);
        let mut ends: Vec<TopicEnd> =
            all.map(|end| TopicEnd { topic: end.topic, partition: end.partition, end: end.end }).collect();
        ends.sort_unstable();
        Ok(ends)
    }

    fn read(&self, topic: &str, ends: &[TopicEnd], each: &mut Each<'_>) -> Result<(), Trouble> {
        let own = ends.iter().filter(|end| end.topic == topic && end.end > 0);
        let mut left: BTreeMap<i32, i64> = own.map(|end| (end.partition, end.end)).collect();
        let consumer = self.consumer(&self.cluster.topic(topic), &left)?;
        let mut heard = Instant::now();
        while !left.is_empty() {
            match consumer.poll(POLL) {
                None if heard.elapsed() > SILENCE => return Err(passing(format!("no records of {topic} in time"))),
                None => continue,
                Some(Ok(message)) => {
                    let (partition, offset) = (message.partition(), message.offset());
                    let Some(&end) = left.get(&partition) else { continue };
                    if offset < end
                        && let Some(value) = message.payload()
                    {
                        each(value)?;
                    }
                    if offset + 1 >= end {
                        left.remove(&partition);
                    }
                }
                // The end that committed records have now lies behind the one that was taken before.
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(left.remove(&partition)),
                Some(Err(error)) => return Err(passing(format!("{topic}: {error}"))),
            }
            heard = Instant::now();
        }
        Ok(())
    }

    fn filter(&self, filter: &Artefact) -> Result<MatchFilter, Trouble> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(passing)?;
        filters::fetch(&self.store, &runtime, filter).map_err(|error| match error {
            BlobError::Passing(cause) => Trouble::Passing(cause),
            BlobError::Missing(what) => Refusal::new("FILTER_MISSING", what).into(),
        })
    }

    fn reference(&self, digest: &str) -> Result<bytes::Bytes, Trouble> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(passing)?;
        blobs::fetch(&self.store, &runtime, digest, MAX_TABLE as u64).map_err(|error| match error {
            BlobError::Passing(cause) => Trouble::Passing(cause),
            BlobError::Missing(what) => {
                let help = "help: apply the model again with its file, which puts the table into the store";
                Refusal::new("REFERENCE_MISSING", format!("a reference table: {what}; {help}")).into()
            }
        })
    }

    fn keep(&self, artefact: Bytes) -> Result<(), Trouble> {
        ask(self.store.blobs().put(artefact)).map(drop)
    }

    fn fetch(&self, blob: &Artefact, most: u64) -> Result<Bytes, Trouble> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(passing)?;
        blobs::fetch(&self.store, &runtime, &blob.digest, most).map_err(|error| match error {
            BlobError::Passing(cause) => Trouble::Passing(cause),
            BlobError::Missing(why) => {
                let help = "help: put it into the store before the answer is sent, as `hokusai train answer` does";
                Refusal::new("ARTEFACT_MISSING", format!("the blob {}: {why}; {help}", blob.digest)).into()
            }
        })
    }

    fn checkpoint(&self, run_id: &str, bytes: Vec<u8>) -> Result<(), Trouble> {
        // Its digest comes first: what is not whole is not gone on from.
        let bytes = [Digest::of(&bytes).0.as_slice(), &bytes].concat();
        ask(self.store.put(&checkpoint_path(run_id), bytes.into()))
    }

    fn checkpointed(&self, run_id: &str) -> Result<Option<Vec<u8>>, Trouble> {
        let kept = ask(self.store.get(&checkpoint_path(run_id), MAX_CHECKPOINT))?;
        let whole = kept.as_deref().and_then(|kept| kept.split_first_chunk::<32>());
        Ok(whole.filter(|(digest, bytes)| Digest::of(bytes).0 == **digest).map(|(_, bytes)| bytes.to_vec()))
    }

    fn forget(&self, run_id: &str) -> Result<(), Trouble> {
        ask(self.store.delete(&checkpoint_path(run_id)))
    }

    fn publish(&self, model: &str, digest: &str, way: &WayBack) -> Result<(), Trouble> {
        let WayBack { ends, sealed } = way.clone();
        let dataset = Dataset { model: model.to_owned(), digest: digest.to_owned(), ends, sealed };
        let text = serde_json::to_vec_pretty(&dataset).map_err(passing)?;
        ask(self.store.create(&path(model, digest), text.into())).map(drop)
    }

    fn published(&self, model: &str, digest: &str) -> Result<Option<WayBack>, Trouble> {
        let Some(text) = ask(self.store.get(&path(model, digest), MAX_DATASET))? else { return Ok(None) };
        match serde_json::from_slice::<Dataset>(&text) {
            Ok(dataset) if dataset.model == model && dataset.digest == digest && !dataset.ends.is_empty() => {
                Ok(Some(WayBack { ends: dataset.ends, sealed: dataset.sealed }))
            }
            _ => Err(Refusal::new("DATASET_DAMAGED", "the store's description of the dataset is damaged").into()),
        }
    }

    fn watch(&self, step: &str) -> Option<Box<dyn Any>> {
        Some(Box::new(self.profiler.as_ref()?.begin("training", step)?))
    }
}
