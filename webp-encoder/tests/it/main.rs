//! Any picture, any settings: what comes out decodes, and methods other than 4 are libwebp's own bytes.
#![allow(clippy::unwrap_used)]

use webp_encoder::{EncodeError, encode};

/// Numbers without a pattern (xorshift), the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Flat areas, slopes, stripes and noise side by side.
fn picture(width: u32, height: u32, seed: u64) -> Vec<u8> {
    let mut noise = Noise(seed | 1);
    let mut rgb = Vec::new();
    for y in 0..u64::from(height) {
        for x in 0..u64::from(width) {
            let value = match (x / 24 + y / 40 + seed) % 5 {
                0 => [200, 30, 60],
                1 => [(x * 3) % 256, (y * 2) % 256, (x + y) % 256],
                2 => [noise.next() % 256, noise.next() % 256, noise.next() % 256],
                3 => [255 * (x / 2 % 2), 255 * (y / 3 % 2), 128],
                _ => [128 + noise.next() % 9, 120, (x * y) % 256],
            };
            rgb.extend(value.map(|value| u8::try_from(value).unwrap()));
        }
    }
    rgb
}

fn decoded(bytes: &[u8]) -> image::RgbImage {
    image::load_from_memory_with_format(bytes, image::ImageFormat::WebP).unwrap().into_rgb8()
}

fn mean_square(left: &[u8], right: &[u8]) -> f64 {
    let sum: f64 = left.iter().zip(right).map(|(&l, &r)| (f64::from(l) - f64::from(r)).powi(2)).sum();
    sum / left.len() as f64
}

#[test]
fn every_size_up_to_two_macroblocks_decodes() {
    for width in 1..=33 {
        for height in [1, 2, 3, 15, 16, 17, 31, 33] {
            let rgb = picture(width, height, u64::from(width * 64 + height));
            let encoded = encode(&rgb, width, height, 80.0, 4).unwrap();
            let image = decoded(encoded.as_ref());
            assert_eq!(image.dimensions(), (width, height));
        }
    }
}

#[test]
fn every_quality_and_method_decodes_and_more_quality_is_closer() {
    let (width, height) = (203, 157);
    let rgb = picture(width, height, 7);
    for method in 0..=6 {
        let errors: Vec<f64> = [0.0, 30.0, 60.0, 90.0, 100.0]
            .map(|quality| {
                let encoded = encode(&rgb, width, height, quality, method).unwrap();
                mean_square(decoded(encoded.as_ref()).as_raw(), &rgb)
            })
            .to_vec();
        assert!(errors.is_sorted_by(|worse, better| worse > better), "method {method}: {errors:?}");
    }
}

#[test]
fn pictures_without_a_pattern_decode() {
    for seed in 1..200 {
        let mut noise = Noise(seed * 0x9e37_79b9);
        let mut side = || 1 + u32::try_from(noise.next() % 90).unwrap();
        let (width, height) = (side(), side());
        let rgb: Vec<u8> = (0..width * height * 3).map(|_| u8::try_from(noise.next() % 256).unwrap()).collect();
        let quality = f32::from(u8::try_from(seed % 101).unwrap());
        let encoded = encode(&rgb, width, height, quality, 4).unwrap();
        assert_eq!(decoded(encoded.as_ref()).dimensions(), (width, height));
    }
}

/// The coder of tokens and the histogram were rewritten for speed; they must not change a bit.
#[test]
fn the_other_methods_are_libwebps_own() {
    for (width, height, seed) in [(320, 200, 1), (97, 211, 2), (512, 512, 3)] {
        let rgb = picture(width, height, seed);
        for (quality, method) in [(80.0, 0), (80.0, 2), (80.0, 3), (80.0, 5), (35.0, 5), (98.5, 6), (5.0, 6)] {
            let mut config = webp::WebPConfig::new().unwrap();
            config.quality = quality;
            config.method = method.into();
            let theirs = webp::Encoder::from_rgb(&rgb, width, height).encode_advanced(&config).unwrap();
            let ours = encode(&rgb, width, height, quality, method).unwrap();
            assert!(ours.as_ref() == &*theirs, "{width}x{height}, quality {quality}, method {method}");
        }
    }
}

#[test]
fn the_pruned_search_is_no_larger_and_no_further_off() {
    let (mut ours, mut theirs) = ((0, 0.0), (0, 0.0));
    for seed in 1..=5 {
        let rgb = picture(640, 480, seed);
        let pruned = encode(&rgb, 640, 480, 80.0, 4).unwrap();
        ours.0 += pruned.as_ref().len();
        ours.1 += mean_square(decoded(pruned.as_ref()).as_raw(), &rgb);
        let mut config = webp::WebPConfig::new().unwrap();
        config.quality = 80.0;
        config.method = 4;
        let full = webp::Encoder::from_rgb(&rgb, 640, 480).encode_advanced(&config).unwrap();
        theirs.0 += full.len();
        theirs.1 += mean_square(decoded(&full).as_raw(), &rgb);
    }
    assert!(ours.0 as f64 <= theirs.0 as f64 * 1.01, "{ours:?} {theirs:?}");
    assert!(ours.1 <= theirs.1 * 1.05, "{ours:?} {theirs:?}");
}

#[test]
fn threads_do_not_disturb_each_other() {
    let rgb = picture(256, 256, 11);
    let expected = encode(&rgb, 256, 256, 80.0, 4).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert!(encode(&rgb, 256, 256, 80.0, 4).unwrap().as_ref() == expected.as_ref());
                }
            });
        }
    });
}

#[test]
fn what_is_no_picture_is_refused() {
    for (width, height, bytes) in [(0, 4, 0), (4, 0, 0), (2, 2, 11), (2, 2, 13), (16_384, 1, 16_384 * 3)] {
        let error = encode(&vec![0; bytes], width, height, 80.0, 4).unwrap_err();
        assert_eq!(error, EncodeError::Dimensions { width, height, bytes });
    }
    for (quality, method) in [(-1.0, 4), (100.5, 4), (f32::NAN, 4), (80.0, 7)] {
        let error = encode(&[0; 12], 2, 2, quality, method).unwrap_err();
        assert_eq!(error, EncodeError::Settings { quality: quality.to_string(), method });
    }
}
