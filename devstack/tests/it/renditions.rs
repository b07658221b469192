//! A job with renditions through the real binaries; each is fetched from the CDN and read by a decoder that is not ours.

use std::process::Stdio;

use devstack::bedrock::BedrockOptions;
use devstack::stack::LocalAwsKind;
use devstack::venv;
use serde_json::json;
use tokio::process::Command;

use crate::support::{Live, workspace};

/// Its wheels read AVIF since 11.3.
const PILLOW: &str = "12.0.0";

/// Prints one line for each file: format, size, and the mean difference of its bytes from the first file at that size.
const LOOK: &str = "
import sys
from PIL import Image, ImageChops, ImageStat
first = Image.open(sys.argv[1]).convert('RGB')
for name in sys.argv[1:]:
    image = Image.open(name)
    expected = first.resize(image.size, Image.Resampling.LANCZOS)
    difference = ImageStat.Stat(ImageChops.difference(expected, image.convert('RGB'))).mean
    print(image.format, *image.size, round(sum(difference) / 3, 2))
";

#[tokio::test(flavor = "multi_thread")]
async fn every_rendition_is_the_picture_in_its_size_and_format() {
    let live = Live::start(LocalAwsKind::Embedded, BedrockOptions::default(), |options| options.workers = 1).await;
    let asked = [("webp", 256), ("webp", 512), ("avif", 256), ("avif", 512), ("avif", 1024)];
    let renditions: Vec<_> = asked.iter().map(|(format, width)| json!({"format": format, "width": width})).collect();
    let id = live.submit(json!({"prompt": "a picture in many sizes", "renditions": renditions})).await;
    let view = live.ended(&id, "succeeded").await;

    let image = &view["image"];
    let told = image["renditions"].as_array().unwrap();
    assert_eq!(told.len(), asked.len(), "{view}");
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (number, picture) in std::iter::once(image).chain(told).enumerate() {
        let (status, _, bytes) = live.fetch(picture["url"].as_str().unwrap()).await;
        assert_eq!((status.as_u16(), picture["bytes"].as_u64()), (200, Some(bytes.len() as u64)), "{picture}");
        let file = folder.path().join(number.to_string());
        std::fs::write(&file, bytes).unwrap();
        files.push(file);
    }

    let venv = venv::install(&workspace().join(".dev/venvs"), "pillow", PILLOW).await.unwrap();
    let python = venv.join("bin/python");
    let looked = Command::new(python).args(["-c", LOOK]).args(&files).stdin(Stdio::null()).output().await.unwrap();
    assert!(looked.status.success(), "{}", String::from_utf8_lossy(&looked.stderr));
    let seen = String::from_utf8(looked.stdout).unwrap();
    for (line, picture) in seen.lines().zip(std::iter::once(image).chain(told)) {
        let words: Vec<&str> = line.split(' ').collect();
        let [format, width, height, difference] = words[..] else { panic!("{line}") };
        assert_eq!(picture["content_type"], format!("image/{}", format.to_lowercase()), "{line}");
        assert_eq!((picture["width"].to_string(), picture["height"].to_string()), (width.into(), height.into()));
        // Two lossy encodings of one picture differ by a few of 255.
        assert!(difference.parse::<f64>().unwrap() < 6.0, "{picture}: {line}");
    }
    assert_eq!(seen.lines().count(), files.len());
    assert_eq!(live.paid("a picture in many sizes"), 1);
    live.stop().await;
}
