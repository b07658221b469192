//! `Exception`: an error answer in the form of Bedrock's REST-JSON protocol.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::fault::Fault;

const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");
/// Milliseconds, unlike HTTP's own `Retry-After`; the AWS SDKs read this one.
const RETRY_AFTER: HeaderName = HeaderName::from_static("x-amz-retry-after");
const END_OF_LIFE: &str = "This model version has reached the end of its life. Please refer to the AWS documentation \
                           for more details.";

/// An exception of `InvokeModel`: HTTP status, name, and text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exception {
    /// How the ledger calls it.
    pub(crate) kind: &'static str,
    status: StatusCode,
    name: &'static str,
    message: String,
    members: Map<String, Value>,
    retry_after_ms: Option<u64>,
}

impl Exception {
    fn new(kind: &'static str, status: StatusCode, name: &'static str, message: impl Into<String>) -> Self {
        Self { kind, status, name, message: message.into(), members: Map::new(), retry_after_ms: None }
    }

    /// The request is not one the model takes; the text is Bedrock's.
    pub(crate) fn invalid(defect: &str) -> Self {
        let message = format!("Malformed input request: {defect}, please reformat your input and try again.");
        Self::new("invalid", StatusCode::BAD_REQUEST, "ValidationException", message)
    }

    pub(crate) fn too_large() -> Self {
        let (status, name) = (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLargeException");
        Self::new("too_large", status, name, "Request body is larger than 25000000 bytes")
    }

    pub(crate) fn unauthenticated() -> Self {
        let name = "MissingAuthenticationTokenException";
        Self::new("unauthenticated", StatusCode::FORBIDDEN, name, "Missing Authentication Token")
    }

    pub(crate) fn unknown_model(id: &str) -> Self {
        let message = format!("Could not resolve the foundation model from the model identifier: {id}");
        Self::new("unknown_model", StatusCode::NOT_FOUND, "ResourceNotFoundException", message)
    }

    pub(crate) fn not_authorized(action: &str) -> Self {
        let message = format!("User is not authorized to perform: {action} because no identity-based policy allows it");
        Self::new("not_authorized", StatusCode::FORBIDDEN, "AccessDeniedException", message)
    }

    pub(crate) fn retired_model() -> Self {
        Self::new("retired_model", StatusCode::NOT_FOUND, "ResourceNotFoundException", END_OF_LIFE)
    }

    pub(crate) fn unknown_operation() -> Self {
        let name = "UnknownOperationException";
        Self::new("unknown_operation", StatusCode::NOT_FOUND, name, "The requested operation is not recognised")
    }

    pub(crate) fn over_quota() -> Self {
        Self { kind: "over_quota", ..Self::of_fault(Fault::Throttle, "", None).expect("throttling is an exception") }
    }

    /// Returns the exception a fault stands for, or `None` if the fault is not an exception.
    pub(crate) fn of_fault(fault: Fault, model_id: &str, retry_after_ms: Option<u64>) -> Option<Self> {
        let (status, name, message) = match fault {
            Fault::Throttle => (429, "ThrottlingException", "Too many requests, please wait before trying again."),
            Fault::ModelTimeout => {
                (408, "ModelTimeoutException", "Model has timed out in processing the request. Try your request again.")
            }
            Fault::ModelError => (
                424,
                "ModelErrorException",
                "The system encountered an unexpected error during processing. Try your request again.",
            ),
            Fault::Internal => (
                500,
                "InternalServerException",
                "The system encountered an unexpected error during processing. Try your request again.",
            ),
            Fault::Unavailable => (503, "ServiceUnavailableException", "Bedrock is unable to process your request."),
            Fault::NotReady => (
                429,
                "ModelNotReadyException",
                "The model is not ready for inference. Wait and try your request again.",
            ),
            Fault::Quota => {
                (400, "ServiceQuotaExceededException", "Your request exceeds the service quota for your account.")
            }
            Fault::AccessDenied => {
                (403, "AccessDeniedException", "You don't have access to the model with the specified model ID.")
            }
            Fault::ExpiredCredentials => {
                (403, "ExpiredTokenException", "The security token included in the request is expired")
            }
            Fault::Retired => (404, "ResourceNotFoundException", END_OF_LIFE),
            Fault::Legacy => (
                404,
                "ResourceNotFoundException",
                "Access denied. This Model is marked by provider as Legacy and you have not been actively using the \
                 model in the last 30 days. Please upgrade to an active model on Amazon Bedrock",
            ),
            Fault::Validation => (400, "ValidationException", "The provided request is not valid"),
            Fault::ContentFilteredValidation => (
                400,
                "ValidationException",
                "This request has been blocked by our content filters. Our filters automatically flagged this prompt \
                 because it may conflict our AUP or AWS Responsible AI Policy. Please adjust your text prompt to \
                 submit a new request.",
            ),
            Fault::RefusePrompt
            | Fault::RefuseOutput
            | Fault::InferenceError
            | Fault::TruncatedBase64
            | Fault::NotPng
            | Fault::Png16
            | Fault::Grey
            | Fault::Rgba
            | Fault::RgbaTransparent
            | Fault::Jpeg
            | Fault::Bomb
            | Fault::BombInflating
            | Fault::Stall
            | Fault::HalfAnswer
            | Fault::Close => return None,
        };
        let status = StatusCode::from_u16(status).expect("the table holds three-digit codes");
        let mut exception = Self { retry_after_ms, ..Self::new(fault.as_str(), status, name, message) };
        if fault == Fault::ModelError {
            exception.members.insert("originalStatusCode".into(), json!(500));
            exception.members.insert("resourceName".into(), json!(model_id));
        }
        Some(exception)
    }
}

impl IntoResponse for Exception {
    fn into_response(self) -> Response {
        let mut body = self.members;
        body.insert("message".into(), Value::String(self.message));
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        // The service sends the name with this suffix; clients cut it off at the colon.
        let error_type = format!("{}:http://internal.amazon.com/coral/com.amazon.bedrock/", self.name);
        headers.insert(ERROR_TYPE, HeaderValue::from_str(&error_type).expect("names are ASCII"));
        if let Some(ms) = self.retry_after_ms {
            headers.insert(RETRY_AFTER, HeaderValue::from(ms));
        }
        response
    }
}
