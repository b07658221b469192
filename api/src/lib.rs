//! Accepts jobs, answers polls: the HTTP front of the pipeline.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod settings;
pub mod app;
pub mod context;
pub mod auth;
pub mod rate_limit;
pub mod extract;
pub mod problem;
pub mod submit;
pub mod batch;
pub mod list;
pub mod watch;
pub mod status;
pub mod events;
pub mod view;
pub mod cancel;
pub mod retry;
pub mod fleet;
pub mod openapi;
pub mod queue;
pub mod forecast;
pub mod store;
pub mod webhooks;
pub mod metrics;
