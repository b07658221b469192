//! `NoticeQueue`: the queue of ended jobs as the webhooks' process reads it, and its SQS adapter.

use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName as Attribute};
use jiff::Timestamp;

use crate::queue::{QueueError, queue_error};

/// SQS hands over at most this many messages in one receive.
pub const MAX_RECEIVE: usize = 10;

/// One hand-over of a notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub body: String,
    /// Names this hand-over in later calls.
    pub receipt: String,
    /// Hand-overs so far, this one included.
    pub receive_count: u32,
    /// When it was sent.
    pub sent_at: Option<Timestamp>,
}

/// A queue with at-least-once delivery and a visibility timeout.
#[async_trait]
pub trait NoticeQueue: Send + Sync + 'static {
    /// Waits for up to `max` (1 to 10) notices, at most the long-poll time, and hides each for a minute. Not to be dropped
    /// while it waits.
    ///
    /// # Errors
    /// When the queue cannot be used.
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, QueueError>;

    /// Hides a notice for `visibility` from now, in whole seconds; 0 gives it back at once.
    ///
    /// # Errors
    /// When the queue has not confirmed it.
    async fn set_visibility(&self, receipt: &str, visibility: Duration) -> Result<(), QueueError>;

    /// Removes a notice for good.
    ///
    /// # Errors
    /// When the queue has not confirmed it.
    async fn delete(&self, receipt: &str) -> Result<(), QueueError>;
}

/// The long poll. It is awaited at a stop, so not the longest that SQS knows.
const WAIT: Duration = Duration::from_secs(10);
/// Slack between the end of a long poll and giving the connection up.
const RECEIVE_SLACK: Duration = Duration::from_secs(10);
const SETTLE_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);
const SETTLE_TIMEOUT: Duration = Duration::from_secs(9);
/// Longer than a record, a try and the settlement take together.
const HIDDEN: Duration = Duration::from_secs(60);

/// The queue on SQS.
pub struct SqsNotices {
    /// Its read timeout must be longer than the long poll.
    receiving: Client,
    settling: Client,
    url: String,
}

impl SqsNotices {
    pub fn new(config: &SdkConfig, url: String) -> Self {
        let client = |attempt, operation, attempts| {
            let config = aws_sdk_sqs::config::Builder::from(config)
                .timeout_config(service::aws::timeouts(attempt, operation))
                .retry_config(service::aws::retries(attempts));
            Client::from_conf(config.build())
        };
        let receive_timeout = WAIT + RECEIVE_SLACK;
        Self {
            // One attempt: the loop is the retry.
            receiving: client(receive_timeout, receive_timeout, 1),
            settling: client(SETTLE_ATTEMPT_TIMEOUT, SETTLE_TIMEOUT, 3),
            url,
        }
    }
}

#[async_trait]
impl NoticeQueue for SqsNotices {
    async fn receive(&self, max: usize) -> Result<Vec<Delivery>, QueueError> {
        let request = self
            .receiving
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(whole(max.clamp(1, MAX_RECEIVE) as u64))
            .wait_time_seconds(whole(WAIT.as_secs()))
            .visibility_timeout(whole(HIDDEN.as_secs()))
            .message_system_attribute_names(Attribute::ApproximateReceiveCount)
            .message_system_attribute_names(Attribute::SentTimestamp);
        let received = request.send().await.map_err(|error| queue_error(&error))?;
        Ok(received.messages.unwrap_or_default().into_iter().filter_map(delivery).collect())
    }

    async fn set_visibility(&self, receipt: &str, visibility: Duration) -> Result<(), QueueError> {
        let request = self.settling.change_message_visibility().queue_url(&self.url).receipt_handle(receipt);
        let changed = request.visibility_timeout(whole(visibility.as_secs())).send().await;
        changed.map(drop).map_err(|error| queue_error(&error))
    }

    async fn delete(&self, receipt: &str) -> Result<(), QueueError> {
        let deleted = self.settling.delete_message().queue_url(&self.url).receipt_handle(receipt).send().await;
        deleted.map(drop).map_err(|error| queue_error(&error))
    }
}

/// A message without a receipt cannot be settled; SQS never sends one.
fn delivery(message: Message) -> Option<Delivery> {
    let attribute = |name: Attribute| message.attributes.as_ref()?.get(&name);
    let receive_count = attribute(Attribute::ApproximateReceiveCount).and_then(|count| count.parse().ok());
    let sent_at = attribute(Attribute::SentTimestamp).and_then(|millis| millis.parse().ok());
    Some(Delivery {
        receive_count: receive_count.unwrap_or(1),
        sent_at: sent_at.and_then(|millis| Timestamp::from_millisecond(millis).ok()),
        receipt: message.receipt_handle?,
        body: message.body.unwrap_or_default(),
    })
}

fn whole(seconds: u64) -> i32 {
    i32::try_from(seconds).unwrap_or(i32::MAX)
}
