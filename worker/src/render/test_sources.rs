//! Encoded pictures of every kind, for the tests.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageEncoder, ImageFormat, Rgb, RgbImage};

/// Draws left to right, top to bottom and some waves, so that a mirrored, shifted or transposed picture differs.
pub(super) fn scene(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (u, v) = (f64::from(x) / f64::from(width), f64::from(y) / f64::from(height));
        let wave = ((u * 37.0).sin() * (v * 23.0).cos() + 1.0) / 2.0;
        Rgb([byte(u), byte(v * 0.7), byte(wave * 0.8)])
    })
}

/// From 0 to 1 to a byte; `as` saturates.
#[expect(clippy::cast_possible_truncation, reason = "saturates, and that is wanted")]
fn byte(share: f64) -> u8 {
    (share * 255.0).round() as u8
}

pub(super) fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Vec::new();
    image.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
    bytes
}

pub(super) fn png_of(image: impl Into<DynamicImage>) -> Vec<u8> {
    encoded(&image.into(), ImageFormat::Png)
}

pub(super) fn raw_png(width: u32, height: u32, color: png::ColorType, depth: png::BitDepth, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == png::ColorType::Indexed {
        encoder.set_palette(vec![200, 30, 40, 0, 0, 0]);
    }
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    bytes
}

/// A PNG with the 216 colours of three times six shades as its palette, and the picture it shows.
pub(super) fn palette_png(image: &RgbImage) -> (Vec<u8>, RgbImage) {
    let shade = |sample: u8| u8::try_from((u16::from(sample) + 25) / 51).unwrap();
    let indices: Vec<u8> = image.pixels().map(|Rgb([r, g, b])| shade(*r) * 36 + shade(*g) * 6 + shade(*b)).collect();
    let color = |index: u8| [index / 36 * 51, index / 6 % 6 * 51, index % 6 * 51];
    let shown = indices.iter().flat_map(|&index| color(index)).collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, image.width(), image.height());
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_palette((0..216).flat_map(color).collect::<Vec<u8>>());
    encoder.write_header().unwrap().write_image_data(&indices).unwrap();
    (bytes, RgbImage::from_raw(image.width(), image.height(), shown).unwrap())
}

pub(super) fn jpeg_of(image: &RgbImage, orientation: Option<u8>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 95);
    if let Some(orientation) = orientation {
        // Little-endian TIFF with one entry: tag 0x112 (orientation), type 3 (short), count 1.
        let exif = [b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".as_slice(), &[orientation, 0, 0, 0], &[0; 4]];
        encoder.set_exif_metadata(exif.concat()).unwrap();
    }
    encoder.write_image(image.as_raw(), image.width(), image.height(), image::ExtendedColorType::Rgb8).unwrap();
    bytes
}

/// A CMYK JPEG as Adobe writes it (inverted), of blocks of 8x8 pixels that have one colour each: DC coefficients only,
/// quantised by one. `blocks` are row by row.
pub(super) fn cmyk_jpeg(blocks: &[[u8; 4]], blocks_wide: u32) -> Vec<u8> {
    let side = |blocks: u32| u16::try_from(blocks * 8).unwrap().to_be_bytes();
    let ([w0, w1], [h0, h1]) = (side(blocks_wide), side(u32::try_from(blocks.len()).unwrap() / blocks_wide));
    let mut jpeg = vec![0xff, 0xd8];
    let mut segment = |marker: u8, body: &[u8]| {
        let [high, low] = u16::try_from(body.len() + 2).unwrap().to_be_bytes();
        jpeg.extend([0xff, marker, high, low]);
        jpeg.extend(body);
    };
    segment(0xee, b"Adobe\0\x64\0\0\0\0\0");
    segment(0xdb, &[[0].as_slice(), &[1; 64]].concat());
    segment(0xc0, &[8, h0, h1, w0, w1, 4, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0, 4, 0x11, 0]);
    // DC: twelve codes of four bits, for differences of 0 to 11 bits. AC: one code, '0' is 'end of block'.
    segment(0xc4, &[[0, 0, 0, 0, 12].as_slice(), &[0; 12], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]].concat());
    segment(0xc4, &[[0x10, 1].as_slice(), &[0; 15], &[0]].concat());
    segment(0xda, &[4, 1, 0, 2, 0, 3, 0, 4, 0, 0, 63, 0]);
    let mut bits = Vec::new();
    let mut push = |value: u32, count: u32| bits.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
    let mut before = [0; 4];
    for block in blocks {
        for (sample, before) in block.iter().zip(&mut before) {
            // DC of a flat block is eight times the level-shifted sample.
            let dc = (i32::from(*sample) - 128) * 8;
            let difference = dc - std::mem::replace(before, dc);
            let size = u32::BITS - difference.unsigned_abs().leading_zeros();
            push(size, 4);
            // A negative difference is coded as itself less one, in the low bits.
            push(difference.wrapping_sub(i32::from(difference < 0)).cast_unsigned(), size);
            push(0, 1);
        }
    }
    bits.resize(bits.len().next_multiple_of(8), true);
    for byte in bits.chunks(8) {
        let byte = byte.iter().fold(0, |byte: u8, &bit| byte << 1 | u8::from(bit));
        jpeg.push(byte);
        if byte == 0xff {
            jpeg.push(0);
        }
    }
    jpeg.extend([0xff, 0xd9]);
    jpeg
}

/// The checksum of PNG chunks.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

/// An RGB PNG in the seven passes of Adam7, which the `png` crate reads and does not write. Not compressed.
pub(super) fn interlaced_png(image: &RgbImage) -> Vec<u8> {
    let mut rows = Vec::new();
    for (x0, y0, dx, dy) in
        [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    {
        for y in (y0..image.height()).step_by(dy).filter(|_| x0 < image.width()) {
            rows.push(0);
            (x0..image.width()).step_by(dx).for_each(|x| rows.extend(image.get_pixel(x, y).0));
        }
    }
    let (mut low, mut high) = (1_u32, 0_u32);
    for &byte in &rows {
        low = (low + u32::from(byte)) % 65_521;
        high = (high + low) % 65_521;
    }
    let mut zlib = vec![0x78, 0x01];
    let blocks = rows.chunks(65_535);
    let last = blocks.len() - 1;
    for (index, block) in blocks.enumerate() {
        let len = u16::try_from(block.len()).unwrap();
        zlib.push(u8::from(index == last));
        zlib.extend(len.to_le_bytes());
        zlib.extend((!len).to_le_bytes());
        zlib.extend(block);
    }
    zlib.extend((high << 16 | low).to_be_bytes());

    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let header = [&image.width().to_be_bytes()[..], &image.height().to_be_bytes(), &[8, 2, 0, 0, 1]].concat();
    for (kind, body) in [(b"IHDR", &header), (b"IDAT", &zlib), (b"IEND", &Vec::new())] {
        png.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        let chunk = [&kind[..], body].concat();
        png.extend(&chunk);
        png.extend(crc32(&chunk).to_be_bytes());
    }
    png
}
