//! Performs jobs: receive, claim, generate, render, publish, settle.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod app;
pub mod settings;
pub mod consumer;
pub mod slots;
pub mod delivery;
pub mod lease;
pub mod disposition;
pub mod pipeline;
pub mod claim;
pub mod source;
pub mod job_list;
pub mod limiter;
pub mod circuit;
pub mod cpu;
pub mod render;
pub mod renderer;
pub mod generate;
pub mod queue;
pub mod store;
pub mod lifecycle;
pub mod reconcile;
pub mod error;
pub mod metrics;
pub mod traces;
