//! The devstack seen from outside: real SDK clients, real processes.
#![expect(clippy::unwrap_used, unreachable_pub, reason = "a test that cannot go on panics; its modules are one crate")]

mod support;
mod secrets;

mod architecture;
mod features;
mod embedded_s3;
mod embedded_sqs;
mod submit;
mod watchdog;
mod openapi;
mod end_to_end;
mod renditions;
mod clients;
mod faults;
mod second_source;
mod traces;
mod compose;
