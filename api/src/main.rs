//! `image-api`: reads the settings, opens the ports, serves until told to stop.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use api::app::{Application, Ports, Stopped};
use api::metrics;
use api::queue::{JobQueue, SqsQueue};
use api::settings::{ApiSettings, Secrets};
use api::store::{RecordStore, S3Records};
use api::webhooks;
use clap::Parser;
use jiff::Timestamp;
use job::{Part, Pauses};
use service::following::Followed;
use service::readiness::Readiness;
use service::{admin, aws, health, settings, shutdown, telemetry};

/// A client waits behind every call, so they are short; the operation leaves room for one more attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(9);
const MAX_ATTEMPTS: u32 = 2;
/// For calls that no request waits for any more: nobody has been promised anything, so a log line is all that is lost.
const LAST_SENDS: Duration = Duration::from_secs(2);

/// How often the pauses are read: 17,280 reads a day and process, 0.007 USD.
const LOOK_EVERY: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    if let Some(code) = health::asked(std::env::args_os()).or_else(|| webhooks::asked(std::env::args_os())) {
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
    let sqs = aws_sdk_sqs::Client::from_conf(sqs);
    let queue = SqsQueue::new(sqs, backend.sqs_queue_url.clone(), backend.batch_queue_url().map(str::to_owned))
        .with_webhooks(backend.webhook_queue_url().map(str::to_owned));
    let queue = Arc::new(queue);
    let records = Arc::new(S3Records::new(aws_sdk_s3::Client::from_conf(s3), backend.s3_bucket_name.clone()));
    let pauses = Followed::default();
    let ports = Ports {
        queue: Arc::clone(&queue) as Arc<dyn JobQueue>,
        records: Arc::clone(&records) as Arc<dyn RecordStore>,
        pauses: pauses.clone(),
        now: Timestamp::now,
    };

    let application = Application::build(settings, secrets, ports, readiness).await?;
    tracing::info!(listen_addr = %application.local_addr(), %admin_addr, "image-api is listening");
    let read = async || records.pauses().await;
    let serving = application.run_until_stopped(stop.clone().cancelled_owned());
    let following = pauses.follow("the pauses", LOOK_EVERY, &stop, read, told);
    let (stopped, ()) = tokio::join!(serving, following);
    // Whatever a request still waits for has been waited for above.
    if tokio::time::timeout(LAST_SENDS, queue.drained()).await.is_err() {
        tracing::warn!("calls to the queue are still under way, leaving them");
    }
    tracing::info!(drained = stopped == Stopped::Drained, "image-api has stopped");
    Ok(stopped)
}

/// Tells the log of a pause that has begun or ended.
fn told(pauses: &Pauses) {
    match pauses.of(Part::Intake) {
        Some(pause) => tracing::warn!(reason = pause.reason, by = pause.by, since = %pause.since,
            "intake is paused: submissions are answered with 503"),
        None => tracing::info!("intake is not paused"),
    }
}
