//! What handlers read from a request: the caller, the job's id, the JSON body, the headers with a meaning of our own.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Request, header};
use job::{JobId, TenantId};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, Visitor};

use crate::app::Api;
use crate::context::RequestContext;
use crate::problem::{BODY, Code, Problem};

pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub const PREFER: HeaderName = HeaderName::from_static("prefer");

/// Longest `Idempotency-Key`, in characters.
pub const MAX_IDEMPOTENCY_KEY_CHARS: usize = 255;

/// Longest time a client may hold a request with `Prefer: wait`, in seconds: below the 60 s at which load balancers
/// give up on a silent connection, with room for slow networks.
pub const MAX_WAIT_SECONDS: u64 = 20;

/// A body of the largest size needs 0.2 Mbit/s to arrive in this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Who calls: the tenant of the bearer key.
pub struct Caller {
    pub tenant: TenantId,
    pub context: Arc<RequestContext>,
}

impl FromRequestParts<Arc<Api>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let context = parts.extensions.get::<Arc<RequestContext>>().expect("observe wraps every route").clone();
        let tenant = api.api_keys.authenticate(&parts.headers)?.clone();
        context.tenant.get_or_init(|| tenant.clone());
        Ok(Self { tenant, context })
    }
}

/// The job in the path: an id that we issued to this caller.
pub struct CallersJob {
    pub id: JobId,
    pub tenant: TenantId,
}

impl FromRequestParts<Arc<Api>> for CallersJob {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let Caller { tenant, context } = Caller::from_request_parts(parts, api).await?;
        api.limits.poll(&tenant)?;
        let Path(text) = Path::<String>::from_request_parts(parts, api).await.map_err(|_| Problem::job_not_found())?;
        let id: JobId = text.parse().map_err(|_| Problem::job_not_found())?;
        if !api.job_id_keys.verify(&id, &tenant) {
            return Err(Problem::job_not_found());
        }
        context.is_about(id);
        Ok(Self { id, tenant })
    }
}

/// Reads a JSON object of at most `limit` bytes.
///
/// # Errors
/// 415 for another content type, 413 and 408 for a body too large or too slow, 400 for what is not JSON, 422 for JSON
/// that is not a `T`.
pub async fn json<T: DeserializeOwned>(request: Request<Body>, limit: usize) -> Result<T, Problem> {
    let (parts, body) = request.into_parts();
    if !is_json(&parts.headers) {
        return Err(Problem::new(Code::UnsupportedMediaType, "send the header 'Content-Type: application/json'"));
    }
    let bytes = read(&parts.headers, body, limit).await?;
    object(&bytes, |error| error.to_string())
}

/// Reads a JSON object from the text of a part of a body, by the same rules as a whole one.
///
/// # Errors
/// As [`json`]. They do not say at which line and column: those would be of the part, which the client cannot know.
pub fn json_part<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    object(text.as_bytes(), |error| {
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        text.strip_suffix(&place).map(str::to_owned).unwrap_or(text)
    })
}

fn object<T: DeserializeOwned>(text: &[u8], told: fn(&serde_json::Error) -> String) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let object: JsonObject<T> =
        serde_path_to_error::deserialize(&mut deserializer).map_err(|error| refused(&error, told))?;
    deserializer.end().map_err(|error| malformed(&error))?;
    Ok(object.0)
}

async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("the body has more than {limit} bytes: shorten it, or send fewer jobs at once");
        Problem::new(Code::BodyTooLarge, detail)
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_over_limit(&error) => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(Code::MalformedJson, "the body ended before it was complete")),
        Err(_) => {
            let detail = format!("the body did not arrive within {} s: send it again", BODY_TIMEOUT.as_secs());
            Err(Problem::new(Code::RequestTimeout, detail))
        }
    }
}

fn is_over_limit(error: &axum::Error) -> bool {
    std::iter::successors(std::error::Error::source(error), |error| error.source())
        .any(|source| source.is::<http_body_util::LengthLimitError>())
}

/// Whether the body says that it is JSON: `application/json`, with any parameters, or a `+json` type.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(text) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn malformed(error: &serde_json::Error) -> Problem {
    let detail = format!("the body is not JSON at line {}, column {}: {error}", error.line(), error.column());
    Problem::new(Code::MalformedJson, detail)
}

/// The path stops at the object whose field is missing or unknown; the message names the field itself.
fn refused(error: &serde_path_to_error::Error<serde_json::Error>, told: fn(&serde_json::Error) -> String) -> Problem {
    let inner = error.inner();
    if !inner.is_data() {
        return malformed(inner);
    }
    let message = told(inner);
    let named = ["missing field `", "unknown field `", "duplicate field `"].iter().find_map(|prefix| {
        let (name, _) = message.strip_prefix(prefix)?.split_once('`')?;
        Some(name.to_owned())
    });
    let path = match error.path().to_string() {
        path if path == "." || path == "?" => String::new(),
        path => path,
    };
    let field = match named {
        Some(name) if path.is_empty() => name,
        Some(name) if path == name || path.ends_with(&format!(".{name}")) => path,
        Some(name) => format!("{path}.{name}"),
        None if path.is_empty() => BODY.to_owned(),
        None => path,
    };
    Problem::field(field, message)
}

/// A `T` that was written as an object: derived code would take an array of the fields' values as well.
struct JsonObject<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for JsonObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

/// Returns the `Idempotency-Key` header, if there is one.
///
/// # Errors
/// 422 when it is given twice or is not 1 to 255 visible ASCII characters.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::field("Idempotency-Key", "is given more than once: send it once"));
    }
    let text = value.to_str().unwrap_or_default();
    check_idempotency_key("Idempotency-Key", text)?;
    Ok(Some(text))
}

/// Checks the text of an idempotency key.
///
/// # Errors
/// 422 naming `field` when it is not 1 to 255 visible ASCII characters.
pub fn check_idempotency_key(field: &str, text: &str) -> Result<(), Problem> {
    let valid = (1..=MAX_IDEMPOTENCY_KEY_CHARS).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if valid {
        Ok(())
    } else {
        Err(Problem::field(field, "is not 1 to 255 visible ASCII characters without white space"))
    }
}

/// Returns the seconds of `Prefer: wait=N`, at most [`MAX_WAIT_SECONDS`]. Preferences that do not parse are ignored, as
/// RFC 7240 section 2 says; the first `wait` wins.
pub fn preferred_wait_seconds(headers: &HeaderMap) -> Option<u64> {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|text| text.split(',')).find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        let digits = value.trim().trim_matches('"');
        if !name.trim().eq_ignore_ascii_case("wait") || digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit())
        {
            return None;
        }
        Some(digits.parse().unwrap_or(u64::MAX).min(MAX_WAIT_SECONDS))
    })
}

/// Reads an optional whole number as JSON Schema defines it: 7.0 is one too, and some clients write it so.
pub fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else { return Ok(None) };
    let whole = number.as_u64().or_else(|| {
        let float =
            number.as_f64().filter(|float| float.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(float))?;
        // Exact: checked to be whole and in range.
        format!("{float:.0}").parse().ok()
    });
    let expected = || D::Error::custom(format!("{number} is not a whole number from 0 to {}", u32::MAX));
    whole.and_then(|whole| u32::try_from(whole).ok()).map(Some).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(text: &'static str) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(PREFER, text.parse().unwrap());
        preferred_wait_seconds(&headers)
    }

    #[test]
    fn prefer_is_read_as_the_rfc_says() {
        assert_eq!(wait("wait=5"), Some(5));
        assert_eq!(wait("respond-async, WAIT = \"7\"; x=1"), Some(7));
        assert_eq!(wait("wait=21"), Some(MAX_WAIT_SECONDS));
        assert_eq!(wait("wait=99999999999999999999999"), Some(MAX_WAIT_SECONDS));
        for ignored in ["wait", "wait=", "wait=-1", "wait=+1", "wait=x", "waiting=3", ""] {
            assert_eq!(wait(ignored), None, "{ignored:?}");
        }
    }
}
