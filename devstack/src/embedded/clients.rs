//! SDK clients for the embedded services, and for others that take the same credentials.

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};

use super::{ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY};

/// Returns a configuration with the local credentials and region, and without an endpoint.
pub fn sdk_config() -> SdkConfig {
    let credentials = Credentials::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY, None, None, "devstack");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(REGION))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

/// Returns a client of the SQS at `url`.
pub fn sqs_client(url: &str) -> aws_sdk_sqs::Client {
    let config = aws_sdk_sqs::config::Builder::from(&sdk_config()).endpoint_url(url).build();
    aws_sdk_sqs::Client::from_conf(config)
}

/// Returns a client of the S3 at `url`, with path-style addresses.
pub fn s3_client(url: &str) -> aws_sdk_s3::Client {
    let config = aws_sdk_s3::config::Builder::from(&sdk_config()).endpoint_url(url).force_path_style(true).build();
    aws_sdk_s3::Client::from_conf(config)
}
