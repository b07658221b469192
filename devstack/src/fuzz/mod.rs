//! `cargo dev fuzz`: hostile input for everything that reads what others wrote, for minutes, within a bound of memory.

mod corpus;
mod target;

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use thiserror::Error;
use tokio::process::Command;

pub use corpus::{Corpus, Recipe};
pub use target::Target;

/// Variable with the seconds that a target runs for, for [`time()`].
const SECONDS: &str = "FUZZ_SECONDS";
/// Variable with the bound of its address space, for [`Target::start`].
const MEMORY_MIB: &str = "FUZZ_MEMORY_MIB";
/// Variable with the file that the input under way is written to.
const LAST_INPUT: &str = "FUZZ_LAST_INPUT";
/// What a target prints when it has ended.
const SUMMARY: &str = "fuzz summary:";

/// What to fuzz, and for how long.
#[derive(Debug, Args)]
pub struct FuzzArgs {
    /// Targets; without one, all of them, one after another.
    #[arg(value_enum, value_name = "TARGET")]
    targets: Vec<TargetName>,
    /// Minutes for each target.
    #[arg(long, default_value_t = 10.0, value_name = "MINUTES", value_parser = minutes)]
    minutes: f64,
    /// Bound of a target's address space. One that wants more is ended, which is a finding.
    #[arg(long, default_value_t = 512, value_name = "MIB", value_parser = clap::value_parser!(u64).range(128..=16_384))]
    memory_mib: u64,
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| format!("'{text}' is not a number: give minutes"))?;
    if (0.01..=1440.0).contains(&minutes) {
        Ok(minutes)
    } else {
        Err(format!("{text} is out of range: give 0.01 to 1440"))
    }
}

/// Everything that reads what others wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum TargetName {
    /// Bodies of queue messages.
    MessageDecode,
    /// Answers of the model.
    AnswerParse,
    /// Pictures of the model.
    ImageDecode,
    /// Ids in paths, messages and records.
    JobIdParse,
    /// Bodies of `POST /v1/jobs` and `POST /v1/batches`.
    RequestBodies,
}

impl TargetName {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::MessageDecode, Self::AnswerParse, Self::ImageDecode, Self::JobIdParse, Self::RequestBodies];

    /// Returns the name of its test, of its folder in the corpus, and of its argument.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MessageDecode => "message_decode",
            Self::AnswerParse => "answer_parse",
            Self::ImageDecode => "image_decode",
            Self::JobIdParse => "job_id_parse",
            Self::RequestBodies => "request_bodies",
        }
    }

    /// Returns the package whose `tests/it/fuzz.rs` it is in.
    pub fn package(self) -> &'static str {
        match self {
            Self::RequestBodies => "api",
            Self::MessageDecode | Self::AnswerParse | Self::ImageDecode | Self::JobIdParse => "worker",
        }
    }
}

/// The run did not end well.
#[derive(Debug, Error)]
pub enum FuzzError {
    #[error("cargo cannot be started: {0}")]
    Start(std::io::Error),
    #[error("{path} cannot be made: {source}")]
    Folder { path: String, source: std::io::Error },
    #[error(
        "{target} broke down: see above. If its last input is not told there, it is {last}: put it into \
         {package}/tests/it/corpus/{target}/ and it will be tried by every test run"
    )]
    Broken { target: &'static str, package: &'static str, last: String },
    #[error("{0} ended without a summary: it did not run")]
    Silent(&'static str),
}

/// Fuzzes each target in turn, in a process of its own, and prints what it did.
///
/// # Errors
/// The first target that breaks down.
pub async fn fuzz(workspace: &Path, dir: &Path, args: &FuzzArgs) -> Result<(), FuzzError> {
    let folder = dir.join("fuzz");
    std::fs::create_dir_all(&folder)
        .map_err(|source| FuzzError::Folder { path: folder.display().to_string(), source })?;
    let targets = if args.targets.is_empty() { TargetName::ALL.to_vec() } else { args.targets.clone() };
    let mut rows = Vec::new();
    for target in targets {
        let (name, package, last) =
            (target.as_str(), target.package(), folder.join(format!("{}.last", target.as_str())));
        println!("\n==> {name} for {} min, within {} MiB", args.minutes, args.memory_mib);
        let started = Instant::now();
        let test = format!("fuzz::{name}");
        let cargo = ["test", "--release", "--locked", "--package", package, "--test", "it", "--"];
        let output = Command::new(env!("CARGO"))
            .args(cargo)
            .args(["--exact", &test, "--nocapture", "--test-threads=1"])
            .env(SECONDS, format!("{:.0}", (args.minutes * 60.0).ceil()))
            .env(MEMORY_MIB, args.memory_mib.to_string())
            .env(LAST_INPUT, &last)
            // One arena instead of one for each thread: what is not used of them counts as well.
            .env("MALLOC_ARENA_MAX", "1")
            .current_dir(workspace)
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(FuzzError::Start)?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            println!("{said}");
            return Err(FuzzError::Broken { target: name, package, last: last.display().to_string() });
        }
        let summary = said.lines().find_map(|line| line.split_once(SUMMARY)).ok_or(FuzzError::Silent(name))?.1;
        println!("   {}", summary.trim());
        rows.push(format!("| `{name}` | {:.1} |{summary} |", started.elapsed().as_secs_f64() / 60.0));
    }
    println!("\n| target | minutes | inputs, peak of resident memory |\n|---|--:|---|\n{}", rows.join("\n"));
    Ok(())
}

/// Returns how long a target is to run: seconds in a test run, longer when `cargo dev fuzz` says so.
pub fn time() -> Duration {
    number(SECONDS).map_or(SMOKE, Duration::from_secs)
}

/// Returns a variable of the command, as a number.
fn number(variable: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "handed from `cargo dev fuzz` to the test that it starts")]
    std::env::var(variable).ok()?.parse().ok()
}

/// Returns the file for the input under way.
fn last_input() -> Option<std::path::PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "as above")]
    std::env::var_os(LAST_INPUT).map(Into::into)
}

/// Time for a target in a test run.
const SMOKE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_a_test_with_a_corpus() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for target in TargetName::ALL {
            let folder = root.join(target.package()).join("tests/it");
            let source = std::fs::read_to_string(folder.join("fuzz.rs")).unwrap();
            assert!(source.contains(&format!("#[test]\nfn {}(", target.as_str())), "{target:?}");
            assert!(Corpus::open(&folder, target.as_str()).len() >= 4, "{target:?}");
            let spelled = target.to_possible_value().unwrap();
            assert_eq!(spelled.get_name(), target.as_str());
        }
    }
}
