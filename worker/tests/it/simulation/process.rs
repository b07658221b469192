//! `Process`: one worker's process, as the outside sees it: it runs, is frozen, or is dead, and talks over a bad network.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep};
use worker::pipeline::Clock;

use super::plan::Service;
use super::world::World;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Running,
    Frozen,
    /// Nothing that it does from now on is seen by anybody; its tasks wait for ever.
    Dead,
}

/// A process. Its tasks cannot be stopped from outside, but whatever they want of the world goes through here.
pub struct Process {
    pub number: usize,
    pub world: Arc<World>,
    // Not a `watch`: that wakes those who wait in a random order.
    life: Mutex<Life>,
    changed: Notify,
    /// Until then it cannot reach the queue.
    cut_off_until: Mutex<Option<Instant>>,
    /// How far its clock is off.
    skew: SignedDuration,
}

/// Why a call did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Unavailable,
    Denied,
}

/// How a call fares.
enum Fate {
    Arrives {
        request: Duration,
        answer: Duration,
        repeated: bool,
    },
    /// Whether it happened nevertheless.
    Lost {
        happens: bool,
    },
}

impl Process {
    pub fn start(number: usize, world: Arc<World>) -> Arc<Self> {
        // A claim has a margin of a minute for two clocks that differ.
        let skew = SignedDuration::from_millis(world.random(0..50_000) - 25_000);
        let (life, cut_off_until) = (Mutex::new(Life::Running), Mutex::default());
        Arc::new(Self { number, world, life, changed: Notify::new(), cut_off_until, skew })
    }

    pub fn life(&self) -> Life {
        *self.life.lock().unwrap()
    }

    pub fn becomes(&self, life: Life) {
        if self.life() != Life::Dead {
            self.world.note(|| format!("process {} is {life:?}", self.number));
            self.world.troubled(self.number);
            match life {
                Life::Frozen => {
                    let state = &mut *self.world.state();
                    state.frozen.insert(self.number);
                    state.calls.freeze(self.number);
                }
                Life::Running => self.world.thaws(self.number),
                Life::Dead => {}
            }
            *self.life.lock().unwrap() = life;
            self.changed.notify_waiters();
        }
    }

    /// Keeps it from the queue for so long, and nobody else.
    pub fn cut_off(&self, lasts: Duration) {
        self.world.note(|| format!("process {} is cut off from the queue for {lasts:?}", self.number));
        self.world.state().seen.cut_off_from_the_queue += 1;
        *self.cut_off_until.lock().unwrap() = Some(Instant::now() + lasts);
    }

    fn refusal(&self, service: Service) -> Option<Refusal> {
        let cut_off = || self.cut_off_until.lock().unwrap().is_some_and(|until| Instant::now() < until);
        if service == Service::Queue && cut_off() {
            self.world.troubled(self.number);
            return Some(Refusal::Unavailable);
        }
        self.world.outage(service)
    }

    pub async fn becomes_one_of(&self, lives: &[Life]) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if lives.contains(&self.life()) {
                return;
            }
            changed.await;
        }
    }

    /// Its wall clock.
    pub fn clock(&self) -> Clock {
        let (world, skew) = (Arc::clone(&self.world), self.skew);
        Arc::new(move || -> Timestamp { world.now().saturating_add(skew).expect("a duration, not a calendar span") })
    }

    /// Returns when the process runs: never, if it is dead.
    pub async fn running(&self) {
        if self.life() != Life::Running {
            self.becomes_one_of(&[Life::Running]).await;
        }
    }

    /// Calls a service: `effect` is what happens there, `refused` the error that the caller sees if it does not.
    ///
    /// What has been sent happens although the caller stops waiting for it, or dies.
    pub async fn call<T, F>(
        self: &Arc<Self>,
        service: Service,
        timeout: Duration,
        effect: F,
        refused: impl Fn(Refusal) -> T,
    ) -> T
    where
        T: Send + 'static,
        F: Fn(&World) -> T + Send + 'static,
    {
        // What a process does first when it goes on, before it knows how late it is.
        let does_one_more_thing = self.life() == Life::Frozen && self.world.coin(0.5);
        if !does_one_more_thing {
            self.running().await;
        }
        if let Some(refusal) = self.refusal(service) {
            sleep(self.world.delay(1..1000)).await;
            self.running().await;
            return refused(refusal);
        }
        let (request, answer, repeated) = match self.fate(service) {
            Fate::Arrives { request, answer, repeated } => (request, answer, repeated),
            Fate::Lost { happens } => {
                if happens {
                    drop(self.send(effect, Duration::ZERO, Duration::ZERO, false));
                }
                sleep(timeout).await;
                self.running().await;
                return refused(Refusal::Unavailable);
            }
        };
        let answered = self.send(effect, request, answer, repeated).await;
        self.running().await;
        answered.unwrap_or_else(|_| refused(Refusal::Unavailable))
    }

    fn fate(&self, service: Service) -> Fate {
        let odds = self.world.odds();
        let (lost, slow, repeated) =
            (self.world.coin(odds.lost), self.world.coin(odds.slow), self.world.coin(odds.repeated));
        if service == Service::Queue && (lost || slow || repeated) {
            self.world.troubled(self.number);
        }
        if lost {
            return Fate::Lost { happens: self.world.coin(0.5) };
        }
        let longest = if slow { 15_000 } else { 50 };
        Fate::Arrives { request: self.world.delay(1..longest), answer: self.world.delay(1..longest), repeated }
    }

    /// Puts a request on its way, in a task of the network's. A frozen process sends it when it goes on.
    fn send<T, F>(
        self: &Arc<Self>,
        effect: F,
        request: Duration,
        answer: Duration,
        repeated: bool,
    ) -> oneshot::Receiver<T>
    where
        T: Send + 'static,
        F: Fn(&World) -> T + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let process = Arc::clone(self);
        tokio::spawn(async move {
            if process.life() != Life::Running {
                process.running().await;
            }
            sleep(request).await;
            let mut result = effect(&process.world);
            // The SDK's own retry, whose first answer was lost.
            if repeated && process.life() != Life::Dead {
                sleep(Duration::from_millis(300)).await;
                result = effect(&process.world);
            }
            sleep(answer).await;
            drop(sender.send(result));
        });
        receiver
    }

    /// Waits as work of this process does.
    pub async fn works_for(&self, time: Duration) {
        let until = Instant::now() + time;
        tokio::time::sleep_until(until).await;
        self.running().await;
    }
}
