//! Which port is whose, and a clear word when one is taken.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use clap::Args;
use thiserror::Error;

/// Ports of the stack on 127.0.0.1. 0 takes a free one.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Ports")]
pub struct PortArgs {
    /// Port of the API [default: 8080].
    #[arg(long, env = "DEV_API_PORT", value_name = "PORT")]
    pub api_port: Option<u16>,
    /// Port of the CDN [default: 8081].
    #[arg(long, env = "DEV_CDN_PORT", value_name = "PORT")]
    pub cdn_port: Option<u16>,
    /// Port of SQS [default: 9324].
    #[arg(long, env = "DEV_SQS_PORT", value_name = "PORT")]
    pub sqs_port: Option<u16>,
    /// Port of Bedrock [default: 9325].
    #[arg(long, env = "DEV_BEDROCK_PORT", value_name = "PORT")]
    pub bedrock_port: Option<u16>,
    /// Port of S3 [default: 9000].
    #[arg(long, env = "DEV_S3_PORT", value_name = "PORT")]
    pub s3_port: Option<u16>,
    /// Port of the portal [default: 8000].
    #[arg(long, env = "DEV_PORTAL_PORT", value_name = "PORT")]
    pub portal_port: Option<u16>,
    /// Admin port of the API; the workers take the ones after it [default: 9100].
    #[arg(long, env = "DEV_ADMIN_PORT", value_name = "PORT")]
    pub admin_port: Option<u16>,
    /// First of a row of ports, in the order above, instead of the defaults: for a second stack on one machine.
    #[arg(long, env = "DEV_PORTS_FROM", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..=65_000))]
    pub ports_from: Option<u16>,
}

/// Ports as they are asked for; 0 is any free one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    pub api: u16,
    pub cdn: u16,
    pub sqs: u16,
    pub bedrock: u16,
    pub s3: u16,
    pub portal: u16,
    /// The API's; worker n has this plus n. 0 takes a free one for each.
    pub admin: u16,
}

impl Ports {
    /// Every port is a free one.
    pub const ANY: Self = Self { api: 0, cdn: 0, sqs: 0, bedrock: 0, s3: 0, portal: 0, admin: 0 };
    /// What `cargo dev up` takes.
    pub const DEFAULT: Self =
        Self { api: 8080, cdn: 8081, sqs: 9324, bedrock: 9325, s3: 9000, portal: 8000, admin: 9100 };
}

impl From<&PortArgs> for Ports {
    fn from(args: &PortArgs) -> Self {
        let base = args.ports_from.map_or(Self::DEFAULT, |from| Self {
            api: from,
            cdn: from + 1,
            sqs: from + 2,
            bedrock: from + 3,
            s3: from + 4,
            portal: from + 5,
            admin: from + 6,
        });
        Self {
            api: args.api_port.unwrap_or(base.api),
            cdn: args.cdn_port.unwrap_or(base.cdn),
            sqs: args.sqs_port.unwrap_or(base.sqs),
            bedrock: args.bedrock_port.unwrap_or(base.bedrock),
            s3: args.s3_port.unwrap_or(base.s3),
            portal: args.portal_port.unwrap_or(base.portal),
            admin: args.admin_port.unwrap_or(base.admin),
        }
    }
}

/// A port cannot be used.
#[derive(Debug, Error)]
pub enum PortError {
    #[error(
        "port {port} ({purpose}) cannot be used ({source}): free it, or choose another one with {flag} or --ports-from"
    )]
    Unusable { port: u16, purpose: String, flag: &'static str, source: io::Error },
    #[error("port {port} is asked for twice, for {first} and for {second}: change one of them with {flag}")]
    Twice { port: u16, first: String, second: String, flag: &'static str },
    #[error("--admin-port {first} leaves no ports for {workers} workers: choose a lower one")]
    TooHigh { first: u16, workers: usize },
}

impl Ports {
    /// Checks every port before anything is started, so that nothing has to be taken back.
    ///
    /// # Errors
    /// On the first port that cannot be bound or is asked for twice.
    pub fn check(&self, workers: usize) -> Result<(), PortError> {
        let mut wanted = vec![
            (self.api, "the API".to_owned(), "--api-port"),
            (self.cdn, "the CDN".to_owned(), "--cdn-port"),
            (self.sqs, "SQS".to_owned(), "--sqs-port"),
            (self.bedrock, "Bedrock".to_owned(), "--bedrock-port"),
            (self.s3, "S3".to_owned(), "--s3-port"),
            (self.portal, "the portal".to_owned(), "--portal-port"),
            (self.admin, "the API's admin port".to_owned(), "--admin-port"),
        ];
        for worker in 1..=workers {
            wanted.push((self.worker_admin(worker, workers)?, format!("worker {worker}'s admin port"), "--admin-port"));
        }
        let mut seen: BTreeMap<u16, String> = BTreeMap::new();
        for (port, purpose, flag) in wanted.into_iter().filter(|(port, ..)| *port != 0) {
            if let Some(first) = seen.get(&port) {
                return Err(PortError::Twice { port, first: first.clone(), second: purpose, flag });
            }
            if let Err(source) = TcpListener::bind(loopback(port)) {
                return Err(PortError::Unusable { port, purpose, flag, source });
            }
            seen.insert(port, purpose);
        }
        Ok(())
    }

    /// Returns the admin port of a worker, counted from 1.
    ///
    /// # Errors
    /// When it would lie above 65535.
    pub fn worker_admin(&self, worker: usize, workers: usize) -> Result<u16, PortError> {
        if self.admin == 0 {
            return Ok(0);
        }
        let offset = u16::try_from(worker).ok();
        offset
            .and_then(|offset| self.admin.checked_add(offset))
            .ok_or(PortError::TooHigh { first: self.admin, workers })
    }
}

/// Returns the address of a port on this machine alone.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Returns `port`, or a free one for 0. A process that is told its port needs the number before it binds it; another
/// program could take it in between.
///
/// # Errors
/// When the system has no free port.
pub fn chosen(port: u16) -> io::Result<u16> {
    if port != 0 {
        return Ok(port);
    }
    Ok(TcpListener::bind(loopback(0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_with_its_purpose_and_its_flag() {
        let taken = TcpListener::bind(loopback(0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = Ports { s3: port, ..Ports::ANY }.check(2).unwrap_err().to_string();
        for part in [&port.to_string(), "S3", "--s3-port", "--ports-from"] {
            assert!(error.contains(part), "{error}");
        }
        drop(taken);
        Ports { s3: port, ..Ports::ANY }.check(2).unwrap();
    }

    #[test]
    fn a_port_asked_for_twice_is_refused() {
        let port = chosen(0).unwrap();
        let error = Ports { api: port, sqs: port, ..Ports::ANY }.check(1).unwrap_err().to_string();
        assert!(error.contains("the API") && error.contains("SQS"), "{error}");
        let error = Ports { admin: 65_534, ..Ports::ANY }.check(2).unwrap_err();
        assert!(matches!(error, PortError::TooHigh { .. } | PortError::Unusable { .. }), "{error}");
    }

    #[test]
    fn a_row_of_ports_moves_all_and_a_flag_wins() {
        let args = PortArgs {
            api_port: None,
            cdn_port: None,
            sqs_port: Some(4000),
            bedrock_port: None,
            s3_port: None,
            portal_port: None,
            admin_port: None,
            ports_from: Some(7000),
        };
        let expected = Ports { api: 7000, cdn: 7001, sqs: 4000, bedrock: 7003, s3: 7004, portal: 7005, admin: 7006 };
        assert_eq!(Ports::from(&args), expected);
        assert_eq!(expected.worker_admin(2, 2).unwrap(), 7008);
    }
}
