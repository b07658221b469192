//! `Pixels` of any shape to a centred square of one size.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::{Pixels, RenderError};

/// Cuts the centred square out of `pixels` and scales it to `side`, up or down. What already fits is not resampled.
///
/// # Errors
/// [`RenderError::Encode`]: we failed, the source is fine.
pub(super) fn to_square(pixels: Pixels, side: u32) -> Result<Pixels, RenderError> {
    if pixels.width == side && pixels.height == side {
        return Ok(pixels);
    }
    let shorter = pixels.width.min(pixels.height);
    if shorter == side {
        return Ok(crop(&pixels, side));
    }
    let crop = (f64::from(pixels.width - shorter) / 2.0, f64::from(pixels.height - shorter) / 2.0, f64::from(shorter));
    resample(&pixels, side, FilterType::Lanczos3, Some(crop))
}

/// Scales all of `pixels` to a square of `side` by averaging: for thumbnails.
///
/// # Errors
/// [`RenderError::Encode`]: we failed, the source is fine.
pub(super) fn averaged(pixels: &Pixels, side: u32) -> Result<Pixels, RenderError> {
    resample(pixels, side, FilterType::Box, None)
}

/// Whole pixels only: resampling a crop at an offset of half a pixel would blur it for nothing.
fn crop(pixels: &Pixels, side: u32) -> Pixels {
    let (left, top) = ((pixels.width - side) / 2, (pixels.height - side) / 2);
    let bytes = |count: u32| count as usize * 3;
    let mut rgb = Vec::with_capacity(bytes(side) * side as usize);
    for row in pixels.rgb.chunks_exact(bytes(pixels.width)).skip(top as usize).take(side as usize) {
        rgb.extend_from_slice(&row[bytes(left)..bytes(left + side)]);
    }
    Pixels { width: side, height: side, rgb }
}

fn resample(
    pixels: &Pixels,
    side: u32,
    filter: FilterType,
    crop: Option<(f64, f64, f64)>,
) -> Result<Pixels, RenderError> {
    let failed = |error: &dyn std::fmt::Display| RenderError::Encode(format!("resizing failed: {error}"));
    let source = ImageRef::new(pixels.width, pixels.height, &pixels.rgb, PixelType::U8x3).map_err(|e| failed(&e))?;
    let mut target = Image::new(side, side, PixelType::U8x3);
    let mut options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).use_alpha(false);
    if let Some((left, top, size)) = crop {
        options = options.crop(left, top, size, size);
    }
    Resizer::new().resize(&source, &mut target, &options).map_err(|e| failed(&e))?;
    Ok(Pixels { width: side, height: side, rgb: target.into_vec() })
}
