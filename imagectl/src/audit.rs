//! `AuditLog`: what operators did, as JSON lines below `audit/` in the bucket, written before it is done.

use bytes::Bytes;
use jiff::Timestamp;
use job::{JobId, Part, TenantId};
use serde::Serialize;
use uuid::Uuid;

use crate::fault::Fault;
use crate::objects::ETag;
use crate::site::Site;

/// What the keys of all audits begin with.
pub const AUDIT: &str = "audit/";

/// S3 appends nothing, so an object is written again with each line; a new one is begun after so many.
const LINES_IN_AN_OBJECT: usize = 100;

/// One line.
#[derive(Debug, Clone, Serialize)]
pub struct Entry<'a> {
    pub at: Timestamp,
    pub by: &'a str,
    #[serde(flatten)]
    pub action: Action<'a>,
}

/// What is done.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action<'a> {
    /// A dead letter is sent to the job queue.
    Redrive {
        job_id: JobId,
        message_id: &'a str,
        tenant: &'a TenantId,
        code: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        fault: Option<&'a str>,
        /// Why this one: its id, a code, or all.
        which: &'a str,
    },
    /// It could not be sent, and is where it was.
    RedriveFailed { job_id: JobId, message_id: &'a str, reason: String },
    /// A dead letter is deleted.
    Delete {
        #[serde(skip_serializing_if = "Option::is_none")]
        job_id: Option<JobId>,
        message_id: &'a str,
        code: &'a str,
        reason: &'a str,
    },
    /// It could not be deleted, and is where it was.
    DeleteFailed { message_id: &'a str, reason: String },
    /// A part of the pipeline is stopped.
    Pause { part: Part, reason: &'a str },
    /// It could not be, and goes on or stands still as before.
    PauseFailed { part: Part, reason: String },
    /// It goes on.
    Resume { part: Part },
    /// It could not be told to, and is as before.
    ResumeFailed { part: Part, reason: String },
}

/// The lines of one command.
pub struct AuditLog<'a> {
    site: &'a Site,
    /// Without the number of the object, and the end.
    stem: String,
    number: u32,
    lines: Vec<String>,
    version: Option<ETag>,
}

impl<'a> AuditLog<'a> {
    /// Makes an empty one; nothing is written before the first line.
    pub fn begin(site: &'a Site, command: &str) -> Self {
        let now = (site.now)();
        // The day in front: that is what one looks for.
        let day: String = now.to_string().chars().take(10).collect();
        let unique: String = Uuid::new_v4().simple().to_string().chars().take(8).collect();
        let stem = format!("{AUDIT}{day}/{command}-{}-{unique}", now.as_second());
        Self { site, stem, number: 0, lines: Vec::new(), version: None }
    }

    /// Writes a line, to the bucket and to the log. What it tells of may be done once it has returned.
    ///
    /// # Errors
    /// When it has not been written: then nothing may be done.
    pub async fn append(&mut self, action: Action<'_>) -> Result<(), Fault> {
        if self.lines.len() == LINES_IN_AN_OBJECT {
            (self.number, self.lines, self.version) = (self.number + 1, Vec::new(), None);
        }
        let entry = Entry { at: (self.site.now)(), by: &self.site.by, action };
        let line = serde_json::to_string(&entry).expect("an entry always serialises");
        self.lines.push(line.clone());
        let (key, body) = (self.key(), Bytes::from(self.lines.join("\n") + "\n"));
        self.version = match self.site.objects.write(&key, body.clone(), self.version.as_ref()).await? {
            Some(version) => Some(version),
            // Our own write, whose answer was lost, is in the way of its repetition. Nobody else knows the key.
            None => match self.site.objects.read(&key).await? {
                Some((found, version)) if found == body => Some(version),
                _ => return Err(Fault::Contended(key)),
            },
        };
        (self.site.log)(&line);
        Ok(())
    }

    /// Returns the key of the object that is being written.
    pub fn key(&self) -> String {
        format!("{}-{:04}.jsonl", self.stem, self.number)
    }

    /// Returns whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}
