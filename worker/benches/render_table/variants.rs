//! Ways to make the rendition in Rust, each in a process of its own like the peers.

use std::io::{BufRead, Cursor, Write};

use clap::ValueEnum;
use image::ImageFormat;
use image::imageops::{self, FilterType};
use job::STANDARD_SIDE;
use nix::time::{ClockId, clock_gettime};
use worker::render::decode::decode;
use worker::render::encode::stock_webp;
use worker::render::resize::to_square;
use worker::render::{Pixels, RenderSettings, render};

const MAX_PIXELS: u64 = 1 << 26;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Variant {
    /// The worker's `render` at method 2: libwebp without rate-distortion.
    Method2,
    /// The worker's `render`, as it is set by default.
    Method4,
    /// The worker's `render` at method 6: libwebp with its whole search and trellis.
    Method6,
    /// The worker's decoder and resizer before libwebp as the crate `webp` brings it.
    Stock,
    /// The obvious crates used in the obvious way: `image`, `imageops`, `webp`.
    Naive,
}

impl Variant {
    pub const ALL: [Self; 5] = [Self::Method4, Self::Method2, Self::Method6, Self::Stock, Self::Naive];

    pub fn title(self) -> &'static str {
        match self {
            Self::Method2 => "image-worker, method 2",
            Self::Method4 => "**image-worker, method 4**",
            Self::Method6 => "image-worker, method 6",
            Self::Stock => "same, `webp` unchanged, method 4",
            Self::Naive => "`image` + `imageops` + `webp`",
        }
    }

    /// Makes the WebP of a PNG.
    pub fn run(self, source: &[u8], quality: f32) -> Vec<u8> {
        let by = |method| {
            let settings = RenderSettings { quality, method, ..Default::default() };
            render(source, &settings, &[]).unwrap().rendition.bytes.to_vec()
        };
        match self {
            Self::Method2 => by(2),
            Self::Method4 => by(4),
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

/// CPU time of one picture on one thread, and of the same on two at once. Waiting for a core does not count, so this shows
/// what two share: caches, memory, the allocator.
pub fn scaling(sources: &[Vec<u8>], rounds: usize) -> (f64, f64) {
    let pass = || {
        let began = cpu_nanoseconds();
        for source in sources {
            std::hint::black_box(Variant::Method4.run(source, 80.0));
        }
        (cpu_nanoseconds() - began) as f64 / 1e6 / sources.len() as f64
    };
    let (mut one, mut two) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..rounds {
        one = one.min(pass());
        let both = std::thread::scope(|scope| {
            let other = scope.spawn(pass);
            let mine = pass();
            (mine + other.join().unwrap()) / 2.0
        });
        two = two.min(both);
    }
    (one, two)
}

/// Reads a WebP.
pub fn read_webp(bytes: &[u8]) -> image::RgbImage {
    let mut reader = image::ImageReader::new(Cursor::new(bytes));
    reader.set_format(ImageFormat::WebP);
    reader.decode().unwrap().into_rgb8()
}
