//! `Recorder`: takes the measurements of all users of a run, in total and by time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Latency, Metric, Operation, Outline, Problem, Quantiles, Start, Timing};

/// An arrival that begins this much after it was due is late. Timers of the runtime are good to a millisecond or two.
const LATE: Duration = Duration::from_millis(50);

/// Everything that is measured in one run.
#[derive(Debug)]
pub struct Recorder {
    began: Instant,
    width: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    latencies: [Latency; Metric::ALL.len()],
    counts: Counts,
    errors: BTreeMap<String, u64>,
    slots: Vec<Slot>,
    /// What each picture was asked for, by the hash of its bytes.
    specs_by_picture: HashMap<String, String>,
    urls: HashSet<String>,
    submitted_by_prompt: HashMap<String, u64>,
    duplicates_unseen: bool,
    /// How far the API's estimates at acceptance were off, in % of what the jobs took.
    eta_errors: Vec<f64>,
}

/// One piece of time.
#[derive(Debug, Default)]
struct Slot {
    latencies: BTreeMap<Metric, Latency>,
    counts: Counts,
}

/// What was counted. What is 0 is not written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Requests and ended jobs.
    #[serde(skip_serializing_if = "is_zero")]
    pub operations: u64,
    /// Those that failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub failed: u64,
    /// Requests to API and CDN.
    #[serde(skip_serializing_if = "is_zero")]
    pub requests: u64,
    /// Those that the system did not answer: 5xx, broken connection, time-out.
    #[serde(skip_serializing_if = "is_zero")]
    pub unavailable: u64,
    /// Jobs that the API accepted.
    #[serde(skip_serializing_if = "is_zero")]
    pub jobs_accepted: u64,
    /// Jobs whose picture was downloaded.
    #[serde(skip_serializing_if = "is_zero")]
    pub pictures: u64,
    /// Accepted jobs that had neither failed nor been downloaded when the run was over.
    #[serde(skip_serializing_if = "is_zero")]
    pub jobs_unfinished: u64,
    /// Status reads answered with 304.
    #[serde(skip_serializing_if = "is_zero")]
    pub not_modified: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_hits: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub cache_misses: u64,
    /// Arrivals of the open model.
    #[serde(skip_serializing_if = "is_zero")]
    pub arrivals: u64,
    /// Those that began late.
    #[serde(skip_serializing_if = "is_zero")]
    pub late_starts: u64,
    /// Arrivals that were due and never began, because every user was busy until the end.
    #[serde(skip_serializing_if = "is_zero")]
    pub missed_starts: u64,
    /// Two ids with one URL or one picture, and model calls beyond one for each job.
    #[serde(skip_serializing_if = "is_zero")]
    pub duplicates: u64,
    /// Bytes of pictures downloaded.
    #[serde(skip_serializing_if = "is_zero")]
    pub bytes: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A picture that was published.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Picture {
    pub url: String,
    /// Of the encoded bytes, hex.
    pub sha256: String,
    /// Encoded size.
    pub bytes: u64,
}

/// The measurements of a run.
#[derive(Debug, Clone)]
pub struct Measured {
    pub latencies: BTreeMap<Metric, Quantiles>,
    pub counts: Counts,
    /// Failed operations by code.
    pub errors: BTreeMap<String, u64>,
    pub buckets: Vec<Bucket>,
    /// What was paid for could not be read, so that a count of duplicates would say less than it seems to.
    pub duplicates_unseen: bool,
    /// Median of how far the API's estimates at acceptance were off, in % of what the jobs took; None where it made none.
    pub eta_error_percent: Option<f64>,
}

/// What happened in one piece of time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// Its begin, in seconds after that of the run.
    pub at_seconds: f64,
    /// Its length.
    pub seconds: f64,
    pub latencies: BTreeMap<Metric, Outline>,
    pub counts: Counts,
}

impl Recorder {
    /// Makes an empty recorder for a run that begins now and is cut into pieces of `width`.
    #[must_use]
    pub fn new(width: Duration) -> Self {
        Self { began: Instant::now(), width: width.max(Duration::from_millis(100)), state: Mutex::default() }
    }

    /// Adds a latency.
    pub fn time(&self, metric: Metric, timing: Timing) {
        let mut state = self.lock();
        state.latencies[metric.index()].add(timing);
        if Metric::OVER_TIME.contains(&metric) {
            self.slot(&mut state).latencies.entry(metric).or_insert_with(Latency::coarse).add(timing);
        }
    }

    /// Adds a duration that the system itself has measured.
    pub fn told(&self, metric: Metric, seconds: f64) {
        // Clocks of two machines: a negative one is none.
        if let Ok(duration) = Duration::try_from_secs_f64(seconds) {
            self.time(metric, Timing::of(duration));
        }
    }

    /// Adds an estimate that the API made of a job when it accepted it, and what it was.
    pub fn foretold(&self, eta_seconds: f64, seconds: f64) {
        if seconds > 0.0 {
            self.lock().eta_errors.push(100.0 * (eta_seconds - seconds).abs() / seconds);
        }
    }

    /// Counts something, in total and in its piece of time.
    pub fn count(&self, change: impl Fn(&mut Counts)) {
        let mut state = self.lock();
        change(&mut state.counts);
        change(&mut self.slot(&mut state).counts);
    }

    /// Counts an operation that ended well.
    pub fn succeeded(&self, operation: Operation) {
        self.count(|counts| {
            counts.operations += 1;
            counts.requests += u64::from(operation.is_request());
        });
    }

    /// Counts an operation that failed.
    pub fn failed(&self, operation: Operation, problem: &Problem) {
        self.succeeded(operation);
        self.count(|counts| {
            counts.failed += 1;
            counts.unavailable += u64::from(operation.is_request() && problem.unavailable);
        });
        *self.lock().errors.entry(problem.code.clone()).or_default() += 1;
    }

    /// Counts an arrival of the open model and how late it began.
    pub fn arrived(&self, start: Start) {
        let delay = start.delay();
        self.count(|counts| {
            counts.arrivals += 1;
            counts.late_starts += u64::from(delay > LATE);
        });
        self.time(Metric::StartDelaySeconds, Timing::of(delay));
    }

    /// Counts an accepted job, and remembers what it may cost: one model call.
    pub fn accepted(&self, prompt: &str) {
        self.count(|counts| counts.jobs_accepted += 1);
        *self.lock().submitted_by_prompt.entry(prompt.to_owned()).or_default() += 1;
    }

    /// Notices a picture that was handed out for another job as well. The same `spec` (prompt and seed) may
    /// give the same picture, with a URL of its own.
    pub fn published(&self, picture: &Picture, spec: &str) {
        let mut state = self.lock();
        let is_new_url = state.urls.insert(picture.url.clone());
        let first = state.specs_by_picture.entry(picture.sha256.clone()).or_insert_with(|| spec.to_owned());
        let is_own = first == spec;
        drop(state);
        self.count(|counts| counts.duplicates += u64::from(!is_new_url || !is_own));
    }

    /// Compares the model's ledger, paid calls by prompt, with the jobs accepted, and counts what was paid beyond.
    pub fn reconcile(&self, paid: impl Fn(&str) -> u64) {
        let extra: u64 =
            self.lock().submitted_by_prompt.iter().map(|(prompt, jobs)| paid(prompt).saturating_sub(*jobs)).sum();
        self.count(|counts| counts.duplicates += extra);
    }

    /// Notes that nobody can tell what was paid for.
    pub fn lose_sight_of_duplicates(&self) {
        self.lock().duplicates_unseen = true;
    }

    /// Returns the totals so far, and the quantiles of one metric.
    pub fn so_far(&self, metric: Metric) -> (Counts, Option<Quantiles>) {
        let state = self.lock();
        (state.counts.clone(), state.latencies[metric.index()].quantiles())
    }

    /// Returns everything measured.
    pub fn measured(&self) -> Measured {
        let state = self.lock();
        let total = Metric::ALL.into_iter();
        let bucket = |(index, slot): (usize, &Slot)| Bucket {
            at_seconds: self.width.as_secs_f64() * f64::from(u32::try_from(index).unwrap_or(u32::MAX)),
            seconds: self.width.as_secs_f64(),
            latencies: slot
                .latencies
                .iter()
                .filter_map(|(metric, all)| Some((*metric, all.quantiles()?.into())))
                .collect(),
            counts: slot.counts.clone(),
        };
        Measured {
            latencies: total
                .filter_map(|metric| Some((metric, state.latencies[metric.index()].quantiles()?)))
                .collect(),
            counts: state.counts.clone(),
            errors: state.errors.clone(),
            buckets: state.slots.iter().enumerate().map(bucket).collect(),
            duplicates_unseen: state.duplicates_unseen,
            eta_error_percent: median(state.eta_errors.clone()),
        }
    }

    fn slot<'a>(&self, state: &'a mut State) -> &'a mut Slot {
        let index = self.began.elapsed().as_nanos() / self.width.as_nanos();
        let index = usize::try_from(index).expect("a run has fewer pieces than memory has bytes");
        if state.slots.len() <= index {
            state.slots.resize_with(index + 1, Slot::default);
        }
        &mut state.slots[index]
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_is_off_by_its_share_of_what_the_job_took() {
        let recorder = Recorder::new(Duration::from_secs(3600));
        assert_eq!(recorder.measured().eta_error_percent, None);
        for (eta, took) in [(12.0, 10.0), (5.0, 10.0), (10.0, 10.0), (7.0, 0.0)] {
            recorder.foretold(eta, took);
        }
        assert_eq!(recorder.measured().eta_error_percent, Some(20.0));
    }

    fn picture(url: &str, sha256: &str) -> Picture {
        Picture { url: url.to_owned(), sha256: sha256.to_owned(), bytes: 1 }
    }

    #[test]
    fn a_failed_request_is_an_operation_and_a_job_is_no_request() {
        let recorder = Recorder::new(Duration::from_secs(3600));
        recorder.succeeded(Operation::Submit);
        recorder.failed(Operation::Poll, &Problem { code: "store_unavailable".to_owned(), unavailable: true });
        recorder.failed(Operation::Job, &Problem { code: "attempts_exhausted".to_owned(), unavailable: false });
        let measured = recorder.measured();
        let counts = &measured.counts;
        assert_eq!((counts.operations, counts.failed, counts.requests, counts.unavailable), (3, 2, 2, 1));
        assert_eq!(measured.errors["attempts_exhausted"], 1);
        assert_eq!(measured.buckets.len(), 1);
        assert_eq!(measured.buckets[0].counts, measured.counts);
    }

    #[test]
    fn duplicates_are_one_url_twice_or_one_picture_for_two_specs() {
        let recorder = Recorder::new(Duration::from_secs(3600));
        let duplicates = |picture: Picture, spec: &str| {
            recorder.published(&picture, spec);
            recorder.measured().counts.duplicates
        };
        assert_eq!(duplicates(picture("a", "1"), "fox 1"), 0);
        assert_eq!(duplicates(picture("b", "2"), "fox 2"), 0);
        assert_eq!(duplicates(picture("c", "1"), "fox 1"), 0, "the same spec gives the same picture");
        assert_eq!(duplicates(picture("a", "3"), "fox 3"), 1, "one URL for two jobs");
        assert_eq!(duplicates(picture("d", "2"), "owl 9"), 2, "one picture for two specs");
    }

    #[test]
    fn calls_beyond_one_for_each_job_are_duplicates() {
        let recorder = Recorder::new(Duration::from_secs(3600));
        ["fox", "fox", "owl"].into_iter().for_each(|prompt| recorder.accepted(prompt));
        recorder.reconcile(|prompt| if prompt == "fox" { 2 } else { 1 });
        assert_eq!(recorder.measured().counts.duplicates, 0);
        recorder.reconcile(|_| 2);
        assert_eq!(recorder.measured().counts.duplicates, 1);
    }

    #[test]
    fn an_arrival_is_late_beyond_the_precision_of_timers() {
        let recorder = Recorder::new(Duration::from_secs(3600));
        let due = Instant::now();
        for late in [0, 40, 60] {
            recorder.arrived(Start { due, began: due + Duration::from_millis(late), cadence: None });
        }
        let counts = recorder.measured().counts;
        assert_eq!((counts.arrivals, counts.late_starts), (3, 1));
    }
}
