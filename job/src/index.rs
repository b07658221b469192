//! `IndexEntry`: what stands for a job in the list of its tenant's jobs, named so that the newest comes first.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use thiserror::Error;

use crate::{JobId, TenantId};

/// What the keys of all entries begin with.
pub const INDEX: &str = "index/";

/// Times count down from here, so that the order of keys, which is all that S3 lists by, is that of newest first. The year 2286.
const LAST_MILLISECOND: i64 = 9_999_999_999_999;
const TIME_CHARS: usize = 13;

/// A job's place in its tenant's list. Says nothing of the job: that is in the record.
///
/// Text form: 13 digits that count down, `-`, the id. It is the end of the object's key, and what a client holds as a cursor: whoever
/// makes one up names a place in a list of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndexEntry {
    countdown: i64,
    id: JobId,
}

/// The text is not an entry.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not an entry of a list: expected 13 digits, '-' and a job id")]
pub struct InvalidIndexEntry;

impl IndexEntry {
    /// Makes the entry of a job that was accepted at `submitted_at`.
    pub fn new(id: JobId, submitted_at: Timestamp) -> Self {
        let milliseconds = submitted_at.as_millisecond().clamp(0, LAST_MILLISECOND);
        Self { countdown: LAST_MILLISECOND - milliseconds, id }
    }

    /// Returns whose place it is.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// Returns the object's key.
    pub fn key(&self, tenant: &TenantId) -> String {
        format!("{}{self}", index_prefix(tenant))
    }

    /// Returns the entry at a key of the tenant's list; `None` for any other key.
    pub fn of_key(key: &str, tenant: &TenantId) -> Option<Self> {
        key.strip_prefix(&index_prefix(tenant))?.parse().ok()
    }
}

/// Returns what the keys of a tenant's entries begin with. No tenant's name has a slash in it.
pub fn index_prefix(tenant: &TenantId) -> String {
    format!("{INDEX}{tenant}/")
}

impl fmt::Display for IndexEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0TIME_CHARS$}-{}", self.countdown, self.id)
    }
}

impl FromStr for IndexEntry {
    type Err = InvalidIndexEntry;

    fn from_str(text: &str) -> Result<Self, InvalidIndexEntry> {
        let (countdown, id) = text.split_once('-').ok_or(InvalidIndexEntry)?;
        if countdown.len() != TIME_CHARS || !countdown.bytes().all(|b| b.is_ascii_digit()) {
            return Err(InvalidIndexEntry);
        }
        let countdown = countdown.parse().map_err(|_| InvalidIndexEntry)?;
        Ok(Self { countdown, id: id.parse().map_err(|_| InvalidIndexEntry)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "018f3a5e7c007cc4a1f00123456789ab-0011223344556677";

    fn entry(at: &str) -> IndexEntry {
        IndexEntry::new(ID.parse().unwrap(), at.parse().unwrap())
    }

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    proptest! {
        #[test]
        fn later_jobs_come_first_and_keys_are_read_back(one in 0..LAST_MILLISECOND, other in 0..LAST_MILLISECOND) {
            let entries = [one, other].map(|at| {
                IndexEntry::new(ID.parse().unwrap(), Timestamp::from_millisecond(at).unwrap())
            });
            let keys = entries.map(|entry| entry.key(&tenant("north")));
            prop_assert_eq!(one.cmp(&other), keys[1].cmp(&keys[0]));
            prop_assert_eq!(IndexEntry::of_key(&keys[0], &tenant("north")), Some(entries[0]));
        }

        #[test]
        fn arbitrary_text_never_panics_and_has_one_form(text in "\\PC{0,80}") {
            if let Ok(entry) = text.parse::<IndexEntry>() {
                prop_assert_eq!(entry.to_string(), text);
            }
        }
    }

    /// Lists hold keys of this form for as long as records are kept: docs/adr before a change.
    #[test]
    fn keys_are_where_the_rest_of_the_system_looks_for_them() {
        let key = entry("2026-11-24T10:00:00Z").key(&tenant("north"));
        assert_eq!(key, format!("index/north/8204485599999-{ID}"));
        assert_eq!(IndexEntry::of_key(&key, &tenant("nort")), None);
        assert_eq!(IndexEntry::of_key(&key, &tenant("north-2")), None);
        for no_entry in ["index/north/", "index/north/1-2", "records/north/8204485599999", "index/north/x"] {
            assert_eq!(IndexEntry::of_key(no_entry, &tenant("north")), None, "{no_entry}");
        }
    }

    #[test]
    fn a_time_beyond_the_ends_is_at_the_end() {
        assert!(entry("1960-01-01T00:00:00Z").to_string().starts_with("9999999999999-"));
        assert!(entry("2500-01-01T00:00:00Z").to_string().starts_with("0000000000000-"));
        assert_eq!(format!("+00000000000-{ID}").parse::<IndexEntry>(), Err(InvalidIndexEntry));
        assert_eq!(format!("000000000000-{ID}").parse::<IndexEntry>(), Err(InvalidIndexEntry));
    }
}
