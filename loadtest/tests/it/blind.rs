//! What cannot be said or seen: a closed output, a ledger or a worker that does not answer, a queue that nobody empties.

use std::process::Stdio;

use devstack::bedrock::Latency;
use loadtest::watch::{AlarmLook, Look};
use serde_json::Value;

use crate::live::{Live, loadtest, said, until};
use crate::runs::SPEEDLESS;

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stops_reading_loses_no_report() {
    let live = Live::start().await;
    let thresholds = live.file("thresholds.toml", SPEEDLESS);
    let line = format!("run heavy --quick --duration 2s --name unread --thresholds {thresholds}");
    let mut command = live.command(&line);
    command.arg("--reports").arg(live.reports_dir()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap();
    // As `| head` does it.
    drop(running.stdout.take());
    drop(running.stderr.take());
    assert_eq!(running.wait().await.unwrap().code(), Some(0));
    let (folder, report) = &live.reports("unread")[0];
    assert!(report.passed && folder.join("report.html").is_file());

    let compare = format!("compare {0} {0}", folder.display());
    let commands = [live.command("monitor --once --json"), live.command("monitor --once"), loadtest(&compare)];
    for mut command in commands {
        let mut running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(running.stdout.take());
        let output = running.wait_with_output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_cannot_be_read_is_no_run_without_duplicates() {
    let live = Live::start().await;
    let thresholds = live.file("thresholds.toml", SPEEDLESS);
    let line = format!("run heavy --quick --duration 2s --thresholds {thresholds} --name");
    let output = live.run(&format!("{line} read")).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));

    // Nobody listens where this run is told that the ledger is.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = live.stack_dir().join("endpoints.json");
    let mut endpoints: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    endpoints["bedrock_url"] = format!("http://127.0.0.1:{port}").into();
    std::fs::write(&file, endpoints.to_string()).unwrap();
    let output = live.run(&format!("{line} unread")).await;
    assert_eq!(output.status.code(), Some(99), "{}", said(&output));
    let text = said(&output);
    assert!(text.contains("ledger cannot be read") && text.contains("heavy: duplicates"), "{text}");
    assert_eq!(text.matches("threshold not met").count(), 1, "{text}");
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_silent_is_a_gap_and_its_circuit_is_not_closed() {
    let live = Live::with(|options| options.restart = false).await;
    let look = async || {
        let output = live.command("monitor --once --json").output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        serde_json::from_slice::<Look>(&output.stdout).unwrap()
    };
    let alarm = |look: &Look, name: &str| -> String {
        let found: Vec<&AlarmLook> = look.alarms.iter().filter(|alarm| alarm.name == name).collect();
        assert_eq!(found.len(), 1, "{:?}", look.alarms);
        found[0].state.clone()
    };
    let kill = async |worker: usize| {
        let pid = live.stack.worker_pids()[worker].unwrap().to_string();
        assert!(tokio::process::Command::new("kill").args(["-KILL", &pid]).status().await.unwrap().success());
        until("the worker to be gone", || live.stack.worker_pids()[worker].is_none()).await;
    };
    kill(1).await;
    let one = look().await;
    assert!(one.gaps.len() == 1 && one.gaps[0].starts_with("worker 2: "), "{:?}", one.gaps);
    assert_eq!((one.group.desired, one.group.in_service), (Some(2), Some(1)));
    assert_eq!((alarm(&one, "circuit-open").as_str(), alarm(&one, "workers-not-ready").as_str()), ("OK", "ALARM"));
    kill(0).await;
    let none = look().await;
    assert_eq!(none.gaps.len(), 2, "{:?}", none.gaps);
    assert_eq!(alarm(&none, "circuit-open"), "INSUFFICIENT_DATA");
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_nobody_empties_ends_the_search_and_not_its_table() {
    let live = Live::with(|options| options.workers = 0).await;
    let thresholds = live.file(
        "thresholds.toml",
        "[[threshold]]\nname = \"accepted\"\nmetric = \"accept_seconds\"\nstatistic = \"p50\"\nbelow = 3600.0\n",
    );
    let search = format!("capacity --start 5 --step 8s --drain 1s --settle 1s --thresholds {thresholds}");
    let output = live.run(&search).await;
    assert_eq!(output.status.code(), Some(99), "{}", said(&output));
    let text = said(&output);
    // Nothing else was asked of the step.
    let told = "1 s after the last step the queue was not empty (waiting ";
    assert!(text.contains("capacity: below the first step") && text.contains(told), "{text}");
    assert!(!text.contains("(waiting 0"), "{text}");

    // The threshold of the repository for it: nothing ends, so all that came stays.
    let output = live.run("capacity --start 5 --step 12s --drain 1s --settle 1s --json").await;
    assert_eq!(output.status.code(), Some(99), "{}", said(&output));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let piling_up = found["steps"][0]["backlog_growth_percent"].as_f64().unwrap();
    assert!((40.0..=160.0).contains(&piling_up), "{found}");
    let broken = found["steps"][0]["broken"].as_array().unwrap();
    assert!(broken.iter().any(|told| told.as_str().unwrap().starts_with("jobs piling up")), "{found}");
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scenario_that_cannot_begin_does_not_hide_what_an_earlier_one_broke() {
    let live = Live::with(|options| {
        options.restart = false;
        options.bedrock.latency = Latency::Fixed { ms: 3000 };
    })
    .await;
    let thresholds = live.file(
        "thresholds.toml",
        "[[threshold]]\nname = \"impossible\"\nmetric = \"accept_seconds\"\nstatistic = \"p50\"\nbelow = 0.0\n",
    );
    let running = live.running(&format!("run heavy baseline --quick --duration 1s --thresholds {thresholds}"));
    let is_written = || {
        let folders = std::fs::read_dir(live.reports_dir()).into_iter().flatten().flatten();
        folders.into_iter().any(|folder| folder.path().join("report.html").is_file())
    };
    until("the first report", is_written).await;
    // The model takes three seconds for a picture: the next scenario is still making those that are to be looked at.
    let pid = live.stack.api_pid().unwrap().to_string();
    assert!(tokio::process::Command::new("kill").args(["-KILL", &pid]).status().await.unwrap().success());
    let output = running.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let text = said(&output);
    assert!(text.contains("threshold not met: heavy: impossible") && text.contains("to be looked at"), "{text}");
    live.stop().await;
}
