//! `POST /v1/jobs`: a request becomes a job in the queue.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::{SignedDuration, Timestamp};
use job::{
    ImageFormat, Job, JobId, JobSpec, MAX_ALT_TEXT_CHARS, MAX_PROMPT_CHARS, RENDITION_SIDES, RenditionSpec, Status,
    TenantId, TraceContext,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};

use crate::app::Api;
use crate::extract::{self, Caller, CallersJob};
use crate::fleet;
use crate::metrics::{self, Enqueued};
use crate::problem::{Code, FieldError, Problem};
use crate::view::{poll_after, status_schema, words};

/// Longest deadline, in seconds: a day.
pub const MAX_DEADLINE_SECONDS: u32 = 86_400;

/// What [`JobSpec::new`] accepts, as a regular expression: SQS takes no U+FFFE and U+FFFF, a prompt has no control
/// characters but tab, line feed and carriage return, and something in it is not white space.
const TEXT_PATTERN: &str = r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\ufffe\uffff]*[^\s\u0000-\u001f\u007f-\u009f\ufffe\uffff][^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\ufffe\uffff]*$";

/// What [`JobSpec::with_alt_text`] accepts: as above, in one line.
const LINE_PATTERN: &str = r"^[^\u0000-\u001f\u007f-\u009f\ufffe\uffff]*[^\s\u0000-\u001f\u007f-\u009f\ufffe\uffff][^\u0000-\u001f\u007f-\u009f\ufffe\uffff]*$";

/// The problems that the handler answers with.
pub const PROBLEMS: &[Code] = &[
    Code::MalformedJson,
    Code::Unauthenticated,
    Code::RequestTimeout,
    Code::BodyTooLarge,
    Code::UnsupportedMediaType,
    Code::InvalidRequest,
    Code::IdempotencyKeyReused,
    Code::RateLimited,
    Code::InternalError,
    Code::QueueUnavailable,
    Code::IntakePaused,
];

/// What to draw.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmitRequest {
    /// Description of the picture.
    #[schema(schema_with = prompt_schema)]
    pub prompt: String,
    /// What must not be in the picture.
    #[schema(schema_with = negative_prompt_schema)]
    pub negative_prompt: Option<String>,
    /// The same seed and prompt give the same picture; 0 or none means any.
    #[schema(format = Int64, minimum = 0, maximum = 4_294_967_295_u32)]
    #[serde(default, deserialize_with = "extract::whole_number")]
    pub seed: Option<u32>,
    /// Seconds from now after which the picture is no longer wanted: the job then expires without being paid for.
    #[schema(minimum = 1, maximum = 86_400)]
    #[serde(default, deserialize_with = "extract::whole_number")]
    pub deadline_seconds: Option<u32>,
    /// Pictures wanted beside the WebP of 1024 x 1024 that every job ends with.
    #[schema(max_items = 16)]
    pub renditions: Option<Vec<RenditionRequest>>,
    /// What the picture shows, for those who cannot see it: handed out with the picture, and never drawn.
    #[schema(schema_with = alt_text_schema)]
    pub alt_text: Option<String>,
}

/// Most renditions in a request. There are fewer that differ; repeats are allowed, and mean nothing.
const MAX_RENDITIONS: usize = 16;

/// One more picture: a square of this width in this format.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenditionRequest {
    /// Width and height in pixels.
    #[schema(schema_with = rendition_width_schema)]
    pub width: u32,
    /// Format.
    #[schema(schema_with = image_format_schema)]
    pub format: ImageFormat,
}

/// An accepted job.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AcceptedJob {
    /// The job's id.
    #[schema(value_type = String, pattern = "^[0-9a-f]{32}-[0-9a-f]{16}$")]
    pub id: JobId,
    /// `queued`, or what has become of the job if its idempotency key is known already.
    #[schema(schema_with = status_schema)]
    pub status: Status,
    /// Where to poll.
    pub status_url: String,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Seconds until it will probably be done; absent when nobody can say.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1)]
    pub eta_seconds: Option<u64>,
}

/// Submits one job
///
/// The answer means that the job is safe in the queue. Without an `Idempotency-Key`, sending a request again after a
/// timeout makes a second job.
#[utoipa::path(
    post,
    path = "/v1/jobs",
    operation_id = "submit_job",
    tag = "jobs",
    request_body = SubmitRequest,
    responses((status = 202, description = "Accepted", body = AcceptedJob)),
    security(("api_key" = []))
)]
pub async fn submit_job(State(api): State<Arc<Api>>, caller: Caller, request: Request) -> Result<Response, Problem> {
    fleet::accepting(&api)?;
    api.limits.submit(&caller.tenant, NonZeroU32::MIN)?;
    let key = extract::idempotency_key(request.headers())?.map(str::to_owned);
    let request: SubmitRequest = extract::json(request, api.body_limit).await?;
    let job = request.into_job(&api, &caller.tenant, &caller.context.trace, key.as_deref())?;
    caller.context.is_about(job.id);
    if key.is_some()
        && let Some(known) = replayed(&api, &job).await?
    {
        metrics::enqueued(Enqueued::Replayed);
        return Ok(accepted(known));
    }
    match api.queue.enqueue(&job).await {
        Ok(()) => {
            metrics::enqueued(Enqueued::Accepted);
            Ok(accepted(AcceptedJob::queued(&api, &job)))
        }
        Err(error) => {
            metrics::enqueued(Enqueued::Failed);
            Err(error.into())
        }
    }
}

impl SubmitRequest {
    /// Checks the request and makes the job.
    ///
    /// # Errors
    /// 422 with every field to mend.
    pub fn into_job(
        self,
        api: &Api,
        tenant: &TenantId,
        trace: &TraceContext,
        idempotency_key: Option<&str>,
    ) -> Result<Job, Problem> {
        let (spec, deadline) = self.check()?;
        let id = match idempotency_key {
            Some(key) => api.job_id_keys.derive(tenant, key),
            None => api.job_id_keys.issue(tenant),
        };
        let submitted_at = id.issued_at().unwrap_or_else(|| whole_milliseconds((api.now)()));
        let deadline_at = deadline.map(|deadline| submitted_at + deadline);
        Ok(Job { id, tenant: tenant.clone(), spec, submitted_at, deadline_at, retries: 0, trace: trace.clone() })
    }

    /// Checks the request and makes the job that is asked for again, with a deadline that counts from now.
    ///
    /// # Errors
    /// 422 with every field to mend.
    pub fn into_job_again(self, api: &Api, job: &CallersJob, trace: &TraceContext) -> Result<Job, Problem> {
        let (spec, deadline) = self.check()?;
        let submitted_at = whole_milliseconds((api.now)());
        let deadline_at = deadline.map(|deadline| submitted_at + deadline);
        let tenant = job.tenant.clone();
        Ok(Job { id: job.id, tenant, spec, submitted_at, deadline_at, retries: 0, trace: trace.clone() })
    }

    /// Returns what is asked for, and within what time.
    fn check(self) -> Result<(JobSpec, Option<SignedDuration>), Problem> {
        let mut errors = Vec::new();
        let deadline = self.deadline_seconds.map(i64::from);
        if deadline.is_some_and(|seconds| !(1..=i64::from(MAX_DEADLINE_SECONDS)).contains(&seconds)) {
            let detail = format!("deadline_seconds is not 1 to {MAX_DEADLINE_SECONDS}");
            errors.push(FieldError { field: "deadline_seconds".to_owned(), detail });
        }
        let mut renditions = Vec::new();
        let asked = self.renditions.unwrap_or_default();
        if asked.len() > MAX_RENDITIONS {
            let detail = format!("has {} items: send at most {MAX_RENDITIONS}", asked.len());
            errors.push(FieldError { field: "renditions".to_owned(), detail });
        }
        for (index, RenditionRequest { width, format }) in asked.into_iter().enumerate() {
            match RenditionSpec::new(width, format) {
                Ok(rendition) => renditions.push(rendition),
                Err(error) => {
                    let field = format!("renditions[{index}].width");
                    errors.push(FieldError { field, detail: error.to_string() });
                }
            }
        }
        let spec = JobSpec::new(self.prompt, self.negative_prompt, self.seed)
            .and_then(|spec| spec.with_alt_text(self.alt_text));
        let spec = spec.map_err(|error| {
            errors.insert(0, FieldError { field: error.field().to_owned(), detail: error.to_string() });
        });
        let (Ok(spec), true) = (spec, errors.is_empty()) else { return Err(Problem::fields(errors)) };
        Ok((spec.with_renditions(renditions), deadline.map(SignedDuration::from_secs)))
    }
}

/// Milliseconds, as in an id: the first poll must not show another time than the answer to the submission.
fn whole_milliseconds(now: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(now.as_millisecond()).expect("it came from a timestamp")
}

impl AcceptedJob {
    /// Makes the answer for a job that the queue has just confirmed.
    pub fn queued(api: &Api, job: &Job) -> Self {
        Self {
            id: job.id,
            status: Status::Queued,
            status_url: api.links.job(&job.id),
            created_at: job.submitted_at,
            eta_seconds: api.eta_of_accepted(),
        }
    }
}

/// Returns the answer for a job whose idempotency key is that of a job under way or done; `None` when it has to be
/// enqueued, which is always safe: the claim makes one job of two messages.
///
/// # Errors
/// 422 when the key belongs to another spec.
pub async fn replayed(api: &Api, job: &Job) -> Result<Option<AcceptedJob>, Problem> {
    let record = match api.records.read(&job.id).await {
        Ok(Some((record, _))) => record,
        Ok(None) => return Ok(None),
        Err(error) => {
            tracing::warn!(job.id = %job.id, %error, "idempotency key cannot be looked up: enqueuing");
            return Ok(None);
        }
    };
    if record.spec_fingerprint.as_ref().is_some_and(|known| *known != job.spec.fingerprint()) {
        return Err(key_reused().about(&job.id));
    }
    let status = record.status_at((api.now)());
    Ok((status != Status::Queued).then(|| AcceptedJob {
        id: job.id,
        status,
        status_url: api.links.job(&job.id),
        created_at: record.submitted_at.unwrap_or(job.submitted_at),
        eta_seconds: None,
    }))
}

/// Makes the 422 for a key that belongs to another spec.
pub fn key_reused() -> Problem {
    let detail = "this Idempotency-Key was used for another prompt, negative_prompt, seed or renditions: use a new key";
    Problem::new(Code::IdempotencyKeyReused, detail)
}

/// Returns the schema of a prompt.
pub fn prompt_schema() -> Object {
    text_schema("Description of the picture.", SchemaType::Type(Type::String), MAX_PROMPT_CHARS, TEXT_PATTERN)
}

/// Returns the schema of a negative prompt, which may be absent or null.
pub fn negative_prompt_schema() -> Object {
    let text_or_null = SchemaType::from_iter([Type::String, Type::Null]);
    text_schema("What must not be in the picture.", text_or_null, MAX_PROMPT_CHARS, TEXT_PATTERN)
}

/// Returns the schema of an alternative text, which may be absent or null.
pub fn alt_text_schema() -> Object {
    let description =
        "What the picture shows, for those who cannot see it: handed out with the picture, and never drawn.";
    let text_or_null = SchemaType::from_iter([Type::String, Type::Null]);
    text_schema(description, text_or_null, MAX_ALT_TEXT_CHARS, LINE_PATTERN)
}

fn rendition_width_schema() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::Integer))
        .description(Some("Width and height in pixels."))
        .enum_values(Some(RENDITION_SIDES))
        .build()
}

fn image_format_schema() -> Object {
    words("Format of the picture.", ImageFormat::ALL.map(ImageFormat::as_str))
}

fn text_schema(description: &str, schema_type: SchemaType, max_chars: usize, pattern: &str) -> Object {
    ObjectBuilder::new()
        .schema_type(schema_type)
        .description(Some(description))
        .min_length(Some(1))
        .max_length(Some(max_chars))
        .pattern(Some(pattern))
        .build()
}

/// Makes the answer to whoever has asked for a job.
pub fn accepted(job: AcceptedJob) -> Response {
    let location = [(header::LOCATION, job.status_url.clone()), (header::CACHE_CONTROL, "no-store".to_owned())];
    let retry_after =
        (!job.status.is_final()).then(|| [(header::RETRY_AFTER, poll_after(job.eta_seconds).to_string())]);
    match retry_after {
        Some(retry_after) => (StatusCode::ACCEPTED, location, retry_after, Json(job)).into_response(),
        None => (StatusCode::ACCEPTED, location, Json(job)).into_response(),
    }
}
