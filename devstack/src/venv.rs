//! Tools from `PyPI`, pinned, each in a private virtual environment.

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use thiserror::Error;
use tokio::process::Command;

const LOCK_EVERY: Duration = Duration::from_millis(200);

/// A tool could not be installed.
#[derive(Debug, Error)]
pub enum VenvError {
    #[error("python3 is missing ({0}): install Python 3.10 or later with its venv module")]
    NoPython(io::Error),
    #[error("{step} failed: {output}")]
    Step { step: String, output: String },
    #[error("{path} cannot be used: {source}")]
    Folder { path: PathBuf, source: io::Error },
}

/// Installs `package` in exactly `version` below `venvs`, unless it is there, and returns the environment's folder.
///
/// The package may have extras in brackets. Callers in parallel, in this process or another, wait for the first.
///
/// # Errors
/// When there is no Python, or the installation fails (it needs the network once).
pub async fn install(venvs: &Path, package: &str, version: &str) -> Result<PathBuf, VenvError> {
    install_with(venvs, package, version, &[]).await
}

/// As [`install`], in an environment of its own with further requirements, each pinned: `name==version`.
///
/// # Errors
/// When there is no Python, or the installation fails (it needs the network once).
pub async fn install_with(venvs: &Path, package: &str, version: &str, further: &[&str]) -> Result<PathBuf, VenvError> {
    let unusable = |source| VenvError::Folder { path: venvs.to_owned(), source };
    std::fs::create_dir_all(venvs).map_err(unusable)?;
    let venvs = venvs.canonicalize().map_err(unusable)?;
    // Extras are in brackets, and no part of a folder's name.
    let name = package.split('[').next().unwrap_or(package);
    let further_names: String =
        further.iter().map(|requirement| format!("+{}", requirement.replace("==", "-"))).collect();
    let venv = venvs.join(format!("{name}-{version}{further_names}"));
    let complete = venv.join("complete");
    let lock = File::create(venvs.join(format!("{name}.lock"))).map_err(unusable)?;
    loop {
        match lock.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_EVERY).await,
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
    }
    if complete.exists() {
        return Ok(venv);
    }
    if venv.exists() {
        std::fs::remove_dir_all(&venv).map_err(unusable)?;
    }
    run("python3 -m venv", "python3", [OsStr::new("-m"), OsStr::new("venv"), venv.as_os_str()]).await?;
    let requirement = format!("{package}=={version}");
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", &requirement];
    let pip = pip.iter().chain(further).map(OsStr::new);
    run(&format!("pip install {requirement}"), venv.join("bin/python"), pip).await?;
    std::fs::write(&complete, version).map_err(unusable)?;
    Ok(venv)
}

async fn run<'a>(
    step: &str,
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = &'a OsStr>,
) -> Result<(), VenvError> {
    let command = Command::new(program).args(args).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = command.await.map_err(VenvError::NoPython)?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(VenvError::Step { step: step.to_owned(), output: String::from_utf8_lossy(&text).trim().to_owned() })
}
