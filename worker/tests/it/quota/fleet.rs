//! A fleet of limiters on one timetable and one model that counts the last minute, in simulated time. One seed is one run.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp, Unit};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use worker::error::{JobError, Kind};
use worker::lane::Lane;
use worker::limiter::Limiter;
use worker::quota::{Governor, Sheet, TimetableStore};
use worker::store::{ETag, StoreError};

const MINUTE: Duration = Duration::from_secs(60);

/// What all share.
pub struct Site {
    began: Instant,
    wall: Timestamp,
    rng: Mutex<fastrand::Rng>,
    object: Mutex<(u64, Option<Bytes>)>,
    /// Longest read or write of the timetable.
    round_trip: Duration,
    pub is_offline: AtomicBool,
    pub writes: AtomicUsize,
    per_minute: usize,
    admitted: Mutex<VecDeque<Instant>>,
    calls: Mutex<Vec<(Instant, bool)>>,
}

/// How a fleet is.
#[derive(Debug, Clone, Copy)]
pub struct Fleet {
    pub seed: u64,
    pub workers: usize,
    /// Jobs that each worker always has in hand.
    pub slots: usize,
    pub per_minute: u32,
    /// Longest read or write of the timetable.
    pub round_trip: Duration,
    /// Clocks are off by up to this.
    pub clocks_off: Duration,
    /// Whether there is a timetable, or only what each process finds out by itself.
    pub is_governed: bool,
}

impl Fleet {
    /// Eight workers on 90 requests a minute, and work for them all.
    pub fn of_eight(seed: u64) -> Self {
        let round_trip = Duration::from_millis(120);
        let clocks_off = Duration::from_millis(50);
        Self { seed, workers: 8, slots: 16, per_minute: 90, round_trip, clocks_off, is_governed: true }
    }
}

/// What the model was asked in some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    pub calls: usize,
    pub throttled: usize,
}

impl Use {
    pub fn admitted(self) -> usize {
        self.calls - self.throttled
    }

    pub fn throttled_percent(self) -> f64 {
        self.throttled as f64 * 100.0 / self.calls as f64
    }
}

impl Site {
    pub fn new(fleet: &Fleet) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            wall: "2026-11-26T08:00:00.4Z".parse().unwrap(),
            rng: Mutex::new(fastrand::Rng::with_seed(fleet.seed)),
            object: Mutex::default(),
            round_trip: fleet.round_trip,
            is_offline: AtomicBool::new(false),
            writes: AtomicUsize::new(0),
            per_minute: fleet.per_minute as usize,
            admitted: Mutex::default(),
            calls: Mutex::default(),
        })
    }

    /// Starts one worker; it ends when the set is dropped.
    pub fn start(self: &Arc<Self>, fleet: &Fleet) -> JoinSet<()> {
        let off = self.between(Duration::ZERO, fleet.clocks_off * 2);
        let off = SignedDuration::try_from(off).unwrap() - SignedDuration::try_from(fleet.clocks_off).unwrap();
        let (site, seed) = (Arc::clone(self), self.rng.lock().unwrap().u64(..));
        let clock = Arc::new(move || site.now() + off);
        let governor = || Governor::new(Arc::clone(self) as Arc<dyn TimetableStore>, clock, fleet.per_minute, seed);
        let limiter = Arc::new(Limiter::governed(fleet.is_governed.then(governor)));
        let mut slots = JoinSet::new();
        for _ in 0..fleet.slots {
            let (site, limiter) = (Arc::clone(self), Arc::clone(&limiter));
            slots.spawn(async move { site.work(&limiter).await });
        }
        slots
    }

    /// Starts all workers of a fleet.
    pub fn start_all(self: &Arc<Self>, fleet: &Fleet) -> Vec<JoinSet<()>> {
        (0..fleet.workers).map(|_| self.start(fleet)).collect()
    }

    async fn work(&self, limiter: &Limiter) {
        loop {
            limiter.acquire(Lane::Interactive).await;
            sleep(self.between(Duration::from_millis(5), Duration::from_millis(150))).await;
            if self.admits() {
                sleep(self.between(Duration::from_secs(3), Duration::from_secs(7))).await;
                limiter.succeeded();
            } else {
                sleep(Duration::from_millis(20)).await;
                limiter.throttled(None);
            }
        }
    }

    /// The strictest reading of a quota: no minute, wherever it begins, has more.
    pub fn admits(&self) -> bool {
        let now = Instant::now();
        let mut admitted = self.admitted.lock().unwrap();
        while admitted.front().is_some_and(|at| now.duration_since(*at) >= MINUTE) {
            admitted.pop_front();
        }
        let admits = admitted.len() < self.per_minute;
        if admits {
            admitted.push_back(now);
        }
        self.calls.lock().unwrap().push((now, admits));
        admits
    }

    /// Returns what was asked in the last `time`.
    pub fn used_in_the_last(&self, time: Duration) -> Use {
        let calls = self.calls.lock().unwrap();
        let recent = || calls.iter().filter(|(at, _)| at.elapsed() <= time);
        Use { calls: recent().count(), throttled: recent().filter(|(_, admitted)| !admitted).count() }
    }

    pub fn now(&self) -> Timestamp {
        self.wall + SignedDuration::try_from(self.began.elapsed()).unwrap()
    }

    pub fn between(&self, least: Duration, most: Duration) -> Duration {
        least + (most - least).mul_f64(self.rng.lock().unwrap().f64())
    }

    async fn is_asked(&self) -> Result<(), JobError> {
        let time = self.between(self.round_trip / 8, self.round_trip);
        sleep(time).await;
        match self.is_offline.load(Ordering::SeqCst) {
            true => Err(JobError::new(Kind::StoreUnavailable, "offline")),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl TimetableStore for Site {
    async fn read_timetable(&self) -> Result<Sheet, JobError> {
        self.is_asked().await?;
        let (version, body) = self.object.lock().unwrap().clone();
        let found = body.map(|body| (body, ETag(version.to_string())));
        let second = self.now().round(jiff::TimestampRound::new().smallest(Unit::Second).mode(jiff::RoundMode::Floor));
        Ok(Sheet { found, store_time: Some(second.unwrap()) })
    }

    async fn write_timetable(&self, body: Bytes, expected: Option<&ETag>) -> Result<(), StoreError> {
        self.is_asked().await?;
        self.writes.fetch_add(1, Ordering::SeqCst);
        {
            let mut object = self.object.lock().unwrap();
            let found = object.1.is_some().then(|| ETag(object.0.to_string()));
            if found.as_ref() != expected {
                return Err(StoreError::Conflict);
            }
            *object = (object.0 + 1, Some(body));
        }
        // The answer takes its time as well.
        sleep(self.between(Duration::ZERO, self.round_trip / 4)).await;
        Ok(())
    }
}
