//! A clock that is off: libfaketime, preloaded into one worker.

use std::path::{Path, PathBuf};

/// Where Debian, Fedora and a build from source put it.
const FOLDERS: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu/faketime",
    "/usr/lib/aarch64-linux-gnu/faketime",
    "/usr/lib64/faketime",
    "/usr/lib/faketime",
    "/usr/local/lib/faketime",
];
/// The one for programs with threads.
const LIBRARY: &str = "libfaketimeMT.so.1";

/// Returns the library, None where it is not installed (Debian's package `faketime`).
pub(super) fn library() -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(LIBRARY)).find(|path| path.is_file())
}

/// Returns the variables that put the wall clock of a process off by `seconds`. Its time-outs stay right: they go by
/// the monotonic clock, which nobody sets.
pub(super) fn off_by(library: &Path, seconds: i64) -> Vec<(String, String)> {
    let pairs = [
        ("LD_PRELOAD", library.to_string_lossy().into_owned()),
        ("FAKETIME", format!("{seconds:+}s")),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("NO_FAKE_STAT", "1".to_owned()),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_a_process_is_off() {
        let Some(library) = library() else {
            // The run says so as well, and fails in hosted CI.
            eprintln!("SKIPPED: {LIBRARY} is not installed");
            return;
        };
        let seconds = |env: Vec<(String, String)>| -> i64 {
            let date = std::process::Command::new("date").arg("+%s").envs(env).output().unwrap();
            String::from_utf8(date.stdout).unwrap().trim().parse().unwrap()
        };
        let off = seconds(off_by(&library, -600)) - seconds(Vec::new());
        assert!((-660..-540).contains(&off), "{off}");
    }
}
