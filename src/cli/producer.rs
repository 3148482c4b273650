//! Puts single records onto topics: commands, requests, audit records.

use std::time::Duration;

use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

use super::common::Settings;
use super::exit::{Failure, Outcome};

/// How long the brokers may take to acknowledge a record.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection is waited for before the record is sent all the same.
const CONNECT: Duration = Duration::from_secs(2);

/// Puts a record onto a topic (named without prefix) and waits until every replica has it.
///
/// # Errors
/// Properties that the client refuses, no broker, or no such topic: then the record does not stand.
pub async fn produce(settings: &Settings, topic: &str, key: &str, value: &[u8]) -> Outcome<()> {
    let producer: FutureProducer = settings
        .client()
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", TIMEOUT.as_millis().to_string())
        .create()
        .map_err(|e| Failure::Usage(e.to_string()))?;
    let topic = settings.topic(topic);
    connected(&producer, &topic).await;
    let record = FutureRecord::to(&topic).key(key).payload(value);
    producer.send(record, TIMEOUT).await.map(drop).map_err(|(error, _)| settings.no_broker(error))
}

/// Waits for a connection. Without one librdkafka asks for the producer's id in vain, and again only after half a second. What the brokers
/// answer is for the record itself to say.
async fn connected(producer: &FutureProducer, topic: &str) {
    let (producer, topic) = (producer.clone(), topic.to_owned());
    let asked = tokio::task::spawn_blocking(move || producer.client().fetch_metadata(Some(&topic), CONNECT).is_ok());
    tracing::trace!(connected = asked.await.unwrap_or(false), "before the first record");
}
