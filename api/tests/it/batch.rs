//! Each job of a batch has a result of its own.

use std::sync::Arc;

use api::app::Ports;
use api::queue::QueueError;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::{BrokenQueue, MemoryQueue, MemoryRecords, TestApi, post, succeeded, with};

async fn batch(api: &TestApi, jobs: Value) -> crate::support::Answer {
    api.send(post("/v1/batches", &json!({ "jobs": jobs }))).await
}

#[tokio::test]
async fn good_and_bad_jobs_are_told_apart() {
    let api = TestApi::new();
    api.queue.refuse_prompt("unlucky");
    let answer = batch(
        &api,
        json!([{"prompt": "fox"}, {"prompt": ""}, {"prompt": "hen", "size": 1}, 7, {"prompt": "unlucky"}, {"prompt": "owl"}]),
    )
    .await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.header("retry-after"), Some("2"));
    insta::assert_json_snapshot!(answer.redacted());
    let prompts: Vec<_> = api.queue.jobs().iter().map(|job| job.spec.prompt().to_owned()).collect();
    assert_eq!(prompts, ["fox", "owl"]);
    for index in [0, 5] {
        let url = answer.body["jobs"][index]["status_url"].as_str().unwrap().to_owned();
        assert_eq!(api.get(&url).await.body["status"], "queued");
    }
}

#[tokio::test]
async fn a_field_that_is_there_twice_is_refused_as_in_a_single_job() {
    let api = TestApi::new();
    let twice = r#"{"prompt": "fox", "prompt": "hen"}"#;
    let raw = |path: &str, body: String| {
        let mut request = post(path, &json!(null));
        *request.body_mut() = body.into();
        request
    };
    let single = api.send(raw("/v1/jobs", twice.to_owned())).await;
    single.assert_invalid("prompt");
    let answer = api.send(raw("/v1/batches", format!(r#"{{"jobs": [{{"prompt": "owl"}}, {twice}]}}"#))).await;
    assert_eq!(answer.status, 202);
    let error = &answer.body["jobs"][1]["error"]["errors"][0];
    assert_eq!((&error["field"], &error["detail"]), (&json!("prompt"), &json!("duplicate field `prompt`")));
    let prompts: Vec<_> = api.queue.jobs().iter().map(|job| job.spec.prompt().to_owned()).collect();
    assert_eq!(prompts, ["owl"]);
}

#[tokio::test]
async fn a_hundred_jobs_fit_and_one_more_does_not() {
    let api = TestApi::new();
    let jobs = |count: usize| json!((0..count).map(|n| json!({"prompt": format!("fox {n}")})).collect::<Vec<_>>());
    let answer = batch(&api, jobs(100)).await;
    assert_eq!((&answer.body["accepted"], &answer.body["refused"]), (&json!(100), &json!(0)));
    assert_eq!(api.queue.jobs().len(), 100);
    for count in [0, 101] {
        batch(&api, jobs(count)).await.assert_invalid("jobs");
    }
    assert_eq!(api.queue.jobs().len(), 100);
}

#[tokio::test]
async fn a_batch_of_bad_jobs_is_one_problem_naming_all_of_them() {
    let api = TestApi::new();
    let answer = batch(&api, json!([{"prompt": " "}, {}, 7, {"prompt": "x", "idempotency_key": "two words"}])).await;
    answer.assert_problem(422, "invalid_request");
    let fields: Vec<_> = answer.body["errors"].as_array().unwrap().iter().map(|error| &error["field"]).collect();
    assert_eq!(fields, ["jobs[0].prompt", "jobs[1].prompt", "jobs[2]", "jobs[3].idempotency_key"]);
}

#[tokio::test]
async fn when_nothing_could_be_queued_the_batch_is_unavailable() {
    let (queue, records) = (Arc::new(MemoryQueue::default()), Arc::new(MemoryRecords::default()));
    let broken = Arc::new(BrokenQueue(QueueError::Unavailable("secret-host is down".into())));
    let ports = Ports { queue: broken, records: records.clone(), now: Timestamp::now, pauses: Default::default() };
    let api = TestApi::with_ports(&[], queue, records, ports);
    let answer = batch(&api, json!([{"prompt": "fox"}, {"prompt": ""}])).await;
    answer.assert_problem(503, "queue_unavailable");
    assert_eq!(answer.header("retry-after"), Some("5"));
    assert!(!answer.body.to_string().contains("secret-host"));
}

#[tokio::test]
async fn items_have_idempotency_keys_of_their_own() {
    let api = TestApi::new();
    let fox = json!({"prompt": "fox", "idempotency_key": "one"});
    let answer = batch(&api, json!([fox, fox, {"prompt": "hen", "idempotency_key": "one"}])).await;
    assert_eq!(answer.body["jobs"][0]["id"], answer.body["jobs"][1]["id"]);
    assert_eq!(answer.body["jobs"][2]["error"]["code"], "idempotency_key_reused");
    assert_eq!(api.queue.jobs().len(), 1, "the same key twice in a batch is one message");

    let job = api.queue.jobs().remove(0);
    api.records.put(&succeeded(&job));
    let again = batch(&api, json!([fox, {"prompt": "hen", "idempotency_key": "one"}])).await;
    assert_eq!(again.body["jobs"][0]["status"], "succeeded");
    assert_eq!(again.body["jobs"][1]["error"]["code"], "idempotency_key_reused");
    assert_eq!(api.queue.jobs().len(), 1);
    // The key of an item and the header of a single job are the same key.
    let single = with(post("/v1/jobs", &json!({"prompt": "fox"})), "idempotency-key", "one");
    assert_eq!(api.send(single).await.id(), job.id);
}

#[tokio::test]
async fn the_header_of_single_jobs_is_refused() {
    let api = TestApi::new();
    let request = with(post("/v1/batches", &json!({"jobs": [{"prompt": "fox"}]})), "idempotency-key", "one");
    api.send(request).await.assert_invalid("Idempotency-Key");
}
