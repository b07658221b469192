//! Charts of a report, as SVG that stands in the page itself.

use plotters::prelude::*;

use crate::failure::Failure;

const SIZE: (u32, u32) = (560, 280);
/// Of the qualitative palette of Okabe and Ito, told apart by colour-blind readers as well.
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(90, 90, 90),
];

/// One line of a chart: a name, and (seconds, value) in order of time.
pub(super) type Line = (String, Vec<(f64, f64)>);

/// Draws lines over the time of a run. Without a point it is an empty chart, which says as much.
///
/// # Errors
/// When it cannot be drawn.
pub(super) fn chart(title: &str, unit: &str, seconds: f64, lines: &[Line]) -> Result<String, Failure> {
    let mut svg = String::new();
    draw(&mut svg, title, unit, seconds, lines).map_err(|error| Failure::fault(format!("{title}: {error}")))?;
    // What SVG takes for granted, said for each of its elements, is a quarter of the text.
    Ok(svg.replace(" opacity=\"1\"", "").replace(" stroke-width=\"1\"", "").replace(" stroke=\"none\"", ""))
}

fn draw(
    svg: &mut String,
    title: &str,
    unit: &str,
    seconds: f64,
    lines: &[Line],
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let highest = lines.iter().flat_map(|(_, points)| points).map(|(_, y)| *y).fold(0.0, f64::max);
    // Room for the legend above the lines.
    let top = if highest > 0.0 { highest * 1.6 } else { 1.0 };
    let decimals = if top < 0.1 {
        3
    } else if top < 10.0 {
        1
    } else {
        0
    };
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 16))
        .margin(6)
        .margin_right(16)
        .x_label_area_size(34)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..seconds.max(1.0), 0.0..top)?;
    chart
        .configure_mesh()
        .x_desc("seconds")
        .y_desc(unit)
        .label_style(("sans-serif", 12))
        .axis_desc_style(("sans-serif", 12))
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.decimals$}"))
        .x_labels(8)
        .y_labels(6)
        .max_light_lines(1)
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(225, 225, 225))
        .draw()?;
    for (index, (name, points)) in lines.iter().enumerate() {
        // Where lines lie on each other, the wide one shows below the others.
        let style = COLORS[index % COLORS.len()].stroke_width(if index == 0 { 4 } else { 2 });
        let series = chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
        series.label(name).legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 12))
        .draw()?;
    root.present()?;
    drop(chart);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_names_its_lines_and_needs_nothing_from_outside() {
        let lines = [("p95".to_owned(), vec![(0.0, 1.0), (10.0, 2.5)]), ("p50".to_owned(), vec![])];
        let svg = chart("Time to picture", "s", 60.0, &lines).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("Time to picture") && svg.contains("p95"), "{svg}");
        assert!(!svg.replace("http://www.w3.org/", "").contains("http"), "{svg}");
        assert!(chart("Nothing", "s", 0.0, &[]).unwrap().contains("Nothing"));
    }
}
