//! Settings: the groups both binaries share, and how a contradiction is reported.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use thiserror::Error;

/// `EX_USAGE` of sysexits.h: the process was started with settings it cannot run with.
pub const EXIT_USAGE: u8 = 64;

/// Two settings that cannot both hold.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{first} contradicts {second}: {reason}")]
pub struct Contradiction {
    pub first: &'static str,
    pub second: &'static str,
    pub reason: String,
}

impl Contradiction {
    /// Returns an error naming both settings unless `holds`.
    ///
    /// # Errors
    /// When `holds` is false.
    pub fn unless(
        holds: bool,
        first: &'static str,
        second: &'static str,
        reason: impl FnOnce() -> String,
    ) -> Result<(), Self> {
        if holds { Ok(()) } else { Err(Self { first, second, reason: reason() }) }
    }
}

/// Prints why the settings cannot be used and returns the exit code for it, whoever found out: clap, a check of ours, or
/// the part that was to use one.
pub fn refuse(error: &dyn std::fmt::Display) -> ExitCode {
    say(error);
    ExitCode::from(EXIT_USAGE)
}

/// Prints why the process cannot start or go on, although its settings are in order, and returns the exit code for it.
pub fn give_up(error: &dyn std::fmt::Display) -> ExitCode {
    say(error);
    ExitCode::FAILURE
}

/// clap's own texts begin with the word already.
fn say(error: &dyn std::fmt::Display) {
    let text = error.to_string();
    eprintln!("error: {}", text.strip_prefix("error: ").unwrap_or(&text).trim_end());
}

/// Where the admin port is unless told otherwise. Whoever asks it has the same default.
pub const DEFAULT_ADMIN_ADDR: &str = "127.0.0.1:9100";

/// How the process is observed.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Observability")]
pub struct ObserveSettings {
    /// Address of the admin port: /live, /ready, /metrics. Port 0 takes a free one.
    #[arg(long, env = "ADMIN_ADDR", default_value = DEFAULT_ADMIN_ADDR, value_name = "HOST:PORT")]
    pub admin_addr: SocketAddr,
    /// What is logged, in the syntax of tracing-subscriber's EnvFilter.
    #[arg(long, env = "LOG_FILTER", default_value = "info", value_name = "FILTER")]
    pub log_filter: String,
    /// How log lines look.
    #[arg(long, env = "LOG_FORMAT", default_value = "json", value_enum)]
    pub log_format: LogFormat,
    /// Base URL of an OpenTelemetry collector that takes OTLP over HTTP, usually on port 4318. None or empty: no traces.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otel_exporter_otlp_endpoint: Option<String>,
    /// How spans are sent. Collectors take it on port 4318; 4317 is for gRPC, which is not spoken here.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_PROTOCOL", default_value = OTLP_PROTOCOL, value_name = "PROTOCOL", value_parser = otlp_protocol)]
    pub otel_exporter_otlp_protocol: String,
}

impl ObserveSettings {
    /// Returns where traces go; none when they are off.
    pub fn traces_endpoint(&self) -> Option<&str> {
        self.otel_exporter_otlp_endpoint.as_deref().map(str::trim).filter(|endpoint| !endpoint.is_empty())
    }
}

const OTLP_PROTOCOL: &str = "http/protobuf";

/// `OpenTelemetry` says that an empty variable is one that is not set.
fn otlp_protocol(text: &str) -> Result<String, String> {
    match text {
        "" | OTLP_PROTOCOL => Ok(OTLP_PROTOCOL.to_owned()),
        _ => Err(format!("{OTLP_PROTOCOL} is the only one that is spoken here")),
    }
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    Json,
    /// Aligned text, for people.
    Text,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contradiction_names_both_settings() {
        let error = Contradiction::unless(false, "LEASE_SECONDS", "HEARTBEAT_SECONDS", || "too short".into());
        assert_eq!(error.unwrap_err().to_string(), "LEASE_SECONDS contradicts HEARTBEAT_SECONDS: too short");
        assert_eq!(Contradiction::unless(true, "A", "B", String::new), Ok(()));
    }
}
