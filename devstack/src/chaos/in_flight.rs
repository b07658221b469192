//! `CallsInFlight`: which jobs have been or are being paid for and have no checkpoint yet, so that a fault may cost one more call.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;

use job::{JobId, Record, record_key, source_key};

use super::traffic::Submission;
use crate::bedrock::LedgerReport;
use crate::embedded::{is_there, look};
use crate::stack::BUCKET;

/// Looks at the ledger and the bucket. A call is in flight from its request until its picture is checkpointed.
#[derive(Debug)]
pub(super) struct CallsInFlight {
    objects: PathBuf,
    /// A checkpoint stays.
    checkpointed: HashSet<JobId>,
}

impl CallsInFlight {
    /// `objects` is the folder of S3: it is looked into directly, for S3 itself may be what is down.
    pub(super) fn new(objects: PathBuf) -> Self {
        Self { objects, checkpointed: HashSet::new() }
    }

    /// Returns the jobs with a call in flight: those of the process `worker`, or of all.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(super) async fn of(
        &mut self,
        worker: Option<u32>,
        ledger: &LedgerReport,
        submissions: &[Submission],
    ) -> io::Result<Vec<JobId>> {
        let by_prompt: HashMap<&str, &Submission> =
            submissions.iter().map(|submission| (submission.prompt.as_str(), submission)).collect();
        let mut found = Vec::new();
        for (prompt, entry) in &ledger.by_prompt {
            let Some(submission) = by_prompt.get(prompt.as_str()) else { continue };
            let is_billed = entry.paid + entry.paid_unanswered + entry.in_making > 0;
            if !is_billed || (entry.in_making == 0 && self.is_safe(submission)) {
                continue;
            }
            if self.is_at(&submission.id, worker).await? {
                found.push(submission.id);
            }
        }
        Ok(found)
    }

    /// Returns whether its picture is checkpointed. One that the model has spoiled may be asked for again with a
    /// checkpoint there.
    fn is_safe(&mut self, submission: &Submission) -> bool {
        let id = submission.id;
        if !self.checkpointed.contains(&id) && is_there(&self.objects, BUCKET, &source_key(&id)) {
            self.checkpointed.insert(id);
        }
        submission.spoiled == 0 && self.checkpointed.contains(&id)
    }

    /// Returns whether the job is claimed by the process, or by any.
    async fn is_at(&self, id: &JobId, worker: Option<u32>) -> io::Result<bool> {
        let Some((_, bytes)) = look(&self.objects, BUCKET, &record_key(id)).await? else { return Ok(false) };
        let record: Record = serde_json::from_slice(&bytes)?;
        let holder = record.claim.map(|claim| claim.worker);
        Ok(holder.is_some_and(|holder| worker.is_none_or(|pid| holder.ends_with(&format!("/{pid}")))))
    }
}
