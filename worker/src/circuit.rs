//! `Circuit`: opens when the environment is at fault, so that a bad deploy or a retired model costs time and not jobs.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use job::JobId;
use service::readiness::Readiness;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::error::{Class, JobError};
use crate::metrics;

/// Name of the circuit among the reasons of `/ready`.
const COMPONENT: &str = "circuit";
/// Pause before the first probe; doubles up to the maximum.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// As the first pause, for the model that another stands in for: longer, so that the first probe of the process, whose circuit
/// the same fault may have opened, is made with the other.
const FIRST_MODEL_PAUSE: Duration = Duration::from_secs(15);
/// So many outage-like faults with no success between them are an outage.
const OUTAGE_AFTER: usize = 5;
/// Faults that may be a job's own must come from so many jobs.
const JOBS_OF_AN_OUTAGE: usize = 3;

/// Closed: work flows. Open: everything waits, and one delivery at a time probes whether the fault has ended.
#[derive(Debug, Clone)]
pub struct Circuit {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The jobs of the outage-like faults since the last success, a job as often as it failed.
    faults_in_a_row: Mutex<Vec<JobId>>,
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
    Open { probe_at: Instant, pause: Duration, probing: bool },
}

/// Permission to try. To be reported; dropped unreported, it decides nothing.
#[derive(Debug)]
pub struct Pass {
    circuit: Circuit,
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
        self.admit_or_wake_at().ok()
    }

    /// Returns the permission, or when to look again: none while somebody probes.
    fn admit_or_wake_at(&self) -> Result<Pass, Option<Instant>> {
        match &mut *self.state() {
            State::Closed => Ok(Pass { circuit: self.clone(), is_probe: false }),
            State::Open { probe_at, probing, .. } if !*probing && *probe_at <= Instant::now() => {
                *probing = true;
                Ok(Pass { circuit: self.clone(), is_probe: true })
            }
            State::Open { probing: true, .. } => Err(None),
            State::Open { probe_at, .. } => Err(Some(*probe_at)),
        }
    }

    /// Waits until work may be tried: at once while closed, one at a time while open. Safe to drop while it waits.
    pub async fn admit(&self) -> Pass {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let wake_at = match self.admit_or_wake_at() {
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
        self.open(error, false);
    }

    /// Closes what [`trip`](Self::trip) opened: that work has gone through.
    pub fn recovered(&self) {
        self.close();
    }

    /// Resolves when the circuit is open and a probe is due, which a new delivery may then be.
    pub async fn probe_due(&self) {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let due = match *self.state() {
                State::Open { probe_at, probing: false, .. } => Some(probe_at),
                State::Open { .. } | State::Closed => None,
            };
            let Some(probe_at) = due else {
                changed.await;
                continue;
            };
            if probe_at <= Instant::now() {
                return;
            }
            tokio::select! {
                biased;
                () = &mut changed => {}
                () = tokio::time::sleep_until(probe_at) => {}
            }
        }
    }

    fn open(&self, error: &JobError, is_probe: bool) {
        let now = Instant::now();
        {
            let mut state = self.state();
            let pause = match *state {
                State::Closed => self.shared.subject.first_pause(),
                // Calls that were under way when it opened say nothing new.
                State::Open { .. } if !is_probe => return,
                State::Open { pause, .. } => (pause * 2).min(MAX_PAUSE),
            };
            *state = State::Open { probe_at: now + pause, pause, probing: false };
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
    /// outage when it is met again and again. What may be the job's own fault must be met by several jobs.
    pub fn blames_environment(&self, error: &JobError, job: &JobId) -> bool {
        let of_service = error.kind.is_outage_when_repeated();
        if error.class() == Class::Misconfigured {
            return true;
        }
        if !of_service && !error.kind.is_outage_of_several_jobs() {
            return false;
        }
        let mut faults = self.circuit.shared.faults_in_a_row.lock().unwrap_or_else(PoisonError::into_inner);
        // Older ones say nothing more.
        if faults.len() >= 4 * OUTAGE_AFTER {
            faults.remove(0);
        }
        faults.push(*job);
        let repeated = faults.len() >= OUTAGE_AFTER;
        if of_service {
            return repeated || self.is_probe || self.circuit.is_open();
        }
        repeated && faults.iter().collect::<HashSet<_>>().len() >= JOBS_OF_AN_OUTAGE
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
        self.circuit.open(error, self.is_probe);
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
mod tests {
    use super::*;
    use crate::error::Kind;

    fn denied() -> JobError {
        JobError::new(Kind::AccessDenied, "not allowed")
    }

    fn job() -> JobId {
        let keys: job::IdKeys = "test-secret-test-secret-test-secret".parse().unwrap();
        keys.issue(&"north".parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_be_a_jobs_own_fault_needs_several_jobs() {
        let circuit = Circuit::new(Readiness::default());
        let odd = JobError::new(Kind::ModelFailed, "Inference error");
        let (first, second, third) = (job(), job(), job());
        let blames = async |job: &JobId| circuit.admit().await.blames_environment(&odd, job);
        for _ in 0..2 * OUTAGE_AFTER {
            assert!(!blames(&first).await, "one job is no outage");
        }
        assert!(!blames(&second).await);
        assert!(blames(&third).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_service_is_at_fault_for_is_no_outage_however_many_jobs_meet_it() {
        let circuit = Circuit::new(Readiness::default());
        for kind in [Kind::ModelThrottled, Kind::RenderFailed, Kind::CpuTaskPanicked, Kind::AttemptTimedOut] {
            for _ in 0..4 * OUTAGE_AFTER {
                let blamed = circuit.admit().await.blames_environment(&JobError::new(kind, ""), &job());
                assert!(!blamed, "{kind:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn opens_probes_one_at_a_time_and_closes() {
        let readiness = Readiness::default();
        let circuit = Circuit::new(readiness.clone());
        let under_way = circuit.admit().await;
        circuit.admit().await.failed(&denied());
        assert!(circuit.is_open());
        assert!(readiness.reasons()["circuit"].contains("access_denied"));

        let started = Instant::now();
        let probe = circuit.admit().await;
        assert_eq!(started.elapsed(), FIRST_PAUSE);
        under_way.passed();
        assert!(circuit.is_open(), "an old success proves nothing");
        let mut second = Box::pin(circuit.admit());
        tokio::select! {
            _ = &mut second => panic!("two probes at once"),
            () = tokio::time::sleep(Duration::from_secs(600)) => {}
        }
        probe.failed(&denied());
        let started = Instant::now();
        let probe = second.await;
        assert_eq!(started.elapsed(), FIRST_PAUSE * 2);
        probe.passed();
        circuit.closed().await;
        assert!(readiness.is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_faults_in_a_row() {
        let circuit = Circuit::new(Readiness::default());
        let down = JobError::new(Kind::ModelUnavailable, "503");
        for _ in 1..OUTAGE_AFTER {
            assert!(!circuit.admit().await.blames_environment(&down, &job()));
        }
        circuit.admit().await.passed();
        for _ in 1..OUTAGE_AFTER {
            assert!(!circuit.admit().await.blames_environment(&down, &job()));
        }
        let fifth = circuit.admit().await;
        assert!(fifth.blames_environment(&down, &job()));
        fifth.failed(&down);
        assert!(circuit.admit().await.blames_environment(&down, &job()), "a probe that fails keeps it open");
    }

    #[tokio::test(start_paused = true)]
    async fn a_tripped_circuit_asks_for_a_probe_and_recovers() {
        let circuit = Circuit::new(Readiness::default());
        circuit.trip(&denied());
        let started = Instant::now();
        circuit.probe_due().await;
        assert_eq!(started.elapsed(), FIRST_PAUSE);
        circuit.recovered();
        circuit.closed().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_probe_lets_the_next_one_try() {
        let circuit = Circuit::new(Readiness::default());
        circuit.admit().await.failed(&denied());
        drop(circuit.admit().await);
        circuit.admit().await.passed();
        assert!(!circuit.is_open());
    }
}
