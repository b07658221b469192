//! `cargo dev submit` against an API that behaves as the contract allows.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use devstack::submit::{Saved, SubmitArgs, SubmitError, submit};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Answers of the API in the order they are given, and what it was asked.
#[derive(Default)]
struct Script {
    posts: VecDeque<(u16, Value)>,
    views: VecDeque<Value>,
    asked: Vec<(HeaderMap, Value)>,
}

struct Fixture {
    origin: String,
    script: Arc<Mutex<Script>>,
    _server: JoinSet<std::io::Result<()>>,
}

impl Fixture {
    async fn start(posts: Vec<(u16, Value)>, views: Vec<Value>) -> Self {
        let script = Script { posts: posts.into(), views: views.into(), ..Script::default() };
        let script = Arc::new(Mutex::new(script));
        let router = Router::new()
            .route("/v1/jobs", post(accept))
            .route("/v1/jobs/1", get(view))
            .route("/images/1.webp", get(async || "picture"))
            .with_state(Arc::clone(&script));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await });
        Self { origin, script, _server: server }
    }

    async fn submit(&self, change: impl FnOnce(&mut SubmitArgs)) -> Result<(Saved, Vec<u8>), SubmitError> {
        let dir = tempfile::tempdir().unwrap();
        let mut args = SubmitArgs {
            prompt: "a red fox".to_owned(),
            negative_prompt: None,
            seed: Some(7),
            out: Some(dir.path().join("fox.webp")),
            api: None,
            key: None,
            timeout: 60,
        };
        change(&mut args);
        let saved = submit(&args, &self.origin, "the-key").await?;
        let bytes = std::fs::read(&saved.path).unwrap();
        Ok((saved, bytes))
    }
}

type Answer = (StatusCode, [(&'static str, &'static str); 1], Json<Value>);

fn answer(status: u16, body: Value) -> Answer {
    (StatusCode::from_u16(status).unwrap(), [("retry-after", "0")], Json(body))
}

async fn accept(State(script): State<Arc<Mutex<Script>>>, headers: HeaderMap, Json(body): Json<Value>) -> Answer {
    let mut script = script.lock().unwrap();
    script.asked.push((headers, body));
    let (status, body) = script.posts.pop_front().expect("no more submissions than scripted");
    answer(status, body)
}

async fn view(State(script): State<Arc<Mutex<Script>>>, headers: HeaderMap) -> Answer {
    assert!(headers["prefer"].to_str().unwrap().starts_with("wait="));
    assert_eq!(headers["authorization"], "Bearer the-key");
    let mut script = script.lock().unwrap();
    let next = script.views.pop_front().expect("no more polls than scripted");
    answer(200, next)
}

fn accepted() -> (u16, Value) {
    (202, json!({ "id": "1", "status": "queued", "status_url": "/v1/jobs/1" }))
}

#[tokio::test]
async fn a_picture_is_followed_and_saved() {
    let fixture = Fixture::start(
        vec![(503, json!({ "title": "busy", "detail": "later" })), accepted()],
        vec![json!({ "status": "generating" }), json!({ "status": "processing" })],
    )
    .await;
    let url = format!("{}/images/1.webp", fixture.origin);
    let succeeded = json!({ "status": "succeeded", "image": { "url": url } });
    fixture.script.lock().unwrap().views.push_back(succeeded);
    let (saved, bytes) = fixture.submit(|_| {}).await.unwrap();
    assert_eq!((saved.url, saved.bytes, bytes.as_slice()), (url, 7, &b"picture"[..]));

    // Sent again after "busy", under the same key: it stays one job.
    let asked = std::mem::take(&mut fixture.script.lock().unwrap().asked);
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].0["idempotency-key"], asked[1].0["idempotency-key"]);
    assert_eq!(asked[1].1, json!({ "prompt": "a red fox", "seed": 7 }));
}

#[tokio::test]
async fn a_blocked_prompt_is_told_in_the_api_s_words() {
    let error = json!({ "title": "The prompt was refused", "detail": "rephrase it" });
    let fixture = Fixture::start(vec![accepted()], vec![json!({ "status": "blocked", "error": error })]).await;
    let error = fixture.submit(|_| {}).await.unwrap_err().to_string();
    assert_eq!(error, "the job 1 blocked: The prompt was refused: rephrase it");
}

#[tokio::test]
async fn a_refused_request_is_told_in_the_api_s_words() {
    let problem = json!({ "title": "Invalid request", "detail": "prompt is empty" });
    let fixture = Fixture::start(vec![(422, problem)], Vec::new()).await;
    let error = fixture.submit(|_| {}).await.unwrap_err();
    assert_eq!(error.to_string(), "Invalid request: prompt is empty");
}

#[tokio::test]
async fn a_picture_that_cannot_be_saved_names_the_file() {
    let fixture = Fixture::start(vec![accepted()], Vec::new()).await;
    let url = format!("{}/images/1.webp", fixture.origin);
    fixture.script.lock().unwrap().views.push_back(json!({ "status": "succeeded", "image": { "url": url } }));
    let error = fixture.submit(|args| args.out = Some("/nonexistent/fox.webp".into())).await.unwrap_err().to_string();
    assert!(error.contains("/nonexistent/fox.webp"), "{error}");
}

#[tokio::test]
async fn no_api_is_an_advice_to_start_one() {
    let fixture = Fixture::start(Vec::new(), Vec::new()).await;
    let Fixture { origin, _server: mut server, .. } = fixture;
    server.shutdown().await;
    let args = SubmitArgs {
        prompt: "x".to_owned(),
        negative_prompt: None,
        seed: None,
        out: None,
        api: None,
        key: None,
        timeout: 1,
    };
    let error = submit(&args, &origin, "the-key").await.unwrap_err().to_string();
    assert!(error.contains("cargo dev up"), "{error}");
}
