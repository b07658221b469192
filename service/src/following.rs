//! `Followed`: a value that is read again every few seconds; a read that fails changes nothing.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// A value that somebody else may change, as it was last read. Clones share it.
#[derive(Debug, Clone)]
pub struct Followed<T> {
    value: Arc<watch::Sender<T>>,
}

impl<T: Default> Default for Followed<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Followed<T> {
    /// Makes one that has this value until it is read.
    pub fn new(value: T) -> Self {
        Self { value: Arc::new(watch::Sender::new(value)) }
    }
}

impl<T: Clone + PartialEq> Followed<T> {
    /// Returns the value as it was last read.
    pub fn get(&self) -> T {
        self.value.borrow().clone()
    }

    /// Sets the value; returns whether it is another one.
    pub fn set(&self, new: T) -> bool {
        self.value.send_if_modified(|value| {
            let is_new = *value != new;
            *value = new;
            is_new
        })
    }

    /// Waits until the value satisfies `condition`. Safe to drop while it waits.
    pub async fn until(&self, condition: impl FnMut(&T) -> bool) {
        let mut receiver = self.value.subscribe();
        receiver.wait_for(condition).await.map(drop).expect("the sender is in self");
    }

    /// Reads the value at once and then again and again until `stopping`; `changed` hears of every other value. What
    /// cannot be read stays as it was, with one warning until it can be read again. `what` names it in the log.
    pub async fn follow<E: Display>(
        &self,
        what: &'static str,
        every: Duration,
        stopping: &CancellationToken,
        read: impl AsyncFn() -> Result<T, E>,
        changed: impl Fn(&T),
    ) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut was_read = true;
        loop {
            let found = tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                found = async {
                    ticks.tick().await;
                    read().await
                } => found,
            };
            match found {
                Ok(value) => {
                    if !was_read {
                        tracing::info!(what, "read again");
                    }
                    was_read = true;
                    if self.set(value.clone()) {
                        changed(&value);
                    }
                }
                Err(error) => {
                    if was_read {
                        tracing::warn!(what, %error, "cannot be read: it stays as it was");
                    }
                    was_read = false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_read_stays_as_it_was() {
        let answers = Mutex::new(vec![Ok(2), Err("gone"), Ok(1), Ok(1), Err("gone")]);
        let followed = Followed::new(0);
        let (stopping, seen) = (CancellationToken::new(), Mutex::new(Vec::new()));
        let read = async || {
            let answer = answers.lock().unwrap().pop();
            answer.unwrap_or_else(|| {
                stopping.cancel();
                Ok(2)
            })
        };
        let every = Duration::from_secs(5);
        followed.follow("the value", every, &stopping, read, |value| seen.lock().unwrap().push(*value)).await;
        assert_eq!(*seen.lock().unwrap(), [1, 2], "an error and a repeat are no change");
        assert_eq!(followed.get(), 2);
    }

    #[tokio::test]
    async fn whoever_waits_is_told() {
        let followed = Followed::<u32>::default();
        let other = followed.clone();
        let waiting = followed.until(|value| *value == 7);
        tokio::pin!(waiting);
        assert!(tokio::time::timeout(Duration::ZERO, &mut waiting).await.is_err());
        assert!(other.set(7) && !other.set(7));
        waiting.await;
    }
}
