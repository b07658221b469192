//! The whole system on one machine: embedded AWS services, and the processes that talk to them.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod embedded;
pub mod ministack;
pub mod stack;
pub mod submit;
pub mod cli;
