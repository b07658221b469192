//! The PNGs that models return, 8 bits and not interlaced, row by row into three bytes a pixel: no second copy of the picture.

use std::io::Cursor;

use image::ColorType;
use png::{BitDepth, DecodingError, Limits, Transformations};

use super::decode::{MAX_METADATA_BYTES, check_size, flatten};
use super::{Pixels, RenderError};

/// Decodes `source`, or returns None when it is a PNG of another kind, or not one at all: `image` knows them all.
///
/// # Errors
/// [`RenderError::Undecodable`] or [`RenderError::TooLarge`].
pub(super) fn read(source: &[u8], max_pixels: u64) -> Result<Option<Pixels>, RenderError> {
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(source), Limits { bytes: MAX_METADATA_BYTES });
    let Ok(header) = decoder.read_header_info() else { return Ok(None) };
    let (width, height, interlaced) = (header.width, header.height, header.interlaced);
    check_size(width, height, max_pixels)?;
    decoder.set_transformations(Transformations::EXPAND);
    let Ok(mut reader) = decoder.read_info() else { return Ok(None) };
    let color = match reader.output_color_type() {
        (png::ColorType::Rgb, BitDepth::Eight) => ColorType::Rgb8,
        (png::ColorType::Rgba, BitDepth::Eight) => ColorType::Rgba8,
        _ => return Ok(None),
    };
    if interlaced || reader.info().exif_metadata.is_some() {
        return Ok(None);
    }
    let too_large = || RenderError::TooLarge { width, height };
    let stride = usize::try_from(width).map_err(|_| too_large())? * 3;
    let mut rgb = vec![0; stride * usize::try_from(height).map_err(|_| too_large())?];
    let mut row = vec![0; reader.output_line_size(width).ok_or_else(too_large)?];
    for target in rgb.chunks_exact_mut(stride) {
        if color == ColorType::Rgb8 {
            reader.read_row(target).map_err(undecodable)?;
        } else {
            reader.read_row(&mut row).map_err(undecodable)?;
            flatten(color, &row, target);
        }
    }
    // Behind the last row the checksum of the data is verified.
    reader.read_row(&mut row).map_err(undecodable)?;
    Ok(Some(Pixels { width, height, rgb }))
}

fn undecodable(error: DecodingError) -> RenderError {
    RenderError::Undecodable(error.to_string())
}
