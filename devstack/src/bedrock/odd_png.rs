//! PNG chunks by hand: the comment that tells two copies apart, and pictures that harm a careless decoder.

/// Bytes of signature and IHDR chunk, with which every PNG begins.
pub(crate) const HEAD_BYTES: usize = 33;
const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Width and height of the two bombs.
const CLAIMED_SIDE: u32 = 60_000;
const INFLATED_SIDE: u32 = 30_000;

/// Appends one chunk: length, name, data, CRC of name and data.
pub(crate) fn push_chunk(png: &mut Vec<u8>, name: &[u8; 4], data: &[u8]) {
    let length = u32::try_from(data.len()).expect("chunks here are far below 4 GB");
    png.extend_from_slice(&length.to_be_bytes());
    let start = png.len();
    png.extend_from_slice(name);
    png.extend_from_slice(data);
    let crc = crc32(&png[start..]);
    png.extend_from_slice(&crc.to_be_bytes());
}

/// A PNG of about a hundred bytes that claims 60000x60000 RGB pixels, 10.8 GB, and holds one row's beginning.
pub(crate) fn claiming_bomb() -> Vec<u8> {
    // 8 bits, RGB.
    png(CLAIMED_SIDE, 8, 2, &zlib_of_zeros(1 + 3 * 258))
}

/// A sound PNG of 0.7 MB with 30000x30000 one-bit pixels: 900 MB as one byte a pixel, 2.7 GB as RGB.
pub(crate) fn inflating_bomb() -> Vec<u8> {
    let row_bytes = 1 + INFLATED_SIDE as usize / 8;
    // 1 bit, grey.
    png(INFLATED_SIDE, 1, 0, &zlib_of_zeros(row_bytes * INFLATED_SIDE as usize))
}

fn png(side: u32, depth: u8, colour: u8, data: &[u8]) -> Vec<u8> {
    let mut header = Vec::with_capacity(13);
    header.extend_from_slice(&side.to_be_bytes());
    header.extend_from_slice(&side.to_be_bytes());
    header.extend_from_slice(&[depth, colour, 0, 0, 0]);
    let mut png = SIGNATURE.to_vec();
    push_chunk(&mut png, b"IHDR", &header);
    push_chunk(&mut png, b"IDAT", data);
    push_chunk(&mut png, b"IEND", &[]);
    png
}

/// A zlib stream of `count` zero bytes in one block of fixed Huffman codes (RFC 1951 section 3.2.6).
fn zlib_of_zeros(count: usize) -> Vec<u8> {
    let mut bits = Bits { bytes: vec![0x78, 0x01], partial: 0, filled: 0 };
    // Last block, fixed codes.
    bits.push(0b011, 3);
    // A literal zero, then runs of 258 at distance 1 (code 285 and distance code 0), then literals again.
    let runs = (count - 1) / 258;
    bits.push_code(0b0011_0000, 8);
    for _ in 0..runs {
        bits.push_code(0b1100_0101, 8);
        bits.push_code(0, 5);
    }
    for _ in 0..(count - 1) % 258 {
        bits.push_code(0b0011_0000, 8);
    }
    bits.push_code(0, 7);
    let mut stream = bits.finish();
    // Adler-32 of zeros: the first sum stays 1, the second counts the bytes.
    let count = u32::try_from(count % 65_521).expect("a remainder of 65521");
    stream.extend_from_slice(&((count << 16) | 1).to_be_bytes());
    stream
}

/// Bits in deflate's order: from the least significant end of each byte.
struct Bits {
    bytes: Vec<u8>,
    partial: u8,
    filled: u8,
}

impl Bits {
    fn push(&mut self, value: u16, count: u8) {
        for bit in 0..count {
            self.partial |= u8::from(value >> bit & 1 == 1) << self.filled;
            self.filled += 1;
            if self.filled == 8 {
                self.bytes.push(std::mem::take(&mut self.partial));
                self.filled = 0;
            }
        }
    }

    /// Huffman codes go in from their most significant bit.
    fn push_code(&mut self, code: u16, count: u8) {
        for bit in (0..count).rev() {
            self.push(code >> bit & 1, 1);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        if self.filled > 0 {
            self.bytes.push(self.partial);
        }
        self.bytes
    }
}

/// Makes the checksum of every chunk right; anything but a PNG stays as it is.
pub(crate) fn with_crcs_mended(mut png: Vec<u8>) -> Vec<u8> {
    if !png.starts_with(SIGNATURE) {
        return png;
    }
    let mut at = SIGNATURE.len();
    while let Some(length) = png.get(at..).and_then(|rest| rest.first_chunk()).map(|length| u32::from_be_bytes(*length))
    {
        let data_end = at.saturating_add(8).saturating_add(length as usize);
        let Some(checked) = png.get(at + 4..data_end) else { break };
        let crc = crc32(checked).to_be_bytes();
        let Some(place) = png.get_mut(data_end..data_end.saturating_add(4)) else { break };
        place.copy_from_slice(&crc);
        at = data_end + 4;
    }
    png
}

/// The CRC of PNG and zlib, bit by bit: it only ever sees short chunks and, once, 0.7 MB.
fn crc32(bytes: &[u8]) -> u32 {
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    });
    !crc
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::codecs::png::PngDecoder;
    use image::{ImageDecoder, ImageReader, Limits};

    use super::*;

    #[test]
    fn the_crc_is_the_one_of_png() {
        assert_eq!(crc32(b"IEND"), 0xAE42_6082);
    }

    #[test]
    fn a_small_png_made_this_way_decodes() {
        let small = png(64, 1, 0, &zlib_of_zeros(9 * 64));
        let decoded = ImageReader::with_format(Cursor::new(small), image::ImageFormat::Png).decode().unwrap();
        assert!(decoded.to_luma8().pixels().all(|pixel| pixel.0 == [0]));
    }

    #[test]
    fn the_bombs_are_small_and_claim_much() {
        let claiming = claiming_bomb();
        assert!(claiming.len() < 200);
        assert_eq!(PngDecoder::new(Cursor::new(&claiming)).unwrap().dimensions(), (60_000, 60_000));
        let inflating = inflating_bomb();
        assert!(inflating.len() < 800_000, "{}", inflating.len());
        assert_eq!(PngDecoder::new(Cursor::new(&inflating)).unwrap().dimensions(), (30_000, 30_000));
        let mut reader = ImageReader::with_format(Cursor::new(&inflating), image::ImageFormat::Png);
        let mut limits = Limits::default();
        limits.max_alloc = Some(64 << 20);
        reader.limits(limits);
        assert!(matches!(reader.decode(), Err(image::ImageError::Limits(_))));
    }
}
