//! `Ministack`: the second implementation of SQS and S3, a pinned release from `PyPI` in a folder of its own.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::process::{Child, Command};

use crate::embedded::REGION;
use crate::stack::ports::{chosen, loopback};
use crate::venv::{self, VenvError};

/// The release that the tests were written against (MIT).
pub const VERSION: &str = "1.5.33";
/// What the pipeline uses.
const SERVICES: &str = "sqs,s3";
/// It starts in 0.3 s on an idle machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Its standard input is the tie to its parent: when that is gone, also by a kill, the input ends and so does it.
const TIED_TO_PARENT: &str = "\
import os, sys, threading
def end_with_parent():
    sys.stdin.buffer.read()
    os._exit(0)
threading.Thread(target=end_with_parent, daemon=True).start()
from ministack.app import main
main()
";

/// `MiniStack` did not start.
#[derive(Debug, Error)]
pub enum MinistackError {
    #[error(transparent)]
    Install(#[from] VenvError),
    #[error("{path} cannot be used: {source}")]
    Folder { path: PathBuf, source: io::Error },
    #[error("MiniStack ended before it was ready ({status}); its output is in {log}")]
    Ended { status: String, log: PathBuf },
    #[error("MiniStack was not ready on port {port} within {} s; its output is in {log}", START_TIMEOUT.as_secs())]
    NotReady { port: u16, log: PathBuf },
}

/// A running `MiniStack`, with empty services that forget everything. Dropping it kills it, and it does not outlive this
/// process.
#[derive(Debug)]
pub struct Ministack {
    child: Child,
    url: String,
}

impl Ministack {
    /// Installs the pinned release into `{dir}/venvs` unless it is there, and starts it on 127.0.0.1. Port 0 takes a
    /// free one.
    ///
    /// # Errors
    /// When there is no Python, the installation fails (it needs the network once), or it does not become ready.
    pub async fn start(dir: &Path, port: u16) -> Result<Self, MinistackError> {
        let folder = |path: &Path| {
            let path = path.to_owned();
            move |source| MinistackError::Folder { path, source }
        };
        let venv = venv::install(&dir.join("venvs"), "ministack", VERSION).await?;
        let port = chosen(port).map_err(folder(dir))?;
        let home = dir.join("ministack").join(port.to_string());
        std::fs::create_dir_all(&home).map_err(folder(&home))?;
        let log = home.join("output.log");
        let output = File::create(&log).map_err(folder(&log))?;
        let errors = output.try_clone().map_err(folder(&log))?;
        let mut child = Command::new(venv.join("bin/python"))
            .args(["-c", TIED_TO_PARENT])
            .env("GATEWAY_PORT", port.to_string())
            .env("BIND_HOST", "127.0.0.1")
            .env("MINISTACK_HOST", "127.0.0.1")
            .env("MINISTACK_REGION", REGION)
            .env("SERVICES", SERVICES)
            // Otherwise it looks for a container engine.
            .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
            .env("STATE_DIR", home.join("state"))
            .env("S3_DATA_DIR", home.join("s3"))
            .env("TMPDIR", &home)
            .current_dir(&home)
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(folder(&venv))?;
        let url = format!("http://{}", loopback(port));
        let http = reqwest::Client::builder().no_proxy().build().expect("a client without TLS has nothing to load");
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = child.try_wait().map_err(folder(&venv))? {
                return Err(MinistackError::Ended { status: status.to_string(), log });
            }
            let health = http.get(format!("{url}/_ministack/health")).timeout(Duration::from_secs(2)).send().await;
            if health.is_ok_and(|response| response.status().is_success()) {
                return Ok(Self { child, url });
            }
            if Instant::now() >= deadline {
                return Err(MinistackError::NotReady { port, log });
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Returns the endpoint of both services.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Kills it and waits until it is gone. It keeps nothing, so there is nothing to finish.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn stop(mut self) -> io::Result<()> {
        self.child.kill().await
    }
}
