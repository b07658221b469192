//! Every metric of the worker: name, labels, buckets, and the functions that record them.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::cpu::{CPU_TASK_SECONDS, CPU_TASKS};
use crate::error::Kind;
use crate::lane::Lane;

/// What a metric is, for the catalogue in docs/metrics.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricInfo {
    pub name: &'static str,
    pub kind: &'static str,
    pub labels: &'static str,
    pub help: &'static str,
}

const JOBS: &str = "worker_jobs_total";
const JOB_DURATION: &str = "worker_job_duration_seconds";
const STEP_DURATION: &str = "worker_step_duration_seconds";
const QUEUE_WAIT: &str = "worker_queue_wait_seconds";
const IN_FLIGHT: &str = "worker_deliveries_in_flight";
const LEASE_EXTENSIONS: &str = "worker_lease_extensions_total";
const PUBLISHED_BYTES: &str = "worker_published_bytes_total";
const MODEL_CALLS: &str = "worker_model_calls_total";
const MODEL_RATE: &str = "worker_model_rate_limit";
const QUOTA_SHARED: &str = "worker_quota_shared";
const QUOTA_TAKES: &str = "worker_quota_takes_total";
const QUOTA_DEPARTURES: &str = "worker_quota_departures_total";
const ERRORS: &str = "worker_errors_total";
const CIRCUIT_OPEN: &str = "worker_circuit_open";
const PAUSED: &str = "worker_paused";
const LIST_ENTRIES: &str = "worker_list_entries_total";
const MODEL_FALLBACK: &str = "worker_model_fallback";
const MODEL_LIFE: &str = "worker_model_life";
const RECEIVES: &str = "worker_receives_total";
const LANE_CHANGES: &str = "worker_lane_changes_total";
const DELETE_ENTRIES: &str = "worker_delete_entries";
const VISIBILITY_ENTRIES: &str = "worker_visibility_entries";

/// The catalogue, held to docs/metrics.md by a test.
pub const CATALOGUE: [MetricInfo; 24] = [
    MetricInfo { name: JOBS, kind: "counter", labels: "outcome", help: "Deliveries by how their processing ended" },
    MetricInfo {
        name: JOB_DURATION,
        kind: "histogram",
        labels: "outcome",
        help: "Seconds from receipt of a delivery to its end",
    },
    MetricInfo { name: STEP_DURATION, kind: "histogram", labels: "step", help: "Seconds of one step of a job" },
    MetricInfo {
        name: QUEUE_WAIT,
        kind: "histogram",
        labels: "",
        help: "Seconds from submission to the first receipt",
    },
    MetricInfo { name: IN_FLIGHT, kind: "gauge", labels: "", help: "Deliveries held by this process" },
    MetricInfo { name: LEASE_EXTENSIONS, kind: "counter", labels: "result", help: "Lease extensions by result" },
    MetricInfo { name: CPU_TASKS, kind: "gauge", labels: "state", help: "Tasks of the CPU pool by state" },
    MetricInfo {
        name: CPU_TASK_SECONDS,
        kind: "histogram",
        labels: "task",
        help: "CPU seconds of one task of the CPU pool",
    },
    MetricInfo {
        name: LIST_ENTRIES,
        kind: "counter",
        labels: "result",
        help: "Entries of jobs into their tenants' lists by result",
    },
    MetricInfo { name: PUBLISHED_BYTES, kind: "counter", labels: "", help: "Bytes of published pictures" },
    MetricInfo {
        name: MODEL_CALLS,
        kind: "counter",
        labels: "result",
        help: "Calls to the model by result; 'picture' was paid for",
    },
    MetricInfo {
        name: MODEL_RATE,
        kind: "gauge",
        labels: "",
        help: "Model calls a second that this process allows itself; 0 while unlimited",
    },
    MetricInfo {
        name: QUOTA_SHARED,
        kind: "gauge",
        labels: "",
        help: "1 while the model's quota is shared with the other workers; 0 while that is off, or the bucket cannot be had",
    },
    MetricInfo {
        name: QUOTA_TAKES,
        kind: "counter",
        labels: "result",
        help: "Tries to take departures from the fleet's timetable by result",
    },
    MetricInfo {
        name: QUOTA_DEPARTURES,
        kind: "counter",
        labels: "result",
        help: "Departures of this process by what became of them",
    },
    MetricInfo { name: ERRORS, kind: "counter", labels: "kind", help: "Errors by kind" },
    MetricInfo {
        name: CIRCUIT_OPEN,
        kind: "gauge",
        labels: "",
        help: "1 while the environment is at fault and nothing is received",
    },
    MetricInfo {
        name: PAUSED,
        kind: "gauge",
        labels: "",
        help: "1 while operators have paused generation and nothing is received",
    },
    MetricInfo {
        name: MODEL_FALLBACK,
        kind: "gauge",
        labels: "",
        help: "1 while the fallback is asked because the first model is out of order",
    },
    MetricInfo {
        name: MODEL_LIFE,
        kind: "gauge",
        labels: "state",
        help: "1 for where the model is in its life, 0 for the others; all 0 while that cannot be read",
    },
    MetricInfo { name: RECEIVES, kind: "counter", labels: "lane, result", help: "Calls to receive by lane and result" },
    MetricInfo {
        name: LANE_CHANGES,
        kind: "counter",
        labels: "",
        help: "Single jobs put into the batch lane because their tenant had too many",
    },
    MetricInfo { name: DELETE_ENTRIES, kind: "histogram", labels: "", help: "Deliveries in one DeleteMessageBatch" },
    MetricInfo {
        name: VISIBILITY_ENTRIES,
        kind: "histogram",
        labels: "",
        help: "Deliveries in one ChangeMessageVisibilityBatch",
    },
];

/// Upper bounds in seconds. Model calls take seconds, CPU steps tens of milliseconds, waits up to minutes.
pub const BUCKETS: [(&str, &[f64]); 6] = [
    (JOB_DURATION, &[0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 20.0, 30.0, 60.0, 90.0, 180.0, 600.0]),
    (STEP_DURATION, &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 20.0, 30.0, 60.0, 90.0]),
    (CPU_TASK_SECONDS, &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0]),
    (DELETE_ENTRIES, &ENTRIES),
    (VISIBILITY_ENTRIES, &ENTRIES),
    (QUEUE_WAIT, &[0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0]),
];

const ENTRIES: [f64; 10] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0];

/// How the processing of one delivery ended.
pub const OUTCOMES: [&str; 15] = [
    "published",
    "already_final",
    "failed",
    "blocked",
    "expired",
    "duplicate",
    "key_conflict",
    "superseded",
    "retried",
    "exhausted",
    "poison",
    "misconfigured",
    "lease_lost",
    "released",
    "aborted",
];

/// A step of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Generate,
    Checkpoint,
    Decode,
    Resize,
    Encode,
    Publish,
}

impl Step {
    const ALL: [Self; 6] = [Self::Generate, Self::Checkpoint, Self::Decode, Self::Resize, Self::Encode, Self::Publish];

    fn as_str(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Checkpoint => "checkpoint",
            Self::Decode => "decode",
            Self::Resize => "resize",
            Self::Encode => "encode",
            Self::Publish => "publish",
        }
    }
}

/// Where a model is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifeState {
    Active,
    Legacy,
    Ended,
}

impl LifeState {
    const ALL: [Self; 3] = [Self::Active, Self::Legacy, Self::Ended];

    fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Legacy => "legacy",
            Self::Ended => "ended",
        }
    }
}

/// Describes every metric and starts every counter at 0, so that `rate()` sees the first error.
pub fn describe() {
    for metric in CATALOGUE {
        let unit = if metric.name.contains("_seconds") {
            Unit::Seconds
        } else if metric.name.contains("_bytes") {
            Unit::Bytes
        } else {
            Unit::Count
        };
        match metric.kind {
            "counter" => describe_counter!(metric.name, unit, metric.help),
            "gauge" => describe_gauge!(metric.name, unit, metric.help),
            _ => describe_histogram!(metric.name, unit, metric.help),
        }
    }
    for outcome in OUTCOMES {
        counter!(JOBS, "outcome" => outcome).increment(0);
    }
    for kind in Kind::ALL {
        counter!(ERRORS, "kind" => kind.as_str()).increment(0);
    }
    for result in ["extended", "failed", "lost"] {
        counter!(LEASE_EXTENSIONS, "result" => result).increment(0);
    }
    for result in ["picture", "throttled", "refused", "failed"] {
        counter!(MODEL_CALLS, "result" => result).increment(0);
    }
    for result in ["written", "failed"] {
        counter!(LIST_ENTRIES, "result" => result).increment(0);
    }
    for result in ["taken", "full", "conflict", "failed"] {
        counter!(QUOTA_TAKES, "result" => result).increment(0);
    }
    for result in ["used", "missed"] {
        counter!(QUOTA_DEPARTURES, "result" => result).increment(0);
    }
    for (lane, result) in Lane::ALL.iter().flat_map(|lane| ["messages", "empty", "failed"].map(|result| (lane, result)))
    {
        counter!(RECEIVES, "lane" => lane.as_str(), "result" => result).increment(0);
    }
    counter!(LANE_CHANGES).increment(0);
    for step in Step::ALL {
        drop(histogram!(STEP_DURATION, "step" => step.as_str()));
    }
    drop(histogram!(CPU_TASK_SECONDS, "task" => "render"));
    drop(histogram!(DELETE_ENTRIES));
    drop(histogram!(VISIBILITY_ENTRIES));
    counter!(PUBLISHED_BYTES).increment(0);
    gauge!(IN_FLIGHT).set(0);
    gauge!(MODEL_RATE).set(0);
    gauge!(QUOTA_SHARED).set(0);
    gauge!(CIRCUIT_OPEN).set(0);
    gauge!(PAUSED).set(0);
    gauge!(MODEL_FALLBACK).set(0);
    for state in LifeState::ALL {
        gauge!(MODEL_LIFE, "state" => state.as_str()).set(0);
    }
}

pub fn job_ended(outcome: &'static str, took: Duration) {
    counter!(JOBS, "outcome" => outcome).increment(1);
    histogram!(JOB_DURATION, "outcome" => outcome).record(took);
}

pub fn step_took(step: Step, took: Duration) {
    histogram!(STEP_DURATION, "step" => step.as_str()).record(took);
}

pub fn waited_in_queue(seconds: f64) {
    histogram!(QUEUE_WAIT).record(seconds);
}

pub fn delivery_began() {
    gauge!(IN_FLIGHT).increment(1);
}

pub fn delivery_ended() {
    gauge!(IN_FLIGHT).decrement(1);
}

pub fn lease_extended(result: &'static str) {
    counter!(LEASE_EXTENSIONS, "result" => result).increment(1);
}

pub fn published(bytes: u64) {
    counter!(PUBLISHED_BYTES).increment(bytes);
}

pub fn model_called(result: &'static str) {
    counter!(MODEL_CALLS, "result" => result).increment(1);
}

/// `rate` in calls a second; infinite while there is no limit.
pub fn model_rate(rate: f64) {
    gauge!(MODEL_RATE).set(if rate.is_finite() { rate } else { 0.0 });
}

pub fn quota_shared(shared: bool) {
    gauge!(QUOTA_SHARED).set(u8::from(shared));
}

pub fn quota_take(result: &'static str) {
    counter!(QUOTA_TAKES, "result" => result).increment(1);
}

pub fn departure(result: &'static str) {
    counter!(QUOTA_DEPARTURES, "result" => result).increment(1);
}

pub fn error(kind: Kind) {
    counter!(ERRORS, "kind" => kind.as_str()).increment(1);
}

pub fn circuit_open(open: bool) {
    gauge!(CIRCUIT_OPEN).set(u8::from(open));
}

pub fn entered(result: &'static str) {
    counter!(LIST_ENTRIES, "result" => result).increment(1);
}

pub fn paused(paused: bool) {
    gauge!(PAUSED).set(u8::from(paused));
}

pub fn fallback_asked(asked: bool) {
    gauge!(MODEL_FALLBACK).set(u8::from(asked));
}

pub fn model_life(now: LifeState) {
    for state in LifeState::ALL {
        gauge!(MODEL_LIFE, "state" => state.as_str()).set(u8::from(state == now));
    }
}

#[expect(clippy::cast_precision_loss, reason = "ten at most")]
pub fn deleting(entries: usize) {
    histogram!(DELETE_ENTRIES).record(entries as f64);
}

#[expect(clippy::cast_precision_loss, reason = "ten at most")]
pub fn changing_visibility(entries: usize) {
    histogram!(VISIBILITY_ENTRIES).record(entries as f64);
}

pub fn received(lane: Lane, result: &'static str) {
    counter!(RECEIVES, "lane" => lane.as_str(), "result" => result).increment(1);
}

pub fn changed_lanes() {
    counter!(LANE_CHANGES).increment(1);
}
