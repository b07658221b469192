//! The tables, and the plots of what a picture costs.

use std::path::Path;

use plotters::prelude::*;

use crate::pictures::Picture;
use crate::{Outcome, QUALITIES, Sample};

/// The quality that is compared.
const COMPARED: usize = 1;

/// USD: an hour of a vCPU, a GB from the CDN, a GB a month in S3 for a year.
const PER_CPU_HOUR: f64 = 0.04;
const PER_GB_SERVED: f64 = 0.1;
const PER_GB_KEPT: f64 = 0.023 * 12.0;
const VIEWS: [f64; 4] = [1.0, 10.0, 30.0, 100.0];

/// Prints the tables. The first outcome is the baseline of quality.
pub fn print(pictures: &[Picture], outcomes: &[Outcome]) {
    let all: Vec<usize> = (0..pictures.len()).collect();
    let held_out: Vec<usize> = all.iter().copied().filter(|&index| pictures[index].is_held_out).collect();
    table("Held out from tuning", &held_out, outcomes);
    table("All", &all, outcomes);
    for side in [512, 1024, 1536, 2048] {
        let of_side: Vec<usize> = all.iter().copied().filter(|&index| pictures[index].side == side).collect();
        let cells: Vec<String> = outcomes.iter().map(|outcome| format!("{:.1}", cpu_of(outcome, &of_side))).collect();
        println!("{side} px ({} pictures), CPU ms in the order of the table: {}", of_side.len(), cells.join(", "));
    }
    costs(&all, outcomes);
}

fn table(title: &str, indices: &[usize], outcomes: &[Outcome]) {
    println!("\n{title}: {} pictures, quality 80\n", indices.len());
    println!(
        "| pipeline | CPU ms | images per CPU-second | x Pillow | x sharp | bytes | worst bytes | SSIM2 | at Pillow's SSIM2: bytes | CPU ms | peak RSS, MiB |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    let baseline = &outcomes[0];
    let bytes_of =
        |outcome: &Outcome| -> f64 { indices.iter().map(|&index| outcome.samples[index][COMPARED].bytes).sum() };
    for outcome in outcomes {
        let cpu = cpu_of(outcome, indices);
        let worst = indices
            .iter()
            .map(|&index| outcome.samples[index][COMPARED].bytes / baseline.samples[index][COMPARED].bytes)
            .fold(0.0, f64::max);
        let ssim2: f64 =
            indices.iter().map(|&index| outcome.samples[index][COMPARED].ssim2).sum::<f64>() / indices.len() as f64;
        let equal = |value: fn(&Sample) -> f64| {
            geometric(indices.iter().map(|&index| {
                let target = baseline.samples[index][COMPARED].ssim2;
                at_quality(&outcome.samples[index], target, value)
            }))
        };
        let bytes = equal(|sample| sample.bytes)
            / geometric(indices.iter().map(|&index| baseline.samples[index][COMPARED].bytes));
        println!(
            "| {} | {cpu:.1} | {:.1} | {:.2} | {:.2} | {:.3} | {worst:.3} | {ssim2:.2} | {bytes:.3} | {:.1} | {:.0} |",
            outcome.title,
            1000.0 / cpu,
            cpu_of(baseline, indices) / cpu,
            cpu_of(&outcomes[1], indices) / cpu,
            bytes_of(outcome) / bytes_of(baseline),
            equal(|sample| sample.cpu_ms),
            outcome.peak_rss,
        );
    }
}

fn cpu_of(outcome: &Outcome, indices: &[usize]) -> f64 {
    geometric(indices.iter().map(|&index| outcome.samples[index][COMPARED].cpu_ms))
}

fn geometric(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    (values.map(f64::ln).sum::<f64>() / count).exp()
}

/// What `value` would be where the SSIMULACRA2 is `target`: on the line in logarithms through the two qualities next to it.
fn at_quality(samples: &[Sample; QUALITIES.len()], target: f64, value: fn(&Sample) -> f64) -> f64 {
    let (from, to) = if target <= samples[COMPARED].ssim2 { (0, 1) } else { (1, 2) };
    let (low, high) = (&samples[from], &samples[to]);
    let rise = high.ssim2 - low.ssim2;
    let share = if rise > 0.05 { ((target - low.ssim2) / rise).clamp(-1.0, 2.0) } else { 0.5 };
    (value(low).ln() + share * (value(high).ln() - value(low).ln())).exp()
}

/// USD for a million pictures: CPU, a year in S3, and being looked at.
fn cost(outcome: &Outcome, indices: &[usize], views: f64) -> f64 {
    let count = indices.len() as f64;
    let mean = |value: fn(&Sample) -> f64| {
        indices.iter().map(|&index| value(&outcome.samples[index][COMPARED])).sum::<f64>() / count
    };
    let cpu_hours = mean(|sample| sample.cpu_ms) * 1e6 / 3.6e6;
    let gigabytes = mean(|sample| sample.bytes) * 1e6 / 1e9;
    cpu_hours * PER_CPU_HOUR + gigabytes * (PER_GB_KEPT + PER_GB_SERVED * views)
}

fn costs(indices: &[usize], outcomes: &[Outcome]) {
    println!("\nUSD for a million pictures (CPU, a year in S3, egress), by views of each\n");
    println!("| pipeline | {} |", VIEWS.map(|views| format!("{views} views")).join(" | "));
    println!("|---|{}|", VIEWS.map(|_| "--:").join("|"));
    for outcome in outcomes {
        let cells = VIEWS.map(|views| format!("{:.2}", cost(outcome, indices, views)));
        println!("| {} | {} |", outcome.title, cells.join(" | "));
    }
}

/// Writes `cpu.svg` and `cost.svg` into `folder`.
pub fn plot(outcomes: &[Outcome], folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let all: Vec<usize> = (0..outcomes[0].samples.len()).collect();
    let cpu: Vec<f64> = outcomes.iter().map(|outcome| cpu_of(outcome, &all)).collect();
    bars(outcomes, &cpu, "CPU milliseconds a picture", &folder.join("cpu.svg"));
    let least = outcomes.iter().map(|outcome| cost(outcome, &all, 30.0)).fold(f64::INFINITY, f64::min);
    let above: Vec<f64> = outcomes.iter().map(|outcome| cost(outcome, &all, 30.0) - least).collect();
    bars(outcomes, &above, "USD a million pictures above the cheapest, 30 views each", &folder.join("cost.svg"));
}

fn bars(outcomes: &[Outcome], values: &[f64], caption: &str, path: &Path) {
    let root = SVGBackend::new(path, (760, 60 + 34 * u32::try_from(outcomes.len()).unwrap())).into_drawing_area();
    root.fill(&WHITE).unwrap();
    let font = |size: u32| ("sans-serif", size).into_font();
    root.draw(&Text::new(caption, (10, 14), font(16))).unwrap();
    let largest = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    for (row, (outcome, value)) in outcomes.iter().zip(values).enumerate() {
        let y = 44 + 34 * i32::try_from(row).unwrap();
        #[expect(clippy::cast_possible_truncation, reason = "pixels of a plot")]
        let end = 270 + (value / largest * 400.0) as i32;
        let color = if outcome.title.starts_with("**") { RGBColor(0, 110, 180) } else { RGBColor(150, 160, 170) };
        root.draw(&Rectangle::new([(270, y), (end, y + 20)], color.filled())).unwrap();
        root.draw(&Text::new(outcome.title.replace(['*', '`'], ""), (10, y + 4), font(13))).unwrap();
        root.draw(&Text::new(format!("{value:.1}"), (end + 6, y + 4), font(13))).unwrap();
    }
    root.present().unwrap();
}
