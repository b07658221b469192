//! `Problem`: every error answer, as RFC 9457 problem+json with a stable code.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use job::JobId;
use serde::Serialize;
use utoipa::ToSchema;

use crate::metrics;

/// Media type of every error answer (RFC 9457, section 3).
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Names the body as a whole where a field is expected.
pub const BODY: &str = "body";

/// Stable code of an error; clients may match on it. Codes are added and never renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ProblemCode)]
pub enum Code {
    MalformedJson,
    Unauthenticated,
    JobNotFound,
    RouteNotFound,
    MethodNotAllowed,
    RequestTimeout,
    JobAlreadyFinal,
    JobNotRetryable,
    BodyTooLarge,
    UnsupportedMediaType,
    InvalidRequest,
    IdempotencyKeyReused,
    RateLimited,
    InternalError,
    QueueUnavailable,
    StoreUnavailable,
    IntakePaused,
}

impl Code {
    /// All codes.
    pub const ALL: [Self; 17] = [
        Self::MalformedJson,
        Self::Unauthenticated,
        Self::JobNotFound,
        Self::RouteNotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::JobAlreadyFinal,
        Self::JobNotRetryable,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::InvalidRequest,
        Self::IdempotencyKeyReused,
        Self::RateLimited,
        Self::InternalError,
        Self::QueueUnavailable,
        Self::StoreUnavailable,
        Self::IntakePaused,
    ];

    /// Returns the word used in JSON and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MalformedJson => "malformed_json",
            Self::Unauthenticated => "unauthenticated",
            Self::JobNotFound => "job_not_found",
            Self::RouteNotFound => "route_not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::JobAlreadyFinal => "job_already_final",
            Self::JobNotRetryable => "job_not_retryable",
            Self::BodyTooLarge => "body_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::InvalidRequest => "invalid_request",
            Self::IdempotencyKeyReused => "idempotency_key_reused",
            Self::RateLimited => "rate_limited",
            Self::InternalError => "internal_error",
            Self::QueueUnavailable => "queue_unavailable",
            Self::StoreUnavailable => "store_unavailable",
            Self::IntakePaused => "intake_paused",
        }
    }

    /// Returns the HTTP status that always goes with this code.
    pub fn status(self) -> StatusCode {
        match self {
            Self::MalformedJson => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::JobNotFound | Self::RouteNotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::JobAlreadyFinal | Self::JobNotRetryable => StatusCode::CONFLICT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::InvalidRequest | Self::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
            Self::QueueUnavailable | Self::StoreUnavailable | Self::IntakePaused => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Returns what this code means, the same for every occurrence.
    pub fn title(self) -> &'static str {
        match self {
            Self::MalformedJson => "The body is not JSON",
            Self::Unauthenticated => "A valid API key is needed",
            Self::JobNotFound => "There is no such job",
            Self::RouteNotFound => "There is no such address",
            Self::MethodNotAllowed => "This address does not take this method",
            Self::RequestTimeout => "The body did not arrive in time",
            Self::JobAlreadyFinal => "The job has already ended",
            Self::JobNotRetryable => "The job cannot be asked for again",
            Self::BodyTooLarge => "The body is too large",
            Self::UnsupportedMediaType => "The body must be application/json",
            Self::InvalidRequest => "The request has invalid fields",
            Self::IdempotencyKeyReused => "The idempotency key belongs to another request",
            Self::RateLimited => "Too many requests",
            Self::InternalError => "Something went wrong on our side",
            Self::QueueUnavailable => "Jobs cannot be accepted at the moment",
            Self::StoreUnavailable => "The state of jobs cannot be read at the moment",
            Self::IntakePaused => "New jobs are not accepted for a while",
        }
    }
}

/// One field to mend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Path of the field in the body, or the name of the header.
    pub field: String,
    /// What is wrong and what to do about it.
    pub detail: String,
}

/// Body of an error answer (RFC 9457).
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// URI that names the kind of problem: one for each code.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the code means.
    pub title: String,
    /// The HTTP status, repeated.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What is wrong with this request.
    pub detail: String,
    /// Stable code.
    pub code: Code,
    /// Path of the job that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub instance: Option<String>,
    /// The fields to mend.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub errors: Vec<FieldError>,
}

/// An error on its way to the client.
#[derive(Debug, Clone)]
pub struct Problem {
    code: Code,
    detail: String,
    instance: Option<String>,
    errors: Vec<FieldError>,
    retry_after_seconds: Option<u64>,
    /// For the log alone.
    cause: Option<String>,
}

impl Problem {
    /// Makes a problem. `detail` is shown to the client.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), instance: None, errors: Vec::new(), retry_after_seconds: None, cause: None }
    }

    /// Makes a 422 about one field.
    pub fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::fields(vec![FieldError { field: field.into(), detail: detail.into() }])
    }

    /// Makes a 422 about some fields.
    pub fn fields(errors: Vec<FieldError>) -> Self {
        let detail = match &errors[..] {
            [FieldError { field, detail }] if names(detail, field) => detail.clone(),
            [FieldError { field, detail }] => format!("{field}: {detail}"),
            _ => format!("{} fields are invalid", errors.len()),
        };
        Self { errors, ..Self::new(Code::InvalidRequest, detail) }
    }

    /// Makes the 404 of a job: the same for an id we never issued, a malformed one and another tenant's.
    pub fn job_not_found() -> Self {
        Self::new(Code::JobNotFound, "no job has this id: use the status_url of the answer to your POST")
    }

    /// Makes a 5xx: the client gets a fixed text, `cause` goes to the log.
    pub fn fault(code: Code, cause: impl Into<String>) -> Self {
        let detail = match code {
            Code::QueueUnavailable => "the job was not accepted: send the request again later",
            Code::StoreUnavailable => "nothing is known to be wrong with the job: ask again later",
            _ => "the fault has been logged: quote the X-Correlation-Id of this answer when you report it",
        };
        Self { cause: Some(cause.into()), ..Self::new(code, detail) }
    }

    /// Names the job that this is about.
    pub fn about(self, id: &JobId) -> Self {
        Self { instance: Some(format!("/v1/jobs/{id}")), ..self }
    }

    /// Says when to come back.
    pub fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after_seconds: Some(seconds), ..self }
    }

    /// Returns the code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Returns the fields to mend, each path put behind `prefix`.
    pub fn errors_under(&self, prefix: &str) -> Vec<FieldError> {
        if self.errors.is_empty() {
            return vec![FieldError { field: prefix.to_owned(), detail: self.detail.clone() }];
        }
        let join = |field: &str| if field == BODY { prefix.to_owned() } else { format!("{prefix}.{field}") };
        let under = |error: &FieldError| FieldError { field: join(&error.field), detail: error.detail.clone() };
        self.errors.iter().map(under).collect()
    }

    /// Logs a failure of ours and returns the body: each problem passes here exactly once.
    pub fn report(self) -> ProblemBody {
        metrics::problem(self.code);
        let code = self.code.as_str();
        match &self.cause {
            Some(cause) => tracing::error!(problem.code = code, cause, "request failed"),
            None => tracing::debug!(problem.code = code, "request refused"),
        }
        ProblemBody {
            kind: format!("tag:image-api,2026:problem:{code}"),
            title: self.code.title().to_owned(),
            status: self.code.status().as_u16(),
            detail: self.detail,
            code: self.code,
            instance: self.instance,
            errors: self.errors,
        }
    }
}

fn names(detail: &str, field: &str) -> bool {
    detail.starts_with(field) || detail.contains(&format!("`{field}`"))
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.code.status();
        let retry_after = self.retry_after_seconds;
        let mut response = (status, Json(self.report())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"image-api\""));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_text_use_the_same_word() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{}\"", code.as_str()));
        }
    }

    #[test]
    fn a_fault_keeps_its_cause_to_itself() {
        let body = Problem::fault(Code::InternalError, "secret-host refused the connection").report();
        assert!(!serde_json::to_string(&body).unwrap().contains("secret-host"));
    }
}
