//! Settings of the worker: flags and environment, and which of them contradict each other.

use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Parser, ValueEnum, value_parser};
use service::settings::{Contradiction, ObserveSettings};

use crate::generate::openai::settings::OpenAiSettings;
use crate::generate::{OutputFormat, StabilityModel};
use crate::render::RenderSettings;

/// What the words in front of everything do, of which the settings know nothing.
pub const HELP: &str = "The word `health` in front of everything asks a running process whether it is ready, and exits with 0 or 1: \
                        see `health --help`. The word `reconcile` ends jobs that no worker will end: see `reconcile --help`.";

/// Performs jobs: receives them from SQS, generates with Amazon Bedrock, renders, publishes to S3.
///
/// Credentials, region and endpoints are the AWS SDK's own: `AWS_REGION`, `AWS_ENDPOINT_URL_SQS`, `AWS_ENDPOINT_URL_S3`,
/// `AWS_ENDPOINT_URL_BEDROCK_RUNTIME`, ...
#[derive(Debug, Clone, Parser)]
#[command(name = "image-worker", version, after_help = HELP)]
pub struct Settings {
    /// URL of the job queue.
    #[arg(long, env = "SQS_QUEUE_URL", value_name = "URL", value_parser = NonEmptyStringValueParser::new())]
    pub sqs_queue_url: String,
    /// URL of the webhook queue, to be told of every end of a job before its message is deleted. Without it nothing is.
    #[arg(long, env = "SQS_WEBHOOK_QUEUE_URL", value_name = "URL")]
    pub sqs_webhook_queue_url: Option<String>,
    /// Bucket of pictures, records and sources.
    #[arg(long, env = "S3_BUCKET_NAME", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub s3_bucket_name: String,
    /// Who makes the pictures.
    #[arg(long, env = "MODEL_SOURCE", default_value = "bedrock", value_name = "SOURCE", value_enum)]
    pub model_source: ModelSource,
    /// Who makes them while Bedrock is out of order.
    #[arg(long, env = "MODEL_FALLBACK", default_value = "none", value_name = "SOURCE", value_enum)]
    pub model_fallback: ModelFallback,
    /// Text-to-image model on Bedrock.
    #[arg(long, env = "BEDROCK_MODEL_ID", default_value = "stability.stable-image-core-v1:1", value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub bedrock_model_id: String,
    /// Region of the model; the Stability models are in us-west-2 only, wherever queue and bucket are.
    #[arg(long, env = "BEDROCK_REGION", default_value = "us-west-2", value_name = "REGION")]
    pub bedrock_region: String,
    /// How the model encodes the picture that it returns; webp is for Stable Diffusion 3.5 alone.
    #[arg(long, env = "BEDROCK_OUTPUT_FORMAT", default_value = "png", value_name = "FORMAT", value_enum)]
    pub bedrock_output_format: OutputFormat,
    /// Deliveries in flight at once. Most of a job is waiting for the model, so this is many times the cores; the model's
    /// quota is the other bound: requests a minute * seconds a call / 60, for the whole account.
    #[arg(long, env = "WORKER_SLOTS", default_value_t = 16, value_name = "COUNT", value_parser = value_parser!(u16).range(1..=1000))]
    pub worker_slots: u16,
    /// Threads that decode, resize and encode; 0 is one for each core.
    #[arg(long, env = "CPU_THREADS", default_value_t = 0, value_name = "COUNT")]
    pub cpu_threads: u16,
    /// The model's quota for the whole account, which all workers on this bucket then share: 0 leaves each of them to slow
    /// down by itself when it is throttled.
    #[arg(long, env = "MODEL_REQUESTS_PER_MINUTE", default_value_t = 0, value_name = "COUNT", value_parser = value_parser!(u32).range(0..=100_000))]
    pub model_requests_per_minute: u32,
    /// How long a delivery stays hidden when it is not extended: the queue's visibility timeout.
    #[arg(long, env = "LEASE_SECONDS", default_value_t = 60, value_name = "SECONDS", value_parser = value_parser!(u64).range(MIN_LEASE_SECONDS..=MAX_HOLD_SECONDS))]
    pub lease_seconds: u64,
    /// How often the queue hands a message over before it moves it to the dead-letter queue: the queue's
    /// maxReceiveCount.
    #[arg(long, env = "MAX_RECEIVE_COUNT", default_value_t = 5, value_name = "COUNT", value_parser = value_parser!(u32).range(1..=1000))]
    pub max_receive_count: u32,
    /// Long poll of one receive, 0 to 20.
    #[arg(long, env = "RECEIVE_WAIT_SECONDS", default_value_t = 10, value_name = "SECONDS", value_parser = value_parser!(u64).range(0..=20))]
    pub receive_wait_seconds: u64,
    /// Longest model call. A call that is given up may be paid for all the same, so well above the model's slowest.
    #[arg(long, env = "MODEL_TIMEOUT_SECONDS", default_value_t = 95, value_name = "SECONDS", value_parser = value_parser!(u64).range(1..=MAX_HOLD_SECONDS))]
    pub model_timeout_seconds: u64,
    /// How long a claim on a job holds without being renewed: no attempt may be silent for longer.
    #[arg(long, env = "ATTEMPT_TIMEOUT_SECONDS", default_value_t = 240, value_name = "SECONDS", value_parser = value_parser!(u64).range(1..=MAX_HOLD_SECONDS))]
    pub attempt_timeout_seconds: u64,
    /// Time to finish what is in flight after SIGTERM.
    #[arg(long, env = "SHUTDOWN_GRACE_SECONDS", default_value_t = 110, value_name = "SECONDS", value_parser = value_parser!(u64).range(1..=MAX_HOLD_SECONDS))]
    pub shutdown_grace_seconds: u64,
    #[command(flatten)]
    pub openai: OpenAiSettings,
    #[command(flatten)]
    pub lanes: LaneSettings,
    #[command(flatten)]
    pub render: RenderSettings,
    #[command(flatten)]
    pub lifecycle: LifecycleSettings,
    #[command(flatten)]
    pub observe: ObserveSettings,
}

/// Who makes the pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModelSource {
    /// Amazon Bedrock.
    Bedrock,
    /// A server with `OpenAI`'s images endpoint.
    #[value(name = "openai")]
    OpenAi,
}

/// Who makes the pictures while the source is out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModelFallback {
    /// Nobody: jobs are held.
    None,
    /// A server with `OpenAI`'s images endpoint.
    #[value(name = "openai")]
    OpenAi,
}

/// Two lanes: single jobs do not wait behind batches, nor one tenant behind another.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Lanes")]
pub struct LaneSettings {
    /// URL of the queue of batches, the API's `SQS_BATCH_QUEUE_URL`. Without it there is one lane.
    #[arg(long, env = "SQS_BATCH_QUEUE_URL", value_name = "URL")]
    pub sqs_batch_queue_url: Option<String>,
    /// Slots that batches never have, so that a single job starts at once; 0 is a quarter of the slots.
    #[arg(long, env = "INTERACTIVE_SLOTS", default_value_t = 0, value_name = "COUNT")]
    pub interactive_slots: u16,
    /// Slots that the single jobs of one tenant may have at a time; 0 is all but `INTERACTIVE_SLOTS`. Twice as many more
    /// wait under their leases, and what comes beyond goes to the batch lane.
    #[arg(long, env = "TENANT_SLOTS", default_value_t = 0, value_name = "COUNT")]
    pub tenant_slots: u16,
}

impl LaneSettings {
    /// Returns the URL of the second queue; an empty one, which compose files write, is none.
    pub fn batch_queue_url(&self) -> Option<&str> {
        self.sqs_batch_queue_url.as_deref().filter(|url| !url.is_empty())
    }

    /// Returns how many of `slots` batches never have: 1 or more.
    pub fn kept(&self, slots: usize) -> usize {
        match usize::from(self.interactive_slots) {
            0 => (slots / 4).max(1),
            kept => kept,
        }
    }

    /// Returns how many of `slots` one tenant's single jobs may have at a time: 1 or more.
    pub fn of_one_tenant(&self, slots: usize) -> usize {
        match usize::from(self.tenant_slots) {
            0 => slots.saturating_sub(self.kept(slots)).max(1),
            of_one => of_one,
        }
    }
}

/// How an EC2 instance learns that it is going to be terminated.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "EC2")]
pub struct LifecycleSettings {
    /// Watch the instance metadata for termination by the Auto Scaling group and for Spot interruption.
    #[arg(long, env = "EC2_LIFECYCLE", default_value_t = false, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub ec2_lifecycle: bool,
    /// Group whose termination hook is completed after the drain.
    #[arg(long, env = "AUTOSCALING_GROUP_NAME", value_name = "NAME")]
    pub autoscaling_group_name: Option<String>,
    /// The group's termination hook.
    #[arg(long, env = "LIFECYCLE_HOOK_NAME", value_name = "NAME")]
    pub lifecycle_hook_name: Option<String>,
}

/// SQS ends the hold on a delivery 12 hours after the receive, whatever is asked for.
const MAX_HOLD_SECONDS: u64 = 43_200;
/// Below this, a heartbeat that needs its retries would come too late.
const MIN_LEASE_SECONDS: u64 = 20;
/// Time for checkpoint, rendering and publishing after the slowest model call.
const AFTER_MODEL_SECONDS: u64 = 60;

impl Settings {
    /// Refuses settings that cannot hold together.
    ///
    /// # Errors
    /// Names both settings.
    pub fn validate(&self) -> Result<(), Contradiction> {
        Contradiction::unless(
            self.receive_wait_seconds * 3 <= self.shutdown_grace_seconds,
            "RECEIVE_WAIT_SECONDS",
            "SHUTDOWN_GRACE_SECONDS",
            || "the long poll is awaited at shutdown, so it must be at most a third of the grace".into(),
        )?;
        Contradiction::unless(
            self.model_timeout_seconds < self.shutdown_grace_seconds,
            "MODEL_TIMEOUT_SECONDS",
            "SHUTDOWN_GRACE_SECONDS",
            || "a model call under way at shutdown is paid for and must be able to end".into(),
        )?;
        Contradiction::unless(
            self.model_timeout_seconds + AFTER_MODEL_SECONDS < self.attempt_timeout_seconds,
            "MODEL_TIMEOUT_SECONDS",
            "ATTEMPT_TIMEOUT_SECONDS",
            || format!("an attempt must outlast the slowest model call by more than {AFTER_MODEL_SECONDS} s"),
        )?;
        // An unknown model is refused by its own name.
        let returns = StabilityModel::for_id(&self.bedrock_model_id)
            .map_or(true, |model| model.returns(self.bedrock_output_format));
        Contradiction::unless(returns, "BEDROCK_OUTPUT_FORMAT", "BEDROCK_MODEL_ID", || {
            "webp is returned by Stable Diffusion 3.5 alone: ask for png or jpeg".into()
        })?;
        Contradiction::unless(self.threads() <= usize::from(self.worker_slots), "CPU_THREADS", "WORKER_SLOTS", || {
            "threads beyond the number of slots would never have work".into()
        })?;
        if self.model_source == ModelSource::OpenAi {
            let none = self.model_fallback == ModelFallback::None;
            Contradiction::unless(none, "MODEL_FALLBACK", "MODEL_SOURCE", || {
                "openai cannot stand in for itself".into()
            })?;
            self.openai.source("MODEL_SOURCE")?;
        }
        if self.model_fallback == ModelFallback::OpenAi {
            self.openai.source("MODEL_FALLBACK")?;
        }
        let slots = usize::from(self.worker_slots);
        let has_lanes = self.lanes.batch_queue_url().is_some();
        Contradiction::unless(
            has_lanes || self.lanes.interactive_slots == 0,
            "INTERACTIVE_SLOTS",
            "SQS_BATCH_QUEUE_URL",
            || "slots are kept free of batches only where batches have a queue of their own: give its URL".into(),
        )?;
        Contradiction::unless(
            has_lanes || self.lanes.tenant_slots == 0,
            "TENANT_SLOTS",
            "SQS_BATCH_QUEUE_URL",
            || "what a tenant has too much of goes to the batch lane: give the URL of its queue".into(),
        )?;
        Contradiction::unless(
            self.lanes.batch_queue_url() != Some(&self.sqs_queue_url),
            "SQS_BATCH_QUEUE_URL",
            "SQS_QUEUE_URL",
            || "both are the same queue: batches need one of their own".into(),
        )?;
        let of_jobs = [Some(self.sqs_queue_url.as_str()), self.lanes.batch_queue_url()];
        let mixed = self.webhook_queue_url().is_some_and(|url| of_jobs.contains(&Some(url)));
        Contradiction::unless(!mixed, "SQS_WEBHOOK_QUEUE_URL", "SQS_QUEUE_URL", || {
            "notices in a queue of jobs would be dead letters: they need a queue of their own".into()
        })?;
        Contradiction::unless(
            !has_lanes || self.lanes.kept(slots) < slots,
            "INTERACTIVE_SLOTS",
            "WORKER_SLOTS",
            || "batches would never have a slot: keep fewer, or have at least 2 slots".into(),
        )?;
        let named = self.lifecycle.autoscaling_group_name.is_some() && self.lifecycle.lifecycle_hook_name.is_some();
        let none = self.lifecycle.autoscaling_group_name.is_none() && self.lifecycle.lifecycle_hook_name.is_none();
        Contradiction::unless(named || none, "AUTOSCALING_GROUP_NAME", "LIFECYCLE_HOOK_NAME", || {
            "give both or neither".into()
        })?;
        Contradiction::unless(self.lifecycle.ec2_lifecycle || none, "LIFECYCLE_HOOK_NAME", "EC2_LIFECYCLE", || {
            "a hook is only noticed when the instance metadata is watched: set EC2_LIFECYCLE=true".into()
        })
    }

    /// Returns the URL of the webhook queue; an empty one is none.
    pub fn webhook_queue_url(&self) -> Option<&str> {
        self.sqs_webhook_queue_url.as_deref().filter(|url| !url.is_empty())
    }

    /// Returns the number of CPU threads, 1 or more and, when chosen here, no more than there are slots.
    pub fn threads(&self) -> usize {
        match usize::from(self.cpu_threads) {
            0 => std::thread::available_parallelism()
                .map_or(1, std::num::NonZero::get)
                .min(usize::from(self.worker_slots)),
            threads => threads,
        }
    }

    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds)
    }

    pub fn model_timeout(&self) -> Duration {
        Duration::from_secs(self.model_timeout_seconds)
    }

    pub fn attempt_timeout(&self) -> Duration {
        Duration::from_secs(self.attempt_timeout_seconds)
    }

    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.shutdown_grace_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(extra: &[&str]) -> Settings {
        let required = ["image-worker", "--sqs-queue-url", "http://q", "--s3-bucket-name", "b"];
        Settings::try_parse_from(required.iter().chain(extra)).unwrap()
    }

    #[test]
    fn the_defaults_hold_together() {
        assert_eq!(settings(&[]).validate(), Ok(()));
    }

    #[test]
    fn contradictions_name_both_settings() {
        for (extra, first, second) in [
            (&["--shutdown-grace-seconds", "29"][..], "RECEIVE_WAIT_SECONDS", "SHUTDOWN_GRACE_SECONDS"),
            (&["--model-timeout-seconds", "110"], "MODEL_TIMEOUT_SECONDS", "SHUTDOWN_GRACE_SECONDS"),
            (&["--attempt-timeout-seconds", "155"], "MODEL_TIMEOUT_SECONDS", "ATTEMPT_TIMEOUT_SECONDS"),
            (&["--bedrock-output-format", "webp"], "BEDROCK_OUTPUT_FORMAT", "BEDROCK_MODEL_ID"),
            (&["--cpu-threads", "17"], "CPU_THREADS", "WORKER_SLOTS"),
            (&["--model-source", "openai"], "OPENAI_BASE_URL", "MODEL_SOURCE"),
            (&["--model-fallback", "openai", "--openai-base-url", "https://h"], "OPENAI_MODEL", "MODEL_FALLBACK"),
            (&["--model-source", "openai", "--model-fallback", "openai"], "MODEL_FALLBACK", "MODEL_SOURCE"),
            (&["--sqs-webhook-queue-url", "http://q"], "SQS_WEBHOOK_QUEUE_URL", "SQS_QUEUE_URL"),
            (&["--interactive-slots", "4"], "INTERACTIVE_SLOTS", "SQS_BATCH_QUEUE_URL"),
            (&["--tenant-slots", "4"], "TENANT_SLOTS", "SQS_BATCH_QUEUE_URL"),
            (&["--sqs-batch-queue-url", "http://q"], "SQS_BATCH_QUEUE_URL", "SQS_QUEUE_URL"),
            (&["--sqs-batch-queue-url", "b", "--interactive-slots", "16"], "INTERACTIVE_SLOTS", "WORKER_SLOTS"),
            (&["--sqs-batch-queue-url", "b", "--worker-slots", "1"], "INTERACTIVE_SLOTS", "WORKER_SLOTS"),
            (&["--lifecycle-hook-name", "h"], "AUTOSCALING_GROUP_NAME", "LIFECYCLE_HOOK_NAME"),
            (&["--lifecycle-hook-name", "h", "--autoscaling-group-name", "g"], "LIFECYCLE_HOOK_NAME", "EC2_LIFECYCLE"),
        ] {
            let error = settings(extra).validate().unwrap_err();
            assert_eq!((error.first, error.second), (first, second), "{extra:?}");
        }
    }

    #[test]
    fn lanes_share_the_slots() {
        let lanes = |extra: &[&str]| settings(extra).lanes;
        for (slots, kept, of_one) in [(2, 1, 1), (4, 1, 3), (16, 4, 12)] {
            assert_eq!((lanes(&[]).kept(slots), lanes(&[]).of_one_tenant(slots)), (kept, of_one), "{slots} slots");
        }
        assert_eq!(lanes(&["--sqs-batch-queue-url", ""]).batch_queue_url(), None);
        let given = lanes(&["--interactive-slots", "2", "--tenant-slots", "5"]);
        assert_eq!((given.kept(16), given.of_one_tenant(16)), (2, 5));
    }

    #[test]
    fn what_is_out_of_range_is_refused_by_name() {
        for (flag, value) in [
            ("--worker-slots", "0"),
            ("--max-receive-count", "0"),
            ("--lease-seconds", "19"),
            ("--receive-wait-seconds", "21"),
            ("--model-timeout-seconds", "0"),
            ("--model-requests-per-minute", "100001"),
            ("--render-method", "7"),
            ("--bedrock-model-id", ""),
            ("--bedrock-output-format", "PNG"),
        ] {
            let required = ["image-worker", "--sqs-queue-url", "http://q", "--s3-bucket-name", "b"];
            let error = Settings::try_parse_from(required.iter().chain([&flag, &value])).unwrap_err();
            assert!(error.to_string().contains(flag), "{error}");
        }
    }

    #[test]
    fn help_is_the_reference() {
        use clap::CommandFactory;
        // Without the width of the terminal the test runs in.
        let help = Settings::command().term_width(100).render_long_help().to_string();
        insta::assert_snapshot!(help);
    }
}
