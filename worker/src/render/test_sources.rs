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

/// An 8x8 CMYK JPEG of one colour, as Adobe writes it (inverted): DC coefficients only, quantised by one.
pub(super) fn cmyk_jpeg(inverted: [u8; 4]) -> Vec<u8> {
    let mut jpeg = vec![0xff, 0xd8];
    let mut segment = |marker: u8, body: &[u8]| {
        let [high, low] = u16::try_from(body.len() + 2).unwrap().to_be_bytes();
        jpeg.extend([0xff, marker, high, low]);
        jpeg.extend(body);
    };
    segment(0xee, b"Adobe\0\x64\0\0\0\0\0");
    segment(0xdb, &[[0].as_slice(), &[1; 64]].concat());
    segment(0xc0, &[8, 0, 8, 0, 8, 4, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0, 4, 0x11, 0]);
    // One code of one bit each: '0' is 'eleven bits of difference' for DC and 'end of block' for AC.
    let one_code = |class: u8, symbol: u8| [[class, 1].as_slice(), &[0; 15], &[symbol]].concat();
    segment(0xc4, &one_code(0x00, 11));
    segment(0xc4, &one_code(0x10, 0));
    segment(0xda, &[4, 1, 0, 2, 0, 3, 0, 4, 0, 0, 63, 0]);
    let mut bits = String::new();
    for sample in inverted {
        // DC of a flat block is eight times the level-shifted sample; eleven bits hold 1024 and more, or minus that.
        let dc = if sample >= 128 { 1024 } else { -1024 };
        let coded = if dc > 0 { dc } else { dc + 2047 };
        bits += &format!("0{coded:011b}0");
    }
    while !bits.len().is_multiple_of(8) {
        bits.push('1');
    }
    for byte in bits.as_bytes().chunks(8) {
        let byte = byte.iter().fold(0, |byte: u8, bit| byte << 1 | (bit - b'0'));
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
