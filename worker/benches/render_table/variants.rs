//! Ways to make the rendition in Rust, each in a process of its own like the peers.

use std::io::{BufRead, Cursor, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use clap::ValueEnum;
use image::ImageFormat;
use image::imageops::{self, FilterType};
use job::STANDARD_SIDE;
use nix::time::{ClockId, clock_gettime};
use worker::render::decode::decode;
use worker::render::encode::stock_webp;
use worker::render::resize::to_square;
use worker::render::{Pixels, Provenance, RenderSettings, render};

/// Of the peers; the middle one is compared.
pub const QUALITIES: [f32; 3] = [76.0, 80.0, 84.0];
pub const MAX_PIXELS: u64 = 1 << 26;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Variant {
    /// The worker's `render` at method 2: libwebp without rate-distortion.
    Method2,
    /// The worker's `render` at method 4: our own mode search.
    Method4,
    /// The same at the quality whose mean SSIMULACRA2 is Pillow's at 80.
    Method4At803,
    /// The worker's `render` at method 6: libwebp with its whole search and trellis.
    Method6,
    /// The worker's decoder and resizer before libwebp as the crate `webp` brings it.
    Stock,
    /// The obvious crates used in the obvious way: `image`, `imageops`, `webp`.
    Naive,
}

impl Variant {
    pub const ALL: [Self; 6] =
        [Self::Method6, Self::Method4, Self::Method4At803, Self::Method2, Self::Stock, Self::Naive];

    /// What is compared: three qualities from low to high.
    pub fn qualities(self) -> [f32; 3] {
        if self == Self::Method4At803 { [76.3, 80.3, 84.3] } else { QUALITIES }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::Method2 => "image-worker, method 2",
            Self::Method4 => "**image-worker, method 4**",
            Self::Method4At803 => "image-worker, method 4, quality 80.3",
            Self::Method6 => "image-worker, method 6, the default",
            Self::Stock => "same, `webp` unchanged, method 4",
            Self::Naive => "`image` + `imageops` + `webp`",
        }
    }

    /// Makes the WebP of a source. Only the worker's own `render` takes others than PNG.
    pub fn run(self, source: &[u8], quality: f32) -> Vec<u8> {
        let by = |method| {
            let settings = RenderSettings { quality, method, ..Default::default() };
            render(source, &settings, &[], &Provenance::default()).unwrap().rendition.bytes.to_vec()
        };
        match self {
            Self::Method2 => by(2),
            Self::Method4 | Self::Method4At803 => by(4),
            Self::Method6 => by(6),
            Self::Stock => {
                let square = to_square(decode(source, MAX_PIXELS).unwrap(), STANDARD_SIDE).unwrap();
                stock_webp(&square, quality, 4).unwrap().to_vec()
            }
            Self::Naive => {
                let image = image::load_from_memory_with_format(source, ImageFormat::Png).unwrap().into_rgb8();
                let square = imageops_square(&image);
                let pixels = Pixels { width: STANDARD_SIDE, height: STANDARD_SIDE, rgb: square.into_raw() };
                stock_webp(&pixels, quality, 4).unwrap().to_vec()
            }
        }
    }
}

/// The square that `SSIMULACRA2` compares with: made by a resizer that is neither ours nor a peer's.
pub fn imageops_square(image: &image::RgbImage) -> image::RgbImage {
    let side = image.width().min(image.height());
    let (left, top) = ((image.width() - side) / 2, (image.height() - side) / 2);
    let square = imageops::crop_imm(image, left, top, side, side).to_image();
    if side == STANDARD_SIDE {
        return square;
    }
    imageops::resize(&square, STANDARD_SIDE, STANDARD_SIDE, FilterType::Lanczos3)
}

/// Answers lines on the standard input until it ends, as the peers do.
pub fn serve(variant: Variant) {
    let mut output = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let [path, quality, target] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("three fields: {line}") };
        let source = std::fs::read(path).unwrap();
        let began = cpu_nanoseconds();
        let encoded = variant.run(&source, quality.parse().unwrap());
        let spent = cpu_nanoseconds() - began;
        std::fs::write(target, encoded).unwrap();
        writeln!(output, "{spent}").unwrap();
    }
}

/// CPU time of the calling thread, which does all of the work.
pub fn cpu_nanoseconds() -> i64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    time.tv_sec() * 1_000_000_000 + time.tv_nsec()
}

/// CPU time of this process, whichever of its threads does the work.
pub fn process_nanoseconds() -> i64 {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
    time.tv_sec() * 1_000_000_000 + time.tv_nsec()
}

/// What threads do that take the pictures from one list: pictures a second by the clock, and CPU of one picture. Waiting for
/// each other costs wall time, sharing caches and memory costs CPU.
pub struct Scaling {
    pub rate_of_one: f64,
    pub rate_of_two: f64,
    pub cpu_ms_of_one: f64,
    pub cpu_ms_of_two: f64,
}

pub fn scaling(sources: &[Vec<u8>], rounds: usize) -> Scaling {
    let (mut one, mut two) = (Vec::new(), Vec::new());
    // In turn: whatever else the machine does meets both.
    for _ in 0..rounds {
        one.push(pass(sources, 1));
        two.push(pass(sources, 2));
    }
    let median = |mut values: Vec<f64>| {
        values.sort_unstable_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (rates_of_one, cpu_of_one): (Vec<f64>, Vec<f64>) = one.into_iter().unzip();
    let (rates_of_two, cpu_of_two): (Vec<f64>, Vec<f64>) = two.into_iter().unzip();
    Scaling {
        rate_of_one: median(rates_of_one),
        rate_of_two: median(rates_of_two),
        cpu_ms_of_one: median(cpu_of_one),
        cpu_ms_of_two: median(cpu_of_two),
    }
}

/// Renders the pictures three times over, so that the end, when one thread is alone, is short.
fn pass(sources: &[Vec<u8>], threads: usize) -> (f64, f64) {
    let (next, pictures) = (AtomicUsize::new(0), sources.len() * 3);
    let (began, cpu) = (Instant::now(), process_nanoseconds());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= pictures {
                        return;
                    }
                    std::hint::black_box(Variant::Method4.run(&sources[index % sources.len()], 80.0));
                }
            });
        }
    });
    let cpu_ms = (process_nanoseconds() - cpu) as f64 / 1e6;
    (pictures as f64 / began.elapsed().as_secs_f64(), cpu_ms / pictures as f64)
}

/// Reads a WebP.
pub fn read_webp(bytes: &[u8]) -> image::RgbImage {
    let mut reader = image::ImageReader::new(Cursor::new(bytes));
    reader.set_format(ImageFormat::WebP);
    reader.decode().unwrap().into_rgb8()
}
