//! SQS and S3 of the stack: embedded in this process, the same in a process of their own, or `MiniStack`'s.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tokio::net::TcpStream;

use super::output::Output;
use super::ports::{chosen, loopback};
use super::process::{Process, Program};
use super::settings::FOREIGN;
use super::watchdog::Watchdog;
use super::{DataDir, READY_TIMEOUT, StackError, StackOptions};
use crate::embedded::sqs::SqsOptions;
use crate::embedded::{EmbeddedS3, EmbeddedSqs};
use crate::ministack::Ministack;

/// How often a starting emulator is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Which implementation to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LocalAwsKind {
    /// In this process; keeps its data.
    Embedded,
    /// The same in a process of its own, which can be killed and comes back with its data.
    Emulator,
    /// A process of its own, from `PyPI`; forgets everything at its end.
    Ministack,
}

/// A running SQS and S3.
#[derive(Debug)]
pub(super) enum LocalAws {
    Embedded { sqs: EmbeddedSqs, s3: EmbeddedS3 },
    Emulator { process: Process, sqs_url: String, s3_url: String },
    Ministack(Ministack),
}

impl LocalAws {
    pub(super) async fn start(
        options: &StackOptions,
        data: &DataDir,
        watchdog: &Arc<Watchdog>,
    ) -> Result<Self, StackError> {
        let failed = |what| move |source: io::Error| StackError::Start { what, source };
        match options.aws {
            LocalAwsKind::Embedded => {
                let sqs_options = SqsOptions { dir: Some(data.path().join("sqs")) };
                let sqs = EmbeddedSqs::start(loopback(options.ports.sqs), sqs_options).await.map_err(failed("SQS"))?;
                let root = data.path().join("s3");
                let s3 = EmbeddedS3::start(loopback(options.ports.s3), root).await.map_err(failed("S3"))?;
                Ok(Self::Embedded { sqs, s3 })
            }
            LocalAwsKind::Emulator => emulator(options, data, watchdog).await.map_err(failed("the emulator")),
            LocalAwsKind::Ministack => {
                Ok(Self::Ministack(Ministack::start(&options.tools_dir, options.ports.sqs).await?))
            }
        }
    }

    pub(super) fn sqs_url(&self) -> String {
        match self {
            Self::Embedded { sqs, .. } => sqs.url(),
            Self::Emulator { sqs_url, .. } => sqs_url.clone(),
            Self::Ministack(ministack) => ministack.url().to_owned(),
        }
    }

    pub(super) fn s3_url(&self) -> String {
        match self {
            Self::Embedded { s3, .. } => s3.url(),
            Self::Emulator { s3_url, .. } => s3_url.clone(),
            Self::Ministack(ministack) => ministack.url().to_owned(),
        }
    }

    /// Returns the process, if it is one that can be killed.
    pub(super) fn process(&self) -> Option<&Process> {
        match self {
            Self::Emulator { process, .. } => Some(process),
            Self::Embedded { .. } | Self::Ministack(_) => None,
        }
    }

    pub(super) async fn stop(self) {
        match self {
            Self::Embedded { sqs, s3 } => {
                s3.stop().await;
                sqs.stop().await;
            }
            Self::Emulator { process, .. } => process.stop().await,
            Self::Ministack(ministack) => {
                if let Err(error) = ministack.stop().await {
                    tracing::warn!(%error, "MiniStack could not be stopped");
                }
            }
        }
    }
}

/// Returns the folder of the emulator's data: not the stack's own, which this process has locked.
pub(super) fn emulator_dir(data: &Path) -> std::path::PathBuf {
    data.join("emulator")
}

/// Starts `dev emulator` and waits until it answers.
async fn emulator(options: &StackOptions, data: &DataDir, watchdog: &Arc<Watchdog>) -> io::Result<LocalAws> {
    let (sqs, s3) = (loopback(chosen(options.ports.sqs)?), loopback(chosen(options.ports.s3)?));
    let dir = emulator_dir(data.path());
    let arguments = ["emulator", "--dir", &dir.to_string_lossy(), "--sqs-port", &sqs.port().to_string(), "--s3-port"];
    let program = Program {
        name: "emulator".to_owned(),
        path: options.binaries_dir.join("dev"),
        args: arguments.iter().map(|text| (*text).to_owned()).chain([s3.port().to_string()]).collect(),
        env: Vec::new(),
        env_remove: FOREIGN,
        restart: options.restart,
        // It has none; nobody asks whether it is ready.
        admin: s3,
    };
    let output = Output::start(&data.path().join("logs"), "emulator", 0, options.print).await?;
    let process = Process::start(program, output, Arc::clone(watchdog));
    let deadline = Instant::now() + READY_TIMEOUT;
    while TcpStream::connect(sqs).await.is_err() || TcpStream::connect(s3).await.is_err() {
        if let Some(reason) = process.failure().borrow().clone() {
            return Err(io::Error::other(reason));
        }
        if Instant::now() >= deadline {
            let seconds = READY_TIMEOUT.as_secs();
            return Err(io::Error::other(format!("it did not answer within {seconds} s; its output is in logs/")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(LocalAws::Emulator { process, sqs_url: format!("http://{sqs}"), s3_url: format!("http://{s3}") })
}
