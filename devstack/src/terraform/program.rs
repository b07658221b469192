//! `Terraform`: the program, on a copy of the configuration with an emulator's override.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use thiserror::Error;
use tokio::process::Command;

/// What the state is written with: for the emulator alone.
const CREDENTIALS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")];
/// Variables of a developer's own AWS account or proxy: nothing here may reach it.
const FOREIGN: [&str; 8] = [
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ROLE_ARN",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "TF_CLI_ARGS",
];

/// Terraform did not do what was asked.
#[derive(Debug, Error)]
pub enum TerraformError {
    #[error(
        "terraform is missing: install Terraform 1.11 or later (https://developer.hashicorp.com/terraform/install)"
    )]
    Missing,
    #[error("{path} cannot be used: {source}")]
    Folder { path: PathBuf, source: io::Error },
    #[error("terraform {step} failed: {said}\n(the whole output is in {log})")]
    Failed { step: String, said: String, log: PathBuf },
    #[error("terraform {step} printed what cannot be read: {reason}")]
    Unreadable { step: String, reason: String },
}

/// A folder in which the program is run.
#[derive(Debug)]
pub(super) struct Terraform {
    folder: PathBuf,
    endpoint: String,
}

impl Terraform {
    /// Copies the configuration in `source` to `folder`, which is emptied first, and `override_file` into it.
    pub(super) fn copy(
        source: &Path,
        folder: PathBuf,
        override_file: &Path,
        endpoint: &str,
    ) -> Result<Self, TerraformError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| TerraformError::Folder { path, source }
        };
        if folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(failed(&folder))?;
        }
        std::fs::create_dir_all(folder.join("templates")).map_err(failed(&folder))?;
        for part in ["", "templates"] {
            for entry in std::fs::read_dir(source.join(part)).map_err(failed(source))? {
                let path = entry.map_err(failed(source))?.path();
                // Neither a developer's state nor variables.
                let wanted = match path.extension().and_then(|extension| extension.to_str()) {
                    Some("tfstate" | "tfvars" | "backup" | "tfplan") => false,
                    _ => path.file_name().is_some_and(|name| name != "backend.tf"),
                };
                if path.is_file() && wanted {
                    let to = folder.join(part).join(path.file_name().unwrap_or_default());
                    std::fs::copy(&path, &to).map_err(failed(&to))?;
                }
            }
        }
        let to = folder.join("emulator_override.tf");
        std::fs::copy(override_file, &to).map_err(failed(override_file))?;
        Ok(Self { folder, endpoint: endpoint.to_owned() })
    }

    /// Runs one command to its end and prints how long it took.
    pub(super) async fn run(&self, args: &[&str]) -> Result<(), TerraformError> {
        let started = Instant::now();
        let step = args[0];
        let log = self.folder.join(format!("{step}.log"));
        let output = File::create(&log).map_err(|source| TerraformError::Folder { path: log.clone(), source })?;
        let errors = output.try_clone().map_err(|source| TerraformError::Folder { path: log.clone(), source })?;
        let mut child = self.command(args).stdout(output).stderr(errors).process_group(0).spawn().map_err(missing)?;
        let mut group = Group(child.id());
        let status = super::progress(&format!("terraform {step}"), child.wait()).await.map_err(missing)?;
        group.0 = None;
        if !status.success() {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            return Err(TerraformError::Failed { step: step.to_owned(), said: errors_in(&text), log });
        }
        println!("    terraform {step}: {} s", started.elapsed().as_secs());
        Ok(())
    }

    /// Runs one command and returns the JSON that it prints.
    pub(super) async fn json(&self, args: &[&str]) -> Result<Value, TerraformError> {
        let step = args.join(" ");
        let output = self.command(args).stderr(Stdio::inherit()).output().await.map_err(missing)?;
        serde_json::from_slice(&output.stdout)
            .map_err(|error| TerraformError::Unreadable { step, reason: error.to_string() })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("terraform");
        for name in FOREIGN {
            command.env_remove(name);
        }
        command
            .args(args)
            .current_dir(&self.folder)
            .env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("TF_IN_AUTOMATION", "true")
            .envs(CREDENTIALS)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }
}

/// Kills a process group when it is dropped: a killed Terraform alone would leave its plugins behind.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let Some(group) = self.0.and_then(|pid| i32::try_from(pid).ok()) else { return };
        if let Err(error) = killpg(Pid::from_raw(group), Signal::SIGKILL) {
            tracing::debug!(%error, "terraform was gone already");
        }
    }
}

/// Returns whether there is a Terraform that can get the provider; prints why it cannot.
pub(super) async fn initialises(folder: &Path) -> bool {
    let mut command = Command::new("terraform");
    command.args(["init", "-input=false", "-no-color", "-backend=false", "-lockfile=readonly"]);
    match command.current_dir(folder).stdin(Stdio::null()).kill_on_drop(true).output().await {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            eprintln!("{}", String::from_utf8_lossy(&output.stderr));
            false
        }
        Err(error) => {
            eprintln!("terraform: {error}");
            false
        }
    }
}

fn missing(error: io::Error) -> TerraformError {
    if error.kind() == io::ErrorKind::NotFound {
        TerraformError::Missing
    } else {
        TerraformError::Folder { path: "terraform".into(), source: error }
    }
}

/// Returns the paragraphs that tell an error.
fn errors_in(output: &str) -> String {
    let from = output.find("Error:").unwrap_or(output.len().saturating_sub(2000));
    output.get(from..).unwrap_or(output).chars().take(6000).collect()
}
