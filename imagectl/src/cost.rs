//! Cost: calls of the model that were paid for beside pictures that were delivered, counted from the records.

use std::collections::BTreeMap;
use std::fmt;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use job::{JobId, RECORDS, Record, Status, id_of_record_key};
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
    /// Calls that returned a picture, as the records tell them. A call that a crash cut off before its checkpoint is in no
    /// record; the metric `worker_model_calls_total` counts what returned, and the bill everything.
    pub calls_paid: u64,
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
        let reads = ids.into_iter().map(|id| async move { (id, read_record(site.objects.as_ref(), &id).await) });
        let mut found = futures::stream::iter(reads).buffer_unordered(READS_AT_A_TIME);
        while let Some((id, read)) = found.next().await {
            match read {
                Ok(Kept::Record(record)) => cost.count(&record),
                // Gone since the listing.
                Ok(Kept::Nothing) => {}
                Ok(Kept::Unreadable(damage)) => {
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

impl Cost {
    fn count(&mut self, record: &Record) {
        self.records += 1;
        *self.jobs.entry(record.status.as_str()).or_default() += 1;
        let calls = record.source.as_ref().map_or(0, |source| source.generation);
        self.calls_paid += u64::from(calls);
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
        writeln!(f, "calls paid          {}", self.calls_paid)?;
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
