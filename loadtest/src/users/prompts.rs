//! `Prompts`: what the users ask for, from a file, told apart by run and by number.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use job::JobSpec;

use crate::failure::Failure;

/// The file of the repository.
const DEFAULT: &str = include_str!("../../prompts.txt");
/// Longest addition to a prompt: ` (assignment TAG-NUMBER)`.
const ADDITION: &str = " (assignment rffffffffffffffff-ffffffff-ffffffff-18446744073709551615)";

/// A list of prompts, used in turn.
#[derive(Debug)]
pub struct Prompts {
    lines: Vec<String>,
    tag: String,
    distinct: Option<u64>,
    next: AtomicU64,
}

/// What one job asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub prompt: String,
    /// Never 0, which would mean any.
    pub seed: u32,
    /// Idempotency key and correlation id.
    pub key: String,
}

impl Asked {
    /// Returns what tells it from every other spec.
    #[must_use]
    pub fn spec(&self) -> String {
        format!("{} {}", self.seed, self.prompt)
    }
}

impl Prompts {
    /// Reads a file, or takes the prompts of the repository. `tag` tells this run's jobs from all others; after `distinct`
    /// specs they repeat, never without it.
    ///
    /// # Errors
    /// When the file cannot be read, has no prompt, or has one that the API would refuse: names the line.
    pub fn read(file: Option<&Path>, tag: &str, distinct: Option<u64>) -> Result<Self, Failure> {
        let text = match file {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| Failure::usage(format!("--prompts {} cannot be read: {error}", path.display())))?,
            None => DEFAULT.to_owned(),
        };
        let name = file.map_or_else(|| "prompts.txt".to_owned(), |path| format!("--prompts {}", path.display()));
        let mut lines = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Err(error) = JobSpec::new(format!("{line}{ADDITION}"), None, None) {
                return Err(Failure::usage(format!("{name}, line {}: {error}", number + 1)));
            }
            lines.push(line.to_owned());
        }
        if lines.is_empty() {
            return Err(Failure::usage(format!("{name} has no prompt: write one a line, comments begin with #")));
        }
        Ok(Self { lines, tag: tag.to_owned(), distinct, next: AtomicU64::new(0) })
    }

    /// Returns what the next job asks for.
    pub fn next(&self) -> Asked {
        self.asked(self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn asked(&self, number: u64) -> Asked {
        let spec = self.distinct.map_or(number, |distinct| number % distinct.max(1));
        let line = usize::try_from(spec).unwrap_or_default() % self.lines.len();
        Asked {
            prompt: format!("{} (assignment {}-{spec})", self.lines[line], self.tag),
            seed: 1 + u32::try_from(spec % u64::from(u32::MAX)).unwrap_or_default(),
            key: format!("{}-{number}", self.tag),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompts_of_the_repository_are_good_ones() {
        let prompts = Prompts::read(None, "ffffffff", None).unwrap();
        assert!(prompts.lines.len() >= 40);
        assert!(prompts.lines.iter().all(|line| line.split(' ').count() >= 5), "{:?}", prompts.lines);
    }

    #[test]
    fn specs_repeat_only_when_asked_to_and_keys_never() {
        let prompts = Prompts::read(None, "t", Some(3)).unwrap();
        let asked: Vec<Asked> = (0..6).map(|_| prompts.next()).collect();
        assert_eq!(asked[0].spec(), asked[3].spec());
        assert_ne!(asked[0].key, asked[3].key);
        let prompts = Prompts::read(None, "t", None).unwrap();
        let specs: std::collections::BTreeSet<String> = (0..500).map(|_| prompts.next().spec()).collect();
        assert_eq!(specs.len(), 500);
        assert_ne!(Prompts::read(None, "u", None).unwrap().next().spec(), prompts.asked(0).spec());
    }

    #[test]
    fn a_bad_file_is_named_with_its_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            Prompts::read(Some(file.path()), "t", None).map(|prompts| prompts.lines.len()).map_err(|e| e.to_string())
        };
        assert_eq!(read("# one\n\na fox\nan owl\n"), Ok(2));
        assert!(read("# nothing\n").unwrap_err().contains("no prompt"));
        let long = "x".repeat(job::MAX_PROMPT_CHARS);
        assert!(read(&format!("a fox\n{long}\n")).unwrap_err().contains("line 2"));
    }
}
