//! How a command ends.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// Why a command ended early.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) message: String,
}

/// The exit codes other than 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The work failed.
    Failed = 1,
    /// The request cannot be done as it was asked: a flag, a field, a model, an output file.
    Refused = 2,
    /// Ctrl-C.
    Interrupted = 130,
}

impl From<Kind> for ExitCode {
    fn from(kind: Kind) -> Self {
        Self::from(kind as u8)
    }
}

impl Failure {
    /// The work failed.
    pub(crate) fn failed(message: impl ToString) -> Self {
        Self { kind: Kind::Failed, message: message.to_string() }
    }

    /// The request cannot be done as it was asked.
    pub(crate) fn refused(message: impl ToString) -> Self {
        Self { kind: Kind::Refused, message: message.to_string() }
    }
}

impl From<sd_inference::Error> for Failure {
    fn from(error: sd_inference::Error) -> Self {
        use sd_inference::Error;
        match error {
            Error::Tensor(_) | Error::NotFinite { .. } => Self::failed(error),
            // A model that is missing or broken was named by the user.
            _ => Self::refused(error),
        }
    }
}

/// Writes a line of results to standard output. Whoever has read enough (`| head`) ends nothing by going away.
pub(crate) fn say(line: impl Display) -> Result<(), Failure> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}
