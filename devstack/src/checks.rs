//! `cargo dev test`: every check of the repository, in the order of what fails fastest.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use clap::Args;
use thiserror::Error;
use tokio::process::Command;

use crate::{containers, terraform};

/// The release that `deny.toml` was written for.
const DENY: &str = "0.20.2";
/// An advisory database that does not come within this time will not come.
const ADVISORIES_TIMEOUT: Duration = Duration::from_secs(120);
/// Crates of the AWS SDK's legacy HTTP stack, as `cargo tree` prints them (docs/adr/0004).
const LEGACY: [&str; 4] = ["hyper v0.", "h2 v0.3", "rustls v0.21", "ring v0."];

/// What the simulation of the scaling reads.
const COMMITTED_PLAN: &str = "loadtest/plans/production.json";

/// What to run.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// Run the tests alone, without format, lints, dependency checks and documentation.
    #[arg(long)]
    tests_only: bool,
    /// Passed on to `cargo test`, after `--`.
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

/// A check that did not pass.
#[derive(Debug, Error)]
pub enum CheckError {
    #[error("{command} failed: see above")]
    Failed { command: String, code: Option<i32> },
    #[error("{command} cannot be started: {source}")]
    Start { command: String, source: std::io::Error },
    #[error("the legacy HTTP stack is back: {0}; `cargo tree --invert` tells who brings it (docs/adr/0004)")]
    Legacy(String),
    #[error(
        "{COMMITTED_PLAN} is not what terraform/ plans: make it again (docs/scaling.md, Plans) and run the simulation"
    )]
    OldPlan,
    #[error("not everything was checked ({0}), and a skipped check fails in hosted CI")]
    Skipped(String),
}

/// Runs everything in `workspace`. Tools are installed below `tools`.
///
/// # Errors
/// The first check that does not pass.
pub async fn run(workspace: &Path, tools: &Path, args: &TestArgs) -> Result<(), CheckError> {
    let cargo = |line: &str| step(workspace, env!("CARGO"), line.split(' ').map(str::to_owned).collect(), &[]);
    let mut skipped = Vec::new();
    if !args.tests_only {
        cargo("fmt --all --check").await?;
        no_legacy_stack(workspace).await?;
        cargo("clippy --release --locked --workspace --all-targets -- -D warnings").await?;
        let deny_warnings = [("RUSTDOCFLAGS", "-D warnings")];
        let doc = "doc --release --locked --workspace --no-deps --document-private-items";
        step(workspace, env!("CARGO"), doc.split(' ').map(str::to_owned).collect(), &deny_warnings).await?;
    }
    cargo("build --release --locked --workspace --bins").await?;
    let mut tests: Vec<String> =
        "test --release --locked --workspace --no-fail-fast".split(' ').map(str::to_owned).collect();
    if !args.args.is_empty() {
        tests.push("--".to_owned());
        tests.extend(args.args.iter().cloned());
    }
    let tests = step(workspace, env!("CARGO"), tests, &[]);
    if args.tests_only {
        tests.await?;
    } else {
        // Emulators are waited for more than computed on, and so is what recovers from a fault: this costs little time beside
        // the tests.
        let (tested, (deployed, survived)) =
            tokio::join!(tests, async { (deployment(workspace, tools).await, faults(workspace).await) });
        tested?;
        survived?;
        if !dependencies(workspace, tools).await? {
            skipped.push("advisories: their database cannot be reached from here");
        }
        if !deployed? {
            skipped.push("Terraform: it needs Terraform 1.11 or later, and its provider from the registry or a mirror");
        }
        if !images(workspace).await? {
            skipped
                .push("containers: they need an engine or root and dockerd, compose, and a base image or debootstrap");
        }
    }
    for check in &skipped {
        println!("\nSKIPPED: {check}. Hosted CI fails when this happens.\n");
    }
    if is_hosted_ci() && !skipped.is_empty() { Err(CheckError::Skipped(skipped.join("; "))) } else { Ok(()) }
}

/// Returns whether this is the hosted CI, where nothing may be skipped.
pub(crate) fn is_hosted_ci() -> bool {
    #[expect(clippy::disallowed_methods, reason = "a variable of the hosted CI, not a setting")]
    std::env::var_os("GITHUB_ACTIONS").is_some()
}

/// The Terraform configuration, by itself and applied to emulators. Returns whether there is a Terraform, with
/// its provider, to check it. Runs beside the tests: what it prints is kept until each step has ended, and it does not run
/// cargo, which would wait for the other one.
async fn deployment(workspace: &Path, tools: &Path) -> Result<bool, CheckError> {
    if !terraform::is_possible(&workspace.join("terraform")).await {
        return Ok(false);
    }
    let check = workspace.join("terraform/tests/check");
    beside(workspace, &check, &[]).await?;
    simulated_plan(workspace, tools).await?;
    let this = std::env::current_exe().map_err(|source| CheckError::Start { command: "dev".to_owned(), source })?;
    beside(workspace, &this, &["terraform", "--no-build"]).await?;
    Ok(true)
}

/// A short run of the fault suite, the same one every time: docs/reliability.md has the long ones.
async fn faults(workspace: &Path) -> Result<(), CheckError> {
    let this = std::env::current_exe().map_err(|source| CheckError::Start { command: "dev".to_owned(), source })?;
    beside(workspace, &this, &["chaos", "--minutes", "5", "--seed", "1", "--no-build"]).await
}

/// The simulation of the scaling is worth as much as its plan is that of the configuration.
async fn simulated_plan(workspace: &Path, tools: &Path) -> Result<(), CheckError> {
    let (made, reduced) = (tools.join("plan.json"), tools.join("plan-reduced.json"));
    let (made_by, script) = ("loadtest/plans/plan", workspace.join("loadtest/plans/plan"));
    let start = |source| CheckError::Start { command: made_by.to_owned(), source };
    std::fs::create_dir_all(tools).map_err(start)?;
    let output = File::create(&made).map_err(start)?;
    let planned = Command::new(script).stdout(output).kill_on_drop(true).status().await.map_err(start)?;
    if !planned.success() {
        return Err(CheckError::Failed { command: made_by.to_owned(), code: planned.code() });
    }
    let [made, to] = [&made, &reduced].map(|path| path.to_string_lossy());
    let this = std::env::current_exe().map_err(start)?;
    let loadtest = this.with_file_name("loadtest");
    beside(workspace, &loadtest, &["simulate", "--plan", &made, "--write-plan", &to]).await?;
    let committed = std::fs::read(workspace.join(COMMITTED_PLAN)).map_err(start)?;
    if std::fs::read(&reduced).map_err(start)? == committed { Ok(()) } else { Err(CheckError::OldPlan) }
}

/// The images and what runs in them. Returns whether there is an engine, or can be one, to run them with.
async fn images(workspace: &Path) -> Result<bool, CheckError> {
    let dev = "run --release --locked --package devstack --bin dev -- containers --no-build";
    let run = step(workspace, env!("CARGO"), dev.split(' ').map(str::to_owned).collect(), &[]).await;
    match run {
        Err(CheckError::Failed { code, .. }) if code == Some(i32::from(containers::EXIT_UNAVAILABLE)) => Ok(false),
        run => run.map(|()| true),
    }
}

/// Runs one step beside others, and prints what it has said when it has ended.
async fn beside(workspace: &Path, program: &Path, args: &[&str]) -> Result<(), CheckError> {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let command = format!("{name} {}", args.join(" "));
    println!("\n==> {command}, beside the tests: what it says follows when it has ended");
    let started = Instant::now();
    let output = Command::new(program)
        .args(args)
        .current_dir(workspace)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|source| CheckError::Start { command: command.clone(), source })?;
    let said = [output.stdout, output.stderr].concat();
    println!("\n==> {command}\n{}\n    {} s", String::from_utf8_lossy(&said), started.elapsed().as_secs());
    if output.status.success() { Ok(()) } else { Err(CheckError::Failed { command, code: output.status.code() }) }
}

async fn step(workspace: &Path, program: &str, args: Vec<String>, env: &[(&str, &str)]) -> Result<(), CheckError> {
    let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
    let command = format!("{name} {}", args.join(" "));
    println!("\n==> {command}");
    let started = Instant::now();
    let status = Command::new(program)
        .args(args)
        .envs(env.iter().copied())
        .current_dir(workspace)
        .kill_on_drop(true)
        .status()
        .await
        .map_err(|source| CheckError::Start { command: command.clone(), source })?;
    println!("    {} s", started.elapsed().as_secs());
    if status.success() { Ok(()) } else { Err(CheckError::Failed { command, code: status.code() }) }
}

async fn no_legacy_stack(workspace: &Path) -> Result<(), CheckError> {
    let command = "cargo tree";
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--workspace", "--prefix", "none", "--target", "all"])
        .current_dir(workspace)
        .output()
        .await
        .map_err(|source| CheckError::Start { command: command.to_owned(), source })?;
    if !output.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        return Err(CheckError::Failed { command: command.to_owned(), code: output.status.code() });
    }
    let tree = String::from_utf8_lossy(&output.stdout);
    match tree.lines().find(|line| LEGACY.iter().any(|legacy| line.starts_with(legacy))) {
        Some(found) => Err(CheckError::Legacy(found.to_owned())),
        None => Ok(()),
    }
}

/// Licences, bans, sources and advisories. Returns whether the advisories could be checked.
async fn dependencies(workspace: &Path, tools: &Path) -> Result<bool, CheckError> {
    let root = tools.join(format!("cargo-deny-{DENY}"));
    let deny = root.join("bin/cargo-deny");
    if !deny.is_file() {
        let root = root.to_string_lossy().into_owned();
        let install = [
            "install",
            "cargo-deny",
            "--version",
            DENY,
            "--locked",
            "--debug",
            "--no-default-features",
            "--root",
            &root,
        ];
        step(workspace, env!("CARGO"), install.map(str::to_owned).to_vec(), &[]).await?;
    }
    let deny = deny.to_string_lossy();
    let offline = "--workspace --locked check licenses bans sources";
    step(workspace, &deny, offline.split(' ').map(str::to_owned).collect(), &[]).await?;
    advisories(workspace, &deny).await
}

async fn advisories(workspace: &Path, deny: &str) -> Result<bool, CheckError> {
    let command = "cargo-deny --workspace check advisories";
    println!("\n==> {command}");
    let failed = |source| CheckError::Start { command: command.to_owned(), source };
    let running = Command::new(deny)
        .args(["--workspace", "check", "advisories"])
        .current_dir(workspace)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let Ok(output) = tokio::time::timeout(ADVISORIES_TIMEOUT, running).await else { return Ok(false) };
    let output = output.map_err(failed)?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Ok(true);
    }
    // It has one exit code for a finding and for a database that it could not fetch.
    if said.contains("failed to fetch advisory database") {
        return Ok(false);
    }
    eprintln!("{said}");
    Err(CheckError::Failed { command: command.to_owned(), code: output.status.code() })
}
