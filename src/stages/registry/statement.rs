//! The request to attest a decision: the one place that makes it.

use crate::attest::decision::{NamedArtefact, RegistryDecision, SignedCommand};
use crate::attest::statement::{Predicate, Statement, Subject};
use crate::domain::records::{AttestationRequest, Model, Transition};

/// The request to attest a transition of a model; none when its version is not there, which the fold excludes.
/// `payload_digest` is SHA-256 of the signed payload, hex; `from_stage` where the version stood before, none when new.
#[must_use]
pub fn request(
    model: &Model,
    transition: &Transition,
    from_stage: Option<&str>,
    payload_digest: &str,
) -> Option<AttestationRequest> {
    let version = model.version(&transition.version)?;
    let replaced = transition.from_version.as_deref().and_then(|v| model.version(v));
    let predicate = RegistryDecision {
        action: transition.action.clone(),
        command: SignedCommand {
            id: transition.command_id.clone(),
            payload_digest: payload_digest.to_owned(),
            signer: transition.signer.clone(),
        },
        from_stage: from_stage.map(str::to_owned),
        model: model.model.clone(),
        replaced: replaced.map(|v| NamedArtefact { digest: v.artefact.digest.clone(), version: v.version.clone() }),
        revision: transition.revision,
        rule: transition.rule.clone(),
        stage: transition.stage.clone(),
        version: version.version.clone(),
    };
    let name = format!("{}@{}", model.model, version.version);
    let digest = data_encoding::HEXLOWER.decode(version.artefact.digest.as_bytes()).ok()?;
    let subject = Subject::new(name, "sha256", &digest);
    let statement = Statement { subject, predicate: Predicate::Registry(Box::new(predicate)) }.payload().ok()?;
    Some(AttestationRequest { predicate_type: RegistryDecision::TYPE.to_owned(), statement, acknowledge: None })
}
