//! Status: the pipeline at a glance: queue, dead letters, pauses, workers and what they hold.

use std::collections::BTreeMap;
use std::fmt;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use job::{JobId, Pauses, RECORDS, id_of_record_key};
use serde::Serialize;

use crate::fault::Fault;
use crate::fleet::FleetLook;
use crate::objects::{Kept, MAX_LISTED, read_record};
use crate::pause::{self, PausesView};
use crate::queues::Depth;
use crate::settings::StatusSettings;
use crate::site::Site;
use crate::table::{or_dash, table};

/// Records read at a time.
const READS_AT_A_TIME: usize = 16;

/// The pipeline at a moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PipelineStatus {
    pub at: Timestamp,
    pub jobs: Option<Depth>,
    /// The second lane, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batches: Option<Depth>,
    pub dead_letters: Option<Depth>,
    pub pauses: Option<Pauses>,
    pub fleet: FleetLook,
    /// What workers hold, by what the records say.
    pub claims: Option<Claims>,
    /// Parts of queues and bucket that could not be seen, and why. What cannot be seen of the workers is told by `fleet`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<String>,
}

/// Live claims of recent jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Claims {
    pub holders: BTreeMap<String, Holder>,
    /// Claims that ran out, whose jobs wait for their next hand-over.
    pub run_out: u64,
    /// Records of jobs accepted since then were read. Jobs with an `Idempotency-Key` are not found this way: their ids
    /// carry no time.
    pub since: Timestamp,
    pub records_read: u64,
    /// Of these, records that cannot be understood.
    pub unreadable: u64,
    /// Whether the bound was met first.
    pub is_complete: bool,
}

/// A process that holds claims.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Holder {
    pub jobs: u64,
    /// When it last wrote a record of one of them.
    pub last_written_at: Timestamp,
}

/// Looks at everything. What cannot be seen is a gap, and hides nothing else.
pub async fn status(site: &Site, settings: &StatusSettings) -> PipelineStatus {
    let queues = async { tokio::join!(site.queues.jobs(), site.queues.batches(), site.queues.dead_letters()) };
    let (queues, pauses, fleet, claims) =
        tokio::join!(queues, pause::read(site), site.fleet.look(), claims(site, settings));
    let mut gaps = Vec::new();
    let (jobs, batches, dead_letters) = queues;
    PipelineStatus {
        at: (site.now)(),
        jobs: seen(&mut gaps, "the job queue", jobs),
        batches: seen(&mut gaps, "the queue of batches", batches).flatten(),
        dead_letters: seen(&mut gaps, "the dead-letter queue", dead_letters),
        pauses: seen(&mut gaps, "what is paused", pauses).map(|PausesView { pauses }| pauses),
        fleet,
        claims: seen(&mut gaps, "claims", claims),
        gaps,
    }
}

fn seen<T>(gaps: &mut Vec<String>, what: &str, found: Result<T, Fault>) -> Option<T> {
    found.map_err(|fault| gaps.push(format!("{what}: {fault}"))).ok()
}

async fn claims(site: &Site, settings: &StatusSettings) -> Result<Claims, Fault> {
    let now = (site.now)();
    let since = now.saturating_sub(SignedDuration::from_mins(settings.claims_minutes.into()));
    let since = since.expect("minutes, not calendar spans");
    let max = u64::from(settings.max_records);
    let mut claims = Claims { since, ..Claims::default() };
    let mut after = Some(before_ids_of(since));
    while claims.records_read < max {
        let listed = site.objects.list(RECORDS, after.as_deref()).await?;
        // Later ids are not of a time: they are made from keys, and behind all those of this century.
        let ids = listed.iter().filter_map(|one| id_of_record_key(&one.key));
        let is_recent = |id: &JobId| id.issued_at().is_some_and(|at| at <= now + SignedDuration::from_mins(1));
        let ids: Vec<JobId> = ids.filter(is_recent).collect();
        let is_last = listed.len() < MAX_LISTED || ids.is_empty();
        claims.records_read += ids.len() as u64;
        let reads = ids.into_iter().map(|id| async move { read_record(site.objects.as_ref(), &id).await });
        let mut found = futures::stream::iter(reads).buffer_unordered(READS_AT_A_TIME);
        while let Some(record) = found.next().await {
            let record = match record? {
                Kept::Record(record) => record,
                Kept::Nothing => continue,
                Kept::Unreadable(damage) => {
                    (site.log)(&damage);
                    claims.unreadable += 1;
                    continue;
                }
            };
            let Some(claim) = record.claim else { continue };
            if claim.deadline_at <= now {
                claims.run_out += 1;
                continue;
            }
            let holder = claims.holders.entry(claim.worker).or_default();
            holder.jobs += 1;
            holder.last_written_at = holder.last_written_at.max(record.updated_at);
        }
        if is_last {
            claims.is_complete = true;
            break;
        }
        after = listed.into_iter().next_back().map(|last| last.key);
    }
    Ok(claims)
}

/// Returns a key in front of every record whose id was issued at `time` or later: such ids begin with the milliseconds.
fn before_ids_of(time: Timestamp) -> String {
    format!("{RECORDS}{:012x}", time.as_millisecond().max(0))
}

impl fmt::Display for PipelineStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |name: &str, depth: &Depth, age: String| {
            let Depth { waiting, in_flight, delayed } = depth;
            vec![name.to_owned(), waiting.to_string(), in_flight.to_string(), delayed.to_string(), age]
        };
        let age = self.fleet.oldest_message_seconds.map(|seconds| format!("{seconds:.0} s"));
        let no_age = || or_dash(None::<String>);
        let mut rows: Vec<_> = self.jobs.iter().map(|depth| row("jobs", depth, or_dash(age.as_ref()))).collect();
        rows.extend(self.batches.iter().map(|depth| row("batches", depth, no_age())));
        rows.extend(self.dead_letters.iter().map(|depth| row("dead letters", depth, no_age())));
        writeln!(f, "{}", table(&["queue", "waiting", "in flight", "delayed", "oldest"], &rows))?;
        if let Some(pauses) = &self.pauses {
            writeln!(f, "{}", PausesView { pauses: pauses.clone() })?;
        }
        let members = self.fleet.members.iter();
        let rows: Vec<_> = members
            .map(|member| vec![member.name.clone(), member.state.clone(), or_dash(member.detail.as_ref())])
            .collect();
        if let Some(desired) = self.fleet.desired {
            writeln!(f, "{} instances of {desired} desired", rows.len())?;
        }
        if !rows.is_empty() {
            writeln!(f, "{}", table(&["process or instance", "state", ""], &rows))?;
        }
        if let Some(claims) = &self.claims {
            write!(f, "{claims}")?;
        }
        self.gaps.iter().chain(&self.fleet.gaps).try_for_each(|gap| writeln!(f, "not seen: {gap}"))
    }
}

impl fmt::Display for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { holders, run_out, since, records_read, unreadable, is_complete } = self;
        let rows: Vec<_> = holders
            .iter()
            .map(|(name, holder)| vec![name.clone(), holder.jobs.to_string(), holder.last_written_at.to_string()])
            .collect();
        if !rows.is_empty() {
            writeln!(f, "{}", table(&["holder of claims", "jobs", "last wrote"], &rows))?;
        }
        let more = if *is_complete { "" } else { ", NOT ALL (--max-records)" };
        writeln!(f, "{run_out} claims ran out; {records_read} records of jobs accepted since {since} read{more}")?;
        if *unreadable > 0 {
            writeln!(f, "{unreadable} of them are DAMAGED: who holds what there is not known")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_later_ids_come_behind() {
        let keys: job::IdKeys = "test-secret-test-secret-test-secret".parse().unwrap();
        let id = keys.issue(&"north".parse().unwrap());
        let issued = id.issued_at().unwrap();
        let key = job::record_key(&id);
        assert!(before_ids_of(issued) < key);
        assert!(before_ids_of(issued + SignedDuration::from_millis(1)) > key);
    }
}
