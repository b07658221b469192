//! `Target`: the system under test, discovered: the local stack, or a deployment through Terraform's outputs.

mod guard;
mod outputs;
mod resolve;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use reqwest::{Client, Url, redirect};
use serde::Deserialize;

use crate::failure::Failure;

pub use guard::Guard;
pub use outputs::Outputs;
pub use resolve::Resolve;

/// Long enough for `Prefer: wait=20` and a slow network.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(45);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where load goes: the running `cargo dev up`, unless a deployment is named.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Target")]
pub struct TargetArgs {
    /// Folder of an applied Terraform configuration: its outputs name the endpoints.
    #[arg(long, value_name = "FOLDER", conflicts_with = "outputs")]
    pub terraform_dir: Option<PathBuf>,
    /// File with what `terraform output -json` printed, instead of running it.
    #[arg(long, value_name = "FILE")]
    pub outputs: Option<PathBuf>,
    /// Data folder of the local stack [default: what `DEV_DIR` says, else .dev in the workspace].
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["outputs", "terraform_dir"])]
    pub dir: Option<PathBuf>,
    /// Origin of the API, if it is not the one discovered. Only loopback and hosts in the outputs are accepted.
    #[arg(long, value_name = "URL")]
    pub api: Option<String>,
    /// Connect to a loopback address for a host of the outputs, as through a tunnel; the certificate must still be the host's.
    #[arg(long, value_name = "HOST:ADDRESS:PORT")]
    pub resolve: Vec<Resolve>,
    /// Bearer key [default: the local stack's own]. For a deployment it is in the secret `api_keys_secret_arn`.
    #[arg(long, env = "LOADTEST_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub key: Option<String>,
}

/// The system under test.
#[derive(Debug, Clone)]
pub struct Target {
    /// Origin of the API.
    pub api: Url,
    /// Bearer key of the tenant that the load runs as.
    key: Option<String>,
    /// What may be requested.
    pub guard: Guard,
    /// Where to connect instead of asking for the address of a host.
    resolve: Vec<Resolve>,
    pub site: Site,
}

/// What can be observed of it besides its answers.
#[derive(Debug, Clone)]
pub enum Site {
    Local(LocalSite),
    Deployed(Box<Outputs>),
}

/// Endpoints of the local stack, as `cargo dev up` writes them down.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LocalSite {
    pub api_url: String,
    pub cdn_url: String,
    pub sqs_url: String,
    pub bedrock_url: String,
    pub queue_url: String,
    /// Of the second lane, if there is one.
    #[serde(default)]
    pub batch_queue_url: Option<String>,
    pub dead_letter_url: String,
    /// Of the API, then of each worker.
    pub admin_urls: Vec<String>,
}

/// The part of the stack's secrets that a client needs.
#[derive(Deserialize)]
struct Secrets {
    api_key: String,
}

impl TargetArgs {
    /// Finds the system under test.
    ///
    /// # Errors
    /// When none can be found, something of it is missing, or an address is not allowed.
    pub fn discover(&self) -> Result<Target, Failure> {
        let outputs = match (&self.terraform_dir, &self.outputs) {
            (Some(folder), _) => Some(Outputs::of_folder(folder)?),
            (None, Some(file)) => Some(Outputs::of_file(file)?),
            (None, None) => None,
        };
        match outputs {
            Some(outputs) => self.deployed(outputs),
            None => self.local(),
        }
    }

    fn local(&self) -> Result<Target, Failure> {
        let dir = self.dir.clone().or_else(dir_of_environment).unwrap_or_else(default_dir);
        let path = dir.join("endpoints.json");
        let site: LocalSite = read(&path).map_err(|reason| {
            Failure::usage(format!(
                "no local stack found: {} {reason}: start one with `cargo dev up`, name the folder of a running one with --dir, or \
                 a deployment with --terraform-dir or --outputs",
                path.display()
            ))
        })?;
        let guard = Guard::loopback();
        let endpoints = [&site.api_url, &site.cdn_url, &site.sqs_url, &site.bedrock_url, &site.queue_url];
        for url in endpoints.into_iter().chain([&site.dead_letter_url]).chain(&site.admin_urls) {
            guard.check(&path.display().to_string(), url).map_err(Failure::Usage)?;
        }
        let key = match &self.key {
            Some(key) => Some(key.clone()),
            None => read::<Secrets>(&dir.join("secrets.json")).ok().map(|secrets| secrets.api_key),
        };
        let api = self.api.as_deref().unwrap_or(&site.api_url);
        let resolve = self.resolved(&guard)?;
        Ok(Target { api: checked(&guard, "--api", api)?, key, guard, resolve, site: Site::Local(site) })
    }

    fn deployed(&self, outputs: Outputs) -> Result<Target, Failure> {
        let url = |text: &str| Url::parse(text).ok().and_then(|url| url.host_str().map(str::to_owned));
        let public = url(&outputs.cloudfront_url);
        let public = public.ok_or_else(|| {
            Failure::usage(format!("the output cloudfront_url is {:?}, which is no URL", outputs.cloudfront_url))
        })?;
        let guard = Guard::with_hosts([public, outputs.cloudfront_domain_name.clone()]);
        let api = self.api.as_deref().unwrap_or(&outputs.cloudfront_url);
        let api = checked(&guard, "--api", api)?;
        let resolve = self.resolved(&guard)?;
        Ok(Target { api, key: self.key.clone(), guard, resolve, site: Site::Deployed(Box::new(outputs)) })
    }

    fn resolved(&self, guard: &Guard) -> Result<Vec<Resolve>, Failure> {
        self.resolve.iter().try_for_each(|resolve| resolve.check(guard)).map_err(Failure::Usage)?;
        Ok(self.resolve.clone())
    }
}

impl Target {
    /// Returns the bearer key.
    ///
    /// # Errors
    /// When none was given and none can be found.
    pub fn key(&self) -> Result<&str, Failure> {
        self.key.as_deref().ok_or_else(|| {
            Failure::usage(
                "--key (or LOADTEST_API_KEY) is missing: for a deployment, read it from the secret that the output \
                 api_keys_secret_arn names; a value there is tenant:key",
            )
        })
    }

    /// Returns whether this is the stack of this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self.site, Site::Local(_))
    }

    /// Returns `local` or `deployed`: the word of thresholds and reports.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        if self.is_local() { "local" } else { "deployed" }
    }

    /// Makes the client of all requests. It follows no redirect, since that could lead to another host. If the API is on this
    /// machine, as at the end of a tunnel, it asks no proxy, for pictures neither.
    ///
    /// # Panics
    /// Never: what it is made of does not depend on input.
    #[must_use]
    pub fn http(&self) -> Client {
        let builder = Client::builder()
            .redirect(redirect::Policy::none())
            .timeout(REQUEST_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("image-pipeline-loadtest/", env!("CARGO_PKG_VERSION")));
        let is_here = self.is_local() || !self.resolve.is_empty() || Guard::is_here(&self.api);
        let builder = if is_here { builder.no_proxy() } else { builder };
        let builder = self.resolve.iter().fold(builder, |builder, Resolve { host, address }| {
            // Its port is taken where the URL has none.
            builder.resolve(host, *address)
        });
        builder.build().expect("the platform has certificates")
    }
}

fn checked(guard: &Guard, what: &str, url: &str) -> Result<Url, Failure> {
    guard.check(what, url).map_err(Failure::Usage)
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("cannot be read ({error})"))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("has another form ({error})"))
}

/// Not by clap: a variable that is set for the local stack is no reason to refuse --terraform-dir.
fn dir_of_environment() -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "the one variable that clap cannot read here")]
    let value = std::env::var_os("DEV_DIR");
    value.filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// This command is built inside the workspace that it tests.
fn default_dir() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).join(".dev")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(dir: &Path, change: impl Fn(&mut serde_json::Value)) {
        let mut endpoints = serde_json::json!({
            "api_url": "http://127.0.0.1:8080", "cdn_url": "http://127.0.0.1:8081", "sqs_url": "http://127.0.0.1:9324",
            "s3_url": "http://127.0.0.1:9000", "bedrock_url": "http://127.0.0.1:9325", "bucket": "b",
            "queue_url": "http://127.0.0.1:9324/0/q", "dead_letter_url": "http://127.0.0.1:9324/0/d",
            "admin_urls": ["http://127.0.0.1:9100"],
        });
        change(&mut endpoints);
        std::fs::write(dir.join("endpoints.json"), endpoints.to_string()).unwrap();
        std::fs::write(dir.join("secrets.json"), r#"{"api_key":"k","job_id_key":"j"}"#).unwrap();
    }

    fn args(dir: &Path) -> TargetArgs {
        TargetArgs { dir: Some(dir.to_owned()), ..TargetArgs::default() }
    }

    #[test]
    fn the_running_stack_is_found_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let error = args(dir.path()).discover().unwrap_err();
        assert!(matches!(&error, Failure::Usage(text) if text.contains("cargo dev up")), "{error}");
        stack(dir.path(), |_| ());
        let target = args(dir.path()).discover().unwrap();
        assert_eq!((target.api.as_str(), target.key().unwrap()), ("http://127.0.0.1:8080/", "k"));
    }

    #[test]
    fn an_endpoint_that_is_not_loopback_is_refused_wherever_it_comes_from() {
        let dir = tempfile::tempdir().unwrap();
        stack(dir.path(), |endpoints| endpoints["cdn_url"] = "http://pictures.example.com".into());
        assert!(args(dir.path()).discover().unwrap_err().to_string().contains("pictures.example.com"));
        stack(dir.path(), |_| ());
        let elsewhere = TargetArgs { api: Some("https://api.example.com".to_owned()), ..args(dir.path()) };
        let error = elsewhere.discover().unwrap_err().to_string();
        assert!(error.contains("--api") && error.contains("api.example.com"), "{error}");
    }
}
