//! `Slots`: permission to have a delivery in flight, taken before anything is received.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics;

/// Permission to have one delivery in flight; given back when dropped.
#[derive(Debug)]
pub struct Slot {
    _permit: OwnedSemaphorePermit,
}

/// A delivery in its slot, counted from the hand-out until this is dropped. A slot alone is not counted: an idle worker
/// holds some for its long poll.
#[derive(Debug)]
pub struct InFlight {
    _slot: Slot,
    count: Arc<AtomicUsize>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
        metrics::delivery_ended();
    }
}

/// The slots of this process.
#[derive(Debug, Clone)]
pub struct Slots {
    free: Arc<Semaphore>,
    in_flight: Arc<AtomicUsize>,
}

impl Slots {
    pub fn new(total: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(total)), in_flight: Arc::default() }
    }

    /// Waits until a slot is free, then takes up to `max` of those that are. Safe to drop while it waits.
    pub async fn claim(&self, max: usize) -> Vec<Slot> {
        let first = Arc::clone(&self.free).acquire_owned().await.expect("the semaphore is never closed");
        let more = std::iter::from_fn(|| Arc::clone(&self.free).try_acquire_owned().ok()).take(max.saturating_sub(1));
        std::iter::once(first).chain(more).map(|permit| Slot { _permit: permit }).collect()
    }

    /// Puts a delivery into a slot that was claimed for it.
    pub fn hand_out(&self, slot: Slot) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        metrics::delivery_began();
        InFlight { _slot: slot, count: Arc::clone(&self.in_flight) }
    }

    /// Returns how many deliveries are in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn never_more_than_there_are_and_back_on_drop() {
        let slots = Slots::new(12);
        let first = slots.claim(10).await;
        let second = slots.claim(10).await;
        assert_eq!((first.len(), second.len(), slots.in_flight()), (10, 2, 0), "a slot is not a delivery");
        let waiting = slots.claim(10);
        tokio::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(second);
        assert_eq!(waiting.await.len(), 2);
        let deliveries: Vec<_> = first.into_iter().map(|slot| slots.hand_out(slot)).collect();
        assert_eq!(slots.in_flight(), 10);
        assert!(slots.claim(12).await.len() == 2, "a delivery keeps its slot");
        drop(deliveries);
        assert_eq!((slots.in_flight(), slots.claim(12).await.len()), (0, 12));
    }
    #[tokio::test]
    async fn the_gauge_counts_deliveries_and_not_slots() {
        let recorder = service::telemetry::recorder(&[]).unwrap().build_recorder();
        let handle = recorder.handle();
        let shown = || handle.render().lines().find(|line| line.starts_with("worker_deliveries")).map(str::to_owned);
        let slots = Slots::new(12);
        let mut claimed = slots.claim(10).await;
        ::metrics::with_local_recorder(&recorder, || {
            assert_eq!(shown(), None);
            let delivery = slots.hand_out(claimed.remove(0));
            assert_eq!(shown().as_deref(), Some("worker_deliveries_in_flight 1"));
            drop(delivery);
            assert_eq!(shown().as_deref(), Some("worker_deliveries_in_flight 0"));
        });
    }
}
