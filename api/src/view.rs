//! `JobView`: a job as a client sees it.

use std::time::Duration;

use axum::http::header::{self, HeaderMap, HeaderValue};
use jiff::Timestamp;
use job::{FailureCode, JobId, Record, RenditionInfo, Status, Timings};
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};

use crate::settings::Origin;

/// Seconds a client should wait before it asks again. A picture takes 5 to 15 s; the queue comes on top.
pub const POLL_AFTER_SECONDS: u64 = 2;

/// Longest time between two polls that a client is asked for: what it is told may turn out to be too much.
const MAX_POLL_AFTER_SECONDS: u64 = 60;

/// Returns when a client should ask again for a job that may be done in `eta_seconds`: shortly before, and after that often.
pub fn poll_after(eta_seconds: Option<u64>) -> u64 {
    eta_seconds.map_or(POLL_AFTER_SECONDS, |eta| (eta * 4 / 5).clamp(POLL_AFTER_SECONDS, MAX_POLL_AFTER_SECONDS))
}

/// The origins that the URLs in answers start with.
#[derive(Debug, Clone)]
pub struct Links {
    /// Of this API; without it URLs are relative.
    pub api: Option<Origin>,
    /// Of the pictures.
    pub cdn: Origin,
}

impl Links {
    /// Returns the URL of a job's state.
    pub fn job(&self, id: &JobId) -> String {
        self.api(&format!("v1/jobs/{id}"))
    }

    /// Returns the URL of the page of a list that comes after `cursor`.
    pub fn list(&self, cursor: &str, limit: usize, status: Option<Status>) -> String {
        let status = status.map(|status| format!("&status={status}")).unwrap_or_default();
        self.api(&format!("v1/jobs?cursor={cursor}&limit={limit}{status}"))
    }

    fn events(&self, id: &JobId) -> String {
        self.api(&format!("v1/jobs/{id}/events"))
    }

    fn cancel(&self, id: &JobId) -> String {
        self.api(&format!("v1/jobs/{id}/cancel"))
    }

    fn retry(&self, id: &JobId) -> String {
        self.api(&format!("v1/jobs/{id}/retry"))
    }

    fn api(&self, path: &str) -> String {
        self.api.as_ref().map_or_else(|| format!("/{path}"), |origin| origin.join(path))
    }
}

/// State of one job.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Job)]
pub struct JobView {
    /// The job's id.
    #[schema(value_type = String, pattern = "^[0-9a-f]{32}-[0-9a-f]{16}$")]
    pub id: JobId,
    /// Where it is on its way: queued, generating and processing are pending, the others final.
    #[schema(schema_with = status_schema)]
    pub status: Status,
    /// When it was accepted. Absent while a job with an idempotency key waits for its first worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, required = false)]
    pub created_at: Option<Timestamp>,
    /// When the first worker took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, required = false)]
    pub started_at: Option<Timestamp>,
    /// When its state last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, required = false)]
    pub updated_at: Option<Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, required = false)]
    pub finished_at: Option<Timestamp>,
    /// When the caller no longer wants the picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = DateTime, required = false)]
    pub deadline_at: Option<Timestamp>,
    /// Seconds until it will probably be done; absent when it is, or when nobody can say.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1)]
    pub eta_seconds: Option<u64>,
    /// Attempts begun.
    pub attempts: u32,
    /// What the picture shows, as the request had it. Absent without one, and before a worker has taken the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub alt_text: Option<String>,
    /// How often it was asked for again; absent if never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub retries: Option<u32>,
    /// The picture; present exactly when succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub image: Option<ImageView>,
    /// Why there is no picture; present when failed or blocked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub error: Option<FailureView>,
    /// How long its steps took; absent before a worker has taken it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub timings: Option<TimingsView>,
    /// Where to go from here: clients never build URLs.
    pub urls: UrlsView,
}

/// A published picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Image)]
pub struct ImageView {
    /// Where to fetch it. The URL works from the moment it is handed out; its content never changes.
    pub url: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Encoded size.
    pub bytes: u64,
    /// Media type.
    pub content_type: String,
    /// SHA-256 of the encoded bytes, hex.
    pub sha256: String,
    /// `ThumbHash` of the picture, base64: lets a page paint before the picture arrives.
    pub thumbhash: String,
    /// The other sizes and formats that were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub renditions: Vec<RenditionView>,
}

/// The picture in another size or format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Rendition)]
pub struct RenditionView {
    /// Where to fetch it. The URL works from the moment it is handed out; its content never changes.
    pub url: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Encoded size.
    pub bytes: u64,
    /// Media type.
    pub content_type: String,
    /// SHA-256 of the encoded bytes, hex.
    pub sha256: String,
}

impl RenditionView {
    fn new(rendition: &RenditionInfo, links: &Links) -> Self {
        Self {
            url: links.cdn.join(&rendition.key),
            width: rendition.width,
            height: rendition.height,
            bytes: rendition.bytes,
            content_type: rendition.content_type.clone(),
            sha256: rendition.sha256.clone(),
        }
    }
}

/// Why a job ended without a picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Failure)]
pub struct FailureView {
    /// Stable code.
    #[schema(schema_with = failure_code_schema)]
    pub code: FailureCode,
    /// A sentence for the person who wrote the prompt.
    pub title: String,
    /// What an operator wants to know.
    pub detail: String,
    /// Whether a new job with the same spec may succeed.
    pub retryable: bool,
}

/// How long the steps of a job took, in seconds, as its workers measured them. A step that has not ended is absent.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Timings)]
pub struct TimingsView {
    /// From acceptance until a worker took it. Compares the clocks of two machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub queue_wait_seconds: Option<f64>,
    /// The model call.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub generate_seconds: Option<f64>,
    /// Decode, resize and encode.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub render_seconds: Option<f64>,
    /// The upload of the picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub upload_seconds: Option<f64>,
}

impl TimingsView {
    /// Returns nothing where nothing was measured.
    fn new(timings: &Timings) -> Option<Self> {
        (*timings != Timings::default()).then_some(Self {
            queue_wait_seconds: timings.queue_wait_seconds,
            generate_seconds: timings.generate_seconds,
            render_seconds: timings.render_seconds,
            upload_seconds: timings.upload_seconds,
        })
    }
}

/// URLs of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = JobUrls)]
pub struct UrlsView {
    /// GET: its state.
    #[serde(rename = "self")]
    pub this: String,
    /// GET: its states as server-sent events.
    pub events: String,
    /// POST: withdraws it.
    pub cancel: String,
    /// POST: asks for it again, once it has ended without a picture.
    pub retry: String,
}

impl JobView {
    /// Makes the view of a job at `now`. Without a record no worker has taken it yet.
    pub fn new(id: &JobId, record: Option<&Record>, now: Timestamp, retention: Duration, links: &Links) -> Self {
        let status = status_at(id, record, now, retention);
        let image = record.and_then(|record| record.image.as_ref()).filter(|_| status == Status::Succeeded);
        let failed = matches!(status, Status::Failed | Status::Blocked);
        let error = record.and_then(|record| record.error.as_ref()).filter(|_| failed);
        Self {
            id: *id,
            status,
            created_at: record.and_then(|record| record.submitted_at).or_else(|| id.issued_at()),
            started_at: record.and_then(|record| record.started_at),
            updated_at: record.map(|record| record.updated_at),
            finished_at: record.and_then(|record| record.finished_at),
            deadline_at: record.and_then(|record| record.deadline_at),
            eta_seconds: None,
            attempts: record.map_or(0, |record| record.attempts),
            alt_text: record.and_then(|record| record.alt_text.clone()),
            retries: record.map(|record| record.retries).filter(|retries| *retries > 0),
            image: image.map(|image| ImageView {
                url: links.cdn.join(&image.key),
                width: image.width,
                height: image.height,
                bytes: image.bytes,
                content_type: image.content_type.clone(),
                sha256: image.sha256.clone(),
                thumbhash: image.thumbhash.clone(),
                renditions: record
                    .map(|record| record.renditions.iter().map(|one| RenditionView::new(one, links)).collect())
                    .unwrap_or_default(),
            }),
            error: error.map(|error| FailureView {
                code: error.code,
                title: error.title.clone(),
                detail: error.detail.clone(),
                retryable: error.retryable,
            }),
            timings: record.and_then(|record| TimingsView::new(&record.timings)),
            urls: UrlsView {
                this: links.job(id),
                events: links.events(id),
                cancel: links.cancel(id),
                retry: links.retry(id),
            },
        }
    }

    /// Returns the state as JSON, and the name of just this state: what its `ETag` has between the quotes. A forecast that
    /// has become another one makes no other state.
    pub fn encode(&self) -> (String, String) {
        let json = |view: &Self| serde_json::to_string(view).expect("a view always serialises");
        let body = json(self);
        let digest = match self.eta_seconds {
            None => Sha256::digest(&body),
            Some(_) => Sha256::digest(json(&Self { eta_seconds: None, ..self.clone() })),
        };
        (body, digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }

    /// Returns the headers that depend on the state alone.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.status.is_final() {
            // A redrive may still turn `failed` into `succeeded`, so a cache has to ask.
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        } else {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.insert(header::RETRY_AFTER, HeaderValue::from(poll_after(self.eta_seconds)));
        }
        headers
    }
}

/// Returns the state of a job at `now`. A job that still waits although the queue no longer keeps a message of its age
/// has been lost or sits in the dead-letter queue: it must not read as queued for ever.
pub fn status_at(id: &JobId, record: Option<&Record>, now: Timestamp, retention: Duration) -> Status {
    let status = record.map_or(Status::Queued, |record| record.status_at(now));
    let known_of = match record {
        // Whoever wrote it had a message, which a redrive may have made anew.
        Some(record) => record.submitted_at.max(record.retried_at).max(Some(record.updated_at)),
        None => id.issued_at(),
    };
    let outlived = known_of.is_some_and(|known| now.duration_since(known).unsigned_abs() > retention && known < now);
    if status == Status::Queued && outlived { Status::Expired } else { status }
}

/// Returns the schema of `Status`, made from its list so that it cannot differ.
pub fn status_schema() -> Object {
    words("State of a job.", Status::ALL.map(Status::as_str))
}

fn failure_code_schema() -> Object {
    words("Stable code of a failure.", FailureCode::ALL.map(FailureCode::as_str))
}

/// Returns the schema of a text that is one of a few words.
pub fn words<const N: usize>(description: &str, words: [&'static str; N]) -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::String))
        .description(Some(description))
        .enum_values(Some(words))
        .build()
}
