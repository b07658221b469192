//! `image-api webhooks`: the courier as a process of its own.

use std::error::Error;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use jiff::Timestamp;
use service::readiness::Readiness;
use service::settings::{give_up, refuse};
use service::{admin, aws, shutdown, telemetry};

use super::client::{Reach, SystemLookup, WebhookClient};
use super::courier::{Courier, Stopped};
use super::metrics;
use super::queue::SqsNotices;
use super::receivers::Receivers;
use super::settings::WebhookSettings;
use crate::store::S3Records;
use crate::view::Links;

/// The word after the program's name that asks for this instead of the API.
const COMMAND: &str = "webhooks";

/// Returns the exit code when the command line of this process asks for the webhooks.
pub fn asked(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter();
    let program = args.next()?;
    if args.next()? != COMMAND {
        return None;
    }
    let name = OsString::from(format!("{} {COMMAND}", program.to_string_lossy()));
    let settings = match WebhookSettings::try_parse_from([name].into_iter().chain(args)) {
        Ok(settings) => settings,
        Err(error) if error.use_stderr() => return Some(refuse(&error.render())),
        Err(help) => help.exit(),
    };
    Some(match settings.validate() {
        Ok(receivers) => start(&settings, receivers),
        Err(error) => refuse(&error),
    })
}

fn start(settings: &WebhookSettings, receivers: Receivers) -> ExitCode {
    if let Err(error) = telemetry::init_logs(&settings.observe) {
        return refuse(&error);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return give_up(&error),
    };
    match runtime.block_on(run(settings, receivers)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => give_up(&error),
    }
}

async fn run(settings: &WebhookSettings, receivers: Receivers) -> Result<(), Box<dyn Error>> {
    let stopping = shutdown::on_signal()?;
    let recorder = telemetry::install_metrics(metrics::BUCKETS)?;
    metrics::describe();
    let readiness = Readiness::starting();
    let admin_addr = admin::serve(settings.observe.admin_addr, recorder, readiness.clone())?;
    let reach = if settings.webhook_allow_private {
        tracing::warn!(
            "WEBHOOK_ALLOW_PRIVATE is on: webhooks go to any address, and by http. Not for anything but a laptop"
        );
        Reach::ANYWHERE
    } else {
        Reach::PUBLIC
    };
    let config = aws::load_config().await;
    let tenants = receivers.count();
    let courier = Courier {
        queue: Arc::new(SqsNotices::new(&config, settings.sqs_webhook_queue_url.clone())),
        records: Arc::new(S3Records::of(&config, settings.s3_bucket_name.clone())),
        receivers,
        client: WebhookClient::new(reach, Arc::new(SystemLookup))?,
        links: Links { api: settings.public_base_url.clone(), cdn: settings.cloudfront_domain.clone() },
        retention: settings.retention(),
        now: Timestamp::now,
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %admin_addr, tenants, "webhooks started");
    let stopped = Arc::new(courier).run(&readiness, &stopping, settings.shutdown_grace()).await;
    tracing::info!(drained = stopped == Stopped::Drained, "webhooks stopped");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_word_in_front_asks() {
        let args = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(asked(args("image-api")).is_none());
        assert!(asked(args("image-api --log-filter webhooks")).is_none());
        assert_eq!(asked(args("image-api webhooks --shutdown-grace-seconds 0")), Some(ExitCode::from(64)));
    }
}
