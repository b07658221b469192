//! `Stack`: the embedded services, the stand-ins, the API and the workers, started in order and stopped in reverse.

mod data_dir;
mod local_aws;
mod options;
pub(crate) mod output;
pub mod ports;
pub(crate) mod process;
pub mod provision;
pub(crate) mod settings;
mod stand_ins;
mod supervise;
pub(crate) mod watchdog;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, select_all};
use nix::sys::signal::Signal;
use thiserror::Error;

use crate::bedrock::BedrockStandIn;
use crate::embedded::{s3_client, sdk_config, sqs_client};
use crate::ministack::MinistackError;

pub use data_dir::{DataDir, DataDirError, Endpoints, Secrets, read_endpoints, read_secrets};
pub use local_aws::LocalAwsKind;
pub use options::StackOptions;
pub use ports::{PortArgs, PortError, Ports};
pub use process::{Change, NotReady};
pub use provision::{BATCH_QUEUE, BUCKET, DEAD_LETTER_QUEUE, LEASE_SECONDS, MAX_RECEIVE_COUNT, ProvisionError, QUEUE};
pub use settings::TENANT;
pub use watchdog::{STOP_GRACE, watch};

use local_aws::LocalAws;
use output::Output;
use ports::{chosen, loopback};
use process::{Process, Program};
use settings::ChildSettings;
use stand_ins::StandIns;
use watchdog::Watchdog;

/// How long a process may take until it is ready; they take well under a second.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// The stack did not start.
#[derive(Debug, Error)]
pub enum StackError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Port(#[from] PortError),
    #[error("{what} cannot be started: {source}")]
    Start { what: &'static str, source: io::Error },
    #[error("{path} is missing: build it with `cargo build --release --package {package}`")]
    Missing { path: PathBuf, package: &'static str },
    #[error(transparent)]
    Ministack(#[from] MinistackError),
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    #[error(transparent)]
    NotReady(#[from] NotReady),
}

/// A running stack. Dropping it kills the processes; [`Stack::stop`] lets them finish.
#[derive(Debug)]
pub struct Stack {
    endpoints: Endpoints,
    secrets: Secrets,
    child_env: Vec<(String, String)>,
    http: reqwest::Client,
    // In the order of a stop.
    portal: Option<Process>,
    api: Process,
    workers: Vec<Process>,
    watchdog: Arc<Watchdog>,
    stand_ins: StandIns,
    aws: LocalAws,
    data: DataDir,
}

impl Stack {
    /// Starts everything, each part when what it needs answers.
    ///
    /// # Errors
    /// Names what could not be started and what to do about it; what had been started is stopped.
    pub async fn start(options: StackOptions) -> Result<Self, StackError> {
        let failed = |what| move |source| StackError::Start { what, source };
        let binary = |name: &str, package| {
            let path = options.binaries_dir.join(name);
            if path.is_file() { Ok(path) } else { Err(StackError::Missing { path, package }) }
        };
        let (api_path, worker_path) = (binary("image-api", "api")?, binary("image-worker", "worker")?);
        let dev_path = binary("dev", "devstack")?;
        let portal_path = options.portal.then(|| binary("portal", "portal")).transpose()?;
        let data = DataDir::open(&options.dir)?;
        options.ports.check(options.workers)?;
        let secrets = data.secrets()?;

        let watchdog = Arc::new(Watchdog::start(&dev_path).map_err(failed("the watchdog"))?);
        let aws = LocalAws::start(&options, &data, &watchdog).await?;
        let s3_client = s3_client(&aws.s3_url());
        let queues = provision::queues(&sqs_client(&aws.sqs_url())).await?;
        provision::bucket(&s3_client).await?;
        let stand_ins = StandIns::start(&options.ports, options.bedrock.clone(), s3_client, BUCKET)
            .await
            .map_err(failed("Bedrock or the CDN"))?;

        let api_port = chosen(options.ports.api).map_err(failed("the API"))?;
        let mut endpoints = Endpoints {
            api_url: format!("http://{}", loopback(api_port)),
            cdn_url: format!("http://{}", stand_ins.cdn.local_addr()),
            sqs_url: aws.sqs_url(),
            s3_url: aws.s3_url(),
            bedrock_url: format!("http://{}", stand_ins.bedrock.local_addr()),
            queue_url: queues.queue_url,
            batch_queue_url: options.lanes.then_some(queues.batch_url),
            dead_letter_url: queues.dead_letter_url,
            bucket: BUCKET.to_owned(),
            admin_urls: Vec::new(),
            portal_url: None,
        };
        let settings = ChildSettings { endpoints: &endpoints, secrets: &secrets, options: &options };
        let launch = async |index: usize, name: String, path: &Path, admin: u16, env: Vec<(String, String)>| {
            let admin = loopback(chosen(admin)?);
            let output = Output::start(&data.path().join("logs"), &name, index, options.print).await?;
            let mut env = settings.with_common(admin, env);
            // Later entries win: what the caller asks for comes last.
            env.extend((if index == 0 { &options.api_env } else { &options.worker_env }).iter().cloned());
            let own = index.checked_sub(1).and_then(|worker| options.each_worker_env.get(worker));
            env.extend(own.into_iter().flatten().cloned());
            let (path, restart) = (path.to_owned(), options.restart);
            let args = Vec::new();
            let program = Program { name, path, args, env, env_remove: settings::FOREIGN, restart, admin };
            Ok(Process::start(program, output, Arc::clone(&watchdog)))
        };
        let api_env = settings.api(loopback(api_port));
        let api =
            launch(0, "api".to_owned(), &api_path, options.ports.admin, api_env).await.map_err(failed("the API"))?;
        let mut workers = Vec::new();
        for worker in 1..=options.workers {
            let admin = options.ports.worker_admin(worker, options.workers)?;
            let process = launch(worker, format!("worker-{worker}"), &worker_path, admin, settings.worker());
            workers.push(process.await.map_err(failed("a worker"))?);
        }

        let portal = match &portal_path {
            Some(path) => {
                let listen = loopback(chosen(options.ports.portal).map_err(failed("the portal"))?);
                let env = settings.portal(listen, &data.path().join("portal.db"));
                let logs = data.path().join("logs");
                let output = Output::start(&logs, "portal", options.workers + 1, options.print).await;
                let output = output.map_err(failed("the portal"))?;
                let (name, path) = ("portal".to_owned(), path.clone());
                let (env_remove, restart) = (settings::FOREIGN, options.restart);
                // It tells on its one port whether it is ready.
                let program =
                    Program { name, path, args: vec!["serve".to_owned()], env, env_remove, restart, admin: listen };
                Some(Process::start(program, output, Arc::clone(&watchdog)))
            }
            None => None,
        };

        let mut child_env = settings.with_common(loopback(0), settings.worker());
        child_env.extend(settings.api(loopback(0)));
        let http = reqwest::Client::builder().no_proxy().build().expect("a client without TLS has nothing to load");
        endpoints.portal_url = portal.as_ref().map(|portal| format!("http://{}", portal.admin()));
        let mut stack =
            Self { endpoints, secrets, child_env, http, portal, api, workers, watchdog, stand_ins, aws, data };
        if let Err(error) = stack.wait_ready().await {
            stack.stop().await;
            return Err(error);
        }
        stack.endpoints.admin_urls = stack.admin_urls();
        stack.data.save_endpoints(&stack.endpoints).map_err(failed("the list of endpoints"))?;
        Ok(stack)
    }

    /// Waits until the API and every worker is ready.
    ///
    /// # Errors
    /// When one is not ready in time.
    pub async fn wait_ready(&self) -> Result<(), StackError> {
        for process in self.processes() {
            process.ready(&self.http, READY_TIMEOUT).await?;
        }
        Ok(())
    }

    /// Returns when a process is not started again, with the reason.
    pub async fn failed(&self) -> String {
        let failures = self.processes().chain(self.aws.process()).map(|process| {
            let mut failure = process.failure();
            Box::pin(async move {
                match failure.wait_for(Option::is_some).await.map(|reason| reason.clone()) {
                    Ok(reason) => reason.unwrap_or_default(),
                    Err(_) => std::future::pending().await,
                }
            })
        });
        select_all(failures).await.0
    }

    /// Stops the API and the workers together, each within [`STOP_GRACE`], then the services.
    pub async fn stop(self) {
        self.data.remove_endpoints();
        let processes = self.portal.into_iter().chain(self.workers).chain([self.api]);
        join_all(processes.map(Process::stop)).await;
        self.stand_ins.stop().await;
        self.aws.stop().await;
        if let Some(watchdog) = Arc::into_inner(self.watchdog) {
            watchdog.stop().await;
        }
    }

    /// Returns where everything is reached.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    pub fn api_url(&self) -> &str {
        &self.endpoints.api_url
    }

    /// Returns the bearer key of the tenant `dev`.
    pub fn api_key(&self) -> &str {
        &self.secrets.api_key
    }

    /// Returns the portal's origin, if it was asked for.
    pub fn portal_url(&self) -> Option<&str> {
        self.endpoints.portal_url.as_deref()
    }

    /// Returns address and password of the portal's first teacher, and the code of the first class.
    pub fn portal_access(&self) -> (&'static str, &str, &str) {
        (settings::FIRST_TEACHER, &self.secrets.portal_password, &self.secrets.class_code)
    }

    pub fn cdn_url(&self) -> &str {
        &self.endpoints.cdn_url
    }

    /// Returns the Bedrock stand-in: its ledger of paid calls, its faults.
    pub fn bedrock(&self) -> &BedrockStandIn {
        &self.stand_ins.bedrock
    }

    pub fn bedrock_url(&self) -> &str {
        &self.endpoints.bedrock_url
    }

    pub fn sqs_url(&self) -> &str {
        &self.endpoints.sqs_url
    }

    pub fn s3_url(&self) -> &str {
        &self.endpoints.s3_url
    }

    pub fn queue_url(&self) -> &str {
        &self.endpoints.queue_url
    }

    /// Returns the queue of batches, if the stack has two lanes.
    pub fn batch_queue_url(&self) -> Option<&str> {
        self.endpoints.batch_queue_url.as_deref()
    }

    pub fn dead_letter_url(&self) -> &str {
        &self.endpoints.dead_letter_url
    }

    pub fn bucket(&self) -> &str {
        &self.endpoints.bucket
    }

    /// Returns the folder with one log file per process.
    pub fn logs_dir(&self) -> PathBuf {
        self.data.path().join("logs")
    }

    /// Returns a configuration with credentials and region, without an endpoint: SQS and S3 have one each.
    pub fn sdk_config(&self) -> aws_config::SdkConfig {
        sdk_config()
    }

    /// Returns a client of the stack's SQS.
    pub fn sqs_client(&self) -> aws_sdk_sqs::Client {
        sqs_client(self.sqs_url())
    }

    /// Returns a client of the stack's S3.
    pub fn s3_client(&self) -> aws_sdk_s3::Client {
        s3_client(self.s3_url())
    }

    /// Returns the base URLs of the admin ports: the API's, then the workers'.
    pub fn admin_urls(&self) -> Vec<String> {
        [&self.api].into_iter().chain(&self.workers).map(|process| format!("http://{}", process.admin())).collect()
    }

    /// Returns the API's process id, None while it is not running.
    pub fn api_pid(&self) -> Option<u32> {
        self.api.pid()
    }

    /// Returns the workers' process ids, None for one that is not running.
    pub fn worker_pids(&self) -> Vec<Option<u32>> {
        self.workers.iter().map(Process::pid).collect()
    }

    /// Sends a signal to a worker, counted from 0: SIGKILL for a crash, SIGTERM for a drain, SIGSTOP for a hang.
    ///
    /// # Errors
    /// When it is not running.
    pub fn signal_worker(&self, worker: usize, signal: Signal) -> io::Result<()> {
        self.workers[worker].signal(signal)
    }

    /// Kills a worker, waits for its successor to be ready, and returns the new process id.
    ///
    /// # Errors
    /// When it is not running, or the new one does not become ready.
    pub async fn kill_worker(&self, worker: usize) -> Result<u32, StackError> {
        let failed = |source| StackError::Start { what: "a worker", source };
        let process = &self.workers[worker];
        let old = process.pid().ok_or_else(|| failed(io::Error::other("it is not running")))?;
        process.signal(Signal::SIGKILL).map_err(failed)?;
        let new = process.restarted(old).await.map_err(failed)?;
        process.ready(&self.http, READY_TIMEOUT).await?;
        Ok(new)
    }

    /// Sends a signal to the API.
    ///
    /// # Errors
    /// When it is not running.
    pub fn signal_api(&self, signal: Signal) -> io::Result<()> {
        self.api.signal(signal)
    }

    /// Kills SQS and S3, which come back with their data after a second.
    ///
    /// # Errors
    /// When they are not running, or not in a process of their own.
    pub fn kill_emulator(&self) -> io::Result<()> {
        let process =
            self.aws.process().ok_or_else(|| io::Error::other("SQS and S3 are not a process of their own"))?;
        process.signal(Signal::SIGKILL)
    }

    /// Sets what is different about a worker, counted from 0, from its next start on.
    pub fn change_worker(&self, worker: usize, change: Change) {
        self.workers[worker].change(change);
    }

    /// Returns the folder of the objects: what S3 has in a bucket, also while it does not answer.
    pub fn objects_dir(&self) -> PathBuf {
        let dir = self.data.path();
        match self.aws.process() {
            Some(_) => local_aws::emulator_dir(dir).join("s3"),
            None => dir.join("s3"),
        }
    }

    /// Returns the variables of an API and a worker, for a program of the caller's own in their place.
    pub(crate) fn child_env(&self) -> &[(String, String)] {
        &self.child_env
    }

    /// Has a process group ended if this process is killed.
    pub(crate) async fn watch(&self, pid: u32) -> io::Result<()> {
        self.watchdog.watch(pid).await
    }

    /// Takes back [`watch`](Self::watch): the process group has ended.
    pub(crate) async fn forget(&self, pid: u32) {
        self.watchdog.forget(pid).await;
    }

    fn processes(&self) -> impl Iterator<Item = &Process> {
        [&self.api].into_iter().chain(&self.workers).chain(&self.portal)
    }
}
