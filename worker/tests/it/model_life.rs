//! The real binary and the list of models: a legacy one is worked with, one at its end is not, and a list that cannot be read
//! stops nothing.

use devstack::bedrock::{FaultPlan, Life};

use crate::support::{Site, WorkerProcess, when};

impl Site {
    fn models_are(&self, life: Life) {
        self.bedrock.set_faults(FaultPlan { life, ..FaultPlan::default() }).unwrap();
    }
}

async fn states(worker: &WorkerProcess) -> Vec<String> {
    let metrics = worker.admin("/metrics").await;
    metrics
        .lines()
        .filter(|line| line.starts_with("worker_model_life{") && line.ends_with(" 1"))
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn a_legacy_model_is_warned_of_and_worked_with() {
    for (life, said, state) in
        [(Life::Active, "the model is active", "active"), (Life::Legacy, "the model is legacy", "legacy")]
    {
        let site = Site::start().await;
        site.models_are(life);
        let mut worker = WorkerProcess::start(&site, &[]).await;
        let line = worker.logged(said).await;
        assert_eq!(line["level"], if life == Life::Legacy { "WARN" } else { "INFO" });
        worker.ready().await;
        assert_eq!(states(&worker).await, [format!(r#"worker_model_life{{state="{state}"}} 1"#)]);
        let job = site.submit("a red fox").await;
        site.succeeded(&job).await;
    }
}

#[tokio::test]
async fn a_model_at_its_end_is_refused_before_a_job_has_found_out() {
    for (life, kind) in [(Life::Ended, "model_retired"), (Life::Missing, "model_not_found")] {
        let site = Site::start().await;
        site.models_are(life);
        let worker = WorkerProcess::start(&site, &[]).await;
        worker.blocked_by("circuit").await;
        assert!(worker.reasons().await["circuit"].as_str().unwrap().starts_with(kind));
        assert_eq!(site.bedrock.ledger().totals.calls, 0);
        // It is held and not lost, and a model that answers all the same is believed.
        let job = site.submit("a red fox").await;
        site.succeeded(&job).await;
        worker.ready().await;
    }
}

#[tokio::test]
async fn a_list_that_may_not_be_read_is_said_once_and_stops_nothing() {
    let site = Site::start().await;
    site.models_are(Life::Hidden);
    for endpoint in [None, Some("http://127.0.0.1:1")] {
        let env: Vec<_> = endpoint.map(|url| ("AWS_ENDPOINT_URL_BEDROCK", url)).into_iter().collect();
        let mut worker = WorkerProcess::start(&site, &env).await;
        let line = worker.logged("cannot be read: it stays as it was").await;
        assert_eq!(line["what"], "the life of the model");
        assert!(endpoint.is_some() || line["error"].as_str().unwrap().contains("bedrock:GetFoundationModel"), "{line}");
        worker.ready().await;
        when("no state", async || states(&worker).await.is_empty().then_some(())).await;
        let job = site.submit("a red fox").await;
        site.succeeded(&job).await;
    }
}
