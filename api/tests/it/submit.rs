//! A job is accepted once, with everything the caller said about it.

use job::Status;
use serde_json::json;

use crate::support::{SOUTH_KEY, TestApi, claimed, north, post, succeeded, with};

#[tokio::test]
async fn an_accepted_job_is_in_the_queue_with_all_it_needs() {
    let api = TestApi::new();
    let body = json!({"prompt": "a red fox", "negative_prompt": "text", "seed": 7, "deadline_seconds": 60});
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = with(post("/v1/jobs", &body), "traceparent", traceparent);
    let answer = api.send(with(request, "x-correlation-id", "assignment-42")).await;

    assert_eq!(answer.status, 202);
    assert_eq!(answer.header("location"), answer.body["status_url"].as_str());
    assert_eq!(answer.header("retry-after"), Some("2"));
    assert_eq!(answer.header("x-correlation-id"), Some("assignment-42"));
    insta::assert_json_snapshot!(answer.redacted(), @r#"
    {
      "created_at": "[time]",
      "id": "[id]",
      "status": "queued",
      "status_url": "/v1/jobs/[id]"
    }
    "#);
    let jobs = api.queue.jobs();
    let [job] = &jobs[..] else { panic!("expected one job: {jobs:?}") };
    assert_eq!(job.id, answer.id());
    assert_eq!(job.tenant, north());
    assert_eq!((job.spec.prompt(), job.spec.negative_prompt(), job.spec.seed()), ("a red fox", Some("text"), Some(7)));
    assert_eq!(job.trace.traceparent.as_str(), traceparent);
    assert_eq!(job.trace.correlation_id.as_str(), "assignment-42");
    assert_eq!((job.deadline_at.unwrap() - job.submitted_at).as_secs(), 60);
    assert_eq!(answer.body["created_at"], json!(job.submitted_at));
}

#[tokio::test]
async fn the_public_base_url_makes_urls_absolute() {
    let api = TestApi::with_args(&["--public-base-url=https://api.example.com"]);
    let answer = api.submit(json!({"prompt": "fox"})).await;
    let url = format!("https://api.example.com/v1/jobs/{}", answer.id());
    assert_eq!(answer.header("location"), Some(&*url));
    assert_eq!(api.get(&format!("/v1/jobs/{}", answer.id())).await.body["urls"]["cancel"], format!("{url}/cancel"));
}

#[tokio::test]
async fn without_a_key_every_request_is_a_new_job_and_the_correlation_id_is_made_up() {
    let api = TestApi::new();
    let first = api.submit(json!({"prompt": "fox"})).await;
    let second = api.submit(json!({"prompt": "fox"})).await;
    assert_ne!(first.id(), second.id());
    assert_ne!(first.header("x-correlation-id"), second.header("x-correlation-id"));
}

#[tokio::test]
async fn a_traceparent_that_does_not_parse_starts_a_new_trace() {
    let api = TestApi::new();
    let answer = api.send(with(post("/v1/jobs", &json!({"prompt": "fox"})), "traceparent", "garbage")).await;
    assert_eq!(answer.status, 202);
    assert_eq!(api.queue.jobs()[0].trace.traceparent.trace_id().len(), 32);
}

#[tokio::test]
async fn an_idempotency_key_gives_the_same_job_to_its_tenant_alone() {
    let api = TestApi::new();
    let keyed = || with(post("/v1/jobs", &json!({"prompt": "fox"})), "idempotency-key", "assignment-42");
    let first = api.send(keyed()).await;
    let again = api.send(keyed()).await;
    let other_tenant = api.send(with(keyed(), "authorization", &format!("Bearer {SOUTH_KEY}"))).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (202, 202));
    assert_eq!(first.id(), again.id());
    assert_ne!(first.id(), other_tenant.id());
    // Nothing is known about the job yet, so it is sent again: the claim makes one job of two messages.
    assert_eq!(api.queue.jobs().len(), 3);
}

#[tokio::test]
async fn a_key_of_a_job_under_way_or_done_is_answered_without_a_message() {
    let api = TestApi::new();
    let keyed = || with(post("/v1/jobs", &json!({"prompt": "fox"})), "idempotency-key", "assignment-42");
    api.send(keyed()).await;
    let job = api.queue.jobs().remove(0);

    api.records.put(&claimed(&job));
    let answer = api.send(keyed()).await;
    assert_eq!((answer.status.as_u16(), &answer.body["status"]), (202, &json!("generating")));
    assert_eq!(answer.header("retry-after"), Some("2"));

    api.records.put(&succeeded(&job));
    let answer = api.send(keyed()).await;
    assert_eq!((answer.status.as_u16(), &answer.body["status"]), (202, &json!("succeeded")));
    assert_eq!(answer.header("retry-after"), None);
    assert_eq!(answer.body["created_at"], json!(job.submitted_at));
    assert_eq!(api.queue.jobs().len(), 1);
}

#[tokio::test]
async fn a_key_of_a_job_that_nobody_works_on_is_sent_again() {
    let api = TestApi::new();
    let keyed = || with(post("/v1/jobs", &json!({"prompt": "fox"})), "idempotency-key", "assignment-42");
    api.send(keyed()).await;
    let mut record = claimed(&api.queue.jobs()[0]);
    record.claim = None;
    record.status = Status::Generating;
    api.records.put(&record);
    assert_eq!(api.send(keyed()).await.body["status"], "queued");
    assert_eq!(api.queue.jobs().len(), 2);
}

#[tokio::test]
async fn a_key_with_another_spec_is_refused() {
    let api = TestApi::new();
    let keyed = |prompt: &str| with(post("/v1/jobs", &json!({"prompt": prompt})), "idempotency-key", "assignment-42");
    api.send(keyed("fox")).await;
    let job = api.queue.jobs().remove(0);
    api.records.put(&succeeded(&job));
    let answer = api.send(keyed("hen")).await;
    answer.assert_problem(422, "idempotency_key_reused");
    assert_eq!(answer.body["instance"], format!("/v1/jobs/{}", job.id));
    assert_eq!(api.queue.jobs().len(), 1);
}

#[tokio::test]
async fn idempotency_keys_are_checked() {
    let api = TestApi::new();
    let keyed = |key: &str| with(post("/v1/jobs", &json!({"prompt": "fox"})), "idempotency-key", key);
    for bad in ["", "two words", &"k".repeat(256)] {
        api.send(keyed(bad)).await.assert_invalid("Idempotency-Key");
    }
    assert_eq!(api.send(keyed(&"k".repeat(255))).await.status, 202);
    let mut twice = keyed("one");
    twice.headers_mut().append("idempotency-key", "two".parse().unwrap());
    api.send(twice).await.assert_invalid("Idempotency-Key");
}
