//! `health`: asks the admin port of a running process, for a container that has no other program to do it with.
//!
//! Not ready and broken are two things. A worker whose circuit is open is not ready: it holds jobs, has spent money on
//! some of them, and goes on by itself, so whatever restarts on a failed check must ask `/live` (`--live`). Whatever only
//! waits for a start, as the `depends_on` of compose does, asks `/ready`, the default.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use axum::body::Body;
use axum::http::{StatusCode, Uri};
use clap::Parser;
use http_body_util::{BodyExt, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use thiserror::Error;

use crate::settings::{DEFAULT_ADMIN_ADDR, give_up, refuse};

/// The word after the program's name that asks for a check instead of a start.
const COMMAND: &str = "health";
/// For the end of a binary's help, which knows nothing of a command that is looked for before the settings.
pub const HELP: &str = "The word `health` in front of everything asks a running process whether it is ready, and exits with 0 or 1: \
                        see `health --help`.";
/// The admin port answers within milliseconds, whatever the process is busy with. Shorter than any orchestrator waits.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Longer than any list of reasons; an answer is printed, and may come from another program.
const MAX_BYTES: usize = 4096;

/// Asks a running process, on this machine, whether it is ready to take work. Exits with 0, or with 1 and the reason.
#[derive(Debug, Parser)]
struct HealthSettings {
    /// Address of the admin port of the process to ask, as that process has it.
    #[arg(long, env = "ADMIN_ADDR", default_value = DEFAULT_ADMIN_ADDR, value_name = "HOST:PORT")]
    admin_addr: SocketAddr,
    /// Ask whether it runs. For what restarts on a failure: a process that is not ready may be holding paid work.
    #[arg(long)]
    live: bool,
}

/// The check failed.
#[derive(Debug, Error)]
pub enum Unhealthy {
    #[error("{url} does not answer: {reason}")]
    Silent { url: Uri, reason: String },
    #[error("{url} answers {status}: {said}")]
    Refused { url: Uri, status: StatusCode, said: String },
}

/// Returns the exit code of the check when the command line of this process asks for one.
pub fn asked(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter();
    let program = args.next()?;
    if args.next()? != COMMAND {
        return None;
    }
    let name = format!("{} {COMMAND}", program.to_string_lossy());
    let settings = match HealthSettings::try_parse_from([OsString::from(name)].into_iter().chain(args)) {
        Ok(settings) => settings,
        Err(error) if error.use_stderr() => return Some(refuse(&error.render())),
        Err(help) => help.exit(),
    };
    if settings.admin_addr.port() == 0 {
        return Some(refuse(&"ADMIN_ADDR: port 0 is a free one, and which one is not known here: give it a number"));
    }
    Some(report(&settings.url()))
}

/// Asks `url`, prints the answer, and returns the exit code.
pub fn report(url: &Uri) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return give_up(&error),
    };
    match runtime.block_on(ask(url)) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(unhealthy) => give_up(&unhealthy),
    }
}

/// Returns the one line that `url` answers with.
///
/// # Errors
/// When it does not answer in time, or with anything but success.
pub async fn ask(url: &Uri) -> Result<String, Unhealthy> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let silent = |reason: String| Unhealthy::Silent { url: url.clone(), reason };
    let answer = async {
        let response = client.get(url.clone()).await.map_err(|error| silent(cause(&error)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
        let body = body.map_err(|error| silent(error.to_string()))?.to_bytes();
        let said = String::from_utf8_lossy(&body).split_whitespace().collect::<Vec<_>>().join(" ");
        if status.is_success() { Ok(said) } else { Err(Unhealthy::Refused { url: url.clone(), status, said }) }
    };
    let late = |_| silent(format!("nothing came within {} s", TIMEOUT.as_secs()));
    tokio::time::timeout(TIMEOUT, answer).await.map_err(late)?
}

/// The innermost reason: "connection refused", and not that a client had an error.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

impl HealthSettings {
    fn url(&self) -> Uri {
        let ip = match self.admin_addr.ip() {
            // A process that listens everywhere is asked on this machine.
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        let path = if self.live { "/live" } else { "/ready" };
        let url = format!("http://{}{path}", SocketAddr::new(ip, self.admin_addr.port()));
        url.parse().expect("an address and a path are a URL")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readiness::Readiness;
    use crate::{admin, telemetry};

    fn url(args: &[&str]) -> String {
        HealthSettings::try_parse_from([&["image-api health"], args].concat()).unwrap().url().to_string()
    }

    #[test]
    fn the_process_is_asked_where_it_listens() {
        assert_eq!(url(&["--admin-addr=0.0.0.0:9100"]), "http://127.0.0.1:9100/ready");
        assert_eq!(url(&["--admin-addr=[::]:9100", "--live"]), "http://[::1]:9100/live");
        assert_eq!(url(&["--admin-addr=10.0.0.7:1"]), "http://10.0.0.7:1/ready");
    }

    #[test]
    fn only_the_word_in_front_asks() {
        let args = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(asked(args("image-api")).is_none());
        assert!(asked(args("image-api --log-filter health")).is_none());
        assert_eq!(asked(args("image-api health --admin-addr nowhere")), Some(ExitCode::from(64)));
        assert_eq!(asked(args("image-api health --admin-addr 127.0.0.1:0")), Some(ExitCode::from(64)));
    }

    #[tokio::test]
    async fn not_ready_is_refused_with_the_reason_and_alive_all_the_same() {
        let recorder = telemetry::recorder(&[]).unwrap().build_recorder();
        let readiness = Readiness::starting();
        readiness.block("circuit", "access_denied");
        let addr = admin::serve("127.0.0.1:0".parse().unwrap(), recorder.handle(), readiness.clone()).unwrap();
        let of = |path: &str| format!("http://{addr}{path}").parse::<Uri>().unwrap();

        let refused = ask(&of("/ready")).await.unwrap_err().to_string();
        assert!(refused.contains("503") && refused.contains("access_denied"), "{refused}");
        assert_eq!(ask(&of("/live")).await.unwrap(), "live");
        readiness.clear("circuit");
        readiness.clear("starting");
        assert_eq!(ask(&of("/ready")).await.unwrap(), r#"{"ready":true,"reasons":{}}"#);
    }

    #[tokio::test]
    async fn silence_is_an_answer_in_time() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Uri = format!("http://{}/ready", listener.local_addr().unwrap()).parse().unwrap();
        // It accepts in the kernel and says nothing.
        let mute = ask(&url).await.unwrap_err().to_string();
        assert!(mute.contains("within 2 s"), "{mute}");
        drop(listener);
        let gone = ask(&url).await.unwrap_err().to_string();
        assert!(gone.contains("refused") && gone.lines().count() == 1, "{gone}");
    }
}
