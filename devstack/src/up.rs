//! `cargo dev up`: builds and starts everything, says where it is, and stops it.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use service::shutdown;

use crate::bedrock::{BedrockOptions, Latency};
use crate::cli::{Outcome, binaries_dir, build, init_logs};
use crate::stack::{LocalAwsKind, PortArgs, Ports, STOP_GRACE, Stack, StackOptions};

/// What to start.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Number of workers.
    #[arg(long, env = "DEV_WORKERS", default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=64))]
    workers: u16,
    /// Start the binaries as they are.
    #[arg(long)]
    no_build: bool,
    /// What the processes log, in the syntax of tracing-subscriber's `EnvFilter`.
    #[arg(long, env = "LOG_FILTER", default_value = "info", value_name = "FILTER")]
    log_filter: String,
    /// Whose SQS and S3: the embedded ones keep their data, the other forgets it and needs Python 3.
    #[arg(long, default_value = "embedded", value_enum)]
    aws: LocalAwsKind,
    /// Time the model takes: `800ms`, `200ms..2s`, or `lognormal:MEDIAN,P99`.
    #[arg(long, env = "BEDROCK_STANDIN_LATENCY", default_value = "lognormal:800ms,2500ms", value_name = "LATENCY")]
    model_latency: Latency,
    /// Give batches a queue of their own, so that single jobs do not wait behind them.
    #[arg(long, env = "DEV_LANES")]
    lanes: bool,
    /// Promise a picture within so many seconds: pending jobs then tell when they will be done.
    #[arg(long, env = "DEV_PICTURE_WITHIN_SECONDS", value_name = "SECONDS")]
    picture_within: Option<u32>,
    #[command(flatten)]
    ports: PortArgs,
}

/// Starts the stack and keeps it up until it is told to stop, or a part of it has failed.
pub(crate) async fn up(dir: &Path, args: UpArgs) -> Outcome {
    let signal = shutdown::on_signal()?;
    init_logs()?;
    if !args.no_build && !build().await? {
        return Err("the build failed: see above".into());
    }
    let promise = |seconds: u32| ("PICTURE_WITHIN_SECONDS".to_owned(), seconds.to_string());
    let options = StackOptions {
        api_env: args.picture_within.map(promise).into_iter().collect(),
        ports: Ports::from(&args.ports),
        aws: args.aws,
        workers: usize::from(args.workers),
        lanes: args.lanes,
        portal: true,
        print: true,
        log_filter: args.log_filter,
        bedrock: BedrockOptions { latency: args.model_latency, ..BedrockOptions::default() },
        ..StackOptions::new(dir, binaries_dir()?)
    };
    let stack = tokio::select! {
        stack = Stack::start(options) => stack?,
        () = signal.cancelled() => return Ok(ExitCode::SUCCESS),
    };
    println!("{}", summary(&stack));
    let failure = tokio::select! {
        () = signal.cancelled() => None,
        reason = stack.failed() => Some(reason),
    };
    println!(
        "\nStopping: jobs in progress may finish, at most {} s. Ctrl-C again does not wait.",
        STOP_GRACE.as_secs()
    );
    stack.stop().await;
    match failure {
        Some(reason) => Err(reason.into()),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// What a person needs to know of a running stack.
fn summary(stack: &Stack) -> String {
    let endpoints = stack.endpoints();
    let (api, key) = (&endpoints.api_url, stack.api_key());
    let admin = stack.admin_urls().join("  ");
    let (email, password, code) = stack.portal_access();
    let batches = endpoints.batch_queue_url.as_ref().map(|url| format!("\n  batches      {url}")).unwrap_or_default();
    let portal = stack.portal_url().unwrap_or("(none)");
    format!(
        "
The stack is up. Ctrl-C stops it; what is queued and stored stays.

  portal       {portal}
    teachers   {email}  password {password}
    students   class code {code}

  API          {api}
  docs         {api}/docs
  CDN          {}
  admin        {admin}   (/live /ready /metrics)
  SQS          {}
  queue        {}{batches}
  dead letter  {}
  S3           {}   (bucket {})
  Bedrock      {}
  logs         {}

  cargo dev submit \"a red fox in the snow\"
  cargo imagectl --dev-dir {} status
  curl {api}/v1/jobs -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{{\"prompt\":\"a red fox\"}}'
",
        endpoints.cdn_url,
        endpoints.sqs_url,
        endpoints.queue_url,
        endpoints.dead_letter_url,
        endpoints.s3_url,
        endpoints.bucket,
        endpoints.bedrock_url,
        stack.logs_dir().display(),
        stack.logs_dir().parent().unwrap_or(Path::new(".dev")).display(),
    )
}
