//! `Images`: what the file is run with: public images or stand-ins for them, and ours, which are built and looked at.

use std::path::{Path, PathBuf};

use super::compose::{Project, text};
use super::crates::{Compiled, Crates};
use super::engine::Engine;
use super::program::Program;
use super::stand_ins::{self, Jaeger};
use super::{ContainersArgs, ContainersError, Places, is_hosted, step, unusable, wrong};

const LOCAL_BINARIES: &str = "image-pipeline/test-binaries";
/// Ours, by the variable that compose takes the name from.
const OURS: [(&str, &str); 3] = [
    ("API_IMAGE", "image-pipeline/api:test"),
    ("WORKER_IMAGE", "image-pipeline/worker:test"),
    ("DEVSTACK_IMAGE", "image-pipeline/devstack:test"),
];
const BINARIES: [&str; 3] = ["image-api", "image-worker", "dev"];
/// What an image of ours may add to its base.
const MAX_BYTES_BESIDE_BASE: u64 = 60_000_000;

#[derive(Debug)]
pub(super) struct Images {
    base: String,
    emulator: String,
    prometheus: String,
    /// None: it cannot be had here.
    grafana: Option<String>,
    jaeger: Jaeger,
    /// None: they are compiled in the build.
    binaries: Option<String>,
    rust: Option<String>,
    /// One of the tools that are installed here.
    python: PathBuf,
    /// Scratch space.
    folder: PathBuf,
}

impl Images {
    /// Gets or makes everything that is not ours.
    pub(super) async fn prepare(
        engine: &Engine,
        args: &ContainersArgs,
        places: Places<'_>,
        folder: &Path,
    ) -> Result<Self, ContainersError> {
        let Places { workspace, dir, binaries } = places;
        let base = step("the base image", stand_ins::base(engine, dir, folder)).await?;
        let emulator = step("the emulator's image", stand_ins::emulator(engine, dir, folder, &base)).await?;
        let prometheus =
            step("the image of Prometheus", stand_ins::prometheus(engine, workspace, folder, &base)).await?;
        let grafana = step("the image of Grafana", stand_ins::grafana(engine, workspace)).await?;
        let jaeger = step("the image of Jaeger", Jaeger::find(engine, workspace)).await?;
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
        for (public, image) in
            [(stand_ins::PUBLIC_BASE, &base), ("the emulator", &emulator), ("Prometheus", &prometheus)]
        {
            if image.starts_with(stand_ins::LOCAL) && is_hosted() {
                return Err(wrong(public, format!("its image cannot be pulled; {image} takes its place elsewhere")));
            }
        }
        let (rust, folder) = (args.rust_image.clone(), folder.to_owned());
        let python = PathBuf::from("python3");
        Ok(Self { base, emulator, prometheus, grafana, jaeger, binaries, rust, python, folder })
    }

    /// Returns what compose is told of them.
    pub(super) fn variables(&self) -> Vec<(String, String)> {
        let mut variables = vec![("BASE_IMAGE", self.base.clone()), ("EMULATOR_IMAGE", self.emulator.clone())];
        variables.push(("PROMETHEUS_IMAGE", self.prometheus.clone()));
        variables.push(("JAEGER_IMAGE", self.jaeger.image().to_owned()));
        variables.extend(self.grafana.clone().map(|image| ("GRAFANA_IMAGE", image)));
        variables.extend(self.binaries.clone().map(|image| ("BINARIES", image)));
        variables.extend(self.rust.clone().map(|image| ("RUST_IMAGE", image)));
        variables.extend(OURS.map(|(name, image)| (name, image.to_owned())));
        variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Returns whether there is a Grafana to start.
    pub(super) fn has_grafana(&self) -> bool {
        self.grafana.is_some()
    }

    /// Builds ours, and checks their size and what they say of themselves.
    pub(super) async fn build(
        &self,
        project: &Project,
        engine: &Engine,
        workspace: &Path,
    ) -> Result<(), ContainersError> {
        let said = project.build().await?;
        if self.binaries.is_none() {
            let compiled = Compiled::of(&said);
            println!("    compiled: {} dependencies, {} crates of ours", compiled.cooked, compiled.ours);
            if !compiled.again.is_empty() {
                return Err(wrong("dependencies compiled with our crates", compiled.again.join(", ")));
            }
        }
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
                self.lists_its_crates(engine, name, image, workspace).await?;
            }
        }
        let [.., (_, devstack)] = OURS;
        self.jaeger.make(engine, &self.folder, devstack).await
    }

    /// The list of crates is in the binary, for whoever looks for known faults in what runs.
    async fn lists_its_crates(
        &self,
        engine: &Engine,
        name: &str,
        image: &str,
        workspace: &Path,
    ) -> Result<(), ContainersError> {
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
        let crates = Crates::of(&to, &self.python, &self.folder).await;
        std::fs::remove_file(&to).map_err(unusable(&to))?;
        let lock = workspace.join("Cargo.lock");
        let lock = std::fs::read_to_string(&lock).map_err(unusable(&lock))?;
        let crates = crates.map_err(|reason| wrong(image, reason))?;
        let unlocked = crates.not_in(&lock);
        if !unlocked.is_empty() {
            return Err(wrong(
                image,
                format!("its list of crates has what Cargo.lock has not: {}", unlocked.join(", ")),
            ));
        }
        println!("    {image}: its list of crates has {}, each as Cargo.lock has it", crates.count());
        Ok(())
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
