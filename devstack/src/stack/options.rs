//! `StackOptions`: what to start, and with what.

use std::path::PathBuf;

use super::local_aws::LocalAwsKind;
use super::ports::Ports;
use crate::bedrock::{BedrockOptions, Detail};

/// What to start, and with what.
#[derive(Debug, Clone)]
pub struct StackOptions {
    /// Folder of all data.
    pub dir: PathBuf,
    /// Folder of installed tools; usually that of the data.
    pub tools_dir: PathBuf,
    /// Whose SQS and S3.
    pub aws: LocalAwsKind,
    /// Ports; [`Ports::ANY`] for tests.
    pub ports: Ports,
    /// Number of workers.
    pub workers: usize,
    /// Give batches a queue of their own.
    pub lanes: bool,
    /// Start the portal as well.
    pub portal: bool,
    /// How the Bedrock stand-in answers.
    pub bedrock: BedrockOptions,
    /// Further variables of the API; they win over the stack's own.
    pub api_env: Vec<(String, String)>,
    /// Further variables of every worker; they win over the stack's own.
    pub worker_env: Vec<(String, String)>,
    /// Further variables of one worker each, in their order; they win over `worker_env`.
    pub each_worker_env: Vec<Vec<(String, String)>>,
    /// Print what the processes print. Their log files in `{dir}/logs` are written in any case.
    pub print: bool,
    /// Start a process again that ended by itself.
    pub restart: bool,
    /// `LOG_FILTER` of the processes.
    pub log_filter: String,
    /// Folder with `image-api`, `image-worker` and `dev`, and `portal` if it is asked for.
    pub binaries_dir: PathBuf,
}

impl StackOptions {
    /// Options for a quiet stack on free ports with two workers and a model that answers at once.
    pub fn new(dir: impl Into<PathBuf>, binaries_dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self {
            tools_dir: dir.clone(),
            dir,
            aws: LocalAwsKind::Embedded,
            ports: Ports::ANY,
            workers: 2,
            lanes: false,
            portal: false,
            bedrock: BedrockOptions { detail: Detail::Cheap, ..BedrockOptions::default() },
            api_env: Vec::new(),
            worker_env: Vec::new(),
            each_worker_env: Vec::new(),
            print: false,
            restart: true,
            log_filter: "info".to_owned(),
            binaries_dir: binaries_dir.into(),
        }
    }
}
