//! `Injector`: makes the faults of a schedule happen to a running stack, and heals them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use job::{JobId, TenantId};
use nix::sys::signal::Signal;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::clock;
use super::in_flight::CallsInFlight;
use super::link::{Condition, Link};
use super::s3_front::S3Front;
use super::schedule::{Event, Fault, Service, Whom};
use super::traffic::Submissions;
use crate::bedrock::{Fault as ModelFault, FaultPlan};
use crate::stack::{Change, Stack};

/// A file that is always full.
const FULL: &str = "/dev/full";

/// The links of every process: by service, and by process with the API first.
#[derive(Debug)]
pub(super) struct Links(pub(super) HashMap<(Service, usize), Link>);

impl Links {
    fn of(&self, service: Service, whom: Whom) -> impl Iterator<Item = &Link> {
        let meets = move |process: usize| match whom {
            Whom::Everybody => true,
            Whom::Worker(worker) => process == worker + 1,
        };
        self.0.iter().filter(move |((of, process), _)| *of == service && meets(*process)).map(|(_, link)| link)
    }
}

/// Calls in flight that were hit, by job.
#[derive(Debug, Clone, Default)]
pub(super) struct Hits {
    pub(super) by_signals: HashMap<JobId, u64>,
    pub(super) by_network: HashMap<JobId, u64>,
}

/// Everything that faults act upon.
#[derive(Debug)]
pub(super) struct Injector {
    pub(super) stack: Stack,
    pub(super) links: Links,
    pub(super) front: S3Front,
    pub(super) submissions: Submissions,
    pub(super) tenant: TenantId,
    in_flight: tokio::sync::Mutex<CallsInFlight>,
    hits: Mutex<Hits>,
    /// When which fault was over, since the beginning of the run.
    healed: Mutex<Vec<(Duration, String)>>,
    skipped: Mutex<Vec<String>>,
    started: Instant,
    pub(super) began_at: SystemTime,
}

impl Injector {
    pub(super) fn new(stack: Stack, links: Links, front: S3Front, submissions: Submissions, tenant: TenantId) -> Self {
        let in_flight = tokio::sync::Mutex::new(CallsInFlight::new(stack.objects_dir()));
        Self {
            stack,
            links,
            front,
            submissions,
            tenant,
            in_flight,
            hits: Mutex::default(),
            healed: Mutex::default(),
            skipped: Mutex::default(),
            started: Instant::now(),
            began_at: SystemTime::now(),
        }
    }

    /// Makes every fault happen at its time, and returns when the last is over.
    pub(super) async fn run(self: &Arc<Self>, events: &[Event], say: impl Fn(String) + Clone + Send + 'static) {
        let mut faults = JoinSet::new();
        for event in events.iter().copied() {
            tokio::time::sleep_until(self.started + event.at).await;
            let (this, say) = (Arc::clone(self), say.clone());
            faults.spawn(async move { this.happen(event, say).await });
        }
        while faults.join_next().await.is_some() {}
    }

    /// Returns how long the run has lasted.
    pub(super) fn since_start(&self) -> Duration {
        self.started.elapsed()
    }

    /// Returns what was hit, when each fault was over, and what could not be done here.
    pub(super) fn account(&self) -> (Hits, Vec<(Duration, String)>, Vec<String>) {
        (lock(&self.hits).clone(), lock(&self.healed).clone(), lock(&self.skipped).clone())
    }

    /// Ends everything that may still be wrong: after this the stack has no more faults than any other.
    pub(super) fn heal_everything(&self) {
        for link in self.links.0.values() {
            link.heal();
        }
        self.front.set(None);
        self.set_model(FaultPlan::default());
        for worker in 0..self.stack.worker_pids().len() {
            // One that is not stopped does not mind.
            self.signal_worker(worker, Signal::SIGCONT);
        }
    }

    async fn happen(&self, event: Event, say: impl Fn(String)) {
        let at = |since: Duration| format!("{:7.1} s", since.as_secs_f64());
        let began = self.begin(event.fault).await;
        say(format!("{}  {}{}", at(self.started.elapsed()), event.fault, began.said()));
        if let Began::Skipped(reason) = began {
            lock(&self.skipped).push(format!("{}: {reason}", event.fault));
            return;
        }
        tokio::time::sleep(event.lasts).await;
        let ended = self.end(event.fault).await;
        let over = self.started.elapsed();
        if !event.lasts.is_zero() {
            say(format!("{}      over: {}{}", at(over), event.fault, ended.said()));
        }
        // After a second message nothing has to recover.
        if !matches!(event.fault, Fault::Repeat { .. }) {
            lock(&self.healed).push((over, event.fault.to_string()));
        }
    }

    async fn begin(&self, fault: Fault) -> Began {
        match fault {
            Fault::KillWorker(worker) => self.kill(worker).await,
            Fault::StopWorker(worker) => Began::from(self.stack.signal_worker(worker, Signal::SIGTERM)),
            Fault::KillApi => Began::from(self.stack.signal_api(Signal::SIGKILL)),
            Fault::StopApi => Began::from(self.stack.signal_api(Signal::SIGTERM)),
            Fault::KillEmulator => Began::from(self.stack.kill_emulator()),
            Fault::Freeze(worker) => self.freeze(worker).await,
            Fault::Repeat { jobs } => self.repeat(jobs).await,
            Fault::Network { service, whom, condition } => self.set_network(service, whom, condition).await,
            Fault::Cut { service } => self.cut(service).await,
            Fault::S3Answers { odd, share } => {
                self.front.set(Some((odd, share)));
                Began::Done
            }
            Fault::Model(fault) => self.set_model(FaultPlan { outage: Some(fault), ..FaultPlan::default() }),
            Fault::Throttle { share } => {
                let rates = [(ModelFault::Throttle, share)].into();
                self.set_model(FaultPlan { rates, ..FaultPlan::default() })
            }
            Fault::Clock { worker, seconds } => match clock::library() {
                Some(library) => {
                    self.restart(worker, Change { env: clock::off_by(&library, seconds), output: None }).await
                }
                None => Began::Skipped("libfaketime is not installed (Debian's package faketime)".to_owned()),
            },
            Fault::FullDisk(worker) => {
                self.restart(worker, Change { env: Vec::new(), output: Some(FULL.into()) }).await
            }
        }
    }

    async fn end(&self, fault: Fault) -> Began {
        match fault {
            // They are back by themselves.
            Fault::KillWorker(_)
            | Fault::StopWorker(_)
            | Fault::KillApi
            | Fault::StopApi
            | Fault::KillEmulator
            | Fault::Repeat { .. }
            | Fault::Cut { .. } => {}
            Fault::Freeze(worker) => return self.signal_worker(worker, Signal::SIGCONT),
            Fault::Network { service, whom, .. } => self.links.of(service, whom).for_each(Link::heal),
            Fault::S3Answers { .. } => self.front.set(None),
            Fault::Model(_) | Fault::Throttle { .. } => return self.set_model(FaultPlan::default()),
            Fault::Clock { worker, .. } | Fault::FullDisk(worker) => {
                return self.restart(worker, Change::default()).await;
            }
        }
        Began::Done
    }

    fn signal_worker(&self, worker: usize, signal: Signal) -> Began {
        Began::from(self.stack.signal_worker(worker, signal))
    }

    fn set_model(&self, plan: FaultPlan) -> Began {
        match self.stack.bedrock().set_faults(plan) {
            Ok(()) => Began::Done,
            Err(error) => Began::Skipped(error.to_string()),
        }
    }

    /// Stops the worker where it is and notes which of its calls that hits.
    async fn freeze(&self, worker: usize) -> Began {
        let Some(pid) = self.stack.worker_pids()[worker] else { return Began::NotRunning };
        if let Err(error) = self.stack.signal_worker(worker, Signal::SIGSTOP) {
            return Began::Skipped(error.to_string());
        }
        self.note(Some(pid), |hits| &mut hits.by_signals).await
    }

    /// Kills a worker. It is stopped first, so that nothing moves while its calls are counted.
    async fn kill(&self, worker: usize) -> Began {
        let frozen = self.freeze(worker).await;
        if let Began::Hit(_) = frozen
            && let Err(error) = self.stack.signal_worker(worker, Signal::SIGKILL)
        {
            return Began::Skipped(error.to_string());
        }
        frozen
    }

    /// Kills a worker that is different when it comes back.
    async fn restart(&self, worker: usize, change: Change) -> Began {
        self.stack.change_worker(worker, change);
        self.kill(worker).await
    }

    async fn set_network(&self, service: Service, whom: Whom, condition: Condition) -> Began {
        let loses_calls = matches!(condition, Condition::Refused | Condition::Silent);
        let mut began = Began::Done;
        if service == Service::Bedrock && loses_calls {
            // Nothing moves while the calls are counted.
            self.links.of(service, whom).for_each(|link| link.set(Condition::Silent));
            began = self.note(self.pid_of(whom), |hits| &mut hits.by_network).await;
        }
        self.links.of(service, whom).for_each(|link| link.set(condition));
        began
    }

    async fn cut(&self, service: Service) -> Began {
        let mut began = Began::Done;
        if service == Service::Bedrock {
            self.links.of(service, Whom::Everybody).for_each(|link| link.set(Condition::Silent));
            began = self.note(None, |hits| &mut hits.by_network).await;
        }
        self.links.of(service, Whom::Everybody).for_each(|link| {
            link.cut();
            link.heal();
        });
        began
    }

    fn pid_of(&self, whom: Whom) -> Option<u32> {
        match whom {
            Whom::Everybody => None,
            Whom::Worker(worker) => self.stack.worker_pids()[worker],
        }
    }

    async fn note(&self, worker: Option<u32>, of: impl Fn(&mut Hits) -> &mut HashMap<JobId, u64>) -> Began {
        let (ledger, submissions) = (self.stack.bedrock().ledger(), self.submissions.all());
        match self.in_flight.lock().await.of(worker, &ledger, &submissions).await {
            Ok(jobs) => {
                let mut hits = lock(&self.hits);
                for job in &jobs {
                    *of(&mut hits).entry(*job).or_default() += 1;
                }
                Began::Hit(jobs.len())
            }
            Err(error) => Began::Skipped(format!("the calls in flight cannot be counted: {error}")),
        }
    }

    /// Sends a second message for each of the jobs that were accepted last: most of them are under way.
    async fn repeat(&self, jobs: usize) -> Began {
        let accepted = self.submissions.accepted();
        let sqs = self.stack.sqs_client();
        for submission in accepted.iter().rev().take(jobs) {
            let send = sqs.send_message().queue_url(self.stack.queue_url()).message_group_id(self.tenant.as_str());
            if let Err(error) = send.message_body(submission.second_message(&self.tenant)).send().await {
                return Began::Skipped(aws_sdk_sqs::error::DisplayErrorContext(error).to_string());
            }
        }
        Began::Done
    }
}

/// How the beginning or the end of a fault went.
enum Began {
    Done,
    /// So many calls in flight were hit.
    Hit(usize),
    NotRunning,
    Skipped(String),
}

impl Began {
    fn said(&self) -> String {
        match self {
            Self::Done => String::new(),
            Self::Hit(calls) => format!(" ({calls} calls in flight)"),
            Self::NotRunning => " (it was not running)".to_owned(),
            Self::Skipped(reason) => format!(" SKIPPED: {reason}"),
        }
    }
}

impl From<std::io::Result<()>> for Began {
    /// A signal to what is not running, because it comes back from another fault, is no signal.
    fn from(sent: std::io::Result<()>) -> Self {
        if sent.is_ok() { Self::Done } else { Self::NotRunning }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
