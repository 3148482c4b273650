//! Who a contribution is: an id from its content under a secret of the contributor's own.
//!
//! The secret keeps the id from being a dictionary oracle: without it, anybody could test whether a guessed file
//! was contributed. It never leaves this machine; losing it only means that the same file gets another id.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::cli::exit::{Failure, Outcome};

/// Length of the secret in bytes.
const SECRET: usize = 32;

/// The contributor's secret.
pub struct Identity {
    key: Hmac<Sha256>,
}

impl Identity {
    /// Reads the contributor's secret, or makes one: `HOKUSAI_CONTRIBUTOR_SECRET`, else
    /// `$XDG_CONFIG_HOME/hokusai/contributor.secret`, else the same under `~/.config`, else in the data folder.
    ///
    /// # Errors
    /// When the file cannot be read or made, or others can read it.
    pub fn load(data: &Path) -> Outcome<Self> {
        let path = location(data);
        let secret = match read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => create(&path)?,
            other => other.map_err(|e| at(&path, &e))?,
        };
        let key = Hmac::new_from_slice(&secret).map_err(Failure::failed)?;
        Ok(Self { key })
    }

    /// Starts the id of a contribution; feed its content, then finish.
    #[must_use]
    pub fn start(&self, model: &str, contributor: &str) -> IdBuilder {
        let mut mac = self.key.clone();
        for part in [model, contributor] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        IdBuilder { mac }
    }
}

/// An id in the making.
#[derive(Clone)]
pub struct IdBuilder {
    mac: Hmac<Sha256>,
}

impl IdBuilder {
    /// Feeds the whole content of a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn file(mut self, path: &Path) -> std::io::Result<Self> {
        let mut file = std::fs::File::open(path)?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(self),
                n => self.mac.update(buffer.get(..n).unwrap_or_default()),
            }
        }
    }

    /// The id at a try: `c-` and 128 bits in base 32.
    #[must_use]
    pub fn id(&self, attempt: u32) -> String {
        let mut mac = self.mac.clone();
        mac.update(&attempt.to_be_bytes());
        let digest = mac.finalize().into_bytes();
        let half = digest.get(..16).unwrap_or_default();
        format!("c-{}", data_encoding::BASE32_NOPAD.encode(half).to_ascii_lowercase())
    }
}

fn location(data: &Path) -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(path) = set("HOKUSAI_CONTRIBUTOR_SECRET") {
        return path;
    }
    let config = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
    config.map_or_else(|| data.to_owned(), |config| config.join("hokusai")).join("contributor.secret")
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = std::fs::File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        return Err(std::io::Error::other("other users can read this secret\nhelp: chmod 600 it"));
    }
    let mut secret = Vec::with_capacity(SECRET);
    file.take(4096).read_to_end(&mut secret)?;
    if secret.len() < SECRET {
        return Err(std::io::Error::other(format!("a secret has at least {SECRET} bytes")));
    }
    Ok(secret)
}

/// Makes the secret; when another process was faster, its secret counts.
fn create(path: &Path) -> Outcome<Vec<u8>> {
    let mut secret = vec![0; SECRET];
    getrandom::fill(&mut secret).map_err(|e| at(path, &e))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|e| at(path, &e))?;
    // Written aside and linked into place, so that nobody ever reads half a secret.
    let aside = folder.join(format!(".contributor.secret.{}", std::process::id()));
    let written =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside).and_then(|mut f| {
            f.write_all(&secret)?;
            f.sync_all()
        });
    let linked = written.and_then(|()| std::fs::hard_link(&aside, path));
    let _ = std::fs::remove_file(&aside);
    match linked {
        Ok(()) => Ok(secret),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => read(path).map_err(|e| at(path, &e)),
        Err(e) => Err(at(path, &e)),
    }
}

fn at(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::because(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity { key: Hmac::new_from_slice(&[7; SECRET]).unwrap() }
    }

    #[test]
    fn an_id_depends_on_model_contributor_content_and_try_and_on_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        std::fs::write(&one, "a,b\n1,2\n").unwrap();
        std::fs::write(&other, "a,b\n1,3\n").unwrap();
        let id =
            |model: &str, who: &str, file: &Path, attempt| identity().start(model, who).file(file).unwrap().id(attempt);
        let base = id("m", "c", &one, 0);
        assert_eq!(base, id("m", "c", &one, 0));
        let others = [id("mc", "", &one, 0), id("m", "d", &one, 0), id("m", "c", &other, 0), id("m", "c", &one, 1)];
        assert!(others.iter().all(|other| *other != base), "{others:?}");
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        assert_eq!(create(&path).unwrap(), read(&path).unwrap());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("chmod 600"));
    }
}
