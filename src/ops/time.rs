//! Times as people read them. Nothing that is published reads the clock.

use chrono::{DateTime, SecondsFormat};

/// Milliseconds since 1970-01-01 UTC as RFC 3339 with milliseconds; a time out of range as its number.
#[must_use]
pub fn rfc3339(milliseconds: i64) -> String {
    DateTime::from_timestamp_millis(milliseconds)
        .map_or_else(|| milliseconds.to_string(), |time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}
