//! Every kind of source against the picture it shows: dimensions, SSIMULACRA2, and at least 30 % smaller than the PNG.

use fast_ssim2::{PixelDescriptor, PixelSlice, compute_ssimulacra2};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

use super::test_sources::*;
use super::*;

/// 50 is 'medium quality' by the authors of SSIMULACRA2, 70 is 'high'.
const AT_LEAST: f64 = 55.0;

fn ssimulacra2(left: &RgbImage, right: &RgbImage) -> f64 {
    fn slice(image: &RgbImage) -> PixelSlice<'_> {
        let stride = image.width() as usize * 3;
        PixelSlice::new(image.as_raw(), image.width(), image.height(), stride, PixelDescriptor::RGB8_SRGB).unwrap()
    }
    compute_ssimulacra2(&slice(left), &slice(right)).unwrap()
}

/// Discs on a slope, as in an illustration.
fn poster(side: u32) -> RgbImage {
    RgbImage::from_fn(side, side, |x, y| {
        let disc = (0..9).rev().find(|disc| {
            let (cx, cy) = (side / 10 * (disc + 1), side / 10 * (disc * 7 % 10));
            x.abs_diff(cx).pow(2) + y.abs_diff(cy).pow(2) < (side / 8).pow(2)
        });
        let shade = |value: u32| u8::try_from(value % 256).unwrap();
        disc.map_or(Rgb([200, shade(y * 120 / side + 100), 180]), |disc| {
            Rgb([shade(disc * 83), shade(disc * 151 + 40), shade(disc * 47 + 90)])
        })
    })
}

/// The scene with the grain of a photograph.
fn grainy(side: u32) -> RgbImage {
    let mut noise = 0x2545_f491_u32;
    let mut image = scene(side, side);
    for sample in image.iter_mut() {
        noise ^= noise << 13;
        noise ^= noise >> 17;
        noise ^= noise << 5;
        *sample = sample.saturating_add(u8::try_from(noise % 8).unwrap());
    }
    image
}

#[test]
fn every_source_keeps_its_looks_and_loses_a_third_of_its_bytes() {
    for (picture, image) in [("scene", scene(1024, 1024)), ("grain", grainy(1024)), ("poster", poster(1024))] {
        let rgb = DynamicImage::ImageRgb8(image.clone());
        let grey = DynamicImage::ImageLuma8(rgb.to_luma8());
        let sources = [
            ("RGB", png_of(image.clone()), &image),
            ("opaque RGBA", png_of(rgb.to_rgba8()), &image),
            ("16 bit RGB", png_of(rgb.to_rgb16()), &image),
            ("16 bit RGBA", png_of(rgb.to_rgba16()), &image),
            ("grey", png_of(grey.to_luma8()), &grey.to_rgb8()),
            ("interlaced", interlaced_png(&image), &image),
            ("JPEG", jpeg_of(&image, None), &image),
            ("WebP", encoded(&rgb, ImageFormat::WebP), &image),
        ];
        for (kind, source, expected) in sources {
            let name = format!("{picture} as {kind}");
            let rendered = render(&source, &RenderSettings::default(), &[]).unwrap().rendition;
            let found = image::load_from_memory_with_format(&rendered.bytes, ImageFormat::WebP).unwrap().into_rgb8();
            assert_eq!(found.dimensions(), (STANDARD_SIDE, STANDARD_SIDE), "{name}");
            let score = ssimulacra2(expected, &found);
            assert!(score >= AT_LEAST, "{name}: SSIMULACRA2 {score:.1}, less than {AT_LEAST}");
            let png = png_of(expected.clone()).len();
            assert!(rendered.bytes.len() * 10 <= png * 7, "{name}: {} bytes, the PNG has {png}", rendered.bytes.len());
        }
    }
}

#[test]
fn an_interlaced_png_is_the_same_picture() {
    for (width, height) in [(1, 1), (3, 5), (8, 8), (37, 23)] {
        let image = scene(width, height);
        let pixels = decode::decode(&interlaced_png(&image), 1 << 20).unwrap();
        assert!(pixels.rgb == *image.as_raw(), "{width}x{height}");
    }
}
