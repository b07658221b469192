//! `Notices`: tells the webhook queue that a job has ended, before its message is deleted.

use std::sync::Arc;
use std::time::Duration;

use job::{Job, Notice};
use tokio_util::sync::CancellationToken;

use crate::circuit::Circuit;
use crate::error::{Class, JobError, Kind};
use crate::lane::Entrance;
use crate::metrics;
use crate::queue::QueueError;

/// Pause after a notice that was not confirmed; the SDK has tried for some seconds before.
const RETRY: Duration = Duration::from_secs(5);

/// Puts notices into the webhook queue, where there is one (docs/adr/0023).
#[derive(Clone)]
pub struct Notices {
    pub entrance: Option<Arc<dyn Entrance>>,
    pub circuit: Circuit,
    pub stopping: CancellationToken,
}

impl Notices {
    /// Tells of the end of `job`. While the queue is out of order, the job is held here, under its lease: what was paid for
    /// is published, and a message that is deleted untold would be news that nobody gets.
    ///
    /// # Errors
    /// When the queue has not confirmed it and this process stops: the delivery must not be deleted.
    pub async fn tell(&self, job: &Job) -> Result<(), JobError> {
        let Some(entrance) = &self.entrance else { return Ok(()) };
        let mut tripped = false;
        loop {
            let is_last = self.stopping.is_cancelled();
            let error = match put(entrance.as_ref(), job).await {
                Ok(()) => break,
                Err(error) => error,
            };
            metrics::error(error.kind);
            if is_last {
                return Err(error);
            }
            tracing::warn!(%error, "end of the job could not be told to the webhook queue, trying again");
            if error.class() == Class::Misconfigured {
                tripped = true;
                self.circuit.trip(&error);
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = self.stopping.cancelled() => {}
            }
        }
        if tripped {
            self.circuit.recovered();
        }
        Ok(())
    }
}

/// Puts one notice into the webhook queue.
///
/// # Errors
/// When the queue has not confirmed it.
pub async fn put(entrance: &dyn Entrance, job: &Job) -> Result<(), JobError> {
    entrance.put(Notice::of(job).encode(), &job.tenant).await.map_err(|error| fault(&error))
}

/// Makes a fault of the webhook queue one of a job.
pub fn fault(error: &QueueError) -> JobError {
    let kind = match error {
        QueueError::Misconfigured(_) => Kind::WebhookQueueRefused,
        QueueError::Unavailable(_) | QueueError::NotOurs(_) => Kind::WebhookQueueUnavailable,
    };
    JobError::new(kind, error.to_string())
}
