//! The watchdog: a small process that ends the others when the devstack is killed and cannot do it itself.

use std::collections::BTreeSet;
use std::io::{self, BufRead};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Mutex;

/// How long a process may take to end by itself: longer than the workers' own grace.
pub const STOP_GRACE: Duration = Duration::from_secs(40);
/// How often the watchdog looks whether a process has ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The watchdog as its devstack sees it. Its standard input is the tie: when the devstack is gone, it reads the end of
/// the file. It is in a process group of its own, so that Ctrl-C does not reach it.
#[derive(Debug)]
pub(crate) struct Watchdog {
    child: Child,
    tie: Mutex<Option<ChildStdin>>,
}

impl Watchdog {
    /// Starts `dev watchdog`.
    pub(crate) fn start(dev: &Path) -> io::Result<Self> {
        let mut child = Command::new(dev)
            .arg("watchdog")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let tie = Mutex::new(child.stdin.take());
        Ok(Self { child, tie })
    }

    /// Adds a process group.
    pub(crate) async fn watch(&self, pid: u32) -> io::Result<()> {
        self.tell(&format!("+{pid}\n")).await
    }

    /// Takes off a process group that has ended: its number may be given to another one.
    pub(crate) async fn forget(&self, pid: u32) {
        if let Err(error) = self.tell(&format!("-{pid}\n")).await {
            tracing::warn!(%error, "the watchdog is gone");
        }
    }

    /// Lets go; the watchdog ends because nothing is left to watch.
    pub(crate) async fn stop(mut self) {
        self.tie.lock().await.take();
        if let Err(error) = self.child.wait().await {
            tracing::warn!(%error, "the watchdog cannot be waited for");
        }
    }

    async fn tell(&self, line: &str) -> io::Result<()> {
        let mut tie = self.tie.lock().await;
        let tie = tie.as_mut().ok_or_else(|| io::Error::other("the watchdog was let go"))?;
        tie.write_all(line.as_bytes()).await?;
        tie.flush().await
    }
}

/// What the watchdog process does: reads which process groups there are, and at the end of the input ends what is left
/// of them, first with SIGTERM, after `grace` with SIGKILL.
///
/// # Errors
/// When the input cannot be read; the process groups are ended before.
pub fn watch(input: impl BufRead, grace: Duration) -> io::Result<()> {
    let mut groups: BTreeSet<i32> = BTreeSet::new();
    let mut result = Ok(());
    for line in input.lines() {
        match line {
            Ok(line) => {
                let number = |text: &str| text.parse::<i32>().ok().filter(|pid| *pid > 1);
                if let Some(pid) = line.strip_prefix('+').and_then(number) {
                    groups.insert(pid);
                } else if let Some(pid) = line.strip_prefix('-').and_then(number) {
                    groups.remove(&pid);
                }
            }
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    signal_all(&mut groups, Signal::SIGTERM);
    let deadline = Instant::now() + grace;
    while !groups.is_empty() && Instant::now() < deadline {
        std::thread::sleep(LOOK_EVERY);
        groups.retain(|pid| killpg(Pid::from_raw(*pid), None) != Err(Errno::ESRCH));
    }
    signal_all(&mut groups, Signal::SIGKILL);
    result
}

fn signal_all(groups: &mut BTreeSet<i32>, signal: Signal) {
    groups.retain(|pid| killpg(Pid::from_raw(*pid), signal).is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;
    use std::os::unix::process::{CommandExt, ExitStatusExt};

    fn sleeper() -> std::process::Child {
        std::process::Command::new("sleep").arg("1000").process_group(0).spawn().unwrap()
    }

    #[test]
    fn at_the_end_of_the_input_what_is_left_is_ended() {
        let (mut left, mut forgotten) = (sleeper(), sleeper());
        let (left_id, forgotten_id) = (left.id(), forgotten.id());
        let input = Cursor::new(format!("+{left_id}\n+{forgotten_id}\n-{forgotten_id}\nnonsense\n+1\n"));
        let watching = std::thread::spawn(move || watch(input, Duration::from_secs(30)));
        assert_eq!(left.wait().unwrap().signal(), Some(Signal::SIGTERM as i32));
        watching.join().unwrap().unwrap();
        assert!(forgotten.try_wait().unwrap().is_none(), "a forgotten process is left alone");
        forgotten.kill().unwrap();
        forgotten.wait().unwrap();
    }

    #[test]
    fn what_does_not_end_is_killed() {
        let mut deaf = std::process::Command::new("sh")
            .args(["-c", "trap '' TERM; echo deaf; while :; do sleep 0.05; done"])
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut heard = String::new();
        io::BufReader::new(deaf.stdout.take().unwrap()).read_line(&mut heard).unwrap();
        assert_eq!(heard, "deaf\n");
        watch(Cursor::new(format!("+{}\n", deaf.id())), Duration::from_millis(200)).unwrap();
        assert_eq!(deaf.wait().unwrap().signal(), Some(Signal::SIGKILL as i32));
    }
}
