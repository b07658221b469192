//! `cargo dev submit`: one picture, from the prompt to the file, as any client of the API would get it.

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::ProgressBar;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

use job::Status;

/// Short enough that the steps are seen, long enough that the API is not asked all the time. Seconds.
const WAIT_SECONDS: u64 = 3;
/// When the API does not say when to come back.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);
/// The API holds an answer for [`WAIT_SECONDS`]; the rest is for the network.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What to draw, and where to put it.
#[derive(Debug, Clone, Args)]
pub struct SubmitArgs {
    /// Description of the picture.
    pub prompt: String,
    /// What must not be in the picture.
    #[arg(long, value_name = "TEXT")]
    pub negative_prompt: Option<String>,
    /// The same seed and prompt give the same picture.
    #[arg(long, value_name = "N")]
    pub seed: Option<u32>,
    /// File to save the picture in [default: the job's id and .webp].
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Origin of the API [default: the running stack's, or port 8080 here].
    #[arg(long, value_name = "URL")]
    pub api: Option<String>,
    /// Bearer key [default: the stack's own].
    #[arg(long, env = "DEV_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub key: Option<String>,
    /// How long to wait for the picture.
    #[arg(long, default_value_t = 120, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
}

/// There is no picture.
#[derive(Debug, Error)]
pub enum SubmitError {
    #[error("no API answers at {url} ({reason}): run `cargo dev up`, or name another one with --api")]
    Unreachable { url: String, reason: String },
    #[error("{title}: {detail}")]
    Problem { title: String, detail: String },
    #[error("the job {id} {status}: {title}: {detail}")]
    Ended { id: String, status: Status, title: String, detail: String },
    #[error("the job {id} is still {status} after {seconds} s: ask again at {url}, or wait longer with --timeout")]
    TimedOut { id: String, status: Status, seconds: u64, url: String },
    #[error("the API gave an answer that cannot be read: {0}")]
    Unreadable(String),
    #[error("{url} cannot be downloaded: {reason}")]
    Download { url: String, reason: String },
    #[error("{path} cannot be written ({source}): name another file with --out")]
    Save { path: PathBuf, source: std::io::Error },
}

/// A picture that was made and saved.
#[derive(Debug)]
pub struct Saved {
    /// Where the CDN serves it.
    pub url: String,
    /// Where it was saved.
    pub path: PathBuf,
    /// Size of the file.
    pub bytes: usize,
    /// From the request to the file.
    pub took: Duration,
}

#[derive(Debug, Deserialize)]
struct Accepted {
    id: String,
    status_url: String,
}

#[derive(Debug, Deserialize)]
struct JobView {
    status: Status,
    image: Option<ImageView>,
    error: Option<FailureView>,
}

#[derive(Debug, Deserialize)]
struct ImageView {
    url: String,
}

#[derive(Debug, Deserialize)]
struct FailureView {
    title: String,
    detail: String,
}

struct Api<'a> {
    http: Client,
    origin: &'a str,
    key: &'a str,
    deadline: Instant,
}

/// Submits a job to the API at `origin`, follows it and downloads the picture.
///
/// # Errors
/// When the API cannot be reached or refuses, the job ends without a picture or not in time, or the picture cannot be
/// downloaded or saved.
pub async fn submit(args: &SubmitArgs, origin: &str, key: &str) -> Result<Saved, SubmitError> {
    let began = Instant::now();
    let timeout = Duration::from_secs(args.timeout);
    if let Some(path) = &args.out {
        // Before the picture is paid for. What may be there stays until the new one is.
        let opened = OpenOptions::new().append(true).create(true).open(path);
        opened.map_err(|source| SubmitError::Save { path: path.clone(), source })?;
    }
    let http = Client::builder().no_proxy().build().expect("a client without TLS has nothing to load");
    let api = Api { http, origin: origin.trim_end_matches('/'), key, deadline: began + timeout };
    let bar = Progress::start();

    bar.show("submitting");
    let accepted = api.submit(args).await?;
    let status_url = api.absolute(&accepted.status_url);
    let image = loop {
        let (view, retry_after) = api.view(&status_url).await?;
        bar.show(view.status.as_str());
        if let Some(image) = view.image {
            break image;
        }
        if view.status.is_final() {
            let (title, detail) = view.error.map_or_else(
                || ("it ended without a picture".to_owned(), format!("see {status_url}")),
                |error| (error.title, error.detail),
            );
            return Err(SubmitError::Ended { id: accepted.id, status: view.status, title, detail });
        }
        if Instant::now() + retry_after > api.deadline {
            let (id, status, seconds) = (accepted.id, view.status, args.timeout);
            return Err(SubmitError::TimedOut { id, status, seconds, url: status_url });
        }
        tokio::time::sleep(retry_after).await;
    };

    bar.show("downloading");
    let bytes = api.download(&image.url).await?;
    let path = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("{}.webp", accepted.id)));
    std::fs::write(&path, &bytes).map_err(|source| SubmitError::Save { path: path.clone(), source })?;
    bar.finish();
    Ok(Saved { url: image.url, path, bytes: bytes.len(), took: began.elapsed() })
}

impl Api<'_> {
    /// Sends the job. The idempotency key makes it safe to send it again when the API asks to come back later.
    async fn submit(&self, args: &SubmitArgs) -> Result<Accepted, SubmitError> {
        let mut body = json!({ "prompt": args.prompt });
        if let Some(text) = &args.negative_prompt {
            body["negative_prompt"] = json!(text);
        }
        if let Some(seed) = args.seed {
            body["seed"] = json!(seed);
        }
        let idempotency_key = Uuid::new_v4().to_string();
        loop {
            let request = self.request(Method::POST, &format!("{}/v1/jobs", self.origin)).json(&body);
            let response = self.send(request.header("idempotency-key", &idempotency_key)).await?;
            let busy = matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
            let retry_after = retry_after(&response);
            if !busy || Instant::now() + retry_after > self.deadline {
                return read(response).await;
            }
            tokio::time::sleep(retry_after).await;
        }
    }

    async fn view(&self, url: &str) -> Result<(JobView, Duration), SubmitError> {
        let request = self.request(Method::GET, url).header("prefer", format!("wait={WAIT_SECONDS}"));
        let response = self.send(request).await?;
        let retry_after = retry_after(&response);
        Ok((read(response).await?, retry_after))
    }

    async fn download(&self, url: &str) -> Result<Vec<u8>, SubmitError> {
        let failed = |reason: String| SubmitError::Download { url: url.to_owned(), reason };
        // Without the key: a picture is public, and the CDN is not the API.
        let response = self.http.get(url).timeout(REQUEST_TIMEOUT).send().await;
        let response = response.and_then(Response::error_for_status).map_err(|error| failed(error.to_string()))?;
        let bytes = response.bytes().await.map_err(|error| failed(error.to_string()))?;
        Ok(bytes.to_vec())
    }

    fn request(&self, method: Method, url: &str) -> RequestBuilder {
        self.http.request(method, url).bearer_auth(self.key).timeout(REQUEST_TIMEOUT)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, SubmitError> {
        request.send().await.map_err(|error| {
            let reason = if error.is_connect() { "connection refused".to_owned() } else { error.to_string() };
            SubmitError::Unreachable { url: self.origin.to_owned(), reason }
        })
    }

    /// The API gives absolute URLs when it knows its own origin.
    fn absolute(&self, url: &str) -> String {
        if url.starts_with('/') { format!("{}{url}", self.origin) } else { url.to_owned() }
    }
}

async fn read<T: DeserializeOwned>(response: Response) -> Result<T, SubmitError> {
    let status = response.status();
    let text = response.text().await.map_err(|error| SubmitError::Unreadable(error.to_string()))?;
    if status.is_success() {
        return serde_json::from_str(&text).map_err(|error| SubmitError::Unreadable(error.to_string()));
    }
    let problem: Value = serde_json::from_str(&text).unwrap_or_default();
    let field = |name: &str| problem[name].as_str().map(str::to_owned);
    Err(SubmitError::Problem {
        title: field("title").unwrap_or_else(|| status.to_string()),
        detail: field("detail").unwrap_or_else(|| "the API gave no detail".to_owned()),
    })
}

fn retry_after(response: &Response) -> Duration {
    let seconds = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    seconds.map_or(DEFAULT_RETRY_AFTER, Duration::from_secs)
}

/// A spinner on a terminal; one line per step elsewhere.
struct Progress {
    bar: ProgressBar,
    last: std::cell::Cell<Option<String>>,
}

impl Progress {
    fn start() -> Self {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, last: std::cell::Cell::new(None) }
    }

    fn show(&self, step: &str) {
        if self.bar.is_hidden() && self.last.replace(Some(step.to_owned())).as_deref() != Some(step) {
            eprintln!("{step}");
        }
        self.bar.set_message(step.to_owned());
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
