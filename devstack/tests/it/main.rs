//! The devstack seen from outside: real SDK clients, real processes.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod architecture;
mod embedded_s3;
mod embedded_sqs;
mod submit;
mod watchdog;
