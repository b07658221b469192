//! `IdKeys`: the rotating list of secrets that make and check the MAC of a `JobId`.

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;
use uuid::Uuid;

use crate::id::MAC_BYTES;
use crate::{JobId, TenantId};

const MIN_SECRET_CHARS: usize = 32;

/// Secrets for job ids, newest first.
///
/// To rotate while several processes run: deploy `old,new,old`, so that all of them know the new secret; then `new,old`;
/// and only `new` when the records made under the old one have expired. Issued ids are signed with the newest secret. Derived ids are signed with the *oldest*, so that adding a secret does not turn a
/// repeated `Idempotency-Key` into a second, paid job.
#[derive(Clone)]
pub struct IdKeys {
    newest_first: Vec<Vec<u8>>,
}

/// The list of secrets cannot be used. The message never contains a secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidIdKeys {
    /// There is no secret in the list.
    #[error("no secret given: expected a comma-separated list of secrets, newest first")]
    Empty,
    /// A secret is too short to be safe.
    #[error("secret number {position} has {chars} characters: expected at least {MIN_SECRET_CHARS}")]
    TooShort {
        /// 1-based position in the list.
        position: usize,
        /// Length found.
        chars: usize,
    },
}

impl IdKeys {
    /// Issues a new id (UUIDv7, sortable by time) for `tenant`.
    pub fn issue(&self, tenant: &TenantId) -> JobId {
        let uuid = Uuid::now_v7();
        JobId::from_parts(uuid, mac(self.newest(), uuid, tenant))
    }

    /// Derives the id that belongs to an idempotency key: the same tenant and key always give the same id (UUIDv8).
    pub fn derive(&self, tenant: &TenantId, idempotency_key: &str) -> JobId {
        let mut hash = Sha256::new();
        hash.update(b"idempotency-key\0");
        hash.update(tenant.as_str());
        hash.update(b"\0");
        hash.update(idempotency_key);
        let digest: [u8; 32] = hash.finalize().into();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        let uuid = Uuid::new_v8(bytes);
        JobId::from_parts(uuid, mac(self.oldest(), uuid, tenant))
    }

    /// Returns whether `id` was made by us for `tenant`. Takes the same time for every wrong MAC.
    pub fn verify(&self, id: &JobId, tenant: &TenantId) -> bool {
        let matches = self.newest_first.iter().map(|secret| mac(secret, id.uuid(), tenant).ct_eq(id.mac()));
        bool::from(matches.fold(subtle::Choice::from(0), |any, one| any | one))
    }

    fn newest(&self) -> &[u8] {
        self.newest_first.first().expect("parsing refuses an empty list")
    }

    fn oldest(&self) -> &[u8] {
        self.newest_first.last().expect("parsing refuses an empty list")
    }
}

impl FromStr for IdKeys {
    type Err = InvalidIdKeys;

    fn from_str(text: &str) -> Result<Self, InvalidIdKeys> {
        let secrets: Vec<&str> = text.split(',').map(str::trim).filter(|secret| !secret.is_empty()).collect();
        if secrets.is_empty() {
            return Err(InvalidIdKeys::Empty);
        }
        for (index, secret) in secrets.iter().enumerate() {
            let chars = secret.chars().count();
            if chars < MIN_SECRET_CHARS {
                return Err(InvalidIdKeys::TooShort { position: index + 1, chars });
            }
        }
        Ok(Self { newest_first: secrets.into_iter().map(|secret| secret.as_bytes().to_vec()).collect() })
    }
}

impl fmt::Debug for IdKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdKeys({} secrets)", self.newest_first.len())
    }
}

/// HMAC-SHA256 over UUID and tenant, truncated (RFC 2104 section 5). The tenant is inside, so that another tenant's
/// key cannot read a job whose id it has seen.
fn mac(secret: &[u8], uuid: Uuid, tenant: &TenantId) -> [u8; MAC_BYTES] {
    let mut hmac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    hmac.update(uuid.as_bytes());
    hmac.update(tenant.as_str().as_bytes());
    let full = hmac.finalize().into_bytes();
    let mut short = [0; MAC_BYTES];
    short.copy_from_slice(&full[..MAC_BYTES]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "old-secret-old-secret-old-secret-old";
    const NEW: &str = "new-secret-new-secret-new-secret-new";

    fn keys(list: &str) -> IdKeys {
        list.parse().unwrap()
    }

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    #[test]
    fn an_issued_id_verifies_for_its_tenant_alone() {
        let keys = keys(OLD);
        let id = keys.issue(&tenant("north"));
        assert!(keys.verify(&id, &tenant("north")));
        assert!(!keys.verify(&id, &tenant("south")));
        assert!(id.issued_at().is_some());
    }

    #[test]
    fn the_shortest_secret_is_taken_and_a_shorter_one_is_not() {
        let shortest = "s".repeat(MIN_SECRET_CHARS);
        assert!(shortest.parse::<IdKeys>().is_ok());
        let error = format!("{shortest},{}", shortest.get(1..).unwrap()).parse::<IdKeys>().unwrap_err();
        assert_eq!(error, InvalidIdKeys::TooShort { position: 2, chars: MIN_SECRET_CHARS - 1 });
    }

    #[test]
    fn an_invented_id_does_not_verify() {
        let keys = keys(OLD);
        let invented = JobId::from_parts(Uuid::now_v7(), [7; MAC_BYTES]);
        assert!(!keys.verify(&invented, &tenant("north")));
    }

    #[test]
    fn rotation_keeps_old_ids_until_the_old_secret_is_removed() {
        let id = keys(OLD).issue(&tenant("north"));
        assert!(keys(&format!("{NEW},{OLD}")).verify(&id, &tenant("north")));
        assert!(!keys(NEW).verify(&id, &tenant("north")));
        let signed_with_new = keys(&format!("{NEW},{OLD}")).issue(&tenant("north"));
        assert!(keys(NEW).verify(&signed_with_new, &tenant("north")));
    }

    #[test]
    fn a_derived_id_survives_the_addition_of_a_secret() {
        let before = keys(OLD).derive(&tenant("north"), "assignment-1");
        let after = keys(&format!("{NEW},{OLD}")).derive(&tenant("north"), "assignment-1");
        assert_eq!(before, after);
        assert_ne!(before, keys(OLD).derive(&tenant("south"), "assignment-1"));
        assert_ne!(before, keys(OLD).derive(&tenant("north"), "assignment-2"));
        assert_eq!(before.issued_at(), None);
    }

    /// As docs/operations.md has it. While a step is deployed, processes of two neighbouring steps run side by side.
    #[test]
    fn at_no_step_of_a_rotation_does_one_process_refuse_what_another_has_issued() {
        let (north, both) = (tenant("north"), format!("{OLD},{NEW},{OLD}"));
        let steps = [keys(OLD), keys(&both), keys(&format!("{NEW},{OLD}")), keys(NEW)];
        let first = steps[0].issue(&north);
        for (step, two) in steps.windows(2).enumerate() {
            for (one, other) in [(&two[0], &two[1]), (&two[1], &two[0])] {
                let id = one.issue(&north);
                assert!(one.verify(&id, &north) && other.verify(&id, &north), "step {step}");
            }
            assert!(two[0].verify(&first, &north), "step {step}");
            // A repeated key is the same job until the last step, which waits for what the old secret made to expire.
            assert_eq!(two[0].derive(&north, "lesson") == two[1].derive(&north, "lesson"), step < 2, "step {step}");
        }
    }

    #[test]
    fn bad_lists_are_refused_without_showing_a_secret() {
        assert_eq!(" , ".parse::<IdKeys>().unwrap_err(), InvalidIdKeys::Empty);
        let error = format!("{NEW},short").parse::<IdKeys>().unwrap_err();
        assert_eq!(error, InvalidIdKeys::TooShort { position: 2, chars: 5 });
        assert!(!format!("{:?}", keys(NEW)).contains("new-secret"));
    }
}
