//! The devstack seen from outside: real SDK clients, real processes.

mod embedded_s3;
mod embedded_sqs;
mod submit;
mod watchdog;
