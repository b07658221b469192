//! `PythonServer`: a server from `PyPI`, pinned, that answers on loopback and does not outlive this process.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::process::{Child, Command};

use crate::stack::ports::{chosen, loopback};
use crate::venv::{self, VenvError};

/// They start within a few seconds on an idle machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Its standard input is the tie to its parent: when that is gone, also by a kill, the input ends and so does it.
const TIED_TO_PARENT: &str = "\
import os, sys, threading
def end_with_parent():
    sys.stdin.buffer.read()
    os._exit(0)
threading.Thread(target=end_with_parent, daemon=True).start()
";

/// Which server, and how it is started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PythonServer {
    /// Names its folder, its log and its errors.
    pub(crate) name: &'static str,
    /// Name on `PyPI`, with extras.
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    /// What it needs and does not ask for itself, each pinned.
    pub(crate) further: &'static [&'static str],
    /// Python that serves on the port in the variable `GATEWAY_PORT`, for ever.
    pub(crate) main: &'static str,
    /// Answered with success when it is ready.
    pub(crate) health: &'static str,
    pub(crate) env: &'static [(&'static str, &'static str)],
}

/// A server did not start.
#[derive(Debug, Error)]
pub enum PythonServerError {
    #[error(transparent)]
    Install(#[from] VenvError),
    #[error("{path} cannot be used: {source}")]
    Folder { path: PathBuf, source: io::Error },
    #[error("{name} ended before it was ready ({status}); its output is in {log}")]
    Ended { name: &'static str, status: String, log: PathBuf },
    #[error("{name} was not ready on port {port} within {} s; its output is in {log}", START_TIMEOUT.as_secs())]
    NotReady { name: &'static str, port: u16, log: PathBuf },
}

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    url: String,
}

impl PythonServer {
    /// Installs the pinned release into `{dir}/venvs` unless it is there, and starts it on 127.0.0.1. Port 0 takes a
    /// free one.
    ///
    /// # Errors
    /// When there is no Python, the installation fails (it needs the network once), or it does not become ready.
    pub(crate) async fn start(&self, dir: &Path, port: u16) -> Result<Running, PythonServerError> {
        let folder = |path: &Path| {
            let path = path.to_owned();
            move |source| PythonServerError::Folder { path, source }
        };
        let venv = venv::install_with(&dir.join("venvs"), self.package, self.version, self.further).await?;
        let port = chosen(port).map_err(folder(dir))?;
        let home = dir.join(self.name).join(port.to_string());
        std::fs::create_dir_all(&home).map_err(folder(&home))?;
        let log = home.join("output.log");
        let output = File::create(&log).map_err(folder(&log))?;
        let errors = output.try_clone().map_err(folder(&log))?;
        let mut child = Command::new(venv.join("bin/python"))
            .args(["-c", &format!("{TIED_TO_PARENT}{}", self.main)])
            .env("GATEWAY_PORT", port.to_string())
            .env("STATE_DIR", home.join("state"))
            .env("S3_DATA_DIR", home.join("s3"))
            .env("TMPDIR", &home)
            .envs(self.env.iter().copied())
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
                return Err(PythonServerError::Ended { name: self.name, status: status.to_string(), log });
            }
            let health = http.get(format!("{url}{}", self.health)).timeout(Duration::from_secs(2)).send().await;
            if health.is_ok_and(|response| response.status().is_success()) {
                return Ok(Running { child, url });
            }
            if Instant::now() >= deadline {
                return Err(PythonServerError::NotReady { name: self.name, port, log });
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}

impl Running {
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Kills it and waits until it is gone. It keeps nothing, so there is nothing to finish.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub(crate) async fn stop(mut self) -> io::Result<()> {
        self.child.kill().await
    }
}
