//! `Pixels` to a `ThumbHash`: what a page shows until the picture has loaded.

use super::{Pixels, RenderError, resize};

/// Side of the thumbnail that is hashed. `ThumbHash` takes at most 100 and keeps seven frequencies; 64 divides 1024.
const THUMBNAIL_SIDE: u32 = 64;

/// Returns the hash in standard base64.
///
/// # Errors
/// [`RenderError::Encode`]: we failed, the source is fine.
pub fn thumbhash(pixels: &Pixels) -> Result<String, RenderError> {
    let thumbnail = resize::averaged(pixels, THUMBNAIL_SIDE)?;
    let rgba: Vec<u8> = thumbnail.rgb.as_chunks::<3>().0.iter().flat_map(|&[r, g, b]| [r, g, b, 255]).collect();
    let hash = thumbhash::rgba_to_thumb_hash(thumbnail.width as usize, thumbnail.height as usize, &rgba);
    Ok(base64_simd::STANDARD.encode_to_string(hash))
}
