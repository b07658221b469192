//! The queues of both lanes, their dead-letter queue and the bucket, as Terraform makes them on AWS.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use aws_sdk_s3::error::{DisplayErrorContext, SdkError};
use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};
use aws_sdk_sqs::types::QueueAttributeName;
use clap::Args;
use service::readiness::Readiness;
use service::settings::DEFAULT_ADMIN_ADDR;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::embedded::REGION;

/// Name of the queue.
pub const QUEUE: &str = "image-jobs";
/// Name of the queue of batches, for a fleet with two lanes.
pub const BATCH_QUEUE: &str = "image-batches";
/// Name of the dead-letter queue.
pub const DEAD_LETTER_QUEUE: &str = "image-jobs-dead-letter";
/// Name of the webhook queue.
pub const WEBHOOK_QUEUE: &str = "image-webhooks";
/// Name of its dead-letter queue.
pub const WEBHOOK_DEAD_LETTER_QUEUE: &str = "image-webhooks-dead-letter";
/// Name of the bucket.
pub const BUCKET: &str = "education-portal-images-local";
/// How often a job is handed over before it is moved to the dead-letter queue.
pub const MAX_RECEIVE_COUNT: u32 = 5;
/// The queue's visibility timeout and the workers' lease.
pub const LEASE_SECONDS: u32 = 60;

/// How often [`keep`] looks: an emulator that came back empty is of use again within this time.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Settings of `cargo dev provision`.
#[derive(Debug, Clone, Args)]
pub struct ProvisionArgs {
    /// Address of the admin port; /ready once everything is there. Port 0 takes a free one.
    #[arg(long, env = "ADMIN_ADDR", default_value = DEFAULT_ADMIN_ADDR, value_name = "HOST:PORT")]
    pub admin_addr: SocketAddr,
}

/// A queue or the bucket could not be made.
#[derive(Debug, Error)]
#[error("{what} cannot be created: {reason}")]
pub struct ProvisionError {
    what: &'static str,
    reason: String,
}

/// URLs of the queues.
#[derive(Debug, Clone)]
pub struct Queues {
    pub queue_url: String,
    /// Of the second lane.
    pub batch_url: String,
    /// Of both lanes: a dead letter tells from which queue it came.
    pub dead_letter_url: String,
    /// Of notices that a job has ended.
    pub webhook_url: String,
}

/// The longest there is: a message keeps its age when it is moved, so this must be more than the job queue's 4 days.
const DEAD_LETTER_RETENTION_SECONDS: u32 = 14 * 24 * 3600;

/// Creates the queues; they may exist already.
///
/// # Errors
/// When SQS refuses, for instance because a queue exists with other attributes.
pub async fn queues(client: &aws_sdk_sqs::Client) -> Result<Queues, ProvisionError> {
    let (dead_letter_url, redrive) = dead_letters(client, DEAD_LETTER_QUEUE, MAX_RECEIVE_COUNT).await?;
    let lease = (QueueAttributeName::VisibilityTimeout, LEASE_SECONDS.to_string());
    let attributes = HashMap::from([redrive, lease.clone()]);
    let queue_url = queue(client, QUEUE, attributes.clone()).await?;
    let batch_url = queue(client, BATCH_QUEUE, attributes).await?;
    let (_, redrive) = dead_letters(client, WEBHOOK_DEAD_LETTER_QUEUE, api::webhooks::MAX_RECEIVE_COUNT).await?;
    let webhook_url = queue(client, WEBHOOK_QUEUE, HashMap::from([redrive, lease])).await?;
    Ok(Queues { queue_url, batch_url, dead_letter_url, webhook_url })
}

/// Creates a dead-letter queue, and returns its URL and what a queue needs that moves messages there.
async fn dead_letters(
    client: &aws_sdk_sqs::Client,
    name: &'static str,
    max_receive_count: u32,
) -> Result<(String, (QueueAttributeName, String)), ProvisionError> {
    let retention = (QueueAttributeName::MessageRetentionPeriod, DEAD_LETTER_RETENTION_SECONDS.to_string());
    let url = queue(client, name, HashMap::from([retention])).await?;
    let arn = client
        .get_queue_attributes()
        .queue_url(&url)
        .attribute_names(QueueAttributeName::QueueArn)
        .send()
        .await
        .map_err(|error| failed(name, &error))?
        .attributes
        .and_then(|attributes| attributes.get(&QueueAttributeName::QueueArn).cloned())
        .unwrap_or_default();
    let redrive = serde_json::json!({ "deadLetterTargetArn": arn, "maxReceiveCount": max_receive_count });
    Ok((url, (QueueAttributeName::RedrivePolicy, redrive.to_string())))
}

async fn queue(
    client: &aws_sdk_sqs::Client,
    name: &'static str,
    attributes: HashMap<QueueAttributeName, String>,
) -> Result<String, ProvisionError> {
    let request = client.create_queue().queue_name(name).set_attributes(Some(attributes));
    let output = request.send().await.map_err(|error| failed(name, &error))?;
    output.queue_url.ok_or(ProvisionError { what: name, reason: "the answer has no queue URL".to_owned() })
}

/// Creates the bucket; it may exist already.
///
/// # Errors
/// When S3 refuses.
pub async fn bucket(client: &aws_sdk_s3::Client) -> Result<(), ProvisionError> {
    // AWS refuses a bucket outside us-east-1 that does not name its region.
    let region = CreateBucketConfiguration::builder().location_constraint(BucketLocationConstraint::from(REGION));
    let request = client.create_bucket().bucket(BUCKET).create_bucket_configuration(region.build());
    match request.send().await {
        Err(SdkError::ServiceError(error)) if error.err().is_bucket_already_owned_by_you() => Ok(()),
        Err(error) => Err(failed(BUCKET, &error)),
        Ok(_) => Ok(()),
    }
}

/// Makes the queues and the bucket, and makes them again when they are gone, until `stopping`. `readiness` says whether
/// they are there; it begins with [`Readiness::starting`].
///
/// A single run would be over before an emulator that was killed comes back with nothing.
pub async fn keep(
    sqs: &aws_sdk_sqs::Client,
    s3: &aws_sdk_s3::Client,
    readiness: &Readiness,
    stopping: &CancellationToken,
) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut are_there = false;
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = stopping.cancelled() => return,
        }
        let made = async {
            queues(sqs).await?;
            bucket(s3).await
        };
        match made.await {
            Ok(()) => {
                readiness.clear("starting");
                readiness.clear("provision");
                if !are_there {
                    tracing::info!(queue = QUEUE, bucket = BUCKET, "the queues and the bucket are there");
                }
                are_there = true;
            }
            Err(error) => {
                readiness.block("provision", error.to_string());
                tracing::warn!(%error, "trying again");
                are_there = false;
            }
        }
    }
}

fn failed(what: &'static str, error: &(dyn std::error::Error + 'static)) -> ProvisionError {
    ProvisionError { what, reason: DisplayErrorContext(error).to_string() }
}
