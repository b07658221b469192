//! A hundred million images a day on paper: what it needs of each quota, and what it costs.

use super::assumptions as assumed;
use super::report::aligned;

const IMAGES_A_DAY: f64 = 100e6;
const SECONDS_A_DAY: f64 = 86_400.0;
/// Peak over mean, as in the scenario of a day.
const PEAK: f64 = 1.8;
/// Mean length of a model call (`model_seconds_per_call`).
const CALL_SECONDS: f64 = 5.0;
/// Slots of a worker (`worker_slots`): two cores at 0.1 s a job render 20 jobs a second, so slots and memory are the limit.
/// A worker with 200 slots peaked below 1 GiB (docs/benchmarks.md), of the 4 GB that an instance has.
const SLOTS: f64 = 64.0;
/// Utilisation of slots and cores at the peak, so that a queue stays short.
const UTILISATION: f64 = 0.7;

/// Requests a minute that a new account may have; from memory, not read from AWS (`model_requests_per_minute`).
const DEFAULT_QUOTA: f64 = 90.0;
/// S3 writes and reads a second for each partitioned prefix:
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html>.
const PUTS_A_PREFIX: f64 = 3500.0;
const GETS_A_PREFIX: f64 = 5500.0;
/// Deliveries in flight of a standard queue:
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>.
const IN_FLIGHT_LIMIT: f64 = 120_000.0;

/// Requests a job, as docs/cost.md counts them.
const PUTS_A_JOB: f64 = 6.0;
const GETS_A_JOB: f64 = 20.0;
const SQS_A_JOB: f64 = 3.5;
/// Through the NAT gateway, GB of an image: base64 of the model's PNG.
const NAT_GB_A_JOB: f64 = 0.004;
/// Size of an image, GB, times ten views.
const CDN_GB_A_JOB: f64 = 0.001;

/// Prices in USD (docs/cost.md, "Prices"; most are remembered there and to be checked).
const MODEL_PRICE: f64 = 0.04;
const ON_DEMAND_HOUR: f64 = 0.085;
const SPOT_HOUR: f64 = 0.03;
const PUT_PRICE: f64 = 0.005 / 1000.0;
const GET_PRICE: f64 = 0.0004 / 1000.0;
const SQS_PRICE: f64 = 0.40 / 1e6;
const NAT_GB: f64 = 0.056;
const CDN_GB: f64 = 0.109;
/// Storage, tags and moves between classes in the steady state, of 10 million pictures a month.
const STORAGE_OF_10_MILLION_A_MONTH: f64 = 1073.13 + 209.0;
/// 4 KB of logs an image.
const LOGS_GB_A_JOB: f64 = 4e-6;
const LOGS_GB: f64 = 0.67;

/// Rates and needs of so many images a day.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Needs {
    pub mean_per_second: f64,
    pub peak_per_second: f64,
    pub quota_per_minute: f64,
    pub calls_in_flight: f64,
    pub workers_at_peak: f64,
    pub put_prefixes: f64,
    pub get_prefixes: f64,
}

/// Computes what the peak of such a day needs.
#[must_use]
pub fn needs(images_a_day: f64) -> Needs {
    let mean_per_second = images_a_day / SECONDS_A_DAY;
    let peak_per_second = mean_per_second * PEAK;
    let calls_in_flight = peak_per_second * CALL_SECONDS;
    let by_slots = calls_in_flight / (SLOTS * UTILISATION);
    #[expect(clippy::cast_precision_loss, reason = "two cores")]
    let by_cores = peak_per_second * assumed::CPU_SECONDS_PER_JOB / (assumed::CORES as f64 * UTILISATION);
    Needs {
        mean_per_second,
        peak_per_second,
        quota_per_minute: peak_per_second * 60.0,
        calls_in_flight,
        workers_at_peak: by_slots.max(by_cores).ceil(),
        put_prefixes: (peak_per_second * PUTS_A_JOB / PUTS_A_PREFIX).ceil(),
        get_prefixes: (peak_per_second * GETS_A_JOB / GETS_A_PREFIX).ceil(),
    }
}

/// Returns the two tables: what the quotas have to be, and what a day costs.
#[must_use]
pub fn table() -> String {
    let need = needs(IMAGES_A_DAY);
    let row = |cells: [String; 4]| cells.to_vec();
    let quotas = [
        row(["what".into(), "needed at the peak".into(), "limit".into(), "times the limit".into()]),
        row([
            "images a second, mean and peak".into(),
            format!("{:.0}, {:.0}", need.mean_per_second, need.peak_per_second),
            "-".into(),
            "-".into(),
        ]),
        limit("model requests a minute", need.quota_per_minute, DEFAULT_QUOTA, "an account"),
        row(["model calls in flight".into(), format!("{:.0}", need.calls_in_flight), "none known".into(), "-".into()]),
        limit("SQS deliveries in flight", need.calls_in_flight / UTILISATION, IN_FLIGHT_LIMIT, "a queue"),
        row([
            "SQS requests a second".into(),
            format!("{:.0}", need.peak_per_second * SQS_A_JOB),
            "none (standard queue)".into(),
            "-".into(),
        ]),
        limit("S3 PUT a second", need.peak_per_second * PUTS_A_JOB, PUTS_A_PREFIX, "a prefix"),
        limit("S3 GET a second", need.peak_per_second * GETS_A_JOB, GETS_A_PREFIX, "a prefix"),
        limit("workers of 64 slots and 2 cores", need.workers_at_peak, 500.0, "worker_max_size"),
    ];
    let mean_workers = need.workers_at_peak / PEAK;
    let components = [
        ("model, Stable Image Core", MODEL_PRICE * IMAGES_A_DAY, "0.04 an image".to_owned()),
        (
            "NAT gateway",
            NAT_GB_A_JOB * NAT_GB * IMAGES_A_DAY,
            "4 MB an image; nothing with egress = \"public\"".to_owned(),
        ),
        ("CloudFront", CDN_GB_A_JOB * CDN_GB * IMAGES_A_DAY, "10 views of 100 KB, first price class".to_owned()),
        (
            "S3 requests",
            (PUTS_A_JOB * PUT_PRICE + GETS_A_JOB * GET_PRICE) * IMAGES_A_DAY,
            "6 PUT and 20 GET".to_owned(),
        ),
        (
            "S3 storage and tags",
            STORAGE_OF_10_MILLION_A_MONTH / 10e6 * IMAGES_A_DAY,
            "635 days of pictures, 22 of sources".to_owned(),
        ),
        ("SQS", SQS_A_JOB * SQS_PRICE * IMAGES_A_DAY, "3.5 requests".to_owned()),
        ("logs", LOGS_GB_A_JOB * LOGS_GB * IMAGES_A_DAY, "4 KB an image".to_owned()),
        (
            "workers",
            24.0 * ((mean_workers - 1.0) * SPOT_HOUR + ON_DEMAND_HOUR),
            format!("{mean_workers:.0} on average, all but one Spot"),
        ),
    ];
    let sum: f64 = components.iter().map(|(_, cost, _)| cost).sum();
    let mut costs = vec![["component", "USD a day", "share, %", "counted as"].map(str::to_owned).to_vec()];
    for (name, cost, how) in &components {
        costs.push(vec![(*name).to_owned(), format!("{cost:.0}"), format!("{:.2}", 100.0 * cost / sum), how.clone()]);
    }
    costs.push(vec!["sum".into(), format!("{sum:.0}"), "100".into(), format!("{:.4} an image", sum / IMAGES_A_DAY)]);
    format!("{}\n{}", aligned(&quotas), aligned(&costs))
}

fn limit(what: &str, needed: f64, limit: f64, of: &str) -> Vec<String> {
    vec![what.to_owned(), format!("{needed:.0}"), format!("{limit:.0} {of}"), format!("{:.2}", needed / limit)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_a_day_needs_a_hundredth() {
        let (million, hundred) = (needs(1e6), needs(100e6));
        assert!((million.quota_per_minute - 1250.0).abs() < 0.1, "{million:?}");
        assert!((hundred.quota_per_minute - 125_000.0).abs() < 1.0, "{hundred:?}");
        assert!((hundred.put_prefixes, hundred.get_prefixes) == (4.0, 8.0), "{hundred:?}");
        assert!(hundred.workers_at_peak < 500.0, "{hundred:?}");
    }
}
