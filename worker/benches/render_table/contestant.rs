//! A process that renders what it is told to, one picture after the other, and says how much CPU it took.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::pictures::Picture;
use crate::race::{Entrant, Subject};
use crate::variants::{QUALITIES, Variant};

/// Newest releases on 2026-11-25.
const PILLOW: &str = "13.0.0";
const SHARP: &str = "0.35.5";

const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/render_table/peers");

pub struct Contestant {
    pub title: String,
    qualities: [f32; 3],
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    output: PathBuf,
}

impl Contestant {
    pub fn start(title: String, mut command: Command, folder: &Path, number: usize) -> Self {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (requests, answers) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        Self {
            title,
            qualities: QUALITIES,
            process,
            requests,
            answers,
            output: folder.join(format!("output-{number}.webp")),
        }
    }

    fn ask(&mut self, picture: &Picture, quality: f32) -> (f64, Vec<u8>) {
        writeln!(self.requests, "{}\t{quality}\t{}", picture.path.display(), self.output.display()).unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        let spent: f64 = answer.trim().parse().unwrap_or_else(|_| panic!("{} fell over: '{answer}'", self.title));
        (spent / 1e6, std::fs::read(&self.output).unwrap())
    }
}

impl Entrant for Contestant {
    fn title(&self) -> &str {
        &self.title
    }

    fn qualities(&self) -> [f32; 3] {
        self.qualities
    }

    fn render(&mut self, subject: &Subject<'_>, quality: f32) -> (f64, Vec<u8>) {
        self.ask(subject.picture, quality)
    }

    /// The largest resident set so far.
    fn peak_rss(&self) -> Option<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        Some(line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0)
    }
}

impl Drop for Contestant {
    fn drop(&mut self) {
        // Ends at the end of its input at the latest.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Starts our variants and the peers, which are installed below `folder` unless they are there.
pub fn start_all(folder: &Path) -> Vec<Contestant> {
    let mut commands = Vec::new();
    commands.push((format!("Pillow {PILLOW}, method 4"), pillow(folder, "pillow_peer.py")));

    let sharp = folder.join(format!("sharp-{SHARP}"));
    if !sharp.join("complete").exists() {
        std::fs::create_dir_all(&sharp).unwrap();
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(&sharp);
        run(npm.arg(format!("sharp@{SHARP}")));
        std::fs::write(sharp.join("complete"), SHARP).unwrap();
    }
    let mut command = Command::new("node");
    command.arg(Path::new(PEERS).join("sharp_peer.mjs")).arg(&sharp);
    commands.push((format!("sharp {SHARP}, effort 4"), command));

    for variant in Variant::ALL {
        commands.push((variant.title().to_owned(), ourselves(variant)));
    }
    let peers = commands.len() - Variant::ALL.len();
    let mut contestants: Vec<Contestant> = commands
        .into_iter()
        .enumerate()
        .map(|(number, (title, command))| Contestant::start(title, command, folder, number))
        .collect();
    for (contestant, variant) in contestants[peers..].iter_mut().zip(Variant::ALL) {
        contestant.qualities = variant.qualities();
    }
    contestants
}

/// This program, answering as one variant.
pub fn ourselves(variant: Variant) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--serve", clap::ValueEnum::to_possible_value(&variant).unwrap().get_name()]);
    command
}

/// A script of `peers/` under Pillow, which is installed below `folder` unless it is there.
pub fn pillow(folder: &Path, script: &str) -> Command {
    let pillow = folder.join(format!("pillow-{PILLOW}"));
    if !pillow.join("complete").exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&pillow));
        run(Command::new(pillow.join("bin/pip")).args(["install", "--quiet", &format!("pillow=={PILLOW}")]));
        std::fs::write(pillow.join("complete"), PILLOW).unwrap();
    }
    let mut command = Command::new(pillow.join("bin/python"));
    command.arg(Path::new(PEERS).join(script));
    command
}

pub fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&text));
}
