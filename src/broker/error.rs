//! Why a broker does not start or stops.

use std::net::SocketAddr;
use std::path::PathBuf;

/// A broker that cannot start or go on. Errors of a single request travel as Kafka error codes instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// Another process uses the folder.
    #[error("the broker folder {path} is in use by another process\nhelp: stop that process, or choose another --data")]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The folder was written by a later program.
    #[error(
        "the broker folder {path} has format {found}, this program knows up to {known}\nhelp: use the newer program, or another --data"
    )]
    NewerFormat {
        /// The folder.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format known.
        known: u32,
    },
    /// A file that was complete once is not readable any more.
    #[error(
        "{path} is damaged at byte {at}: {rule}\nhelp: restore it from a copy; moving the folder away loses its records"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damage starts.
        at: u64,
        /// The rule it breaks.
        rule: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}\nhelp: choose another --listen, or port 0 for a free one")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The disk refused an operation.
    #[error("{path}: {source}\nhelp: check that the disk has space and the folder is writable")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl BrokerError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
