//! `GET /v1/jobs/{id}`: the state of a job, at once or when it is final.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::app::Api;
use crate::extract::{self, CallersJob};
use crate::metrics::{self, Waiting};
use crate::problem::{Code, Problem};
use crate::view::JobView;

pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// First pause between two reads for a held request; it doubles up to [`MAX_PAUSE`]. S3 costs 0.4 USD per million
/// reads, so a held request of 20 s costs less than 0.00001 USD.
const MIN_PAUSE: Duration = Duration::from_millis(250);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// The problems that the handler answers with.
pub const PROBLEMS: &[Code] = &[
    Code::Unauthenticated,
    Code::JobNotFound,
    Code::InvalidRequest,
    Code::RateLimited,
    Code::InternalError,
    Code::StoreUnavailable,
];

/// Requests held at a time: bounded, since each of them reads the store again and again.
pub struct Waiters {
    places: Semaphore,
    stopping: CancellationToken,
}

impl Waiters {
    /// Makes room for `max` held requests; all of them end when `stopping` is cancelled.
    pub fn new(max: u32, stopping: CancellationToken) -> Self {
        Self { places: Semaphore::new(usize::try_from(max).unwrap_or(usize::MAX)), stopping }
    }
}

/// Tells where a job is
///
/// `Retry-After` says when to ask again while the job is pending; with `Prefer: wait=N` the answer is held until the job
/// is final, at most N seconds.
#[utoipa::path(
    get,
    path = "/v1/jobs/{id}",
    operation_id = "get_job",
    tag = "jobs",
    responses(
        (status = 200, description = "State of the job", body = JobView),
        (status = 304, description = "The state is the one that If-None-Match names")
    ),
    security(("api_key" = []))
)]
pub async fn get_job(State(api): State<Arc<Api>>, job: CallersJob, headers: HeaderMap) -> Result<Response, Problem> {
    let wait = extract::preferred_wait_seconds(&headers);
    let (view, held) = match wait {
        Some(seconds) => wait_until_final(&api, &job, Duration::from_secs(seconds)).await?,
        None => (read(&api, &job).await?, false),
    };
    metrics::polled(view.status);
    let mut response = answer(&view, headers.get(header::IF_NONE_MATCH));
    if let Some(seconds) = wait.filter(|_| held) {
        let applied = HeaderValue::from_str(&format!("wait={seconds}")).expect("digits are visible ASCII");
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
    }
    Ok(response)
}

/// Reads the state of a job.
///
/// # Errors
/// 503 when the store cannot tell.
pub async fn read(api: &Api, job: &CallersJob) -> Result<JobView, Problem> {
    let record = api.records.read(&job.id).await.map_err(|error| Problem::from(error).about(&job.id))?;
    Ok(api.view(&job.id, record.as_ref().map(|(record, _)| record)))
}

/// Reads until the job is final, `wait` is over, or the process stops. Returns whether the preference was honoured: not
/// when every place is taken. A client that disconnects drops this future, and with it its place.
async fn wait_until_final(api: &Api, job: &CallersJob, wait: Duration) -> Result<(JobView, bool), Problem> {
    let deadline = Instant::now() + wait;
    let Ok(_place) = api.waiters.places.try_acquire() else { return Ok((read(api, job).await?, false)) };
    let _waiting = Waiting::begin();
    let mut pause = MIN_PAUSE;
    loop {
        let view = read(api, job).await?;
        let now = Instant::now();
        if view.status.is_final() || now >= deadline {
            return Ok((view, true));
        }
        tokio::select! {
            () = api.waiters.stopping.cancelled() => return Ok((view, true)),
            () = tokio::time::sleep_until(deadline.min(now + pause)) => pause = (pause * 2).min(MAX_PAUSE),
        }
    }
}

/// Makes the answer of a view: 304 when the client has it already.
pub fn answer(view: &JobView, if_none_match: Option<&HeaderValue>) -> Response {
    let body = serde_json::to_vec(view).expect("a view always serialises");
    let hash: String = Sha256::digest(&body).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let etag = format!("\"{hash}\"");
    let unchanged = if_none_match.and_then(|value| value.to_str().ok()).is_some_and(|text| names(text, &etag));
    let mut headers = view.headers();
    headers.insert(header::ETAG, HeaderValue::from_str(&etag).expect("hex is visible ASCII"));
    if unchanged {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    (StatusCode::OK, headers, body).into_response()
}

/// Whether an `If-None-Match` names `etag`, by weak comparison (RFC 9110, section 13.1.2).
fn names(if_none_match: &str, etag: &str) -> bool {
    let mut candidates = if_none_match.split(',').map(str::trim);
    candidates.any(|candidate| candidate == "*" || candidate.strip_prefix("W/").unwrap_or(candidate) == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_none_match_is_a_list_with_weak_comparison() {
        assert!(names("\"a\"", "\"a\""));
        assert!(names("\"b\", W/\"a\"", "\"a\""));
        assert!(names("*", "\"a\""));
        assert!(!names("\"b\"", "\"a\""));
        assert!(!names("", "\"a\""));
    }
}
