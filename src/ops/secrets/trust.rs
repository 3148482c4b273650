//! The trust file of a key folder, and the keys that development trusts.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;

use super::{Result, SecretsError, io_error, load_or_create_signing_key, sync_dir, write_temporary};
use crate::attest::trust::{MAX_BYTES, Role, Trust};

/// Reads a trust file. It holds no secret, so its permissions do not matter.
///
/// # Errors
/// [`SecretsError`] names the file and the fault.
pub fn load_trust(path: &Path) -> Result<Trust> {
    let file = File::open(path).map_err(io_error("open", path))?;
    let mut text = String::new();
    // One byte more than is admitted, so that a longer file is refused and not cut.
    file.take(MAX_BYTES as u64 + 1).read_to_string(&mut text).map_err(io_error("read", path))?;
    Trust::from_json(&text).map_err(|source| SecretsError::Trust { path: path.to_owned(), source })
}

/// Name of the development key: what `model apply` signs with when no other key is named.
pub const DEVELOPMENT_KEY: &str = "operator";

/// Reads the trust file of a key folder; makes one that trusts a new development key when there is none.
///
/// # Errors
/// [`SecretsError`] names the file and the fault.
pub fn load_or_create_trust(dir: &Path) -> Result<Trust> {
    let path = trust_path(dir);
    if !path.exists() {
        let keys = development_keys(dir)?;
        let trusted = keys.iter().map(|(name, key, roles)| (*name, key, roles.clone()));
        save_trust(&path, &Trust::of(trusted))?;
        return load_trust(&path);
    }
    let mut trust = load_trust(&path)?;
    if is_first_development(dir, &trust)? {
        for (name, key, roles) in development_keys(dir)? {
            trust.grant(name, &key, &roles);
        }
        save_trust(&path, &trust)?;
    }
    Ok(trust)
}

/// Where the trust file of a key folder is.
#[must_use]
pub fn trust_path(dir: &Path) -> PathBuf {
    dir.join("trust.json")
}

/// Reads the signing key of a stage of the platform from a key folder; makes one when there is none. What it may sign says the
/// trust file.
///
/// # Errors
/// [`SecretsError`] names the file and the fault.
pub fn stage_key(dir: &Path, stage: &str) -> Result<SigningKey> {
    load_or_create_signing_key(dir, &format!("stage-{stage}"))
}

/// Stages that sign, with what they may sign and nothing else.
pub const SIGNING_STAGES: [(&str, Role); 3] =
    [("training", Role::RunResult), ("evaluation", Role::EvaluationResult), ("experiments", Role::ExperimentDecide)];

/// The keys that development on one machine trusts: the operator's with the roles of people, each stage's with its own.
fn development_keys(dir: &Path) -> Result<Vec<(&'static str, ed25519_dalek::VerifyingKey, Vec<Role>)>> {
    let people = |role: &Role| !SIGNING_STAGES.iter().any(|(_, own)| own == role);
    let operator = load_or_create_signing_key(dir, DEVELOPMENT_KEY)?;
    let roles = Role::ALL.iter().copied().filter(people).collect();
    let mut keys = vec![("development", operator.verifying_key(), roles)];
    for (stage, role) in SIGNING_STAGES {
        keys.push((stage, stage_key(dir, stage)?.verifying_key(), vec![role]));
    }
    Ok(keys)
}

/// Whether the file is the one that the first version made for development: the development key alone, with the one role there
/// was. A file that people wrote is theirs.
fn is_first_development(dir: &Path, trust: &Trust) -> Result<bool> {
    let mut entries = trust.entries();
    let (Some((_, only)), None) = (entries.next(), entries.next()) else { return Ok(false) };
    if only.name != "development" || only.roles != [Role::ModelApply] || trust.serial() != 1 {
        return Ok(false);
    }
    Ok(load_or_create_signing_key(dir, DEVELOPMENT_KEY)?.verifying_key() == only.key)
}

/// Writes (or replaces) a trust file.
///
/// # Errors
/// [`SecretsError`] if the file cannot be written; an old one then still stands.
pub fn save_trust(path: &Path, trust: &Trust) -> Result<()> {
    let temporary = write_temporary(path, trust.to_json().as_bytes())?;
    fs::rename(&temporary, path).map_err(io_error("replace", path))?;
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).map_or(Ok(()), sync_dir)
}
