//! A running stack, and a client that does with it what the portal does.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use devstack::bedrock::BedrockOptions;
use devstack::stack::{LocalAwsKind, Stack, StackOptions};
use job::Record;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A job that takes longer than this on two busy cores will not end at all.
const PATIENCE: Duration = Duration::from_secs(180);

/// A stack of the real binaries in a folder of its own.
pub struct Live {
    pub stack: Stack,
    http: reqwest::Client,
    /// What no log may tell.
    prompts: Mutex<Vec<String>>,
    _dir: TempDir,
}

impl Live {
    pub async fn start(aws: LocalAwsKind, bedrock: BedrockOptions, change: impl FnOnce(&mut StackOptions)) -> Self {
        let dir = TempDir::new().unwrap();
        let mut options = StackOptions { aws, bedrock, ..StackOptions::new(dir.path(), binaries_dir()) };
        options.tools_dir = workspace().join(".dev");
        // A third of the CPU: what the encoder does is tested elsewhere.
        options.worker_env.push(("RENDER_METHOD".into(), "4".into()));
        change(&mut options);
        let stack = Stack::start(options).await.unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { stack, http, prompts: Mutex::default(), _dir: dir }
    }

    /// Stops everything, and looks through what it has logged.
    pub async fn stop(self) {
        let (logs, dir) = (self.stack.logs_dir(), self._dir.path().to_owned());
        let secrets = crate::secrets::of(&dir, &self.prompts.into_inner().unwrap());
        self.stack.stop().await;
        crate::secrets::assert_not_told(&logs, &secrets);
    }

    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.stack.api_url());
        self.http.request(method, url).bearer_auth(self.stack.api_key())
    }

    /// Submits one job and returns its id.
    pub async fn submit(&self, body: Value) -> String {
        self.prompts.lock().unwrap().extend(body["prompt"].as_str().map(str::to_owned));
        let answer = self.request(reqwest::Method::POST, "/v1/jobs").json(&body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        let body: Value = answer.json().await.unwrap();
        body["id"].as_str().unwrap().to_owned()
    }

    pub async fn submit_prompt(&self, prompt: &str) -> String {
        self.submit(json!({ "prompt": prompt })).await
    }

    /// Submits up to a hundred jobs at once and returns their ids.
    pub async fn submit_batch(&self, prompts: &[String]) -> Vec<String> {
        self.prompts.lock().unwrap().extend(prompts.iter().cloned());
        let jobs: Vec<_> = prompts.iter().map(|prompt| json!({ "prompt": prompt })).collect();
        let request = self.request(reqwest::Method::POST, "/v1/batches").json(&json!({ "jobs": jobs }));
        let body: Value = request.send().await.unwrap().json().await.unwrap();
        let items = body["jobs"].as_array().unwrap_or_else(|| panic!("no jobs in {body}"));
        items.iter().map(|item| item["id"].as_str().unwrap_or_else(|| panic!("refused: {item}")).to_owned()).collect()
    }

    /// Reads the job, waiting up to `wait` seconds for its end.
    pub async fn view(&self, id: &str, wait: u8) -> Value {
        let request = self.request(reqwest::Method::GET, &format!("/v1/jobs/{id}"));
        let answer = request.header("Prefer", format!("wait={wait}")).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        answer.json().await.unwrap()
    }

    /// Polls until `condition` holds.
    pub async fn view_when(&self, id: &str, condition: impl Fn(&Value) -> bool) -> Value {
        self.poll(id, 0, condition).await
    }

    async fn poll(&self, id: &str, wait: u8, condition: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let view = self.view(id, wait).await;
            if condition(&view) {
                return view;
            }
            assert!(started.elapsed() < PATIENCE, "waited {PATIENCE:?}; last seen {view}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Polls until the job has ended, which must be like this.
    pub async fn ended(&self, id: &str, status: &str) -> Value {
        let pending = ["queued", "generating", "processing"];
        let view = self.poll(id, 5, |view| !pending.contains(&view["status"].as_str().unwrap())).await;
        assert_eq!(view["status"], status, "{view}");
        view
    }

    /// Fetches through the CDN; returns status, `X-Cache` and body.
    pub async fn fetch(&self, url: &str) -> (StatusCode, String, Vec<u8>) {
        let answer = self.http.get(url).send().await.unwrap();
        let cache = answer.headers()["x-cache"].to_str().unwrap().to_owned();
        (answer.status(), cache, answer.bytes().await.unwrap().to_vec())
    }

    pub async fn record(&self, id: &str) -> Record {
        let object = self.stack.s3_client().get_object().bucket(self.stack.bucket());
        let object = object.key(format!("records/{id}.json")).send().await.unwrap();
        serde_json::from_slice(&object.body.collect().await.unwrap().into_bytes()).unwrap()
    }

    /// Returns (visible, in flight) of a queue.
    pub async fn depth(&self, queue_url: &str) -> (usize, usize) {
        use aws_sdk_sqs::types::QueueAttributeName::{
            ApproximateNumberOfMessages as Visible, ApproximateNumberOfMessagesNotVisible as InFlight,
        };
        let request = self.stack.sqs_client().get_queue_attributes().queue_url(queue_url);
        let answer = request.attribute_names(Visible).attribute_names(InFlight).send().await.unwrap();
        let attributes = answer.attributes.unwrap();
        (attributes[&Visible].parse().unwrap(), attributes[&InFlight].parse().unwrap())
    }

    /// Waits until both queues are as empty as they should be, counting messages in flight too.
    pub async fn queues_become(&self, jobs: usize, dead: usize) {
        let started = Instant::now();
        loop {
            let depths = (self.depth(self.stack.queue_url()).await, self.depth(self.stack.dead_letter_url()).await);
            if depths == ((jobs, 0), (dead, 0)) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "waited {PATIENCE:?}; last seen {depths:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Returns how often this prompt was paid for.
    pub fn paid(&self, prompt: &str) -> u64 {
        let ledger = self.stack.bedrock().ledger();
        ledger.by_prompt.get(prompt).map_or(0, |entry| entry.paid + entry.paid_unanswered)
    }

    /// Returns the status of `/ready` and its body.
    pub async fn ready(&self, process: usize) -> (StatusCode, String) {
        let answer = self.http.get(format!("{}/ready", self.stack.admin_urls()[process])).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }
}

pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The binaries of the profile that this test was built with: target/PROFILE/deps/it-HASH.
pub fn binaries_dir() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned()
}
