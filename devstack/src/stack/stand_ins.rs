//! Bedrock and `CloudFront` of the stack.

use std::io;

use super::ports::{Ports, chosen};

/// The two stand-ins, running.
#[derive(Debug)]
pub(super) struct StandIns {
    pub(super) bedrock_url: String,
    pub(super) cdn_url: String,
}

impl StandIns {
    /// Starts both. The CDN reads `bucket` through `s3`.
    ///
    // MERGE: the one place where `BedrockStandIn::start(loopback(ports.bedrock), bedrock_options)` and
    // `CdnStandIn::start(loopback(ports.cdn), CdnOptions { s3, bucket, .. })` are called; keep both in `Self`, take the
    // URLs from their `local_addr()` and stop them in `stop`.
    pub(super) async fn start(ports: &Ports, _s3: aws_sdk_s3::Client, _bucket: &str) -> io::Result<Self> {
        Ok(Self {
            bedrock_url: format!("http://127.0.0.1:{}", chosen(ports.bedrock)?),
            cdn_url: format!("http://127.0.0.1:{}", chosen(ports.cdn)?),
        })
    }

    pub(super) async fn stop(self) {}
}
