//! `Images`: what the file is run with: public images where they can be had, stand-ins for them where not, and ours.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::compose::{Project, text};
use super::engine::Engine;
use super::program::{Program, on_path};
use super::{ContainersArgs, ContainersError, step, unusable, wrong};
use crate::{ministack, venv};

const PUBLIC_BASE: &str = "debian:bookworm-slim";
/// The release of [`PUBLIC_BASE`], and where it comes from.
const SUITE: &str = "bookworm";
const MIRROR: &str = "http://deb.debian.org/debian";
/// The Python of [`SUITE`].
const PYTHON: &str = "3.11";
const LOCAL_BASE: &str = "image-pipeline/test-base:bookworm";
const LOCAL_EMULATOR: &str = "image-pipeline/test-emulator";
const LOCAL_BINARIES: &str = "image-pipeline/test-binaries";
/// Ours, by the variable that compose takes the name from.
const OURS: [(&str, &str); 3] = [
    ("API_IMAGE", "image-pipeline/api:test"),
    ("WORKER_IMAGE", "image-pipeline/worker:test"),
    ("DEVSTACK_IMAGE", "image-pipeline/devstack:test"),
];
const BINARIES: [&str; 3] = ["image-api", "image-worker", "dev"];
/// A registry that cannot be reached says so at once, or never.
const PULL_TIMEOUT: Duration = Duration::from_secs(180);
/// What an image of ours may add to its base.
const MAX_BYTES_BESIDE_BASE: u64 = 60_000_000;
/// Where `cargo auditable` puts the list of crates.
const AUDITABLE: &[u8] = b".dep-v0";

#[derive(Debug)]
pub(super) struct Images {
    base: String,
    emulator: String,
    /// None: they are compiled in the build.
    binaries: Option<String>,
    rust: Option<String>,
    /// Scratch space.
    folder: PathBuf,
}

impl Images {
    /// Gets or makes everything that is not ours.
    pub(super) async fn prepare(
        engine: &Engine,
        args: &ContainersArgs,
        workspace: &Path,
        dir: &Path,
        folder: &Path,
        binaries: &Path,
    ) -> Result<Self, ContainersError> {
        let base = step("the base image", base(engine, dir, folder)).await?;
        let emulator = step("the emulator's image", emulator(engine, dir, folder, &base)).await?;
        let binaries = match args.from_source {
            true => None,
            false => Some(step("the binaries of this workspace", host_binaries(engine, folder, binaries)).await?),
        };
        let binaries = match binaries {
            // A libc that is newer than the base's.
            Some(image) if !run_on(engine, &base, &image, workspace, folder).await? => {
                println!("    the binaries of this machine do not run on {base}: compiling in the build instead");
                None
            }
            binaries => binaries,
        };
        Ok(Self { base, emulator, binaries, rust: args.rust_image.clone(), folder: folder.to_owned() })
    }

    /// Returns what compose is told of them.
    pub(super) fn variables(&self) -> Vec<(String, String)> {
        let mut variables = vec![("BASE_IMAGE", self.base.clone()), ("EMULATOR_IMAGE", self.emulator.clone())];
        variables.extend(self.binaries.clone().map(|image| ("BINARIES", image)));
        variables.extend(self.rust.clone().map(|image| ("RUST_IMAGE", image)));
        variables.extend(OURS.map(|(name, image)| (name, image.to_owned())));
        variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Builds ours, and checks their size and what they say of themselves.
    pub(super) async fn build(&self, project: &Project, engine: &Engine) -> Result<(), ContainersError> {
        project.build().await?;
        let base = size(engine, &self.base).await?;
        for (name, image) in OURS {
            let beside = size(engine, image).await?.saturating_sub(base);
            println!("    {image}: {:.1} MB beside its base", to_mb(beside));
            if beside == 0 || beside > MAX_BYTES_BESIDE_BASE {
                return Err(wrong(format!("{image} adds {beside} bytes to its base"), "1 to 60 000 000 are allowed"));
            }
            let config = engine.inspect("image", image).await?;
            for label in ["title", "description", "version", "revision", "licenses"] {
                let label = format!("/Config/Labels/org.opencontainers.image.{label}");
                if text(&config, &label).is_empty() {
                    return Err(wrong(image, format!("its label {label} is missing")));
                }
            }
            if self.binaries.is_none() {
                self.lists_its_crates(engine, name, image).await?;
            }
        }
        Ok(())
    }

    /// The list of crates is in the binary, for whoever looks for known faults in what runs.
    async fn lists_its_crates(&self, engine: &Engine, name: &str, image: &str) -> Result<(), ContainersError> {
        let binary = match name {
            "API_IMAGE" => "image-api",
            "WORKER_IMAGE" => "image-worker",
            _ => "dev",
        };
        let docker = engine.docker();
        let container = docker.run(&["create", image]).await?;
        let to = self.folder.join(format!("{binary}.copy"));
        let from = format!("{container}:/usr/local/bin/{binary}");
        let copied = docker.run(&["cp", from.as_str(), &to.display().to_string()]).await;
        docker.run(&["rm", container.as_str()]).await?;
        copied?;
        let bytes = std::fs::read(&to).map_err(unusable(&to))?;
        std::fs::remove_file(&to).map_err(unusable(&to))?;
        if bytes.windows(AUDITABLE.len()).any(|window| window == AUDITABLE) {
            return Ok(());
        }
        Err(wrong(image, "its binary carries no list of crates: `cargo auditable` did not build it"))
    }

    /// Removes the tags of a test. Layers stay in the cache of the builder.
    pub(super) async fn remove(&self, engine: &Engine) {
        for (_, image) in OURS {
            if let Err(error) = engine.docker().run(&["image", "rm", image]).await {
                tracing::debug!(%error, "not removed");
            }
        }
    }
}

/// Bytes as a person reads them.
#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn to_mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

async fn size(engine: &Engine, image: &str) -> Result<u64, ContainersError> {
    let size = text(&engine.inspect("image", image).await?, "/Size");
    size.parse().map_err(|_| wrong(image, format!("its size is {size:?}")))
}

/// Returns whether the image is there, or can be had from its registry.
async fn can_be_had(docker: &Program, image: &str) -> bool {
    if docker.works(&["image", "inspect", image]).await {
        return true;
    }
    tokio::time::timeout(PULL_TIMEOUT, docker.works(&["pull", image])).await.unwrap_or(false)
}

/// Returns the public base, or one that debootstrap makes from the same release.
async fn base(engine: &Engine, dir: &Path, folder: &Path) -> Result<String, ContainersError> {
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
async fn emulator(engine: &Engine, dir: &Path, folder: &Path, base: &str) -> Result<String, ContainersError> {
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

/// Returns an image with the binaries of this workspace, without debug information.
async fn host_binaries(engine: &Engine, folder: &Path, binaries: &Path) -> Result<String, ContainersError> {
    let context = folder.join("binaries");
    std::fs::create_dir_all(&context).map_err(unusable(&context))?;
    let strip = Program::new("strip", folder, folder);
    for binary in BINARIES {
        let (from, to) = (binaries.join(binary), context.join(binary));
        strip.run(&["--strip-debug", "-o", &to.display().to_string(), &from.display().to_string()]).await?;
    }
    let dockerfile = context.join("Dockerfile");
    std::fs::write(&dockerfile, "FROM scratch\nCOPY image-api image-worker dev /out/\n")
        .map_err(unusable(&dockerfile))?;
    engine.docker().run(&["build", "--tag", LOCAL_BINARIES, &context.display().to_string()]).await?;
    Ok(LOCAL_BINARIES.to_owned())
}

/// Returns whether what was compiled on this machine runs on the base.
async fn run_on(
    engine: &Engine,
    base: &str,
    binaries: &str,
    workspace: &Path,
    folder: &Path,
) -> Result<bool, ContainersError> {
    let (base, binaries) = (format!("BASE={base}"), format!("BINARIES={binaries}"));
    let (context, id) = (workspace.display().to_string(), folder.join("probe.id").display().to_string());
    let docker = engine.docker();
    let of_probe = ["build", "--target", "api", "--iidfile", &id, "--build-arg", &base, "--build-arg", &binaries];
    docker.run(&[&of_probe[..], &[context.as_str()]].concat()).await?;
    let image = std::fs::read_to_string(&id).map_err(unusable(Path::new(&id)))?;
    Ok(docker.works(&["run", "--rm", image.trim(), "--version"]).await)
}
