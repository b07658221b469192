//! The load tests themselves under test: the binary against a real stack, and `simulate` on plans with one mistake each.
#![allow(clippy::unwrap_used)]

mod bites;
mod command_line;
mod live;
mod monitoring;
mod plans;
mod promises;
mod runs;
mod support;
