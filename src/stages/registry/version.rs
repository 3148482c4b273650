//! Versions: their stages, how they are numbered, and how one is registered.
//!
//! Numbers are semantic versions (semver.org) with the meaning that data science gives them: *major* when the features or
//! the label changed, *minor* when the data changed, *patch* when neither did (another seed or parameters). What is not
//! known to be the same counts as changed. A number is the next free one above the version compared with: the declared
//! parent; without one the version in production; without that the version registered last.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::command::{Origin, Registration};
use super::fold::{Denial, deny};
use crate::domain::contract::Spec;
use crate::domain::limits::MAX_ID;
use crate::domain::records::{Artefact, Dataset, Metric, Model, ModelVersion, NamedValue};
use crate::ml::declare::declaration;
use crate::ml::encoding::Declared;

/// Versions that a model keeps.
pub const MAX_VERSIONS: usize = 1_024;
/// Parameters of a version.
pub const MAX_PARAMS: usize = 256;
/// Metrics of a version.
pub const MAX_METRICS: usize = 64;
/// Tags of a version, and of a model.
pub const MAX_TAGS: usize = 64;
/// Feature columns that a version names.
pub const MAX_FEATURES: usize = 1_024;
/// Longest value of a parameter or tag, in bytes.
pub const MAX_VALUE: usize = 1_024;
/// Longest decimal string.
const MAX_DECIMAL: usize = 64;

/// Where a version stands. `staging` and `production` hold one version each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Registered; nobody but its makers relies on it.
    Dev,
    /// About to go into production.
    Staging,
    /// The model, to everybody else.
    Production,
    /// Retired for good.
    Archived,
}

impl Stage {
    /// Every stage, in the order of the path to production.
    pub const ALL: [Self; 4] = [Self::Dev, Self::Staging, Self::Production, Self::Archived];

    /// The stage as records name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Staging => "staging",
            Self::Production => "production",
            Self::Archived => "archived",
        }
    }

    /// Whether it holds one version at most.
    #[must_use]
    pub fn is_single(self) -> bool {
        matches!(self, Self::Staging | Self::Production)
    }

    /// The stage of a version; a name of a newer program counts as `archived`, from where nothing moves.
    #[must_use]
    pub fn of(version: &ModelVersion) -> Self {
        Self::ALL.into_iter().find(|stage| stage.name() == version.stage).unwrap_or(Self::Archived)
    }
}

/// A semantic version without pre-release and build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Semver {
    /// Features or label changed.
    pub major: u64,
    /// Data changed.
    pub minor: u64,
    /// Seed or parameters changed.
    pub patch: u64,
}

impl fmt::Display for Semver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// A text that is no `MAJOR.MINOR.PATCH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a semantic version like 1.2.0")]
pub struct NoSemver;

impl FromStr for Semver {
    type Err = NoSemver;

    fn from_str(text: &str) -> Result<Self, NoSemver> {
        let mut parts = text.split('.').map(|part| {
            let plain = part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
            part.parse::<u64>().ok().filter(|_| plain).ok_or(NoSemver)
        });
        let mut next = || parts.next().unwrap_or(Err(NoSemver));
        let version = Self { major: next()?, minor: next()?, patch: next()? };
        if parts.next().is_some() { Err(NoSemver) } else { Ok(version) }
    }
}

/// What changed against the version compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Major,
    Minor,
    Patch,
}

fn change(before: &ModelVersion, features_digest: &str, dataset: Option<&Dataset>) -> Change {
    if before.features_digest != features_digest {
        return Change::Major;
    }
    match (&before.lineage.dataset, dataset) {
        (Some(before), Some(now)) if before.digest == now.digest => Change::Patch,
        _ => Change::Minor,
    }
}

/// The next free number for a change on top of a version.
fn number(model: &Model, before: Option<&ModelVersion>, change: Change) -> Semver {
    let taken: Vec<Semver> = model.versions.iter().filter_map(|v| v.version.parse().ok()).collect();
    let base = before.and_then(|v| v.version.parse::<Semver>().ok());
    let greatest = |of: &dyn Fn(&&Semver) -> bool, part: &dyn Fn(&Semver) -> u64| {
        taken.iter().filter(of).map(part).max().map_or(0, |greatest| greatest.saturating_add(1))
    };
    match (base, change) {
        (Some(base), Change::Patch) => {
            let patch = greatest(&|v| (v.major, v.minor) == (base.major, base.minor), &|v| v.patch);
            Semver { patch, ..base }
        }
        (Some(base), Change::Minor) => {
            let minor = greatest(&|v| v.major == base.major, &|v| v.minor);
            Semver { major: base.major, minor, patch: 0 }
        }
        _ => Semver { major: greatest(&|_| true, &|v| v.major).max(1), minor: 0, patch: 0 },
    }
}

/// Digest over the feature columns and the label of a contract with their types: SHA-256 of canonical JSON. With `features`
/// over those columns only; the error is a name that is no feature of the contract. Where the contract declares what is learned from
/// (`learning`), its features are those columns, and their encoding is part of the digest.
///
/// # Errors
/// The first name that is no feature column.
pub fn features_digest(spec: &Spec, features: &[String]) -> Result<String, String> {
    let label = spec.label.as_deref();
    let learned = spec.learning.as_ref().map(|_| declaration(spec)).transpose().map_err(|e| e.to_string())?;
    let (encoding, derivation) =
        learned.map(|learned| (learned.features, learned.derivation)).map_or((None, None), |(e, d)| (Some(e), Some(d)));
    let is_feature = |name: &str| match &encoding {
        Some(encoding) => encoding.iter().any(|declared| declared.column == name),
        None => Some(name) != label && !spec.exclude_from_identity.iter().any(|out| out == name),
    };
    let columns = || {
        let own = spec.properties().iter().map(|p| (p.name.as_str(), p.logical_type));
        let added = spec.sql_columns().map(|column| (column.name.as_str(), column.logical_type));
        own.chain(added).filter(|(name, _)| is_feature(name))
    };
    if let Some(stranger) = features.iter().find(|name| !columns().any(|(own, _)| own == *name)) {
        return Err(stranger.clone());
    }
    let mut pairs: Vec<[&str; 2]> = columns()
        .filter(|(name, _)| features.is_empty() || features.iter().any(|wanted| wanted == name))
        .map(|(name, kind)| [name, kind.name()])
        .collect();
    pairs.sort_unstable();
    let label = label.and_then(|name| spec.property(name)).map(|p| [p.name.as_str(), p.logical_type.name()]);
    let mut json = serde_json::json!({"features": pairs, "label": label});
    if let Some(encoding) = &encoding {
        let used: Vec<&Declared> =
            encoding.iter().filter(|d| pairs.iter().any(|[name, _]| d.column == *name)).collect();
        json["encoding"] = serde_json::json!(used);
        if let Some(derivation) = derivation.filter(|derivation| !derivation.selects.is_empty()) {
            json["sql"] = serde_json::json!(derivation.served());
        }
        json["task"] = serde_json::json!(spec.learning.as_ref().and_then(|learning| learning.task));
    }
    let text = serde_json_canonicalizer::to_string(&json).map_err(|e| e.to_string())?;
    Ok(data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes())))
}

/// Who registers a version, and by what.
#[derive(Debug, Clone, Copy)]
pub struct Registrar<'a> {
    /// Id of the key that signed.
    pub signer: &'a str,
    /// Command or result.
    pub command_id: &'a str,
}

/// Registers a version at the model's next revision, at the stage `dev`. Returns its number.
///
/// # Errors
/// Why it is refused.
pub(super) fn register(model: &mut Model, new: Registration, by: Registrar<'_>) -> Result<String, Denial> {
    well_formed(&new)?;
    if let Some(known) = model.versions.iter().find(|v| v.artefact.digest == new.artefact.digest) {
        let text = format!("this artefact is version {} already", known.version);
        return deny("DUPLICATE_ARTEFACT", text);
    }
    if model.versions.len() >= MAX_VERSIONS {
        return deny("MODEL_FULL", format!("a model keeps at most {MAX_VERSIONS} versions; help: declare a new model"));
    }
    let contract_digest = new.contract_digest.clone().unwrap_or_else(|| model.contract_digest.clone());
    let Some(contract) = model.contracts.iter().find(|c| c.digest == contract_digest) else {
        return deny(
            "UNKNOWN_CONTRACT",
            "the model has no contract of that digest; help: `hokusai model show` names them",
        );
    };
    let spec = Spec::from_canonical_json(&contract.spec).or_else(|e| deny("UNKNOWN_CONTRACT", e.to_string()))?;
    let features_digest = features_digest(&spec, &new.features)
        .or_else(|_| deny("UNKNOWN_FEATURE", "a feature that it names is no feature column of its contract"))?;
    let before = compared_with(model, &new)?;
    let change = before.map_or(Change::Major, |b| change(b, &features_digest, new.lineage.dataset.as_ref()));
    let version = number(model, before, change).to_string();
    let revision = model.revision + 1;
    model.revision = revision;
    model.versions.push(ModelVersion {
        version: version.clone(),
        stage: Stage::Dev.name().to_owned(),
        stages: vec![Stage::Dev.name().to_owned()],
        origin: new.origin.name().to_owned(),
        revision,
        artefact: new.artefact,
        contract_digest,
        features_digest,
        features: sorted(new.features),
        lineage: new.lineage,
        params: sorted(new.params),
        metrics: sorted(new.metrics),
        tags: sorted(new.tags),
        evaluations: Vec::new(),
        signer: by.signer.to_owned(),
        command_id: by.command_id.to_owned(),
    });
    Ok(version)
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort_unstable();
    list
}

fn compared_with<'m>(model: &'m Model, new: &Registration) -> Result<Option<&'m ModelVersion>, Denial> {
    match &new.lineage.parent {
        Some(parent) => match model.version(parent) {
            Some(parent) => Ok(Some(parent)),
            None => deny("UNKNOWN_PARENT", "the model has no version of the parent's number"),
        },
        None if new.origin == Origin::Contributed => {
            deny("PARENT_MISSING", "a contributed version names the version that it improves on")
        }
        None => Ok(model.head(Stage::Production.name()).or(model.versions.last())),
    }
}

/// Whether a text is a lower-case SHA-256 in hex.
#[must_use]
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a text is a decimal number in its one form: `-?(0|[1-9][0-9]*)(\.[0-9]+)?`.
#[must_use]
pub fn is_decimal(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').map_or((unsigned, None), |(w, f)| (w, Some(f)));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    text.len() <= MAX_DECIMAL
        && digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
}

/// Whether a text can be a name: not empty, at most [`MAX_ID`] bytes, no control characters.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_ID && !text.chars().any(char::is_control)
}

fn malformed(what: &str) -> Result<(), Denial> {
    deny("MALFORMED", what.to_owned())
}

fn well_formed(new: &Registration) -> Result<(), Denial> {
    artefact(&new.artefact)?;
    let lineage = &new.lineage;
    if let Some(dataset) = &lineage.dataset {
        let rooted = dataset.contributions_root.is_empty() || is_sha256(&dataset.contributions_root);
        if !is_sha256(&dataset.digest) || !rooted || dataset.rows < 0 || dataset.contributions < 0 {
            return malformed("a dataset has digests of 64 lower-case hex digits and counts from 0 on");
        }
    }
    let names = [&lineage.run_id, &lineage.benchmark, &lineage.contributor, &lineage.parent];
    if names.into_iter().flatten().any(|name| !is_name(name)) {
        return malformed("a name of the lineage is empty, too long, or has control characters");
    }
    if lineage.recipe_digest.as_deref().is_some_and(|digest| !is_sha256(digest)) {
        return malformed("a recipe's digest is 64 lower-case hex digits");
    }
    if new.origin == Origin::Contributed && lineage.contributor.is_none() {
        return malformed("a contributed version names its contributor");
    }
    if new.features.len() > MAX_FEATURES || has_twins(&new.features, |name| name) {
        return malformed("features stand once each, 1,024 at most");
    }
    named_values(&new.params, MAX_PARAMS)?;
    named_values(&new.tags, MAX_TAGS)?;
    metrics(&new.metrics)
}

fn artefact(artefact: &Artefact) -> Result<(), Denial> {
    if !is_sha256(&artefact.digest) || artefact.size < 0 || !is_name(&artefact.media_type) {
        return malformed("an artefact has a SHA-256 (64 lower-case hex digits), a size and a media type");
    }
    Ok(())
}

fn has_twins<'a, T>(list: &'a [T], name: impl Fn(&'a T) -> &'a String) -> bool {
    let mut names: Vec<&String> = list.iter().map(name).collect();
    names.sort_unstable();
    names.windows(2).any(|pair| pair.first() == pair.last())
}

fn named_values(list: &[NamedValue], most: usize) -> Result<(), Denial> {
    let fits = |pair: &NamedValue| is_name(&pair.name) && pair.value.len() <= MAX_VALUE;
    if list.len() > most || !list.iter().all(fits) || has_twins(list, |pair| &pair.name) {
        return malformed(&format!(
            "parameters and tags have names of their own of 1 to {MAX_ID} bytes, values of at most {MAX_VALUE}, and a version \
             has at most {most}"
        ));
    }
    Ok(())
}

fn metrics(list: &[Metric]) -> Result<(), Denial> {
    let fits = |metric: &Metric| is_name(&metric.name) && is_decimal(&metric.value) && metric.rows >= 0;
    if list.len() > MAX_METRICS || !list.iter().all(fits) || has_twins(list, |metric| &metric.name) {
        return malformed("metrics have names of their own, decimal values like 0.8125, and a version has at most 64");
    }
    Ok(())
}
