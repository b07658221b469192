//! What every process of this system does to start, be observed and stop. No domain types.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod settings;
pub mod telemetry;
pub mod traces;
pub mod readiness;
pub mod admin;
pub mod health;
pub mod detail;
pub mod serve;
pub mod shutdown;
pub mod aws;
pub mod batching;
pub mod following;
