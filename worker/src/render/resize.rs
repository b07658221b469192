//! `Pixels` of any shape to a centred square of one size.

use fast_image_resize::images::{Image, TypedCroppedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::{Pixels, RenderError};

/// Cuts the centred square out of `pixels` and scales it to `side`, up or down. What already fits is not resampled.
///
/// # Errors
/// [`RenderError::Encode`]: we failed, the source is fine.
pub fn to_square(pixels: Pixels, side: u32) -> Result<Pixels, RenderError> {
    if pixels.width == side && pixels.height == side {
        return Ok(pixels);
    }
    let shorter = pixels.width.min(pixels.height);
    // Whole pixels: an offset of half a pixel would blur what need not be resampled.
    let (left, top) = ((pixels.width - shorter) / 2, (pixels.height - shorter) / 2);
    if shorter == side {
        return Ok(crop(&pixels, left, top, side));
    }
    // A view and not the resizer's own crop box, whose edges take colour from beyond the crop.
    resample(&view(&pixels, left, top, shorter, shorter)?, side, FilterType::Lanczos3)
}

/// Scales a square to one of `side`.
///
/// # Errors
/// [`RenderError::Encode`]: we failed, the source is fine.
pub(super) fn scaled(square: &Pixels, side: u32) -> Result<Pixels, RenderError> {
    resample(&whole(square)?, side, FilterType::Lanczos3)
}

/// Scales all of `pixels` to a square of `side` by averaging: for thumbnails.
///
/// # Errors
/// [`RenderError::Encode`]: we failed, the source is fine.
pub(super) fn averaged(pixels: &Pixels, side: u32) -> Result<Pixels, RenderError> {
    resample(&whole(pixels)?, side, FilterType::Box)
}

fn crop(pixels: &Pixels, left: u32, top: u32, side: u32) -> Pixels {
    let bytes = |count: u32| count as usize * 3;
    let mut rgb = Vec::with_capacity(bytes(side) * side as usize);
    for row in pixels.rgb.chunks_exact(bytes(pixels.width)).skip(top as usize).take(side as usize) {
        rgb.extend_from_slice(&row[bytes(left)..bytes(left + side)]);
    }
    Pixels { width: side, height: side, rgb }
}

/// One type of view for everything: each costs the compiler a resizer of its own. So does each type of pixel, which is why
/// nothing here leaves that to be chosen at run time.
type View<'a> = TypedCroppedImage<'a, TypedImageRef<'a, U8x3>>;

fn view(pixels: &Pixels, left: u32, top: u32, width: u32, height: u32) -> Result<View<'_>, RenderError> {
    let all = TypedImageRef::from_buffer(pixels.width, pixels.height, &pixels.rgb).map_err(failed)?;
    TypedCroppedImage::new(all, left, top, width, height).map_err(failed)
}

fn whole(pixels: &Pixels) -> Result<View<'_>, RenderError> {
    view(pixels, 0, 0, pixels.width, pixels.height)
}

fn resample(source: &View<'_>, side: u32, filter: FilterType) -> Result<Pixels, RenderError> {
    let mut target = Image::new(side, side, PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).use_alpha(false);
    let mut typed = target.typed_image_mut().ok_or_else(|| failed("another type of pixel"))?;
    Resizer::new().resize_typed(source, &mut typed, &options).map_err(failed)?;
    Ok(Pixels { width: side, height: side, rgb: target.into_vec() })
}

fn failed(error: impl std::fmt::Display) -> RenderError {
    RenderError::Encode(format!("resizing failed: {error}"))
}
