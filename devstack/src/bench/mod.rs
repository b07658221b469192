//! `cargo dev bench`: one worker under full load in a stack of its own; what it costs in CPU and memory.

pub(crate) mod exposition;
pub(crate) mod proc;
mod report;
mod participant;
mod tools;
mod flame;
mod peers;
mod quota;
mod api;
mod api_load;
mod api_report;
mod fairness;

use std::fmt;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::{Value, json};
use thiserror::Error;

use crate::bedrock::{BedrockOptions, Detail, Latency};
use crate::stack::{Stack, StackError, StackOptions};
use crate::traces::TraceCollector;
use crate::venv::VenvError;

pub use api::ApiArgs;
pub use api_report::ApiReport;
pub use fairness::{FairnessArgs, FairnessReport};
pub use peers::{PeersArgs, PeersReport};
pub use quota::{QuotaArgs, QuotaReport};
pub use report::Report;

/// Different pictures of a run. Painting one costs the stand-in as much CPU as rendering it costs the worker, and they
/// share the machine.
const PICTURES: u32 = 24;
/// All of them stay in the stand-in's cache.
const CACHE_BYTES: usize = 512 << 20;
/// The API takes this many jobs in one request.
const BATCH: u32 = 100;
/// How often the worker is looked at. Reading its metrics costs it well under a millisecond.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A run that makes no progress for so long is over.
const PATIENCE: Duration = Duration::from_secs(120);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Settings of `cargo dev bench`.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    /// Jobs to perform: enough that the queue stays full for a while.
    #[arg(long, default_value_t = 600, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub jobs: u32,
    /// Deliveries that the worker holds at once.
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub slots: u16,
    /// Time the model takes: `5s`, `200ms..2s`, or `lognormal:MEDIAN,P99`.
    #[arg(long, default_value = "5s", value_name = "LATENCY")]
    pub latency: Latency,
    /// Export the worker's traces to a collector in this process: what they cost.
    #[arg(long)]
    pub traces: bool,
    /// Print JSON instead of the table.
    #[arg(long, global = true)]
    pub json: bool,
    /// Start the binaries as they are.
    #[arg(long, global = true)]
    pub no_build: bool,
    #[command(subcommand)]
    pub what: Option<What>,
}

/// Comparisons. Without one, it is a worker under full load.
#[derive(Debug, Clone, Subcommand)]
pub enum What {
    /// Accepts jobs, beside `FastAPI` with boto3 on the same SQS. Needs Python 3.10 and, once, the network.
    Api(ApiArgs),
    /// One picture at a time, beside a batch of another tenant: with one queue, and with lanes. An hour with the defaults.
    Fairness(FairnessArgs),
    /// Performs jobs, beside Python with Pillow and Node with sharp on the same queue. Needs Python 3.10, Node 20 and, once, the network.
    Peers(PeersArgs),
    /// Workers that share the model's quota, beside the same ones that each slow down when they are throttled.
    Quota(QuotaArgs),
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Measured {
    Worker(Report),
    Api(Box<ApiReport>),
    Fairness(FairnessReport),
    Peers(PeersReport),
    Quota(QuotaReport),
}

impl Measured {
    /// Returns whether every limit is kept and every goal met.
    pub fn passed(&self) -> bool {
        match self {
            Self::Worker(report) => report.passed(),
            Self::Api(report) => report.passed(),
            Self::Fairness(report) => report.passed(),
            Self::Peers(_) => true,
            Self::Quota(report) => report.passed(),
        }
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worker(report) => report.fmt(f),
            Self::Api(report) => report.fmt(f),
            Self::Fairness(report) => report.fmt(f),
            Self::Peers(report) => report.fmt(f),
            Self::Quota(report) => report.fmt(f),
        }
    }
}

/// Nothing was measured.
#[derive(Debug, Error)]
pub enum BenchError {
    #[error(transparent)]
    Stack(#[from] StackError),
    #[error(transparent)]
    Install(#[from] VenvError),
    #[error("{name} {reason}; its output is in {log}")]
    Participant { name: &'static str, reason: String, log: String },
    #[error("{what} cannot be used: {source}")]
    Io { what: &'static str, source: io::Error },
    #[error("{what} did not answer as expected: {reason}")]
    Http { what: &'static str, reason: String },
    #[error("the worker has no process: see the logs in {0}")]
    NoWorker(String),
    #[error("{published} of {jobs} jobs were published, then nothing for {} s; by outcome: {outcomes}", PATIENCE.as_secs())]
    Stuck { published: u32, jobs: u32, outcomes: String },
    #[error("a run with failures measures something else; by outcome: {outcomes}")]
    Failures { outcomes: String },
}

/// Measures in a stack of its own, in a folder of its own under `dir`, which also has the tools.
///
/// # Errors
/// When the stack does not start, or not every job succeeds.
pub async fn bench(
    args: &BenchArgs,
    dir: &Path,
    binaries_dir: &Path,
    workspace: &Path,
) -> Result<Measured, BenchError> {
    std::fs::create_dir_all(dir).map_err(|source| BenchError::Io { what: "the folder of the run", source })?;
    Ok(match &args.what {
        None => Measured::Worker(worker(args, dir, binaries_dir).await?),
        Some(What::Api(args)) => Measured::Api(Box::new(api::compare(args, dir, binaries_dir, workspace).await?)),
        Some(What::Fairness(args)) => Measured::Fairness(fairness::compare(args, dir, binaries_dir).await?),
        Some(What::Peers(args)) => Measured::Peers(peers::compare(args, dir, binaries_dir, workspace).await?),
        Some(What::Quota(args)) => Measured::Quota(quota::compare(args, dir, binaries_dir).await?),
    })
}

/// Starts a stack with one worker, performs the jobs and measures the worker.
async fn worker(args: &BenchArgs, dir: &Path, binaries_dir: &Path) -> Result<Report, BenchError> {
    let folder = |source| BenchError::Io { what: "the folder of the run", source };
    // Sources are megabytes each: the folder goes when the run is over.
    let mut data = tempfile::Builder::new().prefix("bench-").tempdir_in(dir).map_err(folder)?;
    let collector = match args.traces {
        true => Some(TraceCollector::start().await.map_err(|source| BenchError::Io { what: "the collector", source })?),
        false => None,
    };
    // The time-out is that of production: the last of hundreds waits longer for the cores than the stack's own allows.
    let mut worker_env = env([("WORKER_SLOTS", &args.slots.to_string()), ("ATTEMPT_TIMEOUT_SECONDS", "240")]);
    if let Some(collector) = &collector {
        worker_env.extend(env([("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint())]));
    }
    let options = StackOptions {
        workers: 1,
        restart: false,
        bedrock: BedrockOptions {
            latency: args.latency,
            detail: Detail::Full,
            cache_bytes: CACHE_BYTES,
            ..BedrockOptions::default()
        },
        api_env: env(["JOBS_PER_MINUTE", "JOBS_BURST", "POLLS_PER_MINUTE"].map(|limit| (limit, "1000000"))),
        worker_env,
        ..StackOptions::new(data.path(), binaries_dir)
    };
    let stack = Stack::start(options).await.inspect_err(|_| data.disable_cleanup(true))?;
    let report = tokio::select! {
        report = measure(args, &stack) => report,
        reason = stack.failed() => Err(BenchError::NoWorker(reason)),
    };
    stack.stop().await;
    // After a failure its logs are worth more than the space.
    data.disable_cleanup(report.is_err());
    let mut report = report?;
    // After the stop, which flushes.
    report.spans = collector.map(|collector| collector.spans().len());
    Ok(report)
}

async fn measure(args: &BenchArgs, stack: &Stack) -> Result<Report, BenchError> {
    let http = reqwest::Client::builder().no_proxy().build().expect("a client without TLS has nothing to load");
    let gone = || BenchError::NoWorker(stack.logs_dir().display().to_string());
    let pid = stack.worker_pids().first().copied().flatten().ok_or_else(gone)?;
    let usage = || proc::usage(pid).map_err(|source| BenchError::Io { what: "the worker's /proc", source });
    // The API's, then the worker's.
    let metrics_url = format!("{}/metrics", stack.admin_urls().last().ok_or_else(gone)?);

    let before = Look::new(&http, &metrics_url).await?;
    let idle = usage()?;
    let began = Instant::now();
    submit(args.jobs, stack, &http).await?;
    let bar = ProgressBar::new(args.jobs.into());
    let mut peak_in_flight = 0;
    let mut progress = (0, Instant::now());
    let (after, busy) = loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let look = Look::new(&http, &metrics_url).await?;
        peak_in_flight = peak_in_flight.max(look.in_flight);
        bar.set_position(look.published.into());
        if look.ended > look.published {
            return Err(BenchError::Failures { outcomes: look.outcomes });
        }
        if look.published >= args.jobs {
            break (look, usage()?);
        }
        if look.published > progress.0 {
            progress = (look.published, Instant::now());
        } else if progress.1.elapsed() > PATIENCE {
            let (published, jobs, outcomes) = (look.published, args.jobs, look.outcomes);
            return Err(BenchError::Stuck { published, jobs, outcomes });
        }
    };
    let wall_seconds = began.elapsed().as_secs_f64();
    bar.finish_and_clear();

    let jobs = f64::from(args.jobs);
    let total = (busy.cpu - idle.cpu).as_secs_f64();
    let inside = after.inside_seconds - before.inside_seconds;
    let outside = total - inside;
    Ok(Report {
        jobs: args.jobs,
        slots: args.slots,
        wall_seconds,
        jobs_per_second: jobs / wall_seconds,
        peak_in_flight,
        jobs_per_cpu_second: jobs / total,
        cpu_total_ms: total * 1000.0 / jobs,
        cpu_inside_ms: inside * 1000.0 / jobs,
        cpu_outside_ms: outside * 1000.0 / jobs,
        outside_percent: outside / inside * 100.0,
        jobs_per_delete: after.deletes.0 / after.deletes.1,
        lease_extensions: after.lease_extensions,
        extensions_per_call: after.visibilities.0 / after.visibilities.1,
        idle_rss_mib: mib(idle.rss),
        peak_rss_mib: mib(busy.peak_rss),
        spans: None,
    })
}

/// Submits all jobs at once, as a client with a backlog would.
async fn submit(jobs: u32, stack: &Stack, http: &reqwest::Client) -> Result<(), BenchError> {
    let failed = |reason: String| BenchError::Http { what: "the API", reason };
    let jobs: Vec<Value> = (0..jobs)
        .map(|job| json!({ "prompt": "a lake between wooded hills, early morning", "seed": job % PICTURES + 1 }))
        .collect();
    for batch in jobs.chunks(BATCH as usize) {
        let request = http.post(format!("{}/v1/batches", stack.api_url())).bearer_auth(stack.api_key());
        let request = request.timeout(REQUEST_TIMEOUT).json(&json!({ "jobs": batch }));
        let answer: Value = async { request.send().await?.error_for_status()?.json().await }
            .await
            .map_err(|error: reqwest::Error| failed(error.to_string()))?;
        if answer["accepted"] != batch.len() {
            return Err(failed(format!("of {} jobs {} were accepted", batch.len(), answer["accepted"])));
        }
    }
    Ok(())
}

/// What the worker's metrics say.
struct Look {
    published: u32,
    /// Deliveries that ended, in whatever way.
    ended: u32,
    in_flight: u32,
    inside_seconds: f64,
    /// Deliveries deleted, and calls that did it.
    deletes: (f64, f64),
    /// Deliveries hidden for longer or given back, and calls that did it.
    visibilities: (f64, f64),
    lease_extensions: u32,
    outcomes: String,
}

impl Look {
    async fn new(http: &reqwest::Client, url: &str) -> Result<Self, BenchError> {
        let request = http.get(url).timeout(REQUEST_TIMEOUT);
        let text = async { request.send().await?.error_for_status()?.text().await }.await;
        let text = text.map_err(|error: reqwest::Error| BenchError::Http {
            what: "the worker's /metrics",
            reason: error.to_string(),
        })?;
        Ok(Self::read(&text))
    }

    fn read(text: &str) -> Self {
        let outcomes = exposition::samples(text, "worker_jobs_total").filter(|(_, count)| *count > 0.0);
        let of = |name: &str, what: &str| exposition::sum(text, &format!("{name}_{what}"), &[]);
        let shared = |name: &str| (of(name, "sum"), of(name, "count"));
        Self {
            published: count(exposition::sum(text, "worker_jobs_total", &["outcome=\"published\""])),
            ended: count(exposition::sum(text, "worker_jobs_total", &[])),
            in_flight: count(exposition::sum(text, "worker_deliveries_in_flight", &[])),
            inside_seconds: exposition::sum(text, "worker_cpu_task_seconds_sum", &["task=\"render\""]),
            deletes: shared("worker_delete_entries"),
            visibilities: shared("worker_visibility_entries"),
            lease_extensions: count(exposition::sum(text, "worker_lease_extensions_total", &["result=\"extended\""])),
            outcomes: outcomes.map(|(labels, n)| format!("{} {n}", labels.join(","))).collect::<Vec<_>>().join("; "),
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter of at most a few thousand")]
fn count(value: f64) -> u32 {
    value as u32
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn env<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_tells_failures_from_pictures() {
        let look = Look::read(
            "worker_jobs_total{outcome=\"published\"} 5\nworker_jobs_total{outcome=\"retried\"} 1\n\
             worker_jobs_total{outcome=\"failed\"} 0\nworker_deliveries_in_flight 200\n\
             worker_cpu_task_seconds_sum{task=\"render\"} 0.75\n",
        );
        assert_eq!((look.published, look.ended, look.in_flight), (5, 6, 200));
        assert_eq!(look.inside_seconds, 0.75);
        assert_eq!(look.outcomes, "outcome=\"published\" 5; outcome=\"retried\" 1");
    }
}
