//! The shared part of every AWS client: credentials, region, connection pool.
//!
//! Endpoints come from the SDK's own variables (`AWS_ENDPOINT_URL_SQS`, `AWS_ENDPOINT_URL_S3`, ...): nothing here knows
//! whether it talks to AWS or to an emulator.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_http_client::tls;

/// S3 closes idle connections at about 20 s; a pooled connection that died between two long model calls would stall
/// the next upload (awslabs/aws-sdk-rust#1417).
pub const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// Time to open a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Loads the environment's configuration with our connection pool. Clients made from it must set their own timeouts
/// with [`timeouts`]: the SDK's default has no read, attempt or operation timeout at all.
pub async fn load_config() -> SdkConfig {
    let http_client = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc))
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .build_https();
    aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http_client).load().await
}

/// Returns the timeouts of one kind of call: `attempt` bounds one HTTP exchange, `operation` all of them together.
pub fn timeouts(attempt: Duration, operation: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(attempt)
        .operation_attempt_timeout(attempt)
        .operation_timeout(operation)
        .build()
}

/// Returns the SDK's retries within a call. The backoff is spelled out so that a new SDK default does not change it.
pub fn retries(max_attempts: u32) -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(max_attempts)
        .with_initial_backoff(Duration::from_millis(200))
        .with_max_backoff(Duration::from_secs(5))
}

/// Returns whether S3 is reached through an endpoint of its own instead of AWS's.
///
/// Such a host (an emulator, an
/// S3-compatible store) rarely resolves `bucket.host`, so the client must then use path-style addresses; the SDK does
/// that by itself for IP addresses only, and has no variable for it.
pub fn s3_needs_path_style(config: &SdkConfig) -> bool {
    #[expect(clippy::disallowed_methods, reason = "reads the SDK's own setting, which SdkConfig does not expose")]
    let own_endpoint = std::env::var_os("AWS_ENDPOINT_URL_S3").is_some();
    own_endpoint || config.endpoint_url().is_some()
}
