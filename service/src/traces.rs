//! `Traces`: spans of a job's way, sent by OTLP when an endpoint is set; without one, nothing of it runs.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry::trace::{Span as _, SpanContext, SpanKind, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use thiserror::Error;
use tokio::runtime::Handle;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Target of the spans that are exported. They are no part of the logs, and the spans of the logs are not exported: the
/// two have other names, fields and lifetimes.
pub const TARGET: &str = "traces";

/// Time for one request to the collector; the exporter tries it again within its own bounds.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time at the end of the process for what has not been sent: a collector that is away must not delay an exit.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Traces could not be set up.
#[derive(Debug, Error)]
pub enum TracesError {
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT is not an http or https URL such as http://127.0.0.1:4318: {0:?}")]
    Endpoint(String),
    #[error("traces cannot be exported: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// The way to the collector. Dropped, it still sends; [`flush`](Self::flush) sends what is left and ends it.
#[derive(Debug, Clone)]
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Starts to export spans to `{endpoint}/v1/traces` as the service `name`, which `OTEL_SERVICE_NAME` overrides. The
    /// other variables of the OpenTelemetry SDK hold too: `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`,
    /// `OTEL_BSP_*`, `OTEL_EXPORTER_OTLP_HEADERS`.
    ///
    /// # Errors
    /// When the endpoint is no URL, or one of the SDK's variables has no meaning.
    pub fn export(
        endpoint: &str,
        name: &'static str,
        version: &'static str,
        runtime: Handle,
    ) -> Result<Self, TracesError> {
        let url = traces_url(endpoint).ok_or_else(|| TracesError::Endpoint(endpoint.to_owned()))?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::new(runtime))
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(url)
            .with_timeout(EXPORT_TIMEOUT)
            .build()?;
        // Made by the builder after the environment's, so what is set here must not be set there.
        let mut resource = Resource::builder().with_attribute(KeyValue::new("service.version", version));
        #[expect(clippy::disallowed_methods, reason = "a variable of the OpenTelemetry SDK, which reads it itself")]
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(name);
        }
        let instance = format!("{}/{}", hostname(), std::process::id());
        let resource = resource.with_attribute(KeyValue::new("service.instance.id", instance)).build();
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        Ok(Self { provider })
    }

    /// Returns the tracer of a subscriber's layer, which is also that of [`record_wait`].
    pub fn tracer(&self) -> SdkTracer {
        TRACER.get_or_init(|| self.provider.tracer("image-pipeline")).clone()
    }

    /// Sends what has not been sent, for two seconds at most. Needs the runtime to be alive, and not to be the
    /// caller's thread.
    pub fn flush(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::warn!(%error, "the last spans were not delivered");
        }
    }
}

/// Makes `span` a child of the remote span that a `traceparent` names. To be called before the span is entered.
pub fn continue_from(span: &Span, traceparent: &str) {
    if span.is_disabled() {
        return;
    }
    if let Some(remote) = remote(traceparent) {
        // It fails where no layer exports; then there is nothing to continue.
        span.set_parent(Context::new().with_remote_span_context(remote)).ok();
    }
}

/// Links `span` to the one that a `traceparent` names. Across a queue, the link is what a reader can rely on: the
/// sender has ended long ago, and each attempt is a span of its own.
pub fn link(span: &Span, traceparent: &str) {
    if span.is_disabled() {
        return;
    }
    if let Some(remote) = remote(traceparent) {
        span.add_link(remote);
    }
}

/// Returns the `traceparent` by which another process continues `span`; none when it is not exported.
pub fn traceparent(span: &Span) -> Option<String> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let span = context.span();
    let context = span.span_context();
    context
        .is_valid()
        .then(|| format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8()))
}

/// Records a wait that is over, as a child of the remote span that `traceparent` names: nobody was there to open a span
/// when it began.
pub fn record_wait(
    name: &'static str,
    traceparent: &str,
    from: SystemTime,
    until: SystemTime,
    attributes: impl FnOnce() -> Vec<(&'static str, String)>,
) {
    let Some(tracer) = TRACER.get() else { return };
    let Some(remote) = remote(traceparent) else { return };
    let attributes = attributes().into_iter().map(|(key, value)| KeyValue::new(key, value));
    let mut span = tracer
        .span_builder(name)
        .with_kind(SpanKind::Internal)
        .with_start_time(from)
        .with_attributes(attributes)
        .start_with_context(tracer, &Context::new().with_remote_span_context(remote));
    // Two clocks: the queue's and ours.
    span.end_with_timestamp(until.max(from));
}

fn remote(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-').skip(1);
    let trace = opentelemetry::TraceId::from_hex(parts.next()?).ok()?;
    let span = opentelemetry::SpanId::from_hex(parts.next()?).ok()?;
    let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
    let flags = opentelemetry::TraceFlags::new(flags);
    let context = SpanContext::new(trace, span, flags, true, opentelemetry::trace::TraceState::default());
    context.is_valid().then_some(context)
}

fn traces_url(endpoint: &str) -> Option<String> {
    let uri: hyper::Uri = endpoint.parse().ok()?;
    let known = matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none();
    (known && uri.host().is_some_and(|host| !host.is_empty()))
        .then(|| format!("{}/v1/traces", endpoint.trim_end_matches('/')))
}

fn hostname() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "unknown-host".into())
}

/// The collector as the exporter sees it. The exporter runs on a thread of its own without a runtime, so requests are
/// made on ours.
struct Collector {
    client: HyperClient<HttpsConnector<HttpConnector>>,
    runtime: Handle,
    failing: AtomicBool,
}

impl Collector {
    fn new(runtime: Handle) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = match HttpsConnectorBuilder::new().with_provider_and_native_roots(Arc::clone(&provider)) {
            Ok(builder) => builder,
            Err(error) => {
                tracing::warn!(%error, "no root certificates: traces can go to an http endpoint only");
                let tls = rustls::ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .expect("the provider knows TLS 1.2 and 1.3")
                    .with_root_certificates(rustls::RootCertStore::empty());
                HttpsConnectorBuilder::new().with_tls_config(tls.with_no_client_auth())
            }
        };
        let connector = builder.https_or_http().enable_http1().build();
        Self { client: HyperClient::new(connector, EXPORT_TIMEOUT, None), runtime, failing: AtomicBool::new(false) }
    }

    /// Says once that the collector is away, and once that it is back.
    fn note(&self, failure: Option<&dyn fmt::Display>) {
        let failed_before = self.failing.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(error) if !failed_before => {
                tracing::warn!(%error, "traces cannot be delivered: check OTEL_EXPORTER_OTLP_ENDPOINT and the collector");
            }
            None if failed_before => tracing::info!("traces are delivered again"),
            _ => {}
        }
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collector")
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let answer = self.runtime.spawn(async move { client.send_bytes(request).await }).await;
        let answer = answer.unwrap_or_else(|stopped| Err(stopped.into()));
        match &answer {
            Ok(response) if response.status().is_success() => self.note(None),
            Ok(response) => self.note(Some(&response.status())),
            Err(error) => self.note(Some(error)),
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_base_url() {
        assert_eq!(traces_url("http://127.0.0.1:4318").as_deref(), Some("http://127.0.0.1:4318/v1/traces"));
        assert_eq!(traces_url("https://otel.example/base/").as_deref(), Some("https://otel.example/base/v1/traces"));
        for bad in ["", "127.0.0.1:4318", "grpc://127.0.0.1:4317", "http://", "http://host?x=1"] {
            assert_eq!(traces_url(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_traceparent_names_a_remote_span() {
        let context = remote("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.span_id().to_string(), "00f067aa0ba902b7");
        assert!(context.is_sampled() && context.is_remote());
        assert!(!remote("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00").unwrap().is_sampled());
        for bad in ["", "00", "00-x-y-01", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"] {
            assert_eq!(remote(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn without_an_exporter_a_span_has_no_traceparent() {
        let span = tracing::info_span!(target: TARGET, "work");
        continue_from(&span, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        assert_eq!(traceparent(&span), None);
    }
}
