//! `RenditionSpec`: the size and format of one output picture; every job has the standard one, and may ask for more.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Width and height of the picture that every job ends with, in pixels. Not a setting: clients lay out pages for it.
pub const STANDARD_SIDE: u32 = 1024;

/// Sides that can be asked for, in pixels. Pictures are square.
pub const RENDITION_SIDES: [u32; 3] = [256, 512, STANDARD_SIDE];

/// How a picture is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// What every job ends with.
    Webp,
    /// Smaller, dearer to make, and not shown by every client.
    Avif,
}

impl ImageFormat {
    /// Every format.
    pub const ALL: [Self; 2] = [Self::Webp, Self::Avif];

    /// Returns the word of it, which is also the ending of object keys.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webp => "webp",
            Self::Avif => "avif",
        }
    }

    /// Returns the `Content-Type` to store.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Webp => "image/webp",
            Self::Avif => "image/avif",
        }
    }
}

/// One output picture: a square of [`side`](Self::side) pixels in a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawRenditionSpec", into = "RawRenditionSpec")]
pub struct RenditionSpec {
    side: u32,
    format: ImageFormat,
}

/// A side that is not one of [`RENDITION_SIDES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("width {0} is not offered: ask for 256, 512 or 1024")]
pub struct InvalidRendition(pub u32);

impl RenditionSpec {
    /// What every job ends with: a WebP of 1024 x 1024.
    pub const STANDARD: Self = Self { side: STANDARD_SIDE, format: ImageFormat::Webp };

    /// Makes one of `side` pixels in width and height.
    ///
    /// # Errors
    /// When the side is not one of [`RENDITION_SIDES`].
    pub fn new(side: u32, format: ImageFormat) -> Result<Self, InvalidRendition> {
        if RENDITION_SIDES.contains(&side) { Ok(Self { side, format }) } else { Err(InvalidRendition(side)) }
    }

    /// Returns width and height in pixels.
    pub fn side(self) -> u32 {
        self.side
    }

    /// Returns how it is encoded.
    pub fn format(self) -> ImageFormat {
        self.format
    }
}

impl fmt::Display for RenditionSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.side, self.format.as_str())
    }
}

/// The shape on the wire.
#[derive(Serialize, Deserialize)]
struct RawRenditionSpec {
    width: u32,
    format: ImageFormat,
}

impl TryFrom<RawRenditionSpec> for RenditionSpec {
    type Error = InvalidRendition;

    fn try_from(raw: RawRenditionSpec) -> Result<Self, InvalidRendition> {
        Self::new(raw.width, raw.format)
    }
}

impl From<RenditionSpec> for RawRenditionSpec {
    fn from(spec: RenditionSpec) -> Self {
        Self { width: spec.side, format: spec.format }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_offered_sides_can_be_asked_for() {
        for side in RENDITION_SIDES {
            assert_eq!(RenditionSpec::new(side, ImageFormat::Avif).unwrap().side(), side);
        }
        for side in [0, 255, 257, 1023, 2048, u32::MAX] {
            assert_eq!(RenditionSpec::new(side, ImageFormat::Webp), Err(InvalidRendition(side)));
            let wire = format!(r#"{{"width":{side},"format":"webp"}}"#);
            assert!(serde_json::from_str::<RenditionSpec>(&wire).is_err());
        }
    }

    #[test]
    fn the_wire_form_comes_back() {
        for format in ImageFormat::ALL {
            assert_eq!(format.content_type(), format!("image/{}", format.as_str()));
            let spec = RenditionSpec::new(256, format).unwrap();
            let wire = serde_json::to_string(&spec).unwrap();
            assert_eq!(wire, format!(r#"{{"width":256,"format":"{}"}}"#, format.as_str()));
            assert_eq!(serde_json::from_str::<RenditionSpec>(&wire).unwrap(), spec);
        }
    }
}
