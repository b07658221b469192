//! `Provenance`: what a picture file says of itself: that a model made it, which one, and when. As XMP, in every WebP.

use bytes::Bytes;
use img_parts::ImageEXIF;
use img_parts::riff::{RiffChunk, RiffContent};
use img_parts::webp::{CHUNK_XMP, WebP};
use jiff::Timestamp;
use job::SourceInfo;
use xmp_writer::{CustomNamespace, Namespace, XmpWriter};

use super::RenderError;

/// The word of the IPTC's controlled vocabulary for what a generative model has made.
pub const DIGITAL_SOURCE_TYPE: &str = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia";

/// Namespace of the IPTC Photo Metadata Standard's extension schema.
const IPTC_EXTENSION: &str = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/";

/// Where a picture comes from. Never the prompt: whoever has the file could read it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provenance {
    /// Id of the model; none when a checkpoint does not tell.
    pub model: Option<String>,
    /// When the model returned the picture. Not when it was rendered: the same source always becomes the same file.
    pub made_at: Option<Timestamp>,
}

impl From<&SourceInfo> for Provenance {
    fn from(info: &SourceInfo) -> Self {
        Self { model: Some(info.model.clone()).filter(|model| !model.is_empty()), made_at: info.made_at }
    }
}

impl Provenance {
    /// Returns the XMP packet. The properties are those of the IPTC Photo Metadata Standard 2025.1, and XMP's own.
    pub fn xmp(&self) -> String {
        let extension = || Namespace::Custom(Box::new(CustomNamespace::new("IPTC", "Iptc4xmpExt", IPTC_EXTENSION)));
        let mut packet = XmpWriter::new();
        packet.element("DigitalSourceType", extension()).value(DIGITAL_SOURCE_TYPE);
        if let Some(model) = self.model.as_deref() {
            packet.element("AISystemUsed", extension()).value(model);
            packet.creator_tool(model);
        }
        if let Some(made_at) = self.made_at {
            packet.element("CreateDate", Namespace::Xmp).value(made_at.to_string().as_str());
        }
        packet.finish(None)
    }
}

/// Puts an XMP packet into a WebP file. Its pixels stay what they were, byte by byte.
///
/// # Errors
/// [`RenderError::Encode`]: what the encoder made is no WebP.
pub fn stamped(webp: Bytes, xmp: &str) -> Result<Bytes, RenderError> {
    let mut file =
        WebP::from_bytes(webp).map_err(|error| RenderError::Encode(format!("XMP cannot be added: {error}")))?;
    file.chunks_mut().push(RiffChunk::new(CHUNK_XMP, RiffContent::Data(Bytes::copy_from_slice(xmp.as_bytes()))));
    // Not for its Exif, of which there is none: it adds the `VP8X` chunk that announces what is beside the pixels.
    file.set_exif(None);
    Ok(file.encoder().bytes())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::ImageDecoder;
    use image::codecs::webp::WebPDecoder;

    use super::*;
    use crate::render::test_sources::scene;
    use crate::render::tests::webp_pixels;
    use crate::render::{Pixels, encode};

    fn provenance() -> Provenance {
        Provenance {
            model: Some("stability.stable-image-core-v1:1".into()),
            made_at: Some("2026-11-26T09:30:00.125Z".parse().unwrap()),
        }
    }

    #[test]
    fn the_packet_says_what_kind_which_model_and_when() {
        let xmp = provenance().xmp();
        for property in [
            "<Iptc4xmpExt:DigitalSourceType>http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia</",
            "<Iptc4xmpExt:AISystemUsed>stability.stable-image-core-v1:1</",
            "<xmp:CreatorTool>stability.stable-image-core-v1:1</",
            "<xmp:CreateDate>2026-11-26T09:30:00.125Z</",
            r#"xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/""#,
            r#"xmlns:xmp="http://ns.adobe.com/xap/1.0/""#,
        ] {
            assert!(xmp.contains(property), "{property} is not in {xmp}");
        }
        let unknown = Provenance::default().xmp();
        assert!(unknown.contains("trainedAlgorithmicMedia"), "{unknown}");
        assert!(!unknown.contains("AISystemUsed") && !unknown.contains("Create"), "{unknown}");
        let odd = Provenance { model: Some("<a>&b".into()), made_at: None }.xmp();
        assert!(odd.contains("<xmp:CreatorTool>&lt;a&gt;&amp;b</"), "{odd}");
    }

    /// Read by another crate than the one that wrote it, with a packet of even and of odd length, since chunks are padded.
    #[test]
    fn a_stamped_file_is_the_same_picture_and_readers_find_the_packet() {
        for (width, height) in [(256, 256), (1, 1), (17, 31)] {
            let rgb = scene(width, height).into_raw();
            let plain = encode::webp(&Pixels { width, height, rgb }, 80.0, 4).unwrap();
            for xmp in [provenance().xmp(), format!("{} ", provenance().xmp())] {
                let file = stamped(plain.clone(), &xmp).unwrap();
                assert_eq!(file.len() % 2, 0);
                let mut decoder = WebPDecoder::new(Cursor::new(&file)).unwrap();
                assert_eq!(decoder.dimensions(), (width, height));
                assert_eq!(decoder.xmp_metadata().unwrap().unwrap(), xmp.as_bytes());
                assert_eq!(webp_pixels(&file), webp_pixels(&plain));
                // libwebp is what browsers read it with.
                let by_libwebp = |file: &[u8]| webp::Decoder::new(file).decode().unwrap().to_vec();
                assert_eq!(by_libwebp(&file), by_libwebp(&plain));
                let cost = file.len() - plain.len();
                assert_eq!(cost, 18 + 8 + xmp.len() + xmp.len() % 2, "VP8X, a chunk's head, the packet, its padding");
            }
        }
        assert!(stamped(Bytes::from_static(b"no picture"), "").is_err());
    }

    #[test]
    fn what_it_costs_is_under_a_kilobyte() {
        let bytes = provenance().xmp().len();
        println!("{bytes} bytes of XMP");
        assert!(bytes < 1000, "{bytes} bytes");
    }
}
