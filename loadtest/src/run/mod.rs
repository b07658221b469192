//! `loadtest run`: brings up the users of a scenario, measures, judges and reports.

mod attack;
mod observer;
mod plan;
mod signals;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::failure::{EXIT_INTERRUPTED, EXIT_THRESHOLD, Failure};
use crate::measure::{Metric, Operation, Problem, Recorder, Start, Timing};
use crate::output;
use crate::report::{self, Generator, Report};
use crate::target::Target;
use crate::threshold::{Seen, Thresholds};
use crate::users::{Arrivals, Portal, Prompts, Session, Stops, Waiting};
use crate::watch::{Watch, own_cpu};

pub(crate) use observer::TimedLook;
pub use plan::{Plan, RunArgs, duration, pool, rate};
pub use signals::Signals;

/// The pictures that are to be looked at are made within this time, or nothing is begun.
const PREPARE: Duration = Duration::from_secs(60);
/// There the first worker may have to boot.
const PREPARE_DEPLOYED: Duration = Duration::from_secs(15 * 60);
/// Pieces of time in a report.
const BUCKETS: u32 = 60;

/// Runs the scenarios of the command line one after the other and writes a report of each.
///
/// # Errors
/// When something is missing or wrong before the first user starts, or a report cannot be written.
pub async fn run(args: &RunArgs) -> Result<ExitCode, Failure> {
    let plans = args.plans()?;
    let thresholds = Thresholds::read(args.thresholds.as_deref())?;
    let target = args.target.discover()?;
    Portal::new(&target)?.greet().await?;
    let mut signals = Signals::listen();
    let mut broken = Vec::new();
    let ended = one_by_one(args, &plans, &target, &thresholds, &mut signals, &mut broken).await;
    // Also when a later scenario could not be run: what was found before that is not less true.
    broken.iter().for_each(|sentence| output::aside(format_args!("threshold not met: {sentence}")));
    match ended? {
        Ended::Interrupted => Ok(ExitCode::from(EXIT_INTERRUPTED)),
        Ended::Whole if broken.is_empty() => Ok(ExitCode::SUCCESS),
        Ended::Whole => Ok(ExitCode::from(EXIT_THRESHOLD)),
    }
}

/// How a row of scenarios ended.
enum Ended {
    Whole,
    Interrupted,
}

/// Adds to `broken` what was not met.
async fn one_by_one(
    args: &RunArgs,
    plans: &[Plan],
    target: &Target,
    thresholds: &Thresholds,
    signals: &mut Signals,
    broken: &mut Vec<String>,
) -> Result<Ended, Failure> {
    for plan in plans {
        if goose::is_killswitch_triggered() {
            return Ok(Ended::Interrupted);
        }
        let now = Timestamp::now();
        let name = args.name.clone().unwrap_or_else(|| format!("{}-{}", plan.scenario, now.strftime("%Y%m%dT%H%M%SZ")));
        // Before the users, as it may be impossible to create.
        let folder = report::create_folder(&args.reports, &name)?;
        let prompts = |what: &str| Prompts::read(args.prompts.as_deref(), &tag(what), plan.distinct);
        let report = conduct(plan, target, thresholds, &prompts, signals).await;
        let report = report.inspect_err(|_| report::remove_empty(&folder))?;
        // First, as it may be impossible to write the files.
        output::line(report.summary());
        if !report.interrupted {
            broken.extend(report.broken().map(|verdict| format!("{}: {}", plan.scenario, report::told(verdict))));
        }
        report.write(&folder)?;
        output::line(format_args!("report: {}\n", folder.join(report::HTML).display()));
        if report.interrupted {
            output::aside("interrupted: the report is about what had happened until then");
            return Ok(Ended::Interrupted);
        }
    }
    Ok(Ended::Whole)
}

/// Runs one plan from its first user to its last picture.
///
/// # Errors
/// When the pictures that students look at cannot be made, the users cannot be started, or a signal came before they were.
pub async fn conduct(
    plan: &Plan,
    target: &Target,
    thresholds: &Thresholds,
    prompts: &dyn Fn(&str) -> Result<Prompts, Failure>,
    signals: &mut Signals,
) -> Result<Report, Failure> {
    let portal = Portal::new(target)?;
    let mut watch = Watch::of(target).await;
    let max_jobs = plan.max_jobs.unwrap_or(u64::MAX);
    let pictures = plan.pictures.min(usize::try_from(max_jobs).unwrap_or(usize::MAX));
    let prepared = Session::new(portal.clone(), prompts("s")?, Arc::new(Recorder::new(Duration::from_secs(60))), None);
    let patience = if target.is_local() { PREPARE } else { PREPARE_DEPLOYED };
    tokio::select! {
        made = prepare(pictures, &prepared, patience) => made?,
        () = signals.received() => {
            return Err(Failure::Interrupted("interrupted before the first user had started: nothing is reported".to_owned()));
        }
    }
    let at_begin = watch.look_at_load().await;

    let recorder = Arc::new(Recorder::new(plan.duration / BUCKETS));
    let arrivals = plan.rate.map(|rate| Arrivals::new(rate, plan.spread, plan.duration, plan.seed));
    let mut session = Session::new(portal, prompts("r")?, Arc::clone(&recorder), arrivals);
    session.gallery = prepared.gallery;
    session.max_jobs = max_jobs - pictures as u64;
    let session = Arc::new(session);
    let attack = attack::attack(plan, &session)?;
    let (began, started_at, done) = (session.began, Timestamp::now(), CancellationToken::new());
    let cpu_before = own_cpu();
    let attacked = async {
        let ended = attack.execute().await;
        done.cancel();
        ended
    };
    let (ended, (), (), looks) = tokio::join!(
        attacked,
        keep_time(plan, began, &session.stops, &done, signals),
        observer::show(plan, &recorder, began, &done),
        observer::observe(&mut watch, at_begin, plan, began, &done),
    );
    ended.map_err(|error| Failure::fault(format!("goose ended the attack: {error}")))?;
    let wall = began.elapsed();
    let cpu = own_cpu().zip(cpu_before).map(|(now, before)| now.saturating_sub(before));
    close(&session, &watch).await;

    let measured = recorder.measured();
    let seen = Seen {
        scale_out_seconds: observer::scale_out_seconds(&looks),
        backlog_growth_percent: observer::backlog_growth_percent(&looks, plan.duration, measured.counts.jobs_accepted),
    };
    let verdicts = thresholds.judge(&plan.scenario, target.is_local(), &measured, seen);
    let generator = Generator::new(cpu, wall, &measured.counts);
    let interrupted = session.stops.interrupted();
    Ok(Report::new(plan, target, started_at, wall, interrupted, measured, verdicts, generator, seen, looks))
}

/// Makes the pictures that are looked at before anything is measured.
async fn prepare(pictures: usize, session: &Session, patience: Duration) -> Result<(), Failure> {
    if pictures > 0 {
        output::aside(format_args!("making {pictures} pictures that are to be looked at"));
    }
    let making = join_all((0..pictures).map(|_| session.picture(Start::now(None), Waiting::Held)));
    // What was made until then is told below.
    let is_in_time = tokio::time::timeout(patience, making).await.is_ok();
    let measured = session.recorder.measured();
    let made = usize::try_from(measured.counts.pictures).unwrap_or_default();
    if made < pictures {
        let mut errors: Vec<String> = measured.errors.iter().map(|(code, times)| format!("{times} x {code}")).collect();
        if !is_in_time {
            errors.push(format!("others not within {} s", patience.as_secs()));
        }
        return Err(Failure::fault(format!(
            "{made} of the {pictures} pictures that are to be looked at could be made ({}): see the logs of API and worker",
            errors.join(", ")
        )));
    }
    Ok(())
}

/// Ends the run in time, in order: nothing new, then what is under way; at once on a signal.
async fn keep_time(plan: &Plan, began: Instant, stops: &Stops, done: &CancellationToken, signals: &mut Signals) {
    let ends = tokio::time::Instant::from_std(began) + plan.duration;
    let in_order = async {
        tokio::time::sleep_until(ends).await;
        stops.no_more.cancel();
        tokio::time::sleep_until(ends + plan.drain).await;
        stops.abandon.cancel();
        done.cancelled().await;
    };
    tokio::select! {
        () = done.cancelled() => {}
        () = in_order => {}
        () = signals.received() => {
            stops.interrupt();
            done.cancelled().await;
        }
    }
}

/// Counts what the users could not: jobs without an end, arrivals without a begin, pictures paid for twice.
async fn close(session: &Session, watch: &Watch) {
    let recorder = &*session.recorder;
    if !session.stops.interrupted() {
        let unfinished = recorder.measured().counts.jobs_unfinished;
        let problem = Problem { code: "not_finished".to_owned(), unavailable: false };
        (0..unfinished).for_each(|_| recorder.failed(Operation::Job, &problem));
        if let Some(arrivals) = &session.arrivals {
            // They waited for a free user until the end.
            while let Some(due) = arrivals.next() {
                recorder.count(|counts| counts.missed_starts += 1);
                recorder.time(Metric::StartDelaySeconds, Timing::of(session.began.elapsed().saturating_sub(due)));
            }
        }
    }
    if let Watch::Local(watch) = watch {
        match watch.paid_by_prompt().await {
            Ok(paid) => recorder.reconcile(|prompt| paid.get(prompt).copied().unwrap_or_default()),
            Err(reason) => {
                recorder.lose_sight_of_duplicates();
                output::aside(format_args!(
                    "pictures paid for twice cannot be seen: the model's ledger cannot be read ({reason})"
                ));
            }
        }
    }
}

/// Tells the jobs of one run from those of all others, on this machine and elsewhere.
pub(crate) fn tag(what: &str) -> String {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    format!("{what}{:x}-{:x}-{run:x}", Timestamp::now().as_millisecond(), std::process::id())
}
