//! `RequestContext`: what ties one request's logs together, and the one log line each request ends with.

use std::any::Any;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use job::{CorrelationId, JobId, TenantId, TraceContext, Traceparent};
use service::traces;
use tracing::{Instrument, Span};

use crate::metrics;
use crate::problem::{Code, Problem};

pub const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Logged and counted when the client went away before its answer; no client ever reads it.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Names of one request. The extractors add the tenant and the job once they know them.
#[derive(Debug)]
pub struct RequestContext {
    pub trace: TraceContext,
    pub tenant: OnceLock<TenantId>,
    pub job_id: OnceLock<JobId>,
    /// What is logged while the request is answered belongs to this one.
    span: Span,
    /// What is exported of the request; disabled where traces are off.
    traced: Span,
}

impl RequestContext {
    /// Notes the job that the request is about, for its own line and for every other one from now on.
    pub fn is_about(&self, id: JobId) {
        self.job_id.get_or_init(|| id);
        for span in [&self.span, &self.traced] {
            span.record("job.id", tracing::field::display(id));
        }
    }
}

/// Gives every request its context, echoes the correlation id, logs and measures.
pub async fn observe(mut request: Request, next: Next) -> Response {
    let (correlation_id, refused) = match correlation_id(request.headers()) {
        Ok(id) => (id, None),
        Err(problem) => (CorrelationId::generate(), Some(problem)),
    };
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let method = request.method().to_string();
    let sent = traceparent(request.headers());
    let traced = traced(&method, &route, sent.as_ref(), &correlation_id);
    // The worker continues from our span where there is one, else from whatever the caller sent.
    let exported = traces::traceparent(&traced).and_then(|text| text.parse().ok());
    let traceparent = exported.or(sent).unwrap_or_else(Traceparent::generate);
    // At the level that no filter leaves out: under `warn`, an info span would take its fields off every line.
    let span = tracing::error_span!(
        "request",
        job.id = tracing::field::Empty,
        correlation.id = correlation_id.as_str(),
        trace.id = traceparent.trace_id(),
    );
    let context = Arc::new(RequestContext {
        trace: TraceContext { traceparent, correlation_id },
        tenant: OnceLock::new(),
        job_id: OnceLock::new(),
        span: span.clone(),
        traced: traced.clone(),
    });
    let mut ending = RequestEnding { context: context.clone(), route, method, started: Instant::now(), status: None };
    request.extensions_mut().insert(context.clone());
    let answer = async {
        match refused {
            Some(problem) => problem.into_response(),
            None => next.run(request).await,
        }
    };
    let mut response = answer.instrument(traced).instrument(span).await;
    ending.status = Some(response.status().as_u16());
    let echoed = HeaderValue::from_str(context.trace.correlation_id.as_str()).expect("an id is visible ASCII");
    response.headers_mut().insert(CORRELATION_ID, echoed);
    response
}

/// Opens the span that is exported of a request. A poll is part of the caller's trace or of none: the polls of one job
/// would be many traces that nobody looks at.
fn traced(method: &str, route: &str, sent: Option<&Traceparent>, correlation_id: &CorrelationId) -> Span {
    if sent.is_none() && method == "GET" {
        return Span::none();
    }
    let span = tracing::info_span!(
        target: traces::TARGET,
        parent: None,
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = tracing::field::Empty,
        job.id = tracing::field::Empty,
        tenant = tracing::field::Empty,
        correlation.id = correlation_id.as_str(),
    );
    if let Some(sent) = sent {
        traces::continue_from(&span, sent.as_str());
    }
    span
}

/// Writes the request's line when dropped: also when the client disconnects and the handler never finishes.
struct RequestEnding {
    context: Arc<RequestContext>,
    route: String,
    method: String,
    started: Instant,
    status: Option<u16>,
}

impl Drop for RequestEnding {
    fn drop(&mut self) {
        let status = self.status.unwrap_or(CLIENT_CLOSED_REQUEST);
        let took = self.started.elapsed();
        metrics::answered(self.route.clone(), status, took);
        let traced = &self.context.traced;
        traced.record("http.response.status_code", status);
        if let Some(tenant) = self.context.tenant.get() {
            traced.record("tenant", tenant.as_str());
        }
        if status >= 500 {
            traced.record("otel.status_code", "ERROR");
        }
        let latency_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            method = self.method,
            route = self.route,
            status,
            latency_ms,
            tenant = self.context.tenant.get().map(TenantId::as_str),
            correlation.id = self.context.trace.correlation_id.as_str(),
            trace.id = self.context.trace.traceparent.trace_id(),
            job.id = self.context.job_id.get().map(tracing::field::display),
            "request"
        );
    }
}

/// Answers a panic of a handler. The payload may quote the request, so it is not logged; the panic hook has printed
/// where it happened.
pub fn panicked(_payload: Box<dyn Any + Send + 'static>) -> Response {
    Problem::fault(Code::InternalError, "a handler panicked").into_response()
}

fn correlation_id(headers: &HeaderMap) -> Result<CorrelationId, Problem> {
    let mut values = headers.get_all(CORRELATION_ID).iter();
    let Some(value) = values.next() else { return Ok(CorrelationId::generate()) };
    if values.next().is_some() {
        return Err(Problem::field("X-Correlation-Id", "is given more than once: send it once"));
    }
    let parsed = value.to_str().ok().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| {
        Problem::field("X-Correlation-Id", "is not 1 to 128 visible ASCII characters without white space")
    })
}

/// The standard says to ignore a `traceparent` that does not parse and to start a new trace.
fn traceparent(headers: &HeaderMap) -> Option<Traceparent> {
    headers.get(TRACEPARENT)?.to_str().ok()?.parse().ok()
}
