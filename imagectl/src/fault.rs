//! `Fault`: why a command could not do its work, and the exit code that says so.

use std::process::ExitCode;

use service::settings::EXIT_USAGE;
use thiserror::Error;

/// A command that ended without doing its work.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// What was asked for cannot be done as it was asked. The text names the flag and the way out.
    #[error("{0}")]
    Usage(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// A service did not do what was asked.
    #[error("{what}: {reason}")]
    Service { what: &'static str, reason: String },
    /// Somebody else has written the same object again and again.
    #[error("{0} is being changed by somebody else: look, and try again")]
    Contended(String),
    /// Ctrl-C or SIGTERM came before the end; what had been done until then has been told.
    #[error("interrupted")]
    Interrupted,
}

impl Fault {
    /// Returns the exit code: 64 for a refusal, 2 for something that is not there, 130 for a signal, 1 for the rest.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(EXIT_USAGE),
            Self::NotFound(_) => ExitCode::from(2),
            Self::Interrupted => ExitCode::from(130),
            Self::Service { .. } | Self::Contended(_) => ExitCode::FAILURE,
        }
    }
}
