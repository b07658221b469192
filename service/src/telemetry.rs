//! Structured logs and the Prometheus recorder.

use std::io::IsTerminal;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::settings::{LogFormat, ObserveSettings};

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
    #[error("metrics cannot be set up: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// Starts logging to standard output.
///
/// # Errors
/// When the filter does not parse, or logging has been started before.
pub fn init_logs(settings: &ObserveSettings) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&settings.log_filter)?;
    // A filter of its own: whatever the settings ask for, these crates never say more than warnings.
    let cap = filter_fn(|metadata| {
        *metadata.level() <= tracing::Level::WARN || !CAPPED.iter().any(|name| metadata.target().starts_with(name))
    });
    let registry = tracing_subscriber::registry().with(filter).with(cap);
    match settings.log_format {
        LogFormat::Json => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_current_span(true)
                    .with_span_list(false),
            )
            .try_init()?,
        LogFormat::Text => registry
            .with(tracing_subscriber::fmt::layer().with_target(false).with_ansi(std::io::stdout().is_terminal()))
            .try_init()?,
    }
    Ok(())
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
