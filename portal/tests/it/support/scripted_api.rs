//! `ScriptedApi`: the picture API over HTTP, with jobs that go as far as a test lets them, and outages on demand.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::task::JoinSet;

pub const THUMBHASH: &str = "pBgOJwh3iIh/iIeGeDeIl3d4ZwgXh3AD";

/// One job, by its idempotency key.
#[derive(Debug, Clone)]
struct Job {
    prompt: String,
    seed: u64,
    alt_text: Option<String>,
    status: &'static str,
}

#[derive(Debug, Default)]
struct Script {
    jobs: BTreeMap<String, Job>,
    /// Requests that came, in words.
    calls: Vec<String>,
    /// Status and code of every answer, while it is set.
    outage: Option<(u16, &'static str)>,
    /// A part of a prompt that is not taken.
    refused: Option<&'static str>,
    /// A part of a prompt that is answered with a fault of the API's own.
    broken: Option<&'static str>,
    /// Take the request, and lose the answer.
    swallow: bool,
}

/// The API. It ends when dropped.
pub struct ScriptedApi {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    _serving: JoinSet<()>,
}

type Shared = State<Arc<Mutex<Script>>>;

impl ScriptedApi {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, script) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Script::default())));
        let router = Router::new()
            .route("/v1/jobs", post(submit))
            .route("/v1/batches", post(batch))
            .route("/v1/jobs/{id}", get(job))
            .route("/v1/jobs/{id}/cancel", post(cancel))
            .with_state(Arc::clone(&script));
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, script, _serving: serving }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    /// Every job of this prompt is in this state from now on.
    pub fn set(&self, prompt: &str, status: &'static str) {
        self.script().jobs.values_mut().filter(|job| job.prompt.contains(prompt)).for_each(|job| job.status = status);
    }

    pub fn set_outage(&self, outage: Option<(u16, &'static str)>) {
        self.script().outage = outage;
    }

    pub fn refuse(&self, prompt: &'static str) {
        self.script().refused = Some(prompt);
    }

    /// Of several jobs, this one alone cannot be taken.
    pub fn break_item(&self, prompt: Option<&'static str>) {
        self.script().broken = prompt;
    }

    pub fn swallow(&self, swallow: bool) {
        self.script().swallow = swallow;
    }

    /// Loses all jobs, as after a reset.
    pub fn forget(&self) {
        self.script().jobs.clear();
    }

    /// Returns prompt and seed of every job, each once.
    pub fn jobs(&self) -> Vec<(String, u64)> {
        self.script().jobs.values().map(|job| (job.prompt.clone(), job.seed)).collect()
    }

    /// Returns the alternative text of every job, each once.
    pub fn alt_texts(&self) -> Vec<Option<String>> {
        self.script().jobs.values().map(|job| job.alt_text.clone()).collect()
    }

    /// Returns how many requests of this kind came.
    pub fn calls(&self, call: &str) -> usize {
        self.script().calls.iter().filter(|one| *one == call).count()
    }
}

fn problem(status: u16, code: &str) -> Response {
    let body = json!({ "code": code, "detail": "as the test wants it", "status": status });
    (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
}

impl Script {
    fn called(&mut self, call: &str, headers: &HeaderMap) -> Option<Response> {
        self.calls.push(call.to_owned());
        if headers["authorization"] != "Bearer 0123456789abcdef" {
            return Some(problem(401, "unauthenticated"));
        }
        self.outage.map(|(status, code)| problem(status, code))
    }

    /// The same key is the same job.
    fn take(&mut self, body: &Value, key: &str) -> Result<Value, Value> {
        let prompt = body["prompt"].as_str().unwrap().to_owned();
        if self.refused.is_some_and(|refused| prompt.contains(refused)) {
            return Err(json!({ "code": "invalid_request", "detail": "prompt is not as it should be" }));
        }
        if self.broken.is_some_and(|broken| prompt.contains(broken)) {
            return Err(json!({ "code": "internal_error", "detail": "as the test wants it" }));
        }
        let seed = body["seed"].as_u64().unwrap();
        let alt_text = body["alt_text"].as_str().map(str::to_owned);
        let job = self.jobs.entry(key.to_owned());
        let job = job.or_insert(Job { prompt: prompt.clone(), seed, alt_text, status: "queued" });
        assert_eq!((&job.prompt, job.seed), (&prompt, seed), "a key was used for another request");
        Ok(json!({ "id": key, "status": job.status, "status_url": format!("/v1/jobs/{key}") }))
    }

    fn view(&self, key: &str) -> Response {
        let Some(job) = self.jobs.get(key) else { return problem(404, "job_not_found") };
        let mut view = json!({
            "id": key, "status": job.status, "attempts": 1,
            "urls": { "self": format!("/v1/jobs/{key}"), "cancel": format!("/v1/jobs/{key}/cancel") },
        });
        if job.status == "succeeded" {
            view["image"] = json!({
                "url": format!("http://127.0.0.1:8081/images/{}.webp", job.seed), "width": 1024, "height": 1024,
                "bytes": 1, "content_type": "image/webp", "sha256": "", "thumbhash": THUMBHASH,
            });
        }
        if job.status == "blocked" {
            let title = "The image model refused this description because of its content policy.";
            view["error"] = json!({ "code": "content_filtered", "title": title, "detail": "", "retryable": false });
        }
        if job.status == "failed" {
            let title = "Making the image failed several times.";
            view["error"] = json!({ "code": "attempts_exhausted", "title": title, "detail": "", "retryable": true });
        }
        ([("retry-after", "0")], Json(view)).into_response()
    }
}

async fn submit(State(script): Shared, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let mut script = script.lock().unwrap();
    if let Some(answer) = script.called("submit", &headers) {
        return answer;
    }
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    match script.take(&body, &key) {
        Ok(_) if script.swallow => problem(503, "queue_unavailable"),
        Ok(accepted) => (StatusCode::ACCEPTED, [("retry-after", "0")], Json(accepted)).into_response(),
        Err(problem) => (StatusCode::UNPROCESSABLE_ENTITY, Json(problem)).into_response(),
    }
}

async fn batch(State(script): Shared, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let mut script = script.lock().unwrap();
    if let Some(answer) = script.called("batch", &headers) {
        return answer;
    }
    let jobs = body["jobs"].as_array().unwrap();
    let take = |(index, job): (usize, &Value)| {
        let key = job["idempotency_key"].as_str().unwrap();
        match script.take(job, key) {
            Ok(mut accepted) => {
                accepted["index"] = index.into();
                accepted
            }
            Err(error) => json!({ "index": index, "error": error }),
        }
    };
    let results: Vec<Value> = jobs.iter().enumerate().map(take).collect();
    if results.iter().all(|result| result.get("error").is_some()) {
        return problem(422, "invalid_request");
    }
    if script.swallow {
        return problem(503, "queue_unavailable");
    }
    (StatusCode::ACCEPTED, [("retry-after", "0")], Json(json!({ "jobs": results }))).into_response()
}

async fn job(State(script): Shared, headers: HeaderMap, Path(key): Path<String>) -> Response {
    let mut script = script.lock().unwrap();
    script.called("poll", &headers).unwrap_or_else(|| script.view(&key))
}

async fn cancel(State(script): Shared, headers: HeaderMap, Path(key): Path<String>) -> Response {
    let mut script = script.lock().unwrap();
    if let Some(answer) = script.called("cancel", &headers) {
        return answer;
    }
    match script.jobs.get_mut(&key) {
        None => problem(404, "job_not_found"),
        Some(job) if ["succeeded", "blocked", "failed", "expired"].contains(&job.status) => {
            problem(409, "job_already_final")
        }
        Some(job) => {
            job.status = "canceled";
            script.view(&key)
        }
    }
}
