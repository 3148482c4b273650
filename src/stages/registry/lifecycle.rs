//! What may happen to a registered version: promotion, rollback, retirement, names and tags.
//!
//! * `staging` and `production` hold one version each. Whoever is replaced goes back to `dev`: being retired
//!   (`archived`) is a decision of its own, and final.
//! * A rollback goes to a version that was in the stage before, and to no other; it needs no evaluation.
//! * A transition is named by the revision that it made.

use super::command::{AliasChange, Expected, Promotion, Rollback, TagChange};
use super::fold::{Denial, deny};
use super::policy::{self, Facts, Rule};
use super::version::{MAX_TAGS, MAX_VALUE, Registrar, Semver, Stage, is_name};
use crate::attest::trust::Policy;
use crate::domain::records::{Model, ModelAlias, ModelVersion, NamedValue, Transition, VersionEvaluation};

/// Aliases of a model.
pub const MAX_ALIASES: usize = 64;
/// Transitions that a model's record lists.
pub const MAX_TRANSITIONS: usize = 256;
/// Evaluations of a version.
pub const MAX_EVALUATIONS: usize = 64;
/// Longest alias, in bytes.
const MAX_ALIAS: usize = 64;

/// What a change came to: none when all is as it was asked for already.
pub(super) type Changed = Result<Option<String>, Denial>;

/// Whether the version that stands in a stage is there by the transition that the sender saw. A revision was compared before.
pub(super) fn unmoved(model: &Model, stage: Stage, expected: Expected) -> Result<(), Denial> {
    let Expected::Transition(seen) = expected else { return Ok(()) };
    let now = head_transition(model, stage);
    if seen == now {
        return Ok(());
    }
    deny("STALE_TRANSITION", format!("{} stands there by transition {now}, the command expects {seen}", stage.name()))
}

/// The transition that brought the present version into a stage; 0 when it is empty.
#[must_use]
pub fn head_transition(model: &Model, stage: Stage) -> i64 {
    let Some(head) = model.head(stage.name()) else { return 0 };
    let brought = |t: &&Transition| t.stage == stage.name() && t.version == head.version;
    model.transitions.iter().rfind(brought).map_or(0, |t| t.revision)
}

fn found<'m>(model: &'m Model, version: &str) -> Result<&'m ModelVersion, Denial> {
    match model.version(version) {
        Some(found) if Stage::of(found) == Stage::Archived => {
            deny("ARCHIVED", "the version is retired for good; help: register its successor")
        }
        Some(found) => Ok(found),
        None => deny("UNKNOWN_VERSION", "the model has no such version; help: `hokusai model show` lists them"),
    }
}

/// Brings a version into `staging` or `production`, as the policy allows.
pub(super) fn promote(
    model: &mut Model,
    asked: &Promotion,
    policy: &Policy,
    waived: bool,
    by: Registrar<'_>,
) -> Changed {
    let candidate = found(model, &asked.version)?;
    let (from, to) = (Stage::of(candidate), asked.stage);
    if from == to {
        return Ok(None);
    }
    if !to.is_single() || from > to {
        return deny(
            "NOT_A_PROMOTION",
            format!("from {} to {} is none; help: versions go to staging or production", from.name(), to.name()),
        );
    }
    let head = model.head(to.name());
    let rule = policy::decide(&Facts { policy, stage: to, candidate, head, waived })
        .or_else(|reason| deny(reason.code(), reason.text()))?;
    bring(model, &asked.version, to, "promote", &rule.to_string(), by);
    Ok(Some(format!("{} from {} to {}, {rule}", asked.version, from.name(), to.name())))
}

/// Brings a version back into a stage that it was in before.
pub(super) fn rollback(model: &mut Model, asked: &Rollback, by: Registrar<'_>) -> Changed {
    let target = found(model, &asked.version)?;
    let to = asked.stage;
    if !to.is_single() {
        return deny("NOT_A_ROLLBACK", "only staging and production are taken back to an earlier version");
    }
    if Stage::of(target) == to {
        return Ok(None);
    }
    if !target.stages.iter().any(|stage| stage == to.name()) {
        return deny(
            "NEVER_THERE",
            format!("{} was never in {}; help: `hokusai model promote` brings it there", asked.version, to.name()),
        );
    }
    if Stage::of(target) == Stage::Production {
        return deny("IN_PRODUCTION", "the version is in production; help: roll production back first");
    }
    bring(model, &asked.version, to, "rollback", "WAS_THERE", by);
    Ok(Some(format!("{} back to {}", asked.version, to.name())))
}

/// Retires a version for good.
pub(super) fn archive(model: &mut Model, version: &str, by: Registrar<'_>) -> Changed {
    if model.version(version).is_some_and(|v| Stage::of(v) == Stage::Archived) {
        return Ok(None);
    }
    if Stage::of(found(model, version)?) == Stage::Production {
        return deny("IN_PRODUCTION", "the version is in production; help: promote or roll back another one first");
    }
    if let Some(alias) = model.aliases.iter().find(|a| a.version == version) {
        return deny("ALIASED", format!("the alias {} names it; help: move the alias first", alias.name));
    }
    bring(model, version, Stage::Archived, "archive", "NOT_REQUIRED", by);
    Ok(Some(format!("{version} archived")))
}

/// Moves a version to a stage at the model's next revision; whoever stood there goes back to `dev`.
fn bring(model: &mut Model, version: &str, to: Stage, action: &str, rule: &str, by: Registrar<'_>) {
    model.revision += 1;
    let mut from_version = None;
    for other in model.versions.iter_mut().filter(|_| to.is_single()) {
        if other.stage == to.name() {
            other.stage = Stage::Dev.name().to_owned();
            from_version = Some(other.version.clone());
        }
    }
    for moved in model.versions.iter_mut().filter(|v| v.version == version) {
        moved.stage = to.name().to_owned();
        let been = |stage: &Stage| *stage == to || moved.stages.iter().any(|name| name == stage.name());
        moved.stages = Stage::ALL.iter().filter(|s| been(s)).map(|s| s.name().to_owned()).collect();
    }
    model.transitions.push(Transition {
        revision: model.revision,
        stage: to.name().to_owned(),
        version: version.to_owned(),
        from_version,
        action: action.to_owned(),
        rule: rule.to_owned(),
        signer: by.signer.to_owned(),
        command_id: by.command_id.to_owned(),
    });
    forget(model);
}

/// Keeps the record's list of transitions bounded; those by which versions stand where they stand stay.
fn forget(model: &mut Model) {
    let heads = [Stage::Staging, Stage::Production].map(|stage| head_transition(model, stage));
    if model.transitions.len() > MAX_TRANSITIONS
        && let Some(oldest) = model.transitions.iter().position(|t| !heads.contains(&t.revision))
    {
        model.transitions.remove(oldest);
    }
}

/// Sets, moves or removes an alias.
pub(super) fn alias(model: &mut Model, asked: AliasChange) -> Changed {
    let AliasChange { alias, version } = asked;
    let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    let reserved = Stage::ALL.iter().any(|s| s.name() == alias) || alias.parse::<Semver>().is_ok() || alias == "latest";
    if alias.is_empty() || alias.len() > MAX_ALIAS || !alias.bytes().all(plain) || reserved {
        return deny(
            "BAD_ALIAS",
            format!(
                "an alias has 1 to {MAX_ALIAS} of a-z, 0-9, '.', '-', '_', and is no stage, no number and not `latest`"
            ),
        );
    }
    let at = model.aliases.binary_search_by(|a| a.name.as_str().cmp(&alias));
    let Some(version) = version else {
        let Ok(at) = at else { return Ok(None) };
        model.aliases.remove(at);
        model.revision += 1;
        return Ok(Some(format!("alias {alias} removed")));
    };
    found(model, &version)?;
    let told = format!("alias {alias} names {version}");
    match at {
        Ok(at) => match model.aliases.get_mut(at) {
            Some(entry) if entry.version != version => entry.version = version,
            _ => return Ok(None),
        },
        Err(_) if model.aliases.len() >= MAX_ALIASES => {
            return deny("MODEL_FULL", format!("a model has at most {MAX_ALIASES} aliases; help: remove one"));
        }
        Err(at) => model.aliases.insert(at, ModelAlias { name: alias, version }),
    }
    model.revision += 1;
    Ok(Some(told))
}

/// Sets or removes a tag of a version, or of the model.
pub(super) fn tag(model: &mut Model, asked: TagChange) -> Changed {
    let TagChange { tag, value, version } = asked;
    if !is_name(&tag) || value.as_ref().is_some_and(|value| value.len() > MAX_VALUE) {
        return deny("BAD_TAG", format!("a tag has a name of 1 to 256 bytes and a value of at most {MAX_VALUE}"));
    }
    if let Some(version) = &version {
        found(model, version)?;
    }
    let tags = match &version {
        None => Some(&mut model.tags),
        Some(version) => model.versions.iter_mut().find(|v| v.version == *version).map(|v| &mut v.tags),
    };
    let Some(tags) = tags else { return Ok(None) };
    let at = tags.binary_search_by(|t| t.name.as_str().cmp(&tag));
    let told = match (at, value) {
        (Err(_), None) => return Ok(None),
        (Ok(at), None) => {
            tags.remove(at);
            format!("tag {tag} removed")
        }
        (Ok(at), Some(value)) => match tags.get_mut(at) {
            Some(entry) if entry.value != value => {
                entry.value = value;
                format!("tag {tag} set")
            }
            _ => return Ok(None),
        },
        (Err(_), Some(_)) if tags.len() >= MAX_TAGS => {
            return deny("MODEL_FULL", format!("there are at most {MAX_TAGS} tags; help: remove one"));
        }
        (Err(at), Some(value)) => {
            tags.insert(at, NamedValue { name: tag.clone(), value });
            format!("tag {tag} set")
        }
    };
    model.revision += 1;
    Ok(Some(told))
}

/// Notes an evaluation beside the version that it was about.
pub(super) fn evaluated(model: &mut Model, candidate: &str, evaluation: VersionEvaluation) -> Changed {
    let Some(version) = model.versions.iter_mut().find(|v| v.artefact.digest == candidate) else {
        return deny("UNKNOWN_VERSION", "the model has no version of the candidate's artefact");
    };
    if version.evaluations.iter().any(|e| e.evaluation_id == evaluation.evaluation_id) {
        return deny("REPEATED", "the evaluation is known already");
    }
    if version.evaluations.len() >= MAX_EVALUATIONS {
        return deny("VERSION_FULL", format!("a version has at most {MAX_EVALUATIONS} evaluations"));
    }
    let told = format!("{} {} on {}", version.version, evaluation.status, evaluation.benchmark);
    version.evaluations.push(evaluation);
    model.revision += 1;
    Ok(Some(told))
}

/// The rule under which a version was registered.
#[must_use]
pub fn registered_rule() -> Rule {
    Rule::NotRequired
}
