//! A running stack, and the `loadtest` binary that is pointed at it.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use devstack::bedrock::BedrockOptions;
use devstack::stack::{Stack, StackOptions};
use loadtest::report::Report;
use loadtest::target::Outputs;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Far beyond what any condition takes; reaching it is the failure.
const GIVE_UP: Duration = Duration::from_secs(180);

/// A stack of the real binaries in a folder of its own.
pub(crate) struct Live {
    pub(crate) stack: Stack,
    dir: TempDir,
}

impl Live {
    pub(crate) async fn start() -> Self {
        Self::with(|_| ()).await
    }

    /// A stack with other options.
    pub(crate) async fn with(change: impl FnOnce(&mut StackOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Painted in full: a cheap picture may be that of another prompt as well, which would be a duplicate.
        let bedrock = BedrockOptions::default();
        let mut options = StackOptions { bedrock, ..StackOptions::new(dir.path().join("stack"), binaries_dir()) };
        // A third of the CPU: what the encoder does is tested elsewhere.
        options.worker_env.push(("RENDER_METHOD".into(), "4".into()));
        change(&mut options);
        let stack = Stack::start(options).await.unwrap();
        Self { stack, dir }
    }

    pub(crate) async fn stop(self) {
        self.stack.stop().await;
    }

    /// Writes a file and returns its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    pub(crate) fn stack_dir(&self) -> PathBuf {
        self.dir.path().join("stack")
    }

    pub(crate) fn reports_dir(&self) -> PathBuf {
        self.dir.path().join("reports")
    }

    /// A command against this stack. Words of `line` are separated by blanks.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = loadtest(line);
        command.arg("--dir").arg(self.stack_dir());
        command
    }

    /// A run or a search against this stack, to its end.
    pub(crate) async fn run(&self, line: &str) -> Output {
        self.command(line).arg("--reports").arg(self.reports_dir()).output().await.unwrap()
    }

    /// Jobs in the queue that nobody has received.
    pub(crate) async fn depth(&self) -> u64 {
        use aws_sdk_sqs::types::QueueAttributeName::ApproximateNumberOfMessages as Visible;
        let request = self.stack.sqs_client().get_queue_attributes().queue_url(self.stack.queue_url());
        let attributes = request.attribute_names(Visible).send().await.unwrap().attributes.unwrap();
        attributes[&Visible].parse().unwrap()
    }

    /// Waits until at least so many jobs wait.
    pub(crate) async fn until_waiting(&self, jobs: u64) {
        let give_up = Instant::now() + GIVE_UP;
        while self.depth().await < jobs {
            assert!(Instant::now() < give_up, "waited {} s for {jobs} jobs in the queue", GIVE_UP.as_secs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A run that is going on, with its output kept.
    pub(crate) fn running(&self, line: &str) -> Child {
        let mut command = self.command(line);
        command.arg("--reports").arg(self.reports_dir());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Writes what Terraform would print of a deployment, and returns the file.
    pub(crate) fn outputs(&self, outputs: &Outputs) -> String {
        self.file("outputs.json", &printed(outputs))
    }

    /// A deployment whose API and queue are this stack's.
    pub(crate) fn as_deployment(&self) -> Outputs {
        Outputs {
            batch_queue_url: None,
            cloudfront_url: self.stack.api_url().to_owned(),
            cloudfront_domain_name: "127.0.0.1".to_owned(),
            cloudfront_distribution_id: "E1".to_owned(),
            s3_bucket_name: self.stack.bucket().to_owned(),
            s3_bucket_region: "ap-south-1".to_owned(),
            queue_url: self.stack.queue_url().to_owned(),
            dead_letter_queue_url: self.stack.dead_letter_url().to_owned(),
            worker_group_name: "image-worker".to_owned(),
            api_group_name: "image-api".to_owned(),
            cloudwatch_dashboard_name: "image".to_owned(),
            sns_topic_arn: "arn:aws:sns:ap-south-1:000000000000:image-alarms".to_owned(),
            sns_topic_arn_us_east_1: "arn:aws:sns:us-east-1:000000000000:image-alarms".to_owned(),
        }
    }

    /// Returns the reports whose folders begin with `name`.
    pub(crate) fn reports(&self, name: &str) -> Vec<(PathBuf, Report)> {
        let entries = std::fs::read_dir(self.reports_dir()).unwrap().map(|entry| entry.unwrap().path());
        let folders = entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(name));
        folders.map(|folder| (folder.clone(), Report::read(&folder).unwrap())).collect()
    }
}

/// What `terraform output -json` prints.
pub(crate) fn printed(outputs: &Outputs) -> String {
    let Value::Object(fields) = serde_json::to_value(outputs).unwrap() else { panic!("a struct is an object") };
    let wrapped: Map<String, Value> =
        fields.into_iter().map(|(name, value)| (name, json!({ "type": "string", "value": value }))).collect();
    Value::Object(wrapped).to_string()
}

/// Sends a signal to a command.
pub(crate) async fn signal(command: &Child, signal: &str) {
    let pid = command.id().unwrap().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().await.unwrap().success());
}

/// The binary, without what a developer has in the environment.
pub(crate) fn loadtest(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.args(line.split_ascii_whitespace()).kill_on_drop(true);
    for name in ["DEV_DIR", "LOADTEST_API_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"] {
        command.env_remove(name);
    }
    command
}

/// What a command said, for the message of an assertion.
pub(crate) fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{}\n{out}\n{err}", output.status)
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let give_up = Instant::now() + GIVE_UP;
    while !condition() {
        assert!(Instant::now() < give_up, "waited {} s for {what}", GIVE_UP.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The binaries of the profile that this test was built with: target/PROFILE/deps/it-HASH.
fn binaries_dir() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned()
}
