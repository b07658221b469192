//! The whole worker on in-memory fakes and a paused clock, and its adapters against real servers.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, unreachable_pub, reason = "tests")]

mod support;

mod published;
mod claims;
mod redelivery;
mod retry;
mod job_list;
mod transient;
mod webhooks;
mod permanent;
mod poison;
mod outage;
mod second_source;
mod lease_loss;
mod shutdown;
mod pause;
mod reconcile;
mod backpressure;
mod lanes;
mod quota;
mod contract;
mod simulation;
mod model;
mod fuzz;
mod lifecycle;
mod model_life;
mod binary;
mod docs;
