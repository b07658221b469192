//! `JobQueue`: where accepted jobs go; `SqsQueue` is the SQS behind it.

use std::error::Error as StdError;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::QueueAttributeName::{
    ApproximateNumberOfMessages as Waiting, ApproximateNumberOfMessagesNotVisible as InFlight,
};
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use job::{Job, JobId, Notice, TenantId};
use service::batching::{BatchCall, Batching, Limits, NoOutcome};
use service::{detail, traces};
use thiserror::Error;
use tracing::{Instrument, Span};

use crate::metrics::{self, Enqueued, Sending};
use crate::problem::{Code, Problem};

/// Entries SQS takes in one `SendMessageBatch`.
pub const MAX_BATCH_ENTRIES: usize = 10;

/// Bytes of all bodies in one `SendMessageBatch`, and in one message: what our queue is created with. AWS takes four times
/// as much in a batch, emulators do not.
pub const MAX_BATCH_BYTES: usize = 262_144;

/// Ten entries each, so 320 jobs are being sent at most; with an SQS that takes 20 ms, 16 000 a second.
const CALLS_UNDER_WAY: usize = 32;

/// Jobs that wait for a call: more only come when SQS hangs, and then they would time out in here.
const MAX_WAITING: usize = 2000;

/// Above what SQS usually takes, so that calls are shared; far below what a client notices, so that one call that hangs
/// delays nobody else.
const PATIENCE: Duration = Duration::from_millis(25);

/// Takes jobs. Whatever has not answered `Ok` has not been accepted, as far as a client may know.
#[async_trait]
pub trait JobQueue: Send + Sync {
    /// Puts one job into the queue.
    ///
    /// # Errors
    /// When the queue has not confirmed it.
    async fn enqueue(&self, job: &Job) -> Result<(), QueueError>;

    /// Puts the jobs of a batch into the queue, the one of batches where there is one, and returns one result for each, in
    /// their order.
    async fn enqueue_batch(&self, jobs: &[Job]) -> Vec<Result<(), QueueError>>;

    /// Tells the webhook queue that a job has ended; where there is none, nothing.
    ///
    /// # Errors
    /// When the queue has not confirmed it.
    async fn tell(&self, _notice: &Notice) -> Result<(), QueueError> {
        Ok(())
    }

    /// Returns how much is in the queue; None where there is no one queue that a job waits in.
    ///
    /// # Errors
    /// When the queue cannot be asked.
    async fn depth(&self) -> Result<Option<Depth>, QueueError> {
        Ok(None)
    }
}

/// How much is in a queue. SQS says that its counts are approximate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Jobs that a worker could receive now.
    pub waiting: u64,
    /// Jobs that workers hold.
    pub in_flight: u64,
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
    /// Too many jobs of this process wait for it.
    #[error("too many jobs wait to be sent")]
    Backlogged,
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
            Self::Throttled(_) | Self::Backlogged => 2,
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

impl From<NoOutcome> for QueueError {
    fn from(none: NoOutcome) -> Self {
        match none {
            NoOutcome::Full => Self::Backlogged,
            NoOutcome::Lost => Self::Unavailable(none.to_string()),
        }
    }
}

/// An SQS standard queue, or two; the tenant is the `MessageGroupId` of every message, which makes it a fair one.
///
/// Jobs that come while a call is under way share the next one, whichever request they are from (docs/adr/0017).
pub struct SqsQueue {
    client: Client,
    queue_url: String,
    sends: Batching<SendMessageBatch>,
    /// Of batches, where they have a queue of their own (docs/adr/0025).
    batch_sends: Option<Batching<SendMessageBatch>>,
    /// Of notices, where there are webhooks (docs/adr/0023).
    webhook_queue_url: Option<String>,
}

impl SqsQueue {
    /// Makes the adapter; without `batch_queue_url` everything goes into the one queue.
    pub fn new(client: Client, queue_url: String, batch_queue_url: Option<String>) -> Self {
        let limits = Limits {
            entries: MAX_BATCH_ENTRIES,
            weight: MAX_BATCH_BYTES,
            calls: CALLS_UNDER_WAY,
            waiting: MAX_WAITING,
            patience: PATIENCE,
        };
        let sends = |queue_url| Batching::new(SendMessageBatch { client: client.clone(), queue_url }, limits);
        let (sends, batch_sends) = (sends(queue_url.clone()), batch_queue_url.map(sends));
        Self { client, queue_url, sends, batch_sends, webhook_queue_url: None }
    }

    /// Adds the queue that notices of ended jobs go to.
    #[must_use]
    pub fn with_webhooks(self, webhook_queue_url: Option<String>) -> Self {
        Self { webhook_queue_url, ..self }
    }

    /// Waits until no call is under way, also of those that no request waits for any more.
    pub async fn drained(&self) {
        self.sends.drained().await;
        if let Some(sends) = &self.batch_sends {
            sends.drained().await;
        }
    }
}

#[async_trait]
impl JobQueue for SqsQueue {
    async fn enqueue(&self, job: &Job) -> Result<(), QueueError> {
        let _sending = Sending::begin(1);
        let span = enqueue_span(1);
        self.sends.ask(Entry::new(job, &span)).instrument(span).await?
    }

    async fn enqueue_batch(&self, jobs: &[Job]) -> Vec<Result<(), QueueError>> {
        let _sending = Sending::begin(jobs.len());
        let span = enqueue_span(jobs.len());
        let entries = jobs.iter().map(|job| Entry::new(job, &span)).collect();
        let sends = self.batch_sends.as_ref().unwrap_or(&self.sends);
        let outcomes = sends.ask_all(entries).instrument(span).await;
        outcomes.into_iter().map(|outcome| outcome?).collect()
    }

    async fn tell(&self, notice: &Notice) -> Result<(), QueueError> {
        let Some(url) = &self.webhook_queue_url else { return Ok(()) };
        // Cancels are rare: a call for each.
        let request = self.client.send_message().queue_url(url).message_body(notice.encode());
        let sent = request.message_group_id(notice.tenant.as_str()).send().await;
        sent.map(drop).map_err(|error| queue_error(&error))
    }

    async fn depth(&self) -> Result<Option<Depth>, QueueError> {
        // An id does not tell of which lane its job is.
        if self.batch_sends.is_some() {
            return Ok(None);
        }
        let names = [Waiting, InFlight];
        let request = self.client.get_queue_attributes().queue_url(&self.queue_url);
        let answer = request.set_attribute_names(Some(names.to_vec())).send().await.map_err(|e| queue_error(&e))?;
        let attributes = answer.attributes.unwrap_or_default();
        let [waiting, in_flight] =
            names.map(|name| attributes.get(&name).and_then(|text| text.parse().ok()).unwrap_or_default());
        Ok(Some(Depth { waiting, in_flight }))
    }
}

/// One message, and what is told of it when its request has gone.
struct Entry {
    body: String,
    tenant: TenantId,
    job_id: JobId,
    /// Names the span of its request; none where nobody exports.
    traceparent: Option<String>,
}

impl Entry {
    fn new(job: &Job, span: &Span) -> Self {
        let traceparent = traces::traceparent(span);
        Self { body: job.encode(), tenant: job.tenant.clone(), job_id: job.id, traceparent }
    }
}

struct SendMessageBatch {
    client: Client,
    queue_url: String,
}

#[async_trait]
impl BatchCall for SendMessageBatch {
    type Entry = Entry;
    type Outcome = Result<(), QueueError>;

    fn weight(&self, entry: &Entry) -> usize {
        entry.body.len()
    }

    async fn call(&self, entries: &[Entry]) -> Vec<Self::Outcome> {
        let began = Instant::now();
        let results = self.send(entries).instrument(send_span(entries)).await;
        let failed = results.iter().filter(|result| result.is_err()).count();
        metrics::sent(entries.len(), failed, began.elapsed());
        results
    }

    fn unheard(&self, entry: &Entry, outcome: Option<Self::Outcome>) {
        // The request's own line says 499. What it cannot say: whether there is a job now that its client does not know.
        if outcome == Some(Ok(())) {
            metrics::enqueued(Enqueued::Unheard);
            tracing::info!(job.id = %entry.job_id, "job accepted, but its client had gone");
        }
    }
}

impl SendMessageBatch {
    async fn send(&self, entries: &[Entry]) -> Vec<Result<(), QueueError>> {
        let messages = entries.iter().enumerate().map(|(index, entry)| {
            SendMessageBatchRequestEntry::builder()
                .id(index.to_string())
                .message_body(&entry.body)
                .message_group_id(entry.tenant.as_str())
                .build()
                .expect("id and body are set")
        });
        let request = self.client.send_message_batch().queue_url(&self.queue_url);
        let output = match request.set_entries(Some(messages.collect())).send().await {
            Ok(output) => output,
            Err(error) => return vec![Err(queue_error(&error)); entries.len()],
        };
        // A 200 may carry refused entries, and an entry that is named nowhere was not confirmed.
        let unnamed = || Err(QueueError::Unavailable("the entry is missing in the answer".to_owned()));
        let mut results: Vec<_> = entries.iter().map(|_| unnamed()).collect();
        let position = |id: &str| id.parse::<usize>().ok().filter(|&index| index < entries.len());
        for entry in output.successful() {
            if let Some(index) = position(entry.id()) {
                results[index] = Ok(());
            }
        }
        for entry in output.failed() {
            if let Some(index) = position(entry.id()) {
                let detail = detail::bounded(format!("{}: {}", entry.code(), entry.message().unwrap_or("no message")));
                results[index] = Err(QueueError::from_code(entry.code(), detail));
            }
        }
        results
    }
}

/// What is exported of a request's jobs from being handed over until they are confirmed, named as OpenTelemetry's
/// conventions for messaging have it.
fn enqueue_span(messages: usize) -> Span {
    tracing::info_span!(
        target: traces::TARGET,
        "enqueue",
        otel.kind = "producer",
        messaging.system = "aws_sqs",
        messaging.operation.type = "send",
        messaging.batch.message_count = messages,
    )
}

/// What is exported of one call: a trace of its own, linked to every request whose jobs it carries.
fn send_span(entries: &[Entry]) -> Span {
    let span = tracing::info_span!(
        target: traces::TARGET,
        parent: None,
        "send batch",
        otel.kind = "client",
        messaging.system = "aws_sqs",
        messaging.operation.type = "send",
        messaging.batch.message_count = entries.len(),
    );
    let mut linked = None;
    for traceparent in entries.iter().filter_map(|entry| entry.traceparent.as_deref()) {
        // The jobs of one request are neighbours.
        if linked.replace(traceparent) != Some(traceparent) {
            traces::link(&span, traceparent);
        }
    }
    span
}

/// Without a code nothing answered, so it is the network, a timeout or our credentials.
pub(crate) fn queue_error<E: ProvideErrorMetadata + StdError + 'static>(error: &SdkError<E>) -> QueueError {
    let detail = detail::answer(error.code(), error.message(), error);
    match error.code() {
        Some(code) => QueueError::from_code(code, detail),
        None => QueueError::Unavailable(detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
