//! Scaling out, seen through the observer of a real run: real jobs that wait, and an Auto Scaling group that grows.

use devstack::moto::Moto;
use loadtest::report::Report;
use loadtest::threshold::Verdict;

use crate::live::{Live, loadtest, said, workspace};
use crate::monitoring::Site;

/// The default, and one that no run can be slow enough for.
const THRESHOLDS: &str = r#"
[[threshold]]
name = "scale-out"
metric = "scale_out_seconds"
below = 300.0
target = "deployed"

[[threshold]]
name = "accepted"
metric = "accept_seconds"
statistic = "p50"
below = 3600.0
"#;

fn scale_out(report: &Report) -> &Verdict {
    report.thresholds.iter().find(|verdict| verdict.name == "scale-out").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_added_while_jobs_wait_is_timed_and_only_on_a_deployment() {
    // The emulator of Auto Scaling puts instances into service when the desired size is set; nothing sets it by itself.
    let moto = Moto::start(&workspace().join(".dev"), 0).await.unwrap();
    let site = Site::new(moto.url(), moto.url());
    site.group("image-worker", 1).await;
    // Nobody takes the jobs, so they wait.
    let live = Live::with(|options| options.workers = 0).await;
    let outputs = live.outputs(&live.as_deployment());
    let thresholds = live.file("thresholds.toml", THRESHOLDS);

    for (name, grows) in [("grown", true), ("still", false)] {
        let mut command =
            loadtest(&format!("run heavy --duration 12s --drain 1s --name {name} --thresholds {thresholds}"));
        command.args(["--outputs", &outputs, "--key", live.stack.api_key()]).arg("--reports").arg(live.reports_dir());
        command
            .env("AWS_ENDPOINT_URL", moto.url())
            .env("AWS_ENDPOINT_URL_SQS", live.stack.sqs_url())
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_EC2_METADATA_DISABLED", "true");
        let before = live.depth().await;
        let running =
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
        live.until_waiting(before + 5).await;
        if grows {
            // After the first look at a queue with jobs in it, and before the run is over.
            tokio::time::sleep(std::time::Duration::from_secs(6)).await;
            let request = site.groups.set_desired_capacity().auto_scaling_group_name("image-worker");
            request.desired_capacity(3).send().await.unwrap();
        }
        let output = running.wait_with_output().await.unwrap();
        let (_, report) = &live.reports(name)[0];
        let verdict = scale_out(report);
        assert!(verdict.applies, "{verdict:?}");
        assert_eq!(report.target, "deployed");
        let workers: Vec<u64> = report.looks.iter().filter_map(|look| look.workers_in_service).collect();
        assert!(report.looks.last().unwrap().visible > Some(before), "{:?}", report.looks);
        if grows {
            let seconds = report.scale_out_seconds.unwrap();
            assert!((1.0..13.0).contains(&seconds), "{seconds}: {:?}", report.looks);
            assert_eq!((verdict.measured, verdict.passed), (Some(seconds), true));
            assert_eq!((workers.first(), workers.last()), (Some(&1), Some(&3)), "{workers:?}");
            assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        } else {
            // Jobs waited and nobody came: that is no sample, and fails.
            assert_eq!((verdict.measured, verdict.passed), (None, false));
            assert!(workers.iter().all(|workers| *workers == 3), "{workers:?}");
            assert_eq!(output.status.code(), Some(99), "{}", said(&output));
            assert!(said(&output).contains("threshold not met: heavy: scale-out"), "{}", said(&output));
        }
    }

    // The same thresholds against the same stack as what it is: a laptop adds no workers, and is not asked to.
    let output =
        live.run(&format!("run heavy --quick --duration 2s --drain 1s --name here --thresholds {thresholds}")).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let verdict = scale_out(&live.reports("here")[0].1).clone();
    assert_eq!((verdict.applies, verdict.passed), (false, true));
    live.stop().await;
    moto.stop().await.unwrap();
}
