//! From the model's picture to the renditions: bytes in, bytes out; never awaits and never sees AWS.

pub mod decode;
mod png_rows;
pub mod resize;
pub mod encode;
pub mod placeholder;
pub mod provenance;

use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use job::{ImageFormat, RenditionSpec, STANDARD_SIDE};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::cpu;
use crate::error::{JobError, Kind};

pub use provenance::Provenance;

/// Largest source in bytes. `InvokeModel` answers at most 25,000,000 bytes, so nothing the model returns is refused.
pub const MAX_SOURCE_BYTES: usize = 25_000_000;

/// How the picture is made.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Render")]
pub struct RenderSettings {
    /// Quality of the lossy WebP: 0 (small) to 100 (good).
    #[arg(long = "render-quality", env = "RENDER_QUALITY", default_value_t = 80.0, value_name = "0-100", value_parser = parse_quality)]
    pub quality: f32,
    /// Effort of the WebP encoder: 0 (fast, large files) to 6 (slow, small files); 4 takes 0.4 of the CPU of 6 for 2 % more bytes.
    #[arg(long = "render-method", env = "RENDER_METHOD", default_value_t = DEFAULT_METHOD, value_name = "0-6", value_parser = clap::value_parser!(u8).range(0..=6))]
    pub method: u8,
    /// Quality of an AVIF rendition: 1 (small) to 100 (good). Its scale is not that of WebP.
    #[arg(long = "render-avif-quality", env = "RENDER_AVIF_QUALITY", default_value_t = DEFAULT_AVIF_QUALITY, value_name = "1-100", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub avif_quality: u8,
    /// Speed of the AVIF encoder: 1 (slow, small files) to 10 (fast).
    #[arg(long = "render-avif-speed", env = "RENDER_AVIF_SPEED", default_value_t = DEFAULT_AVIF_SPEED, value_name = "1-10", value_parser = clap::value_parser!(u8).range(1..=10))]
    pub avif_speed: u8,
    /// Largest source in pixels, width times height. Decoding takes up to 11 bytes of memory for each, per CPU thread.
    #[arg(long = "render-max-source-pixels", env = "RENDER_MAX_SOURCE_PIXELS", default_value_t = DEFAULT_MAX_SOURCE_PIXELS, value_name = "PIXELS", value_parser = clap::value_parser!(u64).range(1_048_576..=268_435_456))]
    pub max_source_pixels: u64,
}

/// A picture is paid for by each view, and made once (docs/adr/0016).
const DEFAULT_METHOD: u8 = 6;
/// As good by SSIMULACRA2 as a WebP of quality 80, at the speed that is the cheapest from 10 to 60 views (docs/benchmarks.md).
const DEFAULT_AVIF_QUALITY: u8 = 74;
const DEFAULT_AVIF_SPEED: u8 = 9;
/// Four times the largest picture a model of ours returns (2048 x 2048).
const DEFAULT_MAX_SOURCE_PIXELS: u64 = 4 * 2048 * 2048;

impl Default for RenderSettings {
    fn default() -> Self {
        Self {
            quality: 80.0,
            method: DEFAULT_METHOD,
            avif_quality: DEFAULT_AVIF_QUALITY,
            avif_speed: DEFAULT_AVIF_SPEED,
            max_source_pixels: DEFAULT_MAX_SOURCE_PIXELS,
        }
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
    /// Its size and format.
    pub spec: RenditionSpec,
    /// A file of that format. A WebP says where it comes from ([`Provenance`]); nothing of the source's metadata is in it.
    pub bytes: Bytes,
    /// SHA-256 of the bytes, lowercase hex.
    pub sha256: String,
}

/// What came of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// [`RenditionSpec::STANDARD`].
    pub rendition: Rendition,
    /// The others, in the order in which they were asked for.
    pub extra: Vec<Rendition>,
    /// `ThumbHash` of the picture, standard base64: a blurred placeholder in about 25 bytes.
    pub thumbhash: String,
    pub decode: Duration,
    /// Crop, resize and placeholder.
    pub resize: Duration,
    /// All renditions, with the resizing of the smaller ones and the checksums. Wall time: they run in parallel.
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

/// Makes the standard WebP of a PNG, JPEG or WebP source, and the `extra` renditions, which say that they are of this `provenance`.
///
/// CPU-bound, tens of milliseconds (an AVIF: hundreds): run it on the [`CpuPool`](cpu::CpuPool), whose idle threads then
/// help with the extra renditions. The source is decoded once. Smaller renditions are scaled from the standard square, not from the source: it is the
/// nearest picture that is larger than all of them.
///
/// # Errors
/// See [`RenderError`].
pub fn render(
    source: &[u8],
    settings: &RenderSettings,
    extra: &[RenditionSpec],
    provenance: &Provenance,
) -> Result<Rendered, RenderError> {
    let started = Instant::now();
    let xmp = provenance.xmp();
    let pixels = decode::decode(source, settings.max_source_pixels)?;
    let decoded = Instant::now();
    let square = resize::to_square(pixels, STANDARD_SIDE)?;
    let thumbhash = placeholder::thumbhash(&square)?;
    let resized = Instant::now();
    let (rendition, extra) = if extra.is_empty() {
        (rendition(&square, settings, RenditionSpec::STANDARD, &xmp)?, Vec::new())
    } else {
        let specs: Vec<RenditionSpec> = std::iter::once(RenditionSpec::STANDARD).chain(extra.iter().copied()).collect();
        let mut made = cpu::in_parallel(&specs, |&spec| rendition(&square, settings, spec, &xmp)).into_iter();
        let standard = made.next().expect("one result for each spec")?;
        (standard, made.collect::<Result<_, _>>()?)
    };
    Ok(Rendered {
        rendition,
        extra,
        thumbhash,
        decode: decoded - started,
        resize: resized - decoded,
        encode: resized.elapsed(),
    })
}

fn rendition(
    square: &Pixels,
    settings: &RenderSettings,
    spec: RenditionSpec,
    xmp: &str,
) -> Result<Rendition, RenderError> {
    let smaller = if spec.side() == square.width { None } else { Some(resize::scaled(square, spec.side())?) };
    let pixels = smaller.as_ref().unwrap_or(square);
    let bytes = match spec.format() {
        ImageFormat::Webp => provenance::stamped(encode::webp(pixels, settings.quality, settings.method)?, xmp)?,
        // Without: nothing kept writes the XMP item of an AVIF (docs/adr/0028).
        ImageFormat::Avif => encode::avif(pixels, settings.avif_quality, settings.avif_speed)?,
    };
    let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Rendition { spec, bytes, sha256 })
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod rendition_tests;
#[cfg(test)]
mod test_sources;
#[cfg(test)]
mod tests;
