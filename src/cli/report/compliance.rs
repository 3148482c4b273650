//! `hokusai report compliance`: a period, for whoever has to answer for it.

use chrono::{DateTime, NaiveDate, NaiveTime};
use clap::Args;

use super::{Output, deliver, each};
use crate::attest::statement::Predicate;
use crate::cli::attestation::log::scan;
use crate::cli::common::{Settings, blocking};
use crate::cli::exit::{Failure, Outcome};
use crate::cli::model::models;
use crate::domain::records::{Audit, Evaluation, Receipt};
use crate::domain::topics;
use crate::report::compliance::{Compliance, Gather, Period};

const EXAMPLES: &str = "\
Examples:
  hokusai report compliance --from 2026-01-01 --to 2026-02-01 -o january.html
  hokusai report compliance --from 2026-01-01T08:00:00Z --to 2026-01-01T17:00:00+01:00
  hokusai report compliance --from 2026-01-01 --to 2026-02-01 --format json | jq .promotions

What it says: personal data found, by model and type, and the policy of each column; who asked for plaintext, sealed rows and keys;
what was asked of models, with the answers, and how evaluations ended; every promotion with the key that signed it and its leaf in the log.
Receipts count by when the broker appended the contribution, everything else by when it was recorded. It reads the topics as they are now:
once a period is over, the report over it no longer changes. No value of a row stands in it.";

/// Arguments of `report compliance`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ComplianceArgs {
    /// Beginning, inclusive: 2026-01-31 (midnight UTC) or RFC 3339 with an offset
    #[arg(long, value_name = "T", value_parser = time)]
    from: i64,
    /// End, exclusive
    #[arg(long, value_name = "T", value_parser = time)]
    to: i64,
    #[command(flatten)]
    output: Output,
}

/// Milliseconds UTC of a date or a time.
fn time(text: &str) -> Result<i64, String> {
    if let Ok(day) = text.parse::<NaiveDate>() {
        return Ok(day.and_time(NaiveTime::MIN).and_utc().timestamp_millis());
    }
    let time = DateTime::parse_from_rfc3339(text);
    time.map(|time| time.timestamp_millis())
        .map_err(|_| "expected a day as 2026-01-31, or a time as 2026-01-31T12:00:00Z".to_owned())
}

pub(super) async fn run(args: ComplianceArgs, settings: Settings) -> Outcome<()> {
    let ComplianceArgs { from, to, output } = args;
    if from >= to {
        return Err(Failure::Usage("--from: the period is empty\nhelp: --from is to lie before --to".to_owned()));
    }
    blocking(move || {
        let report = gather(&settings, Period { from, to })?;
        let text = if settings.json() {
            serde_json::to_string(&report).map_err(Failure::failed)? + "\n"
        } else {
            report.html()
        };
        deliver(&text, output.output.as_deref())
    })
    .await
}

fn gather(settings: &Settings, period: Period) -> Outcome<Compliance> {
    let mut gather = Gather::new(period);
    each::<Receipt>(settings, topics::RECEIPTS, |_, receipt| gather.receipt(&receipt))?;
    models(settings)?.values().for_each(|model| gather.model(model));
    each::<Audit>(settings, topics::AUDIT, |at, entry| gather.audit(at, entry))?;
    scan(settings, |entry| {
        if let Predicate::Registry(decision) = &entry.statement.predicate {
            gather.decision(entry.index, entry.hex(), decision);
        }
        Ok(())
    })?;
    each::<Evaluation>(settings, topics::EVALUATIONS, |at, told| gather.evaluation(at, told))?;
    Ok(gather.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_its_midnight_in_utc_and_a_time_without_offset_is_no_time() {
        assert_eq!(time("1970-01-02"), Ok(86_400_000));
        assert_eq!(time("1970-01-01T02:00:00.5+01:00"), Ok(3_600_500));
        assert!(time("1970-01-01T02:00:00").is_err() && time("yesterday").is_err() && time("").is_err());
    }
}
