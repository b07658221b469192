//! `Receivers`: where the webhooks of each tenant go, and with which secrets they are signed. A setting, never a request.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use job::{Place, TenantId};
use reqwest::Url;
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::Value;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Host;

use super::address::not_public;
use super::signature::{InvalidSecret, Secret};

/// Tries under way at one receiver: what is slow there must leave places for the others.
pub const PLACES_OF_ONE: usize = 8;

/// Secrets of one receiver: two are enough to change them without a gap.
const MAX_SECRETS: usize = 4;

/// Where the webhooks of one tenant go.
#[derive(Clone)]
pub struct Receiver {
    pub url: Url,
    /// Newest first. Each signs.
    pub secrets: Arc<[Secret]>,
    places: Arc<Semaphore>,
}

impl Receiver {
    /// Takes one of the places of this receiver, if there is one.
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }
}

/// The receivers of all tenants that have one.
#[derive(Clone, Default)]
pub struct Receivers(BTreeMap<TenantId, Receiver>);

/// The setting cannot be used. The message never contains a secret, nor a URL, which may have one in it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidReceivers {
    #[error(
        "{0}: expected JSON as {{\"TENANT\": {{\"url\": \"https://..\", \"secrets\": [\"whsec_..\"]}}}}, or {{}} for none"
    )]
    NotJson(Place),
    #[error("entry number {position} has a bad tenant: expected 1 to 64 of a-z A-Z 0-9 _ -")]
    Tenant { position: usize },
    #[error("tenant {0} is there twice: leave one")]
    Twice(TenantId),
    #[error("tenant {0} has to be an object with the fields url and secrets, and no others")]
    Fields(TenantId),
    #[error("url of tenant {tenant} {fault}")]
    Url { tenant: TenantId, fault: &'static str },
    #[error(
        "secrets of tenant {tenant}: expected a list of 1 to {MAX_SECRETS} texts that begin with whsec_, newest first"
    )]
    Secrets { tenant: TenantId },
    #[error("secret number {position} of tenant {tenant} {fault}")]
    Secret { tenant: TenantId, position: usize, fault: InvalidSecret },
}

impl Receivers {
    /// Reads the setting; an empty one, which compose files write, is none. `allow_private` is for a laptop: `http` and addresses that are not public.
    ///
    /// # Errors
    /// Names tenant, field and what to write instead.
    pub fn parse(text: &str, allow_private: bool) -> Result<Self, InvalidReceivers> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let Entries(entries) = serde_json::from_str(text).map_err(|error| InvalidReceivers::NotJson(error.into()))?;
        let mut receivers = BTreeMap::new();
        for (index, (name, entry)) in entries.into_iter().enumerate() {
            let position = index + 1;
            let tenant: TenantId = name.parse().map_err(|_| InvalidReceivers::Tenant { position })?;
            let receiver = receiver(&tenant, entry, allow_private)?;
            if receivers.insert(tenant.clone(), receiver).is_some() {
                return Err(InvalidReceivers::Twice(tenant));
            }
        }
        Ok(Self(receivers))
    }

    /// Returns where the webhooks of a tenant go.
    pub fn of(&self, tenant: &TenantId) -> Option<&Receiver> {
        self.0.get(tenant)
    }

    /// Returns how many tenants have one.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for Receivers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receivers({} tenants)", self.count())
    }
}

fn receiver(tenant: &TenantId, entry: Value, allow_private: bool) -> Result<Receiver, InvalidReceivers> {
    let fields = || InvalidReceivers::Fields(tenant.clone());
    let Value::Object(mut entry) = entry else { return Err(fields()) };
    let (Some(url), Some(secrets), true) = (entry.remove("url"), entry.remove("secrets"), entry.is_empty()) else {
        return Err(fields());
    };
    let fault = |fault| InvalidReceivers::Url { tenant: tenant.clone(), fault };
    let url = url.as_str().ok_or_else(|| fault("is not a text: write https://host/path"))?;
    let url = address(url, allow_private).map_err(fault)?;
    let list = || InvalidReceivers::Secrets { tenant: tenant.clone() };
    let secrets: Vec<String> = serde_json::from_value(secrets).map_err(|_| list())?;
    if secrets.is_empty() || secrets.len() > MAX_SECRETS {
        return Err(list());
    }
    let secret = |(index, text): (usize, &String)| {
        let invalid = |fault| InvalidReceivers::Secret { tenant: tenant.clone(), position: index + 1, fault };
        text.parse::<Secret>().map_err(invalid)
    };
    let secrets = secrets.iter().enumerate().map(secret).collect::<Result<_, _>>()?;
    Ok(Receiver { url, secrets, places: Arc::new(Semaphore::new(PLACES_OF_ONE)) })
}

/// Any port will do: an operator has written it, and it is the address that tells what is behind it.
fn address(text: &str, allow_private: bool) -> Result<Url, &'static str> {
    let url: Url = text.parse().map_err(|_| "is not a URL: write https://host/path")?;
    match url.scheme() {
        "https" => {}
        "http" if allow_private => {}
        "http" => return Err("is http, which anybody on the way can read: write https"),
        _ => return Err("has a scheme that is not https: write https://host/path"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a user in it: leave that out, the signature says who sends");
    }
    if url.fragment().is_some() {
        return Err("has a fragment, which is never sent: leave out # and what follows");
    }
    if !allow_private && literal(&url).is_some_and(|ip| not_public(ip).is_some()) {
        return Err("is an address that is not public: name a public host");
    }
    Ok(url)
}

/// Returns the host of a URL if it is an address, however it was written: nothing is going to look it up.
pub fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(ip) => Some(ip.into()),
        Host::Ipv6(ip) => Some(ip.into()),
        Host::Domain(_) => None,
    }
}

/// The entries in their order; a map would keep the last of two without a word.
struct Entries(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn of(url: &str, secrets: &str) -> String {
        format!(r#"{{"north": {{"url": "{url}", "secrets": {secrets}}}}}"#)
    }

    fn of_url(url: &str, allow_private: bool) -> Result<Receivers, InvalidReceivers> {
        Receivers::parse(&of(url, &format!("[\"{SECRET}\"]")), allow_private)
    }

    #[test]
    fn each_tenant_has_its_own() {
        let text = r#"{"north": {"url": "https://n.example/hook?a=1", "secrets": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]},
            "south": {"url": "https://s.example:8443/", "secrets": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"]}}"#;
        let receivers = Receivers::parse(text, false).unwrap();
        let url = |tenant: &str| receivers.of(&tenant.parse().unwrap()).map(|receiver| receiver.url.to_string());
        assert_eq!(url("north").as_deref(), Some("https://n.example/hook?a=1"));
        assert_eq!(url("south").as_deref(), Some("https://s.example:8443/"));
        assert_eq!(url("west"), None);
        assert_eq!(receivers.of(&"south".parse().unwrap()).unwrap().secrets.len(), 2);
        assert_eq!(format!("{receivers:?}"), "Receivers(2 tenants)");
        assert_eq!(["", "{}"].map(|none| Receivers::parse(none, false).unwrap().count()), [0, 0]);
    }

    #[test]
    fn a_receiver_has_so_many_places() {
        let receivers = of_url("https://n.example/", false).unwrap();
        let receiver = receivers.of(&"north".parse().unwrap()).unwrap();
        let taken: Vec<_> = (0..PLACES_OF_ONE).map(|_| receiver.place().unwrap()).collect();
        assert!(receiver.place().is_none());
        drop(taken);
        assert!(receiver.clone().place().is_some());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_tenant_and_never_shown() {
        let good = format!("[\"{SECRET}\"]");
        for (text, said) in [
            ("{".into(), "cut off at 1:1: expected JSON"),
            ("[]".into(), "wrong field at 1:0: expected JSON"),
            (format!("{{\"no rth\": \"{SECRET}\"}}"), "entry number 1 has a bad tenant"),
            (
                format!("{{\"north\": \"{SECRET}\"}}"),
                "tenant north has to be an object with the fields url and secrets",
            ),
            (r#"{"north": {"url": "https://h/"}}"#.into(), "tenant north has to be an object"),
            (of("https://h/", &format!("{good}, \"{SECRET}\": 1")), "tenant north has to be an object"),
            (of("https://h/", "[]"), "secrets of tenant north: expected a list of 1 to 4"),
            (of("https://h/", &format!("\"{SECRET}\"")), "secrets of tenant north: expected a list"),
            (of("https://h/", r#"["whsec_a"]"#), "secret number 1 of tenant north is not base64"),
            (of("https://h/", &format!("[\"{SECRET}\", \"x\"]")), "secret number 2 of tenant north has no 'whsec_'"),
            (of("/hook", &good), "url of tenant north is not a URL"),
            (of("http://h/", &good), "url of tenant north is http,"),
            (of("ftp://h/", &good), "url of tenant north has a scheme"),
            (of("https://me:whsec_@h/", &good), "url of tenant north has a user"),
            (of("https://h/#a", &good), "url of tenant north has a fragment"),
            (of("https://10.0.0.7/", &good), "url of tenant north is an address that is not public"),
        ] {
            let error = Receivers::parse(&text, false).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
            assert!(!error.contains("MfKQ9r8G") && !error.contains("10.0.0.7"), "{error}");
        }
        let inner = of("https://h/", &good);
        let twice = format!("{}, {}", inner.trim_end_matches('}'), inner.trim_start_matches('{'));
        let twice = twice.replacen("], ", "]}, ", 1);
        let error = Receivers::parse(&twice, false).unwrap_err();
        assert_eq!(error, InvalidReceivers::Twice("north".parse().unwrap()), "{twice}");
    }

    /// Every way to write an address that a URL takes ends as the address.
    #[test]
    fn an_address_is_seen_however_it_is_written() {
        for url in [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0x7f.1/",
            "https://0177.0.0.1/",
            "https://0/",
            "https://0.0.0.0/",
            "https://127.0.0.1./",
            "https://%31%32%37.0.0.1/",
            "https://１２７.0.0.1/",
            "https://169.254.169.254/latest/meta-data",
            "https://2852039166/",
            "https://[::]/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:7f00:1]/",
            "https://[fd00:ec2::254]/",
            "https://[64:ff9b::a9fe:a9fe]/",
            "https://[2002:7f00:1::]/",
            "https://10.0.0.7:8443/",
        ] {
            assert!(matches!(of_url(url, false), Err(InvalidReceivers::Url { .. })), "{url}");
            assert!(of_url(url, true).is_ok(), "{url}");
        }
        assert!(of_url("https://93.184.216.34/", false).is_ok());
        assert!(of_url("http://127.0.0.1:8080/", true).is_ok());
    }
}
