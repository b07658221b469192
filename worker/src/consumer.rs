//! `Consumer`: receives what can start now from each lane, hands it out, and drains at the end.

use std::sync::Arc;
use std::time::Duration;

use job::{Job, Pause};
use service::following::Followed;
use service::readiness::Readiness;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::circuit::Circuit;
use crate::delivery::DeliveryHandler;
use crate::lane::{BatchLane, Lane};
use crate::metrics;
use crate::models::Models;
use crate::queue::{Delivery, JobQueue, MAX_RECEIVE, QueueError};
use crate::slots::{Slot, Slots};
use crate::tenants::{Presence, Tenants, Turn};

/// Pause after a failed receive; doubles up to the maximum.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(20);
/// How often an open circuit is looked at again while deliveries are in flight.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Time to give everything back once the grace is over.
const GIVE_BACK_TIME: Duration = Duration::from_secs(5);

/// The receiving loops of a worker process: one for each lane.
pub struct Consumer {
    pub queue: Arc<dyn JobQueue>,
    /// The second lane and what goes with it, where the fleet has one.
    pub lanes: Option<Lanes>,
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

/// What a fleet with two lanes has beyond one with a single queue.
pub struct Lanes {
    pub batch: BatchLane,
    /// Slots that batches never have: the interactive lane polls with them.
    pub kept: usize,
    pub tenants: Tenants,
    /// Permits for deliveries without a slot: those that wait for their tenant's turn, and those that change lanes.
    pub aside: Arc<Semaphore>,
}

impl Lanes {
    /// Makes them for a worker of `slots` slots.
    pub fn new(batch: BatchLane, slots: usize, kept: usize, tenant_slots: usize) -> Self {
        let aside = Arc::new(Semaphore::new(2 * (slots + MAX_RECEIVE)));
        Self { batch, kept, tenants: Tenants::new(tenant_slots), aside }
    }
}

/// How much the last receive of a lane brought: a lane that is busy is asked for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// Nothing.
    Idle,
    Busy,
    /// A tenant had too much in it, so that others may wait behind.
    Flooded,
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
        match &self.lanes {
            None => self.receive_from(Lane::Interactive, &self.queue).await,
            Some(lanes) => {
                let interactive = self.receive_from(Lane::Interactive, &self.queue);
                tokio::join!(biased; interactive, self.receive_from(Lane::Batch, &lanes.batch.queue));
            }
        }
        self.drain().await
    }

    async fn receive_from(&self, lane: Lane, queue: &Arc<dyn JobQueue>) {
        let (mut failures, mut flow) = (0_u32, Flow::Idle);
        loop {
            let (slots, aside) = tokio::select! {
                biased;
                () = self.stopping.cancelled() => break,
                room = self.room(lane, flow) => room,
            };
            let max = if aside.is_some() { MAX_RECEIVE } else { slots.len() };
            let slots = if lane == Lane::Batch {
                // Lent to the interactive lane until something comes: a delivery that finds them taken waits for the next.
                drop(slots);
                Vec::new()
            } else {
                slots
            };
            // Awaited, never dropped: the queue may have handed something over already.
            match queue.receive(max).await {
                Ok(deliveries) => {
                    failures = 0;
                    self.readiness.clear(lane.component());
                    metrics::received(lane, if deliveries.is_empty() { "empty" } else { "messages" });
                    if self.stopping.is_cancelled() {
                        give_back(queue, deliveries).await;
                        break;
                    }
                    flow = self.hand_out(lane, queue, deliveries, slots, aside);
                }
                Err(error) => {
                    drop((slots, aside));
                    failures = failures.saturating_add(1);
                    metrics::received(lane, "failed");
                    self.pause(lane, &error, failures).await;
                }
            }
        }
    }

    /// Waits until a delivery of this lane could start now, and takes the slots for it; where a tenant has too much in it,
    /// room for what cannot start instead.
    async fn room(&self, lane: Lane, flow: Flow) -> (Vec<Slot>, Option<OwnedSemaphorePermit>) {
        let most = match (&self.lanes, lane, flow) {
            (Some(lanes), Lane::Interactive, Flow::Idle | Flow::Flooded) => lanes.kept.clamp(1, MAX_RECEIVE),
            _ => MAX_RECEIVE,
        };
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
                            return (self.slots.claim(lane, 1).await, None);
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
            self.models.nobody_waiting(lane).await;
            let room = match &self.lanes {
                // Most of what comes changes lanes, and needs no slot for that.
                Some(lanes) if flow == Flow::Flooded => {
                    let receive = u32::try_from(MAX_RECEIVE).expect("ten");
                    let aside = Arc::clone(&lanes.aside).acquire_many_owned(receive).await;
                    (Vec::new(), Some(aside.expect("the semaphore is never closed")))
                }
                _ => (self.slots.claim(lane, most).await, None),
            };
            if !self.circuit.is_open() && !self.is_paused() {
                return room;
            }
        }
    }

    fn is_paused(&self) -> bool {
        self.pause.get().is_some()
    }

    fn hand_out(
        &self,
        lane: Lane,
        queue: &Arc<dyn JobQueue>,
        deliveries: Vec<Delivery>,
        slots: Vec<Slot>,
        mut aside: Option<OwnedSemaphorePermit>,
    ) -> Flow {
        let mut flow = if deliveries.is_empty() { Flow::Idle } else { Flow::Busy };
        let mut slots = slots.into_iter();
        for delivery in deliveries {
            let Some((lanes, job)) = self.lanes.as_ref().filter(|_| lane == Lane::Interactive).and_then(|lanes| {
                // What is no job is nobody's, and is settled in no time.
                Some((lanes, Job::decode(&delivery.body).ok()?))
            }) else {
                self.start(lane, queue, delivery, slots.next(), None);
                continue;
            };
            match lanes.tenants.enter(&job.tenant).map(Presence::at_once) {
                Some(Ok(turn)) => {
                    let slot = slots.next();
                    let room = if slot.is_none() { split(&mut aside) } else { None };
                    self.start(lane, queue, delivery, slot, Some((turn, room)));
                }
                waiting => {
                    flow = Flow::Flooded;
                    let room = split(&mut aside);
                    self.set_aside(lanes, queue, delivery, job, waiting.and_then(Result::err), room);
                }
            }
        }
        flow
    }

    /// Handles a delivery, in its slot or in the next one that its lane may have.
    fn start(
        &self,
        lane: Lane,
        queue: &Arc<dyn JobQueue>,
        delivery: Delivery,
        slot: Option<Slot>,
        turn: Option<(Turn, Option<OwnedSemaphorePermit>)>,
    ) {
        let (handler, queue, slots) = (Arc::clone(&self.handler), Arc::clone(queue), self.slots.clone());
        // Counted from now on, and not from when its task is first polled: the next receive would take the slot.
        let in_flight = slot.or_else(|| slots.at_once(lane)).map(|slot| slots.hand_out(slot));
        self.tasks.spawn(async move {
            let place = async {
                match in_flight {
                    Some(in_flight) => (in_flight, turn),
                    None => (slots.next(lane).await, turn),
                }
            };
            handler.handle(lane, queue, delivery, place).await;
        });
    }

    /// Keeps a delivery, under its lease and without a slot, until it is its tenant's turn. One that its tenant has too many
    /// before goes to the batch lane: it must not stand in the way of other tenants.
    fn set_aside(
        &self,
        lanes: &Lanes,
        queue: &Arc<dyn JobQueue>,
        delivery: Delivery,
        job: Job,
        presence: Option<Presence>,
        room: Option<OwnedSemaphorePermit>,
    ) {
        let (handler, queue, slots) = (Arc::clone(&self.handler), Arc::clone(queue), self.slots.clone());
        let (tenants, entrance) = (lanes.tenants.clone(), Arc::clone(&lanes.batch.entrance));
        self.tasks.spawn(async move {
            let _room = room;
            let presence = match presence {
                Some(presence) => presence,
                // A later hand-over may find a claim of the message that it is. Another message would wait for its end.
                None if delivery.receive_count > 1 => tenants.insist(&job.tenant),
                None => {
                    if handler.change_lanes(&queue, entrance.as_ref(), &delivery, &job).await {
                        return;
                    }
                    tenants.insist(&job.tenant)
                }
            };
            let place = async {
                let turn = presence.turn().await;
                (slots.next(Lane::Interactive).await, turn)
            };
            handler.handle(Lane::Interactive, queue, delivery, place).await;
        });
    }

    async fn pause(&self, lane: Lane, error: &QueueError, failures: u32) {
        let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures.min(16) - 1)).min(MAX_PAUSE);
        let setting = match lane {
            Lane::Interactive => "SQS_QUEUE_URL",
            Lane::Batch => "SQS_BATCH_QUEUE_URL",
        };
        self.readiness.block(lane.component(), error.to_string());
        match error {
            QueueError::Misconfigured(_) => {
                tracing::error!(%error, failures, "receive failed: check {setting} and the role's permissions");
            }
            QueueError::Unavailable(_) | QueueError::NotOurs(_) => {
                tracing::warn!(%error, failures, lane = lane.as_str(), "receive failed, trying again");
            }
        }
        tokio::select! {
            biased;
            () = tokio::time::sleep(pause) => {}
            () = self.stopping.cancelled() => {}
        }
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

fn split(aside: &mut Option<OwnedSemaphorePermit>) -> Option<OwnedSemaphorePermit> {
    aside.as_mut().and_then(|aside| aside.split(1))
}

async fn give_back(queue: &Arc<dyn JobQueue>, deliveries: Vec<Delivery>) {
    if !deliveries.is_empty() {
        tracing::info!(count = deliveries.len(), "giving back what arrived after the signal");
    }
    futures::future::join_all(deliveries.iter().map(|delivery| async {
        if let Err(error) = queue.set_visibility(&delivery.receipt, Duration::ZERO).await {
            tracing::warn!(%error, message.id = %delivery.message_id, "delivery could not be given back");
        }
    }))
    .await;
}
