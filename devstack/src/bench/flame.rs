//! A flame graph of a process: sampled by `perf`, drawn as one small SVG.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::BenchError;

/// Samples a second: odd, so that they do not fall into step with timers.
const FREQUENCY: &str = "397";
/// Bytes of stack that each sample keeps: async Rust is deep.
const CALL_GRAPH: &str = "dwarf,32768";
const WIDTH: f64 = 1200.0;
const ROW: f64 = 16.0;
/// Narrower frames are left out: nobody can read them, and they are most of the file.
const NARROWEST: f64 = 3.0;
/// Width of a character of the font, for what fits.
const CHARACTER: f64 = 6.2;

/// Samples the process `pid` for `how_long` and draws what it did into `svg`.
///
/// # Errors
/// When there is no `perf` that may look at it, or the file cannot be written.
pub(super) async fn sample(pid: u32, how_long: Duration, title: &str, svg: &Path) -> Result<(), BenchError> {
    let io = |what| move |source| BenchError::Io { what, source };
    let dir = tempfile::tempdir().map_err(io("the folder of the samples"))?;
    let data = dir.path().join("perf.data").display().to_string();
    let (pid, seconds) = (pid.to_string(), how_long.as_secs_f64().to_string());
    let record =
        ["record", "-F", FREQUENCY, "--call-graph", CALL_GRAPH, "-p", &pid, "-o", &data, "--", "sleep", &seconds];
    perf(&record).await?;
    let script = perf(&["script", "-i", &data, "--no-inline", "-F", "ip,sym"]).await?;
    let root = Frame::of_script(&script);
    if root.samples == 0 {
        return Err(BenchError::Http { what: "perf", reason: "it has seen nothing: is the process idle?".to_owned() });
    }
    std::fs::write(svg, root.svg(title)).map_err(io("the SVG"))
}

/// Checks that there is a `perf` and a place for the picture, before anybody waits for the rest.
///
/// # Errors
/// When one of them is missing.
pub(super) async fn check(svg: &Path) -> Result<(), BenchError> {
    perf(&["--version"]).await?;
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(svg);
    opened.map(|_| ()).map_err(|source| BenchError::Io { what: "the file for the flame graph", source })
}

async fn perf(args: &[&str]) -> Result<String, BenchError> {
    let output = Command::new("perf").args(args).stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.map_err(|source| BenchError::Io { what: "perf (install linux-perf)", source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(BenchError::Http { what: "perf", reason: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

/// A function, as called from where it stands in the tree.
#[derive(Debug, Default, PartialEq, Eq)]
struct Frame {
    samples: u32,
    children: BTreeMap<String, Frame>,
}

impl Frame {
    /// Reads the output of `perf script -F ip,sym`: a stack a paragraph, the innermost function first.
    fn of_script(script: &str) -> Self {
        let mut root = Self::default();
        for stack in script.split("\n\n") {
            let names = stack.lines().filter_map(|line| line.trim().split_once(' ')).map(|(_, symbol)| short(symbol));
            let mut names: Vec<String> = names.collect();
            names.dedup();
            if names.is_empty() {
                continue;
            }
            root.samples += 1;
            let mut frame = &mut root;
            for name in names.into_iter().rev() {
                frame = frame.children.entry(name).or_default();
                frame.samples += 1;
            }
        }
        root
    }

    fn depth(&self, scale: f64) -> usize {
        let seen = self.children.values().filter(|child| f64::from(child.samples) * scale >= NARROWEST);
        seen.map(|child| 1 + child.depth(scale)).max().unwrap_or(0)
    }

    fn svg(&self, title: &str) -> String {
        let scale = WIDTH / f64::from(self.samples);
        let rows = u32::try_from(self.depth(scale)).unwrap_or(u32::MAX);
        let height = ROW * (f64::from(rows) + 2.0);
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"monospace\" \
             font-size=\"10\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
             <text x=\"4\" y=\"12\">{}, {} samples</text>\n",
            escaped(title),
            self.samples
        );
        self.draw(&mut text, 0.0, height - ROW, scale, f64::from(self.samples));
        text.push_str("</svg>\n");
        text
    }

    fn draw(&self, text: &mut String, mut x: f64, y: f64, scale: f64, all: f64) {
        for (name, child) in &self.children {
            let width = f64::from(child.samples) * scale;
            if width >= NARROWEST {
                let share = f64::from(child.samples) / all * 100.0;
                // By name, so that the same function has one colour everywhere.
                let hue =
                    name.bytes().fold(7_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte))) % 50;
                writeln!(
                    text,
                    "<g><title>{0} ({share:.1} %)</title><rect x=\"{x:.1}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"15\" \
                     fill=\"hsl({hue} 80% 70%)\"/><text x=\"{1:.1}\" y=\"{2:.0}\">{3}</text></g>",
                    escaped(name),
                    x + 2.0,
                    y + 11.0,
                    escaped(&fitting(name, width)),
                )
                .expect("a String takes everything");
                child.draw(text, x, y - ROW, scale, all);
            }
            x += width;
        }
    }
}

/// Takes the hash and the parameters off a symbol, and what generic code repeats.
fn short(symbol: &str) -> String {
    let symbol = symbol.split("::h").next().filter(|_| has_hash(symbol)).unwrap_or(symbol);
    let (mut short, mut depth) = (String::new(), 0_u32);
    for c in symbol.chars() {
        match c {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            c if depth == 0 => short.push(c),
            _ => {}
        }
    }
    // `<T as Trait>::method` leaves only the method.
    let short = short.trim_start_matches("::").to_owned();
    if short.len() < 4 { symbol.to_owned() } else { short }
}

fn has_hash(symbol: &str) -> bool {
    let hash = symbol.rsplit("::h").next().unwrap_or_default();
    hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of characters")]
fn fitting(name: &str, width: f64) -> String {
    let room = (width / CHARACTER) as usize;
    if room < 3 { String::new() } else { name.chars().take(room).collect() }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "\
     55d0 alloc::raw_vec::grow::h0123456789abcdef
     55d1 <serde_json::ser::Compound<W,F> as serde::ser::SerializeMap>::serialize_value
     55d2 main

     55d3 main

     55d4 [unknown]
     55d2 main
";

    #[test]
    fn stacks_are_merged_from_the_root() {
        let root = Frame::of_script(SCRIPT);
        assert_eq!(root.samples, 3);
        let main = &root.children["main"];
        assert_eq!((main.samples, main.children.len()), (3, 2));
        assert_eq!(main.children["serialize_value"].children["alloc::raw_vec::grow"].samples, 1);
    }

    #[test]
    fn the_svg_shows_shares_and_is_well_formed() {
        let svg = Frame::of_script(SCRIPT).svg("image-api <x>");
        assert!(
            svg.contains("<title>main (100.0 %)</title>") && svg.contains("<title>serialize_value (33.3 %)</title>")
        );
        assert!(svg.contains("image-api &lt;x&gt;, 3 samples"), "{svg}");
        assert_eq!(svg.matches("<g>").count(), svg.matches("</g>").count());
    }
}
