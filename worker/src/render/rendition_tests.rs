//! Renditions: the standard picture in other sizes and formats.

use image::imageops;

use super::test_sources::*;
use super::tests::{assert_close, webp_pixels};
use super::*;

fn renditions(specs: &[(u32, ImageFormat)]) -> Vec<RenditionSpec> {
    specs.iter().map(|&(side, format)| RenditionSpec::new(side, format).unwrap()).collect()
}

#[test]
fn renditions_are_the_standard_picture_in_other_sizes() {
    let source = scene(1536, 1024);
    let specs = renditions(&[(512, ImageFormat::Webp), (256, ImageFormat::Webp), (256, ImageFormat::Avif)]);
    let made = render(&png_of(source.clone()), &RenderSettings::default(), &specs, &Provenance::default()).unwrap();
    assert_eq!(
        made.rendition,
        render(&png_of(source), &RenderSettings::default(), &[], &Provenance::default()).unwrap().rendition
    );
    assert_eq!(made.extra.iter().map(|rendition| rendition.spec).collect::<Vec<_>>(), specs);
    let standard = webp_pixels(&made.rendition.bytes);
    for rendition in &made.extra[..2] {
        let side = rendition.spec.side();
        let expected = imageops::resize(&standard, side, side, imageops::FilterType::Lanczos3);
        let found = webp_pixels(&rendition.bytes);
        assert_close(&found, &expected, 30.0, &rendition.spec.to_string());
    }
    // Nothing here reads AVIF; devstack/tests/it/renditions.rs does, with another decoder.
    let avif = &made.extra[2].bytes;
    assert_eq!(avif.get(4..12), Some(&b"ftypavif"[..]));
    assert!(made.extra.iter().all(|rendition| rendition.bytes.len() < made.rendition.bytes.len()));
}

#[test]
fn renditions_are_the_same_on_any_number_of_threads() {
    let source = png_of(scene(640, 640));
    let specs = renditions(&[(256, ImageFormat::Webp), (256, ImageFormat::Avif), (512, ImageFormat::Webp)]);
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let made =
            pool.install(|| render(&source, &RenderSettings::default(), &specs, &Provenance::default())).unwrap();
        (made.rendition, made.extra, made.thumbhash)
    };
    assert_eq!(on(1), on(3));
}
