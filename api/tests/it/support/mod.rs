//! `TestApi`: the service with everything behind it in memory, and what a test reads from an answer.

mod memory_queue;
mod memory_records;
mod scripted_sqs;

use std::sync::Arc;

use api::app::{self, Ports};
use api::settings::ApiSettings;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use clap::Parser;
use jiff::{Timestamp, ToSpan};
use job::{
    Claim, IdKeys, ImageInfo, Job, JobId, JobSpec, Pauses, Record, RenditionInfo, Status, TenantId, Timings,
    TraceContext,
};
use serde_json::{Value, json};
use service::following::Followed;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub(crate) use memory_queue::{BrokenQueue, MemoryQueue};
pub(crate) use memory_records::{BrokenRecords, ContendedRecords, FaultyRecords, MemoryRecords, PanickingRecords};
pub(crate) use scripted_sqs::{Fate, ScriptedSqs};

pub(crate) const NORTH_KEY: &str = "north-key-0000000001";
pub(crate) const SOUTH_KEY: &str = "south-key-0000000001";
pub(crate) const ID_KEYS: &str = "test-secret-test-secret-test-secret";

pub(crate) struct TestApi {
    pub(crate) queue: Arc<MemoryQueue>,
    pub(crate) records: Arc<MemoryRecords>,
    pub(crate) pauses: Followed<Pauses>,
    pub(crate) stopping: CancellationToken,
    pub(crate) router: Router,
}

impl TestApi {
    pub(crate) fn new() -> Self {
        Self::with_args(&[])
    }

    pub(crate) fn with_args(args: &[&str]) -> Self {
        let (queue, records) = (Arc::new(MemoryQueue::default()), Arc::new(MemoryRecords::default()));
        let ports =
            Ports { queue: queue.clone(), records: records.clone(), now: Timestamp::now, pauses: Default::default() };
        Self::with_ports(args, queue, records, ports)
    }

    /// Uses `ports`, one of which usually breaks; the memory ones are there to look into.
    pub(crate) fn with_ports(
        args: &[&str],
        queue: Arc<MemoryQueue>,
        records: Arc<MemoryRecords>,
        ports: Ports,
    ) -> Self {
        let settings = settings(args);
        let secrets = settings.validate().unwrap();
        let (stopping, pauses) = (CancellationToken::new(), ports.pauses.clone());
        let router = app::router(&settings, secrets, ports, stopping.clone());
        Self { queue, records, pauses, stopping, router }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap_or(Value::Null) };
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(get(path)).await
    }

    pub(crate) async fn submit(&self, body: Value) -> Answer {
        self.send(post("/v1/jobs", &body)).await
    }
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn id(&self) -> JobId {
        self.body["id"].as_str().unwrap().parse().unwrap()
    }

    pub(crate) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// Asserts that this is a problem whose body and headers agree.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status.as_u16(), self.code()), (status, code), "{}", self.body);
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["type"], format!("tag:image-api,2026:problem:{code}"));
        assert!(!self.body["title"].as_str().unwrap().is_empty() && !self.body["detail"].as_str().unwrap().is_empty());
        assert!(self.header("x-correlation-id").is_some());
    }

    /// Asserts a 422 that names `field`.
    #[track_caller]
    pub(crate) fn assert_invalid(&self, field: &str) {
        self.assert_problem(422, "invalid_request");
        assert_eq!(self.body["errors"][0]["field"], field, "{}", self.body);
    }

    /// Returns the body with ids and times that differ from run to run replaced.
    pub(crate) fn redacted(&self) -> Value {
        redact(self.body.clone())
    }
}

fn redact(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .map(|(key, value)| if key.ends_with("_at") { (key, json!("[time]")) } else { (key, redact(value)) })
            .collect(),
        Value::Array(items) => items.into_iter().map(redact).collect(),
        Value::String(text) => {
            let parts = text.split('/').map(|part| if part.parse::<JobId>().is_ok() { "[id]" } else { part });
            json!(parts.collect::<Vec<_>>().join("/"))
        }
        other => other,
    }
}

pub(crate) fn settings(args: &[&str]) -> ApiSettings {
    let api_keys = format!("--api-keys=north:{NORTH_KEY},south:{SOUTH_KEY}");
    let id_keys = format!("--job-id-keys={ID_KEYS}");
    let base = [
        "image-api",
        "--listen-addr=127.0.0.1:0",
        "--sqs-queue-url=http://127.0.0.1:1/queue",
        "--s3-bucket-name=images",
        "--cloudfront-domain=cdn.example.com",
        &api_keys,
        &id_keys,
    ];
    ApiSettings::try_parse_from(base.into_iter().chain(args.iter().copied())).unwrap()
}

pub(crate) fn get(path: &str) -> Request<Body> {
    request(Method::GET, path, Body::empty())
}

pub(crate) fn post(path: &str, body: &Value) -> Request<Body> {
    post_text(path, &body.to_string())
}

pub(crate) fn post_text(path: &str, body: &str) -> Request<Body> {
    let mut request = request(Method::POST, path, Body::from(body.to_owned()));
    request.headers_mut().insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
    request
}

pub(crate) fn request(method: Method, path: &str, body: Body) -> Request<Body> {
    let authorization = format!("Bearer {NORTH_KEY}");
    Request::builder().method(method).uri(path).header(header::AUTHORIZATION, authorization).body(body).unwrap()
}

/// Adds a header, replacing what `request` has set.
pub(crate) fn with(mut request: Request<Body>, name: &'static str, value: &str) -> Request<Body> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

pub(crate) fn north() -> TenantId {
    "north".parse().unwrap()
}

/// Makes a job of tenant north, as the API would.
pub(crate) fn job() -> Job {
    let keys: IdKeys = ID_KEYS.parse().unwrap();
    Job {
        id: keys.issue(&north()),
        tenant: north(),
        spec: JobSpec::new("a red fox".into(), None, None).unwrap(),
        submitted_at: Timestamp::now(),
        deadline_at: None,
        retries: 0,
        trace: TraceContext::generate(),
    }
}

/// Makes the record of a job that a worker is at.
pub(crate) fn claimed(job: &Job) -> Record {
    let now = Timestamp::now();
    let mut record = Record::begin(job, now);
    record.attempts = 1;
    record.claim = Some(Claim {
        token: uuid::Uuid::nil(),
        worker: "host-1".into(),
        message_id: "m-1".into(),
        receive_count: 1,
        deadline_at: now + 1.hours(),
    });
    record
}

/// Makes the record of a job whose picture is published.
pub(crate) fn succeeded(job: &Job) -> Record {
    let mut record = claimed(job);
    record.image = Some(ImageInfo {
        key: job::image_key(&job.id),
        width: 1024,
        height: 1024,
        bytes: 123_456,
        content_type: "image/webp".into(),
        sha256: "ab".repeat(32),
        thumbhash: "3OcRJYB4d3h/iIeHeEh3eIhw+j2w".into(),
    });
    record.renditions = job
        .spec
        .renditions()
        .iter()
        .map(|spec| RenditionInfo {
            key: job::rendition_key(&job.id, *spec),
            width: spec.side(),
            height: spec.side(),
            bytes: 12_345,
            content_type: spec.format().content_type().into(),
            sha256: "cd".repeat(32),
        })
        .collect();
    record.timings = Timings {
        queue_wait_seconds: Some(0.5),
        generate_seconds: Some(6.25),
        render_seconds: Some(0.125),
        upload_seconds: Some(0.0625),
    };
    record.finish(Status::Succeeded, Timestamp::now());
    record
}

/// As [`Answer::redacted`], for a body whose picture URL carries the id.
pub(crate) fn redact_image(mut answer: Answer) -> Value {
    let id = answer.id().to_string();
    answer.body = serde_json::from_str(&answer.body.to_string().replace(&id, "[id]")).unwrap();
    redact(answer.body)
}
