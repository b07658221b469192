//! Performs jobs: receive, claim, generate, render, publish, settle.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod app;
pub mod settings;
pub mod consumer;
pub mod lane;
pub mod tenants;
pub mod slots;
pub mod delivery;
pub mod lease;
pub mod disposition;
pub mod pipeline;
pub mod claim;
pub mod source;
pub mod models;
pub mod job_list;
pub mod notices;
pub mod limiter;
pub mod quota;
pub mod circuit;
pub mod cpu;
pub mod render;
pub mod renderer;
pub mod generate;
pub mod model_life;
pub mod queue;
pub mod store;
pub mod lifecycle;
pub mod reconcile;
pub mod error;
pub mod metrics;
pub mod traces;
