//! The render under other allocators than mimalloc: the same program on the system's, and jemalloc in its place.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::contestant::{Contestant, ourselves, run};
use crate::pictures::Picture;
use crate::race;
use crate::report;
use crate::variants::Variant;

const JEMALLOC: &str = "libjemalloc2";

pub fn compare(folder: &Path, pictures: &[Picture], rounds: usize) {
    let system = render_system();
    let with = |mut command: Command, variables: &[(&str, &str)]| {
        command.envs(variables.iter().copied());
        command
    };
    let jemalloc = jemalloc(folder);
    let commands = [
        ("mimalloc, as in the worker", ourselves(Variant::Method4)),
        // No page is faulted in twice: more than buffers kept by hand could save.
        ("mimalloc that gives nothing back", with(ourselves(Variant::Method4), &[("MIMALLOC_PURGE_DELAY", "-1")])),
        ("glibc", Command::new(&system)),
        (
            "glibc that keeps 256 MiB",
            with(
                Command::new(&system),
                &[("MALLOC_MMAP_THRESHOLD_", "33554432"), ("MALLOC_TRIM_THRESHOLD_", "268435456")],
            ),
        ),
        ("jemalloc 5.3", with(Command::new(&system), &[("LD_PRELOAD", jemalloc.to_str().unwrap())])),
    ];
    let mut contestants: Vec<Contestant> = commands
        .into_iter()
        .enumerate()
        .map(|(number, (title, command))| Contestant::start(title.to_owned(), command, folder, number))
        .collect();
    let outcomes = race::run(folder, pictures, &mut contestants, rounds);
    let all: Vec<usize> = (0..pictures.len()).collect();
    println!("\n| allocator | CPU ms | CPU | peak RSS, MiB |\n|---|--:|--:|--:|");
    for outcome in &outcomes {
        let cpu = report::cpu(outcome, &all);
        let share = cpu / report::cpu(&outcomes[0], &all);
        println!("| {} | {cpu:.1} | {share:.3} | {:.0} |", outcome.title, outcome.peak_rss.unwrap());
    }
}

/// Builds the bench `render_system`: a program has one allocator, so another one is another program.
fn render_system() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "bench",
        "--locked",
        "--workspace",
        "--bench",
        "render_system",
        "--no-run",
        "--message-format",
        "json",
    ]);
    let output = cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).unwrap();
    let executables = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == "render_system").then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    executables.last().expect("cargo says where it put the bench")
}

/// Downloads Debian's package and unpacks it, without installing it.
fn jemalloc(folder: &Path) -> PathBuf {
    let unpacked = folder.join(JEMALLOC);
    if !unpacked.join("complete").exists() {
        std::fs::create_dir_all(&unpacked).unwrap();
        run(Command::new("apt-get").args(["download", JEMALLOC]).current_dir(&unpacked));
        let package = std::fs::read_dir(&unpacked).unwrap().map(|entry| entry.unwrap().path());
        let package = package.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "deb"));
        run(Command::new("dpkg-deb").arg("--extract").arg(package.unwrap()).arg(&unpacked));
        std::fs::write(unpacked.join("complete"), "").unwrap();
    }
    let libraries = std::fs::read_dir(unpacked.join("usr/lib")).unwrap().map(|entry| entry.unwrap().path());
    libraries.into_iter().map(|path| path.join("libjemalloc.so.2")).find(|path| path.exists()).unwrap()
}
