//! `Emulator`: the two emulators of AWS that take the configuration, and what is known of each.

use clap::ValueEnum;

use crate::ministack;
use crate::python_server::PythonServer;

/// No picture is made on this one, as its distribution serves nothing. It is the release that the gaps were listed for.
const MOTO: PythonServer = PythonServer {
    name: "moto",
    package: "moto[server]",
    version: "5.2.5",
    main: "from os import environ\nfrom moto.server import main\nmain(['-H', '127.0.0.1', '-p', environ['GATEWAY_PORT']])\n",
    health: "/moto-api/",
    env: &[],
};

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
            Self::Ministack => ministack::EVERYTHING,
            Self::Moto => MOTO,
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
