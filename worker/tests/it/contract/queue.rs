//! The promises of `JobQueue`.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::types::QueueAttributeName;
use devstack::stack::provision::Queues;
use jiff::{SignedDuration, Timestamp};
use worker::queue::{Delivery, JobQueue, MAX_RECEIVE, MAX_SETTLE, QueueError, SqsQueue};

use super::{QueueUnderTest, Server, kept_everywhere, kept_on_servers};
use crate::support::{MAX_RECEIVE_COUNT, MemoryQueue};

/// So long that it does not run out during a test.
const LONG: Duration = Duration::from_secs(600);
/// A poll that ends by itself only when something is wrong.
const POLL: Duration = Duration::from_secs(20);
/// Two hundred and fifty-six kibibytes: the longest body of our queue.
const MAX_BODY_BYTES: usize = 256 * 1024;

kept_everywhere!(
    every_hand_over_is_counted,
    a_visibility_of_zero_gives_back_at_once,
    a_shorter_visibility_brings_the_message_back,
    an_extension_keeps_the_message_hidden,
    an_older_receipt_does_no_harm,
    a_receipt_that_never_was_is_noticed,
    a_deleted_message_is_gone,
    deletes_asked_for_together_succeed_and_fail_one_by_one,
    visibilities_asked_for_together_change_and_fail_one_by_one,
    after_the_last_hand_over_a_message_is_dead_byte_for_byte,
    a_long_poll_ends_when_a_message_arrives,
    a_poll_of_an_empty_queue_comes_back_empty,
    never_more_than_asked_for,
    what_is_put_in_together_arrives_byte_for_byte,
);

mod servers {
    use super::{Server, an_unknown_queue_is_a_setting_to_mend, kept_on_servers, nobody_there_is_a_passing_fault};
    kept_on_servers!(an_unknown_queue_is_a_setting_to_mend, nobody_there_is_a_passing_fault);
}

/// What a test does beside the port: the sender's and the operator's part.
#[async_trait]
pub trait Backstage: Send + Sync {
    async fn send(&self, body: &str);
    /// Messages visible and hidden.
    async fn backlog(&self) -> (usize, usize);
    /// Waits for a message in the dead-letter queue.
    async fn dead(&self) -> Option<String>;
}

pub struct SqsBackstage {
    pub client: aws_sdk_sqs::Client,
    pub urls: Queues,
}

#[async_trait]
impl Backstage for SqsBackstage {
    async fn send(&self, body: &str) {
        self.client.send_message().queue_url(&self.urls.queue_url).message_body(body).send().await.unwrap();
    }

    async fn backlog(&self) -> (usize, usize) {
        let request = self.client.get_queue_attributes().queue_url(&self.urls.queue_url);
        let output = request.attribute_names(QueueAttributeName::All).send().await.unwrap();
        let count = |name| output.attributes.as_ref().unwrap()[&name].parse().unwrap();
        (
            count(QueueAttributeName::ApproximateNumberOfMessages),
            count(QueueAttributeName::ApproximateNumberOfMessagesNotVisible),
        )
    }

    async fn dead(&self) -> Option<String> {
        let request = self.client.receive_message().queue_url(&self.urls.dead_letter_url).wait_time_seconds(10);
        request.send().await.unwrap().messages?.pop()?.body
    }
}

#[async_trait]
impl Backstage for MemoryQueue {
    async fn send(&self, body: &str) {
        Self::send(self, body);
    }

    async fn backlog(&self) -> (usize, usize) {
        (self.visible(), self.len() - self.visible())
    }

    async fn dead(&self) -> Option<String> {
        Self::dead(self).pop()
    }
}

impl QueueUnderTest {
    async fn receive_one(&self) -> Delivery {
        let mut received = self.queue.receive(1).await.unwrap();
        assert_eq!(received.len(), 1);
        received.remove(0)
    }

    async fn give_back(&self, delivery: &Delivery) {
        self.queue.set_visibility(&delivery.receipt, Duration::ZERO).await.unwrap();
    }
}

async fn what_is_put_in_together_arrives_byte_for_byte(server: Server) {
    let tested = server.queue(POLL, LONG).await;
    let tenant = "north".parse().unwrap();
    let mut bodies: Vec<String> = (0..12).map(|n| format!("{{\"v\": 99, \"unknown\": \"\u{e9} {n}\"}}")).collect();
    let puts = bodies.iter().map(|body| tested.entrance.put(body.clone(), &tenant));
    assert!(futures::future::join_all(puts).await.iter().all(Result::is_ok));
    let mut arrived = vec![];
    while arrived.len() < bodies.len() {
        arrived.extend(tested.queue.receive(MAX_RECEIVE).await.unwrap().into_iter().map(|delivery| delivery.body));
    }
    bodies.sort();
    arrived.sort();
    assert_eq!(arrived, bodies);
}

async fn every_hand_over_is_counted(server: Server) {
    let tested = server.queue(POLL, LONG).await;
    let before = Timestamp::now();
    tested.backstage.send("a").await;
    let first = tested.receive_one().await;
    assert_eq!(first.receive_count, 1);
    let sent_at = first.sent_at.expect("a sent time");
    assert!(sent_at.duration_since(before).abs() < SignedDuration::from_secs(60), "{sent_at} {before}");
    let mut receipts = vec![first.receipt.clone()];
    tested.give_back(&first).await;
    for count in 2..=MAX_RECEIVE_COUNT {
        let next = tested.receive_one().await;
        assert_eq!(next.receive_count, count);
        assert_eq!((&next.message_id, next.sent_at), (&first.message_id, first.sent_at));
        assert!(!receipts.contains(&next.receipt), "every hand-over has a receipt of its own");
        tested.give_back(&next).await;
        receipts.push(next.receipt);
    }
}

async fn a_visibility_of_zero_gives_back_at_once(server: Server) {
    let tested = server.queue(POLL, LONG).await;
    tested.backstage.send("a").await;
    let delivery = tested.receive_one().await;
    assert_eq!(tested.backstage.backlog().await, (0, 1));
    tested.give_back(&delivery).await;
    assert_eq!(tested.backstage.backlog().await, (1, 0));
}

async fn a_shorter_visibility_brings_the_message_back(server: Server) {
    let tested = server.queue(POLL, LONG).await;
    tested.backstage.send("a").await;
    let first = tested.receive_one().await;
    tested.queue.set_visibility(&first.receipt, Duration::from_secs(1)).await.unwrap();
    assert_eq!(tested.receive_one().await.receive_count, 2);
}

async fn an_extension_keeps_the_message_hidden(server: Server) {
    // The poll outlasts the first lease.
    let tested = server.queue(Duration::from_secs(4), Duration::from_secs(3)).await;
    tested.backstage.send("a").await;
    let delivery = tested.receive_one().await;
    tested.queue.set_visibility(&delivery.receipt, LONG).await.unwrap();
    assert_eq!(tested.queue.receive(1).await.unwrap(), []);
    assert_eq!(tested.backstage.backlog().await, (0, 1));
}

async fn an_older_receipt_does_no_harm(server: Server) {
    let tested = server.queue(POLL, LONG).await;
    tested.backstage.send("a").await;
    let first = tested.receive_one().await;
    tested.give_back(&first).await;
    let second = tested.receive_one().await;
    let given_back = tested.queue.set_visibility(&first.receipt, Duration::ZERO).await;
    assert!(matches!(given_back, Err(QueueError::NotOurs(_))), "{given_back:?}");
    // AWS and the embedded queue answer that all is well and delete nothing; MiniStack says that the receipt is invalid.
    let deleted = tested.queue.delete(&first.receipt).await;
    assert!(matches!(deleted, Ok(()) | Err(QueueError::NotOurs(_))), "{deleted:?}");
    assert_eq!(tested.backstage.backlog().await, (0, 1));
    tested.queue.delete(&second.receipt).await.unwrap();
    assert_eq!(tested.backstage.backlog().await, (0, 0));
}

async fn a_receipt_that_never_was_is_noticed(server: Server) {
    let tested = server.queue(POLL, LONG).await;
    let held = tested.queue.set_visibility("never-was", LONG).await;
    assert!(matches!(held, Err(QueueError::NotOurs(_))), "{held:?}");
    let deleted = tested.queue.delete("never-was").await;
    assert!(matches!(deleted, Err(QueueError::NotOurs(_))), "{deleted:?}");
}

async fn a_deleted_message_is_gone(server: Server) {
    let tested = server.queue(POLL, LONG).await;
    tested.backstage.send("a").await;
    tested.backstage.send("b").await;
    let delivery = tested.receive_one().await;
    tested.queue.delete(&delivery.receipt).await.unwrap();
    assert_eq!(tested.backstage.backlog().await, (1, 0));
    let held = tested.queue.set_visibility(&delivery.receipt, LONG).await;
    assert!(matches!(held, Err(QueueError::NotOurs(_))), "{held:?}");
    assert_ne!(tested.receive_one().await.message_id, delivery.message_id);
}

async fn deletes_asked_for_together_succeed_and_fail_one_by_one(server: Server) {
    let tested = server.queue(POLL, LONG).await;
    let mut held: Vec<Delivery> = vec![];
    for n in 0..2 * MAX_SETTLE + 3 {
        tested.backstage.send(&n.to_string()).await;
    }
    while held.len() < 2 * MAX_SETTLE + 3 {
        held.extend(tested.queue.receive(MAX_RECEIVE).await.unwrap());
    }
    let kept = held.split_off(2 * MAX_SETTLE);
    // Every third is one that the queue has never given out.
    let receipts = held.iter().enumerate().flat_map(|(n, delivery)| {
        let wrong = (n % 2 == 0).then(|| (format!("never-was-{n}"), false));
        [Some((delivery.receipt.clone(), true)), wrong].into_iter().flatten()
    });
    let receipts: Vec<(String, bool)> = receipts.collect();
    let deletes = receipts.iter().map(|(receipt, _)| tested.queue.delete(receipt));
    let results = futures::future::join_all(deletes).await;
    for ((receipt, exists), result) in receipts.iter().zip(results) {
        match exists {
            true => assert_eq!(result, Ok(()), "{receipt}"),
            false => assert!(matches!(result, Err(QueueError::NotOurs(_))), "{receipt}: {result:?}"),
        }
    }
    assert_eq!(tested.backstage.backlog().await, (0, kept.len()));
    for delivery in kept {
        tested.give_back(&delivery).await;
    }
    assert_eq!(tested.backstage.backlog().await, (3, 0));
}

async fn visibilities_asked_for_together_change_and_fail_one_by_one(server: Server) {
    let tested = server.queue(POLL, LONG).await;
    let mut held: Vec<Delivery> = vec![];
    for n in 0..2 * MAX_SETTLE + 3 {
        tested.backstage.send(&n.to_string()).await;
    }
    while held.len() < 2 * MAX_SETTLE + 3 {
        held.extend(tested.queue.receive(MAX_RECEIVE).await.unwrap());
    }
    // Every second one is given back, the others are held on to; between them are some that the queue has never given out.
    let queue = &tested.queue;
    let changes = held.iter().enumerate().map(|(n, delivery)| async move {
        let visibility = if n % 2 == 0 { Duration::ZERO } else { LONG };
        let wrong = format!("never-was-{n}");
        tokio::join!(queue.set_visibility(&delivery.receipt, visibility), queue.set_visibility(&wrong, visibility))
    });
    for (ours, wrong) in futures::future::join_all(changes).await {
        assert_eq!(ours, Ok(()));
        assert!(matches!(wrong, Err(QueueError::NotOurs(_))), "{wrong:?}");
    }
    assert_eq!(tested.backstage.backlog().await, (MAX_SETTLE + 2, MAX_SETTLE + 1));
}

/// Everything SQS lets through that JSON, XML or a form could break, up to the longest body.
fn garbage() -> String {
    let mut body =
        "{\"id\": <not json & \u{1F98A} é \u{E000}\u{FFFD}\u{10FFFF} + %41 \\u0041 \\ ' \"\t\r\n  ".repeat(4000);
    let mut cut = MAX_BODY_BYTES;
    while !body.is_char_boundary(cut) {
        cut -= 1;
    }
    body.truncate(cut);
    body.extend(std::iter::repeat_n('.', MAX_BODY_BYTES - cut));
    body
}

async fn after_the_last_hand_over_a_message_is_dead_byte_for_byte(server: Server) {
    // Nothing is left to receive at the end, so the poll must end by itself.
    let tested = server.queue(Duration::from_secs(1), LONG).await;
    let body = garbage();
    assert_eq!(body.len(), MAX_BODY_BYTES);
    tested.backstage.send(&body).await;
    for _ in 0..MAX_RECEIVE_COUNT {
        let delivery = tested.receive_one().await;
        assert!(delivery.body == body, "the body has changed on the way");
        tested.give_back(&delivery).await;
    }
    assert_eq!(tested.queue.receive(1).await.unwrap(), []);
    let dead = tested.backstage.dead().await.expect("a message in the dead-letter queue");
    assert!(dead == body, "the body has changed on the way to the dead-letter queue");
    assert_eq!(tested.backstage.backlog().await, (0, 0));
}

async fn a_long_poll_ends_when_a_message_arrives(server: Server) {
    let tested = server.queue(POLL, LONG).await;
    let send = async {
        // The poll is under way, most likely; if it is not, this test cannot fail wrongly.
        tokio::task::yield_now().await;
        tested.backstage.send("awaited").await;
    };
    let both = async { tokio::join!(tested.receive_one(), send) };
    let (delivery, ()) = tokio::time::timeout(POLL - Duration::from_secs(5), both).await.expect("the poll is woken");
    assert_eq!(delivery.body, "awaited");
}

async fn a_poll_of_an_empty_queue_comes_back_empty(server: Server) {
    let tested = server.queue(Duration::from_secs(1), LONG).await;
    assert_eq!(tested.queue.receive(MAX_RECEIVE).await.unwrap(), []);
}

async fn never_more_than_asked_for(server: Server) {
    let tested = server.queue(POLL, LONG).await;
    for n in 0..14 {
        tested.backstage.send(&n.to_string()).await;
    }
    let mut bodies = vec![];
    // SQS may hand over fewer; what it has handed over is hidden from the next receive.
    for max in [3, 10, 50, 50] {
        let received = tested.queue.receive(max).await.unwrap();
        assert!((1..=max.min(MAX_RECEIVE)).contains(&received.len()), "{} of {max}", received.len());
        bodies.extend(received.into_iter().map(|delivery| delivery.body));
        if bodies.len() == 14 {
            break;
        }
    }
    let handed_over = bodies.len();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), handed_over, "something was handed over twice");
    assert_eq!(tested.backstage.backlog().await, (14 - handed_over, handed_over));
}

async fn an_unknown_queue_is_a_setting_to_mend(server: Server) {
    let tested = server.queue(POLL, LONG).await;
    let config = tested.config.as_ref().unwrap();
    let url = format!("{}/000000000000/no-such-queue", config.endpoint_url().unwrap());
    let queue = SqsQueue::new(config, url, POLL, LONG);
    for failed in [
        queue.receive(1).await.map(drop),
        queue.set_visibility("never-was", LONG).await,
        queue.delete("never-was").await,
    ] {
        assert!(matches!(failed, Err(QueueError::Misconfigured(_))), "{failed:?}");
    }
}

async fn nobody_there_is_a_passing_fault(server: Server) {
    let tested = server.queue(POLL, LONG).await;
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = tested.config.clone().unwrap().into_builder().endpoint_url(format!("http://{free}")).build();
    let queue = SqsQueue::new(&config, format!("http://{free}/000000000000/image-jobs"), POLL, LONG);
    let failed = queue.receive(1).await;
    assert!(matches!(failed, Err(QueueError::Unavailable(_))), "{failed:?}");
}
