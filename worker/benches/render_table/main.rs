//! `render-bench`: CPU, bytes and quality of the render beside Pillow and sharp, on the same pictures in turn.
#![allow(missing_docs, clippy::unwrap_used)]

mod contestant;
mod pictures;
mod report;
mod variants;

use std::path::PathBuf;

use clap::Parser;
use fast_ssim2::{PixelDescriptor, PixelSlice, Ssimulacra2Reference};
use image::RgbImage;
use variants::Variant;

/// What the worker runs with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Qualities that are encoded: the middle one is compared, the others give the line for equal quality.
pub const QUALITIES: [u8; 3] = [76, 80, 84];

#[derive(Parser)]
struct Args {
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
    /// Answer requests as one of our own variants.
    #[arg(long, hide = true)]
    serve: Option<Variant>,
    /// How often each picture is rendered at quality 80; the least CPU time counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Where pictures and peers are kept.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../.dev/render-bench"))]
    folder: PathBuf,
    /// Write the plots there.
    #[arg(long)]
    plots: Option<PathBuf>,
}

/// One contestant, one picture, one quality.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    pub cpu_ms: f64,
    pub bytes: f64,
    pub ssim2: f64,
}

pub struct Outcome {
    pub title: String,
    /// By picture, then by quality.
    pub samples: Vec<[Sample; QUALITIES.len()]>,
    pub peak_rss: f64,
}

fn main() {
    let args = Args::parse();
    if let Some(variant) = args.serve {
        return variants::serve(variant);
    }
    std::fs::create_dir_all(&args.folder).unwrap();
    let folder = args.folder.canonicalize().unwrap();
    let pictures = pictures::all(&folder);
    let mut contestants = contestant::start_all(&folder);
    let mut outcomes: Vec<Outcome> = contestants
        .iter()
        .map(|contestant| Outcome { title: contestant.title.clone(), samples: Vec::new(), peak_rss: 0.0 })
        .collect();

    for picture in &pictures {
        eprintln!("{} ({} px)", picture.name, picture.side);
        let original = variants::imageops_square(&image::open(&picture.path).unwrap().into_rgb8());
        let reference = Ssimulacra2Reference::new(&slice(&original)).unwrap();
        let empty = Sample { cpu_ms: f64::INFINITY, bytes: 0.0, ssim2: 0.0 };
        let mut rows = vec![[empty; QUALITIES.len()]; contestants.len()];
        // Round by round and not contestant by contestant: whatever else the machine does meets all of them.
        for round in 0..args.rounds.max(1) {
            for (contestant, row) in contestants.iter_mut().zip(&mut rows) {
                for (quality, sample) in QUALITIES.iter().zip(row.iter_mut()) {
                    let is_compared = *quality == 80;
                    if round > 0 && !is_compared {
                        continue;
                    }
                    let (cpu_ms, webp) = contestant.render(&picture.path, *quality);
                    sample.cpu_ms = sample.cpu_ms.min(cpu_ms);
                    if round == 0 {
                        sample.bytes = webp.len() as f64;
                        sample.ssim2 = reference.compare(&slice(&variants::read_webp(&webp))).unwrap();
                    }
                }
            }
        }
        for (outcome, row) in outcomes.iter_mut().zip(rows) {
            outcome.samples.push(row);
        }
    }
    for (outcome, contestant) in outcomes.iter_mut().zip(&contestants) {
        outcome.peak_rss = contestant.peak_rss();
    }
    drop(contestants);

    report::print(&pictures, &outcomes);
    let sources: Vec<Vec<u8>> = pictures.iter().map(|picture| std::fs::read(&picture.path).unwrap()).collect();
    let (one, two) = variants::scaling(&sources, args.rounds.clamp(1, 3));
    println!(
        "\nTwo threads do {:.2} times the work of one: {one:.1} ms a picture alone, {two:.1} ms beside another.",
        2.0 * one / two
    );
    if let Some(folder) = args.plots {
        report::plot(&outcomes, &folder);
    }
}

fn slice(image: &RgbImage) -> PixelSlice<'_> {
    let stride = image.width() as usize * 3;
    PixelSlice::new(image.as_raw(), image.width(), image.height(), stride, PixelDescriptor::RGB8_SRGB).unwrap()
}
