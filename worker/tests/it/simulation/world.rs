//! `World`: what outlives the processes: queue, bucket, model, time, chance, and the book of what must never happen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use job::{IdKeys, Job, JobSpec, TenantId, TraceContext};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::model::{Call, Calls};
use super::plan::{Odds, Plan, Service};
use super::process::Refusal;
use super::queue::Messages;
use super::store::Objects;

/// Not a whole number of seconds, unlike every wait that a worker settles with: so the queue can tell an extension from it.
pub const LEASE: Duration = Duration::from_millis(60_500);

/// So long after a trouble a lease may be lost for it, and so long may a process not know that it has lost one: the beats are
/// a quarter of a lease apart, and answers may be slow.
pub const SLACK: Duration = Duration::from_secs(60);

/// The outside of all processes.
pub struct World {
    pub plan: Plan,
    pub jobs: Vec<Job>,
    /// Woken when a message may have become visible.
    pub arrived: Notify,
    began: Instant,
    rng: Mutex<StdRng>,
    state: Mutex<State>,
    /// Every event in order, if somebody wants to read them.
    trace: Option<Mutex<Vec<String>>>,
}

#[derive(Default)]
pub struct State {
    pub messages: Messages,
    pub objects: Objects,
    pub calls: Calls,
    /// When a process was frozen or kept from the queue.
    pub trouble: Vec<(usize, Instant)>,
    pub dead: BTreeSet<usize>,
    pub frozen: BTreeSet<usize>,
    /// When a delivery of that job ran out while this process, once frozen, worked on it: somebody else has it now, rightly.
    pub cut_off: BTreeMap<(usize, usize), Instant>,
    pub breaches: Vec<String>,
    pub seen: Seen,
}

/// What a run came across, so that a suite of runs can show that it is not idle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    pub hand_overs: u64,
    pub paid: u64,
    pub killed_in_a_call: u64,
    pub cut_off_in_a_call: u64,
    pub cut_off_from_the_queue: u64,
    pub answers_lost: u64,
    pub copies: u64,
    pub undeleted: u64,
    pub conflicts: u64,
    pub pictures_replaced: u64,
    pub dead_letters: u64,
    pub succeeded: u64,
    pub failed: u64,
    pub canceled: u64,
    pub expired: u64,
}

impl Seen {
    fn each(&mut self) -> [&mut u64; 15] {
        [
            &mut self.hand_overs,
            &mut self.paid,
            &mut self.killed_in_a_call,
            &mut self.cut_off_in_a_call,
            &mut self.cut_off_from_the_queue,
            &mut self.answers_lost,
            &mut self.copies,
            &mut self.undeleted,
            &mut self.conflicts,
            &mut self.pictures_replaced,
            &mut self.dead_letters,
            &mut self.succeeded,
            &mut self.failed,
            &mut self.canceled,
            &mut self.expired,
        ]
    }

    /// Returns whether each of them was seen.
    pub fn is_eventful(mut self) -> bool {
        self.each().iter().all(|count| **count > 0)
    }
}

impl std::ops::AddAssign for Seen {
    fn add_assign(&mut self, mut other: Self) {
        for (sum, more) in self.each().into_iter().zip(other.each()) {
            *sum += *more;
        }
    }
}

impl World {
    pub fn new(plan: Plan, traced: bool) -> Self {
        let rng = Mutex::new(StdRng::seed_from_u64(plan.seed ^ 0x5eed));
        let jobs = (0..plan.jobs.len()).map(|index| job(&plan, index)).collect();
        Self {
            jobs,
            plan,
            arrived: Notify::new(),
            began: Instant::now(),
            rng,
            state: Mutex::default(),
            trace: traced.then(Mutex::default),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub fn now(&self) -> Timestamp {
        at(self.elapsed())
    }

    pub fn is_healed(&self) -> bool {
        self.elapsed() >= self.plan.healed_at
    }

    /// Returns whether nothing is going to happen any more.
    pub fn is_at_rest(&self) -> bool {
        let is_healed = self.is_healed();
        let state = self.state();
        is_healed && (state.messages.len() == 0 || !state.breaches.is_empty())
    }

    pub fn odds(&self) -> Odds {
        if self.is_healed() { Odds::NONE } else { self.plan.odds }
    }

    pub fn coin(&self, odds: f64) -> bool {
        odds > 0.0 && self.rng.lock().unwrap().random_bool(odds)
    }

    pub fn random(&self, range: std::ops::Range<i64>) -> i64 {
        self.rng.lock().unwrap().random_range(range)
    }

    pub fn index(&self, len: usize) -> usize {
        self.rng.lock().unwrap().random_range(0..len)
    }

    /// A time of so many milliseconds.
    pub fn delay(&self, milliseconds: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.lock().unwrap().random_range(milliseconds))
    }

    pub fn outage(&self, service: Service) -> Option<Refusal> {
        let now = self.elapsed();
        let outage =
            self.plan.outages.iter().find(|one| one.service == service && one.from <= now && now < one.until)?;
        Some(if outage.denies { Refusal::Denied } else { Refusal::Unavailable })
    }

    /// Returns whether the queue was out at some moment of the lease that ended then.
    fn queue_was_out(&self, ended: Instant) -> bool {
        let ended = ended.duration_since(self.began);
        let outages = self.plan.outages.iter().filter(|one| one.service == Service::Queue);
        outages.into_iter().any(|one| one.from <= ended && ended <= one.until + LEASE + SLACK)
    }

    /// Notes that a delivery went to somebody else, `ended` being when `process` could have it no longer. Returns whether
    /// there was a reason.
    pub fn loses(&self, state: &mut State, process: usize, job: usize, ended: Instant) -> bool {
        // Nobody can wait for a process that stands still. For one that is only kept from its queue they do.
        if state.frozen.contains(&process) {
            state.cut_off.insert((process, job), Instant::now());
        }
        let is_out = |call: &Call| call.process == process && call.job == job && call.was_frozen;
        state.seen.cut_off_in_a_call += state.calls.write_off(is_out);
        let of_lease = |at: Instant| at <= ended && ended <= at + LEASE + SLACK;
        let was_troubled = state.trouble.iter().any(|(who, at)| *who == process && of_lease(*at));
        was_troubled || state.dead.contains(&process) || self.queue_was_out(ended)
    }

    /// This process has a good reason to lose a lease.
    pub fn troubled(&self, process: usize) {
        self.state().trouble.push((process, Instant::now()));
    }

    /// A process goes on after a pause, and does not know yet what it has lost meanwhile.
    pub fn thaws(&self, process: usize) {
        for (_, at) in self.state().cut_off.iter_mut().filter(|((who, _), _)| *who == process) {
            *at = Instant::now();
        }
    }

    pub fn note(&self, event: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            trace.lock().unwrap().push(format!("{:9.3} {}", self.elapsed().as_secs_f64(), event()));
        }
    }

    pub fn trace(&self) -> Vec<String> {
        self.trace.as_ref().map(|trace| trace.lock().unwrap().clone()).unwrap_or_default()
    }

    pub fn breach(&self, state: &mut State, what: String) {
        self.note(|| format!("BREACH {what}"));
        state.breaches.push(format!("{what} (at {:.3} s)", self.elapsed().as_secs_f64()));
    }

    pub fn index_of(&self, id: &job::JobId) -> usize {
        self.jobs.iter().position(|job| job.id == *id).expect("no id but those of the jobs is used")
    }

    /// Kills a process for good: what it had under way at the model may have to be paid for again.
    pub fn dies(&self, process: usize) {
        let state = &mut *self.state();
        if state.dead.insert(process) {
            state.seen.killed_in_a_call += state.calls.write_off(|call| call.process == process);
        }
    }

    /// What must hold when everything has come to rest.
    pub fn check_the_end(&self) {
        let state = &mut *self.state();
        for (index, job) in self.jobs.iter().enumerate() {
            let record = state.objects.record(index).cloned();
            let is_final = record.as_ref().is_some_and(|record| record.status.is_final());
            let is_dead = state.messages.dead.contains(&index);
            if !is_final && !is_dead {
                self.breach(
                    state,
                    format!("job {index} never ended: {:?}", record.as_ref().map(|record| record.status)),
                );
            }
            let Some(record) = record else { continue };
            match record.status {
                job::Status::Succeeded => state.seen.succeeded += 1,
                job::Status::Failed | job::Status::Blocked => state.seen.failed += 1,
                job::Status::Canceled => state.seen.canceled += 1,
                job::Status::Expired => state.seen.expired += 1,
                _ => {}
            }
            if let Some(image) = &record.image
                && let Some(wrong) = state.objects.differs(index, image)
            {
                self.breach(state, format!("job {index} ({}): its URL shows another picture: {wrong}", job.id));
            }
        }
        state.seen.dead_letters += state.messages.dead.len() as u64;
        if state.messages.len() > 0 {
            let left = state.messages.len();
            self.breach(state, format!("{left} messages are left in the queue"));
        }
    }
}

/// Wall time after so much of simulated time.
fn at(elapsed: Duration) -> Timestamp {
    let begin: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
    begin.saturating_add(SignedDuration::try_from(elapsed).unwrap()).unwrap()
}

fn job(plan: &Plan, index: usize) -> Job {
    let keys: IdKeys = "test-secret-test-secret-test-secret".parse().unwrap();
    let tenant: TenantId = "north".parse().unwrap();
    let planned = &plan.jobs[index];
    Job {
        // Derived: an issued one would be another in each run.
        id: keys.derive(&tenant, &format!("job {index}")),
        tenant,
        spec: JobSpec::new(format!("{index}"), None, Some(7)).unwrap(),
        submitted_at: at(planned.submitted_at),
        deadline_at: planned.deadline_after.map(|after| at(planned.submitted_at + after)),
        retries: 0,
        trace: TraceContext::generate(),
    }
}
