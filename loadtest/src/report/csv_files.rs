//! The CSV files of a report: one line a latency, and one line a piece of time.

use serde::Serialize;

use super::{Observation, Report};
use crate::failure::Failure;
use crate::measure::{Bucket, Metric, Outline, rounded};

#[derive(Serialize)]
struct SummaryRow<'a> {
    metric: &'a str,
    samples: u64,
    added_by_correction: u64,
    mean: f64,
    p50: f64,
    p90: f64,
    p95: f64,
    p99: f64,
    max: f64,
    measured_p95: f64,
}

/// One line a latency, in seconds.
pub(super) fn summary(report: &Report) -> Result<String, Failure> {
    let rows = Metric::ALL.into_iter().filter_map(|metric| {
        let q = report.latencies.get(&metric)?;
        Some(SummaryRow {
            metric: metric.as_str(),
            samples: q.samples,
            added_by_correction: q.added,
            mean: rounded(q.mean),
            p50: rounded(q.p50),
            p90: rounded(q.p90),
            p95: rounded(q.p95),
            p99: rounded(q.p99),
            max: rounded(q.max),
            measured_p95: rounded(q.measured_p95),
        })
    });
    let mut writer = csv::Writer::from_writer(Vec::new());
    rows.into_iter().try_for_each(|row| writer.serialize(row)).map_err(failed)?;
    text(writer)
}

/// One line a piece of time.
pub(super) fn timeline(report: &Report) -> Result<String, Failure> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut head: Vec<String> =
        ["at_seconds", "operations", "failed", "jobs_accepted", "pictures", "cache_hits", "cache_misses"]
            .map(str::to_owned)
            .into();
    head.extend(
        Metric::OVER_TIME.iter().flat_map(|metric| ["p50", "p95", "p99"].map(|q| format!("{}_{q}", metric.as_str()))),
    );
    head.extend(["visible", "in_flight", "workers_in_service", "slots_busy", "machine_cpu_percent"].map(str::to_owned));
    writer.write_record(&head).map_err(failed)?;
    for bucket in &report.buckets {
        writer.write_record(line(bucket, &report.looks)).map_err(failed)?;
    }
    text(writer)
}

fn line(bucket: &Bucket, looks: &[Observation]) -> Vec<String> {
    let counts = &bucket.counts;
    let counted = [
        counts.operations,
        counts.failed,
        counts.jobs_accepted,
        counts.pictures,
        counts.cache_hits,
        counts.cache_misses,
    ];
    let mut cells = vec![bucket.at_seconds.to_string()];
    cells.extend(counted.map(|count| count.to_string()));
    for metric in Metric::OVER_TIME {
        let cell = |of: fn(&Outline) -> f64| {
            bucket.latencies.get(&metric).map(|outline| rounded(of(outline)).to_string()).unwrap_or_default()
        };
        cells.extend([cell(|q| q.p50), cell(|q| q.p95), cell(|q| q.p99)]);
    }
    // The last look in this piece of time, if there was one.
    let end = bucket.at_seconds + bucket.seconds;
    let within = |look: &&Observation| look.at_seconds >= bucket.at_seconds && look.at_seconds < end;
    let look = looks.iter().rfind(within);
    let cell = |of: fn(&Observation) -> Option<u64>| look.and_then(of).map(|n| n.to_string()).unwrap_or_default();
    cells.extend([
        cell(|look| look.visible),
        cell(|look| look.in_flight),
        cell(|look| look.workers_in_service),
        cell(|look| look.slots_busy),
    ]);
    cells.push(
        look.and_then(|look| look.machine_percent).map(|percent| rounded(percent).to_string()).unwrap_or_default(),
    );
    cells
}

fn text(writer: csv::Writer<Vec<u8>>) -> Result<String, Failure> {
    let bytes = writer.into_inner().map_err(Failure::fault)?;
    String::from_utf8(bytes).map_err(Failure::fault)
}

fn failed(error: csv::Error) -> Failure {
    Failure::fault(format!("CSV: {error}"))
}
