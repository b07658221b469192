//! Deterministic simulation: whole workers on a simulated queue, bucket and model that reorder, duplicate, delay, drop and
//! freeze, in simulated time. One seed is one run, and always the same one.

mod model;
mod plan;
mod process;
mod queue;
mod store;
mod world;

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use clap::Parser;
use service::following::Followed;
use service::readiness::Readiness;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use worker::app::{Ports, Worker};
use worker::lease::Terms;
use worker::settings::Settings;

use model::{SimulatedGenerator, SimulatedRenderer};
use plan::{Plan, What};
use process::{Life, Process};
use queue::{MAX_RECEIVE_COUNT, SimulatedQueue};
use store::SimulatedStore;
use world::{LEASE, Seen, World};

/// Simulated time within which everything has ended once nothing goes wrong any more.
const PATIENCE: Duration = Duration::from_secs(12 * 3600);
/// Seeds of a test run; `SIMULATION_SEEDS` asks for another number.
const SEEDS: u64 = 50_000;

/// The place of one worker in the fleet: processes come and go in it.
struct Seat {
    world: Arc<World>,
    slots: u16,
    now_in_it: Mutex<Occupant>,
}

struct Occupant {
    process: Arc<Process>,
    stopping: CancellationToken,
}

/// One run.
#[derive(Debug, PartialEq, Eq)]
struct Report {
    seen: Seen,
    breaches: Vec<String>,
    trace: Vec<String>,
}

fn settings(slots: u16) -> Settings {
    static PARSED: OnceLock<Settings> = OnceLock::new();
    let parse = || {
        let max = MAX_RECEIVE_COUNT.to_string();
        let args = ["image-worker", "--sqs-queue-url", "q", "--s3-bucket-name", "b", "--cpu-threads", "1"];
        Settings::try_parse_from(args.into_iter().chain(["--max-receive-count", max.as_str()])).unwrap()
    };
    Settings { worker_slots: slots, ..PARSED.get_or_init(parse).clone() }
}

impl Occupant {
    fn start(world: &Arc<World>, number: usize, slots: u16) -> Self {
        let process = Process::start(number, Arc::clone(world));
        let ports = Ports {
            batch: None,
            notices: None,
            queue: Arc::new(SimulatedQueue(Arc::clone(&process))),
            store: Arc::new(SimulatedStore(Arc::clone(&process))),
            generator: Arc::new(SimulatedGenerator(Arc::clone(&process))),
            fallback: None,
            pause: Followed::default(),
            timetable: None,
            clock: process.clock(),
        };
        let stopping = CancellationToken::new();
        let renderer = Arc::new(SimulatedRenderer(Arc::clone(&process)));
        let readiness = Readiness::default();
        let mut consumer = Worker::around(&settings(slots), ports, renderer, readiness, stopping.clone());
        Arc::get_mut(&mut consumer.handler).expect("nobody has it yet").lease = Terms::new(LEASE);
        let ended = Arc::clone(&process);
        tokio::spawn(async move {
            consumer.run().await;
            // A process that has been killed or frozen does not get here.
            ended.running().await;
            ended.world.check_drained(ended.number);
            ended.becomes(Life::Dead);
            ended.world.dies(ended.number);
        });
        Self { process, stopping }
    }
}

impl Seat {
    fn new(world: &Arc<World>, seat: usize) -> Self {
        let slots = world.plan.slots;
        let first = Mutex::new(Occupant::start(world, seat, slots));
        Self { world: Arc::clone(world), slots, now_in_it: first }
    }

    fn process(&self) -> Arc<Process> {
        Arc::clone(&self.now_in_it.lock().unwrap().process)
    }

    /// Stops what is in it as SIGTERM does, and waits for its end.
    async fn drain(&self) {
        let process = self.process();
        process.becomes_one_of(&[Life::Running, Life::Dead]).await;
        self.now_in_it.lock().unwrap().stopping.cancel();
        // Nothing may hang; the time-out is there to tell, since simulated time stands still without any.
        if tokio::time::timeout(PATIENCE, process.becomes_one_of(&[Life::Dead])).await.is_err() {
            let told = format!("process {} was told to stop and did not end", process.number);
            self.world.breach(&mut self.world.state(), told);
        }
    }

    fn replace(&self, number: usize) {
        *self.now_in_it.lock().unwrap() = Occupant::start(&self.world, number, self.slots);
    }
}

/// Runs one seed.
fn simulate(seed: u64, traced: bool) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = Arc::new(World::new(Plan::of(seed), traced));
        world.note(|| format!("{:?}", world.plan));
        let seats: Arc<Vec<Seat>> = Arc::new((0..world.plan.workers).map(|seat| Seat::new(&world, seat)).collect());
        let clients = tokio::spawn(clients(Arc::clone(&world)));
        let mut recoveries = tokio::task::JoinSet::new();
        let began = Instant::now();
        for (index, event) in world.plan.events.iter().enumerate() {
            sleep_until(began + event.at).await;
            recoveries.spawn(happens(Arc::clone(&seats), event.seat, event.what, 10 * (index + 1) + event.seat));
        }
        recoveries.join_all().await;
        clients.await.unwrap();
        while !world.is_at_rest() {
            sleep(Duration::from_secs(5)).await;
            if world.elapsed() > world.plan.healed_at + PATIENCE {
                break;
            }
        }
        for seat in seats.iter() {
            seat.drain().await;
        }
        world.check_the_end();
        let state = world.state();
        Report { seen: state.seen, breaches: state.breaches.clone(), trace: world.trace() }
    })
}

async fn happens(seats: Arc<Vec<Seat>>, seat: usize, what: What, successor: usize) {
    let seat = &seats[seat];
    let process = seat.process();
    if process.life() != Life::Running {
        return;
    }
    match what {
        What::Kill { restart_after } => {
            process.becomes(Life::Dead);
            seat.world.dies(process.number);
            sleep(restart_after).await;
        }
        What::Stop => {
            seat.drain().await;
        }
        What::Freeze { lasts } => {
            process.becomes(Life::Frozen);
            sleep(lasts).await;
            process.becomes(Life::Running);
            return;
        }
        What::CutOff { lasts } => {
            process.cut_off(lasts);
            return;
        }
    }
    // Unless somebody else has taken the seat meanwhile.
    if seat.process().number == process.number {
        seat.replace(successor);
    }
}

/// Submits, repeats and cancels as planned.
async fn clients(world: Arc<World>) {
    let mut acts: Vec<(Duration, usize, bool)> = vec![];
    for (index, job) in world.plan.jobs.iter().enumerate() {
        acts.push((job.submitted_at, index, false));
        acts.extend(job.repeated_at.map(|at| (at, index, false)));
        acts.extend(job.canceled_at.map(|at| (at.max(job.submitted_at), index, true)));
    }
    acts.sort();
    let began = Instant::now();
    for (at, job, cancels) in acts {
        sleep_until(began + at).await;
        if cancels {
            world.cancel(job);
        } else {
            world.send(job);
        }
    }
}

/// Runs a seed, and if it breaches anything, tells it from its beginning.
fn check(seed: u64) -> Seen {
    let report = simulate(seed, false);
    if report.breaches.is_empty() {
        return report.seen;
    }
    let told = simulate(seed, true);
    panic!(
        "seed {seed} breaks a guarantee:\n  {}\n\n{}\n\nThe same again:\n  \
         SIMULATION_SEED={seed} cargo test --release --locked -p worker --test it simulation:: -- --nocapture\n",
        report.breaches.join("\n  "),
        told.trace.join("\n"),
    );
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is '{text}': give a whole number")))
}

#[test]
fn every_seed_keeps_the_guarantees() {
    if let Some(seed) = number("SIMULATION_SEED") {
        println!("{}", simulate(seed, true).trace.join("\n"));
        check(seed);
        return;
    }
    let mut all = Seen::default();
    for seed in 0..number("SIMULATION_SEEDS").unwrap_or(SEEDS) {
        all += check(seed);
    }
    println!("{all:#?}");
    // Seeds in which nothing happens prove nothing.
    assert!(all.is_eventful(), "some fault never happened: {all:#?}");
}

#[test]
fn a_seed_is_always_the_same_run() {
    for seed in 0..60 {
        let (first, second) = (simulate(seed, true), simulate(seed, true));
        let differs = first.trace.iter().zip(&second.trace).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first, second, "seed {seed}");
    }
}
