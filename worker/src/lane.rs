//! `Lane`: interactive jobs and batches wait in queues of their own, and neither waits for the other (docs/adr/0025).

use std::sync::Arc;

use async_trait::async_trait;
use job::TenantId;

use crate::queue::{JobQueue, QueueError};

/// Which of the two queues a delivery is from. Where there is one queue, all are interactive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Single jobs: somebody waits for the picture.
    Interactive,
    /// Jobs of batches, and what a tenant has beyond its share of the interactive lane.
    Batch,
}

impl Lane {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Interactive, Self::Batch];

    /// Returns the word for labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Batch => "batch",
        }
    }

    /// Returns the name of its queue among the reasons of `/ready`.
    pub fn component(self) -> &'static str {
        match self {
            Self::Interactive => "queue",
            Self::Batch => "batch queue",
        }
    }
}

/// The end of a queue at which jobs are put in.
#[async_trait]
pub trait Entrance: Send + Sync + 'static {
    /// Puts a message in, as it was received, for the tenant whose job it is.
    ///
    /// # Errors
    /// When the queue has not confirmed it; it may be in nevertheless.
    async fn put(&self, body: String, tenant: &TenantId) -> Result<(), QueueError>;
}

/// The second queue of a fleet with lanes.
#[derive(Clone)]
pub struct BatchLane {
    /// Where batches are received.
    pub queue: Arc<dyn JobQueue>,
    /// Where single jobs are put that a tenant has too many of.
    pub entrance: Arc<dyn Entrance>,
}
