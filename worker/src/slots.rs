//! `Slots`: permission to have a delivery in flight, taken before anything is received, shared by two lanes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::lane::Lane;
use crate::metrics;

/// While both lanes want slots, the batch lane gets one after so many deliveries of the interactive lane.
pub const INTERACTIVE_WEIGHT: usize = 4;

/// Permission to have one delivery in flight; given back when dropped.
#[derive(Debug)]
pub struct Slot {
    shared: Arc<Shared>,
    lane: Lane,
}

impl Drop for Slot {
    fn drop(&mut self) {
        {
            let mut state = self.shared.state();
            state.free += 1;
            if self.lane == Lane::Batch {
                state.batch -= 1;
            }
        }
        self.shared.changed.notify_waiters();
    }
}

/// A delivery in its slot, counted from the hand-out until this is dropped. A slot alone is not counted: an idle worker
/// holds some for its long poll.
#[derive(Debug)]
pub struct InFlight {
    slot: Slot,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let shared = &self.slot.shared;
        if self.slot.lane == Lane::Interactive {
            shared.state().interactive -= 1;
        }
        shared.in_flight.fetch_sub(1, Ordering::SeqCst);
        metrics::delivery_ended();
    }
}

/// The slots of this process.
#[derive(Debug, Clone)]
pub struct Slots {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// All slots but those that are kept for the interactive lane.
    batch_limit: usize,
    state: Mutex<State>,
    /// A slot has been given back, or somebody waits no longer.
    changed: Notify,
    in_flight: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    free: usize,
    /// Slots that the batch lane has.
    batch: usize,
    /// Deliveries of the interactive lane that have a slot.
    interactive: usize,
    interactive_waiting: usize,
    batch_waiting: usize,
    /// Of those who wait, the ones who have a delivery already: they come before what is still to be received.
    interactive_starting: usize,
    batch_starting: usize,
    /// Deliveries of the interactive lane that began while the batch lane waited, since one of its own did.
    passed_over: usize,
}

impl State {
    /// Takes up to `max` slots for a lane out of those that it may have now.
    fn take(&mut self, lane: Lane, max: usize, batch_limit: usize) -> usize {
        let batch_is_due = self.passed_over >= INTERACTIVE_WEIGHT;
        let taken = match lane {
            Lane::Interactive if self.batch_wants(batch_limit) => {
                self.free.min(max).min(INTERACTIVE_WEIGHT.saturating_sub(self.passed_over))
            }
            Lane::Interactive => self.free.min(max),
            Lane::Batch if self.interactive_waiting > 0 && !batch_is_due => 0,
            Lane::Batch => {
                // What is kept is kept free, beside the interactive jobs that run: the next one is to start at once.
                let room = batch_limit.saturating_sub(self.batch + self.interactive);
                // Unless those never leave any.
                let room = if batch_is_due && self.batch < batch_limit { room.max(1) } else { room };
                let max = if self.interactive_waiting > 0 { 1 } else { max };
                self.free.min(max).min(room)
            }
        };
        self.free -= taken;
        if lane == Lane::Batch {
            self.batch += taken;
        }
        taken
    }

    fn batch_wants(&self, batch_limit: usize) -> bool {
        self.batch_waiting > 0 && self.batch < batch_limit
    }

    fn waiting(&mut self, lane: Lane) -> (&mut usize, &mut usize) {
        match lane {
            Lane::Interactive => (&mut self.interactive_waiting, &mut self.interactive_starting),
            Lane::Batch => (&mut self.batch_waiting, &mut self.batch_starting),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    /// Makes `total` slots, of which the batch lane leaves `kept` free for the interactive lane.
    pub fn new(total: usize, kept: usize) -> Self {
        let shared = Shared {
            batch_limit: total.saturating_sub(kept),
            state: Mutex::new(State { free: total, ..State::default() }),
            changed: Notify::new(),
            in_flight: AtomicUsize::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Waits until `lane` may have a slot, then takes up to `max` of those that are free. Safe to drop while it waits.
    pub async fn claim(&self, lane: Lane, max: usize) -> Vec<Slot> {
        self.wait(lane, max, false).await
    }

    async fn wait(&self, lane: Lane, max: usize, starting: bool) -> Vec<Slot> {
        let _waiting = Waiting::begin(&self.shared, lane, starting);
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let slots = self.take(lane, max, starting);
            if !slots.is_empty() {
                return slots;
            }
            changed.await;
        }
    }

    fn take(&self, lane: Lane, max: usize, starting: bool) -> Vec<Slot> {
        let mut state = self.shared.state();
        if !starting && *state.waiting(lane).1 > 0 {
            return Vec::new();
        }
        let taken = state.take(lane, max, self.shared.batch_limit);
        (0..taken).map(|_| Slot { shared: Arc::clone(&self.shared), lane }).collect()
    }

    /// Takes a slot for a delivery that is there already, if there is one now.
    pub fn at_once(&self, lane: Lane) -> Option<Slot> {
        self.take(lane, 1, true).pop()
    }

    /// Waits for a slot and puts a delivery that is there already into it. Safe to drop while it waits.
    pub async fn next(&self, lane: Lane) -> InFlight {
        loop {
            if let Some(slot) = self.wait(lane, 1, true).await.pop() {
                return self.hand_out(slot);
            }
        }
    }

    /// Puts a delivery into a slot that was claimed for it.
    pub fn hand_out(&self, slot: Slot) -> InFlight {
        {
            let mut state = self.shared.state();
            match slot.lane {
                Lane::Interactive => {
                    state.interactive += 1;
                    state.passed_over += usize::from(state.batch_wants(self.shared.batch_limit));
                }
                Lane::Batch => state.passed_over = 0,
            }
        }
        self.shared.in_flight.fetch_add(1, Ordering::SeqCst);
        metrics::delivery_began();
        InFlight { slot }
    }

    /// Returns how many deliveries are in flight.
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::SeqCst)
    }
}

/// One who waits for a slot: the other lane is told when he no longer does.
struct Waiting<'a> {
    shared: &'a Shared,
    lane: Lane,
    starting: bool,
}

impl<'a> Waiting<'a> {
    fn begin(shared: &'a Shared, lane: Lane, starting: bool) -> Self {
        {
            let mut state = shared.state();
            let (waiting, with_delivery) = state.waiting(lane);
            *waiting += 1;
            *with_delivery += usize::from(starting);
        }
        Self { shared, lane, starting }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        {
            let mut state = self.shared.state();
            let (waiting, with_delivery) = state.waiting(self.lane);
            *waiting -= 1;
            *with_delivery -= usize::from(self.starting);
        }
        self.shared.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn never_more_than_there_are_and_back_on_drop() {
        let slots = Slots::new(12, 0);
        let first = slots.claim(Lane::Interactive, 10).await;
        let second = slots.claim(Lane::Interactive, 10).await;
        assert_eq!((first.len(), second.len(), slots.in_flight()), (10, 2, 0), "a slot is not a delivery");
        let waiting = slots.claim(Lane::Interactive, 10);
        tokio::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(second);
        assert_eq!(waiting.await.len(), 2);
        let deliveries: Vec<_> = first.into_iter().map(|slot| slots.hand_out(slot)).collect();
        assert_eq!(slots.in_flight(), 10);
        assert!(slots.claim(Lane::Interactive, 12).await.len() == 2, "a delivery keeps its slot");
        drop(deliveries);
        assert_eq!((slots.in_flight(), slots.claim(Lane::Interactive, 12).await.len()), (0, 12));
    }

    #[tokio::test]
    async fn batches_leave_what_is_kept_for_the_interactive_lane() {
        let slots = Slots::new(4, 1);
        let batch = slots.claim(Lane::Batch, 10).await;
        assert_eq!(batch.len(), 3);
        let mut more = Box::pin(slots.claim(Lane::Batch, 10));
        assert!(futures::poll!(&mut more).is_pending());
        let interactive = slots.claim(Lane::Interactive, 10).await;
        assert_eq!(interactive.len(), 1);
        // It waits no more once a slot is given back that it may have.
        drop(batch);
        assert_eq!(more.await.len(), 3);
    }

    #[tokio::test]
    async fn interactive_jobs_that_run_do_not_use_up_what_is_kept() {
        let slots = Slots::new(4, 1);
        let claimed = slots.claim(Lane::Interactive, 2).await;
        let running: Vec<_> = claimed.into_iter().map(|slot| slots.hand_out(slot)).collect();
        assert_eq!(slots.claim(Lane::Batch, 10).await.len(), 1, "two run, one is left free");
        drop(running);
        assert_eq!(slots.claim(Lane::Batch, 10).await.len(), 3);
    }

    #[tokio::test]
    async fn while_both_wait_the_batch_lane_gets_one_in_five() {
        let slots = Slots::new(1, 0);
        let mut order = String::new();
        let began = async |lane| slots.next(lane).await;
        let mut held = Some(began(Lane::Interactive).await);
        let mut interactive = Box::pin(began(Lane::Interactive));
        let mut batch = Box::pin(began(Lane::Batch));
        assert!(futures::poll!(&mut interactive).is_pending() && futures::poll!(&mut batch).is_pending());
        for _ in 0..20 {
            drop(held.take());
            tokio::select! {
                slot = &mut batch => {
                    order.push('b');
                    held = Some(slot);
                    batch = Box::pin(began(Lane::Batch));
                    assert!(futures::poll!(&mut batch).is_pending());
                }
                slot = &mut interactive => {
                    order.push('i');
                    held = Some(slot);
                    interactive = Box::pin(began(Lane::Interactive));
                    assert!(futures::poll!(&mut interactive).is_pending());
                }
            }
        }
        assert_eq!(order, "iiiib".repeat(4));
    }

    #[tokio::test]
    async fn who_gives_up_waiting_is_in_nobodys_way() {
        let slots = Slots::new(1, 0);
        let held = slots.claim(Lane::Interactive, 1).await;
        let mut interactive = Box::pin(slots.claim(Lane::Interactive, 1));
        let mut batch = Box::pin(slots.claim(Lane::Batch, 1));
        assert!(futures::poll!(&mut interactive).is_pending() && futures::poll!(&mut batch).is_pending());
        drop(held);
        assert!(futures::poll!(&mut batch).is_pending(), "the interactive lane comes first");
        drop(interactive);
        assert_eq!(batch.await.len(), 1);
    }

    #[tokio::test]
    async fn the_gauge_counts_deliveries_and_not_slots() {
        let recorder = service::telemetry::recorder(&[]).unwrap().build_recorder();
        let handle = recorder.handle();
        let shown = || handle.render().lines().find(|line| line.starts_with("worker_deliveries")).map(str::to_owned);
        let slots = Slots::new(12, 0);
        let mut claimed = slots.claim(Lane::Interactive, 10).await;
        ::metrics::with_local_recorder(&recorder, || {
            assert_eq!(shown(), None);
            let delivery = slots.hand_out(claimed.remove(0));
            assert_eq!(shown().as_deref(), Some("worker_deliveries_in_flight 1"));
            drop(delivery);
            assert_eq!(shown().as_deref(), Some("worker_deliveries_in_flight 0"));
        });
    }
}
