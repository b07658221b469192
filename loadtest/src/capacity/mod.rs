//! `loadtest capacity`: the highest rate of jobs that meets the thresholds, and what stands in the way of a higher one.

mod limit;
mod search;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use crate::failure::{EXIT_INTERRUPTED, EXIT_THRESHOLD, Failure};
use crate::output;
use crate::report::{self, Report};
use crate::run::{self, Plan, Signals, conduct, duration, rate};
use crate::scenario::Scenario;
use crate::target::{Target, TargetArgs};
use crate::threshold::Thresholds;
use crate::users::{Portal, Prompts, Spread};
use crate::watch::Watch;

pub use limit::{Limit, limit};
pub use search::Search;

/// Each look at a deployment is three requests.
const SETTLE_EVERY_DEPLOYED: Duration = Duration::from_secs(5);
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
    /// Length of a step, such as `60s`: several times what a picture takes, some hundred jobs, and on a deployment, whose queue tells its depth
    /// with a delay of a minute, not below `5m`.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    step: Duration,
    /// The search ends when the rate is known to so many percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=50))]
    precision: u8,
    /// How long jobs under way may take after a step, such as `30s`.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    drain: Duration,
    /// How long the queue may take to become empty before the next step; one that takes longer ends the search.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5m")]
    settle: Duration,
    /// Most jobs that are submitted in the whole search. Needed on a deployment, where each costs money.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_jobs: Option<u64>,
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
    /// See [`crate::threshold::Seen`].
    pub backlog_growth_percent: Option<f64>,
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
    /// Why it ended before it was over.
    ended_early: Option<String>,
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
    if !target.is_local() && args.max_jobs.is_none() {
        return Err(Failure::usage("--max-jobs is missing: on a deployment each job of the search is a paid picture"));
    }
    if let Some(max) = args.max_jobs.filter(|max| *max < args.jobs_at(args.start)) {
        let first = args.jobs_at(args.start);
        return Err(Failure::usage(format!(
            "--max-jobs {max} is below the {first} of the first step: raise it, or lower --start"
        )));
    }
    Portal::new(&target)?.greet().await?;
    let mut signals = Signals::listen();
    let mut search = Search::new(args.start, args.max, f64::from(args.precision) / 100.0);
    let mut steps = Vec::new();
    let mut first_failure: Option<(f64, Report)> = None;
    let (mut jobs, mut interrupted, mut broke_off, mut ended_early) = (0, false, false, None);
    while let Some(rate) = search.next() {
        if let Some(max) = args.max_jobs.filter(|max| jobs + args.jobs_at(rate) > *max) {
            ended_early = Some(format!("{rate:.2} jobs a second would go beyond --max-jobs {max}"));
            break;
        }
        let left = args.max_jobs.map(|max| max - jobs);
        let report = match step(args, rate, left, &target, &thresholds, &mut signals).await {
            Ok(report) => report,
            Err(failure) if steps.is_empty() => return Err(failure),
            Err(failure) => {
                // What was found until here is told.
                ended_early = Some(failure.to_string());
                broke_off = true;
                break;
            }
        };
        if report.interrupted {
            interrupted = true;
            break;
        }
        jobs += report.counts.jobs_accepted;
        let mut told = Step::new(rate, &report);
        output::aside(told.line());
        let settled = tokio::select! {
            settled = settle(&target, args.settle) => settled,
            () = signals.received() => {
                interrupted = true;
                Ok(())
            }
        };
        if let Err(reason) = &settled {
            // Jobs that are still there were not kept up with.
            told.passed = false;
            told.broken.push(reason.clone());
        }
        search.tried(rate, told.passed);
        // The limit is clearest just above it.
        if !told.passed && first_failure.as_ref().is_none_or(|(lowest, _)| rate < *lowest) {
            first_failure = Some((rate, report));
        }
        steps.push(told);
        ended_early = settled.err();
        if interrupted || ended_early.is_some() {
            break;
        }
    }
    if interrupted {
        ended_early = Some("interrupted".to_owned());
    }
    let limit = first_failure.as_ref().map(|(_, report)| limit(report));
    let found = Found { capacity: search.best(), limit, ended_early, steps };
    if args.json {
        output::line(serde_json::to_string_pretty(&found).map_err(Failure::fault)?);
    } else {
        output::line(found.table());
    }
    if interrupted {
        output::aside("interrupted: the search is not over, what was found until then is above");
        return Ok(ExitCode::from(EXIT_INTERRUPTED));
    }
    if broke_off {
        output::aside("a step could not be run: the search is not over, what was found until then is above");
        return Ok(ExitCode::FAILURE);
    }
    Ok(if found.capacity.is_some() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_THRESHOLD) })
}

impl CapacityArgs {
    /// Jobs that a step of this rate brings, on average.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 10000 a second for a week")]
    fn jobs_at(&self, rate: f64) -> u64 {
        (rate * self.step.as_secs_f64()).ceil() as u64
    }
}

async fn step(
    args: &CapacityArgs,
    rate: f64,
    max_jobs: Option<u64>,
    target: &Target,
    thresholds: &Thresholds,
    signals: &mut Signals,
) -> Result<Report, Failure> {
    let scenario = Scenario::named("capacity").expect("it is in the list");
    let plan = Plan {
        scenario: scenario.name.to_owned(),
        kind: scenario.kind,
        users: run::pool(rate),
        rate: Some(rate),
        spread: Spread::Poisson,
        duration: args.step,
        ramp: scenario.ramp,
        drain: args.drain,
        pictures: 0,
        haste: 1,
        distinct: (args.distinct > 0).then_some(args.distinct),
        max_jobs,
        seed: 1,
    };
    let name = format!("capacity-{}-{rate:.2}", Timestamp::now().strftime("%Y%m%dT%H%M%SZ"));
    let folder = report::create_folder(&args.reports, &name)?;
    let prompts = |what: &str| Prompts::read(None, &run::tag(what), plan.distinct);
    let report = conduct(&plan, target, thresholds, &prompts, signals).await;
    let report = report.inspect_err(|_| report::remove_empty(&folder))?;
    report.write(&folder)?;
    Ok(report)
}

/// Waits until nothing is left of a step. Deployed queues tell their depth with a delay, so it has to be seen empty twice.
async fn settle(target: &Target, patience: Duration) -> Result<(), String> {
    let mut watch = Watch::of(target).await;
    let every = if target.is_local() { SETTLE_EVERY } else { SETTLE_EVERY_DEPLOYED };
    let give_up = tokio::time::Instant::now() + patience;
    let mut empty = 0;
    while empty < 2 {
        let look = watch.look_at_load().await;
        empty = if look.backlog() == Some(0) { empty + 1 } else { 0 };
        if empty < 2 && tokio::time::Instant::now() > give_up {
            let seen = |jobs: Option<u64>| jobs.map_or_else(|| "unknown".to_owned(), |jobs| jobs.to_string());
            return Err(format!(
                "{} s after the last step the queue was not empty (waiting {}, in flight {}{})",
                patience.as_secs(),
                seen(look.queue.visible),
                seen(look.queue.in_flight),
                look.gaps.iter().map(|gap| format!("; not seen: {gap}")).collect::<String>()
            ));
        }
        tokio::time::sleep(every).await;
    }
    Ok(())
}
