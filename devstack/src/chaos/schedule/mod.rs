//! `Schedule`: which fault comes when, how long it lasts and whom it meets. The same seed and length give the same schedule.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

use super::link::Condition;
use super::s3_front::OddAnswer;
use crate::bedrock::Fault as ModelFault;

/// The run begins and ends without faults for so long.
const QUIET: Duration = Duration::from_secs(8);
/// Mean time between the beginnings of two faults, where the run is long enough to deal every kind at that pace.
const PACE: Duration = Duration::from_secs(10);
/// And where it is not.
const FASTEST_PACE: Duration = Duration::from_secs(5);
/// The longest outage is so many times the pace.
const OUTAGES_A_PACE: u32 = 6;
/// No service is unreachable for longer than this.
const LONGEST_OUTAGE: Duration = Duration::from_secs(120);
/// What a worker or the API needs to come back.
const RESTART: Duration = Duration::from_secs(6);
/// The longest drain of a worker, and its restart.
const DRAIN: Duration = Duration::from_secs(45);
/// How long a worker is frozen beyond its lease.
const BEYOND_LEASE: Duration = Duration::from_secs(6);
/// How far a clock is off, in seconds.
const CLOCK_OFF_SECONDS: i64 = 600;

/// Faults of the model that pass by themselves, one at a time.
const PASSING: [ModelFault; 8] = [
    ModelFault::ModelTimeout,
    ModelFault::ModelError,
    ModelFault::Internal,
    ModelFault::Unavailable,
    ModelFault::NotReady,
    ModelFault::Quota,
    ModelFault::InferenceError,
    ModelFault::Close,
];
/// Faults of the model that somebody has to mend.
const STANDING: [ModelFault; 4] =
    [ModelFault::AccessDenied, ModelFault::ExpiredCredentials, ModelFault::Retired, ModelFault::Legacy];

/// What a process talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Service {
    Sqs,
    S3,
    Bedrock,
}

impl Service {
    pub(super) const ALL: [Self; 3] = [Self::Sqs, Self::S3, Self::Bedrock];
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqs => "SQS",
            Self::S3 => "S3",
            Self::Bedrock => "Bedrock",
        })
    }
}

/// Whom a fault of the network meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    Everybody,
    /// A worker, counted from 0.
    Worker(usize),
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody => f.write_str("everybody"),
            Self::Worker(worker) => write!(f, "worker-{}", worker + 1),
        }
    }
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fault {
    KillWorker(usize),
    /// SIGTERM: a deploy.
    StopWorker(usize),
    KillApi,
    StopApi,
    /// SIGSTOP until the end of the fault, longer than the lease, then SIGCONT.
    Freeze(usize),
    /// SQS and S3 are killed and come back with their data; what was in flight is visible at once.
    KillEmulator,
    /// The jobs accepted last get a second message.
    Repeat {
        jobs: usize,
    },
    Network {
        service: Service,
        whom: Whom,
        condition: Condition,
    },
    /// Every connection to the service is cut once.
    Cut {
        service: Service,
    },
    S3Answers {
        odd: OddAnswer,
        share: f64,
    },
    /// Every call to the model ends like this.
    Model(ModelFault),
    /// A share of the calls to the model is throttled.
    Throttle {
        share: f64,
    },
    /// The worker is started again with a clock that is off.
    Clock {
        worker: usize,
        seconds: i64,
    },
    /// The worker is started again with its logs on a full disk.
    FullDisk(usize),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| share * 100.0;
        match *self {
            Self::KillWorker(worker) => write!(f, "SIGKILL worker-{}", worker + 1),
            Self::StopWorker(worker) => write!(f, "SIGTERM worker-{}", worker + 1),
            Self::KillApi => f.write_str("SIGKILL api"),
            Self::StopApi => f.write_str("SIGTERM api"),
            Self::Freeze(worker) => write!(f, "SIGSTOP worker-{}", worker + 1),
            Self::KillEmulator => f.write_str("SIGKILL the emulator of SQS and S3"),
            Self::Repeat { jobs } => write!(f, "a second message for each of {jobs} jobs"),
            Self::Network { service, whom, condition } => match condition {
                Condition::Clear => write!(f, "{service} is well for {whom}"),
                Condition::Refused => write!(f, "{service} refuses connections of {whom}"),
                Condition::Silent => write!(f, "{service} falls silent for {whom}"),
                Condition::Slow { delay, jitter } => {
                    let (least, most) = (delay.as_millis(), (delay + jitter).as_millis());
                    write!(f, "{service} is {least} to {most} ms away for {whom}")
                }
                Condition::IdleClosed { after } => {
                    write!(f, "{service} closes connections of {whom} idle for {} ms", after.as_millis())
                }
            },
            Self::Cut { service } => write!(f, "every connection to {service} is cut"),
            Self::S3Answers { odd, share } => {
                let answer = match odd {
                    OddAnswer::SlowDown => "503 SlowDown to",
                    OddAnswer::Conflict => "409 to conditional writes,",
                    OddAnswer::LostAnswer => "412 to conditional writes that are done,",
                };
                write!(f, "S3 answers {answer} {:.0} %", percent(share))
            }
            Self::Model(fault) => write!(f, "the model answers {fault}"),
            Self::Throttle { share } => write!(f, "the model throttles {:.0} % of the calls", percent(share)),
            Self::Clock { worker, seconds } => write!(f, "the clock of worker-{} is off by {seconds:+} s", worker + 1),
            Self::FullDisk(worker) => write!(f, "the disk with the logs of worker-{} is full", worker + 1),
        }
    }
}

/// A fault with its time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Event {
    /// Since the beginning of the run.
    pub(super) at: Duration,
    /// Until it is healed; for what happens in a moment, until the process is back.
    pub(super) lasts: Duration,
    pub(super) fault: Fault,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:7.1} s  for {:5.1} s  {}", self.at.as_secs_f64(), self.lasts.as_secs_f64(), self.fault)
    }
}

/// What a fault takes up: two that take up the same do not overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Worker(usize),
    Api,
    Emulator,
    Network(Service),
    S3Answers,
    Model,
    Queue,
}

/// One card of the deck: each is dealt before any is dealt again.
#[derive(Debug, Clone, Copy)]
enum Card {
    KillWorker,
    StopWorker,
    KillApi,
    StopApi,
    Freeze,
    KillEmulator,
    Repeat,
    Unreachable(Service, Condition),
    UnreachableForOne(Service),
    Cut(Service),
    Slow,
    IdleClosed,
    S3Answers(OddAnswer),
    Passing,
    Standing,
    Throttle,
    Clock,
    FullDisk,
}

const DECK: [Card; 30] = [
    Card::KillWorker,
    Card::KillWorker,
    Card::StopWorker,
    Card::KillApi,
    Card::StopApi,
    Card::Freeze,
    Card::KillEmulator,
    Card::Repeat,
    Card::Repeat,
    Card::Unreachable(Service::Sqs, Condition::Refused),
    Card::Unreachable(Service::Sqs, Condition::Silent),
    Card::Unreachable(Service::S3, Condition::Refused),
    Card::Unreachable(Service::S3, Condition::Silent),
    Card::Unreachable(Service::Bedrock, Condition::Refused),
    Card::Unreachable(Service::Bedrock, Condition::Silent),
    Card::UnreachableForOne(Service::Sqs),
    Card::UnreachableForOne(Service::S3),
    Card::Cut(Service::Sqs),
    Card::Cut(Service::S3),
    Card::Cut(Service::Bedrock),
    Card::Slow,
    Card::IdleClosed,
    Card::S3Answers(OddAnswer::SlowDown),
    Card::S3Answers(OddAnswer::Conflict),
    Card::S3Answers(OddAnswer::LostAnswer),
    Card::Passing,
    Card::Standing,
    Card::Throttle,
    Card::Clock,
    Card::FullDisk,
];

/// All faults of a run, by their beginning.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Schedule {
    pub(super) events: Vec<Event>,
    /// Kinds of fault for which the run is too short.
    pub(super) left_out: usize,
}

impl Schedule {
    /// Deals the faults of a run of `length` with `workers` workers that hold a delivery for `lease`.
    pub(super) fn new(seed: u64, length: Duration, workers: usize, lease: Duration) -> Self {
        let mut dealer = Dealer { random: StdRng::seed_from_u64(seed), length, workers, lease, busy: Vec::new() };
        let room = length.saturating_sub(QUIET * 2);
        let cards = u32::try_from(DECK.len()).expect("a deck is small");
        // Longer outages further apart: otherwise nothing would ever be well for long enough to do any work.
        let pace = (room / cards).clamp(FASTEST_PACE, PACE).max(longest_outage(length, lease) / OUTAGES_A_PACE);
        let (mut events, mut deck, mut turn, mut dealt) = (Vec::new(), Vec::new(), QUIET, 0);
        while turn + QUIET < length {
            if deck.is_empty() {
                deck = DECK.to_vec();
                deck.shuffle(&mut dealer.random);
            }
            let card = deck.pop().expect("it was filled");
            dealt += 1;
            let late = pace.mul_f64(dealer.random.random_range(0.0..0.8));
            events.push(dealer.deal(card, turn + late));
            turn += pace;
        }
        events.sort_by_key(|event| event.at);
        // What had to wait for its place may have been pushed beyond the end.
        events.retain(|event| event.at + QUIET / 2 < length);
        Self { events, left_out: DECK.len().saturating_sub(dealt) }
    }
}

fn longest_outage(length: Duration, lease: Duration) -> Duration {
    (length / 6).clamp(lease / 2, LONGEST_OUTAGE)
}

struct Dealer {
    random: StdRng,
    length: Duration,
    workers: usize,
    lease: Duration,
    /// Until when each place is taken.
    busy: Vec<(Place, Duration)>,
}

impl Dealer {
    fn deal(&mut self, card: Card, at: Duration) -> Event {
        let (fault, lasts) = self.fault(card);
        let places = match fault {
            Fault::KillWorker(worker)
            | Fault::Freeze(worker)
            | Fault::Clock { worker, .. }
            | Fault::FullDisk(worker) => vec![Place::Worker(worker)],
            // A picture that is paid for and cannot be checkpointed before the grace is over is lost with the process:
            // that is so, and no fault of it.
            Fault::StopWorker(worker) => vec![Place::Worker(worker), Place::Network(Service::S3)],
            Fault::KillApi | Fault::StopApi => vec![Place::Api],
            Fault::KillEmulator => vec![Place::Emulator],
            Fault::Repeat { .. } => vec![Place::Queue],
            Fault::Network { service, .. } | Fault::Cut { service } => vec![Place::Network(service)],
            Fault::S3Answers { .. } => vec![Place::S3Answers],
            Fault::Model(_) | Fault::Throttle { .. } => vec![Place::Model],
        };
        let free = self.busy.iter().filter(|(taken, _)| places.contains(taken)).map(|(_, until)| *until).max();
        let at = at.max(free.unwrap_or_default());
        let lasts = lasts.min(self.length.saturating_sub(at));
        self.busy.extend(places.into_iter().map(|place| (place, at + lasts + Duration::from_secs(1))));
        Event { at, lasts, fault }
    }

    fn fault(&mut self, card: Card) -> (Fault, Duration) {
        let worker = self.random.random_range(0..self.workers);
        let longest = longest_outage(self.length, self.lease).as_secs_f64();
        let outage = Duration::from_secs_f64(self.random.random_range(longest / 3.0..longest));
        let service = *Service::ALL.choose(&mut self.random).expect("there are three");
        let network = |service, whom, condition| Fault::Network { service, whom, condition };
        match card {
            Card::KillWorker => (Fault::KillWorker(worker), RESTART),
            // It may drain for as long as a call takes.
            Card::StopWorker => (Fault::StopWorker(worker), DRAIN),
            Card::KillApi => (Fault::KillApi, RESTART),
            Card::StopApi => (Fault::StopApi, RESTART),
            Card::Freeze => {
                let longer = BEYOND_LEASE.mul_f64(self.random.random_range(0.5..2.0));
                (Fault::Freeze(worker), self.lease + longer)
            }
            Card::KillEmulator => (Fault::KillEmulator, RESTART),
            Card::Repeat => (Fault::Repeat { jobs: self.random.random_range(3..=10) }, Duration::ZERO),
            Card::Unreachable(service, condition) => (network(service, Whom::Everybody, condition), outage),
            Card::UnreachableForOne(service) => {
                let condition = if self.random.random() { Condition::Refused } else { Condition::Silent };
                // Longer than a lease, so that others get what it holds.
                (network(service, Whom::Worker(worker), condition), outage.max(self.lease + BEYOND_LEASE))
            }
            Card::Cut(service) => (Fault::Cut { service }, Duration::ZERO),
            Card::Slow => {
                let delay = Duration::from_millis(self.random.random_range(20..400));
                let jitter = Duration::from_millis(self.random.random_range(20..800));
                (network(service, Whom::Everybody, Condition::Slow { delay, jitter }), outage)
            }
            Card::IdleClosed => {
                let after = Duration::from_millis(self.random.random_range(1200..3000));
                (network(service, Whom::Everybody, Condition::IdleClosed { after }), outage)
            }
            Card::S3Answers(odd) => (Fault::S3Answers { odd, share: self.random.random_range(0.1..0.5) }, outage),
            Card::Passing => (Fault::Model(*PASSING.choose(&mut self.random).expect("there are some")), outage / 2),
            Card::Standing => (Fault::Model(*STANDING.choose(&mut self.random).expect("there are some")), outage),
            Card::Throttle => (Fault::Throttle { share: self.random.random_range(0.3..0.9) }, outage),
            Card::Clock => {
                let seconds = if self.random.random() { CLOCK_OFF_SECONDS } else { -CLOCK_OFF_SECONDS };
                (Fault::Clock { worker, seconds }, outage.max(self.lease * 2))
            }
            Card::FullDisk => (Fault::FullDisk(worker), outage),
        }
    }
}

#[cfg(test)]
mod tests;
