//! Bedrock and `CloudFront` of the stack.

use std::io;

use super::ports::{Ports, loopback};
use crate::bedrock::{BedrockOptions, BedrockStandIn};
use crate::cdn::{CdnOptions, CdnStandIn, S3Origin};

/// The two stand-ins, running.
#[derive(Debug)]
pub(super) struct StandIns {
    pub(super) bedrock: BedrockStandIn,
    pub(super) cdn: CdnStandIn,
}

impl StandIns {
    /// Starts both. The CDN reads `bucket` through `s3`.
    pub(super) async fn start(
        ports: &Ports,
        options: BedrockOptions,
        s3: aws_sdk_s3::Client,
        bucket: &str,
    ) -> io::Result<Self> {
        let bedrock = BedrockStandIn::start(loopback(ports.bedrock), options).await?;
        let cdn = CdnStandIn::start(loopback(ports.cdn), CdnOptions::new(S3Origin::new(s3, bucket))).await?;
        Ok(Self { bedrock, cdn })
    }

    pub(super) async fn stop(self) {
        self.cdn.stop().await;
        self.bedrock.stop().await;
    }
}
