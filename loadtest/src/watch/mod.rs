//! What the system looks like from outside of its answers: queue, workers, CPU, storage, CDN, alarms.

mod deployed;
mod exposition;
mod local;
mod proc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::target::{Site, Target};

pub use deployed::DeployedWatch;
pub use local::LocalWatch;
pub use proc::{CpuMeter, own_cpu};

/// Where looks come from.
#[derive(Debug)]
pub enum Watch {
    Local(Box<LocalWatch>),
    Deployed(Box<DeployedWatch>),
}

impl Watch {
    /// Makes what can look at a target.
    pub async fn of(target: &Target) -> Self {
        match &target.site {
            Site::Local(site) => Self::Local(Box::new(LocalWatch::new(site.clone(), target.http()))),
            Site::Deployed(outputs) => Self::Deployed(Box::new(DeployedWatch::new((**outputs).clone()).await)),
        }
    }

    /// Looks once. What cannot be seen is in [`Look::gaps`].
    pub async fn look(&mut self) -> Look {
        match self {
            Self::Local(watch) => watch.look().await,
            Self::Deployed(watch) => watch.look().await,
        }
    }

    /// Looks at what a run is compared with: of a deployment the queues and the group, without metrics, which cost money
    /// by the request and change once a minute.
    pub async fn look_at_load(&mut self) -> Look {
        match self {
            Self::Local(watch) => watch.look().await,
            Self::Deployed(watch) => watch.look_at_load().await,
        }
    }
}

/// One look. What is not known is None: not measured here, or in the gaps.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Look {
    pub at: Timestamp,
    /// `local` or `deployed`.
    pub target: String,
    pub queue: QueueLook,
    pub group: GroupLook,
    /// Of the workers: deployed their average, in % of an instance; local their sum, in % of one core.
    pub worker_cpu_percent: Option<f64>,
    pub slots: SlotsLook,
    pub storage: RequestsLook,
    pub cdn: CdnLook,
    pub model: ModelLook,
    pub alarms: Vec<AlarmLook>,
    /// CPU of each process of the local stack and of this one.
    pub processes: Vec<ProcessLook>,
    pub machine: Option<MachineLook>,
    /// What could not be read, and why.
    pub gaps: Vec<String>,
}

/// The job queue.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueLook {
    pub visible: Option<u64>,
    /// Received and not deleted.
    pub in_flight: Option<u64>,
    pub dead_letters: Option<u64>,
    /// Deployed: of the oldest message. Local, where no emulator tells it: how long the jobs that were taken since the last
    /// look had waited, on average.
    pub age_seconds: Option<f64>,
}

/// The workers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupLook {
    /// As many as there should be.
    pub desired: Option<u64>,
    pub in_service: Option<u64>,
    pub healthy: Option<u64>,
}

/// Slots of all workers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SlotsLook {
    pub busy: Option<u64>,
    pub all: Option<u64>,
}

/// Requests to S3, deployed in the last five minutes; local what the workers wrote since the last look.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RequestsLook {
    pub requests: Option<f64>,
    /// Answered with 5xx, or not at all.
    pub errors: Option<f64>,
    /// Answered with 4xx: each poll of a job without a record is a 404, and each lost claim a 412. Deployed only.
    pub refusals: Option<f64>,
}

/// Requests to the CDN, deployed in the last five minutes, local since the last look.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CdnLook {
    pub requests: Option<f64>,
    pub hit_percent: Option<f64>,
}

/// Calls to the model since the last look.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelLook {
    pub calls: Option<f64>,
    pub throttled: Option<f64>,
}

/// An alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmLook {
    pub name: String,
    /// `OK`, `ALARM` or `INSUFFICIENT_DATA`.
    pub state: String,
}

/// One process of this machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessLook {
    pub name: String,
    /// Since the last look, in % of one core.
    pub cpu_percent: f64,
}

/// The machine that the local stack shares with whatever else runs there.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MachineLook {
    pub cores: u32,
    /// Since the last look, in % of all cores.
    pub busy_percent: f64,
}

impl Look {
    /// Returns the CPU of a process, in % of one core.
    #[must_use]
    pub fn cpu_of(&self, name: &str) -> Option<f64> {
        self.processes.iter().find(|process| process.name == name).map(|process| process.cpu_percent)
    }

    /// Returns whether neither a queue nor a group of workers answered: whatever else is seen then says nothing.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        // Locally it is known how many workers there should be, whether one answers or not.
        let nobody = self.group.desired.is_none() || (self.target == "local" && self.group.in_service == Some(0));
        nobody && self.queue.visible.is_none() && self.queue.dead_letters.is_none()
    }

    /// Returns the jobs that wait or are in flight.
    #[must_use]
    pub fn backlog(&self) -> Option<u64> {
        Some(self.queue.visible? + self.queue.in_flight?)
    }
}
