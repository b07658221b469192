//! `cargo dev chaos`: jobs and faults at the same time, and then whether the four guarantees were kept.
//!
//! The production binaries run on an emulator that can be killed, each process behind links of its own to SQS, S3 and
//! Bedrock (`link`). A seed makes the `schedule` of faults. When it is over, everything is healed, the queue drains, dead
//! letters are sent back, and the `verdict` is reached from S3, the queues, the API, the CDN and the ledger of paid calls.

mod clock;
mod evidence;
mod in_flight;
mod inject;
mod link;
mod report;
mod s3_front;
mod schedule;
mod traffic;
mod verdict;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use futures::future::try_join_all;
use indicatif::{ProgressBar, ProgressStyle};
use job::{JobId, TenantId};
use thiserror::Error;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bedrock::{BedrockOptions, Detail};
use crate::stack::ports::{chosen, loopback};
use crate::stack::settings::MODEL;
use crate::stack::{DataDirError, LocalAwsKind, Ports, Stack, StackError, StackOptions, TENANT, read_secrets};

use evidence::{Depths, Redriven, depths, drained, redrive};
use inject::{Injector, Links};
use link::Link;
use s3_front::S3Front;
use schedule::{Schedule, Service};
use traffic::{Client, Source, Submissions};
use verdict::{Evidence, Verdict, longest_recovery};

pub use report::Report;

/// The shortest that the worker takes, so that a short run has many leases.
const LEASE: Duration = Duration::from_secs(20);
/// Well above what the stand-in takes on a busy machine: a call given up is paid for, and would be no fault of the worker.
const MODEL_TIMEOUT_SECONDS: &str = "30";
/// More than [`MODEL_TIMEOUT_SECONDS`] and 60 (docs/operations.md).
const ATTEMPT_TIMEOUT_SECONDS: &str = "95";
const SHUTDOWN_GRACE_SECONDS: &str = "35";
/// A fifth of the default's CPU: what is proven does not depend on the effort, and a busy machine keeps up with the rate.
const RENDER_METHOD: &str = "2";
/// As long as models take: most faults find some call in flight.
const MODEL_LATENCY: &str = "lognormal:3s,8s";
/// What is submitted and not yet accepted when the faults are over may be accepted within this time.
const LAST_SUBMISSIONS: Duration = Duration::from_secs(600);
/// The queue is empty within this time after the last fault, or what is left counts as left: five hand-overs and the
/// pauses between them are a third of it where the machine has nothing else to do.
const DRAIN: Duration = Duration::from_secs(1200);
/// Enough to meet each of the stand-in's four cheap pictures.
const WARM_UP_CALLS: usize = 24;
const SHOW_EVERY: Duration = Duration::from_secs(1);

/// Settings of `cargo dev chaos`.
#[derive(Debug, Clone, Args)]
pub struct ChaosArgs {
    /// Length of the part with faults; what follows takes some minutes more. Five deal every kind of fault.
    #[arg(long, default_value_t = 5.0, value_name = "MINUTES", value_parser = minutes)]
    pub minutes: f64,
    /// Makes the schedule of faults and the jobs; drawn, and printed, if none is given.
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    /// Number of workers.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=16))]
    pub workers: u16,
    /// Jobs a second, bursts come on top.
    #[arg(long, default_value_t = 1.5, value_name = "JOBS", value_parser = rate)]
    pub rate: f64,
    /// Print the schedule and do nothing.
    #[arg(long)]
    pub schedule_only: bool,
    /// Write the report as JSON as well.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the table of docs/reliability.md as well.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Start the binaries as they are.
    #[arg(long)]
    pub no_build: bool,
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes = text.parse().ok().filter(|minutes| (1.0..=1440.0).contains(minutes));
    minutes.ok_or_else(|| "expected minutes, 1 to 1440".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.1..=20.0).contains(rate));
    rate.ok_or_else(|| "expected jobs a second, 0.1 to 20".to_owned())
}

/// The run came to no verdict.
#[derive(Debug, Error)]
pub enum ChaosError {
    #[error(transparent)]
    Stack(#[from] StackError),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error("{what} cannot be used: {source}")]
    Io { what: &'static str, source: io::Error },
    #[error("a process is not started again: {0}")]
    Ended(String),
    #[error("{0}")]
    Unexpected(String),
    #[error("interrupted")]
    Interrupted,
}

/// Runs, in a folder of its own under `dir`; returns None when only the schedule was wanted. The folder stays when the run
/// did not pass.
///
/// # Errors
/// When there is no verdict, `signal` among the reasons.
pub async fn chaos(
    args: &ChaosArgs,
    dir: &Path,
    binaries_dir: &Path,
    signal: &CancellationToken,
) -> Result<Option<Report>, ChaosError> {
    let folder = |source| ChaosError::Io { what: "the folder of the run", source };
    // Few digits: it is to be typed.
    let seed = args.seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    let length = Duration::from_secs_f64(args.minutes * 60.0);
    let schedule = Schedule::new(seed, length, usize::from(args.workers), LEASE);
    println!("seed {seed}: {} faults in {} minutes", schedule.events.len(), args.minutes);
    schedule.events.iter().for_each(|event| println!("  {event}"));
    if args.schedule_only {
        return Ok(None);
    }
    std::fs::create_dir_all(dir).map_err(folder)?;
    let mut data = tempfile::Builder::new().prefix("chaos-").tempdir_in(dir).map_err(folder)?;
    // Until the run has passed its logs are worth more than the space.
    data.disable_cleanup(true);
    println!("\nlogs and data: {}\n", data.path().display());
    let report = run(args, seed, length, &schedule, data.path(), binaries_dir, signal).await?;
    data.disable_cleanup(!report.passed());
    Ok(Some(report))
}

async fn run(
    args: &ChaosArgs,
    seed: u64,
    length: Duration,
    schedule: &Schedule,
    data: &Path,
    binaries_dir: &Path,
    signal: &CancellationToken,
) -> Result<Report, ChaosError> {
    let workers = usize::from(args.workers);
    let injector = tokio::select! {
        injector = start(workers, data, binaries_dir) => Arc::new(injector?),
        () = signal.cancelled() => return Err(ChaosError::Interrupted),
    };
    let outcome = tokio::select! {
        evidence = watch(args, seed, length, schedule, data, &injector) => evidence,
        reason = injector.stack.failed() => Err(ChaosError::Ended(reason)),
        () = signal.cancelled() => Err(ChaosError::Interrupted),
    };
    injector.heal_everything();
    let (_, _, skipped) = injector.account();
    stop(injector).await;
    let evidence = outcome?;
    let Schedule { events, left_out } = schedule;
    let workers_flag = if workers == 3 { String::new() } else { format!(" --workers {workers}") };
    let rate_flag = if args.rate == 1.5 { String::new() } else { format!(" --rate {}", args.rate) };
    Ok(Report {
        command: format!("cargo dev chaos --minutes {} --seed {seed}{workers_flag}{rate_flag}", args.minutes),
        seed,
        minutes: args.minutes,
        workers,
        rate: args.rate,
        faults: events.len() - skipped.len(),
        left_out: *left_out,
        skipped,
        verdict: Verdict::of(&evidence),
    })
}

/// Starts the stack, with a link between each process and each service that it talks to.
async fn start(workers: usize, data: &Path, binaries_dir: &Path) -> Result<Injector, ChaosError> {
    let io = |source| ChaosError::Io { what: "a port", source };
    let ports = Ports {
        sqs: chosen(0).map_err(io)?,
        s3: chosen(0).map_err(io)?,
        bedrock: chosen(0).map_err(io)?,
        ..Ports::ANY
    };
    let front = S3Front::start(loopback(ports.s3)).await.map_err(io)?;
    let mut links = HashMap::new();
    let mut variables: Vec<Vec<(String, String)>> = Vec::new();
    for process in 0..=workers {
        let mut own = Vec::new();
        for service in Service::ALL {
            let (upstream, variable) = match service {
                Service::Sqs => (loopback(ports.sqs), "AWS_ENDPOINT_URL_SQS"),
                Service::S3 => (front.addr(), "AWS_ENDPOINT_URL_S3"),
                Service::Bedrock => (loopback(ports.bedrock), "AWS_ENDPOINT_URL_BEDROCK_RUNTIME"),
            };
            let link = Link::start(upstream).await.map_err(io)?;
            own.push((variable.to_owned(), link.url()));
            links.insert((service, process), link);
        }
        variables.push(own);
    }
    let mut api_env = variables.remove(0);
    api_env.push(("POLLS_PER_MINUTE".to_owned(), "1000000".to_owned()));
    let worker_env = [
        ("LEASE_SECONDS", LEASE.as_secs().to_string().as_str()),
        ("MODEL_TIMEOUT_SECONDS", MODEL_TIMEOUT_SECONDS),
        ("ATTEMPT_TIMEOUT_SECONDS", ATTEMPT_TIMEOUT_SECONDS),
        ("SHUTDOWN_GRACE_SECONDS", SHUTDOWN_GRACE_SECONDS),
        ("RENDER_METHOD", RENDER_METHOD),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let stack = Stack::start(StackOptions {
        aws: LocalAwsKind::Emulator,
        ports,
        workers,
        bedrock: BedrockOptions {
            latency: MODEL_LATENCY.parse().expect("a latency of the form that is documented"),
            detail: Detail::Cheap,
            ..BedrockOptions::default()
        },
        api_env,
        worker_env: worker_env.into(),
        each_worker_env: variables,
        ..StackOptions::new(data, binaries_dir)
    })
    .await?;
    warm_up(&stack).await?;
    let tenant: TenantId = TENANT.parse().expect("a tenant of the form that is documented");
    Ok(Injector::new(stack, Links(links), front, Submissions::default(), tenant))
}

/// Has the stand-in paint its few cheap pictures, which takes a busy machine longer than a worker waits for a call.
async fn warm_up(stack: &Stack) -> Result<(), ChaosError> {
    let http = reqwest::Client::builder().no_proxy().build().expect("a client without TLS has nothing to load");
    let url = format!("{}/model/{MODEL}/invoke", stack.bedrock_url());
    let call = |number: usize| {
        let request = http.post(&url).header("authorization", "AWS4-HMAC-SHA256 warm-up");
        let request = request.json(&serde_json::json!({ "prompt": format!("warm-up {number}") }));
        async move { request.send().await?.error_for_status()?.bytes().await }
    };
    let painted = try_join_all((0..WARM_UP_CALLS).map(call)).await;
    painted.map(|_| ()).map_err(|error| ChaosError::Unexpected(format!("the Bedrock stand-in: {error}")))
}

/// Stops the stack once nobody uses it any more.
async fn stop(mut injector: Arc<Injector>) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match Arc::try_unwrap(injector) {
            Ok(injector) => return injector.stack.stop().await,
            // Tasks that were aborted let go at their next turn.
            Err(shared) if Instant::now() < deadline => injector = shared,
            Err(_) => return tracing::warn!("the stack is still in use: its processes are killed"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Submits, injects, waits until everything has come to rest, and gathers the evidence.
async fn watch(
    args: &ChaosArgs,
    seed: u64,
    length: Duration,
    schedule: &Schedule,
    data: &Path,
    injector: &Arc<Injector>,
) -> Result<Evidence, ChaosError> {
    let stack = &injector.stack;
    let bar = ProgressBar::new(length.as_secs());
    bar.set_style(ProgressStyle::with_template("{elapsed_precise} {bar:30} {msg}").expect("a template that is fixed"));
    let http = reqwest::Client::builder().no_proxy().build().expect("a client without TLS has nothing to load");
    let client = Client { http, api_url: stack.api_url().to_owned(), api_key: stack.api_key().to_owned() };
    let secrets = read_secrets(data)?.ok_or_else(|| ChaosError::Unexpected("the stack has no secrets".to_owned()))?;
    let keys = secrets.job_id_key.parse();
    let keys = keys.map_err(|error| ChaosError::Unexpected(format!("the stack's secret: {error}")))?;
    let source = Source { seed, keys: Arc::new(keys), tenant: injector.tenant.clone() };
    let submissions = injector.submissions.clone();
    let give_up = CancellationToken::new();

    let say = {
        let bar = bar.clone();
        // A hidden bar prints nothing by itself.
        move |line: String| bar.suspend(|| println!("{line}"))
    };
    let accepted = CancellationToken::new();
    let faults = async {
        injector.run(&schedule.events, say.clone()).await;
        tokio::time::sleep(length.saturating_sub(injector.since_start())).await;
        injector.heal_everything();
        tokio::select! {
            () = tokio::time::sleep(LAST_SUBMISSIONS) => give_up.cancel(),
            () = accepted.cancelled() => {}
        }
    };
    let jobs = async {
        traffic::run(client.clone(), submissions.clone(), source, (args.rate, length), give_up.clone()).await;
        accepted.cancel();
    };
    let shown = async {
        loop {
            tokio::time::sleep(SHOW_EVERY).await;
            bar.set_position(injector.since_start().as_secs());
            bar.set_message(state(depths(stack).await.ok(), &submissions));
        }
    };
    tokio::select! {
        _ = async { tokio::join!(faults, jobs) } => {}
        () = shown => {}
    }
    say(format!("{:7.1} s  nothing is wrong any more", injector.since_start().as_secs_f64()));

    let show = |depths| bar.set_message(state(Some(depths), &submissions));
    drained(stack, DRAIN, show).await?;
    let redriven = redrive(stack).await?;
    let letters = redriven.jobs + redriven.copies;
    if letters > 0 {
        say(format!("{:7.1} s  {letters} dead letters are sent back", injector.since_start().as_secs_f64()));
    }
    let rest = drained(stack, DRAIN, show).await?;
    say(format!("{:7.1} s  nothing moves any more", injector.since_start().as_secs_f64()));
    gather(injector, &client, rest, redriven, &bar).await
}

fn state(depths: Option<Depths>, submissions: &Submissions) -> String {
    let accepted = submissions.accepted().len();
    match depths {
        Some(Depths { queue, dead_letters }) => format!(
            "{accepted} accepted, {} waiting, {} in flight, {} dead letters",
            queue.visible, queue.invisible, dead_letters.visible
        ),
        None => format!("{accepted} accepted, SQS does not answer"),
    }
}

async fn gather(
    injector: &Injector,
    client: &Client,
    rest: Depths,
    redriven: Redriven,
    bar: &ProgressBar,
) -> Result<Evidence, ChaosError> {
    let all = injector.submissions.all();
    let (accepted, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|submission| submission.is_accepted);
    let dead = evidence::dead_letters(&injector.stack).await?;
    let looked = AtomicU64::new(0);
    bar.set_length(accepted.len() as u64);
    let progress = || bar.set_position(looked.fetch_add(1, Ordering::Relaxed));
    let found = evidence::jobs(&injector.stack, client, &accepted, &dead, progress).await?;
    bar.finish_and_clear();

    let (hits, healed, _) = injector.account();
    let start = injector.began_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let pictures: Vec<Duration> = found
        .iter()
        .filter(|found| found.job.ending.is_some_and(|(status, _)| status == job::Status::Succeeded))
        .filter_map(|found| Duration::try_from_secs_f64(found.written_at? - start).ok())
        .collect();
    let mut jobs: Vec<_> = found.into_iter().map(|found| found.job).collect();
    let of = |hits: &HashMap<JobId, u64>, id: &JobId| hits.get(id).copied().unwrap_or_default();
    for (job, submission) in jobs.iter_mut().zip(&accepted) {
        job.hit_by_signals = of(&hits.by_signals, &submission.id);
        job.hit_by_network = of(&hits.by_network, &submission.id);
    }
    Ok(Evidence {
        jobs,
        refused: others.into_iter().map(|other| other.refused.unwrap_or_else(|| "no answer".to_owned())).collect(),
        queue: rest.queue,
        dead_letters: depths(&injector.stack).await?.dead_letters,
        redriven: redriven.jobs,
        redriven_copies: redriven.copies,
        hit_by_signals: hits.by_signals.values().sum(),
        hit_by_network: hits.by_network.values().sum(),
        longest_recovery: longest_recovery(&healed, &pictures),
    })
}
