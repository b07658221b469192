//! What a client can do with a job besides polling: follow it, ask for it again, list it. Through the real binaries.

use devstack::bedrock::{BedrockOptions, Detail};
use devstack::stack::LocalAwsKind;
use reqwest::{Method, StatusCode};
use serde_json::Value;

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
