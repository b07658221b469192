//! `Crates`: what a binary says that it is made of; and what a build says that it compiled.

use std::path::Path;

use serde::Deserialize;

use super::program::Program;

/// Where `cargo auditable` puts its list, as JSON in a zlib stream.
const SECTION: &str = ".dep-v0";
const INFLATE: &str = "import sys, zlib; print(zlib.decompress(open(sys.argv[1], 'rb').read()).decode())";

/// What went into one binary, as `cargo auditable` wrote it down: its bill of materials.
#[derive(Debug, Deserialize)]
pub(super) struct Crates {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
}

impl Crates {
    /// Reads the list of a binary: a section of its own, compressed. `python` is any Python 3.
    pub(super) async fn of(binary: &Path, python: &Path, folder: &Path) -> Result<Self, String> {
        let unlisted = |error: &dyn std::fmt::Display| format!("its binary carries no list of crates: {error}");
        let section = folder.join("crates.zlib");
        let dumped = format!("{SECTION}={}", section.display());
        let objcopy = Program::new("objcopy", folder, folder);
        objcopy
            .run(&["--dump-section", &dumped, &binary.display().to_string(), "/dev/null"])
            .await
            .map_err(|error| unlisted(&error))?;
        // It says nothing, and succeeds, where there is no such section.
        if !section.is_file() {
            return Err(unlisted(&format!("there is no section {SECTION}")));
        }
        let python = Program::new(python, folder, folder);
        let json = python.run(&["-c", INFLATE, &section.display().to_string()]).await;
        let crates: Self =
            serde_json::from_str(&json.map_err(|error| unlisted(&error))?).map_err(|error| unlisted(&error))?;
        if crates.packages.iter().any(|package| package.name == "service") && crates.count() > 50 {
            return Ok(crates);
        }
        Err(format!("its list of crates has {} and cannot be whole", crates.count()))
    }

    pub(super) fn count(&self) -> usize {
        self.packages.len()
    }

    /// Returns every crate of the list that the lock file does not have in this version.
    pub(super) fn not_in(&self, lock: &str) -> Vec<String> {
        let missing = |package: &&Package| {
            !lock.contains(&format!("name = \"{}\"\nversion = \"{}\"\n", package.name, package.version))
        };
        self.packages.iter().filter(missing).map(|package| format!("{} {}", package.name, package.version)).collect()
    }
}

/// What the stage `build` of the Dockerfile compiled, from what `BuildKit` said in plain text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Compiled {
    /// Dependencies, in the layer that is for them.
    pub(super) cooked: usize,
    /// Crates of ours, in the layer of the binaries.
    pub(super) ours: usize,
    /// Dependencies in the layer of the binaries, where each change of a source would compile them again.
    pub(super) again: Vec<String>,
}

impl Compiled {
    pub(super) fn of(said: &str) -> Self {
        let mut compiled = Self::default();
        let (mut cook, mut build) = (None, None);
        for line in said.lines() {
            let Some((number, text)) = line.split_once(' ') else { continue };
            // `#12 [build 3/5] RUN cargo chef cook`, and what it says after that: `#12 4.2    Compiling http v1.4.0`.
            match text {
                text if text.contains("RUN cargo chef cook") => cook = Some(number),
                text if text.contains("RUN cargo auditable build") => build = Some(number),
                _ => {}
            }
            let Some((_, package)) = text.split_once("Compiling ") else { continue };
            let is_ours = package.contains("(/");
            if Some(number) == cook {
                compiled.cooked += usize::from(!is_ours);
            } else if Some(number) == build && is_ours {
                compiled.ours += 1;
            } else if Some(number) == build {
                compiled.again.push(package.trim().to_owned());
            }
        }
        compiled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_of_another_version_is_not_in_the_lock_file() {
        let lock = "[[package]]\nname = \"http\"\nversion = \"1.4.0\"\nsource = \"s\"\n";
        let listed = |json: &str| serde_json::from_str::<Crates>(json).unwrap().not_in(lock);
        assert!(listed(r#"{"packages":[{"name":"http","version":"1.4.0","source":"crates.io"}]}"#).is_empty());
        assert_eq!(listed(r#"{"packages":[{"name":"http","version":"1.4.1","source":"crates.io"}]}"#), ["http 1.4.1"]);
    }

    #[tokio::test]
    async fn a_program_that_was_built_without_the_list_has_none() {
        let (this, folder) = (std::env::current_exe().unwrap(), tempfile::tempdir().unwrap());
        let refused = Crates::of(&this, Path::new("python3"), folder.path()).await.unwrap_err();
        assert!(refused.contains("carries no list") && refused.contains(SECTION), "{refused}");
    }

    #[test]
    fn what_is_compiled_is_told_apart_by_its_layer() {
        let cold = "#9 [build 2/5] RUN cargo chef cook --profile dist\n#9 1.0    Compiling http v1.4.0\n\
                    #9 1.2    Compiling api v0.0.1 (/src/api)\n#11 [build 5/5] RUN cargo auditable build\n\
                    #11 2.0    Compiling api v0.1.0 (/src/api)\n#8 0.1    Compiling cargo-chef v0.1.78\n";
        assert_eq!(Compiled::of(cold), Compiled { cooked: 1, ours: 1, again: vec![] });
        let warm = "#9 [build 2/5] RUN cargo chef cook --profile dist\n#9 CACHED\n#11 [build 5/5] RUN cargo auditable build\n\
                    #11 2.0    Compiling job v0.1.0 (/src/job)\n#11 2.1    Compiling http v1.4.0\n";
        assert_eq!(Compiled::of(warm), Compiled { cooked: 0, ours: 1, again: vec!["http v1.4.0".into()] });
    }
}
