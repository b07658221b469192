//! The port to the queues of both lanes and their dead-letter queue, and its SQS adapter.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::{Message, MessageSystemAttributeName, QueueAttributeName};
use jiff::Timestamp;
use job::TenantId;
use serde::Serialize;
use service::detail;

use crate::fault::Fault;

/// SQS hands over at most this many messages in one receive.
pub const MAX_LOOK: usize = 10;

/// How long dead letters are hidden while they are looked at or moved, if they are not put back before.
pub const HIDDEN: Duration = Duration::from_secs(120);

/// Long poll of one look: any wait makes SQS ask all of its servers.
const WAIT_SECONDS: i32 = 1;

/// How much is in a queue. SQS says that its counts are approximate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Depth {
    /// Messages that a receive could return now.
    pub waiting: u64,
    /// Messages that somebody holds, or that wait for their next hand-over.
    pub in_flight: u64,
    /// Messages sent with a delay that is not over.
    pub delayed: u64,
}

/// A message in the dead-letter queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawLetter {
    pub body: String,
    /// Names this look in later calls.
    pub receipt: String,
    pub message_id: String,
    /// How often it was handed over; looks count.
    pub receive_count: Option<u32>,
    /// When it was sent to the job queue: its age runs from there.
    pub sent_at: Option<Timestamp>,
    /// Name of the queue that it was moved from; none when it was sent here directly.
    pub from: Option<String>,
}

/// The job queue and its dead-letter queue.
#[async_trait]
pub trait Queues: Send + Sync {
    /// Returns how much is in the job queue.
    async fn jobs(&self) -> Result<Depth, Fault>;

    /// Returns how much is in the queue of batches, if there is one.
    async fn batches(&self) -> Result<Option<Depth>, Fault>;

    /// Returns how much is in the dead-letter queue.
    async fn dead_letters(&self) -> Result<Depth, Fault>;

    /// Returns up to [`MAX_LOOK`] dead letters and hides each for [`HIDDEN`]. Empty twice in a row is the end.
    async fn look(&self) -> Result<Vec<RawLetter>, Fault>;

    /// Makes a dead letter visible again.
    async fn put_back(&self, receipt: &str) -> Result<(), Fault>;

    /// Returns whether the queue that a dead letter came from is one of ours. The job queue stands for a letter that
    /// nobody moved here.
    fn knows_origin(&self, letter: &RawLetter) -> bool;

    /// Sends a dead letter to the queue that it came from and returns its new id. To no other: another lane is not the same.
    async fn send_back(&self, letter: &RawLetter, tenant: &TenantId) -> Result<String, Fault>;

    /// Deletes a dead letter.
    async fn remove(&self, receipt: &str) -> Result<(), Fault>;
}

/// The queues on SQS.
#[derive(Debug, Clone)]
pub struct SqsQueues {
    client: Client,
    queue_url: String,
    batch_url: Option<String>,
    dead_letter_url: String,
}

impl SqsQueues {
    /// Makes the adapter; without the URL of the dead-letter queue, the redrive policy is asked for it.
    ///
    /// # Errors
    /// When the policy cannot be read, or there is none.
    pub async fn open(client: Client, queue_url: String, dead_letter_url: Option<String>) -> Result<Self, Fault> {
        let dead_letter_url = match dead_letter_url {
            Some(url) => url,
            None => find_dead_letter_url(&client, &queue_url).await?,
        };
        Ok(Self { client, queue_url, batch_url: None, dead_letter_url })
    }

    /// Adds the second lane, whose dead letters are in the same dead-letter queue.
    #[must_use]
    pub fn with_batches(self, batch_url: Option<String>) -> Self {
        Self { batch_url, ..self }
    }

    /// Returns the URL of the queue that a dead letter came from, if it is one of ours.
    fn origin(&self, letter: &RawLetter) -> Option<&str> {
        let Some(name) = letter.from.as_deref() else { return Some(&self.queue_url) };
        let mut ours = [Some(&self.queue_url), self.batch_url.as_ref()].into_iter().flatten();
        ours.find(|url| url.rsplit('/').next() == Some(name)).map(String::as_str)
    }

    async fn depth(&self, url: &str) -> Result<Depth, Fault> {
        use QueueAttributeName::{
            ApproximateNumberOfMessages as Waiting, ApproximateNumberOfMessagesDelayed as Delayed,
            ApproximateNumberOfMessagesNotVisible as InFlight,
        };
        let names = [Waiting, InFlight, Delayed];
        let request = self.client.get_queue_attributes().queue_url(url).set_attribute_names(Some(names.to_vec()));
        let answer = request.send().await.map_err(|error| failed(&error))?;
        let attributes = answer.attributes.unwrap_or_default();
        let [waiting, in_flight, delayed] =
            names.map(|name| attributes.get(&name).and_then(|text| text.parse().ok()).unwrap_or_default());
        Ok(Depth { waiting, in_flight, delayed })
    }
}

async fn find_dead_letter_url(client: &Client, queue_url: &str) -> Result<String, Fault> {
    let request = client.get_queue_attributes().queue_url(queue_url);
    let answer = request.attribute_names(QueueAttributeName::RedrivePolicy).send().await;
    let attributes = answer.map_err(|error| failed(&error))?.attributes.unwrap_or_default();
    let policy = attributes.get(&QueueAttributeName::RedrivePolicy).map(String::as_str).unwrap_or_default();
    let name = dead_letter_name(policy).ok_or_else(|| {
        Fault::Usage("the job queue names no dead-letter queue: give one with --dead-letter-queue-url".to_owned())
    })?;
    let answer = client.get_queue_url().queue_name(name).send().await.map_err(|error| failed(&error))?;
    answer.queue_url.ok_or_else(|| Fault::Service { what: WHAT, reason: "the answer has no queue URL".to_owned() })
}

/// Returns the name at the end of the ARN in a redrive policy.
fn dead_letter_name(policy: &str) -> Option<String> {
    let policy: serde_json::Value = serde_json::from_str(policy).ok()?;
    policy["deadLetterTargetArn"].as_str()?.rsplit(':').next().map(str::to_owned)
}

#[async_trait]
impl Queues for SqsQueues {
    async fn jobs(&self) -> Result<Depth, Fault> {
        self.depth(&self.queue_url).await
    }

    async fn batches(&self) -> Result<Option<Depth>, Fault> {
        match &self.batch_url {
            Some(url) => self.depth(url).await.map(Some),
            None => Ok(None),
        }
    }

    async fn dead_letters(&self) -> Result<Depth, Fault> {
        self.depth(&self.dead_letter_url).await
    }

    async fn look(&self) -> Result<Vec<RawLetter>, Fault> {
        let received = self
            .client
            .receive_message()
            .queue_url(&self.dead_letter_url)
            .max_number_of_messages(i32::try_from(MAX_LOOK).expect("ten"))
            .wait_time_seconds(WAIT_SECONDS)
            .visibility_timeout(i32::try_from(HIDDEN.as_secs()).expect("two minutes"))
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .message_system_attribute_names(MessageSystemAttributeName::DeadLetterQueueSourceArn)
            .send()
            .await
            .map_err(|error| failed(&error))?;
        Ok(received.messages.unwrap_or_default().into_iter().filter_map(letter).collect())
    }

    async fn put_back(&self, receipt: &str) -> Result<(), Fault> {
        let request = self.client.change_message_visibility().queue_url(&self.dead_letter_url);
        request.receipt_handle(receipt).visibility_timeout(0).send().await.map(drop).map_err(|error| failed(&error))
    }

    fn knows_origin(&self, letter: &RawLetter) -> bool {
        self.origin(letter).is_some()
    }

    async fn send_back(&self, letter: &RawLetter, tenant: &TenantId) -> Result<String, Fault> {
        let url = self.origin(letter).ok_or_else(|| unknown_origin(letter))?;
        // As the API sends it: the tenant's share of a fair queue.
        let request = self.client.send_message().queue_url(url).message_group_id(tenant.as_str());
        let sent = request.message_body(&letter.body).send().await.map_err(|error| failed(&error))?;
        Ok(sent.message_id.unwrap_or_default())
    }

    async fn remove(&self, receipt: &str) -> Result<(), Fault> {
        let request = self.client.delete_message().queue_url(&self.dead_letter_url).receipt_handle(receipt);
        request.send().await.map(drop).map_err(|error| failed(&error))
    }
}

/// Makes the answer for a dead letter that cannot go back.
pub fn unknown_origin(letter: &RawLetter) -> Fault {
    let name = letter.from.as_deref().unwrap_or("?");
    Fault::Usage(format!(
        "dead letters of the queue {name} stay where they are: it is neither --sqs-queue-url nor --sqs-batch-queue-url; \
         if it is the fleet's second lane, set SQS_BATCH_QUEUE_URL to its URL and try again"
    ))
}

fn letter(message: Message) -> Option<RawLetter> {
    let attribute = |name: MessageSystemAttributeName| message.attributes.as_ref()?.get(&name);
    let receive_count = attribute(MessageSystemAttributeName::ApproximateReceiveCount);
    let sent_at = attribute(MessageSystemAttributeName::SentTimestamp);
    let from = attribute(MessageSystemAttributeName::DeadLetterQueueSourceArn);
    Some(RawLetter {
        receive_count: receive_count.and_then(|count| count.parse().ok()),
        sent_at: sent_at.and_then(|ms| ms.parse().ok()).and_then(|ms| Timestamp::from_millisecond(ms).ok()),
        from: from.and_then(|arn| arn.rsplit(':').next()).map(str::to_owned),
        receipt: message.receipt_handle?,
        message_id: message.message_id.unwrap_or_default(),
        body: message.body.unwrap_or_default(),
    })
}

const WHAT: &str = "SQS";

fn failed<E: ProvideErrorMetadata + std::error::Error + 'static>(error: &SdkError<E>) -> Fault {
    Fault::Service { what: WHAT, reason: detail::answer(error.code(), error.message(), error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_letter_queue_is_the_one_of_the_policy() {
        let policy = r#"{"deadLetterTargetArn":"arn:aws:sqs:us-west-2:111111111111:jobs-dead","maxReceiveCount":5}"#;
        assert_eq!(dead_letter_name(policy).as_deref(), Some("jobs-dead"));
        for none in ["", "{}", r#"{"maxReceiveCount":5}"#] {
            assert_eq!(dead_letter_name(none), None, "{none:?}");
        }
    }
}
