//! `OpenAiSettings`: where the second source is, which model it has, and how it likes to be asked.

use std::fmt;
use std::net::IpAddr;

use clap::{ArgAction, Args, ValueEnum};
use http::Uri;
use service::settings::Contradiction;

use super::answer::is_size;

/// A server that makes pictures as `OpenAI`'s images endpoint does: one's own model server, or another cloud.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "OpenAI-compatible source")]
pub struct OpenAiSettings {
    /// Where it is, with or without the closing /v1; https, unless it is on this machine or `OPENAI_ALLOW_HTTP` says otherwise.
    #[arg(long, env = "OPENAI_BASE_URL", value_name = "URL", value_parser = base_url)]
    pub openai_base_url: Option<String>,
    /// Name of the model there.
    #[arg(long, env = "OPENAI_MODEL", value_name = "NAME", value_parser = model_name)]
    pub openai_model: Option<String>,
    /// Key that it is asked with, as `Authorization: Bearer`. None or empty: without one.
    #[arg(long, env = "OPENAI_API_KEY", hide_env_values = true, value_name = "KEY", value_parser = api_key)]
    pub openai_api_key: Option<ApiKey>,
    /// Size to ask for. Pictures are cut square and scaled to 1024 x 1024.
    #[arg(long, env = "OPENAI_SIZE", default_value = "1024x1024", value_name = "WxH", value_parser = size)]
    pub openai_size: String,
    /// How it is asked.
    #[arg(long, env = "OPENAI_DIALECT", default_value = "compatible", value_name = "DIALECT", value_enum)]
    pub openai_dialect: Dialect,
    /// Ask it over http although it is not on this machine: for a network that nobody else listens to.
    #[arg(long, env = "OPENAI_ALLOW_HTTP", default_value_t = false, action = ArgAction::Set, value_name = "BOOL")]
    pub openai_allow_http: bool,
}

/// What goes into a request beside prompt, model, size and `n`. Servers differ in what they refuse to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    /// `response_format`, `seed` and `negative_prompt`: what model servers take.
    Compatible,
    /// `output_format` alone, as the GPT image models want it; a negative prompt becomes a sentence behind the prompt, and seeds
    /// are not known there.
    GptImage,
}

/// A secret: never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// Returns the key, to be sent and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

/// The settings of a source that is used.
#[derive(Debug, Clone)]
pub struct OpenAiSource {
    /// Without a closing slash and without `/v1`.
    pub base_url: String,
    pub model: String,
    pub api_key: Option<ApiKey>,
    pub size: String,
    pub dialect: Dialect,
}

impl OpenAiSettings {
    /// Returns the source, for which `used_by` needs both URL and model.
    ///
    /// # Errors
    /// When one is missing, or the way there is open to everybody.
    pub fn source(&self, used_by: &'static str) -> Result<OpenAiSource, Contradiction> {
        let missing =
            |first: &'static str| Contradiction { first, second: used_by, reason: "the source needs it".into() };
        let named = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        let base_url = named(&self.openai_base_url).ok_or_else(|| missing("OPENAI_BASE_URL"))?;
        let model = named(&self.openai_model).ok_or_else(|| missing("OPENAI_MODEL"))?;
        Contradiction::unless(
            self.openai_allow_http || base_url.starts_with("https://") || is_on_this_machine(&base_url),
            "OPENAI_BASE_URL",
            "OPENAI_ALLOW_HTTP",
            || "prompts and the key would cross the network in the clear: use https".into(),
        )?;
        let api_key = self.openai_api_key.clone().filter(|key| !key.0.is_empty());
        Ok(OpenAiSource { base_url, model, api_key, size: self.openai_size.clone(), dialect: self.openai_dialect })
    }
}

/// An empty variable is one that is not set: a compose file passes them on.
fn base_url(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let uri: Uri = text.parse().map_err(|error| format!("{error}: give https://host"))?;
    let plain = matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none() && !text.contains('#');
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
    if !plain || authority.is_none() {
        return Err("give https://host, without user and query: the key is OPENAI_API_KEY".to_owned());
    }
    let text = text.trim_end_matches('/');
    Ok(text.strip_suffix("/v1").unwrap_or(text).to_owned())
}

/// It ends in records, headers of S3 and pictures.
fn model_name(text: &str) -> Result<String, String> {
    let visible = text.len() <= 200 && text.bytes().all(|byte| byte.is_ascii_graphic());
    if visible { Ok(text.to_owned()) } else { Err("give at most 200 visible ASCII characters".to_owned()) }
}

fn size(text: &str) -> Result<String, String> {
    if is_size(text) { Ok(text.to_owned()) } else { Err("give WIDTHxHEIGHT in pixels, such as 1024x1024".to_owned()) }
}

fn api_key(text: &str) -> Result<ApiKey, String> {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(ApiKey(text.to_owned()))
    } else {
        Err("the key has a character that is not visible ASCII".to_owned())
    }
}

fn is_on_this_machine(url: &str) -> bool {
    let uri: Option<Uri> = url.parse().ok();
    uri.as_ref().and_then(Uri::host).is_some_and(|host| {
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        settings: OpenAiSettings,
    }

    fn parsed(args: &[&str]) -> Result<OpenAiSettings, String> {
        let command = Command::try_parse_from(std::iter::once("test").chain(args.iter().copied()));
        command.map(|command| command.settings).map_err(|error| error.to_string())
    }

    #[test]
    fn the_way_there_is_secret_or_short() {
        let source = |url: &str, more: &[&str]| {
            let args = [&["--openai-base-url", url, "--openai-model", "flux"], more].concat();
            parsed(&args).unwrap().source("MODEL_SOURCE")
        };
        for (url, expected) in [
            ("https://api.example.com/v1/", "https://api.example.com"),
            ("https://models.example.com/images", "https://models.example.com/images"),
            ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000"),
            ("http://[::1]:8000", "http://[::1]:8000"),
            ("http://localhost", "http://localhost"),
        ] {
            assert_eq!(source(url, &[]).unwrap().base_url, expected);
        }
        let error = source("http://models.internal:8000", &[]).unwrap_err();
        assert_eq!((error.first, error.second), ("OPENAI_BASE_URL", "OPENAI_ALLOW_HTTP"));
        assert!(source("http://models.internal:8000", &["--openai-allow-http", "true"]).is_ok());
    }

    #[test]
    fn what_is_missing_is_named() {
        let none = parsed(&[]).unwrap().source("MODEL_FALLBACK").unwrap_err();
        assert_eq!((none.first, none.second), ("OPENAI_BASE_URL", "MODEL_FALLBACK"));
        let empty = parsed(&["--openai-base-url", "", "--openai-model", "", "--openai-api-key", ""]).unwrap();
        assert_eq!(empty.source("MODEL_SOURCE").unwrap_err().first, "OPENAI_BASE_URL");
        let no_model = parsed(&["--openai-base-url", "https://h"]).unwrap().source("MODEL_SOURCE").unwrap_err();
        assert_eq!(no_model.first, "OPENAI_MODEL");
    }

    #[test]
    fn what_cannot_be_used_is_refused_and_the_key_never_shown() {
        for url in ["h", "ftp://h", "https://user@h", "https://h?key=1", "https://h#x"] {
            assert!(parsed(&["--openai-base-url", url]).is_err(), "{url}");
        }
        assert!(parsed(&["--openai-model", "a model"]).is_err());
        for size in ["banana", "", "1024", "1024x", "x1024", "1024x0", "1024X1024", "1024x1024x3", "-1x1", "1024x1024 "]
        {
            assert!(parsed(&[&format!("--openai-size={size}")]).is_err(), "{size}");
        }
        assert_eq!(parsed(&["--openai-size", "512x768"]).unwrap().openai_size, "512x768");
        let error = parsed(&["--openai-api-key", "sk-secret\n"]).unwrap_err();
        assert!(error.contains("not visible ASCII"), "{error}");
        let settings = parsed(&["--openai-api-key", "sk-secret"]).unwrap();
        assert!(!format!("{settings:?}").contains("sk-secret"));
    }
}
