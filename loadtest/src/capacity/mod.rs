//! `loadtest capacity`: the highest rate of jobs that meets the thresholds, and what stands in the way of a higher one.

mod limit;
mod search;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use crate::failure::{EXIT_INTERRUPTED, EXIT_THRESHOLD, Failure};
use crate::report::{self, Report};
use crate::run::{self, Plan, conduct, duration, rate};
use crate::scenario::Scenario;
use crate::target::{Target, TargetArgs};
use crate::threshold::Thresholds;
use crate::users::{Portal, Prompts, Spread};
use crate::watch::Watch;

pub use limit::{Limit, limit};
pub use search::Search;

/// Between two steps the queue is given this long to become empty; one that does not says enough.
const SETTLE: Duration = Duration::from_secs(300);
const SETTLE_EVERY: Duration = Duration::from_secs(1);

/// How to search.
#[derive(Debug, Clone, Args)]
pub struct CapacityArgs {
    /// Jobs a second of the first step.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 1.0, value_parser = rate)]
    start: f64,
    /// Highest rate that is tried.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 1000.0, value_parser = rate)]
    max: f64,
    /// Length of a step, such as `60s`: long enough that a queue that grows is seen to.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    step: Duration,
    /// The search ends when the rate is known to so many percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=50))]
    precision: u8,
    /// Different pictures that are asked for: with few of them the local model's stand-in does not spend its time painting.
    /// 0 asks for another one each time.
    #[arg(long, value_name = "N", default_value_t = 24)]
    distinct: u64,
    /// File with thresholds; those for the scenario `capacity` count.
    #[arg(long, value_name = "FILE")]
    thresholds: Option<std::path::PathBuf>,
    /// Folder that the report of each step gets a folder in.
    #[arg(long, value_name = "FOLDER", default_value = "loadtest/reports")]
    reports: std::path::PathBuf,
    /// Print JSON instead of the table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// One step, as it is told.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// Jobs a second that arrived.
    pub rate: f64,
    /// Pictures a second until the last one was made.
    pub pictures_per_second: f64,
    pub queue_wait_p95: Option<f64>,
    pub time_to_picture_p95: Option<f64>,
    pub error_percent: Option<f64>,
    pub machine_percent: Option<f64>,
    pub generator_percent: Option<f64>,
    pub late_percent: Option<f64>,
    pub passed: bool,
    /// What was not met.
    pub broken: Vec<String>,
}

/// What the search found.
#[derive(Debug, Clone, Serialize)]
struct Found {
    /// Jobs a second; None when not even the first step passed.
    capacity: Option<f64>,
    /// What stood in the way of more; None when the highest rate passed.
    limit: Option<Limit>,
    steps: Vec<Step>,
}

/// Raises the rate until a step fails and narrows it down from there.
///
/// # Errors
/// When there is no target, or a step cannot be run.
pub async fn capacity(args: &CapacityArgs) -> Result<ExitCode, Failure> {
    if args.max < args.start {
        return Err(Failure::usage(format!("--max {} is below --start {}: raise it", args.max, args.start)));
    }
    let thresholds = Thresholds::read(args.thresholds.as_deref())?;
    let target = args.target.discover()?;
    Portal::new(&target)?.greet().await?;
    let mut search = Search::new(args.start, args.max, f64::from(args.precision) / 100.0);
    let mut steps = Vec::new();
    let mut first_failure: Option<(f64, Report)> = None;
    while let Some(rate) = search.next() {
        let report = step(args, rate, &target, &thresholds).await?;
        if report.interrupted {
            eprintln!("interrupted");
            return Ok(ExitCode::from(EXIT_INTERRUPTED));
        }
        let told = Step::new(rate, &report);
        eprintln!("{}", told.line());
        search.tried(rate, report.passed);
        // The limit is clearest just above it.
        if !report.passed && first_failure.as_ref().is_none_or(|(lowest, _)| rate < *lowest) {
            first_failure = Some((rate, report));
        }
        steps.push(told);
        settle(&target).await?;
    }
    let found =
        Found { capacity: search.best(), limit: first_failure.as_ref().map(|(_, report)| limit(report)), steps };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&found).map_err(Failure::fault)?);
    } else {
        println!("{}", found.table());
    }
    Ok(if found.capacity.is_some() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_THRESHOLD) })
}

async fn step(args: &CapacityArgs, rate: f64, target: &Target, thresholds: &Thresholds) -> Result<Report, Failure> {
    let scenario = Scenario::named("capacity").expect("it is in the list");
    let plan = Plan {
        scenario: scenario.name.to_owned(),
        kind: scenario.kind,
        users: run::pool(rate),
        rate: Some(rate),
        spread: Spread::Poisson,
        duration: args.step,
        ramp: scenario.ramp,
        drain: Duration::from_secs(60),
        pictures: 0,
        haste: 1,
        distinct: (args.distinct > 0).then_some(args.distinct),
        max_jobs: None,
        seed: 1,
    };
    let name = format!("capacity-{}-{rate:.2}", Timestamp::now().strftime("%Y%m%dT%H%M%SZ"));
    let folder = report::create_folder(&args.reports, &name)?;
    let prompts = |what: &str| Prompts::read(None, &run::tag(what), plan.distinct);
    let report = conduct(&plan, target, thresholds, &prompts).await?;
    report.write(&folder)?;
    Ok(report)
}

/// Waits until nothing is left of a step. Deployed queues tell their depth with a delay, so it has to be seen empty twice.
async fn settle(target: &Target) -> Result<(), Failure> {
    let mut watch = Watch::of(target).await;
    let give_up = tokio::time::Instant::now() + SETTLE;
    let mut empty = 0;
    while empty < 2 {
        let look = watch.look().await;
        empty = if look.backlog() == Some(0) { empty + 1 } else { 0 };
        if tokio::time::Instant::now() > give_up {
            return Err(Failure::fault(format!(
                "the queue did not become empty within {} s after a step: {:?}; {}",
                SETTLE.as_secs(),
                look.queue,
                look.gaps.join("; ")
            )));
        }
        tokio::time::sleep(SETTLE_EVERY).await;
    }
    Ok(())
}
