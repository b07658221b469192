//! The embedded SQS answers the SDK as AWS does, and keeps its messages over a restart.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    DeleteMessageBatchRequestEntry, Message, MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName,
    SendMessageBatchRequestEntry,
};
use devstack::embedded::sqs::SqsOptions;
use devstack::embedded::{EmbeddedSqs, sqs_client};

struct Fixture {
    sqs: EmbeddedSqs,
    client: Client,
    jobs: String,
    dead: String,
}

impl Fixture {
    async fn start(dir: Option<&Path>, attributes: &[(QueueAttributeName, &str)]) -> Self {
        let options = SqsOptions { dir: dir.map(Path::to_owned) };
        let sqs = EmbeddedSqs::start("127.0.0.1:0".parse().unwrap(), options).await.unwrap();
        let client = sqs_client(&sqs.url());
        let dead = create(&client, "dead", HashMap::new()).await;
        let policy = r#"{"deadLetterTargetArn":"arn:aws:sqs:us-west-2:000000000000:dead","maxReceiveCount":"2"}"#;
        let mut all = HashMap::from([
            (QueueAttributeName::RedrivePolicy, policy.to_owned()),
            (QueueAttributeName::VisibilityTimeout, "60".to_owned()),
        ]);
        all.extend(attributes.iter().map(|(name, value)| (name.clone(), (*value).to_owned())));
        let jobs = create(&client, "jobs", all).await;
        Self { sqs, client, jobs, dead }
    }

    async fn send(&self, body: &str) {
        self.client.send_message().queue_url(&self.jobs).message_body(body).send().await.unwrap();
    }

    async fn receive(&self, queue_url: &str) -> Vec<Message> {
        let request = self.client.receive_message().queue_url(queue_url).max_number_of_messages(10);
        request
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .message_attribute_names("All")
            .send()
            .await
            .unwrap()
            .messages
            .unwrap_or_default()
    }

    async fn receive_one(&self) -> Message {
        let mut messages = self.receive(&self.jobs).await;
        assert_eq!(messages.len(), 1);
        messages.remove(0)
    }

    async fn set_visibility(&self, message: &Message, seconds: i32) {
        let request = self.client.change_message_visibility().queue_url(&self.jobs);
        let receipt = message.receipt_handle().unwrap();
        request.receipt_handle(receipt).visibility_timeout(seconds).send().await.unwrap();
    }

    async fn delete(&self, message: &Message) {
        let receipt = message.receipt_handle().unwrap();
        self.client.delete_message().queue_url(&self.jobs).receipt_handle(receipt).send().await.unwrap();
    }

    /// Visible and in flight.
    async fn counts(&self) -> (String, String) {
        let request = self.client.get_queue_attributes().queue_url(&self.jobs);
        let output = request.attribute_names(QueueAttributeName::All).send().await.unwrap();
        let attributes = output.attributes.unwrap();
        let get = |name| attributes[&name].clone();
        (
            get(QueueAttributeName::ApproximateNumberOfMessages),
            get(QueueAttributeName::ApproximateNumberOfMessagesNotVisible),
        )
    }
}

async fn create(client: &Client, name: &str, attributes: HashMap<QueueAttributeName, String>) -> String {
    let output = client.create_queue().queue_name(name).set_attributes(Some(attributes)).send().await.unwrap();
    output.queue_url.unwrap()
}

fn system(message: &Message, name: MessageSystemAttributeName) -> Option<&str> {
    message.attributes()?.get(&name).map(String::as_str)
}

fn receive_count(message: &Message) -> &str {
    system(message, MessageSystemAttributeName::ApproximateReceiveCount).unwrap()
}

#[tokio::test]
async fn a_message_is_sent_received_and_deleted() {
    let fixture = Fixture::start(None, &[]).await;
    let attribute = MessageAttributeValue::builder().data_type("String").string_value("00-trace").build().unwrap();
    let send = fixture.client.send_message().queue_url(&fixture.jobs).message_body("{\"a\": \"ü\\n\"}");
    send.message_group_id("north").message_attributes("traceparent", attribute).send().await.unwrap();

    let message = fixture.receive_one().await;
    assert_eq!(message.body(), Some("{\"a\": \"ü\\n\"}"));
    assert_eq!(system(&message, MessageSystemAttributeName::MessageGroupId), Some("north"));
    assert_eq!(message.message_attributes().unwrap()["traceparent"].string_value(), Some("00-trace"));
    assert_eq!(fixture.counts().await, ("0".into(), "1".into()));
    fixture.delete(&message).await;
    assert_eq!(fixture.counts().await, ("0".into(), "0".into()));
}

#[tokio::test]
async fn a_body_of_256_kib_passes_and_one_byte_more_does_not() {
    let fixture = Fixture::start(None, &[]).await;
    let largest = "x".repeat(256 * 1024);
    fixture.send(&largest).await;
    assert_eq!(fixture.receive_one().await.body(), Some(largest.as_str()));
    let send = fixture.client.send_message().queue_url(&fixture.jobs).message_body(largest + "x");
    let error = send.send().await.unwrap_err().into_service_error();
    assert_eq!(error.meta().code(), Some("InvalidParameterValue"));
}

#[tokio::test]
async fn a_missing_queue_is_an_error_the_sdk_understands() {
    let fixture = Fixture::start(None, &[]).await;
    let url = fixture.jobs.replace("jobs", "nothing");
    let error = fixture.client.send_message().queue_url(url).message_body("x").send().await.unwrap_err();
    assert!(error.raw_response().unwrap().headers().get("x-amzn-query-error").unwrap().ends_with(";Sender"));
    assert!(error.into_service_error().is_queue_does_not_exist());
}

#[tokio::test]
async fn a_batch_fails_by_entry() {
    let fixture = Fixture::start(None, &[]).await;
    let entry = |id: &str, body: &str| {
        SendMessageBatchRequestEntry::builder().id(id).message_body(body).message_group_id(id).build().unwrap()
    };
    let batch = fixture.client.send_message_batch().queue_url(&fixture.jobs);
    let too_long = "x".repeat(256 * 1024 + 1);
    let output = batch.entries(entry("good", "1")).entries(entry("bad", &too_long)).send().await.unwrap();
    assert_eq!(output.successful.iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>(), ["good"]);
    assert_eq!(output.failed.iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>(), ["bad"]);
    assert!(output.failed[0].sender_fault);

    let message = fixture.receive_one().await;
    assert_eq!(system(&message, MessageSystemAttributeName::MessageGroupId), Some("good"));
    let delete = DeleteMessageBatchRequestEntry::builder().id("1").receipt_handle(message.receipt_handle().unwrap());
    let batch = fixture.client.delete_message_batch().queue_url(&fixture.jobs);
    let output = batch.entries(delete.build().unwrap()).send().await.unwrap();
    assert_eq!((output.successful.len(), output.failed.len()), (1, 0));
    assert_eq!(fixture.counts().await, ("0".into(), "0".into()));
}

#[tokio::test]
async fn a_long_poll_wakes_when_a_message_arrives() {
    let fixture = Fixture::start(None, &[]).await;
    let poll = fixture.client.receive_message().queue_url(&fixture.jobs).wait_time_seconds(20).send();
    let send = async {
        // Without a poll under way at the queue this test would still pass, never wrongly fail.
        tokio::task::yield_now().await;
        fixture.send("awaited").await;
    };
    let both = async { tokio::join!(poll, send) };
    let (output, ()) = tokio::time::timeout(Duration::from_secs(15), both).await.expect("the poll is woken");
    assert_eq!(output.unwrap().messages.unwrap()[0].body(), Some("awaited"));
}

#[tokio::test]
async fn stopping_ends_a_long_poll() {
    let fixture = Fixture::start(None, &[]).await;
    let poll = fixture.client.receive_message().queue_url(&fixture.jobs).wait_time_seconds(20).send();
    let both = async { tokio::join!(poll, fixture.sqs.stop()) };
    let (output, ()) = tokio::time::timeout(Duration::from_secs(15), both).await.expect("the poll is ended");
    // Either the poll was under way and came back empty, or it found the door closed.
    assert!(output.is_err() || output.unwrap().messages.is_none());
}

#[tokio::test]
async fn visibility_can_be_given_up_and_extended() {
    let fixture = Fixture::start(None, &[(QueueAttributeName::VisibilityTimeout, "1")]).await;
    fixture.send("a").await;
    let first = fixture.receive_one().await;
    assert_eq!(receive_count(&first), "1");
    fixture.set_visibility(&first, 0).await;
    let second = fixture.receive_one().await;
    assert_eq!(receive_count(&second), "2");
    assert_eq!(second.message_id(), first.message_id());

    // Longer than the queue's own second: a poll of two seconds must not see it.
    fixture.set_visibility(&second, 60).await;
    let poll = fixture.client.receive_message().queue_url(&fixture.jobs).wait_time_seconds(2).send().await.unwrap();
    assert!(poll.messages.is_none());
}

#[tokio::test]
async fn a_delete_with_a_stale_receipt_succeeds_and_keeps_the_message() {
    let fixture = Fixture::start(None, &[]).await;
    fixture.send("a").await;
    let first = fixture.receive_one().await;
    fixture.set_visibility(&first, 0).await;
    let second = fixture.receive_one().await;
    fixture.delete(&first).await;
    assert_eq!(fixture.counts().await, ("0".into(), "1".into()));
    fixture.delete(&second).await;
    assert_eq!(fixture.counts().await, ("0".into(), "0".into()));

    let garbage = fixture.client.delete_message().queue_url(&fixture.jobs).receipt_handle("garbage").send().await;
    assert!(garbage.unwrap_err().into_service_error().is_receipt_handle_is_invalid());
}

#[tokio::test]
async fn after_the_last_receive_a_message_moves_to_the_dead_letter_queue_byte_for_byte() {
    let fixture = Fixture::start(None, &[]).await;
    let body = "not json \u{1F98A} \"quoted\" \\ \n end ";
    fixture.send(body).await;
    for _ in 0..2 {
        let message = fixture.receive_one().await;
        fixture.set_visibility(&message, 0).await;
    }
    assert!(fixture.receive(&fixture.jobs).await.is_empty());
    let dead = fixture.client.receive_message().queue_url(&fixture.dead).wait_time_seconds(10).send().await.unwrap();
    assert_eq!(dead.messages.unwrap()[0].body(), Some(body));
}

#[tokio::test]
async fn a_delay_hides_a_message() {
    let fixture = Fixture::start(None, &[]).await;
    let send = fixture.client.send_message().queue_url(&fixture.jobs).message_body("later");
    send.delay_seconds(1).send().await.unwrap();
    assert!(fixture.receive(&fixture.jobs).await.is_empty());
    let poll = fixture.client.receive_message().queue_url(&fixture.jobs).wait_time_seconds(10).send().await.unwrap();
    assert_eq!(poll.messages.unwrap()[0].body(), Some("later"));
}

#[tokio::test]
async fn a_purge_empties_the_queue() {
    let fixture = Fixture::start(None, &[]).await;
    fixture.send("a").await;
    fixture.client.purge_queue().queue_url(&fixture.jobs).send().await.unwrap();
    assert_eq!(fixture.counts().await, ("0".into(), "0".into()));
}

#[tokio::test]
async fn a_restart_brings_back_what_was_not_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let before = Fixture::start(Some(dir.path()), &[]).await;
    before.send("deleted").await;
    let message = before.receive_one().await;
    before.delete(&message).await;
    let send = before.client.send_message().queue_url(&before.jobs).message_body("tried once");
    send.message_group_id("north").send().await.unwrap();
    let tried = before.receive_one().await;
    before.send("new").await;
    // Dropped, not stopped: what a kill leaves must be enough.
    drop(before);

    let after = Fixture::start(Some(dir.path()), &[]).await;
    let mut messages = after.receive(&after.jobs).await;
    messages.sort_by_key(|message| message.body().map(str::to_owned));
    let seen: Vec<_> = messages.iter().map(|message| (message.body().unwrap(), receive_count(message))).collect();
    assert_eq!(seen, [("new", "1"), ("tried once", "2")]);
    assert_eq!(system(&messages[1], MessageSystemAttributeName::MessageGroupId), Some("north"));
    assert_eq!(messages[1].message_id(), tried.message_id());
    let sent_at = MessageSystemAttributeName::SentTimestamp;
    assert_eq!(system(&messages[1], sent_at.clone()), system(&tried, sent_at));

    // Twice received: the redrive policy, which came back with its queue, counts the receives of both runs.
    after.set_visibility(&messages[1], 0).await;
    assert!(after.receive(&after.jobs).await.is_empty());
    let dead = after.client.receive_message().queue_url(&after.dead).wait_time_seconds(10).send().await.unwrap();
    assert_eq!(dead.messages.unwrap()[0].body(), Some("tried once"));
    after.sqs.stop().await;

    let last = Fixture::start(Some(dir.path()), &[]).await;
    let dead = last.receive(&last.dead).await;
    assert_eq!(dead[0].body(), Some("tried once"));
}

#[tokio::test]
async fn a_purge_knows_what_has_moved_to_the_dead_letter_queue() {
    let dir = tempfile::tempdir().unwrap();
    let before = Fixture::start(Some(dir.path()), &[]).await;
    before.send("dead").await;
    for _ in 0..2 {
        let message = before.receive_one().await;
        before.set_visibility(&message, 0).await;
    }
    assert!(before.receive(&before.jobs).await.is_empty());
    before.send("purged").await;
    before.client.purge_queue().queue_url(&before.jobs).send().await.unwrap();
    drop(before);

    let after = Fixture::start(Some(dir.path()), &[]).await;
    assert!(after.receive(&after.jobs).await.is_empty());
    let dead = after.client.receive_message().queue_url(&after.dead).wait_time_seconds(10).send().await.unwrap();
    assert_eq!(dead.messages.unwrap()[0].body(), Some("dead"));
}
