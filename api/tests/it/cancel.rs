//! A cancel is written once and conditionally: it wins before the picture is published and loses after.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use api::app::Ports;
use api::queue::QueueError;
use jiff::Timestamp;
use job::{Job, Notice, Record, Status};
use serde_json::json;

use crate::support::{
    Answer, BrokenQueue, ContendedRecords, MemoryQueue, MemoryRecords, SOUTH_KEY, TestApi, claimed, job, post,
    succeeded, with,
};

async fn cancel(api: &TestApi, job: &Job) -> Answer {
    api.send(post(&format!("/v1/jobs/{}/cancel", job.id), &json!(null))).await
}

fn contended(rival: Record, rivals: usize) -> TestApi {
    let (queue, records) = (Arc::new(MemoryQueue::default()), Arc::new(MemoryRecords::default()));
    let rivals_left = AtomicUsize::new(rivals);
    let store = Arc::new(ContendedRecords { records: records.clone(), rival, rivals_left });
    let ports = Ports { queue: queue.clone(), records: store, now: Timestamp::now, pauses: Default::default() };
    TestApi::with_ports(&[], queue, records, ports)
}

#[tokio::test]
async fn a_job_that_no_worker_has_seen_is_canceled_and_stays_so() {
    let api = TestApi::new();
    let job = job();
    for _ in 0..2 {
        let answer = cancel(&api, &job).await;
        assert_eq!((answer.status.as_u16(), &answer.body["status"]), (200, &json!("canceled")));
        assert_eq!(answer.header("retry-after"), None);
    }
    let record = api.records.record(&job.id).unwrap();
    assert_eq!((record.status, record.tenant), (Status::Canceled, job.tenant));
}

#[tokio::test]
async fn a_worker_at_it_loses_its_claim() {
    let api = TestApi::new();
    let job = job();
    api.records.put(&claimed(&job));
    assert_eq!(cancel(&api, &job).await.body["status"], "canceled");
    let record = api.records.record(&job.id).unwrap();
    assert_eq!((record.status, record.claim, record.attempts), (Status::Canceled, None, 1));
}

#[tokio::test]
async fn a_final_job_cannot_be_canceled() {
    let api = TestApi::new();
    let job = job();
    api.records.put(&succeeded(&job));
    let answer = cancel(&api, &job).await;
    answer.assert_problem(409, "job_already_final");
    assert_eq!(answer.body["instance"], format!("/v1/jobs/{}", job.id));
    assert_eq!(api.records.record(&job.id).unwrap().status, Status::Succeeded);
}

#[tokio::test]
async fn a_worker_that_starts_in_between_is_overtaken() {
    let job = job();
    let api = contended(claimed(&job), 2);
    assert_eq!(cancel(&api, &job).await.body["status"], "canceled");
    assert!(api.records.record(&job.id).unwrap().started_at.is_some(), "the worker's record was replaced");
}

#[tokio::test]
async fn a_worker_that_publishes_in_between_wins() {
    let job = job();
    let api = contended(succeeded(&job), 1);
    cancel(&api, &job).await.assert_problem(409, "job_already_final");
    assert_eq!(api.records.record(&job.id).unwrap().status, Status::Succeeded);
}

#[tokio::test]
async fn endless_rivals_do_not_hold_the_request_for_ever() {
    let job = job();
    let api = contended(claimed(&job), usize::MAX);
    let answer = cancel(&api, &job).await;
    answer.assert_problem(503, "store_unavailable");
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn another_tenants_job_is_not_there() {
    let api = TestApi::new();
    let job = job();
    let request = post(&format!("/v1/jobs/{}/cancel", job.id), &json!(null));
    let south = with(request, "authorization", &format!("Bearer {SOUTH_KEY}"));
    api.send(south).await.assert_problem(404, "job_not_found");
    assert!(api.records.record(&job.id).is_none());
}

#[tokio::test]
async fn a_cancel_is_told_to_the_webhook_queue_once() {
    let api = TestApi::new();
    let (unseen, begun, done) = (job(), job(), job());
    let mut record = claimed(&begun);
    record.retries = 2;
    api.records.put(&record);
    api.records.put(&succeeded(&done));
    for job in [&unseen, &unseen, &begun, &done] {
        cancel(&api, job).await;
    }
    assert_eq!(api.queue.notices(), [Notice::of(&unseen), Notice { retries: 2, ..Notice::of(&begun) }]);
}

/// The worker that receives the job's message tells as well.
#[tokio::test]
async fn a_cancel_that_cannot_be_told_is_done_all_the_same() {
    let (queue, records) = (Arc::new(MemoryQueue::default()), Arc::new(MemoryRecords::default()));
    let broken = Arc::new(BrokenQueue(QueueError::Unavailable("scripted".into())));
    let ports = Ports { queue: broken, records: records.clone(), now: Timestamp::now, pauses: Default::default() };
    let api = TestApi::with_ports(&[], queue, records, ports);
    let job = job();
    assert_eq!(cancel(&api, &job).await.body["status"], "canceled");
    assert_eq!(api.records.record(&job.id).unwrap().status, Status::Canceled);
}
