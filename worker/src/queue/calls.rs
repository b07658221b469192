//! `DeleteMessageBatch`, `ChangeMessageVisibilityBatch` and `SendMessageBatch`: the calls to SQS that deliveries share.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
    SendMessageBatchRequestEntry,
};
use job::TenantId;
use service::batching::BatchCall;

use super::{QueueError, classify, whole};
use crate::metrics;

/// Each receipt is one entry and has a result of its own.
pub(super) struct DeleteMessageBatch {
    pub(super) client: Client,
    pub(super) url: String,
}

#[async_trait]
impl BatchCall for DeleteMessageBatch {
    type Entry = String;
    type Outcome = Result<(), QueueError>;

    async fn call(&self, receipts: &[String]) -> Vec<Self::Outcome> {
        metrics::deleting(receipts.len());
        let entries = receipts.iter().enumerate().map(|(index, receipt)| {
            let entry = DeleteMessageBatchRequestEntry::builder().id(index.to_string()).receipt_handle(receipt);
            entry.build().expect("id and receipt are set")
        });
        let request = self.client.delete_message_batch().queue_url(&self.url);
        match request.set_entries(Some(entries.collect())).send().await {
            Ok(output) => {
                let successful = output.successful().iter().map(|entry| entry.id());
                one_by_one(receipts.len(), successful, output.failed())
            }
            Err(error) => vec![Err(of_the_whole(classify(&error))); receipts.len()],
        }
    }
}

/// Each receipt, with the time for which its delivery is to be hidden, is one entry and has a result of its own.
pub(super) struct ChangeMessageVisibilityBatch {
    pub(super) client: Client,
    pub(super) url: String,
}

#[async_trait]
impl BatchCall for ChangeMessageVisibilityBatch {
    type Entry = (String, Duration);
    type Outcome = Result<(), QueueError>;

    async fn call(&self, changes: &[(String, Duration)]) -> Vec<Self::Outcome> {
        metrics::changing_visibility(changes.len());
        let entries = changes.iter().enumerate().map(|(index, (receipt, visibility))| {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(index.to_string());
            let entry = entry.receipt_handle(receipt).visibility_timeout(whole(visibility.as_secs()));
            entry.build().expect("id and receipt are set")
        });
        let request = self.client.change_message_visibility_batch().queue_url(&self.url);
        match request.set_entries(Some(entries.collect())).send().await {
            Ok(output) => {
                let successful = output.successful().iter().map(|entry| entry.id());
                one_by_one(changes.len(), successful, output.failed())
            }
            Err(error) => vec![Err(of_the_whole(classify(&error))); changes.len()],
        }
    }
}

/// A message for another queue.
pub(super) struct Put {
    pub(super) body: String,
    pub(super) tenant: TenantId,
}

/// Each message is one entry and has a result of its own.
pub(super) struct SendMessageBatch {
    pub(super) client: Client,
    pub(super) url: String,
}

#[async_trait]
impl BatchCall for SendMessageBatch {
    type Entry = Put;
    type Outcome = Result<(), QueueError>;

    fn weight(&self, message: &Put) -> usize {
        message.body.len()
    }

    async fn call(&self, messages: &[Put]) -> Vec<Self::Outcome> {
        let entries = messages.iter().enumerate().map(|(index, Put { body, tenant })| {
            let entry = SendMessageBatchRequestEntry::builder().id(index.to_string()).message_body(body);
            entry.message_group_id(tenant.as_str()).build().expect("id and body are set")
        });
        let request = self.client.send_message_batch().queue_url(&self.url);
        match request.set_entries(Some(entries.collect())).send().await {
            Ok(output) => {
                let successful = output.successful().iter().map(|entry| entry.id());
                one_by_one(messages.len(), successful, output.failed())
            }
            Err(error) => vec![Err(of_the_whole(classify(&error))); messages.len()],
        }
    }
}

/// What is wrong with a call says nothing of a single receipt: nine leases must not be lost for the tenth's sake.
fn of_the_whole(error: QueueError) -> QueueError {
    match error {
        QueueError::NotOurs(detail) => QueueError::Unavailable(detail),
        error => error,
    }
}

/// A 200 may carry entries that were not done, and one that is named nowhere was not confirmed.
fn one_by_one<'a>(
    count: usize,
    successful: impl Iterator<Item = &'a str>,
    failed: &[BatchResultErrorEntry],
) -> Vec<Result<(), QueueError>> {
    let unnamed = || Err(QueueError::Unavailable("the entry is missing in the answer".to_owned()));
    let mut results: Vec<_> = (0..count).map(|_| unnamed()).collect();
    let position = |id: &str| id.parse::<usize>().ok().filter(|&index| index < count);
    for index in successful.filter_map(position) {
        results[index] = Ok(());
    }
    for entry in failed {
        if let Some(index) = position(entry.id()) {
            let detail = format!("{}: {}", entry.code(), entry.message().unwrap_or("no message"));
            results[index] = Err(QueueError::from_code(entry.code(), service::detail::bounded(detail)));
        }
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_fails_alone_and_one_without_a_word_is_not_confirmed() {
        let failed = |id: &str, code: &str| {
            let entry = BatchResultErrorEntry::builder().id(id).code(code).sender_fault(true);
            entry.build().unwrap()
        };
        let failed =
            [failed("2", "ReceiptHandleIsInvalid"), failed("7", "InternalError"), failed("x", "InternalError")];
        let results = one_by_one(4, ["0", "9", "-1"].into_iter(), &failed);
        assert_eq!(results[0], Ok(()));
        let unconfirmed = Err(QueueError::Unavailable("the entry is missing in the answer".to_owned()));
        assert_eq!(results[1], unconfirmed);
        assert_eq!(results[2], Err(QueueError::NotOurs("ReceiptHandleIsInvalid: no message".to_owned())));
        assert_eq!(results[3], unconfirmed);
    }

    #[test]
    fn a_call_that_is_refused_as_a_whole_loses_no_delivery() {
        let refused = QueueError::from_code("InvalidParameterValue", "an entry".to_owned());
        assert_eq!(refused, QueueError::NotOurs("an entry".to_owned()));
        assert_eq!(of_the_whole(refused), QueueError::Unavailable("an entry".to_owned()));
        let denied = QueueError::Misconfigured("AccessDenied".to_owned());
        assert_eq!(of_the_whole(denied.clone()), denied);
    }
}
