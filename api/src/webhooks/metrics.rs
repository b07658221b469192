//! The metrics of `image-api webhooks`.

use std::time::Duration;

use ::metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

use crate::metrics::{Kind, Metric};

pub const DELIVERIES: &str = "webhook_deliveries_total";
pub const TRY_DURATION: &str = "webhook_try_seconds";

/// Upper bounds for `service::telemetry::install_metrics`: a try ends after 15 s.
pub const BUCKETS: &[(&str, &[f64])] =
    &[(TRY_DURATION, &[0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 20.0])];

/// What became of one hand-over of a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has it.
    Delivered,
    /// The receiver did not take it: tried again later.
    Failed,
    /// The last try failed.
    Exhausted,
    /// The receiver wants no more.
    Gone,
    /// The tenant has no webhook.
    NoReceiver,
    /// The job has no end, or its caller has asked for it again since.
    NoNews,
    /// Too many tries of its tenant are under way.
    Busy,
    /// The record cannot be read.
    StoreFailed,
    /// Not a notice.
    Unreadable,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 9] = [
        Self::Delivered,
        Self::Failed,
        Self::Exhausted,
        Self::Gone,
        Self::NoReceiver,
        Self::NoNews,
        Self::Busy,
        Self::StoreFailed,
        Self::Unreadable,
    ];

    /// Returns the word used in logs and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Exhausted => "exhausted",
            Self::Gone => "gone",
            Self::NoReceiver => "no_receiver",
            Self::NoNews => "no_news",
            Self::Busy => "busy",
            Self::StoreFailed => "store_failed",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Returns every metric of this process.
pub fn catalogue() -> Vec<Metric> {
    vec![
        Metric {
            name: DELIVERIES,
            kind: Kind::Counter,
            unit: Unit::Count,
            labels: &["outcome"],
            help: "Notices handed over by what became of them: delivered, failed, exhausted, gone, no_receiver, no_news, busy, store_failed or unreadable.",
        },
        Metric {
            name: TRY_DURATION,
            kind: Kind::Histogram,
            unit: Unit::Seconds,
            labels: &[],
            help: "One try at a receiver, from the look-up of its name to its answer.",
        },
    ]
}

/// Describes every metric and sets the counters to 0.
pub fn describe() {
    for Metric { name, kind, unit, help, .. } in catalogue() {
        match kind {
            Kind::Counter | Kind::Gauge => describe_counter!(name, unit, help),
            Kind::Histogram => describe_histogram!(name, unit, help),
        }
    }
    Outcome::ALL.iter().for_each(|outcome| counter!(DELIVERIES, "outcome" => outcome.as_str()).absolute(0));
}

/// Counts what became of a hand-over.
pub fn ended(outcome: Outcome) {
    counter!(DELIVERIES, "outcome" => outcome.as_str()).increment(1);
}

/// Records how long a try took.
pub fn tried(took: Duration) {
    histogram!(TRY_DURATION).record(took);
}
