//! Performs jobs: receive, claim, generate, render, publish, settle.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod error;
pub mod generate;
pub mod cpu;
pub mod render;
