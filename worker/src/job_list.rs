//! `JobList`: enters jobs into the list of their tenant's jobs, beside the work and never in its way.

use std::sync::Arc;
use std::time::Duration;

use job::{IndexEntry, JobId, Record, TenantId};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::error::JobError;
use crate::metrics;
use crate::store::ObjectStore;

/// Tries to enter a job; a store that is in trouble for longer than these and their pauses leaves it out.
const TRIES: u32 = 5;
/// First pause between two tries; doubles: 15 s in all.
const PAUSE: Duration = Duration::from_secs(1);

/// Enters jobs. Shared by all deliveries.
///
/// Once for each attempt, always under the same key: an attempt that dies before its entry is written is followed by
/// another one. No job waits for its entry, and none fails for the want of it.
#[derive(Clone)]
pub struct JobList {
    pub store: Arc<dyn ObjectStore>,
    /// Where entries are written: tracked, so that a stop waits for them.
    pub tasks: TaskTracker,
    pub stopping: CancellationToken,
}

/// Returns the entry of a job; `None` for one that nobody knows the time of.
pub fn entry(record: &Record) -> Option<IndexEntry> {
    record.submitted_at.or_else(|| record.id.issued_at()).map(|at| IndexEntry::new(record.id, at))
}

impl JobList {
    /// Enters the job of a record that is written, in a task of its own.
    pub fn enter(&self, record: &Record) {
        if let Some(entry) = entry(record) {
            self.tasks.spawn(self.clone().write(record.tenant.clone(), entry).in_current_span());
        }
    }

    async fn write(self, tenant: TenantId, entry: IndexEntry) {
        let mut pause = PAUSE;
        for left in (0..TRIES).rev() {
            let error = match self.store.write_index(&tenant, &entry).await {
                Ok(()) => return metrics::entered("written"),
                Err(error) => error,
            };
            if left == 0 || self.stopping.is_cancelled() {
                return left_out(&entry.id(), &error);
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause *= 2,
                // One more try, at once.
                () = self.stopping.cancelled() => {}
            }
        }
    }
}

/// Notes that a job is not in its tenant's list. All else is as it should be.
pub fn left_out(id: &JobId, error: &JobError) {
    metrics::entered("failed");
    tracing::warn!(job.id = %id, %error, "job could not be entered into its tenant's list");
}
