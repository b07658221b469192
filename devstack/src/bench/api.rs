//! `cargo dev bench api`: what accepting a job costs, beside `FastAPI` with boto3 on the same SQS.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use super::api_load::{Latencies, apart, client, median, sent_directly, together};
use super::api_report::{ApiReport, Load, Side, mean};
use super::participant::{Candidate, Participant};
use super::proc::usage;
use super::{BenchError, env, exposition, flame, tools};
use crate::stack::ports::{chosen, loopback};
use crate::stack::{Stack, StackOptions};
use crate::tls_edge::TlsEdge;

/// Requests before each measurement.
const WARM_UP: u32 = 300;
/// Where the SDK finds SQS.
const SQS_ENDPOINT: &str = "AWS_ENDPOINT_URL_SQS";
/// How long the process is sampled for a flame graph.
const SAMPLED: Duration = Duration::from_secs(5);
/// Settings of `cargo dev bench api`.
#[derive(Debug, Clone, Args)]
pub struct ApiArgs {
    /// Jobs that each accepts in each round from clients that never rest.
    #[arg(long, default_value_t = 6000, value_name = "N", value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub requests: u32,
    /// Clients that never rest.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub clients: u32,
    /// Jobs a second at the fixed rate, whatever the answers take.
    #[arg(long, default_value_t = 150, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rate: u32,
    /// Seconds at the fixed rate, in each round.
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// Rounds; each begins with the next one of those under test.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Another build of image-api to measure in turn with this one, such as that of an earlier commit.
    #[arg(long, value_name = "FILE")]
    pub beside: Option<PathBuf>,
    /// Measure image-api once more in turn, reaching SQS over TLS as on AWS. The flame graph is of that one.
    #[arg(long, conflicts_with = "beside")]
    pub tls: bool,
    /// Draw where image-api spends its CPU, as an SVG: one more load, under `perf`.
    #[arg(long, value_name = "FILE")]
    pub flame: Option<PathBuf>,
}

/// Starts a stack without workers and the baseline beside it, and gives both the same requests in turn.
///
/// # Errors
/// When something does not start, or a request is not answered with 202.
pub(super) async fn compare(
    args: &ApiArgs,
    dir: &Path,
    binaries: &Path,
    workspace: &Path,
) -> Result<ApiReport, BenchError> {
    // Before anything takes its time.
    if let Some(program) = args.beside.as_ref().filter(|program| !program.is_file()) {
        let source = std::io::Error::new(std::io::ErrorKind::NotFound, format!("{} is no file", program.display()));
        return Err(BenchError::Io { what: "--beside", source });
    }
    if let Some(svg) = &args.flame {
        flame::check(svg).await?;
    }
    let python = tools::fastapi(dir).await?;
    let folder = |source| BenchError::Io { what: "the folder of the run", source };
    let mut data = tempfile::Builder::new().prefix("bench-").tempdir_in(dir).map_err(folder)?;
    let options =
        StackOptions { workers: 0, restart: false, api_env: unlimited(), ..StackOptions::new(data.path(), binaries) };
    let stack = Stack::start(options).await.inspect_err(|_| data.disable_cleanup(true))?;
    let app = workspace.join("loadtest/peers/fastapi/app.py");
    let measured = rounds(args, &stack, &binaries.join("image-api"), &python, &app).await;
    stack.stop().await;
    // After a failure its logs are worth more than the space.
    data.disable_cleanup(measured.is_err());
    measured
}

/// Limits by tenant that no load here reaches.
fn unlimited() -> Vec<(String, String)> {
    env(["JOBS_PER_MINUTE", "JOBS_BURST", "POLLS_PER_MINUTE"].map(|limit| (limit, "1000000")))
}

/// One under test.
struct Subject {
    pid: u32,
    url: String,
    /// Where it tells how many jobs share a call.
    metrics_url: Option<String>,
}

async fn rounds(
    args: &ApiArgs,
    stack: &Stack,
    image_api: &Path,
    python: &Path,
    app: &Path,
) -> Result<ApiReport, BenchError> {
    let http = client();
    let port = chosen(0).map_err(|source| BenchError::Io { what: "a free port", source })?;
    let base = format!("http://{}", loopback(port));
    let mut variables = stack.child_env().to_vec();
    let region = variables.iter().find(|(name, _)| name == "AWS_REGION").map(|(_, region)| region.clone());
    variables.extend(env([("PEER_PORT", &port.to_string()), ("AWS_DEFAULT_REGION", &region.unwrap_or_default())]));
    let candidate = Candidate {
        name: "FastAPI: boto3",
        program: python.to_owned(),
        args: vec![app.into()],
        env: variables,
        ready_url: Some(format!("{base}/openapi.json")),
    };
    let mut participants = vec![candidate.start(stack, &http).await?];
    let gone = || BenchError::NoWorker(stack.logs_dir().display().to_string());
    let mut subjects = vec![
        Subject {
            pid: stack.api_pid().ok_or_else(gone)?,
            url: format!("{}/v1/jobs", stack.api_url()),
            metrics_url: stack.admin_urls().first().map(|url| format!("{url}/metrics")),
        },
        Subject { pid: participants[0].pid(), url: format!("{base}/v1/jobs"), metrics_url: None },
    ];
    let edge = if args.tls { Some(over_tls(stack).await?) } else { None };
    let other = match (&args.beside, &edge) {
        (Some(program), _) => Some(("the other build", program.as_path(), vec![])),
        (None, Some((_edge, variables))) => Some(("SQS over TLS", image_api, variables.clone())),
        (None, None) => None,
    };
    if let Some((_, program, variables)) = &other {
        let (participant, subject) = another(program, variables, stack, &http).await?;
        participants.push(participant);
        subjects.push(subject);
    }
    let mut turns: Vec<[Vec<Turn>; 2]> = subjects.iter().map(|_| Default::default()).collect();
    let mut direct: Vec<Latencies> = Vec::new();
    for round in 0..args.rounds as usize {
        for position in 0..subjects.len() {
            let index = (round + position) % subjects.len();
            let subject = &subjects[index];
            together(stack, &subject.url, WARM_UP, args.clients).await?;
            turns[index][0].push(
                measured(subject, args.requests, together(stack, &subject.url, args.requests, args.clients)).await?,
            );
            turns[index][1].push(measured(subject, args.rate * args.seconds, apart(stack, &subject.url, args)).await?);
        }
        direct.push(sent_directly(stack, args).await?);
    }
    if let Some(svg) = &args.flame {
        let subject = &subjects[if args.tls { 2 } else { 0 }];
        let load = together(stack, &subject.url, u32::MAX, args.clients);
        let tls = if args.tls { ", SQS over TLS" } else { "" };
        let title = format!("image-api{tls}, {} clients that never rest", args.clients);
        let sampling = flame::sample(subject.pid, SAMPLED, &title, svg);
        tokio::select! {
            sampled = sampling => sampled?,
            ended = load => drop(ended?),
        }
    }
    for participant in participants {
        participant.stop(stack).await?;
    }
    let mut sides = turns.into_iter().map(|[together, apart]| (Side::of(together), Side::of(apart)));
    let mut next = || sides.next().ok_or_else(gone);
    let ((our_together, our_apart), (their_together, their_apart)) = (next()?, next()?);
    let (beside_together, beside_apart) = sides.next().unzip();
    Ok(ApiReport {
        rounds: args.rounds,
        beside: other.map(|(name, ..)| name),
        together: Load {
            name: format!("{} clients that never rest", args.clients),
            ours: our_together,
            baseline: their_together,
            beside: beside_together,
            direct_p50_ms: None,
            direct_p99_ms: None,
        },
        apart: Load {
            name: format!("{} jobs a second", args.rate),
            ours: our_apart,
            baseline: their_apart,
            beside: beside_apart,
            direct_p50_ms: Some(median(direct.iter().map(|direct| direct.at(0.5)).collect())),
            direct_p99_ms: Some(median(direct.iter().map(|direct| direct.at(0.99)).collect())),
        },
    })
}

/// Starts an end of TLS in front of SQS. Returns with it what a process needs to go through it.
async fn over_tls(stack: &Stack) -> Result<(TlsEdge, Vec<(String, String)>), BenchError> {
    let io = |source| BenchError::Io { what: "the end of TLS in front of SQS", source };
    let endpoint = stack.child_env().iter().find(|(name, _)| name == SQS_ENDPOINT);
    let (_, endpoint) = endpoint.ok_or_else(|| io(std::io::Error::other("the stack names no SQS")))?;
    let edge = TlsEdge::start("localhost", endpoint).await.map_err(io)?;
    let certificate = stack.logs_dir().join("sqs.pem");
    tokio::fs::write(&certificate, edge.certificate()).await.map_err(io)?;
    let url = format!("https://localhost:{}", edge.addr().port());
    let variables = env([(SQS_ENDPOINT, url.as_str()), ("SSL_CERT_FILE", &certificate.to_string_lossy())]);
    Ok((edge, variables))
}

/// Starts one more image-api on the same queue.
async fn another(
    program: &Path,
    changed: &[(String, String)],
    stack: &Stack,
    http: &reqwest::Client,
) -> Result<(Participant, Subject), BenchError> {
    let port = || chosen(0).map(loopback).map_err(|source| BenchError::Io { what: "a free port", source });
    let (listen, admin) = (port()?, port()?);
    let mut variables = stack.child_env().to_vec();
    variables.extend(unlimited());
    variables.extend(env([("LISTEN_ADDR", &listen.to_string()), ("ADMIN_ADDR", &admin.to_string())]));
    variables.extend(changed.iter().cloned());
    let candidate = Candidate {
        name: "the other image-api",
        program: program.to_owned(),
        args: vec![],
        env: variables,
        ready_url: Some(format!("http://{admin}/ready")),
    };
    let participant = candidate.start(stack, http).await?;
    let subject = Subject {
        pid: participant.pid(),
        url: format!("http://{listen}/v1/jobs"),
        metrics_url: Some(format!("http://{admin}/metrics")),
    };
    Ok((participant, subject))
}

/// One round of one of them.
struct Turn {
    cpu_us: f64,
    latencies: Latencies,
    seconds: f64,
    jobs_per_call: Option<f64>,
}

async fn measured(
    subject: &Subject,
    jobs: u32,
    load: impl Future<Output = Result<Latencies, BenchError>>,
) -> Result<Turn, BenchError> {
    let look = || usage(subject.pid).map_err(|source| BenchError::Io { what: "the process under test", source });
    let (calls, cpu, began) = (calls(subject).await?, look()?.cpu, Instant::now());
    let latencies = load.await?;
    let (seconds, cpu, after) = (began.elapsed().as_secs_f64(), look()?.cpu - cpu, self::calls(subject).await?);
    let jobs_per_call = match (calls, after) {
        // Nothing was counted: a build that does not tell.
        (Some((_, calls)), Some((_, calls_after))) if calls_after <= calls => None,
        (Some((jobs, calls)), Some((jobs_after, calls_after))) => Some((jobs_after - jobs) / (calls_after - calls)),
        _ => None,
    };
    Ok(Turn { cpu_us: cpu.as_secs_f64() * 1e6 / f64::from(jobs), latencies, seconds, jobs_per_call })
}

/// Returns jobs sent and calls made so far; none for the baseline, which does not tell.
async fn calls(subject: &Subject) -> Result<Option<(f64, f64)>, BenchError> {
    let Some(url) = &subject.metrics_url else { return Ok(None) };
    let text = async { client().get(url).send().await?.error_for_status()?.text().await }.await;
    let text = text
        .map_err(|error: reqwest::Error| BenchError::Http { what: "the API's /metrics", reason: error.to_string() })?;
    let sum = |name| exposition::sum(&text, name, &[]);
    Ok(Some((sum("api_send_entries_sum"), sum("api_send_entries_count"))))
}

impl Side {
    fn of(turns: Vec<Turn>) -> Self {
        let rate = |turn: &Turn| f64::from(turn.latencies.len()) / turn.seconds;
        Self {
            cpu_us: turns.iter().map(|turn| turn.cpu_us).collect(),
            p50_ms: median(turns.iter().map(|turn| turn.latencies.at(0.5)).collect()),
            p99_ms: median(turns.iter().map(|turn| turn.latencies.at(0.99)).collect()),
            jobs_per_second: mean(&turns.iter().map(rate).collect::<Vec<_>>()),
            jobs_per_call: turns
                .iter()
                .map(|turn| turn.jobs_per_call)
                .collect::<Option<Vec<_>>>()
                .map(|all| mean(&all)),
        }
    }
}
