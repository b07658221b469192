//! What the spans of one job cost: where nobody exports them, and where they are exported.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::io;
use std::time::SystemTime;

use criterion::{Criterion, criterion_group, criterion_main};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use service::settings::{LogFormat, ObserveSettings};
use service::telemetry;
use service::traces::{self, TARGET};
use tracing::{Dispatch, dispatcher};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Takes spans and drops them: what is left is the cost in the process that makes them, without the collector's.
#[derive(Debug)]
struct Discard;

impl SpanExporter for Discard {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        black_box(batch);
        Ok(())
    }
}

/// The log span of a job, as it is without traces.
fn logged() {
    let span = tracing::error_span!("job", job.id = "id", tenant = "north", trace.id = TRACEPARENT);
    span.in_scope(|| black_box(()));
}

/// The same with the spans of a job in a worker; the wait in the queue is not made here, as it needs the exporter of the process.
fn traced() {
    let job = tracing::error_span!("job", job.id = "id", tenant = "north", trace.id = TRACEPARENT);
    traces::record_wait("queue wait", TRACEPARENT, SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH, Vec::new);
    let delivery = tracing::info_span!(
        target: TARGET,
        parent: None,
        "process job",
        otel.kind = "consumer",
        outcome = tracing::field::Empty,
        job.id = "id",
        tenant = "north",
    );
    traces::continue_from(&delivery, TRACEPARENT);
    traces::link(&delivery, TRACEPARENT);
    job.in_scope(|| {
        delivery.in_scope(|| {
            for step in ["claim", "limit", "generate", "checkpoint", "render", "publish"] {
                tracing::info_span!(target: TARGET, "step", otel.name = step).in_scope(|| black_box(()));
            }
        });
    });
    delivery.record("outcome", "published");
}

/// The logs of a process as it runs, but for where they go.
fn logs<S>() -> impl Layer<S>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let settings = ObserveSettings {
        admin_addr: "127.0.0.1:0".parse().unwrap(),
        log_filter: "info".to_owned(),
        log_format: LogFormat::Json,
        otel_exporter_otlp_endpoint: None,
        otel_exporter_otlp_protocol: String::new(),
    };
    telemetry::logs(&settings, io::sink).unwrap()
}

fn spans_of_a_job(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("spans of one job");
    let off = Dispatch::new(Registry::default().with(logs()));
    dispatcher::with_default(&off, || {
        group.bench_function("logs only, no spans for traces in the code", |b| b.iter(logged));
        group.bench_function("traces off", |b| b.iter(traced));
    });
    let provider = SdkTracerProvider::builder().with_batch_exporter(Discard).build();
    let on = Dispatch::new(Registry::default().with(logs()).with(telemetry::exported(provider.tracer("bench"))));
    dispatcher::with_default(&on, || group.bench_function("traces on", |b| b.iter(traced)));
    group.finish();
    provider.shutdown().unwrap();
}

criterion_group!(benches, spans_of_a_job);
criterion_main!(benches);
