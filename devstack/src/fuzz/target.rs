//! `Target`: one thing that is fuzzed: its corpus first, then inputs made from it, until its time is over.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::resource::{Resource, setrlimit};

use super::{Corpus, MEMORY_MIB, Recipe, SUMMARY, TargetName, last_input, number};

/// A target under way. `tests` is what it does with an input: it panics if that goes wrong.
pub struct Target<F> {
    name: TargetName,
    corpus: Corpus,
    tests: F,
    runs: AtomicU64,
    last: Option<PathBuf>,
}

impl<F: Fn(&[u8])> Target<F> {
    /// Runs the whole corpus below `tests_dir`, and bounds this process's memory if `cargo dev fuzz` asks for it.
    ///
    /// # Panics
    /// When an input breaks the target, or the corpus is not there.
    pub fn start(name: TargetName, tests_dir: &Path, tests: F) -> Self {
        if let Some(mib) = number(MEMORY_MIB) {
            let bytes = mib << 20;
            setrlimit(Resource::RLIMIT_AS, bytes, bytes).expect("a lower limit is always allowed");
        }
        let corpus = Corpus::open(tests_dir, name.as_str());
        let target = Self { name, corpus, tests, runs: AtomicU64::new(0), last: last_input() };
        for input in target.corpus.inputs() {
            target.run(input);
        }
        target
    }

    /// Makes the input of `recipe` and runs it.
    pub fn cook(&self, recipe: &Recipe) {
        self.run(&self.corpus.input(recipe));
    }

    /// Runs one input. One that breaks the target is printed, so that it can be kept.
    pub fn run(&self, input: &[u8]) {
        self.runs.fetch_add(1, Ordering::Relaxed);
        if let Some(last) = &self.last {
            // A process that runs out of memory prints nothing more.
            std::fs::write(last, input).expect("the folder was just made");
        }
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.tests)(input))) {
            let text: String =
                input.iter().take(2000).flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from).collect();
            eprintln!("{} broke down with these {} bytes: {text}", self.name.as_str(), input.len());
            resume_unwind(panic);
        }
    }

    /// Prints what was done.
    pub fn end(&self) {
        let runs = self.runs.load(Ordering::Relaxed);
        println!("{SUMMARY} {runs} inputs, peak {} MiB", peak_kib() / 1024);
    }
}

/// The most memory that this process had resident at a time.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
}
