//! The key that payloads are sealed to: the one that the platform publishes with the model.

use serde_json::json;

use super::{SubmitArgs, blocking};
use crate::cli::common::Settings;
use crate::cli::exit::{Failure, Outcome, say};
use crate::cli::model::models;
use crate::domain::keys::PublicKey;
use crate::domain::reason::Reason;

/// The model's intake key; none when payloads go as they are.
///
/// # Errors
/// A model that is not there (exit 4: nothing is sent, as there is nobody to seal it to), one without a key, no broker.
pub(super) async fn key(args: &SubmitArgs, settings: &Settings) -> Outcome<Option<PublicKey>> {
    if args.plain {
        return Ok(None);
    }
    let known = {
        let settings = settings.clone();
        blocking(move || models(&settings)).await?
    };
    let Some(model) = known.get(&args.model) else { return Err(unknown(args, settings)?) };
    let key = model.intake_key.as_ref().ok_or_else(|| {
        Failure::because(format!(
            "model {} has no intake key to seal to: it was declared before the platform had one\n\
             help: `hokusai keys publish` (or `hokusai model apply` once more) publishes it; --plain sends without sealing",
            args.model
        ))
    })?;
    let published = PublicKey::parse(&key.id, &key.public);
    published.map(Some).ok_or_else(|| {
        Failure::because(format!("the intake key {} that model {} publishes is no key", key.id, args.model))
    })
}

/// Tells that every file is refused: what intake would say, without a byte of them on the brokers.
fn unknown(args: &SubmitArgs, settings: &Settings) -> Outcome<Failure> {
    if settings.json() {
        for file in &args.files {
            say(json!({
                "file": file.display().to_string(), "contributor": args.contributor, "model": args.model,
                "status": "refused", "reason": Reason::UnknownModel.code(),
            }))?;
        }
    }
    Ok(Failure::Refused(format!(
        "{}: there is no model {}, so nothing was sent\nhelp: `hokusai model list` shows the models",
        Reason::UnknownModel.code(),
        args.model
    )))
}
