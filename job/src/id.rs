//! `JobId`: a UUID and a short keyed MAC, so that an invented id is told from an issued one without a database.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// Bytes of the truncated HMAC-SHA256: 64 bits, so that guessing one valid id takes 2^63 requests on average.
pub(crate) const MAC_BYTES: usize = 8;

const UUID_CHARS: usize = 32;
const MAC_CHARS: usize = MAC_BYTES * 2;

/// Identity of a job; also the stem of its object keys and the log field `job.id`.
///
/// Text form: 32 lower-case hex digits of the UUID, `-`, 16 hex digits of the MAC. Whether the MAC is ours is decided
/// by [`IdKeys::verify`](crate::IdKeys::verify); parsing only checks the form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId {
    uuid: Uuid,
    mac: [u8; MAC_BYTES],
}

/// The text is not a job id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a job id: expected 32 lower-case hex digits, '-', 16 lower-case hex digits")]
pub struct InvalidJobId;

impl JobId {
    pub(crate) fn from_parts(uuid: Uuid, mac: [u8; MAC_BYTES]) -> Self {
        Self { uuid, mac }
    }

    /// Returns the UUID part: version 7 when issued, version 8 when derived from an idempotency key.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    pub(crate) fn mac(&self) -> &[u8; MAC_BYTES] {
        &self.mac
    }

    /// Returns when the id was issued (millisecond precision), or `None` for a derived id, which carries no time.
    pub fn issued_at(&self) -> Option<Timestamp> {
        let (seconds, nanoseconds) = self.uuid.get_timestamp()?.to_unix();
        Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanoseconds).ok()?).ok()
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-", self.uuid.simple())?;
        self.mac.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobId({self})")
    }
}

impl FromStr for JobId {
    type Err = InvalidJobId;

    fn from_str(text: &str) -> Result<Self, InvalidJobId> {
        let (uuid, mac) = text.split_once('-').ok_or(InvalidJobId)?;
        if uuid.len() != UUID_CHARS || mac.len() != MAC_CHARS || !is_lower_hex(uuid) || !is_lower_hex(mac) {
            return Err(InvalidJobId);
        }
        let uuid = Uuid::try_parse(uuid).map_err(|_| InvalidJobId)?;
        let mac = u64::from_str_radix(mac, 16).map_err(|_| InvalidJobId)?.to_be_bytes();
        Ok(Self { uuid, mac })
    }
}

impl TryFrom<String> for JobId {
    type Error = InvalidJobId;

    fn try_from(text: String) -> Result<Self, InvalidJobId> {
        text.parse()
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.to_string()
    }
}

/// One text form per id: upper case would make a second object key for the same job.
fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_form_round_trips(uuid: u128, mac: [u8; MAC_BYTES]) {
            let id = JobId::from_parts(Uuid::from_u128(uuid), mac);
            prop_assert_eq!(id.to_string().parse::<JobId>(), Ok(id));
        }

        #[test]
        fn arbitrary_text_never_panics_and_has_one_form(text in "\\PC{0,60}") {
            if let Ok(id) = text.parse::<JobId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn shorter_and_longer_parts_are_refused() {
        let id = JobId::from_parts(Uuid::from_u128(0xabc), [0xab; MAC_BYTES]).to_string();
        let (uuid, mac) = id.split_once('-').unwrap();
        // The UUID with hyphens is one as well, and a short number is a number.
        let hyphens = Uuid::from_u128(0xabc).to_string();
        for text in [
            format!("{uuid}-{}", mac.get(1..).unwrap()),
            format!("{uuid}-0{mac}"),
            format!("{}-{mac}", uuid.get(1..).unwrap()),
        ] {
            assert_eq!(text.parse::<JobId>(), Err(InvalidJobId), "{text}");
        }
        assert_eq!(format!("{hyphens}-{mac}").parse::<JobId>(), Err(InvalidJobId));
    }

    #[test]
    fn upper_case_and_signs_are_refused() {
        let id = JobId::from_parts(Uuid::from_u128(0xabc), [0xab; MAC_BYTES]);
        assert_eq!(id.to_string().to_uppercase().parse::<JobId>(), Err(InvalidJobId));
        assert_eq!("00000000000000000000000000000abc-+bababababababab".parse::<JobId>(), Err(InvalidJobId));
    }
}
