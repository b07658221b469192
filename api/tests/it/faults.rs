//! What breaks behind the API: the client is told to come back, and nothing is accepted that was not.

use std::sync::Arc;

use api::app::Ports;
use api::queue::{JobQueue, QueueError};
use api::store::{RecordStore, StoreError};
use jiff::Timestamp;
use serde_json::json;

use crate::support::{
    BrokenQueue, BrokenRecords, MemoryQueue, MemoryRecords, PanickingRecords, TestApi, get, job, post, with,
};

fn api_with(queue: Option<QueueError>, records: Option<Arc<dyn RecordStore>>) -> TestApi {
    let (memory_queue, memory_records) = (Arc::new(MemoryQueue::default()), Arc::new(MemoryRecords::default()));
    let queue: Arc<dyn JobQueue> = match queue {
        Some(error) => Arc::new(BrokenQueue(error)),
        None => memory_queue.clone(),
    };
    let records = records.unwrap_or_else(|| memory_records.clone());
    TestApi::with_ports(
        &[],
        memory_queue,
        memory_records,
        Ports { queue, records, now: Timestamp::now, pauses: Default::default() },
    )
}

fn broken_records(error: StoreError) -> Option<Arc<dyn RecordStore>> {
    Some(Arc::new(BrokenRecords(error)))
}

#[tokio::test]
async fn without_the_queue_no_job_is_accepted() {
    for (error, retry_after) in [
        (QueueError::Throttled("secret-host".into()), "2"),
        (QueueError::Unavailable("secret-host".into()), "5"),
        (QueueError::Misconfigured("secret-host".into()), "30"),
        (QueueError::Backlogged, "2"),
    ] {
        let answer = api_with(Some(error), None).submit(json!({"prompt": "fox"})).await;
        answer.assert_problem(503, "queue_unavailable");
        assert_eq!(answer.header("retry-after"), Some(retry_after));
        assert_eq!(answer.header("location"), None);
        assert!(!answer.body.to_string().contains("secret-host"), "{}", answer.body);
    }
}

#[tokio::test]
async fn without_the_store_polls_and_cancels_are_told_to_come_back() {
    for (error, status, code, retry_after) in [
        (StoreError::Unavailable("secret-host".into()), 503, "store_unavailable", Some("2")),
        (StoreError::Misconfigured("secret-host".into()), 503, "store_unavailable", Some("30")),
        (StoreError::Unreadable("secret-host".into()), 500, "internal_error", None),
    ] {
        let api = api_with(None, broken_records(error));
        let path = format!("/v1/jobs/{}", job().id);
        let held = with(get(&path), "prefer", "wait=20");
        for request in [get(&path), held, post(&format!("{path}/cancel"), &json!(null))] {
            let answer = api.send(request).await;
            answer.assert_problem(status, code);
            assert_eq!(answer.header("retry-after"), retry_after);
            assert!(!answer.body.to_string().contains("secret-host"), "{}", answer.body);
        }
    }
}

#[tokio::test]
async fn without_the_store_a_keyed_job_is_still_accepted() {
    let api = api_with(None, broken_records(StoreError::Unavailable("down".into())));
    let keyed = with(post("/v1/jobs", &json!({"prompt": "fox"})), "idempotency-key", "one");
    assert_eq!(api.send(keyed).await.status, 202);
    let batch = json!({"jobs": [{"prompt": "fox", "idempotency_key": "one"}]});
    assert_eq!(api.send(post("/v1/batches", &batch)).await.status, 202);
    assert_eq!(api.queue.jobs().len(), 2);
}

#[tokio::test]
async fn a_panic_is_one_requests_problem() {
    let api = api_with(None, Some(Arc::new(PanickingRecords)));
    let request = with(get(&format!("/v1/jobs/{}", job().id)), "x-correlation-id", "assignment-42");
    let answer = api.send(request).await;
    answer.assert_problem(500, "internal_error");
    assert_eq!(answer.header("x-correlation-id"), Some("assignment-42"));
    assert!(!answer.body.to_string().contains("defect"), "{}", answer.body);
    assert_eq!(api.submit(json!({"prompt": "fox"})).await.status, 202);
}
