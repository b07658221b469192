//! `JobQueue`: where accepted jobs go; `SqsQueue` is the SQS behind it.

use std::error::Error as StdError;
use std::ops::Range;

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use futures::StreamExt;
use job::Job;
use service::{detail, traces};
use thiserror::Error;
use tracing::{Instrument, Span};

use crate::problem::{Code, Problem};

/// Entries SQS takes in one `SendMessageBatch`.
pub const MAX_BATCH_ENTRIES: usize = 10;

/// Bytes of all bodies SQS takes in one `SendMessageBatch`, and in one message: what our queue is created with.
pub const MAX_BATCH_BYTES: usize = 262_144;

/// `SendMessageBatch` calls of one request under way at a time.
const BATCHES_IN_FLIGHT: usize = 4;

/// Takes jobs. Whatever has not answered `Ok` has not been accepted, as far as a client may know.
#[async_trait]
pub trait JobQueue: Send + Sync {
    /// Puts one job into the queue.
    ///
    /// # Errors
    /// When the queue has not confirmed it.
    async fn enqueue(&self, job: &Job) -> Result<(), QueueError>;

    /// Puts jobs into the queue and returns one result for each, in their order.
    async fn enqueue_batch(&self, jobs: &[Job]) -> Vec<Result<(), QueueError>>;
}

/// The queue has not confirmed a job. The texts are for the log; they never contain a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QueueError {
    /// It asks us to slow down.
    #[error("queue is throttling: {0}")]
    Throttled(String),
    /// It cannot be reached, timed out or failed.
    #[error("queue is unavailable: {0}")]
    Unavailable(String),
    /// It does not exist or refuses us: an operator has to act.
    #[error("queue refuses us: {0}")]
    Misconfigured(String),
}

impl QueueError {
    fn from_code(code: &str, detail: String) -> Self {
        // The same fault has two spellings: query-compatible ones carry a prefix, see `x-amzn-query-error`.
        match code.rsplit('.').next().unwrap_or(code) {
            "RequestThrottled" | "ThrottlingException" | "Throttling" | "OverLimit" | "KmsThrottled" => {
                Self::Throttled(detail)
            }
            "NonExistentQueue"
            | "QueueDoesNotExist"
            | "InvalidAddress"
            | "AccessDenied"
            | "AccessDeniedException"
            | "InvalidSecurity"
            | "InvalidClientTokenId"
            | "UnrecognizedClientException"
            | "SignatureDoesNotMatch"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "InvalidMessageContents"
            | "InvalidParameterValue"
            | "InvalidParameterValueException"
            | "UnsupportedOperation"
            | "KmsAccessDenied"
            | "KmsDisabled"
            | "KmsNotFound"
            | "KmsInvalidState"
            | "KmsInvalidKeyUsage"
            | "KmsOptInRequired" => Self::Misconfigured(detail),
            _ => Self::Unavailable(detail),
        }
    }

    fn retry_after_seconds(&self) -> u64 {
        match self {
            Self::Throttled(_) => 2,
            Self::Unavailable(_) => 5,
            Self::Misconfigured(_) => 30,
        }
    }
}

impl From<QueueError> for Problem {
    fn from(error: QueueError) -> Self {
        Self::fault(Code::QueueUnavailable, error.to_string()).retry_after(error.retry_after_seconds())
    }
}

/// An SQS standard queue; the tenant is the `MessageGroupId` of every message, which makes it a fair one.
pub struct SqsQueue {
    client: Client,
    queue_url: String,
}

impl SqsQueue {
    pub fn new(client: Client, queue_url: String) -> Self {
        Self { client, queue_url }
    }

    async fn send_batch(&self, jobs: &[Job], bodies: &[String]) -> Vec<Result<(), QueueError>> {
        let entries = jobs.iter().zip(bodies).enumerate().map(|(index, (job, body))| {
            SendMessageBatchRequestEntry::builder()
                .id(index.to_string())
                .message_body(body)
                .message_group_id(job.tenant.as_str())
                .build()
                .expect("id and body are set")
        });
        let sent = self
            .client
            .send_message_batch()
            .queue_url(&self.queue_url)
            .set_entries(Some(entries.collect()))
            .send()
            .instrument(send_span(jobs.len()))
            .await;
        let output = match sent {
            Ok(output) => output,
            Err(error) => return vec![Err(queue_error(&error)); jobs.len()],
        };
        // A 200 may carry refused entries, and an entry that is named nowhere was not confirmed.
        let unnamed = || Err(QueueError::Unavailable("the entry is missing in the answer".to_owned()));
        let mut results: Vec<_> = jobs.iter().map(|_| unnamed()).collect();
        let position = |id: &str| id.parse::<usize>().ok().filter(|&index| index < jobs.len());
        for entry in output.successful() {
            if let Some(index) = position(entry.id()) {
                results[index] = Ok(());
            }
        }
        for entry in output.failed() {
            if let Some(index) = position(entry.id()) {
                let detail = format!("{}: {}", entry.code(), entry.message().unwrap_or("no message"));
                results[index] = Err(QueueError::from_code(entry.code(), detail));
            }
        }
        results
    }
}

#[async_trait]
impl JobQueue for SqsQueue {
    async fn enqueue(&self, job: &Job) -> Result<(), QueueError> {
        self.client
            .send_message()
            .queue_url(&self.queue_url)
            .message_body(job.encode())
            .message_group_id(job.tenant.as_str())
            .send()
            .instrument(send_span(1))
            .await
            .map(drop)
            .map_err(|error| queue_error(&error))
    }

    async fn enqueue_batch(&self, jobs: &[Job]) -> Vec<Result<(), QueueError>> {
        let bodies: Vec<String> = jobs.iter().map(Job::encode).collect();
        let sizes: Vec<usize> = bodies.iter().map(String::len).collect();
        let sends = chunks(&sizes).into_iter().map(|range| self.send_batch(&jobs[range.clone()], &bodies[range]));
        futures::stream::iter(sends).buffered(BATCHES_IN_FLIGHT).collect::<Vec<_>>().await.concat()
    }
}

/// What is exported of one call to SQS, named as OpenTelemetry's conventions for messaging have it.
fn send_span(messages: usize) -> Span {
    tracing::info_span!(
        target: traces::TARGET,
        "enqueue",
        otel.kind = "producer",
        messaging.system = "aws_sqs",
        messaging.operation.type = "send",
        messaging.batch.message_count = messages,
    )
}

/// Cuts a list of body sizes into consecutive ranges that SQS takes in one call each.
fn chunks(sizes: &[usize]) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, size) in sizes.iter().enumerate() {
        if index > start && (index - start == MAX_BATCH_ENTRIES || bytes + size > MAX_BATCH_BYTES) {
            ranges.push(start..index);
            (start, bytes) = (index, 0);
        }
        bytes += size;
    }
    if start < sizes.len() {
        ranges.push(start..sizes.len());
    }
    ranges
}

/// Without a code nothing answered, so it is the network, a timeout or our credentials.
fn queue_error<E: ProvideErrorMetadata + StdError + 'static>(error: &SdkError<E>) -> QueueError {
    let detail = detail::answer(error.code(), error.message(), error);
    match error.code() {
        Some(code) => QueueError::from_code(code, detail),
        None => QueueError::Unavailable(detail),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn chunks_hold_every_entry_once_within_both_limits(sizes in proptest::collection::vec(1usize..=100_000, 0..=100)) {
            let ranges = chunks(&sizes);
            let covered: Vec<usize> = ranges.iter().cloned().flatten().collect();
            prop_assert_eq!(covered, (0..sizes.len()).collect::<Vec<_>>());
            for range in ranges {
                prop_assert!(range.len() <= MAX_BATCH_ENTRIES);
                prop_assert!(sizes[range].iter().sum::<usize>() <= MAX_BATCH_BYTES);
            }
        }
    }

    #[test]
    fn chunks_are_as_few_as_the_limits_allow() {
        assert_eq!(chunks(&[100; 25]), [0..10, 10..20, 20..25]);
        assert_eq!(chunks(&[MAX_BATCH_BYTES / 2; 3]), [0..2, 2..3]);
        assert!(chunks(&[]).is_empty());
    }

    #[test]
    fn both_spellings_of_a_code_mean_the_same() {
        for code in ["AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "AccessDenied"] {
            assert!(matches!(QueueError::from_code(code, String::new()), QueueError::Misconfigured(_)), "{code}");
        }
        for code in ["RequestThrottled", "AWS.SimpleQueueService.OverLimit", "KMS.KmsThrottled", "KmsThrottled"] {
            let expected = matches!(QueueError::from_code(code, String::new()), QueueError::Throttled(_));
            assert!(expected, "{code}");
        }
        assert!(matches!(QueueError::from_code("InternalFailure", String::new()), QueueError::Unavailable(_)));
    }
}
