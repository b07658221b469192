//! `cargo dev bench peers`: the worker beside what one would first write in Python and in Node, on the same jobs.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use aws_sdk_sqs::types::QueueAttributeName;
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::participant::{Candidate, Participant};
use super::{BATCH, BenchError, CACHE_BYTES, PATIENCE, PICTURES, REQUEST_TIMEOUT, env, exposition, mib, tools};
use crate::bedrock::{BedrockOptions, Detail, Latency};
use crate::stack::ports::{chosen, loopback};
use crate::stack::{Stack, StackOptions};

/// Jobs before each measurement: connections, caches and compilers are warm afterwards.
const WARM_UP: u32 = 12;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Settings of `cargo dev bench peers`.
#[derive(Debug, Clone, Args)]
pub struct PeersArgs {
    /// Jobs that each of the three performs in each round.
    #[arg(long, default_value_t = 72, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub jobs: u32,
    /// Rounds; each begins with another one of the three.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Jobs that each works on at once.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=200))]
    pub slots: u16,
}

/// What one of them used in all rounds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    pub name: &'static str,
    /// CPU of the process a job, round by round, in milliseconds.
    pub cpu_ms: Vec<f64>,
    pub bytes_per_picture: f64,
    pub peak_rss_mib: f64,
    /// Share of the CPU outside rendering; none where nobody tells.
    pub outside_percent: Option<f64>,
}

/// The comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeersReport {
    pub jobs: u32,
    pub slots: u16,
    /// Ours first.
    pub lines: Vec<Line>,
}

/// Starts a stack without workers, and lets each candidate perform the same jobs in turn.
///
/// # Errors
/// When something does not start, or a job is not performed.
pub(super) async fn compare(
    args: &PeersArgs,
    dir: &Path,
    binaries: &Path,
    workspace: &Path,
) -> Result<PeersReport, BenchError> {
    let peers = workspace.join("loadtest/peers");
    let python = tools::python_worker(dir).await?;
    let node = tools::node_worker(dir, &peers.join("node")).await?;
    let folder = |source| BenchError::Io { what: "the folder of the run", source };
    let mut data = tempfile::Builder::new().prefix("bench-").tempdir_in(dir).map_err(folder)?;
    let options = StackOptions {
        workers: 0,
        restart: false,
        bedrock: BedrockOptions {
            latency: Latency::Fixed { ms: 0 },
            detail: Detail::Full,
            cache_bytes: CACHE_BYTES,
            ..BedrockOptions::default()
        },
        api_env: env(["JOBS_PER_MINUTE", "JOBS_BURST", "POLLS_PER_MINUTE"].map(|limit| (limit, "1000000"))),
        ..StackOptions::new(data.path(), binaries)
    };
    let stack = Stack::start(options).await.inspect_err(|_| data.disable_cleanup(true))?;
    let measured = match candidates(args, &stack, binaries, &python, &node, &peers) {
        Ok(candidates) => rounds(args, &stack, &candidates).await,
        Err(error) => Err(error),
    };
    stack.stop().await;
    // After a failure its logs are worth more than the space.
    data.disable_cleanup(measured.is_err());
    Ok(PeersReport { jobs: args.jobs, slots: args.slots, lines: measured? })
}

fn candidates(
    args: &PeersArgs,
    stack: &Stack,
    binaries: &Path,
    python: &Path,
    node: &Path,
    peers: &Path,
) -> Result<Vec<Candidate>, BenchError> {
    let admin = loopback(chosen(0).map_err(|source| BenchError::Io { what: "a free port", source })?);
    let slots = args.slots.to_string();
    let mut ours = stack.child_env().to_vec();
    // The peers' effort.
    ours.extend(env([("ADMIN_ADDR", &admin.to_string()), ("WORKER_SLOTS", &slots), ("RENDER_METHOD", "4")]));
    let mut theirs = stack.child_env().to_vec();
    let region = theirs.iter().find(|(name, _)| name == "AWS_REGION").map(|(_, region)| region.clone());
    theirs.extend(env([("PEER_SLOTS", &slots), ("AWS_DEFAULT_REGION", &region.unwrap_or_default())]));
    Ok(vec![
        Candidate {
            name: "image-worker",
            program: binaries.join("image-worker"),
            args: vec![],
            env: ours,
            ready_url: Some(format!("http://{admin}/ready")),
        },
        Candidate {
            name: "Python: boto3, Pillow",
            program: python.to_owned(),
            args: vec![peers.join("python/worker.py").into()],
            env: theirs.clone(),
            ready_url: None,
        },
        Candidate {
            name: "Node: sqs-consumer, sharp",
            program: "node".into(),
            args: vec![node.into()],
            env: theirs,
            ready_url: None,
        },
    ])
}

async fn rounds(args: &PeersArgs, stack: &Stack, candidates: &[Candidate]) -> Result<Vec<Line>, BenchError> {
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(REQUEST_TIMEOUT)
        .build()
        .expect("a client without TLS has nothing to load");
    let mut turns: Vec<Vec<Turn>> = candidates.iter().map(|_| vec![]).collect();
    for round in 0..args.rounds as usize {
        for position in 0..candidates.len() {
            let index = (round + position) % candidates.len();
            let turn = turn(args, stack, &http, &candidates[index]).await?;
            tracing::info!(round, name = candidates[index].name, cpu_ms = turn.cpu_ms, "measured");
            turns[index].push(turn);
        }
    }
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / f64::from(args.rounds);
    let line = |(candidate, turns): (&Candidate, Vec<Turn>)| Line {
        name: candidate.name,
        cpu_ms: turns.iter().map(|turn| turn.cpu_ms).collect(),
        bytes_per_picture: mean(turns.iter().map(|turn| turn.bytes_per_picture).collect()),
        peak_rss_mib: turns.iter().map(|turn| turn.peak_rss_mib).fold(0.0, f64::max),
        outside_percent: turns.iter().map(|turn| turn.outside_percent).collect::<Option<Vec<_>>>().map(mean),
    };
    Ok(candidates.iter().zip(turns).map(line).collect())
}

/// One of them in one round.
struct Turn {
    cpu_ms: f64,
    bytes_per_picture: f64,
    peak_rss_mib: f64,
    outside_percent: Option<f64>,
}

async fn turn(
    args: &PeersArgs,
    stack: &Stack,
    http: &reqwest::Client,
    candidate: &Candidate,
) -> Result<Turn, BenchError> {
    let mut participant = candidate.start(stack, http).await?;
    perform(stack, http, &mut participant, WARM_UP).await?;
    let rendered = rendered_seconds(http, candidate).await?;
    let before = participant.usage()?;
    let ids = perform(stack, http, &mut participant, args.jobs).await?;
    let after = participant.usage()?;
    let inside = match (rendered, rendered_seconds(http, candidate).await?) {
        (Some(before), Some(after)) => Some(after - before),
        _ => None,
    };
    participant.stop(stack).await?;
    let total = (after.cpu - before.cpu).as_secs_f64();
    Ok(Turn {
        cpu_ms: total * 1000.0 / f64::from(args.jobs),
        bytes_per_picture: picture_bytes(stack, &ids).await?,
        peak_rss_mib: mib(after.peak_rss),
        outside_percent: inside.map(|inside| (total - inside) / total * 100.0),
    })
}

/// Submits jobs and waits until the queue is empty. Returns their ids.
async fn perform(
    stack: &Stack,
    http: &reqwest::Client,
    participant: &mut Participant,
    jobs: u32,
) -> Result<Vec<String>, BenchError> {
    let failed = |reason: String| BenchError::Http { what: "the API", reason };
    let jobs: Vec<Value> = (0..jobs)
        .map(|job| json!({ "prompt": "a lake between wooded hills, early morning", "seed": job % PICTURES + 1 }))
        .collect();
    let mut ids = Vec::new();
    for batch in jobs.chunks(BATCH as usize) {
        let request = http.post(format!("{}/v1/batches", stack.api_url())).bearer_auth(stack.api_key());
        let answer: Value =
            async { request.json(&json!({ "jobs": batch })).send().await?.error_for_status()?.json().await }
                .await
                .map_err(|error: reqwest::Error| failed(error.to_string()))?;
        let accepted = answer["jobs"].as_array().into_iter().flatten().filter_map(|job| job["id"].as_str());
        ids.extend(accepted.map(str::to_owned));
    }
    if ids.len() != jobs.len() {
        return Err(failed(format!("of {} jobs {} were accepted", jobs.len(), ids.len())));
    }
    let sqs = stack.sqs_client();
    let mut progress = (usize::MAX, Instant::now());
    loop {
        participant.check()?;
        let left = backlog(&sqs, stack.queue_url()).await?;
        if left == 0 {
            return Ok(ids);
        }
        if left != progress.0 {
            progress = (left, Instant::now());
        } else if progress.1.elapsed() > PATIENCE {
            return Err(failed(format!("{left} jobs are not performed, and nothing happens")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Returns how many messages are in the queue, hidden ones included.
async fn backlog(sqs: &aws_sdk_sqs::Client, queue_url: &str) -> Result<usize, BenchError> {
    let failed = |reason: String| BenchError::Http { what: "the queue", reason };
    let names =
        [QueueAttributeName::ApproximateNumberOfMessages, QueueAttributeName::ApproximateNumberOfMessagesNotVisible];
    let request = sqs.get_queue_attributes().queue_url(queue_url).set_attribute_names(Some(names.to_vec()));
    let output = request.send().await.map_err(|error| failed(service::detail::causes(&error)))?;
    let count = |name| output.attributes()?.get(&name)?.parse::<usize>().ok();
    let counts: Option<usize> = names.into_iter().map(count).sum();
    counts.ok_or_else(|| failed("it does not say how many messages it has".to_owned()))
}

/// Returns the CPU seconds that our worker has rendered for; none for the others, who do not tell.
async fn rendered_seconds(http: &reqwest::Client, candidate: &Candidate) -> Result<Option<f64>, BenchError> {
    let Some(ready) = &candidate.ready_url else { return Ok(None) };
    let url = ready.replace("/ready", "/metrics");
    let text = async { http.get(url).send().await?.error_for_status()?.text().await }.await;
    let failed = |error: reqwest::Error| BenchError::Http { what: "the worker's /metrics", reason: error.to_string() };
    Ok(Some(exposition::sum(&text.map_err(failed)?, "worker_cpu_task_seconds_sum", &["task=\"render\""])))
}

/// Returns how many bytes a picture has on average. Every job must have one.
async fn picture_bytes(stack: &Stack, ids: &[String]) -> Result<f64, BenchError> {
    let s3 = stack.s3_client();
    let mut bytes = 0.0;
    for id in ids {
        let head = s3.head_object().bucket(stack.bucket()).key(format!("images/{id}.webp")).send().await;
        let failed = |reason| BenchError::Http { what: "the picture of a job", reason };
        let head = head.map_err(|error| failed(service::detail::causes(&error)))?;
        bytes += f64::from(u32::try_from(head.content_length().unwrap_or_default()).unwrap_or_default());
    }
    Ok(bytes / f64::from(u32::try_from(ids.len()).unwrap_or(u32::MAX)))
}

impl Line {
    fn mean_cpu_ms(&self) -> f64 {
        let mean = self.cpu_ms.iter().sum::<f64>() / f64::from(u32::try_from(self.cpu_ms.len()).unwrap_or(u32::MAX));
        // A table with an infinity in it tells nothing.
        mean.max(f64::MIN_POSITIVE)
    }
}

/// The table. It is Markdown as well.
impl fmt::Display for PeersReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounds = self.lines.first().map_or(0, |line| line.cpu_ms.len());
        writeln!(f, "{rounds} rounds of {} jobs, {} at once, a model that takes no time", self.jobs, self.slots)?;
        writeln!(f)?;
        let ours = self.lines.first().map_or(f64::NAN, Line::mean_cpu_ms);
        let header = [
            "",
            "jobs per CPU-s",
            "CPU-ms a job",
            "rounds",
            "times ours",
            "kB a picture",
            "peak RSS, MiB",
            "outside rendering",
        ];
        writeln!(f, "| {} |", header.join(" | "))?;
        writeln!(f, "|---|{}", "---:|".repeat(header.len() - 1))?;
        for line in &self.lines {
            let cpu = line.mean_cpu_ms();
            let rounds = line.cpu_ms.iter().map(|ms| format!("{ms:.1}")).collect::<Vec<_>>().join(", ");
            let outside = line.outside_percent.map_or_else(|| "-".to_owned(), |share| format!("{share:.1} %"));
            writeln!(
                f,
                "| {} | {:.2} | {cpu:.1} | {rounds} | {:.2} x | {:.1} | {:.0} | {outside} |",
                line.name,
                1000.0 / cpu,
                cpu / ours,
                line.bytes_per_picture / 1000.0,
                line.peak_rss_mib,
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_compares_means_of_rounds() {
        let line = |name, cpu_ms: &[f64], outside_percent| Line {
            name,
            cpu_ms: cpu_ms.to_vec(),
            bytes_per_picture: 96_500.0,
            peak_rss_mib: 200.0,
            outside_percent,
        };
        let lines = vec![line("image-worker", &[40.0, 60.0], Some(12.5)), line("Python", &[200.0, 300.0], None)];
        let table = PeersReport { jobs: 72, slots: 20, lines }.to_string();
        assert!(
            table.contains("| image-worker | 20.00 | 50.0 | 40.0, 60.0 | 1.00 x | 96.5 | 200 | 12.5 % |"),
            "{table}"
        );
        assert!(table.contains("| Python | 4.00 | 250.0 | 200.0, 300.0 | 5.00 x | 96.5 | 200 | - |"), "{table}");
    }
}
