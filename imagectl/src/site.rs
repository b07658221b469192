//! `Site`: the pipeline that a command is about, with everything of it behind ports.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use jiff::Timestamp;
use serde::Deserialize;
use service::aws;

use crate::fault::Fault;
use crate::fleet::{AwsFleet, Fleet, LocalFleet, NoFleet};
use crate::objects::{Objects, S3Objects};
use crate::queues::{Queues, SqsQueues};
use crate::settings::TargetSettings;

const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(45);
const MAX_ATTEMPTS: u32 = 3;

/// A pipeline.
#[derive(Clone)]
pub struct Site {
    pub queues: Arc<dyn Queues>,
    pub objects: Arc<dyn Objects>,
    pub fleet: Arc<dyn Fleet>,
    /// The clock: [`Timestamp::now`] but in tests.
    pub now: fn() -> Timestamp,
    /// Who gives the command.
    pub by: String,
    /// Where lines about the work go; its result goes elsewhere.
    pub log: fn(&str),
}

/// What `cargo dev up` writes down of itself.
#[derive(Debug, Deserialize)]
struct Endpoints {
    sqs_url: String,
    s3_url: String,
    queue_url: String,
    #[serde(default)]
    batch_queue_url: Option<String>,
    dead_letter_url: String,
    bucket: String,
    #[serde(default)]
    admin_urls: Vec<String>,
}

/// What the local stack's SQS and S3 are used with. It guards nothing: they listen on loopback only.
const LOCAL_KEY: (&str, &str) = ("local", "local-secret");
const LOCAL_REGION: &str = "us-west-2";

impl Site {
    /// Finds the pipeline that the settings name.
    ///
    /// # Errors
    /// When something is missing, or the local stack does not run.
    pub async fn open(settings: &TargetSettings, log: fn(&str)) -> Result<Self, Fault> {
        match &settings.dev_dir {
            Some(dir) => Self::local(dir, settings, log).await,
            None => Self::deployed(settings, log).await,
        }
    }

    async fn local(dir: &Path, settings: &TargetSettings, log: fn(&str)) -> Result<Self, Fault> {
        let path = dir.join("endpoints.json");
        let not_running = |reason: String| {
            let path = path.display();
            Fault::Usage(format!(
                "--dev-dir: {path} {reason}: start `cargo dev up`, or name the folder of a running one"
            ))
        };
        let bytes = std::fs::read(&path).map_err(|error| not_running(format!("cannot be read ({error})")))?;
        let endpoints: Endpoints =
            serde_json::from_slice(&bytes).map_err(|error| not_running(format!("has another form ({error})")))?;
        let credentials = Credentials::new(LOCAL_KEY.0, LOCAL_KEY.1, None, None, "the local stack");
        let at = |url: &str| {
            SdkConfig::builder()
                .behavior_version(BehaviorVersion::v2026_01_12())
                .region(Region::new(LOCAL_REGION))
                .credentials_provider(SharedCredentialsProvider::new(credentials.clone()))
                .endpoint_url(url)
                .build()
        };
        let (sqs, s3) = (sqs_client(&at(&endpoints.sqs_url)), s3_client(&at(&endpoints.s3_url)));
        let queues = SqsQueues::open(sqs, endpoints.queue_url, Some(endpoints.dead_letter_url)).await?;
        let queues = queues.with_batches(endpoints.batch_queue_url);
        Ok(Self {
            queues: Arc::new(queues),
            objects: Arc::new(S3Objects::new(s3, endpoints.bucket)),
            fleet: Arc::new(LocalFleet::new(endpoints.admin_urls)),
            now: Timestamp::now,
            by: settings.by.clone(),
            log,
        })
    }

    async fn deployed(settings: &TargetSettings, log: fn(&str)) -> Result<Self, Fault> {
        let missing = |flag: &str, variable: &str| {
            Fault::Usage(format!("{flag} (or {variable}) is missing: name the pipeline by it, or use --dev-dir"))
        };
        let queue_url = settings.sqs_queue_url.clone().ok_or_else(|| missing("--sqs-queue-url", "SQS_QUEUE_URL"))?;
        let bucket = settings.s3_bucket_name.clone().ok_or_else(|| missing("--s3-bucket-name", "S3_BUCKET_NAME"))?;
        let config = aws::load_config().await;
        let fleet: Arc<dyn Fleet> = match &settings.autoscaling_group_name {
            Some(group) => Arc::new(AwsFleet::new(&config, group.clone(), &queue_url)),
            None => Arc::new(NoFleet),
        };
        let queues = SqsQueues::open(sqs_client(&config), queue_url, settings.dead_letter_queue_url.clone()).await?;
        let queues = queues.with_batches(settings.sqs_batch_queue_url.clone().filter(|url| !url.is_empty()));
        Ok(Self {
            queues: Arc::new(queues),
            objects: Arc::new(S3Objects::new(s3_client(&config), bucket)),
            fleet,
            now: Timestamp::now,
            by: settings.by.clone(),
            log,
        })
    }
}

fn sqs_client(config: &SdkConfig) -> aws_sdk_sqs::Client {
    let config = aws_sdk_sqs::config::Builder::from(config)
        .timeout_config(aws::timeouts(ATTEMPT_TIMEOUT, OPERATION_TIMEOUT))
        .retry_config(aws::retries(MAX_ATTEMPTS));
    aws_sdk_sqs::Client::from_conf(config.build())
}

fn s3_client(config: &SdkConfig) -> aws_sdk_s3::Client {
    let settings = aws_sdk_s3::config::Builder::from(config)
        .timeout_config(aws::timeouts(ATTEMPT_TIMEOUT, OPERATION_TIMEOUT))
        .retry_config(aws::retries(MAX_ATTEMPTS))
        .force_path_style(aws::s3_needs_path_style(config));
    aws_sdk_s3::Client::from_conf(settings.build())
}
