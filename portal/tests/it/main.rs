//! The portal from outside: over HTTP on both databases, and in a real browser on the whole stack.
#![expect(clippy::unwrap_used, unreachable_pub, reason = "a test that cannot go on panics; its modules are one crate")]

mod support;

mod docs;
mod flows;
mod access;
mod outages;
mod browser;
