//! `Resolve`: a host of the outputs that is reached through a loopback address, as at the end of a tunnel.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use super::Guard;

/// Where to connect for a host. What is asked for, and whose certificate is expected, stays the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolve {
    pub host: String,
    pub address: SocketAddr,
}

impl Resolve {
    /// Refuses a host that load may not be sent to, or that needs no help.
    ///
    /// # Errors
    /// Names the flag and the hosts that it takes.
    pub(super) fn check(&self, guard: &Guard) -> Result<(), String> {
        if guard.names(&self.host) {
            return Ok(());
        }
        let Self { host, .. } = self;
        let hosts: Vec<&str> = guard.hosts().collect();
        Err(if hosts.is_empty() {
            format!("--resolve {self}: the local stack is on loopback already: it is for a deployment's hosts")
        } else {
            format!("--resolve {self}: {host} is no host of the outputs: it takes {}", hosts.join(" and "))
        })
    }
}

impl FromStr for Resolve {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "write HOST:127.0.0.1:PORT";
        let (host, address) = text.split_once(':').filter(|(host, _)| !host.is_empty()).ok_or(form)?;
        let address: SocketAddr = address.parse().map_err(|_| format!("{address:?} is no address and port: {form}"))?;
        if !address.ip().is_loopback() || address.port() == 0 {
            return Err(format!("{address} is not the end of a tunnel on this machine: {form}"));
        }
        Ok(Self { host: host.to_ascii_lowercase(), address })
    }
}

impl fmt::Display for Resolve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_connected_to() {
        let resolve: Resolve = "D1.cloudfront.net:127.0.0.1:8443".parse().unwrap();
        assert_eq!(resolve.to_string(), "d1.cloudfront.net:127.0.0.1:8443");
        assert_eq!("d1.cloudfront.net:[::1]:8443".parse::<Resolve>().unwrap().address.port(), 8443);
        for text in ["d1:10.0.0.1:443", "d1:0.0.0.0:443", "d1:127.0.0.1:0", "d1:127.0.0.1", "d1", ":127.0.0.1:1", ""] {
            let error = text.parse::<Resolve>().unwrap_err();
            assert!(error.contains("HOST:127.0.0.1:PORT"), "{text}: {error}");
        }
    }

    #[test]
    fn only_hosts_of_the_outputs_are_redirected() {
        let guard = Guard::with_hosts(["d1.cloudfront.net".to_owned()]);
        let check = |text: &str, guard: &Guard| text.parse::<Resolve>().unwrap().check(guard);
        assert_eq!(check("D1.cloudfront.net:127.0.0.1:8443", &guard), Ok(()));
        assert!(check("example.com:127.0.0.1:8443", &guard).unwrap_err().contains("it takes d1.cloudfront.net"));
        assert!(
            check("d1.cloudfront.net:127.0.0.1:8443", &Guard::loopback()).unwrap_err().contains("loopback already")
        );
    }
}
