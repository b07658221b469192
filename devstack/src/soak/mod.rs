//! `cargo dev soak`: hours of steady load; memory, open files and tasks of each process must not grow.

mod load;
mod sample;
mod trend;
mod plot;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use thiserror::Error;

use crate::bedrock::{BedrockOptions, Detail, Latency};
use crate::stack::{Stack, StackError, StackOptions};

pub use load::Counts;
pub use sample::Sample;
pub use trend::Trend;

/// For how long the queue is kept full to find what the stack can do.
const FULL_LOAD: Duration = Duration::from_secs(60);
/// Of the time under load, what counts as warming up: caches, pools and the allocator take what they need.
const WARM_UP: f64 = 0.2;

/// Settings of `cargo dev soak`.
#[derive(Debug, Clone, Args)]
pub struct SoakArgs {
    /// Minutes under load.
    #[arg(long, default_value_t = 120, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_080))]
    pub minutes: u64,
    /// Load, in percent of the jobs a second that the stack performs when its queue is full.
    #[arg(long, default_value_t = 60, value_name = "PERCENT", value_parser = clap::value_parser!(u16).range(1..=95))]
    pub load: u16,
    /// Number of workers.
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub workers: u16,
    /// Deliveries that a worker holds at once. With the model's latency this is what limits the stack, and not the CPU of the
    /// machine: growth shows by the hour and by the job, not by how hard the cores work.
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub slots: u16,
    /// Time the model takes: `2s`, `200ms..2s`, or `lognormal:MEDIAN,P99`.
    #[arg(long, default_value = "lognormal:1500ms,5s", value_name = "LATENCY")]
    pub latency: Latency,
    /// Seconds between two looks at the processes.
    #[arg(long, default_value_t = 15, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub every: u64,
    /// Write `soak.csv` and `soak.svg` there.
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// Start the binaries as they are.
    #[arg(long)]
    pub no_build: bool,
}

/// Nothing was measured.
#[derive(Debug, Error)]
pub enum SoakError {
    #[error(transparent)]
    Stack(#[from] StackError),
    #[error("{what}: {source}")]
    Io { what: &'static str, source: std::io::Error },
    #[error("{what} ended under load: see the logs in {logs}")]
    Ended { what: String, logs: String },
    #[error("no job succeeded within {} s: see the logs in {logs}", FULL_LOAD.as_secs())]
    Idle { logs: String },
    #[error("soak.csv cannot be written: {0}")]
    Csv(#[from] csv::Error),
    #[error("soak.svg cannot be written: {0}")]
    Plot(String),
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SoakReport {
    pub minutes: f64,
    /// Jobs a second: with a full queue, and as submitted afterwards.
    pub full_rate: f64,
    pub rate: f64,
    /// Of the minute with a full queue.
    pub at_full: Counts,
    pub counts: Counts,
    /// Three for each process.
    pub trends: Vec<Trend>,
    pub processes: usize,
}

impl SoakReport {
    /// Returns whether every job succeeded and nothing grew. What was not looked at often enough did not pass.
    pub fn passed(&self) -> bool {
        let is_complete = self.trends.len() == self.processes * trend::KINDS.len();
        let failed = self.at_full.failed + self.counts.failed;
        failed == 0 && self.counts.succeeded > 0 && is_complete && self.trends.iter().all(Trend::is_flat)
    }
}

/// The table. It is Markdown as well.
impl fmt::Display for SoakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (succeeded, failed) = (self.counts.succeeded, self.at_full.failed + self.counts.failed);
        writeln!(
            f,
            "{:.1} minutes at {:.2} jobs a second ({:.0} % of {:.2} with a full queue): {succeeded} pictures, {failed} failures\n",
            self.minutes,
            self.rate,
            self.rate / self.full_rate * 100.0,
            self.full_rate
        )?;
        writeln!(
            f,
            "| process | what | at first | at last | highest | slope an hour | growth | of it in the last half | limit | |"
        )?;
        writeln!(f, "|---|---|--:|--:|--:|--:|--:|--:|--:|---|")?;
        self.trends.iter().try_for_each(|trend| writeln!(f, "{trend}"))?;
        if self.trends.is_empty() {
            writeln!(f, "\nToo short for a trend: more minutes, or fewer seconds between two looks (--every).")?;
        }
        if let Some(failure) = self.at_full.first_failure.as_ref().or(self.counts.first_failure.as_ref()) {
            writeln!(f, "\nThe first failure: {failure}")?;
        }
        Ok(())
    }
}

/// Runs the load in a stack of its own, in a folder of its own under `dir`.
///
/// # Errors
/// When the stack does not start, or a process ends.
pub async fn soak(args: &SoakArgs, dir: &Path, binaries_dir: &Path) -> Result<SoakReport, SoakError> {
    let folder = |source| SoakError::Io { what: "the folder of the run", source };
    std::fs::create_dir_all(dir).map_err(folder)?;
    let mut data = tempfile::Builder::new().prefix("soak-").tempdir_in(dir).map_err(folder)?;
    let setting = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let slots = args.slots.to_string();
    let options = StackOptions {
        workers: usize::from(args.workers),
        restart: false,
        bedrock: BedrockOptions { latency: args.latency, detail: Detail::Cheap, ..BedrockOptions::default() },
        api_env: ["JOBS_PER_MINUTE", "JOBS_BURST", "POLLS_PER_MINUTE"].map(|name| setting((name, "1000000"))).to_vec(),
        worker_env: vec![setting(("WORKER_SLOTS", &slots))],
        ..StackOptions::new(data.path(), binaries_dir)
    };
    // Until the run has succeeded its logs are worth more than the space.
    data.disable_cleanup(true);
    let stack = Stack::start(options).await?;
    let measured = tokio::select! {
        measured = measure(args, &stack) => measured,
        reason = stack.failed() => Err(SoakError::Ended { what: reason, logs: stack.logs_dir().display().to_string() }),
    };
    stack.stop().await;
    data.disable_cleanup(measured.is_err());
    let (report, samples) = measured?;
    if let Some(out) = &args.out {
        std::fs::create_dir_all(out).map_err(folder)?;
        sample::write(&samples, &out.join("soak.csv"))?;
        plot::write(&samples, &out.join("soak.svg")).map_err(|error| SoakError::Plot(error.to_string()))?;
    }
    Ok(report)
}

async fn measure(args: &SoakArgs, stack: &Stack) -> Result<(SoakReport, Vec<Sample>), SoakError> {
    let clients = usize::from(args.workers) * usize::from(args.slots) * 3;
    let (full_rate, at_full) = load::full_rate(stack, clients, FULL_LOAD).await;
    if full_rate <= 0.0 {
        return Err(SoakError::Idle { logs: stack.logs_dir().display().to_string() });
    }
    let rate = full_rate * f64::from(args.load) / 100.0;
    let (length, every) = (Duration::from_secs(args.minutes * 60), Duration::from_secs(args.every));
    let style = ProgressStyle::with_template("{elapsed_precise} of {msg} {wide_bar} {prefix}").expect("a template");
    let bar = ProgressBar::new(args.minutes * 60).with_style(style).with_message(format!("{} min", args.minutes));
    let load = load::Load::start(stack, rate);
    let began = Instant::now();
    let mut samples = Vec::new();
    while began.elapsed() < length {
        tokio::time::sleep(every.min(length.saturating_sub(began.elapsed()))).await;
        samples.extend(sample::look(stack, began.elapsed()).await?);
        bar.set_position(began.elapsed().as_secs());
        bar.set_prefix(format!("{} pictures", load.succeeded()));
    }
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    let counts = load.stop().await;
    bar.finish_and_clear();
    let trends = trend::of_all(&samples, WARM_UP);
    let processes = 1 + usize::from(args.workers);
    Ok((SoakReport { minutes, full_rate, rate, at_full, counts, trends, processes }, samples))
}
