//! The plot of a soak: memory, open files and tasks over time, one line a process.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::sample::Sample;

const SIZE: (u32, u32) = (960, 760);
/// Of the qualitative palette of Okabe and Ito, told apart by colour-blind readers as well.
const COLORS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167)];

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Writes the plot as SVG.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn write(samples: &[Sample], path: &Path) -> Drawn {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let panels = root.split_evenly((3, 1));
    panel(&panels[0], samples, "RSS, MiB", |sample| sample.rss_mib)?;
    panel(&panels[1], samples, "Open files", |sample| sample.open_files)?;
    panel(&panels[2], samples, "Tasks", |sample| sample.tasks)?;
    root.present()?;
    Ok(())
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    samples: &[Sample],
    label: &str,
    value: fn(&Sample) -> f64,
) -> Drawn {
    let end = samples.iter().map(|sample| sample.minutes).fold(1.0, f64::max);
    // From zero: what is flat looks flat.
    let most = samples.iter().map(value).fold(1.0, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end, 0.0..most)?;
    chart.configure_mesh().x_desc("minutes").y_desc(label).light_line_style(WHITE).draw()?;
    let mut processes: Vec<&str> = samples.iter().map(|sample| sample.process.as_str()).collect();
    processes.sort_unstable();
    processes.dedup();
    for (index, process) in processes.into_iter().enumerate() {
        let style = COLORS[index % COLORS.len()].stroke_width(2);
        let its = samples.iter().filter(|sample| sample.process == process);
        chart
            .draw_series(LineSeries::new(its.map(|sample| (sample.minutes, value(sample))), style))?
            .label(process)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
    }
    let corner = SeriesLabelPosition::LowerRight;
    chart.configure_series_labels().position(corner).background_style(WHITE.mix(0.85)).draw()?;
    Ok(())
}
