//! `render-bench`: CPU, bytes and quality of the render beside Pillow and sharp, on the same pictures in turn; and of its parts.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod allocators;
mod contestant;
mod encoders;
mod pictures;
mod plot;
mod race;
mod report;
mod sources;
mod variants;

use std::path::PathBuf;

use clap::Parser;
use variants::Variant;

/// What the worker runs with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Args {
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
    /// Answer requests as one of our own variants.
    #[arg(long, hide = true)]
    serve: Option<Variant>,
    /// Folder that the paths of files begin at.
    #[arg(long, hide = true)]
    from: Option<PathBuf>,
    /// How often each picture is rendered at each of three qualities; the least CPU time counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where pictures and peers are kept.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../.dev/render-bench"))]
    folder: PathBuf,
    /// Write the plots there.
    #[arg(long, conflicts_with = "part")]
    plots: Option<PathBuf>,
    /// WebP encoders alone: decoded and resized pixels are given.
    #[arg(long, group = "part")]
    encoder: bool,
    /// AVIF by rav1e beside WebP, encoders alone.
    #[arg(long, group = "part")]
    avif: bool,
    /// What the model may be asked for: PNG, JPEG or WebP as the source.
    #[arg(long, group = "part")]
    sources: bool,
    /// Two threads beside one.
    #[arg(long, group = "part")]
    threads: bool,
    /// The render under other allocators.
    #[arg(long, group = "part")]
    allocators: bool,
}

fn main() {
    let args = Args::parse();
    if let Some(variant) = args.serve {
        return variants::serve(variant);
    }
    if let Some(folder) = &args.from {
        std::env::set_current_dir(folder).unwrap();
    }
    std::fs::create_dir_all(&args.folder).unwrap();
    let folder = args.folder.canonicalize().unwrap();
    let pictures = pictures::all(&folder);
    if args.encoder {
        encoders::compare(&folder, &pictures, encoders::webp(), args.rounds);
    } else if args.avif {
        encoders::compare(&folder, &pictures, encoders::avif(), args.rounds);
    } else if args.sources {
        sources::compare(&folder, &pictures, args.rounds);
    } else if args.threads {
        threads(&pictures, args.rounds);
    } else if args.allocators {
        allocators::compare(&folder, &pictures, args.rounds);
    } else {
        pipelines(&folder, &pictures, args.rounds, args.plots.as_deref());
    }
}

fn pipelines(folder: &std::path::Path, pictures: &[pictures::Picture], rounds: usize, plots: Option<&std::path::Path>) {
    let mut contestants = contestant::start_all(folder);
    let outcomes = race::run(folder, pictures, &mut contestants, rounds);
    drop(contestants);
    report::pipelines(pictures, &outcomes);
    if let Some(folder) = plots {
        plot::write(&outcomes, folder);
    }
}

fn threads(pictures: &[pictures::Picture], rounds: usize) {
    let sources: Vec<Vec<u8>> = pictures.iter().map(|picture| std::fs::read(&picture.path).unwrap()).collect();
    let scaling = variants::scaling(&sources, rounds.max(3));
    println!(
        "Two threads make {:.2} times the pictures a second of one: {:.1} beside {:.1}, medians of wall time over all pictures; \
         a picture takes {:.1} ms of CPU beside another and {:.1} ms alone.",
        scaling.rate_of_two / scaling.rate_of_one,
        scaling.rate_of_two,
        scaling.rate_of_one,
        scaling.cpu_ms_of_two,
        scaling.cpu_ms_of_one,
    );
}
