//! The plot of a scenario: backlog, fleet and age over time, one line a policy.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::baseline::Contender;
use super::outcome::{Outcome, Sample};
use super::scenario::Scenario;

const SIZE: (u32, u32) = (960, 900);
/// Points of a line: more than the plot has pixels only make the file larger.
const MAX_POINTS: usize = 480;
/// Of the qualitative palette of Okabe and Ito, told apart by colour-blind readers as well.
/// And widths: where lines lie on each other, a wider one shows below a narrower.
const LINES: [(RGBColor, u32); 4] =
    [(RGBColor(0, 114, 178), 2), (RGBColor(213, 94, 0), 4), (RGBColor(204, 121, 167), 2), (RGBColor(150, 150, 150), 6)];
const LEGEND_PIXELS: i32 = 26;

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Writes the plot of one run of each policy as SVG.
///
/// # Errors
/// When the file cannot be written.
pub fn plot(path: &Path, scenario: &Scenario, runs: &[(Contender, &Outcome)]) -> Drawn {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let below = root.titled(scenario.title, ("sans-serif", 22))?;
    let (legend, below) = below.split_vertically(LEGEND_PIXELS);
    let mut left = 80;
    for (index, (contender, _)) in runs.iter().enumerate() {
        let (middle, style) = (LEGEND_PIXELS / 2, line_style(index));
        legend.draw(&PathElement::new(vec![(left, middle), (left + 24, middle)], style))?;
        legend.draw(&Text::new(contender.label(), (left + 32, middle - 7), ("sans-serif", 15)))?;
        left += 60 + 8 * i32::try_from(contender.label().len())?;
    }
    let panels = below.split_evenly((3, 1));
    panel(&panels[0], scenario, runs, ("Jobs waiting and in flight (log)", true), |sample| {
        sample.visible + sample.in_flight
    })?;
    panel(&panels[1], scenario, runs, ("Workers in service", false), |sample| sample.in_service)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of a day")]
    panel(&panels[2], scenario, runs, ("Age of the oldest job, s (log)", true), |sample| sample.age_seconds as usize)?;
    root.present()?;
    Ok(())
}

fn line_style(index: usize) -> ShapeStyle {
    let (color, width) = LINES[index % LINES.len()];
    color.stroke_width(width)
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "far below 2^52"
)]
fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    scenario: &Scenario,
    runs: &[(Contender, &Outcome)],
    (label, is_log): (&str, bool),
    value: impl Fn(&Sample) -> usize,
) -> Drawn {
    let is_day = scenario.seconds > 5.0 * 3600.0;
    let (unit, unit_seconds) = if is_day { ("Time, hours", 3600.0) } else { ("Time, minutes", 60.0) };
    let lines: Vec<(Contender, Vec<(f64, f64)>)> = runs
        .iter()
        .map(|(contender, outcome)| {
            let bucket = outcome.samples.len().div_ceil(MAX_POINTS).max(1);
            let points = outcome.samples.chunks(bucket).filter_map(|samples| {
                let highest = samples.iter().map(&value).max()? as f64;
                Some((samples.first()?.seconds / unit_seconds, highest))
            });
            (*contender, points.collect())
        })
        .collect();
    let highest = lines.iter().flat_map(|(_, points)| points).map(|(_, y)| *y).fold(1.0, f64::max);
    let end = scenario.seconds / unit_seconds;
    let mut builder = ChartBuilder::on(area);
    builder.margin(8).margin_right(24).x_label_area_size(38).y_label_area_size(72);
    // A logarithmic axis has no zero: it is drawn at one.
    if is_log {
        let mut chart = builder.build_cartesian_2d(0.0..end, (1.0..highest * 2.0).log_scale())?;
        chart
            .configure_mesh()
            .x_desc(unit)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_desc(label)
            .label_style(("sans-serif", 13))
            .axis_desc_style(("sans-serif", 14))
            .y_label_formatter(&|y| format!("{y:.0}"))
            .light_line_style(WHITE)
            .draw()?;
        // The plan's own line last, above the others.
        for (index, (_, points)) in lines.into_iter().enumerate().rev() {
            chart.draw_series(LineSeries::new(points.into_iter().map(|(x, y)| (x, y.max(1.0))), line_style(index)))?;
        }
    } else {
        let mut chart = builder.build_cartesian_2d(0.0..end, 0.0..highest + 1.0)?;
        chart
            .configure_mesh()
            .x_desc(unit)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_desc(label)
            .label_style(("sans-serif", 13))
            .axis_desc_style(("sans-serif", 14))
            .y_labels((highest as usize + 2).min(12))
            .y_label_formatter(&|y| if y.fract() == 0.0 { format!("{y:.0}") } else { String::new() })
            .light_line_style(WHITE)
            .draw()?;
        for (index, (_, points)) in lines.into_iter().enumerate().rev() {
            // Steps: a fleet has no sizes in between.
            let steps = points.windows(2).flat_map(|pair| [pair[0], (pair[1].0, pair[0].1)]);
            chart.draw_series(LineSeries::new(steps, line_style(index)))?;
        }
    }
    Ok(())
}
