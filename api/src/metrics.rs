//! Every metric of `image-api`: names, buckets, labels, and the list that docs/metrics.md is compared with.

use std::time::Duration;

use ::metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use job::Status;

use crate::problem::Code;

pub const JOBS_ENQUEUED: &str = "api_jobs_enqueued_total";
pub const JOBS_CANCELED: &str = "api_jobs_canceled_total";
pub const JOBS_RETRIED: &str = "api_jobs_retried_total";
pub const REQUEST_DURATION: &str = "api_request_duration_seconds";
pub const PROBLEMS: &str = "api_problems_total";
pub const RATE_LIMITED: &str = "api_rate_limited_total";
pub const POLLS: &str = "api_polls_total";
pub const WAITERS: &str = "api_waiters";
pub const JOBS_LISTED: &str = "api_jobs_listed_total";
pub const STREAMS: &str = "api_streams";
pub const EVENTS: &str = "api_events_total";
pub const SENDING: &str = "api_jobs_sending";
pub const SEND_ENTRIES: &str = "api_send_entries";
pub const SEND_DURATION: &str = "api_send_duration_seconds";

/// Upper bounds for `service::telemetry::install_metrics`: a send or a read takes 5 to 100 ms, a held answer up to 20 s.
pub const BUCKETS: &[(&str, &[f64])] = &[
    (REQUEST_DURATION, &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 25.0]),
    (SEND_ENTRIES, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]),
    (SEND_DURATION, &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]),
];

/// How an attempt to accept a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// The queue has confirmed the message.
    Accepted,
    /// The idempotency key is that of a job under way or done: answered without a message.
    Replayed,
    /// The queue did not confirm the message.
    Failed,
    /// The queue has confirmed the message, and the client had gone.
    Unheard,
}

impl Enqueued {
    const ALL: [Self; 4] = [Self::Accepted, Self::Replayed, Self::Failed, Self::Unheard];

    fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Replayed => "replayed",
            Self::Failed => "failed",
            Self::Unheard => "unheard",
        }
    }
}

/// Which limit of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Submit,
    Poll,
}

impl Limit {
    const ALL: [Self; 2] = [Self::Submit, Self::Poll];

    fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Poll => "poll",
        }
    }

    /// Returns what is counted, for a sentence.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Submit => "jobs per minute",
            Self::Poll => "reads per minute",
        }
    }
}

/// Kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One line of docs/metrics.md.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// Returns every metric of this binary.
pub fn catalogue() -> Vec<Metric> {
    let counter = |name, labels, help| Metric { name, kind: Kind::Counter, unit: Unit::Count, labels, help };
    vec![
        counter(JOBS_ENQUEUED, &["result"], "Jobs by how accepting them ended: accepted, replayed, failed or unheard."),
        counter(JOBS_CANCELED, &[], "Jobs withdrawn by their caller."),
        counter(JOBS_RETRIED, &[], "Jobs asked for again after they had ended."),
        Metric {
            name: REQUEST_DURATION,
            kind: Kind::Histogram,
            unit: Unit::Seconds,
            labels: &["route", "status"],
            help: "From the request's head to the answer's; 499 when the client went away. Includes Prefer: wait.",
        },
        counter(PROBLEMS, &["code"], "Error answers by problem code, those inside batch answers included."),
        counter(RATE_LIMITED, &["limit"], "Requests refused because a tenant's limit was used up: submit or poll."),
        counter(POLLS, &["status"], "Status reads by the state they answered with."),
        Metric {
            name: WAITERS,
            kind: Kind::Gauge,
            unit: Unit::Count,
            labels: &[],
            help: "Requests held by Prefer: wait at the moment.",
        },
        counter(JOBS_LISTED, &[], "Jobs shown in lists."),
        Metric {
            name: STREAMS,
            kind: Kind::Gauge,
            unit: Unit::Count,
            labels: &[],
            help: "Streams of events that are open at the moment.",
        },
        counter(EVENTS, &["status"], "Events sent by the state that they told."),
        Metric {
            name: SENDING,
            kind: Kind::Gauge,
            unit: Unit::Count,
            labels: &[],
            help: "Jobs handed to the queue and not confirmed yet.",
        },
        Metric {
            name: SEND_ENTRIES,
            kind: Kind::Histogram,
            unit: Unit::Count,
            labels: &[],
            help: "Jobs in one SendMessageBatch.",
        },
        Metric {
            name: SEND_DURATION,
            kind: Kind::Histogram,
            unit: Unit::Seconds,
            labels: &["result"],
            help: "One SendMessageBatch, retries included, by what became of its jobs: ok, partial or failed.",
        },
    ]
}

/// Describes every metric and sets the counters to 0, so that a rate over the first event is right.
pub fn describe() {
    for Metric { name, kind, unit, help, .. } in catalogue() {
        match kind {
            Kind::Counter => describe_counter!(name, unit, help),
            Kind::Gauge => describe_gauge!(name, unit, help),
            Kind::Histogram => describe_histogram!(name, unit, help),
        }
    }
    Enqueued::ALL.iter().for_each(|result| counter!(JOBS_ENQUEUED, "result" => result.as_str()).absolute(0));
    Limit::ALL.iter().for_each(|limit| counter!(RATE_LIMITED, "limit" => limit.as_str()).absolute(0));
    Code::ALL.iter().for_each(|code| counter!(PROBLEMS, "code" => code.as_str()).absolute(0));
    Status::ALL.iter().for_each(|status| counter!(POLLS, "status" => status.as_str()).absolute(0));
    counter!(JOBS_CANCELED).absolute(0);
    counter!(JOBS_RETRIED).absolute(0);
    Status::ALL.iter().for_each(|status| counter!(EVENTS, "status" => status.as_str()).absolute(0));
    counter!(JOBS_LISTED).absolute(0);
    gauge!(WAITERS).set(0.0);
    gauge!(STREAMS).set(0.0);
    gauge!(SENDING).set(0.0);
}

/// Counts the end of an attempt to accept a job.
pub fn enqueued(result: Enqueued) {
    counter!(JOBS_ENQUEUED, "result" => result.as_str()).increment(1);
}

/// Counts a cancel.
pub fn canceled() {
    counter!(JOBS_CANCELED).increment(1);
}

/// Counts a job that is asked for again after its end.
pub fn retried() {
    counter!(JOBS_RETRIED).increment(1);
}

/// Counts an error answer.
pub fn problem(code: Code) {
    counter!(PROBLEMS, "code" => code.as_str()).increment(1);
}

/// Counts a refused request.
pub fn rate_limited(limit: Limit) {
    counter!(RATE_LIMITED, "limit" => limit.as_str()).increment(1);
}

/// Counts a status read.
pub fn polled(status: Status) {
    counter!(POLLS, "status" => status.as_str()).increment(1);
}

/// Counts the jobs of a page.
pub fn listed(jobs: usize) {
    counter!(JOBS_LISTED).increment(u64::try_from(jobs).unwrap_or(u64::MAX));
}

/// Counts an event of a stream.
pub fn told(status: Status) {
    counter!(EVENTS, "status" => status.as_str()).increment(1);
}

/// Records an answer. `route` is a route template, never a path.
pub fn answered(route: String, status: u16, took: Duration) {
    histogram!(REQUEST_DURATION, "route" => route, "status" => status.to_string()).record(took);
}

/// Records a call to the queue.
pub fn sent(entries: usize, failed: usize, took: Duration) {
    let result = match failed {
        0 => "ok",
        failed if failed == entries => "failed",
        _ => "partial",
    };
    histogram!(SEND_ENTRIES).record(count(entries));
    histogram!(SEND_DURATION, "result" => result).record(took);
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand at most")]
fn count(jobs: usize) -> f64 {
    jobs as f64
}

/// Counts jobs that are being sent until dropped, however it ends.
pub struct Sending(usize);

impl Sending {
    pub fn begin(jobs: usize) -> Self {
        gauge!(SENDING).increment(count(jobs));
        Self(jobs)
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        gauge!(SENDING).decrement(count(self.0));
    }
}

/// Counts a held request or an open stream until dropped, however it ends.
pub struct Held(&'static str);

impl Held {
    pub fn request() -> Self {
        Self::begin(WAITERS)
    }

    pub fn stream() -> Self {
        Self::begin(STREAMS)
    }

    fn begin(name: &'static str) -> Self {
        gauge!(name).increment(1.0);
        Self(name)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        gauge!(self.0).decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_but_the_histograms_is_exported_from_the_start() {
        let recorder = service::telemetry::recorder(BUCKETS).unwrap().build_recorder();
        ::metrics::with_local_recorder(&recorder, || {
            describe();
            answered("/v1/jobs".into(), 202, Duration::from_millis(7));
            sent(10, 3, Duration::from_millis(7));
        });
        let text = recorder.handle().render();
        for Metric { name, .. } in catalogue() {
            assert!(text.contains(&format!("# TYPE {name} ")), "{name} is missing in\n{text}");
        }
        assert!(text.contains(r#"api_jobs_enqueued_total{result="failed"} 0"#), "{text}");
        assert!(text.contains(r#"api_send_entries_bucket{le="9"} 0"#), "{text}");
        assert!(text.contains(r#"api_send_duration_seconds_count{result="partial"} 1"#), "{text}");
        assert!(text.contains(r#"api_request_duration_seconds_bucket{route="/v1/jobs",status="202",le="0.01"} 1"#));
    }
}
