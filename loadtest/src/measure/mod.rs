//! What is measured: latencies in histograms, operations and their errors in counters, both over time.

mod latency;
mod recorder;
mod start;

use serde::{Deserialize, Serialize};

pub(crate) use latency::brief;
pub use latency::{Latency, Outline, Quantiles, rounded};
pub use recorder::{Bucket, Counts, Measured, Picture, Recorder};
pub use start::{Cadence, Start, Timing};

/// A latency, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// From the start of a submission to its 202.
    AcceptSeconds,
    /// One status read that is not held.
    PollSeconds,
    /// From acceptance to the first worker, as the record tells.
    QueueWaitSeconds,
    /// The worker's upload of the picture to S3, as the record tells.
    UploadSeconds,
    /// From acceptance to the end of a job that succeeded, as the record tells: no polling in it.
    MadeSeconds,
    /// From the start of a submission to the last byte of its picture from the CDN.
    TimeToPictureSeconds,
    /// One download from the CDN.
    CdnDownloadSeconds,
    /// From the intended start of an arrival to its begin: how late the load generator was.
    StartDelaySeconds,
}

impl Metric {
    /// All metrics, in the order of a job's way.
    pub const ALL: [Self; 8] = [
        Self::AcceptSeconds,
        Self::PollSeconds,
        Self::QueueWaitSeconds,
        Self::UploadSeconds,
        Self::MadeSeconds,
        Self::TimeToPictureSeconds,
        Self::CdnDownloadSeconds,
        Self::StartDelaySeconds,
    ];

    /// Those that are told over time as well.
    pub const OVER_TIME: [Self; 4] =
        [Self::AcceptSeconds, Self::QueueWaitSeconds, Self::TimeToPictureSeconds, Self::CdnDownloadSeconds];

    /// Returns the word used in thresholds, JSON and CSV.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AcceptSeconds => "accept_seconds",
            Self::PollSeconds => "poll_seconds",
            Self::QueueWaitSeconds => "queue_wait_seconds",
            Self::UploadSeconds => "upload_seconds",
            Self::MadeSeconds => "made_seconds",
            Self::TimeToPictureSeconds => "time_to_picture_seconds",
            Self::CdnDownloadSeconds => "cdn_download_seconds",
            Self::StartDelaySeconds => "start_delay_seconds",
        }
    }

    /// Returns what people read.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::AcceptSeconds => "time to accept",
            Self::PollSeconds => "status read",
            Self::QueueWaitSeconds => "queue wait (record)",
            Self::UploadSeconds => "upload to S3 (record)",
            Self::MadeSeconds => "accepted to made (record)",
            Self::TimeToPictureSeconds => "time to picture",
            Self::CdnDownloadSeconds => "CDN download",
            Self::StartDelaySeconds => "start delay",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// What can succeed or fail. Each counts once in the error rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `POST /v1/jobs`.
    Submit,
    /// `GET /v1/jobs/{id}`.
    Poll,
    /// `GET` of a picture from the CDN.
    Download,
    /// A job: it fails when it ends without a picture, or not in time.
    Job,
}

impl Operation {
    /// Returns whether it is a request to the system; availability is about those.
    #[must_use]
    pub fn is_request(self) -> bool {
        self != Self::Job
    }
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// A problem code of the API, a failure code of a job, or one of ours.
    pub code: String,
    /// Whether the system was not there: 5xx, a broken connection, a time-out.
    pub unavailable: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_text_use_the_same_word() {
        for (index, metric) in Metric::ALL.into_iter().enumerate() {
            assert_eq!(serde_json::to_string(&metric).unwrap(), format!("\"{}\"", metric.as_str()));
            assert_eq!(metric.index(), index);
        }
    }
}
