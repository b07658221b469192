//! The load tests themselves under test: the binary against a real stack, and `simulate` on plans with one mistake each.
#![allow(clippy::unwrap_used)]

mod arithmetic;
mod attacks;
mod bites;
mod blind;
mod command_line;
mod comparison;
mod live;
mod monitoring;
mod plans;
mod promises;
mod runs;
mod scale_out;
mod support;
