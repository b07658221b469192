//! `cargo dev`: the commands and what they do.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use axum::http::Uri;
use clap::{Args, Parser, Subcommand};
use service::settings::{LogFormat, ObserveSettings};
use service::{health, shutdown, telemetry};
use tokio::process::Command as Process;

use crate::alone;
use crate::bedrock::BedrockArgs;
use crate::bench::{BenchArgs, bench};
use crate::cdn::CdnArgs;
use crate::chaos::{self, ChaosArgs, ChaosError};
use crate::checks::{self, TestArgs};
use crate::containers::{self, ContainersArgs, ContainersError, DashboardArgs, Places};
use crate::fuzz::{FuzzArgs, fuzz};
use crate::mutations::{MutationsArgs, prove};
use crate::soak::{SoakArgs, soak};
use crate::stack::ports::loopback;
use crate::stack::provision::ProvisionArgs;
use crate::stack::{DataDir, PortArgs, Ports, STOP_GRACE, read_endpoints, read_secrets, watch};
use crate::submit::{SubmitArgs, submit};
use crate::terraform::{self, TerraformArgs};
use crate::traces::TracesArgs;
use crate::up::{UpArgs, up};

/// The whole system on this machine: no AWS account, no containers.
#[derive(Debug, Parser)]
#[command(name = "cargo dev", bin_name = "cargo dev", version, arg_required_else_help = true)]
pub struct Cli {
    /// Folder of all data [default: .dev in the workspace].
    #[arg(long, global = true, env = "DEV_DIR", value_name = "FOLDER")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Builds and starts everything; Ctrl-C stops it.
    Up(UpArgs),
    /// Makes one picture and saves it.
    Submit(SubmitArgs),
    /// Removes all data: queues, objects, logs, keys.
    Reset(ResetArgs),
    /// Measures CPU and memory in a stack of its own: a worker under full load, or a comparison.
    Bench(BenchArgs),
    /// Keeps a stack of its own under steady load and looks for growth of memory, open files and tasks.
    Soak(SoakArgs),
    /// Submits jobs while everything goes wrong, by a schedule with a seed, and proves that the guarantees were kept.
    Chaos(ChaosArgs),
    /// Applies the Terraform configuration to emulators of AWS, runs the pipeline on it, and destroys it.
    Terraform(TerraformArgs),
    /// Builds the container images, runs the pipeline in them with compose, breaks it, and takes everything away.
    Containers(ContainersArgs),
    /// Takes a picture of the dashboard while the containers are under load.
    Dashboard(DashboardArgs),
    /// Feeds hostile input to everything that reads what others wrote.
    Fuzz(FuzzArgs),
    /// Removes each protection in turn and shows that a test notices.
    Mutations(MutationsArgs),
    /// Runs every check: format, lints, documentation, tests, dependencies.
    Test(TestArgs),
    /// Starts SQS and S3 alone.
    Emulator(PortArgs),
    /// Starts the stand-in for Bedrock alone.
    Bedrock(BedrockArgs),
    /// Starts the stand-in for `CloudFront` alone, in front of the S3 that the AWS variables name.
    Cdn(CdnArgs),
    /// Makes queues and bucket in the SQS and S3 that the AWS variables name, and again if they are gone.
    Provision(ProvisionArgs),
    /// Starts a collector of traces alone: takes OTLP, and shows what it has as Jaeger's query API does.
    Traces(TracesArgs),
    /// Asks a URL and exits with 0 if it answers with success: a health check where there is no other program.
    Health(HealthArgs),
    /// Ends the stack's processes when the stack is gone.
    #[command(hide = true)]
    Watchdog,
}

#[derive(Debug, Args)]
struct ResetArgs {
    /// Remove installed tools as well.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
struct HealthArgs {
    /// What to ask, such as <http://127.0.0.1:9325/_standin/health>.
    #[arg(value_name = "URL", value_parser = http_url)]
    url: Uri,
}

fn http_url(text: &str) -> Result<Uri, String> {
    let expected = "expected http://HOST:PORT/PATH";
    let url: Uri = text.parse().map_err(|error| format!("{expected}: {error}"))?;
    if url.scheme_str() == Some("http") { Ok(url) } else { Err(expected.to_owned()) }
}

pub(crate) type Outcome = Result<ExitCode, Box<dyn Error>>;

/// Runs the command of the command line and returns the exit code.
pub fn run(cli: Cli) -> ExitCode {
    let dir = cli.dir.unwrap_or_else(|| workspace().join(".dev"));
    let outcome = match cli.command {
        Command::Watchdog => watch(std::io::stdin().lock(), STOP_GRACE).map(|()| ExitCode::SUCCESS).map_err(Into::into),
        Command::Reset(args) => reset(&dir, args.all),
        Command::Up(args) => block_on(up(&dir, args)),
        Command::Submit(args) => block_on(picture(&dir, args)),
        Command::Bench(args) => block_on(measure(&dir, args)),
        Command::Soak(args) => block_on(endure(&dir, args)),
        Command::Chaos(args) => block_on(withstand(&dir, args)),
        Command::Terraform(args) => block_on(deploy(&dir, args)),
        Command::Containers(args) => block_on(contain(&dir, args)),
        Command::Dashboard(args) => block_on(dashboard(&dir, args)),
        Command::Fuzz(args) => block_on(hostile(&dir, args)),
        Command::Mutations(args) => block_on(mutate(&dir, args)),
        Command::Test(args) => block_on(test(&dir, args)),
        Command::Provision(args) => block_on(alone::provision(args)),
        Command::Health(args) => Ok(health::report(&args.url)),
        Command::Emulator(ports) => block_on(alone::emulator(&dir, Ports::from(&ports))),
        Command::Bedrock(args) => block_on(alone::bedrock(args)),
        Command::Cdn(args) => block_on(alone::cdn(args)),
        Command::Traces(args) => block_on(alone::traces(args)),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

fn block_on(command: impl Future<Output = Outcome>) -> Outcome {
    tokio::runtime::Runtime::new()?.block_on(command)
}

async fn picture(dir: &Path, args: SubmitArgs) -> Outcome {
    let running = read_endpoints(dir).map(|endpoints| endpoints.api_url);
    let origin = args.api.clone().or(running).unwrap_or_else(|| "http://127.0.0.1:8080".to_owned());
    let key = match &args.key {
        Some(key) => key.clone(),
        None => read_secrets(dir)?
            .map(|secrets| secrets.api_key)
            .ok_or("there is no key yet: run `cargo dev up` first, or give one with --key")?,
    };
    let saved = submit(&args, &origin, &key).await?;
    println!("{}", saved.url);
    println!("saved {} ({} bytes) after {:.1} s", saved.path.display(), saved.bytes, saved.took.as_secs_f64());
    Ok(ExitCode::SUCCESS)
}

async fn measure(dir: &Path, args: BenchArgs) -> Outcome {
    let signal = shutdown::on_signal()?;
    init_logs()?;
    if !args.no_build && !build().await? {
        return Err("the build failed: see above".into());
    }
    let (workspace, binaries) = (workspace(), binaries_dir()?);
    let report = tokio::select! {
        report = bench(&args, dir, &binaries, &workspace) => report?,
        () = signal.cancelled() => return Err("interrupted: nothing was measured".into()),
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn endure(dir: &Path, args: SoakArgs) -> Outcome {
    let signal = shutdown::on_signal()?;
    init_logs()?;
    if !args.no_build && !build().await? {
        return Err("the build failed: see above".into());
    }
    let binaries = binaries_dir()?;
    let report = tokio::select! {
        report = soak(&args, dir, &binaries) => report?,
        () = signal.cancelled() => return Ok(ExitCode::FAILURE),
    };
    print!("{report}");
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn withstand(dir: &Path, args: ChaosArgs) -> Outcome {
    let signal = shutdown::on_signal()?;
    init_logs()?;
    if !args.no_build && !args.schedule_only && !build().await? {
        return Err("the build failed: see above".into());
    }
    let report = match chaos::chaos(&args, dir, &binaries_dir()?, &signal).await {
        Ok(Some(report)) => report,
        Ok(None) => return Ok(ExitCode::SUCCESS),
        Err(ChaosError::Interrupted) => return Ok(ExitCode::FAILURE),
        Err(error) => return Err(error.into()),
    };
    println!("\n{report}");
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)?;
    }
    if let Some(path) = &args.markdown {
        std::fs::write(path, report.markdown())?;
    }
    let is_complete = report.skipped().is_empty() || !checks::is_hosted_ci();
    Ok(if report.passed() && is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn reset(dir: &Path, all: bool) -> Outcome {
    if dir.exists() {
        DataDir::open_to_reset(dir)?.reset(all)?;
    }
    println!("{} is empty{}", dir.display(), if all { "" } else { " but for installed tools (--all removes them)" });
    Ok(ExitCode::SUCCESS)
}

async fn deploy(dir: &Path, args: TerraformArgs) -> Outcome {
    let signal = shutdown::on_signal()?;
    init_logs()?;
    // `loadtest` without a package, as its alias has it: docs/adr/0006.
    let with_loadtest = async || cargo("build --release --locked --bin loadtest".split(' ')).await;
    let is_built = args.no_build || (build().await? && with_loadtest().await?);
    if !is_built {
        return Err("the build failed: see above".into());
    }
    let (workspace, binaries) = (workspace(), binaries_dir()?);
    tokio::select! {
        proof = terraform::prove(&args, &workspace, dir, &binaries) => proof?,
        () = signal.cancelled() => return Ok(ExitCode::FAILURE),
    }
    Ok(ExitCode::SUCCESS)
}

async fn contain(dir: &Path, args: ContainersArgs) -> Outcome {
    let signal = shutdown::on_signal()?;
    init_logs()?;
    if args.needs_build() && !build().await? {
        return Err("the build failed: see above".into());
    }
    let (workspace, binaries) = (workspace(), binaries_dir()?);
    possible(containers::prove(&args, Places { workspace: &workspace, dir, binaries: &binaries }, &signal).await)
}

async fn dashboard(dir: &Path, args: DashboardArgs) -> Outcome {
    let signal = shutdown::on_signal()?;
    init_logs()?;
    if args.needs_build() && !build().await? {
        return Err("the build failed: see above".into());
    }
    let (workspace, binaries) = (workspace(), binaries_dir()?);
    possible(containers::picture(&args, Places { workspace: &workspace, dir, binaries: &binaries }, &signal).await)
}

/// Tells a machine that lacks something from images that are wrong.
fn possible(outcome: Result<(), ContainersError>) -> Outcome {
    match outcome {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if error.is_unavailable() => {
            eprintln!("not possible here: {error}");
            Ok(ExitCode::from(containers::EXIT_UNAVAILABLE))
        }
        Err(error) => Err(error.into()),
    }
}

async fn test(dir: &Path, args: TestArgs) -> Outcome {
    checks::run(&workspace(), &dir.join("tools"), &args).await?;
    Ok(ExitCode::SUCCESS)
}

async fn hostile(dir: &Path, args: FuzzArgs) -> Outcome {
    let (signal, workspace) = (shutdown::on_signal()?, workspace());
    tokio::select! {
        ended = fuzz(&workspace, dir, &args) => ended?,
        () = signal.cancelled() => return Ok(ExitCode::FAILURE),
    }
    Ok(ExitCode::SUCCESS)
}

async fn mutate(dir: &Path, args: MutationsArgs) -> Outcome {
    let (signal, workspace) = (shutdown::on_signal()?, workspace());
    tokio::select! {
        ended = prove(&workspace, dir, &args) => ended?,
        () = signal.cancelled() => return Ok(ExitCode::FAILURE),
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds what a stack starts.
pub(crate) async fn build() -> std::io::Result<bool> {
    let command = "build --release --locked --package devstack --package api --package worker --package portal --bins";
    cargo(command.split(' ')).await
}

/// Runs cargo in the workspace, with its output on ours. Returns whether it succeeded.
async fn cargo<I>(args: I) -> std::io::Result<bool>
where
    I: IntoIterator,
    I::Item: AsRef<std::ffi::OsStr>,
{
    let status = Process::new(env!("CARGO")).args(args).current_dir(workspace()).kill_on_drop(true).status().await?;
    Ok(status.success())
}

/// Our own lines are few; the embedded services only speak when something is wrong.
pub(crate) fn init_logs() -> Result<(), telemetry::TelemetryError> {
    telemetry::init_logs(&ObserveSettings {
        admin_addr: loopback(0),
        log_filter: "warn,devstack=info".to_owned(),
        log_format: LogFormat::Text,
        otel_exporter_otlp_endpoint: None,
        otel_exporter_otlp_protocol: String::new(),
    })
}

/// This command is built inside the workspace that it serves.
fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The other binaries are built beside this one.
pub(crate) fn binaries_dir() -> std::io::Result<PathBuf> {
    let mut path = std::env::current_exe()?;
    path.pop();
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_visible_command_says_what_it_does() {
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }
}
