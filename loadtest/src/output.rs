//! Standard output and standard error, either of which may be closed: `loadtest run | head` must not lose a report.

use std::fmt::Display;
use std::io::{self, Write};

/// Prints a line of a result. What cannot be printed is left out: it is in the report, or somebody stopped reading.
pub fn line(text: impl Display) {
    write(&mut io::stdout().lock(), text);
}

/// Prints a line that is about the work and not its result.
pub fn aside(text: impl Display) {
    write(&mut io::stderr().lock(), text);
}

/// `println!` and `eprintln!` panic instead.
fn write(to: &mut impl Write, text: impl Display) {
    writeln!(to, "{text}").and_then(|()| to.flush()).ok();
}
