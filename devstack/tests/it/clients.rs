//! What a client can do with a job besides polling: follow it, ask for it again, list it. Through the real binaries.

use std::time::{Duration, Instant};

use devstack::bedrock::{BedrockOptions, Detail, Latency};
use devstack::stack::LocalAwsKind;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::Live;

async fn start() -> Live {
    let bedrock = BedrockOptions { detail: Detail::Cheap, ..BedrockOptions::default() };
    Live::start(LocalAwsKind::Embedded, bedrock, |options| options.workers = 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_followed_to_its_end() {
    let live = start().await;
    let id = live.submit_prompt("a picture that is followed").await;
    let path = format!("/v1/jobs/{id}/events");
    let answer = live.request(Method::GET, &path).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    // The body ends with the stream.
    let text = answer.text().await.unwrap();
    let states: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let last = states.last().unwrap();
    assert_eq!(last, &live.view(&id, 0).await, "{text}");
    assert_eq!(last["status"], "succeeded", "{text}");
    assert!(states.windows(2).all(|two| two[0] != two[1]), "nothing is told twice: {text}");

    let id_of_last = text.lines().filter_map(|line| line.strip_prefix("id: ")).next_back().unwrap();
    let again = live.request(Method::GET, &path).header("Last-Event-ID", id_of_last).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::NO_CONTENT);
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canceled_job_is_asked_for_again_and_paid_for_once() {
    let bedrock =
        BedrockOptions { detail: Detail::Cheap, latency: Latency::Fixed { ms: 3000 }, ..BedrockOptions::default() };
    let live = Live::start(LocalAwsKind::Embedded, bedrock, |options| options.workers = 2).await;
    let prompt = "a picture that is wanted again";
    let id = live.submit_prompt(prompt).await;
    live.view_when(&id, |view| view["status"] == "generating").await;
    let started = Instant::now();
    while live.stack.bedrock().ledger().totals.calls == 0 {
        assert!(started.elapsed() < Duration::from_secs(60), "the model was never asked");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let cancel = live.request(Method::POST, &format!("/v1/jobs/{id}/cancel")).send().await.unwrap();
    let canceled: Value = cancel.json().await.unwrap();
    assert_eq!(canceled["status"], "canceled", "{canceled}");
    let url = format!("/v1/jobs/{id}/retry");
    let other = live.request(Method::POST, &url).json(&json!({"prompt": "another picture"})).send().await.unwrap();
    assert_eq!(other.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let again = live.request(Method::POST, &url).json(&json!({ "prompt": prompt })).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::ACCEPTED);
    let view = live.ended(&id, "succeeded").await;
    assert_eq!(view["retries"], 1, "{view}");
    live.queues_become(0, 0).await;
    assert_eq!(live.paid(prompt), 1, "the call that was under way at the cancel");
    let done = live.request(Method::POST, &url).json(&json!({ "prompt": prompt })).send().await.unwrap();
    assert_eq!(done.status(), StatusCode::CONFLICT);
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_jobs_are_listed_newest_first() {
    let live = start().await;
    let mut newest_first = Vec::new();
    for n in 0..5 {
        let id = live.submit_prompt(&format!("picture {n} of a list")).await;
        live.ended(&id, "succeeded").await;
        newest_first.insert(0, id);
    }
    // Entries are written beside the work: the last one may come after the end of its job.
    let started = Instant::now();
    let first = loop {
        let page: Value = live.request(Method::GET, "/v1/jobs?limit=3").send().await.unwrap().json().await.unwrap();
        if page["jobs"][0]["id"] == *newest_first[0] {
            break page;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{page}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let path = first["next_url"].as_str().unwrap().replace(live.stack.api_url(), "");
    let second: Value = live.request(Method::GET, &path).send().await.unwrap().json().await.unwrap();
    let pages = [&first["jobs"], &second["jobs"]].map(|jobs| jobs.as_array().unwrap().clone()).concat();
    let ids: Vec<&str> = pages.iter().map(|job| job["id"].as_str().unwrap()).collect();
    assert_eq!(ids, newest_first);
    assert_eq!(second.get("next_url"), None, "{second}");
    assert_eq!(pages[0], live.view(&newest_first[0], 0).await, "a list tells what a poll tells");
    let blocked: Value =
        live.request(Method::GET, "/v1/jobs?status=blocked").send().await.unwrap().json().await.unwrap();
    assert_eq!(blocked, json!({"jobs": []}));
    live.stop().await;
}
