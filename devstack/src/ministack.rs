//! `Ministack`: the second implementation of SQS and S3, a pinned release from `PyPI` in a folder of its own.

use std::io;
use std::path::Path;

use crate::python_server::{PythonServer, Running};

pub use crate::python_server::PythonServerError as MinistackError;

/// The release that the tests were written against (MIT).
pub const VERSION: &str = "1.5.33";
const MAIN: &str = "from ministack.app import main\nmain()\n";

const PIPELINE: PythonServer = PythonServer {
    name: "ministack",
    package: "ministack",
    version: VERSION,
    further: &[],
    main: MAIN,
    health: "/_ministack/health",
    env: &[
        ("SERVICES", "sqs,s3"),
        // That of the embedded services.
        ("MINISTACK_REGION", crate::embedded::REGION),
        ("BIND_HOST", "127.0.0.1"),
        ("MINISTACK_HOST", "127.0.0.1"),
        // Otherwise it looks for a container engine.
        ("DOCKER_HOST", "unix:///nonexistent/docker.sock"),
    ],
};

/// All of its services, in the region that Terraform deploys to by default.
const EVERYTHING: PythonServer = PythonServer {
    env: &[
        ("MINISTACK_REGION", "ap-south-1"),
        ("BIND_HOST", "127.0.0.1"),
        ("MINISTACK_HOST", "127.0.0.1"),
        ("DOCKER_HOST", "unix:///nonexistent/docker.sock"),
    ],
    ..PIPELINE
};

/// The same, which also understands the AWS SDK for Rust when it talks to `CloudWatch`: in CBOR, for which it has no
/// requirement of its own.
pub(crate) const WITH_METRICS: PythonServer = PythonServer { further: &["cbor2==6.3.0"], ..EVERYTHING };

/// A running `MiniStack`, with empty services that forget everything. Dropping it kills it, and it does not outlive this
/// process.
#[derive(Debug)]
pub struct Ministack(Running);

impl Ministack {
    /// Installs the pinned release into `{dir}/venvs` unless it is there, and starts SQS and S3 on 127.0.0.1. Port 0
    /// takes a free one.
    ///
    /// # Errors
    /// When there is no Python, the installation fails (it needs the network once), or it does not become ready.
    pub async fn start(dir: &Path, port: u16) -> Result<Self, MinistackError> {
        PIPELINE.start(dir, port).await.map(Self)
    }

    /// As [`start`](Self::start), with all the services it has, `CloudWatch` for the SDK among them.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with_metrics(dir: &Path, port: u16) -> Result<Self, MinistackError> {
        WITH_METRICS.start(dir, port).await.map(Self)
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
