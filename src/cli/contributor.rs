//! `hokusai contributor`: receipts, attestations and the part in improvements of one contributor.

use clap::Args;

use super::attestation::log::scan;
use super::common::{Settings, blocking};
use super::exit::{Failure, Outcome, say};
use super::report::each;
use crate::attest::statement::Predicate;
use crate::domain::records::{Attribution, Receipt};
use crate::domain::topics;
use crate::report::contributor::{Account, Gather, Who};
use crate::report::markup::visible;

const EXAMPLES: &str = "\
Examples:
  hokusai contributor UA
  hokusai contributor 0x52908400098527886E0F7030069857D2E4169EE7 --format json
  hokusai contributor hmac-sha256:k1:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

ID is one of
  the name in receipts          as it was given to `submit --contributor`, letter by letter
  a wallet, 0x and 40 digits    the name too; upper and lower case count as the same wallet
  ed25519:KEY                   the name of a contributor who signs with such a key
  a pseudonym, hmac-sha256:…    as attested statements have it, where no name stands: only what was attested under that key is found,
                                so after a rotation of the token key one contributor has several
The part in an improvement is the Shapley value of the player that the contributor belongs to, with its standard error, and the own share of
what is payable in basis points; small contributors are one player together, whose value is told with their number.
A name is no proof of who somebody is: `verified` says which receipts were signed by the key that the name is.";

/// Arguments of `contributor`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ContributorArgs {
    /// The contributor: a name, a wallet, or a pseudonym
    #[arg(value_name = "ID")]
    id: String,
}

/// Runs `contributor`.
///
/// # Errors
/// No broker, a record that cannot be read, or nobody of this id.
pub async fn run(args: ContributorArgs, settings: Settings) -> Outcome<()> {
    blocking(move || {
        let account = account(&settings, Who::of(&args.id))?;
        if account.is_empty() {
            return Err(Failure::because(format!(
                "no receipt is of {}\nhelp: `hokusai sql 'select distinct contributor from receipts'` lists the names",
                visible(&args.id)
            )));
        }
        if settings.json() { say(serde_json::to_string(&account).map_err(Failure::failed)?) } else { show(&account) }
    })
    .await
}

fn account(settings: &Settings, who: Who) -> Outcome<Account> {
    let mut gather = Gather::new(who);
    if gather.needs_statements_first() {
        scan(settings, |entry| {
            if let Predicate::Contribution(said) = &entry.statement.predicate {
                gather.pseudonym(said);
            }
            Ok(())
        })?;
    }
    each::<Receipt>(settings, topics::RECEIPTS, |_, receipt| gather.receipt(&receipt))?;
    each::<Attribution>(settings, topics::ATTRIBUTIONS, |_, told| gather.attribution(&told))?;
    scan(settings, |entry| {
        if let Predicate::Contribution(said) = &entry.statement.predicate {
            gather.statement(entry.index, &entry.hex(), said);
        }
        Ok(())
    })?;
    Ok(gather.finish())
}

fn show(account: &Account) -> Outcome<()> {
    let joined = |texts: &std::collections::BTreeSet<String>| -> String {
        texts.iter().map(|text| visible(text)).collect::<Vec<_>>().join(", ")
    };
    say(format_args!("contributor {}", joined(&account.names)))?;
    if !account.pseudonyms.is_empty() {
        say(format_args!("  attested as  {}", joined(&account.pseudonyms)))?;
    }
    if !account.payout_addresses.is_empty() {
        say(format_args!("  paid to      {}", joined(&account.payout_addresses)))?;
    }
    let by_status: Vec<String> = account.by_status.iter().map(|(status, n)| format!("{n} {status}")).collect();
    say(format_args!("  receipts     {} ({})", account.count(), by_status.join(", ")))?;
    say(format_args!("  rows         {} received, {} accepted", account.received, account.accepted))?;
    for part in &account.attributions {
        let together = match part.player_contributors {
            1 => String::new(),
            n => format!(" of {n} contributors together"),
        };
        say(format_args!(
            "{} on {}: {} ± {}{together} of {} {}, {} rows: {}",
            visible(&part.model),
            visible(&part.benchmark),
            part.effect,
            part.standard_error,
            part.delta,
            part.metric,
            part.rows,
            if part.payable {
                format!("{} basis points", part.basis_points)
            } else {
                format!("not payable ({})", part.reasons.join(", "))
            }
        ))?;
        say(format_args!("    evaluation {}, statement {}", part.evaluation_id, part.statement))?;
    }
    let left = account.count().saturating_sub(account.receipts.len() as u64);
    if left > 0 {
        say(format_args!("the newest {}; {left} older ones: `hokusai sql`, table receipts", account.receipts.len()))?;
    }
    for line in &account.receipts {
        let quality = line.quality.map_or_else(|| "no quality score".to_owned(), |score| format!("quality {score}"));
        let verified = if line.verified { ", verified" } else { "" };
        say(format_args!(
            "{}  {}: {} for {}: {} of {} rows, {quality}{verified}",
            line.time,
            visible(&line.contribution_id),
            line.status,
            visible(&line.model),
            line.accepted,
            line.received
        ))?;
        for (reason, count) in &line.refused {
            say(format_args!("    refused   {count} {reason}"))?;
        }
        match &line.attestation {
            Some(attested) => say(format_args!("    attested  leaf {} (index {})", attested.leaf, attested.index))?,
            None => say("    attested  not yet")?,
        }
    }
    Ok(())
}
