//! Requests through the real router, with queue and store in memory, and the adapters against real servers.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod support;

mod submit;
mod requests;
mod batch;
mod sends;
mod status;
mod list;
mod wait;
mod events;
mod cancel;
mod retry;
mod faults;
mod limits;
mod logs;
mod openapi;
mod pause;
mod serving;
mod binary;
mod contract;
mod docs;
mod webhooks;
mod fuzz;
