//! `Plan`: what one seed makes happen: jobs, workers, and faults until a moment from which on everything works.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Everything of a run that is decided before it begins. What is decided on the way comes from the same seed.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub workers: usize,
    pub slots: u16,
    pub jobs: Vec<PlannedJob>,
    pub events: Vec<Event>,
    pub outages: Vec<Outage>,
    pub odds: Odds,
    /// From here on nothing goes wrong any more.
    pub healed_at: Duration,
}

#[derive(Debug, Clone)]
pub struct PlannedJob {
    pub submitted_at: Duration,
    /// The same job once more, as a repeated `Idempotency-Key` sends it.
    pub repeated_at: Option<Duration>,
    pub canceled_at: Option<Duration>,
    pub deadline_after: Option<Duration>,
}

/// What happens to a worker's process.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    pub at: Duration,
    pub seat: usize,
    pub what: What,
}

#[derive(Debug, Clone, Copy)]
pub enum What {
    /// SIGKILL; another process takes the seat after a while.
    Kill { restart_after: Duration },
    /// SIGTERM; another process takes the seat when this one has drained.
    Stop,
    /// SIGSTOP, and SIGCONT after a while.
    Freeze { lasts: Duration },
    /// It alone cannot reach the queue for a while: it works on, and loses what it works on.
    CutOff { lasts: Duration },
}

/// What the workers talk to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    Queue,
    Store,
    Model,
}

/// A time during which a service refuses every call.
#[derive(Debug, Clone, Copy)]
pub struct Outage {
    pub service: Service,
    pub from: Duration,
    pub until: Duration,
    /// Whether it says that we may not, or that it cannot.
    pub denies: bool,
}

/// How often things go wrong, each as a probability.
#[derive(Debug, Clone, Copy)]
pub struct Odds {
    /// A call's request or answer gets lost, and with it the call: the caller hears of it at its time-out.
    pub lost: f64,
    /// A call is repeated after its answer was lost: it happens twice.
    pub repeated: f64,
    /// A call takes seconds.
    pub slow: f64,
    /// A message is handed over twice at once, as one with a copy on a server that was away.
    pub copied: f64,
    /// A deleted message comes back once.
    pub undeleted: f64,
    /// The model answers with a fault.
    pub model_fault: f64,
    /// The model is paid and the answer does not arrive.
    pub answer_lost: f64,
    /// The picture cannot be decoded.
    pub garbage: f64,
    /// Rendering panics.
    pub panic: f64,
}

impl Odds {
    pub const NONE: Self = Self {
        lost: 0.0,
        repeated: 0.0,
        slow: 0.0,
        copied: 0.0,
        undeleted: 0.0,
        model_fault: 0.0,
        answer_lost: 0.0,
        garbage: 0.0,
        panic: 0.0,
    };
}

impl Plan {
    /// Makes the plan of a seed.
    pub fn of(seed: u64) -> Self {
        let rng = &mut StdRng::seed_from_u64(seed);
        // Within so much time everything begins that begins.
        let span = rng.random_range(20..600);
        let workers = rng.random_range(1..=3);
        let jobs = (0..rng.random_range(1..=4)).map(|_| job(rng, span)).collect();
        let mut events: Vec<Event> = (0..rng.random_range(0..=5)).map(|_| event(rng, span, workers)).collect();
        events.sort_by_key(|event| event.at);
        let outages: Vec<Outage> = (0..[0, 0, 1, 1, 2][rng.random_range(0..5)]).map(|_| outage(rng, span)).collect();
        let odds = odds(rng);
        let ends =
            outages.iter().map(|outage| outage.until).chain(events.iter().map(|event| event.at + event.what.lasts()));
        let healed_at = ends.max().unwrap_or_default().max(seconds(span));
        Self { seed, workers, slots: rng.random_range(1..=4), jobs, events, outages, odds, healed_at }
    }
}

impl What {
    fn lasts(self) -> Duration {
        match self {
            Self::Kill { restart_after } => restart_after,
            Self::Stop => Duration::ZERO,
            Self::Freeze { lasts } | Self::CutOff { lasts } => lasts,
        }
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Milliseconds, so that few things happen at exactly the same time.
fn moment(rng: &mut StdRng, span: u64) -> Duration {
    Duration::from_millis(rng.random_range(0..span * 1000))
}

fn job(rng: &mut StdRng, span: u64) -> PlannedJob {
    PlannedJob {
        submitted_at: moment(rng, span / 2 + 1),
        repeated_at: rng.random_bool(0.2).then(|| moment(rng, span)),
        canceled_at: rng.random_bool(0.08).then(|| moment(rng, span)),
        deadline_after: rng.random_bool(0.08).then(|| moment(rng, span)),
    }
}

fn event(rng: &mut StdRng, span: u64, workers: usize) -> Event {
    let what = match rng.random_range(0..14) {
        0..5 => What::Kill { restart_after: seconds(rng.random_range(0..90)) },
        5..7 => What::Stop,
        7..10 => What::Freeze { lasts: seconds(rng.random_range(5..400)) },
        _ => What::CutOff { lasts: seconds(rng.random_range(5..400)) },
    };
    Event { at: moment(rng, span), seat: rng.random_range(0..workers), what }
}

fn outage(rng: &mut StdRng, span: u64) -> Outage {
    let from = moment(rng, span);
    let service = [Service::Queue, Service::Store, Service::Model][rng.random_range(0..3)];
    Outage { service, from, until: from + seconds(rng.random_range(5..300)), denies: rng.random_bool(0.3) }
}

/// A third of the seeds has nothing but events and outages, so that what those break is not drowned.
fn odds(rng: &mut StdRng) -> Odds {
    if rng.random_bool(0.33) {
        return Odds::NONE;
    }
    let mut up_to = |most: f64| if rng.random_bool(0.5) { rng.random_range(0.0..most) } else { 0.0 };
    Odds {
        lost: up_to(0.15),
        repeated: up_to(0.4),
        slow: up_to(0.5),
        copied: up_to(0.3),
        undeleted: up_to(0.3),
        model_fault: up_to(0.5),
        answer_lost: up_to(0.2),
        garbage: up_to(0.3),
        panic: up_to(0.2),
    }
}
