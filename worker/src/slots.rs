//! `Slots`: permission to have a delivery in flight, taken before anything is received.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permission to have one delivery in flight; given back when dropped.
#[derive(Debug)]
pub struct Slot {
    _permit: OwnedSemaphorePermit,
}

/// The slots of this process.
#[derive(Debug, Clone)]
pub struct Slots {
    total: usize,
    free: Arc<Semaphore>,
}

impl Slots {
    pub fn new(total: usize) -> Self {
        Self { total, free: Arc::new(Semaphore::new(total)) }
    }

    /// Waits until a slot is free, then takes up to `max` of those that are. Safe to drop while it waits.
    pub async fn claim(&self, max: usize) -> Vec<Slot> {
        let first = Arc::clone(&self.free).acquire_owned().await.expect("the semaphore is never closed");
        let more = std::iter::from_fn(|| Arc::clone(&self.free).try_acquire_owned().ok()).take(max.saturating_sub(1));
        std::iter::once(first).chain(more).map(|permit| Slot { _permit: permit }).collect()
    }

    /// Returns how many deliveries are in flight.
    pub fn in_flight(&self) -> usize {
        self.total - self.free.available_permits()
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
        assert_eq!((first.len(), second.len(), slots.in_flight()), (10, 2, 12));
        let waiting = slots.claim(10);
        tokio::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(second);
        assert_eq!(waiting.await.len(), 2);
        drop(first);
        assert_eq!(slots.in_flight(), 0);
    }
}
