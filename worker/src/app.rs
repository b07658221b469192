//! `Worker`: the parts put together, with every adapter handed in.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use jiff::{Timestamp, Unit};
use job::Pause;
use service::following::Followed;
use service::readiness::Readiness;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::circuit::Circuit;
use crate::consumer::{Consumer, Drained, Lanes};
use crate::cpu::CpuPool;
use crate::delivery::DeliveryHandler;
use crate::generate::Generator;
use crate::job_list::JobList;
use crate::lane::{BatchLane, Entrance};
use crate::lease::Terms;
use crate::models::Models;
use crate::notices::Notices;
use crate::pipeline::{Clock, Pipeline, render_gate};
use crate::queue::JobQueue;
use crate::quota::{Governor, TimetableStore};
use crate::renderer::{CpuRenderer, Renderer};
use crate::settings::Settings;
use crate::slots::Slots;
use crate::source::{SourceMaker, room_for_sources};
use crate::store::ObjectStore;

/// The ports of a worker.
pub struct Ports {
    pub queue: Arc<dyn JobQueue>,
    /// The second lane, where there is one.
    pub batch: Option<BatchLane>,
    pub store: Arc<dyn ObjectStore>,
    pub generator: Arc<dyn Generator>,
    /// Asked while the other is out of order.
    pub fallback: Option<Arc<dyn Generator>>,
    /// Whether operators have paused generation.
    pub pause: Followed<Option<Pause>>,
    /// The webhook queue, where there is one.
    pub notices: Option<Arc<dyn Entrance>>,
    /// Where the fleet shares the model's quota, if it is told one.
    pub timetable: Option<Arc<dyn TimetableStore>>,
    pub clock: Clock,
}

/// A worker, ready to run.
pub struct Worker {
    consumer: Consumer,
    cpu: CpuPool,
}

impl Worker {
    /// Puts a worker together. It stops when `stopping` is cancelled.
    pub fn new(settings: &Settings, ports: Ports, readiness: Readiness, stopping: CancellationToken) -> Self {
        let cpu = CpuPool::new(settings.threads());
        let renderer = Arc::new(CpuRenderer::new(cpu.clone(), settings.render.clone()));
        Self { consumer: Self::around(settings, ports, renderer, readiness, stopping), cpu }
    }

    /// Puts together everything of a worker around `renderer`.
    pub fn around(
        settings: &Settings,
        ports: Ports,
        renderer: Arc<dyn Renderer>,
        readiness: Readiness,
        stopping: CancellationToken,
    ) -> Consumer {
        let tasks = TaskTracker::new();
        let aborting = CancellationToken::new();
        let per_minute = settings.model_requests_per_minute;
        let governor = ports.timetable.filter(|_| per_minute > 0).map(|store| {
            // Names of processes differ.
            let seed = BuildHasherDefault::<DefaultHasher>::default().hash_one((worker_name(), (ports.clock)()));
            Governor::new(store, Arc::clone(&ports.clock), per_minute, seed)
        });
        let models = Models::new(ports.generator, governor, ports.fallback);
        let circuit = Circuit::new(readiness.clone());
        let sources = SourceMaker {
            store: Arc::clone(&ports.store),
            models: models.clone(),
            circuit: circuit.clone(),
            tasks: tasks.clone(),
            room: room_for_sources(),
            model_timeout: settings.model_timeout(),
            clock: Arc::clone(&ports.clock),
        };
        let list = JobList { store: Arc::clone(&ports.store), tasks: tasks.clone(), stopping: stopping.clone() };
        let notices = Notices { entrance: ports.notices, circuit: circuit.clone(), stopping: stopping.clone() };
        let pipeline = Pipeline {
            store: ports.store,
            sources,
            list,
            notices,
            renderer,
            gate: render_gate(settings.threads()),
            attempt_timeout: settings.attempt_timeout(),
            stopping: stopping.clone(),
            clock: ports.clock,
        };
        let handler = DeliveryHandler {
            pipeline,
            tasks: tasks.clone(),
            lease: Terms::new(settings.lease()),
            max_receive_count: settings.max_receive_count,
            worker: worker_name(),
            aborting: aborting.clone(),
        };
        let slots = usize::from(settings.worker_slots);
        let (kept, tenant_slots) = (settings.lanes.kept(slots), settings.lanes.of_one_tenant(slots));
        Consumer {
            queue: ports.queue,
            handler: Arc::new(handler),
            slots: Slots::new(slots, if ports.batch.is_some() { kept } else { 0 }),
            lanes: ports.batch.map(|batch| Lanes::new(batch, slots, kept, tenant_slots)),
            models,
            circuit,
            pause: ports.pause,
            readiness,
            tasks,
            stopping,
            aborting,
            grace: settings.grace(),
        }
    }

    /// Receives and performs jobs until told to stop, then drains.
    pub async fn run(&self) -> Drained {
        self.consumer.run().await
    }

    /// Returns the circuit that a fault of the first model opens: its own if there is a fallback.
    pub fn model_circuit(&self) -> Circuit {
        self.consumer.models.first_circuit().unwrap_or(&self.consumer.circuit).clone()
    }

    /// Returns how many CPU tasks are waiting or running.
    pub fn cpu_tasks(&self) -> usize {
        self.cpu.unanswered()
    }

    /// Returns how many deliveries are in flight.
    pub fn in_flight(&self) -> usize {
        self.consumer.slots.in_flight()
    }
}

/// Returns the wall clock.
pub fn system_clock() -> Clock {
    // Records are read by people and by clients: milliseconds are enough.
    Arc::new(|| {
        let now = Timestamp::now();
        now.round(Unit::Millisecond).unwrap_or(now)
    })
}

/// Host and process id: what an operator needs to find the holder of a claim.
pub fn worker_name() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    format!("{}/{}", host.as_deref().unwrap_or("unknown-host"), std::process::id())
}
