//! `simulate` on the committed plans, and on plans with one mistake each.

mod bites;
mod plans;
mod promises;
mod support;
