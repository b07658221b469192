//! The plots: CPU against bytes, and the cost of a picture over how often it is seen.

use std::path::Path;

use plotters::prelude::*;

use crate::race::Outcome;
use crate::report::{Equal, cost, cpu};

const SIZE: (u32, u32) = (860, 440);
/// Of the qualitative palette of Okabe and Ito, told apart by colour-blind readers as well.
const COLORS: [RGBColor; 8] = [
    RGBColor(120, 120, 120),
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(86, 180, 233),
    RGBColor(0, 158, 115),
    RGBColor(230, 159, 0),
    RGBColor(204, 121, 167),
    RGBColor(0, 0, 0),
];
const FONT: (&str, u32) = ("sans-serif", 14);
/// Height of a line of text in pixels.
const LINE: i32 = 17;
/// Views of the last tick.
const MOST_VIEWS: f64 = 100.0;

/// Writes `cpu-bytes.svg` and `cost.svg` into `folder`.
pub fn write(outcomes: &[Outcome], folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    cpu_and_bytes(outcomes, &folder.join("cpu-bytes.svg"));
    cost_over_views(outcomes, &folder.join("cost.svg"));
}

/// A point for each pipeline, at the quality of the first.
fn cpu_and_bytes(outcomes: &[Outcome], path: &Path) {
    let all: Vec<usize> = (0..outcomes[0].samples.len()).collect();
    let points: Vec<(f64, f64)> = outcomes
        .iter()
        .map(|outcome| {
            let equal = Equal::of(outcome, &outcomes[0], &all);
            (equal.cpu * cpu(&outcomes[0], &all), 100.0 * equal.bytes)
        })
        .collect();
    let range = |values: Vec<f64>, margin: f64| {
        let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(low, high), &v| (low.min(v), high.max(v)));
        (low - margin)..(high + margin)
    };
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE).unwrap();
    let mut chart = ChartBuilder::on(&root)
        .caption("A render at Pillow's SSIMULACRA2: left and below is better", ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(42)
        .y_label_area_size(64)
        .build_cartesian_2d(
            0.0..range(points.iter().map(|point| point.0).collect(), 12.0).end,
            range(points.iter().map(|point| point.1).collect(), 2.0),
        )
        .unwrap();
    chart
        .configure_mesh()
        .x_desc("CPU milliseconds a picture")
        .y_desc("bytes, Pillow is 100")
        .label_style(FONT)
        .axis_desc_style(FONT)
        .light_line_style(WHITE)
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()
        .unwrap();
    let mut labels: Vec<(usize, (i32, i32))> =
        points.iter().enumerate().map(|(index, point)| (index, chart.backend_coord(point))).collect();
    for (index, point) in points.iter().enumerate() {
        let radius = if is_ours(&outcomes[index]) { 8 } else { 6 };
        chart.draw_series([Circle::new(*point, radius, COLORS[index % COLORS.len()].filled())]).unwrap();
    }
    // From above to below, each at least a line under the one before that it would lie on.
    labels.sort_by_key(|(_, (_, y))| *y);
    let middle = i32::try_from(SIZE.0 / 2).unwrap();
    let mut lowest = [i32::MIN; 2];
    for (index, (x, y)) in labels {
        let title = label(&outcomes[index]);
        let is_right = x > middle;
        // About seven pixels a character.
        let left = if is_right { x - 14 - 7 * i32::try_from(title.len()).unwrap() } else { x + 14 };
        let side = &mut lowest[usize::from(is_right)];
        let top = (y - LINE / 2).max(side.saturating_add(LINE));
        *side = top;
        root.draw(&Text::new(title, (left, top), FONT.into_font().color(&COLORS[index % COLORS.len()]))).unwrap();
    }
    root.present().unwrap();
}

/// A line for each pipeline.
fn cost_over_views(outcomes: &[Outcome], path: &Path) {
    let views: Vec<f64> = (0..=40_i32).map(|step| MOST_VIEWS.powf(f64::from(step) / 40.0)).collect();
    let share = |outcome: &Outcome, views: f64| 100.0 * cost(outcome, views) / cost(&outcomes[0], views);
    let values = outcomes.iter().flat_map(|outcome| views.iter().map(move |&views| share(outcome, views)));
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE).unwrap();
    let mut chart = ChartBuilder::on(&root)
        .caption("CPU, a year of storage and egress of a picture, by how often it is seen", ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(42)
        .y_label_area_size(64)
        .build_cartesian_2d((1.0..MOST_VIEWS).log_scale(), (low - 1.0)..(high + 1.0))
        .unwrap();
    chart
        .configure_mesh()
        .x_desc("views (log)")
        .y_desc("cost, Pillow is 100")
        .label_style(FONT)
        .axis_desc_style(FONT)
        .light_line_style(WHITE)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()
        .unwrap();
    for (index, outcome) in outcomes.iter().enumerate() {
        let style = COLORS[index % COLORS.len()].stroke_width(if is_ours(outcome) { 4 } else { 2 });
        chart
            .draw_series(LineSeries::new(views.iter().map(|&views| (views, share(outcome, views))), style))
            .unwrap()
            .label(label(outcome))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .label_font(FONT)
        .draw()
        .unwrap();
    root.present().unwrap();
}

/// The default of the worker is set in bold in the tables.
fn is_ours(outcome: &Outcome) -> bool {
    outcome.title.starts_with("**")
}

fn label(outcome: &Outcome) -> String {
    outcome.title.replace(['*', '`'], "")
}
