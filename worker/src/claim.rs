//! `Held`: our claim on a job record, and the conditional writes that only its holder can make.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use job::{Claim, Failure, FailureCode, Job, Record, Status};
use uuid::Uuid;

use crate::error::{JobError, Kind};
use crate::lane::Lane;
use crate::store::{ETag, ObjectStore, StoreError};

/// Writers that meet at one record settle within a few rounds; more means that something else is wrong.
const MAX_ROUNDS: u32 = 5;
/// Pause after a conflict with nobody; doubles.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// A call begins at most this long after its claim was written or renewed.
const FRESH: Duration = Duration::from_secs(5);
/// What a paid picture takes to its checkpoint, where the store answers.
const CHECKPOINT_TIME: Duration = Duration::from_secs(15);

/// The clocks of two workers: AWS refuses requests of one that is off by more.
const CLOCKS_DIFFER_BY: Duration = Duration::from_secs(15 * 60);

/// Returns how long after a claim was written or renewed a call under it may still bring a checkpoint.
pub fn call_window(model_timeout: Duration) -> Duration {
    FRESH + model_timeout + CHECKPOINT_TIME
}

/// Who wants the claim, and for which delivery.
#[derive(Debug, Clone)]
pub struct Claimant {
    /// Names this hold: one per delivery, kept over repeated attempts under the same lease.
    pub token: Uuid,
    pub worker: String,
    /// Where the delivery is from.
    pub lane: Lane,
    pub message_id: String,
    pub receive_count: u32,
    /// How long a claim holds without being renewed.
    pub duration: Duration,
    /// [`call_window`].
    pub call_window: Duration,
}

/// What became of the wish to claim.
#[derive(Debug)]
pub enum Claimed {
    /// It is ours.
    Held(Box<Held>),
    /// The job has ended, as this record says.
    AlreadyFinal(Box<Record>),
    /// Somebody else has it, for this long at most.
    Elsewhere { for_at_most: Duration },
    /// The record is that of another spec: its `Idempotency-Key` was used for two before either had a record.
    OtherSpec,
    /// Its caller has asked for the job again since, and another message stands for that.
    Superseded,
}

/// Our claim. Every write through it fails with [`Lost`](WriteError::Lost) once somebody else has written the record.
#[derive(Debug)]
pub struct Held {
    record: Record,
    etag: ETag,
    claimant: Claimant,
    is_new: bool,
}

/// A write through the claim did not happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteError {
    /// Somebody else has written the record: it was canceled, or taken over.
    Lost,
    Failed(JobError),
}

/// Takes the claim on `job` if [`Claim::may_be_taken_over`] allows it.
///
/// # Errors
/// When the store cannot be read or written.
pub async fn claim(
    store: &dyn ObjectStore,
    job: &Job,
    claimant: &Claimant,
    now: impl Fn() -> Timestamp,
) -> Result<Claimed, JobError> {
    for round in 0..MAX_ROUNDS {
        // A first delivery nearly always finds no record, and the conditional write tells when it does.
        let found = if round == 0 && claimant.receive_count <= 1 { None } else { store.read_record(&job.id).await? };
        let (existing, mut record) = match found {
            None => (None, Record::begin(job, now())),
            Some((record, etag)) => (Some(etag), record),
        };
        // Before anything else: a record that says whose picture it is must never get another's.
        if existing.is_some() && is_of_another_spec(&record, job) {
            tracing::warn!(record.status = record.status.as_str(), "idempotency conflict: the key is another spec's");
            return Ok(Claimed::OtherSpec);
        }
        if job.retries < record.retries {
            tracing::info!(
                record.retries = record.retries,
                "message of an earlier wish: a newer one stands for the job"
            );
            return Ok(Claimed::Superseded);
        }
        if record.status.is_final() && !may_be_redone(&record, job) {
            return Ok(Claimed::AlreadyFinal(Box::new(record)));
        }
        if let Some(claim) = &record.claim
            && claim.token != claimant.token
            && !claim.may_be_taken_over(&claimant.message_id, claimant.receive_count, now())
        {
            return Ok(Claimed::Elsewhere { for_at_most: until(claim.deadline_at, now()) });
        }
        let resumed = record.claim.as_ref().is_some_and(|claim| claim.token == claimant.token);
        let now_is = now();
        // A whole call from now on, whatever is left by the clock of whoever wrote it: one of the two may be off.
        if !resumed {
            let may_be_paid = record.paying_until.is_some_and(|until| now_is <= later(until, CLOCKS_DIFFER_BY));
            record.earlier_call_until = may_be_paid.then(|| later(now_is, claimant.call_window));
        }
        begin_attempt(&mut record, job, claimant, now_is, resumed);
        let written = match &existing {
            None => store.create_record(&record).await,
            Some(etag) => store.replace_record(&record, etag).await,
        };
        match written {
            Ok(etag) => {
                return Ok(Claimed::Held(Box::new(Held {
                    record,
                    etag,
                    claimant: claimant.clone(),
                    is_new: existing.is_none(),
                })));
            }
            // Read again: it may even be our own write, whose answer was lost.
            Err(StoreError::Conflict) => {}
            Err(StoreError::Failed(error)) => return Err(error),
        }
    }
    Err(JobError::new(Kind::StoreUnavailable, format!("record was contended {MAX_ROUNDS} times in a row")))
}

/// Ends a job that nobody holds, over the version that was read.
///
/// Whoever has written the record since, a worker with a success above all, wins. For the reconciler; a worker ends the
/// jobs that it holds with [`Held::finish`].
///
/// # Errors
/// `Conflict` when somebody else has written it since.
pub async fn end_unheld(
    store: &dyn ObjectStore,
    mut record: Record,
    found: Option<&ETag>,
    now: Timestamp,
    end: (Status, Option<Failure>),
) -> Result<(), StoreError> {
    debug_assert!(!record.status.is_final());
    record.finish(end.0, now);
    record.paying_until = None;
    record.error = end.1;
    record.reconciled_at = Some(now);
    match found {
        None => store.create_record(&record).await,
        Some(etag) => store.replace_record(&record, etag).await,
    }
    .map(drop)
}

/// The API refuses a key that it can see to be another spec's; here end those that it could not see. A record without
/// a fingerprint was canceled before any worker saw its job.
pub fn is_of_another_spec(record: &Record, job: &Job) -> bool {
    record.spec_fingerprint.as_ref().is_some_and(|known| *known != job.spec.fingerprint())
}

/// A job that failed for want of attempts may be redriven from the dead-letter queue and still succeed. One that the
/// reconciler called expired had no message left: a message that turns up after all proves the contrary. And one that
/// was sent after the end, because its caller asked for the job again, is what the record has yet to tell.
fn may_be_redone(record: &Record, job: &Job) -> bool {
    let was_given_up = record.status == Status::Expired && record.reconciled_at.is_some();
    let is_wanted_again = job.retries > record.retries && record.may_be_retried();
    is_wanted_again
        || was_given_up
        || record.error.as_ref().is_some_and(|error| error.code == FailureCode::AttemptsExhausted)
}

fn begin_attempt(record: &mut Record, job: &Job, claimant: &Claimant, now: Timestamp, resumed: bool) {
    if job.retries > record.retries {
        record.retry(job, now);
    }
    if !resumed {
        record.attempts += 1;
    }
    record.status = Status::Generating;
    record.started_at.get_or_insert(now);
    record.finished_at = None;
    record.reconciled_at = None;
    record.error = None;
    record.timings.queue_wait_seconds.get_or_insert_with(|| seconds(now.duration_since(job.submitted_at)));
    record.updated_at = now;
    record.claim = Some(new_claim(claimant, now));
    record.paying_until = Some(later(now, claimant.call_window));
}

fn new_claim(claimant: &Claimant, now: Timestamp) -> Claim {
    Claim {
        token: claimant.token,
        worker: claimant.worker.clone(),
        message_id: claimant.message_id.clone(),
        receive_count: claimant.receive_count,
        deadline_at: later(now, claimant.duration),
    }
}

fn later(now: Timestamp, duration: Duration) -> Timestamp {
    now.saturating_add(duration).expect("a duration, not a calendar span")
}

impl Held {
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Returns the lane of the delivery that holds it.
    pub fn lane(&self) -> Lane {
        self.claimant.lane
    }

    /// Returns whether the record was created by this claim: nobody has worked on the job before.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Returns whether a call may begin at `now` that needs the claim for so long. Otherwise the claim is to be renewed
    /// first, which proves that it is still ours and tells others how long to wait.
    pub fn covers_a_call(&self, needed: Duration, now: Timestamp) -> bool {
        let lasts = self.record.claim.as_ref().is_some_and(|claim| until(claim.deadline_at, now) >= needed);
        lasts && until(now, self.record.updated_at) <= FRESH
    }

    /// Returns for how long from `now` a call of an earlier attempt may still bring a checkpoint.
    pub fn earlier_call(&self, now: Timestamp) -> Duration {
        self.record.earlier_call_until.map_or(Duration::ZERO, |at| until(at, now))
    }

    /// Writes the record as `change` makes it, with the claim renewed.
    ///
    /// # Errors
    /// `Lost` when somebody else has written it since.
    pub async fn advance(
        &mut self,
        store: &dyn ObjectStore,
        now: Timestamp,
        change: impl FnOnce(&mut Record),
    ) -> Result<(), WriteError> {
        let mut next = self.record.clone();
        next.claim = Some(new_claim(&self.claimant, now));
        next.paying_until = Some(later(now, self.claimant.call_window));
        next.updated_at = now;
        change(&mut next);
        self.write(store, next).await
    }

    /// Writes the final record and gives the claim up.
    ///
    /// # Errors
    /// `Lost` when somebody else has written it since.
    pub async fn finish(
        &mut self,
        store: &dyn ObjectStore,
        now: Timestamp,
        status: Status,
        change: impl FnOnce(&mut Record),
    ) -> Result<(), WriteError> {
        let mut next = self.record.clone();
        change(&mut next);
        next.finish(status, now);
        // A redrive, or a caller who asks for the job again, has to wait for what is still paid for.
        next.paying_until = if status == Status::Succeeded { None } else { self.others_paying_until(now) };
        self.write(store, next).await
    }

    /// Gives the claim up so that another attempt can start, and notes why.
    ///
    /// # Errors
    /// `Lost` when somebody else has written it since.
    pub async fn release(&mut self, store: &dyn ObjectStore, now: Timestamp, fault: &str) -> Result<(), WriteError> {
        let mut next = self.record.clone();
        next.status = Status::Queued;
        next.claim = None;
        next.paying_until = self.others_paying_until(now);
        next.earlier_call_until = None;
        next.last_fault = Some(fault.to_owned());
        next.updated_at = now;
        self.write(store, next).await
    }

    /// What whoever is next has to wait for. Our own calls have ended.
    fn others_paying_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.record.earlier_call_until.filter(|until| *until > now)
    }

    async fn write(&mut self, store: &dyn ObjectStore, next: Record) -> Result<(), WriteError> {
        for round in 0..MAX_ROUNDS {
            match store.replace_record(&next, &self.etag).await {
                Ok(etag) => {
                    self.wrote(next, etag);
                    return Ok(());
                }
                Err(StoreError::Failed(error)) => return Err(WriteError::Failed(error)),
                Err(StoreError::Conflict) => {}
            }
            match store.read_record(&next.id).await.map_err(WriteError::Failed)? {
                // A write of ours whose answer was lost conflicts with itself when it is repeated.
                Some((found, etag)) if found == next => {
                    self.wrote(next, etag);
                    return Ok(());
                }
                // Nobody has written it: the store was busy with the object, and asks for another try.
                Some((found, etag)) if found == self.record => self.etag = etag,
                _ => return Err(WriteError::Lost),
            }
            tokio::time::sleep(BUSY_PAUSE * 2_u32.pow(round)).await;
        }
        let detail = format!("record could not be written {MAX_ROUNDS} times in a row");
        Err(WriteError::Failed(JobError::new(Kind::StoreUnavailable, detail)))
    }

    fn wrote(&mut self, record: Record, etag: ETag) {
        self.record = record;
        self.etag = etag;
    }
}

/// Returns the time from `now` to `deadline`, zero when it has passed.
fn until(deadline: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(deadline.duration_since(now)).unwrap_or_default()
}

fn seconds(duration: SignedDuration) -> f64 {
    duration.as_secs_f64().max(0.0)
}
