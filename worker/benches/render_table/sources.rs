//! What the model may be asked for (`output_format`): the same picture as PNG, JPEG or WebP, through the whole render.

use std::path::{Path, PathBuf};

use worker::render::decode::decode;

use crate::pictures::Picture;
use crate::race::{self, Converter, Entrant, Subject};
use crate::report::{self, Equal, cpu, ssim2};
use crate::variants::{MAX_PIXELS, QUALITIES, Variant, process_nanoseconds};

/// USD: a GB through the NAT gateway, a GB of sources for the 22 days that they are kept (docs/cost.md).
const PER_GB_RECEIVED: f64 = 0.056;
const PER_GB_KEPT: f64 = 0.025 * 22.0 / 30.0;

/// Title, extension, and Pillow's options: no model documents how good its JPEG or WebP is.
const KINDS: [(&str, &str, &str); 6] = [
    ("PNG", "png", "{}"),
    ("JPEG 95, 4:4:4", "444.jpg", r#"{"quality": 95, "subsampling": 0}"#),
    ("JPEG 95, 4:2:0", "420.jpg", r#"{"quality": 95, "subsampling": 2}"#),
    ("JPEG 85, 4:2:0", "85.jpg", r#"{"quality": 85, "subsampling": 2}"#),
    ("WebP 90", "90.webp", r#"{"quality": 90, "method": 4}"#),
    ("WebP, lossless", "lossless.webp", r#"{"lossless": true, "quality": 50}"#),
];

struct Source {
    title: String,
    folder: PathBuf,
    extension: &'static str,
}

impl Source {
    fn path(&self, picture: &Picture) -> PathBuf {
        self.folder.join(format!("{}-{}.{}", picture.name, picture.side, self.extension))
    }
}

impl Entrant for Source {
    fn title(&self) -> &str {
        &self.title
    }

    fn qualities(&self) -> [f32; 3] {
        QUALITIES
    }

    fn render(&mut self, subject: &Subject<'_>, quality: f32) -> (f64, Vec<u8>) {
        let source = std::fs::read(self.path(subject.picture)).unwrap();
        let began = process_nanoseconds();
        let file = Variant::Method4.run(&source, quality);
        ((process_nanoseconds() - began) as f64 / 1e6, file)
    }
}

pub fn compare(folder: &Path, pictures: &[Picture], rounds: usize) {
    let made = folder.join("sources");
    std::fs::create_dir_all(&made).unwrap();
    // The sizes that models of ours return.
    let pictures: Vec<Picture> =
        pictures.iter().filter(|picture| (1024..=1536).contains(&picture.side)).cloned().collect();
    let mut converter = Converter::start(folder);
    let mut sources =
        KINDS.map(|(title, extension, _)| Source { title: title.to_owned(), folder: made.clone(), extension });
    for (source, (_, _, options)) in sources.iter().zip(KINDS) {
        for picture in &pictures {
            if !source.path(picture).exists() {
                converter.convert(&picture.path, &source.path(picture), options);
            }
        }
    }
    drop(converter);
    let outcomes = race::run(folder, &pictures, &mut sources, rounds);
    let all: Vec<usize> = (0..pictures.len()).collect();
    println!("\n{} pictures of 1024 and 1536 px; 'equal' is at the SSIMULACRA2 that a PNG leads to\n", all.len());
    println!(
        "| source | kB received | decode, ms | render, ms | SSIM2 | worst picture | equal: bytes | USD a million: received and kept |\n|---|--:|--:|--:|--:|--:|--:|--:|"
    );
    let decoding = decoding(&sources, &pictures, rounds);
    for ((source, outcome), decoding) in sources.iter().zip(&outcomes).zip(decoding) {
        let sizes = pictures.iter().map(|picture| std::fs::metadata(source.path(picture)).unwrap().len() as f64);
        let size = sizes.sum::<f64>() / pictures.len() as f64;
        let lost = |&index: &usize| {
            outcomes[0].samples[index][race::COMPARED].ssim2 - outcome.samples[index][race::COMPARED].ssim2
        };
        println!(
            "| {} | {:.0} | {:.1} | {:.1} | {:.2} | {:+.2} | {:.3} | {:.0} |",
            source.title,
            // As base64 in JSON.
            size * 4.0 / 3e3,
            decoding,
            cpu(outcome, &all),
            ssim2(outcome, &all),
            -all.iter().map(lost).fold(f64::MIN, f64::max),
            Equal::of(outcome, &outcomes[0], &all).bytes,
            size / 1e3 * (PER_GB_RECEIVED * 4.0 / 3.0 + PER_GB_KEPT),
        );
    }
    report::costs(&outcomes);
}

/// CPU milliseconds to decode a picture of each source, in turn.
fn decoding(sources: &[Source], pictures: &[Picture], rounds: usize) -> Vec<f64> {
    let mut least = vec![vec![f64::INFINITY; pictures.len()]; sources.len()];
    for _ in 0..rounds.max(1) {
        for (index, picture) in pictures.iter().enumerate() {
            for (source, least) in sources.iter().zip(&mut least) {
                let bytes = std::fs::read(source.path(picture)).unwrap();
                let began = process_nanoseconds();
                std::hint::black_box(decode(&bytes, MAX_PIXELS).unwrap());
                least[index] = least[index].min((process_nanoseconds() - began) as f64 / 1e6);
            }
        }
    }
    least.into_iter().map(|times| report::geometric(times.into_iter())).collect()
}
