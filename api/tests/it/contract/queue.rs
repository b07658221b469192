//! The promises of `JobQueue`, and that a worker can read what the API has sent.

use std::collections::BTreeMap;

use api::queue::{Depth, JobQueue, MAX_BATCH_BYTES, MAX_BATCH_ENTRIES, QueueError, SqsQueue};
use async_trait::async_trait;
use aws_sdk_sqs::types::MessageSystemAttributeName;
use devstack::embedded::sqs_client;
use devstack::stack::provision;
use job::{Job, MAX_PROMPT_CHARS};

use super::{Server, job, kept_everywhere, kept_on_servers, nobody};
use crate::support::MemoryQueue;

kept_everywhere!(
    a_worker_reads_what_was_sent,
    a_batch_of_more_than_ten_is_sent_whole,
    a_batch_of_more_than_one_call_takes_is_sent_whole,
    an_empty_batch_has_no_results,
);

mod servers {
    use super::{
        Server, a_batch_goes_to_the_queue_of_batches, a_message_belongs_to_its_tenant,
        an_unknown_queue_is_a_setting_to_mend, kept_on_servers, nobody_there_is_a_passing_fault,
        the_depth_is_what_waits_and_what_is_held, the_trace_is_in_the_body_and_a_message_has_no_attribute,
    };
    kept_on_servers!(
        a_message_belongs_to_its_tenant,
        a_batch_goes_to_the_queue_of_batches,
        the_depth_is_what_waits_and_what_is_held,
        the_trace_is_in_the_body_and_a_message_has_no_attribute,
        an_unknown_queue_is_a_setting_to_mend,
        nobody_there_is_a_passing_fault,
    );
}

/// The other end of the queue.
#[async_trait]
pub(crate) trait Workers: Send + Sync {
    /// Takes everything out, with the message group where the server tells it.
    async fn take_all(&self) -> Vec<(Job, Option<String>)>;
}

pub(crate) struct SqsWorkers {
    pub(crate) client: aws_sdk_sqs::Client,
    pub(crate) queue_url: String,
}

#[async_trait]
impl Workers for SqsWorkers {
    async fn take_all(&self) -> Vec<(Job, Option<String>)> {
        let mut taken = vec![];
        loop {
            let request = self.client.receive_message().queue_url(&self.queue_url).max_number_of_messages(10);
            let request = request.message_system_attribute_names(MessageSystemAttributeName::All);
            let messages = request.wait_time_seconds(1).send().await.unwrap().messages.unwrap_or_default();
            if messages.is_empty() {
                return taken;
            }
            for message in messages {
                let group = message.attributes().and_then(|all| all.get(&MessageSystemAttributeName::MessageGroupId));
                taken.push((Job::decode(message.body().unwrap()).unwrap(), group.cloned()));
            }
        }
    }
}

#[async_trait]
impl Workers for MemoryQueue {
    async fn take_all(&self) -> Vec<(Job, Option<String>)> {
        self.jobs().into_iter().map(|job| (job, None)).collect()
    }
}

/// Every job must arrive once. A standard queue has no order.
#[track_caller]
fn assert_same(taken: Vec<(Job, Option<String>)>, sent: &[Job]) {
    assert_eq!(taken.len(), sent.len());
    let by_id = |jobs: Vec<Job>| jobs.into_iter().map(|job| (job.id.to_string(), job)).collect::<BTreeMap<_, _>>();
    assert!(by_id(taken.into_iter().map(|(job, _)| job).collect()) == by_id(sent.to_vec()), "a job has changed");
}

async fn a_batch_goes_to_the_queue_of_batches(server: Server) {
    let tested = server.queue().await;
    let client = tested.client.clone().unwrap();
    let urls = provision::queues(&client).await.unwrap();
    let queue = SqsQueue::new(client.clone(), urls.queue_url, Some(urls.batch_url.clone()));
    let single = job("north", "a red fox");
    let batch: Vec<Job> = (0..12).map(|n| job("north", &format!("picture {n}"))).collect();
    queue.enqueue(&single).await.unwrap();
    assert!(queue.enqueue_batch(&batch).await.iter().all(Result::is_ok));
    assert_same(tested.workers.take_all().await, &[single]);
    assert_same(SqsWorkers { client, queue_url: urls.batch_url }.take_all().await, &batch);
}

async fn the_depth_is_what_waits_and_what_is_held(server: Server) {
    let tested = server.queue().await;
    let batch: Vec<Job> = (0..3).map(|n| job("north", &format!("picture {n}"))).collect();
    assert!(tested.queue.enqueue_batch(&batch).await.iter().all(Result::is_ok));
    let client = tested.client.clone().unwrap();
    let urls = provision::queues(&client).await.unwrap();
    client.receive_message().queue_url(&urls.queue_url).visibility_timeout(60).send().await.unwrap();
    assert_eq!(tested.queue.depth().await, Ok(Some(Depth { waiting: 2, in_flight: 1 })));
    let lanes = SqsQueue::new(client, urls.queue_url, Some(urls.batch_url));
    assert_eq!(lanes.depth().await, Ok(None), "an id does not tell of which lane its job is");
}

async fn a_worker_reads_what_was_sent(server: Server) {
    let tested = server.queue().await;
    let job = job("north", "ein Fuchs \u{1F98A} <&> \"quoted\" \\ \t\n + %41 end");
    tested.queue.enqueue(&job).await.unwrap();
    assert_same(tested.workers.take_all().await, &[job]);
}

async fn a_batch_of_more_than_ten_is_sent_whole(server: Server) {
    let tested = server.queue().await;
    let jobs: Vec<_> = (0..2 * MAX_BATCH_ENTRIES + 3).map(|n| job("north", &format!("picture {n}"))).collect();
    assert_eq!(tested.queue.enqueue_batch(&jobs).await, vec![Ok(()); jobs.len()]);
    assert_same(tested.workers.take_all().await, &jobs);
}

async fn a_batch_of_more_than_one_call_takes_is_sent_whole(server: Server) {
    let tested = server.queue().await;
    let longest = "\u{1F98A}".repeat(MAX_PROMPT_CHARS);
    let jobs: Vec<_> = (0..MAX_BATCH_ENTRIES).map(|_| job("north", &longest)).collect();
    assert!(jobs.iter().map(|job| job.encode().len()).sum::<usize>() > MAX_BATCH_BYTES);
    assert_eq!(tested.queue.enqueue_batch(&jobs).await, vec![Ok(()); jobs.len()]);
    assert_same(tested.workers.take_all().await, &jobs);
}

async fn an_empty_batch_has_no_results(server: Server) {
    assert_eq!(server.queue().await.queue.enqueue_batch(&[]).await, []);
}

async fn a_message_belongs_to_its_tenant(server: Server) {
    let tested = server.queue().await;
    tested.queue.enqueue(&job("north", "one")).await.unwrap();
    let sent = tested.queue.enqueue_batch(&[job("south-2", "two"), job("north", "three")]).await;
    assert_eq!(sent, [Ok(()), Ok(()), Ok(())][..2]);
    let taken = tested.workers.take_all().await;
    assert_eq!(taken.len(), 3);
    for (job, group) in taken {
        assert_eq!(group.as_deref(), Some(job.tenant.as_str()));
    }
}

/// SQS takes ten attributes; tracing libraries that used them up have broken sends.
async fn the_trace_is_in_the_body_and_a_message_has_no_attribute(server: Server) {
    let tested = server.queue().await;
    let job = job("north", "one");
    tested.queue.enqueue(&job).await.unwrap();
    assert_eq!(tested.queue.enqueue_batch(std::slice::from_ref(&job)).await, [Ok(())]);
    let client = tested.client.unwrap();
    let url = client.get_queue_url().queue_name(devstack::stack::QUEUE).send().await.unwrap().queue_url.unwrap();
    let mut bodies = vec![];
    while bodies.len() < 2 {
        let request = client.receive_message().queue_url(&url).wait_time_seconds(5).max_number_of_messages(10);
        for message in request.message_attribute_names("All").send().await.unwrap().messages.unwrap_or_default() {
            assert!(message.message_attributes.unwrap_or_default().is_empty());
            bodies.push(message.body.unwrap());
        }
    }
    for body in bodies {
        assert!(body.contains(job.trace.traceparent.as_str()) && body.contains(job.trace.correlation_id.as_str()));
    }
}

async fn an_unknown_queue_is_a_setting_to_mend(server: Server) {
    let tested = server.queue().await;
    let client = tested.client.clone().unwrap();
    // The client sends to its endpoint whatever the URL's host is; the path names the queue.
    let queue = SqsQueue::new(client, "http://127.0.0.1/000000000000/no-such-queue".to_owned(), None);
    let (one, two) = (job("north", "one"), job("north", "two"));
    let mut results = queue.enqueue_batch(&[one.clone(), two]).await;
    results.push(queue.enqueue(&one).await);
    assert_eq!(results.len(), 3);
    for result in results {
        assert!(matches!(result, Err(QueueError::Misconfigured(_))), "{result:?}");
    }
}

async fn nobody_there_is_a_passing_fault(_: Server) {
    let url = nobody();
    let queue = SqsQueue::new(sqs_client(&url), format!("{url}/000000000000/image-jobs"), None);
    let result = queue.enqueue(&job("north", "one")).await;
    assert!(matches!(result, Err(QueueError::Unavailable(_))), "{result:?}");
}
