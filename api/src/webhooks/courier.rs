//! `Courier`: takes notices from the queue, makes a webhook of each job's record, and says when it is to be tried again.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use job::{Notice, Record};
use service::readiness::Readiness;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::{Answer, Webhook, WebhookClient};
use super::event::{Event, webhook_id};
use super::metrics::{self, Outcome};
use super::queue::{Delivery, MAX_RECEIVE, NoticeQueue};
use super::receivers::{Receiver, Receivers};
use super::schedule::{TRIES, Turn, busy_wait};
use crate::store::RecordStore;
use crate::view::{JobView, Links};

/// Notices in hand at a time. Each is some kilobytes and at most one connection.
const PLACES: usize = 64;
/// A notice that was sent before its end was written finds it within this time, or there is none.
const END_WITHIN: Duration = Duration::from_secs(65);
/// For what is not a notice: a newer release may read it, and else it becomes a dead letter.
const UNREADABLE_WAIT: Duration = Duration::from_secs(300);
/// Pause after a receive that has failed; doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Delivers webhooks. One per process.
pub struct Courier {
    pub queue: Arc<dyn NoticeQueue>,
    pub records: Arc<dyn RecordStore>,
    pub receivers: Receivers,
    pub client: WebhookClient,
    /// The origins of the URLs in what is told.
    pub links: Links,
    /// How long the job queue keeps a message, as the API has it.
    pub retention: Duration,
    /// The clock: [`Timestamp::now`] but in tests.
    pub now: fn() -> Timestamp,
}

/// How a courier stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Everything in hand was settled.
    Drained,
    /// The grace ran out first: what was left comes back to the queue by itself.
    GraceRanOut,
}

/// What is done with a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settlement {
    Delete(Outcome),
    After(Duration, Outcome),
    /// Given up before: only the queue has anything to do with it.
    Leave,
}

impl Courier {
    /// Delivers until `stopping`; then nothing more is received, what arrives is given back, and tries under way may end
    /// within `grace`.
    pub async fn run(self: Arc<Self>, readiness: &Readiness, stopping: &CancellationToken, grace: Duration) -> Stopped {
        let (places, tasks) = (Arc::new(Semaphore::new(PLACES)), TaskTracker::new());
        let mut failures = 0_u32;
        readiness.clear("starting");
        loop {
            let taken = tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                taken = take(&places) => taken,
            };
            match self.queue.receive(taken.len()).await {
                Ok(deliveries) => {
                    failures = 0;
                    readiness.clear("webhook queue");
                    if stopping.is_cancelled() {
                        self.give_back(deliveries).await;
                        break;
                    }
                    for (delivery, place) in deliveries.into_iter().zip(taken) {
                        let courier = Arc::clone(&self);
                        tasks.spawn(async move {
                            courier.handle(delivery).await;
                            drop(place);
                        });
                    }
                }
                Err(error) => {
                    drop(taken);
                    readiness.block("webhook queue", error.to_string());
                    tracing::warn!(%error, failures, "receive failed, trying again: check SQS_WEBHOOK_QUEUE_URL if it goes on");
                    let pause = FIRST_PAUSE.saturating_mul(2_u32.pow(failures.min(8))).min(MAX_PAUSE);
                    failures = failures.saturating_add(1);
                    tokio::select! {
                        () = stopping.cancelled() => break,
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
        readiness.block("stopping", "the process is finishing its tries");
        tasks.close();
        match tokio::time::timeout(grace, tasks.wait()).await {
            Ok(()) => Stopped::Drained,
            Err(_) => Stopped::GraceRanOut,
        }
    }

    async fn give_back(&self, deliveries: Vec<Delivery>) {
        for delivery in deliveries {
            if let Err(error) = self.queue.set_visibility(&delivery.receipt, Duration::ZERO).await {
                tracing::warn!(%error, "notice could not be given back, it comes back by itself");
            }
        }
    }

    /// Handles one notice and settles it.
    pub async fn handle(&self, delivery: Delivery) {
        let settlement = self.deliver(&delivery).await;
        let settled = match settlement {
            Settlement::Delete(_) => self.queue.delete(&delivery.receipt).await,
            Settlement::After(wait, _) => self.queue.set_visibility(&delivery.receipt, wait).await,
            Settlement::Leave => self.queue.set_visibility(&delivery.receipt, Duration::ZERO).await,
        };
        if let Settlement::Delete(outcome) | Settlement::After(_, outcome) = settlement {
            metrics::ended(outcome);
        }
        if let Err(error) = settled {
            tracing::warn!(%error, "notice could not be settled, it comes back within a minute");
        }
    }

    async fn deliver(&self, delivery: &Delivery) -> Settlement {
        let notice = match Notice::decode(&delivery.body) {
            Ok(notice) => notice,
            Err(error) => {
                tracing::warn!(%error, "not a notice");
                return Settlement::After(UNREADABLE_WAIT, Outcome::Unreadable);
            }
        };
        let Some(receiver) = self.receivers.of(&notice.tenant) else {
            return Settlement::Delete(Outcome::NoReceiver);
        };
        let age = self.age(delivery);
        let turn = Turn::of(delivery.receive_count, age);
        if turn == Turn::GivenUp {
            return Settlement::Leave;
        }
        let busy = |outcome| Settlement::After(busy_wait(delivery.receive_count, jitter()), outcome);
        let Some(_place) = receiver.place() else { return busy(Outcome::Busy) };
        let record = match self.records.read(&notice.id).await {
            Ok(found) => found.map(|(record, _)| record),
            Err(error) => {
                tracing::warn!(job.id = %notice.id, %error, "record cannot be read: the webhook has to wait");
                return busy(Outcome::StoreFailed);
            }
        };
        let ended = record.filter(|record| record.status.is_final() && record.tenant == notice.tenant);
        match ended {
            // Whoever cannot tell a second time tells before it writes: the end may be on its way.
            None if age < END_WITHIN => Settlement::After(Duration::from_secs(5), Outcome::NoNews),
            None => Settlement::Delete(Outcome::NoNews),
            // Asked for again since, and ended again: that end has a notice of its own.
            Some(record) if notice.retries < record.retries => Settlement::Delete(Outcome::NoNews),
            Some(record) => self.attempt(&record, receiver, turn).await,
        }
    }

    async fn attempt(&self, record: &Record, receiver: &Receiver, turn: Turn) -> Settlement {
        let now = (self.now)();
        let view = JobView::new(&record.id, Some(record), now, self.retention, &self.links);
        let payload = serde_json::to_string(&Event::of(record, view)).expect("an event always serialises");
        let id = webhook_id(record);
        let webhook = Webhook { id: &id, timestamp: now.as_second(), payload: &payload };
        let number = match turn {
            Turn::Try(number) => number,
            Turn::GivenUp => TRIES,
        };
        let started = Instant::now();
        let answer = self.client.send(receiver, webhook).await;
        let took = started.elapsed();
        metrics::tried(took);
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let (job_id, tenant) = (&record.id, record.tenant.as_str());
        match answer {
            Answer::Taken(status) => {
                tracing::info!(job.id = %job_id, tenant, webhook.id = id, webhook.number = number,
                    http.status = status.as_u16(), duration_ms, "webhook delivered");
                Settlement::Delete(Outcome::Delivered)
            }
            Answer::Gone => {
                tracing::warn!(job.id = %job_id, tenant, webhook.id = id, webhook.number = number, http.status = 410,
                    duration_ms, "receiver wants no more webhooks: take it out of WEBHOOKS");
                Settlement::Delete(Outcome::Gone)
            }
            Answer::Later { status, retry_after, reason } => {
                let wait = turn.wait(retry_after, jitter());
                let status = status.map(|status| status.as_u16());
                let outcome = if turn.is_last() { Outcome::Exhausted } else { Outcome::Failed };
                tracing::warn!(job.id = %job_id, tenant, webhook.id = id, webhook.number = number, http.status = status,
                    duration_ms, reason, outcome = outcome.as_str(), wait_seconds = wait.as_secs(),
                    "webhook not delivered");
                Settlement::After(wait, outcome)
            }
        }
    }

    /// Time since the notice was sent, by two clocks that may differ.
    fn age(&self, delivery: &Delivery) -> Duration {
        let since = delivery.sent_at.map(|sent_at| (self.now)().duration_since(sent_at));
        since.and_then(|since| Duration::try_from(since).ok()).unwrap_or_default()
    }
}

/// Waits for a place, and takes what more there are, as many as one receive may bring.
async fn take(places: &Arc<Semaphore>) -> Vec<OwnedSemaphorePermit> {
    let first = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
    let more = std::iter::from_fn(|| Arc::clone(places).try_acquire_owned().ok());
    std::iter::once(first).chain(more.take(MAX_RECEIVE - 1)).collect()
}

/// Returns 0 to 1, another number each time: every hasher of this kind has random keys.
fn jitter() -> f64 {
    (RandomState::new().hash_one(0_u8) >> 11) as f64 / (1_u64 << 53) as f64
}
