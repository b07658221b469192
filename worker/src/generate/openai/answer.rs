//! What an images endpoint answers: a picture, or an error by status, type and code.

use std::time::Duration;

use bytes::Bytes;
use job::Place;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{JobError, Kind};
use crate::generate::GenerateRequest;
use crate::generate::classify::{QUOTED, harmless};
use crate::generate::stability::Text;

/// A longer hint is cut to this, as for Bedrock.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(900);
/// Longest words of the service that are passed on, in characters.
const MAX_WORDS: usize = 300;

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    data: Option<Vec<Picture<'a>>>,
}

#[derive(Deserialize)]
struct Picture<'a> {
    #[serde(borrow, default)]
    b64_json: Option<Text<'a>>,
    #[serde(borrow, default)]
    url: Option<Text<'a>>,
}

/// Reads the picture of an answer with status 2xx. Only the first counts: we ask for one.
///
/// # Errors
/// `ModelAnswerMalformed`.
pub(super) fn picture_of(body: &[u8]) -> Result<Bytes, JobError> {
    let malformed = |detail: String| JobError::new(Kind::ModelAnswerMalformed, detail);
    // Only line, column and serde's category: its message may quote the body.
    let answer: Answer<'_> = serde_json::from_slice(body).map_err(|error| {
        malformed(format!("answer of {} bytes is not as documented: {}", body.len(), Place::from(error)))
    })?;
    let picture = answer.data.and_then(|data| data.into_iter().next());
    let picture = picture.ok_or_else(|| malformed("answer has no data".to_owned()))?;
    let Some(base64) = picture.b64_json else {
        let what = if picture.url.is_some() { "a url" } else { "nothing" };
        return Err(malformed(format!("answer has {what} where b64_json is expected: try another OPENAI_DIALECT")));
    };
    let bytes = base64_simd::STANDARD
        .decode_to_vec(base64.0.as_bytes())
        .map_err(|_| malformed(format!("image of {} characters is not base64, or cut off", base64.0.len())))?;
    if bytes.is_empty() { Err(malformed("image is empty".to_owned())) } else { Ok(bytes.into()) }
}

/// What servers say of an error. `code` may be a number, `FastAPI` has `detail` in place of `error`, and some have the
/// fields of `error` at the top.
#[derive(Debug, Default, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    error: Value,
    #[serde(default)]
    detail: Value,
    #[serde(flatten)]
    top: Map<String, Value>,
}

impl ErrorBody {
    fn text(&self, name: &str) -> &str {
        self.error.get(name).or_else(|| self.top.get(name)).and_then(Value::as_str).unwrap_or_default()
    }

    /// Returns what is said for people. Of `detail`, places and messages only: the rest quotes the request.
    fn message(&self) -> String {
        match (&self.error, &self.detail) {
            (Value::String(words), _) | (_, Value::String(words)) => words.clone(),
            (_, Value::Array(errors)) => {
                let said = errors.iter().map(|error| {
                    let place = error.get("loc").map(Value::to_string).unwrap_or_default();
                    format!("{place} {}", error.get("msg").and_then(Value::as_str).unwrap_or_default())
                });
                said.collect::<Vec<_>>().join(", ")
            }
            _ => self.text("message").to_owned(),
        }
    }
}

/// Tells what an answer with another status means. Should it quote the prompt, the quote is taken out.
pub(super) fn error_of(
    status: u16,
    body: &[u8],
    retry_after: Option<&str>,
    retry_after_ms: Option<&str>,
    request: &GenerateRequest,
) -> JobError {
    let body: ErrorBody = serde_json::from_slice(body).unwrap_or_default();
    let (code, kind_word, param) = (body.text("code"), body.text("type"), body.text("param"));
    // What the prompt says is no word of the server's.
    let message = harmless(body.message(), request);
    let is_of_the_job = match (param, &body.detail) {
        ("prompt" | "negative_prompt", _) => true,
        ("", Value::Array(errors)) => errors.iter().any(is_about_the_prompt),
        ("", _) => speaks_of_the_prompt(&format!("{code} {kind_word} {message}")),
        _ => false,
    };
    let kind = kind_of(status, code, kind_word, param, is_of_the_job);
    let said = if code.is_empty() { kind_word } else { code };
    let said = if said.is_empty() { "no code" } else { said };
    let hint = if (300..400).contains(&status) { ": redirects are not followed, set OPENAI_BASE_URL" } else { "" };
    // Again: code and type are the server's words as well.
    let detail = harmless(format!("{said} (status {status}){hint}: {message}"), request);
    let hint = retry_after_of(retry_after, retry_after_ms);
    JobError::new(kind, detail.chars().take(MAX_WORDS).collect::<String>()).with_retry_after(hint)
}

/// By code first, by status where there is none that we know.
fn kind_of(status: u16, code: &str, kind_word: &str, param: &str, is_of_the_job: bool) -> Kind {
    let said = |words: &[&str]| words.contains(&code) || words.contains(&kind_word);
    if said(&["content_policy_violation", "moderation_blocked", "content_filter", "contentFilter"]) {
        return Kind::ContentFiltered;
    }
    if said(&["insufficient_quota", "billing_hard_limit_reached", "billing_not_active"]) {
        return Kind::ModelQuotaExceeded;
    }
    if said(&["model_not_found", "invalid_model", "DeploymentNotFound"]) || (status == 400 && param == "model") {
        return Kind::ModelNotFound;
    }
    if said(&["model_deprecated", "model_retired"]) {
        return Kind::ModelRetired;
    }
    match status {
        // Of what we send only the prompts are the job's; the rest would be refused of every job, and so would what nobody
        // says anything of: held, it costs time, and as the job's fault it would cost the backlog.
        400 | 422 if !is_of_the_job => Kind::ModelSettingsRefused,
        400 | 413 | 422 => Kind::RequestRejected,
        401 => Kind::CredentialsUnavailable,
        402 => Kind::ModelQuotaExceeded,
        403 => Kind::AccessDenied,
        404 | 300..=399 => Kind::ModelNotFound,
        405 | 406 | 415 => Kind::ModelSettingsRefused,
        408 | 504 => Kind::ModelTimedOut,
        410 => Kind::ModelRetired,
        424 => Kind::ModelFailed,
        429 => Kind::ModelThrottled,
        _ => Kind::ModelUnavailable,
    }
}

/// `FastAPI`, on which most model servers stand, names the fields that it refuses: `{"detail":[{"loc":["body","size"]}]}`.
fn is_about_the_prompt(error: &Value) -> bool {
    let places = error.get("loc").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    places.iter().any(|place| matches!(place.as_str(), Some("prompt" | "negative_prompt")))
}

/// Words for the prompt, what it asks for, and its length.
const OF_THE_PROMPT: [&str; 11] = [
    "prompt",
    "safety",
    "moderat",
    "content policy",
    "content filter",
    "nsfw",
    "user error",
    "too long",
    "context length",
    "maximum length",
    "max length",
];
/// Words for what we send beside it. A server that echoes the request says all of them.
const OF_OUR_FIELDS: [&str; 6] = ["response format", "output format", "image size", "'size'", "\"size\"", "`size`"];

/// Returns whether code, type or message say that the fault is the prompt's.
fn speaks_of_the_prompt(said: &str) -> bool {
    let said = said.to_lowercase().replace(QUOTED, "").replace('_', " ");
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let names_a_size = said.split(|c: char| !c.is_ascii_alphanumeric()).any(is_size);
    has(&OF_THE_PROMPT) && !has(&OF_OUR_FIELDS) && !names_a_size
}

/// Returns whether it is `WIDTHxHEIGHT`, each in pixels, at least 1 and of at most five digits.
pub(super) fn is_size(text: &str) -> bool {
    let is_side = |side: &str| {
        (1..=5).contains(&side.len()) && side.bytes().all(|byte| byte.is_ascii_digit()) && !side.starts_with('0')
    };
    text.split_once('x').is_some_and(|(width, height)| is_side(width) && is_side(height))
}

/// Seconds, as HTTP has it; a date is not looked at. `OpenAI` adds milliseconds, which are more exact.
fn retry_after_of(seconds: Option<&str>, milliseconds: Option<&str>) -> Option<Duration> {
    let number = |text: Option<&str>| text?.trim().parse::<f64>().ok().filter(|number| (0.0..1e9).contains(number));
    let hint = number(milliseconds).map(|ms| ms / 1000.0).or_else(|| number(seconds))?;
    Some(Duration::from_secs_f64(hint).min(MAX_RETRY_AFTER))
}
