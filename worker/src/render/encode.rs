//! `Pixels` to a lossy WebP or AVIF.

use bytes::Bytes;
use image::codecs::avif::AvifEncoder;
use image::{ExtendedColorType, ImageEncoder};

use super::{Pixels, RenderError};

/// Encodes with libwebp. Everything but `quality` (0 to 100) and `method` (0 to 6) is libwebp's default, which was best
/// or tied in every measurement. No metadata is written.
///
/// # Errors
/// [`RenderError::Encode`] with libwebp's own word.
#[cfg(feature = "pruned-webp")]
pub fn webp(pixels: &Pixels, quality: f32, method: u8) -> Result<Bytes, RenderError> {
    webp_encoder::encode(&pixels.rgb, pixels.width, pixels.height, quality, method)
        .map(Bytes::from_owner)
        .map_err(|error| RenderError::Encode(error.to_string()))
}

/// As above, by the crate `webp`.
///
/// # Errors
/// [`RenderError::Encode`] with libwebp's own word.
#[cfg(not(feature = "pruned-webp"))]
pub fn webp(pixels: &Pixels, quality: f32, method: u8) -> Result<Bytes, RenderError> {
    stock_webp(pixels, quality, method)
}

/// libwebp as the crate `webp` brings it, without a change of ours: what [`webp()`] is measured against.
///
/// # Errors
/// [`RenderError::Encode`] with libwebp's own word.
pub fn stock_webp(pixels: &Pixels, quality: f32, method: u8) -> Result<Bytes, RenderError> {
    let mut config = webp::WebPConfig::new()
        .map_err(|()| RenderError::Encode("libwebp has another ABI than its bindings".to_owned()))?;
    config.lossless = 0;
    config.quality = quality;
    config.method = method.into();
    let encoded = webp::Encoder::from_rgb(&pixels.rgb, pixels.width, pixels.height)
        .encode_advanced(&config)
        .map_err(|code| RenderError::Encode(format!("libwebp says {code:?}")))?;
    // libwebp's buffer must be freed by libwebp, so the bytes are copied out once.
    Ok(Bytes::copy_from_slice(&encoded))
}

/// Encodes with rav1e, on the calling thread alone, without metadata: `quality` 1 to 100, `speed` 1 to 10 (fastest).
///
/// # Errors
/// [`RenderError::Encode`] with the encoder's own word.
pub fn avif(pixels: &Pixels, quality: u8, speed: u8) -> Result<Bytes, RenderError> {
    let mut file = Vec::new();
    AvifEncoder::new_with_speed_quality(&mut file, speed, quality)
        .with_num_threads(Some(1))
        .write_image(&pixels.rgb, pixels.width, pixels.height, ExtendedColorType::Rgb8)
        .map_err(|error| RenderError::Encode(format!("rav1e says {error}")))?;
    Ok(file.into())
}
