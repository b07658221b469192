//! Status: the pipeline at a glance: queue, dead letters, pauses, workers and what they hold.

use std::collections::BTreeMap;
use std::fmt;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use job::{JobId, Pauses, RECORDS, id_of_record_key};
use serde::Serialize;

use crate::fault::Fault;
use crate::fleet::FleetLook;
use crate::objects::{MAX_LISTED, read_record};
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
    pub jobs: Depth,
    /// The second lane, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batches: Option<Depth>,
    pub dead_letters: Depth,
    pub pauses: Pauses,
    pub fleet: FleetLook,
    /// What workers hold, by what the records say.
    pub claims: Claims,
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

/// Looks at everything.
///
/// # Errors
/// When queue or bucket cannot be used. What cannot be seen of the workers is told as a gap.
pub async fn status(site: &Site, settings: &StatusSettings) -> Result<PipelineStatus, Fault> {
    let claims = claims(site, settings);
    let queues = async { tokio::try_join!(site.queues.jobs(), site.queues.batches(), site.queues.dead_letters()) };
    let (queues, pauses, fleet, claims) = tokio::join!(queues, pause::read(site), site.fleet.look(), claims);
    let ((jobs, batches, dead_letters), PausesView { pauses }) = (queues?, pauses?);
    Ok(PipelineStatus { at: (site.now)(), jobs, batches, dead_letters, pauses, fleet, claims: claims? })
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
            let Some(record) = record? else { continue };
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
        let mut rows = vec![row("jobs", &self.jobs, or_dash(age))];
        rows.extend(self.batches.iter().map(|depth| row("batches", depth, no_age())));
        rows.push(row("dead letters", &self.dead_letters, no_age()));
        writeln!(f, "{}", table(&["queue", "waiting", "in flight", "delayed", "oldest"], &rows))?;
        writeln!(f, "{}", PausesView { pauses: self.pauses.clone() })?;
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
        let holders = self.claims.holders.iter();
        let rows: Vec<_> = holders
            .map(|(name, holder)| vec![name.clone(), holder.jobs.to_string(), holder.last_written_at.to_string()])
            .collect();
        if !rows.is_empty() {
            writeln!(f, "{}", table(&["holder of claims", "jobs", "last wrote"], &rows))?;
        }
        let Claims { run_out, since, records_read, is_complete, .. } = &self.claims;
        let more = if *is_complete { "" } else { ", NOT ALL (--max-records)" };
        writeln!(f, "{run_out} claims ran out; {records_read} records of jobs accepted since {since} read{more}")?;
        self.fleet.gaps.iter().try_for_each(|gap| writeln!(f, "not seen: {gap}"))
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
