//! The sweep over all records, a slice in each pass: a job whose message cannot exist any more has expired.

use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use job::{JobId, Record, Status, id_of_record_key};

use super::ledger::Ledger;
use super::{ReconcileError, Reconciler, Report};
use crate::claim::end_unheld;
use crate::error::{Class, JobError};
use crate::store::{ETag, Listed, MAX_LISTED, StoreError};

/// Beyond the retention of the queue: the longest that SQS lets anybody hold a message.
pub const PATIENCE_BEYOND_RETENTION: Duration = Duration::from_secs(12 * 3600);
/// Records read at a time.
const READS_AT_A_TIME: usize = 16;

impl Reconciler {
    /// Looks at the next slice of the records.
    ///
    /// Whoever wrote a pending record last had its message in hand, so that message was sent before. The queue forgets it
    /// at the latest a retention after that writing, unless it has moved to the dead-letter queue: and what is there has
    /// been judged before this. A redrive sends it anew, but then the record says `failed`, which is an end.
    pub(super) async fn sweep(&self, ledger: &mut Ledger, report: &mut Report) -> Result<(), ReconcileError> {
        let now = (self.clock)();
        let began_at = *ledger.began_at.get_or_insert(now);
        loop {
            let listed = self.shelf.list_records(ledger.after.as_deref(), MAX_LISTED).await?;
            report.listed += listed.len() as u64;
            let is_last = listed.len() < MAX_LISTED;
            let after = listed.last().map(|last| last.key.clone());
            self.judge_page(&listed, now, ledger, report).await?;
            if is_last {
                report.swept = true;
                if !ledger.is_incomplete {
                    ledger.judged_before = Some(self.horizon(began_at));
                }
                (ledger.after, ledger.began_at, ledger.is_incomplete) = (None, None, false);
                return Ok(());
            }
            // Only now: after an error the same page is looked at again.
            ledger.after = after;
            if report.listed >= self.bounds.keys as u64 || report.read >= self.bounds.reads as u64 {
                return Ok(());
            }
        }
    }

    /// A record last written before this has no message any more.
    pub(super) fn horizon(&self, now: Timestamp) -> Timestamp {
        now.saturating_sub(self.retention + PATIENCE_BEYOND_RETENTION).expect("durations, not calendar spans")
    }

    async fn judge_page(
        &self,
        listed: &[Listed],
        now: Timestamp,
        ledger: &mut Ledger,
        report: &mut Report,
    ) -> Result<(), ReconcileError> {
        let horizon = self.horizon(now);
        let judged_before = ledger.judged_before.unwrap_or(Timestamp::MIN);
        let due = listed.iter().filter(|one| one.modified_at < horizon && one.modified_at >= judged_before);
        let ids: Vec<JobId> = due.filter_map(|one| id_of_record_key(&one.key)).collect();
        report.read += ids.len() as u64;
        let reads = ids.into_iter().map(|id| async move { (id, self.store.read_record(&id).await) });
        let mut found = futures::stream::iter(reads).buffer_unordered(READS_AT_A_TIME);
        while let Some((id, record)) = found.next().await {
            let expired = match record {
                Ok(Some((record, version))) if is_abandoned(&record, now, horizon) => {
                    self.expire(record, &version, now).await.map(Some)
                }
                // In hand, or by the clock of the worker that wrote it not yet old enough: the record's time is not the store's.
                Ok(Some((record, _))) if !record.status.is_final() => Ok(Some(false)),
                // Ended, or gone since the listing.
                Ok(_) => Ok(None),
                Err(error) => Err(error),
            };
            match expired {
                Ok(None) => {}
                Ok(Some(true)) => report.expired += 1,
                // It has no end yet, or the store was busy with the object: the next sweep reads it again.
                Ok(Some(false)) => ledger.is_incomplete = true,
                Err(error) if error.class() == Class::Misconfigured => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(job.id = %id, %error, "a record cannot be judged: the next sweep tries again");
                    report.unreadable += 1;
                    ledger.is_incomplete = true;
                }
            }
        }
        Ok(())
    }

    /// Returns whether it was written: whoever has written the record since it was read is at the job.
    async fn expire(&self, record: Record, version: &ETag, now: Timestamp) -> Result<bool, JobError> {
        let id = record.id;
        self.tell(&record).await?;
        match end_unheld(self.store.as_ref(), record, Some(version), now, (Status::Expired, None)).await {
            Ok(()) => {
                tracing::warn!(job.id = %id, "no message of this job can be left: its record says expired now");
                Ok(true)
            }
            Err(StoreError::Conflict) => Ok(false),
            Err(StoreError::Failed(error)) => Err(error),
        }
    }
}

fn is_abandoned(record: &Record, now: Timestamp, horizon: Timestamp) -> bool {
    let is_held = record.claim.as_ref().is_some_and(|claim| claim.deadline_at > now);
    !record.status.is_final() && !is_held && record.updated_at < horizon
}
