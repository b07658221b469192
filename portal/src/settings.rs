//! `Cli`: the commands of `portal`, every flag and environment variable of theirs, and which contradict each other.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use reqwest::Url;
use thiserror::Error;

/// Shortest password of a teacher.
pub const MIN_PASSWORD_CHARS: usize = 12;
/// Shortest class code.
const MIN_CODE_CHARS: usize = 6;

/// Create, show and complete assignments with generated pictures: the example client of the picture API.
#[derive(Debug, Clone, Parser)]
#[command(name = "portal", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Serves the pages until told to stop.
    Serve(Box<ServeSettings>),
    /// Adds a teacher, or changes the password of one; the password is read from standard input.
    Teacher(TeacherSettings),
}

/// Where the data is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Database")]
pub struct DatabaseSettings {
    /// SQLite file (`sqlite://FILE`, made if need be) or PostgreSQL (`postgres://USER:PASSWORD@HOST/NAME`).
    #[arg(
        long,
        env = "DATABASE_URL",
        default_value = "sqlite://portal.db",
        value_name = "URL",
        hide_env_values = true
    )]
    pub database_url: SecretText,
}

/// Settings of `portal serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeSettings {
    /// Address of the port. Port 0 takes a free one.
    #[arg(long, env = "LISTEN_ADDR", default_value = "127.0.0.1:8000", value_name = "HOST:PORT")]
    pub listen_addr: SocketAddr,
    /// Origin under which people reach the portal. With https, cookies are for https alone.
    #[arg(long, env = "PUBLIC_URL", value_name = "ORIGIN")]
    pub public_url: Option<Origin>,
    /// Proxies in front of the portal that append to X-Forwarded-For: the address they saw is then the one that the limits
    /// of the sign-in count. 0 trusts nobody.
    #[arg(long, env = "TRUSTED_PROXIES", default_value_t = 0, value_name = "PROXIES", value_parser = clap::value_parser!(u8).range(0..=8))]
    pub trusted_proxies: u8,
    /// How long a person stays signed in.
    #[arg(long, env = "SESSION_HOURS", default_value_t = 12, value_name = "HOURS", value_parser = clap::value_parser!(u64).range(1..=720))]
    pub session_hours: u64,
    #[command(flatten)]
    pub database: DatabaseSettings,
    #[command(flatten)]
    pub pictures: PictureSettings,
    #[command(flatten)]
    pub first: FirstSettings,
    /// What is logged, in the syntax of tracing-subscriber's `EnvFilter`.
    #[arg(long, env = "LOG_FILTER", default_value = "info", value_name = "FILTER", help_heading = "Observe")]
    pub log_filter: String,
    /// How log lines are written.
    #[arg(
        long,
        env = "LOG_FORMAT",
        default_value = "json",
        value_enum,
        value_name = "FORMAT",
        help_heading = "Observe"
    )]
    pub log_format: LogFormat,
}

/// Where pictures come from.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Pictures")]
pub struct PictureSettings {
    /// Origin of the picture API.
    #[arg(long, env = "API_URL", value_name = "ORIGIN")]
    pub api_url: Origin,
    /// Bearer key of the portal's tenant. It never leaves the server.
    #[arg(long, env = "API_KEY", value_name = "KEY", hide_env_values = true)]
    pub api_key: SecretText,
    /// Where browsers fetch pictures, as the API has it: a host (read as https) or scheme, host and optional port. Pages
    /// allow pictures from there and from nowhere else.
    #[arg(long, env = "CLOUDFRONT_DOMAIN", value_name = "HOST|ORIGIN")]
    pub cloudfront_domain: Origin,
}

/// A teacher to begin with.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "First teacher")]
pub struct FirstSettings {
    /// Address of a teacher who is added at the start, unless there is one of this address already.
    #[arg(long, env = "FIRST_TEACHER_EMAIL", value_name = "EMAIL", requires = "first_teacher_password")]
    pub first_teacher_email: Option<String>,
    /// Their password, of at least 12 characters.
    #[arg(long, env = "FIRST_TEACHER_PASSWORD", value_name = "PASSWORD", hide_env_values = true)]
    pub first_teacher_password: Option<SecretText>,
    /// Code of their first class, of at least 6 letters and digits; without it a random one.
    #[arg(long, env = "FIRST_CLASS_CODE", value_name = "CODE")]
    pub first_class_code: Option<String>,
}

/// Settings of `portal teacher`.
#[derive(Debug, Clone, Args)]
pub struct TeacherSettings {
    /// Address that the teacher signs in with.
    #[arg(value_name = "EMAIL")]
    pub email: String,
    /// Name that students see.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    #[command(flatten)]
    pub database: DatabaseSettings,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// The settings cannot be used. The message never contains a secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidSettings {
    #[error("API_KEY is empty: set the bearer key of the portal's tenant")]
    NoKey,
    #[error("FIRST_TEACHER_PASSWORD has fewer than {MIN_PASSWORD_CHARS} characters: choose a longer one")]
    ShortPassword,
    #[error("FIRST_TEACHER_EMAIL has no @: give an address")]
    NoAddress,
    #[error("FIRST_CLASS_CODE has fewer than {MIN_CODE_CHARS} letters and digits: choose a longer one, or none")]
    ShortCode,
}

impl ServeSettings {
    /// Checks what clap cannot.
    ///
    /// # Errors
    /// When a value cannot be used.
    pub fn validate(&self) -> Result<(), InvalidSettings> {
        if self.pictures.api_key.reveal().trim().is_empty() {
            return Err(InvalidSettings::NoKey);
        }
        if self.first.first_teacher_email.as_ref().is_some_and(|email| !email.contains('@')) {
            return Err(InvalidSettings::NoAddress);
        }
        let short = |password: &SecretText| password.reveal().chars().count() < MIN_PASSWORD_CHARS;
        if self.first.first_teacher_password.as_ref().is_some_and(short) {
            return Err(InvalidSettings::ShortPassword);
        }
        let few = |code: &String| crate::secret::normalised_code(code).len() < MIN_CODE_CHARS;
        if self.first.first_class_code.as_ref().is_some_and(few) {
            return Err(InvalidSettings::ShortCode);
        }
        Ok(())
    }

    /// Returns whether people come by https, so that cookies can be held to it.
    pub fn is_https(&self) -> bool {
        self.public_url.as_ref().is_some_and(|origin| origin.0.scheme() == "https")
    }

    /// Returns how long a person stays signed in.
    pub fn session(&self) -> Duration {
        Duration::from_secs(self.session_hours * 3600)
    }
}

/// Text that is never printed.
#[derive(Clone)]
pub struct SecretText(String);

impl SecretText {
    /// Returns the text, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for SecretText {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

/// Scheme, host and optional port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(Url);

/// The text is not an origin.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected a host, or http(s)://host[:port] without a path, user or query")]
pub struct InvalidOrigin;

impl Origin {
    /// Returns the URL of its root.
    pub fn url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.origin().ascii_serialization())
    }
}

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let url: Url = with_scheme.parse().map_err(|_| InvalidOrigin)?;
        let plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let anonymous = url.username().is_empty() && url.password().is_none();
        let known = matches!(url.scheme(), "http" | "https") && url.has_host();
        if plain && anonymous && known { Ok(Self(url)) } else { Err(InvalidOrigin) }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn serve(more: &[&str]) -> Result<(), InvalidSettings> {
        let base = ["portal", "serve", "--api-url=http://127.0.0.1:8080", "--cloudfront-domain=cdn.example.com"];
        let key = ["--api-key=0123456789abcdef"];
        let key = key.iter().filter(|_| !more.iter().any(|arg| arg.starts_with("--api-key")));
        let cli = Cli::try_parse_from(base.iter().chain(key).chain(more)).unwrap();
        let Command::Serve(settings) = cli.command else { panic!("another command") };
        assert!(!format!("{settings:?}").contains("0123456789"), "a secret is printed");
        settings.validate()
    }

    #[test]
    fn help_is_the_configuration_reference() {
        let mut command = Cli::command().term_width(100);
        let serve = command.find_subcommand_mut("serve").unwrap().clone();
        let serve = serve.term_width(100).mut_args(|arg| arg.hide_env_values(true));
        insta::assert_snapshot!(serve.clone().render_long_help());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        assert_eq!(serve(&[]), Ok(()));
        assert_eq!(serve(&["--api-key= "]), Err(InvalidSettings::NoKey));
        let email = "--first-teacher-email=a@b";
        assert_eq!(serve(&[email, "--first-teacher-password=short"]), Err(InvalidSettings::ShortPassword));
        let password = "--first-teacher-password=long enough, surely";
        assert_eq!(serve(&["--first-teacher-email=anna", password]), Err(InvalidSettings::NoAddress));
        assert_eq!(serve(&[email, password, "--first-class-code=a-b-c"]), Err(InvalidSettings::ShortCode));
    }

    #[test]
    fn origins_are_hosts_or_plain_urls() {
        for (text, expected) in [
            ("d111.cloudfront.net", "https://d111.cloudfront.net"),
            ("http://127.0.0.1:8081", "http://127.0.0.1:8081"),
            ("https://cdn.example.com/", "https://cdn.example.com"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().to_string(), expected);
        }
        for bad in ["", "ftp://host", "https://host/path", "https://user@host", "host?x=1", "https://", "a b", "h#x"] {
            assert_eq!(bad.parse::<Origin>(), Err(InvalidOrigin), "{bad:?}");
        }
    }
}
