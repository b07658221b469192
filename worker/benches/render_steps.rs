//! What each step from the model's answer to the picture takes: parse, decode, resize, placeholder, encode.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::io::Cursor;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use worker::generate::{GenerateRequest, parse_answer};
use worker::render::decode::decode;
use worker::render::encode::{avif, stock_webp, webp};
use worker::render::placeholder::thumbhash;
use worker::render::provenance::stamped;
use worker::render::resize::to_square;
use worker::render::{Pixels, Provenance, RenderSettings, render};

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

/// With an alpha that must be blended.
fn translucent(image: &DynamicImage) -> DynamicImage {
    let mut image = image.to_rgba8();
    image.pixels_mut().for_each(|pixel| pixel.0[3] = 200);
    image.into()
}

fn steps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("render");
    group.sample_size(20);
    let rgb = DynamicImage::ImageRgb8(scene(1024));
    for (name, source) in [
        ("decode RGB PNG", encoded(&rgb, ImageFormat::Png)),
        ("decode RGBA PNG, opaque", encoded(&rgb.to_rgba8().into(), ImageFormat::Png)),
        ("decode RGBA PNG, translucent", encoded(&translucent(&rgb), ImageFormat::Png)),
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
    // What is cut and not scaled, and what is neither.
    for (name, width) in [("1536x1024 to 1024, a crop", 1536), ("1024 to 1024, nothing to do", 1024)] {
        let rgb = image::imageops::crop_imm(&scene(1536), 0, 0, width, 1024).to_image().into_raw();
        let pixels = Pixels { width, height: 1024, rgb };
        group.bench_function(name, |bencher| {
            let square = |pixels| to_square(pixels, 1024).unwrap();
            bencher.iter_batched(|| pixels.clone(), square, criterion::BatchSize::LargeInput);
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
    group.bench_function("encode AVIF, speed 10", |bencher| bencher.iter(|| avif(black_box(&pixels), 70, 10).unwrap()));
    let file = webp(&pixels, 80.0, 4).unwrap();
    let xmp =
        Provenance { model: Some("stability.stable-image-core-v1:1".into()), made_at: Some(Timestamp::UNIX_EPOCH) };
    let plain = Bytes::copy_from_slice(&file);
    group.bench_function("XMP of the picture", |bencher| {
        bencher.iter(|| stamped(black_box(&plain).clone(), &black_box(&xmp).xmp()).unwrap());
    });
    group.bench_function("SHA-256 of the picture", |bencher| bencher.iter(|| Sha256::digest(black_box(&file))));
    let source = encoded(&rgb, ImageFormat::Png);
    group.bench_function("all of it", |bencher| {
        bencher.iter(|| render(black_box(&source), &RenderSettings::default(), &[], &Provenance::default()).unwrap());
    });
    group.finish();
}

/// What `InvokeModel` answers, with a picture as long as a PNG of 1024x1024 with the content of a photograph: read as the
/// worker does, and in two obvious ways.
fn answer(criterion: &mut Criterion) {
    let picture = base64_simd::STANDARD.encode_to_string(vec![0x5a; 2_000_000]);
    let body = serde_json::json!({ "seeds": [7], "finish_reasons": [null], "images": [&picture] }).to_string();
    let request = GenerateRequest { prompt: "a fox".into(), negative_prompt: None, seed: 7 };
    let picture_of = |answer: &serde_json::Value| {
        base64_simd::STANDARD.decode_to_vec(answer["images"][0].as_str().unwrap()).unwrap()
    };
    let mut group = criterion.benchmark_group("answer of 2 MB");
    group.bench_function("as the worker reads it", |bencher| {
        bencher.iter(|| parse_answer(black_box(body.as_bytes()), &request).unwrap());
    });
    group.bench_function("from_slice to a Value, base64", |bencher| {
        bencher.iter(|| picture_of(&serde_json::from_slice(black_box(body.as_bytes())).unwrap()));
    });
    group.bench_function("from_reader to a Value, base64", |bencher| {
        bencher.iter(|| picture_of(&serde_json::from_reader(black_box(body.as_bytes())).unwrap()));
    });
    group.bench_function("base64 alone", |bencher| {
        bencher.iter(|| base64_simd::STANDARD.decode_to_vec(black_box(&picture)).unwrap());
    });
    group.bench_function("base64 alone, without SIMD (crate `base64`)", |bencher| {
        bencher.iter(|| BASE64_STANDARD.decode(black_box(&picture)).unwrap());
    });
    group.finish();
}

/// What a buffer kept for the next picture could save: the resizer's own, and one for the decoder to fill.
fn buffers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("buffers");
    let pixels = scene(1536).into_raw();
    let source = ImageRef::new(1536, 1536, &pixels, PixelType::U8x3).unwrap();
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3)).use_alpha(false);
    group.bench_function("resize 1536 to 1024, all of it new", |bencher| {
        bencher.iter(|| {
            let mut target = Image::new(1024, 1024, PixelType::U8x3);
            Resizer::new().resize(black_box(&source), &mut target, &options).unwrap();
            target
        });
    });
    let (mut resizer, mut target) = (Resizer::new(), Image::new(1024, 1024, PixelType::U8x3));
    group.bench_function("resize 1536 to 1024, resizer and target kept", |bencher| {
        bencher.iter(|| resizer.resize(black_box(&source), &mut target, &options).unwrap());
    });
    let bytes = 1536 * 1536 * 3;
    group.bench_function("7 MB of zeros, new", |bencher| bencher.iter(|| vec![0_u8; black_box(bytes)]));
    let mut kept = vec![1_u8; bytes];
    group.bench_function("7 MB of zeros, kept", |bencher| bencher.iter(|| black_box(&mut kept).fill(0)));
    group.finish();
}

criterion_group!(benches, steps, answer, buffers);
criterion_main!(benches);
