//! What the pipeline does under load: virtual users, thresholds, reports, a live monitor, and the scaling simulated.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod failure;
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
