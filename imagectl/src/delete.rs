//! Delete: one dead letter that nothing will be made of is taken out, written down before it goes.

use std::fmt;

use job::{JobId, Status};
use serde::Serialize;

use crate::audit::{Action, AuditLog};
use crate::fault::Fault;
use crate::letters::{Letter, POISON, Walk, not_found};
use crate::settings::DeleteSettings;
use crate::site::Site;

/// What was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Deleted {
    pub message_id: String,
    pub job_id: Option<JobId>,
    pub code: String,
    /// Key of the audit's object.
    pub audit: String,
}

/// Deletes a dead letter by the id of its job or message.
///
/// # Errors
/// When there is no such dead letter, when it may be a job that has not ended, or when queue or bucket cannot be used.
pub async fn delete(site: &Site, settings: &DeleteSettings) -> Result<Deleted, Fault> {
    let mut walk = Walk::begin(site, settings.max_letters);
    let done: Result<Option<Deleted>, Fault> = async {
        while let Some(page) = walk.next().await? {
            if let Some(letter) = page.into_iter().find(|letter| letter.has_id(&settings.id)) {
                let deleted = one(site, settings, &letter).await?;
                walk.removed(&letter);
                return Ok(Some(deleted));
            }
        }
        Ok(None)
    }
    .await;
    let saw = walk.saw();
    walk.put_back().await;
    done?.ok_or_else(|| not_found(&settings.id, saw))
}

async fn one(site: &Site, settings: &DeleteSettings, letter: &Letter) -> Result<Deleted, Fault> {
    let Letter { message_id, job_id, code, .. } = letter;
    if !settings.force && !has_ended(letter) {
        return Err(Fault::Usage(format!(
            "{message_id} is not deleted: it may be a job that somebody waits for ({code}). Redrive it, or give --force \
             if nobody is to have it"
        )));
    }
    let mut audit = AuditLog::begin(site, "delete");
    let entry = Action::Delete { job_id: *job_id, message_id, code, reason: &settings.reason };
    audit.append(entry).await?;
    if let Err(fault) = site.queues.remove(&letter.raw.receipt).await {
        audit.append(Action::DeleteFailed { message_id, reason: fault.to_string() }).await?;
        return Err(fault);
    }
    Ok(Deleted { message_id: message_id.clone(), job_id: *job_id, code: code.clone(), audit: audit.key() })
}

/// Whether nobody waits for it: it is no job, or its record says that the job has ended. A message of a newer release may be one.
fn has_ended(letter: &Letter) -> bool {
    letter.code == POISON && letter.job.is_none() || letter.status.is_some_and(Status::is_final)
}

impl fmt::Display for Deleted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "deleted {} ({})", self.message_id, self.code)?;
        writeln!(f, "audit: {}", self.audit)
    }
}
