//! Files that are there as a whole or not at all.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::exit::{Failure, Outcome};

/// Writes a file whole and durably, or not at all.
///
/// # Errors
/// It cannot be written; the message names it.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Outcome<()> {
    let written = Atomic::create(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.finish()
    });
    written.map_err(|e| Failure::because(format!("{}: {e}", path.display())))
}

/// A file that takes its name when it is complete; without [`Atomic::finish`] nothing is left of it.
#[derive(Debug)]
pub struct Atomic {
    path: PathBuf,
    beside: PathBuf,
    file: Option<BufWriter<File>>,
}

impl Atomic {
    /// Begins a file beside `path`.
    ///
    /// # Errors
    /// The folder cannot be written, or `path` names no file.
    pub fn create(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or_else(|| io::Error::other("it names no file"))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.new", std::process::id()));
        let beside = path.with_file_name(hidden);
        let file = Some(BufWriter::new(File::create_new(&beside)?));
        Ok(Self { path: path.to_owned(), beside, file })
    }

    /// Makes the content durable and gives it its name, in the place of what had it.
    ///
    /// # Errors
    /// The content cannot be written.
    pub fn finish(mut self) -> io::Result<()> {
        if let Some(file) = self.file.take() {
            let outcome = file.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| file.sync_all());
            let named = outcome.and_then(|()| std::fs::rename(&self.beside, &self.path));
            if named.is_err() {
                let _ = std::fs::remove_file(&self.beside);
            }
            named?;
        }
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    }
}

impl Write for Atomic {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_mut().map_or(Ok(bytes.len()), |file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for Atomic {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = std::fs::remove_file(&self.beside);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_as_a_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let mut first = Atomic::create(&path).unwrap();
        first.write_all(b"first").unwrap();
        assert!(!path.exists());
        first.finish().unwrap();
        let mut second = Atomic::create(&path).unwrap();
        second.write_all(b"half").unwrap();
        drop(second);
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
