//! What the peers run on: pinned packages of `PyPI` and npm below the folder of tools.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::BenchError;
use crate::venv;

const BOTO3: &str = "1.44.8";
const PILLOW: &str = "pillow==13.0.0";
const FASTAPI: &str = "0.165.0";
const FASTAPI_WITH: [&str; 5] =
    ["boto3==1.44.8", "httptools==0.9.0", "pydantic==2.14.4", "uvicorn==0.54.0", "uvloop==0.23.0"];
/// What an installation is made from, and what it is held against.
const NODE_FILES: [&str; 3] = ["package.json", "package-lock.json", "worker.js"];

/// Returns a Python that has boto3 and Pillow.
///
/// # Errors
/// When there is no Python, or the installation fails (it needs the network once).
pub(super) async fn python_worker(tools: &Path) -> Result<PathBuf, BenchError> {
    Ok(venv::install_with(&tools.join("venvs"), "boto3", BOTO3, &[PILLOW]).await?.join("bin/python"))
}

/// Returns a Python that has `FastAPI`, uvicorn with its fast parts, and boto3.
///
/// # Errors
/// When there is no Python, or the installation fails (it needs the network once).
pub(super) async fn fastapi(tools: &Path) -> Result<PathBuf, BenchError> {
    Ok(venv::install_with(&tools.join("venvs"), "fastapi", FASTAPI, &FASTAPI_WITH).await?.join("bin/python"))
}

/// Installs the Node worker's packages as its lock file has them, and returns the worker beside them.
///
/// # Errors
/// When there is no npm, or the installation fails (it needs the network once).
pub(super) async fn node_worker(tools: &Path, source: &Path) -> Result<PathBuf, BenchError> {
    let folder = |source| BenchError::Io { what: "the folder of the Node worker", source };
    let dir = tools.join("tools/peer-node-worker");
    std::fs::create_dir_all(&dir).map_err(folder)?;
    let dir = dir.canonicalize().map_err(folder)?;
    let lock = std::fs::read(source.join("package-lock.json")).map_err(folder)?;
    // npm writes this one when it has installed everything.
    let installed = dir.join("node_modules/.package-lock.json").is_file()
        && std::fs::read(dir.join("package-lock.json")).is_ok_and(|its| its == lock);
    for file in NODE_FILES {
        std::fs::copy(source.join(file), dir.join(file)).map_err(folder)?;
    }
    if !installed {
        let command = Command::new("npm")
            .args(["ci", "--omit=dev", "--no-fund", "--no-audit"])
            .current_dir(&dir)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output =
            command.await.map_err(|source| BenchError::Io { what: "npm (install Node 20 or later)", source })?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(BenchError::Http { what: "npm ci", reason: text });
        }
    }
    Ok(dir.join("worker.js"))
}
