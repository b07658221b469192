//! The binaries, with the environment of the launch templates, on what Terraform made.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::redirect::Policy;
use reqwest::{Client, header};
use serde_json::{Value, json};
use thiserror::Error;

use super::instance::Instance;
use super::load::Load;
use super::user_data::{UserDataError, environment};
use crate::bedrock::{BedrockOptions, BedrockStandIn};
use crate::stack::NotReady;
use crate::stack::output::Output;
use crate::stack::ports::{chosen, loopback};
use crate::stack::process::{Process, Program};
use crate::stack::settings::FOREIGN;
use crate::stack::watchdog::Watchdog;

const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// A job that takes longer on two busy cores will not end at all.
const JOB_TIMEOUT: Duration = Duration::from_secs(120);
/// The worker polls the metadata every 5 s, and then drains nothing.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);

/// The pipeline does not work on what Terraform made.
#[derive(Debug, Error)]
pub enum PipelineError {
    #[error(transparent)]
    UserData(#[from] UserDataError),
    #[error("{what} cannot be started: {source}")]
    Start { what: &'static str, source: std::io::Error },
    #[error(transparent)]
    NotReady(#[from] NotReady),
    #[error("{what}: {reason}")]
    Wrong { what: &'static str, reason: String },
}

/// What was seen.
#[derive(Debug)]
pub(super) struct Seen {
    /// Where the record says the picture is.
    pub(super) url: String,
    pub(super) bytes: usize,
    /// What came of a load through the distribution.
    pub(super) load: String,
    /// What the load generator's monitor saw.
    pub(super) monitor: String,
    /// How the worker ended when the group took its instance.
    pub(super) drained: String,
}

/// Where everything is.
pub(super) struct Site<'a> {
    /// `terraform show -json`.
    pub(super) state: &'a Value,
    /// Endpoint of the emulator.
    pub(super) endpoint: &'a str,
    pub(super) binaries: &'a Path,
    pub(super) logs: PathBuf,
    /// Where it was applied.
    pub(super) folder: &'a Path,
}

pub(super) fn wrong<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> PipelineError {
    move |reason| PipelineError::Wrong { what, reason: reason.to_string() }
}

fn start_failed(what: &'static str) -> impl FnOnce(std::io::Error) -> PipelineError {
    move |source| PipelineError::Start { what, source }
}

/// Starts both binaries, lets them make one picture, fetches it through the distribution, sends some load the same way, and takes
/// the instance away.
///
/// Only endpoints and listeners differ from the launch template: see [`endpoints`].
pub(super) async fn prove(site: &Site<'_>) -> Result<Seen, PipelineError> {
    let instance = Instance::start().await.map_err(start_failed("the metadata service"))?;
    let bedrock = BedrockStandIn::start(loopback(0), BedrockOptions::default())
        .await
        .map_err(start_failed("the Bedrock stand-in"))?;
    let watchdog = Arc::new(Watchdog::start(&site.binaries.join("dev")).map_err(start_failed("the watchdog"))?);
    let http = Client::builder().no_proxy().redirect(Policy::none()).build();
    let http = http.expect("a client without TLS has nothing to load");

    let listen = loopback(chosen(0).map_err(start_failed("the API"))?);
    let keys = secrets(site, &http).await?;
    let key = keys[0].1.split_once(':').map(|(_tenant, key)| key.to_owned());
    let key = key.ok_or("API_KEYS is not tenant:key").map_err(wrong("secret"))?;
    let mut processes = Vec::new();
    for (index, service) in ["api", "worker"].into_iter().enumerate() {
        let mut env = environment(site.state, service)?;
        let admin = loopback(chosen(0).map_err(start_failed("a port"))?);
        env.extend(endpoints(site.endpoint, bedrock.local_addr(), &instance, admin));
        if service == "api" {
            env.push(("LISTEN_ADDR".into(), listen.to_string()));
            env.extend(keys.iter().cloned());
        }
        let name = service.to_owned();
        let output = Output::start(&site.logs, &name, index, false).await.map_err(start_failed("a log"))?;
        let path = site.binaries.join(format!("image-{service}"));
        let program = Program { name, path, args: Vec::new(), env, env_remove: FOREIGN, restart: false, admin };
        processes.push(Process::start(program, output, Arc::clone(&watchdog)));
    }
    let seen = async {
        for process in &processes {
            process.ready(&http, READY_TIMEOUT).await?;
        }
        let url = picture(&http, listen, &key).await?;
        let bytes = fetch(&http, site.endpoint, &url).await?;
        let generator = Load::new(site);
        let load = generator.run(&http, listen, &key).await?;
        let monitor = generator.monitor(true).await?;
        instance.terminate();
        let drained = ended(&processes[1]).await?;
        Ok(Seen { url, bytes, load, monitor, drained })
    }
    .await;
    for process in processes {
        process.stop().await;
    }
    if let Some(watchdog) = Arc::into_inner(watchdog) {
        watchdog.stop().await;
    }
    bedrock.stop().await;
    seen
}

/// Returns what a laptop changes: where AWS is, and which ports are free.
fn endpoints(aws: &str, bedrock: SocketAddr, instance: &Instance, admin: SocketAddr) -> Vec<(String, String)> {
    let pairs = [
        ("AWS_ENDPOINT_URL", aws.to_owned()),
        ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", format!("http://{bedrock}")),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", instance.url()),
        ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".to_owned()),
        ("ADMIN_ADDR", admin.to_string()),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

/// Fetches what the instance's `image-secrets` would: the API's two secrets, as variables, `API_KEYS` first.
async fn secrets(site: &Site<'_>, http: &Client) -> Result<Vec<(String, String)>, PipelineError> {
    let outputs = &site.state["values"]["outputs"];
    let mut variables = Vec::new();
    for (variable, output) in [("API_KEYS", "api_keys_secret_arn"), ("JOB_ID_KEYS", "job_id_keys_secret_arn")] {
        let id = &outputs[output]["value"];
        // The emulator looks at the name of the service alone, so no SDK is needed for two requests.
        let answer: Value = http
            .post(site.endpoint)
            .header("X-Amz-Target", "secretsmanager.GetSecretValue")
            .header(header::CONTENT_TYPE, "application/x-amz-json-1.1")
            .header(header::AUTHORIZATION, "AWS4-HMAC-SHA256 Credential=test/20260101/ap-south-1/secretsmanager/aws4_request, SignedHeaders=host, Signature=0")
            .body(json!({ "SecretId": id }).to_string())
            .send()
            .await
            .map_err(wrong("secret"))?
            .json()
            .await
            .map_err(wrong("secret"))?;
        let value = answer["SecretString"].as_str().ok_or(&answer).map_err(wrong("secret"))?;
        variables.push((variable.to_owned(), value.to_owned()));
    }
    Ok(variables)
}

async fn picture(http: &Client, api: SocketAddr, key: &str) -> Result<String, PipelineError> {
    let what = "job";
    let jobs = format!("http://{api}/v1/jobs");
    let request = http.post(&jobs).bearer_auth(key).json(&json!({ "prompt": "a lighthouse in a storm" }));
    let accepted: Value = request.send().await.map_err(wrong(what))?.json().await.map_err(wrong(what))?;
    let id = accepted["id"].as_str().ok_or(&accepted).map_err(wrong(what))?;
    let started = Instant::now();
    loop {
        let request = http.get(format!("{jobs}/{id}")).bearer_auth(key).header("Prefer", "wait=5");
        let view: Value = request.send().await.map_err(wrong(what))?.json().await.map_err(wrong(what))?;
        match view["status"].as_str() {
            Some("succeeded") => {
                return view["image"]["url"].as_str().map(str::to_owned).ok_or(&view).map_err(wrong(what));
            }
            Some("queued" | "generating" | "processing") if started.elapsed() < JOB_TIMEOUT => {}
            _ => return Err(wrong(what)(&view)),
        }
    }
}

/// Fetches a picture as the distribution's host would be asked, and checks what it is.
async fn fetch(http: &Client, endpoint: &str, url: &str) -> Result<usize, PipelineError> {
    let what = "picture through the distribution";
    let (host, path) = url
        .strip_prefix("https://")
        .and_then(|rest| rest.split_once('/'))
        .ok_or_else(|| format!("{url} is not https"))
        .map_err(wrong(what))?;
    let request = http.get(format!("{endpoint}/{path}")).header(header::HOST, host);
    let answer = request.header("X-Forwarded-Proto", "https").send().await.map_err(wrong(what))?;
    let answer = answer.error_for_status().map_err(wrong(what))?;
    let body = answer.bytes().await.map_err(wrong(what))?;
    let image = image::load_from_memory_with_format(&body, image::ImageFormat::WebP).map_err(wrong(what))?;
    if (image.width(), image.height()) != (1024, 1024) {
        return Err(wrong(what)(format!("{} x {}", image.width(), image.height())));
    }
    for (asked, with, by) in [(path, "http", "a picture without TLS"), (&record_of(path), "https", "a record")] {
        let request = http.get(format!("{endpoint}/{asked}")).header(header::HOST, host);
        let answer = request.header("X-Forwarded-Proto", with).send().await.map_err(wrong(what))?;
        if answer.status().is_success() {
            return Err(wrong(what)(format!("{by} is served")));
        }
    }
    Ok(body.len())
}

/// Returns where the record of a picture lies: `images/ID.webp` is `records/ID.json`.
fn record_of(image: &str) -> String {
    image.replace("images/", "records/").replace(".webp", ".json")
}

/// Waits until the worker has ended by itself.
async fn ended(worker: &Process) -> Result<String, PipelineError> {
    let mut failure = worker.failure();
    let ended = tokio::time::timeout(DRAIN_TIMEOUT, failure.wait_for(Option::is_some)).await;
    let how = ended.map_err(wrong("drain"))?.map_err(wrong("drain"))?.clone().unwrap_or_default();
    if how.contains("exit status: 0") { Ok(how) } else { Err(wrong("drain")(how)) }
}
