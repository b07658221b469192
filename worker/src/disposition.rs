//! `Disposition`: what to do with a delivery once processing has ended, and how long to wait before the next attempt.

use std::time::Duration;

use job::{FailureCode, Status};

use crate::error::{Class, JobError};

/// How processing ended well: there is nothing left to do, or nothing we may do.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The picture is published and the record says so.
    Published,
    /// An earlier delivery had ended the job.
    AlreadyFinal(Status),
    /// The record now says that it failed, or that the model refused it.
    Rejected(FailureCode),
    /// The record now says that it expired.
    Expired,
    /// Somebody else holds the claim, for this long at most.
    HeldElsewhere { for_at_most: Duration },
    /// Its `Idempotency-Key` is that of another job.
    KeyConflict,
    /// Its caller has asked for the job again since, with a message of its own.
    Superseded,
    /// This process stops, and the job had not been paid for.
    GivenBack,
}

/// What to do with the delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    Delete,
    RetryAfter(Duration),
    LeaveToDeadLetter,
}

/// First wait; doubles with each hand-over.
const BASE_BACKOFF: Duration = Duration::from_secs(5);
/// Longest wait of our own choosing. A server's hint may be longer.
const MAX_BACKOFF: Duration = Duration::from_secs(300);
/// SQS refuses more than 12 hours from the receive.
const MAX_WAIT: Duration = Duration::from_secs(11 * 3600);

impl Outcome {
    /// Returns whether the record has an end now, whoever wrote it: one to be told of.
    pub fn is_end(&self) -> bool {
        match self {
            Self::Published | Self::AlreadyFinal(_) | Self::Rejected(_) | Self::Expired => true,
            Self::HeldElsewhere { .. } | Self::KeyConflict | Self::Superseded | Self::GivenBack => false,
        }
    }
}

impl Disposition {
    /// Decides. `jitter` is uniform in 0..1; `is_last` says that the queue will not hand this message over again.
    pub fn of(ended: &Result<Outcome, JobError>, receive_count: u32, is_last: bool, jitter: f64) -> Self {
        match ended {
            Ok(
                Outcome::Published
                | Outcome::AlreadyFinal(_)
                | Outcome::Rejected(_)
                | Outcome::Expired
                | Outcome::KeyConflict
                | Outcome::Superseded,
            ) => Self::Delete,
            Ok(Outcome::GivenBack) => Self::RetryAfter(Duration::ZERO),
            Ok(Outcome::HeldElsewhere { for_at_most }) => Self::RetryAfter(whole_seconds(*for_at_most)),
            Err(error) => match error.class() {
                Class::Poison => Self::LeaveToDeadLetter,
                Class::Transient if is_last => Self::LeaveToDeadLetter,
                Class::Transient => {
                    let wait = error.retry_after.unwrap_or_else(|| backoff(receive_count, jitter));
                    Self::RetryAfter(whole_seconds(wait))
                }
                // The record could not be written: as good as transient.
                Class::Permanent => Self::RetryAfter(whole_seconds(backoff(receive_count, jitter))),
                // Held by the circuit until this process ends; then somebody else may try at once.
                Class::Misconfigured => Self::RetryAfter(Duration::ZERO),
            },
        }
    }
}

/// Exponential with full jitter over the upper half, so that a fleet does not come back in step.
fn backoff(receive_count: u32, jitter: f64) -> Duration {
    let doublings = receive_count.saturating_sub(1).min(16);
    let full = BASE_BACKOFF.saturating_mul(2_u32.pow(doublings)).min(MAX_BACKOFF);
    full.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// SQS counts whole seconds; rounding down could bring a message back before its time.
fn whole_seconds(wait: Duration) -> Duration {
    let up = u64::from(wait.subsec_nanos() > 0);
    Duration::from_secs(wait.as_secs().saturating_add(up)).min(MAX_WAIT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Kind;

    fn of(error: JobError, receive_count: u32, is_last: bool) -> Disposition {
        Disposition::of(&Err(error), receive_count, is_last, 1.0)
    }

    #[test]
    fn every_kind_by_its_class() {
        for kind in Kind::ALL {
            let error = JobError::new(kind, "");
            let (early, last) = (of(error.clone(), 1, false), of(error, 5, true));
            match kind.class() {
                Class::Transient => {
                    assert_eq!(early, Disposition::RetryAfter(BASE_BACKOFF), "{kind:?}");
                    assert_eq!(last, Disposition::LeaveToDeadLetter, "{kind:?}");
                }
                Class::Poison => {
                    assert_eq!((early, last), (Disposition::LeaveToDeadLetter, Disposition::LeaveToDeadLetter))
                }
                Class::Permanent => {
                    assert!(matches!(last, Disposition::RetryAfter(_)), "{kind:?} is never dead-lettered")
                }
                Class::Misconfigured => assert_eq!(last, Disposition::RetryAfter(Duration::ZERO), "{kind:?}"),
            }
        }
    }

    #[test]
    fn good_ends_delete_and_a_duplicate_steps_back() {
        for outcome in [
            Outcome::Published,
            Outcome::AlreadyFinal(Status::Canceled),
            Outcome::Rejected(FailureCode::ContentFiltered),
            Outcome::Expired,
            Outcome::KeyConflict,
            Outcome::Superseded,
        ] {
            assert_eq!(Disposition::of(&Ok(outcome), 9, true, 0.5), Disposition::Delete);
        }
        let held = Outcome::HeldElsewhere { for_at_most: Duration::from_millis(1500) };
        assert_eq!(Disposition::of(&Ok(held), 1, false, 0.5), Disposition::RetryAfter(Duration::from_secs(2)));
    }

    #[test]
    fn a_servers_hint_wins() {
        let error = JobError::new(Kind::ModelUnavailable, "").with_retry_after(Some(Duration::from_millis(90_100)));
        assert_eq!(of(error, 1, false), Disposition::RetryAfter(Duration::from_secs(91)));
    }

    proptest! {
        #[test]
        fn waits_grow_and_stay_in_bounds(receive_count: u32, jitter in 0.0..1.0_f64) {
            let wait = backoff(receive_count, jitter);
            prop_assert!(wait >= BASE_BACKOFF / 2 && wait <= MAX_BACKOFF);
            prop_assert!(backoff(receive_count.saturating_add(1), jitter) >= wait);
            prop_assert!(whole_seconds(wait) >= wait);
            prop_assert_eq!(whole_seconds(Duration::MAX), Duration::from_secs(39_600), "below the 12 hours of SQS");
        }
    }
}
