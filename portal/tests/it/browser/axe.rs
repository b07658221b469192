//! axe-core, from npm: what assistive technology cannot work with. The release is pinned, its content checked by npm.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

const FILES: [&str; 2] = ["package.json", "package-lock.json"];

static SOURCE: LazyLock<Option<String>> = LazyLock::new(|| {
    let script = install()?;
    Some(std::fs::read_to_string(script).unwrap())
});

/// Returns the script, None where there is no npm to get it with.
pub fn source() -> Option<&'static str> {
    SOURCE.as_deref()
}

fn install() -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = here.parent().unwrap().join(".dev/tools/axe");
    std::fs::create_dir_all(&folder).unwrap();
    let script = folder.join("node_modules/axe-core/axe.min.js");
    let same =
        |file: &&str| std::fs::read(folder.join(file)).ok() == std::fs::read(here.join("tests/axe").join(file)).ok();
    // npm writes this one when it has installed everything.
    if FILES.iter().all(same) && folder.join("node_modules/.package-lock.json").is_file() {
        return Some(script);
    }
    for file in FILES {
        std::fs::copy(here.join("tests/axe").join(file), folder.join(file)).unwrap();
    }
    let installed = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-fund", "--no-audit"])
        .current_dir(&folder)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    if !installed.status.success() {
        eprintln!("npm ci: {}", String::from_utf8_lossy(&installed.stderr));
        return None;
    }
    Some(script)
}
