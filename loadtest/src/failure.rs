//! `Failure`: why a command could not do its work, and the exit code that says so.

use std::fmt;
use std::process::ExitCode;

/// `EX_USAGE` of sysexits.h, as the services of this repository use it: the command cannot run as it was given.
pub const EXIT_USAGE: u8 = 64;
/// A threshold was not met, or had no samples: what k6 exits with.
pub const EXIT_THRESHOLD: u8 = 99;
/// Interrupted by Ctrl-C: 128 and the number of the signal, as shells count.
pub const EXIT_INTERRUPTED: u8 = 130;

/// A command that ended without doing its work.
#[derive(Debug)]
pub enum Failure {
    /// What was asked for cannot be done: a flag, a file, a target. The text names it and the way out.
    Usage(String),
    /// It can, and something else went wrong.
    Fault(String),
    /// Ctrl-C or SIGTERM came before there was something to report.
    Interrupted(String),
}

impl Failure {
    /// Makes a refusal of what was asked for.
    pub fn usage(text: impl fmt::Display) -> Self {
        Self::Usage(text.to_string())
    }

    /// Makes a failure of something else.
    pub fn fault(text: impl fmt::Display) -> Self {
        Self::Fault(text.to_string())
    }

    /// Returns the exit code: 64 for a refusal, 130 for a signal, 1 for everything else.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(EXIT_USAGE),
            Self::Fault(_) => ExitCode::FAILURE,
            Self::Interrupted(_) => ExitCode::from(EXIT_INTERRUPTED),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Usage(text) | Self::Fault(text) | Self::Interrupted(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for Failure {}
