//! `GET /v1/jobs/{id}`: the state of a job, at once or when it is final.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;

use crate::app::Api;
use crate::extract::{self, CallersJob};
use crate::metrics::{self, Held};
use crate::problem::{Code, Problem};
use crate::view::JobView;
use crate::watch::{Pace, Paused};

pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Longest pause between two reads for a held request.
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

async fn read(api: &Api, job: &CallersJob) -> Result<JobView, Problem> {
    api.read(&job.id).await.map_err(|error| Problem::from(error).about(&job.id))
}

/// Reads until the job is final, `wait` is over, or the process stops. Returns whether the preference was honoured: not
/// when every place is taken. A client that disconnects drops this future, and with it its place.
async fn wait_until_final(api: &Api, job: &CallersJob, wait: Duration) -> Result<(JobView, bool), Problem> {
    let deadline = Instant::now() + wait;
    let Some(place) = api.waiters.take() else { return Ok((read(api, job).await?, false)) };
    let _held = Held::request();
    let mut pace = Pace::up_to(MAX_PAUSE);
    loop {
        let view = read(api, job).await?;
        if view.status.is_final() || Instant::now() >= deadline {
            return Ok((view, true));
        }
        if place.pause(&mut pace, deadline).await == Paused::Stopping {
            return Ok((view, true));
        }
    }
}

/// Makes the answer of a view: 304 when the client has it already.
pub fn answer(view: &JobView, if_none_match: Option<&HeaderValue>) -> Response {
    let (body, hash) = view.encode();
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
