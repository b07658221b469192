//! Jobs at a steady rate, each followed to the bytes of its picture.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use job::Status;
use reqwest::Client;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::stack::Stack;

/// The longest hold of `Prefer: wait`, in seconds.
const WAIT_SECONDS: u64 = 20;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(40);
/// Far above what any job takes. A job that is not final by then has failed.
const PATIENCE: Duration = Duration::from_secs(300);

/// What became of the jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub succeeded: u64,
    pub failed: u64,
    pub first_failure: Option<String>,
}

#[derive(Default)]
struct Tally {
    succeeded: AtomicU64,
    failed: AtomicU64,
    first_failure: Mutex<Option<String>>,
}

impl Tally {
    fn counts(&self) -> Counts {
        Counts {
            succeeded: self.succeeded.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            first_failure: self.first_failure.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    fn count(&self, ended: Result<(), String>) {
        match ended {
            Ok(()) => {
                self.succeeded.fetch_add(1, Ordering::Relaxed);
            }
            Err(reason) => {
                tracing::warn!(reason, "a job failed");
                self.failed.fetch_add(1, Ordering::Relaxed);
                self.first_failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
            }
        }
    }
}

/// A client of the stack, as the portal's backend is one.
#[derive(Clone)]
struct Caller {
    http: Client,
    api_url: String,
    key: String,
}

#[derive(Deserialize)]
struct Seen {
    status: Status,
    image: Option<Image>,
    urls: Urls,
}

#[derive(Deserialize)]
struct Image {
    url: String,
    bytes: u64,
}

#[derive(Deserialize)]
struct Urls {
    #[serde(rename = "self")]
    this: String,
}

impl Caller {
    fn new(stack: &Stack) -> Self {
        let http = Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build();
        let http = http.expect("a client without TLS has nothing to load");
        Self { http, api_url: stack.api_url().to_owned(), key: stack.api_key().to_owned() }
    }

    /// Submits one job and waits for its picture.
    async fn picture(&self) -> Result<(), String> {
        let told = |error: reqwest::Error| service::detail::causes(&error);
        let prompt = json!({ "prompt": "a lake between wooded hills, early morning" });
        let submission = self.http.post(format!("{}/v1/jobs", self.api_url)).bearer_auth(&self.key).json(&prompt);
        let answer = submission.send().await.and_then(reqwest::Response::error_for_status).map_err(told)?;
        let location = answer.headers().get("location").and_then(|value| value.to_str().ok());
        let mut path = location.ok_or("the API gave no Location")?.to_owned();
        let since = Instant::now();
        let image = loop {
            let poll = self.http.get(format!("{}{path}", self.api_url)).bearer_auth(&self.key);
            let poll = poll.header("Prefer", format!("wait={WAIT_SECONDS}"));
            let answer = poll.send().await.and_then(reqwest::Response::error_for_status).map_err(told)?;
            let seen: Seen = answer.json().await.map_err(told)?;
            match (seen.status, seen.image) {
                (Status::Succeeded, Some(image)) => break image,
                (status, _) if status.is_final() => return Err(format!("{} ended as {status}", seen.urls.this)),
                (status, _) if since.elapsed() > PATIENCE => {
                    return Err(format!("{} is {status} after {} s", seen.urls.this, PATIENCE.as_secs()));
                }
                _ => path = seen.urls.this,
            }
        };
        let picture = self.http.get(&image.url).send().await.and_then(reqwest::Response::error_for_status);
        let bytes = picture.map_err(told)?.bytes().await.map_err(told)?;
        if bytes.len() as u64 == image.bytes { Ok(()) } else { Err(format!("{} is cut off", image.url)) }
    }
}

/// Returns the jobs a second while `clients` keep the queue full, without the first quarter of the time, and what became of
/// all jobs.
pub(super) async fn full_rate(stack: &Stack, clients: usize, length: Duration) -> (f64, Counts) {
    let (caller, tally, stop) = (Caller::new(stack), Arc::new(Tally::default()), CancellationToken::new());
    let tasks = TaskTracker::new();
    for _ in 0..clients {
        let (caller, tally, stop) = (caller.clone(), Arc::clone(&tally), stop.clone());
        tasks.spawn(async move {
            while !stop.is_cancelled() {
                tally.count(caller.picture().await);
            }
        });
    }
    tasks.close();
    let succeeded = || tally.succeeded.load(Ordering::Relaxed);
    tokio::time::sleep(length / 4).await;
    let (before, since) = (succeeded(), Instant::now());
    tokio::time::sleep(length * 3 / 4).await;
    let made = u32::try_from(succeeded() - before).unwrap_or(u32::MAX);
    let rate = f64::from(made) / since.elapsed().as_secs_f64();
    stop.cancel();
    tasks.wait().await;
    (rate, tally.counts())
}

/// A load under way.
pub(super) struct Load {
    tally: Arc<Tally>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Load {
    /// Submits `rate` jobs a second until it is stopped, however long each takes.
    pub(super) fn start(stack: &Stack, rate: f64) -> Self {
        let (caller, tally, stop) = (Caller::new(stack), Arc::new(Tally::default()), CancellationToken::new());
        let tasks = TaskTracker::new();
        let pacing = {
            let (tally, stop, tasks) = (Arc::clone(&tally), stop.clone(), tasks.clone());
            async move {
                let mut due = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
                // A machine that stood still is no reason for a burst.
                due.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        _ = due.tick() => {}
                    }
                    let (caller, tally) = (caller.clone(), Arc::clone(&tally));
                    tasks.spawn(async move { tally.count(caller.picture().await) });
                }
            }
        };
        tasks.spawn(pacing);
        Self { tally, stop, tasks }
    }

    pub(super) fn succeeded(&self) -> u64 {
        self.tally.succeeded.load(Ordering::Relaxed)
    }

    /// Submits nothing more, and waits for what is under way.
    pub(super) async fn stop(self) -> Counts {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.tally.counts()
    }
}
