//! `WebhookSettings`: every flag and environment variable of `image-api webhooks`.

use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgAction, Parser};
use service::settings::ObserveSettings;
use thiserror::Error;

use super::receivers::{InvalidReceivers, Receivers};
use crate::settings::{Origin, SecretText};

/// Delivers webhooks: takes notices of ended jobs from the webhook queue and tells the receivers of their tenants.
///
/// A process of its own, beside any number of others: the queue shares the notices out. Nothing in a request says where a
/// webhook goes, `WEBHOOKS` alone does.
#[derive(Debug, Clone, Parser)]
#[command(name = "image-api webhooks", version, max_term_width = 100)]
pub struct WebhookSettings {
    /// URL of the webhook queue, into which workers, reconciler and API put their notices.
    #[arg(long, env = "SQS_WEBHOOK_QUEUE_URL", value_name = "URL", value_parser = NonEmptyStringValueParser::new())]
    pub sqs_webhook_queue_url: String,
    /// Bucket of the records.
    #[arg(long, env = "S3_BUCKET_NAME", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub s3_bucket_name: String,
    /// Where clients fetch pictures: a host (read as https) or scheme, host and optional port.
    #[arg(long, env = "CLOUDFRONT_DOMAIN", value_name = "HOST|ORIGIN")]
    pub cloudfront_domain: Origin,
    /// Origin under which clients reach the API. Without it the URLs in webhooks are relative.
    #[arg(long, env = "PUBLIC_BASE_URL", value_name = "ORIGIN")]
    pub public_base_url: Option<Origin>,
    /// JSON: for each tenant its `url` and its `secrets`, `whsec_` and the base64 of 24 to 64 bytes each, newest first. Each
    /// secret signs, so that one can be rotated.
    #[arg(long, env = "WEBHOOKS", value_name = "JSON", hide_env_values = true)]
    pub webhooks: SecretText,
    /// Allow http, and receivers at addresses that are not public. For a laptop: elsewhere it lets whoever owns the name of a
    /// receiver reach the network of this process.
    #[arg(long, env = "WEBHOOK_ALLOW_PRIVATE", default_value_t = false, action = ArgAction::Set, value_name = "BOOL")]
    pub webhook_allow_private: bool,
    /// How long the job queue keeps a message, as the API has it.
    #[arg(long, env = "QUEUE_RETENTION_DAYS", default_value_t = 4, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=14))]
    pub queue_retention_days: u32,
    /// Time that tries under way get to end after SIGTERM, beyond the long poll of 10 s.
    #[arg(long, env = "SHUTDOWN_GRACE_SECONDS", default_value_t = 25, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub shutdown_grace_seconds: u64,
    #[command(flatten)]
    pub observe: ObserveSettings,
}

/// The settings cannot be used. The message never contains a secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("WEBHOOKS: {0}")]
pub struct InvalidWebhooks(#[from] InvalidReceivers);

impl WebhookSettings {
    /// Reads the receivers.
    ///
    /// # Errors
    /// When the list cannot be used.
    pub fn validate(&self) -> Result<Receivers, InvalidWebhooks> {
        Ok(Receivers::parse(self.webhooks.as_str(), self.webhook_allow_private)?)
    }

    /// Returns how long the job queue keeps a message.
    pub fn retention(&self) -> Duration {
        Duration::from_secs(u64::from(self.queue_retention_days) * 24 * 60 * 60)
    }

    /// Returns how long tries under way may last after the signal.
    pub fn shutdown_grace(&self) -> Duration {
        Duration::from_secs(self.shutdown_grace_seconds)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn settings(webhooks: &str, more: &[&str]) -> WebhookSettings {
        let webhooks = format!("--webhooks={webhooks}");
        let base = ["image-api webhooks", "--sqs-webhook-queue-url=http://q", "--s3-bucket-name=b", &webhooks];
        let base = base.into_iter().chain(["--cloudfront-domain=cdn.example.com"]);
        WebhookSettings::try_parse_from(base.chain(more.iter().copied())).unwrap()
    }

    #[test]
    fn help_is_the_configuration_reference() {
        let command = WebhookSettings::command().term_width(100).mut_args(|arg| arg.hide_env_values(true));
        insta::assert_snapshot!(command.clone().render_long_help());
    }

    #[test]
    fn a_bad_list_is_named_and_not_shown() {
        let error =
            settings(r#"{"north": {"url": "https://h/", "secrets": ["whsec_fox"]}}"#, &[]).validate().unwrap_err();
        assert!(error.to_string().starts_with("WEBHOOKS: secret number 1 of tenant north"), "{error}");
        assert!(!error.to_string().contains("fox"), "{error}");
        assert!(!format!("{:?}", settings(r#"{"fox": 1}"#, &[])).contains("fox"));
    }

    #[test]
    fn private_receivers_need_a_setting_of_their_own() {
        let local =
            r#"{"north": {"url": "http://127.0.0.1:1/", "secrets": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]}}"#;
        assert!(settings(local, &[]).validate().is_err());
        assert_eq!(settings(local, &["--webhook-allow-private=true"]).validate().unwrap().count(), 1);
    }
}
