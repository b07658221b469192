//! `Moto`: the emulator of AWS that stores what `MiniStack` lacks, a pinned release from `PyPI` in a folder of its own.

use std::io;
use std::path::Path;

use crate::python_server::{PythonServer, PythonServerError, Running};

/// No picture is made on this one, as its distribution serves nothing. It is the release that the gaps of
/// terraform/tests/emulators were listed for (Apache-2.0).
pub(crate) const EVERYTHING: PythonServer = PythonServer {
    name: "moto",
    package: "moto[server]",
    version: "5.2.5",
    further: &[],
    main: "from os import environ\nfrom moto.server import main\nmain(['-H', '127.0.0.1', '-p', environ['GATEWAY_PORT']])\n",
    health: "/moto-api/",
    env: &[],
};

/// A running moto, with empty services that forget everything. Dropping it kills it, and it does not outlive this process.
#[derive(Debug)]
pub struct Moto(Running);

impl Moto {
    /// Installs the pinned release into `{dir}/venvs` unless it is there, and starts it on 127.0.0.1. Port 0 takes a free
    /// one.
    ///
    /// # Errors
    /// When there is no Python, the installation fails (it needs the network once), or it does not become ready.
    pub async fn start(dir: &Path, port: u16) -> Result<Self, PythonServerError> {
        EVERYTHING.start(dir, port).await.map(Self)
    }

    /// Returns the endpoint of all services.
    pub fn url(&self) -> &str {
        self.0.url()
    }

    /// Kills it and waits until it is gone. It keeps nothing, so there is nothing to finish.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn stop(self) -> io::Result<()> {
        self.0.stop().await
    }
}
