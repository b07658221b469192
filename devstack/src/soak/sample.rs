//! A look at each process: memory, open files, threads and tasks.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::SoakError;
use crate::bench::exposition;
use crate::bench::proc::usage;
use crate::stack::Stack;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// One process at one time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// Since the load began.
    pub minutes: f64,
    pub process: String,
    pub rss_mib: f64,
    /// Descriptors: files, sockets, timers.
    pub open_files: f64,
    /// Alive on the process's runtime.
    pub tasks: f64,
}

/// Looks at the API and each worker.
///
/// # Errors
/// When one of them has ended.
pub(super) async fn look(stack: &Stack, since: Duration) -> Result<Vec<Sample>, SoakError> {
    let minutes = since.as_secs_f64() / 60.0;
    let pids = std::iter::once(stack.api_pid()).chain(stack.worker_pids());
    let mut samples = Vec::new();
    for (index, (pid, url)) in pids.zip(stack.admin_urls()).enumerate() {
        let process = if index == 0 { "image-api".to_owned() } else { format!("image-worker {index}") };
        let ended = || SoakError::Ended { what: process.clone(), logs: stack.logs_dir().display().to_string() };
        let pid = pid.ok_or_else(ended)?;
        let (usage, open_files) = usage(pid).and_then(|usage| Ok((usage, open_files(pid)?))).map_err(|_| ended())?;
        let tasks = tasks(&url).await.map_err(|source| SoakError::Io { what: "/metrics of a process", source })?;
        #[expect(clippy::cast_precision_loss, reason = "for people to read")]
        let rss_mib = usage.rss as f64 / f64::from(1 << 20);
        samples.push(Sample { minutes, process, rss_mib, open_files, tasks });
    }
    Ok(samples)
}

fn open_files(pid: u32) -> io::Result<f64> {
    let count = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    Ok(f64::from(u32::try_from(count).unwrap_or(u32::MAX)))
}

async fn tasks(admin_url: &str) -> io::Result<f64> {
    let http = reqwest::Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build().map_err(io::Error::other)?;
    let answer = http.get(format!("{admin_url}/metrics")).send().await.and_then(reqwest::Response::error_for_status);
    let text = answer.map_err(io::Error::other)?.text().await.map_err(io::Error::other)?;
    let tasks = exposition::samples(&text, "process_tasks").map(|(_, tasks)| tasks).next();
    tasks.ok_or_else(|| io::Error::other("it has no process_tasks"))
}

/// Writes one line for each process at each time.
pub(super) fn write(samples: &[Sample], path: &Path) -> Result<(), csv::Error> {
    let mut file = csv::Writer::from_path(path)?;
    samples.iter().try_for_each(|sample| file.serialize(sample))?;
    file.flush()?;
    Ok(())
}
