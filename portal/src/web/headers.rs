//! Headers of every answer: what a page may load, who may frame it, and who may keep it.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Portal;
use super::failure::PageError;

static ALWAYS: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
];

/// Two years.
const HSTS: &str = "max-age=63072000";

/// What everything carries. The policy has no exception: scripts and styles are files of ours, and the only other origin is
/// that of the pictures. Placeholders are files as well, so `data:` is not allowed either.
pub(super) async fn of_everything(State(portal): State<Arc<Portal>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in &ALWAYS {
        headers.insert(name.clone(), HeaderValue::from_static(value));
    }
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' {}; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        portal.cdn
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    if portal.https {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(HSTS));
    }
    response
}

/// Turns away what another site has a browser send, before a cookie is looked at or given: `SameSite` withholds the
/// session from such a form, and the answer would replace it. And what no text of ours has: PostgreSQL takes no NUL.
pub(super) async fn of_ours(request: Request, next: Next) -> Response {
    let refusal = if request.method() == Method::POST && is_foreign(request.headers()) {
        Some(PageError::Foreign)
    } else {
        request.uri().to_string().contains("%00").then_some(PageError::NotFound)
    };
    match refusal {
        Some(refusal) => refusal.into_response(),
        None => next.run(request).await,
    }
}

fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match (text("sec-fetch-site"), text("origin"), text("host")) {
        (Some(site), ..) => site != "same-origin" && site != "none",
        // A browser of before 2023.
        (None, Some(origin), Some(host)) => origin.split_once("://").is_none_or(|(_, named)| named != host),
        _ => false,
    }
}

/// What is made for one person is kept by nobody.
pub(super) async fn of_pages(State(_): State<Arc<Portal>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_of_another_site_is_told_by_what_the_browser_says_of_it() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let pairs =
                pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            is_foreign(&pairs.collect())
        };
        assert!(!of(&[]), "no browser");
        assert!(!of(&[("sec-fetch-site", "same-origin"), ("origin", "https://portal.example")]));
        assert!(of(&[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")]));
        assert!(of(&[("sec-fetch-site", "same-site")]));
        assert!(!of(&[("origin", "http://127.0.0.1:8000"), ("host", "127.0.0.1:8000")]));
        assert!(of(&[("origin", "http://evil.example"), ("host", "127.0.0.1:8000")]));
        assert!(of(&[("origin", "null"), ("host", "127.0.0.1:8000")]));
    }
}
