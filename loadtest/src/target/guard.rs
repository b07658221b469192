//! `Guard`: the hosts that load may be sent to. Everything else is refused before a connection is opened.

use std::collections::BTreeSet;
use std::net::IpAddr;

use reqwest::Url;

/// Loopback, and the hosts that the outputs of a deployment name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guard {
    hosts: BTreeSet<String>,
}

impl Guard {
    /// Allows loopback alone.
    #[must_use]
    pub fn loopback() -> Self {
        Self::default()
    }

    /// Returns whether this URL leads to this machine.
    #[must_use]
    pub fn is_here(url: &Url) -> bool {
        url.host_str().is_some_and(is_loopback)
    }

    /// Allows loopback and these host names, which are compared without regard to case.
    pub fn with_hosts(hosts: impl IntoIterator<Item = String>) -> Self {
        Self { hosts: hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect() }
    }

    /// Returns the host names that are allowed beside loopback.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().map(String::as_str)
    }

    /// Returns whether this is one of those host names.
    #[must_use]
    pub fn names(&self, host: &str) -> bool {
        self.hosts.contains(&host.to_ascii_lowercase())
    }

    /// Returns whether a request to this URL may be sent: no user in it, and a host that is allowed; over TLS unless it stays on
    /// this machine, as requests carry the key.
    #[must_use]
    pub fn allows(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        let is_plain = url.username().is_empty() && url.password().is_none();
        let is_allowed = match url.scheme() {
            "https" => is_loopback(host) || self.names(host),
            "http" => is_loopback(host),
            _ => false,
        };
        is_plain && is_allowed
    }

    /// Parses a URL that may be used.
    ///
    /// # Errors
    /// Says which hosts are allowed, or what is no URL. `what` names where it came from.
    pub fn check(&self, what: &str, url: &str) -> Result<Url, String> {
        let parsed = Url::parse(url).map_err(|error| format!("{what} is {url:?}, which is no URL ({error})"))?;
        if self.allows(&parsed) {
            return Ok(parsed);
        }
        let named: Vec<&str> = self.hosts().collect();
        let named = if named.is_empty() { String::new() } else { format!(" and {}", named.join(", ")) };
        Err(format!(
            "{what} is {url}: load goes to loopback{named} and nowhere else, over https unless it is loopback; name a \
             deployment with --terraform-dir or --outputs to allow the hosts in its outputs"
        ))
    }
}

/// `localhost` is resolved by the system, and to nothing else in any sane one; addresses are compared as such.
fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(guard: &Guard, url: &str) -> bool {
        guard.check("--api", url).is_ok()
    }

    #[test]
    fn loopback_is_always_allowed_and_a_look_alike_is_not() {
        let guard = Guard::loopback();
        for url in ["http://127.0.0.1:8080", "http://127.9.9.9/", "http://[::1]:8080", "http://LOCALHOST:1"] {
            assert!(allowed(&guard, url), "{url}");
        }
        for url in [
            "http://example.com",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "http://127.0.0.1@example.com",
            "http://user@127.0.0.1",
            "http://10.0.0.1",
            "http://0.0.0.0",
            "ftp://127.0.0.1",
            "file:///etc/passwd",
            "127.0.0.1:8080",
        ] {
            assert!(!allowed(&guard, url), "{url}");
        }
    }

    #[test]
    fn hosts_of_the_outputs_are_allowed_by_their_whole_name() {
        let guard = Guard::with_hosts(["d111.cloudfront.net".to_owned()]);
        assert!(allowed(&guard, "https://D111.cloudfront.net/v1/jobs"));
        assert!(!allowed(&guard, "http://d111.cloudfront.net/v1/jobs"), "the key would go in the clear");
        assert!(!allowed(&guard, "https://evil-d111.cloudfront.net"));
        assert!(!allowed(&guard, "https://d222.cloudfront.net"));
        let error = guard.check("the picture's URL", "https://d222.cloudfront.net").unwrap_err();
        assert!(error.contains("d111.cloudfront.net") && error.contains("--terraform-dir"), "{error}");
    }
}
