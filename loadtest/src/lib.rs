//! What the pipeline does under load: virtual users, thresholds, reports, a live monitor, and the scaling simulated.
#![cfg_attr(test, allow(clippy::unwrap_used))]

/// Appends to a `String`, which unlike other writers cannot fail.
macro_rules! put {
    ($text:expr, $($arguments:tt)*) => { $text.push_str(&format!($($arguments)*)) };
}

/// Appends a line to a `String`.
macro_rules! putln {
    ($text:expr, $($arguments:tt)*) => {{ put!($text, $($arguments)*); $text.push('\n'); }};
}

pub mod failure;
pub mod output;
pub mod target;
pub mod measure;
pub mod users;
pub mod scenario;
pub mod threshold;
pub mod watch;
pub mod run;
pub mod report;
pub mod capacity;
pub mod monitor;
pub mod screenshot;
pub mod simulate;
