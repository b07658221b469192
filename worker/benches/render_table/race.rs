//! Entrants on the same pictures in turn: CPU time, bytes, and SSIMULACRA2 against the picture they were given.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use fast_ssim2::{PixelDescriptor, PixelSlice, Ssimulacra2Reference};
use image::RgbImage;
use job::STANDARD_SIDE;
use worker::render::Pixels;
use worker::render::decode::decode;
use worker::render::resize::to_square;

use crate::contestant::pillow;
use crate::pictures::Picture;
use crate::variants::{self, MAX_PIXELS};

/// Which of an entrant's three qualities is compared; the others give the line for equal quality.
pub const COMPARED: usize = 1;

/// One entrant, one picture, one quality.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    pub quality: f64,
    pub cpu_ms: f64,
    pub bytes: f64,
    pub ssim2: f64,
}

pub struct Outcome {
    pub title: String,
    /// By picture, then by quality.
    pub samples: Vec<[Sample; 3]>,
    /// MiB, of entrants that are a process of their own.
    pub peak_rss: Option<f64>,
}

/// A picture, and its pixels for those who only encode.
pub struct Subject<'a> {
    pub picture: &'a Picture,
    pub square: Pixels,
}

pub trait Entrant {
    fn title(&self) -> &str;
    /// From low to high.
    fn qualities(&self) -> [f32; 3];
    /// Returns the milliseconds of CPU and the file.
    fn render(&mut self, subject: &Subject<'_>, quality: f32) -> (f64, Vec<u8>);
    fn peak_rss(&self) -> Option<f64> {
        None
    }
}

/// Lets all entrants render all pictures.
pub fn run(folder: &Path, pictures: &[Picture], entrants: &mut [impl Entrant], rounds: usize) -> Vec<Outcome> {
    let mut converter = Converter::start(folder);
    let mut outcomes: Vec<Outcome> = entrants
        .iter()
        .map(|entrant| Outcome { title: entrant.title().to_owned(), samples: Vec::new(), peak_rss: None })
        .collect();
    for picture in pictures {
        eprintln!("{} ({} px)", picture.name, picture.side);
        let square = to_square(decode(&std::fs::read(&picture.path).unwrap(), MAX_PIXELS).unwrap(), STANDARD_SIDE);
        let subject = Subject { picture, square: square.unwrap() };
        let original = variants::imageops_square(&image::open(&picture.path).unwrap().into_rgb8());
        let reference = Ssimulacra2Reference::new(&slice(&original)).unwrap();
        let empty = Sample { quality: 0.0, cpu_ms: f64::INFINITY, bytes: 0.0, ssim2: 0.0 };
        let mut rows = vec![[empty; 3]; entrants.len()];
        // Round by round and not entrant by entrant: whatever else the machine does meets all of them.
        for round in 0..rounds.max(1) {
            for (entrant, row) in entrants.iter_mut().zip(&mut rows) {
                for (quality, sample) in entrant.qualities().into_iter().zip(row) {
                    let (cpu_ms, file) = entrant.render(&subject, quality);
                    sample.cpu_ms = sample.cpu_ms.min(cpu_ms);
                    if round == 0 {
                        sample.quality = f64::from(quality);
                        sample.bytes = file.len() as f64;
                        sample.ssim2 = reference.compare(&slice(&converter.pixels(&file))).unwrap();
                    }
                }
            }
        }
        for (outcome, row) in outcomes.iter_mut().zip(rows) {
            outcome.samples.push(row);
        }
    }
    for (outcome, entrant) in outcomes.iter_mut().zip(entrants.iter()) {
        outcome.peak_rss = entrant.peak_rss();
    }
    outcomes
}

fn slice(image: &RgbImage) -> PixelSlice<'_> {
    let stride = image.width() as usize * 3;
    PixelSlice::new(image.as_raw(), image.width(), image.height(), stride, PixelDescriptor::RGB8_SRGB).unwrap()
}

/// Pillow, for the formats that nothing here reads or writes.
pub struct Converter {
    process: Child,
    folder: PathBuf,
}

impl Converter {
    pub fn start(folder: &Path) -> Self {
        let mut command = pillow(folder, "pillow_convert.py");
        let process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        Self { process, folder: folder.to_owned() }
    }

    /// Writes the picture `from` as `to`, whose extension says the format. `options` are Pillow's own, as JSON.
    pub fn convert(&mut self, from: &Path, to: &Path, options: &str) {
        let requests = self.process.stdin.as_mut().unwrap();
        writeln!(requests, "{}\t{}\t{options}", from.display(), to.display()).unwrap();
        let mut answer = String::new();
        BufReader::new(self.process.stdout.as_mut().unwrap()).read_line(&mut answer).unwrap();
        assert_eq!(answer, "done\n", "{} cannot be converted", from.display());
    }

    /// Returns the pixels of a WebP or AVIF.
    fn pixels(&mut self, file: &[u8]) -> RgbImage {
        if file.starts_with(b"RIFF") {
            return variants::read_webp(file);
        }
        let (from, to) = (self.folder.join("converted.avif"), self.folder.join("converted.png"));
        std::fs::write(&from, file).unwrap();
        self.convert(&from, &to, r#"{"compress_level": 0}"#);
        image::open(to).unwrap().into_rgb8()
    }
}

impl Drop for Converter {
    fn drop(&mut self) {
        // Ends at the end of its input at the latest.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
