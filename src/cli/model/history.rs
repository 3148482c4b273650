//! What was asked of a model, and what came of it: its audit, in the order of its revisions.

use rdkafka::message::Message;
use serde_json::json;

use super::{Failure, Outcome, Settings, say};
use crate::cli::reader::{Reader, Start};
use crate::domain::records::Audit;
use crate::domain::topics;
use crate::ops::time::rfc3339;

/// Prints every decision on a model. Those of one revision stand in the order in which they were written.
pub(super) fn show(settings: &Settings, name: &str) -> Outcome<()> {
    let resource = format!("model/{name}");
    let mut entries = Vec::new();
    Reader::scan(settings, topics::AUDIT, &Start::Beginning)?.for_each_to_end(|message| {
        let Some(payload) = message.payload() else { return Ok(()) };
        let entry: Audit = settings.wire.decode(payload).map_err(Failure::failed)?;
        if entry.resource == resource {
            let time = message.timestamp().to_millis().unwrap_or(0);
            let order = (entry.revision.unwrap_or(0), !entry.allowed, time, message.partition(), message.offset());
            entries.push((order, entry));
        }
        Ok(())
    })?;
    if entries.is_empty() {
        return Err(Failure::because(format!("nothing is known of a model {name}\nhelp: `hokusai model list`")));
    }
    entries.sort_by_key(|(order, _)| *order);
    for ((_, _, time, ..), entry) in &entries {
        if settings.json() {
            say(json!({
                "model": name, "time": rfc3339(*time), "actor": entry.actor, "action": entry.action,
                "allowed": entry.allowed, "reason": entry.reason, "revision": entry.revision,
                "command_id": entry.command_id,
            }))?;
        } else {
            let answer = if entry.allowed { "allowed" } else { "DENIED " };
            let actor = entry.actor.get(..12).unwrap_or(&entry.actor);
            say(format_args!("{}  {actor:<12}  {:<18} {answer}  {}", rfc3339(*time), entry.action, entry.reason))?;
        }
    }
    Ok(())
}
