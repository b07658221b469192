//! `cargo dev mutations`: takes each protection away in turn and shows that the test that is named for it fails.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use thiserror::Error;
use tokio::process::Command;

/// Folder of the patches, from the root of the workspace.
const PATCHES: &str = "devstack/mutations";

/// Which protections.
#[derive(Debug, Args)]
pub struct MutationsArgs {
    /// Names of patches in devstack/mutations, without their ending; without one, all of them.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// A patch that takes one protection away, and the test that has to notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutation {
    pub name: String,
    /// What is taken away.
    pub protection: String,
    /// File of the test, from the root of the workspace.
    pub test_file: String,
    pub test_name: String,
    path: PathBuf,
}

/// The proof did not succeed.
#[derive(Debug, Error)]
pub enum MutationError {
    #[error("{path}: {problem}")]
    Patch { path: String, problem: String },
    #[error("there is no patch '{0}' in {PATCHES}")]
    Unknown(String),
    #[error("{0} cannot be started: {1}")]
    Start(&'static str, std::io::Error),
    #[error("{name} does not apply: make it again for the code as it is\n{said}")]
    DoesNotApply { name: String, said: String },
    #[error(
        "{} is there: an earlier run was killed while a protection was away. Put it back with \
         `git apply --reverse {}` if the tree still lacks it, and remove the file", .0.display(), .0.display()
    )]
    LeftBehind(PathBuf),
    #[error("{0} does not compile without its protection: see above")]
    DoesNotCompile(String),
    #[error("{name}: {test} was not run")]
    NotRun { name: String, test: String },
    #[error("these protections can be taken away without their test noticing: {0}")]
    Survived(String),
}

impl Mutation {
    /// Reads every patch, sorted by name.
    ///
    /// # Errors
    /// When one lacks its head: the lines `Protection: ..` and `Test: PATH.rs::NAME` before the difference.
    pub fn all(workspace: &Path) -> Result<Vec<Self>, MutationError> {
        let folder = workspace.join(PATCHES);
        let failed = |path: &Path, problem: String| MutationError::Patch { path: path.display().to_string(), problem };
        let entries = std::fs::read_dir(&folder).map_err(|error| failed(&folder, error.to_string()))?;
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "patch"));
        paths.sort();
        paths.into_iter().map(|path| Self::read(&path).map_err(|problem| failed(&path, problem))).collect()
    }

    fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let head = |name: &str| {
            let line =
                text.lines().take_while(|line| !line.starts_with("--- ")).find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned()).ok_or_else(|| format!("no line '{name}' above the difference"))
        };
        let test = head("Test:")?;
        let (file, test_name) = test.split_once(".rs::").ok_or("Test: is not PATH.rs::NAME")?;
        Ok(Self {
            name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            protection: head("Protection:")?,
            test_file: format!("{file}.rs"),
            test_name: test_name.to_owned(),
            path: path.to_owned(),
        })
    }

    /// Returns the arguments of `cargo` that run its test.
    fn cargo(&self) -> Vec<String> {
        let package = self.test_file.split('/').next().unwrap_or_default();
        let binary = if self.test_file.contains("/tests/") { vec!["--test", "it"] } else { vec!["--lib"] };
        let head = ["test", "--release", "--locked", "--package", package];
        head.into_iter().chain(binary).chain(["--", &self.test_name]).map(str::to_owned).collect()
    }

    /// Asks git whether the patch applies to the tree as it is.
    ///
    /// # Errors
    /// With git's words when it does not.
    pub async fn applies(&self, workspace: &Path) -> Result<(), MutationError> {
        self.git(workspace, &["--check"]).await
    }

    async fn git(&self, workspace: &Path, args: &[&str]) -> Result<(), MutationError> {
        let output = Command::new("git")
            .arg("apply")
            .args(args)
            .arg(&self.path)
            .current_dir(workspace)
            .output()
            .await
            .map_err(|error| MutationError::Start("git", error))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(MutationError::DoesNotApply { name: self.name.clone(), said })
    }
}

/// The tree without a protection. Puts it back when dropped, so that Ctrl-C and a failure do as well.
struct Without<'a> {
    workspace: &'a Path,
    patch: &'a Path,
    note: PathBuf,
}

impl<'a> Without<'a> {
    async fn apply(workspace: &'a Path, mutation: &'a Mutation, note: PathBuf) -> Result<Self, MutationError> {
        mutation.applies(workspace).await?;
        std::fs::copy(&mutation.path, &note).map_err(|error| MutationError::Start("the note of the patch", error))?;
        let without = Self { workspace, patch: &mutation.path, note };
        mutation.git(workspace, &[]).await?;
        Ok(without)
    }
}

impl Drop for Without<'_> {
    fn drop(&mut self) {
        let reverse = std::process::Command::new("git")
            .args(["apply", "--reverse"])
            .arg(self.patch)
            .current_dir(self.workspace)
            .status();
        match reverse {
            Ok(status) if status.success() => drop(std::fs::remove_file(&self.note)),
            _ => eprintln!("the protection could not be put back: git apply --reverse {}", self.patch.display()),
        }
    }
}

/// Takes each protection away in this tree, runs its test, and puts it back.
///
/// # Errors
/// When a test does not notice, or a patch does not apply or compile.
pub async fn prove(workspace: &Path, dir: &Path, args: &MutationsArgs) -> Result<(), MutationError> {
    let all = Mutation::all(workspace)?;
    if let Some(unknown) = args.names.iter().find(|name| !all.iter().any(|mutation| mutation.name == **name)) {
        return Err(MutationError::Unknown(unknown.clone()));
    }
    let chosen = all.iter().filter(|mutation| args.names.is_empty() || args.names.contains(&mutation.name));
    std::fs::create_dir_all(dir).map_err(|error| MutationError::Start("the folder of the data", error))?;
    let note = dir.join("mutation-under-way.patch");
    if note.exists() {
        return Err(MutationError::LeftBehind(note));
    }
    let (mut rows, mut survivors) = (Vec::new(), Vec::new());
    for mutation in chosen {
        println!("\n==> without {}: {}", mutation.protection, mutation.test_name);
        let started = Instant::now();
        let is_noticed = {
            let _without = Without::apply(workspace, mutation, note.clone()).await?;
            test_fails(workspace, mutation).await?
        };
        println!("    {} after {} s", if is_noticed { "noticed" } else { "NOT NOTICED" }, started.elapsed().as_secs());
        let noticed = if is_noticed { "fails, as it must" } else { "**passes**" };
        rows.push(format!(
            "| {} | `{}::{}` | {noticed} |",
            mutation.protection, mutation.test_file, mutation.test_name
        ));
        if !is_noticed {
            survivors.push(mutation.name.clone());
        }
    }
    println!("\n| without | test | which |\n|---|---|---|\n{}", rows.join("\n"));
    if survivors.is_empty() { Ok(()) } else { Err(MutationError::Survived(survivors.join(", "))) }
}

/// Returns whether the test was run and failed.
async fn test_fails(workspace: &Path, mutation: &Mutation) -> Result<bool, MutationError> {
    let cargo = async |args: &[String]| {
        let mut command = Command::new(env!("CARGO"));
        let output = command.args(args).current_dir(workspace).kill_on_drop(true).output();
        output.await.map_err(|error| MutationError::Start("cargo", error))
    };
    let args = mutation.cargo();
    let (build, _) = args.split_at(args.len() - 2);
    let built = cargo(&[build, &["--no-run".to_owned()]].concat()).await?;
    if !built.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&built.stderr));
        return Err(MutationError::DoesNotCompile(mutation.name.clone()));
    }
    let tested = cargo(&args).await?;
    let said = String::from_utf8_lossy(&tested.stdout);
    if said.contains("running 0 tests") {
        return Err(MutationError::NotRun { name: mutation.name.clone(), test: mutation.test_name.clone() });
    }
    Ok(!tested.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_patch_applies_and_names_a_test_that_exists() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let all = Mutation::all(workspace).unwrap();
        assert!(all.len() >= 10, "only {} patches found", all.len());
        for mutation in all {
            mutation.applies(workspace).await.unwrap();
            let source = std::fs::read_to_string(workspace.join(&mutation.test_file)).unwrap();
            assert!(source.contains(&format!("fn {}(", mutation.test_name)), "{mutation:?}");
        }
    }

    #[test]
    fn a_test_is_run_where_it_is() {
        let of = |file: &str| Mutation {
            name: "n".into(),
            protection: "p".into(),
            test_file: file.into(),
            test_name: "t".into(),
            path: PathBuf::new(),
        };
        let told = |file: &str| of(file).cargo().join(" ");
        assert_eq!(told("api/tests/it/a.rs"), "test --release --locked --package api --test it -- t");
        assert_eq!(told("worker/src/lease.rs"), "test --release --locked --package worker --lib -- t");
    }
}
