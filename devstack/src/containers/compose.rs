//! `Compose`: whichever of the two generations there is; `Project`: our file, run by one of them under a name of its own.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde_json::Value;

use super::engine::Engine;
use super::images::Images;
use super::program::{Program, on_path};
use super::{ContainersError, unusable, wrong};
use crate::stack::ports::{chosen, loopback};

/// Not the name that a developer's own stack has: that of the folder.
const PROJECT: &str = "image-pipeline-containers-test";
/// Services that run without a profile, as the file has them.
pub(super) const SERVICES: [&str; 7] = ["emulator", "provision", "bedrock", "cdn", "api", "worker", "reconciler"];
/// Services that a profile adds. Grafana is not among them: there may be none.
const OF_PROFILES: [&str; 2] = ["prometheus", "jaeger"];
const PROFILES: (&str, &str) = ("COMPOSE_PROFILES", "metrics,traces");
/// A container that takes longer to become healthy on two busy cores never will.
const HEALTHY_TIMEOUT: Duration = Duration::from_secs(120);
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Which compose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Generation {
    /// `docker compose`
    Plugin,
    /// `docker-compose`
    Standalone,
}

#[derive(Debug, Clone)]
pub(super) struct Compose {
    generation: Generation,
    program: Program,
}

impl Generation {
    /// As it is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plugin => "docker compose",
            Self::Standalone => "docker-compose",
        }
    }
}

impl Compose {
    /// Returns every one that there is, the newer generation first.
    pub(super) async fn find(engine: &Engine, workspace: &Path, logs: &Path) -> Vec<Self> {
        let docker = engine.docker().path();
        let plugin = Program::new(docker, workspace, logs).prefixed(["compose"]);
        let mut found = vec![(Generation::Plugin, plugin)];
        if let Some(path) = on_path("docker-compose").into_iter().next() {
            found.push((Generation::Standalone, Program::new(path, workspace, logs)));
        }
        let mut all = Vec::new();
        for (generation, program) in found {
            // The older one builds with the first `docker` of the PATH, and that one shall be ours.
            let beside = docker.parent().unwrap_or(docker).display().to_string();
            #[expect(clippy::disallowed_methods, reason = "where programs are, and no setting of this one")]
            let path = std::env::var("PATH").unwrap_or_default();
            let mut program = program
                .env("PATH", format!("{beside}:{path}"))
                .env("DOCKER_BUILDKIT", "1")
                .env("COMPOSE_DOCKER_CLI_BUILD", "1");
            if let Some(host) = engine.host() {
                program = program.env("DOCKER_HOST", host);
            }
            if program.works(&["version"]).await {
                all.push(Self { generation, program });
            }
        }
        all
    }

    pub(super) fn generation(&self) -> Generation {
        self.generation
    }

    pub(super) fn name(&self) -> &'static str {
        self.generation.name()
    }

    /// Checks the file as a fresh clone has it, with every profile. A warning is a fault: it tells of a variable without
    /// a default, or of something that this generation does not know.
    pub(super) async fn check(&self, folder: &Path) -> Result<(), ContainersError> {
        // Instead of a developer's own .env.
        let nothing = folder.join("nothing.env");
        std::fs::write(&nothing, "").map_err(unusable(&nothing))?;
        let nothing = nothing.display().to_string();
        let file = self.program.clone().env(PROFILES.0, PROFILES.1);
        let args = ["-f", "docker-compose.yml", "--env-file", &nothing, "config", "--services"];
        let (services, complaints) = file.run_and_listen(&args).await?;
        if !complaints.is_empty() {
            return Err(wrong(format!("{} config", self.name()), complaints));
        }
        for service in SERVICES.into_iter().chain(OF_PROFILES).chain(["grafana"]) {
            if !services.lines().any(|line| line.trim() == service) {
                return Err(wrong(format!("{} config", self.name()), format!("there is no service {service}")));
            }
        }
        Ok(())
    }
}

/// Our file with the images and ports of a test.
#[derive(Debug)]
pub(super) struct Project {
    compose: Program,
    docker: Program,
    logs: PathBuf,
    pub(super) api: SocketAddr,
    pub(super) cdn: SocketAddr,
    pub(super) bedrock: SocketAddr,
    pub(super) prometheus: SocketAddr,
    pub(super) jaeger: SocketAddr,
    /// None: there is no image of it here.
    pub(super) grafana: Option<SocketAddr>,
}

impl Project {
    /// `settings` are variables of the file besides images and ports.
    pub(super) fn new(
        compose: Compose,
        engine: &Engine,
        images: &Images,
        settings: &[(&str, &str)],
        folder: &Path,
    ) -> Result<Self, ContainersError> {
        let mut variables = images.variables();
        let mut port = |variable: &str| -> Result<SocketAddr, ContainersError> {
            let port = chosen(0).map_err(unusable(folder))?;
            variables.push((variable.to_owned(), port.to_string()));
            Ok(loopback(port))
        };
        let (api, cdn, bedrock) = (port("API_PORT")?, port("CDN_PORT")?, port("BEDROCK_PORT")?);
        let (prometheus, grafana, jaeger) = (port("PROMETHEUS_PORT")?, port("GRAFANA_PORT")?, port("JAEGER_PORT")?);
        port("EMULATOR_PORT")?;
        variables.push(("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), "http://jaeger:4318".to_owned()));
        variables.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let env_file = folder.join("variables.env");
        let text: String = variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        std::fs::write(&env_file, text).map_err(unusable(&env_file))?;
        let env_file = env_file.display().to_string();
        let args = ["-f", "docker-compose.yml", "--env-file", &env_file, "-p", PROJECT];
        Ok(Self {
            compose: compose.program.env(PROFILES.0, PROFILES.1).prefixed(args),
            docker: engine.docker().clone(),
            logs: folder.to_owned(),
            api,
            cdn,
            bedrock,
            prometheus,
            jaeger,
            grafana: images.has_grafana().then_some(grafana),
        })
    }

    /// Builds every image of the file, and returns what the builder said of it.
    pub(super) async fn build(&self) -> Result<String, ContainersError> {
        let (printed, said) = self.compose.clone().env("BUILDKIT_PROGRESS", "plain").run_and_listen(&["build"]).await?;
        Ok(format!("{printed}\n{said}"))
    }

    /// Brings the file up with this many workers, and waits until everything is healthy.
    pub(super) async fn up(&self, workers: usize) -> Result<(), ContainersError> {
        let scale = format!("worker={workers}");
        let grafana = self.grafana.map(|_| "grafana");
        let services: Vec<&str> = SERVICES.into_iter().chain(OF_PROFILES).chain(grafana).collect();
        self.compose.run(&[&["up", "-d", "--no-build", "--scale", &scale][..], &services].concat()).await?;
        let deadline = Instant::now() + HEALTHY_TIMEOUT;
        loop {
            let states = self.states().await?;
            let healthy = states.iter().filter(|(_, state)| state == "healthy").count();
            // Jaeger's image has nothing to check its health with; whoever needs it asks it.
            let expected = services.len() - 2 + workers;
            if healthy == expected && states.len() == expected {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(wrong("not every container became healthy", format!("{states:?}")));
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Returns the running containers with their health.
    async fn states(&self) -> Result<Vec<(String, String)>, ContainersError> {
        let mut states = Vec::new();
        for id in self.containers(None).await? {
            let template = "{{.Name}} {{.State.Health.Status}}";
            // It may have ended since it was listed.
            let Ok(state) = self.docker.run(&["inspect", "--type", "container", "-f", template, &id]).await else {
                continue;
            };
            if let Some((name, health)) = state.split_once(' ') {
                states.push((name.to_owned(), health.to_owned()));
            }
        }
        Ok(states)
    }

    /// Returns the ids of the running containers, of one service or of all.
    pub(super) async fn containers(&self, service: Option<&str>) -> Result<Vec<String>, ContainersError> {
        let of_project = format!("label=com.docker.compose.project={PROJECT}");
        let mut args = vec!["ps", "-q", "--no-trunc", "--filter", &of_project];
        let of_service = service.map(|service| format!("label=com.docker.compose.service={service}"));
        if let Some(of_service) = &of_service {
            args.extend(["--filter", of_service]);
        }
        Ok(self.docker.run(&args).await?.lines().map(str::to_owned).collect())
    }

    /// Returns where the containers of a service have their metrics, in the network of the project.
    pub(super) async fn admin_addresses(&self, service: &str) -> Result<BTreeSet<String>, ContainersError> {
        let mut addresses = BTreeSet::new();
        for id in self.containers(Some(service)).await? {
            let template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}:9100";
            addresses.insert(self.docker.run(&["inspect", "--type", "container", "-f", template, &id]).await?);
        }
        Ok(addresses)
    }

    /// Restarts one service, as a person would.
    pub(super) async fn restart(&self, service: &str) -> Result<(), ContainersError> {
        self.compose.run(&["restart", service]).await?;
        Ok(())
    }

    /// Takes everything away: containers, networks, volumes.
    pub(super) async fn remove(&self) -> Result<(), ContainersError> {
        self.compose.run(&["down", "--volumes", "--remove-orphans"]).await?;
        Ok(())
    }

    /// Returns what there still is of the project.
    pub(super) async fn left(&self) -> Result<Vec<String>, ContainersError> {
        let of_project = format!("label=com.docker.compose.project={PROJECT}");
        let mut left = Vec::new();
        for list in [&["ps", "-a"][..], &["network", "ls"], &["volume", "ls"]] {
            let args = [list, &["-q", "--filter", of_project.as_str()]].concat();
            let found = self.docker.run(&args).await?;
            left.extend(found.lines().map(|line| format!("{} {line}", list[0])));
        }
        Ok(left)
    }

    /// Writes down what the containers said, for whoever looks for the reason of a failure.
    pub(super) async fn keep_logs(&self) {
        let said = self.compose.run(&["logs", "--no-color"]).await.unwrap_or_else(|error| error.to_string());
        let path = self.logs.join("containers.log");
        if let Err(error) = std::fs::write(&path, said) {
            tracing::warn!(%error, path = %path.display(), "the logs of the containers cannot be written");
        }
    }
}

/// Returns a field of what `docker inspect` printed, as text.
pub(super) fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}
