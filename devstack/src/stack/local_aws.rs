//! SQS and S3 of the stack: embedded in this process, or `MiniStack`'s.

use std::io;

use clap::ValueEnum;

use super::ports::loopback;
use super::{DataDir, StackError, StackOptions};
use crate::embedded::sqs::SqsOptions;
use crate::embedded::{EmbeddedS3, EmbeddedSqs};
use crate::ministack::Ministack;

/// Which implementation to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LocalAwsKind {
    /// In this process; keeps its data.
    Embedded,
    /// A process of its own, from `PyPI`; forgets everything at its end.
    Ministack,
}

/// A running SQS and S3.
#[derive(Debug)]
pub(super) enum LocalAws {
    Embedded { sqs: EmbeddedSqs, s3: EmbeddedS3 },
    Ministack(Ministack),
}

impl LocalAws {
    pub(super) async fn start(options: &StackOptions, data: &DataDir) -> Result<Self, StackError> {
        let failed = |what| move |source: io::Error| StackError::Start { what, source };
        match options.aws {
            LocalAwsKind::Embedded => {
                let sqs_options = SqsOptions { dir: Some(data.path().join("sqs")) };
                let sqs = EmbeddedSqs::start(loopback(options.ports.sqs), sqs_options).await.map_err(failed("SQS"))?;
                let root = data.path().join("s3");
                let s3 = EmbeddedS3::start(loopback(options.ports.s3), root).await.map_err(failed("S3"))?;
                Ok(Self::Embedded { sqs, s3 })
            }
            LocalAwsKind::Ministack => {
                Ok(Self::Ministack(Ministack::start(&options.tools_dir, options.ports.sqs).await?))
            }
        }
    }

    pub(super) fn sqs_url(&self) -> String {
        match self {
            Self::Embedded { sqs, .. } => sqs.url(),
            Self::Ministack(ministack) => ministack.url().to_owned(),
        }
    }

    pub(super) fn s3_url(&self) -> String {
        match self {
            Self::Embedded { s3, .. } => s3.url(),
            Self::Ministack(ministack) => ministack.url().to_owned(),
        }
    }

    pub(super) async fn stop(self) {
        match self {
            Self::Embedded { sqs, s3 } => {
                s3.stop().await;
                sqs.stop().await;
            }
            Self::Ministack(ministack) => {
                if let Err(error) = ministack.stop().await {
                    tracing::warn!(%error, "MiniStack could not be stopped");
                }
            }
        }
    }
}
