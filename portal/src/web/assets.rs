//! Files of the pages: style, script, icon, under names that change with their content; and placeholders as small PNGs.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

/// For ever: another content has another name.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// A `ThumbHash` has 5 to 25 bytes.
const MAX_THUMBHASH_BYTES: usize = 32;

struct File {
    content: &'static str,
    media_type: &'static str,
    path: LazyLock<String>,
}

macro_rules! asset {
    ($name:literal, $media_type:literal) => {
        File {
            content: include_str!(concat!("../../static/", $name)),
            media_type: $media_type,
            path: LazyLock::new(|| path($name, include_str!(concat!("../../static/", $name)))),
        }
    };
}

static CSS: File = asset!("portal.css", "text/css; charset=utf-8");
static SCRIPT: File = asset!("portal.js", "text/javascript; charset=utf-8");
static ICON: File = asset!("portal.svg", "image/svg+xml");

/// Returns the path of the style sheet.
pub fn css() -> &'static str {
    &CSS.path
}

/// Returns the path of the script.
pub fn script() -> &'static str {
    &SCRIPT.path
}

/// Returns the path of the icon.
pub fn icon() -> &'static str {
    &ICON.path
}

fn path(name: &str, content: &str) -> String {
    let hash = base64_simd::URL_SAFE_NO_PAD.encode_to_string(&Sha256::digest(content)[..9]);
    format!("/static/{hash}.{name}")
}

/// Answers with one of the files.
pub(super) async fn file(Path(name): Path<String>) -> Response {
    let found =
        [&CSS, &SCRIPT, &ICON].into_iter().find(|file| file.path.strip_prefix("/static/") == Some(name.as_str()));
    match found {
        Some(file) => {
            let headers = [(header::CONTENT_TYPE, file.media_type), (header::CACHE_CONTROL, IMMUTABLE)];
            (headers, file.content).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Returns the path of the placeholder of a picture, None if the API's `ThumbHash` (base64) cannot be read.
pub fn placeholder(thumbhash: &str) -> Option<String> {
    let bytes = base64_simd::STANDARD.decode_to_vec(thumbhash).ok().filter(|bytes| !bytes.is_empty())?;
    Some(format!("/placeholders/{}.png", base64_simd::URL_SAFE_NO_PAD.encode_to_string(bytes)))
}

/// Answers with a placeholder. It follows from the path alone, so it is the same for everybody and for ever.
pub(super) async fn placeholder_png(Path(name): Path<String>) -> Response {
    match name.strip_suffix(".png").and_then(|hash| base64_simd::URL_SAFE_NO_PAD.decode_to_vec(hash).ok()).and_then(png)
    {
        Some(png) => ([(header::CONTENT_TYPE, "image/png"), (header::CACHE_CONTROL, IMMUTABLE)], png).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Returns a picture of at most 32 x 32 pixels.
fn png(thumbhash: Vec<u8>) -> Option<Vec<u8>> {
    if thumbhash.len() > MAX_THUMBHASH_BYTES {
        return None;
    }
    let (width, height, pixels) = thumbhash::thumb_hash_to_rgba(&thumbhash).ok()?;
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, u32::try_from(width).ok()?, u32::try_from(height).ok()?);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header().ok()?.write_image_data(&pixels).ok()?;
    Some(png)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_is_a_small_png_whatever_the_hash() {
        let hash = "pBgOJwh3iIh/iIeGeDeIl3d4ZwgXh3AD";
        let path = placeholder(hash).unwrap();
        assert!(path.starts_with("/placeholders/pBgOJwh3iIh_"), "{path}");
        let made = png(base64_simd::STANDARD.decode_to_vec(hash).unwrap()).unwrap();
        let reader = png::Decoder::new(std::io::Cursor::new(made)).read_info().unwrap();
        assert!(reader.info().width <= 32 && reader.info().height <= 32);
        assert_eq!(placeholder("no base64!"), None);
        // Whoever asks may ask for anything.
        for first in 0..=255_u8 {
            for len in [0, 1, 5, 25, 32, 33] {
                let _ = png(vec![first; len]);
            }
        }
    }

    #[test]
    fn names_change_with_the_content() {
        assert_ne!(path("portal.css", "a"), path("portal.css", "b"));
        assert!(css().ends_with(".portal.css") && script().ends_with(".portal.js") && icon().ends_with(".svg"));
    }
}
