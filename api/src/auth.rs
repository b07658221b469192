//! `ApiKeys`: which bearer key belongs to which tenant.

use std::fmt;
use std::str::FromStr;

use axum::http::{HeaderMap, header};
use job::TenantId;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use thiserror::Error;

use crate::problem::{Code, Problem};

const MIN_KEY_CHARS: usize = 16;

/// Keys of all tenants. Only their hashes are kept, so a memory dump shows no key.
#[derive(Clone)]
pub struct ApiKeys {
    keys: Vec<ApiKey>,
}

#[derive(Clone)]
struct ApiKey {
    tenant: TenantId,
    sha256: [u8; 32],
}

/// The list of keys cannot be used. The message never contains a key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidApiKeys {
    #[error("no key given: expected a comma-separated list of tenant:key")]
    Empty,
    #[error("entry number {position} has no colon: expected tenant:key")]
    NoColon { position: usize },
    #[error("entry number {position} has a bad tenant: expected 1 to 64 of a-z A-Z 0-9 _ -")]
    Tenant { position: usize },
    #[error("the key of entry number {position} has {chars} characters: expected at least {MIN_KEY_CHARS}")]
    TooShort { position: usize, chars: usize },
    #[error("the key of entry number {position} has a character that a header cannot carry: use visible ASCII")]
    ForbiddenCharacter { position: usize },
    #[error("the key of entry number {position} is already in the list: every key must be different")]
    Duplicate { position: usize },
}

impl ApiKeys {
    /// Returns the tenant whose key is in the `Authorization` header.
    ///
    /// # Errors
    /// When the header is missing, is not a bearer token, or carries a key that is not in the list.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<&TenantId, Problem> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(Problem::new(Code::Unauthenticated, "send your key as 'Authorization: Bearer KEY'"));
        };
        let bearer = value.to_str().ok().and_then(|text| text.split_once(' ')).and_then(|(scheme, token)| {
            let token = token.trim();
            (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
        });
        let Some(key) = bearer else {
            return Err(Problem::new(Code::Unauthenticated, "the Authorization header is not 'Bearer KEY'"));
        };
        self.tenant_of(key).ok_or_else(|| Problem::new(Code::Unauthenticated, "this key is not known"))
    }

    /// Returns whether `key` is in the list.
    pub fn contains_key(&self, key: &str) -> bool {
        self.tenant_of(key).is_some()
    }

    /// Compares with every key, whichever matches, so that the time taken tells nothing.
    fn tenant_of(&self, key: &str) -> Option<&TenantId> {
        let presented: [u8; 32] = Sha256::digest(key).into();
        let mut found = None;
        for known in &self.keys {
            let matches: Choice = known.sha256.ct_eq(&presented);
            if bool::from(matches) {
                found = Some(&known.tenant);
            }
        }
        found
    }
}

impl FromStr for ApiKeys {
    type Err = InvalidApiKeys;

    fn from_str(text: &str) -> Result<Self, InvalidApiKeys> {
        let mut keys: Vec<ApiKey> = Vec::new();
        for (index, entry) in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).enumerate() {
            let position = index + 1;
            let (tenant, key) = entry.split_once(':').ok_or(InvalidApiKeys::NoColon { position })?;
            let tenant: TenantId = tenant.trim().parse().map_err(|_| InvalidApiKeys::Tenant { position })?;
            let key = key.trim();
            let chars = key.chars().count();
            if chars < MIN_KEY_CHARS {
                return Err(InvalidApiKeys::TooShort { position, chars });
            }
            if !key.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(InvalidApiKeys::ForbiddenCharacter { position });
            }
            let sha256: [u8; 32] = Sha256::digest(key).into();
            if keys.iter().any(|known| known.sha256 == sha256) {
                return Err(InvalidApiKeys::Duplicate { position });
            }
            keys.push(ApiKey { tenant, sha256 });
        }
        if keys.is_empty() { Err(InvalidApiKeys::Empty) } else { Ok(Self { keys }) }
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeys({} keys)", self.keys.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "north:north-key-one-0001, north:north-key-two-0002, south:south-key-0000001";

    fn tenant(authorization: &'static str) -> Option<String> {
        let keys: ApiKeys = LIST.parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
        keys.authenticate(&headers).ok().map(ToString::to_string)
    }

    #[test]
    fn each_key_names_its_tenant_and_a_tenant_may_rotate() {
        assert_eq!(tenant("Bearer north-key-one-0001").as_deref(), Some("north"));
        assert_eq!(tenant("bearer north-key-two-0002").as_deref(), Some("north"));
        assert_eq!(tenant("Bearer south-key-0000001").as_deref(), Some("south"));
        for bad in ["Bearer south-key-0000002", "Bearer ", "Bearer", "Basic south-key-0000001", "south-key-0000001"] {
            assert_eq!(tenant(bad), None, "{bad}");
        }
    }

    #[test]
    fn two_authorization_headers_are_refused() {
        let keys: ApiKeys = LIST.parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.append(header::AUTHORIZATION, "Bearer south-key-0000001".parse().unwrap());
        headers.append(header::AUTHORIZATION, "Bearer north-key-one-0001".parse().unwrap());
        assert!(keys.authenticate(&headers).is_err());
    }

    #[test]
    fn bad_lists_are_refused_by_position() {
        let error = |list: &str| list.parse::<ApiKeys>().unwrap_err();
        assert_eq!(error(" ,"), InvalidApiKeys::Empty);
        assert_eq!(error("north"), InvalidApiKeys::NoColon { position: 1 });
        assert_eq!(error("no rth:0123456789abcdef"), InvalidApiKeys::Tenant { position: 1 });
        assert_eq!(error("a:0123456789abcdef,b:short"), InvalidApiKeys::TooShort { position: 2, chars: 5 });
        assert_eq!(error("a:0123456789abcdeé"), InvalidApiKeys::ForbiddenCharacter { position: 1 });
        assert_eq!(error("a:0123456789abcdef,b:0123456789abcdef"), InvalidApiKeys::Duplicate { position: 2 });
    }
}
