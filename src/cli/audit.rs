//! What people do with commands, recorded on `audit` beside what stages decide.

use std::path::Path;
use std::time::Duration;

use rdkafka::producer::{FutureProducer, FutureRecord};

use super::common::Settings;
use super::exit::{Failure, Outcome};
use crate::attest::dsse::key_id;
use crate::domain::records::{Audit, Position};
use crate::domain::topics;
use crate::ops::secrets::{self, DEVELOPMENT_KEY};

/// How long the brokers may take to acknowledge a record.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Records an action that this process may do and is about to do.
///
/// # Errors
/// No broker, or no topic: then the record does not stand.
pub async fn record(
    settings: &Settings,
    keys: &Path,
    action: &str,
    resource: String,
    reason: String,
    position: Option<Position>,
) -> Outcome<()> {
    let entry = Audit {
        actor: actor(keys),
        action: action.to_owned(),
        resource,
        allowed: true,
        reason,
        position,
        ..Audit::default()
    };
    let producer: FutureProducer = settings
        .client()
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", TIMEOUT.as_millis().to_string())
        .create()
        .map_err(|e| Failure::Usage(e.to_string()))?;
    let topic = settings.topic(topics::AUDIT);
    let value = settings.wire.encode(&entry).map_err(Failure::failed)?;
    let record = FutureRecord::to(&topic).key(&entry.actor).payload(&value);
    producer.send(record, TIMEOUT).await.map(drop).map_err(|(error, _)| settings.no_broker(error))
}

/// The key that the operator signs with on this machine, if there is one.
fn actor(keys: &Path) -> String {
    let key = secrets::load_signing_key(&keys.join(format!("{DEVELOPMENT_KEY}.pem")));
    key.map_or_else(|_| "unverified".to_owned(), |key| key_id(&key.verifying_key()))
}
