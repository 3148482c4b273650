//! `hokusai watch`: a topic's records, decoded, as they come.

use std::io::{BufWriter, Write};
use std::time::Duration;

use clap::Args;
use rdkafka::message::{BorrowedMessage, Message};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::audit;
use super::common::{KeyFolder, Settings};
use super::exit::{Failure, Outcome};
use super::reader::{Polled, Reader, Start};
use crate::domain::topics;

const EXAMPLES: &str = "\
Examples:
  hokusai watch receipts                                  new receipts as they come; Ctrl-C ends
  hokusai watch receipts --from-beginning --until-end --format json
  hokusai watch contributions.refused --from-beginning    why rows were refused

Only committed records are shown. Payloads of `contributions` may be personal data: they are masked unless --plaintext is
given, which is recorded on `audit` first. What is sealed stays sealed.";

/// Arguments of `watch`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct WatchArgs {
    /// Topic, without prefix
    topic: String,
    /// Start at the oldest record instead of at the newest
    #[arg(long)]
    from_beginning: bool,
    /// Stop once the present end is reached
    #[arg(long)]
    until_end: bool,
    /// Stop after this many records
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Show payloads of `contributions` as they stand there; audited
    #[arg(long)]
    plaintext: bool,
    #[command(flatten)]
    keys: KeyFolder,
}

/// Runs `watch`.
///
/// # Errors
/// No broker, no such topic, or output that cannot be written.
pub async fn run(args: WatchArgs, settings: Settings) -> Outcome<()> {
    let stop = crate::ops::signals::on_signal();
    if args.plaintext && args.topic == topics::CONTRIBUTIONS {
        let (keys, resource) = (args.keys.path(&settings), format!("topic/{}", args.topic));
        // Without its record nothing is shown.
        audit::record(&settings, &keys, "watch.plaintext", resource, "payloads are shown".to_owned(), None).await?;
    }
    // librdkafka's poll blocks.
    let watching = tokio::task::spawn_blocking(move || watch(&args, &settings, &stop));
    watching.await.map_err(Failure::failed)?
}

fn watch(args: &WatchArgs, settings: &Settings, stop: &CancellationToken) -> Outcome<()> {
    let start = if args.from_beginning { Start::Beginning } else { Start::End };
    let open = if args.until_end { Reader::scan } else { Reader::open };
    let mut reader = open(settings, &args.topic, &start)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut shown = 0;
    while !stop.is_cancelled() && args.limit.is_none_or(|n| shown < n) {
        if args.until_end && reader.at_end() {
            break;
        }
        match reader.poll(Duration::from_millis(100))? {
            Polled::Nothing | Polled::End => flush(&mut out)?,
            Polled::Record(message) => {
                if !print(&mut out, args, &message, settings)? {
                    return Ok(());
                }
                shown += 1;
            }
        }
    }
    flush(&mut out)
}

/// Prints one record; false when nobody reads the output any more.
fn print(out: &mut impl Write, args: &WatchArgs, message: &BorrowedMessage<'_>, settings: &Settings) -> Outcome<bool> {
    let topic = &args.topic;
    let line = render(args, message, settings);
    let written = if settings.json() {
        writeln!(out, "{line}")
    } else {
        writeln!(
            out,
            "{} {}/{}@{} key={}\n{}",
            crate::ops::time::rfc3339(message.timestamp().to_millis().unwrap_or(0)),
            topic,
            message.partition(),
            message.offset(),
            line["key"].as_str().unwrap_or("-"),
            serde_json::to_string_pretty(&line["value"]).unwrap_or_default()
        )
    };
    match written {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(e.into()),
    }
}

fn render(args: &WatchArgs, message: &BorrowedMessage<'_>, settings: &Settings) -> Value {
    let topic = args.topic.as_str();
    let mut line = json!({
        "topic": topic,
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": message.timestamp().to_millis(),
        "key": message.key().map(|key| String::from_utf8_lossy(key).into_owned()),
        "value": null,
    });
    let Some(payload) = message.payload() else { return line };
    match settings.wire.to_json(payload) {
        Ok(value) => {
            line["value"] = match topic {
                topics::CONTRIBUTIONS if !args.plaintext => mask(value, &["payload", "rows"]),
                topics::DEAD_LETTERS => mask(value, &["sealed"]),
                _ => value,
            }
        }
        // The bytes of an unreadable record may be personal data: only their number is shown.
        Err(error) => line["unreadable"] = json!({"error": error.to_string(), "bytes": payload.len()}),
    }
    line
}

/// Replaces fields by their size.
fn mask(mut value: Value, fields: &[&str]) -> Value {
    for field in fields {
        if let Some(found) = value.get_mut(*field).filter(|v| !v.is_null()) {
            let size = match &*found {
                Value::String(text) => text.len(),
                other => other.to_string().len(),
            };
            *found = Value::String(format!("masked, {size} characters"));
        }
    }
    value
}

fn flush(out: &mut impl Write) -> Outcome<()> {
    match out.flush() {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_payloads_of_contributions_are_masked_by_their_size() {
        let value = json!({"model": "m", "rows": [{"email": "a@example.com"}], "payload": "aGk="});
        let masked = mask(value, &["payload", "rows"]);
        assert_eq!(masked["model"], "m");
        assert!(!masked.to_string().contains("example.com"));
        assert_eq!(masked["payload"], "masked, 4 characters");
    }
}
