//! The stream of a job's states: each change once, the end, and what ends it before.

use std::sync::Arc;
use std::time::Duration;

use api::app::Ports;
use api::store::{RecordStore, StoreError};
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use jiff::Timestamp;
use job::{Job, Status};
use serde_json::Value;
use tokio::time::Instant;
use tower::ServiceExt;

use crate::support::{
    BrokenRecords, FaultyRecords, MemoryQueue, SOUTH_KEY, TestApi, claimed, get, job, succeeded, with,
};

/// One block of a stream, by the rules of the standard that matter here.
#[derive(Debug, Default, PartialEq)]
struct Block {
    event: Option<String>,
    id: Option<String>,
    retry: Option<u64>,
    data: Option<Value>,
    is_comment: bool,
}

impl Block {
    fn parse(text: &str) -> Self {
        let mut block = Self::default();
        for line in text.lines() {
            let (field, value) = line.split_once(':').unwrap();
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match field {
                "" => block.is_comment = true,
                "event" => block.event = Some(value),
                "id" => block.id = Some(value),
                "retry" => block.retry = Some(value.parse().unwrap()),
                "data" => block.data = Some(serde_json::from_str(&value).unwrap()),
                other => panic!("what is {other}?"),
            }
        }
        block
    }

    fn status(&self) -> Option<&str> {
        self.data.as_ref()?["status"].as_str()
    }
}

fn request(job: &Job) -> Request<Body> {
    get(&format!("/v1/jobs/{}/events", job.id))
}

fn after(job: &Job, id: &str) -> Request<Body> {
    with(request(job), "last-event-id", id)
}

/// Reads a stream to its end.
async fn blocks(api: &TestApi, request: Request<Body>) -> Vec<Block> {
    let response = api.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let header = |name: &str| response.headers().get(name).unwrap().to_str().unwrap().to_owned();
    assert_eq!((&*header("content-type"), &*header("cache-control")), ("text/event-stream", "no-store"));
    assert_eq!(header("x-accel-buffering"), "no");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    text.split_terminator("\n\n").filter(|block| !block.is_empty()).map(Block::parse).collect()
}

fn told(blocks: &[Block]) -> Vec<&str> {
    blocks.iter().filter_map(Block::status).collect()
}

async fn later(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn each_change_is_told_once_and_the_end_ends_the_stream() {
    let api = TestApi::new();
    let job = job();
    let started = Instant::now();
    let work = async {
        later(3).await;
        let mut record = claimed(&job);
        api.records.put(&record);
        later(10).await;
        // A claim that is renewed is written again, and nothing that a client sees has changed.
        record.claim.as_mut().unwrap().receive_count += 1;
        api.records.put(&record);
        later(10).await;
        record.status = Status::Processing;
        record.updated_at = Timestamp::now();
        api.records.put(&record);
        later(1).await;
        api.records.put(&succeeded(&job));
    };
    let (blocks, ()) = tokio::join!(blocks(&api, request(&job)), work);
    assert_eq!(told(&blocks), ["queued", "generating", "processing", "succeeded"]);
    assert!(started.elapsed() <= Duration::from_secs(27), "{:?}", started.elapsed());
    // One every two seconds, and a few more after each change.
    assert!(api.records.reads() <= 25, "{} reads", api.records.reads());
    assert!(blocks.iter().all(|block| block.event.as_deref() == block.data.as_ref().map(|_| "job")));
    assert_eq!(blocks[0].retry, Some(2000));

    let last = blocks.last().unwrap();
    let view = api.get(&format!("/v1/jobs/{}", job.id)).await;
    assert_eq!(last.data.as_ref(), Some(&view.body), "an event tells what a poll tells");
    assert_eq!(last.id.as_deref(), Some(view.header("etag").unwrap().trim_matches('"')));
    assert!(view.body["urls"]["events"].as_str().unwrap().ends_with("/events"));
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_back_is_told_what_is_new_and_nothing_twice() {
    let api = TestApi::new();
    let job = job();
    // The id as it was sent, and as an ETag.
    for quotes in ["", "\""] {
        api.records.put(&claimed(&job));
        let etag = api.get(&format!("/v1/jobs/{}", job.id)).await.header("etag").unwrap().to_owned();
        let known = format!("{quotes}{}{quotes}", etag.trim_matches('"'));
        let finish = async {
            later(5).await;
            api.records.put(&succeeded(&job));
        };
        let (blocks, ()) = tokio::join!(blocks(&api, after(&job, &known)), finish);
        assert_eq!(told(&blocks), ["succeeded"], "{known}");
        assert_eq!(blocks[0].retry, Some(2000), "{known}");
    }
    // The state has changed since: told at once, and that is the end.
    let started = Instant::now();
    assert_eq!(told(&blocks(&api, after(&job, "0123")).await), ["succeeded"]);
    assert_eq!(started.elapsed(), Duration::ZERO);
    // Nothing will follow: the answer that makes an EventSource stop.
    let last = api.get(&format!("/v1/jobs/{}", job.id)).await.header("etag").unwrap().to_owned();
    let answer = api.send(after(&job, last.trim_matches('"'))).await;
    assert_eq!((answer.status.as_u16(), answer.header("cache-control")), (204, Some("no-store")));
}

#[tokio::test(start_paused = true)]
async fn a_long_silence_is_broken_by_heartbeats_and_ends_after_ten_minutes() {
    let api = TestApi::new();
    let started = Instant::now();
    let blocks = blocks(&api, request(&job())).await;
    assert_eq!(started.elapsed(), Duration::from_secs(600));
    assert_eq!(told(&blocks), ["queued"]);
    let (last, heartbeats) = blocks[1..].split_last().unwrap();
    assert!(heartbeats.iter().all(|block| *block == Block { is_comment: true, ..Block::default() }), "{heartbeats:?}");
    assert!((38..=40).contains(&heartbeats.len()), "{} heartbeats", heartbeats.len());
    assert_eq!((last.retry, last.is_comment), (Some(2000), true));
    assert!((300..=310).contains(&api.records.reads()), "{} reads", api.records.reads());
}

#[tokio::test(start_paused = true)]
async fn a_stop_tells_every_stream_to_come_back() {
    let api = TestApi::new();
    let started = Instant::now();
    let stop = async {
        tokio::time::sleep(Duration::from_millis(4321)).await;
        api.stopping.cancel();
    };
    let (blocks, ()) = tokio::join!(blocks(&api, request(&job())), stop);
    assert_eq!(started.elapsed(), Duration::from_millis(4321));
    assert_eq!(told(&blocks), ["queued"]);
    assert_eq!(blocks.last().unwrap().retry, Some(2000));
}

#[tokio::test(start_paused = true)]
async fn beyond_the_places_a_stream_has_the_state_and_ends() {
    let api = TestApi::with_args(&["--max-streams=1"]);
    let (first, second) = (job(), job());
    let beyond = async {
        later(1).await;
        let started = Instant::now();
        let blocks = blocks(&api, request(&second)).await;
        let known = blocks[0].id.clone().unwrap();
        let again = self::blocks(&api, after(&second, &known)).await;
        assert_eq!(started.elapsed(), Duration::ZERO);
        api.records.put(&succeeded(&first));
        (blocks, again)
    };
    let (held, (blocks, again)) = tokio::join!(blocks(&api, request(&first)), beyond);
    assert_eq!(told(&held), ["queued", "succeeded"]);
    assert_eq!((told(&blocks), blocks[0].retry), (vec!["queued"], Some(5000)));
    assert_eq!((told(&again), again[0].retry), (vec![], Some(5000)), "and nothing twice");
    // The place is free again; `Prefer: wait` has places of its own.
    let waited = api.send(with(get(&format!("/v1/jobs/{}", second.id)), "prefer", "wait=1")).await;
    assert_eq!(waited.header("preference-applied"), Some("wait=1"));
    assert_eq!(self::blocks(&api, request(&second)).await[0].retry, Some(2000));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_gives_its_place_back() {
    let api = TestApi::with_args(&["--max-streams=1"]);
    let job = job();
    tokio::time::timeout(Duration::from_secs(5), blocks(&api, request(&job))).await.map(drop).unwrap_err();
    let reads = api.records.reads();
    later(60).await;
    assert_eq!(api.records.reads(), reads, "nobody listens, so nobody reads");
    api.records.put(&succeeded(&job));
    assert_eq!(blocks(&api, request(&job)).await[0].retry, Some(2000));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_for_a_while_ends_no_stream_and_begins_none() {
    let broken = Arc::new(BrokenRecords(StoreError::Unavailable("secret-host".into())));
    let (queue, faulty) = (Arc::new(MemoryQueue::default()), Arc::new(FaultyRecords::default()));
    let ports = |records: Arc<dyn RecordStore>| Ports {
        queue: queue.clone(),
        records,
        now: Timestamp::now,
        pauses: Default::default(),
    };
    let api = TestApi::with_ports(&[], queue.clone(), Arc::default(), ports(broken));
    api.send(request(&job())).await.assert_problem(503, "store_unavailable");

    let api = TestApi::with_ports(&[], queue.clone(), faulty.records.clone(), ports(faulty.clone()));
    let job = job();
    let trouble = async {
        later(2).await;
        faulty.fail(true);
        api.records.put(&claimed(&job));
        later(60).await;
        faulty.fail(false);
        later(5).await;
        api.records.put(&succeeded(&job));
    };
    let (blocks, ()) = tokio::join!(blocks(&api, request(&job)), trouble);
    assert_eq!(told(&blocks), ["queued", "generating", "succeeded"]);
    assert!(blocks.iter().any(|block| block.is_comment), "heartbeats go on meanwhile");
    assert!(faulty.failed() <= 32, "{} reads of a store in trouble", faulty.failed());
}

#[tokio::test]
async fn it_is_as_private_as_the_job() {
    let api = TestApi::new();
    let job = job();
    let mut anonymous = request(&job);
    anonymous.headers_mut().remove("authorization");
    api.send(anonymous).await.assert_problem(401, "unauthenticated");
    let south = with(request(&job), "authorization", &format!("Bearer {SOUTH_KEY}"));
    api.send(south).await.assert_problem(404, "job_not_found");
    api.get("/v1/jobs/x/events").await.assert_problem(404, "job_not_found");
    assert_eq!(api.records.reads(), 0);
}
