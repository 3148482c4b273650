//! Names this source by a digest, which evaluations publish: whoever recomputes one knows which program they need.
//!
//! ```text
//! digest = SHA-256(for each file, by its path: u64be(len) ‖ path ‖ u64be(len) ‖ bytes)
//! ```
//! over `Cargo.toml`, `Cargo.lock`, this file, `schemas` and `src`; paths are relative, with `/`, in the order of their bytes.

use sha2::{Digest, Sha256};
use std::io;
use std::path::{Path, PathBuf};

const PARTS: [&str; 5] = ["Cargo.lock", "Cargo.toml", "build.rs", "schemas", "src"];

fn main() -> io::Result<()> {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let mut files = Vec::new();
    for part in PARTS {
        println!("cargo::rerun-if-changed={part}");
        gather(&root, &root.join(part), &mut files)?;
    }
    files.sort_unstable();
    let mut hasher = Sha256::new();
    for (name, path) in files {
        let bytes = std::fs::read(path)?;
        for part in [name.as_bytes(), &bytes] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
    }
    println!("cargo::rustc-env=HOKUSAI_SOURCE_DIGEST={}", data_encoding::HEXLOWER.encode(&hasher.finalize()));
    Ok(())
}

fn gather(root: &Path, path: &Path, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            gather(root, &entry?.path(), files)?;
        }
        return Ok(());
    }
    let name = path.strip_prefix(root).unwrap_or(path).components();
    let name: Vec<_> = name.map(|part| part.as_os_str().to_string_lossy()).collect();
    files.push((name.join("/"), path.to_owned()));
    Ok(())
}
