//! `Emulator`: the two emulators of AWS that take the configuration, and what is known of each.

use clap::ValueEnum;

use crate::python_server::PythonServer;
use crate::{ministack, moto};

/// Where the configuration is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Emulator {
    /// Its queue, bucket and distribution work, so the pipeline runs on what Terraform made.
    Ministack,
    /// Stores what the other lacks: scaling policies, mixed instances, group metrics.
    Moto,
}

impl Emulator {
    pub(super) fn server(self) -> PythonServer {
        match self {
            Self::Ministack => ministack::WITH_METRICS,
            Self::Moto => moto::EVERYTHING,
        }
    }

    /// Returns whether objects and messages can be used through what Terraform made.
    pub(super) fn runs_the_pipeline(self) -> bool {
        self == Self::Ministack
    }

    pub(super) fn name(self) -> &'static str {
        self.server().name
    }
}
