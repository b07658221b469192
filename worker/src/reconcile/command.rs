//! `image-worker reconcile`: passes of the reconciler as a process of its own, once or again and again.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Parser, value_parser};
use service::readiness::Readiness;
use service::settings::{ObserveSettings, give_up, refuse};
use service::{admin, aws, shutdown, telemetry};

use super::{Bounds, Judged, Passed, ReconcileError, Reconciler, Report};
use crate::app::{system_clock, worker_name};
use crate::lane::Entrance;
use crate::queue::{QueueError, SqsQueue};
use crate::store::S3Store;

/// The word after the program's name that asks for this instead of a worker.
const COMMAND: &str = "reconcile";
/// Long poll of one look at the dead-letter queue: any wait makes SQS ask all of its servers.
const WAIT: Duration = Duration::from_secs(1);
/// How long dead letters are hidden while they are looked at, if they are not put back before.
const HIDDEN: Duration = Duration::from_secs(120);

/// Ends jobs that no worker will end: what lies in the dead-letter queue without an end in its record becomes `failed`,
/// and a job whose message the queue no longer keeps becomes `expired`.
///
/// Deletes nothing and overwrites no end. Of several that run at a time one does the work, and the others leave it to it.
#[derive(Debug, Clone, Parser)]
#[command(name = "image-worker reconcile", version)]
pub struct ReconcileSettings {
    /// URL of the dead-letter queue.
    #[arg(long, env = "DEAD_LETTER_QUEUE_URL", value_name = "URL", value_parser = NonEmptyStringValueParser::new())]
    pub dead_letter_queue_url: String,
    /// URL of the webhook queue: an end is told there before it is written. Without it nothing is.
    #[arg(long, env = "SQS_WEBHOOK_QUEUE_URL", value_name = "URL")]
    pub sqs_webhook_queue_url: Option<String>,
    /// Bucket of the records.
    #[arg(long, env = "S3_BUCKET_NAME", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub s3_bucket_name: String,
    /// How long the job queue keeps a message.
    #[arg(long, env = "QUEUE_RETENTION_DAYS", default_value_t = 4, value_name = "DAYS", value_parser = value_parser!(u32).range(1..=14))]
    pub queue_retention_days: u32,
    /// One pass, for a timer. Opens no admin port.
    #[arg(long)]
    pub once: bool,
    /// Pause between two passes.
    #[arg(long, env = "RECONCILE_EVERY_SECONDS", default_value_t = 300, value_name = "SECONDS", value_parser = value_parser!(u64).range(5..=86_400))]
    pub reconcile_every_seconds: u64,
    #[command(flatten)]
    pub observe: ObserveSettings,
}

/// Returns the exit code when the command line of this process asks for the reconciler.
pub fn asked(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter();
    let program = args.next()?;
    if args.next()? != COMMAND {
        return None;
    }
    let name = OsString::from(format!("{} {COMMAND}", program.to_string_lossy()));
    Some(match ReconcileSettings::try_parse_from([name].into_iter().chain(args)) {
        Ok(settings) => start(&settings),
        Err(error) if error.use_stderr() => refuse(&error.render()),
        Err(help) => help.exit(),
    })
}

fn start(settings: &ReconcileSettings) -> ExitCode {
    if let Err(error) = telemetry::init_logs(&settings.observe) {
        return refuse(&error);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return give_up(&error),
    };
    match runtime.block_on(run(settings)) {
        Ok(code) => code,
        Err(error) => give_up(&error),
    }
}

async fn run(settings: &ReconcileSettings) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let stopping = shutdown::on_signal()?;
    let config = aws::load_config().await;
    let store = Arc::new(S3Store::new(&config, settings.s3_bucket_name.clone()));
    let dead_letters = Arc::new(SqsQueue::new(&config, settings.dead_letter_queue_url.clone(), WAIT, HIDDEN));
    let mut looked = tokio::select! {
        () = stopping.cancelled() => return Ok(ExitCode::SUCCESS),
        looked = dead_letters.has_redrive_policy() => looked,
    };
    if let Some(wrong) = wrong_queue(&looked) {
        return Ok(refuse(&wrong));
    }
    let reconciler = Reconciler {
        dead_letters: dead_letters.clone(),
        store: store.clone(),
        shelf: store,
        notices: settings
            .sqs_webhook_queue_url
            .as_ref()
            .filter(|url| !url.is_empty())
            .map(|url| Arc::new(SqsQueue::new(&config, url.clone(), WAIT, HIDDEN)) as Arc<dyn Entrance>),
        clock: system_clock(),
        retention: Duration::from_secs(u64::from(settings.queue_retention_days) * 24 * 3600),
        bounds: Bounds::default(),
        name: worker_name(),
    };
    if settings.once {
        return tokio::select! {
            // What it holds comes back by itself, and what it has written is right.
            () = stopping.cancelled() => Ok(ExitCode::SUCCESS),
            passed = reconciler.pass() => {
                tell(&passed?);
                Ok(ExitCode::SUCCESS)
            }
        };
    }
    let readiness = Readiness::starting();
    admin::serve(settings.observe.admin_addr, telemetry::install_metrics(&[])?, readiness.clone())?;
    let every = Duration::from_secs(settings.reconcile_every_seconds);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), every_seconds = every.as_secs(), "reconciler started");
    loop {
        tokio::select! {
            () = stopping.cancelled() => return Ok(ExitCode::SUCCESS),
            passed = reconciler.pass() => heard(passed, &readiness),
        }
        tokio::select! {
            () = stopping.cancelled() => return Ok(ExitCode::SUCCESS),
            () = tokio::time::sleep(every) => {}
        }
        if looked.is_err() {
            looked = dead_letters.has_redrive_policy().await;
            if let Some(wrong) = wrong_queue(&looked) {
                return Ok(refuse(&wrong));
            }
        }
    }
}

/// Says why the queue cannot be looked into, if that is known. Not known, it is looked into all the same: roles are brought up
/// to date later than programs.
fn wrong_queue(has_redrive_policy: &Result<bool, QueueError>) -> Option<&'static str> {
    match has_redrive_policy {
        Ok(false) => None,
        Ok(true) => Some(
            "DEAD_LETTER_QUEUE_URL: this queue has a redrive policy, so it is no dead-letter queue: to look at its messages would \
             use up their hand-overs. Give the queue that the policy names",
        ),
        Err(error) => {
            tracing::warn!(%error, "cannot ask whether DEAD_LETTER_QUEUE_URL has a redrive policy, as a queue of jobs has: \
                looking into it all the same");
            None
        }
    }
}

/// Notes how a pass of many went: one that fails is tried again.
fn heard(passed: Result<Passed, ReconcileError>, readiness: &Readiness) {
    match passed {
        Ok(passed) => {
            readiness.clear("starting");
            readiness.clear("reconcile");
            tell(&passed);
        }
        Err(error) => {
            tracing::error!(%error, "a pass failed, trying again after the pause");
            readiness.block("reconcile", error.to_string());
        }
    }
}

fn tell(passed: &Passed) {
    match passed {
        Passed::Elsewhere { holder } => tracing::info!(holder, "another reconciler is at it"),
        Passed::Done(report) => {
            let Report { saw_every_letter, listed, read, expired, unreadable, swept, .. } = report;
            let of = |judged| report.letters_that_are(judged);
            tracing::info!(
                letters = report.letters.values().sum::<u64>(),
                letters.ended = of(Judged::Ended),
                letters.already_final = of(Judged::AlreadyFinal),
                letters.in_hand = of(Judged::InHand),
                letters.repeat = of(Judged::Repeat),
                letters.other_job = of(Judged::OtherJob),
                letters.poison = of(Judged::Poison),
                letters.newer = of(Judged::Newer),
                saw_every_letter,
                records.listed = listed,
                records.read = read,
                records.expired = expired,
                unreadable,
                swept,
                "reconciled"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_word_in_front_asks() {
        let args = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(asked(args("image-worker")).is_none());
        assert!(asked(args("image-worker --log-filter reconcile")).is_none());
        assert_eq!(asked(args("image-worker reconcile --queue-retention-days 15")), Some(ExitCode::from(64)));
    }

    #[test]
    fn a_look_that_is_denied_stops_nothing() {
        assert!(wrong_queue(&Ok(true)).is_some_and(|wrong| wrong.starts_with("DEAD_LETTER_QUEUE_URL: ")));
        for fit in [Ok(false), Err(QueueError::Misconfigured("AccessDenied".into()))] {
            assert_eq!(wrong_queue(&fit), None);
        }
    }

    #[test]
    fn help_is_the_reference() {
        use clap::CommandFactory;
        let help = ReconcileSettings::command().term_width(100).render_long_help().to_string();
        for flag in ["--dead-letter-queue-url", "--s3-bucket-name", "--queue-retention-days", "--once"] {
            assert!(help.contains(flag), "{help}");
        }
    }
}
