//! The commands on the embedded SQS and S3, and the binary itself.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, unreachable_pub, reason = "tests")]

mod support;

mod binary;
mod dead_letters;
mod looks;
mod pauses;
