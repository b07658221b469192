//! What is done to the running containers, and what must come of it.

use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::client::Client;
use super::compose::{Project, text};
use super::dashboard::{Dashboard, SCRAPE_SECONDS};
use super::engine::Engine;
use super::grafana::Grafana;
use super::job_trace::{Began, Viewer};
use super::prometheus::Prometheus;
use super::{ContainersError, hardening, step, wrong};

/// Pictures that are cheap to paint and a lease that ends soon: a killed worker's jobs come back after that.
pub(super) const SETTINGS: [(&str, &str); 3] =
    [("MODEL_DETAIL", "cheap"), ("MODEL_LATENCY", "300ms"), ("LEASE_SECONDS", "20")];

/// For twenty jobs a worker with one core needs some ten seconds; two busy cores are shared with everything else.
const JOBS_TIMEOUT: Duration = Duration::from_secs(120);
/// The lease of a killed worker's jobs, 20 s here, and the work itself.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(180);
/// As the workers have it: more than these cannot be lost with one of them.
const SLOTS: u64 = 16;

/// Runs it all. Whatever comes of it, the caller takes the containers away.
pub(super) async fn run(project: &Project, engine: &Engine, workspace: &Path) -> Result<(), ContainersError> {
    let prometheus = Prometheus::new(project.prometheus);
    let viewer = Viewer::new(project.jaeger);
    let client = Client::new(project.api, project.bedrock, project.cdn);
    step("up, and everything is healthy", project.up(1)).await?;
    step("as little as possible is allowed", hardening::check(project, engine)).await?;

    let mut jobs: u64 = 20;
    let began = Began::new();
    step("the viewer of traces answers", viewer.answers()).await?;
    let first = step("20 jobs, and their pictures from the CDN", async {
        let mut ids = client.submit(prompts("a lighthouse", 19, "300ms")).await?;
        ids.push(client.submit_traced("a traced lighthouse", &began.traceparent()).await?);
        let views = client.succeeded(&ids, JOBS_TIMEOUT).await?;
        client.fetch(&views).await?;
        Ok(views)
    })
    .await?;
    exactly(jobs, client.paid().await?)?;
    step("one trace shows the way of a job through both services", viewer.shows_the_way_of(&began)).await?;

    step("--scale worker=3", project.up(3)).await?;
    step("Prometheus scrapes the API and each of the three workers", async {
        for service in ["api", "worker"] {
            prometheus.scrapes(service, &project.admin_addresses(service).await?).await?;
        }
        Ok(())
    })
    .await?;
    let since = SystemTime::now();
    let taken_over = step("one of three workers is killed, the emulator restarts", async {
        let ids = client.submit(prompts("a storm", 40, "4s")).await?;
        // 40 jobs for 48 slots: when 33 are begun, no worker can be without one.
        client.begun(&ids, 33, JOBS_TIMEOUT).await?;
        let victim = project.containers(Some("worker")).await?.pop().ok_or_else(|| wrong("worker", "none runs"))?;
        engine.docker().run(&["kill", "-s", "KILL", &victim]).await?;
        project.restart("emulator").await?;
        let views = client.succeeded(&ids, RECOVERY_TIMEOUT).await?;
        client.fetch(&views).await?;
        Ok(views.iter().filter(|view| view.attempts > 1).count())
    })
    .await?;
    jobs += 40;
    println!("    {taken_over} jobs needed another attempt");
    if taken_over == 0 {
        return Err(wrong("the kill", "no job was taken over, so nothing has been shown: were they done before it?"));
    }
    at_most(jobs, SLOTS, client.paid().await?)?;
    jobs += 12;
    step("every query of the dashboard finds something of that", async {
        // A histogram is there from its first value on, so its rate needs a second one: the workers that took the 40 at
        // once, between two scrapes, have waits in the queue now, and get more.
        let ids = client.submit(prompts("a village", 12, "300ms")).await?;
        client.succeeded(&ids, JOBS_TIMEOUT).await?;
        shown(project, &prometheus, workspace, since).await
    })
    .await?;
    step("pictures from before the restart, from the bucket", async {
        client.empty_the_cache().await?;
        client.fetch(&first).await
    })
    .await?;

    step("a worker that is told to stop drains and ends with 0", async {
        let ids = client.submit(prompts("a harbour", 8, "2s")).await?;
        client.begun(&ids, 4, JOBS_TIMEOUT).await?;
        // Every one, so that it does not matter which has the jobs; what they give back waits for the next.
        for worker in project.containers(Some("worker")).await? {
            engine.docker().run(&["stop", &worker]).await?;
            let state = engine.inspect("container", &worker).await?;
            if state.pointer("/State/ExitCode").and_then(Value::as_i64) != Some(0) {
                return Err(wrong("docker stop", text(&state, "/State")));
            }
        }
        project.up(1).await?;
        client.fetch(&client.succeeded(&ids, JOBS_TIMEOUT).await?).await
    })
    .await?;
    jobs += 8;
    at_most(jobs, SLOTS, client.paid().await?)
}

/// Checks that each panel has had something to draw since a moment at which three workers ran.
async fn shown(
    project: &Project,
    prometheus: &Prometheus,
    workspace: &Path,
    since: SystemTime,
) -> Result<(), ContainersError> {
    let dashboard = Dashboard::read(workspace)?;
    let mut queries = dashboard.queries(SCRAPE_SECONDS)?;
    queries.retain(|query| !query.is_of_webhooks());
    let found = prometheus.finds(&queries, since).await?;
    println!("    {} queries of {} panels have data", found.len(), dashboard.panels());
    // Data that is zero throughout would be that of idle workers.
    for busy in ["Deliveries by outcome (A)", "Deliveries in flight (A)", "Published (A)", "Model calls (A)"] {
        let max = found.get(busy).copied();
        if max.is_none_or(|max| max <= 0.0) {
            return Err(wrong(format!("the panel {busy}"), format!("its largest value is {max:?}")));
        }
    }
    let workers = found.get("Workers that answer (A)").copied();
    if workers != Some(3.0) {
        return Err(wrong("the panel of the workers", format!("it showed {workers:?} of 3 at most")));
    }
    match project.grafana {
        Some(grafana) => Grafana::new(grafana).shows(dashboard.panels()).await,
        None => Ok(()),
    }
}

/// Different prompts: a job is its prompt, and so is a picture.
fn prompts(what: &str, count: usize, latency: &str) -> Vec<String> {
    (1..=count).map(|number| format!("{what}, number {number} [[latency:{latency}]]")).collect()
}

fn exactly(jobs: u64, paid: u64) -> Result<(), ContainersError> {
    if paid == jobs { Ok(()) } else { Err(wrong("what was paid for", format!("{paid} pictures for {jobs} jobs"))) }
}

/// A call that a kill cuts off may be paid for again, and nothing else.
fn at_most(jobs: u64, lost: u64, paid: u64) -> Result<(), ContainersError> {
    if (jobs..=jobs + lost).contains(&paid) {
        return Ok(());
    }
    Err(wrong("what was paid for", format!("{paid} pictures for {jobs} jobs, {lost} of them cut off at most")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_is_held_to_the_jobs() {
        assert!(exactly(20, 20).is_ok() && exactly(20, 21).is_err() && exactly(20, 19).is_err());
        assert!(at_most(60, 16, 60).is_ok() && at_most(60, 16, 76).is_ok());
        assert!(at_most(60, 16, 77).is_err() && at_most(60, 16, 59).is_err());
    }
}
