//! Sending the chunks of one contribution: a bounded number in flight, each acknowledged by the brokers.

use std::collections::VecDeque;
use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::producer::future_producer::Delivery;
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord};
use tokio_util::sync::CancellationToken;

use super::journal::{Journal, JournalFile};
use crate::cli::common::Settings;
use crate::cli::exit::{Failure, Outcome};
use crate::domain::records::Contribution;
use crate::domain::topics;
use crate::stream::client::TransactionTimes;

/// Chunks that may wait for their acknowledgement: at 4 MiB each this bounds memory to about 32 MiB.
const IN_FLIGHT: usize = 8;

/// Largest record: a chunk of 4 MiB and its header.
const MAX_MESSAGE: &str = "6291456";

/// A chunk that is not acknowledged by then fails the command.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// Makes the producer that `submit` sends with.
///
/// # Errors
/// When librdkafka refuses a property.
pub fn producer(settings: &Settings) -> Outcome<FutureProducer> {
    settings
        .cluster()
        .producer(None, &TransactionTimes { timeout: DELIVERY_TIMEOUT })
        .set("message.max.bytes", MAX_MESSAGE)
        .create()
        .map_err(|e| Failure::Usage(e.to_string()))
}

/// Sends chunks in order and keeps the journal.
pub struct Sender<'a> {
    settings: &'a Settings,
    producer: &'a FutureProducer,
    file: JournalFile,
    journal: Journal,
    in_flight: VecDeque<(i64, DeliveryFuture)>,
    last: Option<(i32, i64)>,
}

impl<'a> Sender<'a> {
    /// Starts or resumes the sending of one contribution.
    #[must_use]
    pub fn new(settings: &'a Settings, producer: &'a FutureProducer, file: JournalFile, journal: Journal) -> Self {
        Self { settings, producer, file, journal, in_flight: VecDeque::new(), last: None }
    }

    /// Sends a chunk; waits for older ones when too many are in flight.
    ///
    /// # Errors
    /// No broker, or a chunk that the brokers refuse.
    pub async fn send(&mut self, chunk: &Contribution, stop: &CancellationToken) -> Outcome<()> {
        if stop.is_cancelled() {
            return Err(interrupted());
        }
        while self.in_flight.len() >= IN_FLIGHT {
            self.acknowledged().await?;
        }
        let value = self.settings.wire.encode(chunk).map_err(Failure::failed)?;
        let topic = self.settings.topic(topics::CONTRIBUTIONS);
        let key = chunk.contribution_id.clone().unwrap_or_default();
        let record = FutureRecord::to(&topic).key(&key).payload(&value);
        let delivery = self.producer.send_result(record).map_err(|(e, _)| refused(self.settings, chunk.chunk, &e))?;
        self.in_flight.push_back((chunk.chunk, delivery));
        Ok(())
    }

    /// Waits for everything in flight; returns where the last chunk stands.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub async fn finish(mut self) -> Outcome<Option<(i32, i64)>> {
        while !self.in_flight.is_empty() {
            self.acknowledged().await?;
        }
        Ok(self.last)
    }

    async fn acknowledged(&mut self) -> Outcome<()> {
        let Some((chunk, delivery)) = self.in_flight.pop_front() else { return Ok(()) };
        let Delivery { partition, offset, .. } = match delivery.await {
            Ok(Ok(delivery)) => delivery,
            Ok(Err((error, _))) => return Err(refused(self.settings, chunk, &error)),
            Err(_) => {
                return Err(Failure::because(format!("chunk {chunk}: the producer ended before it was acknowledged")));
            }
        };
        self.last = Some((partition, offset));
        self.journal.sent = chunk + 1;
        // The journal only saves work; a full disk must not fail the sending.
        if let Err(error) = self.file.write(&self.journal) {
            tracing::warn!(%error, "the submission journal cannot be written; a repeated submit will send everything again");
        }
        Ok(())
    }
}

fn refused(settings: &Settings, chunk: i64, error: &KafkaError) -> Failure {
    use rdkafka::types::RDKafkaErrorCode as Code;
    match error.rdkafka_error_code() {
        Some(Code::MessageTimedOut | Code::AllBrokersDown | Code::BrokerTransportFailure) => settings.no_broker(error),
        Some(Code::MessageSizeTooLarge) => Failure::because(format!(
            "chunk {chunk} is larger than the topic takes\nhelp: `hokusai doctor` checks sizes, `hokusai topology apply` mends them"
        )),
        _ => Failure::because(format!("chunk {chunk}: {error}")),
    }
}

fn interrupted() -> Failure {
    Failure::because("interrupted\nhelp: repeat the command, it goes on where it stopped")
}
