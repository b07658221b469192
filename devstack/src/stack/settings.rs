//! The variables that make the production binaries talk to this stack. There is no other switch.

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::Path;

use super::StackOptions;
use super::data_dir::{Endpoints, Secrets};
use super::provision::{LEASE_SECONDS, MAX_RECEIVE_COUNT};
use crate::embedded::{ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY};

/// The tenant that the development key belongs to.
pub const TENANT: &str = "dev";
/// Whom the portal knows from the start.
pub(crate) const FIRST_TEACHER: &str = "teacher@example.com";
/// The model that the Bedrock stand-in is asked for.
pub(crate) const MODEL: &str = "stability.stable-image-core-v1:1";
/// Variables of a developer's own AWS account: the stack must never reach it.
pub(crate) const FOREIGN: &[&str] = &[
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    "PUBLIC_URL",
    "TRUSTED_PROXIES",
    "SQS_BATCH_QUEUE_URL",
];

pub(crate) struct ChildSettings<'a> {
    pub(crate) endpoints: &'a Endpoints,
    pub(crate) secrets: &'a Secrets,
    pub(crate) options: &'a StackOptions,
}

impl ChildSettings<'_> {
    /// Returns what both binaries get, and then `own`.
    pub(crate) fn with_common(&self, admin: SocketAddr, own: Vec<(String, String)>) -> Vec<(String, String)> {
        let text = self.options.print && io::stdout().is_terminal();
        let mut env = pairs([
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID),
            ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY),
            ("AWS_REGION", REGION),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_CONFIG_FILE", "/dev/null"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
            ("AWS_ENDPOINT_URL_SQS", &self.endpoints.sqs_url),
            ("AWS_ENDPOINT_URL_S3", &self.endpoints.s3_url),
            ("SQS_QUEUE_URL", &self.endpoints.queue_url),
            ("S3_BUCKET_NAME", &self.endpoints.bucket),
            ("ADMIN_ADDR", &admin.to_string()),
            ("LOG_FORMAT", if text { "text" } else { "json" }),
            ("LOG_FILTER", &self.options.log_filter),
        ]);
        if let Some(url) = &self.endpoints.batch_queue_url {
            env.extend(pairs([("SQS_BATCH_QUEUE_URL", url)]));
        }
        env.extend(own);
        env
    }

    /// Returns what the API alone gets.
    pub(crate) fn api(&self, listen: SocketAddr) -> Vec<(String, String)> {
        pairs([
            ("LISTEN_ADDR", &listen.to_string()),
            ("CLOUDFRONT_DOMAIN", &self.endpoints.cdn_url),
            ("JOB_ID_KEYS", &self.secrets.job_id_key),
            ("API_KEYS", &format!("{TENANT}:{}", self.secrets.api_key)),
        ])
    }

    /// Returns what the portal gets.
    pub(crate) fn portal(&self, listen: SocketAddr, database: &Path) -> Vec<(String, String)> {
        let text = self.options.print && io::stdout().is_terminal();
        pairs([
            ("LISTEN_ADDR", &listen.to_string()),
            ("DATABASE_URL", &format!("sqlite://{}", database.display())),
            ("API_URL", &self.endpoints.api_url),
            ("API_KEY", &self.secrets.api_key),
            ("CLOUDFRONT_DOMAIN", &self.endpoints.cdn_url),
            ("FIRST_TEACHER_EMAIL", FIRST_TEACHER),
            ("FIRST_TEACHER_PASSWORD", &self.secrets.portal_password),
            ("FIRST_CLASS_CODE", &self.secrets.class_code),
            ("LOG_FORMAT", if text { "text" } else { "json" }),
            ("LOG_FILTER", &self.options.log_filter),
        ])
    }

    /// Returns what a worker alone gets.
    pub(crate) fn worker(&self) -> Vec<(String, String)> {
        pairs([
            ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", self.endpoints.bedrock_url.as_str()),
            ("AWS_ENDPOINT_URL_BEDROCK", self.endpoints.bedrock_url.as_str()),
            ("BEDROCK_MODEL_ID", MODEL),
            ("BEDROCK_REGION", REGION),
            ("MAX_RECEIVE_COUNT", &MAX_RECEIVE_COUNT.to_string()),
            ("LEASE_SECONDS", &LEASE_SECONDS.to_string()),
            // The long poll is awaited at a stop, and people press Ctrl-C more often than systemd does.
            ("RECEIVE_WAIT_SECONDS", "2"),
            ("MODEL_TIMEOUT_SECONDS", "30"),
            ("ATTEMPT_TIMEOUT_SECONDS", "100"),
            ("SHUTDOWN_GRACE_SECONDS", "35"),
        ])
    }
}

fn pairs<const N: usize>(env: [(&str, &str); N]) -> Vec<(String, String)> {
    env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
