//! Structured logs, traces, and the Prometheus recorder.

use std::io::{self, IsTerminal};
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry_sdk::trace::SdkTracer;
use thiserror::Error;
use tokio::runtime::Handle;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::settings::{LogFormat, ObserveSettings};
use crate::traces::{self, Traces, TracesError};

/// Crates that print request bodies and headers, prompts and credentials among them, when they are asked for details.
const CAPPED: [&str; 5] = ["aws_", "hyper", "h2", "rustls", "s3s"];

/// Histogram memory grows without bound unless upkeep runs; the exporter's own listener does it at this interval.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Telemetry could not be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    #[error("LOG_FILTER is not a filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("logging is already set up: {0}")]
    Logs(#[from] tracing_subscriber::util::TryInitError),
    #[error(transparent)]
    Traces(#[from] TracesError),
    #[error("metrics cannot be set up: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// Starts logging to standard output.
///
/// # Errors
/// When the filter does not parse, or logging has been started before.
pub fn init_logs(settings: &ObserveSettings) -> Result<(), TelemetryError> {
    Ok(tracing_subscriber::registry().with(logs(settings, io::stdout)?).try_init()?)
}

/// Starts logging to standard output, and the export of traces if there is an endpoint for them. `name` and `version`
/// are what the collector calls this service; requests to it are made on `runtime`.
///
/// # Errors
/// When the filter does not parse, the endpoint cannot be used, or logging has been started before.
pub fn init(
    settings: &ObserveSettings,
    name: &'static str,
    version: &'static str,
    runtime: &Handle,
) -> Result<Option<Traces>, TelemetryError> {
    let Some(endpoint) = settings.traces_endpoint() else {
        init_logs(settings)?;
        return Ok(None);
    };
    let traces = Traces::export(endpoint, name, version, runtime.clone())?;
    tracing_subscriber::registry().with(logs(settings, io::stdout)?).with(exported(traces.tracer())).try_init()?;
    Ok(Some(traces))
}

/// Returns the layer that exports the spans of traces, and nothing else.
pub fn exported<S>(tracer: SdkTracer) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    // Where in our code a span was opened, and by which thread, tells an operator nothing.
    tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false)
        .with_filter(filter_fn(is_traced).with_max_level_hint(LevelFilter::INFO))
}

/// Returns the layer that writes the logs.
///
/// # Errors
/// When the filter does not parse.
pub fn logs<S, W>(settings: &ObserveSettings, writer: W) -> Result<Box<dyn Layer<S> + Send + Sync>, TelemetryError>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    // Whatever the settings ask for, the capped crates never say more than warnings, and the spans of traces are not
    // those of the logs. With a hint, a level that nobody asked for costs one comparison.
    let ours = filter_fn(|metadata| metadata.target() != traces::TARGET && !is_capped(metadata));
    let filter = EnvFilter::try_new(&settings.log_filter)?.and(ours.with_max_level_hint(LevelFilter::TRACE));
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    Ok(match settings.log_format {
        LogFormat::Json => {
            layer.json().flatten_event(true).with_current_span(true).with_span_list(false).with_filter(filter).boxed()
        }
        LogFormat::Text => layer.with_target(false).with_ansi(io::stdout().is_terminal()).with_filter(filter).boxed(),
    })
}

fn is_capped(metadata: &Metadata<'_>) -> bool {
    *metadata.level() > tracing::Level::WARN && CAPPED.iter().any(|name| metadata.target().starts_with(name))
}

/// Besides the spans of traces: warnings and errors, which become events of the span that they happened in.
fn is_traced(metadata: &Metadata<'_>) -> bool {
    let is_warning = metadata.is_event() && *metadata.level() <= tracing::Level::WARN;
    metadata.target() == traces::TARGET || (is_warning && !CAPPED.iter().any(|n| metadata.target().starts_with(n)))
}

/// Installs the process-wide recorder.
///
/// Every histogram named in `buckets` (upper bounds in the metric's own unit)
/// becomes a real histogram: the exporter's default, a summary, cannot be added up over a fleet.
///
/// # Errors
/// When a recorder is installed already or a list of buckets is empty.
pub fn install_metrics(buckets: &[(&str, &[f64])]) -> Result<PrometheusHandle, TelemetryError> {
    let handle = recorder(buckets)?.install_recorder()?;
    let upkeep = handle.clone();
    std::thread::Builder::new()
        .name("metrics-upkeep".into())
        .spawn(move || {
            loop {
                std::thread::sleep(UPKEEP_INTERVAL);
                upkeep.run_upkeep();
            }
        })
        .expect("the system can start a thread");
    Ok(handle)
}

/// Returns the recorder's builder with its buckets set; tests build a local recorder from it.
///
/// # Errors
/// When a list of buckets is empty.
pub fn recorder(buckets: &[(&str, &[f64])]) -> Result<PrometheusBuilder, TelemetryError> {
    let mut builder = PrometheusBuilder::new();
    for (name, bounds) in buckets {
        builder = builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), bounds)?;
    }
    Ok(builder)
}
