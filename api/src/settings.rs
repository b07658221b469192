//! `ApiSettings`: every flag and environment variable of `image-api`, and which of them contradict each other.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser};
use job::{IdKeys, InvalidIdKeys};
use service::settings::{Contradiction, ObserveSettings};
use thiserror::Error;

use crate::auth::{ApiKeys, InvalidApiKeys};

/// What the words in front of everything do, of which the settings know nothing.
pub const HELP: &str = "The word `health` in front of everything asks a running process whether it is ready, and exits with 0 or 1: \
                        see `health --help`. The word `webhooks` delivers webhooks: see `webhooks --help`.";

/// Accepts image jobs over HTTP, puts them into the queue and answers polls.
#[derive(Debug, Clone, Parser)]
#[command(name = "image-api", version, max_term_width = 100, after_help = HELP)]
pub struct ApiSettings {
    /// Address of the public port. Port 0 takes a free one.
    #[arg(long, env = "LISTEN_ADDR", default_value = "127.0.0.1:8080", value_name = "HOST:PORT")]
    pub listen_addr: SocketAddr,
    /// Origin under which clients reach this API, scheme, host and optional port. Without it
    /// the URLs in answers are relative.
    #[arg(long, env = "PUBLIC_BASE_URL", value_name = "ORIGIN")]
    pub public_base_url: Option<Origin>,
    /// Time that requests in flight get to finish after SIGTERM. Keep it below the stop timeout of the container.
    #[arg(long, env = "SHUTDOWN_GRACE_SECONDS", default_value_t = 25, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub shutdown_grace_seconds: u64,
    #[command(flatten)]
    pub backend: BackendSettings,
    #[command(flatten)]
    pub access: AccessSettings,
    #[command(flatten)]
    pub limits: LimitSettings,
    #[command(flatten)]
    pub observe: ObserveSettings,
}

/// What stands behind the API.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Backend")]
pub struct BackendSettings {
    /// URL of the queue that the workers read.
    #[arg(long, env = "SQS_QUEUE_URL", value_name = "URL", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub sqs_queue_url: String,
    /// URL of a second queue, for the jobs of batches, which single jobs then do not wait behind. Give the workers the
    /// same first.
    #[arg(long, env = "SQS_BATCH_QUEUE_URL", value_name = "URL")]
    pub sqs_batch_queue_url: Option<String>,
    /// URL of the webhook queue: a cancel is told there too. Without it nothing is.
    #[arg(long, env = "SQS_WEBHOOK_QUEUE_URL", value_name = "URL")]
    pub sqs_webhook_queue_url: Option<String>,
    /// How long the queue keeps a message: a job without a record that is older reads as expired.
    #[arg(long, env = "QUEUE_RETENTION_DAYS", default_value_t = 4, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=14))]
    pub queue_retention_days: u32,
    /// Promise: a picture within so many seconds. With it pending jobs tell in how many they will be done, from the depth of
    /// the queue, and `Retry-After` follows.
    #[arg(long, env = "PICTURE_WITHIN_SECONDS", value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(2..=86_400))]
    pub picture_within_seconds: Option<u32>,
    /// Bucket of the records.
    #[arg(long, env = "S3_BUCKET_NAME", value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub s3_bucket_name: String,
    /// Where clients fetch pictures: a host (read as https) or scheme, host and optional port.
    #[arg(long, env = "CLOUDFRONT_DOMAIN", value_name = "HOST|ORIGIN")]
    pub cloudfront_domain: Origin,
}

impl BackendSettings {
    /// Returns the URL of the queue of batches; an empty one, which compose files write, is none.
    pub fn batch_queue_url(&self) -> Option<&str> {
        self.sqs_batch_queue_url.as_deref().filter(|url| !url.is_empty())
    }

    /// Returns the URL of the webhook queue; an empty one is none.
    pub fn webhook_queue_url(&self) -> Option<&str> {
        self.sqs_webhook_queue_url.as_deref().filter(|url| !url.is_empty())
    }
}

/// Who may call, and what makes ids unforgeable.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Access")]
pub struct AccessSettings {
    /// Comma-separated tenant:key pairs, keys of at least 16 characters. A tenant may have several, so that a key can
    /// be rotated.
    #[arg(long, env = "API_KEYS", value_name = "TENANT:KEY,..", hide_env_values = true)]
    pub api_keys: SecretText,
    /// Comma-separated secrets of at least 32 characters that sign job ids, newest first.
    #[arg(long, env = "JOB_ID_KEYS", value_name = "SECRET,..", hide_env_values = true)]
    pub job_id_keys: SecretText,
}

/// How much one tenant, and one request, may take.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitSettings {
    /// Jobs a tenant may submit per minute, on this process.
    #[arg(long, env = "JOBS_PER_MINUTE", default_value_t = nonzero(600), value_name = "JOBS")]
    pub jobs_per_minute: NonZeroU32,
    /// Jobs a tenant may submit at once after a pause; a batch of n takes n.
    #[arg(long, env = "JOBS_BURST", default_value_t = nonzero(200), value_name = "JOBS")]
    pub jobs_burst: NonZeroU32,
    /// Status reads and cancels a tenant may send per minute, on this process; all of them may come at once.
    #[arg(long, env = "POLLS_PER_MINUTE", default_value_t = nonzero(12_000), value_name = "REQUESTS")]
    pub polls_per_minute: NonZeroU32,
    /// Largest body of one job. A batch may have 32 times as much.
    #[arg(long, env = "BODY_LIMIT_BYTES", default_value_t = 262_144, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1024..=1_048_576))]
    pub body_limit_bytes: u32,
    /// Requests that may wait for their job at a time (`Prefer: wait`); beyond that they are answered at once.
    #[arg(long, env = "MAX_WAITERS", default_value_t = 1000, value_name = "REQUESTS", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub max_waiters: u32,
    /// Streams of events that may be open at a time; beyond that each has the state of its job and ends.
    #[arg(long, env = "MAX_STREAMS", default_value_t = 1000, value_name = "STREAMS", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub max_streams: u32,
}

/// The settings cannot be used. The message never contains a secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidSettings {
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    #[error("API_KEYS: {0}")]
    ApiKeys(#[from] InvalidApiKeys),
    #[error("JOB_ID_KEYS: {0}")]
    JobIdKeys(#[from] InvalidIdKeys),
}

/// The secrets among the settings, parsed.
#[derive(Debug, Clone)]
pub struct Secrets {
    pub api_keys: ApiKeys,
    pub job_id_keys: IdKeys,
}

impl ApiSettings {
    /// Checks what clap cannot: the secrets, and settings that cannot both hold.
    ///
    /// # Errors
    /// When a list of secrets cannot be used or two settings contradict each other.
    pub fn validate(&self) -> Result<Secrets, InvalidSettings> {
        let api_keys: ApiKeys = self.access.api_keys.0.parse()?;
        let job_id_keys: IdKeys = self.access.job_id_keys.0.parse()?;
        let same_port = self.listen_addr == self.observe.admin_addr && self.listen_addr.port() != 0;
        Contradiction::unless(!same_port, "LISTEN_ADDR", "ADMIN_ADDR", || {
            format!("both are {}: the admin port must not be public, give it an address of its own", self.listen_addr)
        })?;
        let shared_secret = self.access.job_id_keys.0.split(',').any(|secret| api_keys.contains_key(secret.trim()));
        Contradiction::unless(!shared_secret, "JOB_ID_KEYS", "API_KEYS", || {
            "they share a secret, so a client could forge job ids: make new secrets for JOB_ID_KEYS".to_owned()
        })?;
        Contradiction::unless(
            self.limits.polls_per_minute >= self.limits.jobs_per_minute,
            "POLLS_PER_MINUTE",
            "JOBS_PER_MINUTE",
            || format!("every job needs a poll: raise POLLS_PER_MINUTE to at least {}", self.limits.jobs_per_minute),
        )?;
        let same_queue = self.backend.batch_queue_url() == Some(&self.backend.sqs_queue_url);
        Contradiction::unless(!same_queue, "SQS_BATCH_QUEUE_URL", "SQS_QUEUE_URL", || {
            "both are the same queue: batches need one of their own".to_owned()
        })?;
        let of_jobs = [Some(self.backend.sqs_queue_url.as_str()), self.backend.batch_queue_url()];
        let mixed = self.backend.webhook_queue_url().is_some_and(|url| of_jobs.contains(&Some(url)));
        Contradiction::unless(!mixed, "SQS_WEBHOOK_QUEUE_URL", "SQS_QUEUE_URL", || {
            "notices in a queue of jobs would be dead letters: they need a queue of their own".to_owned()
        })?;
        Ok(Secrets { api_keys, job_id_keys })
    }

    /// Returns how long requests in flight may finish after the signal.
    pub fn shutdown_grace(&self) -> Duration {
        Duration::from_secs(self.shutdown_grace_seconds)
    }
}

/// Text that is never printed: clap would repeat a rejected value in its message, so the text is parsed afterwards.
#[derive(Clone)]
pub struct SecretText(String);

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl SecretText {
    /// Returns the text, to be parsed.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

/// Scheme, host and optional port, without a trailing slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

/// The text is not an origin.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected a host, or http(s)://host[:port] without a path, user or query")]
pub struct InvalidOrigin;

impl Origin {
    /// Returns the URL of `path`, which carries no leading slash.
    pub fn join(&self, path: &str) -> String {
        format!("{}/{path}", self.0)
    }
}

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let uri: axum::http::Uri = with_scheme.parse().map_err(|_| InvalidOrigin)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(InvalidOrigin) };
        let plain = uri.path() == "/" && uri.query().is_none() && !authority.as_str().contains('@');
        if !plain || !matches!(scheme, "http" | "https") || authority.host().is_empty() || text.contains('#') {
            return Err(InvalidOrigin);
        }
        Ok(Self(format!("{scheme}://{authority}")))
    }
}

fn nonzero(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).expect("defaults are not zero")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn settings(more: &[&str]) -> ApiSettings {
        let base = [
            "image-api",
            "--sqs-queue-url=http://127.0.0.1:1/q",
            "--s3-bucket-name=images",
            "--cloudfront-domain=cdn.example.com",
            "--api-keys=north:0123456789abcdef",
            "--job-id-keys=test-secret-test-secret-test-secret",
        ];
        let overridden = |arg: &&str| !more.iter().any(|m| m.split('=').next() == arg.split('=').next());
        ApiSettings::try_parse_from(base.into_iter().filter(overridden).chain(more.iter().copied())).unwrap()
    }

    #[test]
    fn help_is_the_configuration_reference() {
        let command = ApiSettings::command().term_width(100).mut_args(|arg| arg.hide_env_values(true));
        insta::assert_snapshot!(command.clone().render_long_help());
    }

    #[test]
    fn defaults_hold_together() {
        assert!(settings(&[]).validate().is_ok());
    }

    #[test]
    fn contradictions_name_both_settings() {
        let message = |more: &[&str]| settings(more).validate().unwrap_err().to_string();
        insta::assert_snapshot!(message(&["--listen-addr=127.0.0.1:9000", "--admin-addr=127.0.0.1:9000"]), @"LISTEN_ADDR contradicts ADMIN_ADDR: both are 127.0.0.1:9000: the admin port must not be public, give it an address of its own");
        insta::assert_snapshot!(message(&["--jobs-per-minute=60", "--polls-per-minute=59"]), @"POLLS_PER_MINUTE contradicts JOBS_PER_MINUTE: every job needs a poll: raise POLLS_PER_MINUTE to at least 60");
        insta::assert_snapshot!(message(&["--sqs-queue-url=http://q", "--sqs-batch-queue-url=http://q"]), @"SQS_BATCH_QUEUE_URL contradicts SQS_QUEUE_URL: both are the same queue: batches need one of their own");
        insta::assert_snapshot!(message(&["--sqs-queue-url=http://q", "--sqs-webhook-queue-url=http://q"]), @"SQS_WEBHOOK_QUEUE_URL contradicts SQS_QUEUE_URL: notices in a queue of jobs would be dead letters: they need a queue of their own");
        let shared = "one-secret-for-both-uses-one-secret";
        let message = message(&[&format!("--api-keys=north:{shared}"), &format!("--job-id-keys={shared}")]);
        insta::assert_snapshot!(message, @"JOB_ID_KEYS contradicts API_KEYS: they share a secret, so a client could forge job ids: make new secrets for JOB_ID_KEYS");
    }

    #[test]
    fn bad_secrets_are_named_and_not_shown() {
        let error = settings(&["--api-keys=north:tooshort"]).validate().unwrap_err().to_string();
        assert!(error.starts_with("API_KEYS: "), "{error}");
        assert!(!error.contains("tooshort"), "{error}");
        let error = settings(&["--job-id-keys=tooshort"]).validate().unwrap_err().to_string();
        assert!(error.starts_with("JOB_ID_KEYS: "), "{error}");
        assert!(!format!("{:?}", settings(&[])).contains("0123456789abcdef"));
    }

    #[test]
    fn origins_are_hosts_or_plain_urls() {
        for (text, expected) in [
            ("d111.cloudfront.net", "https://d111.cloudfront.net/images/x"),
            ("http://127.0.0.1:8090", "http://127.0.0.1:8090/images/x"),
            ("https://cdn.example.com/", "https://cdn.example.com/images/x"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().join("images/x"), expected);
        }
        for bad in ["", "ftp://host", "https://host/path", "https://user@host", "host?x=1", "https://", "a b", "h#x"] {
            assert_eq!(bad.parse::<Origin>(), Err(InvalidOrigin), "{bad:?}");
        }
    }
}
