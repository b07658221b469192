//! What is done to the running containers, and what must come of it.

use std::time::Duration;

use serde_json::Value;

use super::client::Client;
use super::compose::{Project, text};
use super::engine::Engine;
use super::{ContainersError, hardening, step, wrong};

/// For twenty jobs a worker with one core needs some ten seconds; two busy cores are shared with everything else.
const JOBS_TIMEOUT: Duration = Duration::from_secs(120);
/// The lease of a killed worker's jobs, 20 s here, and the work itself.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(180);
/// As the workers have it: more than these cannot be lost with one of them.
const SLOTS: u64 = 16;

/// Runs it all. Whatever comes of it, the caller takes the containers away.
pub(super) async fn run(project: &Project, engine: &Engine) -> Result<(), ContainersError> {
    let client = Client::new(project.api, project.bedrock, project.cdn);
    step("up, and everything is healthy", project.up(1)).await?;
    step("as little as possible is allowed", hardening::check(project, engine)).await?;

    let mut jobs: u64 = 20;
    let first = step("20 jobs, and their pictures from the CDN", async {
        let ids = client.submit(prompts("a lighthouse", 20, "300ms")).await?;
        let views = client.succeeded(&ids, JOBS_TIMEOUT).await?;
        client.fetch(&views).await?;
        Ok(views)
    })
    .await?;
    exactly(jobs, client.paid().await?)?;

    step("--scale worker=3", project.up(3)).await?;
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
