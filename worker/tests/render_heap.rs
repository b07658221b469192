//! How much memory one render takes: at most 1.6 times the pixels of source and picture, libwebp's own included. A binary of
//! its own, because it counts what the whole program allocates.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use job::{ImageFormat as Format, RenditionSpec, STANDARD_SIDE};
use peak_alloc::PeakAlloc;
use worker::render::{Provenance, RenderSettings, render};

/// libwebp takes its memory from here too (webp-encoder/src/memory.rs).
#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const LIMIT: f64 = 1.6;

/// One test: a second one would run beside it and be counted.
#[test]
fn a_render_takes_at_most_its_pixels_and_six_tenths() {
    let mut beyond = Vec::new();
    println!("| source | source and picture, MiB | peak of the heap, MiB | ratio | |\n|---|--:|--:|--:|---|");
    for side in [1024, 1536, 2048] {
        let rgb = DynamicImage::ImageRgb8(noisy(side));
        for (kind, image, format, is_bound) in [
            ("RGB PNG", rgb.clone(), ImageFormat::Png, true),
            ("RGBA PNG", rgb.to_rgba8().into(), ImageFormat::Png, true),
            ("JPEG", rgb.clone(), ImageFormat::Jpeg, true),
            // What no model returns unless asked for it: 16 bits are six bytes a pixel before they are three, and the decoder of WebP keeps tables
            // and a second picture.
            ("16 bit PNG", rgb.to_rgb16().into(), ImageFormat::Png, false),
            ("lossless WebP", rgb.clone(), ImageFormat::WebP, false),
        ] {
            let mut source = Vec::new();
            image.write_to(&mut Cursor::new(&mut source), format).unwrap();
            drop(image);
            let peak = peak_of(&source, &[]);
            // Three bytes a pixel, also where the source has four: the worker does not keep the fourth.
            let pixels = f64::from(side * side + STANDARD_SIDE * STANDARD_SIDE) * 3.0;
            let row = row(&format!("{side} px {kind}"), pixels, peak, is_bound);
            println!("{row}");
            // Less than the decoded source cannot be: then nothing was counted.
            if peak < pixels * 0.5 || (is_bound && peak > pixels * LIMIT) {
                beyond.push(row);
            }
        }
    }
    // Renditions run beside each other, and each has an encoder of its own.
    let mut source = Vec::new();
    DynamicImage::ImageRgb8(noisy(1536)).write_to(&mut Cursor::new(&mut source), ImageFormat::Png).unwrap();
    for (kind, extra) in [
        ("with 512 px WebP", vec![RenditionSpec::new(512, Format::Webp).unwrap()]),
        ("with 1024 px AVIF", vec![RenditionSpec::new(1024, Format::Avif).unwrap()]),
    ] {
        let pixels = f64::from(1536 * 1536 + STANDARD_SIDE * STANDARD_SIDE) * 3.0;
        println!("{}", row(&format!("1536 px RGB PNG, {kind}"), pixels, peak_of(&source, &extra), false));
    }
    assert!(beyond.is_empty(), "not within {LIMIT} times the pixels:\n{}", beyond.join("\n"));
}

/// Bytes at the most, over what there was before.
fn peak_of(source: &[u8], extra: &[RenditionSpec]) -> f64 {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let rendered = render(source, &RenderSettings::default(), extra, &Provenance::default()).unwrap();
    let peak = ALLOCATOR.peak_usage() - before;
    drop(rendered);
    peak as f64
}

fn row(source: &str, pixels: f64, peak: f64, is_bound: bool) -> String {
    let mib = f64::from(1 << 20);
    let limit = if is_bound { "limit 1.6" } else { "" };
    format!("| {source} | {:.1} | {:.1} | {:.2} | {limit} |", pixels / mib, peak / mib, peak / pixels)
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
