//! `cargo dev terraform`: applies the configuration to emulators, plans again, runs the pipeline on it, destroys it.

mod drift;
mod emulator;
mod instance;
mod load;
mod pipeline;
mod program;
mod user_data;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::ProgressBar;
use serde_json::Value;
use thiserror::Error;

use crate::python_server::PythonServerError;
use drift::{Gaps, GapsError};
use load::Load;
use pipeline::{PipelineError, Site};
use program::Terraform;

pub use emulator::Emulator;
pub use program::TerraformError;

/// Variables without a default. Nothing is downloaded here, so the checksums are of nothing.
const VARIABLES: [&str; 7] = [
    "artifact_bucket_name=releases",
    "release_version=0.1.0",
    "api_sha256=0000000000000000000000000000000000000000000000000000000000000000",
    "worker_sha256=0000000000000000000000000000000000000000000000000000000000000000",
    "model_requests_per_minute=90",
    "alarm_emails=[\"ops@example.com\"]",
    "force_destroy=true",
];

/// What to apply, and where.
#[derive(Debug, Args)]
pub struct TerraformArgs {
    /// Apply to this emulator alone [default: to one after the other].
    #[arg(long, value_enum, value_name = "NAME")]
    emulator: Option<Emulator>,
    /// Use the binaries as they are.
    #[arg(long)]
    pub(crate) no_build: bool,
}

/// The configuration did not pass.
#[derive(Debug, Error)]
pub enum ProofError {
    #[error(transparent)]
    Terraform(#[from] TerraformError),
    #[error(transparent)]
    Emulator(#[from] PythonServerError),
    #[error(transparent)]
    Gaps(#[from] GapsError),
    #[error("a second plan on {emulator} differs where no gap is known:\n  {}\nplan: {plan}", differences.join("\n  "))]
    Drift { emulator: &'static str, differences: Vec<String>, plan: PathBuf },
    #[error("{list} lists differences that are gone: take them out:\n  {}", differences.join("\n  "))]
    Stale { list: PathBuf, differences: Vec<String> },
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    #[error("terraform destroy left {0} resources in the state")]
    Left(usize),
    #[error("a secret's value is in the state: {0}")]
    SecretInState(String),
}

/// Returns whether there is a Terraform to run this with, and the provider that the configuration in `folder` asks for.
pub async fn is_possible(folder: &Path) -> bool {
    program::initialises(folder).await
}

/// Applies the configuration of `workspace` to each emulator. Data goes below `dir`.
///
/// # Errors
/// The first thing that is not as it should be; what was started is stopped.
pub async fn prove(args: &TerraformArgs, workspace: &Path, dir: &Path, binaries: &Path) -> Result<(), ProofError> {
    let emulators = args.emulator.map_or_else(|| vec![Emulator::Ministack, Emulator::Moto], |one| vec![one]);
    for emulator in emulators {
        println!("\n==> {}", emulator.name());
        let server = progress(&format!("start {}", emulator.name()), emulator.server().start(dir, 0)).await?;
        let outcome = on(emulator, server.url(), workspace, dir, binaries).await;
        if let Err(error) = server.stop().await {
            tracing::warn!(%error, "the emulator could not be stopped");
        }
        outcome?;
    }
    Ok(())
}

async fn on(
    emulator: Emulator,
    endpoint: &str,
    workspace: &Path,
    dir: &Path,
    binaries: &Path,
) -> Result<(), ProofError> {
    let name = emulator.name();
    let lists = workspace.join("terraform/tests/emulators");
    let override_file = lists.join(format!("{name}_override.tf"));
    let folder = dir.join("terraform").join(name);
    let terraform = Terraform::copy(&workspace.join("terraform"), folder.clone(), &override_file, endpoint)?;
    let variables: Vec<_> = VARIABLES.iter().map(|variable| format!("-var={variable}")).collect();
    let with_variables = |args: &[&'static str]| -> Vec<String> {
        args.iter().map(|&arg| arg.to_owned()).chain(variables.iter().cloned()).collect()
    };
    let run = async |args: Vec<String>| terraform.run(&args.iter().map(String::as_str).collect::<Vec<_>>()).await;

    run(["init", "-input=false", "-no-color", "-lockfile=readonly"].map(str::to_owned).to_vec()).await?;
    run(with_variables(&["apply", "-input=false", "-no-color", "-auto-approve"])).await?;
    let state = terraform.json(&["show", "-json"]).await?;
    println!("    {} resources", count(&state));
    no_secrets(&state)?;

    let list = lists.join(format!("{name}.gaps"));
    let gaps = Gaps::read(&list)?;
    run(with_variables(&["plan", "-input=false", "-no-color", "-out=again.tfplan"])).await?;
    let compared = gaps.compare(&terraform.json(&["show", "-json", "again.tfplan"]).await?);
    println!("    second plan: {} known gaps of {name} ({})", compared.known.len(), list.display());
    if !compared.unknown.is_empty() {
        let plan = folder.join("plan.log");
        return Err(ProofError::Drift { emulator: name, differences: compared.unknown, plan });
    }
    if !compared.stale.is_empty() {
        return Err(ProofError::Stale { list, differences: compared.stale });
    }

    let site = Site { state: &state, endpoint, binaries, logs: dir.join("terraform/logs"), folder: &folder };
    if emulator.runs_the_pipeline() {
        let seen = progress("one job with the environment of the launch templates", pipeline::prove(&site)).await?;
        println!("    a picture of {} bytes from {}", seen.bytes, seen.url);
        println!("    cargo loadtest run --terraform-dir: {}", seen.load);
        println!("    cargo loadtest monitor --terraform-dir: {}", seen.monitor);
        println!("    the instance was taken: {}", seen.drained);
    } else {
        let seen = progress("the monitor", Load::new(&site).monitor(false)).await?;
        println!("    cargo loadtest monitor --terraform-dir: {seen}");
    }

    run(with_variables(&["destroy", "-input=false", "-no-color", "-auto-approve"])).await?;
    match count(&terraform.json(&["show", "-json"]).await?) {
        0 => Ok(()),
        left => Err(ProofError::Left(left)),
    }
}

fn resources(state: &Value) -> impl Iterator<Item = &Value> {
    state["values"]["root_module"]["resources"].as_array().into_iter().flatten()
}

fn count(state: &Value) -> usize {
    resources(state).filter(|resource| resource["mode"] == "managed").count()
}

/// Write-only arguments leave nothing behind.
fn no_secrets(state: &Value) -> Result<(), ProofError> {
    let versions = resources(state).filter(|resource| resource["type"] == "aws_secretsmanager_secret_version");
    for version in versions {
        let values = &version["values"];
        let empty = ["secret_string", "secret_string_wo", "secret_binary"]
            .iter()
            .all(|name| values[name].as_str().is_none_or(str::is_empty));
        if !empty {
            return Err(ProofError::SecretInState(version["address"].to_string()));
        }
    }
    Ok(())
}

/// Shows that something is under way, and for how long.
async fn progress<T>(what: &str, work: impl Future<Output = T>) -> T {
    let bar = ProgressBar::new_spinner().with_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    let started = Instant::now();
    let done = work.await;
    bar.finish_and_clear();
    tracing::debug!(what, seconds = started.elapsed().as_secs(), "done");
    done
}
