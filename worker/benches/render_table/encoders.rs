//! Encoders alone, on one thread, from pixels that are decoded and resized.

use std::path::Path;

use worker::render::Pixels;
use worker::render::encode::{avif as rav1e, stock_webp, webp as pruned};

use crate::pictures::Picture;
use crate::race::{self, Entrant, Subject};
use crate::report;
use crate::variants::{QUALITIES, process_nanoseconds};

pub struct Encoder {
    title: String,
    qualities: [f32; 3],
    encode: Box<dyn Fn(&Pixels, f32) -> Vec<u8>>,
}

impl Entrant for Encoder {
    fn title(&self) -> &str {
        &self.title
    }

    fn qualities(&self) -> [f32; 3] {
        self.qualities
    }

    fn render(&mut self, subject: &Subject<'_>, quality: f32) -> (f64, Vec<u8>) {
        let began = process_nanoseconds();
        let file = (self.encode)(&subject.square, quality);
        ((process_nanoseconds() - began) as f64 / 1e6, file)
    }
}

/// libwebp as the crate `webp` brings it, at method 4 and others; then ours.
pub fn webp() -> Vec<Encoder> {
    let stock = [4, 2, 5, 6].map(|method| Encoder {
        title: format!("crate `webp`, method {method}"),
        qualities: QUALITIES,
        encode: Box::new(move |pixels, quality| stock_webp(pixels, quality, method).unwrap().to_vec()),
    });
    let ours = [4, 2, 5, 6].map(ours);
    stock.into_iter().chain(ours).collect()
}

/// WebP as the worker makes it, then AVIF.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "62 to 78")]
pub fn avif() -> Vec<Encoder> {
    let avif = [10, 9, 8].map(|speed| Encoder {
        title: format!("rav1e, speed {speed}"),
        qualities: [62.0, 70.0, 78.0],
        encode: Box::new(move |pixels, quality| rav1e(pixels, quality as u8, speed).unwrap().to_vec()),
    });
    std::iter::once(ours(4)).chain(avif).collect()
}

fn ours(method: u8) -> Encoder {
    Encoder {
        title: format!("`webp-encoder`, method {method}"),
        qualities: QUALITIES,
        encode: Box::new(move |pixels, quality| pruned(pixels, quality, method).unwrap().to_vec()),
    }
}

pub fn compare(folder: &Path, pictures: &[Picture], mut encoders: Vec<Encoder>, rounds: usize) {
    let outcomes = race::run(folder, pictures, &mut encoders, rounds);
    report::beside_the_first(pictures, &outcomes);
}
