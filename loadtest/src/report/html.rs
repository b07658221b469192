//! The HTML of a report: one file that needs nothing else, charts included.

use super::chart::{Line, chart};
use super::{Observation, Report};
use crate::failure::Failure;
use crate::measure::{Bucket, Counts, Metric, Outline};
use crate::threshold::{availability_percent, cache_hit_percent, error_percent};

const STYLE: &str = "
body{font:14px/1.45 system-ui,sans-serif;color:#1b1f24;background:#f6f7f9;margin:0}
main{max-width:1180px;margin:0 auto;padding:20px}
h1{font-size:22px;margin:0}h2{font-size:16px;margin:24px 0 8px}
header{display:flex;align-items:center;gap:14px}
.badge{color:#fff;border-radius:4px;padding:2px 10px;font-weight:600}.ok{background:#1a7f37}.bad{background:#c62828}
.note{color:#57606a}
table{border-collapse:collapse;background:#fff;border:1px solid #d8dee4}
th,td{padding:4px 10px;border-bottom:1px solid #eaeef2;text-align:left}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.tiles{display:grid;grid-template-columns:repeat(6,1fr);gap:10px;margin-top:16px}
.tile{background:#fff;border:1px solid #d8dee4;border-radius:6px;padding:8px 12px}
.tile b{display:block;font-size:19px;font-variant-numeric:tabular-nums}
.charts{display:grid;grid-template-columns:1fr 1fr;gap:10px}
.charts svg{background:#fff;border:1px solid #d8dee4;border-radius:6px;width:100%;height:auto}
.columns{display:flex;gap:24px;flex-wrap:wrap;align-items:flex-start}
.failed{color:#c62828;font-weight:600}.met{color:#1a7f37}
";

/// Makes the page.
///
/// # Errors
/// When a chart cannot be drawn.
pub(super) fn page(report: &Report) -> Result<String, Failure> {
    let mut page = String::new();
    let title = format!("Load test: {}", report.plan.scenario);
    put!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{}</title><style>{STYLE}</style></head>\n<body><main>\n",
        escaped(&title)
    );
    head(&mut page, report, &title);
    tiles(&mut page, report);
    thresholds(&mut page, report);
    putln!(page, "<h2>Over time</h2>\n<div class=\"charts\">");
    for svg in charts(report)? {
        // Ids would be shared by all charts of the page; plotters makes none.
        putln!(page, "{svg}");
    }
    putln!(page, "</div>");
    latencies(&mut page, report);
    details(&mut page, report);
    putln!(page, "</main></body></html>");
    Ok(page)
}

fn head(page: &mut String, report: &Report, title: &str) {
    let (class, word) = if report.passed { ("ok", "passed") } else { ("bad", "failed") };
    let plan = &report.plan;
    let load = match plan.rate {
        Some(rate) => {
            format!("open model, {rate} arrivals a second ({:?}), at most {} at work", plan.spread, plan.users)
        }
        None => format!("{} users of {} who think between tasks", plan.users, plan.kind.as_str()),
    };
    putln!(
        page,
        "<header><h1>{}</h1><span class=\"badge {class}\">{word}</span></header>\n<p class=\"note\">{}; {:.0} s, ramp {:.0} \
         s, until the last job {:.0} s; started {}; {} target {}{}</p>",
        escaped(title),
        escaped(&load),
        plan.duration.as_secs_f64(),
        plan.ramp.as_secs_f64(),
        report.wall_seconds,
        report.started_at.strftime("%Y-%m-%d %H:%M:%S UTC"),
        escaped(&report.target),
        escaped(&report.api),
        if report.interrupted { "; <b>interrupted</b>" } else { "" },
    );
}

fn tiles(page: &mut String, report: &Report) {
    let counts = &report.counts;
    let percent = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2} %"));
    let p95 = |metric| report.latencies.get(&metric).map_or_else(|| "-".to_owned(), |q| short(q.p95));
    let tiles = [
        ("p95 to picture", p95(Metric::TimeToPictureSeconds)),
        ("p95 upload to S3", p95(Metric::UploadSeconds)),
        ("p95 CDN download", p95(Metric::CdnDownloadSeconds)),
        ("cache hits", percent(cache_hit_percent(counts))),
        ("errors", percent(error_percent(counts))),
        ("availability", percent(availability_percent(counts))),
    ];
    putln!(page, "<div class=\"tiles\">");
    for (name, value) in tiles {
        putln!(page, "<div class=\"tile\">{name}<b>{value}</b></div>");
    }
    putln!(page, "</div>");
}

fn thresholds(page: &mut String, report: &Report) {
    putln!(
        page,
        "<h2>Thresholds</h2>\n<table><tr><th>name</th><th>bound</th><th class=\"n\">measured</th><th>result</th></tr>"
    );
    for verdict in &report.thresholds {
        let measured = verdict.measured.map_or_else(|| "no samples".to_owned(), |value| format!("{value:.3}"));
        let result = match (verdict.applies, verdict.passed) {
            (false, _) => "<td class=\"note\">not for this run</td>",
            (true, true) => "<td class=\"met\">met</td>",
            (true, false) => "<td class=\"failed\">not met</td>",
        };
        let (name, bound) = (escaped(&verdict.name), escaped(&verdict.bound));
        putln!(page, "<tr><td>{name}</td><td>{bound}</td><td class=\"n\">{measured}</td>{result}</tr>");
    }
    putln!(page, "</table>");
}

fn charts(report: &Report) -> Result<Vec<String>, Failure> {
    let end = report.wall_seconds;
    let latency = |metric: Metric, of: fn(&Outline) -> f64| -> Vec<(f64, f64)> {
        let point = |bucket: &Bucket| Some((middle(bucket), of(bucket.latencies.get(&metric)?)));
        report.buckets.iter().filter_map(point).collect()
    };
    #[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
    let per_second = |of: fn(&Counts) -> u64| -> Vec<(f64, f64)> {
        report.buckets.iter().map(|bucket| (middle(bucket), of(&bucket.counts) as f64 / bucket.seconds)).collect()
    };
    #[expect(clippy::cast_precision_loss, reason = "gauges are far below 2^52")]
    let seen = |of: fn(&Observation) -> Option<u64>| -> Vec<(f64, f64)> {
        report.looks.iter().filter_map(|look| Some((look.at_seconds, of(look)? as f64))).collect()
    };
    let quantiles = |metric: Metric| -> Vec<Line> {
        vec![
            ("p99".to_owned(), latency(metric, |q| q.p99)),
            ("p95".to_owned(), latency(metric, |q| q.p95)),
            ("p50".to_owned(), latency(metric, |q| q.p50)),
        ]
    };
    let throughput = vec![
        ("operations".to_owned(), per_second(|counts| counts.operations)),
        ("jobs accepted".to_owned(), per_second(|counts| counts.jobs_accepted)),
        ("pictures".to_owned(), per_second(|counts| counts.pictures)),
        ("failed".to_owned(), per_second(|counts| counts.failed)),
    ];
    let queue = vec![
        ("waiting".to_owned(), seen(|look| look.visible)),
        ("in flight".to_owned(), seen(|look| look.in_flight)),
        ("workers in service".to_owned(), seen(|look| look.workers_in_service)),
        ("slots busy".to_owned(), seen(|look| look.slots_busy)),
    ];
    Ok(vec![
        chart("Time to picture", "s", end, &quantiles(Metric::TimeToPictureSeconds))?,
        chart("Throughput", "a second", end, &throughput)?,
        chart("Queue and workers", "count", end, &queue)?,
        chart("CPU, % of one core", "%", end, &cpu(report))?,
        chart("Time to accept", "s", end, &quantiles(Metric::AcceptSeconds))?,
        chart("CDN download", "s", end, &quantiles(Metric::CdnDownloadSeconds))?,
    ])
}

/// One line a process, the workers as one.
fn cpu(report: &Report) -> Vec<Line> {
    let mut lines: Vec<Line> =
        ["api", "workers", "stand-ins", "loadtest", "machine"].map(|name| (name.to_owned(), Vec::new())).into();
    for look in &report.looks {
        let of = |wanted: &str| -> Option<f64> {
            if wanted == "machine" {
                return look.machine_percent.map(|percent| percent * f64::from(report.generator.cores));
            }
            let is_it = |name: &str| name == wanted || (wanted == "workers" && name.starts_with("worker-"));
            let shares: Vec<f64> =
                look.cpu_percent.iter().filter(|(name, _)| is_it(name)).map(|(_, cpu)| *cpu).collect();
            (!shares.is_empty()).then(|| shares.iter().sum())
        };
        for (name, points) in &mut lines {
            points.extend(of(name).map(|percent| (look.at_seconds, percent)));
        }
    }
    lines.retain(|(_, points)| !points.is_empty());
    lines
}

fn latencies(page: &mut String, report: &Report) {
    let columns = ["samples", "added", "mean", "p50", "p90", "p95", "p99", "max", "p95 as measured"];
    put!(page, "<h2>Latencies, in seconds</h2>\n<table><tr><th>what</th>");
    columns.iter().for_each(|column| {
        put!(page, "<th class=\"n\">{column}</th>");
    });
    putln!(page, "</tr>");
    for metric in Metric::ALL {
        let Some(q) = report.latencies.get(&metric) else { continue };
        put!(page, "<tr><td>{}</td>", metric.title());
        for count in [q.samples, q.added] {
            put!(page, "<td class=\"n\">{count}</td>");
        }
        for seconds in [q.mean, q.p50, q.p90, q.p95, q.p99, q.max, q.measured_p95] {
            put!(page, "<td class=\"n\">{seconds:.3}</td>");
        }
        putln!(page, "</tr>");
    }
    putln!(
        page,
        "</table>\n<p class=\"note\">Open model: from when an arrival was due. Closed users: with the requests added that a stall \
         kept back. Both account for coordinated omission; \"as measured\" is without.</p>"
    );
}

fn details(page: &mut String, report: &Report) {
    let counts = &report.counts;
    let rows = [
        ("operations", counts.operations),
        ("failed", counts.failed),
        ("requests", counts.requests),
        ("requests not answered (5xx, cut off, timed out)", counts.unavailable),
        ("jobs accepted", counts.jobs_accepted),
        ("pictures", counts.pictures),
        ("jobs unfinished at the end", counts.jobs_unfinished),
        ("status reads answered 304", counts.not_modified),
        ("cache hits", counts.cache_hits),
        ("cache misses", counts.cache_misses),
        ("arrivals", counts.arrivals),
        ("arrivals late", counts.late_starts),
        ("arrivals missed", counts.missed_starts),
        ("duplicates", counts.duplicates),
    ];
    putln!(page, "<div class=\"columns\"><div><h2>Counts</h2><table>");
    for (name, count) in rows {
        putln!(page, "<tr><td>{name}</td><td class=\"n\">{count}</td></tr>");
    }
    putln!(page, "</table></div><div><h2>Errors by code</h2><table>");
    if report.errors.is_empty() {
        putln!(page, "<tr><td>none</td></tr>");
    }
    for (code, times) in &report.errors {
        putln!(page, "<tr><td>{}</td><td class=\"n\">{times}</td></tr>", escaped(code));
    }
    putln!(
        page,
        "</table></div><div><h2>Load generator</h2><p>{}</p>{}</div></div>",
        report.generator_sentence(),
        report.scale_out_seconds.map_or_else(String::new, |seconds| format!("<p>Scaled out after {seconds:.0} s</p>")),
    );
}

/// Milliseconds below a second.
fn short(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.0} ms", seconds * 1000.0) } else { format!("{seconds:.2} s") }
}

fn middle(bucket: &Bucket) -> f64 {
    bucket.at_seconds + bucket.seconds / 2.0
}

/// Codes and names may come from whatever answered.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
