//! `DeliveryHandler`: one delivery from receipt to settlement.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use job::{DecodeError, FailureCode, Job};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span};
use uuid::Uuid;

use crate::claim::{Claimant, call_window};
use crate::disposition::{Disposition, Outcome};
use crate::error::{Class, JobError, Kind};
use crate::lane::{Entrance, Lane};
use crate::lease::{Lease, Terms};
use crate::metrics;
use crate::pipeline::Pipeline;
use crate::queue::{Delivery, JobQueue};
use crate::traces;

/// Time to write that a job has failed when the grace is over: what is left of `GIVE_BACK_TIME` is for settling.
const LAST_WORD_TIME: Duration = Duration::from_secs(3);

/// Handles deliveries. One per process.
pub struct DeliveryHandler {
    pub pipeline: Pipeline,
    pub tasks: TaskTracker,
    pub lease: Terms,
    pub max_receive_count: u32,
    /// Host and process, for operators.
    pub worker: String,
    /// Cancelled when the grace is over: everything is given back.
    pub aborting: CancellationToken,
}

/// How the handling ended.
enum Ended {
    Processed(Result<Outcome, JobError>),
    /// Somebody else may be working on it: settle nothing.
    LeaseLost,
    /// Given back because this process stops.
    GivenBack,
}

impl DeliveryHandler {
    /// Handles one delivery of `queue`, that of `lane`, under a lease, from when it has its `place`, and settles it exactly once, here.
    pub async fn handle<P: Send>(
        &self,
        lane: Lane,
        queue: Arc<dyn JobQueue>,
        delivery: Delivery,
        place: impl Future<Output = P> + Send,
    ) {
        let mut end = JobEnd::begin();
        let lease = Lease::hold(&self.tasks, Arc::clone(&queue), delivery.receipt.clone(), self.lease);
        let is_last = delivery.receive_count >= self.max_receive_count;
        let mut in_flight = None;
        let ended = match Job::decode(&delivery.body) {
            Ok(job) => {
                traces::queue_wait(&job, &delivery);
                end.span = span_of(&job, &delivery);
                end.traced = traces::delivery(&job, &delivery);
                let claimant = self.claimant(lane, &delivery);
                let processing = async {
                    tokio::select! {
                        biased;
                        place = place => in_flight = Some(place),
                        () = lease.lost() => return Ended::LeaseLost,
                        () = self.pipeline.stopping.cancelled() => return self.abort(&job, &claimant, is_last).await,
                    }
                    self.process(&job, &claimant, is_last, &lease).await
                };
                processing.instrument(end.traced.clone()).instrument(end.span.clone()).await
            }
            Err(error) => Ended::Processed(Err(undecodable(&error))),
        };
        let (span, traced) = (end.span.clone(), end.traced.clone());
        let disposition = span.in_scope(|| traced.in_scope(|| conclude(&ended, &delivery, is_last, &mut end)));
        async {
            lease.end().await;
            if let Some(disposition) = disposition {
                settle(queue.as_ref(), &delivery, disposition).await;
            }
        }
        .instrument(traced)
        .instrument(span)
        .await;
        drop(in_flight);
    }

    /// Puts a delivery of `queue` that nobody has begun into the batch lane, and then takes it out of its own. Returns
    /// whether it is there; should it be in both, the claim makes one job of two messages.
    pub async fn change_lanes(
        &self,
        queue: &Arc<dyn JobQueue>,
        batch: &dyn Entrance,
        delivery: &Delivery,
        job: &Job,
    ) -> bool {
        let span = span_of(job, delivery);
        async {
            let lease = Lease::hold(&self.tasks, Arc::clone(queue), delivery.receipt.clone(), self.lease);
            let put = batch.put(delivery.body.clone(), &job.tenant).await;
            lease.end().await;
            match put {
                Ok(()) => {
                    metrics::changed_lanes();
                    tracing::info!("its tenant has too many single jobs, this one goes to the batch lane");
                    settle(queue.as_ref(), delivery, Disposition::Delete).await;
                    true
                }
                Err(error) => {
                    tracing::warn!(%error, "job could not be put into the batch lane, doing it here");
                    false
                }
            }
        }
        .instrument(span)
        .await
    }

    fn claimant(&self, lane: Lane, delivery: &Delivery) -> Claimant {
        Claimant {
            token: Uuid::new_v4(),
            worker: self.worker.clone(),
            lane,
            message_id: delivery.message_id.clone(),
            receive_count: delivery.receive_count,
            duration: self.pipeline.attempt_timeout,
            call_window: call_window(self.pipeline.sources.model_timeout),
        }
    }

    async fn process(&self, job: &Job, claimant: &Claimant, is_last: bool, lease: &Lease) -> Ended {
        let processing = AssertUnwindSafe(self.pipeline.process(job, claimant, is_last)).catch_unwind();
        tokio::select! {
            biased;
            ended = processing => Ended::Processed(ended.unwrap_or_else(|_| {
                Err(JobError::new(Kind::CpuTaskPanicked, "processing panicked, see the log of the panic"))
            })),
            () = lease.lost() => Ended::LeaseLost,
            () = self.aborting.cancelled() => self.abort(job, claimant, is_last).await,
        }
    }

    /// Gives the delivery back. On the last hand-over the queue moves it to the dead-letter queue next, so the record
    /// has to say that it failed; before, whoever gets it next takes the claim over.
    async fn abort(&self, job: &Job, claimant: &Claimant, is_last: bool) -> Ended {
        if !is_last {
            return Ended::GivenBack;
        }
        match tokio::time::timeout(LAST_WORD_TIME, self.pipeline.give_back(job, claimant, is_last)).await {
            Ok(outcome) => Ended::Processed(Ok(outcome)),
            Err(_) => {
                tracing::warn!("the last hand-over ends without a word in the record: the store does not answer");
                Ended::GivenBack
            }
        }
    }
}

async fn settle(queue: &dyn JobQueue, delivery: &Delivery, disposition: Disposition) {
    let settled = match disposition {
        Disposition::Delete => queue.delete(&delivery.receipt).await,
        Disposition::RetryAfter(wait) => queue.set_visibility(&delivery.receipt, wait).await,
        // The queue moves it at the next receive once its count is used up; until then it comes back at once.
        Disposition::LeaveToDeadLetter => queue.set_visibility(&delivery.receipt, Duration::ZERO).await,
    };
    if let Err(error) = settled {
        tracing::warn!(%error, ?disposition, "delivery could not be settled, it will come back");
    }
}

fn undecodable(error: &DecodeError) -> JobError {
    let kind = match error {
        DecodeError::NewerVersion { .. } => Kind::MessageFromNewerVersion,
        DecodeError::NotJson(_) | DecodeError::NoVersion | DecodeError::Invalid(_) => Kind::MessageMalformed,
    };
    JobError::new(kind, error.to_string())
}

fn span_of(job: &Job, delivery: &Delivery) -> Span {
    // At the level that no filter leaves out: under `warn`, an info span would take the id off every line of the job.
    tracing::error_span!(
        "job",
        job.id = %job.id,
        tenant = %job.tenant,
        correlation.id = job.trace.correlation_id.as_str(),
        trace.id = job.trace.traceparent.trace_id(),
        delivery.receive_count = delivery.receive_count,
    )
}

/// Logs and counts how it ended, once, and says what to do with the delivery.
fn conclude(ended: &Ended, delivery: &Delivery, is_last: bool, end: &mut JobEnd) -> Option<Disposition> {
    let duration_ms = u64::try_from(end.started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let ended = match ended {
        Ended::LeaseLost => {
            end.outcome = "lease_lost";
            tracing::warn!(duration_ms, "stopped working on a delivery that is no longer ours");
            return None;
        }
        Ended::GivenBack => {
            end.outcome = "released";
            tracing::info!(duration_ms, "delivery given back unfinished");
            return Some(Disposition::RetryAfter(Duration::ZERO));
        }
        Ended::Processed(ended) => ended,
    };
    let disposition = Disposition::of(ended, delivery.receive_count, is_last, jitter(delivery));
    end.outcome = match ended {
        Ok(outcome) => {
            let outcome = outcome_label(outcome);
            tracing::info!(duration_ms, outcome, "job handled");
            outcome
        }
        Err(error) => {
            metrics::error(error.kind);
            end.traced.record("otel.status_code", "ERROR");
            end.traced.record("error.kind", error.kind.as_str());
            tracing::warn!(duration_ms, message.id = %delivery.message_id, error.kind = error.kind.as_str(),
                error.detail = %error.detail, ?disposition, "attempt failed");
            match (error.class(), disposition) {
                (Class::Poison, _) => "poison",
                (Class::Misconfigured, _) => "misconfigured",
                (_, Disposition::LeaveToDeadLetter) => "exhausted",
                _ => "retried",
            }
        }
    };
    Some(disposition)
}

/// Returns 0 to 1, another value for each hand-over of each message. Not at random, so that a simulated run can be
/// repeated: which message meets which fault is random enough.
fn jitter(delivery: &Delivery) -> f64 {
    let mut hasher = DefaultHasher::new();
    (&delivery.message_id, delivery.receive_count).hash(&mut hasher);
    // As many bits as a number of this type has.
    (hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64
}

fn outcome_label(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Published => "published",
        Outcome::AlreadyFinal(_) => "already_final",
        Outcome::Rejected(FailureCode::ContentFiltered) => "blocked",
        Outcome::Rejected(_) => "failed",
        Outcome::Expired => "expired",
        Outcome::HeldElsewhere { .. } => "duplicate",
        Outcome::KeyConflict => "key_conflict",
        Outcome::Superseded => "superseded",
        Outcome::GivenBack => "released",
    }
}

/// Counts the end of a delivery when dropped, so that a panic or a cancellation is counted too.
struct JobEnd {
    started: Instant,
    outcome: &'static str,
    span: Span,
    /// Disabled where traces are off.
    traced: Span,
}

impl JobEnd {
    fn begin() -> Self {
        Self { started: Instant::now(), outcome: "aborted", span: Span::none(), traced: Span::none() }
    }
}

impl Drop for JobEnd {
    fn drop(&mut self) {
        self.traced.record("outcome", self.outcome);
        metrics::job_ended(self.outcome, self.started.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use job::{IdKeys, JobSpec, TenantId, TraceContext};

    use super::*;

    #[test]
    fn the_waits_of_messages_are_spread_and_can_be_repeated() {
        let delivery = |message: u32, receive_count| Delivery {
            body: String::new(),
            receipt: String::new(),
            message_id: format!("message-{message}"),
            receive_count,
            sent_at: None,
        };
        assert_eq!(jitter(&delivery(1, 1)).to_bits(), jitter(&delivery(1, 1)).to_bits());
        assert_ne!(jitter(&delivery(1, 1)).to_bits(), jitter(&delivery(1, 2)).to_bits());
        let mut tenths = [0; 10];
        for message in 0..1000 {
            let jitter = jitter(&delivery(message, 1));
            assert!((0.0..1.0).contains(&jitter), "{jitter}");
            let tenth = (0..10).rev().find(|tenth| jitter >= f64::from(*tenth) / 10.0).unwrap_or_default();
            tenths[usize::try_from(tenth).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|count| (60..140).contains(count)), "{tenths:?}");
    }

    #[test]
    fn a_line_of_a_job_has_its_id_even_where_only_warnings_are_logged() {
        let keys: IdKeys = "test-secret-test-secret-test-secret".parse().unwrap();
        let tenant: TenantId = "north".parse().unwrap();
        let job = Job {
            id: keys.issue(&tenant),
            tenant,
            spec: JobSpec::new("a red fox".into(), None, None).unwrap(),
            submitted_at: Timestamp::UNIX_EPOCH,
            deadline_at: None,
            retries: 0,
            trace: TraceContext::generate(),
        };
        let delivery = Delivery {
            body: String::new(),
            receipt: String::new(),
            message_id: String::new(),
            receive_count: 1,
            sent_at: None,
        };
        let warnings = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).finish();
        tracing::subscriber::with_default(warnings, || assert!(!span_of(&job, &delivery).is_disabled()));
    }
}
