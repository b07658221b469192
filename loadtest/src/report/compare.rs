//! `loadtest compare`: two runs side by side.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::Report;
use crate::failure::Failure;
use crate::measure::Metric;
use crate::output;
use crate::threshold::{availability_percent, cache_hit_percent, error_percent};

/// Which runs.
#[derive(Debug, Clone, Args)]
pub struct CompareArgs {
    /// Folder of the earlier run's report, or its report.json.
    #[arg(value_name = "BEFORE")]
    before: PathBuf,
    /// Folder of the later run's report, or its report.json.
    #[arg(value_name = "AFTER")]
    after: PathBuf,
    /// Print JSON instead of the table.
    #[arg(long)]
    json: bool,
}

/// One number of both runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Row {
    what: String,
    before: Option<f64>,
    after: Option<f64>,
    /// Of the earlier value.
    change_percent: Option<f64>,
}

/// Prints what changed from one run to another.
///
/// # Errors
/// When one of them is no report, or they are of two scenarios.
pub fn compare(args: &CompareArgs) -> Result<ExitCode, Failure> {
    let (before, after) = (Report::read(&args.before)?, Report::read(&args.after)?);
    let [left, right] = [&before, &after].map(|report| report.plan.scenario.as_str());
    if left != right {
        return Err(Failure::usage(format!(
            "{} is a run of {left}, {} is one of {right}: what differs would be the load; name two runs of one scenario",
            args.before.display(),
            args.after.display()
        )));
    }
    let rows = rows(&before, &after);
    if args.json {
        let json = serde_json::to_string_pretty(&rows).map_err(Failure::fault)?;
        output::line(json);
    } else {
        output::line(table(&before, &after, &rows).trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

fn rows(before: &Report, after: &Report) -> Vec<Row> {
    let row = |what: String, of: &dyn Fn(&Report) -> Option<f64>| {
        let (before, after) = (of(before), of(after));
        let change = before.zip(after).filter(|(before, _)| *before != 0.0);
        Row { what, before, after, change_percent: change.map(|(before, after)| 100.0 * (after - before) / before) }
    };
    let mut rows = Vec::new();
    for metric in Metric::ALL {
        if before.latencies.contains_key(&metric) || after.latencies.contains_key(&metric) {
            rows.push(row(format!("{}, p50, s", metric.title()), &|run| Some(run.latencies.get(&metric)?.p50)));
            rows.push(row(format!("{}, p95, s", metric.title()), &|run| Some(run.latencies.get(&metric)?.p95)));
        }
    }
    rows.push(row("pictures a second".to_owned(), &|run| per_second(run.counts.pictures, run)));
    rows.push(row("operations a second".to_owned(), &|run| per_second(run.counts.operations, run)));
    rows.push(row("errors, %".to_owned(), &|run| error_percent(&run.counts)));
    rows.push(row("availability, %".to_owned(), &|run| availability_percent(&run.counts)));
    rows.push(row("cache hits, %".to_owned(), &|run| cache_hit_percent(&run.counts)));
    rows.push(row("CPU of the load generator, % of a core".to_owned(), &|run| run.generator.cpu_percent));
    rows
}

#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
fn per_second(count: u64, run: &Report) -> Option<f64> {
    (run.wall_seconds > 0.0).then(|| count as f64 / run.wall_seconds)
}

fn table(before: &Report, after: &Report, rows: &[Row]) -> String {
    let mut text = String::new();
    let name = |run: &Report| {
        let load = run.plan.rate.map_or_else(|| format!("{} users", run.plan.users), |rate| format!("{rate}/s"));
        format!("{} {load} {:.0} s, {}", run.plan.scenario, run.plan.duration.as_secs_f64(), run.started_at)
    };
    putln!(text, "before: {}\nafter:  {}\n", name(before), name(after));
    let differences = differences(before, after);
    if !differences.is_empty() {
        putln!(text, "Not only the system may differ: {}.\n", differences.join("; "));
    }
    putln!(text, "| {:<38} | {:>10} | {:>10} | {:>8} |", "what", "before", "after", "change");
    putln!(text, "|{:-<40}|{:->11}:|{:->11}:|{:->9}:|", "", "", "", "");
    let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
    for row in rows {
        let change = row.change_percent.map_or_else(|| "-".to_owned(), |change| format!("{change:+.1} %"));
        let (before, after) = (cell(row.before), cell(row.after));
        putln!(text, "| {:<38} | {before:>10} | {after:>10} | {change:>8} |", row.what);
    }
    for (run, which) in [(before, "before"), (after, "after")] {
        for verdict in run.broken() {
            putln!(text, "\nnot met {which}: {}", super::told(verdict));
        }
    }
    text
}

/// What was not the same in both runs, apart from the system.
fn differences(before: &Report, after: &Report) -> Vec<String> {
    let rate = |run: &Report| run.plan.rate.map_or_else(|| "none".to_owned(), |rate| format!("{rate}/s"));
    let seconds = |run: &Report| format!("{:.0} s", run.plan.duration.as_secs_f64());
    let told = |what: &str, of: &dyn Fn(&Report) -> String| {
        let (before, after) = (of(before), of(after));
        (before != after).then(|| format!("{what} {before} before, {after} after"))
    };
    let named = [
        told("target", &|run| run.target.clone()),
        told("users", &|run| run.plan.users.to_string()),
        told("rate", &rate),
        told("length", &seconds),
        told("interrupted", &|run| run.interrupted.to_string()),
    ];
    let mut found: Vec<String> = named.into_iter().flatten().collect();
    if found.is_empty() && before.plan != after.plan {
        found.push("flags that change the load, see `plan` in both report.json".to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn a_change_is_told_in_percent_of_the_earlier_run() {
        let (before, mut after) = (report(), report());
        after.latencies.get_mut(&Metric::TimeToPictureSeconds).unwrap().p95 *= 2.0;
        after.latencies.remove(&Metric::UploadSeconds);
        after.plan.users = 20;
        let rows = rows(&before, &after);
        let row = |what: &str| rows.iter().find(|row| row.what == what).unwrap();
        assert_eq!(row("time to picture, p95, s").change_percent, Some(100.0));
        assert_eq!(row("time to picture, p50, s").change_percent, Some(0.0));
        assert_eq!(row("upload to S3 (record), p95, s").after, None);
        insta::assert_snapshot!(table(&before, &after, &rows));
    }

    #[test]
    fn what_else_differs_is_told() {
        let (before, mut after) = (report(), report());
        assert_eq!(differences(&before, &after), Vec::<String>::new());
        after.plan.haste = 5;
        assert!(differences(&before, &after)[0].contains("flags"));
        after.plan.rate = Some(2.5);
        after.target = "deployed".to_owned();
        let expected = ["target local before, deployed after", "rate none before, 2.5/s after"];
        assert_eq!(differences(&before, &after), expected);
    }
}
