//! How much memory one render takes: at most 1.6 times the pixels of source and picture, libwebp's own included.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use job::STANDARD_SIDE;
use peak_alloc::PeakAlloc;
use worker::render::{RenderSettings, render};

/// libwebp takes its memory from here too (webp-encoder/src/memory.rs).
#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const LIMIT: f64 = 1.6;

fn main() {
    let mut is_kept = true;
    println!("| source | decoded and picture, MiB | peak of the heap, MiB | ratio |\n|---|--:|--:|--:|");
    for side in [1024, 1536, 2048] {
        for (kind, has_alpha) in [("RGB", false), ("RGBA", true)] {
            let image = DynamicImage::ImageRgb8(noisy(side));
            let image = if has_alpha { DynamicImage::ImageRgba8(image.into_rgba8()) } else { image };
            let mut source = Vec::new();
            image.write_to(&mut Cursor::new(&mut source), ImageFormat::Png).unwrap();
            drop(image);
            let before = ALLOCATOR.current_usage();
            ALLOCATOR.reset_peak_usage();
            let rendered = render(&source, &RenderSettings::default(), &[]).unwrap();
            let peak = (ALLOCATOR.peak_usage() - before) as f64;
            drop(rendered);
            let pixels = f64::from(side * side + STANDARD_SIDE * STANDARD_SIDE) * 3.0;
            let mib = f64::from(1 << 20);
            println!("| {side} px {kind} | {:.1} | {:.1} | {:.2} |", pixels / mib, peak / mib, peak / pixels);
            is_kept &= peak <= pixels * LIMIT;
        }
    }
    assert!(is_kept, "a render takes more than {LIMIT} times its pixels");
}

/// Half waves, half noise: more to code than a photograph has.
fn noisy(side: u32) -> RgbImage {
    let mut noise = 0x2545_f491_u32;
    RgbImage::from_fn(side, side, |x, y| {
        noise ^= noise << 13;
        noise ^= noise >> 17;
        noise ^= noise << 5;
        let grain = if x > y { noise % 48 } else { 0 };
        let byte = |value: u32| u8::try_from((value + grain) % 256).unwrap();
        Rgb([byte(x / 8), byte(y / 8), byte((x + y) / 16)])
    })
}
