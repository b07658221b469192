//! What each step of the render takes: decode, resize, placeholder, encode.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::io::Cursor;

use criterion::{Criterion, criterion_group, criterion_main};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use worker::render::decode::decode;
use worker::render::encode::{stock_webp, webp};
use worker::render::placeholder::thumbhash;
use worker::render::resize::to_square;
use worker::render::{Pixels, RenderSettings, render};

const MAX_PIXELS: u64 = 1 << 26;

/// The allocator of the worker.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Waves with a grain: costs a codec about what a photograph costs it.
fn scene(side: u32) -> RgbImage {
    let mut noise = 0x2545_f491_u32;
    RgbImage::from_fn(side, side, |x, y| {
        noise ^= noise << 13;
        noise ^= noise >> 17;
        noise ^= noise << 5;
        let (u, v) = (f64::from(x) / f64::from(side), f64::from(y) / f64::from(side));
        let wave = ((u * 37.0).sin() * (v * 23.0).cos() + 1.0) / 2.0;
        let grain = f64::from(noise % 16) / 255.0;
        #[expect(clippy::cast_possible_truncation, reason = "saturates, and that is wanted")]
        let byte = |share: f64| (share * 240.0 + grain * 255.0) as u8;
        Rgb([byte(u), byte(v * 0.7), byte(wave * 0.8)])
    })
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    image.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
    bytes
}

fn steps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("render");
    group.sample_size(20);
    let rgb = DynamicImage::ImageRgb8(scene(1024));
    for (name, source) in [
        ("decode RGB PNG", encoded(&rgb, ImageFormat::Png)),
        ("decode RGBA PNG", encoded(&rgb.to_rgba8().into(), ImageFormat::Png)),
        ("decode JPEG", encoded(&rgb, ImageFormat::Jpeg)),
        ("decode WebP", encoded(&rgb, ImageFormat::WebP)),
    ] {
        group.bench_function(name, |bencher| bencher.iter(|| decode(black_box(&source), MAX_PIXELS).unwrap()));
    }
    for side in [512, 1536, 2048] {
        let pixels = Pixels { width: side, height: side, rgb: scene(side).into_raw() };
        group.bench_function(format!("resize {side} to 1024"), |bencher| {
            bencher.iter_batched(
                || pixels.clone(),
                |pixels| to_square(pixels, 1024).unwrap(),
                criterion::BatchSize::LargeInput,
            );
        });
    }
    let pixels = Pixels { width: 1024, height: 1024, rgb: scene(1024).into_raw() };
    group.bench_function("thumbhash", |bencher| bencher.iter(|| thumbhash(black_box(&pixels)).unwrap()));
    for method in [2, 4, 5, 6] {
        group.bench_function(format!("encode, method {method}"), |bencher| {
            bencher.iter(|| webp(black_box(&pixels), 80.0, method).unwrap());
        });
    }
    group.bench_function("encode, method 4 of the crate webp", |bencher| {
        bencher.iter(|| stock_webp(black_box(&pixels), 80.0, 4).unwrap());
    });
    let source = encoded(&rgb, ImageFormat::Png);
    group.bench_function("all of it", |bencher| {
        bencher.iter(|| render(black_box(&source), &RenderSettings::default(), &[]).unwrap());
    });
    group.finish();
}

fn base64(criterion: &mut Criterion) {
    // As long as a PNG of 1024x1024 with the content of a photograph.
    let text = base64_simd::STANDARD.encode_to_string(vec![0x5a; 2_000_000]);
    criterion.bench_function("base64 of 2 MB", |bencher| {
        bencher.iter(|| base64_simd::STANDARD.decode_to_vec(black_box(&text)).unwrap());
    });
}

criterion_group!(benches, steps, base64);
criterion_main!(benches);
