//! `Client`: what a caller of the API does, from outside the containers.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use image::{ImageFormat, ImageReader};
use job::Status;
use reqwest::{RequestBuilder, header};
use serde::Deserialize;
use serde_json::json;

use super::{ContainersError, wrong};
use crate::bedrock::LedgerReport;

/// The key that the compose file has for a laptop.
pub(super) const KEY: &str = "local-development-key";
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
const ASK_EVERY: Duration = Duration::from_millis(500);

/// A job as the API shows it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct View {
    pub(super) status: Status,
    #[serde(default)]
    pub(super) attempts: u32,
    image: Option<ImageView>,
}

#[derive(Debug, Clone, Deserialize)]
struct ImageView {
    url: String,
    bytes: usize,
}

#[derive(Debug, Deserialize)]
struct Accepted {
    id: String,
}

#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    api: SocketAddr,
    bedrock: SocketAddr,
    cdn: SocketAddr,
}

impl Client {
    pub(super) fn new(api: SocketAddr, bedrock: SocketAddr, cdn: SocketAddr) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build();
        Self { http: http.expect("a client without TLS has nothing to load"), api, bedrock, cdn }
    }

    /// Submits one job for each prompt and returns their ids.
    pub(super) async fn submit(
        &self,
        prompts: impl IntoIterator<Item = String>,
    ) -> Result<Vec<String>, ContainersError> {
        let mut ids = Vec::new();
        for prompt in prompts {
            ids.push(self.accepted(self.request(&prompt)).await?);
        }
        Ok(ids)
    }

    /// Submits one job as a part of the caller's trace, and returns its id.
    pub(super) async fn submit_traced(&self, prompt: &str, traceparent: &str) -> Result<String, ContainersError> {
        self.accepted(self.request(prompt).header("traceparent", traceparent)).await
    }

    fn request(&self, prompt: &str) -> RequestBuilder {
        self.http.post(format!("http://{}/v1/jobs", self.api)).bearer_auth(KEY).json(&json!({ "prompt": prompt }))
    }

    async fn accepted(&self, request: RequestBuilder) -> Result<String, ContainersError> {
        let response = request.send().await.map_err(|error| wrong("POST /v1/jobs", error))?;
        let status = response.status();
        let text = response.text().await.map_err(|error| wrong("POST /v1/jobs", error))?;
        let accepted: Accepted =
            serde_json::from_str(&text).map_err(|_| wrong("POST /v1/jobs", format!("{status}: {text}")))?;
        Ok(accepted.id)
    }

    /// Returns the job, None while the API cannot tell: it has no store while the emulator restarts.
    async fn view(&self, id: &str) -> Option<View> {
        let request = self.http.get(format!("http://{}/v1/jobs/{id}", self.api)).bearer_auth(KEY);
        let response = request.send().await.ok()?.error_for_status().ok()?;
        response.json().await.ok()
    }

    /// Waits until this many of the jobs are with a worker.
    pub(super) async fn begun(&self, ids: &[String], wanted: usize, timeout: Duration) -> Result<(), ContainersError> {
        let deadline = Instant::now() + timeout;
        loop {
            let mut begun = 0;
            for id in ids {
                let view = self.view(id).await;
                begun += usize::from(view.is_some_and(|view| view.status == Status::Generating));
            }
            if begun >= wanted {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(wrong("the workers do not take enough jobs", format!("{begun} of {wanted} at a time")));
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Waits until every job has succeeded, and returns them.
    pub(super) async fn succeeded(&self, ids: &[String], timeout: Duration) -> Result<Vec<View>, ContainersError> {
        let deadline = Instant::now() + timeout;
        let mut done: BTreeMap<&str, View> = BTreeMap::new();
        loop {
            let mut seen: BTreeMap<&'static str, usize> = BTreeMap::new();
            for id in ids {
                if done.contains_key(id.as_str()) {
                    continue;
                }
                match self.view(id).await {
                    Some(view) if view.status == Status::Succeeded => {
                        done.insert(id, view);
                    }
                    Some(view) if view.status.is_final() => {
                        return Err(wrong(format!("the job {id}"), format!("it ended as {}", view.status)));
                    }
                    Some(view) => *seen.entry(view.status.as_str()).or_default() += 1,
                    None => *seen.entry("no answer").or_default() += 1,
                }
            }
            if done.len() == ids.len() {
                return Ok(done.into_values().collect());
            }
            if Instant::now() >= deadline {
                let seconds = timeout.as_secs();
                return Err(wrong(
                    format!("{} of {} jobs after {seconds} s", done.len(), ids.len()),
                    format!("{seen:?}"),
                ));
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Fetches each picture where its job says it is, and looks at it.
    pub(super) async fn fetch(&self, views: &[View]) -> Result<(), ContainersError> {
        for view in views {
            let image = view.image.as_ref().ok_or_else(|| wrong("a job that succeeded", "it has no image"))?;
            let failed = |reason: String| wrong(image.url.clone(), reason);
            let response = self.http.get(&image.url).send().await.map_err(|error| failed(error.to_string()))?;
            let (status, headers) = (response.status(), response.headers().clone());
            let bytes = response.bytes().await.map_err(|error| failed(error.to_string()))?;
            let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
            if status != 200 || content_type != Some("image/webp") || bytes.len() != image.bytes {
                return Err(failed(format!("{status}, {content_type:?}, {} bytes of {}", bytes.len(), image.bytes)));
            }
            let size = ImageReader::with_format(Cursor::new(bytes), ImageFormat::WebP).into_dimensions();
            let size = size.map_err(|error| failed(error.to_string()))?;
            if size != (1024, 1024) {
                return Err(failed(format!("{size:?} pixels")));
            }
        }
        Ok(())
    }

    /// Lets the CDN forget, so that the next fetch is one from the bucket.
    pub(super) async fn empty_the_cache(&self) -> Result<(), ContainersError> {
        let request = self.http.delete(format!("http://{}/_standin/cache", self.cdn));
        let response = request.send().await.and_then(reqwest::Response::error_for_status);
        response.map(drop).map_err(|error| wrong("the cache of the CDN", error))
    }

    /// Returns what the stand-in for Bedrock has been paid for.
    pub(super) async fn paid(&self) -> Result<u64, ContainersError> {
        let failed = |error: reqwest::Error| wrong("the ledger", error);
        let response =
            self.http.get(format!("http://{}/_standin/ledger", self.bedrock)).send().await.map_err(failed)?;
        let ledger: LedgerReport = response.json().await.map_err(failed)?;
        Ok(ledger.totals.paid + ledger.totals.paid_unanswered)
    }
}
