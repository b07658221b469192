//! `cargo dev bench fairness`: what a tenant with one picture at a time waits beside another one's batch, with and without lanes.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::{BATCH, BenchError, CACHE_BYTES, PICTURES, REQUEST_TIMEOUT, env};
use crate::bedrock::{BedrockOptions, Detail, Latency};
use crate::stack::{Stack, StackOptions};

/// What the small tenant may wait beside a batch, as a multiple of what it waits alone.
const GOAL: f64 = 1.5;
/// How often a job is looked at that is not final yet. Its record says when it ended.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Settings of `cargo dev bench fairness`.
#[derive(Debug, Clone, Args)]
pub struct FairnessArgs {
    /// Jobs that one tenant submits in batches, all at once.
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub jobs: u32,
    /// Pictures that the other tenant asks for, one at a time.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub pictures: u32,
    /// Seconds from one of them to the next.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    pub every: u64,
    /// Deliveries that the worker holds at once: the default of the Terraform module.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=1000))]
    pub slots: u16,
    /// Time the model takes: `5s`, `200ms..2s`, or `lognormal:MEDIAN,P99`.
    #[arg(long, default_value = "5s", value_name = "LATENCY")]
    pub latency: Latency,
    /// Seconds after the last submission from which a picture that is not there counts with what it has waited.
    #[arg(long, default_value_t = 120, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=36_000))]
    pub patience: u64,
    /// The batch is submitted as single jobs instead.
    #[arg(long)]
    pub singles: bool,
    /// Leave the fleet with one queue out: its pictures wait for the whole batch.
    #[arg(long)]
    pub lanes_only: bool,
}

/// What the small tenant waited, alone and beside the batch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FairnessReport {
    pub jobs: u32,
    pub slots: u16,
    pub idle: Waits,
    /// None where it was left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub one_queue: Option<Waits>,
    pub lanes: Waits,
    /// `lanes.p95_seconds / idle.p95_seconds`.
    pub ratio: f64,
}

/// Seconds from acceptance to the picture, as the records have them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Waits {
    pub pictures: usize,
    pub p50_seconds: f64,
    pub p95_seconds: f64,
    /// Pictures that were not there in time: what they waited in truth is more.
    pub unfinished: usize,
    /// Jobs of the other tenant that ended meanwhile, by the ledger of the stand-in.
    pub others: u64,
}

impl FairnessReport {
    /// Returns whether the goal is met.
    pub fn passed(&self) -> bool {
        self.ratio <= GOAL && self.lanes.unfinished == 0
    }
}

impl fmt::Display for FairnessReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "one picture at a time beside {} jobs of another tenant, one worker of {} slots",
            self.jobs, self.slots
        )?;
        writeln!(
            f,
            "{:<12} {:>9} {:>9} {:>9} {:>11} {:>14}",
            "", "pictures", "p50, s", "p95, s", "unfinished", "other's calls"
        )?;
        let rows = [("idle", Some(&self.idle)), ("one queue", self.one_queue.as_ref()), ("lanes", Some(&self.lanes))];
        for (name, waits) in rows {
            let Some(Waits { pictures, p50_seconds, p95_seconds, unfinished, others }) = waits else { continue };
            let least = if *unfinished > 0 { ">" } else { "" };
            let (p50, p95) = (format!("{least}{p50_seconds:.1}"), format!("{least}{p95_seconds:.1}"));
            writeln!(f, "{name:<12} {pictures:>9} {p50:>9} {p95:>9} {unfinished:>11} {others:>14}")?;
        }
        let verdict = if self.passed() { "met" } else { "MISSED" };
        write!(f, "p95 with lanes is {:.2} times that of an idle fleet; goal {GOAL}: {verdict}", self.ratio)
    }
}

/// Which fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    OneQueue,
    Lanes,
}

/// Measures three fleets, one after the other.
///
/// # Errors
/// When a stack does not start, or a job is refused or fails.
pub(super) async fn compare(
    args: &FairnessArgs,
    dir: &Path,
    binaries_dir: &Path,
) -> Result<FairnessReport, BenchError> {
    let idle = measure(args, Phase::Idle, dir, binaries_dir).await?;
    let one_queue = match args.lanes_only {
        true => None,
        false => Some(measure(args, Phase::OneQueue, dir, binaries_dir).await?),
    };
    let lanes = measure(args, Phase::Lanes, dir, binaries_dir).await?;
    let ratio = lanes.p95_seconds / idle.p95_seconds;
    Ok(FairnessReport { jobs: args.jobs, slots: args.slots, idle, one_queue, lanes, ratio })
}

async fn measure(args: &FairnessArgs, phase: Phase, dir: &Path, binaries_dir: &Path) -> Result<Waits, BenchError> {
    let folder = |source| BenchError::Io { what: "the folder of the run", source };
    let mut data = tempfile::Builder::new().prefix("bench-fairness-").tempdir_in(dir).map_err(folder)?;
    let [big, small] = [(); 2].map(|()| Uuid::new_v4().simple().to_string());
    let mut api_env = env(["JOBS_PER_MINUTE", "JOBS_BURST", "POLLS_PER_MINUTE"].map(|limit| (limit, "1000000")));
    api_env.extend(env([("API_KEYS", &format!("big:{big},small:{small}"))]));
    let detail = Detail::Full;
    let options = StackOptions {
        workers: 1,
        restart: false,
        lanes: phase != Phase::OneQueue,
        bedrock: BedrockOptions {
            latency: args.latency,
            detail,
            cache_bytes: CACHE_BYTES,
            ..BedrockOptions::default()
        },
        api_env,
        // The long poll of production: what a stack's own shortens would hide what an empty lane costs.
        worker_env: env([("WORKER_SLOTS", &args.slots.to_string()), ("RECEIVE_WAIT_SECONDS", "10")]),
        ..StackOptions::new(data.path(), binaries_dir)
    };
    let stack = Stack::start(options).await.inspect_err(|_| data.disable_cleanup(true))?;
    let client = Client { stack: &stack, http: client()?, args };
    let run = async {
        if phase != Phase::Idle {
            client.submit_all(&big).await?;
        }
        client.one_at_a_time(&small, phase).await
    };
    let waits = tokio::select! {
        waits = run => waits,
        reason = stack.failed() => Err(BenchError::NoWorker(reason)),
    };
    stack.stop().await;
    data.disable_cleanup(waits.is_err());
    waits
}

fn client() -> Result<reqwest::Client, BenchError> {
    let built = reqwest::Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build();
    built.map_err(|error| failed(error.to_string()))
}

fn failed(reason: String) -> BenchError {
    BenchError::Http { what: "the API", reason }
}

struct Client<'a> {
    stack: &'a Stack,
    http: reqwest::Client,
    args: &'a FairnessArgs,
}

impl Client<'_> {
    async fn answer(&self, request: reqwest::RequestBuilder, key: &str) -> Result<Value, BenchError> {
        let answer = async { request.bearer_auth(key).send().await?.error_for_status()?.json().await }.await;
        answer.map_err(|error: reqwest::Error| failed(error.to_string()))
    }

    async fn post(&self, path: &str, key: &str, body: &Value) -> Result<Value, BenchError> {
        self.answer(self.http.post(format!("{}{path}", self.stack.api_url())).json(body), key).await
    }

    async fn submit_all(&self, key: &str) -> Result<(), BenchError> {
        let jobs: Vec<Value> = (0..self.args.jobs)
            .map(|job| json!({ "prompt": "a map of the water cycle", "seed": job % PICTURES + 1 }))
            .collect();
        if self.args.singles {
            for job in &jobs {
                self.post("/v1/jobs", key, job).await?;
            }
            return Ok(());
        }
        for batch in jobs.chunks(BATCH as usize) {
            let answer = self.post("/v1/batches", key, &json!({ "jobs": batch })).await?;
            if answer["accepted"] != batch.len() {
                return Err(failed(format!("of {} jobs {} were accepted", batch.len(), answer["accepted"])));
            }
        }
        Ok(())
    }

    async fn one_at_a_time(&self, key: &str, phase: Phase) -> Result<Waits, BenchError> {
        let bar = ProgressBar::new(self.args.pictures.into()).with_message(format!("{phase:?}"));
        let calls = || self.stack.bedrock().ledger().totals.calls;
        let (began, before) = (Instant::now(), calls());
        let mut jobs = Vec::new();
        for picture in 0..self.args.pictures {
            tokio::time::sleep_until(began + Duration::from_secs(self.args.every) * picture).await;
            let body = json!({ "prompt": "a red fox in the snow", "seed": picture % PICTURES + 1 });
            let accepted = self.post("/v1/jobs", key, &body).await?;
            jobs.push(accepted["id"].as_str().unwrap_or_default().to_owned());
            bar.inc(1);
        }
        let give_up = Instant::now() + Duration::from_secs(self.args.patience);
        let (mut seconds, mut unfinished) = (Vec::new(), 0);
        for id in &jobs {
            let (waited, finished) = self.waited(id, key, give_up).await?;
            seconds.push(waited);
            unfinished += usize::from(!finished);
        }
        bar.finish_and_clear();
        seconds.sort_by(f64::total_cmp);
        let others = (calls() - before).saturating_sub(u64::from(self.args.pictures));
        let [p50_seconds, p95_seconds] = [50, 95].map(|percent| percentile(&seconds, percent));
        Ok(Waits { pictures: seconds.len(), p50_seconds, p95_seconds, unfinished, others })
    }

    /// Waits for a picture; returns the seconds that it took, or those until `give_up`.
    async fn waited(&self, id: &str, key: &str, give_up: Instant) -> Result<(f64, bool), BenchError> {
        loop {
            let job = self.answer(self.http.get(format!("{}/v1/jobs/{id}", self.stack.api_url())), key).await?;
            let at = |name: &str| job[name].as_str().and_then(|text| text.parse::<Timestamp>().ok());
            let since = at("created_at").ok_or_else(|| failed(format!("a job without created_at: {job}")))?;
            let until = match job["status"].as_str() {
                Some("succeeded") => at("finished_at"),
                Some("queued" | "generating" | "processing") if Instant::now() < give_up => None,
                Some("queued" | "generating" | "processing") => {
                    return Ok((Timestamp::now().duration_since(since).as_secs_f64(), false));
                }
                _ => return Err(failed(format!("a job without a picture: {job}"))),
            };
            if let Some(until) = until {
                return Ok((until.duration_since(since).as_secs_f64(), true));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Returns the value of which so many percent are no larger; `sorted` is not empty.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent).div_ceil(100).saturating_sub(1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_goal_is_missed_by_waits_that_did_not_end_too() {
        let waits =
            |p95_seconds, unfinished| Waits { pictures: 20, p50_seconds: 5.0, p95_seconds, unfinished, others: 0 };
        let report = |lanes: Waits| FairnessReport {
            jobs: 1000,
            slots: 4,
            idle: waits(5.0, 0),
            one_queue: Some(waits(900.0, 20)),
            ratio: lanes.p95_seconds / 5.0,
            lanes,
        };
        assert!(report(waits(7.5, 0)).passed());
        assert!(!report(waits(7.6, 0)).passed() && !report(waits(5.0, 1)).passed());
        let text = report(waits(7.0, 0)).to_string();
        assert!(text.contains(">900.0") && text.contains("1.40 times") && text.ends_with("met"), "{text}");
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=20).map(f64::from).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 95), percentile(&values[..1], 95)), (10.0, 19.0, 1.0));
    }
}
