//! `Circuit`: opens when the environment is at fault, so that a bad deploy or a retired model costs time and not jobs.

mod faults;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use job::JobId;
use service::readiness::Readiness;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::error::{Class, JobError};
use crate::metrics;

use faults::Faults;

/// Name of the circuit among the reasons of `/ready`.
const COMPONENT: &str = "circuit";
/// Pause before the first probe; doubles up to the maximum.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// As the first pause, for the model that another stands in for: longer, so that the first probe of the process, whose circuit
/// the same fault may have opened, is made with the other.
const FIRST_MODEL_PAUSE: Duration = Duration::from_secs(15);
/// So many probes by held jobs may fail before a new job is to be the probe: the fault may be that of the held ones.
const HELD_PROBES: u32 = 2;
/// So long held jobs leave the probe to a new one, if there is any: a long poll and some seconds.
const NEW_PROBE_PATIENCE: Duration = Duration::from_secs(25);

/// Closed: work flows. Open: everything waits, and one delivery at a time probes whether the fault has ended.
#[derive(Debug, Clone)]
pub struct Circuit {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The outage-like faults since the last success.
    faults_in_a_row: Mutex<Faults>,
    changed: Notify,
    subject: Subject,
}

/// What is out of order while it is open.
#[derive(Debug)]
enum Subject {
    /// The process: it takes no work.
    Process(Readiness),
    /// Its first model: another one is asked.
    FirstModel,
}

#[derive(Debug)]
enum State {
    Closed,
    Open {
        probe_at: Instant,
        pause: Duration,
        probing: bool,
        /// How many probes by held jobs have failed since one was a new job's, or could have been.
        held_probes: u32,
    },
}

impl State {
    /// Returns whether the next probe is to be a new job's.
    fn wants_a_new_job(&self) -> bool {
        matches!(self, Self::Open { held_probes, .. } if *held_probes >= HELD_PROBES)
    }
}

/// Who asks for permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Candidate {
    New,
    /// It has been held for a fault of the environment that may be its own.
    Held,
}

/// Permission to try. To be reported; dropped unreported, it decides nothing.
#[derive(Debug)]
pub struct Pass {
    circuit: Circuit,
    candidate: Candidate,
    is_probe: bool,
}

impl Circuit {
    /// Makes the circuit of a process, which is not ready while it is open.
    pub fn new(readiness: Readiness) -> Self {
        metrics::circuit_open(false);
        Self::of(Subject::Process(readiness))
    }

    /// Makes the circuit of a model that another one stands in for.
    pub fn of_first_model() -> Self {
        metrics::fallback_asked(false);
        Self::of(Subject::FirstModel)
    }

    fn of(subject: Subject) -> Self {
        let shared = Shared {
            state: Mutex::new(State::Closed),
            faults_in_a_row: Mutex::default(),
            changed: Notify::new(),
            subject,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Lets work be tried, if it may be now: while closed, and one at a time while open.
    pub fn try_admit(&self) -> Option<Pass> {
        self.admit_or_wake_at(Candidate::New).ok()
    }

    /// Returns the permission, or when to look again: none while somebody probes.
    fn admit_or_wake_at(&self, candidate: Candidate) -> Result<Pass, Option<Instant>> {
        let mut state = self.state();
        let leaves_it = candidate == Candidate::Held && state.wants_a_new_job();
        match &mut *state {
            State::Closed => Ok(Pass { circuit: self.clone(), candidate, is_probe: false }),
            State::Open { probing: true, .. } => Err(None),
            State::Open { probe_at, probing, .. } => {
                let at = if leaves_it { *probe_at + NEW_PROBE_PATIENCE } else { *probe_at };
                if at > Instant::now() {
                    return Err(Some(at));
                }
                *probing = true;
                Ok(Pass { circuit: self.clone(), candidate, is_probe: true })
            }
        }
    }

    /// Waits until work may be tried: at once while closed, one at a time while open. Safe to drop while it waits.
    pub async fn admit(&self) -> Pass {
        self.admit_candidate(Candidate::New).await
    }

    /// As [`admit`](Self::admit), for a job that was held: after some probes of such jobs have failed, a new one goes first.
    pub async fn admit_again(&self) -> Pass {
        self.admit_candidate(Candidate::Held).await
    }

    async fn admit_candidate(&self, candidate: Candidate) -> Pass {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let wake_at = match self.admit_or_wake_at(candidate) {
                Ok(pass) => return pass,
                Err(wake_at) => wake_at,
            };
            match wake_at {
                Some(at) => tokio::select! {
                    biased;
                    () = &mut changed => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => changed.await,
            }
        }
    }

    /// Resolves when the circuit is closed.
    pub async fn closed(&self) {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if !self.is_open() {
                return;
            }
            changed.await;
        }
    }

    pub fn is_open(&self) -> bool {
        !matches!(*self.state(), State::Closed)
    }

    /// Opens it from outside a pass: work that cannot be given up has met a fault of the environment.
    pub fn trip(&self, error: &JobError) {
        self.open(error, None);
    }

    /// Closes what [`trip`](Self::trip) opened: that work has gone through.
    pub fn recovered(&self) {
        self.close();
    }

    /// Resolves when the circuit is open and a probe is due, which a new delivery may then be.
    pub async fn probe_due(&self) {
        self.probe_due_if(|_| true).await;
    }

    /// Resolves when the circuit is open, and the probe that is due is to be a new delivery's because held ones have failed,
    /// and returns which one it is. Once for each: not for the one that was `seen`.
    pub async fn new_probe_due(&self, seen: Option<Instant>) -> Instant {
        self.probe_due_if(|state| {
            let is_seen = matches!(state, State::Open { probe_at, .. } if Some(*probe_at) == seen);
            state.wants_a_new_job() && !is_seen
        })
        .await
    }

    async fn probe_due_if(&self, wanted: impl Fn(&State) -> bool) -> Instant {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let due = match &*self.state() {
                state @ State::Open { probe_at, probing: false, .. } if wanted(state) => Some(*probe_at),
                State::Open { .. } | State::Closed => None,
            };
            let Some(probe_at) = due else {
                changed.await;
                continue;
            };
            if probe_at <= Instant::now() {
                return probe_at;
            }
            tokio::select! {
                biased;
                () = &mut changed => {}
                () = tokio::time::sleep_until(probe_at) => {}
            }
        }
    }

    fn open(&self, error: &JobError, probe: Option<Candidate>) {
        let now = Instant::now();
        {
            let mut state = self.state();
            let (pause, held_probes) = match (&*state, probe) {
                (State::Closed, _) => (self.shared.subject.first_pause(), 0),
                // Calls that were under way when it opened say nothing new.
                (State::Open { .. }, None) => return,
                (State::Open { pause, .. }, Some(Candidate::New)) => ((*pause * 2).min(MAX_PAUSE), 0),
                // Nobody new has come: that place in the row is passed over.
                (State::Open { pause, held_probes: HELD_PROBES.., .. }, Some(Candidate::Held)) => {
                    ((*pause * 2).min(MAX_PAUSE), 0)
                }
                (State::Open { pause, held_probes, .. }, Some(Candidate::Held)) => {
                    ((*pause * 2).min(MAX_PAUSE), held_probes + 1)
                }
            };
            *state = State::Open { probe_at: now + pause, pause, probing: false, held_probes };
        }
        self.shared.subject.opened(error);
        self.shared.changed.notify_waiters();
    }

    fn close(&self) {
        let was_open = std::mem::replace(&mut *self.state(), State::Closed);
        if matches!(was_open, State::Open { .. }) {
            self.shared.subject.closed();
            self.shared.changed.notify_waiters();
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subject {
    fn first_pause(&self) -> Duration {
        match self {
            Self::Process(_) => FIRST_PAUSE,
            Self::FirstModel => FIRST_MODEL_PAUSE,
        }
    }

    fn opened(&self, error: &JobError) {
        match self {
            Self::Process(readiness) => {
                metrics::circuit_open(true);
                readiness.block(COMPONENT, error.to_string());
                tracing::error!(error.kind = error.kind.as_str(), error.detail = %error.detail,
                    "circuit open: the environment is at fault, holding deliveries and receiving no more");
            }
            Self::FirstModel => {
                metrics::fallback_asked(true);
                tracing::warn!(error.kind = error.kind.as_str(), error.detail = %error.detail,
                    "the model is out of order: asking the fallback");
            }
        }
    }

    fn closed(&self) {
        match self {
            Self::Process(readiness) => {
                metrics::circuit_open(false);
                readiness.clear(COMPONENT);
                tracing::info!("circuit closed: the fault has ended");
            }
            Self::FirstModel => {
                metrics::fallback_asked(false);
                tracing::info!("the model is back: asking it again");
            }
        }
    }
}

impl Pass {
    /// Returns whether `error`, met by `job`, is the environment's fault and not the job's: misconfiguration at once, an
    /// outage when it is met again and again. What may be the job's own fault must be met by several jobs; but while the
    /// circuit is open, a service that is silent is taken for one that is down.
    pub fn blames_environment(&self, error: &JobError, job: &JobId) -> bool {
        let of_service = error.kind.is_outage_when_repeated();
        if error.class() == Class::Misconfigured {
            return true;
        }
        if !of_service && !error.kind.is_outage_of_several_jobs() {
            return false;
        }
        let is_open = self.is_probe || self.circuit.is_open();
        let mut faults = self.circuit.shared.faults_in_a_row.lock().unwrap_or_else(PoisonError::into_inner);
        // While it is open there are few calls, and what opened it still counts.
        if !is_open {
            faults.lapse();
        }
        let is_outage = faults.note(*job, error.kind);
        is_outage || (of_service && is_open)
    }

    /// Reports an end that the environment was not at fault for. Only a probe closes the circuit: what was under way
    /// when it opened proves nothing.
    pub fn passed(mut self) {
        self.circuit.shared.faults_in_a_row.lock().unwrap_or_else(PoisonError::into_inner).clear();
        if std::mem::take(&mut self.is_probe) {
            self.circuit.close();
        }
    }

    /// Reports that the environment is at fault.
    pub fn failed(mut self, error: &JobError) {
        self.circuit.open(error, self.is_probe.then_some(self.candidate));
        self.is_probe = false;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.is_probe {
            if let State::Open { probing, .. } = &mut *self.circuit.state() {
                *probing = false;
            }
            self.circuit.shared.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
