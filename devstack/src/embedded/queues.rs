//! What AWS does and the embedded queue does not: message groups, deletes that are told apart, a journal of messages.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::http::Response;
use rustack_sqs_core::handler::RustackSqsHandler;
use rustack_sqs_core::provider::RustackSqs;
use rustack_sqs_http::body::SqsResponseBody;
use rustack_sqs_http::dispatch::SqsHandler;
use rustack_sqs_http::response::json_response;
use rustack_sqs_model::error::SqsError;
use rustack_sqs_model::input::{
    ChangeMessageVisibilityInput, CreateQueueInput, DeleteMessageBatchInput, DeleteMessageInput, DeleteQueueInput,
    PurgeQueueInput, ReceiveMessageInput, SendMessageBatchInput, SendMessageInput, SetQueueAttributesInput,
};
use rustack_sqs_model::operations::SqsOperation;
use rustack_sqs_model::output::{
    DeleteMessageBatchOutput, DeleteMessageOutput, ReceiveMessageOutput, SendMessageBatchOutput, SendMessageOutput,
};
use rustack_sqs_model::types::{BatchResultErrorEntry, Message, MessageAttributeValue, RedrivePolicy};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::RwLock;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::journal::{Journal, Live, Sent};

/// The longest visibility timeout SQS knows: 12 hours.
pub(super) const LONGEST_VISIBILITY_SECONDS: i32 = 43_200;

/// Everything the server shares between requests.
#[derive(Debug)]
pub(super) struct Queues {
    pub(super) provider: Arc<RustackSqs>,
    pub(super) rest: RustackSqsHandler,
    pub(super) journal: Journal,
    /// Held for reading while a message is sent and journalled; a receive takes it for writing before it looks into the
    /// journal, and so never hands out a message that is not written down yet.
    pub(super) sends: RwLock<()>,
    pub(super) dir: Option<PathBuf>,
    pub(super) stopping: CancellationToken,
}

impl Queues {
    pub(super) async fn answer(
        &self,
        operation: SqsOperation,
        body: Bytes,
    ) -> Result<Response<SqsResponseBody>, SqsError> {
        match operation {
            SqsOperation::SendMessage => json(&self.send(parse(&body)?).await?),
            SqsOperation::SendMessageBatch => json(&self.send_batch(parse(&body)?).await?),
            SqsOperation::ReceiveMessage => json(&self.receive(parse(&body)?).await?),
            SqsOperation::DeleteMessage => json(&self.delete(parse(&body)?).await?),
            SqsOperation::DeleteMessageBatch => json(&self.delete_batch(parse(&body)?).await?),
            SqsOperation::PurgeQueue => {
                let input: PurgeQueueInput = parse(&body)?;
                let queue = queue_name(&input.queue_url).to_owned();
                let redrive = self.redrive_policies().await?;
                let output = self.provider.purge_queue(input).await?;
                self.journal.purged(|live| lies_in(&redrive, live) == queue).map_err(unwritten)?;
                json(&output)
            }
            SqsOperation::DeleteQueue => {
                let input: DeleteQueueInput = parse(&body)?;
                let queue = queue_name(&input.queue_url).to_owned();
                let redrive = self.redrive_policies().await?;
                let output = self.provider.delete_queue(input).await?;
                self.journal.purged(|live| lies_in(&redrive, live) == queue).map_err(unwritten)?;
                self.save_queues().await?;
                json(&output)
            }
            SqsOperation::CreateQueue => {
                let mut input: CreateQueueInput = parse(&body)?;
                normalize_redrive_policy(&mut input.attributes);
                let output = self.provider.create_queue(input).await?;
                self.save_queues().await?;
                json(&output)
            }
            SqsOperation::SetQueueAttributes => {
                let mut input: SetQueueAttributesInput = parse(&body)?;
                normalize_redrive_policy(&mut input.attributes);
                let output = self.provider.set_queue_attributes(input).await?;
                self.save_queues().await?;
                json(&output)
            }
            _ => self.rest.handle_operation(operation, body).await,
        }
    }

    /// Returns the redrive policy of every queue that has one.
    async fn redrive_policies(&self) -> Result<HashMap<String, RedrivePolicy>, SqsError> {
        let queues = self.provider.export_snapshot().await?.queues.into_iter();
        Ok(queues
            .filter_map(|queue| {
                let policy = serde_json::from_str(queue.attributes.get("RedrivePolicy")?).ok()?;
                Some((queue.name, policy))
            })
            .collect())
    }

    async fn send(&self, mut input: SendMessageInput) -> Result<SendMessageOutput, SqsError> {
        if is_fifo(&input.queue_url) {
            return self.provider.send_message(input).await;
        }
        let group = input.message_group_id.take();
        let mut sent =
            sent(&input.queue_url, &input.message_body, group, &input.message_attributes, input.delay_seconds);
        let _sending = self.sends.read().await;
        let output = self.provider.send_message(input).await?;
        sent.id = output.message_id.clone().unwrap_or_default();
        self.journal.sent(sent).map_err(unwritten)?;
        Ok(output)
    }

    async fn send_batch(&self, mut input: SendMessageBatchInput) -> Result<SendMessageBatchOutput, SqsError> {
        if is_fifo(&input.queue_url) {
            return self.provider.send_message_batch(input).await;
        }
        let mut entries = HashMap::new();
        for entry in &mut input.entries {
            let group = entry.message_group_id.take();
            let sent =
                sent(&input.queue_url, &entry.message_body, group, &entry.message_attributes, entry.delay_seconds);
            entries.insert(entry.id.clone(), sent);
        }
        let _sending = self.sends.read().await;
        let output = self.provider.send_message_batch(input).await?;
        for success in &output.successful {
            if let Some(mut sent) = entries.remove(&success.id) {
                sent.id.clone_from(&success.message_id);
                self.journal.sent(sent).map_err(unwritten)?;
            }
        }
        Ok(output)
    }

    async fn receive(&self, input: ReceiveMessageInput) -> Result<ReceiveMessageOutput, SqsError> {
        let queue = queue_name(&input.queue_url).to_owned();
        let wants_group = (input.attribute_names.iter().chain(&input.message_system_attribute_names))
            .any(|name| name == "All" || name == "MessageGroupId");
        let mut output = tokio::select! {
            output = self.provider.receive_message(input) => output?,
            () = self.stopping.cancelled() => ReceiveMessageOutput::default(),
        };
        if !output.messages.is_empty() {
            drop(self.sends.write().await);
            for message in &mut output.messages {
                self.note_receive(message, &queue, wants_group).map_err(unwritten)?;
            }
        }
        Ok(output)
    }

    fn note_receive(&self, message: &mut Message, queue: &str, wants_group: bool) -> io::Result<()> {
        let id = message.message_id.as_deref().unwrap_or_default();
        let Some(live) = self.journal.received(id, queue)? else { return Ok(()) };
        if let Some(sent_at) = message.attributes.get_mut("SentTimestamp") {
            *sent_at = live.sent_at.to_string();
        }
        if live.first_id.is_some() {
            message.message_id = live.first_id;
        }
        if let (true, Some(group)) = (wants_group, live.group) {
            message.attributes.insert("MessageGroupId".to_owned(), group);
        }
        Ok(())
    }

    async fn delete(&self, input: DeleteMessageInput) -> Result<DeleteMessageOutput, SqsError> {
        let Some(id) = message_id(&input.receipt_handle) else {
            // Deletes nothing, and tells of a missing queue first, as AWS does.
            self.provider.delete_message(input).await?;
            return Err(SqsError::receipt_handle_is_invalid());
        };
        let held = self.holds(&input.queue_url, &input.receipt_handle).await;
        let output = self.provider.delete_message(input).await?;
        if held {
            self.journal.deleted(&id).map_err(unwritten)?;
        }
        Ok(output)
    }

    async fn delete_batch(&self, input: DeleteMessageBatchInput) -> Result<DeleteMessageBatchOutput, SqsError> {
        let (mut held, mut invalid) = (HashMap::new(), HashSet::new());
        for entry in &input.entries {
            let Some(id) = message_id(&entry.receipt_handle) else {
                invalid.insert(entry.id.clone());
                continue;
            };
            if self.holds(&input.queue_url, &entry.receipt_handle).await {
                held.insert(entry.id.clone(), id);
            }
        }
        let mut output = self.provider.delete_message_batch(input).await?;
        // It says of these as well that they worked.
        output.successful.retain(|success| !invalid.contains(&success.id));
        output.failed.retain(|failure| !invalid.contains(&failure.id));
        output.failed.extend(invalid.into_iter().map(|id| BatchResultErrorEntry {
            id,
            sender_fault: true,
            code: "ReceiptHandleIsInvalid".to_owned(),
            message: Some("The input receipt handle is invalid.".to_owned()),
        }));
        for success in &output.successful {
            if let Some(id) = held.remove(&success.id) {
                self.journal.deleted(&id).map_err(unwritten)?;
            }
        }
        Ok(output)
    }

    /// Returns whether a delete with this receipt will remove its message. The queue answers a delete with a stale
    /// receipt the same way as one that worked, so the receipt is first tried on the visibility, which tells them apart
    /// and keeps the message in flight until the delete.
    async fn holds(&self, queue_url: &str, receipt_handle: &str) -> bool {
        let hold = ChangeMessageVisibilityInput {
            queue_url: queue_url.to_owned(),
            receipt_handle: receipt_handle.to_owned(),
            visibility_timeout: LONGEST_VISIBILITY_SECONDS,
        };
        self.provider.change_message_visibility(hold).await.is_ok()
    }
}

/// Returns the queue a message is in. The move to the dead-letter queue happens inside the queue and is not journalled
/// until somebody receives from there; a message that has used up its receives is counted as moved.
fn lies_in<'a>(redrive: &'a HashMap<String, RedrivePolicy>, live: &'a Live) -> &'a str {
    let used_up =
        redrive.get(&live.queue).filter(|policy| i64::from(live.receives) >= i64::from(policy.max_receive_count));
    used_up.and_then(|policy| policy.dead_letter_target_arn.rsplit(':').next()).unwrap_or(&live.queue)
}

fn sent(
    queue_url: &str,
    body: &str,
    group: Option<String>,
    attributes: &HashMap<String, MessageAttributeValue>,
    delay_seconds: Option<i32>,
) -> Sent {
    let now = now_ms();
    let delay = u64::try_from(delay_seconds.unwrap_or(0)).unwrap_or(0);
    Sent {
        id: String::new(),
        first_id: None,
        queue: queue_name(queue_url).to_owned(),
        body: body.to_owned(),
        group,
        attributes: attributes.iter().map(|(name, value)| (name.clone(), value.into())).collect(),
        sent_at: now,
        visible_at: now + delay * 1000,
        receives: 0,
    }
}

/// AWS takes `maxReceiveCount` as a number or as digits in a string; the queue takes the number only, and compares the
/// text of the policy when the queue is created a second time.
fn normalize_redrive_policy(attributes: &mut HashMap<String, String>) {
    let Some(text) = attributes.get_mut("RedrivePolicy") else { return };
    let Ok(mut policy) = serde_json::from_str::<serde_json::Value>(text) else { return };
    let number = policy["maxReceiveCount"].as_str().and_then(|digits| digits.parse::<u32>().ok());
    if let Some(number) = number {
        policy["maxReceiveCount"] = number.into();
    }
    if let Ok(policy) = serde_json::from_value::<RedrivePolicy>(policy)
        && let Ok(normal) = serde_json::to_string(&policy)
    {
        *text = normal;
    }
}

/// A receipt handle is base64 of `{message id}:{time}:{nonce}`.
fn message_id(receipt_handle: &str) -> Option<String> {
    let bytes = base64_simd::STANDARD.decode_to_vec(receipt_handle).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (id, _) = text.split_once(':')?;
    Uuid::parse_str(id).ok().map(|_| id.to_owned())
}

fn queue_name(queue_url: &str) -> &str {
    queue_url.rsplit('/').next().unwrap_or_default()
}

fn is_fifo(queue_url: &str) -> bool {
    queue_url.ends_with(".fifo")
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, SqsError> {
    serde_json::from_slice(body).map_err(|error| {
        if error.to_string().contains("missing field") {
            SqsError::missing_parameter(format!("1 validation error detected: {error}"))
        } else {
            SqsError::invalid_parameter_value(format!("the request body cannot be read: {error}"))
        }
    })
}

fn json<T: Serialize>(output: &T) -> Result<Response<SqsResponseBody>, SqsError> {
    let json = serde_json::to_vec(output).map_err(|error| SqsError::internal_error(error.to_string()))?;
    Ok(json_response(json, &Uuid::new_v4().to_string()))
}

/// The caller must not believe in a change that would be forgotten.
pub(super) fn unwritten(error: io::Error) -> SqsError {
    tracing::error!(%error, "the queue's journal cannot be written");
    SqsError::internal_error(format!("the queue's journal cannot be written: {error}"))
}

pub(super) fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redrive_policy_may_give_its_count_as_text() {
        let arn = "arn:aws:sqs:us-west-2:000000000000:dead";
        let text = format!(r#"{{"maxReceiveCount":"5","deadLetterTargetArn":"{arn}"}}"#);
        let mut attributes = HashMap::from([("RedrivePolicy".to_owned(), text)]);
        normalize_redrive_policy(&mut attributes);
        let normal = format!(r#"{{"deadLetterTargetArn":"{arn}","maxReceiveCount":5}}"#);
        assert_eq!(attributes["RedrivePolicy"], normal);
    }

    #[test]
    fn only_our_receipts_have_a_message_id() {
        let id = Uuid::new_v4().to_string();
        let receipt = base64_simd::STANDARD.encode_to_string(format!("{id}:1:nonce"));
        assert_eq!(message_id(&receipt), Some(id));
        assert_eq!(message_id("not a receipt"), None);
        assert_eq!(message_id(&base64_simd::STANDARD.encode_to_string("x:1:y")), None);
    }
}
