//! Redrive: dead letters go back to the queue that they came from, one by one, each written down before it moves.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::audit::{Action, AuditLog};
use crate::fault::Fault;
use crate::letters::{Letter, Saw, Walk, not_found};
use crate::queues::unknown_origin;
use crate::settings::RedriveSettings;
use crate::site::Site;

/// What a redrive came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Redriven {
    /// Sent to the queue that they came from and taken out of the dead-letter queue; with `dry_run`, what would have been.
    pub redriven: u64,
    /// Left alone because they were not asked for.
    pub others: u64,
    /// Asked for, and no jobs: they would be back at once.
    pub refused: u64,
    /// Asked for, and they came from a queue that is none of ours.
    pub elsewhere: u64,
    /// Asked for, and their records cannot be read: no worker could do them, and they would be back at once.
    pub unreadable: u64,
    /// Sent, and still in the dead-letter queue as well: the claim makes one job of the two.
    pub left_behind: u64,
    pub dry_run: bool,
    #[serde(flatten)]
    pub saw: Saw,
    /// Whether a signal ended it.
    pub interrupted: bool,
    /// Keys of the audit's last object; none when nothing was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<String>,
    /// What ended it, or kept it from doing all that was asked for; everything above had been done until then.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "in_words")]
    pub fault: Option<Fault>,
}

#[expect(clippy::ref_option, reason = "serde gives it so")]
fn in_words<S: Serializer>(fault: &Option<Fault>, serializer: S) -> Result<S::Ok, S::Error> {
    fault.as_ref().map(Fault::to_string).serialize(serializer)
}

/// Sends dead letters back to the queue that they came from.
///
/// First the new message, then the old one is deleted: whatever happens between the two, the job is in a queue. Not by
/// `StartMessageMoveTask`, which takes all or nothing and writes nothing down (docs/adr/0021-operating.md). However it
/// ends, it says how far it came.
pub async fn redrive(site: &Site, settings: &RedriveSettings, stopping: &CancellationToken) -> Redriven {
    let mut run = Run {
        site,
        settings,
        audit: AuditLog::begin(site, "redrive"),
        walk: Walk::begin(site, u32::MAX),
        done: Redriven { dry_run: settings.dry_run, ..Redriven::default() },
        stranger: None,
    };
    let ended = run.all(stopping).await;
    let Run { walk, audit, mut done, stranger, .. } = run;
    done.saw = walk.saw();
    walk.put_back().await;
    done.audit = (!audit.is_empty()).then(|| audit.key());
    done.fault = ended.err().or(stranger).or_else(|| done.shortfall(settings));
    done
}

impl Redriven {
    /// Returns what was asked for and is not done, though nothing failed.
    fn shortfall(&self, settings: &RedriveSettings) -> Option<Fault> {
        let id = settings.id.as_deref().filter(|_| !self.interrupted)?;
        if self.unreadable > 0 {
            let reason = format!("that of {id} is damaged: `imagectl job show` says where");
            return Some(Fault::Service { what: "record", reason });
        }
        (self.redriven + self.refused == 0).then(|| not_found(id, self.saw))
    }
}

struct Run<'a> {
    site: &'a Site,
    settings: &'a RedriveSettings,
    audit: AuditLog<'a>,
    walk: Walk<'a>,
    done: Redriven,
    /// Why a letter could not go back to where it came from.
    stranger: Option<Fault>,
}

impl Run<'_> {
    async fn all(&mut self, stopping: &CancellationToken) -> Result<(), Fault> {
        let mut pace = tokio::time::interval(Duration::from_secs(1) / self.settings.rate);
        // A slow answer is no reason for a burst.
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while let Some(page) = self.walk.next().await? {
            for letter in page {
                if stopping.is_cancelled() {
                    self.done.interrupted = true;
                    return Ok(());
                }
                if !self.is_wanted(&letter) {
                    self.done.others += 1;
                    continue;
                }
                if self.done.redriven >= u64::from(self.settings.limit) {
                    return Ok(());
                }
                if letter.job.is_none() {
                    self.done.refused += 1;
                } else if !self.site.queues.knows_origin(&letter.raw) {
                    self.done.elsewhere += 1;
                    self.stranger = Some(unknown_origin(&letter.raw));
                } else if letter.damage.is_some() {
                    self.done.unreadable += 1;
                } else if self.settings.dry_run {
                    self.done.redriven += 1;
                } else {
                    pace.tick().await;
                    self.one(&letter).await?;
                }
                if self.settings.id.is_some() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn is_wanted(&self, letter: &Letter) -> bool {
        match (&self.settings.id, &self.settings.code) {
            (Some(id), _) => letter.has_id(id),
            (None, Some(code)) => letter.has_code(code),
            (None, None) => self.settings.all,
        }
    }

    async fn one(&mut self, letter: &Letter) -> Result<(), Fault> {
        let Some(job) = &letter.job else { return Ok(()) };
        let which = self.settings.id.as_deref().or(self.settings.code.as_deref()).unwrap_or("all");
        let (message_id, fault) = (letter.message_id.as_str(), letter.fault.as_deref());
        let entry =
            Action::Redrive { job_id: job.id, message_id, tenant: &job.tenant, code: &letter.code, fault, which };
        self.audit.append(entry).await?;
        if let Err(fault) = self.site.queues.send_back(&letter.raw, &job.tenant).await {
            let reason = fault.to_string();
            self.audit.append(Action::RedriveFailed { job_id: job.id, message_id, reason }).await?;
            return Err(fault);
        }
        self.done.redriven += 1;
        match self.site.queues.remove(&letter.raw.receipt).await {
            Ok(()) => self.walk.removed(letter),
            Err(fault) => {
                self.done.left_behind += 1;
                (self.site.log)(&format!("{message_id} was sent, and could not be deleted here: {fault}"));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Redriven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.dry_run { "would be redriven" } else { "redriven" };
        writeln!(f, "{} {verb}, {} others left alone", self.redriven, self.others)?;
        if self.refused > 0 {
            writeln!(f, "{} are no jobs that this release reads, and stay", self.refused)?;
        }
        if self.elsewhere > 0 {
            writeln!(f, "{} came from another queue, and stay", self.elsewhere)?;
        }
        if self.unreadable > 0 {
            writeln!(
                f,
                "{} have a record that cannot be read, and stay (--code unreadable lists them)",
                self.unreadable
            )?;
        }
        if self.left_behind > 0 {
            writeln!(
                f,
                "{} were sent and are still here as well: the claim makes one job of the two",
                self.left_behind
            )?;
        }
        if self.saw.hidden > 0 {
            writeln!(f, "{}", self.saw.more())?;
        }
        if self.interrupted {
            writeln!(f, "interrupted: the rest is where it was")?;
        }
        if let Some(audit) = &self.audit {
            writeln!(f, "audit: {audit}")?;
        }
        Ok(())
    }
}
