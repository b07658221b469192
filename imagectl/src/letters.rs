//! Dead letters: what is in the dead-letter queue, with what the records say of it. Looked at and put back.

use std::collections::{HashMap, HashSet};
use std::fmt;

use futures::future::{join_all, try_join_all};
use jiff::Timestamp;
use job::{DecodeError, Job, JobId, Record, Status, TenantId};
use serde::Serialize;

use crate::fault::Fault;
use crate::objects::{Kept, read_record};
use crate::queues::RawLetter;
use crate::site::Site;
use crate::table::{or_dash, table};

/// SQS may answer empty although there is something: so many in a row are the end.
const EMPTY_LOOKS: usize = 2;
/// A look that takes longer than messages stay hidden meets them again. So often in a row, without a new one, is the end.
const STALE_LOOKS: usize = 100;

/// Code of a message that is no job.
pub const POISON: &str = "poison";
/// Code of a job that a newer release has written.
pub const NEWER_VERSION: &str = "newer_version";
/// Code of a job without a record.
pub const NO_RECORD: &str = "no_record";
/// Code of a job whose record cannot be read.
pub const UNREADABLE: &str = "unreadable";

/// A dead letter and its job.
#[derive(Debug, Clone, Serialize)]
pub struct Letter {
    pub message_id: String,
    /// None when it is no job, or not one that this release reads.
    pub job_id: Option<JobId>,
    pub tenant: Option<TenantId>,
    /// What the record says; none without one.
    pub status: Option<Status>,
    /// The code of the failure in the record; without one, the record's state, or one of this module's own words.
    pub code: String,
    /// The fault that ended the last attempt, where the record tells it.
    pub fault: Option<String>,
    /// What is wrong with a record that cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
    /// When the job was sent first. The dead-letter queue keeps it for 14 days from then.
    pub sent_at: Option<Timestamp>,
    /// Hand-overs and looks.
    pub receive_count: Option<u32>,
    #[serde(skip)]
    pub job: Option<Job>,
    #[serde(skip)]
    pub raw: RawLetter,
}

impl Letter {
    /// Reads what is to be known of a dead letter.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    async fn of(site: &Site, raw: RawLetter) -> Result<Self, Fault> {
        let (job, unread) = match Job::decode(&raw.body) {
            Ok(job) => (Some(job), ""),
            Err(DecodeError::NewerVersion { .. }) => (None, NEWER_VERSION),
            Err(_) => (None, POISON),
        };
        let kept = match &job {
            Some(job) => read_record(site.objects.as_ref(), &job.id).await?,
            None => Kept::Nothing,
        };
        let code = match (&job, &kept) {
            (None, _) => unread.to_owned(),
            (Some(_), Kept::Nothing) => NO_RECORD.to_owned(),
            (Some(_), Kept::Unreadable(_)) => UNREADABLE.to_owned(),
            (Some(_), Kept::Record(record)) => code_of(record),
        };
        let record = kept.record();
        Ok(Self {
            message_id: raw.message_id.clone(),
            job_id: job.as_ref().map(|job| job.id),
            tenant: job.as_ref().map(|job| job.tenant.clone()),
            status: record.map(|record| record.status),
            code,
            fault: record.and_then(fault_of),
            damage: kept.damage().map(str::to_owned),
            sent_at: raw.sent_at,
            receive_count: raw.receive_count,
            job,
            raw,
        })
    }

    /// Returns whether `code` is its code, or its last fault.
    pub fn has_code(&self, code: &str) -> bool {
        self.code == code || self.fault.as_deref() == Some(code)
    }

    /// Returns whether `id` is that of its job or of its message.
    pub fn has_id(&self, id: &str) -> bool {
        self.message_id == id || self.job_id.is_some_and(|job| job.to_string() == id)
    }
}

fn code_of(record: &Record) -> String {
    let status = record.status.as_str();
    record.error.as_ref().map_or(status, |error| error.code.as_str()).to_owned()
}

/// What the worker notes in words when the attempts are used up.
fn fault_of(record: &Record) -> Option<String> {
    let noted = record.error.as_ref().and_then(|error| error.detail.strip_prefix("last fault: "));
    noted.or(record.last_fault.as_deref()).map(str::to_owned)
}

/// A look at the dead-letter queue, page by page.
///
/// What was looked at stays hidden until [`Walk::put_back`], so that
/// nothing is seen twice; if this process dies, it comes back by itself ([`HIDDEN`](crate::queues::HIDDEN)).
pub struct Walk<'a> {
    site: &'a Site,
    seen: HashSet<String>,
    /// Receipts by message: the newest is the one that counts.
    held: HashMap<String, String>,
    max: usize,
    saw: Saw,
}

/// How much of the dead-letter queue a look saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Saw {
    /// Whether every dead letter was seen.
    pub is_complete: bool,
    /// Dead letters that another look hides at the moment, as SQS counts them: approximately.
    pub hidden: u64,
}

impl Saw {
    /// Returns what is to be added to a number of dead letters, to a list that ends without one, or to a search in vain.
    pub fn more(self) -> String {
        match self {
            Self { hidden: 0, is_complete: true } => String::new(),
            Self { hidden: 0, is_complete: false } => "there are more than were looked at (--max-letters)".to_owned(),
            Self { hidden, .. } => format!("{hidden} more are hidden by another look: try again in two minutes"),
        }
    }
}

impl<'a> Walk<'a> {
    /// Begins a look at `max` dead letters at most.
    pub fn begin(site: &'a Site, max: u32) -> Self {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        Self { site, seen: HashSet::new(), held: HashMap::new(), max, saw: Saw::default() }
    }

    /// Returns the next dead letters, or `None` after the last one.
    ///
    /// # Errors
    /// When queue or bucket cannot be used.
    pub async fn next(&mut self) -> Result<Option<Vec<Letter>>, Fault> {
        let (mut empty, mut stale) = (0, 0);
        while self.seen.len() < self.max && stale < STALE_LOOKS {
            let raws = self.site.queues.look().await?;
            if raws.is_empty() {
                empty += 1;
                if empty == EMPTY_LOOKS {
                    // Empty is what a queue looks like, too, whose messages somebody else looks at.
                    let in_flight = self.site.queues.dead_letters().await?.in_flight;
                    let hidden = in_flight.saturating_sub(self.held.len() as u64);
                    self.saw = Saw { is_complete: hidden == 0, hidden };
                    break;
                }
                continue;
            }
            self.held.extend(raws.iter().map(|raw| (raw.message_id.clone(), raw.receipt.clone())));
            let new: Vec<RawLetter> = raws.into_iter().filter(|raw| self.seen.insert(raw.message_id.clone())).collect();
            if !new.is_empty() {
                return try_join_all(new.into_iter().map(|raw| Letter::of(self.site, raw))).await.map(Some);
            }
            stale += 1;
        }
        Ok(None)
    }

    /// Forgets a dead letter that is no longer there.
    pub fn removed(&mut self, letter: &Letter) {
        self.held.remove(&letter.message_id);
    }

    /// Returns how much was seen.
    pub fn saw(&self) -> Saw {
        self.saw
    }

    /// Makes everything visible again.
    pub async fn put_back(self) {
        let put_back = join_all(self.held.values().map(|receipt| self.site.queues.put_back(receipt))).await;
        let failed = put_back.iter().filter(|result| result.is_err()).count();
        if failed > 0 {
            (self.site.log)(&format!(
                "{failed} dead letters could not be put back: they are visible again in two minutes"
            ));
        }
    }
}

/// Several dead letters.
#[derive(Debug, Clone, Serialize)]
pub struct Letters {
    pub letters: Vec<Letter>,
    #[serde(flatten)]
    pub saw: Saw,
}

/// Lists the dead letters, or those with a code.
///
/// # Errors
/// When queue or bucket cannot be used.
pub async fn list(site: &Site, code: Option<&str>, max: u32) -> Result<Letters, Fault> {
    let mut walk = Walk::begin(site, max);
    let mut letters = Vec::new();
    let looked = async {
        while let Some(page) = walk.next().await? {
            letters.extend(page.into_iter().filter(|letter| code.is_none_or(|code| letter.has_code(code))));
        }
        Ok(())
    }
    .await;
    let saw = walk.saw();
    walk.put_back().await;
    looked.map(|()| {
        letters.sort_by_key(|letter| letter.sent_at);
        Letters { letters, saw }
    })
}

/// Finds one by the id of its job or message.
///
/// # Errors
/// `NotFound` when it is not among those looked at.
pub async fn find(site: &Site, id: &str, max: u32) -> Result<LetterView, Fault> {
    let mut walk = Walk::begin(site, max);
    let found: Result<Option<Letter>, Fault> = async {
        while let Some(page) = walk.next().await? {
            if let Some(letter) = page.into_iter().find(|letter| letter.has_id(id)) {
                return Ok(Some(letter));
            }
        }
        Ok(None)
    }
    .await;
    let saw = walk.saw();
    walk.put_back().await;
    found?.map(LetterView::new).ok_or_else(|| not_found(id, saw))
}

/// Makes the answer for an id that no dead letter has.
pub fn not_found(id: &str, saw: Saw) -> Fault {
    let more = saw.more();
    Fault::NotFound(if more.is_empty() {
        format!("no dead letter has the id {id}")
    } else {
        format!("no dead letter that could be seen has the id {id}; {more}")
    })
}

/// One dead letter with its body.
#[derive(Debug, Clone, Serialize)]
pub struct LetterView {
    #[serde(flatten)]
    pub letter: Letter,
    /// The message, byte for byte. It has a prompt in it.
    pub body: String,
}

impl LetterView {
    fn new(letter: Letter) -> Self {
        let body = letter.raw.body.clone();
        Self { letter, body }
    }
}

impl fmt::Display for Letters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |letter: &Letter| {
            vec![
                or_dash(letter.job_id),
                or_dash(letter.tenant.as_ref()),
                letter.code.clone(),
                or_dash(letter.fault.as_ref()),
                or_dash(letter.sent_at),
                letter.message_id.clone(),
            ]
        };
        let rows: Vec<_> = self.letters.iter().map(row).collect();
        f.write_str(&table(&["job", "tenant", "code", "last fault", "sent", "message"], &rows))?;
        let (count, more) = (self.letters.len(), self.saw.more());
        if more.is_empty() { writeln!(f, "{count} dead letters") } else { writeln!(f, "{count} dead letters; {more}") }
    }
}

impl fmt::Display for LetterView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Letter { message_id, job_id, tenant, status, code, fault, damage, sent_at, receive_count, .. } =
            &self.letter;
        writeln!(f, "message     {message_id}")?;
        writeln!(f, "job         {}", or_dash(*job_id))?;
        writeln!(f, "tenant      {}", or_dash(tenant.as_ref()))?;
        match damage {
            Some(damage) => writeln!(f, "record      DAMAGED: {damage}")?,
            None => writeln!(f, "record      {}", or_dash(*status))?,
        }
        writeln!(f, "code        {code}")?;
        writeln!(f, "last fault  {}", or_dash(fault.as_ref()))?;
        writeln!(f, "sent        {}", or_dash(*sent_at))?;
        writeln!(f, "hand-overs and looks  {}", or_dash(*receive_count))?;
        writeln!(f, "body        {}", self.body)
    }
}
