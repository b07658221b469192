//! `House`: what `cargo dev up` starts, with a second portal in front of it that can be killed and started again.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::Browser;
use crate::support::{CODE, EMAIL, PASSWORD, eventually};

/// The stack and the portal.
pub struct House {
    pub origin: String,
    endpoints: Value,
    secrets: Value,
    http: reqwest::Client,
    dev: Child,
    portal: Option<Child>,
    dir: TempDir,
}

impl House {
    /// Starts everything with one worker. The model takes `latency`; the variables are for the worker.
    pub async fn start(latency: &str, worker_env: &[(&str, &str)]) -> Self {
        let dir = TempDir::new().unwrap();
        let dev = program("dev");
        let mut dev = Command::new(dev);
        dev.args(["--dir", &path(&dir, "stack"), "up", "--no-build", "--workers", "1", "--model-latency", latency])
            .envs(worker_env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        for port in ["API", "CDN", "SQS", "BEDROCK", "S3", "PORTAL", "ADMIN"] {
            dev.env(format!("DEV_{port}_PORT"), "0");
        }
        let mut dev = dev.spawn().unwrap();
        // The file appears when everything is ready.
        let read = |name: &str| serde_json::from_slice(&std::fs::read(dir.path().join("stack").join(name)).ok()?).ok();
        let endpoints: Value = eventually("cargo dev up", async || {
            assert!(dev.try_wait().unwrap().is_none(), "cargo dev up has ended");
            read("endpoints.json")
        })
        .await;
        let secrets: Value = read("secrets.json").unwrap();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
        let origin = format!("http://127.0.0.1:{}", free_port());
        let mut house = Self { origin, endpoints, secrets, http, dev, portal: None, dir };
        house.start_portal().await;
        house
    }

    /// Returns where a part of the stack is: `api_url`, `cdn_url`, ...
    fn endpoint(&self, name: &str) -> &str {
        self.endpoints[name].as_str().unwrap()
    }

    /// Starts the portal where it was before.
    pub async fn start_portal(&mut self) {
        let portal = Command::new(env!("CARGO_BIN_EXE_portal"))
            .arg("serve")
            .env_clear()
            .env("LISTEN_ADDR", self.origin.trim_start_matches("http://"))
            .env("DATABASE_URL", format!("sqlite://{}", path(&self.dir, "portal.db")))
            .env("API_URL", self.endpoint("api_url"))
            .env("API_KEY", self.secrets["api_key"].as_str().unwrap())
            .env("CLOUDFRONT_DOMAIN", self.endpoint("cdn_url"))
            .env("FIRST_TEACHER_EMAIL", EMAIL)
            .env("FIRST_TEACHER_PASSWORD", PASSWORD)
            .env("FIRST_CLASS_CODE", CODE)
            .env("LOG_FILTER", "warn")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.portal = Some(portal);
        let ready = format!("{}/ready", self.origin);
        eventually("the portal", async || {
            self.http.get(&ready).send().await.is_ok_and(|answer| answer.status().is_success()).then_some(())
        })
        .await;
    }

    /// Kills the portal: nothing is said, nothing is written.
    pub async fn kill_portal(&mut self) {
        self.portal.take().unwrap().kill().await.unwrap();
    }

    /// Has the API hang, or go on.
    pub fn signal_api(&self, signal: Signal) {
        let dev = self.dev.id().unwrap();
        let api = std::fs::read_dir("/proc").unwrap().find_map(|entry| {
            let folder = entry.ok()?.path();
            let pid: i32 = folder.file_name()?.to_str()?.parse().ok()?;
            let parent = std::fs::read_to_string(folder.join("stat")).ok()?;
            // After the name in parentheses: the state, then the parent.
            let parent: u32 = parent.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
            let is_api = std::fs::read_link(folder.join("exe")).is_ok_and(|exe| exe.ends_with("image-api"));
            (parent == dev && is_api).then_some(pid)
        });
        kill(Pid::from_raw(api.expect("the API runs")), signal).unwrap();
    }

    /// Returns how many pictures were paid for, in all or for one prompt.
    pub async fn paid(&self, prompt: Option<&str>) -> u64 {
        let url = format!("{}/_standin/ledger", self.endpoint("bedrock_url"));
        let ledger = self.http.get(url).send().await.unwrap().bytes().await.unwrap();
        let ledger: Value = serde_json::from_slice(&ledger).unwrap();
        let entry = prompt.map_or(&ledger["totals"], |prompt| &ledger["by_prompt"][prompt]);
        entry["paid"].as_u64().unwrap_or_default()
    }

    /// Returns the address, and the login, of the portal that `cargo dev up` itself has started.
    pub fn own_portal(&self) -> (&str, &str, &str) {
        let secret = |name: &str| self.secrets[name].as_str().unwrap();
        (self.endpoint("portal_url"), secret("portal_password"), secret("class_code"))
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    pub async fn sign_in_teacher(&self, browser: &Browser) {
        browser.open(&self.url("/sign-in")).await;
        browser.fill("#email", EMAIL).await;
        browser.fill("#password", PASSWORD).await;
        browser.click("[action='/sign-in/teacher'] button").await;
        browser.find("[action='/sign-out']").await;
    }

    pub async fn sign_in_student(&self, browser: &Browser, name: &str) {
        browser.open(&self.url("/sign-in")).await;
        browser.fill("#code", CODE).await;
        browser.fill("#name", name).await;
        browser.fill("#pin", "4711").await;
        browser.click("[action='/sign-in/student'] button").await;
        browser.find("[action='/sign-out']").await;
    }

    pub async fn sign_out(&self, browser: &Browser) {
        browser.click("[action='/sign-out'] button").await;
        browser.find("#email").await;
    }

    /// Ends everything, as Ctrl-C does.
    pub async fn stop(mut self) {
        self.kill_portal().await;
        kill(Pid::from_raw(i32::try_from(self.dev.id().unwrap()).unwrap()), Signal::SIGTERM).unwrap();
        let ended = self.dev.wait().await.unwrap();
        assert!(ended.success(), "cargo dev up ended with {ended}");
    }
}

/// A program of the profile that this test was built with: it is in target/PROFILE, the test in target/PROFILE/deps.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join(name);
    assert!(
        program.is_file(),
        "{} is missing: build it with `cargo build --release --workspace --bins`",
        program.display()
    );
    program
}

fn path(dir: &TempDir, name: &str) -> String {
    dir.path().join(name).display().to_string()
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
