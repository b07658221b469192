//! One tenant cannot take everything.

use serde_json::json;

use crate::support::{Answer, SOUTH_KEY, TestApi, get, job, post, with};

#[track_caller]
fn assert_limited(answer: &Answer) {
    answer.assert_problem(429, "rate_limited");
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn a_tenant_that_submits_too_fast_waits_and_others_do_not() {
    let api = TestApi::with_args(&["--jobs-per-minute=1", "--jobs-burst=2"]);
    let fox = || post("/v1/jobs", &json!({"prompt": "fox"}));
    assert_eq!(api.send(fox()).await.status, 202);
    assert_eq!(api.send(fox()).await.status, 202);
    assert_limited(&api.send(fox()).await);
    assert_eq!(api.send(with(fox(), "authorization", &format!("Bearer {SOUTH_KEY}"))).await.status, 202);
    assert_eq!(api.queue.jobs().len(), 3);
    assert_eq!(api.get(&format!("/v1/jobs/{}", job().id)).await.status, 200, "polls have a limit of their own");
}

#[tokio::test]
async fn a_batch_costs_as_much_as_its_jobs() {
    let api = TestApi::with_args(&["--jobs-per-minute=1", "--jobs-burst=3"]);
    let batch = |count: usize| {
        let jobs: Vec<_> = (0..count).map(|_| json!({"prompt": "fox"})).collect();
        post("/v1/batches", &json!({ "jobs": jobs }))
    };
    api.send(batch(4)).await.assert_invalid("jobs");
    assert_eq!(api.send(batch(2)).await.status, 202);
    assert_limited(&api.send(batch(2)).await);
    assert_eq!(api.send(batch(1)).await.status, 202, "what was refused has cost nothing");
    assert_eq!(api.queue.jobs().len(), 3);
}

#[tokio::test]
async fn polls_are_limited_too() {
    let api = TestApi::with_args(&["--jobs-per-minute=1", "--polls-per-minute=2"]);
    let path = format!("/v1/jobs/{}", job().id);
    assert_eq!(api.get(&path).await.status, 200);
    assert_eq!(api.send(post(&format!("{path}/cancel"), &json!(null))).await.status, 200);
    assert_limited(&api.get(&path).await);
    let south = with(get(&path), "authorization", &format!("Bearer {SOUTH_KEY}"));
    api.send(south).await.assert_problem(404, "job_not_found");
}
