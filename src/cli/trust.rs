//! `hokusai keys trust`: whom the platform trusts with which commands.
//!
//! The file is a history: entries end and are never taken out, so that a log is decided the same whenever it is read again.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ed25519_dalek::VerifyingKey;
use ed25519_dalek::pkcs8::DecodePublicKey;
use serde_json::json;

use super::audit;
use super::common::Settings;
use super::exit::{Failure, Outcome, say};
use crate::attest::dsse::key_id;
use crate::attest::trust::{EvaluationRule, Policy, Role, Trust};
use crate::ops::secrets;

const EXAMPLES: &str = "\
Examples:
  hokusai keys trust show
  openssl pkey -in ci.pem -pubout -out ci.pub.pem
  hokusai keys trust grant ci.pub.pem --name ci --role model.register --role model.tag
  hokusai keys trust revoke 74c181c7ad8a0855…
  hokusai keys trust policy flight-delay --benchmark flights-2024 --staging-first

Running workers take up a change within seconds. Every machine that runs keying or registry needs the same file; what was
decided before stays decided. Never take an entry out of the file: a log is checked against it.";

/// Arguments of `keys trust`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TrustArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show keys, roles and policies, and from which serial of the file to which they are in force
    Show,
    /// Trust a key with roles; for a key that is trusted, in place of those it had
    Grant {
        /// PEM file of the public key (openssl pkey -pubout)
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// What people call it; contributors sign under this name
        #[arg(long)]
        name: String,
        /// A role, like model.promote
        #[arg(long = "role", required = true, value_parser = role)]
        roles: Vec<Role>,
    },
    /// Trust a key with nothing any more
    Revoke {
        /// Id of the key
        #[arg(value_name = "KEYID")]
        keyid: String,
    },
    /// Say what a promotion of a model to production has to show
    Policy {
        /// The model; `*` for all that have no policy of their own
        model: String,
        /// No evaluation is asked for
        #[arg(long, conflicts_with = "benchmark")]
        no_evaluation: bool,
        /// The only benchmark that counts
        #[arg(long, value_name = "NAME")]
        benchmark: Option<String>,
        /// Only what has been in staging may be promoted to production
        #[arg(long)]
        staging_first: bool,
    },
}

fn role(name: &str) -> Result<Role, String> {
    let names = || Role::ALL.iter().map(|role| role.name()).collect::<Vec<_>>().join(", ");
    Role::ALL.iter().copied().find(|role| role.name() == name).ok_or_else(|| format!("the roles are {}", names()))
}

/// Runs `keys trust` on the trust file of a key folder.
///
/// # Errors
/// A file that cannot be used or written, or an unknown key.
pub async fn run(args: TrustArgs, settings: &Settings, dir: &Path) -> Outcome<()> {
    let path = secrets::trust_path(dir);
    if let Action::Show = args.action {
        return show(settings, &secrets::load_trust(&path).map_err(Failure::failed)?);
    }
    let mut trust = secrets::load_or_create_trust(dir).map_err(Failure::failed)?;
    let (action, resource, reason) = match args.action {
        Action::Show => return Ok(()),
        Action::Grant { file, name, roles } => {
            let key = public_key(&file)?;
            trust.grant(&name, &key, &roles);
            let roles: Vec<&str> = roles.iter().map(|role| role.name()).collect();
            ("trust.grant", key_id(&key), format!("{name}: {}", roles.join(", ")))
        }
        Action::Revoke { keyid } => {
            trust.revoke(&keyid).map_err(Failure::failed)?;
            ("trust.revoke", keyid, "nothing that it signs counts any more".to_owned())
        }
        Action::Policy { model, no_evaluation, benchmark, staging_first } => {
            let evaluation = if no_evaluation { EvaluationRule::None } else { EvaluationRule::Accepted };
            let text = serde_json::to_string(&evaluation).map_err(Failure::failed)?;
            let reason = format!("{model}: evaluation {text}, benchmark {benchmark:?}, staging first {staging_first}");
            trust.set_policy(Policy { model, evaluation, benchmark, staging_first, ..Policy::default() });
            ("trust.policy", "policy".to_owned(), reason)
        }
    };
    secrets::save_trust(&path, &trust).map_err(Failure::failed)?;
    audit::of_key(settings, dir, action, &resource, &reason).await;
    show(settings, &trust)
}

fn public_key(file: &Path) -> Outcome<VerifyingKey> {
    let no_key = || {
        Failure::because(format!(
            "{} holds no Ed25519 public key (PEM)\nhelp: `openssl pkey -in KEY -pubout` prints the one of a private key",
            file.display()
        ))
    };
    let text = std::fs::read_to_string(file).map_err(|e| Failure::because(format!("{}: {e}", file.display())))?;
    let key = VerifyingKey::from_public_key_pem(&text).map_err(|_| no_key())?;
    if key.is_weak() { Err(no_key()) } else { Ok(key) }
}

fn show(settings: &Settings, trust: &Trust) -> Outcome<()> {
    if settings.json() {
        let keys = trust.entries().map(|(id, key)| {
            json!({
                "keyid": id, "name": key.name, "roles": key.roles, "from": key.from, "until": key.until,
                "in_force": key.is_in_force(trust.serial()),
            })
        });
        return say(json!({"serial": trust.serial(), "keys": keys.collect::<Vec<_>>(), "policies": trust.policies()}));
    }
    say(format_args!("serial {}", trust.serial()))?;
    for (id, key) in trust.entries() {
        let force = match key.until {
            None => format!("from {}", key.from),
            Some(until) => format!("from {} until {until}", key.from),
        };
        let roles: Vec<&str> = key.roles.iter().map(|role| role.name()).collect();
        say(format_args!("{id}  {:<12} {force:<18} {}", key.name, roles.join(", ")))?;
    }
    for policy in trust.policies() {
        say(format_args!("policy {}", serde_json::to_string(policy).map_err(Failure::failed)?))?;
    }
    Ok(())
}
