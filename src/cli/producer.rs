//! Puts single records onto topics: commands, requests, audit records.

use std::time::Duration;

use rdkafka::producer::{FutureProducer, FutureRecord};

use super::common::Settings;
use super::exit::{Failure, Outcome};

/// How long the brokers may take to acknowledge a record.
const TIMEOUT: Duration = Duration::from_secs(30);

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
    let record = FutureRecord::to(&topic).key(key).payload(value);
    producer.send(record, TIMEOUT).await.map(drop).map_err(|(error, _)| settings.no_broker(error))
}
