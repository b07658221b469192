//! The tables.

use crate::pictures::Picture;
use crate::race::{COMPARED, Outcome, Sample};

/// USD: an hour of a vCPU, a GB from the CDN, a GB a month in S3 for a year.
const PER_CPU_HOUR: f64 = 0.04;
const PER_GB_SERVED: f64 = 0.1;
const PER_GB_KEPT: f64 = 0.023 * 12.0;
const VIEWS: [f64; 4] = [1.0, 10.0, 30.0, 100.0];

/// Prints the tables of whole renders. The first outcome is the baseline of quality.
pub fn pipelines(pictures: &[Picture], outcomes: &[Outcome]) {
    for (title, indices) in [("Held out from tuning", held_out(pictures)), ("All", all(outcomes))] {
        beside_peers(title, &indices, outcomes);
    }
    for side in [512, 1024, 1536, 2048] {
        let of_side: Vec<usize> = (0..pictures.len()).filter(|&index| pictures[index].side == side).collect();
        let cells: Vec<String> = outcomes.iter().map(|outcome| format!("{:.1}", cpu(outcome, &of_side))).collect();
        println!("{side} px ({} pictures), CPU ms in the order of the table: {}", of_side.len(), cells.join(", "));
    }
    costs(outcomes);
}

fn held_out(pictures: &[Picture]) -> Vec<usize> {
    (0..pictures.len()).filter(|&index| pictures[index].is_held_out).collect()
}

fn all(outcomes: &[Outcome]) -> Vec<usize> {
    (0..outcomes[0].samples.len()).collect()
}

fn beside_peers(title: &str, indices: &[usize], outcomes: &[Outcome]) {
    println!("\n{title}: {} pictures\n", indices.len());
    println!(
        "| pipeline | CPU ms | images per CPU-second | x Pillow | x sharp | bytes | worst bytes | SSIM2 | peak RSS, MiB | at Pillow's SSIM2: pictures | x Pillow | bytes | worst bytes |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    let baseline = &outcomes[0];
    for outcome in outcomes {
        let cpu_ms = cpu(outcome, indices);
        let equal = Equal::of(outcome, baseline, indices);
        println!(
            "| {} | {cpu_ms:.1} | {:.1} | {:.2} | {:.2} | {:.3} | {:.3} | {:.2} | {:.0} | {} | {:.2} | {:.3} | {:.3} |",
            outcome.title,
            1000.0 / cpu_ms,
            cpu(baseline, indices) / cpu_ms,
            cpu(&outcomes[1], indices) / cpu_ms,
            bytes(outcome, indices) / bytes(baseline, indices),
            worst(outcome, baseline, indices),
            ssim2(outcome, indices),
            outcome.peak_rss.unwrap_or(f64::NAN),
            equal.pictures,
            1.0 / equal.cpu,
            equal.bytes,
            equal.worst_bytes,
        );
    }
}

/// Prints how the others compare with the first.
pub fn beside_the_first(pictures: &[Picture], outcomes: &[Outcome]) {
    let baseline = &outcomes[0];
    for (title, indices) in [("Held out from tuning", held_out(pictures)), ("All", all(outcomes))] {
        println!("\n{title}: {} pictures; 'equal' is at the SSIMULACRA2 of the first row\n", indices.len());
        println!(
            "| | quality | CPU ms | CPU | bytes | worst bytes | SSIM2 | equal: pictures | quality | CPU | bytes | worst bytes |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
        );
        for outcome in outcomes {
            let cpu_ms = cpu(outcome, &indices);
            let equal = Equal::of(outcome, baseline, &indices);
            println!(
                "| {} | {:.0} | {cpu_ms:.1} | {:.2} | {:.3} | {:.3} | {:.2} | {} | {:.0} | {:.2} | {:.3} | {:.3} |",
                outcome.title,
                outcome.samples[0][COMPARED].quality,
                cpu_ms / cpu(baseline, &indices),
                bytes(outcome, &indices) / bytes(baseline, &indices),
                worst(outcome, baseline, &indices),
                ssim2(outcome, &indices),
                equal.pictures,
                equal.quality,
                equal.cpu,
                equal.bytes,
                equal.worst_bytes,
            );
        }
    }
    costs(outcomes);
}

/// Beside the baseline where the SSIMULACRA2 is the baseline's: interpolated over quality, picture by picture, and only of
/// those whose three qualities come within half a point of it.
pub struct Equal {
    pub pictures: usize,
    /// Mean of the setting.
    pub quality: f64,
    /// Geometric mean of the ratios.
    pub cpu: f64,
    /// Ratio of the totals.
    pub bytes: f64,
    pub worst_bytes: f64,
}

impl Equal {
    pub fn of(outcome: &Outcome, baseline: &Outcome, indices: &[usize]) -> Self {
        let pairs: Vec<(Sample, Sample)> = indices
            .iter()
            .filter_map(|&index| {
                let its = baseline.samples[index][COMPARED];
                Some((at_quality(&outcome.samples[index], its.ssim2)?, its))
            })
            .collect();
        let total = |bytes: fn(&(Sample, Sample)) -> f64| pairs.iter().map(bytes).sum::<f64>();
        Self {
            pictures: pairs.len(),
            quality: pairs.iter().map(|(ours, _)| ours.quality).sum::<f64>() / pairs.len() as f64,
            cpu: geometric(pairs.iter().map(|(ours, its)| ours.cpu_ms / its.cpu_ms)),
            bytes: total(|(ours, _)| ours.bytes) / total(|(_, its)| its.bytes),
            worst_bytes: pairs.iter().map(|(ours, its)| ours.bytes / its.bytes).fold(0.0, f64::max),
        }
    }
}

pub fn cpu(outcome: &Outcome, indices: &[usize]) -> f64 {
    geometric(indices.iter().map(|&index| outcome.samples[index][COMPARED].cpu_ms))
}

fn bytes(outcome: &Outcome, indices: &[usize]) -> f64 {
    indices.iter().map(|&index| outcome.samples[index][COMPARED].bytes).sum()
}

fn worst(outcome: &Outcome, baseline: &Outcome, indices: &[usize]) -> f64 {
    let ratio = |&index: &usize| outcome.samples[index][COMPARED].bytes / baseline.samples[index][COMPARED].bytes;
    indices.iter().map(ratio).fold(0.0, f64::max)
}

pub fn ssim2(outcome: &Outcome, indices: &[usize]) -> f64 {
    indices.iter().map(|&index| outcome.samples[index][COMPARED].ssim2).sum::<f64>() / indices.len() as f64
}

pub fn geometric(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    (values.map(f64::ln).sum::<f64>() / count).exp()
}

/// Beyond the qualities that were tried, the line is followed for so many points of SSIMULACRA2.
const REACH: f64 = 0.5;

/// What it would be where the SSIMULACRA2 is `target`: on the line in logarithms through the two qualities next to it. None
/// where that is out of reach.
fn at_quality(samples: &[Sample; 3], target: f64) -> Option<Sample> {
    let (from, to) = if target <= samples[COMPARED].ssim2 { (0, 1) } else { (1, 2) };
    let (low, high) = (&samples[from], &samples[to]);
    if target < low.ssim2 - REACH || target > high.ssim2 + REACH {
        return None;
    }
    let rise = high.ssim2 - low.ssim2;
    if rise < REACH / 4.0 {
        // Quality does not rise with the setting: there is no line, and the sample is as near as it gets.
        return ((samples[COMPARED].ssim2 - target).abs() <= REACH).then_some(samples[COMPARED]);
    }
    let share = (target - low.ssim2) / rise;
    let between = |low: f64, high: f64| (low.ln() + share * (high.ln() - low.ln())).exp();
    Some(Sample {
        quality: between(low.quality, high.quality),
        cpu_ms: between(low.cpu_ms, high.cpu_ms),
        bytes: between(low.bytes, high.bytes),
        ssim2: target,
    })
}

/// USD for a million pictures: CPU, a year in S3, and being looked at.
pub fn cost(outcome: &Outcome, views: f64) -> f64 {
    let count = outcome.samples.len() as f64;
    let mean = |value: fn(&Sample) -> f64| {
        outcome.samples.iter().map(|samples| value(&samples[COMPARED])).sum::<f64>() / count
    };
    let cpu_hours = mean(|sample| sample.cpu_ms) * 1e6 / 3.6e6;
    let gigabytes = mean(|sample| sample.bytes) * 1e6 / 1e9;
    cpu_hours * PER_CPU_HOUR + gigabytes * (PER_GB_KEPT + PER_GB_SERVED * views)
}

pub fn costs(outcomes: &[Outcome]) {
    println!("\nUSD for a million pictures (CPU, a year in S3, egress), by views of each\n");
    println!("| pipeline | {} |", VIEWS.map(|views| format!("{views} views")).join(" | "));
    println!("|---|{}|", VIEWS.map(|_| "--:").join("|"));
    for outcome in outcomes {
        let cells = VIEWS.map(|views| format!("{:.2}", cost(outcome, views)));
        println!("| {} | {} |", outcome.title, cells.join(" | "));
    }
}
