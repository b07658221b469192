//! `Engine`: a container engine and the client to talk to it: the machine's own, or a private one that ends with this.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::process::{Child, Command};

use super::program::{Program, on_path};
use super::{ContainersError, unusable, wrong};
use crate::stack::watchdog::Watchdog;

/// It starts within two seconds on an idle machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// It ends within a second when no container is left.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Engine {
    docker: Program,
    host: Option<String>,
    daemon: Option<Daemon>,
}

/// A `dockerd` of our own. The watchdog ends it if this process is killed.
#[derive(Debug)]
struct Daemon {
    child: Child,
    pid: u32,
    watchdog: Watchdog,
}

impl Engine {
    /// Returns the engine that answers, or starts one in `folder` if this process is root.
    ///
    /// # Errors
    /// `Unavailable` when there is neither.
    pub(super) async fn find(folder: &Path, binaries: &Path) -> Result<Self, ContainersError> {
        let docker = client(folder).await?;
        if docker.works(&["version", "--format", "{{.Server.Version}}"]).await {
            return Ok(Self { docker, host: None, daemon: None });
        }
        let dockerd = on_path("dockerd").into_iter().next();
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
        let Some(dockerd) = dockerd.filter(|_| is_root) else {
            return Err(ContainersError::Unavailable(
                "no container engine answers: start one, or run this as root where dockerd is installed".into(),
            ));
        };
        let folder = folder.join("engine");
        let socket = folder.join("docker.sock");
        let host = format!("unix://{}", socket.display());
        let docker = docker.env("DOCKER_HOST", host.as_str());
        let daemon = Daemon::start(&dockerd, &folder, &host, &docker, binaries).await?;
        Ok(Self { docker, host: Some(host), daemon: Some(daemon) })
    }

    /// Returns the client, set up for this engine.
    pub(super) fn docker(&self) -> &Program {
        &self.docker
    }

    /// Returns `DOCKER_HOST`, None for the machine's own engine.
    pub(super) fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// Returns what `docker inspect` knows of a container, an image, ...
    pub(super) async fn inspect(&self, kind: &str, name: &str) -> Result<Value, ContainersError> {
        let json = self.docker.run(&["inspect", "--type", kind, name]).await?;
        let mut all: Vec<Value> = serde_json::from_str(&json).map_err(|error| wrong("docker inspect", error))?;
        all.pop().ok_or_else(|| wrong("docker inspect", format!("nothing about {name}")))
    }

    /// Ends it if it is ours. Its images stay in its folder, so that the next run is faster.
    pub(super) async fn stop(self) {
        if let Some(daemon) = self.daemon {
            daemon.stop().await;
        }
    }
}

/// Returns the first client on the PATH that builds with `BuildKit`: a newer one needs its plugin for that.
async fn client(folder: &Path) -> Result<Program, ContainersError> {
    let all = on_path("docker");
    if all.is_empty() {
        return Err(ContainersError::Unavailable("docker is missing: install docker.io, or Docker Engine".into()));
    }
    for path in all {
        let docker = Program::new(path, folder, folder).env("DOCKER_BUILDKIT", "1");
        let version = docker.run(&["version", "--format", "{{.Client.Version}}"]).await;
        // It prints its own version, and fails, when no engine answers.
        let version = version.unwrap_or_else(|error| error.to_string());
        let is_old = version.lines().filter_map(major).any(|major| major < 23);
        if is_old || docker.works(&["buildx", "version"]).await {
            return Ok(docker);
        }
    }
    Err(ContainersError::Unavailable("docker cannot build with BuildKit: install its plugin docker-buildx".into()))
}

/// Returns the first number of a line that is a version, such as 20 of `20.10.24+dfsg1`.
fn major(line: &str) -> Option<u32> {
    let line = line.trim().rsplit(' ').next()?;
    let (major, rest) = line.split_once('.')?;
    rest.starts_with(|first: char| first.is_ascii_digit()).then(|| major.parse().ok())?
}

impl Daemon {
    async fn start(
        dockerd: &Path,
        folder: &Path,
        host: &str,
        docker: &Program,
        binaries: &Path,
    ) -> Result<Self, ContainersError> {
        std::fs::create_dir_all(folder).map_err(unusable(folder))?;
        let log = folder.join("dockerd.log");
        let output = File::create(&log).map_err(unusable(&log))?;
        let errors = output.try_clone().map_err(unusable(&log))?;
        let of = |name: &str| -> PathBuf { folder.join(name) };
        let watchdog = Watchdog::start(&binaries.join("dev")).map_err(unusable(binaries))?;
        let mut child = Command::new(dockerd)
            .args(["--host", host])
            .arg("--data-root")
            .arg(of("data"))
            .arg("--exec-root")
            .arg(of("exec"))
            .arg("--pidfile")
            .arg(of("dockerd.pid"))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(unusable(dockerd))?;
        let pid = child.id().unwrap_or_default();
        watchdog.watch(pid).await.map_err(unusable(binaries))?;
        let deadline = Instant::now() + START_TIMEOUT;
        let reason = loop {
            if docker.works(&["version", "--format", "{{.Server.Version}}"]).await {
                return Ok(Self { child, pid, watchdog });
            }
            match child.try_wait() {
                Ok(None) if Instant::now() < deadline => tokio::time::sleep(ASK_EVERY).await,
                Ok(Some(status)) => break format!("it ended ({status})"),
                Ok(None) => break format!("it does not answer after {} s", START_TIMEOUT.as_secs()),
                Err(error) => break error.to_string(),
            }
        };
        Self { child, pid, watchdog }.stop().await;
        // As in a container without privileges: nothing is wrong with the images.
        Err(ContainersError::Unavailable(format!("dockerd cannot be started: {reason}; see {}", log.display())))
    }

    async fn stop(mut self) {
        let pid = i32::try_from(self.pid).map(Pid::from_raw);
        if let Ok(pid) = pid
            && let Err(error) = kill(pid, Signal::SIGTERM)
        {
            tracing::debug!(%error, "dockerd was gone already");
        }
        if tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await.is_err() {
            tracing::warn!("dockerd does not end: it is killed");
            if let Err(error) = self.child.kill().await {
                tracing::warn!(%error, "dockerd cannot be killed");
            }
        }
        self.watchdog.forget(self.pid).await;
        self.watchdog.stop().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_among_what_a_client_says() {
        assert_eq!(major("20.10.24+dfsg1"), Some(20));
        assert_eq!(major("  28.2.2"), Some(28));
        assert_eq!(major("docker version failed (exit status: 1): 20.10.24+dfsg1"), Some(20));
        assert_eq!(major("Cannot connect to the Docker daemon at unix:///x.sock."), None);
        assert_eq!(major(""), None);
    }
}
