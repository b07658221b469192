//! `loadtest compare` on the reports of real runs.

use serde_json::Value;

use crate::live::{Live, loadtest, said};
use crate::runs::SPEEDLESS;

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_of_one_scenario_are_compared_and_of_two_refused() {
    let live = Live::start().await;
    let thresholds = live.file("thresholds.toml", SPEEDLESS);
    for (name, line) in [("one", "heavy"), ("two", "heavy --users 4"), ("other", "spike")] {
        let output =
            live.run(&format!("run {line} --quick --duration 3s --name {name} --thresholds {thresholds}")).await;
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }
    let folder = |name: &str| live.reports_dir().join(name).display().to_string();
    let reports: Vec<_> = ["one", "two"].map(|name| live.reports(name).remove(0).1).into();

    let output = loadtest(&format!("compare {} {} --json", folder("one"), folder("two"))).output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
    let row = |what: &str| rows.as_array().unwrap().iter().find(|row| row["what"] == what).unwrap().clone();
    let errors = row("errors, %");
    assert_eq!((errors["before"].as_f64(), errors["after"].as_f64()), (Some(0.0), Some(0.0)));
    let pictures = row("pictures a second");
    for (report, side) in reports.iter().zip(["before", "after"]) {
        let expected = report.counts.pictures as f64 / report.wall_seconds;
        assert!((pictures[side].as_f64().unwrap() - expected).abs() < 1e-9, "{side}: {pictures}");
    }
    let (before, after) = (pictures["before"].as_f64().unwrap(), pictures["after"].as_f64().unwrap());
    let change = pictures["change_percent"].as_f64().unwrap();
    assert!((change - 100.0 * (after / before - 1.0)).abs() < 1e-6, "{pictures}");

    // A file works as well as a folder, and what differs beside the system is told.
    let files = format!("compare {}/report.json {}/report.json", folder("one"), folder("two"));
    let output = loadtest(&files).output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("users 6 before, 4 after"), "{}", said(&output));
    let output = loadtest(&format!("compare {} {}", folder("one"), folder("one"))).output().await.unwrap();
    assert!(!said(&output).contains("Not only the system"), "{}", said(&output));

    // Different loads.
    let output = loadtest(&format!("compare {} {}", folder("one"), folder("other"))).output().await.unwrap();
    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    let text = said(&output);
    assert!(text.contains("a run of heavy") && text.contains("is one of spike") && text.contains("/other"), "{text}");
    // What is missing is named, whichever it is.
    for line in [format!("compare {} nowhere", folder("one")), format!("compare nowhere {}", folder("one"))] {
        let output = loadtest(&line).output().await.unwrap();
        assert_eq!(output.status.code(), Some(64), "{}", said(&output));
        assert!(said(&output).contains("nowhere is no report"), "{}", said(&output));
    }
    live.stop().await;
}
