//! `Places` and `Pace`: how many may wait for their jobs at a time, and how often each of them reads the store.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// First pause between two reads; it doubles up to the longest. S3 costs 0.4 USD per million reads, so a request held for
/// 20 s costs less than 0.00001 USD, and an hour of a stream less than 0.001 USD.
const MIN_PAUSE: Duration = Duration::from_millis(250);

/// Who waits for a job at a time: bounded, since each of them reads the store again and again.
pub struct Places {
    places: Arc<Semaphore>,
    stopping: CancellationToken,
}

impl Places {
    /// Makes room for `max`; all who wait are to leave when `stopping` is cancelled.
    pub fn new(max: u32, stopping: CancellationToken) -> Self {
        Self { places: Arc::new(Semaphore::new(usize::try_from(max).unwrap_or(usize::MAX))), stopping }
    }

    /// Takes a place until dropped; `None` when there is none.
    pub fn take(&self) -> Option<Place> {
        let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Place { stopping: self.stopping.clone(), _permit: permit })
    }
}

/// One who may wait.
pub struct Place {
    stopping: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

/// Why a pause has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paused {
    /// It is time to read again.
    Over,
    /// The process stops.
    Stopping,
}

impl Place {
    /// Waits for the next read, at most until `deadline`.
    pub async fn pause(&self, pace: &mut Pace, deadline: Instant) -> Paused {
        let next = deadline.min(Instant::now() + pace.next);
        tokio::select! {
            biased;
            () = self.stopping.cancelled() => Paused::Stopping,
            () = tokio::time::sleep_until(next) => {
                pace.next = (pace.next * 2).min(pace.longest);
                Paused::Over
            }
        }
    }
}

/// The pauses between the reads of one who waits.
pub struct Pace {
    next: Duration,
    longest: Duration,
}

impl Pace {
    pub fn up_to(longest: Duration) -> Self {
        Self { next: MIN_PAUSE, longest }
    }

    /// Something has changed: the next change may be near.
    pub fn quicken(&mut self) {
        self.next = MIN_PAUSE;
    }

    /// The store is in trouble: it is left alone for as long as possible.
    pub fn slow_down(&mut self) {
        self.next = self.longest;
    }
}
