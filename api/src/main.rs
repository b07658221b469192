//! `image-api`: reads the settings, opens the ports, serves until told to stop.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use api::app::{Application, Ports, Stopped};
use api::metrics;
use api::queue::{JobQueue, SqsQueue};
use api::settings::{ApiSettings, Secrets};
use api::store::S3Records;
use clap::Parser;
use jiff::Timestamp;
use service::readiness::Readiness;
use service::{admin, aws, health, settings, shutdown, telemetry};

/// A client waits behind every call, so they are short; the operation leaves room for one more attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(9);
const MAX_ATTEMPTS: u32 = 2;
/// For calls that no request waits for any more: nobody has been promised anything, so a log line is all that is lost.
const LAST_SENDS: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    if let Some(code) = health::asked(std::env::args_os()) {
        return code;
    }
    let settings = match ApiSettings::try_parse() {
        Ok(settings) => settings,
        Err(error) if error.use_stderr() => return settings::refuse(&error.render()),
        Err(help) => help.exit(),
    };
    let secrets = match settings.validate() {
        Ok(secrets) => secrets,
        Err(error) => return settings::refuse(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return settings::give_up(&error),
    };
    let version = env!("CARGO_PKG_VERSION");
    let traces = match telemetry::init(&settings.observe, "image-api", version, runtime.handle()) {
        Ok(traces) => traces,
        Err(error) => return settings::refuse(&error),
    };
    let stopped = runtime.block_on(run(&settings, secrets));
    if let Some(traces) = traces {
        traces.flush();
    }
    match stopped {
        Ok(Stopped::Drained | Stopped::GraceRanOut) => ExitCode::SUCCESS,
        Err(error) => settings::give_up(&error),
    }
}

async fn run(settings: &ApiSettings, secrets: Secrets) -> Result<Stopped, Box<dyn Error>> {
    let recorder = telemetry::install_metrics(metrics::BUCKETS)?;
    metrics::describe();
    let readiness = Readiness::starting();
    let admin_addr = admin::serve(settings.observe.admin_addr, recorder, readiness.clone())?;
    let stop = shutdown::on_signal()?;

    let config = aws::load_config().await;
    let timeouts = aws::timeouts(ATTEMPT_TIMEOUT, OPERATION_TIMEOUT);
    let retries = aws::retries(MAX_ATTEMPTS);
    let sqs = aws_sdk_sqs::config::Builder::from(&config)
        .timeout_config(timeouts.clone())
        .retry_config(retries.clone())
        .build();
    let s3 = aws_sdk_s3::config::Builder::from(&config)
        .timeout_config(timeouts)
        .retry_config(retries)
        .force_path_style(aws::s3_needs_path_style(&config))
        .build();
    let backend = &settings.backend;
    let queue = Arc::new(SqsQueue::new(aws_sdk_sqs::Client::from_conf(sqs), backend.sqs_queue_url.clone()));
    let ports = Ports {
        queue: Arc::clone(&queue) as Arc<dyn JobQueue>,
        records: Arc::new(S3Records::new(aws_sdk_s3::Client::from_conf(s3), backend.s3_bucket_name.clone())),
        now: Timestamp::now,
    };

    let application = Application::build(settings, secrets, ports, readiness).await?;
    tracing::info!(listen_addr = %application.local_addr(), %admin_addr, "image-api is listening");
    let stopped = application.run_until_stopped(stop.cancelled_owned()).await;
    // Whatever a request still waits for has been waited for above.
    if tokio::time::timeout(LAST_SENDS, queue.drained()).await.is_err() {
        tracing::warn!("calls to the queue are still under way, leaving them");
    }
    tracing::info!(drained = stopped == Stopped::Drained, "image-api has stopped");
    Ok(stopped)
}
