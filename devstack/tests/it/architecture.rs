//! ARCHITECTURE.md and README.md against the sources, and the rules of the layout that no compiler checks.

use std::fs;
use std::path::{Path, PathBuf};

const CRATES: [&str; 9] =
    ["job", "service", "api", "webp-encoder", "worker", "devstack", "loadtest", "portal", "imagectl"];

/// Files that may name the AWS SDK's service crates, of the crates that are held to it.
const MAY_NAME_SDK: [&str; 13] = [
    "api/src/main.rs",
    "api/src/queue.rs",
    "api/src/store.rs",
    "api/src/webhooks/queue.rs",
    "imagectl/src/fleet.rs",
    "imagectl/src/objects.rs",
    "imagectl/src/queues.rs",
    "imagectl/src/site.rs",
    "worker/src/generate/",
    "worker/src/lifecycle.rs",
    "worker/src/main.rs",
    "worker/src/queue/",
    "worker/src/store.rs",
];

const MAX_LINES_OF_SOURCE: usize = 450;
const MAX_LINES_OF_ARCHITECTURE: usize = 80;

/// Words that say nothing about what a type does.
const EMPTY_SUFFIXES: [&str; 8] = ["Manager", "Processor", "Helper", "Helpers", "Util", "Utils", "Impl", "Wrapper"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the names in a folder of the workspace, sorted; folders end with a slash.
fn entries(folder: &str) -> Vec<String> {
    let name = |entry: fs::DirEntry| {
        let slash = if entry.file_type().unwrap().is_dir() { "/" } else { "" };
        format!("{}{slash}", entry.file_name().to_str().unwrap())
    };
    let mut names: Vec<String> = fs::read_dir(root().join(folder)).unwrap().map(|entry| name(entry.unwrap())).collect();
    names.sort();
    names
}

/// Returns every Rust file under a folder, as paths from the root of the workspace.
fn sources(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for name in entries(folder) {
        let path = format!("{folder}/{}", name.trim_end_matches('/'));
        if name.ends_with('/') {
            found.extend(sources(&path));
        } else if is_rust(&name) {
            found.push(path);
        }
    }
    found
}

fn is_rust(name: &str) -> bool {
    PathBuf::from(name).extension().is_some_and(|extension| extension == "rs")
}

/// Returns the sources of every crate, its tests among them.
fn all_sources() -> Vec<String> {
    let folders = CRATES.iter().flat_map(|name| [format!("{name}/src"), format!("{name}/tests")]);
    let found: Vec<String> =
        folders.filter(|folder| root().join(folder).is_dir()).flat_map(|folder| sources(&folder)).collect();
    assert!(found.len() > 100, "only {} sources found: the search is broken", found.len());
    found
}

fn assert_none(problems: &[String], what: &str) {
    assert!(problems.is_empty(), "{what}:\n{}\n", problems.join("\n"));
}

#[test]
fn every_file_opens_with_a_sentence_about_itself() {
    let silent: Vec<String> = CRATES
        .iter()
        .flat_map(|name| sources(&format!("{name}/src")))
        .filter(|path| !read(path).starts_with("//! "))
        .collect();
    assert_none(&silent, "these files need a `//!` line at their top");
}

#[test]
fn the_code_map_is_what_the_modules_say_of_themselves() {
    let architecture = read("ARCHITECTURE.md");
    let mut expected = Vec::new();
    for name in CRATES {
        let folder = format!("{name}/src");
        for entry in entries(&folder) {
            let path = format!("{folder}/{entry}");
            let file = match entry.as_str() {
                "lib.rs" | "snapshots/" => continue,
                folder if folder.ends_with('/') => format!("{path}mod.rs"),
                file if is_rust(file) => path.clone(),
                _ => continue,
            };
            let text = read(&file);
            let sentence = text.lines().next().unwrap_or_default().trim_start_matches("//! ");
            expected.push(format!("- `{path}` {sentence}"));
        }
    }
    let lines: Vec<&str> = architecture.lines().collect();
    let missing: Vec<String> = expected.iter().filter(|line| !lines.contains(&line.as_str())).cloned().collect();
    assert_none(&missing, "ARCHITECTURE.md lacks these lines of the code map");
    let is_of_the_map = |line: &&&str| CRATES.iter().any(|name| line.starts_with(&format!("- `{name}/src/")));
    let stale: Vec<String> = lines
        .iter()
        .filter(is_of_the_map)
        .filter(|line| !expected.iter().any(|expected| expected.as_str() == **line))
        .map(|line| (*line).to_owned())
        .collect();
    assert_none(&stale, "ARCHITECTURE.md has these lines about modules that are gone or changed");
}

#[test]
fn the_architecture_is_short() {
    // Without the code map, which grows with the modules.
    let text = read("ARCHITECTURE.md");
    let (before, map) = text.split_once("## Code map").unwrap();
    let (_, after) = map.split_once("\n## ").unwrap();
    let lines = before.lines().count() + after.lines().count();
    assert!(lines <= MAX_LINES_OF_ARCHITECTURE, "ARCHITECTURE.md has {lines} lines besides the code map");
}

#[test]
fn only_adapters_and_mains_name_the_sdk() {
    let held = ["job", "api", "worker", "imagectl"];
    let offenders: Vec<String> = held
        .iter()
        .flat_map(|name| sources(&format!("{name}/src")))
        .filter(|path| !MAY_NAME_SDK.iter().any(|allowed| path.starts_with(allowed)))
        .filter(|path| read(path).contains("aws_sdk_"))
        .collect();
    assert_none(&offenders, "these files name `aws_sdk_`, which is for adapters and `main`");
}

/// Returns the names of all dependencies of a crate, those of its tests among them.
fn dependencies(name: &str) -> Vec<String> {
    let manifest = read(&format!("{name}/Cargo.toml"));
    let mut in_dependencies = false;
    let mut names = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            // What only tests use is no dependency of the crate.
            in_dependencies = section == "dependencies]";
        } else if in_dependencies && let Some((key, _)) = line.split_once('=') {
            names.push(key.split('.').next().unwrap_or_default().trim().to_owned());
        }
    }
    assert!(!names.is_empty(), "{name}/Cargo.toml has no dependencies: the search is broken");
    names
}

#[test]
fn crates_depend_in_one_direction() {
    let rules: [(&str, &[&str]); 7] = [
        ("api", &["worker", "devstack"]),
        ("worker", &["api", "devstack"]),
        ("loadtest", &["service", "api", "worker", "devstack"]),
        ("portal", &["service", "api", "worker", "devstack", "loadtest"]),
        ("imagectl", &["api", "worker", "devstack", "loadtest"]),
        ("service", &["job", "api", "worker", "devstack"]),
        ("job", &["service", "api", "worker", "devstack", "tokio", "axum", "reqwest"]),
    ];
    for (name, forbidden) in rules {
        for dependency in dependencies(name) {
            assert!(!forbidden.contains(&dependency.as_str()), "{name} must not depend on {dependency}");
            assert!(name != "job" || !dependency.starts_with("aws"), "job must not depend on {dependency}");
        }
    }
}

#[test]
fn no_source_is_long() {
    let long: Vec<String> = all_sources()
        .into_iter()
        .map(|path| (read(&path).lines().count(), path))
        .filter(|(lines, _)| *lines > MAX_LINES_OF_SOURCE)
        .map(|(lines, path)| format!("{path}: {lines}"))
        .collect();
    assert_none(&long, "these files are too long");
}

#[test]
fn no_type_has_an_empty_name() {
    let mut offenders = Vec::new();
    for path in all_sources() {
        for line in read(&path).lines().map(str::trim_start).filter(|line| !line.starts_with("//")) {
            let mut words = line.split_whitespace().skip_while(|word| *word == "pub" || word.starts_with("pub("));
            if !words.next().is_some_and(|word| ["struct", "enum", "trait", "type"].contains(&word)) {
                continue;
            }
            let name: String =
                words.next().unwrap_or_default().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if EMPTY_SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
                offenders.push(format!("{path}: {name}"));
            }
        }
    }
    assert_none(&offenders, "these types need a name that says what they do");
}

#[test]
fn the_tests_that_the_documents_name_exist() {
    let mut named = 0;
    let mut missing = Vec::new();
    let documents = [
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/operations.md",
        "docs/portal.md",
        "docs/reliability.md",
        "docs/security.md",
    ];
    for document in documents {
        for code in tests_named_in(&read(document)) {
            named += 1;
            if !is_a_test(&code) {
                missing.push(format!("{document}: {code}"));
            }
        }
    }
    assert!(named >= 60, "only {named} tests are named: the search is broken");
    assert_none(&missing, "these tests are named and do not exist");
}

/// Returns every `PATH.rs::TEST` between backticks.
fn tests_named_in(text: &str) -> Vec<String> {
    // Every second piece is between backticks.
    let code = text.split('`').skip(1).step_by(2);
    code.filter(|code| code.contains(".rs::")).map(str::to_owned).collect()
}

/// Whether `PATH.rs::TEST` is a function that a test run calls: it says so above it, or a macro has its name.
fn is_a_test(code: &str) -> bool {
    let Some((path, test)) = code.split_once(".rs::") else { return false };
    let path = format!("{path}.rs");
    if !root().join(&path).is_file() {
        return false;
    }
    let text = read(&path);
    let lines: Vec<&str> = text.lines().collect();
    let Some(at) = lines.iter().position(|line| line.contains(&format!("fn {test}("))) else { return false };
    let above = lines[..at].iter().rev().map(|line| line.trim()).take_while(|line| line.starts_with(['#', '/']));
    let has_attribute = above.into_iter().any(|line| line == "#[test]" || line.starts_with("#[tokio::test"));
    let word = |line: &&str| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == test);
    let is_listed = lines.iter().enumerate().any(|(index, line)| index != at && word(line));
    has_attribute || is_listed
}

/// Returns the rows of the table between `<!-- NAME -->` and `<!-- /NAME -->`, cell by cell.
fn rows(document: &str, name: &str) -> Vec<Vec<String>> {
    let text = read(document);
    let (_, rest) = text.split_once(&format!("<!-- {name} -->")).unwrap_or_else(|| panic!("{document}: no {name}"));
    let (table, _) =
        rest.split_once(&format!("<!-- /{name} -->")).unwrap_or_else(|| panic!("{document}: no end of {name}"));
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    table.lines().map(str::trim).filter(|line| line.starts_with('|')).skip(2).map(cells).collect()
}

#[test]
fn each_of_the_twenty_failures_has_a_test() {
    let rows = rows("docs/reliability.md", "failures");
    let numbers: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    let expected: Vec<String> = (1..=20).map(|number: u32| number.to_string()).collect();
    assert_eq!(numbers, expected);
    let without: Vec<String> =
        rows.iter().filter(|row| tests_named_in(&row[3]).is_empty()).map(|row| row.join(" | ")).collect();
    assert_none(&without, "these failures have no test");
}

#[test]
fn the_protections_that_are_taken_away_are_those_of_the_document() {
    let told = rows("docs/reliability.md", "mutations");
    let told: Vec<(String, String)> =
        told.into_iter().map(|row| (row[0].clone(), tests_named_in(&row[1]).concat())).collect();
    let mut expected = devstack::mutations::Mutation::all(root()).unwrap();
    let in_simulation = expected.extract_if(.., |one| one.name.ends_with("-in-simulation")).count();
    assert_eq!(in_simulation, 5, "docs/reliability.md tells another number");
    assert_eq!(told.len(), expected.len());
    for one in expected {
        let row = (one.protection.clone(), format!("{}::{}", one.test_file, one.test_name));
        assert!(told.contains(&row), "docs/reliability.md lacks {row:?}");
    }
}

/// A comparison that ends at the first difference tells by its time how much of a guess was right.
#[test]
fn keys_are_compared_in_constant_time_and_all_of_them() {
    for (path, function) in [("api/src/auth.rs", "fn tenant_of("), ("job/src/key_ring.rs", "pub fn verify(")] {
        let text = read(path);
        let (_, rest) = text.split_once(function).unwrap_or_else(|| panic!("{path} has no `{function}`"));
        let (body, _) = rest.split_once("\n    }\n").unwrap();
        assert!(body.contains("ct_eq("), "{path}: `{function}` compares in another way");
        for early in ["return", "break", "?;", ".any(", ".find(", "==", "||", "&&"] {
            assert!(!body.contains(early), "{path}: `{function}` may end early at `{early}`");
        }
    }
}

#[test]
fn relative_links_of_the_documents_lead_somewhere() {
    let mut documents: Vec<String> = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]
        .map(str::to_owned)
        .into_iter()
        .chain(["devstack/README.md".to_owned()])
        .collect();
    for folder in ["docs", "docs/adr"] {
        documents.extend(
            entries(folder).into_iter().filter(|name| name.ends_with(".md")).map(|name| format!("{folder}/{name}")),
        );
    }
    let mut broken = Vec::new();
    for document in documents {
        let text = read(&document);
        let folder = Path::new(&document).parent().unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            let target = link.split('#').next().unwrap_or_default();
            let is_external = target.is_empty() || target.contains("://");
            if !is_external && !root().join(folder).join(target).exists() {
                broken.push(format!("{document}: {link}"));
            }
        }
    }
    assert_none(&broken, "these links lead nowhere");
}
