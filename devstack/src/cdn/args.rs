//! Command line of the CDN stand-in.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use super::origin::S3Origin;
use super::{CdnOptions, DEFAULT_MAX_BYTES, DEFAULT_TTL_SECONDS};

/// Settings of `cargo dev cdn`.
#[derive(Debug, Clone, Args)]
pub struct CdnArgs {
    /// Address to listen on. Port 0 takes a free one.
    #[arg(long, env = "CDN_STANDIN_ADDR", default_value = "127.0.0.1:4802", value_name = "HOST:PORT")]
    pub addr: SocketAddr,
    /// Bucket whose `images/` are served.
    #[arg(long, env = "BUCKET", value_name = "BUCKET")]
    pub bucket: String,
    /// How long an error is cached, in seconds. The service's own default is 10, ours (as in Terraform) is 0.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub error_caching_min_ttl: u64,
    /// How long an object without Cache-Control is cached.
    #[arg(long, default_value_t = DEFAULT_TTL_SECONDS, value_name = "SECONDS")]
    pub default_ttl: u64,
    /// Bound of the cache.
    #[arg(long, default_value_t = DEFAULT_MAX_BYTES, value_name = "BYTES")]
    pub max_bytes: usize,
}

impl CdnArgs {
    /// Turns the command line into options; `client` reads the bucket.
    pub fn options(&self, client: aws_sdk_s3::Client) -> CdnOptions {
        CdnOptions {
            error_caching_min_ttl: Duration::from_secs(self.error_caching_min_ttl),
            default_ttl: Duration::from_secs(self.default_ttl),
            max_bytes: self.max_bytes,
            ..CdnOptions::new(S3Origin::new(client, &self.bucket))
        }
    }
}
