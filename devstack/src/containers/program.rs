//! `Program`: a command-line tool with its variables, whose output goes to a log and is returned.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use thiserror::Error;
use tokio::process::Command;

/// What a build that compiles everything takes, and some. Anything else is much faster.
const TIMEOUT: Duration = Duration::from_secs(3600);
/// What is passed on of this process's environment. The rest could be settings of another stack, which compose would read.
const PASSED_ON: [&str; 20] = [
    "PATH",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HOME",
    "USER",
    "XDG_RUNTIME_DIR",
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "TERM",
];

/// A command did not do what was asked.
#[derive(Debug, Error)]
pub enum CommandError {
    #[error("{command} cannot be started: {source}")]
    Start { command: String, source: io::Error },
    #[error("{command} failed ({status}): {said}\n(the whole output is in {log})")]
    Failed { command: String, status: String, said: String, log: PathBuf },
    #[error("{command} did not end within {} minutes", TIMEOUT.as_secs() / 60)]
    Endless { command: String },
}

#[derive(Debug, Clone)]
pub(super) struct Program {
    path: PathBuf,
    /// In front of the arguments of every call.
    prefix: Vec<String>,
    env: Vec<(String, String)>,
    /// Where it is run.
    folder: PathBuf,
    log: PathBuf,
}

impl Program {
    /// The log is in `logs`, one for each program.
    pub(super) fn new(path: impl Into<PathBuf>, folder: &Path, logs: &Path) -> Self {
        let path = path.into();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = logs.join(format!("{name}.log"));
        Self { path, prefix: Vec::new(), env: Vec::new(), folder: folder.to_owned(), log }
    }

    pub(super) fn prefixed<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.prefix.extend(args.into_iter().map(Into::into));
        self
    }

    pub(super) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs it to its end and returns what it printed.
    pub(super) async fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<String, CommandError> {
        Ok(self.run_and_listen(args).await?.0)
    }

    /// Runs it to its end and returns what it printed, and what it complained of on standard error.
    pub(super) async fn run_and_listen<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<(String, String), CommandError> {
        let command = self.line(args);
        let output = self.output(args).await?;
        let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let complaints = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if output.status.success() {
            return Ok((printed, complaints));
        }
        let all = format!("{printed}\n{complaints}");
        let lines: Vec<_> = all.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let said = lines[lines.len().saturating_sub(12)..].join("\n  ");
        Err(CommandError::Failed { command, status: output.status.to_string(), said, log: self.log.clone() })
    }

    /// Returns whether it can be run, and ends well.
    pub(super) async fn works<S: AsRef<OsStr>>(&self, args: &[S]) -> bool {
        self.output(args).await.is_ok_and(|output| output.status.success())
    }

    async fn output<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<Output, CommandError> {
        let command = self.line(args);
        let started = |source| CommandError::Start { command: command.clone(), source };
        let mut child = Command::new(&self.path);
        child.env_clear();
        for name in PASSED_ON {
            #[expect(clippy::disallowed_methods, reason = "passed on to another program, and no setting of this one")]
            if let Some(value) = std::env::var_os(name) {
                child.env(name, value);
            }
        }
        child
            .args(&self.prefix)
            .args(args)
            .envs(self.env.iter().cloned())
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            // Ctrl-C is for us alone: we take everything away.
            .process_group(0)
            .kill_on_drop(true);
        let output = tokio::time::timeout(TIMEOUT, child.output()).await;
        let output = output.map_err(|_| CommandError::Endless { command: command.clone() })?.map_err(started)?;
        self.write_down(&command, &output).map_err(started)?;
        Ok(output)
    }

    fn write_down(&self, command: &str, output: &Output) -> io::Result<()> {
        let mut log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        writeln!(log, "$ {command}")?;
        log.write_all(&output.stdout)?;
        log.write_all(&output.stderr)
    }

    fn line<S: AsRef<OsStr>>(&self, args: &[S]) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let args = args.iter().map(|arg| arg.as_ref().to_string_lossy().into_owned());
        // Options of every call would hide the one word that matters.
        let first = self.prefix.first().filter(|word| !word.starts_with('-')).cloned();
        std::iter::once(name).chain(first).chain(args).collect::<Vec<_>>().join(" ")
    }
}

/// Returns every program of this name on the PATH, in its order.
pub(super) fn on_path(name: &str) -> Vec<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "where programs are, and no setting of this one")]
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(name)).filter(|path| path.is_file()).collect()
}
