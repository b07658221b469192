//! The whole system on one machine: embedded AWS services, stand-ins, and the processes that talk to them.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod cli;
mod up;
mod alone;
pub mod stack;
pub mod submit;
pub mod bench;
pub mod soak;
pub mod chaos;
pub mod embedded;
pub mod bedrock;
pub mod cdn;
mod python_server;
pub mod ministack;
pub mod traces;
mod tls_edge;
pub mod moto;
pub mod terraform;
pub mod containers;
pub mod venv;
pub mod checks;
pub mod fuzz;
pub mod mutations;
