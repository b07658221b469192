//! `cargo dev dashboard`: a picture of the dashboard while the containers are under load, by Grafana where it can be had.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use tokio_util::sync::CancellationToken;

use super::compose::Project;
use super::dashboard::{Dashboard, SCRAPE_SECONDS};
use super::grafana::Grafana;
use super::program::{Program, on_path};
use super::prometheus::Prometheus;
use super::{ContainersArgs, ContainersError, Places, folder, load, on_engine, step, wrong};

const WORKERS: usize = 3;
/// Where the page is that draws the panels without Grafana's server.
const PREVIEW: &str = "observability/preview";
/// The window: three columns of panels at their own height, all of them.
const WIDTH: u32 = 1200;
const HEIGHT: u32 = 2350;
/// Below what is kept: the page lays itself out in a window that is lower than the picture by the browser's own bars.
const MARGIN: u32 = 150;
/// Given to Grafana to ask its data source and to draw, in seconds of the browser's clock.
const SETTLE_SECONDS: u64 = 50;

/// How long, and where to.
#[derive(Debug, Args)]
pub struct DashboardArgs {
    /// Picture to write, a PNG; from the root of the repository.
    #[arg(long, default_value = "docs/containers/dashboard.png", value_name = "FILE")]
    out: PathBuf,
    /// How long the load runs before the picture is taken.
    #[arg(long, default_value_t = 5, value_name = "MINUTES", value_parser = clap::value_parser!(u64).range(1..=60))]
    minutes: u64,
    #[command(flatten)]
    containers: ContainersArgs,
}

impl DashboardArgs {
    pub(crate) fn needs_build(&self) -> bool {
        self.containers.needs_build()
    }
}

/// Takes the picture. The containers are gone afterwards.
///
/// # Errors
/// What the machine lacks, or what went wrong with the containers.
pub async fn picture(
    args: &DashboardArgs,
    places: Places<'_>,
    signal: &CancellationToken,
) -> Result<(), ContainersError> {
    let folder = folder(places.dir)?;
    // Before half an hour of work and not after it.
    for program in ["node", "npm"] {
        if on_path(program).is_empty() {
            return Err(ContainersError::Unavailable(format!("{program} is missing: install Node.js 20 or later")));
        }
    }
    let work = async |project: &Project, _: &_| {
        if project.grafana.is_none() {
            // Before the load: the picture is of the minutes before it.
            step("npm ci", install(places.workspace, &folder)).await?;
        }
        step("up, and everything is healthy", project.up(WORKERS)).await?;
        let since = SystemTime::now();
        let (minutes, duration) = (args.minutes, Duration::from_secs(args.minutes * 60));
        let jobs = step(&format!("{minutes} minutes of load"), load::run(project.api, duration)).await?;
        println!("    {jobs} jobs were accepted");
        let mut queries = Dashboard::read(places.workspace)?.queries(SCRAPE_SECONDS)?;
        queries.retain(|query| !query.is_of_webhooks());
        let prometheus = Prometheus::new(project.prometheus);
        prometheus.finds(&queries, since).await?;
        step("the picture", take(args, places.workspace, &folder, project, &prometheus)).await
    };
    // Full pictures and the time that the model takes, as somebody has them who only says `up`.
    on_engine(&args.containers, places, &folder, &[], signal, work).await
}

async fn take(
    args: &DashboardArgs,
    workspace: &Path,
    folder: &Path,
    project: &Project,
    prometheus: &Prometheus,
) -> Result<(), ContainersError> {
    let (page, by) = match project.grafana {
        Some(grafana) => {
            let grafana = Grafana::new(grafana);
            grafana.shows(Dashboard::read(workspace)?.panels()).await?;
            (grafana.page(args.minutes), "Grafana")
        }
        None => (preview(args, workspace, folder, prometheus).await?, "Grafana's components, without its server"),
    };
    let screenshot = "run --release --locked --bin loadtest -- screenshot".split(' ').map(str::to_owned);
    let cargo = Program::new(env!("CARGO"), workspace, folder).prefixed(screenshot);
    let (out, settle) = (args.out.display().to_string(), SETTLE_SECONDS.to_string());
    let (width, height) = (WIDTH.to_string(), (HEIGHT + MARGIN).to_string());
    cargo.run(&[&page, "--out", &out, "--settle", &settle, "--width", &width, "--height", &height]).await?;
    finish(&workspace.join(&args.out), HEIGHT).map_err(|error| wrong(out.clone(), error))?;
    println!("    {out}, drawn by {by}");
    Ok(())
}

/// Writes a picture again: no higher than this, without its transparency, which a page has not, and small, because it lies
/// in the repository and the browser only writes fast.
fn finish(picture: &Path, height: u32) -> image::ImageResult<()> {
    let taken = image::open(picture)?.into_rgb8();
    let pixels = image::imageops::crop_imm(&taken, 0, 0, taken.width(), height.min(taken.height())).to_image();
    let mut small = Vec::new();
    let encoder = PngEncoder::new_with_quality(&mut small, CompressionType::Best, FilterType::NoFilter);
    pixels.write_with_encoder(encoder)?;
    std::fs::write(picture, small)?;
    Ok(())
}

/// Returns a program that is run where the page is made.
fn maker(name: &str, workspace: &Path, folder: &Path) -> Result<Program, ContainersError> {
    let path = on_path(name).into_iter().next().ok_or_else(|| wrong("the preview", format!("there is no {name}")))?;
    Ok(Program::new(path, &workspace.join(PREVIEW), folder))
}

async fn install(workspace: &Path, folder: &Path) -> Result<(), ContainersError> {
    maker("npm", workspace, folder)?.run(&["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).await?;
    Ok(())
}

/// Makes the page that draws the panels from the Prometheus that runs now, and returns where it is.
async fn preview(
    args: &DashboardArgs,
    workspace: &Path,
    folder: &Path,
    prometheus: &Prometheus,
) -> Result<String, ContainersError> {
    let page = folder.join("preview");
    let (minutes, to, url) = (args.minutes.to_string(), page.display().to_string(), prometheus.url());
    let make = ["build.mjs", "--prometheus", &url, "--minutes", &minutes, "--out", &to];
    maker("node", workspace, folder)?.run(&make).await?;
    Ok(page.join("index.html").display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_smaller_afterwards_and_of_the_same_pixels() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let pixels = image::RgbaImage::from_fn(200, 200, |x, y| {
            image::Rgba([u8::try_from(x / 20).unwrap(), u8::try_from(y / 7).unwrap(), 9, 255])
        });
        pixels.save(&path).unwrap();
        let before = std::fs::metadata(&path).unwrap().len();
        finish(&path, 150).unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() < before);
        let kept = image::imageops::crop_imm(&pixels, 0, 0, 200, 150).to_image();
        assert_eq!(image::open(&path).unwrap().into_rgba8(), kept);
    }
}
