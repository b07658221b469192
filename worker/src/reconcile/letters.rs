//! Dead letters: each is looked at and put back, and its record says that the job has failed if nothing else ended it.

use std::collections::HashSet;
use std::time::Duration;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use job::{DecodeError, Failure, FailureCode, Job, Record, Status};

use super::{ReconcileError, Reconciler, Report};
use crate::claim::{end_unheld, is_of_another_spec};
use crate::error::{Class, JobError};
use crate::job_list::{entry, left_out};
use crate::metrics;
use crate::queue::{Delivery, MAX_RECEIVE};
use crate::store::StoreError;

/// A receive may come back empty although there is something: so many in a row are the end.
const EMPTY_RECEIVES: usize = 2;
/// Writers that meet at one record settle within a few rounds.
const MAX_ROUNDS: usize = 3;
/// The longest that SQS hides a message: one that waits for its next hand-over has come back by then.
const LONGEST_HOLD: SignedDuration = SignedDuration::from_hours(12);

/// What a dead letter turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Judged {
    /// Its job had no end: the record says `failed` now.
    Ended,
    /// Its record told the end already.
    AlreadyFinal,
    /// Somebody holds a claim on its job, or has just written the record.
    InHand,
    /// Another message of its job may still be waiting: of an `Idempotency-Key`, or of its caller's newer wish.
    Repeat,
    /// Its `Idempotency-Key` is that of another job.
    OtherJob,
    /// Not a job at all: for an operator to look at.
    Poison,
    /// Of a version that a newer release reads.
    Newer,
    /// Its record cannot be read.
    Unreadable,
}

impl Judged {
    /// Everything that a dead letter can turn out to be.
    pub const ALL: [Self; 8] = [
        Self::Ended,
        Self::AlreadyFinal,
        Self::InHand,
        Self::Repeat,
        Self::OtherJob,
        Self::Poison,
        Self::Newer,
        Self::Unreadable,
    ];

    /// Returns the word used in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::AlreadyFinal => "already_final",
            Self::InHand => "in_hand",
            Self::Repeat => "repeat",
            Self::OtherJob => "other_job",
            Self::Poison => "poison",
            Self::Newer => "newer",
            Self::Unreadable => "unreadable",
        }
    }
}

impl Reconciler {
    /// Looks at every dead letter, at most as many as the bounds say, and puts all of them back.
    ///
    /// SQS knows no other way to look than to receive. A receive hides the message for the queue adapter's lease, and
    /// counts: nothing comes of the count, since a dead-letter queue moves nothing on, and a redrive begins at 1. It does
    /// not lengthen the retention, which runs from the sending. If this process dies, they come back by themselves.
    pub(super) async fn judge_letters(&self, report: &mut Report) -> Result<(), ReconcileError> {
        let mut held = Vec::new();
        let looked = self.look(report, &mut held).await;
        // All of them at the end: one that is put back at once would be the next one received.
        let put_back = join_all(held.iter().map(|receipt| self.dead_letters.set_visibility(receipt, Duration::ZERO)));
        if let Some(error) = put_back.await.into_iter().find_map(Result::err) {
            tracing::warn!(%error, "a dead letter could not be put back: it is hidden until its time is over");
        }
        looked
    }

    async fn look(&self, report: &mut Report, held: &mut Vec<String>) -> Result<(), ReconcileError> {
        let mut seen = HashSet::new();
        let mut empty = 0;
        while empty < EMPTY_RECEIVES {
            if seen.len() >= self.bounds.letters {
                return Ok(());
            }
            let letters = self.dead_letters.receive(MAX_RECEIVE).await?;
            if letters.is_empty() {
                empty += 1;
                continue;
            }
            empty = 0;
            held.extend(letters.iter().map(|letter| letter.receipt.clone()));
            for letter in letters {
                // Its hiding time is over: the pass takes longer than that, and would go round for ever.
                if !seen.insert(letter.message_id.clone()) {
                    return Ok(());
                }
                let judged = match self.judge(&letter).await {
                    Ok(judged) => judged,
                    Err(error) if error.class() == Class::Misconfigured => return Err(error.into()),
                    Err(error) => {
                        tracing::warn!(message.id = letter.message_id, %error, "a dead letter's record cannot be read");
                        report.unreadable += 1;
                        Judged::Unreadable
                    }
                };
                *report.letters.entry(judged).or_default() += 1;
            }
        }
        report.saw_every_letter = true;
        Ok(())
    }

    async fn judge(&self, letter: &Delivery) -> Result<Judged, JobError> {
        let job = match Job::decode(&letter.body) {
            Ok(job) => job,
            Err(DecodeError::NewerVersion { .. }) => return Ok(Judged::Newer),
            Err(_) => return Ok(Judged::Poison),
        };
        for _ in 0..MAX_ROUNDS {
            let now = (self.clock)();
            let (record, version) = match self.store.read_record(&job.id).await? {
                None => (unbegun(&job, now), None),
                Some((record, version)) => {
                    if is_of_another_spec(&record, &job) {
                        return Ok(Judged::OtherJob);
                    }
                    if record.status.is_final() {
                        return Ok(Judged::AlreadyFinal);
                    }
                    if let Some(wait) = reason_to_wait(&record, &job, letter, now) {
                        return Ok(wait);
                    }
                    (record, Some(version))
                }
            };
            let (is_unbegun, entered) = (record.attempts == 0, entry(&record));
            let last_fault = record.last_fault.as_deref();
            let detail = last_fault.map_or_else(|| SILENT.to_owned(), |fault| format!("last fault: {fault}"));
            let failure = Failure::new(FailureCode::AttemptsExhausted, detail);
            let end = (Status::Failed, Some(failure));
            self.tell(&record).await?;
            match end_unheld(self.store.as_ref(), record, version.as_ref(), now, end).await {
                Ok(()) => {
                    // No worker has entered it into its tenant's list, and none will.
                    if is_unbegun && let Some(entry) = entered {
                        match self.store.write_index(&job.tenant, &entry).await {
                            Ok(()) => metrics::entered("written"),
                            Err(error) => left_out(&job.id, &error),
                        }
                    }
                    tracing::warn!(job.id = %job.id, tenant = %job.tenant, message.id = letter.message_id,
                        "dead letter without an end in its record: it says failed now");
                    return Ok(Judged::Ended);
                }
                Err(StoreError::Conflict) => {}
                Err(StoreError::Failed(error)) => return Err(error),
            }
        }
        Ok(Judged::InHand)
    }
}

/// For a job whose last worker died without a word.
const SILENT: &str = "in the dead-letter queue without a word from the last worker";

/// The record of a job that is in the dead-letter queue before any worker could write one.
fn unbegun(job: &Job, now: Timestamp) -> Record {
    Record { started_at: None, ..Record::begin(job, now) }
}

/// A claim is respected until its deadline, whatever the message's count: nobody is going to work on the job in its
/// place. And where another message of the same job may be waiting, its word counts, not this one's.
fn reason_to_wait(record: &Record, job: &Job, letter: &Delivery, now: Timestamp) -> Option<Judged> {
    // Asked for again since this one died: the message of the newer wish has the word.
    if job.retries < record.retries {
        return Some(Judged::Repeat);
    }
    let is_held = record.claim.as_ref().is_some_and(|claim| claim.deadline_at > now);
    // A call that may still bring its picture: a redrive of a job that had ended would not wait for it, and pay again.
    let is_paying = record.paying_until.is_some_and(|until| until > now);
    if is_held || is_paying {
        return Some(Judged::InHand);
    }
    let is_of_this_message = record.claim.as_ref().is_some_and(|claim| claim.message_id == letter.message_id);
    // An id with a time was sent once. One from an `Idempotency-Key` may have as many messages as requests.
    let may_have_others = record.id.issued_at().is_none();
    let is_fresh = now.duration_since(record.updated_at) < LONGEST_HOLD;
    (may_have_others && !is_of_this_message && is_fresh).then_some(Judged::Repeat)
}
