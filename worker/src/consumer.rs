//! `Consumer`: receives what can start now, hands it out, and drains at the end.

use std::sync::Arc;
use std::time::Duration;

use job::Pause;
use service::following::Followed;
use service::readiness::Readiness;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::circuit::Circuit;
use crate::delivery::DeliveryHandler;
use crate::metrics;
use crate::models::Models;
use crate::queue::{Delivery, JobQueue, MAX_RECEIVE, QueueError};
use crate::slots::{Slot, Slots};

/// Name of the queue among the reasons of `/ready`.
const COMPONENT: &str = "queue";
/// Pause after a failed receive; doubles up to the maximum.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(20);
/// How often an open circuit is looked at again while deliveries are in flight.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Time to give everything back once the grace is over.
const GIVE_BACK_TIME: Duration = Duration::from_secs(5);

/// The receiving loop of a worker process.
pub struct Consumer {
    pub queue: Arc<dyn JobQueue>,
    pub handler: Arc<DeliveryHandler>,
    pub slots: Slots,
    pub models: Models,
    pub circuit: Circuit,
    /// Whether operators have paused generation. A long poll under way when they do is the last one.
    pub pause: Followed<Option<Pause>>,
    pub readiness: Readiness,
    pub tasks: TaskTracker,
    pub stopping: CancellationToken,
    pub aborting: CancellationToken,
    pub grace: Duration,
}

/// How the stop went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Everything in flight was finished or given back.
    Clean,
    /// The grace ran out; what was in flight has been given back.
    GraceOver,
}

impl Consumer {
    /// Receives until `stopping` is cancelled, then drains within the grace.
    pub async fn run(&self) -> Drained {
        let mut failures = 0_u32;
        loop {
            let slots = tokio::select! {
                biased;
                () = self.stopping.cancelled() => break,
                slots = self.room() => slots,
            };
            // Awaited, never dropped: the queue may have handed something over already.
            match self.queue.receive(slots.len()).await {
                Ok(deliveries) => {
                    failures = 0;
                    self.readiness.clear(COMPONENT);
                    metrics::received(if deliveries.is_empty() { "empty" } else { "messages" });
                    if self.stopping.is_cancelled() {
                        self.give_back(deliveries).await;
                        break;
                    }
                    self.hand_out(deliveries, slots);
                }
                Err(error) => {
                    drop(slots);
                    failures = failures.saturating_add(1);
                    metrics::received("failed");
                    self.pause(&error, failures).await;
                }
            }
        }
        self.drain().await
    }

    /// Waits until a delivery could start now, and takes the slots for it.
    async fn room(&self) -> Vec<Slot> {
        loop {
            self.pause.until(Option::is_none).await;
            if self.circuit.is_open() {
                if self.slots.in_flight() == 0 {
                    // Nobody is left who could notice the end of the fault, so the next delivery does.
                    tokio::select! {
                        biased;
                        () = self.circuit.closed() => continue,
                        () = self.circuit.probe_due() => {
                            if self.is_paused() {
                                continue;
                            }
                            return self.slots.claim(1).await;
                        }
                    }
                }
                tokio::select! {
                    biased;
                    () = self.circuit.closed() => {}
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                }
                continue;
            }
            self.models.nobody_waiting().await;
            let slots = self.slots.claim(MAX_RECEIVE).await;
            if !self.circuit.is_open() && !self.is_paused() {
                return slots;
            }
        }
    }

    fn is_paused(&self) -> bool {
        self.pause.get().is_some()
    }

    fn hand_out(&self, deliveries: Vec<Delivery>, slots: Vec<Slot>) {
        for (delivery, slot) in deliveries.into_iter().zip(slots) {
            let handler = Arc::clone(&self.handler);
            let in_flight = self.slots.hand_out(slot);
            self.tasks.spawn(async move { handler.handle(delivery, in_flight).await });
        }
    }

    async fn pause(&self, error: &QueueError, failures: u32) {
        let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures.min(16) - 1)).min(MAX_PAUSE);
        match error {
            QueueError::Misconfigured(_) => {
                self.readiness.block(COMPONENT, error.to_string());
                tracing::error!(%error, failures, "receive failed: check SQS_QUEUE_URL and the role's permissions");
            }
            QueueError::Unavailable(_) | QueueError::NotOurs(_) => {
                self.readiness.block(COMPONENT, error.to_string());
                tracing::warn!(%error, failures, "receive failed, trying again");
            }
        }
        tokio::select! {
            biased;
            () = tokio::time::sleep(pause) => {}
            () = self.stopping.cancelled() => {}
        }
    }

    async fn give_back(&self, deliveries: Vec<Delivery>) {
        if !deliveries.is_empty() {
            tracing::info!(count = deliveries.len(), "giving back what arrived after the signal");
        }
        futures::future::join_all(deliveries.iter().map(|delivery| async {
            if let Err(error) = self.queue.set_visibility(&delivery.receipt, Duration::ZERO).await {
                tracing::warn!(%error, message.id = %delivery.message_id, "delivery could not be given back");
            }
        }))
        .await;
    }

    async fn drain(&self) -> Drained {
        self.readiness.block("stopping", "the process is draining");
        tracing::info!(in_flight = self.slots.in_flight(), grace_seconds = self.grace.as_secs(), "draining");
        self.tasks.close();
        if tokio::time::timeout(self.grace, self.tasks.wait()).await.is_ok() {
            tracing::info!("drained");
            return Drained::Clean;
        }
        tracing::warn!(in_flight = self.slots.in_flight(), "grace is over, giving back what is in flight");
        self.aborting.cancel();
        if tokio::time::timeout(GIVE_BACK_TIME, self.tasks.wait()).await.is_err() {
            tracing::warn!("tasks are still running, leaving them");
        }
        Drained::GraceOver
    }
}
