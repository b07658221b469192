//! The reconciler: ends the jobs that no worker will end, from the dead-letter queue and from claims that ran out.

mod command;
mod ledger;
mod letters;
mod sweep;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use job::{Notice, Record};

use crate::error::JobError;
use crate::lane::Entrance;
use crate::notices::fault;
use crate::pipeline::Clock;
use crate::queue::{JobQueue, QueueError};
use crate::store::{ObjectStore, Shelf};

pub use command::{ReconcileSettings, asked};
pub use ledger::{Ledger, ledger_key};
pub use letters::Judged;
pub use sweep::PATIENCE_BEYOND_RETENTION;

/// What one pass may take, so that it ends within its lease.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Dead letters looked at. Which of them, where there are more, is SQS's choice, and another one in each pass.
    pub letters: usize,
    /// Keys listed.
    pub keys: usize,
    /// Records read.
    pub reads: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        // A thousand keys a call, and some ten milliseconds for a read: a minute or two together.
        Self { letters: 2000, keys: 100_000, reads: 10_000 }
    }
}

/// The reconciler. It holds no state: what it has to remember is in the bucket ([`Ledger`]).
pub struct Reconciler {
    /// The dead-letter queue. Looked into, never deleted from.
    pub dead_letters: Arc<dyn JobQueue>,
    pub store: Arc<dyn ObjectStore>,
    pub shelf: Arc<dyn Shelf>,
    /// The webhook queue, where there is one.
    pub notices: Option<Arc<dyn Entrance>>,
    pub clock: Clock,
    /// How long the job queue keeps a message.
    pub retention: Duration,
    pub bounds: Bounds,
    /// Host and process, for operators.
    pub name: String,
}

/// What a pass came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passed {
    /// Another reconciler is at it.
    Elsewhere {
        holder: String,
    },
    Done(Report),
}

/// What a pass has found and written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Dead letters by what they turned out to be.
    pub letters: BTreeMap<Judged, u64>,
    /// Whether every dead letter was seen.
    pub saw_every_letter: bool,
    /// Keys listed by the sweep.
    pub listed: u64,
    /// Records read by the sweep.
    pub read: u64,
    /// Records that now say `expired`.
    pub expired: u64,
    /// Records that could not be read, by either part.
    pub unreadable: u64,
    /// Whether the sweep has come to its end, and begins anew with the next pass.
    pub swept: bool,
}

impl Report {
    /// Returns how many dead letters turned out to be this.
    pub fn letters_that_are(&self, judged: Judged) -> u64 {
        self.letters.get(&judged).copied().unwrap_or_default()
    }
}

/// A pass could not be done.
#[derive(Debug, Error)]
pub enum ReconcileError {
    #[error("the dead-letter queue: {0}")]
    Queue(#[from] QueueError),
    #[error("bucket or webhook queue: {0}")]
    Job(#[from] JobError),
}

impl Reconciler {
    /// Tells the webhook queue of an end that is about to be written. Before and not after: what has an end is not looked at
    /// again, and a notice of an end that does not come is dropped by whoever reads it.
    ///
    /// # Errors
    /// When the queue has not confirmed it: the end has to wait for the next pass.
    async fn tell(&self, record: &Record) -> Result<(), JobError> {
        let Some(entrance) = &self.notices else { return Ok(()) };
        let notice = Notice { tenant: record.tenant.clone(), id: record.id, retries: record.retries };
        entrance.put(notice.encode(), &record.tenant).await.map_err(|error| fault(&error))
    }

    /// Looks at dead letters and at one slice of the records, and ends what has to be ended.
    ///
    /// Safe at any time and in any number: every write is conditional on the version that was judged, so a success is
    /// never overwritten. The lease only saves the calls of a second pass at the same time.
    ///
    /// # Errors
    /// When queue or bucket cannot be used. What had been written until then is right.
    pub async fn pass(&self) -> Result<Passed, ReconcileError> {
        let (mut ledger, version) = match Ledger::take(self).await? {
            Ok(taken) => taken,
            Err(holder) => return Ok(Passed::Elsewhere { holder }),
        };
        let mut report = Report::default();
        let done = async {
            self.judge_letters(&mut report).await?;
            self.sweep(&mut ledger, &mut report).await
        }
        .await;
        // Also after a failure: the next pass, anybody's, need not wait.
        ledger.give_back(self, &version).await;
        done.map(|()| Passed::Done(report))
    }
}
