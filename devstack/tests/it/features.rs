//! One set of features for every command, so that each dependency is compiled once (docs/adr/0006).

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Returns the packages that a selection compiles, each with its features.
///
/// Without what runs on the host only: procedural macros have sets of their own, and hide a difference.
fn compiled(selection: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--prefix", "none", "-f", "{p} {f}"])
        .args(selection.split(' '))
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // `(*)` marks a package whose dependencies were listed before.
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| line.trim_end_matches(" (*)").trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

#[test]
fn cargo_compiles_each_dependency_once() {
    let (of_one, of_all) =
        (compiled("-p devstack -e normal,no-proc-macro"), compiled("--workspace -e normal,dev,no-proc-macro"));
    assert!(of_one.len() > 200, "only {} packages found: the search is broken", of_one.len());
    let missing: Vec<&str> = of_one.difference(&of_all).map(String::as_str).collect();
    assert!(
        missing.is_empty(),
        "with these features in `-p devstack`, and others in `--workspace`; give devstack/Cargo.toml what is missing:\n{}\n",
        missing
            .iter()
            .flat_map(|line| {
                let package: String = line.split(' ').take(2).collect::<Vec<_>>().join(" ");
                let other = of_all.iter().filter(move |other| other.starts_with(&format!("{package} ")));
                std::iter::once(format!("  devstack:  {line}"))
                    .chain(other.map(|other| format!("  workspace: {other}")))
            })
            .collect::<Vec<_>>()
            .join("\n")
    );
}

#[test]
fn no_override_takes_the_strip_from_what_is_deployed() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("Cargo.toml");
    let manifest = std::fs::read_to_string(manifest).unwrap();
    let (_, dist) = manifest.split_once("[profile.dist]").unwrap();
    assert!(dist.split("\n[").next().unwrap().contains("strip = \"debuginfo\""));
    for package in ["api", "worker", "devstack", "loadtest"] {
        // Cargo 1.95 then passes no `-C strip` for its binary: image-api was 74 MB.
        assert!(!manifest.contains(&format!(".package.{package}]")), "an override of {package}");
    }
}
