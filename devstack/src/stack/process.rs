//! `Process`: one supervised child: started, watched, restarted when it ends by itself, stopped when asked.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::output::Output;
use super::supervise::{Supervised, send};
use super::watchdog::Watchdog;

/// How often a starting process is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// A process answers its admin port within milliseconds, if at all.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// What to run.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    /// Variables of this process that the program must not see.
    pub(crate) env_remove: &'static [&'static str],
    /// Start it again when it ends by itself.
    pub(crate) restart: bool,
    /// Where it tells whether it is ready.
    pub(crate) admin: SocketAddr,
}

/// What is different from the next start on. The default is: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Further variables; they win over all others.
    pub env: Vec<(String, String)>,
    /// Where standard output and standard error go instead of the log file.
    pub output: Option<PathBuf>,
}

/// A process did not become ready.
#[derive(Debug, Error)]
pub enum NotReady {
    #[error("{name} gave up before it was ready: {reason}; its output is in {log}")]
    GaveUp { name: String, reason: String, log: PathBuf },
    #[error("{name} was not ready within {seconds} s: {reason}; its output is in {log}")]
    TimedOut { name: String, seconds: u64, reason: String, log: PathBuf },
}

/// A running child. Dropping it kills the child.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    admin: SocketAddr,
    log: PathBuf,
    pid: watch::Receiver<Option<u32>>,
    failure: watch::Receiver<Option<String>>,
    stop: CancellationToken,
    change: Arc<Mutex<Change>>,
    supervision: JoinSet<()>,
}

impl Process {
    /// Starts supervising. A program that cannot be started shows up as a failure.
    pub(crate) fn start(program: Program, output: Output, watchdog: Arc<Watchdog>) -> Self {
        let (pid_changed, pid) = watch::channel(None);
        let (failed, failure) = watch::channel(None);
        let stop = CancellationToken::new();
        let (name, admin, log) = (program.name.clone(), program.admin, output.log().to_owned());
        let change = Arc::default();
        let supervised = Supervised { program, change: Arc::clone(&change), output, watchdog };
        let mut supervision = JoinSet::new();
        supervision.spawn(supervised.run(pid_changed, failed, stop.clone()));
        Self { name, admin, log, pid, failure, stop, change, supervision }
    }

    /// Returns the process id, None while it is not running.
    pub(crate) fn pid(&self) -> Option<u32> {
        *self.pid.borrow()
    }

    /// Returns the address of its admin port.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Returns a view of why it is not started again, None while it is.
    pub(crate) fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.clone()
    }

    /// Sets what is different from the next start on, in place of what was set before.
    pub(crate) fn change(&self, change: Change) {
        *self.change.lock().unwrap_or_else(PoisonError::into_inner) = change;
    }

    /// Sends a signal to the process.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = self.pid().ok_or_else(|| io::Error::other(format!("{} is not running", self.name)))?;
        send(pid, signal)
    }

    /// Waits until it runs under another id than `old`, and returns that.
    pub(crate) async fn restarted(&self, old: u32) -> io::Result<u32> {
        let mut pid = self.pid.clone();
        let changed = pid.wait_for(|pid| pid.is_some_and(|pid| pid != old)).await.map_err(io::Error::other)?;
        changed.ok_or_else(|| io::Error::other("it is not running"))
    }

    /// Waits until `GET /ready` is answered with 200.
    pub(crate) async fn ready(&self, http: &reqwest::Client, timeout: Duration) -> Result<(), NotReady> {
        let deadline = Instant::now() + timeout;
        let url = format!("http://{}/ready", self.admin);
        loop {
            if let Some(reason) = self.failure.borrow().clone() {
                return Err(NotReady::GaveUp { name: self.name.clone(), reason, log: self.log.clone() });
            }
            let reason = match http.get(&url).timeout(ASK_TIMEOUT).send().await {
                Ok(response) if response.status().is_success() => return Ok(()),
                Ok(response) => response.text().await.unwrap_or_else(|error| error.to_string()),
                Err(error) if error.is_connect() => format!("nothing listens on {}", self.admin),
                Err(error) => error.to_string(),
            };
            if Instant::now() >= deadline {
                let (name, seconds, log) = (self.name.clone(), timeout.as_secs(), self.log.clone());
                return Err(NotReady::TimedOut { name, seconds, reason, log });
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Asks it to stop and waits until it has, at most `STOP_GRACE`; then it is killed.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while self.supervision.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::ExitStatusExt;
    use std::path::Path;

    use tokio::process::Command;

    use crate::stack::ports::loopback;
    use crate::stack::supervise::terminate;

    struct Fixture {
        dir: tempfile::TempDir,
        watchdog: Arc<Watchdog>,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let watchdog = script(dir.path(), "watchdog", "cat > /dev/null");
            Self { watchdog: Arc::new(Watchdog::start(&watchdog).unwrap()), dir }
        }

        async fn start(&self, text: &str, change: impl FnOnce(&mut Program)) -> Process {
            let mut program = Program {
                name: "subject".to_owned(),
                path: script(self.dir.path(), "subject", text),
                args: Vec::new(),
                env: vec![("OUT".to_owned(), self.dir.path().join("out").display().to_string())],
                env_remove: &["HOME"],
                restart: true,
                admin: loopback(1),
            };
            change(&mut program);
            let output = Output::start(self.dir.path(), "subject", 0, false).await.unwrap();
            Process::start(program, output, Arc::clone(&self.watchdog))
        }

        /// What the script wrote to `$OUT`, once it has.
        async fn out(&self) -> String {
            within(async {
                loop {
                    match std::fs::read_to_string(self.dir.path().join("out")) {
                        Ok(text) if text.ends_with('\n') => return text,
                        _ => tokio::time::sleep(Duration::from_millis(10)).await,
                    }
                }
            })
            .await
        }
    }

    fn script(dir: &Path, name: &str, text: &str) -> PathBuf {
        let path = dir.join(name);
        // Written beside and renamed: a script that is open for writing cannot be executed.
        let temporary = dir.join(format!("{name}.new"));
        std::fs::write(&temporary, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&temporary, PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::rename(&temporary, &path).unwrap();
        path
    }

    async fn within<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(30), future).await.expect("it happens within 30 s")
    }

    async fn failure(process: &Process) -> String {
        let mut failure = process.failure();
        within(failure.wait_for(Option::is_some)).await.unwrap().clone().unwrap()
    }

    #[tokio::test]
    async fn a_killed_process_is_started_again() {
        let fixture = Fixture::new();
        let process = fixture.start("exec sleep 1000", |_| {}).await;
        let first = within(process.restarted(0)).await.unwrap();
        process.signal(Signal::SIGKILL).unwrap();
        let second = within(process.restarted(first)).await.unwrap();
        assert_ne!(first, second);
        within(process.stop()).await;
        assert!(send(second, Signal::SIGTERM).is_err(), "its process group is gone");
    }

    #[tokio::test]
    async fn a_stop_lets_the_process_finish() {
        let fixture = Fixture::new();
        let text = "trap 'echo finished > $OUT; exit 0' TERM\necho ready >> $OUT\nwhile :; do sleep 0.05; done";
        let process = fixture.start(text, |_| {}).await;
        assert_eq!(fixture.out().await, "ready\n");
        within(process.stop()).await;
        assert_eq!(fixture.out().await, "finished\n");
    }

    #[tokio::test]
    async fn variables_are_set_and_foreign_ones_are_not_seen() {
        let fixture = Fixture::new();
        let process = fixture.start("echo \"${HOME:-no home} $SET\" > $OUT\nexec sleep 1000", |program| {
            program.env.push(("SET".to_owned(), "first".to_owned()));
            program.env.push(("SET".to_owned(), "last".to_owned()));
        });
        let process = process.await;
        assert_eq!(fixture.out().await, "no home last\n");
        within(process.stop()).await;
    }

    #[tokio::test]
    async fn a_change_holds_from_the_next_start_on() {
        let fixture = Fixture::new();
        let full = fixture.dir.path().join("elsewhere");
        std::fs::write(&full, "").unwrap();
        let process = fixture.start("echo \"${CHANGED:-as ever}\" > $OUT\necho said\nexec sleep 1000", |_| {}).await;
        assert_eq!(fixture.out().await, "as ever\n");
        let first = within(process.restarted(0)).await.unwrap();
        std::fs::remove_file(fixture.dir.path().join("out")).unwrap();
        let env = vec![("CHANGED".to_owned(), "changed".to_owned())];
        process.change(Change { env, output: Some(full.clone()) });
        process.signal(Signal::SIGKILL).unwrap();
        within(process.restarted(first)).await.unwrap();
        assert_eq!(fixture.out().await, "changed\n");
        within(async {
            while std::fs::read_to_string(&full).unwrap() != "said\n" {
                tokio::task::yield_now().await;
            }
        })
        .await;
        within(process.stop()).await;
    }

    #[tokio::test]
    async fn what_is_not_started_again_says_why() {
        let fixture = Fixture::new();
        let process = fixture.start("exit 3", |program| program.restart = false).await;
        let reason = failure(&process).await;
        assert!(reason.contains("exit status: 3"), "{reason}");
        let error = process.ready(&reqwest::Client::new(), Duration::from_secs(1)).await.unwrap_err();
        assert!(matches!(error, NotReady::GaveUp { .. }), "{error}");

        let missing = fixture.start("", |program| program.path = PathBuf::from("/nonexistent/program")).await;
        let reason = failure(&missing).await;
        assert!(reason.contains("/nonexistent/program"), "{reason}");
    }

    #[tokio::test]
    async fn ready_waits_for_200_and_tells_what_it_heard_instead() {
        let fixture = Fixture::new();
        let listener = tokio::net::TcpListener::bind(loopback(0)).await.unwrap();
        let admin = listener.local_addr().unwrap();
        let (ready, is_ready) = watch::channel(false);
        let answer = axum::routing::get(async move || {
            if *is_ready.borrow() {
                Ok("ready")
            } else {
                Err((axum::http::StatusCode::SERVICE_UNAVAILABLE, "no model"))
            }
        });
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, axum::Router::new().route("/ready", answer)).await });

        let process = fixture.start("exec sleep 1000", |program| program.admin = admin).await;
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let error = process.ready(&http, Duration::ZERO).await.unwrap_err().to_string();
        assert!(error.contains("no model") && error.contains("subject.log"), "{error}");
        ready.send_replace(true);
        process.ready(&http, Duration::from_secs(30)).await.unwrap();
        within(process.stop()).await;
    }

    #[tokio::test]
    async fn a_process_that_ignores_the_stop_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let deaf = script(dir.path(), "deaf", "trap '' TERM\n: > \"$0.is_deaf\"\nwhile :; do sleep 0.05; done");
        let mut child = Command::new(&deaf).process_group(0).kill_on_drop(true).spawn().unwrap();
        let pid = child.id().unwrap();
        let is_deaf = dir.path().join("deaf.is_deaf");
        while !is_deaf.exists() {
            tokio::task::yield_now().await;
        }
        let status = within(terminate("deaf", &mut child, pid, Duration::from_millis(500))).await.unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32));
    }
}
