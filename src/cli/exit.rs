//! Exit codes and how a failure is told.

use std::fmt::Display;
use std::io::Write;

/// Everything was done.
pub const DONE: u8 = 0;
/// The command failed.
pub const FAILED: u8 = 1;
/// The command line or a setting is wrong.
pub const USAGE: u8 = 2;
/// No broker answered.
pub const NO_BROKER: u8 = 3;
/// The input was refused as a whole.
pub const REFUSED: u8 = 4;

/// Result of a command.
pub type Outcome<T> = Result<T, Failure>;

/// Why a command ended without success; each kind has its exit code.
#[derive(Debug)]
pub enum Failure {
    /// Exit 1.
    Failed(anyhow::Error),
    /// Exit 2.
    Usage(String),
    /// Exit 3.
    NoBroker {
        /// Bootstrap servers that were tried.
        brokers: String,
        /// What the client said.
        detail: String,
    },
    /// Exit 4; the reasons were printed already.
    Refused(String),
    /// What `verify` found, 10 to 19; the checks were printed already.
    Unverified(u8),
    /// Exit 0: whoever read the output has seen enough, as `head` does.
    OutputClosed,
}

/// Prints a line on standard output; a reader that went away ends the command quietly.
///
/// # Errors
/// [`Failure::OutputClosed`], or what the system says.
pub fn say(line: impl Display) -> Outcome<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::OutputClosed),
        other => Ok(other?),
    }
}

impl Failure {
    /// A failure that is none of the others.
    pub fn failed(error: impl Into<anyhow::Error>) -> Self {
        Self::Failed(error.into())
    }

    /// A failure told in words.
    pub fn because(text: impl Display) -> Self {
        Self::Failed(anyhow::anyhow!("{text}"))
    }

    /// The exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => FAILED,
            Self::Usage(_) => USAGE,
            Self::NoBroker { .. } => NO_BROKER,
            Self::Refused(_) => REFUSED,
            Self::Unverified(code) => *code,
            Self::OutputClosed => DONE,
        }
    }

    /// Prints the failure on standard error.
    pub fn report(&self) {
        let mut err = std::io::stderr().lock();
        let _ = match self {
            Self::Failed(error) => writeln!(err, "error: {error:#}"),
            Self::Usage(text) => writeln!(err, "error: {text}"),
            Self::NoBroker { brokers, detail } => writeln!(
                err,
                "error: no broker reached at {brokers}: {detail}\n\
                 help: start one with `hokusai up`, or name a cluster with --brokers or HOKUSAI_BROKERS"
            ),
            Self::Refused(text) => writeln!(err, "refused: {text}"),
            Self::Unverified(_) => Ok(()),
            Self::OutputClosed => Ok(()),
        };
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.into())
    }
}
