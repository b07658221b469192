//! From the model's picture to the rendition: bytes in, bytes out; never awaits and never sees AWS.

pub mod decode;
mod png_rows;
pub mod resize;
pub mod encode;
pub mod placeholder;

use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::error::{JobError, Kind};

/// Width and height of every rendition in pixels. Not a setting: clients lay out pages for it.
pub const OUTPUT_SIDE: u32 = 1024;

/// Largest source in bytes. `InvokeModel` answers at most 25,000,000 bytes, so nothing the model returns is refused.
pub const MAX_SOURCE_BYTES: usize = 25_000_000;

/// How the picture is made.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Render")]
pub struct RenderSettings {
    /// Quality of the lossy WebP: 0 (small) to 100 (good).
    #[arg(long = "render-quality", env = "RENDER_QUALITY", default_value_t = 80.0, value_name = "0-100", value_parser = parse_quality)]
    pub quality: f32,
    /// Effort of the WebP encoder: 0 (fast, large files) to 6 (slow, small files).
    #[arg(long = "render-method", env = "RENDER_METHOD", default_value_t = 4, value_name = "0-6", value_parser = clap::value_parser!(u8).range(0..=6))]
    pub method: u8,
    /// Largest source in pixels, width times height. Decoding takes up to 11 bytes of memory for each, per CPU thread.
    #[arg(long = "render-max-source-pixels", env = "RENDER_MAX_SOURCE_PIXELS", default_value_t = DEFAULT_MAX_SOURCE_PIXELS, value_name = "PIXELS", value_parser = clap::value_parser!(u64).range(1_048_576..=268_435_456))]
    pub max_source_pixels: u64,
}

/// Four times the largest picture a model of ours returns (2048 x 2048).
const DEFAULT_MAX_SOURCE_PIXELS: u64 = 4 * 2048 * 2048;

impl Default for RenderSettings {
    fn default() -> Self {
        Self { quality: 80.0, method: 4, max_source_pixels: DEFAULT_MAX_SOURCE_PIXELS }
    }
}

fn parse_quality(text: &str) -> Result<f32, String> {
    let quality: f32 = text.parse().map_err(|_| format!("'{text}' is not a number: give 0 to 100"))?;
    // `contains` is false for NaN.
    if (0.0..=100.0).contains(&quality) { Ok(quality) } else { Err(format!("{text} is out of range: give 0 to 100")) }
}

/// One output image, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendition {
    /// A WebP file without any metadata.
    pub bytes: Bytes,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
}

/// A rendition and what is published about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    pub rendition: Rendition,
    /// SHA-256 of the rendition's bytes, lowercase hex.
    pub sha256: String,
    /// `ThumbHash` of the picture, standard base64: a blurred placeholder in about 25 bytes.
    pub thumbhash: String,
    pub decode: Duration,
    /// Crop, resize and placeholder.
    pub resize: Duration,
    /// WebP and checksum.
    pub encode: Duration,
}

/// Why there is no rendition.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RenderError {
    /// The source is at fault: not a picture we read, or a damaged one.
    #[error("source cannot be decoded: {0}")]
    Undecodable(String),
    /// The source is at fault: more pixels than [`RenderSettings::max_source_pixels`].
    #[error("source of {width}x{height} has more pixels than RENDER_MAX_SOURCE_PIXELS allows")]
    TooLarge {
        /// In pixels, as the source claims.
        width: u32,
        /// In pixels, as the source claims.
        height: u32,
    },
    /// The source is fine, we failed.
    #[error("picture cannot be encoded: {0}")]
    Encode(String),
}

impl RenderError {
    /// Returns whether another source could help.
    pub fn is_source_at_fault(&self) -> bool {
        match self {
            Self::Undecodable(_) | Self::TooLarge { .. } => true,
            Self::Encode(_) => false,
        }
    }
}

impl From<RenderError> for JobError {
    fn from(error: RenderError) -> Self {
        let kind = if error.is_source_at_fault() { Kind::SourceUndecodable } else { Kind::RenderFailed };
        Self::new(kind, error.to_string())
    }
}

/// A decoded bitmap, three bytes a pixel (sRGB, no alpha), row by row without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pixels {
    pub width: u32,
    pub height: u32,
    pub rgb: Vec<u8>,
}

/// Makes the 1024x1024 WebP of a PNG, JPEG or WebP source. CPU-bound, tens of milliseconds: run it on the
/// [`CpuPool`](crate::cpu::CpuPool).
///
/// # Errors
/// See [`RenderError`].
pub fn render(source: &[u8], settings: &RenderSettings) -> Result<Rendered, RenderError> {
    let started = Instant::now();
    let pixels = decode::decode(source, settings.max_source_pixels)?;
    let decoded = Instant::now();
    let square = resize::to_square(pixels, OUTPUT_SIDE)?;
    let thumbhash = placeholder::thumbhash(&square)?;
    let resized = Instant::now();
    let bytes = encode::webp(&square, settings.quality, settings.method)?;
    let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Rendered {
        rendition: Rendition { bytes, width: square.width, height: square.height },
        sha256,
        thumbhash,
        decode: decoded - started,
        resize: resized - decoded,
        encode: resized.elapsed(),
    })
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod test_sources;
#[cfg(test)]
mod tests;
