//! `Supervised`: starts a program again when it has ended by itself, as systemd would.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::output::Output;
use super::process::{Change, Program};
use super::watchdog::{STOP_GRACE, Watchdog};

/// As systemd would: `RestartSec`.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// As systemd would: `StartLimitBurst` in `StartLimitIntervalSec`.
const RESTARTS: usize = 5;
const RESTARTS_WITHIN: Duration = Duration::from_secs(60);

/// What the supervision needs to start the program, again and again.
pub(super) struct Supervised {
    pub(super) program: Program,
    pub(super) change: Arc<Mutex<Change>>,
    pub(super) output: Output,
    pub(super) watchdog: Arc<Watchdog>,
}

impl Supervised {
    /// Runs until `stop`, or until the program has ended too often; then `failed` says why.
    pub(super) async fn run(
        self,
        pid_changed: watch::Sender<Option<u32>>,
        failed: watch::Sender<Option<String>>,
        stop: CancellationToken,
    ) {
        let Self { program, watchdog, .. } = &self;
        let mut restarts: VecDeque<Instant> = VecDeque::new();
        loop {
            let mut readers = JoinSet::new();
            let (mut child, pid) = match self.spawn(&mut readers) {
                Ok(started) => started,
                Err(error) => {
                    failed.send_replace(Some(format!("{} cannot be started: {error}", program.path.display())));
                    return;
                }
            };
            if let Err(error) = watchdog.watch(pid).await {
                tracing::warn!(%error, "the watchdog is gone: a kill of the devstack would leave processes behind");
            }
            pid_changed.send_replace(Some(pid));
            let ended = tokio::select! {
                ended = child.wait() => Some(ended),
                () = stop.cancelled() => None,
            };
            let stopping = ended.is_none();
            let status = match ended {
                Some(status) => status,
                None => terminate(&program.name, &mut child, pid, STOP_GRACE).await,
            };
            pid_changed.send_replace(None);
            watchdog.forget(pid).await;
            while readers.join_next().await.is_some() {}
            if stopping {
                return;
            }

            let status = described(status);
            restarts.push_back(Instant::now());
            while restarts.front().is_some_and(|at| at.elapsed() > RESTARTS_WITHIN) {
                restarts.pop_front();
            }
            if !program.restart || restarts.len() > RESTARTS {
                let ends = restarts.len();
                let reason = format!("{} ended by itself ({status}), {ends} times within a minute", program.name);
                failed.send_replace(Some(reason));
                return;
            }
            tracing::warn!(process = program.name, status, "a process ended by itself: it is started again");
            tokio::select! {
                () = tokio::time::sleep(RESTART_AFTER) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Starts the program in a process group of its own, so that Ctrl-C reaches the devstack alone.
    fn spawn(&self, readers: &mut JoinSet<()>) -> io::Result<(Child, u32)> {
        let program = &self.program;
        let change = self.change.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut command = Command::new(&program.path);
        for name in program.env_remove {
            command.env_remove(name);
        }
        let (stdout, stderr) = match &change.output {
            None => (Stdio::piped(), Stdio::piped()),
            Some(path) => {
                let file = OpenOptions::new().append(true).open(path)?;
                (Stdio::from(file.try_clone()?), Stdio::from(file))
            }
        };
        let mut child = command
            .args(&program.args)
            .envs(program.env.iter().chain(&change.env).map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().ok_or_else(|| io::Error::other("it ended at once"))?;
        if let Some(stdout) = child.stdout.take() {
            readers.spawn(self.output.clone().pass_on(stdout));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.spawn(self.output.clone().pass_on(stderr));
        }
        Ok((child, pid))
    }
}

/// Asks the process group to end, and kills it when `grace` is over.
pub(super) async fn terminate(name: &str, child: &mut Child, pid: u32, grace: Duration) -> io::Result<ExitStatus> {
    if let Err(error) = send(pid, Signal::SIGTERM) {
        tracing::debug!(process = name, %error, "SIGTERM not sent");
    }
    if let Ok(status) = tokio::time::timeout(grace, child.wait()).await {
        return status;
    }
    tracing::error!(process = name, grace_seconds = grace.as_secs(), "A PROCESS DID NOT STOP IN TIME: IT IS KILLED");
    if let Err(error) = send(pid, Signal::SIGKILL) {
        tracing::debug!(process = name, %error, "SIGKILL not sent");
    }
    child.wait().await
}

/// Sends a signal to a process group.
pub(super) fn send(pid: u32, signal: Signal) -> io::Result<()> {
    let group = i32::try_from(pid).map_err(io::Error::other)?;
    killpg(Pid::from_raw(group), signal).map_err(io::Error::from)
}

fn described(status: io::Result<ExitStatus>) -> String {
    status.map_or_else(|error| error.to_string(), |status| status.to_string())
}
