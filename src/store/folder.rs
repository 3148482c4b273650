//! Durable writes to a folder: beside, synced, renamed, and the folder synced.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Separates a file's name from the number of an unfinished write; listings leave such names out.
const UNFINISHED: char = '#';

/// Writes a file; false when it exists and is not to be replaced. Others see all of it or nothing, before and after a
/// power cut.
pub fn write(path: &Path, replace: bool, content: &mut dyn Read) -> Result<bool> {
    let folder = path.parent().ok_or_else(|| Error::other("a file needs a folder"))?;
    make(folder)?;
    let beside = unfinished(path)?;
    let finished = finish(path, &beside, replace, content);
    // After a rename it is gone, after a link it is a second name.
    match std::fs::remove_file(&beside) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            tracing::warn!(path = %beside.display(), error = %e, "left behind")
        }
        _ => {}
    }
    let written = finished?;
    sync(folder)?;
    Ok(written)
}

fn finish(path: &Path, beside: &Path, replace: bool, content: &mut dyn Read) -> Result<bool> {
    let mut file = File::options().write(true).create_new(true).open(beside)?;
    std::io::copy(content, &mut file)?;
    file.flush()?;
    file.sync_all()?;
    if replace {
        return std::fs::rename(beside, path).map(|()| true);
    }
    match std::fs::hard_link(beside, path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
        linked => linked.map(|()| true),
    }
}

fn unfinished(path: &Path) -> Result<PathBuf> {
    let mut number = [0; 8];
    getrandom::fill(&mut number).map_err(|e| Error::other(e.to_string()))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!("{UNFINISHED}{}", u64::from_le_bytes(number)));
    Ok(path.with_file_name(name))
}

/// Makes a folder and those above it, and syncs what has a new entry.
fn make(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().ok_or_else(|| Error::other("no such root"))?;
    make(above)?;
    match std::fs::create_dir(folder) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists && folder.is_dir() => {}
        made => made?,
    }
    sync(above)
}

fn sync(folder: &Path) -> Result<()> {
    File::open(folder)?.sync_all()
}

/// Removes what writers that died have left below a folder before a moment.
pub fn sweep(folder: &Path, before: SystemTime) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sweep(&entry.path(), before)?;
        } else if entry.file_name().to_string_lossy().contains(UNFINISHED)
            && entry.metadata().and_then(|file| file.modified()).is_ok_and(|modified| modified < before)
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}
