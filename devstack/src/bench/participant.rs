//! `Participant`: a program that takes part in a comparison: started, measured from outside, stopped.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use super::BenchError;
use super::proc::{Usage, usage};
use crate::stack::Stack;
use crate::stack::settings::FOREIGN;

/// Imports of Python take seconds on a busy machine.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(50);
/// The line that a peer prints when it is ready.
const READY: &str = "ready";

/// What to start. The stack gives it the variables that its own processes get.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// As it is called in the table.
    pub(super) name: &'static str,
    pub(super) program: PathBuf,
    pub(super) args: Vec<OsString>,
    pub(super) env: Vec<(String, String)>,
    /// Asked until it answers with success; none for a program that prints a line.
    pub(super) ready_url: Option<String>,
}

/// A running one. Dropping it kills it; if this process is killed, the stack's watchdog ends it.
#[derive(Debug)]
pub(super) struct Participant {
    name: &'static str,
    child: Child,
    pid: u32,
    log: PathBuf,
}

impl Candidate {
    /// Starts it and waits until it is ready. Its output goes to a file among the stack's logs.
    ///
    /// # Errors
    /// When it cannot be started, ends, or is not ready in time.
    pub(super) async fn start(&self, stack: &Stack, http: &reqwest::Client) -> Result<Participant, BenchError> {
        let log = stack.logs_dir().join(format!("{}.log", self.name.replace(|c: char| !c.is_alphanumeric(), "-")));
        let started = spawn(self, &log).map_err(|source| BenchError::Io { what: self.name, source });
        let (child, pid) = started?;
        let mut participant = Participant { name: self.name, child, pid, log };
        stack.watch(pid).await.map_err(|source| BenchError::Io { what: "the watchdog", source })?;
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            participant.check()?;
            let ready = match &self.ready_url {
                Some(url) => http.get(url).send().await.is_ok_and(|answer| answer.status().is_success()),
                None => std::fs::read_to_string(&participant.log).is_ok_and(|text| text.lines().any(|l| l == READY)),
            };
            if ready {
                return Ok(participant);
            }
            if Instant::now() >= deadline {
                return Err(participant.failed("is not ready in time"));
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}

impl Participant {
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Looks at it.
    ///
    /// # Errors
    /// When it has ended.
    pub(super) fn usage(&self) -> Result<Usage, BenchError> {
        usage(self.pid).map_err(|source| BenchError::Io { what: self.name, source })
    }

    /// Checks that it still runs.
    ///
    /// # Errors
    /// When it has ended.
    pub(super) fn check(&mut self) -> Result<(), BenchError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.failed(&format!("has ended by itself ({status})"))),
            Err(source) => Err(BenchError::Io { what: self.name, source }),
        }
    }

    /// Asks it to end and waits until it has.
    ///
    /// # Errors
    /// When it does not end, or not with success.
    pub(super) async fn stop(mut self, stack: &Stack) -> Result<(), BenchError> {
        let io = |source| BenchError::Io { what: self.name, source };
        let group = i32::try_from(self.pid).map_err(io::Error::other).map_err(io)?;
        killpg(Pid::from_raw(group), Signal::SIGTERM).map_err(io::Error::from).map_err(io)?;
        let ended = tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await;
        stack.forget(self.pid).await;
        match ended {
            Ok(Ok(status)) if status.success() || status_is_sigterm(status) => Ok(()),
            Ok(Ok(status)) => Err(self.failed(&format!("ended with {status}"))),
            Ok(Err(source)) => Err(io(source)),
            Err(_) => Err(self.failed("does not end")),
        }
    }

    fn failed(&self, reason: &str) -> BenchError {
        BenchError::Participant { name: self.name, reason: reason.to_owned(), log: self.log.display().to_string() }
    }
}

/// Uvicorn finishes its requests and then raises the signal again.
fn status_is_sigterm(status: std::process::ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.signal() == Some(Signal::SIGTERM as i32)
}

fn spawn(candidate: &Candidate, log: &Path) -> io::Result<(Child, u32)> {
    let output = File::create(log)?;
    let mut command = Command::new(&candidate.program);
    for name in FOREIGN {
        command.env_remove(name);
    }
    let child = command
        .args(&candidate.args)
        .envs(candidate.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stderr(output.try_clone()?)
        .stdout(output)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let pid = child.id().ok_or_else(|| io::Error::other("it ended at once"))?;
    Ok((child, pid))
}
