//! `TraceCollector`: takes spans by OTLP over HTTP, as an OpenTelemetry collector does, and keeps them to be looked at.

pub mod jaeger;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use clap::Args;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span as WireSpan, span::SpanKind, status::StatusCode as SpanStatus};
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const PROTOBUF: &str = "application/x-protobuf";

/// One span, as its sender described it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectedSpan {
    /// `service.name` of the sender.
    pub service: String,
    pub name: String,
    /// `server`, `client`, `producer`, `consumer` or `internal`.
    pub kind: &'static str,
    /// 32 hex digits.
    pub trace_id: String,
    /// 16 hex digits.
    pub span_id: String,
    /// 16 hex digits; empty for a root.
    pub parent_id: String,
    /// Trace id and span id of each linked span.
    pub links: Vec<(String, String)>,
    /// Nanoseconds since the epoch.
    pub start_ns: u64,
    /// Nanoseconds since the epoch.
    pub end_ns: u64,
    pub is_error: bool,
    pub attributes: BTreeMap<String, String>,
    /// Names of its events.
    pub events: Vec<String>,
}

/// Settings of `cargo dev traces`.
#[derive(Debug, Clone, Args)]
pub struct TracesArgs {
    /// Address that takes OTLP over HTTP. Port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:4318", value_name = "HOST:PORT")]
    pub otlp_addr: SocketAddr,
    /// Address that shows what was taken, as `GET /api/traces/{trace_id}` of Jaeger does. Port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:16686", value_name = "HOST:PORT")]
    pub query_addr: SocketAddr,
}

/// What was taken, shared with whoever shows it.
type Kept = Arc<Mutex<Vec<CollectedSpan>>>;

/// A collector. It keeps everything, so it is for a test or an afternoon. Ends when dropped.
#[derive(Debug)]
pub struct TraceCollector {
    local_addr: SocketAddr,
    spans: Kept,
    servers: Mutex<Vec<JoinHandle<()>>>,
}

impl TraceCollector {
    /// Starts to take spans on a free loopback port.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> io::Result<Self> {
        Self::listen((Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// Starts to take spans at an address.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn listen(addr: SocketAddr) -> io::Result<Self> {
        let spans = Kept::default();
        let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&spans));
        let (local_addr, server) = serve(addr, router).await?;
        Ok(Self { local_addr, spans, servers: Mutex::new(vec![server]) })
    }

    /// Shows what it has at an address, which it returns, in the form of Jaeger's query API.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn show(&self, addr: SocketAddr) -> io::Result<SocketAddr> {
        let (addr, server) = serve(addr, jaeger::router(Arc::clone(&self.spans))).await?;
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).push(server);
        Ok(addr)
    }

    /// Returns what to set `OTEL_EXPORTER_OTLP_ENDPOINT` to.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.local_addr)
    }

    /// Returns every span so far, in the order of their starts.
    pub fn spans(&self) -> Vec<CollectedSpan> {
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone();
        spans.sort_by_key(|span| span.start_ns);
        spans
    }
}

impl Drop for TraceCollector {
    fn drop(&mut self) {
        for server in self.servers.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            server.abort();
        }
    }
}

async fn serve(addr: SocketAddr, router: Router) -> io::Result<(SocketAddr, JoinHandle<()>)> {
    let taken = |error: io::Error| io::Error::new(error.kind(), format!("{addr} cannot be listened on: {error}"));
    let listener = TcpListener::bind(addr).await.map_err(taken)?;
    let addr = listener.local_addr()?;
    #[expect(clippy::disallowed_methods, reason = "aborted when the collector is dropped")]
    let server = tokio::spawn(async move {
        axum::serve(listener, router).await.ok();
    });
    Ok((addr, server))
}

async fn take(State(kept): State<Kept>, headers: HeaderMap, body: Bytes) -> Response {
    if headers.get(header::CONTENT_TYPE).is_none_or(|given| given != PROTOBUF) {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    let Ok(request) = ExportTraceServiceRequest::decode(body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    for group in request.resource_spans {
        let resource = attributes(group.resource.map(|resource| resource.attributes).unwrap_or_default());
        let service = resource.get("service.name").cloned().unwrap_or_default();
        let spans = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
        kept.extend(spans.map(|span| collected(service.clone(), span)));
    }
    let answer = ExportTraceServiceResponse::default().encode_to_vec();
    ([(header::CONTENT_TYPE, PROTOBUF)], answer).into_response()
}

fn collected(service: String, span: WireSpan) -> CollectedSpan {
    CollectedSpan {
        service,
        kind: match span.kind() {
            SpanKind::Server => "server",
            SpanKind::Client => "client",
            SpanKind::Producer => "producer",
            SpanKind::Consumer => "consumer",
            SpanKind::Internal | SpanKind::Unspecified => "internal",
        },
        trace_id: hex(&span.trace_id),
        span_id: hex(&span.span_id),
        parent_id: hex(&span.parent_span_id),
        links: span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect(),
        start_ns: span.start_time_unix_nano,
        end_ns: span.end_time_unix_nano,
        is_error: span.status.as_ref().is_some_and(|status| status.code() == SpanStatus::Error),
        events: span.events.into_iter().map(|event| event.name).collect(),
        attributes: attributes(span.attributes),
        name: span.name,
    }
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    pairs.into_iter().map(|pair| (pair.key, pair.value.map(text).unwrap_or_default())).collect()
}

fn text(value: AnyValue) -> String {
    match value.value {
        Some(Value::StringValue(text)) => text,
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::IntValue(value)) => value.to_string(),
        Some(Value::DoubleValue(value)) => value.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
