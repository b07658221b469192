//! The port to the job queue, and its SQS adapter.

mod calls;

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName, QueueAttributeName};
use jiff::Timestamp;
use job::TenantId;
use service::batching::{Batching, Limits};
use thiserror::Error;

use calls::{ChangeMessageVisibilityBatch, DeleteMessageBatch, Put, SendMessageBatch};

use crate::lane::Entrance;

/// SQS hands over at most this many messages in one receive.
pub const MAX_RECEIVE: usize = 10;

/// SQS deletes, hides or gives back at most this many messages in one call.
pub const MAX_SETTLE: usize = 10;

/// One hand-over of a job by the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub body: String,
    /// Names this hand-over in later calls; goes stale at the next one.
    pub receipt: String,
    pub message_id: String,
    /// Hand-overs of this message so far, this one included.
    pub receive_count: u32,
    /// When the message was sent.
    pub sent_at: Option<Timestamp>,
}

/// The queue did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QueueError {
    /// The receipt is stale: the delivery is no longer ours.
    #[error("the delivery is no longer ours: {0}")]
    NotOurs(String),
    /// The queue does not exist, or our role may not use it.
    #[error("the queue cannot be used as configured: {0}")]
    Misconfigured(String),
    /// Anything that passes by itself.
    #[error("the queue is unavailable: {0}")]
    Unavailable(String),
}

/// A queue with at-least-once delivery and a visibility timeout. Three verbs, as SQS means them.
#[async_trait]
pub trait JobQueue: Send + Sync + 'static {
    /// Waits for up to `max` (1 to 10) deliveries, at most the long-poll time, and hides each for the lease time.
    ///
    /// Not to be dropped while it waits: the queue may already have handed something over.
    ///
    /// # Errors
    /// Never `NotOurs`.
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, QueueError>;

    /// Hides the delivery for `visibility` from now (whole seconds, 0 to 12 h); 0 gives it back at once.
    ///
    /// # Errors
    /// `NotOurs` when the delivery has been handed over again or deleted.
    async fn set_visibility(&self, receipt: &str, visibility: Duration) -> Result<(), QueueError>;

    /// Removes the message for good. A stale receipt may succeed without removing anything.
    ///
    /// # Errors
    /// `NotOurs` when the queue notices that the receipt is stale.
    async fn delete(&self, receipt: &str) -> Result<(), QueueError>;
}

/// The queue on SQS. What is asked for while a call of its kind is under way shares the next one (docs/adr/0017).
pub struct SqsQueue {
    /// Its read timeout must be longer than the long poll.
    receiving: Client,
    asking: Client,
    visibilities: Batching<ChangeMessageVisibilityBatch>,
    deletes: Batching<DeleteMessageBatch>,
    sends: Batching<SendMessageBatch>,
    url: String,
    wait: Duration,
    lease: Duration,
}

/// Slack between the end of a long poll and giving the connection up.
const RECEIVE_SLACK: Duration = Duration::from_secs(10);
const SETTLE_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
const SETTLE_TIMEOUT: Duration = Duration::from_secs(12);

/// Of deletes, and of changes of the visibility.
const SETTLING: Limits = Limits {
    entries: MAX_SETTLE,
    // Receipts are short.
    weight: usize::MAX,
    calls: 16,
    // Each holds a slot, so the slots are the limit.
    waiting: usize::MAX,
    // Above what SQS usually takes. Nobody but the slot waits for it.
    patience: Duration::from_millis(50),
};

/// Of messages that change lanes. The bodies of one call may have 256 kB, as the API has it.
const PUTTING: Limits = Limits { weight: 262_144, ..SETTLING };

impl SqsQueue {
    /// Makes the adapter: `wait` is the long poll (0 to 20 s), `lease` the time a delivery stays hidden at first.
    pub fn new(config: &aws_config::SdkConfig, url: String, wait: Duration, lease: Duration) -> Self {
        let client = |attempt, operation, attempts| {
            let config = aws_sdk_sqs::config::Builder::from(config)
                .timeout_config(service::aws::timeouts(attempt, operation))
                .retry_config(service::aws::retries(attempts))
                .build();
            Client::from_conf(config)
        };
        let receive_timeout = wait + RECEIVE_SLACK;
        let settling = client(SETTLE_ATTEMPT_TIMEOUT, SETTLE_TIMEOUT, 3);
        let deletes = DeleteMessageBatch { client: settling.clone(), url: url.clone() };
        let visibilities = ChangeMessageVisibilityBatch { client: settling.clone(), url: url.clone() };
        let sends = SendMessageBatch { client: settling.clone(), url: url.clone() };
        Self {
            // One attempt: the consumer's loop is the retry, and it logs and backs off.
            receiving: client(receive_timeout, receive_timeout, 1),
            asking: settling,
            visibilities: Batching::new(visibilities, SETTLING),
            deletes: Batching::new(deletes, SETTLING),
            sends: Batching::new(sends, PUTTING),
            url,
            wait,
            lease,
        }
    }

    /// Returns whether the queue moves what was received too often to another one. Then it is no dead-letter queue, and each
    /// look at a message uses one of its hand-overs up.
    ///
    /// # Errors
    /// When the role may not ask, or SQS does not answer.
    pub async fn has_redrive_policy(&self) -> Result<bool, QueueError> {
        let request = self.asking.get_queue_attributes().queue_url(&self.url);
        let asked = request.attribute_names(QueueAttributeName::RedrivePolicy).send().await;
        let attributes = asked.map_err(|error| classify(&error))?.attributes.unwrap_or_default();
        Ok(attributes.contains_key(&QueueAttributeName::RedrivePolicy))
    }
}

#[async_trait]
impl JobQueue for SqsQueue {
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, QueueError> {
        let received = self
            .receiving
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(whole(max.clamp(1, MAX_RECEIVE) as u64))
            .wait_time_seconds(whole(self.wait.as_secs()))
            .visibility_timeout(whole(self.lease.as_secs()))
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .send()
            .await
            .map_err(|error| match classify(&error) {
                // There is no receipt that could be stale.
                QueueError::NotOurs(detail) => QueueError::Misconfigured(detail),
                error => error,
            })?;
        Ok(received.messages.unwrap_or_default().into_iter().filter_map(delivery).collect())
    }

    async fn set_visibility(&self, receipt: &str, visibility: Duration) -> Result<(), QueueError> {
        let changed = self.visibilities.ask((receipt.to_owned(), visibility)).await;
        changed.unwrap_or_else(|none| Err(QueueError::Unavailable(none.to_string())))
    }

    async fn delete(&self, receipt: &str) -> Result<(), QueueError> {
        let deleted = self.deletes.ask(receipt.to_owned()).await;
        deleted.unwrap_or_else(|none| Err(QueueError::Unavailable(none.to_string())))
    }
}

#[async_trait]
impl Entrance for SqsQueue {
    async fn put(&self, body: String, tenant: &TenantId) -> Result<(), QueueError> {
        let put = self.sends.ask(Put { body, tenant: tenant.clone() }).await;
        put.unwrap_or_else(|none| Err(QueueError::Unavailable(none.to_string())))
    }
}

fn whole(seconds: u64) -> i32 {
    i32::try_from(seconds).unwrap_or(i32::MAX)
}

/// A message without a receipt cannot be settled; SQS never sends one, so it is not worth an error of its own.
fn delivery(message: Message) -> Option<Delivery> {
    let attribute = |name: MessageSystemAttributeName| message.attributes.as_ref()?.get(&name);
    let receive_count = attribute(MessageSystemAttributeName::ApproximateReceiveCount);
    let sent_at = attribute(MessageSystemAttributeName::SentTimestamp);
    Some(Delivery {
        receive_count: receive_count.and_then(|count| count.parse().ok()).unwrap_or(1),
        sent_at: sent_at.and_then(|ms| ms.parse().ok()).and_then(|ms| Timestamp::from_millisecond(ms).ok()),
        receipt: message.receipt_handle?,
        message_id: message.message_id.unwrap_or_default(),
        body: message.body.unwrap_or_default(),
    })
}

/// The codes arrive in the old query form (`AWS.SimpleQueueService.` in front) from AWS and in the plain form from
/// servers that do not send the `x-amzn-query-error` header.
fn classify<E>(error: &SdkError<E>) -> QueueError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    // Not the SDK's own words: an answer to a receive has whole messages in it, and this goes into the log and `/ready`.
    let detail = service::detail::answer(error.code(), error.message(), error);
    let Some(code) = error.code() else {
        let credentials = crate::store::lacks_credentials(error);
        return if credentials { QueueError::Misconfigured(detail) } else { QueueError::Unavailable(detail) };
    };
    QueueError::from_code(code, detail)
}

impl QueueError {
    fn from_code(code: &str, detail: String) -> Self {
        if code.starts_with("KMS.") {
            return Self::Misconfigured(detail);
        }
        match code.rsplit('.').next().unwrap_or(code) {
            "ReceiptHandleIsInvalid" | "MessageNotInflight" => Self::NotOurs(detail),
            // What SQS answers when the receipt has expired or asks beyond the 12 hours of one hand-over.
            "InvalidParameterValue" | "InvalidParameterValueException" => Self::NotOurs(detail),
            "NonExistentQueue"
            | "QueueDoesNotExist"
            | "AccessDenied"
            | "AccessDeniedException"
            | "InvalidClientTokenId"
            | "UnrecognizedClientException"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "InvalidAddress" => Self::Misconfigured(detail),
            _ => Self::Unavailable(detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_sqs::config::http::HttpResponse;
    use aws_sdk_sqs::operation::receive_message::ReceiveMessageError;
    use aws_smithy_types::body::SdkBody;

    use super::*;

    #[test]
    fn an_answer_that_cannot_be_read_is_not_quoted() {
        let body = r#"{"Messages":[{"Body":"a-very-private-fox"#;
        let answer = HttpResponse::new(200.try_into().unwrap(), SdkBody::from(body));
        let error: SdkError<ReceiveMessageError> = SdkError::response_error("cut off at offset 41", answer);
        let told = classify(&error).to_string();
        assert_eq!(told, "the queue is unavailable: response error: cut off at offset 41");
    }

    #[test]
    fn an_error_is_told_by_code_and_message() {
        let metadata = aws_sdk_sqs::error::ErrorMetadata::builder().code("AccessDenied").message("not you").build();
        let answer = HttpResponse::new(403.try_into().unwrap(), SdkBody::from("a-very-private-fox"));
        let error = SdkError::service_error(ReceiveMessageError::generic(metadata), answer);
        assert_eq!(classify(&error), QueueError::Misconfigured("AccessDenied: not you".into()));
    }
}
