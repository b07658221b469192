//! `simulate` on the committed plans, and on plans with one mistake each.
#![allow(clippy::unwrap_used)]

mod bites;
mod plans;
mod promises;
mod support;
