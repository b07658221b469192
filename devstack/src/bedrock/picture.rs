//! `Pictures`: encoded pictures ready to be sent, painted off the async threads and kept in a bounded cache.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use clap::ValueEnum;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::codecs::webp::WebPEncoder;
use image::{DynamicImage, ImageEncoder, RgbImage};
use tokio::sync::{OnceCell, Semaphore};

use super::odd_png;
use super::paint::paint;
use super::request::OutputFormat;

/// How many different pictures the cheap mode paints per size and format.
const CHEAP_VARIANTS: u64 = 4;
/// JPEG quality. Stability does not say theirs; 95 gives the 0.5-1 MB seen in the wild for a megapixel and a half.
const JPEG_QUALITY: u8 = 95;

/// How much work goes into a picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Detail {
    /// Every prompt and seed has a landscape of its own: about 70 ms of CPU for 1536x1536.
    #[default]
    Full,
    /// Four landscapes per size, shared by all prompts; the bytes still differ by prompt and seed (a comment in the
    /// file). For load tests: next to no CPU after the first four.
    Cheap,
}

/// What is in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    Asked(OutputFormat),
    Png16,
    Grey,
    Rgba,
    RgbaTransparent,
    ClaimingBomb,
    InflatingBomb,
}

/// Names one encoded picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PictureKey {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) form: Form,
    /// See [`InvokeRequest::picture_key`](super::request::InvokeRequest::picture_key).
    pub(crate) key: u64,
}

/// An encoded picture in two parts, so that a comment fits between them without encoding base64 again.
#[derive(Debug, Clone)]
struct Picture {
    /// What comes before the comment, as bytes.
    head: Bytes,
    /// What comes after it, in base64.
    rest: Bytes,
}

/// The cache, and the right to use the CPU.
pub(crate) struct Pictures {
    detail: Detail,
    max_bytes: usize,
    painters: Semaphore,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    slots: HashMap<PictureKey, Slot>,
    bytes: usize,
    clock: u64,
}

struct Slot {
    picture: Arc<OnceCell<Picture>>,
    /// 0 while it is being painted.
    bytes: usize,
    used_at: u64,
}

impl Pictures {
    pub(crate) fn new(detail: Detail, max_bytes: usize, painters: NonZeroUsize) -> Self {
        Self { detail, max_bytes, painters: Semaphore::new(painters.get()), cache: Mutex::default() }
    }

    /// Returns the picture in base64, in two pieces. Calls for the same picture wait for one painter.
    pub(crate) async fn base64(&self, wanted: PictureKey) -> [Bytes; 2] {
        let shared = match (self.detail, wanted.form) {
            // A WebP file has no place for a comment that leaves its head unchanged.
            (Detail::Cheap, form) if form != Form::Asked(OutputFormat::Webp) => {
                PictureKey { key: wanted.key % CHEAP_VARIANTS, ..wanted }
            }
            _ => wanted,
        };
        let cell = self.slot(shared);
        let picture = cell.get_or_init(|| self.make(shared)).await;
        self.account(shared, picture.rest.len());
        let head = with_comment(&picture.head, shared.form, wanted.key);
        [Bytes::from(base64_simd::STANDARD.encode_to_string(head)), picture.rest.clone()]
    }

    async fn make(&self, key: PictureKey) -> Picture {
        let _painter = self.painters.acquire().await.expect("this semaphore is never closed");
        #[expect(clippy::disallowed_methods, reason = "CpuPool is the worker's; the semaphore bounds these")]
        let made = tokio::task::spawn_blocking(move || Picture::make(key)).await;
        made.expect("painting does not panic and is not aborted")
    }

    fn slot(&self, key: PictureKey) -> Arc<OnceCell<Picture>> {
        let mut cache = self.cache.lock().expect("nothing panics while it holds this lock");
        cache.clock += 1;
        let now = cache.clock;
        let slot = cache.slots.entry(key).or_insert_with(|| Slot { picture: Arc::default(), bytes: 0, used_at: now });
        slot.used_at = now;
        Arc::clone(&slot.picture)
    }

    /// Notes the size of a picture once it is known, and drops the least recently used ones beyond the bound.
    fn account(&self, key: PictureKey, bytes: usize) {
        let mut cache = self.cache.lock().expect("nothing panics while it holds this lock");
        match cache.slots.get_mut(&key) {
            Some(slot) if slot.bytes == 0 => slot.bytes = bytes,
            _ => return,
        }
        cache.bytes += bytes;
        while cache.bytes > self.max_bytes {
            let painted = cache.slots.iter().filter(|(_, slot)| slot.bytes > 0);
            let Some(oldest) = painted.min_by_key(|(_, slot)| slot.used_at).map(|(key, _)| *key) else { break };
            let dropped = cache.slots.remove(&oldest).map_or(0, |slot| slot.bytes);
            cache.bytes -= dropped;
        }
    }

    #[cfg(test)]
    fn cached_bytes(&self) -> usize {
        self.cache.lock().unwrap().bytes
    }
}

impl Picture {
    fn make(key: PictureKey) -> Self {
        let file = match key.form {
            Form::ClaimingBomb => odd_png::claiming_bomb(),
            Form::InflatingBomb => odd_png::inflating_bomb(),
            form => encode(paint(key.width, key.height, key.key), form),
        };
        let split = match key.form {
            Form::Asked(OutputFormat::Webp) => 0,
            Form::Asked(OutputFormat::Jpeg) => 2,
            _ => odd_png::HEAD_BYTES,
        };
        let rest = base64_simd::STANDARD.encode_to_string(&file[split..]);
        Self { head: Bytes::copy_from_slice(&file[..split]), rest: Bytes::from(rest) }
    }
}

fn encode(pixels: RgbImage, form: Form) -> Vec<u8> {
    let picture = match form {
        Form::Png16 => DynamicImage::ImageRgb16(DynamicImage::ImageRgb8(pixels).to_rgb16()),
        Form::Grey => DynamicImage::ImageLuma8(DynamicImage::ImageRgb8(pixels).to_luma8()),
        Form::Rgba => DynamicImage::ImageRgba8(DynamicImage::ImageRgb8(pixels).to_rgba8()),
        Form::RgbaTransparent => {
            let mut faded = DynamicImage::ImageRgb8(pixels).to_rgba8();
            let height = faded.height();
            for (_, y, pixel) in faded.enumerate_pixels_mut() {
                pixel.0[3] = u8::try_from(u64::from(y) * 255 / u64::from(height)).expect("a share of 255");
            }
            DynamicImage::ImageRgba8(faded)
        }
        _ => DynamicImage::ImageRgb8(pixels),
    };
    let mut file = Vec::new();
    let (width, height) = (picture.width(), picture.height());
    let (bytes, colour) = (picture.as_bytes(), picture.color().into());
    let written = match form {
        Form::Asked(OutputFormat::Jpeg) => {
            JpegEncoder::new_with_quality(&mut file, JPEG_QUALITY).write_image(bytes, width, height, colour)
        }
        Form::Asked(OutputFormat::Webp) => {
            WebPEncoder::new_lossless(&mut file).write_image(bytes, width, height, colour)
        }
        _ => PngEncoder::new_with_quality(&mut file, CompressionType::Fast, FilterType::Sub)
            .write_image(bytes, width, height, colour),
    };
    written.expect("writing to memory does not fail, and the encoders take these colour types");
    file
}

/// Appends a comment that names the picture, padded to whole groups of three bytes: base64 of the head and base64 of
/// the rest can then simply be joined.
fn with_comment(head: &[u8], form: Form, key: u64) -> Vec<u8> {
    let mut bytes = head.to_vec();
    match form {
        Form::Asked(OutputFormat::Webp) => {}
        Form::Asked(OutputFormat::Jpeg) => {
            // SOI 2, marker 2, length 2, text 45: 51 bytes.
            let comment = format!("painted by the stand-in {key:016x}");
            let comment = format!("{comment:<45}");
            bytes.extend_from_slice(&[0xFF, 0xFE]);
            let length = u16::try_from(comment.len() + 2).expect("a short comment");
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(comment.as_bytes());
        }
        // Head 33, chunk 12, keyword and text 24: 69 bytes.
        _ => odd_png::push_chunk(&mut bytes, b"tEXt", format!("Comment\0{key:016x}").as_bytes()),
    }
    debug_assert_eq!(bytes.len() % 3, 0, "the join would fall within a group");
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::io::Cursor;

    use image::ImageReader;

    use super::*;

    const PAINTERS: NonZeroUsize = NonZeroUsize::MIN;

    fn core(form: Form, key: u64) -> PictureKey {
        PictureKey { width: 1536, height: 1536, form, key }
    }

    async fn file(pictures: &Pictures, key: PictureKey) -> Vec<u8> {
        let parts = pictures.base64(key).await.concat();
        base64_simd::STANDARD.decode_to_vec(parts).unwrap()
    }

    fn decoded(file: &[u8]) -> DynamicImage {
        ImageReader::new(Cursor::new(file)).with_guessed_format().unwrap().decode().unwrap()
    }

    #[tokio::test]
    async fn pictures_weigh_what_real_ones_weigh() {
        let pictures = Pictures::new(Detail::Full, 1 << 20, PAINTERS);
        for key in [1, 0xFEED_FACE, u64::MAX / 3] {
            let png = file(&pictures, core(Form::Asked(OutputFormat::Png), key)).await;
            assert!((1_500_000..4_300_000).contains(&png.len()), "{} bytes", png.len());
            let picture = decoded(&png);
            assert_eq!((picture.width(), picture.height(), picture.color()), (1536, 1536, image::ColorType::Rgb8));
            let colours: HashSet<_> = picture.to_rgb8().pixels().map(|pixel| pixel.0).collect();
            assert!(colours.len() > 10_000, "{} colours", colours.len());

            let small = picture.resize_exact(1024, 1024, image::imageops::FilterType::Triangle).to_rgb8();
            let webp = webp::Encoder::from_rgb(&small, 1024, 1024).encode(80.0);
            assert!((40_000..300_000).contains(&webp.len()), "{} bytes of WebP", webp.len());
            assert!(webp.len() * 10 < png.len() * 7);
        }
    }

    #[tokio::test]
    async fn the_same_key_gives_the_same_bytes_and_another_key_others() {
        for detail in [Detail::Full, Detail::Cheap] {
            for format in [OutputFormat::Png, OutputFormat::Jpeg, OutputFormat::Webp] {
                let small = |key| PictureKey { width: 96, height: 64, form: Form::Asked(format), key };
                let (here, there) = (Pictures::new(detail, 0, PAINTERS), Pictures::new(detail, 1 << 20, PAINTERS));
                let first = file(&here, small(5)).await;
                assert_eq!(first, file(&there, small(5)).await);
                assert_ne!(first, file(&here, small(5 + CHEAP_VARIANTS)).await);
                let same_pixels = decoded(&first) == decoded(&file(&here, small(5 + CHEAP_VARIANTS)).await);
                assert_eq!(same_pixels, detail == Detail::Cheap && format != OutputFormat::Webp);
            }
        }
    }

    #[tokio::test]
    async fn the_cache_is_bounded_in_bytes() {
        let pictures = Pictures::new(Detail::Full, 60_000, PAINTERS);
        let small = |key| PictureKey { width: 96, height: 96, form: Form::Asked(OutputFormat::Png), key };
        for key in 0..12 {
            pictures.base64(small(key)).await;
            assert!((1..=60_000).contains(&pictures.cached_bytes()));
        }
        let kept = pictures.cache.lock().unwrap().slots.len();
        assert!(kept > 1 && kept < 12, "{kept} kept");
        assert!(pictures.cache.lock().unwrap().slots.contains_key(&small(11)));
        assert!(!pictures.cache.lock().unwrap().slots.contains_key(&small(0)));
    }
}
