//! The screen as an SVG, for documents: the cells that a terminal would get, coloured as it would colour them.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};

use super::screen::draw;
use crate::failure::Failure;
use crate::watch::Look;

/// Of the screen, in cells.
const WIDTH: u16 = 92;
const HEIGHT: u16 = 26;
/// Of a cell, in pixels.
const CELL: (f64, f64) = (8.4, 18.0);
const PADDING: f64 = 12.0;
const BACKGROUND: &str = "#16191d";

/// Draws a look.
///
/// # Errors
/// When ratatui cannot.
pub(super) fn svg(look: &Look, every: Duration) -> Result<String, Failure> {
    let failed = |error| Failure::fault(format!("the picture of the screen: {error}"));
    let mut terminal = Terminal::new(TestBackend::new(WIDTH, HEIGHT)).map_err(failed)?;
    terminal.draw(|frame| draw(frame, look, every)).map_err(failed)?;
    Ok(of_buffer(terminal.backend().buffer()))
}

fn of_buffer(buffer: &Buffer) -> String {
    let area = buffer.area();
    let (width, height) = (f64::from(area.width) * CELL.0, f64::from(area.height) * CELL.1);
    let mut svg = String::new();
    putln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {:.0}\" font-family=\"ui-monospace,'DejaVu Sans \
         Mono',Consolas,monospace\" font-size=\"14\">\n<rect width=\"100%\" height=\"100%\" rx=\"8\" \
         fill=\"{BACKGROUND}\"/>",
        width + 2.0 * PADDING,
        height + 2.0 * PADDING
    );
    for y in 0..area.height {
        let row: Vec<_> = (0..area.width).filter_map(|x| buffer.cell((x, y)).map(|cell| (x, cell))).collect();
        // One text for each run of cells that look the same.
        for run in row.chunk_by(|(_, left), (_, right)| (left.fg, left.modifier) == (right.fg, right.modifier)) {
            let Some((x, first)) = run.first() else { continue };
            let text: String = run.iter().map(|(_, cell)| cell.symbol()).collect();
            if text.trim().is_empty() {
                continue;
            }
            let cells = f64::from(u16::try_from(run.len()).unwrap_or(area.width));
            putln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" textLength=\"{:.1}\" fill=\"{}\"{}>{}</text>",
                PADDING + f64::from(*x) * CELL.0,
                PADDING + (f64::from(y) + 0.75) * CELL.1,
                cells * CELL.0,
                color(first.fg, first.modifier),
                if first.modifier.contains(Modifier::BOLD) { " font-weight=\"bold\"" } else { "" },
                // Several blanks would be drawn as one.
                crate::report::escaped(&text).replace(' ', "\u{a0}")
            );
        }
    }
    putln!(svg, "</svg>");
    svg
}

/// Colours are the terminal's own choice; these are readable on the background.
fn color(color: Color, modifier: Modifier) -> &'static str {
    match color {
        Color::Green => "#56d364",
        Color::Yellow => "#e3b341",
        Color::Red => "#ff7b72",
        Color::DarkGray => "#8b949e",
        _ if modifier.contains(Modifier::DIM) => "#8b949e",
        _ => "#e6edf3",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::{AlarmLook, QueueLook};

    #[test]
    fn the_picture_has_the_words_and_colours_of_the_screen() {
        let look = Look {
            target: "local".to_owned(),
            queue: QueueLook { dead_letters: Some(3), visible: Some(17), ..QueueLook::default() },
            alarms: vec![AlarmLook { name: "<b>".to_owned(), state: "ALARM".to_owned() }],
            ..Look::default()
        };
        let svg = svg(&look, Duration::from_secs(30)).unwrap();
        assert!(svg.contains("fill=\"#ff7b72\" font-weight=\"bold\">3</text>"), "{svg}");
        assert!(svg.contains("fill=\"#56d364\" font-weight=\"bold\">17</text>"), "{svg}");
        assert!(svg.contains("&lt;b&gt;") && !svg.contains("<b>"), "{svg}");
        assert!(svg.contains("dead\u{a0}letters\u{a0}\u{a0}"), "{svg}");
        assert!(!svg.replace("http://www.w3.org/", "").contains("http"), "{svg}");
    }
}
