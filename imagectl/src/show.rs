//! `job show`: one job across its record, its objects, the dead-letter queue, and the names that its traces go by.

use std::fmt;

use jiff::Timestamp;
use job::{JobId, Record, Status, image_key, record_key, source_key};
use serde::Serialize;

use crate::fault::Fault;
use crate::letters::{Letter, Saw, Walk};
use crate::objects::{Kept, ObjectInfo, read_record};
use crate::settings::JobSettings;
use crate::site::Site;
use crate::table::{or_dash, table};

/// Everything that is known of a job.
#[derive(Debug, Clone, Serialize)]
pub struct JobReport {
    pub id: JobId,
    /// When the id was issued; none for one that was made from an `Idempotency-Key`.
    pub issued_at: Option<Timestamp>,
    /// What a client is told now, as far as the record decides it.
    pub status: Option<Status>,
    pub record: Option<Record>,
    /// What is wrong with a record that cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
    pub objects: Vec<ObjectInfo>,
    /// Its message in the dead-letter queue. SQS cannot be asked whether the job queue has one.
    pub dead_letters: Vec<Letter>,
    /// Whether every dead letter was looked at.
    pub saw_every_letter: bool,
    /// Dead letters that another look hides at the moment: its own may be among them.
    #[serde(skip_serializing_if = "is_none")]
    pub hidden_letters: u64,
    /// What a collector of traces, and the logs, know it by.
    pub trace_id: Option<String>,
    pub correlation_id: Option<String>,
    /// What could not be asked, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<String>,
}

/// Collects it. What cannot be seen is a gap, and hides nothing else.
///
/// # Errors
/// When nothing is known of the job; the fault of a service if that may be why.
pub async fn show(site: &Site, settings: &JobSettings) -> Result<JobReport, Fault> {
    let id = settings.id;
    let mut faults: Vec<(String, Fault)> = Vec::new();
    let kept = match read_record(site.objects.as_ref(), &id).await {
        Ok(kept) => kept,
        Err(fault) => {
            faults.push((record_key(&id), fault));
            Kept::Nothing
        }
    };
    let (record, damage) = (kept.record().cloned(), kept.damage().map(str::to_owned));
    let mut keys = vec![record_key(&id), source_key(&id), image_key(&id)];
    keys.extend(record.iter().flat_map(|record| &record.renditions).map(|one| one.key.clone()));
    let mut objects = Vec::new();
    for key in keys {
        match site.objects.look(&key).await {
            Ok(found) => objects.extend(found),
            Err(fault) => faults.push((key, fault)),
        }
    }
    let (dead_letters, saw) = letters_of(site, &id, settings.max_letters).await.unwrap_or_else(|fault| {
        faults.push(("the dead-letter queue".to_owned(), fault));
        (Vec::new(), Saw::default())
    });
    let gaps = faults.iter().map(|(what, fault)| format!("{what}: {fault}")).collect();
    if objects.is_empty() && dead_letters.is_empty() && record.is_none() {
        if let Some((_, fault)) = faults.into_iter().next() {
            return Err(fault);
        }
        let hint = if saw.hidden > 0 { format!("; dead letters: {}", saw.more()) } else { String::new() };
        return Err(Fault::NotFound(format!(
            "nothing is known of {id}: it waits in the job queue, which cannot be searched, or there is no such job{hint}"
        )));
    }
    let from_letter = dead_letters.first().and_then(|letter| letter.job.as_ref()).map(|job| job.trace.clone());
    let trace = record.as_ref().and_then(|record| record.trace.clone()).or(from_letter);
    let status = record.as_ref().map(|record| record.status_at((site.now)()));
    Ok(JobReport {
        id,
        issued_at: id.issued_at(),
        status,
        record,
        damage,
        objects,
        dead_letters,
        saw_every_letter: saw.is_complete,
        hidden_letters: saw.hidden,
        trace_id: trace.as_ref().map(|trace| trace.traceparent.trace_id().to_owned()),
        correlation_id: trace.as_ref().map(|trace| trace.correlation_id.as_str().to_owned()),
        gaps,
    })
}

async fn letters_of(site: &Site, id: &JobId, max: u32) -> Result<(Vec<Letter>, Saw), Fault> {
    let mut walk = Walk::begin(site, max);
    let mut letters = Vec::new();
    let looked = async {
        while let Some(page) = walk.next().await? {
            letters.extend(page.into_iter().filter(|letter| letter.job_id == Some(*id)));
        }
        Ok(())
    }
    .await;
    let saw = walk.saw();
    walk.put_back().await;
    looked.map(|()| (letters, saw))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks it so")]
fn is_none(number: &u64) -> bool {
    *number == 0
}

impl fmt::Display for JobReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "job          {}", self.id)?;
        writeln!(f, "issued       {}", or_dash(self.issued_at))?;
        writeln!(f, "trace        {}", or_dash(self.trace_id.as_ref()))?;
        writeln!(f, "correlation  {}", or_dash(self.correlation_id.as_ref()))?;
        match (&self.record, &self.damage) {
            (Some(record), _) => self.record_lines(f, record)?,
            (None, Some(damage)) => writeln!(
                f,
                "record       DAMAGED: {damage}: restore an earlier version of the object; without one a picture may be paid for again"
            )?,
            (None, None) => writeln!(f, "record       none: no worker has seen it, or it has expired")?,
        }
        let row = |info: &ObjectInfo| {
            vec![
                info.key.clone(),
                info.bytes.to_string(),
                or_dash(info.modified_at),
                or_dash(info.content_type.as_ref()),
            ]
        };
        let rows: Vec<_> = self.objects.iter().map(row).collect();
        writeln!(f, "\n{}", table(&["object", "bytes", "written", "type"], &rows))?;
        for letter in &self.dead_letters {
            writeln!(f, "in the dead-letter queue as {} (sent {})", letter.message_id, or_dash(letter.sent_at))?;
        }
        if self.dead_letters.is_empty() {
            match self.hidden_letters {
                0 if self.saw_every_letter => writeln!(f, "not in the dead-letter queue")?,
                0 => writeln!(f, "not in the dead-letter queue, as far as was looked (--max-letters)")?,
                hidden => writeln!(
                    f,
                    "not among the dead letters that could be seen; {hidden} more are hidden by another look: try again in two minutes"
                )?,
            }
        }
        self.gaps.iter().try_for_each(|gap| writeln!(f, "not seen: {gap}"))
    }
}

impl JobReport {
    fn record_lines(&self, f: &mut fmt::Formatter<'_>, record: &Record) -> fmt::Result {
        let written =
            if self.status == Some(record.status) { String::new() } else { format!(" (written: {})", record.status) };
        writeln!(f, "status       {}{written}", or_dash(self.status))?;
        writeln!(f, "tenant       {}", record.tenant)?;
        writeln!(f, "attempts     {}", record.attempts)?;
        let times = [
            ("submitted", record.submitted_at),
            ("started", record.started_at),
            ("updated", Some(record.updated_at)),
            ("finished", record.finished_at),
            ("reconciled", record.reconciled_at),
            ("deadline", record.deadline_at),
        ];
        for (name, time) in times.into_iter().filter_map(|(name, time)| Some((name, time?))) {
            writeln!(f, "{name:<12} {time}")?;
        }
        if let Some(claim) = &record.claim {
            writeln!(f, "claim        {} until {} (message {})", claim.worker, claim.deadline_at, claim.message_id)?;
        }
        if let Some(source) = &record.source {
            writeln!(f, "paid         {} calls of {}, seed {}", source.generation, source.model, source.seed)?;
        }
        if let Some(error) = &record.error {
            writeln!(f, "error        {}: {}", error.code.as_str(), error.detail)?;
        }
        if let Some(fault) = &record.last_fault {
            writeln!(f, "last fault   {fault}")?;
        }
        let timings = &record.timings;
        let seconds = [
            ("queue wait", timings.queue_wait_seconds),
            ("generate", timings.generate_seconds),
            ("render", timings.render_seconds),
            ("upload", timings.upload_seconds),
        ];
        for (name, seconds) in seconds.into_iter().filter_map(|(name, seconds)| Some((name, seconds?))) {
            writeln!(f, "{name:<12} {seconds:.2} s")?;
        }
        Ok(())
    }
}
