//! `Session`: what all users of a run share, and what they do with it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio_util::sync::CancellationToken;

use super::{Arrivals, Gallery, Portal, Prompts, Task, Waiting};
use crate::measure::{Cadence, Metric, Operation, Problem, Recorder, Start};

/// A user that has nothing left to do looks this often whether it may go. Without a pause it would spin.
const IDLE: Duration = Duration::from_millis(100);
/// Jobs that `ImageHeavyUser` submits at once when it decides itself when to; an arrival of the open model is one.
const MANY: usize = 3;

/// Shared by all users of a run.
#[derive(Debug)]
pub struct Session {
    pub portal: Portal,
    pub prompts: Prompts,
    pub gallery: Gallery,
    pub recorder: Arc<Recorder>,
    /// When the run began: due times count from here.
    pub began: Instant,
    /// The schedule of the open model; closed users have none.
    pub arrivals: Option<Arrivals>,
    pub stops: Stops,
    /// Jobs that may be submitted in all; beyond, nothing is.
    pub max_jobs: u64,
    submitted: AtomicU64,
}

/// How a run is brought to its end.
#[derive(Debug, Clone, Default)]
pub struct Stops {
    /// Nothing new begins; what is under way may end.
    pub no_more: CancellationToken,
    /// What is under way is dropped.
    pub abandon: CancellationToken,
    interrupted: Arc<AtomicBool>,
}

/// What one user has for itself.
#[derive(Debug, Clone)]
pub struct Traits {
    rng: SmallRng,
    cadences: HashMap<Task, Cadence>,
}

impl Stops {
    /// Ends the run at once, as Ctrl-C does.
    pub fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Relaxed);
        self.no_more.cancel();
        self.abandon.cancel();
    }

    /// Returns whether the run was ended before its time.
    #[must_use]
    pub fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

impl Traits {
    /// Makes a user; the same seed makes the same choices among pictures and ways to wait.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { rng: SmallRng::seed_from_u64(seed), cadences: HashMap::new() }
    }

    /// Half of the clients poll, the others have their answers held: the API offers both.
    fn waiting(&mut self) -> Waiting {
        if self.rng.random_bool(0.5) { Waiting::Held } else { Waiting::Polling }
    }
}

impl Session {
    /// Puts together what users share. The run begins now.
    #[must_use]
    pub fn new(portal: Portal, prompts: Prompts, recorder: Arc<Recorder>, arrivals: Option<Arrivals>) -> Self {
        Self {
            portal,
            prompts,
            gallery: Gallery::default(),
            recorder,
            began: Instant::now(),
            arrivals,
            stops: Stops::default(),
            max_jobs: u64::MAX,
            submitted: AtomicU64::new(0),
        }
    }

    /// Does one thing, from its begin (which may have to be waited for) to its end, or until the run is abandoned.
    pub async fn visit(&self, task: Task, traits: &mut Traits) {
        let Some(start) = self.begin(task, traits).await else { return };
        tokio::select! {
            biased;
            () = self.stops.abandon.cancelled() => self.dropped(task),
            () = self.perform(task, start, traits) => {}
        }
    }

    /// Counts a download that did not end in time; a job that did not is counted where it is dropped.
    fn dropped(&self, task: Task) {
        if task == Task::ViewAssignment && !self.stops.interrupted() {
            let problem = Problem { code: "not_finished".to_owned(), unavailable: false };
            self.recorder.failed(Operation::Download, &problem);
        }
    }

    async fn begin(&self, task: Task, traits: &mut Traits) -> Option<Start> {
        let no_more = &self.stops.no_more;
        let due = match &self.arrivals {
            _ if no_more.is_cancelled() => None,
            None => return Some(Start::now(traits.cadences.entry(task).or_default().begins(Instant::now()))),
            Some(arrivals) => arrivals.next(),
        };
        let Some(due) = due.map(|due| self.began + due) else {
            tokio::time::sleep(IDLE).await;
            return None;
        };
        tokio::select! {
            () = no_more.cancelled() => None,
            () = tokio::time::sleep_until(due.into()) => {
                let start = Start { due, began: Instant::now(), cadence: None };
                self.recorder.arrived(start);
                Some(start)
            }
        }
    }

    async fn perform(&self, task: Task, start: Start, traits: &mut Traits) {
        match task {
            Task::CreateAssignment => self.picture(start, traits.waiting()).await,
            Task::CreateMany => {
                let jobs = if self.arrivals.is_some() { 1 } else { MANY };
                join_all((0..jobs).map(|_| self.picture(start, traits.waiting()))).await;
            }
            Task::ViewAssignment => {
                if let Some(picture) = self.gallery.pick(&mut traits.rng) {
                    self.portal.download(&picture, start, &self.recorder).await;
                }
            }
        }
    }

    /// Submits a job, waits for its picture and downloads it.
    pub async fn picture(&self, start: Start, waiting: Waiting) {
        if self.submitted.fetch_add(1, Ordering::Relaxed) >= self.max_jobs {
            return;
        }
        let recorder = &*self.recorder;
        let asked = self.prompts.next();
        let Some(accepted) = self.portal.submit(&asked, start, recorder).await else { return };
        let unfinished = Unfinished { recorder, counts: true };
        let Some(picture) = self.portal.follow(&accepted, waiting, recorder).await else {
            return unfinished.ended();
        };
        recorder.published(&picture, &asked.spec());
        let is_downloaded = self.portal.download(&picture, start.step(), recorder).await;
        unfinished.ended();
        if is_downloaded {
            recorder.time(Metric::TimeToPictureSeconds, start.timing());
            recorder.count(|counts| counts.pictures += 1);
            self.gallery.add(picture);
        }
    }
}

/// An accepted job, counted as unfinished if it is dropped before its picture has been downloaded, or it has failed.
struct Unfinished<'a> {
    recorder: &'a Recorder,
    counts: bool,
}

impl Unfinished<'_> {
    fn ended(mut self) {
        self.counts = false;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if self.counts {
            self.recorder.count(|counts| counts.jobs_unfinished += 1);
        }
    }
}
