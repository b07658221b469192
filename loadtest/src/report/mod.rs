//! `Report`: what a run measured and whether it passed, as JSON, CSV, one HTML file and a few lines.

mod chart;
mod compare;
mod csv_files;
mod html;
mod text;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::measure::{Bucket, Counts, Measured, Metric, Quantiles, brief};
use crate::output;
use crate::run::{Plan, TimedLook};
use crate::target::Target;
use crate::threshold::{Seen, Verdict};
use crate::watch::Look;

pub use compare::{CompareArgs, compare};
pub(crate) use html::escaped;
pub use text::told;

/// Files of a report's folder.
pub const HTML: &str = "report.html";
const JSON: &str = "report.json";
const SUMMARY_CSV: &str = "summary.csv";
const TIMELINE_CSV: &str = "timeline.csv";
/// Form of the JSON; one that cannot be compared with an older one gets another number.
const FORM: u32 = 1;

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub form: u32,
    pub plan: Plan,
    /// `local` or `deployed`.
    pub target: String,
    /// Origin of the API.
    pub api: String,
    pub started_at: Timestamp,
    /// Until the last job had ended or was given up.
    pub wall_seconds: f64,
    /// Ended by a signal, before its time.
    pub interrupted: bool,
    pub passed: bool,
    pub thresholds: Vec<Verdict>,
    pub latencies: BTreeMap<Metric, Quantiles>,
    pub counts: Counts,
    /// Failed operations by code.
    pub errors: BTreeMap<String, u64>,
    pub scale_out_seconds: Option<f64>,
    /// See [`Seen`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog_growth_percent: Option<f64>,
    /// See [`Measured`]; None where the API made no estimates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_error_percent: Option<f64>,
    /// Calls to the model while the run went on, and those of them that it throttled; 0 where they cannot be seen.
    #[serde(default)]
    pub model_calls: f64,
    #[serde(default)]
    pub model_throttled: f64,
    pub generator: Generator,
    pub buckets: Vec<Bucket>,
    pub looks: Vec<Observation>,
}

/// The load generator itself: whether it was the limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generator {
    /// CPU of this process in % of one core; None outside Linux.
    pub cpu_percent: Option<f64>,
    pub cores: u32,
    /// Arrivals of the open model that began late or never, in % of all that were due.
    pub late_percent: Option<f64>,
}

/// A look at the system, reduced to what is drawn.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    #[serde(serialize_with = "brief")]
    pub at_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visible: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers_desired: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers_in_service: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots_busy: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots_all: Option<u64>,
    /// CPU by process, in % of one core.
    #[serde(serialize_with = "tenths")]
    pub cpu_percent: BTreeMap<String, f64>,
    /// CPU of the machine, in % of all its cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_percent: Option<f64>,
}

/// Tenths of a percent: a look lasts a second or more, and CPU time is told in hundredths of one.
fn tenths<S: serde::Serializer>(shares: &BTreeMap<String, f64>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(shares.iter().map(|(name, percent)| (name, (percent * 10.0).round() / 10.0)))
}

impl Generator {
    /// Makes it from the CPU time used and what was counted.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
    pub fn new(cpu: Option<Duration>, wall: Duration, counts: &Counts) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
        let due = counts.arrivals + counts.missed_starts;
        let late = counts.late_starts + counts.missed_starts;
        Self {
            cpu_percent: cpu.map(|cpu| 100.0 * cpu.as_secs_f64() / wall.as_secs_f64()),
            cores,
            late_percent: (due > 0).then(|| 100.0 * late as f64 / due as f64),
        }
    }
}

impl Observation {
    fn new((at_seconds, look): &TimedLook) -> Self {
        let Look { queue, group, slots, processes, machine, .. } = look;
        Self {
            at_seconds: rounded(*at_seconds),
            visible: queue.visible,
            in_flight: queue.in_flight,
            workers_desired: group.desired,
            workers_in_service: group.in_service,
            slots_busy: slots.busy,
            slots_all: slots.all,
            cpu_percent: processes.iter().map(|process| (process.name.clone(), rounded(process.cpu_percent))).collect(),
            machine_percent: machine.map(|machine| rounded(machine.busy_percent)),
        }
    }
}

impl Report {
    /// Puts together what a run brought.
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "each is one part of the report")]
    pub(crate) fn new(
        plan: &Plan,
        target: &Target,
        started_at: Timestamp,
        wall: Duration,
        interrupted: bool,
        measured: Measured,
        thresholds: Vec<Verdict>,
        generator: Generator,
        seen: Seen,
        looks: Vec<TimedLook>,
    ) -> Self {
        Self {
            form: FORM,
            plan: plan.clone(),
            target: target.kind().to_owned(),
            api: target.api.to_string(),
            started_at,
            wall_seconds: rounded(wall.as_secs_f64()),
            interrupted,
            passed: thresholds.iter().all(|verdict| verdict.passed),
            thresholds,
            latencies: measured.latencies,
            counts: measured.counts,
            errors: measured.errors,
            scale_out_seconds: seen.scale_out_seconds,
            backlog_growth_percent: seen.backlog_growth_percent.map(rounded),
            eta_error_percent: measured.eta_error_percent.map(rounded),
            model_calls: looks.iter().filter_map(|(_, look)| look.model.calls).sum(),
            model_throttled: looks.iter().filter_map(|(_, look)| look.model.throttled).sum(),
            generator,
            buckets: measured.buckets,
            looks: looks.iter().map(Observation::new).collect(),
        }
    }

    /// Returns the thresholds that were not met.
    pub fn broken(&self) -> impl Iterator<Item = &Verdict> {
        self.thresholds.iter().filter(|verdict| !verdict.passed)
    }

    /// Writes `report.html`, `report.json`, `summary.csv` and `timeline.csv` into a folder.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), Failure> {
        let unwritable = |error| Failure::fault(format!("{JSON}: {error}"));
        let json = serde_json::to_string(self).map_err(unwritable)?;
        // From what the file says, which is rounded: `render` then writes the same again.
        let told: Self = serde_json::from_str(&json).map_err(unwritable)?;
        let files = [
            (JSON, json + "\n"),
            (SUMMARY_CSV, csv_files::summary(&told)?),
            (TIMELINE_CSV, csv_files::timeline(&told)?),
            (HTML, html::page(&told)?),
        ];
        for (name, text) in files {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(|error| Failure::fault(format!("{}: {error}", path.display())))?;
        }
        Ok(())
    }

    /// Reads the report in a folder, or a `report.json` itself.
    ///
    /// # Errors
    /// When there is none, or it has another form.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let file = if path.is_dir() { path.join(JSON) } else { path.to_owned() };
        let refused = |reason: String| Failure::usage(format!("{} is no report: {reason}", file.display()));
        let text = std::fs::read_to_string(&file).map_err(|error| refused(error.to_string()))?;
        let mut reader = serde_json::Deserializer::from_str(&text);
        let mut report: Self =
            serde_path_to_error::deserialize(&mut reader).map_err(|error| refused(error.to_string()))?;
        if report.form == FORM {
            // Those of an earlier build have more than is drawn.
            report.buckets.iter_mut().for_each(|bucket| bucket.latencies.retain(|m, _| Metric::OVER_TIME.contains(m)));
            Ok(report)
        } else {
            Err(refused(format!("it has form {}, and this release reads form {FORM}", report.form)))
        }
    }
}

/// Which report to write again.
#[derive(Debug, Clone, Args)]
pub struct RenderArgs {
    /// Folder of the report.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Writes HTML and CSV of a report again from its JSON, in the form of this release.
///
/// # Errors
/// When there is no report in the folder, or a file cannot be written.
pub fn render(args: &RenderArgs) -> Result<ExitCode, Failure> {
    let report = Report::read(&args.folder)?;
    report.write(&args.folder)?;
    output::line(args.folder.join(HTML).display());
    Ok(ExitCode::SUCCESS)
}

/// Creates the folder of a report.
///
/// # Errors
/// When there is something of that name, or it cannot be created.
pub fn create_folder(reports: &Path, name: &str) -> Result<PathBuf, Failure> {
    let folder = reports.join(name);
    std::fs::create_dir_all(reports)
        .map_err(|error| Failure::usage(format!("--reports {} cannot be created: {error}", reports.display())))?;
    std::fs::create_dir(&folder).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::usage(format!("{} is there already: remove it, or give another --name", folder.display()))
        }
        _ => Failure::usage(format!("{} cannot be created: {error}", folder.display())),
    })?;
    Ok(folder)
}

/// Removes the folder of a run that has nothing to report.
pub fn remove_empty(folder: &Path) {
    // It is empty, or it stays.
    std::fs::remove_dir(folder).ok();
}

/// Milliseconds and tenths of percents are enough, and make the file smaller.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::users::{Spread, UserKind};

    /// A run of a minute that passed.
    pub(crate) fn report() -> Report {
        let second = |seconds| Duration::from_secs(seconds);
        let quantiles = Quantiles { samples: 12, p50: 1.5, p95: 2.25, p99: 2.5, max: 2.5, ..Quantiles::default() };
        let latencies: BTreeMap<Metric, Quantiles> =
            [(Metric::TimeToPictureSeconds, quantiles.clone()), (Metric::UploadSeconds, quantiles)].into();
        let counts = Counts { operations: 100, requests: 80, pictures: 12, jobs_accepted: 12, ..Counts::default() };
        Report {
            eta_error_percent: None,
            form: FORM,
            plan: Plan {
                scenario: "baseline".to_owned(),
                kind: UserKind::ImageLoadTest,
                users: 10,
                rate: None,
                spread: Spread::Poisson,
                duration: second(60),
                ramp: second(1),
                drain: second(60),
                pictures: 5,
                haste: 1,
                distinct: None,
                max_jobs: None,
                seed: 1,
            },
            target: "local".to_owned(),
            api: "http://127.0.0.1:8080/".to_owned(),
            started_at: "2026-11-24T12:00:00Z".parse().unwrap(),
            wall_seconds: 61.0,
            interrupted: false,
            passed: true,
            thresholds: vec![Verdict {
                name: "upload to S3".to_owned(),
                bound: "p95 of upload_seconds < 3".to_owned(),
                measured: Some(2.25),
                applies: true,
                passed: true,
            }],
            latencies: latencies.clone(),
            counts: counts.clone(),
            errors: [("<script>".to_owned(), 1)].into(),
            scale_out_seconds: None,
            backlog_growth_percent: None,
            model_calls: 12.0,
            model_throttled: 0.0,
            generator: Generator { cpu_percent: Some(3.0), cores: 2, late_percent: None },
            buckets: vec![Bucket {
                at_seconds: 0.0,
                seconds: 60.0,
                latencies: latencies
                    .into_iter()
                    .filter(|(metric, _)| Metric::OVER_TIME.contains(metric))
                    .map(|(metric, quantiles)| (metric, quantiles.into()))
                    .collect(),
                counts,
            }],
            looks: vec![Observation { at_seconds: 59.0, visible: Some(4), ..Observation::default() }],
        }
    }

    #[test]
    fn the_page_is_whole_in_itself_and_runs_nothing_that_came_from_outside() {
        let page = html::page(&report()).unwrap();
        assert_eq!(page.matches("<svg").count(), 6);
        assert!(page.contains("passed") && page.contains("2.250"), "{page}");
        let rest = page.replace("http://www.w3.org/", "").replace("http://127.0.0.1:8080/", "");
        for outside in ["http", "src=", "href=", "<script", "@import", "url("] {
            assert!(!rest.contains(outside), "{outside}");
        }
    }

    #[test]
    fn what_is_written_can_be_read_and_rendered_again() {
        let dir = tempfile::tempdir().unwrap();
        let folder = create_folder(dir.path(), "one").unwrap();
        report().write(&folder).unwrap();
        assert_eq!(Report::read(&folder).unwrap(), report());
        let csv = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        insta::assert_snapshot!("summary_csv", csv(SUMMARY_CSV));
        insta::assert_snapshot!("timeline_csv", csv(TIMELINE_CSV));
        // Six charts: the examples are in the repository.
        assert!(csv(HTML).len() < 40_000 && csv(JSON).len() < 2_500, "{} {}", csv(HTML).len(), csv(JSON).len());
        let page = csv(HTML);
        std::fs::remove_file(folder.join(HTML)).unwrap();
        render(&RenderArgs { folder: folder.clone() }).unwrap();
        assert!(page == csv(HTML) && page.contains("Load test: baseline"));
        let error = create_folder(dir.path(), "one").unwrap_err().to_string();
        assert!(error.contains("--name"), "{error}");
    }

    #[test]
    fn what_is_no_report_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Report::read(dir.path()), Err(Failure::Usage(text)) if text.contains("report.json")));
        let file = dir.path().join(JSON);
        std::fs::write(&file, serde_json::to_string(&Report { form: 99, ..report() }).unwrap()).unwrap();
        assert!(Report::read(&file).unwrap_err().to_string().contains("form 99"));
        std::fs::write(&file, "{\"form\":1}").unwrap();
        assert!(Report::read(&file).unwrap_err().to_string().contains("plan"));
    }
}
