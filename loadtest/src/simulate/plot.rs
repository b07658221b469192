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
const COLORS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(204, 121, 167), RGBColor(90, 90, 90)];

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Writes the plot of one run of each policy as SVG.
///
/// # Errors
/// When the file cannot be written.
pub fn plot(path: &Path, scenario: &Scenario, runs: &[(Contender, &Outcome)]) -> Drawn {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.titled(scenario.title, ("sans-serif", 22))?;
    let panels = root.split_evenly((3, 1));
    panel(&panels[0], scenario, runs, ("Jobs waiting and in flight (log)", true), |sample| {
        sample.visible + sample.in_flight
    })?;
    panel(&panels[1], scenario, runs, ("Workers in service", false), |sample| sample.in_service)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of a day")]
    panel(&panels[2], scenario, runs, ("Age of the oldest job, s (log)", true), |sample| sample.age_seconds as usize)?;
    root.present()?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
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
    builder.margin(8).x_label_area_size(38).y_label_area_size(72);
    // A logarithmic axis has no zero: it is drawn at one.
    if is_log {
        let mut chart = builder.build_cartesian_2d(0.0..end, (1.0..highest * 2.0).log_scale())?;
        chart
            .configure_mesh()
            .x_desc(unit)
            .y_desc(label)
            .label_style(("sans-serif", 13))
            .axis_desc_style(("sans-serif", 14))
            .y_label_formatter(&|y| format!("{y:.0}"))
            .light_line_style(WHITE)
            .draw()?;
        for (index, (contender, points)) in lines.into_iter().enumerate() {
            let style = COLORS[index % COLORS.len()].stroke_width(2);
            let points = points.into_iter().map(|(x, y)| (x, y.max(1.0)));
            chart
                .draw_series(LineSeries::new(points, style))?
                .label(contender.label())
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style));
        }
        chart
            .configure_series_labels()
            .label_font(("sans-serif", 13))
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(200, 200, 200))
            .position(SeriesLabelPosition::LowerRight)
            .draw()?;
    } else {
        let mut chart = builder.build_cartesian_2d(0.0..end, 0.0..highest + 1.0)?;
        chart
            .configure_mesh()
            .x_desc(unit)
            .y_desc(label)
            .label_style(("sans-serif", 13))
            .axis_desc_style(("sans-serif", 14))
            .y_label_formatter(&|y| format!("{y:.0}"))
            .light_line_style(WHITE)
            .draw()?;
        for (index, (_, points)) in lines.into_iter().enumerate() {
            // Steps: a fleet has no sizes in between.
            let steps = points.windows(2).flat_map(|pair| [pair[0], (pair[1].0, pair[0].1)]);
            chart.draw_series(LineSeries::new(steps, COLORS[index % COLORS.len()].stroke_width(2)))?;
        }
    }
    Ok(())
}
