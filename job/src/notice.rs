//! `Notice`: says in the webhook queue that a job has ended. What its end was is in its record alone.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::message::is_zero;
use crate::{Job, JobId, Place, TenantId};

/// Newest version that is read. Additions that an older reader may ignore keep the number.
pub const NOTICE_VERSION: u64 = 1;

/// A job has ended, or is about to: whoever reads this looks into the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Whose job it is.
    pub tenant: TenantId,
    /// Which job.
    pub id: JobId,
    /// How often its caller had asked for it again: the end of an earlier wish is no news any more.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: u32,
}

/// A message body that is not a notice that this version reads.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidNotice {
    /// Not JSON, no version, or a field that is missing or wrong.
    #[error("message is not a notice: {0}")]
    Malformed(Place),
    /// Written by a newer release.
    #[error("notice has version {found}, this one reads {NOTICE_VERSION}")]
    NewerVersion {
        /// Version found.
        found: u64,
    },
}

impl Notice {
    /// Makes the notice of a job's end.
    pub fn of(job: &Job) -> Self {
        Self { tenant: job.tenant.clone(), id: job.id, retries: job.retries }
    }

    /// Returns the message body, of at most 200 bytes.
    pub fn encode(&self) -> String {
        #[derive(Serialize)]
        struct Versioned<'a> {
            v: u64,
            #[serde(flatten)]
            notice: &'a Notice,
        }
        serde_json::to_string(&Versioned { v: NOTICE_VERSION, notice: self }).expect("a notice always serialises")
    }

    /// Reads a message body.
    ///
    /// # Errors
    /// [`InvalidNotice::NewerVersion`] may be read by another process; the other error is final.
    pub fn decode(body: &str) -> Result<Self, InvalidNotice> {
        #[derive(Deserialize)]
        struct Envelope {
            v: u64,
        }
        let malformed = |error: serde_json::Error| InvalidNotice::Malformed(error.into());
        let Envelope { v } = serde_json::from_str(body).map_err(malformed)?;
        if v > NOTICE_VERSION {
            return Err(InvalidNotice::NewerVersion { found: v });
        }
        serde_json::from_str(body).map_err(malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The wire form of version 1, as a queue may still hold it after an update. Never edit the text: add a version.
    const GOLDEN: &str =
        r#"{"v":1,"tenant":"north","id":"018f3a5e7c007cc4a1f00123456789ab-0011223344556677","retries":2}"#;

    #[test]
    fn the_wire_form_is_that_of_version_1() {
        let notice = Notice::decode(GOLDEN).unwrap();
        assert_eq!((notice.tenant.as_str(), notice.retries, notice.encode().as_str()), ("north", 2, GOLDEN));
        let with_more = GOLDEN.replace("\"retries\":2", "\"added_later\":true");
        let first = Notice::decode(&with_more).unwrap();
        assert_eq!(first.retries, 0);
        assert!(!first.encode().contains("retries"));
    }

    #[test]
    fn other_bodies_are_refused_and_not_quoted() {
        let newer = GOLDEN.replace("\"v\":1", "\"v\":2");
        assert_eq!(Notice::decode(&newer), Err(InvalidNotice::NewerVersion { found: 2 }));
        for body in ["", "fox", "{}", r#"{"v":"fox"}"#, r#"{"v":1,"tenant":"fox"}"#, &GOLDEN.replace("018f", "fox")] {
            let error = Notice::decode(body).unwrap_err();
            assert!(matches!(error, InvalidNotice::Malformed(_)), "{body}: {error:?}");
            assert!(!error.to_string().contains("fox"), "{error}");
        }
    }
}
