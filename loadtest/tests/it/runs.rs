//! Runs against a real stack: every scenario for seconds, breaches, faults, interruptions, and how far a rate can go.

use loadtest::measure::Metric;
use loadtest::scenario::{RUNNABLE, Scenario};
use serde_json::Value;

use crate::live::{Live, said, until};

/// What must hold on a machine of any speed. Latencies have a bound that only says that they were measured.
pub(crate) const SPEEDLESS: &str = r#"
[[threshold]]
name = "uploads"
metric = "upload_seconds"
statistic = "p95"
below = 3600.0
except = ["cache"]

[[threshold]]
name = "downloads"
metric = "cdn_download_seconds"
statistic = "p95"
below = 3600.0

[[threshold]]
name = "hits"
metric = "cache_hit_percent"
above = 0.0
except = ["heavy", "capacity"]

[[threshold]]
name = "errors"
metric = "error_percent"
at_most = 0.0

[[threshold]]
name = "available"
metric = "availability_percent"
above = 99.9

[[threshold]]
name = "duplicates"
metric = "duplicates"
at_most = 0
except = ["cache"]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_scenario_runs_for_seconds_and_is_reported() {
    let live = Live::start().await;
    let thresholds = live.file("thresholds.toml", SPEEDLESS);
    let output = live.run(&format!("run all spike soak --quick --thresholds {thresholds}")).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));

    let mut accepted = 0;
    for name in RUNNABLE.into_iter().filter(|name| *name != "all") {
        let [(folder, report)] = &live.reports(name)[..] else { panic!("not one report of {name}") };
        for file in ["report.html", "report.json", "summary.csv", "timeline.csv"] {
            assert!(folder.join(file).metadata().unwrap().len() > 100, "{name}: {file}");
        }
        let samples = |metric| report.latencies.get(&metric).map_or(0, |quantiles| quantiles.samples);
        assert!(samples(Metric::CdnDownloadSeconds) > 0, "{name}");
        let counts = &report.counts;
        if Scenario::named(name).unwrap().pictures < 20 {
            // Every picture that was made tells all of its latencies.
            assert!(counts.pictures > 0, "{name}: {counts:?}");
            for metric in [
                Metric::AcceptSeconds,
                Metric::QueueWaitSeconds,
                Metric::UploadSeconds,
                Metric::MadeSeconds,
                Metric::TimeToPictureSeconds,
            ] {
                assert_eq!(samples(metric), counts.jobs_accepted, "{name}: {}", metric.as_str());
            }
        }
        assert_eq!(counts.pictures, counts.jobs_accepted, "{name}");
        accepted += counts.jobs_accepted + if name == "heavy" { 0 } else { 3 };
        let last = report.looks.last().unwrap();
        assert_eq!((last.workers_in_service, last.visible, last.in_flight), (Some(2), Some(0), Some(0)), "{name}");
        assert!(report.generator.cpu_percent.is_some(), "{name}");
        assert!(last.cpu_percent.contains_key("worker-2") && last.cpu_percent.contains_key("loadtest"), "{last:?}");
    }
    // What the reports say of the jobs is what the model was paid for; three pictures are made before each scenario that
    // looks at some.
    assert_eq!(live.stack.bedrock().ledger().totals.paid, accepted);
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breach_and_a_threshold_without_samples_exit_99_and_are_named() {
    let live = Live::start().await;
    let thresholds = live.file(
        "thresholds.toml",
        "[[threshold]]\nname = \"impossible\"\nmetric = \"cdn_download_seconds\"\nstatistic = \"p50\"\nbelow = 0.0\n\
         [[threshold]]\nname = \"unmeasured\"\nmetric = \"upload_seconds\"\nstatistic = \"p95\"\nbelow = 3.0\n\
         [[threshold]]\nname = \"kept\"\nmetric = \"error_percent\"\nbelow = 100.0\n",
    );
    let output = live.run(&format!("run cache --quick --duration 2s --thresholds {thresholds}")).await;
    assert_eq!(output.status.code(), Some(99), "{}", said(&output));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("threshold not met: cache: impossible"), "{errors}");
    assert!(errors.contains("threshold not met: cache: unmeasured") && errors.contains("no samples"), "{errors}");
    assert!(!errors.contains("kept"), "{errors}");
    assert!(!live.reports("cache")[0].1.passed);
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_end_badly_are_errors_by_their_code() {
    let live = Live::start().await;
    let thresholds = live.file("thresholds.toml", SPEEDLESS);
    let prompts = live.file("prompts.txt", "a fox in the snow [[fault:refuse_prompt]]\n");
    let line = format!("run heavy --quick --duration 2s --thresholds {thresholds} --prompts {prompts}");
    let output = live.run(&line).await;
    assert_eq!(output.status.code(), Some(99), "{}", said(&output));
    let (_, report) = &live.reports("heavy")[0];
    assert_eq!(report.counts.pictures, 0);
    assert_eq!(
        report.errors.get("content_filtered").copied(),
        Some(report.counts.jobs_accepted),
        "{:?}",
        report.errors
    );
    // A refusal is no outage.
    assert_eq!(report.counts.unavailable, 0);
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_open_model_follows_its_schedule_and_says_how_late_it_was() {
    let live = Live::start().await;
    let thresholds = live.file("thresholds.toml", SPEEDLESS);
    let line = format!("run heavy --rate 5 --spread constant --duration 4s --thresholds {thresholds} --max-jobs 15");
    let output = live.run(&line).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let (_, report) = &live.reports("heavy")[0];
    // Due every 0.2 s before 4 s, and one job each until there are enough.
    assert_eq!(report.counts.arrivals + report.counts.missed_starts, 19, "{:?}", report.counts);
    assert_eq!(report.counts.jobs_accepted, 15.min(report.counts.arrivals));
    assert_eq!(report.latencies[&Metric::StartDelaySeconds].samples, report.counts.arrivals);
    assert!(report.generator.late_percent.is_some());
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_is_reported_all_the_same() {
    let live = Live::start().await;
    for (signal, name) in [("-INT", "first"), ("-TERM", "second")] {
        let before = live.stack.bedrock().ledger().totals.paid;
        let running = live.running(&format!("run heavy --duration 1h --name {name}"));
        until("a picture", || live.stack.bedrock().ledger().totals.paid > before).await;
        crate::live::signal(&running, signal).await;
        let output = running.wait_with_output().await.unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", said(&output));
        let (folder, report) = &live.reports(name)[0];
        assert!(report.interrupted && report.counts.jobs_accepted > 0, "{:?}", report.counts);
        assert!(folder.join("report.html").is_file());
        // What the run dropped is no error of the system.
        assert!(!report.errors.contains_key("not_finished"), "{:?}", report.errors);
    }
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capacity_is_searched_and_its_limit_named() {
    let live = Live::start().await;
    let thresholds = live.file("thresholds.toml", SPEEDLESS);
    let search = "capacity --start 2 --max 3 --step 2s --json --thresholds";
    let output = live.run(&format!("{search} {thresholds}")).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((found["capacity"].as_f64(), &found["limit"]), (Some(3.0), &Value::Null));
    assert_eq!(found["steps"].as_array().unwrap().len(), 2);
    assert!(found["steps"][0]["generator_percent"].as_f64().is_some(), "{found}");

    let output = live.run(&format!("{search} {thresholds} --max-jobs 5")).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((found["capacity"].as_f64(), found["steps"].as_array().unwrap().len()), (Some(2.0), 1), "{found}");
    assert!(found["ended_early"].as_str().unwrap().contains("--max-jobs 5"), "{found}");

    let impossible = live.file(
        "impossible.toml",
        "[[threshold]]\nname = \"impossible\"\nmetric = \"time_to_picture_seconds\"\nstatistic = \"p50\"\nbelow = 0.0\n",
    );
    let output = live.run(&format!("{search} {impossible}")).await;
    assert_eq!(output.status.code(), Some(99), "{}", said(&output));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["capacity"], Value::Null);
    assert!(found["limit"]["resource"].is_string(), "{found}");
    assert!(found["steps"][0]["broken"][0].as_str().unwrap().starts_with("impossible"), "{found}");
    live.stop().await;
}
