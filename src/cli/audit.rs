//! What people do with commands, recorded on `audit` beside what stages decide.

use std::path::Path;

use super::common::Settings;
use super::exit::{Failure, Outcome};
use super::producer::produce;
use crate::attest::dsse::key_id;
use crate::domain::records::{Audit, Position};
use crate::domain::topics;
use crate::ops::secrets::{self, DEVELOPMENT_KEY};

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
    let value = settings.wire.encode(&entry).map_err(Failure::failed)?;
    produce(settings, topics::AUDIT, &entry.actor, &value).await
}

/// Audits what was done with the key file. The file is changed whether or not there is a broker: a leaked key must not wait for one.
pub async fn of_key(settings: &Settings, dir: &Path, action: &str, id: &str, reason: &str) {
    let recorded = record(settings, dir, action, format!("key/{id}"), reason.to_owned(), None).await;
    if recorded.is_err() {
        tracing::warn!(action, key = id, "not audited: no broker took the record");
    }
}

/// The key that the operator signs with on this machine, if there is one.
fn actor(keys: &Path) -> String {
    let key = secrets::load_signing_key(&keys.join(format!("{DEVELOPMENT_KEY}.pem")));
    key.map_or_else(|_| "unverified".to_owned(), |key| key_id(&key.verifying_key()))
}
