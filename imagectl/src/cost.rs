//! Cost: calls of the model that were paid for beside pictures that were delivered, counted from the records.

use std::collections::BTreeMap;
use std::fmt;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use job::{JobId, RECORDS, Record, Status, id_of_record_key, source_key};
use serde::Serialize;

use crate::fault::Fault;
use crate::objects::{Kept, MAX_LISTED, read_record};
use crate::settings::CostSettings;
use crate::site::Site;

/// Records read at a time.
const READS_AT_A_TIME: usize = 16;

/// What was paid for, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cost {
    /// Records last written since then are counted.
    pub since: Timestamp,
    pub records: u64,
    /// Records by state.
    pub jobs: BTreeMap<&'static str, u64>,
    /// Calls that returned a picture, as records and sources tell them. A call that a crash cut off before its checkpoint, and
    /// was repeated, is in neither: the metric `worker_model_calls_total` counts what returned, and the bill everything.
    pub calls_paid: u64,
    /// Of these, calls that the source alone tells: the job ended while they were under way.
    pub calls_by_source_alone: u64,
    /// Jobs with a published picture.
    pub pictures_delivered: u64,
    /// Calls for each picture: 1 is what it should be. None without a picture.
    pub calls_per_picture: Option<f64>,
    /// Jobs that took more than one call.
    pub paid_more_than_once: Vec<JobId>,
    /// Records that could not be read.
    pub unreadable: u64,
    pub keys_listed: u64,
    /// Whether everything was counted; if not, a bound was met first.
    pub is_complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usd_paid: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usd_per_picture: Option<f64>,
}

/// Counts.
///
/// # Errors
/// When the bucket cannot be read.
#[expect(clippy::cast_precision_loss, reason = "there are not 2^53 pictures")]
pub async fn cost(site: &Site, settings: &CostSettings) -> Result<Cost, Fault> {
    let since = (site.now)().saturating_sub(SignedDuration::from_hours(settings.hours.into()));
    let since = since.expect("hours, not calendar spans");
    let mut cost = Cost {
        since,
        records: 0,
        jobs: BTreeMap::new(),
        calls_paid: 0,
        calls_by_source_alone: 0,
        pictures_delivered: 0,
        calls_per_picture: None,
        paid_more_than_once: Vec::new(),
        unreadable: 0,
        keys_listed: 0,
        is_complete: false,
        usd_paid: None,
        usd_per_picture: None,
    };
    let mut after: Option<String> = None;
    while cost.keys_listed < u64::from(settings.max_keys) {
        let listed = site.objects.list(RECORDS, after.as_deref()).await?;
        cost.keys_listed += listed.len() as u64;
        let recent = listed.iter().filter(|one| one.modified_at >= since);
        let mut ids: Vec<JobId> = recent.filter_map(|one| id_of_record_key(&one.key)).collect();
        let room = usize::try_from(u64::from(settings.max_records).saturating_sub(cost.records + cost.unreadable));
        let is_cut = ids.len() > room.unwrap_or(usize::MAX);
        ids.truncate(room.unwrap_or(usize::MAX));
        let reads = ids.into_iter().map(|id| async move { (id, read(site, &id).await) });
        let mut found = futures::stream::iter(reads).buffer_unordered(READS_AT_A_TIME);
        while let Some((id, read)) = found.next().await {
            match read {
                Ok((Kept::Record(record), by_source)) => cost.count(&record, by_source),
                // Gone since the listing.
                Ok((Kept::Nothing, _)) => {}
                Ok((Kept::Unreadable(damage), _)) => {
                    (site.log)(&damage);
                    cost.unreadable += 1;
                }
                Err(error) => {
                    (site.log)(&format!("{id}: {error}"));
                    cost.unreadable += 1;
                }
            }
        }
        if is_cut {
            break;
        }
        if listed.len() < MAX_LISTED {
            cost.is_complete = true;
            break;
        }
        after = listed.into_iter().next_back().map(|last| last.key);
    }
    cost.paid_more_than_once.sort();
    let ratio = |value: f64| (cost.pictures_delivered > 0).then(|| value / cost.pictures_delivered as f64);
    (cost.calls_per_picture, cost.usd_paid) =
        (ratio(cost.calls_paid as f64), settings.usd_per_call.map(|price| price * cost.calls_paid as f64));
    cost.usd_per_picture =
        cost.usd_paid.filter(|_| cost.pictures_delivered > 0).map(|paid| paid / cost.pictures_delivered as f64);
    Ok(cost)
}

/// Reads a record and, where it may not know of the last call, how many calls the source is the outcome of.
async fn read(site: &Site, id: &JobId) -> Result<(Kept, u32), Fault> {
    let kept = read_record(site.objects.as_ref(), id).await?;
    let may_have_paid =
        |record: &Record| record.paying_until.is_some() || record.attempts > 0 && record.source.is_none();
    if !kept.record().is_some_and(may_have_paid) {
        return Ok((kept, 0));
    }
    let source = site.objects.look(&source_key(id)).await?;
    // A source without the number is from before there was one.
    Ok((kept, source.map_or(0, |source| source.generation.unwrap_or(1))))
}

impl Cost {
    fn count(&mut self, record: &Record, by_source: u32) {
        self.records += 1;
        *self.jobs.entry(record.status.as_str()).or_default() += 1;
        let by_record = record.source.as_ref().map_or(0, |source| source.generation);
        let calls = by_record.max(by_source);
        self.calls_paid += u64::from(calls);
        self.calls_by_source_alone += u64::from(calls - by_record);
        self.pictures_delivered += u64::from(record.status == Status::Succeeded);
        if calls > 1 {
            self.paid_more_than_once.push(record.id);
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "since               {}", self.since)?;
        let jobs: Vec<String> = self.jobs.iter().map(|(status, count)| format!("{status} {count}")).collect();
        writeln!(f, "jobs                {} ({})", self.records, jobs.join(", "))?;
        let alone = self.calls_by_source_alone;
        let alone = if alone > 0 { format!(" ({alone} of jobs that ended during the call)") } else { String::new() };
        writeln!(f, "calls paid          {}{alone}", self.calls_paid)?;
        writeln!(f, "pictures delivered  {}", self.pictures_delivered)?;
        match self.calls_per_picture {
            Some(ratio) => writeln!(f, "calls per picture   {ratio:.3}")?,
            None => writeln!(f, "calls per picture   -")?,
        }
        if let Some(usd) = self.usd_paid {
            writeln!(f, "paid                {usd:.2} USD")?;
        }
        if let Some(usd) = self.usd_per_picture {
            writeln!(f, "a picture           {usd:.4} USD")?;
        }
        for id in self.paid_more_than_once.iter().take(20) {
            writeln!(f, "more than one call  {id}")?;
        }
        if self.unreadable > 0 {
            writeln!(f, "unreadable records  {}", self.unreadable)?;
        }
        writeln!(
            f,
            "not counted         calls repeated after a crash: worker_model_calls_total, and the bill, have them"
        )?;
        if !self.is_complete {
            let keys = self.keys_listed;
            writeln!(
                f,
                "NOT ALL: {} records read of {keys} keys listed: raise --max-records or --max-keys",
                self.records
            )?;
        }
        Ok(())
    }
}
