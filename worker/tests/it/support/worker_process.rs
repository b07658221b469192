//! `WorkerProcess`: the real binary as a child process.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::site::{Site, when};

pub const BINARY: &str = env!("CARGO_BIN_EXE_image-worker");
/// Beyond the grace of a drain.
const EXIT_WITHIN: Duration = Duration::from_secs(150);

/// A running `image-worker`. Dropping it kills it.
pub struct WorkerProcess {
    child: Child,
    admin: SocketAddr,
    lines: watch::Receiver<Vec<Value>>,
    _reading: JoinHandle<()>,
}

impl WorkerProcess {
    /// Starts a worker on `site`; `extra` variables win over the site's.
    pub async fn start(site: &Site, extra: &[(&str, &str)]) -> Self {
        let mut child = Command::new(BINARY)
            .env_clear()
            .envs(site.environment())
            .envs(extra.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, lines) = watch::channel(vec![]);
        let reading = tokio::spawn(async move {
            while let Some(line) = output.next_line().await.unwrap() {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                sender.send_modify(|lines| lines.push(line));
            }
        });
        let mut process = Self { child, admin: "127.0.0.1:0".parse().unwrap(), lines, _reading: reading };
        let started = process.logged("worker started").await;
        process.admin = started["admin_addr"].as_str().unwrap().parse().unwrap();
        process
    }

    /// Waits for a log line with this message.
    pub async fn logged(&mut self, message: &str) -> Value {
        let is_it = |line: &&Value| line["message"].as_str().is_some_and(|text| text.contains(message));
        let wait = self.lines.wait_for(|lines| lines.iter().any(|line| is_it(&line)));
        match tokio::time::timeout(EXIT_WITHIN, wait).await {
            Ok(Ok(lines)) => lines.iter().find(is_it).cloned().unwrap(),
            end => {
                drop(end);
                panic!("{message:?} was not logged: {:#?}", *self.lines.borrow())
            }
        }
    }

    pub fn has_logged(&self, message: &str) -> bool {
        let lines = self.lines.borrow();
        lines.iter().any(|line| line["message"].as_str().is_some_and(|text| text.contains(message)))
    }

    /// Returns what it has logged so far.
    pub fn lines(&self) -> Vec<Value> {
        self.lines.borrow().clone()
    }

    /// Returns the body of a page of the admin port.
    pub async fn admin(&self, path: &str) -> String {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(format!("http://{}{path}", self.admin)).send().await.unwrap().text().await.unwrap()
    }

    /// Returns what speaks against readiness, by component.
    pub async fn reasons(&self) -> serde_json::Map<String, Value> {
        let ready: Value = serde_json::from_str(&self.admin("/ready").await).unwrap();
        ready["reasons"].as_object().unwrap().clone()
    }

    pub async fn ready(&self) {
        when("readiness", async || self.reasons().await.is_empty().then_some(())).await;
    }

    /// Waits until `component` speaks against readiness.
    pub async fn blocked_by(&self, component: &str) {
        when(component, async || self.reasons().await.contains_key(component).then_some(())).await;
    }

    pub fn terminate(&self) {
        let pid = i32::try_from(self.child.id().expect("it is running")).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    }

    /// Waits until it has ended by itself, and returns its exit code.
    pub async fn exit_code(&mut self) -> Option<i32> {
        let status = tokio::time::timeout(EXIT_WITHIN, self.child.wait()).await.expect("the worker ends");
        status.unwrap().code()
    }
}
