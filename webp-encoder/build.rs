//! Compiles libwebp's lossy encoder, its symbols renamed so that another libwebp in the same program is not touched.

#![expect(clippy::disallowed_methods, reason = "cargo tells a build script by variables")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// What the public names of libwebp begin with.
const PREFIXES: [&str; 3] = ["VP8", "WebP", "SharpYuv"];

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let (libwebp, shim) = (root.join("libwebp"), root.join("src/shim.c"));
    for path in [&libwebp, &shim] {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    let mut sources = Vec::new();
    files(&libwebp, &mut sources);
    sources.push(shim);

    let names = out.join("names.h");
    fs::write(&names, renames(&sources)).expect("OUT_DIR can be written");

    let is = |extension: &'static str| move |path: &&PathBuf| path.extension().is_some_and(|found| found == extension);
    let (sse41, others): (Vec<_>, Vec<_>) = sources
        .iter()
        .filter(is("c"))
        .partition(|path| path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("_sse41")));

    let target = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it");
    let mut common = cc::Build::new();
    common.include(&libwebp).flag("-include").flag(names.to_str().expect("OUT_DIR is UTF-8"));
    // Always optimised: a codec without is of no use to any build. Which instructions a CPU has is asked when it runs.
    common.opt_level(3).define("NDEBUG", None).flag("-fvisibility=hidden").warnings(false);
    match target.as_str() {
        "x86_64" => {
            common.define("WEBP_HAVE_SSE2", None).define("WEBP_HAVE_SSE41", None);
            common.clone().files(sse41).flag("-msse4.1").compile("webp_encoder_sse41");
        }
        "aarch64" => {
            common.define("WEBP_HAVE_NEON", None);
        }
        _ => {}
    }
    common.files(others).compile("webp_encoder");
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the sources are in the repository") {
        let path = entry.expect("the sources can be read").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "c" || extension == "h") {
            found.push(path);
        }
    }
    found.sort();
}

/// A header that renames every identifier of libwebp's, but for the macros.
fn renames(sources: &[PathBuf]) -> String {
    let (mut names, mut macros) = (BTreeSet::new(), BTreeSet::new());
    for path in sources {
        let text = fs::read_to_string(path).expect("libwebp is ASCII");
        for line in text.lines() {
            if let Some(rest) = line.trim_start().strip_prefix("#define ") {
                macros.extend(words(rest).take(1).map(str::to_owned));
            }
            let of_libwebp = |word: &&str| PREFIXES.iter().any(|prefix| word.starts_with(prefix));
            names.extend(words(line).filter(of_libwebp).map(str::to_owned));
        }
    }
    names.insert("GetColorPalette".to_owned());
    names.difference(&macros).map(|name| format!("#define {name} pruned_{name}\n")).collect()
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}
