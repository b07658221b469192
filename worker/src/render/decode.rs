//! Encoded source to `Pixels`, with every size checked before memory is taken for it.

use std::io::Cursor;

use image::codecs::jpeg::JpegDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageResult, Limits, RgbImage};

use super::{MAX_SOURCE_BYTES, Pixels, RenderError, png_rows};

/// Most memory a PNG may ask for beside its pixels: rows, colour profile, text. Real ones need a few kilobytes.
pub(super) const MAX_METADATA_BYTES: usize = 4 * 1024 * 1024;

/// Decodes a PNG, JPEG or WebP. Colour profiles are not applied: models return sRGB. Transparency is flattened on white
/// and an EXIF orientation is applied.
///
/// # Errors
/// [`RenderError::Undecodable`] or [`RenderError::TooLarge`].
pub fn decode(source: &[u8], max_pixels: u64) -> Result<Pixels, RenderError> {
    if source.len() > MAX_SOURCE_BYTES {
        let found = source.len();
        return Err(RenderError::Undecodable(format!("it has {found} bytes, at most {MAX_SOURCE_BYTES} are read")));
    }
    if source.starts_with(b"\x89PNG\r\n\x1a\n") {
        if let Some(pixels) = png_rows::read(source, max_pixels)? {
            return Ok(pixels);
        }
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(MAX_METADATA_BYTES as u64);
        read(PngDecoder::with_limits(Cursor::new(source), limits), max_pixels)
    } else if source.starts_with(b"\xff\xd8\xff") {
        check_jpeg_end(source)?;
        read(JpegDecoder::new(Cursor::new(source)), max_pixels)
    } else if source.starts_with(b"RIFF") && source.get(8..12) == Some(b"WEBP") {
        check_webp_end(source)?;
        check_webp_frame(source, max_pixels)?;
        let decoder = WebPDecoder::new(Cursor::new(source)).map_err(undecodable)?;
        if decoder.has_animation() {
            return Err(RenderError::Undecodable("it is an animated WebP, not a single picture".to_owned()));
        }
        read(Ok(decoder), max_pixels)
    } else {
        Err(RenderError::Undecodable("it is neither PNG, JPEG nor WebP".to_owned()))
    }
}

/// The decoder fills a cut-off JPEG with grey and calls it a success; half a picture is not what was paid for.
fn check_jpeg_end(source: &[u8]) -> Result<(), RenderError> {
    let padding = source.iter().rev().take_while(|&&byte| byte == 0).count();
    if source[..source.len() - padding].ends_with(b"\xff\xd9") {
        Ok(())
    } else {
        Err(RenderError::Undecodable("JPEG is cut off: its end marker is missing".to_owned()))
    }
}

/// The lossy decoder reads zeros behind the end of a cut-off picture, like the JPEG decoder.
fn check_webp_end(source: &[u8]) -> Result<(), RenderError> {
    let claimed = source.get(4..).and_then(|rest| rest.first_chunk()).map_or(0, |size| u32::from_le_bytes(*size));
    // The size does not count the eight bytes up to its own end.
    if (source.len() as u64) < u64::from(claimed) + 8 {
        return Err(RenderError::Undecodable(format!("WebP is cut off: it claims {claimed} bytes")));
    }
    Ok(())
}

/// The lossy frame inside an extended WebP has dimensions of its own, and the decoder takes memory for them before it
/// compares them with the canvas.
fn check_webp_frame(source: &[u8], max_pixels: u64) -> Result<(), RenderError> {
    let mut rest = source.get(12..).unwrap_or_default();
    while let Some((header, body)) = rest.split_first_chunk::<8>() {
        let [f0, f1, f2, f3, s0, s1, s2, s3] = *header;
        if let ([b'V', b'P', b'8', b' '], Some(&[w0, w1, h0, h1])) = ([f0, f1, f2, f3], body.get(6..10)) {
            let side = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
            check_size(side(w0, w1), side(h0, h1), max_pixels)?;
        }
        let size = u64::from(u32::from_le_bytes([s0, s1, s2, s3]));
        // Chunks are padded to an even length.
        let next = usize::try_from(size + size % 2).unwrap_or(usize::MAX);
        rest = body.get(next..).unwrap_or_default();
    }
    Ok(())
}

pub(super) fn check_size(width: u32, height: u32, max_pixels: u64) -> Result<(), RenderError> {
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(RenderError::TooLarge { width, height });
    }
    Ok(())
}

fn read(decoder: ImageResult<impl ImageDecoder>, max_pixels: u64) -> Result<Pixels, RenderError> {
    let mut decoder = decoder.map_err(undecodable)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height, max_pixels)?;
    if width == 0 || height == 0 {
        return Err(RenderError::Undecodable(format!("it is empty: {width}x{height}")));
    }
    // A damaged EXIF block is no reason to lose the picture.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let color = decoder.color_type();
    let len = usize::try_from(decoder.total_bytes()).map_err(|_| RenderError::TooLarge { width, height })?;
    let mut raw = vec![0; len];
    decoder.read_image(&mut raw).map_err(undecodable)?;
    let rgb = to_rgb8(color, raw).ok_or_else(|| RenderError::Undecodable(format!("{color:?} is not supported")))?;
    Ok(oriented(Pixels { width, height, rgb }, orientation))
}

fn undecodable(error: image::ImageError) -> RenderError {
    RenderError::Undecodable(error.to_string())
}

fn oriented(pixels: Pixels, orientation: Orientation) -> Pixels {
    if orientation == Orientation::NoTransforms {
        return pixels;
    }
    let Pixels { width, height, rgb } = pixels;
    let image = RgbImage::from_raw(width, height, rgb).expect("the buffer was made for these dimensions");
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(orientation);
    Pixels { width: image.width(), height: image.height(), rgb: image.into_bytes() }
}

/// Returns three bytes a pixel, or `None` for a layout that no decoder here produces.
fn to_rgb8(color: ColorType, raw: Vec<u8>) -> Option<Vec<u8>> {
    if color == ColorType::Rgb8 {
        return Some(raw);
    }
    let mut rgb = vec![0; raw.len() / usize::from(color.bytes_per_pixel()) * 3];
    flatten(color, &raw, &mut rgb).then_some(rgb)
}

/// Writes `raw` as three bytes a pixel into `rgb`; false for a layout that no decoder here produces.
pub(super) fn flatten(color: ColorType, raw: &[u8], rgb: &mut [u8]) -> bool {
    match color {
        ColorType::L8 => map(raw, rgb, |[l]| [l; 3]),
        ColorType::La8 => map(raw, rgb, |[l, a]| on_white([l; 3], a)),
        // Models return RGBA in which every pixel is opaque: nothing to blend.
        ColorType::Rgba8 if raw.as_chunks::<4>().0.iter().fold(255, |all, pixel| all & pixel[3]) == 255 => {
            map(raw, rgb, |[r, g, b, _]| [r, g, b]);
        }
        ColorType::Rgba8 => map(raw, rgb, |[r, g, b, a]| on_white([r, g, b], a)),
        ColorType::L16 => map(raw, rgb, |[l0, l1]| [narrow(l0, l1); 3]),
        ColorType::La16 => map(raw, rgb, |[l0, l1, a0, a1]| on_white([narrow(l0, l1); 3], narrow(a0, a1))),
        ColorType::Rgb16 => {
            map(raw, rgb, |[r0, r1, g0, g1, b0, b1]| [narrow(r0, r1), narrow(g0, g1), narrow(b0, b1)]);
        }
        ColorType::Rgba16 => map(raw, rgb, |[r0, r1, g0, g1, b0, b1, a0, a1]| {
            on_white([narrow(r0, r1), narrow(g0, g1), narrow(b0, b1)], narrow(a0, a1))
        }),
        _ => return false,
    }
    true
}

fn map<const N: usize>(raw: &[u8], rgb: &mut [u8], to_rgb: impl Fn([u8; N]) -> [u8; 3]) {
    for (target, pixel) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(raw.as_chunks::<N>().0) {
        *target = to_rgb(*pixel);
    }
}

/// Rounds a sample in native byte order from 16 to 8 bits.
fn narrow(first: u8, second: u8) -> u8 {
    let sample = u32::from(u16::from_ne_bytes([first, second]));
    u8::try_from((sample + 128) / 257).expect("65535 / 257 is 255")
}

fn on_white(rgb: [u8; 3], alpha: u8) -> [u8; 3] {
    rgb.map(|sample| {
        let (sample, alpha) = (u32::from(sample), u32::from(alpha));
        u8::try_from((sample * alpha + 255 * (255 - alpha) + 127) / 255).expect("a weighted mean of bytes is a byte")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_bits_round_to_the_nearest_eight() {
        for value in 0..=255_u16 {
            let [first, second] = (value * 257).to_ne_bytes();
            assert_eq!(u16::from(narrow(first, second)), value);
        }
        let [first, second] = 128_u16.to_ne_bytes();
        assert_eq!(narrow(first, second), 0);
        let [first, second] = 129_u16.to_ne_bytes();
        assert_eq!(narrow(first, second), 1);
    }

    #[test]
    fn transparent_is_white_and_opaque_is_untouched() {
        assert_eq!(on_white([10, 20, 30], 0), [255; 3]);
        assert_eq!(on_white([10, 20, 30], 255), [10, 20, 30]);
        assert_eq!(on_white([0, 0, 0], 128), [127; 3]);
    }
}
