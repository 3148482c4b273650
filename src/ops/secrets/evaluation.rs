//! The key that sealed benchmarks are encrypted to: `evaluation-TENANT.key` belongs on machines that run the stages
//! evaluation and attribution, and nowhere else; `evaluation-TENANT.pub` is all that sealing needs.

use std::fs;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Result, SecretsError, io_error, key_path, load_or_create, read_secret, sync_dir, write_temporary};
use crate::domain::keys::{KeyError, PublicKey, SealingKey};

/// Id of the first evaluation key.
const FIRST: &str = "e1";

fn private_path(dir: &Path, tenant: &str) -> Result<PathBuf> {
    key_path(dir, &format!("evaluation-{tenant}"), "key")
}

/// The tenant's evaluation key, made from the system's randomness if there is neither it nor its public part; its public part is
/// written beside it.
///
/// # Errors
/// [`SecretsError`]; on a machine that has the public part alone, [`SecretsError::Missing`].
pub fn evaluation_key(dir: &Path, tenant: &str) -> Result<SealingKey> {
    let path = private_path(dir, tenant)?;
    let public = path.with_extension("pub");
    let broken = |source: KeyError| SecretsError::Keys { path: path.clone(), source };
    if public.exists() && read_secret(&path)?.is_none() {
        return Err(SecretsError::Missing { path });
    }
    let line = load_or_create(dir, &path, || {
        let key = SealingKey::new(FIRST).map_err(broken)?;
        Ok(Zeroizing::new(format!("{}\n", key.to_line().as_str())))
    })?;
    let key = SealingKey::from_line(&line).map_err(broken)?;
    if !public.exists() {
        let text = format!("{} {}\n", key.public().id(), key.public().hex());
        let temporary = write_temporary(&public, text.as_bytes())?;
        fs::rename(&temporary, &public).map_err(io_error("replace", &public))?;
        sync_dir(dir)?;
    }
    Ok(key)
}

/// The tenant's evaluation key, which has to be there: what is sealed was sealed to it.
///
/// # Errors
/// [`SecretsError`]; on a machine without it, [`SecretsError::Missing`].
pub fn load_evaluation_key(dir: &Path, tenant: &str) -> Result<SealingKey> {
    let path = private_path(dir, tenant)?;
    match read_secret(&path)? {
        Some(_) => evaluation_key(dir, tenant),
        None => Err(SecretsError::Missing { path }),
    }
}

/// The public part of the tenant's evaluation key: what is sealed to it only evaluation and attribution can open. On a machine
/// that has neither part a key is made.
///
/// # Errors
/// [`SecretsError`].
pub fn evaluation_public_key(dir: &Path, tenant: &str) -> Result<PublicKey> {
    let path = private_path(dir, tenant)?.with_extension("pub");
    let Some(text) = read_secret(&path)? else {
        return evaluation_key(dir, tenant).map(|key| key.public().clone());
    };
    let mut words = text.split_ascii_whitespace();
    let key = match (words.next(), words.next(), words.next()) {
        (Some(id), Some(hex), None) => PublicKey::parse(id, hex),
        _ => None,
    };
    key.ok_or(SecretsError::NotAKeyFile { path, why: "it is not ID PUBLIC of an evaluation key" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_the_public_part_alone_seals_and_cannot_open_nor_make_another_key() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("keys");
        let made = evaluation_key(&dir, "t").unwrap();
        assert_eq!(evaluation_key(&dir, "t").unwrap().public(), made.public());
        assert_eq!(load_evaluation_key(&dir, "t").unwrap().public(), made.public());
        fs::remove_file(dir.join("evaluation-t.key")).unwrap();
        assert!(matches!(load_evaluation_key(&dir, "t"), Err(SecretsError::Missing { .. })));
        let public = evaluation_public_key(&dir, "t").unwrap();
        assert_eq!(made.open(b"i", &public.seal(b"i", b"rows").unwrap()).unwrap(), b"rows");
        assert!(matches!(evaluation_key(&dir, "t"), Err(SecretsError::Missing { .. })));
        fs::write(dir.join("evaluation-t.pub"), "e1 00\n").unwrap();
        assert!(matches!(evaluation_public_key(&dir, "t"), Err(SecretsError::NotAKeyFile { .. })));
    }
}
