//! The answer to a viewer: headers of an edge, conditional and range requests, error pages.

use std::ops::RangeInclusive;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use uuid::Uuid;

use super::origin::{OriginError, OriginObject};

/// What `X-Cache` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    Hit,
    RefreshHit,
    Miss,
    Error,
}

impl Served {
    fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "Hit from cloudfront",
            Self::RefreshHit => "RefreshHit from cloudfront",
            Self::Miss => "Miss from cloudfront",
            Self::Error => "Error from cloudfront",
        }
    }
}

/// Answers with an object, or the part of it the viewer asked for. `age` is that of a cached object, in seconds.
pub(crate) fn object(object: &OriginObject, request: &HeaderMap, served: Served, age: Option<u64>) -> Response {
    let (status, body, range) = match wanted(object, request) {
        Wanted::Whole => (StatusCode::OK, object.body.clone(), None),
        Wanted::Nothing => (StatusCode::NOT_MODIFIED, Bytes::new(), None),
        Wanted::Part(range) => {
            let part = object.body.slice(range.clone());
            (
                StatusCode::PARTIAL_CONTENT,
                part,
                Some(format!("bytes {}-{}/{}", range.start(), range.end(), object.body.len())),
            )
        }
        Wanted::Impossible => {
            (StatusCode::RANGE_NOT_SATISFIABLE, Bytes::new(), Some(format!("bytes */{}", object.body.len())))
        }
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    edge_headers(headers, served);
    let mut set = |name: HeaderName, value: Option<&str>| {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(name, value);
        }
    };
    if status != StatusCode::NOT_MODIFIED {
        set(header::CONTENT_TYPE, object.content_type.as_deref());
        set(header::CONTENT_LENGTH, Some(&body.len().to_string()));
    }
    set(header::CONTENT_RANGE, range.as_deref());
    set(header::CACHE_CONTROL, object.cache_control.as_deref());
    set(header::ETAG, object.etag.as_deref());
    set(header::LAST_MODIFIED, object.last_modified.as_deref());
    set(header::ACCEPT_RANGES, Some("bytes"));
    set(header::AGE, age.map(|age| age.to_string()).as_deref());
    for (name, value) in &object.metadata {
        if let Ok(name) = format!("x-amz-meta-{name}").parse::<HeaderName>() {
            set(name, Some(value));
        }
    }
    *response.body_mut() = Body::from(body);
    response
}

/// Answers with the page of an error.
pub(crate) fn error(error: &OriginError) -> Response {
    let xml = |code: &str, message: &str| {
        let id = Uuid::new_v4().simple();
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>\
             <RequestId>{id}</RequestId><HostId>{id}</HostId></Error>"
        )
    };
    let (status, content_type, body) = match error {
        OriginError::AccessDenied => (403, "application/xml", xml("AccessDenied", "Access Denied")),
        OriginError::Status(status) => (*status, "application/xml", xml("ServiceUnavailable", "The origin failed")),
        OriginError::Unreachable(_) => (502, "text/html", page("CloudFront wasn't able to connect to the origin.")),
    };
    error_page(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY), content_type, body)
}

/// Answers a method other than GET and HEAD, as a behaviour for these two does.
pub(crate) fn method_refused() -> Response {
    let text = "This distribution is not configured to allow the HTTP request method that was used for this request. \
                The distribution supports only cachable requests.";
    error_page(StatusCode::FORBIDDEN, "text/html", page(text))
}

fn page(text: &str) -> String {
    format!("<html><head><title>ERROR: The request could not be satisfied</title></head><body>{text}</body></html>\n")
}

fn error_page(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    edge_headers(response.headers_mut(), Served::Error);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// What every answer of an edge carries, and what the response headers policy adds.
fn edge_headers(headers: &mut HeaderMap, served: Served) {
    let fixed = |text| HeaderValue::from_static(text);
    headers.insert(header::VIA, fixed("1.1 standin.cloudfront.net (CloudFront)"));
    headers.insert("x-cache", fixed(served.as_str()));
    headers.insert("x-amz-cf-pop", fixed("DEV50-P1"));
    let id = Uuid::new_v4().simple().to_string();
    headers.insert("x-amz-cf-id", HeaderValue::from_str(&id).expect("a UUID is ASCII"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, fixed("*"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff"));
    headers.insert(header::STRICT_TRANSPORT_SECURITY, fixed("max-age=31536000"));
}

/// How much of an object the viewer wants.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    /// It has it already.
    Nothing,
    Part(RangeInclusive<usize>),
    /// A range that lies behind the end.
    Impossible,
}

fn wanted(object: &OriginObject, request: &HeaderMap) -> Wanted {
    let text = |name| request.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let unchanged = match text(header::IF_NONE_MATCH) {
        Some(tags) => object.etag.as_deref().is_some_and(|etag| matches_any(tags, etag)),
        None => text(header::IF_MODIFIED_SINCE).is_some_and(|since| Some(since) == object.last_modified.as_deref()),
    };
    if unchanged {
        return Wanted::Nothing;
    }
    let current = text(header::IF_RANGE).is_none_or(|tag| Some(tag) == object.etag.as_deref());
    match text(header::RANGE) {
        Some(range) if current => part(range, object.body.len()),
        _ => Wanted::Whole,
    }
}

fn matches_any(tags: &str, etag: &str) -> bool {
    let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    tags.split(',').any(|tag| tag.trim() == "*" || strong(tag) == strong(etag))
}

/// Reads a single byte range; several ranges and nonsense mean the whole object (RFC 9110 section 14.2).
fn part(range: &str, length: usize) -> Wanted {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Wanted::Whole;
    };
    let number = |digits: &str| digits.trim().parse::<usize>().ok();
    match (first.trim().is_empty(), number(first), last.trim().is_empty(), number(last)) {
        (true, _, _, Some(suffix)) if suffix > 0 && length > 0 => {
            Wanted::Part(length.saturating_sub(suffix)..=length - 1)
        }
        (true, _, _, Some(_)) => Wanted::Impossible,
        (_, Some(first), true, _) if first < length => Wanted::Part(first..=length - 1),
        (_, Some(first), _, Some(last)) if first <= last && first < length => {
            Wanted::Part(first..=last.min(length - 1))
        }
        (_, Some(first), empty, last) if empty || last.is_some_and(|last| first <= last) => Wanted::Impossible,
        _ => Wanted::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_read_and_everything_else_is_the_whole() {
        assert_eq!(part("bytes=0-3", 10), Wanted::Part(0..=3));
        assert_eq!(part("bytes=4-", 10), Wanted::Part(4..=9));
        assert_eq!(part("bytes=8-99", 10), Wanted::Part(8..=9));
        assert_eq!(part("bytes=-3", 10), Wanted::Part(7..=9));
        assert_eq!(part("bytes=-99", 10), Wanted::Part(0..=9));
        for impossible in ["bytes=10-", "bytes=10-12", "bytes=-0"] {
            assert_eq!(part(impossible, 10), Wanted::Impossible, "{impossible}");
        }
        for whole in ["bytes=3-1", "bytes=-", "bytes=a-b", "bytes=0-1,3-4", "lines=0-1"] {
            assert_eq!(part(whole, 10), Wanted::Whole, "{whole}");
        }
    }

    #[test]
    fn etags_match_weakly_and_in_lists() {
        assert!(matches_any("\"a\", W/\"b\"", "\"b\""));
        assert!(matches_any("*", "\"b\""));
        assert!(!matches_any("\"a\"", "\"b\""));
    }
}
