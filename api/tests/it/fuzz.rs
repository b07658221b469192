//! Hostile request bodies: each is accepted or refused with a problem, and none is our fault. `cargo dev fuzz` runs it for
//! longer.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use api::app::Ports;
use api::queue::{JobQueue, QueueError};
use async_trait::async_trait;
use axum::body::Body;
use axum::http::{Method, header};
use devstack::fuzz::{Recipe, Target, TargetName};
use jiff::Timestamp;
use job::Job;
use tokio::runtime::Runtime;

use crate::support::{MemoryQueue, MemoryRecords, TestApi, request};

/// Takes every job that a worker could read, and keeps none.
struct ReadingQueue;

#[async_trait]
impl JobQueue for ReadingQueue {
    async fn enqueue(&self, job: &Job) -> Result<(), QueueError> {
        let body = job.encode();
        assert!(body.len() <= 1_048_576, "a message of {} bytes", body.len());
        assert_eq!(Job::decode(&body).unwrap(), *job);
        Ok(())
    }

    async fn enqueue_batch(&self, jobs: &[Job]) -> Vec<Result<(), QueueError>> {
        futures::future::join_all(jobs.iter().map(|job| self.enqueue(job))).await
    }
}

/// Shared by all inputs: a closure of the fuzzer must not hold them.
fn service() -> &'static (Runtime, TestApi) {
    static SERVICE: OnceLock<(Runtime, TestApi)> = OnceLock::new();
    SERVICE.get_or_init(|| {
        let (queue, records) = (Arc::new(MemoryQueue::default()), Arc::new(MemoryRecords::default()));
        let ports = Ports {
            queue: Arc::new(ReadingQueue),
            records: records.clone(),
            now: Timestamp::now,
            pauses: Default::default(),
        };
        let limits = ["--jobs-per-minute=1000000000", "--jobs-burst=1000000000", "--polls-per-minute=1000000000"];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        let api = TestApi::with_ports(&limits, queue, records, ports);
        (runtime, api)
    })
}

#[test]
fn request_bodies() {
    let tests = |input: &[u8]| {
        let (runtime, api) = service();
        for path in ["/v1/jobs", "/v1/batches"] {
            let mut request = request(Method::POST, path, Body::from(input.to_vec()));
            request.headers_mut().insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
            let answer = runtime.block_on(api.send(request));
            match answer.status.as_u16() {
                200 | 202 | 207 => {}
                400..500 => {
                    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path}");
                    assert!(!answer.body["detail"].as_str().unwrap().is_empty(), "{path}");
                }
                status => panic!("{path}: {status} {}", answer.body),
            }
        }
    };
    let target =
        Target::start(TargetName::RequestBodies, Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it")), tests);
    let time = devstack::fuzz::time();
    bolero::check!().with_type::<Recipe>().with_test_time(time).for_each(|recipe| target.cook(recipe));
    target.end();
}
