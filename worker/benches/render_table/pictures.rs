//! The inputs: photographs and illustrations from two packages of Debian and two drawn here, as PNGs like a model's.

use std::path::{Path, PathBuf};
use std::process::Command;

use image::imageops::{self, FilterType};
use image::{DynamicImage, Rgb, RgbImage};

use crate::contestant::run;

/// GPL-2+ and CC-BY-SA-4.0; LGPL-3. Downloaded with `apt-get download`, unpacked and never installed.
const PACKAGES: [&str; 2] = ["mate-backgrounds", "plasma-workspace-wallpapers"];

#[derive(Debug, Clone)]
pub struct Picture {
    pub name: &'static str,
    pub path: PathBuf,
    pub side: u32,
    /// Not looked at while the encoder was tuned.
    pub is_held_out: bool,
}

/// Name, file, side of the input, RGBA, held out.
const PICTURES: [(&str, &str, u32, bool, bool); 22] = [
    ("garden", "mate/nature/Garden.jpg", 1024, false, false),
    ("storm", "mate/nature/Storm.jpg", 1024, true, false),
    ("autumn", "Autumn/contents/images/2560x1600.jpg", 1536, false, false),
    ("cups", "ColorfulCups/contents/images/2560x1600.jpg", 1024, false, false),
    ("elephants", "mate/abstract/Elephants_3840x2160.jpg", 2048, false, false),
    ("kay", "Kay/contents/images/5120x2880.png", 1024, true, false),
    ("canopee", "Canopee/contents/images/3840x2160.png", 1536, false, false),
    ("konqui", "FlyingKonqui/contents/images/2560x1600.png", 512, false, false),
    ("flower", "mate/nature/YellowFlower.jpg", 1024, false, true),
    ("wood", "mate/nature/Wood.jpg", 1024, true, true),
    ("ladybird", "mate/nature/LadyBird.jpg", 1536, false, true),
    ("meadow", "mate/nature/GreenMeadow.jpg", 1024, false, true),
    ("dune", "mate/nature/Dune.jpg", 1024, false, true),
    ("water", "BytheWater/contents/images/2560x1600.jpg", 1536, true, true),
    ("leaf", "FallenLeaf/contents/images/2560x1600.jpg", 1024, false, true),
    ("ripple", "ColdRipple/contents/images/2560x1600.jpg", 512, false, true),
    ("patak", "Patak/contents/images/5120x2880.png", 2048, false, true),
    ("landing", "SafeLanding/contents/images/5120x2880.jpg", 2048, true, true),
    ("altai", "Altai/contents/images/5120x2880.png", 1024, false, true),
    ("cluster", "Cluster/contents/images/3840x2160.png", 1536, false, true),
    ("poster", "", 1024, false, true),
    ("mosaic", "", 1024, true, true),
];

/// Makes what is not there yet.
pub fn all(folder: &Path) -> Vec<Picture> {
    let inputs = folder.join("inputs");
    std::fs::create_dir_all(&inputs).unwrap();
    PICTURES
        .iter()
        .map(|&(name, file, side, has_alpha, is_held_out)| {
            let path = inputs.join(format!("{name}-{side}.png"));
            if !path.exists() {
                let image = match name {
                    "poster" => poster(side),
                    "mosaic" => mosaic(side),
                    _ => square(&original(folder, file), side),
                };
                let image = DynamicImage::ImageRgb8(image);
                let image = if has_alpha { DynamicImage::ImageRgba8(image.into_rgba8()) } else { image };
                image.save(&path).unwrap();
            }
            Picture { name, path, side, is_held_out }
        })
        .collect()
}

fn square(image: &DynamicImage, side: u32) -> RgbImage {
    let image = image.to_rgb8();
    let shorter = image.width().min(image.height());
    assert!(shorter >= side, "only ever made smaller: what is blown up is blurred");
    let (left, top) = ((image.width() - shorter) / 2, (image.height() - shorter) / 2);
    let cropped = imageops::crop_imm(&image, left, top, shorter, shorter).to_image();
    imageops::resize(&cropped, side, side, FilterType::Lanczos3)
}

fn original(folder: &Path, file: &str) -> DynamicImage {
    let unpacked = folder.join("packages");
    if !unpacked.join("complete").exists() {
        std::fs::create_dir_all(&unpacked).unwrap();
        println!("downloading {} (140 MB)", PACKAGES.join(" and "));
        run(Command::new("apt-get").arg("download").args(PACKAGES).current_dir(&unpacked));
        for entry in std::fs::read_dir(&unpacked).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                run(Command::new("dpkg-deb").arg("--extract").arg(&path).arg(&unpacked));
                std::fs::remove_file(path).unwrap();
            }
        }
        std::fs::write(unpacked.join("complete"), "").unwrap();
    }
    let found = ["backgrounds", "wallpapers"].map(|kind| unpacked.join("usr/share").join(kind).join(file));
    let path = found.iter().find(|path| path.exists()).unwrap_or_else(|| panic!("{file} is in no package"));
    image::open(path).unwrap()
}

/// Discs with soft edges on a slope.
fn poster(side: u32) -> RgbImage {
    RgbImage::from_fn(side, side, |x, y| {
        let (u, v) = (f64::from(x) / f64::from(side), f64::from(y) / f64::from(side));
        let mut color = [0.95 - 0.3 * v, 0.75 - 0.2 * u, 0.55 + 0.3 * v];
        for disc in 0..14 {
            let angle = f64::from(disc) * 2.4;
            let (cx, cy) = (0.5 + 0.04 * f64::from(disc) * angle.cos(), 0.5 + 0.04 * f64::from(disc) * angle.sin());
            let radius = 0.05 + 0.008 * f64::from(disc);
            let inside = ((radius - (u - cx).hypot(v - cy)) * f64::from(side)).clamp(0.0, 1.0);
            let paint = [0.5 + 0.5 * angle.sin(), 0.5 + 0.5 * (angle * 1.7).cos(), 0.5 + 0.5 * (angle * 0.6).sin()];
            for (share, paint) in color.iter_mut().zip(paint) {
                *share += (paint - *share) * inside;
            }
        }
        bytes(color)
    })
}

/// Tiles in many colours with a grain.
fn mosaic(side: u32) -> RgbImage {
    let mut noise = 0x2545_f491_u32;
    RgbImage::from_fn(side, side, |x, y| {
        noise ^= noise << 13;
        noise ^= noise >> 17;
        noise ^= noise << 5;
        let tile = f64::from((x / 37) * 31 + (y / 29) * 17);
        let grain = f64::from(noise % 64) / 640.0;
        let edge = if x % 37 < 2 || y % 29 < 2 { 0.3 } else { 1.0 };
        bytes(
            [0.5 + 0.4 * tile.sin(), 0.5 + 0.4 * (tile * 1.3).cos(), 0.5 + 0.4 * (tile * 0.7).sin()]
                .map(|share| share * edge + grain),
        )
    })
}

#[expect(clippy::cast_possible_truncation, reason = "saturates, and that is wanted")]
fn bytes(color: [f64; 3]) -> Rgb<u8> {
    Rgb(color.map(|share| (share * 255.0).round() as u8))
}
