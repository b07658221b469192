//! Every kind of source, damaged sources and bombs, through the whole of `render`.

use std::io::Cursor;

use clap::Parser;
use image::codecs::webp::WebPEncoder;
use image::{DynamicImage, ImageFormat as FileFormat, Rgb, RgbImage, Rgba, imageops};
use proptest::prelude::*;

use super::test_sources::*;
use super::*;

pub(super) fn webp_pixels(webp: &[u8]) -> RgbImage {
    let mut decoder = image::ImageReader::new(Cursor::new(webp));
    decoder.set_format(FileFormat::WebP);
    decoder.decode().unwrap().into_rgb8()
}

fn rendered(source: &[u8]) -> RgbImage {
    let rendered = render(source, &RenderSettings::default(), &[], &Provenance::default()).unwrap();
    let rendition = &rendered.rendition;
    assert_eq!(rendition.spec, RenditionSpec::STANDARD);
    let image = webp_pixels(&rendition.bytes);
    assert_eq!(image.dimensions(), (1024, 1024));
    image
}

/// Peak signal-to-noise ratio in decibels; over 30 is 'the same picture' for a lossy encoder.
fn psnr(left: &RgbImage, right: &RgbImage) -> f64 {
    assert_eq!(left.dimensions(), right.dimensions());
    let squares: f64 =
        left.as_raw().iter().zip(right.as_raw()).map(|(&l, &r)| (f64::from(l) - f64::from(r)).powi(2)).sum();
    let mean = squares / f64::from(left.width()) / f64::from(left.height()) / 3.0;
    if mean == 0.0 { f64::INFINITY } else { 10.0 * (255.0 * 255.0 / mean).log10() }
}

/// The obvious way: crop in whole pixels, then `imageops`.
pub(super) fn reference(image: &RgbImage) -> RgbImage {
    let side = image.width().min(image.height());
    let (left, top) = ((image.width() - side) / 2, (image.height() - side) / 2);
    let square = imageops::crop_imm(image, left, top, side, side).to_image();
    imageops::resize(&square, STANDARD_SIDE, STANDARD_SIDE, imageops::FilterType::Lanczos3)
}

pub(super) fn assert_close(found: &RgbImage, expected: &RgbImage, at_least: f64, name: &str) {
    let decibels = psnr(found, expected);
    assert!(decibels >= at_least, "{name}: {decibels:.1} dB, less than {at_least}");
}

fn assert_color(image: &RgbImage, expected: [u8; 3], name: &str) {
    for pixel in [image.get_pixel(5, 5), image.get_pixel(512, 512), image.get_pixel(1018, 1018)] {
        for (found, expected) in pixel.0.into_iter().zip(expected) {
            assert!(found.abs_diff(expected) <= 4, "{name}: {pixel:?} is not {expected:?}");
        }
    }
}

#[test]
fn every_shape_becomes_the_reference_square() {
    for (width, height) in
        [(1024, 1024), (1536, 1536), (1536, 1024), (1024, 1536), (512, 512), (2048, 1000), (333, 777), (1025, 1024)]
    {
        let source = scene(width, height);
        assert_close(&rendered(&png_of(source.clone())), &reference(&source), 36.0, &format!("{width}x{height}"));
    }
}

#[test]
fn formats_and_colour_types_become_the_same_picture() {
    let source = scene(600, 600);
    let expected = reference(&source);
    let rgb = DynamicImage::ImageRgb8(source.clone());
    let mut webp = Vec::new();
    WebPEncoder::new_lossless(&mut webp).encode(source.as_raw(), 600, 600, image::ExtendedColorType::Rgb8).unwrap();
    let lossy = webp::Encoder::from_rgb(source.as_raw(), 600, 600).encode_simple(false, 95.0).unwrap().to_vec();
    for (name, bytes, at_least) in [
        ("8 bit RGB", png_of(source.clone()), 36.0),
        ("16 bit RGB", png_of(rgb.to_rgb16()), 36.0),
        ("opaque RGBA", png_of(rgb.to_rgba8()), 36.0),
        ("opaque 16 bit RGBA", png_of(rgb.to_rgba16()), 36.0),
        ("JPEG", jpeg_of(&source, None), 34.0),
        ("lossless WebP", webp, 36.0),
        ("lossy WebP", lossy, 34.0),
        ("WebP with alpha", encoded(&rgb.to_rgba8().into(), FileFormat::WebP), 36.0),
    ] {
        assert_close(&rendered(&bytes), &expected, at_least, name);
    }
    let grey = DynamicImage::ImageLuma8(rgb.to_luma8());
    let expected = reference(&grey.to_rgb8());
    for (name, bytes) in [
        ("8 bit grey", png_of(grey.to_luma8())),
        ("16 bit grey", png_of(grey.to_luma16())),
        ("grey with alpha", png_of(grey.to_luma_alpha8())),
        ("16 bit grey with alpha", png_of(grey.to_luma_alpha16())),
        ("grey JPEG", encoded(&grey, FileFormat::Jpeg)),
    ] {
        assert_close(&rendered(&bytes), &expected, 34.0, name);
    }
}

#[test]
fn colours_are_exact_where_they_can_be() {
    use png::{BitDepth, ColorType};
    let clear = image::RgbaImage::from_pixel(64, 64, Rgba([10, 20, 30, 0]));
    let half = image::RgbaImage::from_pixel(64, 64, Rgba([0, 0, 0, 128]));
    for (name, bytes, expected) in [
        ("1x1", png_of(RgbImage::from_pixel(1, 1, Rgb([30, 60, 90]))), [30, 60, 90]),
        ("palette of 8 bits", raw_png(16, 16, ColorType::Indexed, BitDepth::Eight, &[0; 256]), [200, 30, 40]),
        ("palette of 1 bit", raw_png(16, 16, ColorType::Indexed, BitDepth::One, &[0; 32]), [200, 30, 40]),
        ("grey of 1 bit", raw_png(16, 16, ColorType::Grayscale, BitDepth::One, &[255; 32]), [255; 3]),
        ("grey of 4 bits", raw_png(16, 16, ColorType::Grayscale, BitDepth::Four, &[0x88; 128]), [0x88; 3]),
        ("transparent on white", png_of(clear.clone()), [255; 3]),
        ("half transparent", png_of(half), [127; 3]),
        ("transparent WebP", encoded(&clear.into(), FileFormat::WebP), [255; 3]),
        ("CMYK white", cmyk_jpeg(&[[255; 4]], 1), [255; 3]),
        ("CMYK black", cmyk_jpeg(&[[255, 255, 255, 0]], 1), [0; 3]),
        ("CMYK cyan", cmyk_jpeg(&[[0, 255, 255, 255]], 1), [0, 255, 255]),
    ] {
        let found = rendered(&bytes);
        // Chroma is subsampled and quantised, so a saturated colour moves a little.
        assert_color(&found, expected, name);
    }
}

#[test]
fn exif_orientation_is_applied_to_jpegs() {
    let upright = scene(300, 200);
    let expected = reference(&upright);
    // What a camera stores so that a viewer who follows the tag sees `upright`.
    for (orientation, stored) in [
        (1, upright.clone()),
        (2, imageops::flip_horizontal(&upright)),
        (3, imageops::rotate180(&upright)),
        (4, imageops::flip_vertical(&upright)),
        (5, imageops::flip_horizontal(&imageops::rotate90(&upright))),
        (6, imageops::rotate270(&upright)),
        (7, imageops::flip_horizontal(&imageops::rotate270(&upright))),
        (8, imageops::rotate90(&upright)),
    ] {
        let name = format!("orientation {orientation}");
        assert_close(&rendered(&jpeg_of(&stored, Some(orientation))), &expected, 30.0, &name);
    }
    // A tag out of range is no reason to lose the picture.
    assert_close(&rendered(&jpeg_of(&upright, Some(99))), &expected, 30.0, "orientation 99");
}

#[test]
fn the_crop_is_centred() {
    // Only the middle is green: 100 columns of red and of blue must go.
    for (width, height) in [(1224, 1024), (1024, 1224), (2448, 2048), (712, 512)] {
        let margin = (width.max(height) - width.min(height)) / 2;
        let image = RgbImage::from_fn(width, height, |x, y| {
            let along = if width > height { x } else { y };
            match along {
                _ if along < margin => Rgb([255, 0, 0]),
                _ if along >= width.max(height) - margin => Rgb([0, 0, 255]),
                _ => Rgb([0, 128, 0]),
            }
        });
        let pixels = Pixels { width, height, rgb: image.into_raw() };
        let square = resize::to_square(pixels, STANDARD_SIDE).unwrap();
        assert!(square.rgb.as_chunks::<3>().0.iter().all(|&rgb| rgb == [0, 128, 0]), "{width}x{height}");
    }
}

#[test]
fn a_picture_of_the_right_size_is_not_resampled() {
    let pixels = Pixels { width: 1024, height: 1024, rgb: scene(1024, 1024).into_raw() };
    assert_eq!(resize::to_square(pixels.clone(), 1024).unwrap(), pixels);
}

#[test]
fn the_webp_has_one_chunk_and_no_metadata() {
    let mut source = Vec::new();
    let mut info = png::Info::with_size(64, 64);
    info.icc_profile = Some(vec![7; 5000].into());
    info.exif_metadata = Some(b"II*\0".into());
    let mut encoder = png::Encoder::with_info(&mut source, info).unwrap();
    encoder.set_color(png::ColorType::Rgb);
    encoder.add_text_chunk("prompt".into(), "a secret".into()).unwrap();
    encoder.write_header().unwrap().write_image_data(scene(64, 64).as_raw()).unwrap();

    let bytes = render(&source, &RenderSettings::default(), &[], &Provenance::default()).unwrap().rendition.bytes;
    assert_eq!((&bytes[..4], &bytes[8..12]), (b"RIFF".as_slice(), b"WEBP".as_slice()));
    let mut rest = &bytes[12..];
    let mut chunks = Vec::new();
    while let Some((header, body)) = rest.split_first_chunk::<8>() {
        let size = u32::from_le_bytes(header[4..].try_into().unwrap()) as usize;
        chunks.push(header[..4].to_vec());
        rest = &body[size + size % 2..];
    }
    assert_eq!(chunks, [b"VP8X", b"VP8 ", b"XMP "]);
    assert!(!bytes.windows(8).any(|window| window == b"a secret"));
}

#[test]
fn checksum_placeholder_and_settings_fit_the_bytes() {
    let source = png_of(scene(512, 512));
    let default = render(&source, &RenderSettings::default(), &[], &Provenance::default()).unwrap();
    let digits = default.rendition.sha256.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    let sha256: Vec<_> = digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
    assert_eq!(sha256, Sha256::digest(&default.rendition.bytes).as_slice());
    let hash = base64_simd::STANDARD.decode_to_vec(&default.thumbhash).unwrap();
    let [red, green, blue, alpha] = {
        let (r, g, b, a) = thumbhash::thumb_hash_to_average_rgba(&hash).unwrap();
        [r, g, b, a].map(f64::from)
    };
    // The scene runs from 0 to 1 in red, from 0 to 0.7 in green and about 0.4 in blue.
    for (found, expected) in [(red, 0.5), (green, 0.35), (blue, 0.4), (alpha, 1.0)] {
        assert!((found - expected).abs() < 0.05, "{red} {green} {blue} {alpha}");
    }
    let again = render(&source, &RenderSettings::default(), &[], &Provenance::default()).unwrap();
    assert_eq!(again.rendition, default.rendition);
    for settings in
        [RenderSettings { quality: 20.0, ..Default::default() }, RenderSettings { method: 0, ..Default::default() }]
    {
        assert_ne!(render(&source, &settings, &[], &Provenance::default()).unwrap().rendition, default.rendition);
    }
}

#[test]
fn sources_that_are_no_picture_are_named() {
    let animated = b"RIFF\x1a\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0\0\0\0\0\0\0";
    for source in [
        b"".as_slice(),
        b"GIF89a",
        b"<svg/>",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"RIFF\0\0\0\0WEBP",
        b"RIFF",
        animated,
    ] {
        let error = render(source, &RenderSettings::default(), &[], &Provenance::default()).unwrap_err();
        assert!(matches!(error, RenderError::Undecodable(_)), "{error}");
        assert!(error.is_source_at_fault());
        assert_eq!(JobError::from(error).kind, Kind::SourceUndecodable);
    }
    let long = vec![0; MAX_SOURCE_BYTES + 1];
    let text = render(&long, &RenderSettings::default(), &[], &Provenance::default()).unwrap_err().to_string();
    assert_eq!(text, "source cannot be decoded: it has 25000001 bytes, at most 25000000 are read");
    assert_eq!(JobError::from(RenderError::Encode("x".into())).kind, Kind::RenderFailed);
}

#[test]
fn a_cut_off_source_is_an_error_and_never_a_panic() {
    let source = scene(40, 30);
    let rgba = DynamicImage::ImageRgb8(source.clone()).to_rgba8();
    for bytes in [
        png_of(source.clone()),
        jpeg_of(&source, Some(6)),
        cmyk_jpeg(&[[255; 4]], 1),
        encoded(&rgba.into(), FileFormat::WebP),
        webp::Encoder::from_rgb(source.as_raw(), 40, 30).encode_simple(false, 80.0).unwrap().to_vec(),
    ] {
        decode::decode(&bytes, 1 << 20).unwrap();
        // The last chunk of a PNG says only that it ends, and the last byte of an odd WebP is padding.
        let picture = if bytes.starts_with(b"\x89PNG") { bytes.len() - 16 } else { bytes.len() - 2 };
        for end in (0..picture).step_by(3).chain([picture - 1]) {
            decode::decode(&bytes[..end], 1 << 20).map(|_| ()).expect_err(&format!("{:?} cut at {end}", &bytes[..4]));
        }
    }
}

#[test]
fn more_pixels_than_allowed_are_refused_by_the_header_alone() {
    let too_large = |width, height| Err(RenderError::TooLarge { width, height });
    let settings = RenderSettings::default();

    let mut png = raw_png(1, 1, png::ColorType::Rgba, png::BitDepth::Sixteen, &[0; 8]);
    png[16..24].copy_from_slice(&[60_000_u32.to_be_bytes(), 60_000_u32.to_be_bytes()].concat());
    let crc = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(render(&png, &settings, &[], &Provenance::default()), too_large(60_000, 60_000));

    let mut jpeg = jpeg_of(&scene(8, 8), None);
    let frame = jpeg.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].fill(0xff);
    assert_eq!(render(&jpeg, &settings, &[], &Provenance::default()), too_large(65_535, 65_535));

    let mut webp = webp::Encoder::from_rgb(scene(8, 8).as_raw(), 8, 8).encode_simple(false, 80.0).unwrap().to_vec();
    webp[26..30].fill(0xff);
    assert_eq!(render(&webp, &settings, &[], &Provenance::default()), too_large(16_383, 16_383));

    // A large frame on a small canvas: the canvas alone would pass.
    let frame = webp.split_off(12);
    webp.extend(b"VP8X\x0a\0\0\0\0\0\0\0\x07\0\0\x07\0\0");
    webp.extend(frame);
    assert_eq!(render(&webp, &settings, &[], &Provenance::default()), too_large(16_383, 16_383));
}

#[test]
fn the_size_is_checked_where_nothing_is_resized() {
    let source = png_of(scene(1024, 1024));
    let settings = RenderSettings { max_source_pixels: 1024 * 1024 - 1, ..Default::default() };
    assert_eq!(
        render(&source, &settings, &[], &Provenance::default()),
        Err(RenderError::TooLarge { width: 1024, height: 1024 })
    );
    let settings = RenderSettings { max_source_pixels: 1024 * 1024, ..Default::default() };
    assert!(render(&source, &settings, &[], &Provenance::default()).is_ok());
}

#[test]
fn metadata_that_inflates_is_not_inflated() {
    // 64 MB of zeros in 64 kB, as text and as colour profile, in front of a picture of one pixel.
    let zeros = vec![0; 64 << 20];
    let mut png = Vec::new();
    let mut info = png::Info::with_size(1, 1);
    info.icc_profile = Some(zeros.into());
    let mut encoder = png::Encoder::with_info(&mut png, info).unwrap();
    encoder.set_color(png::ColorType::Rgb);
    encoder.add_ztxt_chunk("Comment".into(), "\0".repeat(64 << 20)).unwrap();
    encoder.write_header().unwrap().write_image_data(&[1, 2, 3]).unwrap();
    assert!(png.len() < 400_000, "{} bytes", png.len());

    match decode::decode(&png, 1 << 20) {
        Ok(pixels) => assert_eq!(pixels.rgb, [1, 2, 3]),
        Err(error) => assert!(error.is_source_at_fault(), "{error}"),
    }
}

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    render: RenderSettings,
}

#[test]
fn settings_have_defaults_and_refuse_what_cannot_be() {
    assert_eq!(Command::try_parse_from(["worker"]).unwrap().render, RenderSettings::default());
    for (flag, value) in [
        ("--render-quality", "101"),
        ("--render-quality", "-1"),
        ("--render-quality", "NaN"),
        ("--render-quality", "good"),
        ("--render-method", "7"),
        ("--render-max-source-pixels", "0"),
    ] {
        let argument = format!("{flag}={value}");
        let text = Command::try_parse_from(["worker", &argument]).map(|_| ()).unwrap_err().to_string();
        assert!(text.contains(flag) && text.contains(value), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_behind_any_magic_never_panic(
        magic in prop::sample::select(vec![
            b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".as_slice(), b"\xff\xd8\xff", b"RIFF\x10\0\0\0WEBPVP8 ", b"RIFF\x10\0\0\0WEBPVP8L",
            b"RIFF\x10\0\0\0WEBPVP8X", b"",
        ]),
        tail in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let bytes = [magic, &tail].concat();
        prop_assert!(decode::decode(&bytes, 1 << 20).is_err());
    }

    #[test]
    fn any_damage_to_a_picture_never_panics(
        kind in 0..3_usize, damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let source = scene(24, 17);
        let mut bytes = match kind {
            0 => png_of(source),
            1 => jpeg_of(&source, Some(6)),
            _ => encoded(&DynamicImage::ImageRgb8(source), FileFormat::WebP),
        };
        for (index, value) in damage {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        if let Err(error) = decode::decode(&bytes, 1 << 20) {
            prop_assert!(error.is_source_at_fault());
        }
    }
}
