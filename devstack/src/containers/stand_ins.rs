//! Images that are not ours: the published ones where they can be pulled, and stand-ins made from packages where not.

use std::path::Path;
use std::time::Duration;

use super::engine::Engine;
use super::program::{Program, on_path};
use super::{ContainersError, unusable, wrong};
use crate::{ministack, venv};

pub(super) const PUBLIC_BASE: &str = "debian:bookworm-slim";
/// The release of [`PUBLIC_BASE`], and where it comes from.
const SUITE: &str = "bookworm";
const MIRROR: &str = "http://deb.debian.org/debian";
/// The Python of [`SUITE`].
const PYTHON: &str = "3.11";
/// What names of images that are made here begin with.
pub(super) const LOCAL: &str = "image-pipeline/test-";
const LOCAL_BASE: &str = "image-pipeline/test-base:bookworm";
const LOCAL_EMULATOR: &str = "image-pipeline/test-emulator";
const LOCAL_PROMETHEUS: &str = "image-pipeline/test-prometheus:bookworm";
const LOCAL_JAEGER: &str = "image-pipeline/test-traces";
/// A registry that cannot be reached says so at once, or never.
const PULL_TIMEOUT: Duration = Duration::from_secs(180);

/// Returns the default of a variable of the compose file.
pub(super) fn default_of(workspace: &Path, variable: &str) -> Result<String, ContainersError> {
    let path = workspace.join("docker-compose.yml");
    let compose = std::fs::read_to_string(&path).map_err(unusable(&path))?;
    let found = compose.split_once(&format!("${{{variable}:-")).and_then(|(_, rest)| rest.split_once('}'));
    let (default, _) = found.ok_or_else(|| wrong("docker-compose.yml", format!("it has no {variable}")))?;
    Ok(default.to_owned())
}

/// Returns whether the image is there, or can be had from its registry.
pub(super) async fn can_be_had(docker: &Program, image: &str) -> bool {
    if docker.works(&["image", "inspect", image]).await {
        return true;
    }
    tokio::time::timeout(PULL_TIMEOUT, docker.works(&["pull", image])).await.unwrap_or(false)
}

/// Returns the public base, or one that debootstrap makes from the same release.
pub(super) async fn base(engine: &Engine, dir: &Path, folder: &Path) -> Result<String, ContainersError> {
    let docker = engine.docker();
    if can_be_had(docker, PUBLIC_BASE).await {
        return Ok(PUBLIC_BASE.to_owned());
    }
    if docker.works(&["image", "inspect", LOCAL_BASE]).await {
        return Ok(LOCAL_BASE.to_owned());
    }
    let missing = || {
        let reason = format!("{PUBLIC_BASE} cannot be pulled, and debootstrap cannot make it: install debootstrap");
        ContainersError::Unavailable(reason)
    };
    let debootstrap = on_path("debootstrap").into_iter().next().ok_or_else(missing)?;
    let tools = dir.join("tools");
    std::fs::create_dir_all(&tools).map_err(unusable(&tools))?;
    let archive = tools.join(format!("debian-{SUITE}.tar"));
    if !archive.exists() {
        let root = folder.join("root");
        // What a run that was killed has left is not complete.
        if root.exists() {
            std::fs::remove_dir_all(&root).map_err(unusable(&root))?;
        }
        let root_text = root.display().to_string();
        let debootstrap = Program::new(debootstrap, folder, folder);
        let args = ["--variant=minbase", SUITE, root_text.as_str(), MIRROR];
        // Without root, or without a network, nothing is wrong with the images.
        debootstrap.run(&args).await.map_err(|error| ContainersError::Unavailable(error.to_string()))?;
        let unfinished = archive.with_extension("new");
        let tar = Program::new("tar", folder, folder);
        let cache = ["--exclude=./var/cache/apt/*", "--exclude=./var/lib/apt/lists/*"];
        let to = unfinished.display().to_string();
        tar.run(&["-C", root_text.as_str(), cache[0], cache[1], "-cf", to.as_str(), "."]).await?;
        std::fs::remove_dir_all(&root).map_err(unusable(&root))?;
        std::fs::rename(&unfinished, &archive).map_err(unusable(&archive))?;
    }
    // As the public one has it.
    docker.run(&["import", "--change", "CMD [\"bash\"]", &archive.display().to_string(), LOCAL_BASE]).await?;
    Ok(LOCAL_BASE.to_owned())
}

/// Returns the published emulator, or one from `PyPI`, in the release that the compose file names.
pub(super) async fn emulator(
    engine: &Engine,
    dir: &Path,
    folder: &Path,
    base: &str,
) -> Result<String, ContainersError> {
    let docker = engine.docker();
    let public = format!("ministackorg/ministack:{}", ministack::VERSION);
    if can_be_had(docker, &public).await {
        return Ok(public);
    }
    let image = format!("{LOCAL_EMULATOR}:{}", ministack::VERSION);
    if docker.works(&["image", "inspect", &image]).await {
        return Ok(image);
    }
    let context = folder.join("emulator");
    let packages = context.join("site-packages");
    if packages.exists() {
        std::fs::remove_dir_all(&packages).map_err(unusable(&packages))?;
    }
    std::fs::create_dir_all(&context).map_err(unusable(&context))?;
    // Unpacked here and for the Python of the base, so that the container needs neither pip nor what pip needs.
    let venv = venv::install(&dir.join("venvs"), "ministack", ministack::VERSION).await?;
    let pip = Program::new(venv.join("bin/python"), folder, folder);
    let requirement = format!("ministack=={}", ministack::VERSION);
    let target = packages.display().to_string();
    let machine = format!("manylinux2014_{}", std::env::consts::ARCH);
    let common = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"];
    let of_base = ["--implementation=cp", "--python-version", PYTHON, "--platform", &machine, "--target", &target];
    pip.run(&[&common[..], &of_base[..], &[requirement.as_str()]].concat()).await?;
    let dockerfile = context.join("Dockerfile");
    std::fs::write(&dockerfile, include_str!("emulator.dockerfile")).map_err(unusable(&dockerfile))?;
    let base = format!("BASE={base}");
    docker.run(&["build", "--tag", &image, "--build-arg", &base, &context.display().to_string()]).await?;
    Ok(image)
}

/// Returns the Prometheus of the compose file, or Debian's.
pub(super) async fn prometheus(
    engine: &Engine,
    workspace: &Path,
    folder: &Path,
    base: &str,
) -> Result<String, ContainersError> {
    let docker = engine.docker();
    let public = default_of(workspace, "PROMETHEUS_IMAGE")?;
    if can_be_had(docker, &public).await {
        return Ok(public);
    }
    println!("    {public} cannot be pulled: Debian's Prometheus, which is older, takes its place");
    if !docker.works(&["image", "inspect", LOCAL_PROMETHEUS]).await {
        build(docker, &folder.join("prometheus"), include_str!("prometheus.dockerfile"), base, LOCAL_PROMETHEUS)
            .await?;
    }
    Ok(LOCAL_PROMETHEUS.to_owned())
}

/// Returns the Grafana of the compose file; None where it cannot be pulled, for no package has it.
pub(super) async fn grafana(engine: &Engine, workspace: &Path) -> Result<Option<String>, ContainersError> {
    let public = default_of(workspace, "GRAFANA_IMAGE")?;
    Ok(can_be_had(engine.docker(), &public).await.then_some(public))
}

/// Who takes the place of Jaeger.
#[derive(Debug)]
pub(super) enum Jaeger {
    Published(String),
    /// `dev traces`, in an image that can be made when that of `dev` has been built.
    Ours,
}

impl Jaeger {
    pub(super) async fn find(engine: &Engine, workspace: &Path) -> Result<Self, ContainersError> {
        let public = default_of(workspace, "JAEGER_IMAGE")?;
        if can_be_had(engine.docker(), &public).await {
            return Ok(Self::Published(public));
        }
        println!("    {public} cannot be pulled: `dev traces`, which answers as it does, takes its place");
        Ok(Self::Ours)
    }

    pub(super) fn image(&self) -> &str {
        match self {
            Self::Published(image) => image,
            Self::Ours => LOCAL_JAEGER,
        }
    }

    /// Makes the image, if there is one to make, from that of `dev`.
    pub(super) async fn make(&self, engine: &Engine, folder: &Path, devstack: &str) -> Result<(), ContainersError> {
        match self {
            Self::Published(_) => Ok(()),
            Self::Ours => {
                let dockerfile = include_str!("traces.dockerfile");
                build(engine.docker(), &folder.join("traces"), dockerfile, devstack, LOCAL_JAEGER).await
            }
        }
    }
}

/// Builds a stand-in from a Dockerfile that needs nothing else.
async fn build(
    docker: &Program,
    context: &Path,
    dockerfile: &str,
    base: &str,
    tag: &str,
) -> Result<(), ContainersError> {
    std::fs::create_dir_all(context).map_err(unusable(context))?;
    let path = context.join("Dockerfile");
    std::fs::write(&path, dockerfile).map_err(unusable(&path))?;
    let base = format!("BASE={base}");
    docker.run(&["build", "--tag", tag, "--build-arg", &base, &context.display().to_string()]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_images_are_those_of_the_compose_file() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        assert_eq!(default_of(workspace, "BASE_IMAGE").unwrap(), PUBLIC_BASE);
        for (variable, name) in [("PROMETHEUS_IMAGE", "prom/prometheus:"), ("GRAFANA_IMAGE", "grafana/grafana:")] {
            assert!(default_of(workspace, variable).unwrap().starts_with(name), "{variable}");
        }
        assert!(default_of(workspace, "NO_SUCH_IMAGE").unwrap_err().to_string().contains("NO_SUCH_IMAGE"));
    }
}
