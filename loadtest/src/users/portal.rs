//! `Portal`: what a client of the API does, measured: submit, poll as the API says, download through the CDN.

use std::time::{Duration, Instant};

use job::Status;
use reqwest::header::{self, HeaderMap};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::prompts::Asked;
use crate::failure::Failure;
use crate::measure::{Metric, Operation, Picture, Problem, Recorder, Start};
use crate::target::{Guard, Target};

/// When an answer does not say when to come back.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);
/// Longest pause that an answer may ask for; the API's own are a few seconds.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);
/// The longest that the API holds an answer, in seconds.
const HOLD_SECONDS: u64 = 20;
/// A job that has not ended by then is given up: longer than the alarm on old messages waits.
const PATIENCE: Duration = Duration::from_secs(900);

/// A client of the API and the CDN.
#[derive(Debug, Clone)]
pub struct Portal {
    http: Client,
    api: Url,
    key: String,
    guard: Guard,
}

/// How a client waits for its picture; the API offers both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Asks again after `Retry-After`, with the `ETag` it has.
    Polling,
    /// Has its answers held: `Prefer: wait`.
    Held,
}

/// An accepted job.
#[derive(Debug, Deserialize)]
pub struct Accepted {
    status_url: String,
    /// In how many seconds the API expects it to be done.
    #[serde(default)]
    eta_seconds: Option<f64>,
    #[serde(skip)]
    retry_after: Duration,
}

/// The part of a job that is used here.
#[derive(Debug, Deserialize)]
struct JobView {
    status: Status,
    created_at: Option<jiff::Timestamp>,
    finished_at: Option<jiff::Timestamp>,
    image: Option<Picture>,
    error: Option<FailureView>,
    timings: Option<TimingsView>,
}

#[derive(Debug, Deserialize)]
struct FailureView {
    code: String,
}

#[derive(Debug, Deserialize)]
struct TimingsView {
    queue_wait_seconds: Option<f64>,
    upload_seconds: Option<f64>,
}

impl Portal {
    /// Makes a client of the system under test.
    ///
    /// # Errors
    /// When there is no key.
    pub fn new(target: &Target) -> Result<Self, Failure> {
        let (http, key) = (target.http(), target.key()?.to_owned());
        Ok(Self { http, api: target.api.clone(), key, guard: target.guard.clone() })
    }

    /// Returns the origin of the API.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.api.as_str()
    }

    /// Submits a job. While the API asks to come back later the client does, with the same idempotency key.
    pub async fn submit(&self, asked: &Asked, start: Start, recorder: &Recorder) -> Option<Accepted> {
        let url = self.api.join("v1/jobs").expect("a relative path can be joined");
        let body = json!({ "prompt": asked.prompt, "seed": asked.seed });
        let give_up = Instant::now() + PATIENCE;
        loop {
            let request = self.http.post(url.clone()).bearer_auth(&self.key).json(&body);
            let request = request.header("idempotency-key", &asked.key).header("x-correlation-id", &asked.key);
            let (problem, pause) = match request.send().await {
                Ok(response) if response.status() == StatusCode::ACCEPTED => {
                    let pause = retry_after(response.headers());
                    match json_of::<Accepted>(response).await {
                        Ok(mut accepted) => {
                            recorder.succeeded(Operation::Submit);
                            recorder.time(Metric::AcceptSeconds, start.timing());
                            recorder.accepted(&asked.prompt);
                            accepted.retry_after = pause;
                            return Some(accepted);
                        }
                        Err(problem) => (problem, None),
                    }
                }
                Ok(response) => {
                    let pause = comes_back(response.status()).then(|| retry_after(response.headers()));
                    (problem_of(response).await, pause)
                }
                // The key makes it safe to send it again when nobody knows whether it arrived.
                Err(error) => (problem_of_error(&error), Some(DEFAULT_RETRY_AFTER)),
            };
            recorder.failed(Operation::Submit, &problem);
            tokio::time::sleep(pause.filter(|pause| Instant::now() + *pause < give_up)?).await;
        }
    }

    /// Follows a job to its end and returns its picture.
    pub async fn follow(&self, accepted: &Accepted, waiting: Waiting, recorder: &Recorder) -> Option<Picture> {
        let failed = |code: &str| {
            recorder.failed(Operation::Job, &ours(code));
            None
        };
        let Some(url) = self.api.join(&accepted.status_url).ok().filter(|url| self.guard.allows(url)) else {
            return failed("foreign_host");
        };
        let give_up = Instant::now() + PATIENCE;
        let mut etag = None;
        let mut pause = if waiting == Waiting::Held { Duration::ZERO } else { accepted.retry_after };
        let view = loop {
            tokio::time::sleep(pause).await;
            if Instant::now() > give_up {
                return failed("gave_up");
            }
            match self.look(&url, waiting, &mut etag, recorder).await {
                Look::Final(view) => break view,
                Look::Again(after) => pause = after,
                Look::Lost(code) => return failed(&code),
            }
        };
        tell(&view, accepted.eta_seconds, recorder);
        match (view.status, view.image) {
            (Status::Succeeded, Some(picture)) => {
                recorder.succeeded(Operation::Job);
                Some(picture)
            }
            (status, _) => {
                let code = view.error.map_or_else(|| format!("job_{status}"), |error| error.code);
                failed(&code)
            }
        }
    }

    /// Reads the state once.
    async fn look(&self, url: &Url, waiting: Waiting, etag: &mut Option<String>, recorder: &Recorder) -> Look {
        let mut request = self.http.get(url.clone()).bearer_auth(&self.key);
        if waiting == Waiting::Held {
            request = request.header("prefer", format!("wait={HOLD_SECONDS}"));
        }
        if let Some(etag) = &*etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        let start = Start::now(None);
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                recorder.failed(Operation::Poll, &problem_of_error(&error));
                return Look::Again(DEFAULT_RETRY_AFTER);
            }
        };
        if waiting == Waiting::Polling {
            recorder.time(Metric::PollSeconds, start.timing());
        }
        let (status, pause) = (response.status(), retry_after(response.headers()));
        if status == StatusCode::NOT_MODIFIED {
            recorder.succeeded(Operation::Poll);
            recorder.count(|counts| counts.not_modified += 1);
            return Look::Again(pause);
        }
        if status != StatusCode::OK {
            let problem = problem_of(response).await;
            recorder.failed(Operation::Poll, &problem);
            return if comes_back(status) { Look::Again(pause) } else { Look::Lost(problem.code) };
        }
        *etag = text_of(response.headers(), header::ETAG.as_str()).map(str::to_owned);
        match json_of::<JobView>(response).await {
            Ok(view) => {
                recorder.succeeded(Operation::Poll);
                if view.status.is_final() { Look::Final(Box::new(view)) } else { Look::Again(pause) }
            }
            Err(problem) => {
                recorder.failed(Operation::Poll, &problem);
                Look::Lost(problem.code)
            }
        }
    }

    /// Downloads a picture and compares it with what the API said of it. Returns whether it is all there.
    pub async fn download(&self, picture: &Picture, start: Start, recorder: &Recorder) -> bool {
        let Some(url) = Url::parse(&picture.url).ok().filter(|url| self.guard.allows(url)) else {
            // No request: none is sent.
            recorder.failed(Operation::Job, &ours("foreign_host"));
            return false;
        };
        match self.fetch(url, picture, start, recorder).await {
            Ok(()) => {
                recorder.succeeded(Operation::Download);
                true
            }
            Err(problem) => {
                recorder.failed(Operation::Download, &problem);
                false
            }
        }
    }

    async fn fetch(&self, url: Url, picture: &Picture, start: Start, recorder: &Recorder) -> Result<(), Problem> {
        // Without the key: a picture is public, and the CDN is not the API.
        let response = self.http.get(url).send().await.map_err(|error| problem_of_error(&error))?;
        if response.status() != StatusCode::OK {
            let status = response.status();
            return Err(Problem { code: format!("cdn_{}", status.as_u16()), unavailable: status.is_server_error() });
        }
        let served = text_of(response.headers(), "x-cache").map(was_hit);
        let is_webp = text_of(response.headers(), header::CONTENT_TYPE.as_str()) == Some("image/webp");
        let bytes = response.bytes().await.map_err(|error| problem_of_error(&error))?;
        recorder.time(Metric::CdnDownloadSeconds, start.timing());
        recorder.count(|counts| {
            counts.bytes += bytes.len() as u64;
            counts.cache_hits += u64::from(served == Some(true));
            counts.cache_misses += u64::from(served == Some(false));
        });
        let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let is_whole = is_webp && bytes.len() as u64 == picture.bytes && hash == picture.sha256;
        if is_whole { Ok(()) } else { Err(ours("picture_differs")) }
    }

    /// Asks the API for something that needs neither queue nor store, before load is sent to it.
    ///
    /// # Errors
    /// When it does not answer, or refuses the key.
    pub async fn greet(&self) -> Result<(), Failure> {
        // An id that was never issued: 404 with a good key, 401 without.
        let url = self.api.join("v1/jobs/none").expect("a relative path can be joined");
        let request: RequestBuilder = self.http.get(url).bearer_auth(&self.key);
        let response = request.send().await.map_err(|error| {
            Failure::fault(format!(
                "no API answers at {} ({}): is it running?",
                self.api,
                problem_of_error(&error).code
            ))
        })?;
        match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(Failure::usage(format!("{} refuses the key: give a valid one with --key", self.api)))
            }
            status if status.is_server_error() => {
                Err(Failure::fault(format!("{} answers {status}: see its logs", self.api)))
            }
            _ => Ok(()),
        }
    }
}

/// Adds what the record of an ended job tells.
fn tell(view: &JobView, eta_seconds: Option<f64>, recorder: &Recorder) {
    if let (Status::Succeeded, Some(created), Some(finished)) = (view.status, view.created_at, view.finished_at) {
        let made_seconds = finished.duration_since(created).as_secs_f64();
        recorder.told(Metric::MadeSeconds, made_seconds);
        if let Some(eta) = eta_seconds {
            recorder.foretold(eta, made_seconds);
        }
    }
    let timings = view.timings.as_ref();
    if let Some(seconds) = timings.and_then(|timings| timings.queue_wait_seconds) {
        recorder.told(Metric::QueueWaitSeconds, seconds);
    }
    if let Some(seconds) = timings.and_then(|timings| timings.upload_seconds) {
        recorder.told(Metric::UploadSeconds, seconds);
    }
}

/// A problem that this client found, and no outage.
fn ours(code: &str) -> Problem {
    Problem { code: code.to_owned(), unavailable: false }
}

/// What a look at a job brought.
enum Look {
    Final(Box<JobView>),
    Again(Duration),
    Lost(String),
}

/// `Hit` and `RefreshHit` come from the cache; `Miss` and everything else from the origin.
fn was_hit(x_cache: &str) -> bool {
    x_cache.starts_with("Hit") || x_cache.starts_with("RefreshHit")
}

/// Whether a client should try again, as the API's `Retry-After` says.
fn comes_back(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds = text_of(headers, header::RETRY_AFTER.as_str()).and_then(|text| text.parse().ok());
    seconds.map_or(DEFAULT_RETRY_AFTER, Duration::from_secs).min(MAX_RETRY_AFTER)
}

/// The code of a problem document, or the status where there is none.
async fn problem_of(response: Response) -> Problem {
    let status = response.status();
    let body: Value = response.json().await.unwrap_or_default();
    let code = body["code"].as_str().map_or_else(|| format!("http_{}", status.as_u16()), str::to_owned);
    Problem { code, unavailable: status.is_server_error() }
}

async fn json_of<T: for<'de> Deserialize<'de>>(response: Response) -> Result<T, Problem> {
    let bytes = response.bytes().await.map_err(|error| problem_of_error(&error))?;
    serde_json::from_slice(&bytes).map_err(|_| Problem { code: "unreadable_answer".to_owned(), unavailable: false })
}

fn problem_of_error(error: &reqwest::Error) -> Problem {
    let code = if error.is_timeout() {
        "timeout"
    } else if error.is_connect() {
        "connect"
    } else if error.is_body() || error.is_decode() {
        "answer_cut_off"
    } else {
        "request_failed"
    };
    Problem { code: code.to_owned(), unavailable: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_tells_hits_from_misses() {
        assert!(was_hit("Hit from cloudfront") && was_hit("RefreshHit from cloudfront"));
        assert!(!was_hit("Miss from cloudfront") && !was_hit("Error from cloudfront"));
    }

    #[test]
    fn the_api_says_when_to_come_back() {
        let mut headers = HeaderMap::new();
        assert_eq!(retry_after(&headers), DEFAULT_RETRY_AFTER);
        headers.insert("retry-after", "7".parse().unwrap());
        assert_eq!(retry_after(&headers), Duration::from_secs(7));
        headers.insert("retry-after", "86400".parse().unwrap());
        assert_eq!(retry_after(&headers), MAX_RETRY_AFTER);
        headers.insert("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT".parse().unwrap());
        assert_eq!(retry_after(&headers), DEFAULT_RETRY_AFTER);
    }

    #[test]
    fn the_view_of_the_api_is_understood() {
        let view: JobView = serde_json::from_value(json!({
            "id": "x", "status": "succeeded", "created_at": "2026-11-24T12:00:00Z", "finished_at": "2026-11-24T12:00:02Z",
            "attempts": 1, "image": { "url": "u", "sha256": "s", "bytes": 5, "width": 1024 },
            "timings": { "queue_wait_seconds": 0.5, "upload_seconds": 0.25 }, "urls": {},
        }))
        .unwrap();
        let recorder = Recorder::new(Duration::from_secs(60));
        tell(&view, Some(2.5), &recorder);
        let measured = recorder.measured();
        assert!((measured.latencies[&Metric::MadeSeconds].p50 - 2.0).abs() < 0.01);
        assert!((measured.latencies[&Metric::UploadSeconds].p50 - 0.25).abs() < 0.01);
        assert!((measured.latencies[&Metric::QueueWaitSeconds].p50 - 0.5).abs() < 0.01);
        assert_eq!(measured.eta_error_percent, Some(25.0));
    }
}
