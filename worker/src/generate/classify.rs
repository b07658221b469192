//! `InvokeModel` errors to `JobError`: by error code first, by status where there is none.

use std::error::Error;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_bedrockruntime::config::http::HttpResponse;
use aws_sdk_bedrockruntime::error::{ErrorMetadata, ProvideErrorMetadata, SdkError};
use aws_sdk_bedrockruntime::operation::invoke_model::InvokeModelError;
use aws_smithy_runtime_api::box_error::BoxError;
use service::detail::{all_causes, bounded, causes};

use super::GenerateRequest;
use crate::error::{JobError, Kind};

/// Server's hint of when to come back, in milliseconds. `Retry-After` is not used by AWS.
const RETRY_AFTER: &str = "x-amz-retry-after";

/// A longer hint is cut to this: a delivery cannot be held for hours, and an operator should see it fail before.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(900);

/// Tells what went wrong with a call. Should the service quote the prompt in its message, the quote is taken out.
pub(super) fn invoke_error(error: &SdkError<InvokeModelError, HttpResponse>, request: &GenerateRequest) -> JobError {
    let response = error.raw_response();
    let (kind, detail) = match error {
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            let (code, message) = (answer.err().code(), message_of(answer.err()));
            (
                kind_of_answer(code, status, message),
                format!("{} (status {status}): {message}", code.unwrap_or("no code")),
            )
        }
        SdkError::ResponseError(_) => (Kind::ModelAnswerMalformed, all_causes(error)),
        SdkError::TimeoutError(_) => (Kind::ModelTimedOut, all_causes(error)),
        _ => {
            let detail = all_causes(error);
            (kind_of_no_answer(error, &detail), detail)
        }
    };
    let retry_after = response.and_then(retry_after);
    JobError::new(kind, harmless(detail, request)).with_retry_after(retry_after)
}

/// Tells what went wrong with an answer that began with success and then could not be received.
pub(super) fn receive_error(error: BoxError) -> JobError {
    JobError::new(Kind::ModelAnswerMalformed, causes(error.as_ref()))
}

/// An error without a code keeps its message in its source, not in its own metadata.
fn message_of(error: &InvokeModelError) -> &str {
    let in_source = || chain(error).find_map(|cause| cause.downcast_ref::<ErrorMetadata>()?.message());
    error.message().or_else(in_source).unwrap_or_default()
}

fn kind_of_answer(code: Option<&str>, status: u16, message: &str) -> Kind {
    // A retired model is told by its message alone: the same codes also mean a missing model, role or permission.
    if matches!(code, Some("ResourceNotFoundException" | "ValidationException" | "AccessDeniedException"))
        && (has(message, "reached the end of its life") || has(message, "marked by provider as legacy"))
    {
        return Kind::ModelRetired;
    }
    match code {
        Some(
            "ThrottlingException"
            | "ThrottledException"
            | "Throttling"
            | "TooManyRequestsException"
            | "SlowDown"
            | "RequestThrottled"
            | "RequestThrottledException"
            | "RequestLimitExceeded"
            | "LimitExceededException",
        ) => Kind::ModelThrottled,
        Some("ServiceQuotaExceededException") => Kind::ModelQuotaExceeded,
        Some("InternalServerException" | "ServiceUnavailableException" | "ModelNotReadyException") => {
            Kind::ModelUnavailable
        }
        Some("ModelTimeoutException" | "RequestTimeout" | "RequestTimeoutException") => Kind::ModelTimedOut,
        Some("ModelErrorException") => Kind::ModelFailed,
        Some("ResourceNotFoundException") => Kind::ModelNotFound,
        Some("AccessDeniedException" | "AccessDenied" | "UnauthorizedException" | "OptInRequired") => {
            Kind::AccessDenied
        }
        Some(
            "ExpiredTokenException"
            | "ExpiredToken"
            | "UnrecognizedClientException"
            | "InvalidSignatureException"
            | "InvalidClientTokenId"
            | "IncompleteSignature"
            | "IncompleteSignatureException"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "RequestExpired",
        ) => Kind::CredentialsUnavailable,
        Some("ValidationException") => kind_of_validation(message),
        _ => kind_of_status(status),
    }
}

/// Some validation errors are about us and not about the prompt; taking them for the job's fault would fail the whole
/// backlog for good.
fn kind_of_validation(message: &str) -> Kind {
    if has(message, "blocked by our content filters") {
        Kind::ContentFiltered
    } else if has(message, "model identifier is invalid") || has(message, "on-demand throughput isn") {
        Kind::ModelNotFound
    } else if has(message, "operation not allowed") {
        // The account is restricted or not yet verified.
        Kind::AccessDenied
    } else {
        Kind::RequestRejected
    }
}

/// Without a code we know, only the status is left: often it is a proxy's answer and not the service's.
fn kind_of_status(status: u16) -> Kind {
    match status {
        400 => Kind::RequestRejected,
        401 | 403 => Kind::AccessDenied,
        408 => Kind::ModelTimedOut,
        424 => Kind::ModelFailed,
        429 => Kind::ModelThrottled,
        _ => Kind::ModelUnavailable,
    }
}

/// The request was not built, not sent, or not answered.
fn kind_of_no_answer(error: &SdkError<InvokeModelError, HttpResponse>, detail: &str) -> Kind {
    let no_credentials = chain(error).any(|cause| cause.is::<CredentialsError>())
        // A chain that ends without any provider is told by the SDK's private error type.
        || has(detail, "auth scheme");
    if no_credentials {
        return Kind::CredentialsUnavailable;
    }
    match error {
        // The SDK calls both of its HTTP timeouts a dispatch failure; only in one the model may have been at work.
        SdkError::DispatchFailure(failure) if failure.is_timeout() && !has(detail, "connect timeout") => {
            Kind::ModelTimedOut
        }
        _ => Kind::ModelUnreachable,
    }
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

fn has(text: &str, lowercase: &str) -> bool {
    text.to_lowercase().contains(lowercase)
}

fn retry_after(response: &HttpResponse) -> Option<Duration> {
    let milliseconds = response.headers().get(RETRY_AFTER)?.trim().parse().ok()?;
    Some(Duration::from_millis(milliseconds).min(MAX_RETRY_AFTER))
}

/// Shorter texts are not looked for in messages.
const MIN_QUOTE_CHARS: usize = 8;

/// What stands where the prompt was.
pub(super) const QUOTED: &str = "[prompt]";

/// Makes a text of the service's fit for logs, records and clients: without the prompt it may quote, and bounded.
pub(super) fn harmless(text: String, request: &GenerateRequest) -> String {
    bounded(without_prompt(text, request))
}

fn without_prompt(detail: String, request: &GenerateRequest) -> String {
    let texts = [Some(request.prompt.as_str()), request.negative_prompt.as_deref()];
    texts
        .into_iter()
        .flatten()
        // A text of a few characters is part of any message by chance, and gives nothing away.
        .filter(|text| text.chars().count() >= MIN_QUOTE_CHARS)
        .flat_map(|text| [text.to_owned(), json_escaped(text), ascii_escaped(text)])
        .fold(detail, |detail, text| if detail.contains(&text) { detail.replace(&text, QUOTED) } else { detail })
}

/// The text as it stands in the request's body: a service that quotes what it could not read quotes this.
fn json_escaped(text: &str) -> String {
    let quoted = serde_json::to_string(text).expect("a text always serialises");
    quoted.trim_start_matches('"').strip_suffix('"').unwrap_or_default().to_owned()
}

/// The same where everything but ASCII is escaped as well, as Python does by default.
fn ascii_escaped(text: &str) -> String {
    let mut units = [0; 2];
    json_escaped(text).chars().fold(String::new(), |mut escaped, c| {
        match c {
            c if c.is_ascii() => escaped.push(c),
            c => escaped.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}"))),
        }
        escaped
    })
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
