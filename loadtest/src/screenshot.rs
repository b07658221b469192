//! `loadtest screenshot`: a picture of a page, taken in a real browser.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use clap::Args;
use tokio::process::Command;

use crate::failure::Failure;
use crate::output;

/// Names under which the browser is installed, tried in turn.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
/// A page of ours is drawn within a second or two.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What to take a picture of.
#[derive(Debug, Clone, Args)]
pub struct ScreenshotArgs {
    /// Page: a report.html, the folder of a report, or an http URL.
    #[arg(value_name = "PAGE")]
    page: PathBuf,
    /// Time a page is given to draw itself, in seconds of its own clock, which stands still while it loads something.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=60))]
    settle: u64,
    /// Picture to write, a PNG.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Browser [default: the first of chromium, chromium-browser, google-chrome, google-chrome-stable].
    #[arg(long, value_name = "PROGRAM")]
    browser: Option<PathBuf>,
    /// Width of the window, in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 1240, value_parser = clap::value_parser!(u32).range(320..=4096))]
    width: u32,
    /// Height of the window, in pixels; the picture is of the window, not of what lies below it.
    #[arg(long, value_name = "PIXELS", default_value_t = 1180, value_parser = clap::value_parser!(u32).range(240..=16_384))]
    height: u32,
}

/// Takes the picture. The browser has a new profile each time, no window and no network of its own.
///
/// # Errors
/// When there is no page, no browser, or no picture afterwards.
pub async fn screenshot(args: &ScreenshotArgs) -> Result<ExitCode, Failure> {
    let page = url(&args.page)?;
    let out = absolute(&args.out)?;
    let profile = tempfile::tempdir().map_err(Failure::fault)?;
    let candidates: Vec<PathBuf> =
        args.browser.clone().map_or_else(|| BROWSERS.map(PathBuf::from).to_vec(), |browser| vec![browser]);
    for browser in &candidates {
        let taken = tokio::time::timeout(TIMEOUT, command(browser, &page, &out, profile.path(), args).output()).await;
        let output = match taken {
            Err(_) => return Err(Failure::fault(format!("{} took longer than {TIMEOUT:?}", browser.display()))),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Ok(Err(error)) => return Err(Failure::fault(format!("{}: {error}", browser.display()))),
            Ok(Ok(output)) => output,
        };
        if output.status.success() && out.is_file() {
            output::line(args.out.display());
            return Ok(ExitCode::SUCCESS);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::fault(format!(
            "{} took no picture ({}): {}",
            browser.display(),
            output.status,
            said.trim()
        )));
    }
    let tried: Vec<String> = candidates.iter().map(|browser| browser.display().to_string()).collect();
    Err(Failure::usage(format!(
        "no browser found ({}): install chromium, or name one with --browser",
        tried.join(", ")
    )))
}

/// Returns what the browser is to open.
fn url(page: &Path) -> Result<String, Failure> {
    if let Some(url) = page.to_str().filter(|text| text.starts_with("http://") || text.starts_with("https://")) {
        return Ok(url.to_owned());
    }
    let page = if page.is_dir() { page.join(crate::report::HTML) } else { page.to_owned() };
    let page =
        page.canonicalize().map_err(|error| Failure::usage(format!("{} cannot be opened: {error}", page.display())))?;
    Ok(format!("file://{}", page.display()))
}

fn command(browser: &Path, page: &str, out: &Path, profile: &Path, args: &ScreenshotArgs) -> Command {
    let mut command = Command::new(browser);
    command
        .args(["--headless", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-background-networking"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("--window-size={},{}", args.width, args.height))
        .arg(format!("--screenshot={}", out.display()))
        .arg(page)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if args.settle > 0 {
        command.arg(format!("--virtual-time-budget={}", args.settle * 1000));
    }
    // It refuses to put root into a sandbox.
    if std::fs::metadata("/proc/self").is_ok_and(|this| this.uid() == 0) {
        command.arg("--no-sandbox");
    }
    command
}

/// The browser has a working folder of its own choice.
fn absolute(out: &Path) -> Result<PathBuf, Failure> {
    if let Some(folder) = out.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .map_err(|error| Failure::usage(format!("--out {} cannot be written: {error}", out.display())))?;
    }
    // An older picture must not pass for the new one.
    match std::fs::remove_file(out) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Failure::usage(format!("--out {} cannot be replaced: {error}", out.display())));
        }
        _ => {}
    }
    std::path::absolute(out).map_err(Failure::fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_a_url_or_a_file_that_is_there() {
        let of = |page: &str| url(Path::new(page));
        assert_eq!(of("http://127.0.0.1:3000/d/x?kiosk").unwrap(), "http://127.0.0.1:3000/d/x?kiosk");
        assert!(of("no/such/page.html").is_err());
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(crate::report::HTML), "").unwrap();
        let expected = format!("file://{}/{}", folder.path().canonicalize().unwrap().display(), crate::report::HTML);
        assert_eq!(url(folder.path()).unwrap(), expected);
    }
}
