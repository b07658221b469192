//! What goes wrong around a run: foreign hosts, a CDN that refuses, an API that dies, a folder that is none, Ctrl-C anywhere.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect};
use loadtest::measure::Metric;
use tokio::task::JoinSet;

use crate::live::{Live, loadtest, said, signal, until};
use crate::runs::SPEEDLESS;

/// Somebody who answers every request in the same way, and counts them.
struct Host {
    addr: SocketAddr,
    requests: Arc<AtomicU64>,
    _serving: JoinSet<()>,
}

impl Host {
    async fn answering(status: StatusCode) -> Self {
        Self::saying(move || status).await
    }

    async fn redirecting_to(url: String) -> Self {
        Self::saying(move || Redirect::temporary(&url)).await
    }

    async fn saying<R: IntoResponse + Send + 'static>(answer: impl Fn() -> R + Clone + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&requests);
        let router = Router::new().fallback(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            let answer = answer();
            async move { answer }
        });
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { addr, requests, _serving: serving }
    }

    /// Its origin under a name that Linux connects to this machine with, and that is not loopback.
    fn foreign(&self) -> String {
        format!("http://0.0.0.0:{}", self.addr.port())
    }

    fn loopback(&self) -> String {
        format!("http://127.0.0.1:{}", self.addr.port())
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// A stack whose API hands out URLs of somebody else.
async fn handing_out(variable: &str, origin: String) -> Live {
    Live::with(|options| options.api_env = vec![(variable.to_owned(), origin)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_of_a_foreign_host_is_counted_and_not_requested() {
    let host = Host::answering(StatusCode::NO_CONTENT).await;
    // It could be reached: nothing but the guard keeps requests from it.
    let curl = reqwest::Client::builder().no_proxy().build().unwrap();
    assert_eq!(curl.get(host.foreign()).send().await.unwrap().status(), 204);
    assert_eq!(host.requests(), 1);

    for (variable, picture) in [("CLOUDFRONT_DOMAIN", true), ("PUBLIC_BASE_URL", false)] {
        let live = handing_out(variable, host.foreign()).await;
        let thresholds = live.file("thresholds.toml", SPEEDLESS);
        let line = format!("run heavy --quick --duration 2s --max-jobs 4 --thresholds {thresholds}");
        let output = live.run(&line).await;
        assert_eq!(output.status.code(), Some(99), "{}", said(&output));
        let (_, report) = &live.reports("heavy")[0];
        let counts = &report.counts;
        assert_eq!(report.errors.get("foreign_host").copied(), Some(counts.jobs_accepted), "{:?}", report.errors);
        // With a picture elsewhere the job was followed to its end; with a status elsewhere it was not asked for once.
        let followed = report.latencies.contains_key(&Metric::MadeSeconds);
        assert_eq!((counts.jobs_accepted, counts.pictures, followed), (4, 0, picture), "{variable}: {counts:?}");
        // The system was there; it pointed elsewhere.
        assert_eq!(counts.unavailable, 0, "{variable}: {counts:?}");
        live.stop().await;
    }
    assert_eq!(host.requests(), 1, "a foreign host was requested");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cdn_that_refuses_is_an_error_by_its_status_and_no_outage() {
    let host = Host::answering(StatusCode::FORBIDDEN).await;
    let live = handing_out("CLOUDFRONT_DOMAIN", host.loopback()).await;
    let thresholds = live.file("thresholds.toml", SPEEDLESS);
    let output = live.run(&format!("run heavy --quick --duration 2s --max-jobs 4 --thresholds {thresholds}")).await;
    assert_eq!(output.status.code(), Some(99), "{}", said(&output));
    assert!(said(&output).contains("downloads: ") && said(&output).contains("no samples"), "{}", said(&output));
    let (_, report) = &live.reports("heavy")[0];
    assert_eq!(report.errors.get("cdn_403").copied(), Some(4), "{:?}", report.errors);
    assert_eq!((report.counts.unavailable, host.requests()), (0, 4));

    // Students would have nothing to look at: nothing is begun, and no empty report is left.
    let output = live.run("run cache --quick --name none").await;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("cdn_403"), "{}", said(&output));
    assert!(!live.reports_dir().join("none").exists());
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cdn_that_redirects_to_a_foreign_host_is_not_followed() {
    let elsewhere = Host::answering(StatusCode::OK).await;
    let cdn = Host::redirecting_to(elsewhere.foreign()).await;
    let live = handing_out("CLOUDFRONT_DOMAIN", cdn.loopback()).await;
    let thresholds = live.file("thresholds.toml", SPEEDLESS);
    let output = live.run(&format!("run heavy --quick --duration 2s --max-jobs 4 --thresholds {thresholds}")).await;
    assert_eq!(output.status.code(), Some(99), "{}", said(&output));
    let (_, report) = &live.reports("heavy")[0];
    assert_eq!(report.errors.get("cdn_307").copied(), Some(4), "{:?}", report.errors);
    assert_eq!((cdn.requests(), elsewhere.requests()), (4, 0));
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_dies_is_an_outage_in_the_report_and_the_run_ends() {
    let live = Live::with(|options| options.restart = false).await;
    let thresholds = live.file("thresholds.toml", SPEEDLESS);
    let running = live.running(&format!("run heavy --duration 6s --drain 1s --thresholds {thresholds}"));
    until("a picture", || live.stack.bedrock().ledger().totals.paid > 0).await;
    let pid = live.stack.api_pid().unwrap().to_string();
    assert!(tokio::process::Command::new("kill").args(["-KILL", &pid]).status().await.unwrap().success());
    let output = running.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(99), "{}", said(&output));
    assert!(said(&output).contains("threshold not met: heavy: available"), "{}", said(&output));
    let (_, report) = &live.reports("heavy")[0];
    assert!(report.errors.contains_key("connect") && report.counts.unavailable > 0, "{:?}", report.errors);
    // Jobs that were accepted and whose end nobody saw.
    assert!(report.counts.jobs_unfinished > 0, "{:?}", report.counts);
    assert_eq!(report.errors.get("not_finished"), Some(&report.counts.jobs_unfinished));

    // Nobody is there for the next one: said before anything is begun.
    let output = live.run("run --quick --name none").await;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("no API answers") && said(&output).contains("is it running"), "{}", said(&output));
    assert!(!live.reports_dir().join("none").exists());
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_is_said_before_the_run_or_after_its_numbers() {
    let live = Live::start().await;
    let file = live.file("not-a-folder", "");
    let output = live.command("run --quick").arg("--reports").arg(&file).output().await.unwrap();
    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    assert!(said(&output).contains("--reports") && said(&output).contains("cannot be created"), "{}", said(&output));
    assert_eq!(live.stack.bedrock().ledger().totals.paid, 0);

    // The folder goes while the run is under way: the numbers are not lost with it.
    let running = live.running("run heavy --quick --duration 2s --name gone");
    until("the folder", || live.reports_dir().join("gone").is_dir()).await;
    std::fs::remove_dir_all(live.reports_dir()).unwrap();
    let output = running.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let text = said(&output);
    assert!(
        text.contains("report.json") && text.contains("time to picture") && text.contains("jobs accepted"),
        "{text}"
    );
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_is_heard_before_the_first_user_and_between_the_steps_of_a_search() {
    // No worker: pictures that students would look at are never made, and a queue never becomes empty.
    let live = Live::with(|options| options.workers = 0).await;
    let running = live.running("run baseline --name none");
    live.until_waiting(5).await;
    signal(&running, "-INT").await;
    let output = running.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    assert!(said(&output).contains("before the first user"), "{}", said(&output));
    assert!(!live.reports_dir().join("none").exists(), "no empty report is left");

    // After the first step it waits for the queue, which nobody empties.
    let thresholds = live.file(
        "thresholds.toml",
        "[[threshold]]\nname = \"accepted\"\nmetric = \"accept_seconds\"\nstatistic = \"p50\"\nbelow = 3600.0\n",
    );
    let running = live.running(&format!("capacity --start 2 --step 1s --drain 1s --thresholds {thresholds}"));
    until("the first step", || {
        let reports = std::fs::read_dir(live.reports_dir()).into_iter().flatten().flatten();
        reports.into_iter().any(|entry| entry.path().join("report.html").is_file())
    })
    .await;
    signal(&running, "-TERM").await;
    let output = running.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    // What was found until then is told.
    let text = said(&output);
    assert!(text.contains("| jobs a s |") && text.contains("interrupted") && !text.contains("raise --max"), "{text}");
    live.stop().await;
}

#[tokio::test]
async fn a_threshold_on_a_metric_that_is_none_names_those_that_are() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mine.toml");
    std::fs::write(&file, "[[threshold]]\nname = \"mine\"\nmetric = \"p95_upload\"\nbelow = 3.0\n").unwrap();
    let output = loadtest("run --thresholds").arg(&file).output().await.unwrap();
    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    let text = said(&output);
    assert!(text.contains("mine.toml") && text.contains("p95_upload") && text.contains("upload_seconds"), "{text}");
}
