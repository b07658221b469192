//! `cargo dev bench quota`: workers that share the model's quota, beside the same ones that each slow down by themselves.

use std::fmt;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;

use super::{BenchError, CACHE_BYTES, REQUEST_TIMEOUT, env, exposition, submit};
use crate::bedrock::{BedrockOptions, Detail, Latency, QuotaCount, Totals};
use crate::stack::{Stack, StackOptions};

/// Largest share of throttled calls where the quota is shared.
const MAX_THROTTLED_PERCENT: f64 = 1.0;
/// The first minute's worth may come at once, and limiters find their rate: neither is measured.
const WARM_UP: Duration = Duration::from_secs(75);
/// List prices of S3 in us-east-1 (2026): 1,000 writes, 1,000 reads, in USD.
const WRITE_USD: f64 = 0.005 / 1000.0;
const READ_USD: f64 = 0.0004 / 1000.0;

/// Settings of `cargo dev bench quota`.
#[derive(Debug, Clone, Args)]
pub struct QuotaArgs {
    /// Workers.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=50))]
    pub workers: u16,
    /// Deliveries that each worker holds at once.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub slots: u16,
    /// Requests a minute that the stand-in grants, counted over the last minute.
    #[arg(long, default_value = "90", value_name = "N")]
    pub requests_per_minute: NonZeroU32,
    /// Minutes to measure, in each way.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=600))]
    pub minutes: u32,
    /// Time the model takes.
    #[arg(long, default_value = "3s..7s", value_name = "LATENCY")]
    pub latency: Latency,
}

/// One way of keeping the quota.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Way {
    pub name: &'static str,
    pub calls: u64,
    pub throttled: u64,
    pub throttled_percent: f64,
    /// Calls that were granted, as a share of those that the quota allows.
    pub utilisation_percent: f64,
    /// Calls that the quota allows and nobody made.
    pub unused: u64,
    /// Requests for the timetable an hour, and what they cost.
    pub store_reads_per_hour: f64,
    pub store_writes_per_hour: f64,
    pub usd_per_hour: f64,
}

/// Both ways on the same fleet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QuotaReport {
    pub workers: u16,
    pub slots: u16,
    pub requests_per_minute: u32,
    pub minutes: u32,
    pub shared: Way,
    pub alone: Way,
}

/// Lets the same fleet perform the same jobs in both ways, one after the other.
///
/// # Errors
/// When a stack does not start, or ends by itself.
pub(super) async fn compare(args: &QuotaArgs, dir: &Path, binaries: &Path) -> Result<QuotaReport, BenchError> {
    let per_minute = args.requests_per_minute.to_string();
    Ok(QuotaReport {
        workers: args.workers,
        slots: args.slots,
        requests_per_minute: args.requests_per_minute.get(),
        minutes: args.minutes,
        shared: way("one timetable for all", &per_minute, args, dir, binaries).await?,
        alone: way("each for itself", "0", args, dir, binaries).await?,
    })
}

async fn way(name: &'static str, told: &str, args: &QuotaArgs, dir: &Path, binaries: &Path) -> Result<Way, BenchError> {
    let folder = |source| BenchError::Io { what: "the folder of the run", source };
    let mut data = tempfile::Builder::new().prefix("bench-").tempdir_in(dir).map_err(folder)?;
    let slots = args.slots.to_string();
    let options = StackOptions {
        workers: args.workers.into(),
        restart: false,
        bedrock: BedrockOptions {
            latency: args.latency,
            detail: Detail::Cheap,
            requests_per_minute: Some(args.requests_per_minute),
            quota_count: QuotaCount::LastMinute,
            cache_bytes: CACHE_BYTES,
            ..BedrockOptions::default()
        },
        api_env: env(["JOBS_PER_MINUTE", "JOBS_BURST", "POLLS_PER_MINUTE"].map(|limit| (limit, "1000000"))),
        // Pictures are not what is measured.
        worker_env: env([("WORKER_SLOTS", &slots), ("RENDER_METHOD", "0"), ("MODEL_REQUESTS_PER_MINUTE", told)]),
        ..StackOptions::new(data.path(), binaries)
    };
    let stack = Stack::start(options).await.inspect_err(|_| data.disable_cleanup(true))?;
    let measured = tokio::select! {
        measured = measure(name, args, &stack) => measured,
        reason = stack.failed() => Err(BenchError::NoWorker(reason)),
    };
    stack.stop().await;
    // After a failure its logs are worth more than the space.
    data.disable_cleanup(measured.is_err());
    measured
}

async fn measure(name: &'static str, args: &QuotaArgs, stack: &Stack) -> Result<Way, BenchError> {
    let http = reqwest::Client::builder().no_proxy().build().expect("a client without TLS has nothing to load");
    let per_minute = args.requests_per_minute.get();
    // More than can be done: full use to the end.
    let jobs = (args.minutes + 3) * per_minute + u32::from(args.workers) * u32::from(args.slots);
    submit(jobs, stack, &http).await?;
    tokio::time::sleep(WARM_UP).await;
    let before = Look::new(stack, &http).await?;
    let bar = ProgressBar::new(u64::from(args.minutes) * 60).with_message(name);
    for _ in 0..args.minutes * 60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let after = Look::new(stack, &http).await?;
    let seconds = (after.at - before.at).as_secs_f64();
    Ok(Way::new(name, per_minute, seconds, &before, &after))
}

/// What has happened so far.
struct Look {
    at: tokio::time::Instant,
    totals: Totals,
    /// Reads and writes of the timetable.
    reads: f64,
    writes: f64,
}

impl Look {
    async fn new(stack: &Stack, http: &reqwest::Client) -> Result<Self, BenchError> {
        let mut look =
            Self { at: tokio::time::Instant::now(), totals: stack.bedrock().ledger().totals, reads: 0.0, writes: 0.0 };
        // The API's, then the workers'.
        for admin in stack.admin_urls().iter().skip(1) {
            let request = http.get(format!("{admin}/metrics")).timeout(REQUEST_TIMEOUT);
            let text = async { request.send().await?.error_for_status()?.text().await }.await;
            let text = text.map_err(|error: reqwest::Error| BenchError::Http {
                what: "a worker's /metrics",
                reason: error.to_string(),
            })?;
            let takes = |result: &str| exposition::sum(&text, "worker_quota_takes_total", &[result]);
            let writes = takes("result=\"taken\"") + takes("result=\"conflict\"");
            look.writes += writes;
            look.reads += writes + takes("result=\"full\"");
        }
        Ok(look)
    }
}

impl Way {
    fn new(name: &'static str, per_minute: u32, seconds: f64, before: &Look, after: &Look) -> Self {
        let over_quota = |totals: &Totals| totals.errors.get("over_quota").copied().unwrap_or(0);
        let calls = after.totals.calls - before.totals.calls;
        let throttled = over_quota(&after.totals) - over_quota(&before.totals);
        let allowed = f64::from(per_minute) * seconds / 60.0;
        let granted = number(calls - throttled);
        let per_hour = |count: f64| count * 3600.0 / seconds;
        let (reads, writes) = (per_hour(after.reads - before.reads), per_hour(after.writes - before.writes));
        Self {
            name,
            calls,
            throttled,
            throttled_percent: number(throttled) * 100.0 / number(calls),
            utilisation_percent: granted * 100.0 / allowed,
            unused: whole((allowed - granted).max(0.0)),
            store_reads_per_hour: reads,
            store_writes_per_hour: writes,
            usd_per_hour: reads * READ_USD + writes * WRITE_USD,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "calls of some minutes")]
fn number(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "calls of some minutes, not negative")]
fn whole(count: f64) -> u64 {
    count.round() as u64
}

impl QuotaReport {
    /// Returns whether sharing kept throttles below the limit.
    pub fn passed(&self) -> bool {
        self.shared.throttled_percent < MAX_THROTTLED_PERCENT
    }
}

/// The table. It is Markdown as well.
impl fmt::Display for QuotaReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workers, slots, requests_per_minute, minutes, .. } = self;
        let verdict = if self.passed() { "PASS" } else { "FAIL" };
        writeln!(
            f,
            "{workers} workers of {slots} slots at {requests_per_minute} requests a minute, {minutes} minutes; "
        )?;
        writeln!(f, "throttled below {MAX_THROTTLED_PERCENT:.0} % where the quota is shared: {verdict}\n")?;
        writeln!(
            f,
            "| {:<21} | calls | throttled | share  | utilisation | wasted | S3 reads/h | S3 writes/h | USD/h  |",
            "the quota is kept by"
        )?;
        writeln!(
            f,
            "| {:-<21} | ----: | --------: | -----: | ----------: | -----: | ---------: | ----------: | -----: |",
            ""
        )?;
        for way in [&self.shared, &self.alone] {
            writeln!(
                f,
                "| {:<21} | {:>5} | {:>9} | {:>4.1} % | {:>9.1} % | {:>6} | {:>10.0} | {:>11.0} | {:>6.4} |",
                way.name,
                way.calls,
                way.throttled,
                way.throttled_percent,
                way.utilisation_percent,
                way.unused,
                way.store_reads_per_hour,
                way.store_writes_per_hour,
                way.usd_per_hour
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(calls: u64, over_quota: u64, writes: f64) -> Look {
        let errors = [("over_quota".to_owned(), over_quota), ("throttle".to_owned(), 7)].into_iter().collect();
        let totals = Totals { calls, errors, ..Totals::default() };
        Look { at: tokio::time::Instant::now(), totals, reads: 2.0 * writes, writes }
    }

    fn report(throttled: u64) -> QuotaReport {
        let way = |name, over_quota| Way::new(name, 90, 120.0, &look(100, 10, 1.0), &look(280, 10 + over_quota, 11.0));
        let (shared, alone) = (way("one timetable for all", throttled), way("each for itself", 45));
        QuotaReport { workers: 8, slots: 16, requests_per_minute: 90, minutes: 2, shared, alone }
    }

    #[test]
    fn throttled_calls_are_counted_and_limited() {
        let told = report(1);
        assert_eq!((told.shared.calls, told.shared.throttled, told.shared.unused), (180, 1, 1));
        assert_eq!((told.alone.throttled_percent, told.alone.utilisation_percent), (25.0, 75.0));
        assert_eq!((told.alone.store_writes_per_hour, told.alone.store_reads_per_hour), (300.0, 600.0));
        assert!(told.passed());
        assert!(!report(2).passed());
    }

    #[test]
    fn the_columns_line_up() {
        let table = report(1).to_string();
        let lines: Vec<_> = table.lines().filter(|line| line.starts_with('|')).map(str::len).collect();
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|length| *length == lines[0]), "{table}");
    }
}
