//! Pause and resume: the one object that API and workers of the whole fleet read every few seconds.

use std::fmt;

use job::{Part, Pause, Pauses, pauses_key};
use serde::Serialize;

use crate::audit::{Action, AuditLog};
use crate::fault::Fault;
use crate::objects::ETag;
use crate::site::Site;

/// Operators that meet at the object settle within a few rounds.
const MAX_ROUNDS: usize = 5;

/// What stands still, after a command or now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PausesView {
    #[serde(flatten)]
    pub pauses: Pauses,
}

/// Reads what stands still.
///
/// # Errors
/// When the bucket, or the object, cannot be read.
pub async fn read(site: &Site) -> Result<PausesView, Fault> {
    Ok(PausesView { pauses: found(site).await?.0 })
}

/// Stops parts of the pipeline. A part that stands still already keeps its time, and gets the new reason.
///
/// # Errors
/// When the reason cannot be shown to clients, or the bucket cannot be used.
pub async fn pause(site: &Site, parts: &[Part], reason: &str) -> Result<PausesView, Fault> {
    let pause =
        Pause::new(reason, &site.by, (site.now)()).map_err(|error| Fault::Usage(format!("--reason: {error}")))?;
    change(site, parts, Some(&pause)).await
}

/// Lets parts of the pipeline go on.
///
/// # Errors
/// When the bucket cannot be used.
pub async fn resume(site: &Site, parts: &[Part]) -> Result<PausesView, Fault> {
    change(site, parts, None).await
}

async fn change(site: &Site, parts: &[Part], pause: Option<&Pause>) -> Result<PausesView, Fault> {
    // What cannot be read cannot be changed: said before anything is written down.
    found(site).await?;
    let mut audit = AuditLog::begin(site, if pause.is_some() { "pause" } else { "resume" });
    for part in parts {
        audit
            .append(match pause {
                Some(pause) => Action::Pause { part: *part, reason: &pause.reason },
                None => Action::Resume { part: *part },
            })
            .await?;
    }
    let changed = write(site, parts, pause).await;
    if let Err(fault) = &changed {
        for part in parts {
            let (part, reason) = (*part, fault.to_string());
            audit
                .append(match pause {
                    Some(_) => Action::PauseFailed { part, reason },
                    None => Action::ResumeFailed { part, reason },
                })
                .await?;
        }
    }
    changed
}

async fn write(site: &Site, parts: &[Part], pause: Option<&Pause>) -> Result<PausesView, Fault> {
    for _ in 0..MAX_ROUNDS {
        let (mut pauses, version) = found(site).await?;
        for part in parts {
            let since = pauses.of(*part).map(|before| before.since);
            let next = pause.map(|pause| Pause { since: since.unwrap_or(pause.since), ..pause.clone() });
            pauses.set(*part, next);
        }
        let body = serde_json::to_vec(&pauses).expect("pauses always serialise").into();
        if site.objects.write(pauses_key(), body, version.as_ref()).await?.is_some() {
            return Ok(PausesView { pauses });
        }
    }
    Err(Fault::Contended(pauses_key().to_owned()))
}

async fn found(site: &Site) -> Result<(Pauses, Option<ETag>), Fault> {
    let Some((body, version)) = site.objects.read(pauses_key()).await? else { return Ok((Pauses::default(), None)) };
    let pauses = serde_json::from_slice(&body).map_err(|error| Fault::Service {
        what: "pauses",
        reason: format!(
            "{0} cannot be read ({1}), so API and workers go on as they did: delete the object {0} of the bucket, or restore \
             an earlier version, and give the command again",
            pauses_key(),
            job::Place::from(error)
        ),
    })?;
    Ok((pauses, Some(version)))
}

impl fmt::Display for PausesView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in Part::ALL {
            let name = part.as_str();
            match self.pauses.of(part) {
                None => writeln!(f, "{name:<11} goes on")?,
                Some(Pause { reason, by, since }) => writeln!(f, "{name:<11} paused since {since} by {by}: {reason}")?,
            }
        }
        Ok(())
    }
}
