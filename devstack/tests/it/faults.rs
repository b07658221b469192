//! The real binaries against a model that misbehaves, and processes that die.

use std::time::Duration;

use devstack::bedrock::{BedrockOptions, Detail};
use devstack::stack::LocalAwsKind;
use nix::sys::signal::Signal;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::Live;

fn cheap() -> BedrockOptions {
    BedrockOptions { detail: Detail::Cheap, ..BedrockOptions::default() }
}

fn slow() -> BedrockOptions {
    BedrockOptions { latency: "3s".parse().unwrap(), ..cheap() }
}

async fn start(bedrock: BedrockOptions) -> Live {
    Live::start(LocalAwsKind::Embedded, bedrock, |_| {}).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_passing_fault_of_the_model_ends_in_a_picture() {
    let live = start(cheap()).await;
    let faults = [
        ("throttle*2", 1),
        ("model_timeout", 1),
        ("model_error", 1),
        ("internal", 1),
        ("unavailable", 1),
        ("not_ready", 1),
        ("quota", 1),
        ("inference_error", 1),
        ("close", 1),
        // A picture that is one, in another form.
        ("png16", 1),
        ("grey", 1),
        ("rgba", 1),
        ("rgba_transparent", 1),
        ("jpeg", 1),
        // Paid for and useless: asked for once more.
        ("truncated_base64*1", 2),
        ("not_png*1", 2),
        ("bomb*1", 2),
        ("bomb_inflating*1", 2),
    ];
    let prompt = |fault: &str| {
        format!("a fox [[fault:{}]]", if fault.contains('*') { fault.to_owned() } else { format!("{fault}*1") })
    };
    let prompts: Vec<_> = faults.iter().map(|(fault, _)| prompt(fault)).collect();
    let ids = live.submit_batch(&prompts).await;
    for ((id, prompt), (fault, paid)) in ids.iter().zip(&prompts).zip(faults) {
        let view = live.ended(id, "succeeded").await;
        assert_eq!(view["image"]["width"], 1024, "{fault}");
        assert!(live.paid(prompt) <= paid, "{fault}: paid {} times", live.paid(prompt));
    }
    live.queues_become(0, 0).await;
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_falls_silent_is_given_up_and_asked_again() {
    let live = Live::start(LocalAwsKind::Embedded, cheap(), |options| {
        options.worker_env.push(("MODEL_TIMEOUT_SECONDS".into(), "5".into()));
    })
    .await;
    // Before the first byte, and in the middle of the picture.
    let prompts = ["stall", "half_answer"].map(|fault| format!("a fox [[fault:{fault}*1]]"));
    let ids = live.submit_batch(&prompts).await;
    for (id, prompt) in ids.iter().zip(&prompts) {
        let view = live.ended(id, "succeeded").await;
        assert_eq!(view["image"]["width"], 1024, "{prompt}");
        // Once for nothing: billed, and given up by us.
        assert_eq!(live.paid(prompt), 2, "{prompt}");
    }
    assert_eq!(live.stack.bedrock().ledger().totals.paid_unanswered, 2);
    live.queues_become(0, 0).await;
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_the_model_will_never_take_fails_at_once() {
    let live = start(cheap()).await;
    let id = live.submit_prompt("a fox [[fault:validation]]").await;
    let view = live.ended(&id, "failed").await;
    assert_eq!((&view["error"]["code"], &view["error"]["retryable"]), (&json!("request_rejected"), &json!(false)));
    assert_eq!(live.record(&id).await.attempts, 1);
    live.queues_become(0, 0).await;
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_blocked_with_a_sentence_a_teacher_can_read() {
    let live = start(cheap()).await;
    for fault in ["refuse_prompt", "refuse_output", "content_filtered_validation"] {
        let id = live.submit_prompt(&format!("a fox [[fault:{fault}]]")).await;
        let view = live.ended(&id, "blocked").await;
        assert_eq!((&view["error"]["code"], &view["error"]["retryable"]), (&json!("content_filtered"), &json!(false)));
        assert!(view["error"]["title"].as_str().unwrap().contains("content policy"), "{view}");
        assert_eq!(view["image"], Value::Null);
    }
    live.queues_become(0, 0).await;
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_outage_holds_the_jobs_and_says_why() {
    let live = start(cheap()).await;
    for outage in ["access_denied", "expired_credentials", "retired", "legacy"] {
        live.stack.bedrock().set_faults(serde_json::from_value(json!({ "outage": outage })).unwrap()).unwrap();
        let id = live.submit_prompt(&format!("a fox during {outage}")).await;
        let started = std::time::Instant::now();
        let mut reasons = String::new();
        while !reasons.contains("circuit") {
            assert!(started.elapsed() < Duration::from_secs(60), "no worker says why: {reasons}");
            reasons = format!("{:?} {:?}", live.ready(1).await, live.ready(2).await);
        }
        live.stack.bedrock().set_faults(serde_json::from_value(json!({})).unwrap()).unwrap();
        live.ended(&id, "succeeded").await;
    }
    live.queues_become(0, 0).await;
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_lands_in_the_dead_letter_queue_byte_for_byte() {
    let live = start(cheap()).await;
    let sqs = live.stack.sqs_client();
    let garbage: String = (0..256 * 1024).map(|n: u32| char::from(b' ' + u8::try_from(n % 95).unwrap())).collect();
    let poison = ["not json".to_owned(), r#"{"v":1,"id":"x"}"#.to_owned(), garbage];
    for body in &poison {
        sqs.send_message().queue_url(live.stack.queue_url()).message_body(body).send().await.unwrap();
    }
    let neighbour = live.submit_prompt("a fox among poison").await;
    live.ended(&neighbour, "succeeded").await;
    live.queues_become(0, poison.len()).await;

    let mut dead = vec![];
    while dead.len() < poison.len() {
        let received = sqs.receive_message().queue_url(live.stack.dead_letter_url()).max_number_of_messages(10);
        dead.extend(received.send().await.unwrap().messages.unwrap_or_default().into_iter().filter_map(|m| m.body));
    }
    dead.sort();
    let mut expected = poison.to_vec();
    expected.sort();
    assert!(dead == expected, "bodies differ");
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_workers_cost_time_and_at_most_the_calls_in_flight() {
    let live = start(slow()).await;
    let prompts: Vec<_> = (0..24).map(|n| format!("picture {n}")).collect();
    let ids = live.submit_batch(&prompts).await;
    live.view_when(&ids[0], |view| view["status"] == "generating").await;
    live.stack.kill_worker(0).await.unwrap();
    live.stack.signal_worker(1, Signal::SIGTERM).unwrap();
    for id in &ids {
        live.ended(id, "succeeded").await;
    }
    let totals = live.stack.bedrock().ledger().totals;
    // A killed process can have had one call in flight in each of its 16 slots.
    assert!(totals.paid + totals.paid_unanswered <= 24 + 16, "{totals:?}");
    assert!(prompts.iter().all(|prompt| live.paid(prompt) <= 2));
    live.queues_become(0, 0).await;
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_survives_a_restart_of_everything() {
    let (dir, binaries) = (tempfile::TempDir::new().unwrap(), crate::support::binaries_dir());
    let options = || devstack::stack::StackOptions::new(dir.path(), &binaries);
    let stack = devstack::stack::Stack::start(devstack::stack::StackOptions { workers: 0, ..options() }).await.unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = http.post(format!("{}/v1/jobs", stack.api_url())).bearer_auth(stack.api_key());
    let accepted: Value = request.json(&json!({ "prompt": "a fox" })).send().await.unwrap().json().await.unwrap();
    stack.stop().await;

    let stack = devstack::stack::Stack::start(options()).await.unwrap();
    let url = format!("{}{}", stack.api_url(), accepted["status_url"].as_str().unwrap());
    let mut view = Value::Null;
    while view["status"] != "succeeded" {
        let request = http.get(&url).bearer_auth(stack.api_key()).header("Prefer", "wait=5");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "the id is still valid");
        view = answer.json().await.unwrap();
        assert!(["queued", "generating", "processing", "succeeded"].contains(&view["status"].as_str().unwrap()));
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_deadline_and_idempotency_through_the_real_queue() {
    let live = Live::start(LocalAwsKind::Embedded, slow(), |options| {
        options.workers = 1;
        options.worker_env.extend([("WORKER_SLOTS", "1"), ("CPU_THREADS", "1")].map(|(k, v)| (k.into(), v.into())));
    })
    .await;
    let busy = live.submit_prompt("the only slot is taken").await;
    live.view_when(&busy, |view| view["status"] != "queued").await;

    let waiting = live.submit_prompt("to be canceled").await;
    let canceled = live.request(Method::POST, &format!("/v1/jobs/{waiting}/cancel")).send().await.unwrap();
    assert_eq!(canceled.status(), StatusCode::OK);
    let expiring = live.submit(json!({ "prompt": "too late", "deadline_seconds": 1 })).await;

    let repeat = async || {
        let request = live.request(Method::POST, "/v1/jobs").header("Idempotency-Key", "assignment-1");
        let answer = request.json(&json!({ "prompt": "asked for twice" })).send().await.unwrap();
        answer.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned()
    };
    let (first, second) = (repeat().await, repeat().await);
    assert_eq!(first, second);

    live.ended(&busy, "succeeded").await;
    live.ended(&waiting, "canceled").await;
    live.ended(&expiring, "expired").await;
    live.ended(&first, "succeeded").await;
    live.queues_become(0, 0).await;
    assert_eq!((live.paid("to be canceled"), live.paid("too late"), live.paid("asked for twice")), (0, 0, 1));
    live.stop().await;
}
